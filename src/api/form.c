/* The login form's fields, decoded strictly (WHATWG URL, application/x-www-form-urlencoded). Pure functions. */
#include "form.h"

#include "doorbuster/text.h"

#include <stdbool.h>
#include <string.h>

static bool decode(const char *text, size_t bytes, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i] == '+' ? ' ' : text[i];
        if (c == '%') {
            int byte = text_hex_byte(text + i + 1, bytes - i - 1);
            if (byte < 0) {
                return false;
            }
            c = (char)byte;
            i += 2;
        }
        if (c == '\0' || used + 1 >= out_bytes) {
            return false;
        }
        out[used++] = c;
    }
    out[used] = '\0';
    return text_is_utf8(out, used);
}

enum form_field form_get(const char *body, size_t bytes, const char *name, char *out, size_t out_bytes)
{
    const char *end = body + bytes;
    size_t name_bytes = strlen(name);
    enum form_field found = FORM_MISSING;
    for (const char *at = body; at < end;) {
        const char *stop = memchr(at, '&', (size_t)(end - at));
        stop = stop ? stop : end;
        if ((size_t)(stop - at) > name_bytes && memcmp(at, name, name_bytes) == 0 && at[name_bytes] == '=') {
            const char *value = at + name_bytes + 1;
            if (found != FORM_MISSING || !decode(value, (size_t)(stop - value), out, out_bytes)) {
                return FORM_BAD;
            }
            found = FORM_OK;
        }
        at = stop + 1;
    }
    return found;
}
