/* JSON Web Tokens: signs them at login, checks them on every request.
 *
 * Loop thread of a worker. A `struct jwt` owns the keyed HMAC state and the table of remembered tokens, all
 * of fixed size; both are wiped when it is freed. Input comes from strangers, so every fault in it is a
 * status, and nothing in a payload is looked at before the signature has been found good:
 *
 *   length, two dots ──▶ remembered? ──yes──▶ expiry ──▶ JWT_OK
 *                             │ no
 *                             └──▶ header: alg is HS256 ──▶ signature ──▶ claims ──▶ expiry
 *                                                                  JWT_OK ◀── remember ◀──┘
 *
 * A token has one spelling only: sodium_base642bin refuses padding, foreign characters and stray low bits. */
#include "doorbuster/jwt.h"

#include "doorbuster/check.h"
#include "doorbuster/json.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING
#define SIGNATURE_BYTES crypto_auth_hmacsha256_BYTES
#define SIGNATURE_CHARS 43 /* of 32 bytes, without padding */
#define USERNAME_POINTS_MAX 50
#define MOMENT_MAX_S INT64_C(253402300799) /* the last second of year 9999 */

#define WAYS 4
#define SETS 4096 /* a power of two */

struct remembered {
    unsigned char hash[crypto_shorthash_siphashx24_BYTES];
    int64_t user_id; /* 0: free */
    int64_t issued_at_s, expires_at_s;
    enum user_role role;
};

struct jwt {
    crypto_auth_hmacsha256_state keyed; /* after the key, before any text: copied for each token */
    unsigned char hash_key[crypto_shorthash_siphashx24_KEYBYTES];
    unsigned turn; /* which way of a full set goes next */
    struct remembered memory[SETS][WAYS];
};

/* The three parts of a token, still encoded. */
struct parts {
    const char *header, *payload, *signature;
    size_t header_chars, payload_chars, signature_chars;
    size_t signed_chars; /* header, dot, payload */
};

static const char *const role_names[] = {[USER_BUYER] = "buyer", [USER_ADMIN] = "admin"};

struct jwt *jwt_new(const unsigned char *secret, size_t secret_bytes)
{
    struct jwt *jwt = calloc(1, sizeof *jwt);

    CHECK(jwt != NULL);
    crypto_auth_hmacsha256_init(&jwt->keyed, secret, secret_bytes);
    randombytes_buf(jwt->hash_key, sizeof jwt->hash_key);
    return jwt;
}

void jwt_free(struct jwt **jwt)
{
    if (*jwt == NULL)
        return;
    sodium_memzero(*jwt, sizeof **jwt);
    free(*jwt);
    *jwt = NULL;
}

static void sign(const struct jwt *jwt, const char *text, size_t bytes,
                 unsigned char signature[SIGNATURE_BYTES])
{
    crypto_auth_hmacsha256_state state = jwt->keyed;

    crypto_auth_hmacsha256_update(&state, (const unsigned char *)text, bytes);
    crypto_auth_hmacsha256_final(&state, signature);
    sodium_memzero(&state, sizeof state);
}

/* Appends base64url at out[used]; returns what is used then. CHECKs that it fits, terminator included. */
static size_t append_base64(char out[JWT_TOKEN_BYTES_MAX], size_t used, const void *bytes, size_t count)
{
    CHECK(used + sodium_base64_ENCODED_LEN(count, BASE64) <= JWT_TOKEN_BYTES_MAX);
    sodium_bin2base64(out + used, JWT_TOKEN_BYTES_MAX - used, bytes, count, BASE64);
    return used + strlen(out + used);
}

