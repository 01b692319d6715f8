/* Selling without a sales log: the store decides on a batch of purchases by the rules of selling.h and applies what it sold as the
 * recorder applies an entry of the log, in one transaction.
 *
 * Runs on pool threads of the workers; several processes take turns (sql_write_begin()). Owns the counter: the shelf and the room where a batch is
 * decided, allocated at the connection's first sale, kept until it is closed. limited_buyers and recent_keys are kept here and in
 * changes.c alone.
 *
 * Failure: whatever fails, the transaction is rolled back and the purchases are as they were: they are told only after the commit. That the
 * books do not take what the rules have allowed is a bug, and ends the process. */
#include "sql.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/selling.h"

#include <stdlib.h>
#include <string.h>

#define PRUNED_FOR_EACH_KEY 2 /* old keys forgotten for each new one: so there are never many */

static const char selling[] = "selling";

/* Where a batch is decided. */
struct store_counter {
    struct shelf shelf;
    struct verdict verdicts[SALES_LOG_ORDERS_MAX];
    struct sale_order orders[SALES_LOG_ORDERS_MAX];
    struct order_part parts[SALES_LOG_PARTS_MAX];
};

void store_counter_free(struct store_counter **counter)
{
    free(*counter);
    *counter = NULL;
}

/* --- a turn --- */
static int64_t later_of(int64_t a_ms, int64_t b_ms)
{
    return a_ms > b_ms ? a_ms : b_ms;
}

/* A rejected order has no row in the audit log: the later of both. */
static enum store_status read_last_time(struct store *store, const char *doing, int64_t *at_ms)
{
    const enum sql_statement row = SQL_LAST_TIME;
    enum store_status status = STORE_OK;
    if (sql_step(store, row) == SQL_ROW)
        *at_ms = later_of(sql_int(store, row, 0), sql_int(store, row, 1));
    else
        status = sql_fail(store, doing);
    sql_reset(store, row);
    return status;
}

/* A position and order ids to come: only a hand that edits can have used them up. */
static bool has_room_behind(const struct store_position *position)
{
    return position->recorded.epoch <= position->epoch && position->recorded.n < INT64_MAX &&
           position->last_order_id <= INT64_MAX - SALES_LOG_ORDERS_MAX;
}

static enum store_status look_around(struct store_turn *turn)
{
    int64_t last_ms = 0;
    sql_expect(turn->store, SQL_LAST_TIME);
    enum store_status status = store_position(turn->store, &turn->position);
    if (status == STORE_OK && turn->position.seller != STORE_SOLD_BY_REDLOCK)
        status = STORE_FENCED;
    if (status == STORE_OK)
        status = store_books_begin(turn->store, turn->position.epoch, turn->position.recorded);
    if (status == STORE_OK)
        status = read_last_time(turn->store, turn->doing, &last_ms);
    const struct log_position recorded = turn->position.recorded;
    turn->next = (struct log_position){turn->position.epoch, recorded.n + 1};
    turn->now_ms = clock_wall_ms();
    turn->at_ms = later_of(turn->now_ms, last_ms);
    if (status == STORE_OK && !has_room_behind(&turn->position))
        status =
            store_refuse(turn->store, "%s in %s failed: nothing can come after %llu-%llu with order %lld",
                         turn->doing, sql_where(turn->store), (unsigned long long)recorded.epoch,
                         (unsigned long long)recorded.n, (long long)turn->position.last_order_id);
    return status;
}

enum store_status store_turn_begin(struct store *store, const char *doing, struct store_turn *out)
{
    *out = (struct store_turn){.store = store, .doing = doing};
    enum store_status status = sql_make_sound(store);
    if (status == STORE_OK)
        status = sql_write_begin(store, doing);
    if (status != STORE_OK)
        return status;
    status = failpoint("store.begun") ? store_fail_for_a_test(store, doing) : look_around(out);
    return status == STORE_OK ? STORE_OK : store_turn_end(out, status);
}

enum store_status store_turn_end(const struct store_turn *turn, enum store_status status)
{
    struct store *store = turn->store;
    if (status == STORE_OK && failpoint("store.commit"))
        status = store_fail_for_a_test(store, turn->doing);
    status = sql_write_end(store, status, turn->doing);
    if (status == STORE_OK && failpoint("store.committed"))
        status = store_fail_for_a_test(store, turn->doing);
    if (status != STORE_OK)
        store_books_forget(&store->books);
    return status;
}

