/* The stock on the nodes of the Redlock gate, over blocking connections. One thread at a time: the keeper, a tool, a job of a worker's pool, each
 * with a struct of its own. Owns a connection to each node.
 *
 * A node's part in a call:
 *
 *   connect if it is not --> put its commands down --> write to all --> read the answers, node by node, until one deadline for all of them
 *
 * So nodes that hang cost one timeout a call between them (while it connects, or cannot even write to it: each one of its own), and then they are
 * left alone for a second. A node that fails at once (refused, or the connection broke) is tried again with the next call. Any failure closes its connection: a
 * late answer must not be taken for the next one.
 *
 * What cannot be read as a figure of ours is "not known". Of a node that restarted nothing is known either, so a majority may answer of which
 * only some know: then the newest of these is what is said, and that may be behind what a majority was told once. Workers leave young nodes
 * out; here nobody can tell them from nodes that were never told. The keeper fills them within a few 100 ms, and who compares a figure compares
 * it with what the store had at the figure's version. */
#include "doorbuster/node_books.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "node_stock.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAVE_ALONE_US 1000000
#define AT_ONCE 128 /* products in one command */
#define WHY_BYTES 256
#define FAILURE_BYTES (GATE_NODES_MAX * (GATE_NODE_NAME_BYTES + WHY_BYTES + 4))

struct node {
    redisContext *redis; /* NULL: not connected */
    int64_t not_before_us;
    bool asked, answered; /* in the last call */
    char why[WHY_BYTES];  /* it did not, the last time it was asked; "" if it did */
};

struct node_books {
    const struct gate_place *place;
    int64_t store_id;
    int timeout_ms;
    int64_t deadline_us; /* of this call's answers */
    struct node nodes[GATE_NODES_MAX];
};

struct node_books *node_books_open(const struct gate_place *place, int64_t store_id, int timeout_ms)
{
    CHECK(place->node_count >= 1 && place->node_count <= GATE_NODES_MAX && timeout_ms > 0);
    struct node_books *books = calloc(1, sizeof *books);
    CHECK(books != NULL);
    books->place = place;
    books->store_id = store_id;
    books->timeout_ms = timeout_ms;
    return books;
}

static void disconnect(struct node *node)
{
    if (node->redis != NULL) {
        redisFree(node->redis);
        node->redis = NULL;
    }
}

void node_books_close(struct node_books **books)
{
    if (*books != NULL) {
        for (unsigned i = 0; i < (*books)->place->node_count; i++) {
            disconnect(&(*books)->nodes[i]);
        }
        free(*books);
        *books = NULL;
    }
}

/* --- a call to some nodes ---------------------------------------------------------------------------------------------------------- */
/* Puts commands down for one node; their number. */
typedef int (*append_cb)(redisContext *redis, void *context);
/* Of each of these commands, in order: the answer is no error. */
typedef void (*answer_cb)(const redisReply *reply, unsigned node, int command, void *context);

/* `since_us`: when we began to wait for it. */
static void node_failed(struct node_books *books, struct node *node, const char *why, int64_t since_us)
{
    int64_t now_us = clock_monotonic_us();
    bool slow = now_us - since_us >= (int64_t)books->timeout_ms * 500; /* half the timeout */
    snprintf(node->why, sizeof node->why, "%s", why);
    node->not_before_us = slow ? now_us + LEAVE_ALONE_US : 0;
    node->answered = false;
    disconnect(node);
}

/* What went wrong, without the address: it stands in the node's name. */
static const char *without_address(const char *error, const struct redis_address *address)
{
    char where[512];
    redis_address_format(address, where, sizeof where);
    const char *at = strstr(error, where);
    at = at != NULL ? at + strlen(where) : error;
    return at + strspn(at, ": ");
}

