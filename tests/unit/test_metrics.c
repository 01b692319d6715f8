/* The shared page of counters, between processes. */
#include "testing.h"

#include "doorbuster/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 4
#define ADDITIONS 10000

static void test_before_a_slot_is_chosen_nothing_is_seen(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    assert_non_null(page);
    metrics_add(METRICS_requests, 5);
    assert_int_equal(metrics_sum(page, METRICS_requests), 0);
}

static void test_processes_add_up(void **state)
{
    struct metrics_page *page = metrics_page_new();
    pid_t pids[PROCESSES];
    (void)state;
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            metrics_use_slot(i == 0   ? &page->supervisor
                             : i == 1 ? &page->recorder
                                      : &page->workers[i == 2 ? 0 : METRICS_WORKERS_MAX - 1]);
            for (int n = 0; n < ADDITIONS; n++) {
                metrics_add(METRICS_requests, 1);
                metrics_add(METRICS_recorder_healed, 3);
            }
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    /* The counts outlive their processes. */
    assert_int_equal(metrics_sum(page, METRICS_requests), PROCESSES * ADDITIONS);
    assert_int_equal(metrics_sum(page, METRICS_recorder_healed), 3 * PROCESSES * ADDITIONS);
    assert_int_equal(metrics_sum(page, METRICS_purchases_unavailable), 0);
    /* A successor goes on where the dead one stopped. */
    metrics_use_slot(&page->workers[0]);
    metrics_add(METRICS_requests, 1);
    assert_int_equal(metrics_sum(page, METRICS_requests), PROCESSES * ADDITIONS + 1);
}

/* A worker and its successor share a slot for a moment. */
static void test_two_in_one_slot(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    metrics_use_slot(&page->workers[3]);
    pid_t pid = fork();
    assert_true(pid >= 0);
    for (int n = 0; n < 20 * ADDITIONS; n++) {
        metrics_add(METRICS_requests, 1);
    }
    if (pid == 0) {
        _exit(0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(metrics_sum(page, METRICS_requests), 40 * ADDITIONS);
}

/* --- the text ------------------------------------------------------------------------------------------------------------------------- */
static const char *const labels[] = {"purchase", "other", "purchase"};
static const struct metrics_names names = {
    .route_labels = labels, .route_count = 3, .version = "1.2.3", .gate = "lua"};

/* As it is scraped; to be freed. */
static char *text_of(const struct metrics_page *page)
{
    size_t bytes = 0;
    char *text = metrics_format(page, &names, &bytes);
    assert_non_null(text);
    assert_int_equal(bytes, strlen(text));
    return text;
}

static void expect_line(const char *text, const char *sample)
{
    char line[256];
    snprintf(line, sizeof line, "\ndoorbuster_%s\n", sample);
    if (strstr(text, line) == NULL) {
        fail_msg("no line \"%s\" in %s", sample, text);
    }
}

static void expect_no(const char *text, const char *part)
{
    if (strstr(text, part) != NULL) {
        fail_msg("\"%s\" in %s", part, text);
    }
}

static void test_counters_as_text(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    metrics_use_slot(&page->workers[0]);
    metrics_add(METRICS_purchases_confirmed, UINT64_MAX);
    metrics_add(METRICS_rate_limited_sign_in, 2);
    metrics_add(METRICS_shed_purchase, 3);
    metrics_add(METRICS_recorder_healed, 4);
    metrics_add(METRICS_process_restarts, 5);
    char *text = text_of(page);
    assert_non_null(strstr(text, "\n# TYPE doorbuster_purchases_total counter\n"));
    expect_line(text, "purchases_total{outcome=\"confirmed\"} 18446744073709551615");
    expect_line(text, "purchases_total{outcome=\"unavailable\"} 0");
    expect_line(text, "rate_limited_total{limit=\"sign_in\"} 2");
    expect_line(text, "shed_total{queue=\"purchase\"} 3");
    expect_line(text, "recorder_healed_total 4");
    expect_line(text, "process_restarts_total{process=\"any\"} 5"); /* the supervisor keeps no table here */
    expect_line(text, "build_info{version=\"1.2.3\",gate=\"lua\"} 1");
    free(text);
}

/* Every line is a comment or a sample, and each metric's samples follow its own two lines, once. */
static void test_the_text_is_in_order(void **state)
{
    struct metrics_page *page = metrics_page_new();
    char name[128] = "", family[128], kind[32];
    (void)state;
    metrics_use_slot(&page->workers[0]);
    metrics_count_answer(0, 200, 7);
    page->board.sale.written_us = 1;
    char *text = text_of(page), *rest = NULL;
    size_t families = 0, samples = 0;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (sscanf(line, "# HELP doorbuster_%127[a-z0-9_] ", family) == 1) {
            snprintf(name, sizeof name, "%s", family);
            families++;
        } else if (sscanf(line, "# TYPE doorbuster_%127[a-z0-9_] %31[a-z]", family, kind) == 2) {
            assert_string_equal(name, family);
        } else {
            double value;
            const char *space = strrchr(line, ' ');
            assert_non_null(space);
            assert_memory_equal(line, "doorbuster_", 11);
            assert_memory_equal(line + 11, name, strlen(name));
            assert_int_equal(sscanf(space + 1, "%lf", &value), 1);
            samples++;
        }
    }
    assert_true(families > 50);
    assert_true(samples > 100);
    free(text);
}

/* Whoever adds a metric says in docs/metrics.md what it means. */
static void test_every_metric_is_described(void **state)
{
    struct metrics_page *page = metrics_page_new();
    static char page_of_docs[65536];
    char *rest = NULL;
    (void)state;
    FILE *file = fopen(METRICS_PAGE, "r");
    assert_non_null(file);
    size_t bytes = fread(page_of_docs, 1, sizeof page_of_docs - 1, file);
    assert_in_range(bytes, 1, sizeof page_of_docs - 2);
    fclose(file);
    page->board.sale = (struct board_sale){.written_us = 1, .compared_at_ms = 1};
    metrics_use_slot(&page->workers[0]);
    metrics_set(METRICS_GAUGE_lock_nodes, 5);
    char *text = text_of(page);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char name[128], plain[132], labelled[132];
        if (sscanf(line, "# HELP doorbuster_%127[a-z0-9_] ", name) == 1) {
            snprintf(plain, sizeof plain, "`%s`", name);
            snprintf(labelled, sizeof labelled, "`%s{", name);
            if (strstr(page_of_docs, plain) == NULL && strstr(page_of_docs, labelled) == NULL) {
                fail_msg("%s is not in docs/metrics.md", name);
            }
        }
    }
    free(text);
}

