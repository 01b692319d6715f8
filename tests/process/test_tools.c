/* verify against a running server: that it finds each fault that is made on purpose, and none in the middle of a sale. Its other ways are
 * test_verify.c's. */
#include "testing.h"

#include "crowd.h"
#include "tool.h"

#include "doorbuster/json.h"
#include "doorbuster/redis.h"

#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define V2 LIST("--scenario", "v2_multi")

static struct tool_shop shop;

/* --- running them
 * ----------------------------------------------------------------------------------------------------------------
 */
static struct run_result run_tool(const char *tool, const char *const *arguments,
                                  const char *const *environment)
{
    return tool_run(&shop.server, tool, arguments, environment);
}

static void expect_tool(const char *tool, const char *const *arguments, int exit_code, const char *words)
{
    tool_expect(&shop.server, tool, arguments, exit_code, words);
}

static void sell(int64_t product, unsigned orders)
{
    tool_shop_sell(&shop, product, orders);
}

/* --- what verify finds
 * ------------------------------------------------------------------------------------------------------------------------------
 */
static void test_verify_refusals(void **state)
{
    (void)state;
    expect_tool("verify", LIST("--product", "0"), 2, "--product");
    expect_tool("verify", LIST("--product", "x"), 2, "--product");
    expect_tool("verify", LIST("--product", "999"), 2, "there is no product 999");
    expect_tool("verify", LIST("--data", "/nonexistent"), 2, "/nonexistent");
    expect_tool("verify", LIST("--store", "mysql://x"), 2, "sqlite:");
    expect_tool("verify", LIST("--redis", "unix:/nonexistent.sock"), 2, "only the store can be checked");
    expect_tool("verify", LIST("--gate", "both"), 2, "lua or redlock");
    expect_tool("verify", LIST("--gate", "redlock"), 2, "sold through the lua gate");
}

/* The checks of --json that do not hold, as "name;name;". The exit code must fit them. */
static void verify_json(char *broken, size_t broken_bytes, int exit_code)
{
    struct run_result result = run_tool("verify", LIST("--json"), NULL);
    size_t used = 0;
    broken[0] = '\0';
    assert_int_equal(result.exit_code, exit_code);
    cJSON *json = json_parse_object(result.out, strlen(result.out));
    assert_non_null(json);
    const cJSON *checks = cJSON_GetObjectItemCaseSensitive(json, "checks"), *check;
    assert_true(cJSON_GetArraySize(checks) > 5);
    cJSON_ArrayForEach(check, checks)
    {
        const char *name, *detail;
        assert_int_equal(json_get_string(check, "name", 1, 100, &name), JSON_FIELD_OK);
        assert_int_equal(json_get_string(check, "detail", 1, 1000, &detail), JSON_FIELD_OK);
        if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(check, "ok"))) {
            used += (size_t)snprintf(broken + used, broken_bytes - used, "%s;", name);
        }
    }
    assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "ok")) != 0, exit_code == 0);
    cJSON_Delete(json);
    run_result_free(&result);
}

/* verify finds that these checks, and no others, do not hold. */
static void expect_broken(const char *const *names)
{
    char broken[1024];
    size_t bytes = 0;
    verify_json(broken, sizeof broken, 1);
    for (size_t i = 0; names[i] != NULL; i++) {
        if (strstr(broken, names[i]) == NULL) {
            fail_msg("\"%s\" is not among what verify found: %s", names[i], broken);
        }
        bytes += strlen(names[i]) + 1;
    }
    if (strlen(broken) != bytes) {
        fail_msg("verify found more than was broken: %s", broken);
    }
    server_fixture_verify(&shop.server, 1); /* without --json too */
}

static void expect_all_holds(void)
{
    char broken[1024];
    verify_json(broken, sizeof broken, 0);
    assert_string_equal(broken, "");
}

static void change_store(const char *sql)
{
    tool_shop_change_store(&shop, sql);
}

static void change_redis(const char *command, int64_t id, int64_t by)
{
    tool_shop_change_redis(&shop, command, id, by);
}