size_t jwt_sign(const struct jwt *jwt, const struct jwt_claims *claims, char out[JWT_TOKEN_BYTES_MAX])
{
    static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    char name[6 * STORE_USERNAME_BYTES + 3], payload[sizeof name + 256];
    unsigned char signature[SIGNATURE_BYTES];

    CHECK(claims->role == USER_BUYER || claims->role == USER_ADMIN);
    CHECK(claims->user_id > 0 && claims->user_id <= JSON_INTEGER_MAX);
    size_t quoted = json_quote(claims->username, name, sizeof name);
    CHECK(quoted > 0);
    int length = snprintf(
        payload, sizeof payload,
        "{\"sub\":%s,\"user_id\":%" PRId64 ",\"role\":\"%s\",\"iat\":%" PRId64 ",\"exp\":%" PRId64 "}", name,
        claims->user_id, role_names[claims->role], claims->issued_at_s, claims->expires_at_s);
    CHECK(length > 0 && (size_t)length < sizeof payload);

    size_t used = append_base64(out, 0, header, sizeof header - 1);
    out[used++] = '.'; /* where the terminator was */
    used = append_base64(out, used, payload, (size_t)length);
    sign(jwt, out, used, signature);
    out[used++] = '.';
    return append_base64(out, used, signature, sizeof signature);
}

/* --- reading a token ------------------------------------------------------------------------------------ */

static bool split(const char *token, size_t bytes, struct parts *out)
{
    const char *end = token + bytes;
    const char *first = memchr(token, '.', bytes);
    const char *second = first == NULL ? NULL : memchr(first + 1, '.', (size_t)(end - first - 1));

    if (second == NULL || memchr(second + 1, '.', (size_t)(end - second - 1)) != NULL)
        return false;
    *out = (struct parts){
        .header = token,
        .header_chars = (size_t)(first - token),
        .payload = first + 1,
        .payload_chars = (size_t)(second - first - 1),
        .signature = second + 1,
        .signature_chars = (size_t)(end - second - 1),
        .signed_chars = (size_t)(second - token),
    };
    return out->header_chars > 0 && out->payload_chars > 0 && out->signature_chars > 0;
}

/* The JSON object in one part; NULL if it is not base64url of one. Free with cJSON_Delete. */
static cJSON *decode_object(const char *text, size_t chars)
{
    unsigned char json[JWT_TOKEN_BYTES_MAX];
    size_t bytes = 0;

    if (sodium_base642bin(json, sizeof json, text, chars, NULL, &bytes, NULL, BASE64) != 0)
        return NULL;
    return json_parse_object((const char *)json, bytes);
}

static enum jwt_status check_header(const struct parts *parts)
{
    cJSON *header = decode_object(parts->header, parts->header_chars);
    enum jwt_status status = JWT_MALFORMED;
    const char *algorithm;

    if (header == NULL)
        return JWT_MALFORMED;
    /* "crit" lists extensions that must be understood (RFC 7515, 4.1.11); there are none that we do. */
    if (cJSON_GetObjectItemCaseSensitive(header, "crit") == NULL &&
        json_get_string(header, "alg", 0, SIZE_MAX, &algorithm) == JSON_FIELD_OK)
        status = strcmp(algorithm, "HS256") == 0 ? JWT_OK : JWT_WRONG_ALGORITHM;
    cJSON_Delete(header);
    return status;
}

static enum jwt_status check_signature(const struct jwt *jwt, const struct parts *parts)
{
    unsigned char claimed[SIGNATURE_BYTES], right[SIGNATURE_BYTES];
    size_t bytes = 0;

    if (parts->signature_chars != SIGNATURE_CHARS ||
        sodium_base642bin(claimed, sizeof claimed, parts->signature, parts->signature_chars, NULL, &bytes,
                          NULL, BASE64) != 0 ||
        bytes != sizeof claimed)
        return JWT_BAD_SIGNATURE;
    sign(jwt, parts->header, parts->signed_chars, right);
    return sodium_memcmp(claimed, right, sizeof right) == 0 ? JWT_OK : JWT_BAD_SIGNATURE;
}

static bool read_role(const cJSON *payload, enum user_role *out)
{
    const char *name;

    if (json_get_string(payload, "role", 1, SIZE_MAX, &name) != JSON_FIELD_OK)
        return false;
    for (size_t i = 0; i < sizeof role_names / sizeof role_names[0]; i++) {
        if (strcmp(name, role_names[i]) == 0) {
            *out = (enum user_role)i;
            return true;
        }
    }
    return false;
}

