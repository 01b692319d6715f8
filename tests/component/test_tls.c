/* TLS in the HTTP front: real sockets, real handshakes. What libmicrohttpd 0.9.75 does with TLS under an external loop is what is looked at: nothing lies
 * unread that GnuTLS has decrypted, the loop rests while a handshake waits for its client, and every connection has its end. */
#include "http_fixture.h"
#include "testing.h"
#include "tls_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 100
#define SLOW_CLIENTS 50

#define HEAD_BYTES 5800 /* near the most that is taken */
#define LINE_BYTES 200

static struct tls_identity identity, other;

static struct http_settings with_tls(void)
{
    return (struct http_settings){.tls_certificate_pem = identity.certificate, .tls_key_pem = identity.key};
}

static struct tls_client open_tls(const struct http_fixture *fixture)
{
    struct tls_client client;
    assert_true(tls_client_open(&client, fixture->port, NULL));
    return client;
}

/* A TCP connection that does not speak TLS, or not yet. */
static struct http_client open_raw(const struct http_fixture *fixture)
{
    struct http_client client;
    assert_int_equal(http_client_open(&client, "127.0.0.1", fixture->port, HTTP_FIXTURE_PATIENCE_MS),
                     HTTP_CLIENT_OK);
    return client;
}

/* --- certificates and versions ------------------------------------------------------------------------- */

static void test_certificate_and_key_must_fit(void **state)
{
    char error[256] = "";
    struct http_settings settings = with_tls();
    (void)state;
    assert_true(http_settings_check(&settings, error, sizeof error));
    settings.tls_key_pem = other.key;
    assert_false(http_settings_check(&settings, error, sizeof error));
    assert_true(error[0] != '\0');
    settings.tls_key_pem = "nonsense";
    assert_false(http_settings_check(&settings, error, sizeof error));
    settings.tls_key_pem = identity.certificate;
    assert_false(http_settings_check(&settings, error, sizeof error));
    settings.tls_key_pem = NULL;
    assert_false(http_settings_check(&settings, error, sizeof error));
    settings = (struct http_settings){.tls_certificate_pem = "", .tls_key_pem = ""};
    assert_false(http_settings_check(&settings, error, sizeof error));
}

static void test_only_modern_tls(void **state)
{
    static const struct {
        const char *priorities;
        bool good;
    } cases[] = {
        {"NORMAL:-VERS-ALL:+VERS-TLS1.3", true},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2", true},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.1", false},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.0", false},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC", false},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+RSA", false},
    };
    const struct http_settings settings = with_tls();
    struct http_fixture fixture;
    struct tls_client client;
    char head[1024];
    (void)state;
    http_fixture_start(&fixture, &settings);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool opened = tls_client_open(&client, fixture.port, cases[i].priorities);
        if (opened != cases[i].good)
            fail_msg("%s", cases[i].priorities);
        if (opened) {
            assert_int_equal(tls_client_serial(&client), identity.serial);
            assert_int_equal(tls_client_get(&client, "/now"), 200);
            tls_client_close(&client);
        }
    }
    client = open_tls(&fixture);
    assert_true(tls_client_send(&client, "GET /page HTTP/1.1\r\nHost: x\r\n\r\n", 32));
    assert_int_equal(tls_client_read(&client, head, sizeof head, NULL), 200);
    assert_non_null(strstr(head, "Strict-Transport-Security: max-age=31536000\r\n"));
    tls_client_close(&client);
    http_fixture_stop(&fixture);
}

/* --- requests -------------------------------------------------------------------------------------------- */

static void test_requests_in_any_records(void **state)
{
    static const char request[] =
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n0123456789";
    static const char two[] = "GET /now HTTP/1.1\r\nHost: x\r\n\r\nGET /later HTTP/1.1\r\nHost: x\r\n\r\n";
    const struct http_settings settings = with_tls();
    struct http_fixture fixture;
    size_t bytes;
    (void)state;
    http_fixture_start(&fixture, &settings);
    struct tls_client client = open_tls(&fixture);
    for (int i = 0; i < 500; i++)
        assert_int_equal(tls_client_get(&client, "/now"), 200);
    /* a record for each byte: many lie there when the loop wakes, and none may wait for a timer */
    for (size_t i = 0; i < sizeof request - 1; i++)
        assert_true(tls_client_send(&client, request + i, 1));
    int64_t began_us = now_us();
    assert_int_equal(tls_client_read(&client, NULL, 0, &bytes), 200);
    assert_int_equal(bytes, 10);
    assert_in_range(now_us() - began_us, 0, 500000);
    /* several requests in one record, the last of which waits */
    assert_true(tls_client_send(&client, two, sizeof two - 1));
    assert_int_equal(tls_client_read(&client, NULL, 0, NULL), 200);
    assert_int_equal(tls_client_read(&client, NULL, 0, NULL), 200);
    tls_client_close(&client);
    http_fixture_stop(&fixture);
}

