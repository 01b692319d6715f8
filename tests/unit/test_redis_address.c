/* Redis addresses as URLs. */
#include "testing.h"

#include "doorbuster/redis.h"

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
        assert_string_equal(address.password, list[i].password);
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
                                      "redis://user:password@host",
                                      "redis://:password@",
                                      "redis://[::1",
                                      "redis://[::1]x",
                                      "redis://[]",
                                      "redis://[::1]:",
                                      "unix:",
                                      "spawn",
                                      " redis://host"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct redis_address address;
        error[0] = '\0';
        if (redis_address_parse(bad[i], &address, error, sizeof error)) {
            fail_msg("\"%s\" was taken for an address", bad[i]);
        }
        assert_true(strlen(error) > 20);
    }
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
}

static void test_passwords_are_not_shown(void **state)
{
    static const char *const bad[] = {"redis://:opensesame@host:0", "redis://user:opensesame@host",
                                      "http://:opensesame@host", "redis://:opensesame@",
                                      "redis://:opensesame@host/99"};
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
        cmocka_unit_test(test_addresses),    cmocka_unit_test(test_addresses_that_are_none),
        cmocka_unit_test(test_lengths),      cmocka_unit_test(test_passwords_are_not_shown),
        cmocka_unit_test(test_nobody_there), cmocka_unit_test(test_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
