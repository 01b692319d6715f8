/* Which gate, and where its nodes are, from the words of the settings. */
#include "testing.h"

#include "doorbuster/gate_place.h"

#include "keys.h"

#include <stdio.h>
#include <string.h>

static char error[2048];

static void parse(struct gate_place *place, const char *list)
{
    *place = (struct gate_place){0};
    if (!gate_place_parse_nodes(place, list, "/data", error, sizeof error)) {
        fail_msg("%s: %s", list, error);
    }
}

static void refuse(const char *list, const char *words)
{
    struct gate_place place = {0};
    error[0] = '\0';
    if (gate_place_parse_nodes(&place, list, "/data", error, sizeof error)) {
        fail_msg("\"%s\" was taken", list);
    }
    if (strstr(error, words) == NULL) {
        fail_msg("\"%s\": wanted \"%s\", got \"%s\"", list, words, error);
    }
}

static void test_kinds(void **state)
{
    enum gate_kind kind = GATE_LUA;
    (void)state;
    assert_true(gate_kind_parse("redlock", &kind));
    assert_int_equal(kind, GATE_REDLOCK);
    assert_true(gate_kind_parse("lua", &kind));
    assert_int_equal(kind, GATE_LUA);
    assert_false(gate_kind_parse("Redlock", &kind));
    assert_false(gate_kind_parse("", &kind));
    assert_false(gate_kind_parse("redlock ", &kind));
}

static void test_a_list(void **state)
{
    struct gate_place place;
    char name[GATE_NODE_NAME_BYTES];
    (void)state;
    parse(&place, "127.0.0.1:7001,[::1]:7002, lock-3:7003 ,redis://:p@w@host:7004/2,unix:/run/five.sock");
    assert_int_equal(place.node_count, 5);
    assert_false(place.spawn_nodes);
    assert_string_equal(place.nodes[0].host, "127.0.0.1");
    assert_int_equal(place.nodes[0].port, 7001);
    assert_string_equal(place.nodes[1].host, "::1");
    assert_int_equal(place.nodes[1].port, 7002);
    assert_string_equal(place.nodes[2].host, "lock-3");
    assert_string_equal(place.nodes[3].login.password, "p@w");
    assert_int_equal(place.nodes[3].database, 2);
    assert_string_equal(place.nodes[4].path, "/run/five.sock");
    gate_place_name_node(&place, 0, name, sizeof name);
    assert_string_equal(name, "node 1 (127.0.0.1:7001)");
    gate_place_name_node(&place, 1, name, sizeof name);
    assert_string_equal(name, "node 2 ([::1]:7002)");
    gate_place_name_node(&place, 3, name, sizeof name);
    assert_string_equal(name, "node 4 (host:7004)");
    gate_place_name_node(&place, 4, name, sizeof name);
    assert_string_equal(name, "node 5 (/run/five.sock)");
    parse(&place, "redis://locks:a%2Cb@a:1");
    assert_int_equal(place.node_count, 1);
    assert_string_equal(place.nodes[0].login.user, "locks");
    assert_string_equal(place.nodes[0].login.password, "a,b");
    parse(&place, "a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8,a:9");
    assert_int_equal(place.node_count, 9);
}

static void test_private_nodes(void **state)
{
    struct gate_place place;
    char folder[128];
    (void)state;
    parse(&place, "spawn");
    assert_true(place.spawn_nodes);
    assert_int_equal(place.node_count, GATE_NODES_SPAWNED);
    assert_string_equal(place.nodes[0].path, "/data/node1.sock");
    assert_string_equal(place.nodes[4].path, "/data/node5.sock");
    memset(folder, 'x', sizeof folder - 1);
    folder[0] = '/';
    folder[sizeof folder - 1] = '\0';
    assert_false(gate_place_parse_nodes(&place, "spawn", folder, error, sizeof error));
    assert_non_null(strstr(error, "shorter path"));
    /* The longest that fits. */
    folder[sizeof place.nodes[0].path - 1 - strlen("/node1.sock")] = '\0';
    assert_true(gate_place_parse_nodes(&place, "spawn", folder, error, sizeof error));
}

