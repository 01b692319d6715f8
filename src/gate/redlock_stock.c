/* Reads and writes the stock on the nodes of a Redlock. A worker's loop thread. Owns one timer, and the words of a command.
 *
 *   RESTING --read: one MGET to each node that votes--> READING --a majority has answered, or cannot, or the time is over--> RESTING
 *
 * Of what the nodes of a majority say the newest counts. A majority of *all* nodes must have answered: then it has a node in common with whatever
 * majority was told of a change, so a change that somebody was promised is seen. A node that may have forgotten (young, or not known) does not
 * count, but is told, so that it knows when it votes.
 *
 * Late answers belong to a round that is over and are not looked at. Failures: no majority: nothing is known, and the locks decide. A write is not
 * confirmed; its order with the release of the lock on the same connection is kept. */
#include "redlock_stock.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/text.h"
#include "redlock_arithmetic.h"
#include "redlock_nodes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITE_FIXED 3 /* EVAL script keys */

struct redlock_stock {
    struct redlock_nodes *nodes;
    redlock_stock_cb cb;
    void *context;
    int64_t store_id;
    int node_timeout_ms;
    uv_timer_t timer;
    size_t pending; /* answers that are still to come: its memory is needed */
    /* the read under way */
    bool is_reading, had_grace;
    uint64_t round;
    unsigned asked, answered, failed; /* bits are nodes */
    size_t count;
    int64_t product_ids[REDLOCK_STOCK_PRODUCTS_MAX];
    struct node_stock newest[REDLOCK_STOCK_PRODUCTS_MAX];
    /* the words of a write */
    const char *argv[WRITE_FIXED + 2 * SALES_LOG_PARTS_MAX];
    char keys[SALES_LOG_PARTS_MAX][NODE_STOCK_KEY_BYTES];
    char values[SALES_LOG_PARTS_MAX][NODE_STOCK_VALUE_BYTES];
};

struct question {
    struct redlock_stock *stock;
    uint64_t round;
};

/* --- reading ------------------------------------------------------------------------------------------------------------------ */
static void end_read(struct redlock_stock *stock, bool is_known)
{
    int64_t product_ids[REDLOCK_STOCK_PRODUCTS_MAX];
    struct node_stock stocks[REDLOCK_STOCK_PRODUCTS_MAX] = {0};
    size_t count = stock->count;
    memcpy(product_ids, stock->product_ids, count * sizeof *product_ids);
    if (is_known) {
        memcpy(stocks, stock->newest, count * sizeof *stocks);
    }
    stock->is_reading = false;
    stock->round++;
    uv_timer_stop(&stock->timer);
    stock->cb(stock->context, product_ids, stocks, count);
}

static enum redlock_verdict verdict(const struct redlock_stock *stock)
{
    unsigned undecided = stock->asked & ~(stock->answered | stock->failed);
    return redlock_count(redlock_nodes_count(stock->nodes), (unsigned)__builtin_popcount(stock->answered),
                         (unsigned)__builtin_popcount(undecided));
}

static void judge(struct redlock_stock *stock)
{
    enum redlock_verdict now = verdict(stock);
    if (now != REDLOCK_OPEN) {
        end_read(stock, now == REDLOCK_WON);
    }
}

static bool take_figures(struct redlock_stock *stock, const redisReply *reply)
{
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != stock->count) {
        return false;
    }
    for (size_t i = 0; i < stock->count; i++) {
        const redisReply *value = reply->element[i];
        struct node_stock seen;
        if (value->type == REDIS_REPLY_STRING && node_stock_parse(value->str, value->len, &seen)) {
            node_stock_take_newer(&stock->newest[i], &seen);
        }
    }
    return true;
}

static void figures_cb(void *context, unsigned node, const redisReply *reply)
{
    struct question question = *(struct question *)context;
    struct redlock_stock *stock = question.stock;
    free(context);
    if (stock->is_reading && question.round == stock->round) {
        *(take_figures(stock, reply) ? &stock->answered : &stock->failed) |= 1U << node;
        judge(stock);
    }
    stock->pending--;
}

/* Timers run before sockets are read: if the loop was busy, the answers are there and are read first. */
static void timer_cb(uv_timer_t *timer)
{
    struct redlock_stock *stock = timer->data;
    if (!stock->had_grace && verdict(stock) == REDLOCK_OPEN) {
        stock->had_grace = true;
        uv_timer_start(&stock->timer, timer_cb, 1, 0);
    } else {
        end_read(stock, false);
    }
}

