/* /metrics of the real server, on whichever gate: promtool finds nothing to say about it, its sums are those of what was bought, and while the Lua gate's
 * Redis is away it still says what the store has. */
#include "testing.h"

#include "redis_fixture.h"
#include "run.h"
#include "sale_fixture.h"

#include "doorbuster/gate_place.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMTOOL_MS 20000
#define FOLLOWS_MS 10000
#define METRICS_BYTES 262144
#define STOCK 5

static struct sale_fixture sale;
static struct redis_fixture redis; /* of the Lua gate */
static int64_t product;

static bool is_redlock(void)
{
    const char *gate = getenv("DOORBUSTER_GATE");
    return gate != NULL && strcmp(gate, "redlock") == 0;
}

static double sample(const char *name, const char *label)
{
    return server_fixture_sample(&sale.server, name, label);
}

static void expect(const char *name, const char *label, int64_t value)
{
    double is = sample(name, label);
    if ((int64_t)is != value) {
        fail_msg("%s{%s} is %g, not %lld", name, label, is, (long long)value);
    }
}

/* What the board says comes a moment later. */
static void await(const char *name, const char *label, int64_t value)
{
    int64_t deadline = deadline_in(FOLLOWS_MS);
    while ((int64_t)sample(name, label) != value && wait_a_moment(deadline)) {
    }
    expect(name, label, value);
}

static void buy(size_t buyer, int64_t quantity, int status)
{
    assert_int_equal(sale_fixture_buy(&sale, buyer, product, quantity), status);
}

static void test_purchases_add_up(void **state)
{
    (void)state;
    for (size_t buyer = 0; buyer < 3; buyer++) {
        buy(buyer, 1, 201);
    }
    buy(3, 3, 400);
    expect("purchases_total", "outcome=\"confirmed\"", 3);
    expect("purchases_total", "outcome=\"sold_out\"", 1);
    expect("purchases_total", "", 4);
    expect("http_requests_total", "route=\"purchase\",status=\"201\"", 3);
    expect("http_requests_total", "route=\"purchase\",status=\"400\"", 1);
    expect("http_request_duration_seconds_count", "route=\"purchase\"", 4);
    expect("http_request_duration_seconds_bucket", "route=\"purchase\",le=\"+Inf\"", 4);
    assert_true(sample("http_request_duration_seconds_sum", "route=\"purchase\"") > 0);
    assert_true(sample("commit_duration_seconds_sum", "") > 0);
    expect("shed_total", "", 0);
    expect("rate_limited_total", "", 0);
    expect("process_restarts_total", "", 0);
    assert_true(sample("start_time_seconds", "") > 1e9);
}

static void test_batches_and_locks(void **state)
{
    (void)state;
    if (is_redlock()) {
        /* What is sold out by the word of the nodes is not decided under locks. */
        assert_in_range((int64_t)sample("gate_batch_purchases_sum", ""), 3, 4);
        assert_in_range((int64_t)sample("lock_wait_seconds_count", ""), 1, 4);
        await("lock_nodes_voting", "", GATE_NODES_SPAWNED);
        expect("lock_nodes", "", GATE_NODES_SPAWNED);
    } else {
        expect("gate_batch_purchases_sum", "", 4);
        expect("recorder_batch_orders_sum", "", 3);
        assert_true(sample("recorder_batch_orders_count", "") >= 3); /* openings are recorded too */
        expect("recorder_attaches_total", "", 1);
    }
}

static void test_the_board(void **state)
{
    (void)state;
    await("product_units", "state=\"sold\"", 3);
    await("product_units", "state=\"available\"", 2);
    expect("product_units", "state=\"stock\"", 2);
    expect("product_units", "state=\"in_flight\"", 0);
    expect("product_oversold_units", "", 0);
    expect("products_differing", "", 0);
    expect("orders", "", 3);
    expect("recorder_lag_entries", "", 0);
    expect("recorder_active", "", 1);
    expect("process_up", "process=\"worker 0\"", 1);
    expect("process_up", is_redlock() ? "process=\"keeper\"" : "process=\"recorder\"", 1);
    assert_true(sample("epoch", "") >= 1);
    assert_true(sample("books_compared_timestamp_seconds", "") > sample("start_time_seconds", ""));
    assert_true(sample("http_connections", "") >= 1); /* the buyers keep theirs */
}

static void test_promtool_has_nothing_to_say(void **state)
{
    char path[FOLDER_BYTES + 32], command[FOLDER_BYTES + 96];
    static char text[METRICS_BYTES];
    (void)state;
    assert_int_equal(server_fixture_get(&sale.server, "/nothing/here", NULL, 0), 404);
    assert_int_equal(server_fixture_get(&sale.server, "/metrics", text, sizeof text), 200);
    assert_true(strlen(text) < sizeof text - 1);
    snprintf(path, sizeof path, "%s/metrics", sale.server.folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    snprintf(command, sizeof command, "promtool check metrics <%s", path);
    struct run_result result =
        program_run((const char *const[]){"/bin/sh", "-c", command, NULL}, NULL, PROMTOOL_MS);
    if (result.exit_code != 0 || result.out[0] != '\0' || result.err[0] != '\0') {
        fail_msg("promtool ended with %d: %s%s", result.exit_code, result.out, result.err);
    }
    run_result_free(&result);
}

/* Whoever is called now wants to see what there is, more than ever. */
static void test_redis_is_away(void **state)
{
    (void)state;
    if (is_redlock()) {
        return; /* of its nodes: test_node_keeper */
    }
    redis_fixture_kill(&redis);
    int64_t deadline = deadline_in(FOLLOWS_MS);
    while (sample("product_units", "state=\"available\"") > 0 && wait_a_moment(deadline)) {
    }
    for (int64_t until = deadline_in(1000); wait_a_moment(until);) { /* all the time */
        expect("product_units", "state=\"available\"", 0);
        expect("product_units", "state=\"stock\"", 2);
        assert_true(sample("recorder_silent_seconds", "") < 3);
    }
    redis_fixture_restart(&redis);
    await("product_units", "state=\"available\"", 2);
    deadline = deadline_in(FOLLOWS_MS);
    while (sale_fixture_buy(&sale, 0, product, 1) == 503 &&
           wait_a_moment(deadline)) { /* the worker's own link */
    }
    await("product_units", "state=\"sold\"", 4);
}

static void test_the_end(void **state)
{
    (void)state;
    sale_fixture_end_sale(&sale, 0);
}

static int setup(void **state)
{
    static char url[sizeof redis.address.path + 8];
    (void)state;
    if (!is_redlock()) {
        redis_fixture_start(&redis, false);
        snprintf(url, sizeof url, "unix:%s", redis.address.path);
    }
    sale_fixture_begin(&sale, 1, 4, is_redlock() ? NULL : url, NULL);
    product = sale_fixture_add_product(&sale, STOCK, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    if (!is_redlock()) {
        redis_fixture_end(&redis);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_purchases_add_up), cmocka_unit_test(test_batches_and_locks),
        cmocka_unit_test(test_the_board),        cmocka_unit_test(test_promtool_has_nothing_to_say),
        cmocka_unit_test(test_redis_is_away),    cmocka_unit_test(test_the_end),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, setup, teardown);
}
