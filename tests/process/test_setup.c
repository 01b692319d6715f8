/* setup against a running server: what it makes, what it leaves alone, what it refuses. */
#include "testing.h"

#include "tool.h"

#include "doorbuster/password.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct tool_shop shop;

static struct run_result run_tool(const char *tool, const char *const *arguments,
                                  const char *const *environment)
{
    return tool_run(&shop.server, tool, arguments, environment);
}

static void expect_tool(const char *tool, const char *const *arguments, int exit_code, const char *words)
{
    tool_expect(&shop.server, tool, arguments, exit_code, words);
}

static struct store_product find_product(const char *name)
{
    struct store *store;
    struct store_product found;
    char error[512];
    assert_int_equal(store_open(&store, shop.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_find_product_by_name(store, name, &found), STORE_OK);
    store_close(&store);
    return found;
}

static struct store_user find_user(const char *name)
{
    struct store *store;
    struct store_user found;
    char error[512];
    assert_int_equal(store_open(&store, shop.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_find_user(store, name, &found), STORE_OK);
    store_close(&store);
    return found;
}

/* As one who registered; the account's id. */
static int64_t add_buyer(const char *name, const char *password)
{
    struct store *store;
    char error[512];
    struct store_user buyer = {.role = USER_BUYER};
    snprintf(buyer.username, sizeof buyer.username, "%s", name);
    assert_true(password_hash(password, buyer.password_hash));
    assert_int_equal(store_open(&store, shop.server.store_url, STORE_WRITER, error, sizeof error), STORE_OK);
    assert_int_equal(store_add_user(store, &buyer), STORE_OK);
    store_close(&store);
    return buyer.id;
}

static void sell(int64_t product, unsigned orders)
{
    tool_shop_sell(&shop, product, orders);
}

/* --- setup
 * --------------------------------------------------------------------------------------------------------------------------
 */
#define PRODUCT "Black Friday Limited Edition"

static void test_setup_twice(void **state)
{
    (void)state;
    expect_tool("setup", NULL, 0, "shown this once");
    struct store_product first = find_product(PRODUCT);
    struct store_user admin = find_user("admin_v1_stress");
    assert_int_equal(first.stock, 100);
    assert_int_equal(first.per_customer_limit, 1);
    assert_int_equal(admin.role, USER_ADMIN);
    expect_tool("setup", NULL, 0, "is there already");
    struct store_product second = find_product(PRODUCT);
    struct store_user same = find_user("admin_v1_stress");
    assert_int_equal(second.id, first.id);
    assert_int_equal(second.stock, first.stock);
    assert_int_equal(second.opening, first.opening);
    assert_int_equal(second.updated_at_ms, first.updated_at_ms);
    assert_int_equal(same.id, admin.id);
    assert_string_equal(admin.password_hash, same.password_hash);
    server_fixture_verify(&shop.server, 0);
}

static void test_setup_password(void **state)
{
    struct run_result result =
        run_tool("setup", NULL, LIST("DOORBUSTER_ADMIN_PASSWORD=correct horse battery"));
    (void)state;
    assert_int_equal(result.exit_code, 0);
    assert_null(strstr(result.out, "correct horse"));
    run_result_free(&result);
    struct store_user admin = find_user("admin_v1_stress");
    assert_true(password_verify("correct horse battery", admin.password_hash));
    result = run_tool("setup", NULL, LIST("DOORBUSTER_ADMIN_PASSWORD=short"));
    assert_int_equal(result.exit_code, 2);
    assert_non_null(strstr(result.err, "DOORBUSTER_ADMIN_PASSWORD"));
    run_result_free(&result);
}

/* A buyer who registered under the admin's name has neither the role nor, afterwards, the password. */
static void test_setup_takes_its_account_back(void **state)
{
    int64_t squatter = add_buyer("admin_v1_basic", "the squatter's");
    (void)state;
    expect_tool("setup", LIST("--scenario", "v1_basic"), 0, "shown this once");
    struct store_user admin = find_user("admin_v1_basic");
    assert_int_equal(admin.id, squatter);
    assert_int_equal(admin.role, USER_ADMIN);
    assert_false(password_verify("the squatter's", admin.password_hash));
}

static void test_setup_spares_orders(void **state)
{
    (void)state;
    expect_tool("setup", LIST("--scenario", "custom", "--stock", "20"), 0, "stock 20");
    struct store_product first = find_product(PRODUCT);
    sell(first.id, 3);
    expect_tool("setup", LIST("--scenario", "custom", "--stock", "20"), 1, "--reset");
    expect_tool("setup", LIST("--scenario", "custom", "--stock", "50"), 1, "--reset");
    assert_int_equal(find_product(PRODUCT).id, first.id);
    expect_tool("setup", LIST("--scenario", "custom", "--stock", "30", "--limit", "7", "--reset"), 0,
                "retired");
    struct store_product second = find_product(PRODUCT);
    assert_int_not_equal(second.id, first.id);
    assert_int_equal(second.stock, 30);
    assert_int_equal(second.per_customer_limit, 7);
    /* The old one's orders stay; the rest of it is off sale. */
    char name[64];
    snprintf(name, sizeof name, PRODUCT " (retired %" PRId64 ")", first.id);
    struct store_product retired = find_product(name);
    assert_int_equal(retired.sold, 6);
    assert_int_equal(retired.stock, 0);
    assert_int_equal(retired.restocked, -14);
    size_t confirmed = shop.ledger.confirmed;
    sell(first.id, 1);
    assert_int_equal(shop.ledger.confirmed, confirmed);
    sell(second.id, 1);
    assert_int_equal(shop.ledger.confirmed, confirmed + 1);
    server_fixture_verify(&shop.server, 0);
}

/* --- setup of many products
 * ------------------------------------------------------------------------------------------------------------------------
 */
#define V2 LIST("--scenario", "v2_multi")
#define V2_PRODUCTS 10

static struct store_product find_v2(const char *kind, int number)
{
    char name[64];
    snprintf(name, sizeof name, "V2 %s %d", kind, number);
    return find_product(name);
}

/* It is so many of the n-th product, as that is now. */
static void expect_component(const struct store_product *bundle, size_t i, int number, int64_t quantity)
{
    assert_int_equal(bundle->components[i].product_id, find_v2("Product", number).id);
    assert_int_equal(bundle->components[i].quantity, quantity);
}

static void expect_v2(int64_t stock)
{
    for (int i = 1; i <= V2_PRODUCTS; i++) {
        struct store_product product = find_v2("Product", i);
        assert_int_equal(product.stock, stock);
        assert_int_equal(product.price, 1000 * i);
        assert_int_equal(product.per_customer_limit, i == V2_PRODUCTS ? 1 : 0);
        assert_int_equal(product.component_count, 0);
    }
    struct store_product first = find_v2("Bundle", 1), second = find_v2("Bundle", 2);
    assert_int_equal(first.price, 2500);
    assert_int_equal(first.component_count, 2);
    expect_component(&first, 0, 1, 1);
    expect_component(&first, 1, 2, 1);
    assert_int_equal(second.price, 11000);
    assert_int_equal(second.component_count, 3);
    expect_component(&second, 0, 2, 1);
    expect_component(&second, 1, 3, 2);
    expect_component(&second, 2, 4, 1);
    server_fixture_verify(&shop.server, 0);
}

static void test_setup_of_many_twice(void **state)
{
    (void)state;
    expect_tool("setup", V2, 0, "bundle    11 \"V2 Bundle 1\" of 1 x product 1, 1 x product 2, price 2500\n");
    assert_int_equal(find_user("admin_v2_multi").role, USER_ADMIN);
    expect_v2(100);
    struct store_product first = find_v2("Product", 10), bundle = find_v2("Bundle", 2);
    expect_tool("setup", V2, 0, "bundle    12 \"V2 Bundle 2\" is there already\n");
    assert_int_equal(find_v2("Product", 10).id, first.id);
    assert_int_equal(find_v2("Product", 10).updated_at_ms, first.updated_at_ms);
    assert_int_equal(find_v2("Bundle", 2).id, bundle.id);
    assert_int_equal(find_v2("Bundle", 2).updated_at_ms, bundle.updated_at_ms);
    expect_v2(100);
}

static void test_setup_of_many_spares_orders(void **state)
{
    char body[64];
    (void)state;
    expect_tool("setup", LIST("--scenario", "v2_multi", "--stock", "20"), 0, "stock 20");
    expect_v2(20);
    expect_tool("setup", V2, 1, "another stock");
    struct store_product bundle = find_v2("Bundle", 2), of = find_v2("Product", 3);
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":2}", bundle.id);
    assert_int_equal(tool_shop_ask(&shop, "POST", "/api/purchases", body, NULL), 201);
    expect_tool("setup", LIST("--scenario", "v2_multi", "--stock", "20"), 1,
                "--reset retires the scenario's");
    assert_int_equal(find_v2("Bundle", 2).id, bundle.id);
    assert_int_equal(find_v2("Product", 3).stock, 16);
    expect_tool("setup", LIST("--scenario", "v2_multi", "--stock", "30", "--reset"), 0, "retired");
    expect_v2(30);
    assert_true(find_v2("Product", 1).id > bundle.id);
    /* The old ones keep their orders; nothing of them is left to sell. */
    struct store_product retired = find_product("V2 Bundle 2 (retired 12)");
    assert_int_equal(retired.id, bundle.id);
    assert_int_equal(retired.sold, 2);
    retired = find_product("V2 Product 3 (retired 3)");
    assert_int_equal(retired.id, of.id);
    assert_int_equal(retired.sold, 4);
    assert_int_equal(retired.stock, 0);
    assert_int_equal(tool_shop_ask(&shop, "POST", "/api/purchases", body, NULL), 400);
}

/* A setup that was cut short is finished by the next. */
static void test_setup_adds_what_is_missing(void **state)
{
    struct store *store;
    char error[512];
    (void)state;
    expect_tool("setup", V2, 0, "bundle");
    struct store_product kept = find_v2("Bundle", 1), missing = find_v2("Bundle", 2);
    assert_int_equal(store_open(&store, shop.server.store_url, STORE_WRITER, error, sizeof error), STORE_OK);
    assert_int_equal(store_rename_product(store, missing.id, "something else"), STORE_OK);
    store_close(&store);
    expect_tool("setup", V2, 0, "bundle    13 \"V2 Bundle 2\" of");
    assert_int_equal(find_v2("Bundle", 1).id, kept.id);
    expect_v2(100);
}

static void test_setup_refusals(void **state)
{
    (void)state;
    expect_tool("setup", LIST("--scenario", "v2_multi", "--limit", "2"), 2, "--limit does not go with");
    expect_tool("setup", LIST("--scenario", "v9"), 2, "--scenario");
    expect_tool("setup", LIST("--scenario", "custom"), 2, "--stock");
    expect_tool("setup", LIST("--stock", "-1"), 2, "--stock");
    expect_tool("setup", LIST("--stock", "many"), 2, "--stock");
    expect_tool("setup", LIST("--stock", "1000000001"), 2, "--stock");
    expect_tool("setup", LIST("--limit", "-1"), 2, "--limit");
    expect_tool("setup", LIST("--rest"), 2, "--rest");
    expect_tool("setup", LIST("--data", "/nonexistent"), 2, "/nonexistent");
    expect_tool("setup", LIST("--redis", "foo"), 2, "redis://");
    expect_tool("setup", LIST("--scenario", "v9"), 2, "v3_redlock");
}

static void expect_environment(const char *setting, int exit_code, const char *words)
{
    struct run_result result = run_tool("setup", NULL, LIST(setting));
    assert_int_equal(result.exit_code, exit_code);
    if (strstr(result.out, words) == NULL && strstr(result.err, words) == NULL) {
        fail_msg("with %s it said %s%s, not \"%s\"", setting, result.out, result.err, words);
    }
    run_result_free(&result);
}

/* Which gate it is, the store says; who says otherwise has mistaken the server. */
static void test_setup_at_the_wrong_gate(void **state)
{
    (void)state;
    expect_tool("setup", LIST("--gate", "both"), 2, "lua or redlock");
    expect_tool("setup", LIST("--gate", "redlock"), 2, "sold through the lua gate");
    expect_environment("DOORBUSTER_GATE=redlock", 2, "sold through the lua gate");
    expect_tool("setup", LIST("--redlock-nodes", "127.0.0.1:7001,127.0.0.1:7002"), 2,
                "--redlock-nodes or REDIS_NODES");
    expect_environment("REDIS_NODES=7001", 2, "--redlock-nodes or REDIS_NODES");
    expect_tool("setup", LIST("--gate", "lua"), 0, "stock 100");
    expect_environment("DOORBUSTER_GATE=lua", 0, "is there already");
}

/* The scenario goes with either gate: only its load test does not. */
static void test_setup_of_redlock(void **state)
{
    (void)state;
    expect_tool("setup", LIST("--scenario", "v3_redlock"), 0, "admin_v3_redlock");
    struct store_product product = find_product(PRODUCT);
    assert_int_equal(product.stock, 100);
    assert_int_equal(product.per_customer_limit, 1);
    assert_int_equal(find_user("admin_v3_redlock").role, USER_ADMIN);
    expect_tool("setup", LIST("--scenario", "v3_redlock", "--stock", "7", "--limit", "2", "--reset"), 0,
                "stock 7");
    struct store_product everyday = find_product("Black Friday Everyday");
    assert_int_equal(everyday.stock, 1000000); /* neither is for this one */
    assert_int_equal(everyday.per_customer_limit, 0);
}

/* One that sells out, and one that does not, whatever --stock says. */
static void test_setup_of_production(void **state)
{
    (void)state;
    expect_tool("setup", LIST("--scenario", "v4_production", "--stock", "5"), 0, "admin_v4_production");
    assert_int_equal(find_product(PRODUCT).stock, 5);
    assert_int_equal(find_product(PRODUCT).per_customer_limit, 0);
    assert_int_equal(find_product("Black Friday Everyday").stock, 10000000);
    expect_tool("setup", LIST("--scenario", "v4_production", "--limit", "2"), 2, "--limit does not go with");
}

static void test_setup_without_a_server(void **state)
{
    (void)state;
    server_fixture_stop(&shop.server);
    expect_tool("setup", NULL, 1, "is the server running");
}

/* --- setup --admin
 * ------------------------------------------------------------------------------------------------------------------------
 */
static void expect_nothing_on_sale(void)
{
    struct store *store;
    struct store_product product;
    size_t count = 0;
    char error[512];
    assert_int_equal(store_open(&store, shop.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_products(store, 0, &product, 1, &count), STORE_OK);
    assert_int_equal(count, 0);
    store_close(&store);
}

static void set_password(const char *const *arguments, const char *password, const char *words)
{
    char setting[128];
    snprintf(setting, sizeof setting, "DOORBUSTER_ADMIN_PASSWORD=%s", password);
    struct run_result result = run_tool("setup", arguments, LIST(setting));
    assert_int_equal(result.exit_code, 0);
    assert_non_null(strstr(result.out, words));
    assert_null(strstr(result.out, password));
    run_result_free(&result);
}

static void test_admin_alone(void **state)
{
    (void)state;
    expect_tool("setup", LIST("--admin", "keeper"), 0, "shown this once");
    struct store_user made = find_user("keeper");
    assert_int_equal(made.role, USER_ADMIN);
    expect_tool("setup", LIST("--admin", "keeper"), 0, "is one already; its password stays");
    set_password(LIST("--admin", "keeper"), "not taken", "its password stays");
    assert_string_equal(find_user("keeper").password_hash, made.password_hash);
    /* Forgotten. */
    set_password(LIST("--admin", "keeper", "--reset"), "open sesame", "from DOORBUSTER_ADMIN_PASSWORD");
    struct store_user again = find_user("keeper");
    assert_int_equal(again.id, made.id);
    assert_true(password_verify("open sesame", again.password_hash));
    expect_tool("setup", LIST("--admin", "keeper", "--reset"), 0, "shown this once");
    assert_false(password_verify("open sesame", find_user("keeper").password_hash));
    set_password(LIST("--admin", "Zoë Ångström"), "tiny bird", "Zoë Ångström");
    assert_true(password_verify("tiny bird", find_user("Zoë Ångström").password_hash));
    expect_nothing_on_sale();
}

/* Somebody who registered becomes an admin, with the password that only they know. */
static void test_admin_of_an_account_that_is_there(void **state)
{
    int64_t buyer = add_buyer("clerk", "the clerk's own");
    (void)state;
    expect_tool("setup", LIST("--admin", "clerk"), 0, "signs in anew");
    assert_int_equal(find_user("clerk").id, buyer);
    assert_int_equal(find_user("clerk").role, USER_ADMIN);
    assert_true(password_verify("the clerk's own", find_user("clerk").password_hash));
    /* It does not need the server. */
    server_fixture_stop(&shop.server);
    set_password(LIST("--admin", "clerk", "--reset"), "open sesame", "clerk");
    assert_true(password_verify("open sesame", find_user("clerk").password_hash));
    expect_nothing_on_sale();
}

static void test_admin_refusals(void **state)
{
    char empty[FOLDER_BYTES + 16];
    (void)state;
    expect_tool("setup", LIST("--admin", "al"), 2, "3 to 50 characters");
    expect_tool("setup", LIST("--admin", "two\nlines"), 2, "no control characters");
    expect_tool("setup", LIST("--admin", "not\xffutf8"), 2, "UTF-8");
    expect_tool("setup", LIST("--admin", "keeper", "--scenario", "v1_basic"), 2,
                "--scenario does not go with");
    expect_tool("setup", LIST("--admin", "keeper", "--stock", "5"), 2, "--stock does not go with");
    expect_tool("setup", LIST("--admin", "keeper", "--limit", "5"), 2, "--limit does not go with");
    expect_tool("setup", LIST("--admin", "keeper", "--backup", "/tmp"), 2, "two commands");
    expect_environment("DOORBUSTER_ADMIN_PASSWORD=short", 2, "6 to 63 bytes");
    /* A folder that was mistyped gets no store. */
    snprintf(empty, sizeof empty, "%s/empty", shop.server.folder);
    assert_int_equal(mkdir(empty, 0700), 0);
    expect_tool("setup", LIST("--admin", "keeper", "--data", empty), 1, "there is no store");
    assert_int_equal(rmdir(empty), 0);
    expect_nothing_on_sale();
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
        TEST(test_setup_twice),
        TEST(test_setup_password),
        TEST(test_setup_takes_its_account_back),
        TEST(test_setup_spares_orders),
        TEST(test_setup_of_many_twice),
        TEST(test_setup_of_many_spares_orders),
        TEST(test_setup_adds_what_is_missing),
        TEST(test_setup_refusals),
        TEST(test_setup_at_the_wrong_gate),
        TEST(test_setup_of_redlock),
        TEST(test_setup_of_production),
        TEST(test_setup_without_a_server),
        TEST(test_admin_alone),
        TEST(test_admin_of_an_account_that_is_there),
        TEST(test_admin_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
