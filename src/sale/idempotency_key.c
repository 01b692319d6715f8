/* What is an idempotency key, and what is not. Pure functions; any thread. They own nothing and fail only by saying no. */
#include "doorbuster/idempotency_key.h"

#include <string.h>

bool idempotency_key_is_valid(const char *text, size_t bytes)
{
    if (bytes < 1 || bytes > IDEMPOTENCY_KEY_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < 0x21 || text[i] > 0x7e) {
            return false;
        }
    }
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

bool idempotency_key_parse(const char *value, const char **key, size_t *bytes)
{
    const char *start = value + strspn(value, " \t"), *end = value + strlen(value);
    while (end > start && is_blank(end[-1])) {
        end--;
    }
    if (end - start >= 2 && start[0] == '"' && end[-1] == '"') {
        start++;
        end--;
    }
    *key = start;
    *bytes = (size_t)(end - start);
    return idempotency_key_is_valid(*key, *bytes);
}
