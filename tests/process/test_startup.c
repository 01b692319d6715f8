/* A broken environment at start: the server says in one line what is wrong and how to mend it, and exits
 * with 2. Each case is a run of the real program in a folder of its own. */
#include "testing.h"

#include "folder.h"
#include "refusal.h"
#include "server_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTEN "--listen", "127.0.0.1:0"

static char folder[FOLDER_BYTES], data[FOLDER_BYTES + 16], text[4 * FOLDER_BYTES], variable[4 * FOLDER_BYTES];

static const char *in_folder(const char *name)
{
    snprintf(text, sizeof text, "%s/%s", folder, name);
    return text;
}

static void write_file(const char *name, const char *content, mode_t mode)
{
    FILE *file = fopen(in_folder(name), "w");
    assert_non_null(file);
    fputs(content, file);
    fclose(file);
    assert_int_equal(chmod(in_folder(name), mode), 0);
}

/* --- options
 * ----------------------------------------------------------------------------------------------------------------------
 */
static void test_options(void **state)
{
    static const char *const workers[] = {"0", "-1", "65", "x", "1.5", "", " 1", "99999999999999999999"};
    static const char *const listen[] = {"8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000",
                                         ":-1",  ":http",     "",           "127.0.0.1:80x"};
    (void)state;
    for (size_t i = 0; i < sizeof workers / sizeof workers[0]; i++) {
        expect_refusal(ARGUMENTS(LISTEN, "--data", data, "--workers", workers[i]), NULL,
                       WORDS("--workers", workers[i], "from 1 to 64"));
    }
    snprintf(variable, sizeof variable, "DOORBUSTER_WORKERS=none");
    expect_refusal(ARGUMENTS(LISTEN, "--data", data), ENVIRONMENT(variable),
                   WORDS("DOORBUSTER_WORKERS", "none", "from 1 to 64"));
    for (size_t i = 0; i < sizeof listen / sizeof listen[0]; i++) {
        expect_refusal(ARGUMENTS("--listen", listen[i], "--data", data), NULL,
                       WORDS("--listen", listen[i], "from 0 to 65535"));
    }
    expect_refusal(ARGUMENTS("--listn", "x"), NULL, WORDS("--listn", "--help"));
    expect_refusal(ARGUMENTS("stray"), NULL, WORDS("stray", "--help"));
    expect_refusal(ARGUMENTS("--workers"), NULL, WORDS("--workers", "value"));
    expect_refusal(ARGUMENTS("--dev-open-admin=yes"), NULL, WORDS("--dev-open-admin", "no value"));
}

static void test_open_admin_stays_at_home(void **state)
{
    (void)state;
    static const char *const places[] = {":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        expect_refusal(ARGUMENTS("--listen", places[i], "--data", data, "--dev-open-admin"), NULL,
                       WORDS("--dev-open-admin", "loopback", "127.0.0.1"));
    }
}

/* --- the port
 * ----------------------------------------------------------------------------------------------------------------------
 */
static void test_port_in_use(void **state)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof where;
    char place[32], port[16];
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Even one that would share: a second server must not take half of the first one's buyers. */
    int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
    assert_int_equal(bind(fd, (struct sockaddr *)&where, sizeof where), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&where, &bytes), 0);
    snprintf(port, sizeof port, "%d", ntohs(where.sin_port));
    snprintf(place, sizeof place, "127.0.0.1:%s", port);
    expect_refusal(ARGUMENTS("--listen", place, "--data", data), NULL,
                   WORDS(port, "in use", "choose another --listen"));
    close(fd);
}

static void test_address_that_is_not_ours(void **state)
{
    (void)state;
    expect_refusal(ARGUMENTS("--listen", "192.0.2.1:0", "--data", data), NULL,
                   WORDS("192.0.2.1", "--listen"));
}

/* --- the data folder
 * --------------------------------------------------------------------------------------------------------------------
 */