static void test_answers_by_route_and_status(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    metrics_use_slot(&page->workers[0]);
    metrics_count_answer(0, 201, 900);
    metrics_count_answer(0, 201, 1100);
    metrics_count_answer(2, 201, 6000000); /* another route with the same label */
    metrics_count_answer(0, 409, -3);      /* a clock that went back: counted all the same */
    metrics_count_answer(1, 299, 1);       /* a status that nobody expects */
    metrics_use_slot(&page->workers[1]);
    metrics_count_answer(-1, 404, 1);
    metrics_count_answer(METRICS_ROUTES_MAX, 404, 1);
    assert_int_equal(metrics_sum(page, METRICS_requests), 7);
    char *text = text_of(page);
    expect_line(text, "http_requests_total{route=\"purchase\",status=\"201\"} 3");
    expect_line(text, "http_requests_total{route=\"purchase\",status=\"409\"} 1");
    expect_line(text, "http_requests_total{route=\"other\",status=\"other\"} 1");
    expect_line(text, "http_requests_total{route=\"unmatched\",status=\"404\"} 2");
    expect_line(text, "http_request_duration_seconds_bucket{route=\"purchase\",le=\"5e-05\"} 1");
    expect_line(text, "http_request_duration_seconds_bucket{route=\"purchase\",le=\"0.001\"} 2");
    expect_line(text, "http_request_duration_seconds_bucket{route=\"purchase\",le=\"0.002\"} 3");
    expect_line(text, "http_request_duration_seconds_bucket{route=\"purchase\",le=\"5\"} 3");
    expect_line(text, "http_request_duration_seconds_bucket{route=\"purchase\",le=\"+Inf\"} 4");
    expect_line(text, "http_request_duration_seconds_count{route=\"purchase\"} 4");
    expect_line(text, "http_request_duration_seconds_sum{route=\"purchase\"} 6.002000");
    expect_no(text, "route=\"other\",status=\"200\"");
    free(text);
}

