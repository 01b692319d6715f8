/* A sale is closed and opened again while buyers come without a pause, and whoever keeps the books is killed in between: when the change is
 * answered, every later purchase is decided by it, on every worker. Judged by the store. Runs on both gates. */
#include "testing.h"

#include "http_client.h"
#include "sale_fixture.h"

#include "doorbuster/clock.h"
#include "doorbuster/json.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#define BUYERS 48
#define STOCK 1000000
#define ANSWER_MS 20000

static struct sale_fixture sale;
static char admin[JWT_TOKEN_BYTES_MAX];

/* The buyers go on meanwhile. Returns when it was answered, as a time of purchases; *ends_at_ms: 0 for none. */
static int64_t change_window(int64_t product, const char *body, int64_t *ends_at_ms)
{
    struct http_client client;
    struct http_answer answer;
    char target[96], headers[JWT_TOKEN_BYTES_MAX + 96];
    const char *text = NULL;
    int64_t deadline = deadline_in(ANSWER_MS);
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/window", product);
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\nContent-Type: application/json\r\n",
             admin);
    assert_int_equal(http_client_open(&client, "127.0.0.1", sale.server.port, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_request(&client, "POST", target, headers, body, strlen(body), ANSWER_MS),
                     HTTP_CLIENT_OK);
    struct pollfd socket = {.fd = client.fd, .events = POLLIN};
    while (poll(&socket, 1, 0) == 0) {
        assert_true(wait_a_moment(deadline));
    }
    int64_t answered_us = now_us();
    assert_int_equal(http_client_read(&client, &answer, ANSWER_MS), HTTP_CLIENT_OK);
    if (answer.status != 200) {
        fail_msg("status %d: %s", answer.status, answer.body);
    }
    cJSON *json = json_parse_object(answer.body, answer.body_bytes);
    *ends_at_ms = 0;
    if (json_get_string(json, "ends_at", 1, 64, &text) == JSON_FIELD_OK) {
        assert_true(clock_parse_rfc3339(text, ends_at_ms));
    }
    cJSON_Delete(json);
    http_answer_free(&answer);
    http_client_close(&client);
    return answered_us;
}

/* When the last order was reserved. */
static int64_t last_order_ms(void)
{
    sqlite3 *db;
    sqlite3_stmt *row;
    assert_int_equal(
        sqlite3_open_v2(sale.server.store_url + strlen("sqlite:"), &db, SQLITE_OPEN_READONLY, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT max(at_ms) FROM orders", -1, &row, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    int64_t at_ms = sqlite3_column_int64(row, 0);
    sqlite3_finalize(row);
    sqlite3_close(db);
    return at_ms;
}

/* What was asked for later than the answer is refused, by each of the workers; what is on its way is let come to an end before it is judged. */
static void expect_closed(int64_t answered_us, int64_t ends_at_ms)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    for (size_t i = 0; i < BUYERS; i++) {
        sale.buyers[i].status = 0;
    }
    for (size_t i = 0; i < BUYERS; i++) { /* 503 meanwhile, if its recorder was killed */
        while (sale.buyers[i].status != 409) {
            assert_true(wait_a_moment(deadline));
        }
    }
    size_t confirmed = sale.ledger.confirmed;
    sale_fixture_buy_for(&sale, 100);
    assert_int_equal(sale.ledger.confirmed, confirmed);
    assert_true(sale.asked_us[0] <= answered_us);
    assert_true(last_order_ms() <= ends_at_ms);
}

static void test_closed_under_load(void **state)
{
    static const char close[] = "{\"ends_at\":\"now\",\"reason\":\"enough\"}";
    static const char reopen[] = "{\"ends_at\":null,\"reason\":\"on we go\"}";
    int64_t ends_at_ms, none, answered_us;
    (void)state;
    sale_fixture_begin(&sale, 2, BUYERS, NULL, NULL);
    server_fixture_token(&sale.server, sale.first_user, USER_ADMIN, admin);
    int64_t product = sale_fixture_add_product(&sale, STOCK, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "at first");
    answered_us = change_window(product, close, &ends_at_ms);
    expect_closed(answered_us, ends_at_ms);
    answered_us = change_window(product, reopen, &none);
    assert_int_equal(none, 0);
    sale_fixture_expect_going_on(&sale, answered_us, "opened again");
    /* Killed right before: the change waits for the next one, and purchases that were reserved before it are recorded. */
    assert_int_equal(kill(server_fixture_child(&sale.server, server_fixture_bookkeeper()), SIGKILL), 0);
    answered_us = change_window(product, close, &ends_at_ms);
    expect_closed(answered_us, ends_at_ms);
    /* Killed while it is closed: it stays so. */
    sale_fixture_kill(&sale, server_fixture_bookkeeper());
    expect_closed(answered_us, ends_at_ms);
    answered_us = change_window(product, reopen, &none);
    sale_fixture_expect_going_on(&sale, answered_us, "opened again after a death");
    sale_fixture_end_sale(&sale, 2);
}

static int teardown(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_closed_under_load, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