static void wait_until_healed(int64_t products)
{
    int64_t deadline = deadline_in(10000);
    while (server_fixture_metric(&shop.server, "recorder_healed") < products) {
        assert_true(now_us() < deadline);
        usleep(10000);
    }
}

/* While it stands still, it puts nothing right before verify looks. */
static pid_t stop_recorder(void)
{
    pid_t recorder = server_fixture_child(&shop.server, "doorbuster: recorder");
    assert_int_equal(kill(recorder, SIGSTOP), 0);
    return recorder;
}

static void let_go(pid_t recorder)
{
    assert_int_equal(kill(recorder, SIGCONT), 0);
}

static int64_t product_with_sales(void)
{
    int64_t id = server_fixture_add_product(&shop.server, 20, 0);
    size_t confirmed = shop.ledger.confirmed;
    sell(id, 4);
    assert_int_equal(shop.ledger.confirmed, confirmed + 4);
    expect_all_holds();
    return id;
}

static void test_verify_finds_stock_edited_in_redis(void **state)
{
    int64_t id = product_with_sales();
    (void)state;
    pid_t recorder = stop_recorder();
    change_redis("HINCRBY {doorbuster}:product:%lld stock %lld", id, 1);
    expect_broken(LIST("Redis = store"));
    expect_tool("verify", NULL, 1, "Redis 13, store 12");
    change_redis("HINCRBY {doorbuster}:product:%lld stock %lld", id, -2);
    expect_broken(LIST("Redis = store"));
    change_redis("HSET {doorbuster}:product:%lld stock %lld", id, 12);
    expect_all_holds();
    change_redis("HDEL {doorbuster}:product:%lld stock x%lld", id, 0);
    expect_broken(LIST("Redis = store"));
    let_go(recorder);
    wait_until_healed(1);
    expect_all_holds();
}

/* The same, but nobody does anything about it: the recorder finds it, puts it right through the log and says so. */
static void test_edited_stock_heals_by_itself(void **state)
{
    int64_t up = product_with_sales(), down = product_with_sales(), gone = product_with_sales();
    (void)state;
    change_redis("HINCRBY {doorbuster}:product:%lld stock %lld", up, 5);
    change_redis("HINCRBY {doorbuster}:product:%lld stock %lld", down, -5);
    change_redis("DEL {doorbuster}:product:%lld nothing:%lld", gone, 0);
    wait_until_healed(3);
    expect_all_holds();
    assert_true(server_fixture_logged(&shop.server, "Redis had 17, the store 12"));
    assert_true(server_fixture_logged(&shop.server, "Redis had 7, the store 12"));
    assert_true(server_fixture_logged(&shop.server, "Redis did not have it, the store has 12"));
    sell(gone, 8);
    assert_int_equal(shop.ledger.confirmed, 3 * 4 + 6); /* 12 units in twos */
    expect_all_holds();
}

/* More in Redis than there is: what does not fit is rejected by the store, never sold twice; and verify goes
 * on saying so. */
static int64_t stock_in_redis(int64_t id)
{
    redisContext *redis = server_fixture_redis(&shop.server);
    redisReply *reply = redis_ask(redis, "HGET {doorbuster}:product:%lld stock", (long long)id);
    assert_non_null(reply);
    assert_int_equal(reply->type, REDIS_REPLY_STRING);
    int64_t stock = strtoll(reply->str, NULL, 10);
    freeReplyObject(reply);
    redisFree(redis);
    return stock;
}

static void note_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    (void)context;
    (void)client;
    ledger_note(&shop.ledger, answer, shop.buyer, shop.product, TOOL_QUANTITY);
}

