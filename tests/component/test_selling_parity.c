/* The store that decides itself against the scripts of the Lua gate: the same random purchases, restocks, prices, openings and cancellations go
 * to sell.lua, stock.lua and cancel.lua in a real Redis and to store_sell() and its like. Every answer must be the same, and so must every
 * figure afterwards: what Redis holds, and what a second store has that records Redis's sales log.
 *
 * One process with a redis-server and two stores in temporary folders. $DOORBUSTER_SEED repeats one run, $DOORBUSTER_ROUNDS makes more; a
 * difference names seed and step. */
#include "testing.h"

#include "folder.h"
#include "lua_call.h"
#include "redis_fixture.h"

#include "doorbuster/clock.h"
#include "doorbuster/gate_books.h"
#include "doorbuster/store.h"

#include <inttypes.h>
#include "store_fixture.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPOCH 1
#define ROUNDS 10
#define STEPS 160
#define PLAIN 5 /* products 1 to PLAIN are no bundles; then come BUNDLES, then one that is opened late */
#define BUNDLES 3
#define LATE (PLAIN + BUNDLES + 1)
#define UNKNOWN (LATE + 1)
#define USERS 6
#define KEYS 12
#define BATCH_MAX 12
#define LINES_MAX 5
#define HOUR_MS INT64_C(3600000)
#define COMPARE_EVERY 8 /* steps, all tables */

struct side {
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + 16];
    struct store *store;
};

struct parity {
    struct redis_fixture fixture;
    redisContext *redis;
    struct side decides, records; /* the second from Redis's log */
    sqlite3 *look;                /* at both; NULL: they are in PostgreSQL */
    char url[STORE_FIXTURE_URL_BYTES];
    uint64_t seed, random;
    unsigned step;
    struct log_position recorded;
    int64_t request;
    int64_t stock_after[LATE + 1][STEPS * 2 + UNKNOWN]; /* by product and n of the position */
    size_t sold, refused[REFUSALS], changes[CHANGE_FAILED];
};

/* A batch, once for each side. */
struct batch {
    struct gate_purchase lua[BATCH_MAX];
    struct purchase store[BATCH_MAX];
    struct order_part lua_more[BATCH_MAX][LINES_MAX], store_more[BATCH_MAX][LINES_MAX];
    char keys[BATCH_MAX][8];
    size_t count;
};

static void same(const struct parity *p, const char *what, int64_t lua, int64_t store)
{
    if (lua != store) {
        fail_msg("seed %" PRIu64 ", step %u: %s: Lua %" PRId64 ", store %" PRId64, p->seed, p->step, what,
                 lua, store);
    }
}

static void same_position(const struct parity *p, const char *what, struct log_position lua,
                          struct log_position store)
{
    same(p, what, (int64_t)lua.epoch, (int64_t)store.epoch);
    same(p, what, (int64_t)lua.n, (int64_t)store.n);
}

static uint32_t below(struct parity *p, uint32_t limit)
{
    return random_below(&p->random, limit);
}

static bool once_in(struct parity *p, uint32_t times)
{
    return below(p, times) == 0;
}

/* --- the two sides --- */
/* In PostgreSQL both are in one database, as two shops whose schemas are called like SQLite's databases in open_look(). */
static void open_side(struct side *side, const char *shop, char url[STORE_FIXTURE_URL_BYTES])
{
    char error[512];
    folder_make(side->folder);
    snprintf(side->path, sizeof side->path, "%s/shop.db", side->folder);
    if (!store_fixture_is_postgres() || url[0] == '\0') {
        store_fixture_new(side->folder, "shop.db", url, STORE_FIXTURE_URL_BYTES);
    }
    store_use_shop(shop);
    if (store_open(&side->store, url, STORE_WRITER, error, sizeof error) != STORE_OK) {
        fail_msg("%s", error);
    }
}

static void close_side(struct side *side)
{
    store_close(&side->store);
    if (side->folder[0] != '\0') {
        folder_remove(side->folder);
    }
    side->folder[0] = '\0';
}

