/* Reading JSON strictly, on top of cJSON.
 *
 * Pure functions, any thread; the tree belongs to the caller. cJSON alone is too kind for input from the
 * network: it takes "01",
 * "-.5", raw control characters, any byte below 33 as white space, a byte-order mark, broken UTF-8, and it
 * ends a string at \u0000. So a scanner that knows the whole grammar of RFC 8259 goes over the text first, in
 * one pass and without memory of its own, and cJSON sees nothing else. Failure is NULL, whatever the reason:
 * the client is told "not a JSON object".
 *
 * Two members of one name are let through; the getters see the first of them, and so does everything else
 * that uses cJSON. */
#include "doorbuster/json.h"

#include "doorbuster/check.h"
#include "doorbuster/text.h"
#include "utf8.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define DEPTH_MAX 16
#define NUMBER_BYTES_MAX 63 /* cJSON copies a number into a buffer of this size */

struct scanner {
    const char *at, *end;
    unsigned char seen; /* all bytes of strings or-ed: below 0x80 if the text is ASCII */
};

static bool scan_value(struct scanner *scanner, int depth);

static void skip_space(struct scanner *scanner)
{
    const char *at = scanner->at;

    while (at < scanner->end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
        at++;
    scanner->at = at;
}

static bool take(struct scanner *scanner, char wanted)
{
    if (scanner->at == scanner->end || *scanner->at != wanted)
        return false;
    scanner->at++;
    return true;
}

static bool take_word(struct scanner *scanner, const char *word, size_t bytes)
{
    if ((size_t)(scanner->end - scanner->at) < bytes || memcmp(scanner->at, word, bytes) != 0)
        return false;
    scanner->at += bytes;
    return true;
}

static bool take_digits(struct scanner *scanner)
{
    const char *start = scanner->at;

    while (scanner->at < scanner->end && *scanner->at >= '0' && *scanner->at <= '9')
        scanner->at++;
    return scanner->at > start;
}

static bool scan_number(struct scanner *scanner)
{
    const char *start = scanner->at;

    take(scanner, '-');
    if (!take(scanner, '0') && !take_digits(scanner))
        return false;
    if (take(scanner, '.') && !take_digits(scanner))
        return false;
    if (take(scanner, 'e') || take(scanner, 'E')) {
        if (!take(scanner, '+'))
            take(scanner, '-');
        if (!take_digits(scanner))
            return false;
    }
    return scanner->at - start <= NUMBER_BYTES_MAX;
}

/* Four hexadecimal digits; -1 if they are not there. */
static int take_hex4(struct scanner *scanner)
{
    int value = 0;

    if (scanner->end - scanner->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = *scanner->at++;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* After a backslash. U+0000 would end a C string early; half a surrogate pair is no character. */
static bool scan_escape(struct scanner *scanner)
{
    if (scanner->at == scanner->end)
        return false;
    char kind = *scanner->at++;
    if (kind != 'u')
        return kind != '\0' && strchr("\"\\/bfnrt", kind) != NULL;

    int unit = take_hex4(scanner);
    if (unit <= 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
        return false;
    if (unit < 0xD800 || unit > 0xDBFF)
        return true;
    if (!take_word(scanner, "\\u", 2))
        return false;
    int low = take_hex4(scanner);
    return low >= 0xDC00 && low <= 0xDFFF;
}

/* After the opening quote. */
static bool scan_string(struct scanner *scanner)
{
    while (scanner->at < scanner->end) {
        unsigned char byte = (unsigned char)*scanner->at++;
        scanner->seen |= byte;
        if (byte == '"')
            return true;
        if (byte < 0x20)
            return false;
        if (byte == '\\' && !scan_escape(scanner))
            return false;
    }
    return false;
}

/* After the opening bracket or brace. */
static bool scan_container(struct scanner *scanner, bool object, int depth)
{
    const char closing = object ? '}' : ']';

    if (depth > DEPTH_MAX)
        return false;
    skip_space(scanner);
    if (take(scanner, closing))
        return true;
    for (;;) {
        if (object) {
            if (!take(scanner, '"') || !scan_string(scanner))
                return false;
            skip_space(scanner);
            if (!take(scanner, ':'))
                return false;
            skip_space(scanner);
        }
        if (!scan_value(scanner, depth))
            return false;
        skip_space(scanner);
        if (take(scanner, closing))
            return true;
        if (!take(scanner, ','))
            return false;
        skip_space(scanner);
    }
}

/* `depth`: containers around the value. The recursion is as deep as DEPTH_MAX and no deeper. */
static bool scan_value(struct scanner *scanner, int depth)
{
    if (scanner->at == scanner->end)
        return false;
    switch (*scanner->at) {
    case '{':
    case '[':
        return scan_container(scanner, *scanner->at++ == '{', depth + 1);
    case '"':
        scanner->at++;
        return scan_string(scanner);
    case 't':
        return take_word(scanner, "true", 4);
    case 'f':
        return take_word(scanner, "false", 5);
    case 'n':
        return take_word(scanner, "null", 4);
    default:
        return scan_number(scanner);
    }
}

static bool is_strict_object(const char *text, size_t bytes)
{
    struct scanner scanner = {.at = text, .end = text + bytes};

    skip_space(&scanner);
    if (!take(&scanner, '{') || !scan_container(&scanner, true, 1))
        return false;
    skip_space(&scanner);
    /* Bytes above 0x7F are let through in strings only, so ASCII needs no second look. */
    return scanner.at == scanner.end && (scanner.seen < 0x80 || text_is_utf8(text, bytes));
}

cJSON *json_parse_object(const char *text, size_t bytes)
{
    const char *end = NULL;

    if (text == NULL || !is_strict_object(text, bytes))
        return NULL;
    cJSON *object = cJSON_ParseWithLengthOpts(text, bytes, &end, 0);
    if (object == NULL)
        return NULL; /* out of memory */

    /* The scanner and cJSON must agree on where the object ends: nothing but white space may follow. */
    struct scanner rest = {.at = end, .end = text + bytes};
    skip_space(&rest);
    if (!cJSON_IsObject(object) || rest.at != rest.end) {
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

static const cJSON *find(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    return item == NULL || cJSON_IsNull(item) ? NULL : item;
}

enum json_field json_get_integer(const cJSON *object, const char *name, int64_t min, int64_t max,
                                 int64_t *out)
{
    const cJSON *item = find(object, name);

    CHECK(min >= -JSON_INTEGER_MAX && min <= max && max <= JSON_INTEGER_MAX);
    if (item == NULL)
        return JSON_FIELD_MISSING;
    if (!cJSON_IsNumber(item))
        return JSON_FIELD_WRONG_TYPE;

    double value = item->valuedouble;
    if (!isfinite(value)) /* 1e999 */
        return JSON_FIELD_OUT_OF_RANGE;
    /* Beyond 2^53 - 1 a double no longer tells neighbours apart, 9007199254740993 reads as ...992: not a
     * number to act on. */
    if (fabs(value) > (double)JSON_INTEGER_MAX)
        return JSON_FIELD_OUT_OF_RANGE;
    int64_t whole = (int64_t)value;
    if ((double)whole != value)
        return JSON_FIELD_WRONG_TYPE;
    if (whole < min || whole > max)
        return JSON_FIELD_OUT_OF_RANGE;
    *out = whole;
    return JSON_FIELD_OK;
}

enum json_field json_get_string(const cJSON *object, const char *name, size_t min, size_t max,
                                const char **out)
{
    const cJSON *item = find(object, name);

    CHECK(min <= max);
    if (item == NULL)
        return JSON_FIELD_MISSING;
    if (!cJSON_IsString(item) || item->valuestring == NULL)
        return JSON_FIELD_WRONG_TYPE;
    size_t points = text_code_points(item->valuestring, strlen(item->valuestring));
    if (points < min || points > max)
        return JSON_FIELD_OUT_OF_RANGE;
    *out = item->valuestring;
    return JSON_FIELD_OK;
}

/* What stands for the character at `text` between the quotes: its own bytes or an escape built in `escape`.
 * *step: bytes of text used. */
static size_t quote_one(const char *text, size_t bytes, size_t *step, char escape[6], const char **from)
{
    static const char hex[] = "0123456789abcdef";
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    unsigned char byte = (unsigned char)text[0];
    const char *known = strchr(plain, byte);

    *from = escape;
    *step = 1;
    if (known != NULL) {
        escape[0] = '\\';
        escape[1] = letters[known - plain];
        return 2;
    }
    if (byte < 0x20) {
        memcpy(escape, "\\u00", 4);
        escape[4] = hex[byte >> 4];
        escape[5] = hex[byte & 15];
        return 6;
    }
    size_t sequence = utf8_sequence_bytes(text, bytes);
    if (sequence == 0) {        /* JSON is UTF-8 or it is not JSON */
        *from = "\xEF\xBF\xBD"; /* U+FFFD */
        return 3;
    }
    *from = text;
    *step = sequence;
    return sequence;
}

size_t json_quote(const char *text, char *out, size_t out_bytes)
{
    size_t bytes = strlen(text), used = 0, step = 0;
    char escape[6];
    const char *from;

    if (out_bytes < sizeof "\"\"")
        return 0;
    out[used++] = '"';
    for (size_t at = 0; at < bytes; at += step) {
        size_t length = quote_one(text + at, bytes - at, &step, escape, &from);
        if (out_bytes - used < length + 2) /* and the closing quote and the terminator */
            goto too_long;
        memcpy(out + used, from, length);
        used += length;
    }
    out[used++] = '"';
    out[used] = '\0';
    return used;

too_long:
    out[0] = '\0';
    return 0;
}