static bool ensure_connected(struct node_books *books, unsigned index)
{
    struct node *node = &books->nodes[index];
    char error[512];
    if (node->redis != NULL && redis_is_dead(node->redis)) {
        disconnect(node);
    }
    int64_t now_us = clock_monotonic_us();
    if (node->redis == NULL && now_us >= node->not_before_us) {
        node->redis =
            redis_connect_blocking(&books->place->nodes[index], books->timeout_ms, error, sizeof error);
        if (node->redis == NULL) {
            node_failed(books, node, without_address(error, &books->place->nodes[index]), now_us);
        }
    }
    return node->redis != NULL;
}

/* The next answer, if it comes before the deadline. The reply is the caller's. */
static redisReply *next_answer(struct node_books *books, struct node *node, const char **why)
{
    redisContext *redis = node->redis;
    void *reply = NULL;
    *why = "timed out";
    for (;;) {
        if (redis->err != 0 || redisGetReplyFromReader(redis, &reply) != REDIS_OK) {
            *why = redis->errstr;
            return NULL;
        }
        if (reply != NULL) {
            return reply;
        }
        struct pollfd link = {.fd = redis->fd, .events = POLLIN};
        if (poll(&link, 1, clock_left_ms(books->deadline_us)) <= 0) {
            return NULL;
        }
        redisBufferRead(redis); /* sets redis->err if it fails */
    }
}

static void read_answers(struct node_books *books, unsigned index, int commands, answer_cb answer,
                         void *context, int64_t since_us)
{
    struct node *node = &books->nodes[index];
    for (int i = 0; i < commands; i++) {
        const char *why;
        redisReply *reply = next_answer(books, node, &why);
        if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
            node_failed(books, node, reply != NULL ? reply->str : why, since_us);
            freeReplyObject(reply);
            return;
        }
        if (answer != NULL) {
            answer(reply, index, i, context);
        }
        freeReplyObject(reply);
    }
    node->answered = true;
    node->why[0] = '\0';
}

/* The nodes from `first` to just before `end`. How many answered all. */
static unsigned ask_nodes(struct node_books *books, unsigned first, unsigned end, append_cb append,
                          answer_cb answer, void *context)
{
    int commands[GATE_NODES_MAX] = {0};
    unsigned answered = 0;
    for (unsigned i = 0; i < books->place->node_count; i++) {
        books->nodes[i].answered = false;
        books->nodes[i].asked = i >= first && i < end && ensure_connected(books, i);
    }
    int64_t since_us = clock_monotonic_us(); /* one that hangs may not even take what is written */
    for (unsigned i = first; i < end; i++) {
        if (books->nodes[i].asked) {
            commands[i] = append(books->nodes[i].redis, context);
            redis_send_appended(books->nodes[i].redis);
        }
    }
    books->deadline_us = clock_monotonic_us() + (int64_t)books->timeout_ms * 1000;
    for (unsigned i = first; i < end; i++) {
        if (books->nodes[i].asked) {
            read_answers(books, i, commands[i], answer, context, since_us);
        }
        answered += books->nodes[i].answered;
    }
    return answered;
}

static bool is_majority(const struct node_books *books, unsigned count)
{
    return count > books->place->node_count / 2;
}

/* --- reading ------------------------------------------------------------------------------------------------------------------------- */
struct reading {
    int64_t store_id;
    const int64_t *products;
    size_t count;
    struct node_stock *newest; /* one for each product */
};

static size_t chunk_of(size_t count, int command)
{
    size_t left = count - (size_t)command * AT_ONCE;
    return left < AT_ONCE ? left : AT_ONCE;
}

static int append_reads(redisContext *redis, void *context)
{
    const struct reading *reading = context;
    static _Thread_local char keys[AT_ONCE][NODE_STOCK_KEY_BYTES];
    const char *argv[1 + AT_ONCE] = {"MGET"};
    int commands = 0;
    for (size_t at = 0; at < reading->count; at += AT_ONCE) {
        size_t chunk = chunk_of(reading->count, commands++);
        for (size_t i = 0; i < chunk; i++) {
            node_stock_key(reading->store_id, reading->products[at + i], keys[i]);
            argv[1 + i] = keys[i];
        }
        redisAppendCommandArgv(redis, (int)(1 + chunk), argv, NULL);
    }
    return commands;
}

