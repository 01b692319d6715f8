/* Private to base: one step through UTF-8. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

/* Bytes of the well-formed sequence (RFC 3629) that text[0..bytes) starts with: 1 to 4; 0 if it starts with
 * none. bytes >= 1. */
size_t utf8_sequence_bytes(const char *text, size_t bytes);

#endif