/* The second store takes what Redis has written. */
static void record(struct parity *p)
{
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    static struct order_part parts[SALES_LOG_PARTS_MAX];
    struct log_room room = {.orders = orders,
                            .orders_max = SALES_LOG_ORDERS_MAX,
                            .parts = parts,
                            .parts_max = SALES_LOG_PARTS_MAX};
    struct log_entry entries[4];
    int64_t rejected[SALES_LOG_ORDERS_MAX];
    size_t count, rejected_count;
    redisReply *reply;
    assert_true(gate_read_log(p->redis, NULL, p->recorded, 0, entries, 4, &room, &count, &reply));
    assert_int_equal(store_record(p->records.store, EPOCH, p->recorded, entries, count, rejected,
                                  SALES_LOG_ORDERS_MAX, &rejected_count),
                     STORE_OK);
    same(p, "rejected orders", 0, (int64_t)rejected_count);
    if (count > 0) {
        p->recorded = entries[count - 1].position;
    }
    freeReplyObject(reply);
}

static struct store_product find_product(struct side *side, int64_t id)
{
    struct store_product product;
    assert_int_equal(store_find_product(side->store, id, &product), STORE_OK);
    return product;
}

/* --- figures --- */
static int64_t redis_number(struct parity *p, const char *key, int64_t id, const char *field)
{
    redisReply *reply = redis_ask(p->redis, "HGET %s%" PRId64 " %s", key, id, field);
    assert_non_null(reply);
    int64_t number = reply->type == REDIS_REPLY_STRING ? atoll(reply->str) : 0;
    freeReplyObject(reply);
    return number;
}

static void open_look(struct parity *p)
{
    char attach[256];
    if (store_fixture_is_postgres()) {
        return;
    }
    snprintf(attach, sizeof attach, "ATTACH '%s' AS records", p->records.path);
    assert_int_equal(sqlite3_open(p->decides.path, &p->look), SQLITE_OK);
    sqlite3_busy_timeout(p->look, 5000);
    assert_int_equal(sqlite3_exec(p->look, attach, NULL, NULL, NULL), SQLITE_OK);
}

/* 0: no row. */
static int64_t ask_both(const struct parity *p, const char *sql)
{
    sqlite3_stmt *statement;
    if (p->look == NULL) {
        int64_t number = store_fixture_ask(p->url, sql);
        return number < 0 ? 0 : number;
    }
    if (sqlite3_prepare_v2(p->look, sql, -1, &statement, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(p->look));
    }
    int64_t answer = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_finalize(statement);
    return answer;
}

static void compare_products(struct parity *p)
{
    struct store_product decides[UNKNOWN], records[UNKNOWN];
    struct store_position position;
    size_t count, recorded_count;
    assert_int_equal(store_position(p->decides.store, &position), STORE_OK);
    same_position(p, "position", p->recorded, position.recorded);
    assert_int_equal(store_products(p->decides.store, 0, decides, UNKNOWN, &count), STORE_OK);
    assert_int_equal(store_products(p->records.store, 0, records, UNKNOWN, &recorded_count), STORE_OK);
    assert_int_equal(count, recorded_count);
    for (size_t i = 0; i < count; i++) {
        same(p, "stock in Redis", redis_number(p, "{doorbuster}:product:", decides[i].id, "stock"),
             decides[i].stock);
        same(p, "stock", records[i].stock, decides[i].stock);
        same(p, "price", records[i].price, decides[i].price);
        same(p, "sold", records[i].sold, decides[i].sold);
        same(p, "cancelled", records[i].cancelled, decides[i].cancelled);
        same(p, "restocked", records[i].restocked, decides[i].restocked);
        same(p, "opened", records[i].opened, decides[i].opened);
        same(p, "opens at", records[i].starts_at_ms, decides[i].starts_at_ms);
        same(p, "over at", records[i].ends_at_ms, decides[i].ends_at_ms);
        p->stock_after[decides[i].id][position.recorded.n] = decides[i].stock;
    }
}

static void compare_owners(struct parity *p)
{
    for (int64_t product = 1; product <= LATE; product++) {
        for (int64_t user = 1; user <= USERS; user++) {
            char field[24], sql[160];
            snprintf(field, sizeof field, "%" PRId64, user);
            snprintf(sql, sizeof sql,
                     "SELECT units FROM main.limited_buyers WHERE product_id = %" PRId64
                     " AND user_id = %" PRId64,
                     product, user);
            same(p, "units of a customer", redis_number(p, "{doorbuster}:buyers:", product, field),
                 ask_both(p, sql));
        }
    }
}

