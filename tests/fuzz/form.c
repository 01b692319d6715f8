/* The login form. What is read of a field reads the same when it is sent again, every byte of it escaped; a field is there once or not at all. */
#include "fuzz.h"

#include "form.h"

#include "doorbuster/text.h"

#include <stdio.h>

#define FIELD_BYTES 64

static void check_again(const char *value)
{
    char body[sizeof "username=" + 3 * FIELD_BYTES] = "username=", again[FIELD_BYTES];
    size_t used = strlen(body);
    for (const char *at = value; *at != '\0'; at++) {
        used += (size_t)snprintf(body + used, sizeof body - used, "%%%02x", (unsigned char)*at);
    }
    CHECK(form_get(body, used, "username", again, sizeof again) == FORM_OK && strcmp(again, value) == 0);
}

/* With the field once more behind it. */
static void check_twice(const uint8_t *data, size_t bytes)
{
    static const char more[] = "&username=x";
    char *body = malloc(bytes + sizeof more), value[FIELD_BYTES];
    CHECK(body != NULL);
    memcpy(body, data, bytes);
    memcpy(body + bytes, more, sizeof more);
    CHECK(form_get(body, bytes + sizeof more - 1, "username", value, sizeof value) == FORM_BAD);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char value[FIELD_BYTES] = "untouched";
    enum form_field found = form_get((const char *)data, bytes, "username", value, sizeof value);
    if (found == FORM_OK) {
        CHECK(strlen(value) < sizeof value && text_is_utf8(value, strlen(value)));
        check_again(value);
        check_twice(data, bytes);
    }
    CHECK(found != FORM_MISSING || strcmp(value, "untouched") == 0);
    return 0;
}
