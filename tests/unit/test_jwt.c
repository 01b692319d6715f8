/* jwt.h: what is signed is good, and nothing else is. */
#include "doorbuster/jwt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW INT64_C(1795737600)
#define HEADER "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define PAYLOAD "{\"sub\":\"ann\",\"user_id\":7,\"role\":\"buyer\",\"iat\":1795737000,\"exp\":1795740000}"

static const unsigned char secret[] = "0123456789abcdef0123456789abcdef";
static const struct jwt_claims ann = {.username = "ann",
                                      .user_id = 7,
                                      .role = USER_BUYER,
                                      .issued_at_s = NOW,
                                      .expires_at_s = NOW + JWT_LIFETIME_S};

static int set_up(void **state)
{
    *state = jwt_new(secret, sizeof secret - 1);
    return 0;
}

static int tear_down(void **state)
{
    struct jwt *jwt = *state;

    jwt_free(&jwt);
    return jwt == NULL ? 0 : -1;
}

static size_t encode(char *out, size_t room, const void *bytes, size_t count)
{
    sodium_bin2base64(out, room, bytes, count, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    return strlen(out);
}

/* Another way to a signed token: libsodium's one-shot HMAC over hand-written JSON. */
static size_t make_with_key(char *out, size_t room, const char *header, const char *payload,
                            const unsigned char *key, size_t key_bytes)
{
    unsigned char signature[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    size_t used = encode(out, room, header, strlen(header));

    out[used++] = '.';
    used += encode(out + used, room - used, payload, strlen(payload));
    crypto_auth_hmacsha256_init(&state, key, key_bytes);
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)out, used);
    crypto_auth_hmacsha256_final(&state, signature);
    out[used++] = '.';
    return used + encode(out + used, room - used, signature, sizeof signature);
}

static size_t make(char *out, size_t room, const char *header, const char *payload)
{
    return make_with_key(out, room, header, payload, secret, sizeof secret - 1);
}

/* From memory of exactly this size, so that the address sanitizer sees a byte read too many. */
static enum jwt_status verify(struct jwt *jwt, const char *token, size_t bytes)
{
    struct jwt_claims claims;
    char *exact = malloc(bytes == 0 ? 1 : bytes);

    assert_non_null(exact);
    memcpy(exact, token, bytes);
    enum jwt_status status = jwt_verify(jwt, exact, bytes, NOW, &claims);
    free(exact);
    return status;
}

static enum jwt_status verify_made(struct jwt *jwt, const char *header, const char *payload)
{
    char token[4096];
    size_t bytes = make(token, sizeof token, header, payload);

    return verify(jwt, token, bytes);
}

static void test_sign_and_verify(void **state)
{
    char token[JWT_TOKEN_BYTES_MAX];
    struct jwt_claims claims;
    size_t bytes = jwt_sign(*state, &ann, token);

    assert_int_equal(strlen(token), bytes);
    assert_int_equal(jwt_verify(*state, token, bytes, NOW, &claims), JWT_OK);
    assert_string_equal(claims.username, "ann");
    assert_int_equal(claims.user_id, 7);
    assert_int_equal(claims.role, USER_BUYER);
    assert_int_equal(claims.issued_at_s, NOW);
    assert_int_equal(claims.expires_at_s, NOW + JWT_LIFETIME_S);
}

static void test_what_is_signed_is_plain_jwt(void **state)
{
    char token[JWT_TOKEN_BYTES_MAX], wanted[JWT_TOKEN_BYTES_MAX];
    struct jwt_claims claims = ann;

    claims.issued_at_s = 1795737000;
    claims.expires_at_s = 1795740000;
    jwt_sign(*state, &claims, token);
    make(wanted, sizeof wanted, HEADER, PAYLOAD);
    assert_string_equal(token, wanted);
}

