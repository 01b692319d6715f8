/* Reading JSON strictly, on top of cJSON. Pure functions, any thread.
 * Writing JSON is cJSON's own API; hot answers are formatted by hand. */
#ifndef DOORBUSTER_JSON_H
#define DOORBUSTER_JSON_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_INTEGER_MAX                                                                                     \
    INT64_C(9007199254740991) /* 2^53 - 1: what every JSON reader holds exactly (RFC 8259, 6) */

/* Parses one JSON *object* that fills text[0..bytes) entirely (white space around it allowed). NULL if it is not one, not UTF-8,
 * nested deeper than 16, or has a U+0000 in a string. Numbers must follow RFC 8259 (no leading zeros) and have at most
 * 63 characters. Of two members with one name the getters see the first. Free with cJSON_Delete. */
cJSON *json_parse_object(const char *text, size_t bytes);

enum json_field { JSON_FIELD_OK, JSON_FIELD_MISSING, JSON_FIELD_WRONG_TYPE, JSON_FIELD_OUT_OF_RANGE };

/* object[name] as a whole number between min and max (both within +-2^53-1). 1.0 is whole; 1.5, "1", true are WRONG_TYPE.
 * null counts as missing. */
enum json_field json_get_integer(const cJSON *object, const char *name, int64_t min, int64_t max,
                                 int64_t *out);

/* object[name] as a string of min to max code points; *out points into `object`. null counts as missing. */
enum json_field json_get_string(const cJSON *object, const char *name, size_t min, size_t max,
                                const char **out);

/* Writes text as a JSON string with quotes, escaped after RFC 8259 (bytes that are not UTF-8 as U+FFFD), into
 * out[0..out_bytes), terminated. Returns the length, or 0 if it does not fit. */
size_t json_quote(const char *text, char *out, size_t out_bytes);

#endif
