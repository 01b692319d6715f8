/* Passwords: Argon2id through libsodium, and a short memory of those just verified.
 *
 * Hashing blocks for tens of milliseconds and takes 19 MiB: pool threads only. The memory may be used from
 * several of them at once; it owns a table of fixed size and a key, both wiped when it is freed, and its
 * mutex is never held while hashing. It keeps no password, only a keyed BLAKE2b of password and hash
 * together, so a changed password is not remembered. Failure is "no". */
#include "doorbuster/password.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* OWASP's minimum for Argon2id: 2 passes over 19 MiB, one lane (libsodium always uses one). */
#define PASSES 2
#define MEMORY_BYTES ((size_t)19456 * 1024)

#define DIGEST_BYTES 32
#define WAYS 4
#define SETS 1024 /* a power of two; 4,096 entries */
#define REMEMBERED_FOR_US INT64_C(300000000)

_Static_assert(PASSWORD_HASH_BYTES >= crypto_pwhash_STRBYTES, "room for libsodium's string");

struct remembered {
    unsigned char digest[DIGEST_BYTES];
    int64_t until_us; /* monotonic; 0: free */
};

struct password_memory {
    unsigned char key[crypto_generichash_KEYBYTES];
    pthread_mutex_t lock; /* over entries */
    struct remembered entries[SETS][WAYS];
};

bool password_hash(const char *password, char out[PASSWORD_HASH_BYTES])
{
    memset(out, 0, PASSWORD_HASH_BYTES);
    return crypto_pwhash_str_alg(out, password, strlen(password), PASSES, MEMORY_BYTES,
                                 crypto_pwhash_ALG_ARGON2ID13) == 0;
}

bool password_verify(const char *password, const char *hash)
{
    char padded[crypto_pwhash_STRBYTES] = {0}; /* libsodium wants an array of this size, terminated */
    size_t length = strnlen(hash, sizeof padded);

    if (length == sizeof padded)
        return false;
    memcpy(padded, hash, length);
    return crypto_pwhash_str_verify(padded, password, strlen(password)) == 0;
}

struct password_memory *password_memory_new(void)
{
    struct password_memory *memory = calloc(1, sizeof *memory);

    CHECK(memory != NULL);
    randombytes_buf(memory->key, sizeof memory->key);
    int rc = pthread_mutex_init(&memory->lock, NULL);
    CHECK(rc == 0);
    return memory;
}

void password_memory_free(struct password_memory **memory)
{
    if (*memory == NULL)
        return;
    pthread_mutex_destroy(&(*memory)->lock);
    sodium_memzero(*memory, sizeof **memory);
    free(*memory);
    *memory = NULL;
}

static void digest_text(crypto_generichash_state *state, const char *text)
{
    uint64_t bytes = strlen(text);

    /* The length first, so that ("ab", "c") and ("a", "bc") differ. */
    crypto_generichash_update(state, (const unsigned char *)&bytes, sizeof bytes);
    crypto_generichash_update(state, (const unsigned char *)text, bytes);
}

static void digest(const struct password_memory *memory, const char *password, const char *hash,
                   unsigned char out[DIGEST_BYTES])
{
    crypto_generichash_state state;

    crypto_generichash_init(&state, memory->key, sizeof memory->key, DIGEST_BYTES);
    digest_text(&state, password);
    digest_text(&state, hash);
    crypto_generichash_final(&state, out, DIGEST_BYTES);
    sodium_memzero(&state, sizeof state);
}

static struct remembered *set_of(struct password_memory *memory, const unsigned char *digest_bytes)
{
    return memory->entries[(digest_bytes[0] | (unsigned)digest_bytes[1] << 8) & (SETS - 1)];
}

static void lock(struct password_memory *memory)
{
    int rc = pthread_mutex_lock(&memory->lock);
    CHECK(rc == 0);
}

static void unlock(struct password_memory *memory)
{
    int rc = pthread_mutex_unlock(&memory->lock);
    CHECK(rc == 0);
}

static bool recall(struct password_memory *memory, const unsigned char *digest_bytes, int64_t now_us)
{
    bool found = false;

    lock(memory);
    struct remembered *set = set_of(memory, digest_bytes);
    for (int way = 0; way < WAYS; way++) {
        if (set[way].until_us == 0)
            continue;
        if (set[way].until_us <= now_us)
            sodium_memzero(&set[way], sizeof set[way]);
        else if (sodium_memcmp(set[way].digest, digest_bytes, DIGEST_BYTES) == 0)
            found = true;
    }
    unlock(memory);
    return found;
}

/* Over the same digest if it is there, else over the entry that ends first; a free one ends at 0. */
static void remember(struct password_memory *memory, const unsigned char *digest_bytes, int64_t now_us)
{
    lock(memory);
    struct remembered *set = set_of(memory, digest_bytes);
    struct remembered *place = &set[0];
    for (int way = 0; way < WAYS; way++) {
        if (sodium_memcmp(set[way].digest, digest_bytes, DIGEST_BYTES) == 0) {
            place = &set[way];
            break;
        }
        if (set[way].until_us < place->until_us)
            place = &set[way];
    }
    memcpy(place->digest, digest_bytes, DIGEST_BYTES);
    place->until_us = now_us + REMEMBERED_FOR_US;
    unlock(memory);
}

bool password_memory_knows(struct password_memory *memory, const char *password, const char *hash)
{
    unsigned char digest_bytes[DIGEST_BYTES];

    digest(memory, password, hash, digest_bytes);
    bool known = recall(memory, digest_bytes, clock_monotonic_us());
    sodium_memzero(digest_bytes, sizeof digest_bytes);
    return known;
}

bool password_memory_verify(struct password_memory *memory, const char *password, const char *hash)
{
    unsigned char digest_bytes[DIGEST_BYTES];

    digest(memory, password, hash, digest_bytes);
    bool good = recall(memory, digest_bytes, clock_monotonic_us());
    if (!good) {
        good = password_verify(password, hash);
        if (good)
            remember(memory, digest_bytes, clock_monotonic_us());
    }
    sodium_memzero(digest_bytes, sizeof digest_bytes);
    return good;
}

void password_memory_add(struct password_memory *memory, const char *password, const char *hash)
{
    unsigned char digest_bytes[DIGEST_BYTES];

    digest(memory, password, hash, digest_bytes);
    remember(memory, digest_bytes, clock_monotonic_us());
    sodium_memzero(digest_bytes, sizeof digest_bytes);
}