static void test_a_name_that_needs_escapes(void **state)
{
    char token[JWT_TOKEN_BYTES_MAX];
    struct jwt_claims claims = ann, out;

    claims.role = USER_ADMIN;
    claims.user_id = INT64_C(9007199254740991);
    snprintf(claims.username, sizeof claims.username, "a\"\\\n\xC3\xA4\xF0\x9F\x98\x80");
    size_t bytes = jwt_sign(*state, &claims, token);
    assert_int_equal(jwt_verify(*state, token, bytes, NOW, &out), JWT_OK);
    assert_string_equal(out.username, claims.username);
    assert_int_equal(out.role, USER_ADMIN);
    assert_int_equal(out.user_id, claims.user_id);

    for (int i = 0; i < 50; i++) /* the longest name there is */
        memcpy(claims.username + 4 * i, "\xF0\x9F\x98\x80", 5);
    bytes = jwt_sign(*state, &claims, token);
    assert_int_equal(jwt_verify(*state, token, bytes, NOW, &out), JWT_OK);
    assert_string_equal(out.username, claims.username);
    memset(claims.username, 1, 50); /* and the one that grows most */
    claims.username[50] = '\0';
    bytes = jwt_sign(*state, &claims, token);
    assert_int_equal(jwt_verify(*state, token, bytes, NOW, &out), JWT_OK);
    assert_string_equal(out.username, claims.username);
}

static void test_remembered(void **state)
{
    char token[JWT_TOKEN_BYTES_MAX];
    struct jwt_claims claims;
    size_t bytes = jwt_sign(*state, &ann, token);

    assert_int_equal(jwt_verify(*state, token, bytes, NOW, &claims), JWT_OK);
    memset(&claims, 'x', sizeof claims);
    assert_int_equal(jwt_verify(*state, token, bytes, NOW, &claims), JWT_OK);
    assert_string_equal(claims.username, ""); /* so it was remembered */
    assert_int_equal(claims.user_id, 7);
    assert_int_equal(claims.role, USER_BUYER);
    assert_int_equal(claims.issued_at_s, NOW);
    assert_int_equal(claims.expires_at_s, NOW + JWT_LIFETIME_S);
}

static void test_expiry(void **state)
{
    char token[JWT_TOKEN_BYTES_MAX];
    struct jwt_claims claims;
    const int64_t end = ann.expires_at_s;
    size_t bytes = jwt_sign(*state, &ann, token);

    assert_int_equal(jwt_verify(*state, token, bytes, end, &claims), JWT_EXPIRED); /* not yet remembered */
    assert_int_equal(jwt_verify(*state, token, bytes, end + 1000, &claims), JWT_EXPIRED);
    assert_int_equal(jwt_verify(*state, token, bytes, end - 1, &claims), JWT_OK);
    assert_int_equal(jwt_verify(*state, token, bytes, end, &claims), JWT_EXPIRED); /* remembered */
    assert_int_equal(claims.user_id, 0);
    assert_int_equal(jwt_verify(*state, token, bytes, end - 1, &claims), JWT_OK);
}

/* RFC 7515, A.1: its key, header (with a line break in it) and signature; its claims are not ours, which is
 * found after. */
static void test_rfc_7515_vector(void **state)
{
    static const char token[] =
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    static const char key[] =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    unsigned char bytes[64];
    size_t count = 0;
    char changed[sizeof token];

    assert_int_equal(sodium_base642bin(bytes, sizeof bytes, key, strlen(key), NULL, &count, NULL,
                                       sodium_base64_VARIANT_URLSAFE_NO_PADDING),
                     0);
    assert_int_equal(count, 64);
    struct jwt *jwt = jwt_new(bytes, count);
    assert_int_equal(verify(jwt, token, strlen(token)), JWT_MALFORMED);
    memcpy(changed, token, sizeof token);
    changed[strlen(token) - 5] = 'x';
    assert_int_equal(verify(jwt, changed, strlen(token)), JWT_BAD_SIGNATURE);
    assert_int_equal(verify(*state, token, strlen(token)), JWT_BAD_SIGNATURE); /* another key */
    jwt_free(&jwt);
}