static void take_read(const redisReply *reply, unsigned node, int command, void *context)
{
    const struct reading *reading = context;
    (void)node;
    size_t at = (size_t)command * AT_ONCE;
    for (size_t i = 0; i < reply->elements && i < chunk_of(reading->count, command); i++) {
        const redisReply *one = reply->element[i];
        struct node_stock said = {0};
        if (one->type == REDIS_REPLY_STRING) {
            said.damaged = !node_stock_parse(one->str, one->len, &said);
        }
        struct node_stock *newest = &reading->newest[at + i];
        newest->damaged = newest->damaged || (said.damaged && !newest->known);
        node_stock_take_newer(newest, &said);
    }
}

static unsigned read_nodes(struct node_books *books, unsigned first, unsigned end, const int64_t *products,
                           size_t count, struct node_stock *out)
{
    struct reading reading = {
        .store_id = books->store_id, .products = products, .count = count, .newest = out};
    memset(out, 0, count * sizeof *out);
    return ask_nodes(books, first, end, append_reads, take_read, &reading);
}

bool node_books_read(struct node_books *books, const int64_t *products, size_t count, struct node_stock *out)
{
    return is_majority(books, read_nodes(books, 0, books->place->node_count, products, count, out));
}

bool node_books_read_node(struct node_books *books, unsigned node, const int64_t *products, size_t count,
                          struct node_stock *out)
{
    CHECK(node < books->place->node_count);
    return read_nodes(books, node, node + 1, products, count, out) == 1;
}

/* --- telling ------------------------------------------------------------------------------------------------------------------------- */
struct telling {
    int64_t store_id;
    const struct stock_moves *moves;
};

static int append_moves(redisContext *redis, void *context)
{
    const struct telling *telling = context;
    const struct stock_moves *moves = telling->moves;
    static _Thread_local char keys[AT_ONCE][NODE_STOCK_KEY_BYTES], texts[AT_ONCE][NODE_STOCK_VALUE_BYTES];
    char key_count[TEXT_INT64_BYTES];
    const char *argv[3 + 2 * AT_ONCE] = {"EVAL", node_stock_write_script, key_count};
    int commands = 0;
    for (size_t at = 0; at < moves->count; at += AT_ONCE) {
        size_t chunk = chunk_of(moves->count, commands++);
        for (size_t i = 0; i < chunk; i++) {
            const struct stock_move *move = &moves->each[at + i];
            node_stock_key(telling->store_id, move->product_id, keys[i]);
            node_stock_format(&(struct node_stock){.stock = move->stock, .version = moves->position},
                              texts[i]);
            argv[3 + i] = keys[i];
            argv[3 + chunk + i] = texts[i];
        }
        text_from_int64((int64_t)chunk, key_count);
        redisAppendCommandArgv(redis, (int)(3 + 2 * chunk), argv, NULL);
    }
    return commands;
}

static unsigned tell_nodes(struct node_books *books, unsigned first, unsigned end,
                           const struct stock_moves *moves)
{
    struct telling telling = {.store_id = books->store_id, .moves = moves};
    return ask_nodes(books, first, end, append_moves, NULL, &telling);
}

bool node_books_write(struct node_books *books, const struct stock_moves *moves)
{
    return moves->count == 0 || is_majority(books, tell_nodes(books, 0, books->place->node_count, moves));
}

bool node_books_write_node(struct node_books *books, unsigned node, const struct stock_moves *moves)
{
    CHECK(node < books->place->node_count);
    return moves->count == 0 || tell_nodes(books, node, node + 1, moves) == 1;
}

struct forcing {
    char key[NODE_STOCK_KEY_BYTES], text[NODE_STOCK_VALUE_BYTES];
};

static int append_force(redisContext *redis, void *context)
{
    const struct forcing *forcing = context;
    redisAppendCommand(redis, "SET %s %s", forcing->key, forcing->text);
    return 1;
}

