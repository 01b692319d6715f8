/* The page as Prometheus text (exposition format 0.0.4). Whoever is asked for /metrics, in one thread of its process; reads the page without a lock, so
 * that numbers which belong together may be a moment apart, but a histogram's count is always that of its buckets. Owns nothing; fails only when
 * memory is out.
 *
 * The text is as long as there is something to say: a route that nobody asked has no lines. */
#include "text.h"

#include "shape.h"

#include "doorbuster/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_FIRST 32768

/* --- a text that grows ---------------------------------------------------------------------------------------------------------------- */
static bool make_room(struct metrics_text *text, size_t bytes)
{
    size_t room = text->room > 0 ? text->room : ROOM_FIRST;
    while (room - text->used <= bytes) {
        room *= 2;
    }
    if (room != text->room) {
        char *grown = realloc(text->text, room);
        if (grown == NULL) {
            text->failed = true;
            return false;
        }
        text->text = grown;
        text->room = room;
    }
    return true;
}

void metrics_append(struct metrics_text *text, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    CHECK(bytes >= 0 && (size_t)bytes < sizeof line);
    if (!text->failed && make_room(text, (size_t)bytes)) {
        memcpy(text->text + text->used, line, (size_t)bytes + 1);
        text->used += (size_t)bytes;
    }
}

void metrics_append_head(struct metrics_text *text, const char *name, const char *type, const char *help)
{
    metrics_append(text, "# HELP doorbuster_%s %s\n# TYPE doorbuster_%s %s\n", name, help, name, type);
}

/* --- counters ------------------------------------------------------------------------------------------------------------------------- */
struct labelled_counter {
    const char *label;
    enum metrics_counter counter;
};

static void append_labelled(struct metrics_text *text, const struct metrics_page *page, const char *name,
                            const char *label, const struct labelled_counter *each, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        metrics_append(text, "doorbuster_%s{%s=\"%s\"} %" PRIu64 "\n", name, label, each[i].label,
                       metrics_sum(page, each[i].counter));
    }
}

static void append_labelled_counters(struct metrics_text *text, const struct metrics_page *page)
{
    static const struct labelled_counter outcomes[] = {
#define X(outcome) {#outcome, METRICS_purchases_##outcome},
        METRICS_OUTCOMES(X)
#undef X
    };
    static const struct labelled_counter limits[] = {
#define X(limit) {#limit, METRICS_rate_limited_##limit},
        METRICS_LIMITS(X)
#undef X
    };
    static const struct labelled_counter queues[] = {
#define X(queue) {#queue, METRICS_shed_##queue},
        METRICS_SHEDS(X)
#undef X
    };
    metrics_append_head(text, "purchases_total", "counter", "purchases answered, by what came of them");
    append_labelled(text, page, "purchases_total", "outcome", outcomes, sizeof outcomes / sizeof outcomes[0]);
    metrics_append_head(text, "rate_limited_total", "counter", "requests answered 429 by a rate limit");
    append_labelled(text, page, "rate_limited_total", "limit", limits, sizeof limits / sizeof limits[0]);
    metrics_append_head(text, "shed_total", "counter", "requests turned away early because a queue was full");
    append_labelled(text, page, "shed_total", "queue", queues, sizeof queues / sizeof queues[0]);
}

static void append_counters(struct metrics_text *text, const struct metrics_page *page)
{
    static const struct {
        const char *name, *help;
        enum metrics_counter counter;
    } counters[] = {
#define X(name, help) {#name "_total", help, METRICS_##name},
        METRICS_COUNTERS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        metrics_append_head(text, counters[i].name, "counter", counters[i].help);
        metrics_append(text, "doorbuster_%s %" PRIu64 "\n", counters[i].name,
                       metrics_sum(page, counters[i].counter));
    }
}

