/* JSON Web Tokens (RFC 7519), HS256 only: the algorithm is pinned, whatever the token's header says (RFC 8725, 3.1).
 * Loop thread only (a verifier remembers tokens). */
#ifndef DOORBUSTER_JWT_H
#define DOORBUSTER_JWT_H

#include "doorbuster/store.h" /* enum user_role */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JWT_SECRET_BYTES_MIN 32
#define JWT_TOKEN_BYTES_MAX 2048
#define JWT_LIFETIME_S 86400

struct jwt_claims {
    char username[STORE_USERNAME_BYTES]; /* sub. jwt_verify fills it in only if asked to: see there */
    int64_t user_id;
    enum user_role role; /* "role": "admin" or "buyer" */
    int64_t issued_at_s, expires_at_s;
};

enum jwt_status { JWT_OK, JWT_MALFORMED, JWT_WRONG_ALGORITHM, JWT_BAD_SIGNATURE, JWT_EXPIRED };

struct jwt;
/* `secret` is copied. libsodium must have been initialised. */
struct jwt *jwt_new(const unsigned char *secret, size_t secret_bytes);
void jwt_free(struct jwt **jwt);

/* Writes a signed token; returns its length. CHECKs that it fits JWT_TOKEN_BYTES_MAX. */
size_t jwt_sign(const struct jwt *jwt, const struct jwt_claims *claims, char out[JWT_TOKEN_BYTES_MAX]);

/* Checks signature (constant time), algorithm, expiry against `now_s`, and the types of the claims. A token that was good is
 * remembered by a keyed 128-bit hash (SipHash under a random key) until it expires, in a table of fixed size; then only the hash is computed.
 * `username` is not filled in for a remembered token: look the user up by id where the name matters. */
enum jwt_status jwt_verify(struct jwt *jwt, const char *token, size_t bytes, int64_t now_s,
                           struct jwt_claims *out);

#endif