static void compare_tables(struct parity *p)
{
    static const char *const rows[] = {
        "id, state, request, user_id, product_id, quantity, unit_price, remaining, log_epoch, log_n,"
        " idempotency_key, part_count FROM %s.orders",
        "* FROM %s.order_parts",
        "order_id, actor, log_epoch, log_n FROM %s.cancellations",
        "seq, log_epoch, log_n, product_id, cause, delta, from_figure, to_figure, applied, actor, note,"
        " idempotency_key FROM %s.audit_log",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char ours[300], theirs[300], sql[1600];
        snprintf(ours, sizeof ours, rows[i], "main");
        snprintf(theirs, sizeof theirs, rows[i], "records");
        snprintf(sql, sizeof sql,
                 "SELECT (SELECT count(*) FROM (SELECT %s EXCEPT SELECT %s) AS a)"
                 " + (SELECT count(*) FROM (SELECT %s EXCEPT SELECT %s) AS b)",
                 ours, theirs, theirs, ours);
        same(p, rows[i], 0, ask_both(p, sql));
    }
}

static void check_the_past(struct parity *p)
{
    struct log_position position = {EPOCH, 1 + below(p, (uint32_t)p->recorded.n)};
    int64_t product = 1 + below(p, PLAIN), stock = -1;
    bool known = false;
    assert_int_equal(store_stock_at(p->decides.store, product, position, &known, &stock), STORE_OK);
    same(p, "the past is known", true, known);
    same(p, "stock in the past", p->stock_after[product][position.n], stock);
}

static void compare_all(struct parity *p)
{
    compare_products(p);
    check_the_past(p);
    if (p->step % COMPARE_EVERY == 0 || p->step == STEPS) {
        compare_owners(p);
        compare_tables(p);
    }
}

/* --- purchases --- */
static int64_t any_product(struct parity *p)
{
    return once_in(p, 60) ? UNKNOWN : once_in(p, 30) ? LATE : 1 + below(p, LATE - 1);
}

static void make_purchase(struct parity *p, struct batch *batch)
{
    size_t i = batch->count++;
    struct sale_order *order = &batch->lua[i].purchase.order;
    memset(&batch->lua[i], 0, sizeof batch->lua[i]);
    memset(batch->lua_more[i], 0, sizeof batch->lua_more[i]);
    *order = (struct sale_order){.request = ++p->request,
                                 .user_id = 1 + below(p, USERS),
                                 .product_id = any_product(p),
                                 .quantity = 1 + below(p, once_in(p, 8) ? 30 : 3),
                                 .more = batch->lua_more[i],
                                 .more_count = once_in(p, 2) ? below(p, LINES_MAX) : 0};
    for (size_t line = 0; line < order->more_count; line++) { /* a product may well come twice */
        order->more[line] = (struct order_part){.product_id = any_product(p),
                                                .quantity = 1 + below(p, once_in(p, 9) ? 15 : 2)};
    }
    if (once_in(p, 3)) {
        order->key = batch->keys[i];
        order->key_bytes = (size_t)snprintf(batch->keys[i], sizeof batch->keys[i], "k%u", below(p, KEYS));
    }
    batch->store[i] = batch->lua[i].purchase;
    memcpy(batch->store_more[i], batch->lua_more[i], sizeof batch->store_more[i]);
    batch->store[i].order.more = batch->store_more[i];
}

/* Asked and understood as a worker does. */
static redisReply *call_sell_lua(struct parity *p, struct batch *batch, struct log_position *position)
{
    struct gate_head head;
    struct gate_purchase *purchases[BATCH_MAX];
    assert_true(gate_read_head(p->redis, &head));
    for (size_t i = 0; i < batch->count; i++) {
        purchases[i] = &batch->lua[i];
    }
    struct lua_call_words asked = lua_call_ask(head.scripts[GATE_SCRIPT_SELL], purchases, batch->count);
    redisReply *reply = redisCommandArgv(p->redis, asked.count, asked.words, asked.bytes);
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_ERROR) {
        fail_msg("seed %" PRIu64 ", step %u: %s", p->seed, p->step, reply->str);
    }
    assert_true(lua_call_is_answer(reply, purchases, batch->count, position));
    return reply;
}

