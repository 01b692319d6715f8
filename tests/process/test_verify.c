/* verify's ways beyond the plain audit: --acks, --watch, --repair, a stopped server; and a server whose private
 * Redis finds its files damaged. That the audit finds faults is test_tools.c's. */
#include "testing.h"

#include "tool.h"

#include "doorbuster/json.h"
#include "doorbuster/redis.h"

#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINES_MS 30000

#define STOCK_BY "HINCRBY {doorbuster}:product:%lld stock %lld"

static struct tool_shop shop;

static void sell(unsigned orders)
{
    tool_shop_sell(&shop, shop.product, orders);
}

static void change_store(const char *sql)
{
    tool_shop_change_store(&shop, sql);
}

static void change_redis_stock(int64_t by)
{
    tool_shop_change_redis(&shop, STOCK_BY, shop.product, by);
}

/* --- what clients were told
 * -----------------------------------------------------------------------------------------------------------
 */
static const char *write_acks(const char *text)
{
    const char *path = tool_shop_path(&shop, "acks");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

/* The ledger's orders, one a line. */
static char *told(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    fputs("# order user product quantity\n\n", out);
    for (size_t i = 0; i < shop.ledger.count; i++) {
        const struct ledger_entry *entry = &shop.ledger.entries[i];
        fprintf(out, "%" PRId64 " %" PRId64 "\t%" PRId64 "  %" PRId64 "\n", entry->order, entry->user_id,
                entry->product_id, entry->quantity);
    }
    fclose(out);
    return text;
}

static void expect_acks(const char *text, int exit_code, const char *words)
{
    tool_expect(&shop.server, "verify", LIST("--acks", write_acks(text)), exit_code, words);
}

static void test_acks_hold(void **state)
{
    char *text = told();
    (void)state;
    assert_int_equal(shop.ledger.confirmed, 4);
    expect_acks(text, 0, "4 told to clients, 0 missing, 0 different, 0 told twice\n");
    expect_acks("", 0, "0 told to clients");
    /* From standard input. */
    char command[512];
    snprintf(command, sizeof command, "'%s' --data '%s' --json --acks - <'%s'", program_path("verify"),
             shop.server.data, write_acks(text));
    struct run_result result = program_run(LIST("/bin/sh", "-c", command), NULL, TOOL_MS);
    assert_int_equal(result.exit_code, 0);
    assert_non_null(strstr(result.out, "\"acknowledged orders\""));
    assert_non_null(strstr(result.out, "4 told to clients"));
    run_result_free(&result);
    free(text);
}

static void test_acks_do_not_hold(void **state)
{
    char text[512];
    (void)state;
    snprintf(text, sizeof text,
             "#\n1 %" PRId64 " %" PRId64 " 2\n99 1 1 1\n2 %" PRId64 " %" PRId64 " 3\n1 %" PRId64 " %" PRId64
             " 2\n3 %" PRId64 " %" PRId64 " 2\n",
             shop.buyer, shop.product, shop.buyer, shop.product, shop.buyer, shop.product, shop.buyer + 1,
             shop.product);
    expect_acks(
        text, 1,
        "5 told to clients, 1 missing, 2 different, 1 told twice; the first: line 3 (order 99 missing), "
        "line 4 (order 2 different), line 5 (order 1 told twice), line 6 (order 3 different)\n");
    change_store("UPDATE orders SET state = 1 WHERE id = 4");
    snprintf(text, sizeof text, "4 %" PRId64 " %" PRId64 " 2", shop.buyer, shop.product);
    expect_acks(text, 1, "line 1 (order 4 different)");
}

/* --- what clients were told of carts
 * ------------------------------------------------------------------------------------------------------------------------
 */
static int64_t v2_product(int number)
{
    return shop.product + number; /* setup adds ten products behind the shop's, then the bundles 11 and 12 */
}

static int64_t buy_cart(void)
{
    char body[128];
    int64_t id;
    tool_expect(&shop.server, "setup", LIST("--scenario", "v2_multi"), 0, "bundle");
    snprintf(body, sizeof body,
             "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":2},{\"product_id\":%" PRId64
             ",\"quantity\":1}]}",
             v2_product(5), v2_product(12));
    assert_int_equal(tool_shop_ask(&shop, "POST", "/api/purchases", body, &id), 201);
    return id;
}

/* "order buyer", then pairs of product and quantity that end with 0. */
static const char *cart_line(int64_t order, const int *pairs)
{
    static char text[1024];
    size_t used = (size_t)snprintf(text, sizeof text, "%" PRId64 " %" PRId64, order, shop.buyer);
    for (size_t i = 0; pairs[i] != 0; i += 2) {
        used += (size_t)snprintf(text + used, sizeof text - used, " %" PRId64 " %d", v2_product(pairs[i]),
                                 pairs[i + 1]);
        assert_in_range(used, 1, sizeof text - 1);
    }
    return text;
}

#define CART(...) ((const int[]){__VA_ARGS__, 0})

static void test_acks_of_carts(void **state)
{
    static const char fine[] = "1 told to clients, 0 missing, 0 different, 0 told twice\n";
    int64_t order = buy_cart();
    char told_later[1024], target[64];
    (void)state;
    expect_acks(cart_line(order, CART(5, 2, 12, 1)), 0, fine);
    expect_acks(cart_line(order, CART(12, 1, 5, 2)), 0, fine);
    expect_acks(cart_line(order, CART(5, 1, 12, 1, 5, 1)), 0, fine); /* as it may have been asked for */
    expect_acks(cart_line(order, CART(5, 2)), 1, "1 different");
    expect_acks(cart_line(order, CART(12, 1)), 1, "1 different");
    expect_acks(cart_line(order, CART(5, 2, 12, 2)), 1, "1 different");
    expect_acks(cart_line(order, CART(5, 2, 12, 1, 2, 1)), 1, "1 different"); /* what the bundle took */
    expect_acks(cart_line(order, CART(5, 2000000000, 12, 1)), 1, "1 different");
    snprintf(told_later, sizeof told_later, "%s", cart_line(order, CART(5, 2, 12, 1)));
    snprintf(target, sizeof target, "/api/purchases/%" PRId64, order);
    assert_int_equal(tool_shop_ask(&shop, "DELETE", target, NULL, NULL), 200);
    expect_acks(told_later, 0, fine); /* it was confirmed when its buyer was told */
}

static void test_acks_of_large_carts(void **state)
{
    int pairs[2 * 21 + 1] = {0};
    (void)state;
    for (int i = 0; i < 20; i++) {
        pairs[2 * i] = pairs[2 * i + 1] = i + 1;
    }
    expect_acks(cart_line(99, pairs), 1, "1 missing");
    pairs[40] = pairs[41] = 21;
    expect_acks(cart_line(99, pairs), 2, "line 1: ");
}

static void test_malformed_acks(void **state)
{
    static const char *const lines[] = {"1 2 3",   "1 2 3 4 5",       "1 2 3 4 5 0",
                                        "x 2 3 4", "1 2 3 0",         "-1 2 3 4",
                                        "1,2,3,4", "1 2 3 4 # order", "1 2 3 99999999999999999999"};
    char text[2048];
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        snprintf(text, sizeof text, "# orders\n\n%s\n1 1 1 1\n", lines[i]);
        expect_acks(text, 2, "line 3: ");
    }
    memset(text, '1', 1500);
    snprintf(text + 1500, sizeof text - 1500, "\n");
    expect_acks(text, 2, "line 1: ");
    text[0] = '#';
    expect_acks(text, 0, "0 told to clients");
    tool_expect(&shop.server, "verify", LIST("--acks", "/nonexistent"), 2, "/nonexistent");
    tool_expect(&shop.server, "verify", LIST("--acks", "/tmp"), 2, "cannot read /tmp");
    tool_expect(&shop.server, "verify", LIST("--acks", "-", "--watch"), 2, "leave out --acks");
}