static void test_histograms(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    metrics_use_slot(&page->workers[0]);
    metrics_observe(METRICS_HISTOGRAM_lock_wait_us, 0);
    metrics_observe(METRICS_HISTOGRAM_lock_wait_us, 200);
    metrics_observe(METRICS_HISTOGRAM_lock_wait_us, 201);
    metrics_observe(METRICS_HISTOGRAM_gate_batch, 1);
    metrics_observe(METRICS_HISTOGRAM_gate_batch, 256);
    metrics_observe(METRICS_HISTOGRAM_gate_batch, 257);
    metrics_observe(METRICS_HISTOGRAM_recorder_batch, 5000);
    metrics_use_slot(&page->workers[METRICS_WORKERS_MAX - 1]);
    metrics_observe(METRICS_HISTOGRAM_lock_wait_us, 50000);
    metrics_observe(METRICS_HISTOGRAM_lock_wait_us, 5000001);
    char *text = text_of(page);
    assert_non_null(strstr(text, "\n# TYPE doorbuster_lock_wait_seconds histogram\n"));
    expect_line(text, "lock_wait_seconds_bucket{le=\"5e-05\"} 1");
    expect_line(text,
                "lock_wait_seconds_bucket{le=\"0.0002\"} 2"); /* an edge belongs to the bucket below it */
    expect_line(text, "lock_wait_seconds_bucket{le=\"0.0005\"} 3");
    expect_line(text, "lock_wait_seconds_bucket{le=\"0.02\"} 3");
    expect_line(text, "lock_wait_seconds_bucket{le=\"0.05\"} 4");
    expect_line(text, "lock_wait_seconds_bucket{le=\"5\"} 4");
    expect_line(text, "lock_wait_seconds_bucket{le=\"+Inf\"} 5");
    expect_line(text, "lock_wait_seconds_sum 5.050402");
    expect_line(text, "lock_wait_seconds_count 5");
    expect_line(text, "gate_batch_purchases_bucket{le=\"1\"} 1");
    expect_line(text, "gate_batch_purchases_bucket{le=\"256\"} 2");
    expect_line(text, "gate_batch_purchases_bucket{le=\"512\"} 3");
    expect_line(text, "gate_batch_purchases_sum 514");
    expect_line(text, "recorder_batch_orders_bucket{le=\"4096\"} 0");
    expect_line(text, "recorder_batch_orders_bucket{le=\"+Inf\"} 1");
    expect_line(text, "commit_duration_seconds_count 0");
    free(text);
}

/* A share of what a bucket holds is taken for so far into it. */
static void test_quantiles(void **state)
{
    struct metrics_page *page = metrics_page_new();
    struct metrics_buckets took = {0};
    (void)state;
    metrics_use_slot(&page->workers[0]);
    metrics_add_up_took(page, 0, &took);
    assert_true(metrics_quantile_us(&took, 0.5) < 0);
    for (int i = 0; i < 99; i++) {
        metrics_count_answer(0, 201, 1500); /* 1000 to 2000 */
    }
    metrics_count_answer(0, 201, 9000000);
    metrics_add_up_took(page, 0, &took);
    assert_int_equal((int)(metrics_quantile_us(&took, 0.5) + 0.5), 1505);
    assert_int_equal((int)(metrics_quantile_us(&took, 0.99) + 0.5), 2000);
    assert_int_equal((int)metrics_quantile_us(&took, 1), 5000000); /* nobody knows how much more */
}

static void test_gauges(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    metrics_use_slot(&page->workers[0]);
    metrics_set(METRICS_GAUGE_http_connections, 3);
    metrics_set(METRICS_GAUGE_queue_store, 7);
    metrics_set(METRICS_GAUGE_breaker_redis, 2);
    metrics_set(METRICS_GAUGE_lock_nodes, 5);
    metrics_set(METRICS_GAUGE_lock_nodes_voting, 5);
    metrics_use_slot(&page->workers[1]);
    metrics_set(METRICS_GAUGE_http_connections, 4);
    metrics_set(METRICS_GAUGE_lock_nodes, 5);
    metrics_set(METRICS_GAUGE_lock_nodes_voting, 2);
    char *text = text_of(page);
    expect_line(text, "http_connections 7");
    expect_line(text, "pool_queue_jobs{queue=\"store\"} 7");
    expect_line(text, "breaker_state{breaker=\"redis\",state=\"closed\"} 1"); /* of two workers */
    expect_line(text, "breaker_state{breaker=\"redis\",state=\"half-open\"} 0");
    expect_line(text, "breaker_state{breaker=\"redis\",state=\"open\"} 1");
    expect_line(text, "breaker_state{breaker=\"store\",state=\"closed\"} 2");
    expect_line(text, "lock_nodes 5");
    expect_line(text, "lock_nodes_voting 2");
    assert_int_equal(metrics_worst(page, METRICS_GAUGE_breaker_redis), 2);
    free(text);
    metrics_use_slot(&page->workers[0]); /* its successor: nothing of the dead one's is true any more */
    text = text_of(page);
    expect_line(text, "http_connections 4");
    expect_line(text, "breaker_state{breaker=\"redis\",state=\"closed\"} 2");
    free(text);
}

static void test_without_lock_nodes_nothing_is_said_of_them(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    metrics_use_slot(&page->workers[0]);
    char *text = text_of(page);
    expect_no(text, "lock_nodes_voting");
    free(text);
}

/* --- the board as text ---------------------------------------------------------------------------------------------------------------- */
static void test_before_the_board_is_written(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    char *text = text_of(page);
    expect_no(text, "product_units");
    expect_no(text, "recorder_lag");
    assert_non_null(strstr(text, "\ndoorbuster_recorder_silent_seconds ")); /* since the server was started */
    free(text);
}