static void compare_purchase(struct parity *p, const struct purchase *lua, const struct purchase *store)
{
    same(p, "order id", lua->order.id, store->order.id);
    same(p, "refusal", lua->refusal, store->refusal);
    same(p, "figure", lua->figure, store->figure);
    same(p, "refused product", lua->refused_product_id, store->refused_product_id);
    same(p, "limit", lua->limit, store->limit);
    same(p, "requested", lua->requested, store->requested);
    same(p, "short lines", lua->short_lines, store->short_lines);
    same(p, "wait, roughly", true, llabs(lua->wait_ms - store->wait_ms) < 60000);
    for (size_t i = 0; i < order_part_count(&lua->order); i++) {
        struct order_part a = order_part_at(&lua->order, i), b = order_part_at(&store->order, i);
        same(p, "line's price", a.unit_price, b.unit_price);
        same(p, "line's remaining", a.remaining, b.remaining);
    }
    p->sold += lua->refusal == REFUSAL_NONE;
    p->refused[-lua->refusal]++;
}

/* Every product that was moved, once, with its stock. */
static void compare_moves(struct parity *p, const struct stock_moves *moves)
{
    char sql[256];
    snprintf(sql, sizeof sql,
             "SELECT count(*) FROM main.audit_log WHERE log_n = %" PRIu64
             " AND product_id NOT IN (SELECT id FROM main.products WHERE is_bundle = 1)",
             p->recorded.n);
    same(p, "moves", ask_both(p, sql), (int64_t)moves->count);
    for (size_t i = 0; i < moves->count; i++) {
        same(p, "a move", find_product(&p->records, moves->each[i].product_id).stock, moves->each[i].stock);
    }
}

static void sell(struct parity *p)
{
    static struct batch batch;
    static struct stock_moves moves;
    struct purchase *purchases[BATCH_MAX];
    struct log_position position;
    size_t wanted = 1 + below(p, BATCH_MAX);
    for (batch.count = 0; batch.count < wanted;) {
        purchases[batch.count] = &batch.store[batch.count];
        make_purchase(p, &batch);
    }
    redisReply *reply = call_sell_lua(p, &batch, &position);
    if (store_sell(p->decides.store, purchases, batch.count, &moves) != STORE_OK) {
        fail_msg("%s", store_error(p->decides.store));
    }
    for (size_t i = 0; i < batch.count; i++) {
        struct purchase *lua = &batch.lua[i].purchase;
        lua->refusal = lua_call_take(reply, i, lua);
        compare_purchase(p, lua, &batch.store[i]);
    }
    freeReplyObject(reply);
    same_position(p, "position of a sale", position, moves.position);
    record(p);
    if (position.epoch != 0) {
        compare_moves(p, &moves);
    }
}

/* --- changes --- */
static void compare_change(struct parity *p, enum change_outcome lua, enum change_outcome store,
                           const struct change_result *lua_result, const struct change_result *store_result)
{
    same(p, "outcome of a change", lua, store);
    p->changes[lua]++;
    if (lua == CHANGE_MADE || lua == CHANGE_MADE_BEFORE) {
        same_position(p, "position of a change", lua_result->position, store_result->position);
        same(p, "stock of a change", lua_result->stock, store_result->stock);
        same(p, "product of a change", lua_result->product_id, store_result->product_id);
        same(p, "figure of a change", lua_result->figure, store_result->figure);
        same(p, "what it was", lua_result->kind, store_result->kind);
    }
    record(p);
}

static struct sale_product opening_of(const struct store_product *product)
{
    struct sale_product opening = {.id = product->id,
                                   .stock = product->planned_stock,
                                   .price = product->price,
                                   .limit = product->per_customer_limit,
                                   .starts_at_ms = product->starts_at_ms,
                                   .ends_at_ms = product->ends_at_ms,
                                   .component_count = product->component_count};
    memcpy(opening.components, product->components, sizeof opening.components);
    return opening;
}