static void test_other_algorithms(void **state)
{
    static const char *const algorithms[] = {"none",  "None",   "",      "HS512", "HS384",
                                             "hs256", "HS256 ", "RS256", "ES256", "EdDSA"};
    char header[128], token[1024];

    for (size_t i = 0; i < sizeof algorithms / sizeof algorithms[0]; i++) {
        snprintf(header, sizeof header, "{\"alg\":\"%s\",\"typ\":\"JWT\"}", algorithms[i]);
        assert_int_equal(verify_made(*state, header, PAYLOAD), JWT_WRONG_ALGORITHM);
    }
    /* Unsigned, as RFC 7519, 6 writes it: nothing after the second dot. */
    size_t bytes = make(token, sizeof token, "{\"alg\":\"none\"}", PAYLOAD);
    while (token[bytes - 1] != '.')
        bytes--;
    assert_int_not_equal(verify(*state, token, bytes), JWT_OK);
    assert_int_not_equal(verify(*state, token, bytes - 1), JWT_OK);
}

static void test_headers_that_are_not(void **state)
{
    static const char *const headers[] = {
        "{}",
        "{\"typ\":\"JWT\"}",
        "{\"alg\":null}",
        "{\"alg\":256}",
        "{\"alg\":[\"HS256\"]}",
        "{\"ALG\":\"HS256\"}",
        "[\"HS256\"]",
        "HS256",
        "\"HS256\"",
        "{\"alg\":\"HS256\"",
        "{\"alg\":\"HS256\"}x",
        "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}",
        "{\"alg\":\"HS256\",\"crit\":null}",
        "{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}",
    };

    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        assert_int_equal(verify_made(*state, headers[i], PAYLOAD), JWT_MALFORMED);
    assert_int_equal(verify_made(*state, "{\"alg\":\"HS256\"}", PAYLOAD), JWT_OK);
}

#define CLAIMS(sub, id, role, iat, exp)                                                                      \
    "{\"sub\":" sub ",\"user_id\":" id ",\"role\":" role ",\"iat\":" iat ",\"exp\":" exp "}"

static void test_claims_that_are_not(void **state)
{
    static const char *const payloads[] = {
        "{}",
        "[]",
        "x",
        "{\"user_id\":7,\"role\":\"buyer\",\"iat\":1,\"exp\":1795740000}",
        CLAIMS("\"\"", "7", "\"buyer\"", "1", "1795740000"),
        CLAIMS("7", "7", "\"buyer\"", "1", "1795740000"),
        CLAIMS("\"a\\u0000b\"", "7", "\"buyer\"", "1", "1795740000"),
        CLAIMS("\"123456789012345678901234567890123456789012345678901\"", "7", "\"buyer\"", "1",
               "1795740000"),
        CLAIMS("\"a\"", "0", "\"buyer\"", "1", "1795740000"),
        CLAIMS("\"a\"", "-7", "\"buyer\"", "1", "1795740000"),
        CLAIMS("\"a\"", "\"7\"", "\"buyer\"", "1", "1795740000"),
        CLAIMS("\"a\"", "7.5", "\"buyer\"", "1", "1795740000"),
        CLAIMS("\"a\"", "9007199254740993", "\"buyer\"", "1", "1795740000"),
        CLAIMS("\"a\"", "null", "\"buyer\"", "1", "1795740000"),
        CLAIMS("\"a\"", "7", "\"Admin\"", "1", "1795740000"),
        CLAIMS("\"a\"", "7", "\"root\"", "1", "1795740000"),
        CLAIMS("\"a\"", "7", "\"\"", "1", "1795740000"),
        CLAIMS("\"a\"", "7", "1", "1", "1795740000"),
        CLAIMS("\"a\"", "7", "[\"admin\"]", "1", "1795740000"),
        CLAIMS("\"a\"", "7", "\"buyer\"", "-1", "1795740000"),
        CLAIMS("\"a\"", "7", "\"buyer\"", "\"1\"", "1795740000"),
        CLAIMS("\"a\"", "7", "\"buyer\"", "1", "\"1795740000\""),
        CLAIMS("\"a\"", "7", "\"buyer\"", "1", "null"),
        CLAIMS("\"a\"", "7", "\"buyer\"", "1", "1e999"),
        CLAIMS("\"a\"", "7", "\"buyer\"", "1", "9999999999999"),
        CLAIMS("\"a\"", "7", "\"buyer\"", "1", "-1"),
        CLAIMS("\"a\"", "7", "\"buyer\"", "1", "1795740000.5"),
    };

    for (size_t i = 0; i < sizeof payloads / sizeof payloads[0]; i++) {
        if (verify_made(*state, HEADER, payloads[i]) != JWT_MALFORMED)
            fail_msg("%s", payloads[i]);
    }
    assert_int_equal(verify_made(*state, HEADER, CLAIMS("\"a\"", "7", "\"admin\"", "0", "1795740000")),
                     JWT_OK);
    assert_int_equal(verify_made(*state, HEADER, CLAIMS("\"a\"", "7", "\"admin\"", "0", "1795737600")),
                     JWT_EXPIRED);
}