/* All of them are in the log before the recorder looks: it would put Redis right first. */
static void test_oversale_by_hand_is_rejected(void **state)
{
    int64_t id = product_with_sales();
    struct crowd *crowd = crowd_new(shop.server.port, 11, note_cb, NULL);
    int64_t deadline = deadline_in(TOOL_MS);
    (void)state;
    pid_t recorder = stop_recorder();
    change_redis("HINCRBY {doorbuster}:product:%lld stock %lld", id, 10);
    for (size_t client = 0; client < 11; client++) {
        crowd_buy(crowd, client, shop.token, id, TOOL_QUANTITY);
    }
    while (stock_in_redis(id) > 0) {
        crowd_step(crowd, 1);
        assert_true(wait_a_moment(deadline));
    }
    let_go(recorder);
    assert_true(crowd_finish(crowd, TOOL_MS));
    crowd_free(&crowd);
    assert_int_equal(shop.ledger.confirmed, 10); /* 20 units in twos */
    assert_int_equal(shop.ledger.over_limit, 5);
    expect_all_holds();
}

static void test_verify_finds_a_missing_order(void **state)
{
    (void)state;
    product_with_sales();
    change_store("DELETE FROM orders WHERE id = 2");
    expect_broken(LIST("units sold = sum of orders", "order ids without gaps", "orders = log"));
    expect_tool("verify", NULL, 1, "first gap 2");
}

static void test_verify_finds_the_last_order_missing(void **state)
{
    (void)state;
    product_with_sales();
    change_store("DELETE FROM orders WHERE id = 4");
    expect_broken(LIST("units sold = sum of orders", "orders = log"));
}

static void test_verify_finds_a_changed_order(void **state)
{
    (void)state;
    product_with_sales();
    change_store("UPDATE orders SET quantity = 3 WHERE id = 3");
    expect_broken(LIST("units sold = sum of orders", "orders = log"));
    expect_tool("verify", NULL, 1, "9 units in 4 orders, the book says 8 sold");
    change_store("UPDATE orders SET quantity = 2, user_id = user_id + 1000 WHERE id = 3");
    expect_broken(LIST("orders complete", "orders = log"));
}

static void test_verify_finds_a_changed_book(void **state)
{
    (void)state;
    product_with_sales();
    pid_t recorder = stop_recorder();
    /* A stock that does not add up, or below 0, the schema does not even allow; so both must be moved
     * together. */
    change_store("UPDATE products SET stock = stock + 5, opening = opening + 5");
    expect_broken(LIST("stock changes", "stock from the audit log", "Redis = store"));
    change_store("UPDATE products SET stock = stock - 5, opening = opening - 5");
    expect_all_holds();
    change_store("UPDATE products SET stock = stock + 1, sold = sold - 1");
    expect_broken(LIST("units sold = sum of orders", "stock from the audit log", "Redis = store"));
    change_store("UPDATE products SET stock = stock - 1, sold = sold + 1, price = price + 1");
    expect_broken(LIST("Redis = store"));
    let_go(recorder);
}

static void test_negative_stock_cannot_be_made(void **state)
{
    char path[FOLDER_BYTES + 32];
    sqlite3 *database;
    (void)state;
    product_with_sales();
    snprintf(path, sizeof path, "%s/doorbuster.db", shop.server.data);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    sqlite3_busy_timeout(database, 5000);
    assert_int_equal(sqlite3_exec(database, "UPDATE products SET stock = -1", NULL, NULL, NULL),
                     SQLITE_CONSTRAINT);
    assert_int_equal(sqlite3_exec(database, "UPDATE products SET stock = -1, sold = 21", NULL, NULL, NULL),
                     SQLITE_CONSTRAINT);
    assert_int_equal(sqlite3_exec(database, "UPDATE products SET stock = 13", NULL, NULL, NULL),
                     SQLITE_CONSTRAINT);
    sqlite3_close(database);
    expect_all_holds();
}

static void test_verify_finds_a_broken_order_of_events(void **state)
{
    (void)state;
    product_with_sales();
    change_store("UPDATE orders SET at_ms = at_ms - 1000000 WHERE id = 3");
    expect_broken(LIST("first come, first served", "orders = log"));
    change_store("UPDATE orders SET at_ms = at_ms + 1000000, log_n = 1000 WHERE id = 3");
    expect_broken(LIST("first come, first served", "orders known to the log", "orders = log"));
}

