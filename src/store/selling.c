/* Selling without a sales log, in SQLite: the store decides on a batch of purchases by the rules of selling.h and applies what it sold as the
 * recorder applies an entry of the log, in one transaction.
 *
 * Runs on pool threads of the workers; several processes take turns (sqlite.c). Owns the counter: the shelf and the room where a batch is
 * decided, allocated at the connection's first sale, kept until it is closed. limited_buyers and recent_keys are kept here and in
 * sqlite_changes.c alone.
 *
 * Failure: whatever fails, the transaction is rolled back and the purchases are as they were: they are told only after the commit. That the
 * books do not take what the rules have allowed is a bug, and ends the process. */
#include "sqlite.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/selling.h"

#include <stdlib.h>
#include <string.h>

#define PRUNED_FOR_EACH_KEY 2 /* old keys forgotten for each new one: so there are never many */

static const char selling[] = "selling";

/* Where a batch is decided. */
struct sqlite_counter {
    struct shelf shelf;
    struct verdict verdicts[SALES_LOG_ORDERS_MAX];
    struct sale_order orders[SALES_LOG_ORDERS_MAX];
    struct order_part parts[SALES_LOG_PARTS_MAX];
};

void sqlite_counter_free(struct sqlite_store *store)
{
    free(store->counter);
    store->counter = NULL;
}

/* --- a turn --- */
static enum store_status read_last_time(struct sqlite_store *store, const char *doing, int64_t *at_ms)
{
    sqlite3_stmt *row = store->statements[SQL_LAST_TIME];
    enum store_status status = STORE_OK;
    if (sqlite3_step(row) == SQLITE_ROW)
        *at_ms = sqlite3_column_int64(row, 0);
    else
        status = sqlite_fail(store, doing);
    sqlite3_reset(row);
    return status;
}

/* A position and order ids to come: only a hand that edits can have used them up. */
static bool has_room_behind(const struct store_position *position)
{
    return position->recorded.epoch <= position->epoch && position->recorded.n < INT64_MAX &&
           position->last_order_id <= INT64_MAX - SALES_LOG_ORDERS_MAX;
}

static enum store_status look_around(struct sqlite_turn *turn)
{
    int64_t last_ms = 0;
    enum store_status status = sqlite_position(&turn->store->base, &turn->position);
    if (status == STORE_OK && turn->position.seller != STORE_SOLD_BY_REDLOCK)
        status = STORE_FENCED;
    if (status == STORE_OK)
        status = sqlite_books_begin(turn->store, turn->doing);
    if (status == STORE_OK)
        status = read_last_time(turn->store, turn->doing, &last_ms);
    const struct log_position recorded = turn->position.recorded;
    turn->next = (struct log_position){turn->position.epoch, recorded.n + 1};
    turn->now_ms = clock_wall_ms();
    turn->at_ms = turn->now_ms > last_ms ? turn->now_ms : last_ms;
    if (status == STORE_OK && !has_room_behind(&turn->position))
        status =
            sqlite_refuse(turn->store, "%s in %s failed: nothing can come after %llu-%llu with order %lld",
                          turn->doing, turn->store->path, (unsigned long long)recorded.epoch,
                          (unsigned long long)recorded.n, (long long)turn->position.last_order_id);
    return status;
}

enum store_status sqlite_turn_begin(struct sqlite_store *store, const char *doing, struct sqlite_turn *out)
{
    *out = (struct sqlite_turn){.store = store, .doing = doing};
    enum store_status status = sqlite_make_log_sound(store);
    if (status == STORE_OK)
        status = sqlite_write_begin(store, doing);
    if (status != STORE_OK)
        return status;
    status = failpoint("store.begun") ? sqlite_fail_for_a_test(store, doing) : look_around(out);
    return status == STORE_OK ? STORE_OK : sqlite_turn_end(out, status);
}

enum store_status sqlite_turn_end(const struct sqlite_turn *turn, enum store_status status)
{
    struct sqlite_store *store = turn->store;
    if (status == STORE_OK && failpoint("store.commit"))
        status = sqlite_fail_for_a_test(store, turn->doing);
    status = sqlite_write_end(store, status, turn->doing);
    if (status == STORE_OK && failpoint("store.committed"))
        status = sqlite_fail_for_a_test(store, turn->doing);
    if (status != STORE_OK)
        sqlite_books_forget(&store->books);
    return status;
}