/* --- histograms ----------------------------------------------------------------------------------------------------------------------- */
/* `labels`: "" or `route="purchase",`. */
static void append_buckets(struct metrics_text *text, const char *name, const char *labels,
                           const struct metrics_shape *shape, const struct metrics_buckets *buckets)
{
    double unit = shape->is_time ? 1e6 : 1;
    int label_bytes = labels[0] != '\0' ? (int)strlen(labels) - 1 : 0; /* without the comma */
    const char *open = label_bytes > 0 ? "{" : "", *close = label_bytes > 0 ? "}" : "";
    uint64_t count = 0;
    for (size_t i = 0; i < shape->edges; i++) {
        count += buckets->counts[i];
        metrics_append(text, "doorbuster_%s_bucket{%sle=\"%g\"} %" PRIu64 "\n", name, labels,
                       (double)shape->edge[i] / unit, count);
    }
    count += buckets->counts[shape->edges];
    metrics_append(text, "doorbuster_%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, count);
    metrics_append(text, "doorbuster_%s_sum%s%.*s%s %.*f\n", name, open, label_bytes, labels, close,
                   shape->is_time ? 6 : 0, (double)buckets->sum / unit);
    metrics_append(text, "doorbuster_%s_count%s%.*s%s %" PRIu64 "\n", name, open, label_bytes, labels, close,
                   count);
}

static void append_histograms(struct metrics_text *text, const struct metrics_page *page)
{
    static const struct {
        const char *name, *help;
        enum metrics_histogram histogram;
    } histograms[] = {
#define X(name, shown, help) {shown, help, METRICS_HISTOGRAM_##name},
        METRICS_HISTOGRAMS(X)
#undef X
    };
    for (size_t i = 0; i < METRICS_HISTOGRAMS_COUNT; i++) {
        struct metrics_buckets sum = {0};
        size_t next = 0;
        for (const struct metrics_slot *slot; (slot = metrics_next_slot(page, &next)) != NULL;) {
            metrics_add_up_buckets(&slot->histograms[i], &sum);
        }
        metrics_append_head(text, histograms[i].name, "histogram", histograms[i].help);
        append_buckets(text, histograms[i].name, "", metrics_shape_of(histograms[i].histogram), &sum);
    }
}

/* --- answers -------------------------------------------------------------------------------------------------------------------------- */
/* Of all routes that have this label. */
struct answers {
    const char *label;
    uint64_t statuses[METRICS_STATUSES_MAX];
    struct metrics_buckets took;
};

static struct answers *answers_of(struct answers *list, size_t *count, const char *label)
{
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(list[i].label, label) == 0) {
            return &list[i];
        }
    }
    struct answers *added = &list[(*count)++];
    *added = (struct answers){.label = label};
    return added;
}

static void add_up_route(const struct metrics_page *page, size_t row, struct answers *io)
{
    size_t next = 0;
    for (const struct metrics_slot *slot; (slot = metrics_next_slot(page, &next)) != NULL;) {
        for (size_t i = 0; i < METRICS_STATUSES_MAX; i++) {
            io->statuses[i] += __atomic_load_n(&slot->answers[row][i], __ATOMIC_RELAXED);
        }
        metrics_add_up_buckets(&slot->took_us[row], &io->took);
    }
}

static void append_statuses(struct metrics_text *text, const struct answers *answers)
{
    for (size_t i = 0; i < METRICS_STATUSES_MAX; i++) {
        char status[16] = "other";
        if (metrics_statuses[i] != 0) {
            snprintf(status, sizeof status, "%u", metrics_statuses[i]);
        }
        if (answers->statuses[i] > 0) {
            metrics_append(text, "doorbuster_http_requests_total{route=\"%s\",status=\"%s\"} %" PRIu64 "\n",
                           answers->label, status, answers->statuses[i]);
        }
    }
}

static bool has_any(const struct metrics_buckets *buckets)
{
    for (size_t i = 0; i < METRICS_BUCKETS_MAX; i++) {
        if (buckets->counts[i] > 0) {
            return true;
        }
    }
    return false;
}

static void append_answers(struct metrics_text *text, const struct metrics_page *page,
                           const struct metrics_names *names)
{
    static struct answers list[METRICS_ROUTES_MAX + 1]; /* one thread */
    size_t count = 0;
    CHECK(names->route_count <= METRICS_ROUTES_MAX);
    for (size_t i = 0; i < names->route_count; i++) {
        add_up_route(page, i, answers_of(list, &count, names->route_labels[i]));
    }
    add_up_route(page, METRICS_ROUTES_MAX, answers_of(list, &count, "unmatched"));
    metrics_append_head(text, "http_requests_total", "counter", "HTTP requests answered");
    for (size_t i = 0; i < count; i++) {
        append_statuses(text, &list[i]);
    }
    metrics_append_head(text, "http_request_duration_seconds", "histogram",
                        "from a request's head to its answer");
    for (size_t i = 0; i < count; i++) {
        char label[128];
        snprintf(label, sizeof label, "route=\"%s\",", list[i].label);
        if (has_any(&list[i].took)) {
            append_buckets(text, "http_request_duration_seconds", label, &metrics_times, &list[i].took);
        }
    }
}

/* --- gauges --------------------------------------------------------------------------------------------------------------------------- */
static int64_t read_gauge(const struct metrics_slot *slot, enum metrics_gauge gauge)
{
    return __atomic_load_n(&slot->gauges[gauge], __ATOMIC_RELAXED);
}

static int64_t sum_gauge(const struct metrics_page *page, enum metrics_gauge gauge)
{
    int64_t sum = 0;
    size_t next = 0;
    for (const struct metrics_slot *slot; (slot = metrics_next_slot(page, &next)) != NULL;) {
        sum += read_gauge(slot, gauge);
    }
    return sum;
}