/* --- watching
 * -------------------------------------------------------------------------------------------------------------------------
 */
static pid_t watcher;

static void watch_begin(bool json)
{
    FILE *out = fopen(tool_shop_path(&shop, "watch"), "w");
    assert_non_null(out);
    const char *const argv[] = {program_path("verify"), "--data", shop.server.data, "--watch",
                                json ? "--json" : NULL, NULL};
    watcher = program_start(argv, NULL, fileno(out), fileno(out));
    fclose(out);
}

static char *watched(void)
{
    return file_read(tool_shop_path(&shop, "watch"));
}

static void wait_for_words(const char *words)
{
    int64_t deadline = deadline_in(LINES_MS);
    for (;;) {
        char *text = watched();
        bool there = strstr(text, words) != NULL;
        if (!there && now_us() > deadline) {
            fail_msg("--watch has not said \"%s\":\n%s", words, text);
        }
        free(text);
        if (there) {
            return;
        }
        wait_a_moment(deadline);
    }
}

static void watch_end(int signal_number, int exit_code)
{
    kill(watcher, signal_number);
    assert_int_equal(program_wait(watcher, TOOL_MS), exit_code);
    watcher = 0;
}

static void test_watch(void **state)
{
    (void)state;
    watch_begin(false);
    wait_for_words(
        "Z  4 orders  0/s  0 in flight  epoch 1  lag 0 entries, 0 ms  17 of 17 checks hold (full)\n");
    wait_for_words("  4 of 4 checks hold\n");
    sell(1);
    wait_for_words("Z  5 orders  1/s");
    watch_end(SIGINT, 0);
    watch_begin(false);
    wait_for_words("  4 of 4 checks hold\n");
    pid_t recorder = server_fixture_child(&shop.server, "doorbuster: recorder");
    assert_int_equal(kill(recorder, SIGSTOP), 0); /* or it would put it right before anybody sees it */
    change_redis_stock(1);
    wait_for_words("  3 of 4 checks hold  BROKEN: Redis = store\n");
    assert_int_equal(kill(recorder, SIGCONT), 0);
    wait_for_words("epoch 2  lag 0 entries, 0 ms  4 of 4 checks hold\n"); /* healed */
    watch_end(SIGTERM, 1);
}