static void test_verify_finds_a_broken_limit(void **state)
{
    int64_t id = server_fixture_add_product(&shop.server, 20, 2);
    (void)state;
    sell(id, 2);
    assert_int_equal(shop.ledger.confirmed, 1);
    assert_int_equal(shop.ledger.over_limit, 1);
    expect_all_holds();
    pid_t recorder = stop_recorder();
    change_store("UPDATE products SET per_customer_limit = 1");
    expect_broken(LIST("customer limit", "Redis = store"));
    expect_tool("verify", NULL, 1, "they differ in customer limit: Redis 2, store 1");
    let_go(recorder);
}

static void test_verify_finds_a_sale_after_sold_out(void **state)
{
    int64_t id = server_fixture_add_product(&shop.server, 4, 0);
    (void)state;
    sell(id, 3);
    assert_int_equal(shop.ledger.confirmed, 2);
    assert_int_equal(shop.ledger.sold_out, 1);
    expect_all_holds();
    expect_tool("verify", NULL, 0, "first sold-out answer after order 2");
    redisContext *redis = server_fixture_redis(&shop.server);
    redisReply *reply = redis_ask(redis, "HSET {doorbuster}:product:%lld sold_out %s", (long long)id, "1 1");
    freeReplyObject(reply);
    redisFree(redis);
    expect_broken(LIST("last sale before sold out"));
}

/* --- verify: what Redis has of a product besides its stock
 * ------------------------------------------------------------------------------------------------------------------------
 */
static void expect_redis_differs(const char *edit, const char *mend, int64_t id, const char *words)
{
    change_redis(edit, id, 7);
    expect_broken(LIST("Redis = store"));
    expect_tool("verify", NULL, 1, words);
    change_redis(mend, id, 0);
    expect_all_holds();
}

static void test_verify_finds_a_product_edited_in_redis(void **state)
{
    int64_t id = product_with_sales();
    (void)state;
    expect_tool("setup", V2, 0, "bundle");
    pid_t recorder = stop_recorder();
    expect_redis_differs("HINCRBY {doorbuster}:product:%lld price %lld",
                         "HSET {doorbuster}:product:%lld price 50%lld", id,
                         "they differ in price: Redis 507, store 500");
    expect_redis_differs("HSET {doorbuster}:product:%lld limit %lld",
                         "HSET {doorbuster}:product:%lld limit %lld", id,
                         "they differ in customer limit: Redis 7, store 0");
    expect_redis_differs("HSET {doorbuster}:product:%lld starts %lld",
                         "HSET {doorbuster}:product:%lld starts %lld", id,
                         "they differ in sale's begin: Redis 7, store 0");
    expect_redis_differs("HSET {doorbuster}:product:%lld ends %lld",
                         "HSET {doorbuster}:product:%lld ends %lld", id,
                         "they differ in sale's end: Redis 7, store 0");
    let_go(recorder);
}

static void test_verify_finds_a_bundle_edited_in_redis(void **state)
{
    (void)state;
    expect_tool("setup", V2, 0, "bundle");
    pid_t recorder = stop_recorder();
    change_redis("HSET {doorbuster}:product:%lld components 1:%lld", 11, 7);
    expect_broken(LIST("Redis = store"));
    expect_tool("verify", NULL, 1, "they differ in number of components: Redis 1, store 2");
    let_go(recorder);
    wait_until_healed(1);
    expect_all_holds();
}

/* --- verify: carts, cancellations
 * ------------------------------------------------------------------------------------------------------------------------
 */
/* Product 5 twice, and the second bundle: products 2, 3 (twice) and 4. */
static const char cart[] =
    "{\"items\":[{\"product_id\":5,\"quantity\":2},{\"product_id\":12,\"quantity\":1}]}";

static int64_t buy_cart(void)
{
    int64_t id;
    assert_int_equal(tool_shop_ask(&shop, "POST", "/api/purchases", cart, &id), 201);
    return id;
}

