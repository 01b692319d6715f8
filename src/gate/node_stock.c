/* A product's stock as the nodes of the Redlock gate have it: the text, and the script by which the newer one wins. Pure functions, any thread;
 * owns nothing, and fails only by saying that a text is none of ours. */
#include "node_stock.h"

#include "doorbuster/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What Lua can compare exactly. A stock too may be as large: cancellations lift it above PRODUCT_STOCK_MAX. */
#define FIGURE_MAX ((INT64_C(1) << 53) - 1)

/* It reads as node_stock_parse() does: a figure out of range is none of ours, however new it looks. */
const char node_stock_write_script[] =
    "local function parse(text) "
    "if type(text)~='string' then return nil end "
    "local stock,epoch,n=string.match(text,'^(%d+) (%d+) (%d+)$') "
    "if not stock then return nil end "
    "stock,epoch,n=tonumber(stock),tonumber(epoch),tonumber(n) "
    "if stock>=2^53 or epoch>=2^53 or n>=2^53 then return nil end "
    "return epoch,n end "
    "local told=0 "
    "for i,key in ipairs(KEYS) do "
    "local epoch,n=parse(ARGV[i]) "
    "local known_epoch,known_n=parse(redis.pcall('GET',key)) "
    "if epoch and (not known_epoch or known_epoch<epoch or (known_epoch==epoch and known_n<n)) then "
    "redis.call('SET',key,ARGV[i]) told=told+1 end end "
    "return told";

void node_stock_key(int64_t store_id, int64_t product_id, char out[NODE_STOCK_KEY_BYTES])
{
    int bytes = snprintf(out, NODE_STOCK_KEY_BYTES, "%s%" PRId64 ":%" PRId64, gate_keys.node_stock, store_id,
                         product_id);
    CHECK(bytes > 0 && (size_t)bytes < NODE_STOCK_KEY_BYTES);
}

size_t node_stock_format(const struct node_stock *stock, char out[NODE_STOCK_VALUE_BYTES])
{
    int bytes = snprintf(out, NODE_STOCK_VALUE_BYTES, "%" PRId64 " %" PRIu64 " %" PRIu64, stock->stock,
                         stock->version.epoch, stock->version.n);
    CHECK(bytes > 0 && (size_t)bytes < NODE_STOCK_VALUE_BYTES);
    return (size_t)bytes;
}

/* The next number of the text, and past the space behind it. */
static bool next_number(const char **at, size_t *left, bool is_last, int64_t *out)
{
    const char *space = memchr(*at, ' ', *left);
    size_t bytes = space != NULL ? (size_t)(space - *at) : *left;
    if ((space == NULL) != is_last || !text_to_int64(*at, bytes, 0, FIGURE_MAX, out)) {
        return false;
    }
    *at += bytes + (is_last ? 0 : 1);
    *left -= bytes + (is_last ? 0 : 1);
    return true;
}

bool node_stock_parse(const char *text, size_t bytes, struct node_stock *out)
{
    int64_t stock, epoch, n;
    if (!next_number(&text, &bytes, false, &stock) || !next_number(&text, &bytes, false, &epoch) ||
        !next_number(&text, &bytes, true, &n)) {
        return false;
    }
    *out = (struct node_stock){
        .known = true, .stock = stock, .version = {.epoch = (uint64_t)epoch, .n = (uint64_t)n}};
    return true;
}

void node_stock_take_newer(struct node_stock *newest, const struct node_stock *seen)
{
    if (seen->known && (!newest->known || log_position_compare(seen->version, newest->version) > 0)) {
        *newest = *seen;
    }
}