/* A head of HEAD_BYTES, without its end. */
static size_t begin_large_head(char out[HEAD_BYTES])
{
    int used = snprintf(out, HEAD_BYTES, "GET /now HTTP/1.1\r\nHost: localhost\r\n");
    for (int line = 0; used + LINE_BYTES < HEAD_BYTES; line++)
        used +=
            snprintf(out + used, (size_t)(HEAD_BYTES - used), "X-%02d: %0*d\r\n", line, LINE_BYTES - 8, 0);
    return (size_t)used;
}

/* libmicrohttpd takes it up some hundred bytes at a time, out of what is decrypted already: nothing in the socket wakes the loop for that. */
static void test_large_heads_in_one_record(void **state)
{
    const struct http_settings settings = with_tls();
    struct http_fixture fixture;
    char head[HEAD_BYTES + 8];
    (void)state;
    http_fixture_start(&fixture, &settings);
    struct tls_client client = open_tls(&fixture);
    size_t bytes = begin_large_head(head);
    memcpy(head + bytes, "\r\n", 2);
    int64_t began_us = now_us();
    for (int i = 0; i < 20; i++) {
        assert_true(tls_client_send(&client, head, bytes + 2));
        assert_int_equal(tls_client_read(&client, NULL, 0, NULL), 200);
    }
    assert_in_range(now_us() - began_us, 0,
                    1000000); /* the fixture's frames would get each through in 120 ms */
    tls_client_close(&client);
    http_fixture_stop(&fixture);
}

static void test_large_bodies_and_answers(void **state)
{
    enum { BODY = 200000 };
    const struct http_settings settings = with_tls();
    struct http_fixture fixture;
    char head[256];
    size_t bytes;
    (void)state;
    http_fixture_start(&fixture, &settings);
    struct tls_client client = open_tls(&fixture);
    char *body = malloc(BODY);
    assert_non_null(body);
    memset(body, 'x', BODY);
    snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", BODY);
    assert_true(tls_client_send(&client, head, strlen(head)));
    assert_true(tls_client_send(&client, body, BODY));
    assert_int_equal(tls_client_read(&client, NULL, 0, &bytes), 200);
    assert_int_equal(bytes, BODY);
    free(body);
    /* more than the socket holds, taken while others are served */
    static const char big[] = "GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_true(tls_client_send(&client, big, sizeof big - 1));
    struct tls_client second = open_tls(&fixture);
    for (int i = 0; i < 20; i++)
        assert_int_equal(tls_client_get(&second, "/now"), 200);
    assert_int_equal(tls_client_read(&client, NULL, 0, &bytes), 200);
    assert_int_equal(bytes, HTTP_FIXTURE_BIG_BYTES);
    assert_int_equal(tls_client_get(&client, "/now"), 200);
    tls_client_close(&second);
    tls_client_close(&client);
    http_fixture_stop(&fixture);
}

/* Answered at once, and then suspended: each connection goes both ways again and again. */
static void test_a_hundred_clients(void **state)
{
    static const char later[] = "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const struct http_settings settings = with_tls();
    static struct tls_client clients[CLIENTS];
    struct http_fixture fixture;
    (void)state;
    http_fixture_start(&fixture, &settings);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = open_tls(&fixture);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < CLIENTS; i++)
            assert_int_equal(tls_client_get(&clients[i], "/now"), 200);
        for (int i = 0; i < CLIENTS; i++)
            assert_true(tls_client_send(&clients[i], later, sizeof later - 1));
        for (int i = 0; i < CLIENTS; i++)
            assert_int_equal(tls_client_read(&clients[i], NULL, 0, NULL), 200);
    }
    /* some hang up while they wait; their answers go nowhere */
    for (int i = 0; i < CLIENTS; i++) {
        assert_true(tls_client_send(&clients[i], later, sizeof later - 1));
        if (i % 2)
            tls_client_close(&clients[i]);
    }
    for (int i = 0; i < CLIENTS; i += 2) {
        assert_int_equal(tls_client_read(&clients[i], NULL, 0, NULL), 200);
        tls_client_close(&clients[i]);
    }
    http_fixture_stop(&fixture);
}