/* What only a full pass can see stays in the lines between. */
static void test_watch_remembers(void **state)
{
    (void)state;
    change_store("UPDATE orders SET quantity = 3 WHERE id = 3");
    watch_begin(false);
    wait_for_words("  15 of 17 checks hold (full)  BROKEN: units sold = sum of orders, orders = log\n");
    wait_for_words("  4 of 4 checks hold  BROKEN: units sold = sum of orders\n");
    watch_end(SIGINT, 1);
}

static void test_watch_json(void **state)
{
    int64_t orders;
    (void)state;
    watch_begin(true);
    wait_for_words("\"full\":false");
    server_fixture_stop(&shop.server); /* Redis goes; verify starts none while it watches */
    wait_for_words("\"open\":false");
    watch_end(SIGINT, 2);
    char *text = watched(), *rest = text, *line = strsep(&rest, "\n");
    cJSON *json = json_parse_object(line, strlen(line));
    assert_non_null(json);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "ok")));
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "full")));
    assert_int_equal(json_get_integer(json, "orders", 0, 100, &orders), JSON_FIELD_OK);
    assert_int_equal(orders, 4);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "broken")), 0);
    cJSON_Delete(json);
    free(text);
}

/* --- repairing
 * ------------------------------------------------------------------------------------------------------------------------
 */
static bool was_asked_to_attach(void)
{
    redisContext *redis = server_fixture_redis(&shop.server);
    redisReply *log = redis_ask(redis, "XREVRANGE {doorbuster}:log + - COUNT 20");
    bool found = false;
    for (size_t i = 0; log != NULL && i < log->elements; i++) {
        found = found || strcmp(log->element[i]->element[1]->element[0]->str, "attach") == 0;
    }
    freeReplyObject(log);
    redisFree(redis);
    return found;
}