enum store_status sqlite_turn_apply(const struct sqlite_turn *turn, struct log_entry *entry)
{
    int64_t rejected[SALES_LOG_ORDERS_MAX];
    size_t rejected_count = 0;
    entry->position = turn->next;
    entry->at_ms = turn->at_ms;
    enum store_status status = sqlite_apply_run(turn->store, turn->position.epoch, turn->position.recorded,
                                                entry, 1, rejected, &rejected_count);
    CHECK(status != STORE_OK || rejected_count == 0);
    return status;
}

/* --- taking the store over --- */
static bool insert_key(struct sqlite_store *store, int64_t user_id, const char *key, size_t key_bytes,
                       int64_t order_id, int64_t at_ms)
{
    sqlite3_stmt *statement = store->statements[SQL_PUT_RECENT_KEY];
    sqlite3_bind_int64(statement, 1, user_id);
    sqlite3_bind_text(statement, 2, key, (int)key_bytes, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 3, order_id);
    sqlite3_bind_int64(statement, 4, at_ms);
    return sqlite_run(statement) == SQLITE_DONE;
}

struct key_rebuild {
    struct sqlite_store *store;
    bool failed;
};

static bool rebuild_key_cb(void *context, int64_t user_id, const char *key, int64_t order_id, int64_t at_ms)
{
    struct key_rebuild *rebuild = context;
    rebuild->failed = !insert_key(rebuild->store, user_id, key, strlen(key), order_id, at_ms);
    return !rebuild->failed;
}

static enum store_status rebuild(struct sqlite_store *store, const char *doing)
{
    static const enum sqlite_statement steps[] = {SQL_CLEAR_LIMITED_BUYERS, SQL_FILL_LIMITED_BUYERS,
                                                  SQL_CLEAR_RECENT_KEYS, SQL_TAKE_OVER};
    struct key_rebuild keys = {.store = store};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (sqlite_run(store->statements[steps[i]]) != SQLITE_DONE)
            return sqlite_fail(store, doing);
    }
    enum store_status status =
        sqlite_each_key_now(store, clock_wall_ms() - IDEMPOTENCY_KEY_LIFETIME_MS, rebuild_key_cb, &keys);
    return keys.failed ? sqlite_fail(store, doing) : status;
}

static enum store_status take_over_in_turn(struct sqlite_store *store, const char *doing)
{
    struct store_position position;
    enum store_status status = sqlite_position(&store->base, &position);
    return status == STORE_OK && position.seller != STORE_SOLD_BY_REDLOCK ? rebuild(store, doing) : status;
}

enum store_status sqlite_take_over(struct store *base)
{
    static const char doing[] = "taking the store over";
    struct sqlite_store *store = sqlite_of(base);
    enum store_status status = sqlite_make_log_sound(store);
    if (status == STORE_OK)
        status = sqlite_write_begin(store, doing);
    return status == STORE_OK ? sqlite_write_end(store, take_over_in_turn(store, doing), doing) : status;
}

/* --- filling the shelf --- */
static struct sale_product terms_of(const struct sqlite_book *book, int64_t product_id)
{
    return (struct sale_product){.id = product_id,
                                 .stock = book->stock,
                                 .price = book->price,
                                 .limit = book->limit,
                                 .starts_at_ms = book->window.starts_at_ms,
                                 .ends_at_ms = book->window.ends_at_ms};
}

/* With its components, which are no bundles. */
static enum store_status put_product(struct sqlite_store *store, struct shelf *shelf, int64_t product_id,
                                     bool is_component)
{
    if (shelf_has_product(shelf, product_id))
        return STORE_OK;
    const struct sqlite_book *book = sqlite_book_of(store, product_id);
    if (book == NULL)
        return STORE_FAILED;
    struct sale_product terms = terms_of(book, product_id);
    enum store_status status = STORE_OK;
    bool on_sale = book->known && book->opened;
    if (book->is_bundle && !is_component)
        status = sqlite_components(store, product_id, terms.components, &terms.component_count);
    shelf_put_product(shelf, &terms, on_sale);
    for (size_t i = 0; i < terms.component_count && status == STORE_OK; i++)
        status = put_product(store, shelf, terms.components[i].product_id, true);
    return status;
}