enum store_status store_turn_apply(const struct store_turn *turn, struct log_entry *entry)
{
    int64_t rejected[SALES_LOG_ORDERS_MAX];
    size_t rejected_count = 0;
    entry->position = turn->next;
    entry->at_ms = turn->at_ms;
    enum store_status status = store_apply_run(turn->store, turn->position.epoch, turn->position.recorded,
                                               entry, 1, rejected, &rejected_count);
    CHECK(status != STORE_OK || rejected_count == 0);
    return status;
}

/* --- taking the store over --- */
static bool insert_key(struct store *store, int64_t user_id, const char *key, size_t key_bytes,
                       int64_t order_id, int64_t at_ms)
{
    const enum sql_statement statement = SQL_PUT_RECENT_KEY;
    sql_bind_int(store, statement, 1, user_id);
    sql_bind_text(store, statement, 2, key, key_bytes);
    sql_bind_int(store, statement, 3, order_id);
    sql_bind_int(store, statement, 4, at_ms);
    return sql_run_later(store, statement) == SQL_DONE;
}

/* From the orders: of a key that was used twice the newer. */
static bool fill_keys(struct store *store)
{
    const int64_t since_ms = clock_wall_ms() - IDEMPOTENCY_KEY_LIFETIME_MS;
    int64_t first;
    if (store_first_order_since(store, since_ms, &first) != STORE_OK)
        return false;
    sql_bind_int(store, SQL_FILL_RECENT_KEYS, 1, first);
    sql_bind_int(store, SQL_FILL_RECENT_KEYS, 2, since_ms);
    return sql_run(store, SQL_FILL_RECENT_KEYS) == SQL_DONE;
}

static enum store_status rebuild(struct store *store, const char *doing)
{
    static const enum sql_statement steps[] = {SQL_CLEAR_LIMITED_BUYERS, SQL_FILL_LIMITED_BUYERS,
                                               SQL_CLEAR_RECENT_KEYS, SQL_TAKE_OVER};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (sql_run(store, steps[i]) != SQL_DONE)
            return sql_fail(store, doing);
    }
    return fill_keys(store) ? STORE_OK : sql_fail(store, doing);
}

static enum store_status take_over_in_turn(struct store *store, const char *doing)
{
    struct store_position position;
    enum store_status status = store_position(store, &position);
    return status == STORE_OK && position.seller != STORE_SOLD_BY_REDLOCK ? rebuild(store, doing) : status;
}

enum store_status store_take_over(struct store *store)
{
    static const char doing[] = "taking the store over";
    CHECK(store_may_write(store));
    enum store_status status = sql_make_sound(store);
    if (status == STORE_OK)
        status = sql_write_begin(store, doing);
    return status == STORE_OK ? sql_write_end(store, take_over_in_turn(store, doing), doing) : status;
}

/* --- filling the shelf --- */
static struct sale_product terms_of(const struct store_book *book, int64_t product_id)
{
    return (struct sale_product){.id = product_id,
                                 .stock = book->stock,
                                 .price = book->price,
                                 .limit = book->limit,
                                 .starts_at_ms = book->window.starts_at_ms,
                                 .ends_at_ms = book->window.ends_at_ms};
}

/* With its components, which are no bundles. */
static enum store_status put_product(struct store *store, struct shelf *shelf, int64_t product_id,
                                     bool is_component)
{
    if (shelf_has_product(shelf, product_id))
        return STORE_OK;
    struct store_book *book = store_book_of(store, product_id);
    const struct store_bundle *bundle = book == NULL ? NULL : store_book_bundle(store, book);
    if (bundle == NULL)
        return STORE_FAILED;
    struct sale_product terms = terms_of(book, product_id);
    enum store_status status = STORE_OK;
    bool on_sale = book->known && book->opened;
    if (!is_component) {
        terms.component_count = bundle->count;
        memcpy(terms.components, bundle->components, bundle->count * sizeof *bundle->components);
    }
    shelf_put_product(shelf, &terms, on_sale);
    for (size_t i = 0; i < terms.component_count && status == STORE_OK; i++)
        status = put_product(store, shelf, terms.components[i].product_id, true);
    return status;
}

static void bind_owner(struct store *store, int64_t product_id, int64_t user_id)
{
    sql_bind_int(store, SQL_LIMITED_BUYER, 1, product_id);
    sql_bind_int(store, SQL_LIMITED_BUYER, 2, user_id);
}

