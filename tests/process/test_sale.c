/* The sale itself, against the real server: hundreds of buyers at once, exactly what there is gets sold, both
 * books agree all the time, first come is first served. Judged by the store; the answers must fit it. Runs on
 * both gates.
 *
 * DOORBUSTER_ROUNDS: rounds for each test and number of workers. DOORBUSTER_SEED repeats a run. */
#include "testing.h"

#include "crowd.h"
#include "ledger.h"
#include "server_fixture.h"

#include "doorbuster/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUYERS 300
#define UNITS 100
#define STOCK_READERS 4 /* clients that look at the stock all the time: those from here on */
#define FIRST_READER (3 * BUYERS)
#define CLIENTS (FIRST_READER + STOCK_READERS)
#define CONNECT_MS 10000
#define ROUND_MS 30000
#define ROUNDS_USUAL 15
#define ROUNDS_USUAL_REDLOCK 2 /* after the Lua gate's: here it is about the gate alone */

static const unsigned worker_counts[] = {1, 2, 4};

static struct sale {
    struct server_fixture server;
    struct crowd *crowd;
    struct ledger ledger;
    int64_t first_user;
    char (*tokens)[JWT_TOKEN_BYTES_MAX];
    uint64_t random;
    /* of the round */
    int64_t product;
    int64_t quantities[CLIENTS];
    unsigned attempts[CLIENTS];
    int64_t opening;
    size_t stock_readings, stock_changes;
    int64_t stock_last[STOCK_READERS];
    bool reading;                 /* go on looking at the stock */
    void (*again)(size_t client); /* after an answer, if not NULL */
} sale;

static int64_t user_of(size_t client)
{
    return sale.first_user + (int64_t)(client % BUYERS);
}

static void buy(size_t client)
{
    sale.attempts[client]++;
    crowd_buy(sale.crowd, client, sale.tokens[client % BUYERS], sale.product, sale.quantities[client]);
}

/* --- the stock endpoint, while the sale runs
 * -------------------------------------------------------------------------------------- */
static void look_at_stock(size_t client)
{
    char target[64];
    snprintf(target, sizeof target, "/api/products/%" PRId64 "/stock", sale.product);
    crowd_request(sale.crowd, client, "GET", target, sale.tokens[0], NULL);
}

static int64_t figure(const cJSON *json, const char *name)
{
    int64_t value;
    assert_int_equal(json_get_integer(json, name, -JSON_INTEGER_MAX, JSON_INTEGER_MAX, &value),
                     JSON_FIELD_OK);
    return value;
}

static void check_stock(size_t client, const struct crowd_answer *answer)
{
    int64_t *last = &sale.stock_last[client - FIRST_READER];
    assert_int_equal(answer->status, 200);
    cJSON *json = json_parse_object(answer->body, strlen(answer->body));
    assert_non_null(json);
    int64_t stock = figure(json, "db_stock");
    assert_int_equal(figure(json, "redis_stock"), stock);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "synced")));
    assert_true(figure(json, "available") >= 0);
    assert_true(figure(json, "in_flight") >= 0);
    assert_int_equal(figure(json, "available") + figure(json, "in_flight"),
                     stock);     /* nothing but sales is on its way */
    assert_true(stock <= *last); /* nothing comes back */
    sale.stock_changes += stock != *last && stock != 0;
    *last = stock;
    sale.stock_readings++;
    cJSON_Delete(json);
    if (sale.reading) {
        look_at_stock(client);
    }
}

static void answer_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    (void)context;
    if (client >= FIRST_READER) {
        check_stock(client, answer);
        return;
    }
    ledger_note(&sale.ledger, answer, user_of(client), sale.product, sale.quantities[client]);
    if (sale.again != NULL) {
        sale.again(client);
    }
}

/* --- a round
 * --------------------------------------------------------------------------------------------------------------------------
 */