static enum store_status put_owner(struct sqlite_store *store, struct shelf *shelf, int64_t product_id,
                                   int64_t user_id)
{
    if (shelf_product(shelf, product_id)->terms.limit == 0 || shelf_has_owner(shelf, product_id, user_id))
        return STORE_OK;
    sqlite3_stmt *row = store->statements[SQL_LIMITED_BUYER];
    sqlite3_bind_int64(row, 1, product_id);
    sqlite3_bind_int64(row, 2, user_id);
    int code = sqlite3_step(row);
    int64_t units = code == SQLITE_ROW ? sqlite3_column_int64(row, 0) : 0;
    sqlite3_reset(row);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        return sqlite_fail(store, selling);
    shelf_put_owner(shelf, product_id, user_id, units);
    return STORE_OK;
}

static enum store_status put_line(struct sqlite_store *store, struct shelf *shelf, int64_t product_id,
                                  int64_t user_id)
{
    enum store_status status = put_product(store, shelf, product_id, false);
    if (status == STORE_OK)
        status = put_owner(store, shelf, product_id, user_id);
    if (status != STORE_OK)
        return status;
    const struct sale_product *terms = &shelf_product(shelf, product_id)->terms;
    for (size_t i = 0; i < terms->component_count && status == STORE_OK; i++)
        status = put_owner(store, shelf, terms->components[i].product_id, user_id);
    return status;
}

static enum store_status put_key(struct sqlite_store *store, struct shelf *shelf,
                                 const struct sale_order *order)
{
    if (order->key == NULL || shelf_has_key(shelf, order->user_id, order->key, order->key_bytes))
        return STORE_OK;
    sqlite3_stmt *row = store->statements[SQL_RECENT_KEY];
    sqlite3_bind_int64(row, 1, order->user_id);
    sqlite3_bind_text(row, 2, order->key, (int)order->key_bytes, SQLITE_STATIC);
    sqlite3_bind_int64(row, 3, shelf->now_ms - IDEMPOTENCY_KEY_LIFETIME_MS);
    int code = sqlite3_step(row);
    int64_t order_id = code == SQLITE_ROW ? sqlite3_column_int64(row, 0) : 0;
    sqlite3_reset(row);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        return sqlite_fail(store, selling);
    shelf_put_key(shelf, order->user_id, order->key, order->key_bytes, order_id);
    return STORE_OK;
}

static enum store_status fill_shelf(struct sqlite_store *store, struct shelf *shelf,
                                    struct purchase *const *purchases, size_t count)
{
    enum store_status status = STORE_OK;
    for (size_t i = 0; i < count && status == STORE_OK; i++) {
        const struct sale_order *order = &purchases[i]->order;
        status = put_key(store, shelf, order);
        for (size_t line = 0; line < order_part_count(order) && status == STORE_OK; line++)
            status = put_line(store, shelf, order_part_at(order, line).product_id, order->user_id);
    }
    return status;
}

/* --- keeping what was sold --- */
/* The books say what the rules said. */
static void check_books(struct sqlite_store *store, const struct shelf *shelf)
{
    for (size_t i = 0; i < shelf->product_count; i++) {
        const struct shelf_product *product = &shelf->products[i];
        if (product->moved)
            CHECK(sqlite_books_find(&store->books, product->terms.id)->stock == product->terms.stock);
    }
}

static enum store_status keep_owners(struct sqlite_store *store, const struct shelf *shelf)
{
    sqlite3_stmt *statement = store->statements[SQL_PUT_LIMITED_BUYER];
    for (size_t i = 0; i < shelf->owner_count; i++) {
        const struct shelf_owner *owner = &shelf->owners[i];
        if (!owner->changed)
            continue;
        sqlite3_bind_int64(statement, 1, owner->product_id);
        sqlite3_bind_int64(statement, 2, owner->user_id);
        sqlite3_bind_int64(statement, 3, owner->units);
        if (sqlite_run(statement) != SQLITE_DONE)
            return sqlite_fail(store, selling);
    }
    return STORE_OK;
}