static void ask(struct redlock_stock *stock, unsigned node, int argc, const char **argv)
{
    struct question *question = malloc(sizeof *question);
    CHECK(question != NULL);
    *question = (struct question){.stock = stock, .round = stock->round};
    if (redlock_nodes_votes(stock->nodes, node) &&
        redlock_nodes_command(stock->nodes, node, figures_cb, question, argc, argv)) {
        stock->asked |= 1U << node;
        stock->pending++;
    } else {
        free(question);
    }
}

bool redlock_stock_is_reading(const struct redlock_stock *stock)
{
    return stock->is_reading;
}

void redlock_stock_read(struct redlock_stock *stock, const int64_t *product_ids, size_t count)
{
    CHECK(!stock->is_reading && count > 0 && count <= REDLOCK_STOCK_PRODUCTS_MAX);
    stock->is_reading = true;
    stock->had_grace = false;
    stock->asked = stock->answered = stock->failed = 0;
    stock->count = count;
    stock->argv[0] = "MGET";
    for (size_t i = 0; i < count; i++) {
        stock->product_ids[i] = product_ids[i];
        stock->newest[i] = (struct node_stock){0};
        node_stock_key(stock->store_id, product_ids[i], stock->keys[i]);
        stock->argv[1 + i] = stock->keys[i];
    }
    for (unsigned node = 0; node < redlock_nodes_count(stock->nodes); node++) {
        ask(stock, node, (int)(1 + count), stock->argv);
    }
    /* The verdict may be there already, but the callback comes later. */
    bool may_be_known = verdict(stock) == REDLOCK_OPEN;
    stock->had_grace = !may_be_known;
    uv_timer_start(&stock->timer, timer_cb, may_be_known ? (uint64_t)stock->node_timeout_ms : 0, 0);
}

/* --- writing ------------------------------------------------------------------------------------------------------------------ */
static void written_cb(void *context, unsigned node, const redisReply *reply)
{
    struct redlock_stock *stock = context;
    (void)node, (void)reply; /* an error is said by the node */
    stock->pending--;
}

void redlock_stock_write(struct redlock_stock *stock, const struct stock_moves *moves)
{
    char count_text[TEXT_INT64_BYTES];
    size_t count = moves->count;
    if (count == 0) {
        return;
    }
    CHECK(count <= SALES_LOG_PARTS_MAX);
    text_from_int64((int64_t)count, count_text);
    stock->argv[0] = "EVAL";
    stock->argv[1] = node_stock_write_script;
    stock->argv[2] = count_text;
    for (size_t i = 0; i < count; i++) {
        struct node_stock told = {.stock = moves->each[i].stock, .version = moves->position};
        node_stock_key(stock->store_id, moves->each[i].product_id, stock->keys[i]);
        node_stock_format(&told, stock->values[i]);
        stock->argv[WRITE_FIXED + i] = stock->keys[i];
        stock->argv[WRITE_FIXED + count + i] = stock->values[i];
    }
    for (unsigned node = 0; node < redlock_nodes_count(stock->nodes); node++) {
        stock->pending += redlock_nodes_command(stock->nodes, node, written_cb, stock,
                                                (int)(WRITE_FIXED + 2 * count), stock->argv);
    }
}

/* --- open and close ------------------------------------------------------------------------------------------------------------ */
struct redlock_stock *redlock_stock_open(struct redlock *redlock, uv_loop_t *loop, int64_t store_id,
                                         int node_timeout_ms, redlock_stock_cb cb, void *context)
{
    struct redlock_stock *stock = calloc(1, sizeof *stock);
    CHECK(stock != NULL);
    stock->nodes = redlock_nodes(redlock);
    stock->cb = cb;
    stock->context = context;
    stock->store_id = store_id;
    stock->node_timeout_ms = node_timeout_ms;
    uv_timer_init(loop, &stock->timer);
    stock->timer.data = stock;
    return stock;
}

static void free_stock_cb(uv_handle_t *handle)
{
    free(handle->data);
}

void redlock_stock_close(struct redlock_stock **stock_pointer)
{
    struct redlock_stock *stock = *stock_pointer;
    *stock_pointer = NULL;
    CHECK(stock->pending == 0);
    uv_close((uv_handle_t *)&stock->timer, free_stock_cb);
}