/* One flipped bit anywhere: by a verifier that has never seen the token, and by one that remembers it. */
static void test_every_flipped_bit(void **state)
{
    char token[JWT_TOKEN_BYTES_MAX];
    size_t bytes = jwt_sign(*state, &ann, token);

    for (int remembered = 0; remembered <= 1; remembered++) {
        for (size_t at = 0; at < bytes; at++) {
            for (int bit = 0; bit < 8; bit++) {
                token[at] = (char)(token[at] ^ 1 << bit);
                if (verify(*state, token, bytes) == JWT_OK)
                    fail_msg("bit %d of byte %zu", bit, at);
                token[at] = (char)(token[at] ^ 1 << bit);
            }
        }
        assert_int_equal(verify(*state, token, bytes), JWT_OK);
    }
}

/* The last character of the signature has two bits that mean nothing: only one of its four spellings is good.
 */
static void test_one_spelling_only(void **state)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char token[JWT_TOKEN_BYTES_MAX + 8];
    size_t bytes = jwt_sign(*state, &ann, token);
    char last = token[bytes - 1];
    int good = 0;

    for (int i = 0; i < 64; i++) {
        token[bytes - 1] = alphabet[i];
        good += verify(*state, token, bytes) == JWT_OK;
    }
    assert_int_equal(good, 1);
    token[bytes - 1] = last;
    memcpy(token + bytes, "=", 2);
    assert_int_not_equal(verify(*state, token, bytes + 1), JWT_OK);
    memcpy(token + bytes, "\n", 2);
    assert_int_not_equal(verify(*state, token, bytes + 1), JWT_OK);
    memcpy(token + bytes, "A", 2);
    assert_int_not_equal(verify(*state, token, bytes + 1), JWT_OK);
    assert_int_equal(verify(*state, token, bytes), JWT_OK);
}

static void test_every_truncation(void **state)
{
    char token[JWT_TOKEN_BYTES_MAX];
    size_t bytes = jwt_sign(*state, &ann, token);

    assert_int_equal(verify(*state, token, bytes), JWT_OK);
    for (size_t length = 0; length < bytes; length++)
        assert_int_not_equal(verify(*state, token, length), JWT_OK);
    for (size_t from = 1; from < bytes; from++)
        assert_int_not_equal(verify(*state, token + from, bytes - from), JWT_OK);
}

static void test_swapped_payload(void **state)
{
    char mine[1024], other[1024], mixed[2048];

    make(mine, sizeof mine, HEADER, PAYLOAD);
    make(other, sizeof other, HEADER, CLAIMS("\"ann\"", "7", "\"admin\"", "1", "1795740000"));
    char *mine_signature = strrchr(mine, '.'), *other_signature = strrchr(other, '.');
    snprintf(mixed, sizeof mixed, "%.*s%s", (int)(other_signature - other), other, mine_signature);
    assert_int_equal(verify(*state, mine, strlen(mine)), JWT_OK);
    assert_int_equal(verify(*state, mixed, strlen(mixed)), JWT_BAD_SIGNATURE);
}