static enum store_status put_owner(struct store *store, struct shelf *shelf, int64_t product_id,
                                   int64_t user_id)
{
    if (shelf_product(shelf, product_id)->terms.limit == 0 || shelf_has_owner(shelf, product_id, user_id))
        return STORE_OK;
    const enum sql_statement row = SQL_LIMITED_BUYER;
    bind_owner(store, product_id, user_id);
    enum sql_result result = sql_step(store, row);
    int64_t units = result == SQL_ROW ? sql_int(store, row, 0) : 0;
    sql_reset(store, row);
    if (result != SQL_ROW && result != SQL_DONE)
        return sql_fail(store, selling);
    shelf_put_owner(shelf, product_id, user_id, units);
    return STORE_OK;
}

static enum store_status put_owners_of(struct store *store, struct shelf *shelf, int64_t product_id,
                                       int64_t user_id)
{
    enum store_status status = put_owner(store, shelf, product_id, user_id);
    const struct sale_product *terms = &shelf_product(shelf, product_id)->terms;
    for (size_t i = 0; i < terms->component_count && status == STORE_OK; i++)
        status = put_owner(store, shelf, terms->components[i].product_id, user_id);
    return status;
}

static void bind_key(struct store *store, const struct shelf *shelf, const struct sale_order *order)
{
    sql_bind_int(store, SQL_RECENT_KEY, 1, order->user_id);
    sql_bind_text(store, SQL_RECENT_KEY, 2, order->key, order->key_bytes);
    sql_bind_int(store, SQL_RECENT_KEY, 3, shelf->now_ms - IDEMPOTENCY_KEY_LIFETIME_MS);
}

static enum store_status put_key(struct store *store, struct shelf *shelf, const struct sale_order *order)
{
    if (order->key == NULL || shelf_has_key(shelf, order->user_id, order->key, order->key_bytes))
        return STORE_OK;
    const enum sql_statement row = SQL_RECENT_KEY;
    bind_key(store, shelf, order);
    enum sql_result result = sql_step(store, row);
    int64_t order_id = result == SQL_ROW ? sql_int(store, row, 0) : 0;
    sql_reset(store, row);
    if (result != SQL_ROW && result != SQL_DONE)
        return sql_fail(store, selling);
    shelf_put_key(shelf, order->user_id, order->key, order->key_bytes, order_id);
    return STORE_OK;
}

/* What follows asks for the same, one by one. */
static void expect_terms(struct store *store, const struct shelf *shelf, const struct sale_order *order)
{
    for (size_t line = 0; line < order_part_count(order); line++)
        store_books_expect(store, order_part_at(order, line).product_id);
    if (order->key == NULL)
        return;
    bind_key(store, shelf, order);
    sql_expect(store, SQL_RECENT_KEY);
}

/* Of bundles not those of their components, which are few. Those of one buyer may be expected twice, and then are asked for once too often. */
static void expect_owners(struct store *store, const struct shelf *shelf, const struct sale_order *order)
{
    for (size_t line = 0; line < order_part_count(order); line++) {
        int64_t product_id = order_part_at(order, line).product_id;
        if (shelf_product(shelf, product_id)->terms.limit == 0)
            continue;
        bind_owner(store, product_id, order->user_id);
        sql_expect(store, SQL_LIMITED_BUYER);
    }
}

static enum store_status put_terms(struct store *store, struct shelf *shelf, const struct sale_order *order)
{
    enum store_status status = put_key(store, shelf, order);
    for (size_t line = 0; line < order_part_count(order) && status == STORE_OK; line++)
        status = put_product(store, shelf, order_part_at(order, line).product_id, false);
    return status;
}

static enum store_status put_owners(struct store *store, struct shelf *shelf, const struct sale_order *order)
{
    enum store_status status = STORE_OK;
    for (size_t line = 0; line < order_part_count(order) && status == STORE_OK; line++)
        status = put_owners_of(store, shelf, order_part_at(order, line).product_id, order->user_id);
    return status;
}

/* First who buys what, for all purchases, then what the buyers of limited products have: two round trips where the database is far away. */
static enum store_status fill_shelf(struct store *store, struct shelf *shelf,
                                    struct purchase *const *purchases, size_t count)
{
    const bool far_away = sql_may_expect(store);
    enum store_status status = STORE_OK;
    for (size_t i = 0; far_away && i < count; i++)
        expect_terms(store, shelf, &purchases[i]->order);
    for (size_t i = 0; i < count && status == STORE_OK; i++)
        status = put_terms(store, shelf, &purchases[i]->order);
    for (size_t i = 0; far_away && i < count && status == STORE_OK; i++)
        expect_owners(store, shelf, &purchases[i]->order);
    for (size_t i = 0; i < count && status == STORE_OK; i++)
        status = put_owners(store, shelf, &purchases[i]->order);
    return status;
}

