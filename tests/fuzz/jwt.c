/* Tokens. One that is accepted carries our signature, worked out here a second time. As nobody can guess that, the input is also signed as it is, as header
 * and payload: what is then accepted has claims that can be, and whatever is changed of such a token it is accepted no more. */
#include "fuzz.h"

#include "doorbuster/json.h"
#include "doorbuster/jwt.h"

#include <sodium.h>

#define NOW_S INT64_C(1764201600)
#define SIGNATURE_CHARS 43
#define BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING

static const unsigned char secret[] = "a secret of the fuzz targets, 32+ bytes";

static bool carries_our_signature(const char *token, size_t bytes)
{
    unsigned char right[crypto_auth_hmacsha256_BYTES];
    char shown[SIGNATURE_CHARS + 1];
    crypto_auth_hmacsha256_state state;
    if (bytes < SIGNATURE_CHARS + 1 || token[bytes - SIGNATURE_CHARS - 1] != '.') {
        return false;
    }
    crypto_auth_hmacsha256_init(&state, secret, sizeof secret - 1);
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)token, bytes - SIGNATURE_CHARS - 1);
    crypto_auth_hmacsha256_final(&state, right);
    sodium_bin2base64(shown, sizeof shown, right, sizeof right, BASE64);
    return memcmp(shown, token + bytes - SIGNATURE_CHARS, SIGNATURE_CHARS) == 0;
}

static void check_claims(const struct jwt_claims *claims)
{
    CHECK(claims->user_id >= 1 && claims->user_id <= JSON_INTEGER_MAX);
    CHECK(claims->role == USER_BUYER || claims->role == USER_ADMIN);
    CHECK(claims->expires_at_s > NOW_S && claims->issued_at_s >= 0);
    CHECK(strlen(claims->username) < sizeof claims->username);
}

/* Signed again from its claims it is good too, and says the same. */
static void check_signs_back(struct jwt *jwt, const struct jwt_claims *claims)
{
    char token[JWT_TOKEN_BYTES_MAX];
    struct jwt_claims again;
    if (claims->username[0] == '\0') {
        return; /* remembered: see jwt.h */
    }
    size_t bytes = jwt_sign(jwt, claims, token);
    CHECK(carries_our_signature(token, bytes));
    CHECK(jwt_verify(jwt, token, bytes, NOW_S, &again) == JWT_OK);
    CHECK(again.user_id == claims->user_id && again.role == claims->role);
    CHECK(jwt_verify(jwt, token, bytes, claims->expires_at_s, &again) == JWT_EXPIRED);
}

static bool verify(struct jwt *jwt, const char *token, size_t bytes, struct jwt_claims *claims)
{
    if (jwt_verify(jwt, token, bytes, NOW_S, claims) != JWT_OK) {
        return false;
    }
    CHECK(carries_our_signature(token, bytes));
    check_claims(claims);
    check_signs_back(jwt, claims);
    return true;
}

/* "header.payload" as text of two JSON objects, parted by a newline, or as it is. */
static size_t sign_input(const uint8_t *data, size_t bytes, char out[JWT_TOKEN_BYTES_MAX])
{
    const uint8_t *newline = bytes > 0 ? memchr(data, '\n', bytes) : NULL;
    size_t used = bytes;
    if (newline != NULL) {
        size_t header = (size_t)(newline - data), payload = bytes - header - 1;
        if (2 * bytes + 8 > JWT_TOKEN_BYTES_MAX - SIGNATURE_CHARS) {
            return 0;
        }
        sodium_bin2base64(out, JWT_TOKEN_BYTES_MAX, data, header, BASE64);
        used = strlen(out);
        out[used++] = '.';
        sodium_bin2base64(out + used, JWT_TOKEN_BYTES_MAX - used, newline + 1, payload, BASE64);
        used += strlen(out + used);
    } else if (bytes > JWT_TOKEN_BYTES_MAX - SIGNATURE_CHARS - 2) {
        return 0;
    } else if (bytes > 0) {
        memcpy(out, data, bytes);
    }
    unsigned char signature[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, secret, sizeof secret - 1);
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)out, used);
    crypto_auth_hmacsha256_final(&state, signature);
    out[used++] = '.';
    sodium_bin2base64(out + used, JWT_TOKEN_BYTES_MAX - used, signature, sizeof signature, BASE64);
    return used + SIGNATURE_CHARS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct jwt *jwt;
    struct jwt_claims claims, changed;
    char token[JWT_TOKEN_BYTES_MAX];
    if (jwt == NULL) {
        CHECK(sodium_init() >= 0);
        jwt = jwt_new(secret, sizeof secret - 1);
    }
    verify(jwt, (const char *)data, bytes, &claims);
    size_t used = sign_input(data, bytes, token);
    if (used > 0 && verify(jwt, token, used, &claims)) {
        CHECK(jwt_verify(jwt, token, used, NOW_S, &changed) == JWT_OK); /* remembered */
        CHECK(changed.user_id == claims.user_id && changed.role == claims.role);
        size_t at = bytes % used;
        token[at] = token[at] == 'A' ? 'B' : 'A';
        CHECK(jwt_verify(jwt, token, used, NOW_S, &changed) != JWT_OK);
    }
    return 0;
}
