/* Values of headers: Idempotency-Key, Accept. A key that is taken is a word of the sales log, and the same with quotes around it; what one wants of two
 * types is between nothing and all. */
#include "fuzz.h"

#include "accept.h"

#include "doorbuster/idempotency_key.h"

#include <stdio.h>

static void check_key(const char *value)
{
    const char *key, *again;
    size_t bytes, again_bytes;
    char quoted[IDEMPOTENCY_KEY_BYTES_MAX + 8];
    if (!idempotency_key_parse(value, &key, &bytes)) {
        return;
    }
    CHECK(bytes >= 1 && bytes <= IDEMPOTENCY_KEY_BYTES_MAX);
    CHECK(key >= value && key + bytes <= value + strlen(value));
    for (size_t i = 0; i < bytes; i++) {
        CHECK(key[i] > ' ' && key[i] < 0x7f);
    }
    snprintf(quoted, sizeof quoted, " \"%.*s\"\t", (int)bytes, key);
    CHECK(idempotency_key_parse(quoted, &again, &again_bytes));
    CHECK(again_bytes == bytes && memcmp(again, key, bytes) == 0);
}

static void check_accept(const char *value)
{
    int html = accept_quality(value, "text/html"), json = accept_quality(value, "application/json");
    CHECK(html >= 0 && html <= 1000 && json >= 0 && json <= 1000);
    CHECK(accept_prefers_html(value) == (html > json));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *value = fuzz_text(data, bytes);
    check_key(value);
    check_accept(value);
    free(value);
    return 0;
}