static enum store_status prune_keys(struct sqlite_store *store, int64_t now_ms, int64_t most)
{
    sqlite3_stmt *statement = store->statements[SQL_PRUNE_RECENT_KEYS];
    sqlite3_bind_int64(statement, 1, now_ms - IDEMPOTENCY_KEY_LIFETIME_MS);
    sqlite3_bind_int64(statement, 2, most);
    return sqlite_run(statement) == SQLITE_DONE ? STORE_OK : sqlite_fail(store, selling);
}

static enum store_status keep_keys(const struct sqlite_turn *turn, const struct shelf *shelf)
{
    int64_t kept = 0;
    for (size_t i = 0; i < shelf->key_count; i++) {
        const struct shelf_key *key = &shelf->keys[i];
        if (!key->is_new)
            continue;
        if (!insert_key(turn->store, key->user_id, key->key, key->key_bytes, key->order_id, turn->at_ms))
            return sqlite_fail(turn->store, selling);
        kept++;
    }
    return kept == 0 ? STORE_OK : prune_keys(turn->store, turn->now_ms, PRUNED_FOR_EACH_KEY * kept);
}

static enum store_status keep_sale(const struct sqlite_turn *turn, const struct shelf *shelf,
                                   const struct log_room *room)
{
    struct log_entry entry = {
        .kind = LOG_ENTRY_SALE, .orders = room->orders, .order_count = room->orders_used};
    enum store_status status = sqlite_turn_apply(turn, &entry);
    if (status == STORE_OK)
        status = keep_owners(turn->store, shelf);
    if (status == STORE_OK)
        status = keep_keys(turn, shelf);
    if (status == STORE_OK)
        check_books(turn->store, shelf);
    return status;
}

/* --- a batch --- */
static enum store_status decide(const struct sqlite_turn *turn, struct sqlite_counter *counter,
                                struct purchase *const *purchases, size_t count)
{
    struct log_room room = {.orders = counter->orders,
                            .orders_max = SALES_LOG_ORDERS_MAX,
                            .parts = counter->parts,
                            .parts_max = SALES_LOG_PARTS_MAX};
    shelf_clear(&counter->shelf, turn->now_ms, turn->position.last_order_id);
    enum store_status status = fill_shelf(turn->store, &counter->shelf, purchases, count);
    for (size_t i = 0; i < count && status == STORE_OK; i++)
        shelf_decide(&counter->shelf, purchases[i], &room, &counter->verdicts[i]);
    return status == STORE_OK && room.orders_used > 0 ? keep_sale(turn, &counter->shelf, &room) : status;
}

static void tell_purchases(const struct sqlite_turn *turn, const struct sqlite_counter *counter,
                           struct purchase *const *purchases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        purchase_take_verdict(purchases[i], &counter->verdicts[i]);
        if (counter->verdicts[i].order != NULL) {
            purchases[i]->at_ms = turn->at_ms;
            purchases[i]->position = turn->next;
        }
    }
}

static void tell_moves(const struct sqlite_turn *turn, const struct shelf *shelf, struct stock_moves *moves)
{
    for (size_t i = 0; i < shelf->product_count; i++) {
        const struct shelf_product *product = &shelf->products[i];
        if (product->moved && product->terms.component_count == 0)
            moves->each[moves->count++] =
                (struct stock_move){.product_id = product->terms.id, .stock = product->terms.stock};
    }
    if (moves->count > 0)
        moves->position = turn->next;
}

static bool has_counter(struct sqlite_store *store)
{
    if (store->counter == NULL)
        store->counter = malloc(sizeof *store->counter);
    return store->counter != NULL;
}

enum store_status sqlite_sell(struct store *base, struct purchase *const *purchases, size_t count,
                              struct stock_moves *moves)
{
    struct sqlite_store *store = sqlite_of(base);
    struct sqlite_turn turn;
    if (!has_counter(store))
        return sqlite_refuse(store, "%s in %s failed: out of memory", selling, store->path);
    enum store_status status = sqlite_turn_begin(store, selling, &turn);
    if (status != STORE_OK)
        return status;
    status = sqlite_turn_end(&turn, decide(&turn, store->counter, purchases, count));
    if (status == STORE_OK) {
        tell_purchases(&turn, store->counter, purchases, count);
        tell_moves(&turn, &store->counter->shelf, moves);
    }
    return status;
}