/* The recorder stands still until verify has looked and asked, so that it cannot have healed anything by itself before; then it gets this
 * signal. Gives verify's exit code and what it said. */
static int repair_field(const char *edit, int64_t by, const char *more, int signal_number, char said[8192])
{
    pid_t recorder = server_fixture_child(&shop.server, "doorbuster: recorder");
    FILE *out = tmpfile();
    assert_int_equal(kill(recorder, SIGSTOP), 0);
    if (by != 0) {
        tool_shop_change_redis(&shop, edit, shop.product, by);
        server_fixture_verify(&shop.server, 1);
    }
    const char *const argv[] = {program_path("verify"), "--data", shop.server.data, "--repair", more, NULL};
    pid_t pid = program_start(argv, NULL, fileno(out), fileno(out));
    int64_t deadline = deadline_in(5000);
    while (!was_asked_to_attach()) {
        assert_true(wait_a_moment(deadline));
    }
    assert_int_equal(kill(recorder, signal_number), 0);
    int exit_code = program_wait(pid, TOOL_MS);
    rewind(out);
    said[fread(said, 1, 8191, out)] = '\0';
    fclose(out);
    return exit_code;
}

static int repair(int64_t stock_by, const char *more, int signal_number, char said[8192])
{
    return repair_field(STOCK_BY, stock_by, more, signal_number, said);
}

static void test_repair_mends_redis(void **state)
{
    char said[8192];
    (void)state;
    assert_int_equal(repair(3, NULL, SIGCONT, said), 0);
    assert_non_null(strstr(said, "before Redis 15, store 12; now Redis 12, store 12: mended"));
    server_fixture_verify(&shop.server, 0);
    assert_int_equal(repair(-5, "--json", SIGCONT, said), 0);
    cJSON *json = json_parse_object(said, strlen(said));
    assert_non_null(json);
    int64_t mended, before, after;
    const cJSON *report = cJSON_GetObjectItemCaseSensitive(json, "repair");
    assert_int_equal(json_get_integer(report, "mended", 0, 100, &mended), JSON_FIELD_OK);
    assert_int_equal(json_get_integer(report, "epoch_before", 1, 100, &before), JSON_FIELD_OK);
    assert_int_equal(json_get_integer(report, "epoch_after", 1, 100, &after), JSON_FIELD_OK);
    assert_int_equal(mended, 1);
    assert_true(after > before);
    cJSON_Delete(json);
    sell(1);
    assert_int_equal(shop.ledger.confirmed, 5);
}

/* Not only the stock. */
static void test_repair_mends_a_price(void **state)
{
    char said[8192];
    (void)state;
    assert_int_equal(repair_field("HINCRBY {doorbuster}:product:%lld price %lld", 7, NULL, SIGCONT, said), 0);
    assert_non_null(strstr(said, "(price): before Redis 12, store 12; now Redis 12, store 12: mended"));
    server_fixture_verify(&shop.server, 0);
}

static void test_repair_without_need(void **state)
{
    (void)state;
    tool_expect(&shop.server, "verify", LIST("--repair"), 0, "0 products differed, 0 of them mended");
}

/* Whoever attaches, it counts: here the recorder's successor. */
static void test_repair_sees_an_attach(void **state)
{
    char said[8192];
    (void)state;
    int exit_code = repair(0, NULL, SIGKILL, said);
    if (exit_code != 0 || strstr(said, "the recorder attached again (epoch 1 -> ") == NULL) {
        fail_msg("verify --repair exited with %d:\n%s", exit_code, said);
    }
    shop.server.bug_lines_allowed = true;
}