/* --- keeping what was sold --- */
/* The books say what the rules said. */
static void check_books(struct store *store, const struct shelf *shelf)
{
    for (size_t i = 0; i < shelf->product_count; i++) {
        const struct shelf_product *product = &shelf->products[i];
        if (product->moved)
            CHECK(store_books_find(&store->books, product->terms.id)->stock == product->terms.stock);
    }
}

static enum store_status keep_owners(struct store *store, const struct shelf *shelf)
{
    const enum sql_statement statement = SQL_PUT_LIMITED_BUYER;
    for (size_t i = 0; i < shelf->owner_count; i++) {
        const struct shelf_owner *owner = &shelf->owners[i];
        if (!owner->changed)
            continue;
        sql_bind_int(store, statement, 1, owner->product_id);
        sql_bind_int(store, statement, 2, owner->user_id);
        sql_bind_int(store, statement, 3, owner->units);
        if (sql_run_later(store, statement) != SQL_DONE)
            return sql_fail(store, selling);
    }
    return STORE_OK;
}

static enum store_status prune_keys(struct store *store, int64_t now_ms, int64_t most)
{
    const enum sql_statement statement = SQL_PRUNE_RECENT_KEYS;
    sql_bind_int(store, statement, 1, now_ms - IDEMPOTENCY_KEY_LIFETIME_MS);
    sql_bind_int(store, statement, 2, most);
    return sql_run_later(store, statement) == SQL_DONE ? STORE_OK : sql_fail(store, selling);
}

static enum store_status keep_keys(const struct store_turn *turn, const struct shelf *shelf)
{
    int64_t kept = 0;
    for (size_t i = 0; i < shelf->key_count; i++) {
        const struct shelf_key *key = &shelf->keys[i];
        if (!key->is_new)
            continue;
        if (!insert_key(turn->store, key->user_id, key->key, key->key_bytes, key->order_id, turn->at_ms))
            return sql_fail(turn->store, selling);
        kept++;
    }
    return kept == 0 ? STORE_OK : prune_keys(turn->store, turn->now_ms, PRUNED_FOR_EACH_KEY * kept);
}

static enum store_status keep_sale(const struct store_turn *turn, const struct shelf *shelf,
                                   const struct log_room *room)
{
    struct log_entry entry = {
        .kind = LOG_ENTRY_SALE, .orders = room->orders, .order_count = room->orders_used};
    enum store_status status = store_turn_apply(turn, &entry);
    if (status == STORE_OK)
        status = keep_owners(turn->store, shelf);
    if (status == STORE_OK)
        status = keep_keys(turn, shelf);
    if (status == STORE_OK)
        check_books(turn->store, shelf);
    return status;
}

/* --- a batch --- */
static enum store_status decide(const struct store_turn *turn, struct store_counter *counter,
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

static void tell_purchases(const struct store_turn *turn, const struct store_counter *counter,
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

static void tell_moves(const struct store_turn *turn, const struct shelf *shelf, struct stock_moves *moves)
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

static bool has_counter(struct store *store)
{
    if (store->counter == NULL)
        store->counter = malloc(sizeof *store->counter);
    return store->counter != NULL;
}

enum store_status store_sell(struct store *store, struct purchase *const *purchases, size_t count,
                             struct stock_moves *moves)
{
    CHECK(store_may_write(store));
    size_t lines = 0;
    for (size_t i = 0; i < count; i++)
        lines += order_part_count(&purchases[i]->order);
    CHECK(count <= SALES_LOG_ORDERS_MAX && lines <= SALES_LOG_LINES_MAX);
    moves->position = (struct log_position){0};
    moves->count = 0;
    if (count == 0)
        return STORE_OK;
    struct store_turn turn;
    if (!has_counter(store))
        return store_refuse(store, "%s in %s failed: out of memory", selling, sql_where(store));
    enum store_status status = store_turn_begin(store, selling, &turn);
    if (status != STORE_OK)
        return status;
    status = store_turn_end(&turn, decide(&turn, store->counter, purchases, count));
    if (status == STORE_OK) {
        tell_purchases(&turn, store->counter, purchases, count);
        tell_moves(&turn, &store->counter->shelf, moves);
    }
    return status;
}
