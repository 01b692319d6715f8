/* Redis addresses as URLs. */
#include "testing.h"

#include "doorbuster/redis.h"

#include "finding.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char error[512];

static void test_addresses(void **state)
{
    static const struct {
        const char *url, *host;
        int port;
        const char *path, *password;
        int database;
        const char *shown;
    } list[] = {
        {"redis://localhost", "localhost", 6379, "", "", 0, "redis://localhost:6379/0"},
        {"redis://localhost/", "localhost", 6379, "", "", 0, "redis://localhost:6379/0"},
        {"redis://10.0.0.1:1", "10.0.0.1", 1, "", "", 0, "redis://10.0.0.1:1/0"},
        {"redis://host:65535/15", "host", 65535, "", "", 15, "redis://host:65535/15"},
        {"redis://[::1]:7000/3", "::1", 7000, "", "", 3, "redis://[::1]:7000/3"},
        {"redis://[fe80::1]", "fe80::1", 6379, "", "", 0, "redis://[fe80::1]:6379/0"},
        {"redis://:open@host:7000/1", "host", 7000, "", "open", 1, "redis://host:7000/1"},
        {"redis://:p@ss:w/rd@host", "host", 6379, "", "p@ss:w/rd", 0, "redis://host:6379/0"},
        {"redis://:@host", "host", 6379, "", "", 0, "redis://host:6379/0"},
        {"unix:/run/redis.sock", "", 0, "/run/redis.sock", "", 0, "unix:/run/redis.sock"},
        {"unix:relative.sock", "", 0, "relative.sock", "", 0, "unix:relative.sock"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct redis_address address;
        char shown[512];
        if (!redis_address_parse(list[i].url, &address, error, sizeof error)) {
            fail_msg("%s: %s", list[i].url, error);
        }
        assert_string_equal(address.host, list[i].host);
        assert_int_equal(address.port, list[i].port);
        assert_string_equal(address.path, list[i].path);
        assert_string_equal(address.login.password, list[i].password);
        assert_int_equal(address.database, list[i].database);
        redis_address_format(&address, shown, sizeof shown);
        assert_string_equal(shown, list[i].shown);
    }
}

static void test_addresses_that_are_none(void **state)
{
    static const char *const bad[] = {"",
                                      "redis",
                                      "redis:",
                                      "redis:/",
                                      "redis://",
                                      "redis:///1",
                                      "redis://:7000",
                                      "REDIS://host",
                                      "rediss://host",
                                      "http://host",
                                      "host:6379",
                                      "redis://host:",
                                      "redis://host:0",
                                      "redis://host:65536",
                                      "redis://host:-1",
                                      "redis://host:x",
                                      "redis://host:7000x",
                                      "redis://host/-1",
                                      "redis://host/16",
                                      "redis://host/x",
                                      "redis://host/1/2",
                                      "redis://user@host",
                                      "redis://user:@host",
                                      "redis://:100%@host",
                                      "redis://:a%zz@host",
                                      "redis://:a%00b@host",
                                      "redis://us%er:password@host",
                                      "redis://::1",
                                      "unix://password@/run/redis.sock",
                                      "unix://:password@run",
                                      "unix://:@",
                                      "redis://:password@",
                                      "redis://[::1",
                                      "redis://[::1]x",
                                      "redis://[]",
                                      "redis://[::1]:",
                                      "unix:",
                                      "spawn",
                                      "sentinel://",
                                      "sentinel://host:26379",
                                      "sentinel://@host",
                                      "sentinel://:password@host",
                                      "sentinel://:password@@host",
                                      "sentinel://user:password@host",
                                      "sentinel://a@b@host",
                                      "sentinel://user:@shop@host",
                                      "sentinel://:pass%@shop@host",
                                      "sentinel://:a@b:c@host",
                                      "sentinel://shop@",
                                      "sentinel://shop@a,",
                                      "sentinel://shop@a,,b",
                                      "sentinel://shop@a:0",
                                      "sentinel://shop@a/16",
                                      "sentinel://shop@1,2,3,4,5,6,7,8,9,10",
                                      "cluster://",
                                      "cluster://shop@a",
                                      "cluster://user:@a",
                                      "cluster://a/1",
                                      "cluster://a/",
                                      " redis://host"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct redis_address address;
        error[0] = '\0';
        if (redis_address_parse(bad[i], &address, error, sizeof error)) {
            fail_msg("\"%s\" was taken for an address", bad[i]);
        }
        assert_true(strlen(error) > 20);
        if (strcmp(bad[i], "unix:") != 0) {
            assert_non_null(strstr(error, "a % in user or password is %25"));
        }
    }
}

/* As in other URLs, and as it was written before there were users: an '@', a ':' and a '/' of the password may stand for themselves. */
static void test_users_and_passwords(void **state)
{
    static const struct {
        const char *url, *user, *password, *shown;
    } list[] = {
        {"redis://shop:open@h", "shop", "open", "redis://h:6379/0"},
        {"redis://default:open@[::1]:7/2", "default", "open", "redis://[::1]:7/2"},
        {"redis://:%40%3a%2F%25@h", "", "@:/%", "redis://h:6379/0"},
        {"redis://a%3Ab%40c:p@ss:w/rd%25@h", "a:b@c", "p@ss:w/rd%", "redis://h:6379/0"},
        {"redis://:%C3%A4+%20@h", "", "\xC3\xA4+ ", "redis://h:6379/0"},
        {"sentinel://shop:a%2Cb@g@h:1", "shop", "a,b", "sentinel://g@h:1/0"},
        {"sentinel://shop:p@ss:word@g@h:1", "shop", "p@ss:word", "sentinel://g@h:1/0"},
        {"cluster://shop:%5B::1%5D,@h:1,[::1]:2", "shop", "[::1],", "cluster://h:1,[::1]:2"},
        {"unix://shop:p@/w%2frd@/run/redis.sock", "shop", "p@/w/rd", "unix:/run/redis.sock"},
        {"unix://:open@/r", "", "open", "unix:/r"},
        {"unix:///run/a:b@/r", "", "", "unix:///run/a:b@/r"},
        {"unix://run/r", "", "", "unix://run/r"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct redis_address address;
        char shown[512];
        if (!redis_address_parse(list[i].url, &address, error, sizeof error)) {
            fail_msg("%s: %s", list[i].url, error);
        }
        assert_string_equal(address.login.user, list[i].user);
        assert_string_equal(address.login.password, list[i].password);
        redis_address_format(&address, shown, sizeof shown);
        assert_string_equal(shown, list[i].shown);
    }
}

static void test_masters_to_be_found(void **state)
{
    static const struct {
        const char *url;
        enum redis_kind kind;
        const char *group, *password;
        int database;
        unsigned seeds;
        const char *last_host;
        int last_port;
        const char *shown;
    } list[] = {
        {"sentinel://shop@a:1,b", REDIS_BY_SENTINEL, "shop", "", 0, 2, "b", 26379,
         "sentinel://shop@a:1,b:26379/0"},
        {"sentinel://:p@ss:w/rd@my-shop.1@[::1]:7/3", REDIS_BY_SENTINEL, "my-shop.1", "p@ss:w/rd", 3, 1,
         "::1", 7, "sentinel://my-shop.1@[::1]:7/3"},
        {"sentinel://:@shop@h", REDIS_BY_SENTINEL, "shop", "", 0, 1, "h", 26379, "sentinel://shop@h:26379/0"},
        {"cluster://a:7001,b,[::1]:7003", REDIS_IN_CLUSTER, "", "", 0, 3, "::1", 7003,
         "cluster://a:7001,b:6379,[::1]:7003"},
        {"cluster://:pass@a", REDIS_IN_CLUSTER, "", "pass", 0, 1, "a", 6379, "cluster://a:6379"},
        {"cluster://1,2,3,4,5,6,7,8,9", REDIS_IN_CLUSTER, "", "", 0, 9, "9", 6379,
         "cluster://1:6379,2:6379,3:6379,4:6379,5:6379,6:6379,7:6379,8:6379,9:6379"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct redis_address address;
        char shown[512], cut[24];
        if (!redis_address_parse(list[i].url, &address, error, sizeof error)) {
            fail_msg("%s: %s", list[i].url, error);
        }
        assert_int_equal(address.kind, list[i].kind);
        assert_string_equal(address.group, list[i].group);
        assert_string_equal(address.login.password, list[i].password);
        assert_int_equal(address.database, list[i].database);
        assert_int_equal(address.seed_count, list[i].seeds);
        assert_string_equal(address.seeds[list[i].seeds - 1].host, list[i].last_host);
        assert_int_equal(address.seeds[list[i].seeds - 1].port, list[i].last_port);
        redis_address_format(&address, shown, sizeof shown);
        assert_string_equal(shown, list[i].shown);
        redis_address_format(&address, cut, sizeof cut); /* there may be less room */
        assert_memory_equal(cut, shown, strlen(cut));
    }
}

static void test_the_password_of_sentinels(void **state)
{
    struct redis_address address;
    char password[300];
    (void)state;
    assert_int_equal(setenv("REDIS_SENTINEL_USER", "watcher", 1), 0);
    assert_false(redis_address_parse("sentinel://shop@a", &address, error, sizeof error));
    assert_non_null(strstr(error, "set REDIS_SENTINEL_PASSWORD too"));
    assert_true(redis_address_parse("redis://a", &address, error, sizeof error));
    assert_int_equal(setenv("REDIS_SENTINEL_PASSWORD", "openbarley", 1), 0);
    assert_true(redis_address_parse("sentinel://shop@a", &address, error, sizeof error));
    assert_string_equal(address.sentinel_login.user, "watcher");
    assert_string_equal(address.sentinel_login.password, "openbarley");
    assert_int_equal(unsetenv("REDIS_SENTINEL_USER"), 0);
    assert_true(redis_address_parse("cluster://a", &address, error, sizeof error));
    assert_string_equal(address.sentinel_login.password, "");
    memset(password, 'x', sizeof password - 1);
    password[sizeof password - 1] = '\0';
    assert_int_equal(setenv("REDIS_SENTINEL_PASSWORD", password, 1), 0);
    assert_false(redis_address_parse("sentinel://shop@a", &address, error, sizeof error));
    assert_non_null(strstr(error, "REDIS_SENTINEL_PASSWORD has at most 255 bytes"));
    assert_int_equal(unsetenv("REDIS_SENTINEL_PASSWORD"), 0);
}

static void test_what_others_say_of_the_master(void **state)
{
    struct redis_host host;
    (void)state;
    assert_true(finding_moved("MOVED 866 10.0.0.7:7002", "asked", &host));
    assert_string_equal(host.host, "10.0.0.7");
    assert_int_equal(host.port, 7002);
    assert_true(finding_moved("MOVED 866 ::1:7002", "asked", &host));
    assert_string_equal(host.host, "::1");
    assert_true(finding_moved("MOVED 866 2001:db8::7:7002", "asked", &host));
    assert_string_equal(host.host, "2001:db8::7");
    assert_true(finding_moved("MOVED 866 redis-3.example:7002", "asked", &host));
    assert_string_equal(host.host, "redis-3.example");
    assert_true(finding_moved("MOVED 866 :7003", "asked", &host));
    assert_string_equal(host.host, "asked");
    assert_int_equal(host.port, 7003);
    assert_false(finding_moved("MOVED 866 ?:7003", "asked", &host));
    assert_false(finding_moved("MOVED 866 a:0", "asked", &host));
    assert_false(finding_moved("MOVED 866", "asked", &host));
    assert_false(finding_moved("ASK 866 10.0.0.7:7002", "asked", &host));
    static const char *const elsewhere[] = {"READONLY You can't write against a read only replica. script: …",
                                            "MOVED 1 a:1",
                                            "ASK 1 a:1",
                                            "TRYAGAIN Multiple keys request during rehashing of slot",
                                            "CLUSTERDOWN Hash slot not served",
                                            "MASTERDOWN Link with MASTER is down",
                                            "LOADING Redis is loading the dataset in memory"};
    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++) {
        assert_true(redis_is_elsewhere(elsewhere[i]));
    }
    assert_false(redis_is_elsewhere("ERR no such key"));
    assert_false(redis_is_elsewhere("STALE"));
    assert_false(redis_is_elsewhere("OOM command not allowed"));
    assert_false(redis_is_elsewhere(""));
}

static void test_the_addresses_of_a_name(void **state)
{
    struct addrinfo list[] = {{.ai_family = AF_INET6, .ai_next = &list[1]},
                              {.ai_family = AF_INET, .ai_next = &list[2]},
                              {.ai_family = AF_INET6, .ai_next = &list[3]},
                              {.ai_family = AF_INET}};
    static const size_t order[] = {1, 3, 0, 2};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_ptr_equal(finding_address(list, i), &list[order[i]]);
    }
    assert_null(finding_address(list, 4));
    assert_ptr_equal(finding_address(&list[2], 1), &list[2]);
    assert_null(finding_address(NULL, 0));
}

static void test_lengths(void **state)
{
    struct redis_address address;
    char url[1024];
    (void)state;
    snprintf(url, sizeof url, "unix:/%0106d", 0);
    assert_true(redis_address_parse(url, &address, error, sizeof error));
    snprintf(url, sizeof url, "unix:/%0107d", 0);
    assert_false(redis_address_parse(url, &address, error, sizeof error));
    snprintf(url, sizeof url, "redis://%0255d", 0);
    assert_true(redis_address_parse(url, &address, error, sizeof error));
    snprintf(url, sizeof url, "redis://%0256d", 0);
    assert_false(redis_address_parse(url, &address, error, sizeof error));
    snprintf(url, sizeof url, "redis://:%0255d@h", 0);
    assert_true(redis_address_parse(url, &address, error, sizeof error));
    snprintf(url, sizeof url, "redis://:%0256d@h", 0);
    assert_false(redis_address_parse(url, &address, error, sizeof error));
    snprintf(url, sizeof url, "redis://%0127d:p@h", 0);
    assert_true(redis_address_parse(url, &address, error, sizeof error));
    snprintf(url, sizeof url, "redis://%0128d:p@h", 0);
    assert_false(redis_address_parse(url, &address, error, sizeof error));
}

static void test_passwords_are_not_shown(void **state)
{
    static const char *const bad[] = {"redis://:opensesame@host:0",
                                      "redis://user:opensesame%@host",
                                      "http://:opensesame@host",
                                      "redis://:opensesame@",
                                      "redis://:opensesame@host/99",
                                      "sentinel://:opensesame@host",
                                      "sentinel://user:opensesame@host",
                                      "cluster://user:%opensesame@host",
                                      "redis://:opensesame",
                                      "unix://user:opensesame@",
                                      "unix://:opensesame%@/path",
                                      "cluster://:opensesame"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct redis_address address;
        assert_false(redis_address_parse(bad[i], &address, error, sizeof error));
        assert_null(strstr(error, "opensesame"));
    }
}

/* A blocking connection to nobody: a sentence, no password. */
static void test_nobody_there(void **state)
{
    struct redis_address address;
    (void)state;
    assert_true(redis_address_parse("redis://:opensesame@127.0.0.1:1", &address, error, sizeof error));
    assert_null(redis_connect_blocking(&address, 1000, error, sizeof error));
    assert_non_null(strstr(error, "redis://127.0.0.1:1/0"));
    assert_null(strstr(error, "opensesame"));
}

/* One that lets us in and says nothing: a word of ours, not the system's of a socket without data. */
static void test_no_answer(void **state)
{
    struct sockaddr_un silent = {.sun_family = AF_UNIX};
    struct redis_address address = {0};
    char folder[] = "/tmp/doorbuster-test-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(silent.sun_path, sizeof silent.sun_path, "%s/silent.sock", folder);
    snprintf(address.path, sizeof address.path, "%s", silent.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&silent, sizeof silent), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_null(redis_connect_blocking(&address, 100, error, sizeof error));
    assert_string_equal(redis_failure(), "Redis did not answer within 100 ms");
    assert_non_null(strstr(error, "does not let us in: Redis did not answer within 100 ms"));
    close(fd);
    unlink(silent.sun_path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_addresses_that_are_none),
        cmocka_unit_test(test_users_and_passwords),
        cmocka_unit_test(test_masters_to_be_found),
        cmocka_unit_test(test_the_password_of_sentinels),
        cmocka_unit_test(test_what_others_say_of_the_master),
        cmocka_unit_test(test_the_addresses_of_a_name),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_passwords_are_not_shown),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