static void test_another_secret(void **state)
{
    char token[1024];
    size_t bytes = make_with_key(token, sizeof token, HEADER, PAYLOAD, (const unsigned char *)"", 0);

    assert_int_equal(verify(*state, token, bytes), JWT_BAD_SIGNATURE);
    bytes = make_with_key(token, sizeof token, HEADER, PAYLOAD, secret, sizeof secret - 2);
    assert_int_equal(verify(*state, token, bytes), JWT_BAD_SIGNATURE);
}

static void test_dots(void **state)
{
    static const char *const tokens[] = {"",     ".",    "..",      "...",    "a",      "a.b",   "a.b.",
                                         ".b.c", "a..c", "a.b.c.d", "a.b.c.", ".a.b.c", "......"};
    char token[JWT_TOKEN_BYTES_MAX], changed[JWT_TOKEN_BYTES_MAX + 8];
    size_t bytes = jwt_sign(*state, &ann, token);

    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        assert_int_equal(verify(*state, tokens[i], strlen(tokens[i])), JWT_MALFORMED);
    for (size_t at = 0; at <= bytes; at++) {
        snprintf(changed, sizeof changed, "%.*s.%s", (int)at, token, token + at);
        assert_int_equal(verify(*state, changed, bytes + 1), JWT_MALFORMED);
    }
}

static void test_huge(void **state)
{
    static char token[100000];
    char payload[3000];

    memset(token, 'a', sizeof token);
    token[1000] = token[2000] = '.';
    assert_int_equal(verify(*state, token, sizeof token), JWT_MALFORMED);
    assert_int_equal(verify(*state, token, JWT_TOKEN_BYTES_MAX + 1), JWT_MALFORMED);

    /* Good in all but its length, and good up to the last byte. */
    int used = snprintf(payload, sizeof payload, "%.*s,\"x\":\"", (int)strlen(PAYLOAD) - 1, PAYLOAD);
    size_t longest_good = 0;
    for (int filling = 1000; filling < 1600; filling++) {
        memset(payload + used, 'x', (size_t)filling);
        memcpy(payload + used + filling, "\"}", 3);
        size_t bytes = make(token, sizeof token, HEADER, payload);
        enum jwt_status status = verify(*state, token, bytes);
        assert_int_equal(status, bytes <= JWT_TOKEN_BYTES_MAX ? JWT_OK : JWT_MALFORMED);
        longest_good = status == JWT_OK ? bytes : longest_good;
    }
    assert_in_range(longest_good, JWT_TOKEN_BYTES_MAX - 2, JWT_TOKEN_BYTES_MAX);
}

/* More tokens than the table has places: forgetting one must cost time only. */
static void test_more_tokens_than_remembered(void **state)
{
    struct jwt_claims claims = ann, out;
    char token[JWT_TOKEN_BYTES_MAX];

    for (int round = 0; round < 2; round++) {
        int remembered = 0;
        for (int64_t id = 1; id <= 40000; id++) {
            claims.user_id = id;
            claims.role = id % 3 == 0 ? USER_ADMIN : USER_BUYER;
            size_t bytes = jwt_sign(*state, &claims, token);
            assert_int_equal(jwt_verify(*state, token, bytes, NOW, &out), JWT_OK);
            assert_int_equal(out.user_id, id);
            assert_int_equal(out.role, claims.role);
            remembered += out.username[0] == '\0';
        }
        assert_true(round == 0 ? remembered == 0 : remembered < 20000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sign_and_verify, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_signed_is_plain_jwt, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_name_that_needs_escapes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_remembered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_expiry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rfc_7515_vector, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_algorithms, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_headers_that_are_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_claims_that_are_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_flipped_bit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_spelling_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_truncation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_swapped_payload, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_secret, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dots, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_huge, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_more_tokens_than_remembered, set_up, tear_down),
    };

    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