static void test_data_folder(void **state)
{
    (void)state;
    write_file("file", "x", 0600);
    expect_refusal(ARGUMENTS(LISTEN, "--data", in_folder("file/data")), NULL,
                   WORDS("file/data", "Not a directory", "--data"));
    expect_refusal(ARGUMENTS(LISTEN, "--data", in_folder("file")), NULL,
                   WORDS("/file", "directory", "--data"));
    expect_refusal(ARGUMENTS(LISTEN, "--data", in_folder("no/such")), NULL,
                   WORDS("no/such", "No such file", "--data"));
    expect_refusal(
        ARGUMENTS(
            LISTEN, "--data",
            in_folder("a-path-that-is-too-long-for-a-unix-socket-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x")),
        NULL, WORDS("Unix socket", "shorter path"));
}

/* Root may write anywhere, so somebody else is asked. */
static void test_unwritable_data_folder(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        assert_int_equal(mkdir(in_folder("shut"), 0500), 0);
        expect_refusal(ARGUMENTS(LISTEN, "--data", in_folder("shut")), NULL,
                       WORDS("shut", "Permission denied", "--data"));
        return;
    }
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(mkdir(in_folder("shut"), 0555), 0);
    /* The build folder may be closed to others. */
    char copy[2 * FOLDER_BYTES];
    snprintf(copy, sizeof copy, "%s/server", folder);
    const char *const copying[] = {"/bin/cp", program_path("server"), copy, NULL};
    struct run_result copied = program_run(copying, NULL, REFUSAL_MS);
    assert_int_equal(copied.exit_code, 0);
    run_result_free(&copied);
    const char *const argv[] = {"/usr/bin/setpriv",
                                "--reuid=65534",
                                "--regid=65534",
                                "--clear-groups",
                                copy,
                                LISTEN,
                                "--data",
                                in_folder("shut"),
                                NULL};
    expect_refusal(argv, NULL, WORDS("shut", "Permission denied", "--data"));
}

static void test_damaged_files(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_folder("other"), 0700), 0);
    write_file("other/doorbuster.db",
               "this is no database, but a text that somebody put there; it is long enough", 0600);
    expect_refusal(ARGUMENTS(LISTEN, "--data", in_folder("other")), NULL,
                   WORDS("doorbuster.db", "not a database"));
    assert_int_equal(mkdir(in_folder("short"), 0700), 0);
    write_file("short/secret.key", "short", 0600);
    expect_refusal(ARGUMENTS(LISTEN, "--data", in_folder("short")), NULL,
                   WORDS("secret.key", "too short", "remove it"));
}

static void test_folder_of_another_server(void **state)
{
    static struct server_fixture server;
    (void)state;
    server_fixture_begin(&server);
    server_fixture_start(&server, 1, NULL, NULL);
    expect_refusal(ARGUMENTS(LISTEN, "--data", server.data), NULL,
                   WORDS("in use by another server", "--data"));
    server_fixture_stop(&server); /* and the other one was not disturbed */
    server_fixture_end(&server);
}

/* Whoever holds the folder may be restoring a backup, or be a server of an earlier version: the key and the store are not to be read, made or brought
 * up to date before the folder is ours. */