static void test_streams(void **state)
{
    static const char events[] = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const struct http_settings settings = with_tls();
    struct http_fixture fixture;
    (void)state;
    http_fixture_start(&fixture, &settings);
    struct tls_client client = open_tls(&fixture);
    assert_true(tls_client_send(&client, events, sizeof events - 1));
    int64_t began_us = now_us();
    assert_true(tls_client_swallow(&client, 600)); /* the head and some 20 frames of 20 ms */
    assert_in_range(now_us() - began_us, 100000, 3000000);
    http_fixture_leave(&fixture);
    assert_true(tls_client_wait_closed(&client));
    tls_client_close(&client);
    http_fixture_stop(&fixture);
}

/* --- what is no handshake -------------------------------------------------------------------------------- */

/* The begin of a ClientHello that is said to go on. */
static const char hello[] = {0x16, 3, 1, 2, 0, 1, 0, 1, (char)0xfc, 3, 3};

static void test_garbage_is_hung_up_on(void **state)
{
    static const struct {
        const char *bytes;
        size_t count;
    } garbage[] = {
        {"GET /now HTTP/1.1\r\nHost: localhost\r\n\r\n", 38},
        {"\x16\x03\x01\xff\xff\x01\x02\x03", 8},
        {"\x15\x03\x01\x00\x02\x02\x28", 7},         /* an alert: fatal */
        {"\x17\x03\x03\x00\x05hello", 10},           /* data before any handshake */
        {"\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9}, /* an empty ClientHello */
        {"\x80\x2e\x01\x00\x02", 5},                 /* SSL 2 */
        {"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16},
    };
    struct http_settings settings = with_tls();
    settings.head_timeout_ms = 400; /* what looks like the begin of a record runs into it */
    struct http_fixture fixture;
    (void)state;
    http_fixture_start(&fixture, &settings);
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        struct http_client raw = open_raw(&fixture);
        assert_int_equal(
            http_client_send(&raw, garbage[i].bytes, garbage[i].count, HTTP_FIXTURE_PATIENCE_MS, NULL),
            HTTP_CLIENT_OK);
        enum http_client_result result = http_client_wait_closed(&raw, HTTP_FIXTURE_PATIENCE_MS);
        assert_true(result == HTTP_CLIENT_CLOSED || result == HTTP_CLIENT_BROKEN);
        http_client_close(&raw);
    }
    struct tls_client client = open_tls(&fixture);
    assert_int_equal(tls_client_get(&client, "/now"), 200);
    tls_client_close(&client);
    http_fixture_stop(&fixture);
}

/* Silent, slow, half a handshake, half-closed: each has as long as a head may take. */
static void test_handshakes_have_a_deadline(void **state)
{
    struct http_settings settings = with_tls();
    struct http_client raw[4];
    struct http_fixture fixture;
    (void)state;
    settings.head_timeout_ms = 500;
    http_fixture_start(&fixture, &settings);
    for (int i = 0; i < 4; i++)
        raw[i] = open_raw(&fixture);
    struct tls_client silent = open_tls(&fixture); /* a whole handshake, and then nothing */
    for (int i = 1; i < 4; i++)
        assert_int_equal(http_client_send(&raw[i], hello, sizeof hello, HTTP_FIXTURE_PATIENCE_MS, NULL),
                         HTTP_CLIENT_OK);
    assert_int_equal(shutdown(raw[2].fd, SHUT_WR), 0);
    int64_t deadline = deadline_in(300);
    while (wait_a_moment(deadline)) /* a byte now and then does not help */
        (void)http_client_send(&raw[3], "\0", 1, HTTP_FIXTURE_PATIENCE_MS, NULL);
    for (int i = 0; i < 4; i++) {
        enum http_client_result result = http_client_wait_closed(&raw[i], HTTP_FIXTURE_PATIENCE_MS);
        assert_true(result == HTTP_CLIENT_CLOSED || result == HTTP_CLIENT_BROKEN);
        http_client_close(&raw[i]);
    }
    assert_true(tls_client_wait_closed(&silent));
    tls_client_close(&silent);
    http_fixture_stop(&fixture);
}

/* libmicrohttpd asks to be run at once for as long as a handshake lasts: that would be a whole processor. */
static void test_slow_handshakes_do_not_spin(void **state)
{
    const struct http_settings settings = with_tls();
    struct http_client raw[SLOW_CLIENTS];
    struct http_fixture fixture;
    char head[HEAD_BYTES];
    (void)state;
    http_fixture_start(&fixture, &settings);
    for (int i = 0; i < SLOW_CLIENTS; i++) {
        raw[i] = open_raw(&fixture);
        assert_int_equal(http_client_send(&raw[i], hello, sizeof hello, HTTP_FIXTURE_PATIENCE_MS, NULL),
                         HTTP_CLIENT_OK);
    }
    struct tls_client client = open_tls(&fixture); /* by now they have all been seen */
    struct tls_client half = open_tls(&fixture);   /* its head is never complete */
    assert_true(tls_client_send(&half, head, begin_large_head(head)));
    assert_int_equal(tls_client_get(&client, "/now"), 200);
    int64_t before_ms = http_fixture_cpu_ms(&fixture);
    assert_int_equal(tls_client_get(&client, "/later"), 200);
    for (int64_t deadline = deadline_in(1000); wait_a_moment(deadline);) {
    }
    /* 20 to 50 ms, on a busy machine twice as much: the fixture makes a frame every 20 ms, and the sanitizer takes its time; spinning is 1000 */
    assert_in_range(http_fixture_cpu_ms(&fixture) - before_ms, 0, 250);
    for (int i = 0; i < SLOW_CLIENTS; i++)
        http_client_close(&raw[i]);
    tls_client_close(&half);
    tls_client_close(&client);
    http_fixture_stop(&fixture);
}

/* --- leaving --------------------------------------------------------------------------------------------- */

static void test_quiesce(void **state)
{
    static const char later[] = "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct http_settings settings = with_tls();
    struct http_fixture fixture;
    char head[1024];
    (void)state;
    settings.leave_grace_ms = 200;
    http_fixture_start(&fixture, &settings);
    struct tls_client fresh = open_tls(&fixture), idle = open_tls(&fixture), busy = open_tls(&fixture),
                      begun = open_tls(&fixture);
    assert_int_equal(tls_client_get(&idle, "/now"), 200);
    assert_int_equal(tls_client_get(&begun, "/now"), 200);
    assert_int_equal(tls_client_get(&busy, "/now"), 200);
    assert_true(tls_client_send(&begun, later, 10)); /* the rest comes after the grace */
    assert_true(tls_client_send(&busy, later, sizeof later - 1));
    assert_int_equal(tls_client_get(&idle, "/now"), 200); /* so the others' bytes have come, too */
    int64_t began_us = now_us();
    http_fixture_leave(&fixture);
    assert_int_equal(tls_client_read(&busy, head, sizeof head, NULL), 200);
    assert_non_null(strstr(head, "Connection: close"));
    assert_true(tls_client_wait_closed(&idle));
    assert_true(tls_client_wait_closed(&fresh));
    assert_in_range(now_us() - began_us, 150000, 3000000);
    assert_true(tls_client_send(&begun, later + 10, sizeof later - 1 - 10));
    assert_int_equal(tls_client_read(&begun, NULL, 0, NULL), 200);
    tls_client_close(&fresh);
    tls_client_close(&idle);
    tls_client_close(&busy);
    tls_client_close(&begun);
    http_fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificate_and_key_must_fit),
        cmocka_unit_test(test_only_modern_tls),
        cmocka_unit_test(test_requests_in_any_records),
        cmocka_unit_test(test_large_heads_in_one_record),
        cmocka_unit_test(test_large_bodies_and_answers),
        cmocka_unit_test(test_a_hundred_clients),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_garbage_is_hung_up_on),
        cmocka_unit_test(test_handshakes_have_a_deadline),
        cmocka_unit_test(test_slow_handshakes_do_not_spin),
        cmocka_unit_test(test_quiesce),
    };
    tls_identity_make(&identity, 1);
    tls_identity_make(&other, 2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