static void change_stock(struct parity *p, const struct stock_change *change)
{
    struct change_result lua_result = {0}, store_result;
    enum change_outcome lua, store = CHANGE_FAILED;
    struct sale_product opening;
    bool is_opening = change->cause == STOCK_OPENING;
    if (is_opening) {
        struct store_product product = find_product(&p->records, change->product_id);
        opening = opening_of(&product);
    }
    lua = gate_change_stock(p->redis, change, is_opening ? &opening : NULL, 100, &lua_result);
    assert_int_equal(store_change_stock(p->decides.store, change, &store, &store_result), STORE_OK);
    compare_change(p, lua, store, &lua_result, &store_result);
}

static void change_any_stock(struct parity *p)
{
    char key[8];
    struct stock_change change = {
        .product_id = any_product(p), .actor = 1 + below(p, 2), .note = "as it \"is\""};
    switch (below(p, 8)) {
    case 0:
        change.cause = STOCK_HEALING;
        break;
    case 1:
        change.cause = STOCK_OPENING;
        change.product_id = 1 + below(p, LATE);
        change.delta = change.product_id > PLAIN && change.product_id < LATE ? 0 : 10;
        break;
    case 2:
        change.cause = STOCK_RESTOCK;
        change.delta = PRODUCT_STOCK_MAX; /* full, unless it is empty */
        break;
    case 3:
    case 4:
        change.cause = STOCK_WITHDRAWAL;
        change.delta = -1 - (int64_t)below(p, once_in(p, 3) ? 600 : 8);
        break;
    default:
        change.cause = STOCK_RESTOCK;
        change.delta = 1 + below(p, 60);
    }
    if (change.delta == PRODUCT_STOCK_MAX && change.product_id <= PLAIN &&
        find_product(&p->records, change.product_id).stock == 0) {
        change.delta = 7; /* or nothing of it would ever be short again */
    }
    if (once_in(p, 2)) {
        change.key = key;
        change.key_bytes = (size_t)snprintf(key, sizeof key, "k%u", below(p, KEYS));
    }
    change_stock(p, &change);
}

static void change_any_price(struct parity *p)
{
    char key[8];
    struct change_result lua_result = {0}, store_result;
    enum change_outcome store = CHANGE_FAILED;
    struct price_change change = {
        .product_id = any_product(p), .to = 1 + below(p, 1000), .actor = 1 + below(p, 2)};
    if (once_in(p, 2)) {
        change.key = key;
        change.key_bytes = (size_t)snprintf(key, sizeof key, "k%u", below(p, KEYS));
    }
    enum change_outcome lua = gate_change_price(p->redis, &change, 100, &lua_result);
    assert_int_equal(store_change_price(p->decides.store, &change, &store, &store_result), STORE_OK);
    compare_change(p, lua, store, &lua_result, &store_result);
}

/* Mostly such that it is open afterwards. "Now" would be another moment for each of the two. */
static void change_any_window(struct parity *p)
{
    char key[8];
    struct change_result lua_result = {0}, store_result;
    enum change_outcome store = CHANGE_FAILED;
    int64_t now_ms = clock_wall_ms();
    const int64_t starts[] = {SALE_WINDOW_KEEP, 0, now_ms - HOUR_MS, now_ms - 2 * HOUR_MS, now_ms + HOUR_MS};
    const int64_t ends[] = {SALE_WINDOW_KEEP, 0, now_ms + HOUR_MS, SALE_TIME_MS_MAX, now_ms - HOUR_MS / 2};
    bool stays_open = !once_in(p, 4);
    struct window_change change = {
        .product_id = any_product(p),
        .to = {starts[below(p, stays_open ? 4 : 5)], ends[below(p, stays_open ? 4 : 5)]},
        .actor = 1 + below(p, 2)};
    if (once_in(p, 2)) {
        change.key = key;
        change.key_bytes = (size_t)snprintf(key, sizeof key, "k%u", below(p, KEYS));
    }
    enum change_outcome lua = gate_change_window(p->redis, &change, 100, &lua_result);
    assert_int_equal(store_change_window(p->decides.store, &change, &store, &store_result), STORE_OK);
    compare_change(p, lua, store, &lua_result, &store_result);
}

