/* Passwords: Argon2id through libsodium, at OWASP's minimum (19 MiB, 2 passes, 1 lane) or above.
 * hash and verify take tens of milliseconds and block: pool threads only (but for password_memory_knows). The memory of just verified passwords has its own
 * mutex. */
#ifndef DOORBUSTER_PASSWORD_H
#define DOORBUSTER_PASSWORD_H

#include <stdbool.h>
#include <stdint.h>

#define PASSWORD_HASH_BYTES 129

/* False: out of memory. */
bool password_hash(const char *password, char out[PASSWORD_HASH_BYTES]);
/* `hash` as password_hash() made it. False: it is another password, no such hash, or memory is out. */
bool password_verify(const char *password, const char *hash);

/* Remembers for five minutes that this password fitted this hash, as a keyed hash in memory only; a fixed number of entries. */
struct password_memory;
struct password_memory *password_memory_new(void);
void password_memory_free(struct password_memory **memory);
/* Is it remembered? Takes well under a microsecond: the one function here for the loop. */
bool password_memory_knows(struct password_memory *memory, const char *password, const char *hash);
/* password_verify, unless remembered. */
bool password_memory_verify(struct password_memory *memory, const char *password, const char *hash);
/* After a password was just set. */
void password_memory_add(struct password_memory *memory, const char *password, const char *hash);

#endif