static void cancel(int64_t order)
{
    char target[64];
    snprintf(target, sizeof target, "/api/purchases/%" PRId64, order);
    assert_int_equal(tool_shop_ask(&shop, "DELETE", target, NULL, NULL), 200);
}

static void test_verify_finds_a_changed_part(void **state)
{
    (void)state;
    expect_tool("setup", V2, 0, "bundle");
    buy_cart();
    expect_all_holds();
    change_store("UPDATE order_parts SET quantity = quantity + 1 WHERE product_id = 3");
    expect_broken(LIST("units sold = sum of orders", "bundles took their components", "orders = log"));
    change_store("UPDATE order_parts SET quantity = quantity - 1 WHERE product_id = 3");
    expect_all_holds();
    change_store("UPDATE order_parts SET remaining = remaining + 1 WHERE product_id = 4");
    expect_broken(LIST("orders = log"));
    change_store("UPDATE order_parts SET remaining = remaining - 1 WHERE product_id = 4");
    change_store("UPDATE order_parts SET is_component = 0 WHERE product_id = 2");
    expect_broken(LIST("bundles took their components", "orders = log"));
}

/* As if Redis had sold a bundle without one of its components, and the store had recorded it: every book adds up. */
static void test_verify_finds_a_bundle_without_a_component(void **state)
{
    (void)state;
    expect_tool("setup", V2, 0, "bundle");
    buy_cart();
    cancel(buy_cart()); /* took them too */
    expect_all_holds();
    pid_t recorder = stop_recorder();
    change_store("DELETE FROM order_parts WHERE product_id = 4 AND order_id = 1;"
                 "UPDATE orders SET part_count = part_count - 1 WHERE id = 1;"
                 "UPDATE products SET sold = sold - 1, stock = stock + 1 WHERE id = 4");
    expect_broken(
        LIST("bundles took their components", "stock from the audit log", "Redis = store", "orders = log"));
    expect_tool("verify", NULL, 1, "product 4: 1 units taken by bundles, those in orders are made of 2");
    let_go(recorder);
}

/* A rejected cart keeps its row, and its parts; it is in no book. */
static void test_a_rejected_cart_is_in_no_book(void **state)
{
    (void)state;
    expect_tool("setup", LIST("--scenario", "v2_multi", "--stock", "2"), 0, "bundle");
    buy_cart();
    change_redis("HINCRBY {doorbuster}:product:%lld stock %lld", 5, 9);
    change_redis("HINCRBY {doorbuster}:product:%lld stock %lld", 3, 9);
    assert_int_equal(tool_shop_ask(&shop, "POST", "/api/purchases", cart, NULL), 409);
    wait_until_healed(1);
    expect_all_holds();
    expect_tool("verify", NULL, 0, "2 orders (1 of them rejected)");
}

static void test_verify_finds_a_lost_cancellation(void **state)
{
    (void)state;
    expect_tool("setup", V2, 0, "bundle");
    buy_cart();
    cancel(buy_cart());
    expect_all_holds();
    expect_tool("verify", NULL, 0, "1 cancellations, 0 not in the store");
    change_store("DELETE FROM cancellations");
    char broken[1024];
    verify_json(broken, sizeof broken, 1);
    assert_string_equal(broken, "units cancelled;units cancelled;units cancelled;units cancelled;units "
                                "cancelled;orders = log;"); /* of products 2 to 5 and the bundle */
    expect_tool("verify", NULL, 1, "1 cancellations, 1 not in the store");
}

/* --- verify: the audit log
 * ------------------------------------------------------------------------------------------------------------------------
 */
static void test_verify_finds_a_changed_audit_row(void **state)
{
    (void)state;
    product_with_sales();
    expect_tool("verify", NULL, 0, "5 rows, the last one's hash ");
    change_store("DROP TRIGGER audit_log_no_update; UPDATE audit_log SET note = note || '!' WHERE seq = 3");
    expect_broken(LIST("audit log"));
    expect_tool("verify", NULL, 1, "row 3 is not as it was written");
    change_store("UPDATE audit_log SET note = substr(note, 1, length(note) - 1) WHERE seq = 3");
    expect_all_holds();
    change_store("UPDATE audit_log SET delta = delta - 1, to_figure = to_figure - 1 WHERE seq = 2");
    expect_tool("verify", NULL, 1, "row 2 is not as it was written; row 3 does not follow");
}

