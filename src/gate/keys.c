/* A shop's names in Redis. Written once, before a process opens anything; read from every thread after that. */
#include "keys.h"

#include "doorbuster/check.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define KEYS_OF(shop)                                                                                        \
    {                                                                                                        \
        .head = "{" shop "}:head", .log = "{" shop "}:log",                                                  \
        .product = "{" shop "}:product:", .buyers = "{" shop "}:buyers:", .ordered = "{" shop "}:idem:",     \
        .changed = "{" shop "}:change:", .cancelled = "{" shop "}:cancelled:",                               \
        .node_stock = "{" shop "}:stock:", .lock = "{" shop "}:lock:", .recorder = "{" shop "}:recorder",    \
        .all = "{" shop "}:*", .news = "{" shop "}:news", .stock_news = "{" shop "}:stock",                  \
        .lock_news = "{" shop "}:locks"                                                                      \
    }

struct gate_keys gate_keys = KEYS_OF(GATE_SHOP_DEFAULT);

/* No character that a pattern of Redis's, a PostgreSQL schema or a hash tag would read in another way. */
static bool is_shop_name(const char *name)
{
    size_t bytes = strlen(name);
    for (size_t i = 0; i < bytes; i++) {
        if (!isascii(name[i]) || !(isalnum((unsigned char)name[i]) || name[i] == '_' || name[i] == '-')) {
            return false;
        }
    }
    return bytes >= 1 && bytes < GATE_SHOP_BYTES;
}

bool gate_use_shop(const char *name, char *error, size_t error_bytes)
{
    static const struct gate_keys pattern = KEYS_OF("%s");
    if (!is_shop_name(name)) {
        snprintf(error, error_bytes,
                 "\"%.64s\" is no shop's name; it may be 1 to %d letters, digits, '_' and '-'", name,
                 GATE_SHOP_BYTES - 1);
        return false;
    }
    /* Every member is a text of the same size. */
    _Static_assert(sizeof gate_keys % GATE_KEY_BYTES == 0, "gate_keys");
    for (size_t at = 0; at < sizeof gate_keys; at += GATE_KEY_BYTES) {
        const char *as = (const char *)&pattern + at, *behind = strstr(as, "%s");
        int bytes = snprintf((char *)&gate_keys + at, GATE_KEY_BYTES, "{%s%s", name, behind + 2);
        CHECK(bytes > 0 && bytes < GATE_KEY_BYTES);
    }
    return true;
}
