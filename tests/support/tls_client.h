/* A TLS client for tests, and certificates made up on the spot. GnuTLS; one thread; a deadline on everything. Believes any certificate, but
 * tells which one it was. Needs a fork before it: a server process must be there already. */
#ifndef DOORBUSTER_TEST_TLS_CLIENT_H
#define DOORBUSTER_TEST_TLS_CLIENT_H

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_PEM_BYTES 4096

struct tls_identity {
    char certificate[TLS_PEM_BYTES], key[TLS_PEM_BYTES]; /* PEM */
    unsigned char serial;
};

/* Signed by itself, for localhost, for an hour. */
void tls_identity_make(struct tls_identity *identity, unsigned char serial);
/* Which ends so many seconds from now, or ended so many before. */
void tls_identity_make_for(struct tls_identity *identity, unsigned char serial, long seconds);

struct tls_client {
    int fd;
    gnutls_session_t session;
    gnutls_certificate_credentials_t credentials;
    char *buffer; /* received and not yet read */
    size_t used, room;
};

/* `priorities` NULL: GnuTLS's own. False: no connection, or no handshake; nothing is left open. */
bool tls_client_open(struct tls_client *client, uint16_t port, const char *priorities);
void tls_client_close(struct tls_client *client);
/* The serial number of the server's certificate. */
unsigned char tls_client_serial(const struct tls_client *client);
/* As one record, or several if it is long. False: the connection is broken. */
bool tls_client_send(struct tls_client *client, const char *bytes, size_t count);
/* The next answer that has a Content-Length: its status, 0 if there is none; its body's length in *body_bytes unless NULL. */
int tls_client_read(struct tls_client *client, char *head, size_t head_room, size_t *body_bytes);
/* GET, and the answer's status. */
int tls_client_get(struct tls_client *client, const char *target);
/* Reads until there are that many bytes of anything, all of which are thrown away. False: the connection has ended before that. */
bool tls_client_swallow(struct tls_client *client, size_t bytes);
/* Waits until the server has closed it. */
bool tls_client_wait_closed(struct tls_client *client);

#endif
