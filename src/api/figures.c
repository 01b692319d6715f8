/* The live figures: what the dashboard and the shop window show, as one JSON document. Made from the shared page alone (board and counters), so that
 * it costs the sale nothing but a look: no store, no Redis. On the loop's thread; owns the samples from which rates are worked out.
 *
 * A sample of the counters is taken twice a second and kept for ten seconds: rates are those of the last two seconds, percentiles those of all ten. */
#include "figures.h"

#include "doorbuster/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RATE_SAMPLES 4    /* two seconds */
#define SILENT_US 3000000 /* the board is written at least twice a second */
#define PURCHASE_LABEL "purchase"

/* --- samples ------------------------------------------------------------------------------------------------------------------------------ */
static bool is_purchase(const struct http_route *route)
{
    return strcmp(route->label, PURCHASE_LABEL) == 0 || strcmp(route->label, PURCHASE_LABEL "_redlock") == 0;
}

static void take_sample(const struct metrics_page *page, struct figures_sample *sample)
{
    size_t count;
    const struct http_route *routes = api_routes(&count);
    *sample = (struct figures_sample){.at_us = clock_monotonic_us()};
    for (int i = 0; i < METRICS_COUNT; i++) {
        sample->counters[i] = metrics_sum(page, (enum metrics_counter)i);
    }
    for (size_t i = 0; i < count; i++) {
        if (is_purchase(&routes[i])) {
            metrics_add_up_took(page, (int)i, &sample->took);
        }
    }
}

/* The sample so many before the newest, or the oldest there is. */
static const struct figures_sample *sample_before(const struct figures *figures, size_t back)
{
    size_t most = figures->count - 1;
    back = back < most ? back : most;
    return &figures->samples[(figures->newest + FIGURES_SAMPLES - back) % FIGURES_SAMPLES];
}

static uint64_t refused(const struct figures_sample *sample)
{
    return sample->counters[METRICS_purchases_sold_out] + sample->counters[METRICS_purchases_over_limit] +
           sample->counters[METRICS_purchases_closed] + sample->counters[METRICS_purchases_not_on_sale];
}

static double rate(const struct figures_sample *now, const struct figures_sample *then, uint64_t amount)
{
    return now->at_us > then->at_us ? (double)amount * 1e6 / (double)(now->at_us - then->at_us) : 0;
}

static double rate_of(const struct figures_sample *now, const struct figures_sample *then,
                      enum metrics_counter counter)
{
    return rate(now, then, now->counters[counter] - then->counters[counter]);
}

static double quantile_us(const struct figures_sample *now, const struct figures_sample *then, double share)
{
    struct metrics_buckets took = now->took;
    for (size_t i = 0; i < METRICS_BUCKETS_MAX; i++) {
        took.counts[i] -= then->took.counts[i];
    }
    return metrics_quantile_us(&took, share);
}

static void note_point(struct figures *figures)
{
    const struct figures_sample *now = sample_before(figures, 0),
                                *then = sample_before(figures, FIGURES_POINT_SAMPLES);
    figures->points[figures->point_count++ % FIGURES_POINTS] =
        (struct figures_point){.at_ms = clock_wall_ms(),
                               .confirmed = rate_of(now, then, METRICS_purchases_confirmed),
                               .refused = rate(now, then, refused(now) - refused(then)),
                               .unavailable = rate_of(now, then, METRICS_purchases_unavailable),
                               .p99_us = quantile_us(now, then, 0.99)};
}

void figures_sample(struct figures *figures, const struct metrics_page *page)
{
    figures->newest = (figures->newest + 1) % FIGURES_SAMPLES;
    take_sample(page, &figures->samples[figures->newest]);
    if (figures->count < FIGURES_SAMPLES) {
        figures->count++;
    }
    if (++figures->taken % FIGURES_POINT_SAMPLES == 0) {
        note_point(figures);
    }
}

/* --- JSON --------------------------------------------------------------------------------------------------------------------------------- */
static void add_number(cJSON *json, const char *name, double value)
{
    cJSON_AddNumberToObject(json, name, value);
}

static void add_rounded(cJSON *json, const char *name, double value)
{
    cJSON_AddNumberToObject(json, name, (double)(int64_t)(value * 100 + 0.5) / 100);
}

static void add_time(cJSON *json, const char *name, int64_t at_ms)
{
    char text[CLOCK_RFC3339_BYTES];
    if (at_ms == 0) {
        cJSON_AddNullToObject(json, name);
        return;
    }
    clock_rfc3339(at_ms, text);
    cJSON_AddStringToObject(json, name, text);
}

static void add_rates(cJSON *json, const struct figures *figures)
{
    const struct figures_sample *now = sample_before(figures, 0),
                                *then = sample_before(figures, RATE_SAMPLES);
    cJSON *rates = cJSON_AddObjectToObject(json, "rates");
    add_rounded(rates, "requests", rate_of(now, then, METRICS_requests));
    add_rounded(rates, "confirmed", rate_of(now, then, METRICS_purchases_confirmed));
    add_rounded(rates, "refused", rate(now, then, refused(now) - refused(then)));
    add_rounded(rates, "unavailable", rate_of(now, then, METRICS_purchases_unavailable));
}