static enum jwt_status read_claims(const struct parts *parts, struct jwt_claims *out)
{
    cJSON *payload = decode_object(parts->payload, parts->payload_chars);
    enum jwt_status status = JWT_MALFORMED;
    const char *name;

    if (payload == NULL)
        return JWT_MALFORMED;
    memset(out, 0, sizeof *out);
    if (json_get_string(payload, "sub", 1, USERNAME_POINTS_MAX, &name) == JSON_FIELD_OK &&
        json_get_integer(payload, "user_id", 1, JSON_INTEGER_MAX, &out->user_id) == JSON_FIELD_OK &&
        json_get_integer(payload, "iat", 0, MOMENT_MAX_S, &out->issued_at_s) == JSON_FIELD_OK &&
        json_get_integer(payload, "exp", 0, MOMENT_MAX_S, &out->expires_at_s) == JSON_FIELD_OK &&
        read_role(payload, &out->role)) {
        CHECK(strlen(name) < sizeof out->username); /* 50 code points are at most 200 bytes */
        snprintf(out->username, sizeof out->username, "%s", name);
        status = JWT_OK;
    }
    cJSON_Delete(payload);
    return status;
}

/* --- remembered tokens ---------------------------------------------------------------------------------- */

/* Which set: any bits will do, the hash is keyed. */
static struct remembered *set_of(struct jwt *jwt, const unsigned char *hash)
{
    return jwt->memory[(hash[0] | (unsigned)hash[1] << 8) & (SETS - 1)];
}

static const struct remembered *recall(struct jwt *jwt, const unsigned char *hash)
{
    const struct remembered *set = set_of(jwt, hash);

    for (int way = 0; way < WAYS; way++) {
        if (set[way].user_id != 0 && memcmp(set[way].hash, hash, sizeof set[way].hash) == 0)
            return &set[way];
    }
    return NULL;
}

/* In a free or expired place, else over the set's ways in turn. */
static void remember(struct jwt *jwt, const unsigned char *hash, const struct jwt_claims *claims,
                     int64_t now_s)
{
    struct remembered *set = set_of(jwt, hash);
    struct remembered *place = NULL;

    for (int way = 0; way < WAYS && place == NULL; way++) {
        if (set[way].user_id == 0 || set[way].expires_at_s <= now_s)
            place = &set[way];
    }
    if (place == NULL)
        place = &set[jwt->turn++ % WAYS];
    *place = (struct remembered){.user_id = claims->user_id,
                                 .issued_at_s = claims->issued_at_s,
                                 .expires_at_s = claims->expires_at_s,
                                 .role = claims->role};
    memcpy(place->hash, hash, sizeof place->hash);
}

enum jwt_status jwt_verify(struct jwt *jwt, const char *token, size_t bytes, int64_t now_s,
                           struct jwt_claims *out)
{
    unsigned char hash[crypto_shorthash_siphashx24_BYTES];
    struct parts parts;

    memset(out, 0, sizeof *out);
    if (bytes > JWT_TOKEN_BYTES_MAX || !split(token, bytes, &parts))
        return JWT_MALFORMED;

    crypto_shorthash_siphashx24(hash, (const unsigned char *)token, bytes, jwt->hash_key);
    const struct remembered *known = recall(jwt, hash);
    if (known != NULL) {
        if (known->expires_at_s <= now_s)
            return JWT_EXPIRED;
        out->user_id = known->user_id;
        out->issued_at_s = known->issued_at_s;
        out->expires_at_s = known->expires_at_s;
        out->role = known->role;
        return JWT_OK;
    }

    struct jwt_claims claims;
    enum jwt_status status = check_header(&parts);
    if (status == JWT_OK)
        status = check_signature(jwt, &parts);
    if (status == JWT_OK)
        status = read_claims(&parts, &claims);
    if (status == JWT_OK && claims.expires_at_s <= now_s)
        status = JWT_EXPIRED;
    if (status != JWT_OK)
        return status;
    remember(jwt, hash, &claims, now_s);
    *out = claims;
    return JWT_OK;
}
