/* TLS: libmicrohttpd's, by GnuTLS, over a transport that we own.
 *
 * Runs on the loop's thread of a worker; http_tls_check() and http_certificate_read() also in the supervisor, before
 * any fork. Owns nothing: sessions are libmicrohttpd's, sockets too.
 *
 * Why the transport is ours. libmicrohttpd 0.9.75 takes a connection in its handshake for readable until the handshake is over, whatever the socket says, and
 * so asks to be run again at once for as long as a client takes: one slow client, and the loop never rests. What is certain is when bytes have moved
 * through a socket, so each time they do counts as progress (front.c runs libmicrohttpd until there is none), and a connection knows how much it has
 * received. A head that came in one record moves through the socket once, and then, some hundred bytes a run, out of what GnuTLS
 * holds decrypted, which nobody sees: so those that were read from are kept in a list, and asked. */
#include "http_internal.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* TLS 1.3 and 1.2, each with a key of its own for every connection and authenticated encryption only. */
const char *const http_tls_priorities =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-DHE-RSA:"
    "-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-MAC-ALL:+AEAD:%SERVER_PRECEDENCE";

static gnutls_datum_t datum(const char *pem)
{
    return (gnutls_datum_t){(unsigned char *)(uintptr_t)pem, (unsigned)strlen(pem)};
}

bool http_tls_check(const char *certificate_pem, const char *key_pem, char *error, size_t error_bytes)
{
    gnutls_certificate_credentials_t credentials;

    if (!certificate_pem != !key_pem) {
        (void)snprintf(error, error_bytes, "TLS needs both a certificate and its key");
        return false;
    }
    if (!certificate_pem)
        return true;
    int status = gnutls_certificate_allocate_credentials(&credentials);
    if (status == GNUTLS_E_SUCCESS) {
        const gnutls_datum_t certificate = datum(certificate_pem), key = datum(key_pem);
        status = gnutls_certificate_set_x509_key_mem(credentials, &certificate, &key, GNUTLS_X509_FMT_PEM);
        gnutls_certificate_free_credentials(credentials);
    }
    if (status < 0)
        (void)snprintf(error, error_bytes, "%s", gnutls_strerror(status));
    return status >= 0;
}

bool http_certificate_read(const char *pem, struct http_certificate *out)
{
    const gnutls_datum_t text = datum(pem);
    gnutls_x509_crt_t certificate;
    gnutls_datum_t subject = {0};

    if (gnutls_x509_crt_init(&certificate) < 0)
        return false;
    bool read = gnutls_x509_crt_import(certificate, &text, GNUTLS_X509_FMT_PEM) >= 0;
    time_t ends_at = read ? gnutls_x509_crt_get_expiration_time(certificate) : -1;
    if (ends_at != -1) {
        bool named = gnutls_x509_crt_get_dn3(certificate, &subject, 0) >= 0;
        (void)snprintf(out->subject, sizeof out->subject, "%s", named ? (const char *)subject.data : "");
        out->ends_at_ms = (int64_t)ends_at * 1000;
        gnutls_free(subject.data);
    }
    gnutls_x509_crt_deinit(certificate);
    return ends_at != -1;
}

static gnutls_session_t session_of(const struct http_connection *connection)
{
    return MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;
}

static void note_read(struct http_connection *connection)
{
    struct http_connection **first = &connection->server->tls_read;

    if (connection->tls_link)
        return;
    connection->tls_next = *first;
    connection->tls_link = first;
    if (*first)
        (*first)->tls_link = &connection->tls_next;
    *first = connection;
}

void http_tls_end(struct http_connection *connection)
{
    if (!connection->tls_link)
        return;
    *connection->tls_link = connection->tls_next;
    if (connection->tls_next)
        connection->tls_next->tls_link = connection->tls_link;
    connection->tls_link = NULL;
}

bool http_tls_holds_head(struct http_server *server)
{
    struct http_connection *next;
    bool holds = false;

    for (struct http_connection *connection = server->tls_read; connection; connection = next) {
        next = connection->tls_next;
        if (gnutls_record_check_pending(session_of(connection)) == 0)
            http_tls_end(connection);
        else
            holds = holds || connection->state == CONNECTION_FRESH || connection->state == CONNECTION_HEAD ||
                    connection->state == CONNECTION_IDLE;
    }
    return holds;
}

static ssize_t pull_cb(gnutls_transport_ptr_t transport, void *data, size_t bytes)
{
    struct http_connection *connection = transport;
    ssize_t got = recv(connection->fd, data, bytes, 0);

    if (got > 0) {
        connection->server->events++;
        connection->tls_bytes += (uint64_t)got;
        connection->tls_read_ms = uv_now(connection->server->loop);
        note_read(connection);
    }
    return got;
}

static ssize_t push_cb(gnutls_transport_ptr_t transport, const giovec_t *pieces, int count)
{
    struct http_connection *connection = transport;
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = (size_t)count};
    ssize_t sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL);

    if (sent > 0)
        connection->server->events++;
    return sent;
}

void http_tls_begin(struct http_connection *connection)
{
    gnutls_session_t session = session_of(connection);

    gnutls_transport_set_ptr(session, connection);
    gnutls_transport_set_pull_function(session, pull_cb);
    gnutls_transport_set_vec_push_function(session, push_cb);
}

/* What a connection has received is no measure of requests here; what it has received since it became idle is a request's begin. One that
 * has not had a request yet may be in its handshake. */
bool http_tls_request_has_begun(const struct http_connection *connection)
{
    const struct http_server *server = connection->server;

    if (connection->state == CONNECTION_FRESH)
        return connection->tls_bytes > 0 &&
               uv_now(server->loop) - connection->tls_read_ms < server->settings.leave_grace_ms;
    return connection->tls_bytes != connection->bytes_expected;
}