static void add_totals(cJSON *json, const struct figures *figures)
{
    static const struct {
        const char *name;
        enum metrics_counter counter;
    } totals[] = {{"requests", METRICS_requests},           {"confirmed", METRICS_purchases_confirmed},
                  {"sold_out", METRICS_purchases_sold_out}, {"over_limit", METRICS_purchases_over_limit},
                  {"closed", METRICS_purchases_closed},     {"unavailable", METRICS_purchases_unavailable},
                  {"rejected", METRICS_purchases_rejected}};
    const struct figures_sample *now = sample_before(figures, 0);
    cJSON *json_totals = cJSON_AddObjectToObject(json, "totals");
    for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++) {
        add_number(json_totals, totals[i].name, (double)now->counters[totals[i].counter]);
    }
    add_number(json_totals, "healed",
               (double)(now->counters[METRICS_recorder_healed] + now->counters[METRICS_nodes_healed]));
}

static void add_milliseconds(cJSON *json, const char *name, double took_us)
{
    if (took_us < 0) {
        cJSON_AddNullToObject(json, name);
    } else {
        add_rounded(json, name, took_us / 1e3);
    }
}

static void add_latency(cJSON *json, const struct figures *figures)
{
    const struct figures_sample *now = sample_before(figures, 0),
                                *then = sample_before(figures, FIGURES_SAMPLES);
    cJSON *latency = cJSON_AddObjectToObject(json, "latency_ms");
    add_milliseconds(latency, "p50", quantile_us(now, then, 0.5));
    add_milliseconds(latency, "p99", quantile_us(now, then, 0.99));
}

static void add_history(cJSON *json, const struct figures *figures)
{
    cJSON *history = cJSON_AddArrayToObject(json, "history");
    size_t from = figures->point_count > FIGURES_POINTS ? figures->point_count - FIGURES_POINTS : 0;
    for (size_t i = from; i < figures->point_count; i++) {
        const struct figures_point *point = &figures->points[i % FIGURES_POINTS];
        cJSON *one = cJSON_CreateObject();
        add_time(one, "at", point->at_ms);
        add_rounded(one, "confirmed", point->confirmed);
        add_rounded(one, "refused", point->refused);
        add_rounded(one, "unavailable", point->unavailable);
        add_milliseconds(one, "p99_ms", point->p99_us);
        cJSON_AddItemToArray(history, one);
    }
}

static cJSON *product_json(const struct board_product *product)
{
    cJSON *json = cJSON_CreateObject();
    add_number(json, "id", (double)product->id);
    cJSON_AddStringToObject(json, "name", product->name);
    add_number(json, "price", (double)product->price);
    if (product->per_customer_limit > 0) {
        add_number(json, "per_customer_limit", (double)product->per_customer_limit);
    } else {
        cJSON_AddNullToObject(json, "per_customer_limit");
    }
    add_time(json, "starts_at", product->starts_at_ms);
    add_time(json, "ends_at", product->ends_at_ms);
    cJSON_AddBoolToObject(json, "bundle", product->is_bundle);
    cJSON_AddBoolToObject(json, "opened", product->opened);
    add_number(json, "opening", (double)product->opening);
    add_number(json, "restocked", (double)product->restocked);
    add_number(json, "cancelled", (double)product->cancelled);
    add_number(json, "sold", (double)product->sold);
    add_number(json, "stock", (double)product->stock);
    if (product->available >= 0) {
        add_number(json, "available", (double)product->available);
    } else {
        cJSON_AddNullToObject(json, "available");
    }
    add_number(json, "in_flight", (double)product->in_flight);
    cJSON_AddBoolToObject(json, "books_equal", product->books_equal);
    return json;
}

static cJSON *order_json(const struct board_order *order)
{
    cJSON *json = cJSON_CreateObject();
    add_number(json, "id", (double)order->id);
    add_time(json, "at", order->at_ms);
    cJSON *lines = cJSON_AddArrayToObject(json, "lines");
    for (size_t i = 0; i < order->line_count && i < BOARD_ORDER_LINES_MAX; i++) {
        cJSON *line = cJSON_CreateObject();
        add_number(line, "product_id", (double)order->lines[i].product_id);
        add_number(line, "quantity", (double)order->lines[i].quantity);
        cJSON_AddItemToArray(lines, line);
    }
    add_number(json, "line_count", (double)order->line_count);
    cJSON_AddStringToObject(json, "state",
                            order->rejected    ? "rejected"
                            : order->cancelled ? "cancelled"
                                               : "confirmed");
    return json;
}