static void test_lists_that_are_none(void **state)
{
    (void)state;
    refuse("", "node 1: \"\" is no node's address");
    refuse("a:1,", "node 2: \"\"");
    refuse(",a:1", "node 1: \"\"");
    refuse("a:1,,b:1", "node 2: \"\"");
    refuse("a:1,b:1", "2 nodes; it may be an odd number");
    refuse("a:1,a:2,a:3,a:4", "4 nodes");
    refuse("a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8,a:9,a:10", "more than 9 nodes");
    refuse("spwan", "\"spwan\" is no node's address");
    refuse("spawn,a:1,b:1", "node 1: \"spawn\"");
    refuse("a:0", "node 1: \"a:0\"");
    refuse("a:65536", "\"a:65536\"");
    refuse("a:x", "\"a:x\"");
    refuse(":7001", "\":7001\"");
    refuse("[::1]", "\"[::1]\"");
    refuse("::1:7001", "\"::1:7001\"");
    refuse("a b:1", "\"a b:1\"");
    refuse("a:1/2", "\"a:1/2\"");
    refuse("http://a:1", "\"http://a:1\"");
    refuse("redis://", "node 1: \"redis://\" is no Redis address");
    refuse("unix:", "node 1: \"unix:\"");
}

static void test_none_twice(void **state)
{
    (void)state;
    refuse("a:1,b:1,a:1", "nodes 1 and 3 are the same Redis");
    refuse("a:1,b:1,A:1", "nodes 1 and 3 are the same Redis");
    refuse("a:1,redis://:secret@a:1/3,b:1", "nodes 1 and 2 are the same Redis");
    refuse("unix:/a,unix:/b,unix:/b", "nodes 2 and 3 are the same Redis");
}

static void test_passwords_are_not_shown(void **state)
{
    (void)state;
    refuse("redis://:secret@:x", "@:x");
    assert_null(strstr(error, "secret"));
    refuse("secret@host:1", "@host:1");
    assert_null(strstr(error, "secret"));
    refuse("redis://:secret,x@host:1", "node 1: this is no node's address; a comma in a password is %2C");
    assert_null(strstr(error, "secret"));
    refuse("a:1,redis://:x,secret,y@host:1", "node 2: this is no node's address");
    assert_null(strstr(error, "secret"));
}

static void test_endless_address(void **state)
{
    char list[4096];
    (void)state;
    memset(list, 'a', sizeof list - 1);
    list[sizeof list - 1] = '\0';
    refuse(list, "node 1: an address has at most");
    list[300] = '\0'; /* longer than a host's name may be */
    memcpy(list + 297, ":1", 3);
    refuse(list, "is no node's address");
}

/* --- shops ---------------------------------------------------------------------------------------------------------------------- */
static void test_every_name_of_a_shop_has_its_hash_tag(void **state)
{
    static const struct {
        const char *key, *name;
    } names[] = {{gate_keys.head, "{Shop_1-x}:head"},        {gate_keys.log, "{Shop_1-x}:log"},
                 {gate_keys.product, "{Shop_1-x}:product:"}, {gate_keys.cancelled, "{Shop_1-x}:cancelled:"},
                 {gate_keys.lock_news, "{Shop_1-x}:locks"},  {gate_keys.all, "{Shop_1-x}:*"}};
    (void)state;
    assert_string_equal(gate_keys.stock_news, "{doorbuster}:stock");
    assert_string_equal(gate_keys.ordered, "{doorbuster}:idem:");
    assert_true(gate_use_shop("Shop_1-x", error, sizeof error));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_string_equal(names[i].key, names[i].name);
    }
    for (const char *at = (const char *)&gate_keys; at < (const char *)(&gate_keys + 1);
         at += GATE_KEY_BYTES) {
        assert_memory_equal(at, "{Shop_1-x}:", strlen("{Shop_1-x}:"));
    }
    assert_true(gate_use_shop("abcdefghijklmnopqrstuvwxyz-abcde", error, sizeof error));
    assert_string_equal(gate_keys.node_stock, "{abcdefghijklmnopqrstuvwxyz-abcde}:stock:");
    assert_true(gate_use_shop(GATE_SHOP_DEFAULT, error, sizeof error));
    assert_string_equal(gate_keys.head, "{doorbuster}:head");
}

static void test_what_is_no_name_of_a_shop(void **state)
{
    static const char *const bad[] = {
        "", "a b", "a}", "{a", "*", "a:b", "caf\303\251", "%s", "abcdefghijklmnopqrstuvwxyz-abcdef"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (gate_use_shop(bad[i], error, sizeof error)) {
            fail_msg("\"%s\" was taken", bad[i]);
        }
        assert_non_null(strstr(error, "1 to 32 letters, digits, '_' and '-'"));
    }
    assert_string_equal(gate_keys.head, "{doorbuster}:head");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name_of_a_shop_has_its_hash_tag),
        cmocka_unit_test(test_what_is_no_name_of_a_shop),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_a_list),
        cmocka_unit_test(test_private_nodes),
        cmocka_unit_test(test_lists_that_are_none),
        cmocka_unit_test(test_none_twice),
        cmocka_unit_test(test_passwords_are_not_shown),
        cmocka_unit_test(test_endless_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