bool node_books_force(struct node_books *books, unsigned node, int64_t product_id,
                      const struct node_stock *to)
{
    struct forcing forcing;
    CHECK(node < books->place->node_count && to->known);
    node_stock_key(books->store_id, product_id, forcing.key);
    node_stock_format(to, forcing.text);
    return ask_nodes(books, node, node + 1, append_force, NULL, &forcing) == 1;
}

/* --- locks ---------------------------------------------------------------------------------------------------------------------------- */
/* ARGV: the longest that a lock of ours lives, in ms; the prefix of the locks, the channel of their news. */
static const char delete_endless_script[] = "local count=0 "
                                            "for _,key in ipairs(KEYS) do "
                                            "local left=redis.call('PTTL',key) "
                                            "if left==-1 or left>tonumber(ARGV[1]) then "
                                            "redis.call('DEL',key) "
                                            "redis.call('PUBLISH',ARGV[3],string.sub(key,#ARGV[2]+1)) "
                                            "count=count+1 end end "
                                            "return count";

struct deleting {
    const int64_t *products;
    size_t count, deleted;
};

static int append_deletions(redisContext *redis, void *context)
{
    const struct deleting *deleting = context;
    static _Thread_local char keys[AT_ONCE][GATE_KEY_BYTES + TEXT_INT64_BYTES];
    char key_count[TEXT_INT64_BYTES], ttl_ms[TEXT_INT64_BYTES];
    const char *argv[3 + AT_ONCE + 3] = {"EVAL", delete_endless_script, key_count};
    int commands = 0;
    text_from_int64(GATE_LOCK_TTL_MS_MAX, ttl_ms);
    for (size_t at = 0; at < deleting->count; at += AT_ONCE) {
        size_t chunk = chunk_of(deleting->count, commands++);
        for (size_t i = 0; i < chunk; i++) {
            text_from_int64(deleting->products[at + i], stpcpy(keys[i], gate_keys.lock));
            argv[3 + i] = keys[i];
        }
        argv[3 + chunk] = ttl_ms;
        argv[4 + chunk] = gate_keys.lock;
        argv[5 + chunk] = gate_keys.lock_news;
        text_from_int64((int64_t)chunk, key_count);
        redisAppendCommandArgv(redis, (int)(3 + chunk + 3), argv, NULL);
    }
    return commands;
}

static void take_deleted(const redisReply *reply, unsigned node, int command, void *context)
{
    struct deleting *deleting = context;
    (void)node, (void)command;
    deleting->deleted += reply->type == REDIS_REPLY_INTEGER ? (size_t)reply->integer : 0;
}

size_t node_books_delete_endless_locks(struct node_books *books, unsigned node, const int64_t *products,
                                       size_t count)
{
    struct deleting deleting = {.products = products, .count = count};
    CHECK(node < books->place->node_count);
    ask_nodes(books, node, node + 1, append_deletions, take_deleted, &deleting);
    return deleting.deleted;
}

/* --- how it went --------------------------------------------------------------------------------------------------------------------- */
unsigned node_books_answering(const struct node_books *books)
{
    unsigned answering = 0;
    for (unsigned i = 0; i < books->place->node_count; i++) {
        answering += books->nodes[i].answered;
    }
    return answering;
}

const char *node_books_failure(const struct node_books *books)
{
    static _Thread_local char failure[FAILURE_BYTES];
    size_t used = 0;
    failure[0] = '\0';
    for (unsigned i = 0; i < books->place->node_count; i++) {
        const struct node *node = &books->nodes[i];
        char name[GATE_NODE_NAME_BYTES];
        if (node->why[0] == '\0') {
            continue;
        }
        gate_place_name_node(books->place, i, name, sizeof name);
        int bytes = snprintf(failure + used, sizeof failure - used, "%s%s: %s", used > 0 ? "; " : "", name,
                             node->why);
        CHECK(bytes > 0 && used + (size_t)bytes < sizeof failure);
        used += (size_t)bytes;
    }
    return failure;
}