/* --- cancelling --- */
static enum change_outcome cancel_by_lua(struct parity *p, int64_t order_id, int64_t actor,
                                         struct change_result *result)
{
    struct store_order order;
    struct order_part parts[ORDER_PARTS_MAX];
    struct gate_pass pass;
    size_t count;
    bool is_void;
    assert_true(gate_take_pass(p->redis, &pass));
    if (store_find_order(p->records.store, order_id, &order) != STORE_OK) {
        return CHANGE_CLOSED;
    }
    parts[0] = order_part_at(&order.sale, 0);
    assert_int_equal(store_order_parts(p->records.store, order_id, parts + 1, ORDER_PARTS_MAX - 1, &count),
                     STORE_OK);
    struct cancellation cancel = {.order_id = order_id,
                                  .user_id = order.sale.user_id,
                                  .actor = actor,
                                  .parts = parts,
                                  .part_count = count + 1};
    enum change_outcome outcome = gate_cancel(p->redis, &pass, &cancel, result, &is_void);
    assert_false(is_void);
    return outcome;
}

static void cancel_any(struct parity *p)
{
    static struct stock_moves moves;
    struct change_result lua_result = {0}, store_result;
    struct store_position position;
    enum change_outcome store = CHANGE_FAILED;
    assert_int_equal(store_position(p->records.store, &position), STORE_OK);
    int64_t order_id = 1 + below(p, (uint32_t)position.last_order_id + 2), actor = 1 + below(p, USERS);
    enum change_outcome lua = cancel_by_lua(p, order_id, actor, &lua_result);
    assert_int_equal(store_cancel(p->decides.store, order_id, actor, &store, &store_result, &moves),
                     STORE_OK);
    compare_change(p, lua, store, &lua_result, &store_result);
    if (lua == CHANGE_MADE) {
        compare_moves(p, &moves);
    } else {
        assert_int_equal(moves.count, 0);
    }
}

/* --- the store was the Lua gate's in between, as far as buyers and keys are concerned --- */
static void take_over_again(struct parity *p)
{
    static const char sql[] =
        "UPDATE main.state SET seller = 0, epoch = epoch - 1; DELETE FROM main.recent_keys;"
        "UPDATE main.limited_buyers SET units = units + 1;"
        "INSERT INTO main.recent_keys (user_id, key, order_id, at_ms) VALUES (1, 'k1', 1, 99999999999999)";
    if (p->look == NULL) {
        assert_true(store_fixture_edit(p->url, sql));
    } else {
        assert_int_equal(sqlite3_exec(p->look, sql, NULL, NULL, NULL), SQLITE_OK);
    }
    assert_int_equal(store_take_over(p->decides.store), STORE_OK);
}

/* --- a run --- */
static int64_t any_limit(struct parity *p)
{
    return once_in(p, 2) ? 0 : 2 + below(p, 20);
}

static void set_window(struct parity *p, struct store_product *product)
{
    int64_t now_ms = clock_wall_ms();
    switch (below(p, 24)) {
    case 0:
        product->starts_at_ms = now_ms + HOUR_MS;
        break;
    case 1:
        product->ends_at_ms = now_ms - HOUR_MS;
        break;
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
        product->starts_at_ms = now_ms - HOUR_MS;
        product->ends_at_ms = now_ms + HOUR_MS;
        break;
    default:
        break;
    }
}

static void set_components(struct parity *p, struct store_product *product)
{
    uint32_t first = below(p, PLAIN);
    product->component_count = 1 + below(p, PLAIN - 1);
    for (size_t i = 0; i < product->component_count; i++) {
        product->components[i] =
            (struct bundle_component){1 + (int64_t)((first + i) % PLAIN), 1 + (int64_t)below(p, 3)};
    }
}

static void add_product(struct parity *p, int64_t id)
{
    struct store_product product = {.price = 1 + (int64_t)below(p, 1000), .per_customer_limit = any_limit(p)},
                         again;
    bool is_bundle = id > PLAIN && id < LATE;
    snprintf(product.name, sizeof product.name, "Product %" PRId64, id);
    product.planned_stock = is_bundle ? 0 : 5 + below(p, 250);
    set_window(p, &product);
    if (is_bundle) {
        set_components(p, &product);
    }
    again = product;
    assert_int_equal(store_add_product(p->decides.store, &product), STORE_OK);
    assert_int_equal(store_add_product(p->records.store, &again), STORE_OK);
    assert_int_equal(product.id, id);
    if (id != LATE) {
        change_stock(p, &(struct stock_change){
                            .product_id = id, .delta = product.planned_stock, .cause = STOCK_OPENING});
    }
}

