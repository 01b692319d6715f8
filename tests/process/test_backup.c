/* Backups of a server in mid-sale, everything destroyed, restored, sold on; restored beside a Redis or nodes that know more than the backup. Judged
 * by the store and by verify. Runs on both gates. */
#include "testing.h"

#include "http_client.h"
#include "lock_nodes.h"
#include "redis_fixture.h"
#include "sale_fixture.h"
#include "tool.h"

#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUYERS 32
#define STOCK 1000000

static struct sale_fixture sale;
static struct redis_fixture redis;
static struct lock_nodes nodes;
static char folder[FOLDER_BYTES + 16]; /* of the backups */

/* --- files --- */
static size_t count_files(const char *pattern)
{
    glob_t found = {0};
    char path[FOLDER_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", sale.server.folder, pattern);
    size_t count = glob(path, GLOB_PERIOD, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return count;
}

static void remove_files(const char *pattern)
{
    glob_t found = {0};
    char path[FOLDER_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", sale.server.folder, pattern);
    if (glob(path, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            assert_int_equal(remove(found.gl_pathv[i]), 0);
        }
    }
    globfree(&found);
}

/* What a fire leaves of the data folder. */
static void destroy_data(void)
{
    remove_files("data/redis/*/*");
    remove_files("data/redis/*");
    remove_files("data/node*/*");
    remove_files("data/*");
    assert_int_equal(rmdir(sale.server.data), 0);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static int64_t last_order(void)
{
    struct store *reader;
    struct store_position position;
    char error[512];
    assert_int_equal(store_open(&reader, sale.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_position(reader, &position), STORE_OK);
    store_close(&reader);
    return position.last_order_id;
}

/* --- the tools; buyers go on meanwhile --- */
/* The order that the backup ends with. */
static int64_t back_up(const char *more, const char *value)
{
    struct run_result result = tool_run(&sale.server, "setup", LIST("--backup", folder, more, value), NULL);
    const char *orders = strstr(result.out, ": ");
    if (result.exit_code != 0 || orders == NULL || strstr(result.out, "checked") == NULL) {
        fail_msg("backup: exit code %d\n%s%s", result.exit_code, result.out, result.err);
    }
    int64_t last = strtoll(orders + 2, NULL, 10);
    run_result_free(&result);
    return last;
}

static void begin(const char *redis_url)
{
    sale_fixture_begin(&sale, 2, BUYERS, redis_url, NULL);
    snprintf(folder, sizeof folder, "%s/backups", sale.server.folder);
    sale.server.wanted_port = sale.server.port;
}

static void start_again(void)
{
    server_fixture_start(&sale.server, 2, sale.redis_url != NULL ? LIST("--redis", sale.redis_url) : NULL,
                         NULL);
}

/* The old run is over: what its buyers were told is judged by the store as it was. */
static void stop(void)
{
    sale_fixture_judge(&sale);
    server_fixture_stop(&sale.server);
}

static void forget_what_was_promised(void)
{
    ledger_free(&sale.ledger);
    sale.ledger = (struct ledger){0};
    memset(sale.asked_us, 0, sizeof sale.asked_us);
}

static void sell_on(const char *when)
{
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), when);
    sale_fixture_judge(&sale);
}

/* --- tests --- */
static int64_t slowest_us(int ms)
{
    int64_t slowest = 0, deadline = deadline_in(ms);
    while (wait_a_moment(deadline)) {
        for (size_t i = 0; i < BUYERS; i++) {
            slowest = sale.buyers[i].answered_us > slowest ? sale.buyers[i].answered_us : slowest;
        }
    }
    return slowest;
}

static void test_everything_is_destroyed(void **state)
{
    (void)state;
    begin(NULL);
    sale_fixture_add_product(&sale, STOCK, 0);
    sale_fixture_add_product(&sale, STOCK, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "at first");
    int64_t calm_us = slowest_us(300);
    back_up(NULL, NULL);
    size_t before = sale.ledger.confirmed;
    int64_t began_us = now_us(), last = back_up("--keep", "1");
    print_message("[  FIGURE  ] %" PRId64
                  " orders backed up in %.2f s beside %zu purchases; the slowest of 300 ms before took "
                  "%.0f ms\n",
                  last, (double)(now_us() - began_us) / 1e6, sale.ledger.confirmed - before,
                  (double)calm_us / 1e3);
    assert_true(sale.ledger.confirmed > before); /* it sold on */
    assert_int_equal(sale.ledger.unavailable + sale.ledger.broken, 0);
    assert_int_equal(count_files("backups/doorbuster-*.db"), 1);
    assert_int_equal(count_files("backups/.doorbuster-*"), 0);
    assert_int_equal(count_files("backups/[!.]*"), 1); /* no -wal, nothing else */
    sale_fixture_expect_going_on(&sale, now_us(), "after the backup");
    stop();
    assert_true(last_order() > last);
    destroy_data();
    tool_expect(&sale.server, "setup", LIST("--restore", folder), 0, "sessions");
    assert_int_equal(count_files("data/*.restoring*"), 0);
    forget_what_was_promised();
    start_again();
    assert_int_equal(last_order(), last); /* all up to there, and no other */
    server_fixture_verify(&sale.server, 0);
    sell_on("after the restore");
    /* Nobody gets an id that was given away meanwhile. */
    assert_true(server_fixture_add_users(&sale.server, 1) > 1000000);
    assert_true(server_fixture_add_product(&sale.server, 1, 0) > 1000000);
    server_fixture_verify(&sale.server, 0);
    server_fixture_stop(&sale.server);
}

static void test_what_is_refused(void **state)
{
    char path[FOLDER_BYTES + 64], store[FOLDER_BYTES + 64];
    (void)state;
    if (gate_is_redlock()) {
        return; /* the same */
    }
    begin(NULL);
    sale_fixture_add_product(&sale, 5, 0);
    tool_expect(&sale.server, "setup", LIST("--restore", folder), 1, "No such file");
    assert_int_equal(mkdir(folder, 0700), 0);
    tool_expect(&sale.server, "setup", LIST("--restore", folder), 1, "no backup in this folder");
    snprintf(path, sizeof path, "%s/.doorbuster-20200101T000000.000Z.db.partial", folder);
    write_file(path, "half of one"); /* of a backup that was killed */
    back_up(NULL, NULL);
    assert_int_equal(count_files("backups/.doorbuster-*"), 0);
    assert_int_equal(sale_fixture_buy(&sale, 0, sale.products[0], 1), 201);
    tool_expect(&sale.server, "setup", LIST("--restore", folder, "--replace"), 1, "stop it first");
    server_fixture_stop(&sale.server);
    tool_expect(&sale.server, "setup", LIST("--restore", folder), 1, "--replace");
    /* Whoever reads it holds on to a file that would not be the store any more. */
    struct store *reader;
    char error[512];
    assert_int_equal(store_open(&reader, sale.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    struct store_position position;
    assert_int_equal(store_position(reader, &position), STORE_OK);
    tool_expect(&sale.server, "setup", LIST("--restore", folder, "--replace"), 1, "has it open");
    store_close(&reader);
    /* A damaged one, and a file that is none. */
    snprintf(path, sizeof path, "%s/doorbuster-21000101T000000.000Z.db", folder);
    write_file(path, "nothing of the kind");
    tool_expect(&sale.server, "setup", LIST("--restore", folder, "--replace"), 1, "21000101");
    assert_int_equal(remove(path), 0);
    assert_int_equal(count_files("data/*.before-*") + count_files("data/*.restoring*"),
                     count_files("data/secret.key.before-*"));
    tool_expect(&sale.server, "setup", LIST("--backup", folder, "--restore", folder), 2, "two commands");
    tool_expect(&sale.server, "setup", LIST("--keep", "3"), 2, "--backup");
    tool_expect(&sale.server, "setup", LIST("--backup", folder, "--keep", "0"), 2, "--keep");
    /* The old store and the key of its sessions are put aside, whole. A damaged store too. */
    snprintf(path, sizeof path, "%s/secret.key", sale.server.data);
    write_file(path, "as the server makes it, 32 bytes.");
    tool_expect(&sale.server, "setup", LIST("--restore", folder, "--replace"), 0, "aside");
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(count_files("data/secret.key.before-*"), 1);
    assert_int_equal(count_files("data/doorbuster.db.before-*"), 1);
    snprintf(store, sizeof store, "%s/doorbuster.db", sale.server.data);
    write_file(store, "torn");
    tool_expect(&sale.server, "setup", LIST("--restore", folder, "--replace"), 0, "damaged");
    assert_int_equal(count_files("data/doorbuster.db.before-*"), 2);
    forget_what_was_promised();
    start_again();
    server_fixture_verify(&sale.server, 0);
    /* The private Redis has outlived it all, and has the sale in its log. */
    assert_int_equal(sale_fixture_product(&sale, sale.products[0]).stock, 4);
    server_fixture_stop(&sale.server);
}

/* Asks as this account; the status. */
static int ask(int64_t user, enum user_role role, const char *target, const char *body)
{
    char token[JWT_TOKEN_BYTES_MAX], headers[JWT_TOKEN_BYTES_MAX + 96];
    struct http_client client = {.fd = -1};
    struct http_answer answer;
    server_fixture_token(&sale.server, user, role, token);
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\nContent-Type: application/json\r\n",
             token);
    assert_int_equal(http_client_open(&client, "127.0.0.1", sale.server.port, TOOL_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_call(&client, "POST", target, headers, body, &answer, TOOL_MS),
                     HTTP_CLIENT_OK);
    int status = answer.status;
    http_answer_free(&answer);
    http_client_close(&client);
    return status;
}

static int buy_as(int64_t user, int64_t product)
{
    char body[96];
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":1}", product);
    return ask(user, USER_BUYER, "/api/purchases", body);
}

/* It has the log from the backup's position on: nothing is lost. Once it has not: what came after the backup is. */
static void test_beside_a_redis_that_goes_on(void **state)
{
    char url[256];
    (void)state;
    if (gate_is_redlock()) {
        return;
    }
    redis_fixture_start(&redis, true);
    snprintf(url, sizeof url, "unix:%s", redis.address.path);
    begin(url);
    sale_fixture_add_product(&sale, STOCK, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "at first");
    int64_t last = back_up(NULL, NULL);
    sale_fixture_expect_going_on(&sale, now_us(), "after the backup");
    stop();
    int64_t orders = last_order();
    assert_true(orders > last);
    tool_expect(&sale.server, "setup", LIST("--restore", folder, "--replace"), 0, "restored");
    start_again();
    assert_true(server_fixture_logged(&sale.server, "drained the log from"));
    assert_true(last_order() == orders);
    sale_fixture_judge(&sale); /* all that buyers were told */
    sell_on("after the first restore");
    /* An account, a product and a window that the backup does not have: the orders of the account are kept, the product is not on sale. */
    last = back_up(NULL, NULL);
    int64_t user = server_fixture_add_users(&sale.server, 1),
            product = server_fixture_add_product(&sale.server, 5, 0);
    assert_int_equal(buy_as(user, sale.products[0]), 201);
    assert_int_equal(buy_as(user, product), 201);
    char target[96];
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/window", sale.products[0]);
    assert_int_equal(ask(user, USER_ADMIN, target, "{\"ends_at\":\"now\",\"reason\":\"enough\"}"), 200);
    orders = last_order();
    server_fixture_stop(&sale.server);
    tool_expect(&sale.server, "setup", LIST("--restore", folder, "--replace"), 0, "restored");
    start_again();
    assert_true(last_order() == orders);
    tool_expect(&sale.server, "verify", LIST("--redis", url), 0, "2 of accounts or products");
    assert_int_equal(buy_as(sale.first_user, product), 404);
    assert_int_equal(buy_as(sale.first_user, sale.products[0]), 409); /* closed, as it was */
    assert_int_equal(ask(user, USER_ADMIN, target, "{\"ends_at\":null,\"reason\":\"on we go\"}"), 200);
    /* The attach has dropped the log. */
    server_fixture_stop(&sale.server);
    tool_expect(&sale.server, "setup", LIST("--restore", folder, "--replace"), 0, "restored");
    forget_what_was_promised();
    start_again();
    assert_true(server_fixture_logged(&sale.server, "rebuilding Redis from the store"));
    assert_true(last_order() == last); /* what came after the backup is lost */
    sell_on("after the second restore");
    server_fixture_stop(&sale.server);
}

/* The nodes say "sold out", at a later position than the restored store has ever been at. */
static void test_beside_nodes_that_know_more(void **state)
{
    char list[LOCK_NODES * (FOLDER_BYTES + 32)], *at = list;
    (void)state;
    if (!gate_is_redlock()) {
        return;
    }
    lock_nodes_start(&nodes);
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        at += snprintf(at, (size_t)(list + sizeof list - at), "%sunix:%s", i > 0 ? "," : "",
                       nodes.addresses[i].path);
    }
    setenv("REDIS_NODES", list, 1);
    begin(NULL);
    int64_t product = sale_fixture_add_product(&sale, 6, 0);
    assert_int_equal(sale_fixture_buy(&sale, 0, product, 1), 201);
    back_up(NULL, NULL);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(sale_fixture_buy(&sale, 0, product, 1), 201);
    }
    assert_int_equal(sale_fixture_buy(&sale, 0, product, 1), 400);
    stop();
    tool_expect(&sale.server, "setup", LIST("--restore", folder, "--replace"), 0, "restored");
    forget_what_was_promised();
    start_again();
    for (size_t i = 1; i <= 5;
         i++) { /* at once, and no more than there are; an old connection is found broken once */
        int status = sale_fixture_buy(&sale, i, product, 1);
        assert_int_equal(status == CROWD_BROKEN ? sale_fixture_buy(&sale, i, product, 1) : status, 201);
    }
    assert_int_equal(sale_fixture_buy(&sale, 1, product, 1), 400);
    server_fixture_verify(&sale.server, 0);
    sale_fixture_judge(&sale);
    server_fixture_stop(&sale.server);
}

static int teardown(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    if (redis.pid > 0) {
        redis_fixture_end(&redis);
    }
    if (getenv("REDIS_NODES") != NULL) {
        lock_nodes_end(&nodes);
        unsetenv("REDIS_NODES");
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_everything_is_destroyed, teardown),
        cmocka_unit_test_teardown(test_what_is_refused, teardown),
        cmocka_unit_test_teardown(test_beside_a_redis_that_goes_on, teardown),
        cmocka_unit_test_teardown(test_beside_nodes_that_know_more, teardown),
    };
    setenv("LOCK_TIMEOUT_SECONDS", "1", 1); /* nodes that start again do not vote for so long */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
