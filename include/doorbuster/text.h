/* Small, strict text helpers: numbers with range checks, UTF-8. Pure functions, any thread. */
#ifndef DOORBUSTER_TEXT_H
#define DOORBUSTER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The whole of text[0..bytes) is a decimal integer between min and max ("-12", "7"; no sign '+', no spaces, no empty text;
 * leading zeros do no harm). *out is left alone on false. */
bool text_to_int64(const char *text, size_t bytes, int64_t min, int64_t max, int64_t *out);

#define TEXT_INT64_BYTES 21 /* "-9223372036854775808" and the terminator */

/* Writes the number in decimal, terminated; returns the length. */
size_t text_from_int64(int64_t number, char out[TEXT_INT64_BYTES]);

bool text_begins_with(const char *text, const char *word); /* both terminated */

/* The byte of the two hexadecimal digits that text[0..bytes) begins with, as behind a '%'; -1: it does not. */
int text_hex_byte(const char *text, size_t bytes);

/* Is this well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF)? */
bool text_is_utf8(const char *text, size_t bytes);

/* Number of code points of well-formed UTF-8. */
size_t text_code_points(const char *text, size_t bytes);

#endif