static void test_the_board_as_text(void **state)
{
    struct metrics_page *page = metrics_page_new();
    static struct board_sale sale;
    static struct board_processes processes;
    (void)state;
    sale = (struct board_sale){.written_us = 1,
                               .epoch = 7,
                               .lag_entries = 4,
                               .lag_us = 1500000,
                               .compared_at_ms = 2500,
                               .differences = 1,
                               .products_total = 3,
                               .product_count = 3,
                               .orders_total = 97};
    sale.products[0] = (struct board_product){
        .id = 11, .opening = 100, .cancelled = 2, .sold = 12, .stock = 90, .available = 88, .in_flight = 2};
    sale.products[1] =
        (struct board_product){.id = 12, .opening = 10, .restocked = -1, .sold = 12, .available = -1};
    sale.products[2] =
        (struct board_product){.id = 13, .is_bundle = true, .sold = 5, .stock = 8, .available = 8};
    board_write_sale(&page->board, &sale);
    processes = (struct board_processes){.count = 2};
    processes.each[0] = (struct board_process){.name = "worker 0", .pid = 5, .ready = true, .restarts = 3};
    processes.each[1] = (struct board_process){.name = "recorder", .restarts = 1};
    board_write_processes(&page->board, &processes);
    char *text = text_of(page);
    expect_line(text, "product_units{product_id=\"11\",state=\"available\"} 88");
    expect_line(text, "product_units{product_id=\"11\",state=\"in_flight\"} 2");
    expect_line(text, "product_units{product_id=\"11\",state=\"sold\"} 12");
    expect_line(text, "product_units{product_id=\"11\",state=\"stock\"} 90");
    expect_line(text, "product_oversold_units{product_id=\"11\"} 0");
    expect_line(text, "product_oversold_units{product_id=\"12\"} 3");
    expect_line(text, "product_oversold_units{product_id=\"13\"} 0");
    expect_no(text, "{product_id=\"12\",state=\"available\"}"); /* the gate cannot be asked */
    expect_line(text, "products 3");
    expect_line(text, "orders 97");
    expect_line(text, "products_differing 1");
    expect_line(text, "books_compared_timestamp_seconds 2.500");
    expect_line(text, "recorder_lag_entries 4");
    expect_line(text, "recorder_lag_seconds 1.500");
    expect_line(text, "epoch 7");
    expect_line(text, "process_up{process=\"worker 0\"} 1");
    expect_line(text, "process_up{process=\"recorder\"} 0");
    expect_line(text, "process_restarts_total{process=\"worker 0\"} 3");
    expect_no(text, "process=\"any\"");
    free(text);
}

/* However many there are, nothing is cut off. */
static void test_a_long_text(void **state)
{
    struct metrics_page *page = metrics_page_new();
    static struct board_sale sale;
    (void)state;
    sale = (struct board_sale){.written_us = 1, .product_count = BOARD_PRODUCTS_MAX};
    for (int64_t i = 0; i < BOARD_PRODUCTS_MAX; i++) {
        sale.products[i] = (struct board_product){.id = INT64_MAX - i, .sold = INT64_MAX - i};
    }
    board_write_sale(&page->board, &sale);
    char *text = text_of(page), line[128];
    for (int64_t i = 0; i < BOARD_PRODUCTS_MAX; i++) {
        snprintf(line, sizeof line, "product_units{product_id=\"%lld\",state=\"sold\"} %lld",
                 (long long)(INT64_MAX - i), (long long)(INT64_MAX - i));
        expect_line(text, line);
    }
    free(text);
}

static void test_the_certificate(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    char *text = text_of(page);
    expect_no(text, "\ndoorbuster_tls_certificate_expiry_timestamp_seconds "); /* no TLS */
    free(text);
    page->certificate_ends_at_ms = 1795770000000;
    text = text_of(page);
    expect_line(text, "tls_certificate_expiry_timestamp_seconds 1795770000");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_before_a_slot_is_chosen_nothing_is_seen),
        cmocka_unit_test(test_processes_add_up),
        cmocka_unit_test(test_two_in_one_slot),
        cmocka_unit_test(test_counters_as_text),
        cmocka_unit_test(test_the_text_is_in_order),
        cmocka_unit_test(test_every_metric_is_described),
        cmocka_unit_test(test_answers_by_route_and_status),
        cmocka_unit_test(test_histograms),
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_gauges),
        cmocka_unit_test(test_without_lock_nodes_nothing_is_said_of_them),
        cmocka_unit_test(test_before_the_board_is_written),
        cmocka_unit_test(test_the_board_as_text),
        cmocka_unit_test(test_a_long_text),
        cmocka_unit_test(test_the_certificate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
