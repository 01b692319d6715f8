/* Small, strict text helpers: numbers with range checks, UTF-8.
 *
 * Pure functions on the caller's bytes, which need not be terminated: any thread, nothing owned, no failure
 * but "no". */
#include "doorbuster/text.h"

#include "doorbuster/check.h"
#include "utf8.h"

#include <string.h>

bool text_to_int64(const char *text, size_t bytes, int64_t min, int64_t max, int64_t *out)
{
    bool negative = bytes > 0 && text[0] == '-';
    size_t at = negative ? 1 : 0;
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    uint64_t magnitude = 0;

    CHECK(min <= max);
    if (at == bytes)
        return false;
    for (; at < bytes; at++) {
        if (text[at] < '0' || text[at] > '9')
            return false;
        uint64_t digit = (uint64_t)(text[at] - '0');
        if (magnitude > (limit - digit) / 10)
            return false;
        magnitude = magnitude * 10 + digit;
    }

    /* INT64_MIN's magnitude has no int64_t of its own. */
    int64_t value = negative ? (magnitude == 0 ? 0 : -(int64_t)(magnitude - 1) - 1) : (int64_t)magnitude;
    if (value < min || value > max)
        return false;
    *out = value;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int text_hex_byte(const char *text, size_t bytes)
{
    int high = bytes >= 2 ? hex_digit(text[0]) : -1;
    int low = bytes >= 2 ? hex_digit(text[1]) : -1;
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

bool text_begins_with(const char *text, const char *word)
{
    return strncmp(text, word, strlen(word)) == 0;
}

static bool is_continuation(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

size_t utf8_sequence_bytes(const char *text, size_t bytes)
{
    const unsigned char *b = (const unsigned char *)text;

    if (b[0] < 0x80)
        return 1;
    if (b[0] < 0xC2) /* a continuation byte, or an overlong form */
        return 0;
    if (bytes < 2 || !is_continuation(b[1]))
        return 0;
    if (b[0] < 0xE0)
        return 2;

    if ((b[0] == 0xE0 && b[1] < 0xA0)     /* overlong */
        || (b[0] == 0xED && b[1] > 0x9F)  /* a surrogate */
        || (b[0] == 0xF0 && b[1] < 0x90)  /* overlong */
        || (b[0] == 0xF4 && b[1] > 0x8F)) /* above U+10FFFF */
        return 0;
    if (bytes < 3 || !is_continuation(b[2]))
        return 0;
    if (b[0] < 0xF0)
        return 3;
    if (b[0] > 0xF4 || bytes < 4 || !is_continuation(b[3]))
        return 0;
    return 4;
}

bool text_is_utf8(const char *text, size_t bytes)
{
    const uint64_t high_bits = UINT64_C(0x8080808080808080);
    size_t at = 0;

    while (at < bytes) {
        uint64_t eight;
        if (bytes - at >= sizeof eight) { /* most text is ASCII: eight bytes a step */
            memcpy(&eight, text + at, sizeof eight);
            if ((eight & high_bits) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        size_t step = utf8_sequence_bytes(text + at, bytes - at);
        if (step == 0)
            return false;
        at += step;
    }
    return true;
}

size_t text_code_points(const char *text, size_t bytes)
{
    size_t count = 0;

    for (size_t i = 0; i < bytes; i++)
        count += !is_continuation((unsigned char)text[i]);
    return count;
}

size_t text_from_int64(int64_t number, char out[TEXT_INT64_BYTES])
{
    char reversed[TEXT_INT64_BYTES];
    size_t digits = 0, bytes = 0;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        reversed[digits++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (number < 0) {
        out[bytes++] = '-';
    }
    while (digits > 0) {
        out[bytes++] = reversed[--digits];
    }
    out[bytes] = '\0';
    return bytes;
}