/* A recorder that has never written anything is silent since the server started. */
static void add_recorder(cJSON *json, const struct board_sale *sale, const char *name, bool active,
                         int64_t now_us)
{
    int64_t silent_us = now_us - sale->written_us;
    cJSON *recorder = cJSON_AddObjectToObject(json, "recorder");
    cJSON_AddStringToObject(recorder, "name", name);
    cJSON_AddBoolToObject(recorder, "up", sale->written_us > 0 && silent_us < SILENT_US);
    cJSON_AddBoolToObject(recorder, "active", active);
    add_number(recorder, "lag_entries", (double)sale->lag_entries);
    add_rounded(recorder, "lag_seconds", (double)sale->lag_us / 1e6);
    add_number(recorder, "epoch", (double)sale->epoch);
    if (sale->written_us > 0) {
        add_rounded(recorder, "silent_seconds", (double)silent_us / 1e6);
    } else {
        cJSON_AddNullToObject(recorder, "silent_seconds");
    }
}

static void add_sale(cJSON *json, const struct board_sale *sale)
{
    add_number(json, "products_total", (double)sale->products_total);
    cJSON *products = cJSON_AddArrayToObject(json, "products");
    for (int64_t i = 0; i < sale->product_count; i++) {
        cJSON_AddItemToArray(products, product_json(&sale->products[i]));
    }
    cJSON *books = cJSON_AddObjectToObject(json, "books");
    cJSON_AddBoolToObject(books, "equal", sale->differences == 0);
    add_number(books, "differences", (double)sale->differences);
    add_time(books, "compared_at", sale->compared_at_ms);
    add_number(json, "orders_total", (double)sale->orders_total);
    cJSON *orders = cJSON_AddArrayToObject(json, "orders");
    for (int64_t i = 0; i < sale->order_count; i++) {
        cJSON_AddItemToArray(orders, order_json(&sale->orders[i]));
    }
}

static void add_processes(cJSON *json, const struct board_processes *processes)
{
    cJSON *list = cJSON_AddArrayToObject(json, "processes");
    for (size_t i = 0; i < processes->count; i++) {
        const struct board_process *process = &processes->each[i];
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "name", process->name);
        add_number(one, "pid", (double)process->pid);
        cJSON_AddBoolToObject(one, "up", process->pid > 0 && process->ready);
        add_number(one, "restarts", (double)process->restarts);
        add_time(one, "started_at", process->started_at_ms);
        cJSON_AddItemToArray(list, one);
    }
}

/* Of each breaker the worst state among the workers. */
static void add_breakers(cJSON *json, const struct metrics_page *page)
{
    static const struct {
        const char *name;
        enum metrics_gauge gauge;
    } breakers[] = {{"redis", METRICS_GAUGE_breaker_redis},
                    {"record", METRICS_GAUGE_breaker_record},
                    {"store", METRICS_GAUGE_breaker_store},
                    {"books", METRICS_GAUGE_breaker_books}};
    static const char *const states[] = {"closed", "half-open", "open"};
    cJSON *list = cJSON_AddArrayToObject(json, "breakers");
    for (size_t i = 0; i < sizeof breakers / sizeof breakers[0]; i++) {
        int64_t worst = metrics_worst(page, breakers[i].gauge);
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "name", breakers[i].name);
        cJSON_AddStringToObject(one, "state", states[worst >= 0 && worst <= 2 ? worst : 2]);
        cJSON_AddItemToArray(list, one);
    }
}

/* What is being written just now, or was left half-written by a writer that was killed, stands as it was read last. */
static void look_at_board(struct figures *figures, const struct board *board)
{
    if (board_read_sale(board, &figures->sale_room)) {
        figures->sale = figures->sale_room;
    }
    if (board_read_processes(board, &figures->processes_room)) {
        figures->processes = figures->processes_room;
    }
}

char *figures_print(struct figures *figures, const struct metrics_page *page, const struct gate_place *place,
                    bool with_history)
{
    int64_t now_us = clock_monotonic_us(), now_ms = clock_wall_ms();
    cJSON *json = cJSON_CreateObject();
    look_at_board(figures, &page->board);
    add_time(json, "at", now_ms);
    cJSON_AddStringToObject(json, "version", DOORBUSTER_VERSION);
    cJSON_AddStringToObject(json, "gate", gate_kind_names[place->kind]);
    int64_t started_at_ms = figures->processes.started_at_ms;
    add_number(json, "uptime_seconds", started_at_ms > 0 ? (double)((now_ms - started_at_ms) / 1000) : 0);
    add_sale(json, &figures->sale);
    add_rates(json, figures);
    add_totals(json, figures);
    add_latency(json, figures);
    add_recorder(json, &figures->sale, place->kind == GATE_REDLOCK ? "keeper" : "recorder",
                 __atomic_load_n(&page->recorder.gauges[METRICS_GAUGE_recorder_active], __ATOMIC_RELAXED) !=
                     0,
                 now_us);
    add_processes(json, &figures->processes);
    add_breakers(json, page);
    if (with_history) {
        add_history(json, figures);
    }
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    return text;
}