static void append_gauges(struct metrics_text *text, const struct metrics_page *page)
{
    static const struct {
        const char *name, *help;
        enum metrics_gauge gauge;
    } gauges[] = {
#define X(name, help) {#name, help, METRICS_GAUGE_##name},
        METRICS_GAUGES(X)
#undef X
    };
    static const struct {
        const char *label;
        enum metrics_gauge gauge;
    } queues[] = {
#define X(queue) {#queue, METRICS_GAUGE_queue_##queue},
        METRICS_QUEUES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof gauges / sizeof gauges[0]; i++) {
        metrics_append_head(text, gauges[i].name, "gauge", gauges[i].help);
        metrics_append(text, "doorbuster_%s %" PRId64 "\n", gauges[i].name, sum_gauge(page, gauges[i].gauge));
    }
    metrics_append_head(text, "pool_queue_jobs", "gauge", "blocking jobs waiting or running");
    for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++) {
        metrics_append(text, "doorbuster_pool_queue_jobs{queue=\"%s\"} %" PRId64 "\n", queues[i].label,
                       sum_gauge(page, queues[i].gauge));
    }
}

static void append_breaker(struct metrics_text *text, const struct metrics_page *page, const char *breaker,
                           enum metrics_gauge gauge)
{
    static const char *const states[] = {"closed", "half-open", "open"}; /* enum breaker_state */
    for (int64_t state = 0; state < 3; state++) {
        unsigned workers = 0;
        for (size_t i = 0; i < METRICS_WORKERS_MAX; i++) {
            const struct metrics_slot *slot = &page->workers[i];
            workers +=
                __atomic_load_n(&slot->used, __ATOMIC_RELAXED) != 0 && read_gauge(slot, gauge) == state;
        }
        metrics_append(text, "doorbuster_breaker_state{breaker=\"%s\",state=\"%s\"} %u\n", breaker,
                       states[state], workers);
    }
}

static void append_breakers(struct metrics_text *text, const struct metrics_page *page)
{
    metrics_append_head(text, "breaker_state", "gauge", "workers whose breaker is in the state");
#define X(breaker) append_breaker(text, page, #breaker, METRICS_GAUGE_breaker_##breaker);
    METRICS_BREAKERS(X)
#undef X
}

/* Of all workers the one that sees the fewest vote: it is the first that cannot sell. None, if there are no lock nodes. */
static void append_lock_nodes(struct metrics_text *text, const struct metrics_page *page)
{
    int64_t nodes = 0, voting = INT64_MAX;
    size_t next = 0;
    for (const struct metrics_slot *slot; (slot = metrics_next_slot(page, &next)) != NULL;) {
        int64_t its_nodes = read_gauge(slot, METRICS_GAUGE_lock_nodes),
                its_voting = read_gauge(slot, METRICS_GAUGE_lock_nodes_voting);
        if (its_nodes > 0 && its_voting < voting) {
            nodes = its_nodes;
            voting = its_voting;
        }
    }
    if (nodes > 0) {
        metrics_append_head(text, "lock_nodes", "gauge", "lock nodes of the Redlock gate");
        metrics_append(text, "doorbuster_lock_nodes %" PRId64 "\n", nodes);
        metrics_append_head(text, "lock_nodes_voting", "gauge",
                            "of these, how many vote, as the worker sees it that sees the fewest");
        metrics_append(text, "doorbuster_lock_nodes_voting %" PRId64 "\n", voting);
    }
}

/* Without TLS there is only the head. */
static void append_certificate(struct metrics_text *text, const struct metrics_page *page)
{
    int64_t ends_at_ms = __atomic_load_n(&page->certificate_ends_at_ms, __ATOMIC_RELAXED);
    metrics_append_head(text, "tls_certificate_expiry_timestamp_seconds", "gauge",
                        "until when the certificate that is served is valid, since 1970");
    if (ends_at_ms != 0) {
        metrics_append(text, "doorbuster_tls_certificate_expiry_timestamp_seconds %" PRId64 "\n",
                       ends_at_ms / 1000);
    }
}

/* --- all of it ------------------------------------------------------------------------------------------------------------------------ */
static void append_server(struct metrics_text *text, const struct metrics_page *page,
                          const struct metrics_names *names)
{
    metrics_append_head(text, "build_info", "gauge", "always 1; the labels say what is running");
    metrics_append(text, "doorbuster_build_info{version=\"%s\",gate=\"%s\"} 1\n", names->version,
                   names->gate);
    metrics_append_head(text, "start_time_seconds", "gauge", "when the server was started, since 1970");
    metrics_append(text, "doorbuster_start_time_seconds %.3f\n", (double)page->started_at_ms / 1e3);
}

char *metrics_format(const struct metrics_page *page, const struct metrics_names *names, size_t *bytes)
{
    struct metrics_text text = {0};
    append_server(&text, page, names);
    append_answers(&text, page, names);
    append_labelled_counters(&text, page);
    append_counters(&text, page);
    append_histograms(&text, page);
    append_gauges(&text, page);
    append_breakers(&text, page);
    append_lock_nodes(&text, page);
    append_certificate(&text, page);
    metrics_append_board(&text, page);
    if (text.failed) {
        free(text.text);
        return NULL;
    }
    *bytes = text.used;
    return text.text;
}