static void test_verify_finds_a_removed_audit_row(void **state)
{
    (void)state;
    product_with_sales();
    change_store("DROP TRIGGER audit_log_no_delete; DELETE FROM audit_log WHERE seq = 3");
    expect_tool("verify", NULL, 1, "row 3 is missing");
}

/* The chain does not tell; but what is left does not add up to the stock. */
static void test_verify_finds_the_audit_log_cut_short(void **state)
{
    (void)state;
    product_with_sales();
    change_store("DROP TRIGGER audit_log_no_delete; DELETE FROM audit_log WHERE seq = 5");
    expect_broken(LIST("stock from the audit log"));
}

static void test_verify_gives_the_last_hash(void **state)
{
    const char *head;
    int64_t rows;
    (void)state;
    product_with_sales();
    struct run_result result = run_tool("verify", LIST("--json"), NULL);
    cJSON *json = json_parse_object(result.out, strlen(result.out));
    assert_non_null(json);
    const cJSON *log = cJSON_GetObjectItemCaseSensitive(json, "audit_log");
    assert_int_equal(json_get_integer(log, "rows", 0, 100, &rows), JSON_FIELD_OK);
    assert_int_equal(json_get_string(log, "head", 64, 64, &head), JSON_FIELD_OK);
    assert_int_equal(rows, 5);
    assert_int_equal(strspn(head, "0123456789abcdef"), 64);
    cJSON_Delete(json);
    run_result_free(&result);
}

/* In the middle of a sale the books are equal too. */
static void come_again_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    struct crowd **crowd = context;
    ledger_note(&shop.ledger, answer, shop.buyer, shop.product, TOOL_QUANTITY);
    if (answer->status == 201) {
        crowd_buy(*crowd, client, shop.token, shop.product, TOOL_QUANTITY);
    }
}

static void verify_while_buying(struct crowd *crowd, int rounds)
{
    for (int round = 0; round < rounds; round++) {
        const char *const argv[] = {program_path("verify"), "--data", shop.server.data, NULL};
        FILE *out = tmpfile();
        pid_t pid = program_start(argv, NULL, fileno(out), fileno(out));
        int64_t until = deadline_in(100);
        while (now_us() < until) { /* they keep buying while it reads */
            crowd_step(crowd, 5);
        }
        int exit_code = program_wait(pid, TOOL_MS);
        if (exit_code != 0) {
            char said[16384];
            rewind(out);
            said[fread(said, 1, sizeof said - 1, out)] = '\0';
            fail_msg("verify exited with %d:\n%s", exit_code, said);
        }
        fclose(out);
    }
}

static void test_verify_in_mid_sale(void **state)
{
    struct crowd *crowd;
    (void)state;
    shop.product = server_fixture_add_product(&shop.server, 400000, 0);
    crowd = crowd_new(shop.server.port, 40, come_again_cb, &crowd);
    for (size_t i = 0; i < 40; i++) {
        crowd_buy(crowd, i, shop.token, shop.product, TOOL_QUANTITY);
    }
    verify_while_buying(crowd, 10);
    assert_true(shop.ledger.confirmed > 100);
    assert_int_equal(shop.ledger.other + shop.ledger.unavailable + shop.ledger.broken, 0);
    crowd_free(&crowd);
}

/* The same with everything that moves a book: carts, bundles, cancellations, and an admin who restocks and changes prices. */
#define MANY_CLIENTS 24
#define MANY_TARGET_BYTES 64

struct bustle {
    struct crowd *crowd;
    char admin_token[JWT_TOKEN_BYTES_MAX];
    int64_t answered, cancelled, changed;
};