static void test_repair_without_a_recorder(void **state)
{
    pid_t recorder = server_fixture_child(&shop.server, "doorbuster: recorder");
    (void)state;
    kill(recorder, SIGSTOP);
    tool_expect(&shop.server, "verify", LIST("--repair"), 2,
                "no recorder attached within 10 s: is the server running?");
    kill(recorder, SIGCONT);
    server_fixture_stop(&shop.server);
    tool_expect(&shop.server, "verify", LIST("--repair"), 2, "is the server running?");
}

/* --- a stopped server
 * -----------------------------------------------------------------------------------------------------------------
 */
static void test_a_stopped_server(void **state)
{
    struct stat status;
    (void)state;
    server_fixture_stop(&shop.server);
    tool_expect(&shop.server, "verify", NULL, 0, "Redis 12, store 12");
    assert_int_not_equal(stat(tool_shop_path(&shop, "data/redis.sock"), &status), 0); /* it sleeps again */
    tool_expect(&shop.server, "verify", NULL, 0, "All hold: 4 orders");
    server_fixture_start(&shop.server, 1, NULL, NULL);
    assert_true(server_fixture_logged(&shop.server, "drained the log"));
    assert_false(server_fixture_logged(&shop.server, "rebuilt"));
    assert_false(server_fixture_logged(&shop.server, "waiting"));
    sell(1);
    assert_int_equal(shop.ledger.confirmed, 5);
    server_fixture_verify(&shop.server, 0);
    server_fixture_stop(&shop.server);
    change_store("DELETE FROM orders WHERE id = 2");
    tool_expect(&shop.server, "verify", NULL, 1, "first gap 2");
}

static void test_a_stopped_server_without_its_redis(void **state)
{
    (void)state;
    server_fixture_stop(&shop.server);
    struct run_result result = tool_run(&shop.server, "verify", NULL, LIST("PATH=/nonexistent"));
    assert_int_equal(result.exit_code, 2);
    assert_non_null(strstr(result.err, "no redis-server found"));
    assert_non_null(strstr(result.err, "only the store can be checked"));
    assert_non_null(strstr(result.out, "order ids without gaps"));
    run_result_free(&result);
    /* Somebody else has the folder. */
    int lock = open(tool_shop_path(&shop, "data/lock"), O_RDWR | O_CLOEXEC);
    assert_true(lock >= 0);
    assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0);
    tool_expect(&shop.server, "verify", NULL, 2, "a server holds");
    close(lock);
    const char *const removing[] = {"/bin/rm", "-r", tool_shop_path(&shop, "data/redis"), NULL};
    result = program_run(removing, NULL, TOOL_MS);
    assert_int_equal(result.exit_code, 0);
    run_result_free(&result);
    tool_expect(&shop.server, "verify", NULL, 2, "data/redis: No such file");
    assert_int_equal(mkdir(tool_shop_path(&shop, "data/redis"), 0700), 0);
    tool_expect(&shop.server, "verify", NULL, 2, "there are no data of a private Redis");
    server_fixture_start(&shop.server, 1, NULL, NULL);
    server_fixture_verify(&shop.server, 0);
}

/* Its owners were killed, and it hangs: a second one on the same files would be worse than no answer. */
static void test_a_redis_that_was_left_behind(void **state)
{
    pid_t children[SERVER_CHILDREN_MAX];
    pid_t redis = server_fixture_child(&shop.server, "redis-server");
    (void)state;
    kill(redis, SIGSTOP);
    size_t count = server_fixture_children(&shop.server, children, SERVER_CHILDREN_MAX);
    server_fixture_kill_supervisor(&shop.server);
    for (size_t i = 0; i < count; i++) {
        if (children[i] != redis) {
            kill(children[i], SIGKILL);
            assert_true(server_fixture_wait_gone(&children[i], 1, TOOL_MS));
        }
    }
    tool_expect(&shop.server, "verify", NULL, 2, "a redis-server that does not answer is still there");
    kill(redis, SIGCONT);
    tool_expect(&shop.server, "verify", NULL, 0, "All hold: 4 orders");
    kill(redis, SIGKILL);
    assert_true(server_fixture_wait_gone(&redis, 1, TOOL_MS));
    tool_expect(&shop.server, "verify", NULL, 0, "All hold: 4 orders");
}