static void test_nothing_is_touched_in_a_folder_that_is_held(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_folder("held"), 0700), 0);
    int fd = open(in_folder("held/lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    snprintf(variable, sizeof variable, "%s/held", folder);
    expect_refusal(ARGUMENTS(LISTEN, "--data", variable), NULL, WORDS("in use by another server", "--data"));
    assert_int_equal(access(in_folder("held/secret.key"), F_OK), -1);
    assert_int_equal(access(in_folder("held/doorbuster.db"), F_OK), -1);
    (void)close(fd);
}

/* --- Redis and the store
 * ----------------------------------------------------------------------------------------------------------------------
 */
static void test_no_redis_server(void **state)
{
    (void)state;
    expect_refusal(ARGUMENTS(LISTEN, "--data", data), ENVIRONMENT("PATH=/nonexistent"),
                   WORDS("redis-server", "install", "--redis"));
}

static void test_old_redis_server(void **state)
{
    static const char *const old[] = {
        "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=0", "Redis server v=2.8.4"};
    static const char *const versions[] = {"6.0.16", "2.8.4"};
    char script[256];
    (void)state;
    assert_int_equal(mkdir(in_folder("bin"), 0700), 0);
    snprintf(variable, sizeof variable, "PATH=%s/bin:/usr/bin:/bin", folder);
    for (size_t i = 0; i < 2; i++) {
        snprintf(script, sizeof script, "#!/bin/sh\necho '%s'\n", old[i]);
        write_file("bin/redis-server", script, 0700);
        expect_refusal(ARGUMENTS(LISTEN, "--data", data), ENVIRONMENT(variable),
                       WORDS("redis-server is", versions[i], "version 7"));
    }
    write_file("bin/redis-server", "#!/bin/sh\nexit 1\n", 0700);
    expect_refusal(ARGUMENTS(LISTEN, "--data", data), ENVIRONMENT(variable),
                   WORDS("redis-server", "install"));
}

static void test_redis_urls(void **state)
{
    static const char *const urls[] = {"localhost:6379",
                                       "http://127.0.0.1",
                                       "redis://",
                                       "redis://:",
                                       "redis://127.0.0.1:0",
                                       "redis://127.0.0.1:99999",
                                       "redis://127.0.0.1:x",
                                       "redis://127.0.0.1/99",
                                       "redis://127.0.0.1/x",
                                       "redis://[::1",
                                       "",
                                       "rediss://127.0.0.1"};
    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        expect_refusal(ARGUMENTS(LISTEN, "--data", data, "--redis", urls[i]), NULL,
                       WORDS(urls[i], "redis://", "unix:/path"));
    }
    expect_refusal(ARGUMENTS(LISTEN, "--data", data, "--redis", "unix:"), NULL, WORDS("unix:", "path"));
}

#ifdef DOORBUSTER_FAILPOINTS
/* Exit 2 is for what somebody has to mend, and is not tried again. */
static void test_what_did_not_come_in_time_may_be_tried_again(void **state)
{
    (void)state;
    expect_giving_up(ARGUMENTS(LISTEN, "--data", data, "--store", "postgresql://127.0.0.1:1/shop"),
                     WORDS("127.0.0.1", "port 1", "Connection refused"));
    expect_giving_up(ARGUMENTS(LISTEN, "--data", data, "--redis", "sentinel://shop@127.0.0.1:1"),
                     WORDS("127.0.0.1:1", "Connection refused", "--redis"));
    expect_giving_up(ARGUMENTS(LISTEN, "--data", data, "--redis", "redis://127.0.0.1:1"),
                     WORDS("127.0.0.1:1", "Connection refused", "--redis"));
    snprintf(variable, sizeof variable, "unix:%s/none.sock", folder);
    expect_giving_up(ARGUMENTS(LISTEN, "--data", data, "--redis", variable),
                     WORDS(variable, "No such file", "--redis"));
}

static void test_secrets_of_what_did_not_come_are_not_shown(void **state)
{
    (void)state;
    struct run_result result =
        program_run(ARGUMENTS(LISTEN, "--data", data, "--redis", "redis://user:opensesame@127.0.0.1:1"),
                    ENVIRONMENT("DOORBUSTER_FAILPOINT=start.wait:error"), REFUSAL_MS);
    assert_int_equal(result.exit_code, 1);
    assert_null(strstr(result.err, "opensesame"));
    run_result_free(&result);
}
#endif

static void test_secrets_are_not_shown(void **state)
{
    static const char *const secret_urls[] = {"redis://:opensesame@127.0.0.1:99999",
                                              "http://:opensesame@127.0.0.1"};
    (void)state;
    for (size_t i = 0; i < sizeof secret_urls / sizeof secret_urls[0]; i++) {
        struct run_result result =
            program_run(ARGUMENTS(LISTEN, "--data", data, "--redis", secret_urls[i]), NULL, REFUSAL_MS);
        assert_int_equal(result.exit_code, 2);
        assert_null(strstr(result.err, "opensesame"));
        run_result_free(&result);
    }
    expect_refusal(ARGUMENTS(LISTEN, "--data", data), ENVIRONMENT("JWT_SECRET_KEY=opensesame"),
                   WORDS("JWT_SECRET_KEY", "10 bytes", "32"));
    struct run_result result =
        program_run(ARGUMENTS(LISTEN, "--data", data), ENVIRONMENT("JWT_SECRET_KEY=opensesame"), REFUSAL_MS);
    assert_null(strstr(result.err, "opensesame"));
    run_result_free(&result);
}

