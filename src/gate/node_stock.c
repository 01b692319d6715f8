/* What a node of the Redlock gate knows of a product's stock: key, text and the script that lets the newer of two figures stay. Pure functions, any
 * thread; nothing is owned. */
#include "node_stock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FIGURE_MAX ((INT64_C(1) << 53) - 1) /* what Lua can compare exactly */

/* Reads as node_stock_parse() does: what is out of range is none of ours, however new it looks. GET of a list or a hash is an error: likewise. SET puts
 * a string in the place of anything. */
const char node_stock_script[] =
    "local function version(text) "
    "if type(text) ~= 'string' then return nil end "
    "local stock, epoch, n = string.match(text, '^(%d+) (%d+) (%d+)$') "
    "if not stock then return nil end "
    "stock, epoch, n = tonumber(stock), tonumber(epoch), tonumber(n) "
    "if stock >= 2^53 or epoch >= 2^53 or n >= 2^53 then return nil end "
    "return epoch, n "
    "end "
    "local taken = 0 "
    "for i = 1, #KEYS do "
    "local epoch, n = version(redis.pcall('GET', KEYS[i])) "
    "local new_epoch, new_n = version(ARGV[i]) "
    "if new_epoch and (not epoch or new_epoch > epoch or (new_epoch == epoch and new_n > n)) then "
    "redis.call('SET', KEYS[i], ARGV[i]) "
    "taken = taken + 1 "
    "end "
    "end "
    "return taken";

void node_stock_key(int64_t store_id, int64_t product_id, char out[NODE_STOCK_KEY_BYTES])
{
    snprintf(out, NODE_STOCK_KEY_BYTES, KEY_STOCK_PREFIX "%" PRId64 ":%" PRId64, store_id, product_id);
}

void node_stock_format(int64_t stock, struct log_position version, char out[NODE_STOCK_TEXT_BYTES])
{
    snprintf(out, NODE_STOCK_TEXT_BYTES, "%" PRId64 " %" PRIu64 " %" PRIu64, stock, version.epoch, version.n);
}

bool node_stock_parse(const char *text, size_t bytes, struct node_stock *out)
{
    int64_t figures[3];
    const char *end = text + bytes;
    for (int i = 0; i < 3; i++) {
        const char *space = i < 2 ? memchr(text, ' ', (size_t)(end - text)) : end;
        if (space == NULL || !text_to_int64(text, (size_t)(space - text), 0, FIGURE_MAX, &figures[i])) {
            return false;
        }
        text = i < 2 ? space + 1 : end;
    }
    *out = (struct node_stock){
        .known = true,
        .stock = figures[0],
        .version = {.epoch = (uint64_t)figures[1], .n = (uint64_t)figures[2]},
    };
    return true;
}
