/* The real server over TLS: it says so, refuses what cannot be served with, and takes a new certificate without refusing anybody. */
#include "testing.h"

#include "refusal.h"
#include "server_fixture.h"
#include "tls_client.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROLL_MS 30000

static struct tls_identity first, second;
static struct {
    struct server_fixture server;
    char certificate[FOLDER_BYTES + 16], key[FOLDER_BYTES + 16];
} test;

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int setup(void **state)
{
    (void)state;
    server_fixture_begin(&test.server);
    snprintf(test.certificate, sizeof test.certificate, "%s/cert.pem", test.server.folder);
    snprintf(test.key, sizeof test.key, "%s/key.pem", test.server.folder);
    write_file(test.certificate, first.certificate);
    write_file(test.key, first.key);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_fixture_end(&test.server);
    return 0;
}

/* Asks once on a new connection, which must work; the serial number of the certificate. */
static unsigned char served_with(void)
{
    struct tls_client client;
    assert_true(tls_client_open(&client, test.server.port, NULL));
    unsigned char serial = tls_client_serial(&client);
    assert_int_equal(tls_client_get(&client, "/health"), 200);
    tls_client_close(&client);
    return serial;
}

/* SIGHUP, and until all workers are new; meanwhile people come all the time, and nobody is refused. `extra` more signals while it is at
 * work. */
static void roll(int extra)
{
    struct tls_client kept;
    int64_t deadline = deadline_in(ROLL_MS);
    pid_t before[2], now[4];
    size_t count;
    bool replaced;
    assert_int_equal(server_fixture_find(&test.server, "doorbuster: worker", before, 2), 2);
    assert_true(tls_client_open(&kept, test.server.port, NULL));
    kill(test.server.pid, SIGHUP);
    do {
        (void)served_with();
        if (extra > 0) {
            kill(test.server.pid, SIGHUP);
            extra--;
        }
        if (kept.fd >= 0 && tls_client_get(&kept, "/health") != 200) {
            tls_client_close(&kept); /* its worker has left */
        }
        count = server_fixture_find(&test.server, "doorbuster: worker", now, 4);
        replaced = count == 2;
        for (size_t i = 0; i < count; i++) {
            replaced = replaced && now[i] != before[0] && now[i] != before[1];
        }
        assert_true(wait_a_moment(deadline));
    } while (!replaced);
    tls_client_close(&kept);
}

static void test_a_new_certificate(void **state)
{
    (void)state;
    server_fixture_start(
        &test.server, 2,
        (const char *const[]){"--tls-certificate", test.certificate, "--tls-key", test.key, NULL}, NULL);
    assert_true(server_fixture_logged(&test.server, "ready on https://127.0.0.1:"));
    assert_int_equal(served_with(), first.serial);

    write_file(test.certificate, second.certificate);
    write_file(test.key, second.key);
    assert_int_equal(served_with(), first.serial); /* nobody has said that it is there yet */
    roll(0);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(served_with(), second.serial);
    }

    write_file(test.key, first.key); /* half of the next one */
    roll(0);
    assert_true(server_fixture_logged(&test.server, "going on with the certificate that there was"));
    for (int i = 0; i < 8; i++) {
        assert_int_equal(served_with(), second.serial);
    }

    /* It comes while the workers are being replaced for another reason: a second signal is not forgotten. */
    write_file(test.certificate, first.certificate);
    roll(1);
    int64_t deadline = deadline_in(ROLL_MS);
    for (int in_a_row = 0; in_a_row < 8; in_a_row = served_with() == first.serial ? in_a_row + 1 : 0) {
        assert_true(wait_a_moment(deadline));
    }
    server_fixture_stop(&test.server);
}

static void write_certificate(const struct tls_identity *identity)
{
    write_file(test.certificate, identity->certificate);
    write_file(test.key, identity->key);
}

/* Whoever looks after the server hears in time that it needs a new one. */
static void test_until_when_it_is_valid(void **state)
{
    static struct tls_identity lasting, ending, ended;
    (void)state;
    tls_identity_make_for(&lasting, 3, 90L * 86400);
    tls_identity_make_for(&ending, 4, 3L * 86400 + 4000);
    tls_identity_make_for(&ended, 5, -86400);
    write_certificate(&lasting);
    server_fixture_start(
        &test.server, 2,
        (const char *const[]){"--tls-certificate", test.certificate, "--tls-key", test.key, NULL}, NULL);
    assert_true(
        server_fixture_logged(&test.server, "serving with the certificate of CN=localhost, valid until 20"));
    assert_true(server_fixture_logged(&test.server, test.certificate));
    assert_false(server_fixture_logged(&test.server, "level=warn"));
    write_certificate(&ending);
    roll(0);
    assert_true(
        server_fixture_logged(&test.server, "the certificate of CN=localhost ends in 3.0 days; put a new"));
    assert_false(server_fixture_logged(&test.server, "has ended"));
    write_certificate(&ended);
    roll(0);
    assert_true(server_fixture_logged(&test.server, "the certificate of CN=localhost has ended"));
    server_fixture_stop(&test.server);
}

static void test_what_cannot_be_served_with(void **state)
{
    (void)state;
    const char *data = test.server.data;
    expect_refusal(ARGUMENTS("--data", data, "--tls-certificate", test.certificate), NULL,
                   WORDS("--tls-certificate", "--tls-key", "go together"));
    expect_refusal(ARGUMENTS("--data", data, "--tls-certificate", "/nowhere.pem", "--tls-key", test.key),
                   NULL, WORDS("cannot read", "/nowhere.pem"));
    write_file(test.key, second.key);
    expect_refusal(ARGUMENTS("--data", data, "--tls-certificate", test.certificate, "--tls-key", test.key),
                   NULL, WORDS("cannot be used", test.certificate, test.key));
    write_file(test.key, "");
    expect_refusal(ARGUMENTS("--data", data, "--tls-certificate", test.certificate, "--tls-key", test.key),
                   NULL, WORDS("cannot be used"));
    expect_refusal(ARGUMENTS("--data", data, "--cors-origins", "https://shop.example/path"), NULL,
                   WORDS("--cors-origins", "shop.example/path"));
    expect_refusal(ARGUMENTS("--data", data), ENVIRONMENT("DOORBUSTER_TRUSTED_PROXIES=10.0.0.0/40"),
                   WORDS("DOORBUSTER_TRUSTED_PROXIES", "10.0.0.0/40"));
    expect_refusal(ARGUMENTS("--data", data, "--rate-account", "50"), NULL,
                   WORDS("--rate-account", "50/s:100"));
    expect_refusal(ARGUMENTS("--data", data), ENVIRONMENT("DOORBUSTER_RATE_LIMITS=maybe"),
                   WORDS("DOORBUSTER_RATE_LIMITS", "on or off"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_new_certificate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_until_when_it_is_valid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_served_with, setup, teardown),
    };
    tls_identity_make(&first, 1);
    tls_identity_make(&second, 2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
