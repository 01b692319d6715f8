/* See tls_client.h. */
#include "tls_client.h"

#include "testing.h"

#include <arpa/inet.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 8
#define CHUNK_BYTES 16384

/* --- certificates ------------------------------------------------------------------------------------ */

static void export(gnutls_datum_t *pem, char out[TLS_PEM_BYTES])
{
    assert_in_range(pem->size, 1, TLS_PEM_BYTES - 1);
    memcpy(out, pem->data, pem->size);
    out[pem->size] = '\0';
    gnutls_free(pem->data);
}

void tls_identity_make(struct tls_identity *identity, unsigned char serial)
{
    tls_identity_make_for(identity, serial, 3600);
}

void tls_identity_make_for(struct tls_identity *identity, unsigned char serial, long seconds)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t certificate;
    gnutls_datum_t pem;
    unsigned bits = GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1);

    identity->serial = serial;
    assert_int_equal(gnutls_x509_privkey_init(&key), 0);
    assert_int_equal(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, bits, 0), 0);
    assert_int_equal(gnutls_x509_crt_init(&certificate), 0);
    assert_int_equal(gnutls_x509_crt_set_version(certificate, 3), 0);
    assert_int_equal(gnutls_x509_crt_set_serial(certificate, &serial, 1), 0);
    assert_int_equal(gnutls_x509_crt_set_dn(certificate, "CN=localhost", NULL), 0);
    assert_int_equal(gnutls_x509_crt_set_activation_time(certificate, time(NULL) - 2 * 86400), 0);
    assert_int_equal(gnutls_x509_crt_set_expiration_time(certificate, time(NULL) + seconds), 0);
    assert_int_equal(gnutls_x509_crt_set_key(certificate, key), 0);
    assert_int_equal(gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA256, 0), 0);
    assert_int_equal(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &pem), 0);
    export(&pem, identity->certificate);
    assert_int_equal(gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, 0, &pem), 0);
    export(&pem, identity->key);
    gnutls_x509_crt_deinit(certificate);
    gnutls_x509_privkey_deinit(key);
}

/* --- the client -------------------------------------------------------------------------------------- */

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience), 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

bool tls_client_open(struct tls_client *client, uint16_t port, const char *priorities)
{
    int status;

    memset(client, 0, sizeof *client);
    client->fd = connect_to(port);
    if (client->fd < 0)
        return false;
    assert_int_equal(gnutls_certificate_allocate_credentials(&client->credentials), 0);
    assert_int_equal(gnutls_init(&client->session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL), 0);
    if (priorities)
        assert_int_equal(gnutls_priority_set_direct(client->session, priorities, NULL), 0);
    else
        assert_int_equal(gnutls_set_default_priority(client->session), 0);
    assert_int_equal(gnutls_credentials_set(client->session, GNUTLS_CRD_CERTIFICATE, client->credentials), 0);
    gnutls_transport_set_int(client->session, client->fd);
    do
        status = gnutls_handshake(client->session);
    while (status == GNUTLS_E_INTERRUPTED);
    if (status == 0)
        return true;
    tls_client_close(client);
    return false;
}

void tls_client_close(struct tls_client *client)
{
    if (client->fd < 0)
        return;
    gnutls_deinit(client->session);
    gnutls_certificate_free_credentials(client->credentials);
    close(client->fd);
    free(client->buffer);
    client->fd = -1;
    client->buffer = NULL;
}

unsigned char tls_client_serial(const struct tls_client *client)
{
    unsigned count = 0;
    unsigned char serial[64];
    size_t bytes = sizeof serial;
    gnutls_x509_crt_t certificate;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(client->session, &count);

    assert_true(chain && count > 0);
    assert_int_equal(gnutls_x509_crt_init(&certificate), 0);
    assert_int_equal(gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER), 0);
    assert_int_equal(gnutls_x509_crt_get_serial(certificate, serial, &bytes), 0);
    gnutls_x509_crt_deinit(certificate);
    return serial[bytes - 1];
}

bool tls_client_send(struct tls_client *client, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = gnutls_record_send(client->session, bytes, count);
        if (sent <= 0)
            return false;
        bytes += sent;
        count -= (size_t)sent;
    }
    return true;
}

/* One record more. False: the end, or nothing in time. */
static bool receive(struct tls_client *client)
{
    ssize_t got;

    if (client->used + CHUNK_BYTES + 1 > client->room) {
        client->room = 2 * client->room + CHUNK_BYTES + 1;
        client->buffer = realloc(client->buffer, client->room);
        assert_non_null(client->buffer);
    }
    do
        got = gnutls_record_recv(client->session, client->buffer + client->used, CHUNK_BYTES);
    while (got == GNUTLS_E_INTERRUPTED);
    if (got <= 0)
        return false;
    client->used += (size_t)got;
    client->buffer[client->used] = '\0';
    return true;
}

static void consume(struct tls_client *client, size_t bytes)
{
    memmove(client->buffer, client->buffer + bytes, client->used - bytes + 1);
    client->used -= bytes;
}

int tls_client_read(struct tls_client *client, char *head, size_t head_room, size_t *body_bytes)
{
    const char *end = NULL, *length;
    int status = 0;

    while (!client->buffer || !(end = strstr(client->buffer, "\r\n\r\n")))
        if (!receive(client))
            return 0;
    size_t head_bytes = (size_t)(end + 4 - client->buffer);
    if (sscanf(client->buffer, "HTTP/1.1 %d", &status) != 1)
        return 0;
    length = strcasestr(client->buffer, "\r\nContent-Length:");
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    if (head)
        snprintf(head, head_room, "%.*s", (int)head_bytes, client->buffer);
    while (client->used < head_bytes + body)
        if (!receive(client))
            return 0;
    consume(client, head_bytes + body);
    if (body_bytes)
        *body_bytes = body;
    return status;
}

int tls_client_get(struct tls_client *client, const char *target)
{
    char text[512];
    int bytes = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", target);

    return tls_client_send(client, text, (size_t)bytes) ? tls_client_read(client, NULL, 0, NULL) : 0;
}

bool tls_client_swallow(struct tls_client *client, size_t bytes)
{
    while (client->used < bytes)
        if (!receive(client))
            return false;
    consume(client, bytes);
    return true;
}

bool tls_client_wait_closed(struct tls_client *client)
{
    int64_t deadline = deadline_in(PATIENCE_S * 1000 - 500);

    while (receive(client))
        client->used = 0;
    return now_us() < deadline;
}