static void close_all(struct parity *p)
{
    sqlite3_close(p->look);
    p->look = NULL;
    close_side(&p->decides);
    close_side(&p->records);
}

static void begin(struct parity *p, uint64_t seed)
{
    p->seed = p->random = seed;
    p->step = 0;
    p->recorded = (struct log_position){EPOCH, 0};
    memset(p->stock_after, 0, sizeof p->stock_after);
    p->url[0] = '\0';
    open_side(&p->decides, "main", p->url);
    open_side(&p->records, "records", p->url);
    open_look(p);
    assert_int_equal(store_take_over(p->decides.store), STORE_OK);
    assert_int_equal(store_raise_epoch(p->records.store, 0, EPOCH), STORE_OK);
    assert_int_equal(store_skip_to(p->records.store, EPOCH, (struct log_position){0, 0}, p->recorded),
                     STORE_OK);
    assert_true(gate_wipe(p->redis, p->recorded));
    assert_true(gate_finish_rebuild(p->redis, 1, 0, 0));
    assert_true(gate_open(p->redis, EPOCH));
    for (int64_t id = 1; id <= LATE; id++) {
        add_product(p, id);
        compare_products(p);
    }
}

static void take_step(struct parity *p)
{
    switch (below(p, 13)) {
    case 12:
        change_any_window(p);
        break;
    case 0:
    case 1:
        cancel_any(p);
        break;
    case 2:
        change_any_stock(p);
        break;
    case 3:
        change_any_price(p);
        break;
    default:
        sell(p);
    }
    if (once_in(p, 40)) {
        take_over_again(p);
    }
}

static void check_chain(struct side *side)
{
    struct store_chain_audit chain;
    struct store_orders_audit orders;
    assert_int_equal(store_audit_chain(side->store, &chain), STORE_OK);
    assert_int_equal(chain.first_gap + chain.first_forged + chain.first_off + chain.first_backwards, 0);
    assert_int_equal(store_audit_orders(side->store, &orders), STORE_OK);
    assert_int_equal(orders.first_gap + orders.rejected + orders.out_of_log_order + orders.out_of_time_order,
                     0);
}

static void play(struct parity *p, uint64_t seed)
{
    begin(p, seed);
    while (p->step < STEPS) {
        p->step++;
        take_step(p);
        compare_all(p);
    }
    check_chain(&p->decides);
    check_chain(&p->records);
    close_all(p);
}

static void test_the_store_decides_as_the_scripts_do(void **state)
{
    struct parity *p = *state;
    const char *seed = getenv("DOORBUSTER_SEED");
    unsigned rounds = seed != NULL ? 1 : rounds_wanted(store_fixture_is_postgres() ? ROUNDS / 3 : ROUNDS);
    for (uint64_t i = 0; i < rounds; i++) {
        play(p, seed != NULL ? strtoull(seed, NULL, 10) : i + 1);
    }
    /* Every answer was among them. */
    printf("%zu sold", p->sold);
    for (size_t refusal = 1; refusal < REFUSALS; refusal++) {
        printf(", %zu refused by %zu", p->refused[refusal], refusal);
        assert_true(seed != NULL || p->refused[refusal] > 0 || refusal == -REFUSAL_REJECTED ||
                    store_fixture_is_postgres()); /* which has fewer rounds */
    }
    for (size_t outcome = 0; outcome < CHANGE_FAILED; outcome++) {
        printf(", %zu changes with outcome %zu", p->changes[outcome], outcome);
        assert_true(seed != NULL || p->changes[outcome] > 0 || store_fixture_is_postgres());
    }
    printf("\n");
}

static int set_up(void **state)
{
    struct parity *p = calloc(1, sizeof *p);
    assert_non_null(p);
    redis_fixture_start(&p->fixture, false);
    p->redis = redis_fixture_connect(&p->fixture);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct parity *p = *state;
    close_all(p);
    redisFree(p->redis);
    redis_fixture_end(&p->fixture);
    free(p);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_store_decides_as_the_scripts_do, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
