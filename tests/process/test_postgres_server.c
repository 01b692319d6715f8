/* A real server whose store is in a real PostgreSQL: people buy while PostgreSQL is killed, stopped and frozen; a dump is restored and goes on. Judged by the
 * store and by `verify`. That sales are right on PostgreSQL at all is the business of test_sale, which runs on it too. */
#include "testing.h"

#include "postgres_fixture.h"
#include "redis_fixture.h"
#include "sale_fixture.h"
#include "store_fixture.h"
#include "tool.h"

#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUYERS 24
#define DOWN_MS 600
#define PROGRAM_BYTES 128
#define PROGRAM_MS 60000

static struct sale_fixture sale;

static int set_up(void **state)
{
    (void)state;
    sale_fixture_begin(&sale, 2, BUYERS, NULL, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    return 0;
}

/* Each outage once; nobody who was told of an order loses it, and the sale goes on by itself. */
static void test_outages_in_the_sale(void **state)
{
    struct postgres_fixture *postgres = store_fixture_postgres();
    (void)state;
    sale_fixture_add_product(&sale, 1000000, 0);
    sale_fixture_add_product(&sale, 1000000, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "at first");
    for (int round = 0; round < 2; round++) {
        postgres_fixture_kill(postgres);
        sale_fixture_buy_for(&sale, DOWN_MS);
        postgres_fixture_restart(postgres);
        sale_fixture_expect_going_on(&sale, now_us(), "after kill -9 of PostgreSQL");
    }
    postgres_fixture_stop(postgres);
    sale_fixture_buy_for(&sale, DOWN_MS);
    postgres_fixture_restart(postgres);
    sale_fixture_expect_going_on(&sale, now_us(), "after a stop of PostgreSQL");
    postgres_fixture_freeze(postgres);
    sale_fixture_buy_for(&sale, DOWN_MS);
    postgres_fixture_thaw(postgres);
    sale_fixture_expect_going_on(&sale, now_us(), "after PostgreSQL stood still");
    sale_fixture_end_sale(&sale, 0); /* no process had to be started again */
}

/* As if readers were at an old primary, that of epoch 1 and without orders, which others than the recorder have not left yet. */
#define OWN "current_setting('default_transaction_read_only') = 'off'"
static const char read_elsewhere[] =
    "ALTER TABLE state RENAME TO new_state; ALTER TABLE orders RENAME TO new_orders;"
    " CREATE VIEW orders AS SELECT * FROM new_orders WHERE " OWN ";"
    " CREATE VIEW state AS SELECT one, seller, epoch, CASE WHEN " OWN
    " THEN recorded_epoch ELSE 1 END AS recorded_epoch,"
    " recorded_n, store_id, ids_given, edits FROM new_state;"
    " CREATE FUNCTION write_state() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE new_state SET epoch = "
    "NEW.epoch,"
    " recorded_epoch = NEW.recorded_epoch, recorded_n = NEW.recorded_n; RETURN NEW; END';"
    " CREATE TRIGGER write_state INSTEAD OF UPDATE ON state FOR EACH ROW EXECUTE FUNCTION write_state()";
static const char read_here[] = "DROP VIEW state, orders; ALTER TABLE new_state RENAME TO state;"
                                " ALTER TABLE new_orders RENAME TO orders";

static void test_what_is_not_found_elsewhere_is_not_sold_again(void **state)
{
    (void)state;
    sale_fixture_add_product(&sale, 1000000, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "at first");
    postgres_fixture_do(sale.server.store_url, read_elsewhere);
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (server_fixture_metric(&sale.server, "purchases_settled") < 40) {
        redis_do(sale.redis, "CLIENT KILL TYPE normal SKIPME yes");
        sale_fixture_buy_for(&sale, 50);
        assert_true(wait_a_moment(deadline));
    }
    postgres_fixture_do(sale.server.store_url, read_here);
    sale_fixture_end_sale(&sale, 0);
    assert_int_equal(
        postgres_fixture_ask(sale.server.store_url, "SELECT count(*) - count(DISTINCT request) FROM orders"),
        0);
}

/* --- backup and restore ---------------------------------------------------------------------------------------------------- */
static void run_program(const char *name, const char *const *arguments)
{
    char pattern[PROGRAM_BYTES];
    const char *argv[16];
    glob_t found;
    size_t count = 1;
    snprintf(pattern, sizeof pattern, "/usr/lib/postgresql/*/bin/%s", name);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    argv[0] = found.gl_pathv[found.gl_pathc - 1];
    for (size_t i = 0; arguments[i] != NULL; i++)
        argv[count++] = arguments[i];
    argv[count] = NULL;
    struct run_result result = program_run(argv, NULL, PROGRAM_MS);
    if (result.exit_code != 0)
        fail_msg("%s: %s%s", name, result.out, result.err);
    run_result_free(&result);
    globfree(&found);
}

static void sell(size_t count, int64_t product)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(sale_fixture_buy(&sale, i % BUYERS, product, 1), 201);
}

static void test_a_dump_is_restored_and_goes_on(void **state)
{
    char dump[FOLDER_BYTES + 16];
    (void)state;
    int64_t product = sale_fixture_add_product(&sale, 1000, 0);
    tool_expect(&sale.server, "setup", LIST("--backup", sale.server.folder), 1, "pg_dump");
    tool_expect(&sale.server, "setup", LIST("--restore", sale.server.folder), 1, "pg_dump");
    sell(5, product);
    snprintf(dump, sizeof dump, "%s/dump", sale.server.folder);
    run_program("pg_dump", LIST("-Fc", "-f", dump, sale.server.store_url)); /* beside the sale */
    sell(5, product);                                                       /* these are lost */
    uint64_t epoch = sale_fixture_epoch(&sale);
    tool_expect(&sale.server, "setup", LIST("--restored"), 1, "stop it first");
    server_fixture_stop(&sale.server);

    postgres_fixture_do(sale.server.store_url,
                        "DROP SCHEMA doorbuster CASCADE; DROP FUNCTION public.zeroblob");
    run_program("pg_restore", LIST("--exit-on-error", "-d", sale.server.store_url, dump));
    tool_expect(&sale.server, "setup", LIST("--restored"), 0, "marked    the store as restored");
    server_fixture_start(&sale.server, 2, NULL, NULL);
    redisFree(sale.redis); /* it went with the server */
    sale.redis = server_fixture_redis(&sale.server);
    assert_true(sale_fixture_epoch(&sale) > epoch + 999999);
    server_fixture_verify(&sale.server, 0);
}

int main(void)
{
    setenv("DOORBUSTER_TEST_STORE", "postgres", 1);
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_outages_in_the_sale),
        TEST(test_what_is_not_found_elsewhere_is_not_sold_again),
        TEST(test_a_dump_is_restored_and_goes_on),
    };
    return cmocka_run_group_tests_name("postgres server", tests, NULL, NULL);
}