/* --- damaged files
 * --------------------------------------------------------------------------------------------------------------------
 */
static void find_file(const char *pattern, char path[TOOL_PATH_BYTES])
{
    glob_t found;
    assert_int_equal(glob(tool_shop_path(&shop, pattern), 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    snprintf(path, TOOL_PATH_BYTES, "%s", found.gl_pathv[0]);
    globfree(&found);
}

static void test_damaged_redis_files_are_set_aside(void **state)
{
    char path[TOOL_PATH_BYTES], garbage[200];
    (void)state;
    server_fixture_stop(&shop.server);
    find_file("data/redis/appendonlydir/*.incr.aof", path);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    memset(garbage, 'x', sizeof garbage);
    fseek(file, 0, SEEK_END);
    fseek(file, ftell(file) / 2, SEEK_SET);
    assert_int_equal(fwrite(garbage, 1, sizeof garbage, file), sizeof garbage);
    fclose(file);
    tool_expect(&shop.server, "verify", NULL, 2, "the private redis-server ended at once");
    server_fixture_start(&shop.server, 1, NULL, NULL);
    assert_true(server_fixture_logged(&shop.server, "redis-server failed to start 3 times in a row"));
    assert_true(server_fixture_logged(&shop.server, "/redis/damaged-"));
    assert_true(server_fixture_logged(&shop.server, "rebuilding Redis from the store"));
    find_file("data/redis/damaged-*/appendonlydir/*.incr.aof", path);
    sell(1);
    assert_int_equal(shop.ledger.confirmed, 5);
    char *text = told();
    expect_acks(text, 0, "5 told to clients, 0 missing, 0 different, 0 told twice\n");
    free(text);
    /* Once is enough. */
    server_fixture_stop(&shop.server);
    server_fixture_start(&shop.server, 1, NULL, NULL);
    assert_true(server_fixture_logged(&shop.server, "drained the log"));
    server_fixture_verify(&shop.server, 0);
}

/* A tail that was cut off Redis mends by itself; the recorder then fills in what it forgot. */
static void test_a_cut_redis_file(void **state)
{
    char path[TOOL_PATH_BYTES];
    struct stat status;
    (void)state;
    server_fixture_stop(&shop.server);
    find_file("data/redis/appendonlydir/*.incr.aof", path);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(truncate(path, status.st_size - 150), 0);
    server_fixture_start(&shop.server, 1, NULL, NULL);
    assert_false(server_fixture_logged(&shop.server, "redis-server died"));
    sell(1);
    assert_int_equal(shop.ledger.confirmed, 5);
    server_fixture_verify(&shop.server, 0);
}

/* --- the tests
 * ------------------------------------------------------------------------------------------------------------------------
 */
static int setup(void **state)
{
    (void)state;
    tool_shop_begin(&shop);
    shop.product = server_fixture_add_product(&shop.server, 20, 0);
    sell(4);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (watcher > 0) {
        kill(watcher, SIGKILL);
        waitpid(watcher, NULL, 0);
        watcher = 0;
    }
    tool_shop_end(&shop);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_acks_hold),
        TEST(test_acks_do_not_hold),
        TEST(test_acks_of_carts),
        TEST(test_acks_of_large_carts),
        TEST(test_malformed_acks),
        TEST(test_watch),
        TEST(test_watch_remembers),
        TEST(test_watch_json),
        TEST(test_repair_mends_redis),
        TEST(test_repair_mends_a_price),
        TEST(test_repair_without_need),
        TEST(test_repair_sees_an_attach),
        TEST(test_repair_without_a_recorder),
        TEST(test_a_stopped_server),
        TEST(test_a_stopped_server_without_its_redis),
        TEST(test_a_redis_that_was_left_behind),
        TEST(test_damaged_redis_files_are_set_aside),
        TEST(test_a_cut_redis_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