static void test_store_urls(void **state)
{
    static const char *const urls[] = {"mysql://127.0.0.1/x", "doorbuster.db", "sqlite:", "SQLITE:x", ""};
    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        expect_refusal(ARGUMENTS(LISTEN, "--data", data, "--store", urls[i]), NULL, WORDS("sqlite:PATH"));
    }
    expect_refusal(
        ARGUMENTS(LISTEN, "--data", data, "--store", "postgresql://u:opensesame@h/d?nonsense=opensesame"),
        NULL, WORDS("postgresql://USER@HOST"));
    /* The server waits for a database that is away, the tools do not. */
    static const char *const away[][2] = {
        {"postgresql:///shop?host=/no/such/folder", "shop on /no/such/folder"},
        {"postgresql://u:opensesame@127.0.0.1:1/d?connect_timeout=2", "d on 127.0.0.1:1"},
    };
    for (size_t i = 0; i < 2; i++) {
        const char *const argv[] = {program_path("verify"), "--store", away[i][0], NULL};
        struct run_result result = program_run(argv, NULL, REFUSAL_MS);
        assert_int_equal(result.exit_code, 2);
        assert_non_null(strstr(result.err, away[i][1]));
        assert_non_null(strstr(result.err, "PostgreSQL must run there"));
        assert_null(strstr(result.err, "opensesame"));
        run_result_free(&result);
    }
    snprintf(variable, sizeof variable, "DATABASE_URL=sqlite:%s/no/such.db", folder);
    expect_refusal(ARGUMENTS(LISTEN, "--data", data), ENVIRONMENT(variable),
                   WORDS("no/such.db", "No such file", "must exist"));
}

/* --- what is right
 * ------------------------------------------------------------------------------------------------------------------------------
 */
static void test_help_and_version(void **state)
{
    static const char *const programs[] = {"server", "setup", "verify"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const char *const help[] = {program_path(programs[i]), "--help", NULL}, *const version[] = {
                                                                                    program_path(programs[i]),
                                                                                    "--version", NULL};
        struct run_result result = program_run(help, NULL, REFUSAL_MS);
        assert_int_equal(result.exit_code, 0);
        assert_non_null(strstr(result.out, "--data"));
        assert_string_equal(result.err, "");
        run_result_free(&result);
        result = program_run(version, NULL, REFUSAL_MS);
        assert_int_equal(result.exit_code, 0);
        assert_non_null(strstr(result.out, programs[i]));
        run_result_free(&result);
    }
}

static int setup(void **state)
{
    (void)state;
    folder_make(folder);
    snprintf(data, sizeof data, "%s/data", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    folder_remove(folder);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_options),
        TEST(test_open_admin_stays_at_home),
        TEST(test_port_in_use),
        TEST(test_address_that_is_not_ours),
        TEST(test_data_folder),
        TEST(test_unwritable_data_folder),
        TEST(test_damaged_files),
        TEST(test_folder_of_another_server),
        TEST(test_nothing_is_touched_in_a_folder_that_is_held),
        TEST(test_no_redis_server),
        TEST(test_old_redis_server),
        TEST(test_redis_urls),
#ifdef DOORBUSTER_FAILPOINTS
        TEST(test_what_did_not_come_in_time_may_be_tried_again),
        TEST(test_secrets_of_what_did_not_come_are_not_shown),
#endif
        TEST(test_secrets_are_not_shown),
        TEST(test_store_urls),
        TEST(test_help_and_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