static void round_begin(int64_t stock, int64_t limit)
{
    ledger_free(&sale.ledger);
    sale.again = NULL;
    sale.product = server_fixture_add_product(&sale.server, stock, limit);
    sale.opening = stock;
    sale.stock_readings = sale.stock_changes = 0;
    memset(sale.attempts, 0, sizeof sale.attempts);
    for (size_t i = 0; i < CLIENTS; i++) {
        sale.quantities[i] = 1;
    }
    assert_true(crowd_connect(sale.crowd, CONNECT_MS));
    sale.reading = true;
    for (size_t i = 0; i < STOCK_READERS; i++) {
        sale.stock_last[i] = stock;
        look_at_stock(FIRST_READER + i);
    }
}

static void round_end(void)
{
    int64_t deadline = deadline_in(ROUND_MS);
    while (crowd_busy(sale.crowd) > STOCK_READERS && now_us() < deadline) {
        crowd_step(sale.crowd, 10);
    }
    sale.reading = false;
    assert_true(crowd_finish(sale.crowd, ROUND_MS));
    /* Nobody was left without a clear answer. */
    if (sale.ledger.other > 0) {
        fail_msg("status %d: %s", sale.ledger.other_status, sale.ledger.other_body);
    }
    assert_int_equal(sale.ledger.broken, 0);
    assert_int_equal(sale.ledger.unavailable, 0);
    ledger_check_store(&sale.ledger, sale.server.store_url);
    ledger_check_order(&sale.ledger);
    look_at_stock(FIRST_READER);
    assert_true(crowd_finish(sale.crowd, ROUND_MS));
    assert_int_equal(sale.stock_last[0], sale.opening - ledger_units(&sale.ledger, sale.product));
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* The confirmed orders' ids, sorted; their number. */
static size_t order_ids(int64_t *ids)
{
    size_t count = 0;
    for (size_t i = 0; i < sale.ledger.count; i++) {
        if (sale.ledger.entries[i].order > 0) {
            ids[count++] = sale.ledger.entries[i].order;
        }
    }
    qsort(ids, count, sizeof *ids, by_number);
    return count;
}

/* --- 300 buyers, 100 units
 * --------------------------------------------------------------------------------------------------------------
 */
static void three_hundred_on_a_hundred(int64_t *last_order)
{
    int64_t ids[BUYERS];
    round_begin(UNITS, 0);
    for (size_t i = 0; i < BUYERS; i++) {
        buy(i);
    }
    round_end();
    assert_int_equal(sale.ledger.confirmed, UNITS);
    assert_int_equal(sale.ledger.sold_out, BUYERS - UNITS);
    assert_int_equal(order_ids(ids), UNITS);
    for (size_t i = 0; i < UNITS; i++) { /* dense over all rounds, from 1 on the first */
        assert_int_equal(ids[i], *last_order + (int64_t)i + 1);
    }
    *last_order = ids[UNITS - 1];
    assert_int_equal(sale.stock_last[0], 0);
}

/* --- quantities
 * --------------------------------------------------------------------------------------------------------------------------
 */
static void quantities_one_to_three(void)
{
    int64_t ids[BUYERS];
    round_begin(UNITS, 0);
    for (size_t i = 0; i < BUYERS; i++) {
        sale.quantities[i] = 1 + random_below(&sale.random, 3);
        buy(i);
    }
    round_end();
    /* With 300 who want at least one, the last units go to somebody who wants just one. */
    assert_int_equal(ledger_units(&sale.ledger, sale.product), UNITS);
    assert_int_equal(sale.ledger.confirmed + sale.ledger.sold_out, BUYERS);
    size_t count = order_ids(ids);
    assert_int_equal(ids[count - 1] - ids[0] + 1, (int64_t)count);
}

/* --- limit 1, and everyone tries three times at once
 * --------------------------------------------------------------------------------------- */
static void one_a_person(void)
{
    int64_t owned[BUYERS] = {0};
    round_begin(UNITS, 1);
    for (size_t i = 0; i < 3 * BUYERS; i++) {
        buy(i);
    }
    round_end();
    assert_int_equal(sale.ledger.confirmed, UNITS);
    assert_int_equal(sale.ledger.confirmed + sale.ledger.sold_out + sale.ledger.over_limit, 3 * BUYERS);
    for (size_t i = 0; i < sale.ledger.count; i++) {
        const struct ledger_entry *entry = &sale.ledger.entries[i];
        if (entry->order > 0) {
            assert_int_equal(++owned[entry->user_id - sale.first_user], 1);
        }
    }
}

/* --- more units than people: the limit alone decides
 * ----------------------------------------------------------------------------------------- */
static void one_for_everyone(void)
{
    round_begin(2 * BUYERS, 1);
    for (size_t i = 0; i < 3 * BUYERS; i++) {
        buy(i);
    }
    round_end();
    assert_int_equal(sale.ledger.confirmed, BUYERS);
    assert_int_equal(sale.ledger.over_limit, 2 * BUYERS);
}

/* --- everyone comes again until told no: waves that overlap, for first come, first served
 * -------------------------------------------------------- */
static void come_again(size_t client)
{
    if (sale.attempts[client] < 10) {
        buy(client);
    }
}

static void in_waves(void)
{
    round_begin(10 * UNITS, 0);
    sale.again = come_again;
    for (size_t i = 0; i < BUYERS; i++) {
        buy(i);
    }
    round_end();
    assert_int_equal(sale.ledger.confirmed, 10 * UNITS);
    assert_int_equal(sale.ledger.sold_out, 10 * BUYERS - 10 * UNITS);
}

/* --- the tests
 * ----------------------------------------------------------------------------------------------------------------------------------
 */
static void start_sale(unsigned workers)
{
    server_fixture_start(&sale.server, workers, NULL, NULL);
    sale.first_user = server_fixture_add_users(&sale.server, BUYERS);
    for (size_t i = 0; i < BUYERS; i++) {
        server_fixture_token(&sale.server, sale.first_user + (int64_t)i, USER_BUYER, sale.tokens[i]);
    }
    sale.crowd = crowd_new(sale.server.port, CLIENTS, answer_cb, NULL);
}

static void end_sale(void)
{
    crowd_free(&sale.crowd);
    server_fixture_verify(&sale.server, 0);
    server_fixture_stop(&sale.server);
    server_fixture_verify(&sale.server, 0); /* a stopped server too */
}

static void sale_with(unsigned workers)
{
    unsigned rounds = rounds_wanted(gate_is_redlock() ? ROUNDS_USUAL_REDLOCK : ROUNDS_USUAL);
    int64_t last_order = 0, began_us = now_us();
    size_t readings = 0, changes = 0;
    start_sale(workers);
    for (unsigned i = 0; i < rounds; i++) {
        three_hundred_on_a_hundred(&last_order);
        readings += sale.stock_readings;
        changes += sale.stock_changes;
    }
    for (unsigned i = 0; i < rounds; i++) {
        void (*const kinds[])(void) = {quantities_one_to_three, one_a_person, one_for_everyone, in_waves};
        for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
            kinds[kind]();
            readings += sale.stock_readings;
            changes += sale.stock_changes;
        }
    }
    end_sale();
    assert_true(changes > rounds); /* the books were looked at in mid-sale, not only before and after */
    print_message(
        "[          ] %u workers: %u rounds of each, %zu stock readings, %zu new ones in mid-sale, %.1f s\n",
        workers, rounds, readings, changes, (double)(now_us() - began_us) / 1e6);
}

static void test_one_worker(void **state)
{
    (void)state;
    sale_with(worker_counts[0]);
}

static void test_two_workers(void **state)
{
    (void)state;
    sale_with(worker_counts[1]);
}

static void test_four_workers(void **state)
{
    (void)state;
    sale_with(worker_counts[2]);
}

static int setup(void **state)
{
    (void)state;
    server_fixture_begin(&sale.server);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (sale.crowd != NULL) {
        crowd_free(&sale.crowd);
    }
    ledger_free(&sale.ledger);
    server_fixture_end(&sale.server);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_worker, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_workers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_four_workers, setup, teardown),
    };
    sale.random = random_seed("test_sale");
    sale.tokens = calloc(BUYERS, sizeof *sale.tokens);
    int failed = sale.tokens != NULL ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    free(sale.tokens);
    return failed;
}