static void cancel_it(struct bustle *bustle, size_t client, int64_t order)
{
    char target[MANY_TARGET_BYTES];
    snprintf(target, sizeof target, "/api/purchases/%" PRId64, order);
    crowd_request(bustle->crowd, client, "DELETE", target, shop.token, NULL);
    bustle->cancelled++;
}

/* The first client is the admin. Products 3 and 5 are in all carts. */
static void change_something(struct bustle *bustle)
{
    char body[128];
    bool is_price = bustle->changed++ % 2 == 0;
    snprintf(body, sizeof body, "{\"%s\":%" PRId64 ",\"reason\":\"as it goes\"}",
             is_price ? "price" : "delta", bustle->changed);
    crowd_request(bustle->crowd, 0, "POST",
                  is_price ? "/api/admin/products/5/price" : "/api/admin/products/3/stock",
                  bustle->admin_token, body);
}

static void go_on_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    struct bustle *bustle = context;
    bustle->answered++;
    if (answer->status != 200 && answer->status != 201) {
        fail_msg("%d %s", answer->status, answer->body);
    }
    if (client == 0) {
        change_something(bustle);
    } else if (answer->status == 201 && client % 3 == 0) {
        cJSON *json = json_parse_object(answer->body, strlen(answer->body));
        int64_t order;
        assert_int_equal(json_get_integer(json, "id", 1, JSON_INTEGER_MAX, &order), JSON_FIELD_OK);
        cJSON_Delete(json);
        cancel_it(bustle, client, order);
    } else {
        crowd_request(bustle->crowd, client, "POST", "/api/purchases", shop.token, cart);
    }
}

static void test_verify_in_mid_sale_of_carts(void **state)
{
    static struct bustle bustle;
    (void)state;
    expect_tool("setup", LIST("--scenario", "v2_multi", "--stock", "1000000"), 0, "bundle");
    bustle = (struct bustle){0};
    server_fixture_token(&shop.server, shop.buyer, USER_ADMIN, bustle.admin_token);
    bustle.crowd = crowd_new(shop.server.port, MANY_CLIENTS, go_on_cb, &bustle);
    change_something(&bustle);
    for (size_t i = 1; i < MANY_CLIENTS; i++) {
        crowd_request(bustle.crowd, i, "POST", "/api/purchases", shop.token, cart);
    }
    verify_while_buying(bustle.crowd, 10);
    assert_true(bustle.answered > 100 && bustle.cancelled > 10 && bustle.changed > 10);
    crowd_free(&bustle.crowd);
    expect_all_holds();
}

/* --- the tests
 * --------------------------------------------------------------------------------------------------------------------------------
 */
static int setup(void **state)
{
    (void)state;
    tool_shop_begin(&shop);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tool_shop_end(&shop);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_verify_refusals),
        TEST(test_verify_finds_stock_edited_in_redis),
        TEST(test_edited_stock_heals_by_itself),
        TEST(test_oversale_by_hand_is_rejected),
        TEST(test_verify_finds_a_missing_order),
        TEST(test_verify_finds_the_last_order_missing),
        TEST(test_verify_finds_a_changed_order),
        TEST(test_verify_finds_a_changed_book),
        TEST(test_negative_stock_cannot_be_made),
        TEST(test_verify_finds_a_broken_order_of_events),
        TEST(test_verify_finds_a_broken_limit),
        TEST(test_verify_finds_a_sale_after_sold_out),
        TEST(test_verify_finds_a_product_edited_in_redis),
        TEST(test_verify_finds_a_bundle_edited_in_redis),
        TEST(test_verify_finds_a_changed_part),
        TEST(test_verify_finds_a_bundle_without_a_component),
        TEST(test_a_rejected_cart_is_in_no_book),
        TEST(test_verify_finds_a_lost_cancellation),
        TEST(test_verify_finds_a_changed_audit_row),
        TEST(test_verify_finds_a_removed_audit_row),
        TEST(test_verify_finds_the_audit_log_cut_short),
        TEST(test_verify_gives_the_last_hash),
        TEST(test_verify_in_mid_sale),
        TEST(test_verify_in_mid_sale_of_carts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
