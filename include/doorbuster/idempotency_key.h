/* The buyer's own name for a purchase: the value of the header `Idempotency-Key`. Asked again with the same key, the first order is the
 * answer. 1 to 255 visible ASCII characters, no spaces; so it can be the last word of a line of the sales log. Pure; any thread. */
#ifndef DOORBUSTER_IDEMPOTENCY_KEY_H
#define DOORBUSTER_IDEMPOTENCY_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IDEMPOTENCY_KEY_BYTES_MAX 255
#define IDEMPOTENCY_KEY_LIFETIME_MS (INT64_C(24) * 60 * 60 * 1000) /* from its order on */

bool idempotency_key_is_valid(const char *text, size_t bytes);

/* Finds the key in a header's value: without the white space around it, and without one pair of quotes around the whole ("abc" and abc are
 * the same key). *key points into `value` and is not terminated. False: it is not a key; *key and *bytes are then undefined. */
bool idempotency_key_parse(const char *value, const char **key, size_t *bytes);

#endif
