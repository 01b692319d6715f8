/* The store's front: picks the driver that a URL names, checks what callers promise, and passes calls on.
 *
 * Runs in whatever process and thread calls it; owns nothing but the list of drivers and the word for those who wait. Fails only on a URL
 * that nobody understands; a broken promise of the caller (a write on a reader, a snapshot opened twice) is a
 * bug and stops the program. */
#include "driver.h"

#include "doorbuster/check.h"
#include "doorbuster/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct store_driver *const drivers[] = {&sqlite_driver};

static const struct store_driver *find_driver(const char *url, char *error, size_t error_bytes)
{
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0]; i++) {
        if (strncmp(url, drivers[i]->scheme, strlen(drivers[i]->scheme)) == 0)
            return drivers[i];
    }
    /* A URL may carry a password: of one that we do not know, say no more than the part before the colon. */
    size_t scheme = strcspn(url, ":");
    if (scheme == strlen(url))
        scheme = 0;
    snprintf(error, error_bytes,
             "no store is called \"%.*s%s\"; it may be sqlite:PATH, for example sqlite:data/doorbuster.db",
             (int)(scheme < 32 ? scheme : 32), url, scheme > 0 ? ":" : "");
    return NULL;
}

static void (*waiting_cb)(void);

void store_while_waiting(void (*cb)(void))
{
    waiting_cb = cb;
}

void store_tell_waiting(void)
{
    if (waiting_cb != NULL)
        waiting_cb();
}

static bool may_write(const struct store *store)
{
    return store->mode == STORE_WRITER && !store->in_snapshot;
}

bool store_url_is_valid(const char *url, char *error, size_t error_bytes)
{
    const struct store_driver *driver = find_driver(url, error, error_bytes);
    return driver != NULL && driver->url_is_valid(url, error, error_bytes);
}

enum store_status store_open(struct store **out, const char *url, enum store_mode mode, char *error,
                             size_t error_bytes)
{
    *out = NULL;
    const struct store_driver *driver = find_driver(url, error, error_bytes);
    if (driver == NULL)
        return STORE_FAILED;
    enum store_status status = driver->open(out, url, mode, error, error_bytes);
    CHECK((status == STORE_OK) == (*out != NULL));
    return status;
}

void store_close(struct store **store)
{
    if (*store == NULL)
        return;
    store_snapshot_end(*store);
    (*store)->driver->close(*store);
    *store = NULL;
}

const char *store_error(const struct store *store)
{
    return store->error;
}

/* --- accounts --- */
enum store_status store_add_user(struct store *store, struct store_user *user)
{
    CHECK(may_write(store));
    return store->driver->add_user(store, user);
}

enum store_status store_find_user(struct store *store, const char *username, struct store_user *out)
{
    return store->driver->find_user(store, username, out);
}

enum store_status store_find_user_by_id(struct store *store, int64_t id, struct store_user *out)
{
    return store->driver->find_user_by_id(store, id, out);
}

enum store_status store_update_user(struct store *store, int64_t id, enum user_role role,
                                    const char *password_hash)
{
    CHECK(may_write(store));
    return store->driver->update_user(store, id, role, password_hash);
}

/* --- products --- */
static bool components_are_sound(const struct store_product *product)
{
    bool sound = product->component_count <= BUNDLE_COMPONENTS_MAX;
    for (size_t i = 0; sound && i < product->component_count; i++) {
        const struct bundle_component *component = &product->components[i];
        sound = component->quantity >= 1 && component->quantity <= PURCHASE_QUANTITY_MAX;
        for (size_t j = 0; sound && j < i; j++)
            sound = product->components[j].product_id != component->product_id;
    }
    return sound;
}

enum store_status store_add_product(struct store *store, struct store_product *product)
{
    CHECK(may_write(store));
    CHECK(product->price > 0 && product->per_customer_limit >= 0 && product->planned_stock >= 0);
    CHECK(product->starts_at_ms >= 0 && product->ends_at_ms >= 0 && components_are_sound(product));
    return store->driver->add_product(store, product);
}

enum store_status store_find_product(struct store *store, int64_t id, struct store_product *out)
{
    return store->driver->find_product(store, id, out);
}

enum store_status store_find_product_by_name(struct store *store, const char *name, struct store_product *out)
{
    return store->driver->find_product_by_name(store, name, out);
}

enum store_status store_rename_product(struct store *store, int64_t id, const char *name)
{
    CHECK(may_write(store));
    return store->driver->rename_product(store, id, name);
}

enum store_status store_products(struct store *store, int64_t after, struct store_product *out, size_t max,
                                 size_t *count)
{
    return store->driver->products(store, after, out, max, count);
}

enum store_status store_catalog_size(struct store *store, size_t newest, int64_t *count, int64_t *first)
{
    CHECK(newest > 0);
    return store->driver->catalog_size(store, newest, count, first);
}

/* --- orders --- */
enum store_status store_find_order(struct store *store, int64_t id, struct store_order *out)
{
    return store->driver->find_order(store, id, out);
}

enum store_status store_order_parts(struct store *store, int64_t id, struct order_part *out, size_t max,
                                    size_t *count)
{
    return store->driver->order_parts(store, id, out, max, count);
}

enum store_status store_orders_of(struct store *store, int64_t user_id, int64_t before,
                                  struct store_order *out, size_t max, size_t *count)
{
    return store->driver->orders_of(store, user_id, before, out, max, count);
}

enum store_status store_latest_orders(struct store *store, struct store_order *out, size_t max, size_t *count)
{
    return store->driver->latest_orders(store, out, max, count);
}

enum store_status store_find_requests(struct store *store, struct log_position from,
                                      struct store_request *wanted, size_t count)
{
    return store->driver->find_requests(store, from, wanted, count);
}

/* --- the recorder --- */
enum store_status store_position(struct store *store, struct store_position *out)
{
    return store->driver->position(store, out);
}

enum store_status store_raise_epoch(struct store *store, uint64_t from, uint64_t to)
{
    CHECK(may_write(store));
    return store->driver->raise_epoch(store, from, to);
}

enum store_status store_skip_to(struct store *store, uint64_t epoch, struct log_position from,
                                struct log_position to)
{
    CHECK(may_write(store));
    return store->driver->skip_to(store, epoch, from, to);
}

enum store_status store_record(struct store *store, uint64_t epoch, struct log_position from,
                               const struct log_entry *entries, size_t count, int64_t *rejected,
                               size_t rejected_max, size_t *rejected_count)
{
    CHECK(may_write(store));
    size_t orders = 0;
    for (size_t i = 0; i < count; i++)
        orders += entries[i].kind == LOG_ENTRY_SALE ? entries[i].order_count : 0;
    CHECK(rejected_max >= orders);
    *rejected_count = 0;
    if (count == 0)
        return STORE_OK;
    enum store_status status =
        store->driver->record(store, epoch, from, entries, count, rejected, rejected_count);
    if (status != STORE_OK)
        *rejected_count = 0;
    CHECK(*rejected_count <= orders);
    return status;
}

/* --- without a sales log --- */
enum store_status store_take_over(struct store *store)
{
    CHECK(may_write(store));
    return store->driver->take_over(store);
}

enum store_status store_sell(struct store *store, struct purchase *const *purchases, size_t count,
                             struct stock_moves *moves)
{
    CHECK(may_write(store));
    size_t lines = 0;
    for (size_t i = 0; i < count; i++)
        lines += order_part_count(&purchases[i]->order);
    CHECK(count <= SALES_LOG_ORDERS_MAX && lines <= SALES_LOG_LINES_MAX);
    moves->position = (struct log_position){0};
    moves->count = 0;
    return count == 0 ? STORE_OK : store->driver->sell(store, purchases, count, moves);
}

enum store_status store_change_stock(struct store *store, const struct stock_change *change,
                                     enum change_outcome *outcome, struct change_result *result)
{
    CHECK(may_write(store));
    *result = (struct change_result){0};
    return store->driver->change_stock(store, change, outcome, result);
}

enum store_status store_change_price(struct store *store, const struct price_change *change,
                                     enum change_outcome *outcome, struct change_result *result)
{
    CHECK(may_write(store));
    CHECK(change->to >= 1 && change->to <= PRODUCT_PRICE_MAX);
    *result = (struct change_result){0};
    return store->driver->change_price(store, change, outcome, result);
}

enum store_status store_change_window(struct store *store, const struct window_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    CHECK(may_write(store));
    CHECK(sale_window_may_be_asked(&change->to));
    *result = (struct change_result){0};
    return store->driver->change_window(store, change, outcome, result);
}

enum store_status store_cancel(struct store *store, int64_t order_id, int64_t actor,
                               enum change_outcome *outcome, struct change_result *result,
                               struct stock_moves *moves)
{
    CHECK(may_write(store));
    *result = (struct change_result){0};
    moves->position = (struct log_position){0};
    moves->count = 0;
    return store->driver->cancel(store, order_id, actor, outcome, result, moves);
}

enum store_status store_stock_at(struct store *store, int64_t product_id, struct log_position position,
                                 bool *known, int64_t *stock)
{
    return store->driver->stock_at(store, product_id, position, known, stock);
}

enum store_status store_each_buyer(struct store *store, store_buyer_cb cb, void *context)
{
    return store->driver->each_buyer(store, cb, context);
}

enum store_status store_each_key(struct store *store, int64_t since_ms, store_key_cb cb, void *context)
{
    return store->driver->each_key(store, since_ms, cb, context);
}

enum store_status store_each_change_key(struct store *store, int64_t since_ms, store_change_key_cb cb,
                                        void *context)
{
    return store->driver->each_change_key(store, since_ms, cb, context);
}

/* --- backup --- */
bool store_file(const char *url, char path[STORE_PATH_BYTES], char *error, size_t error_bytes)
{
    _Static_assert(STORE_PATH_BYTES == PATH_MAX, "a path is as long as the system has it");
    const struct store_driver *driver = find_driver(url, error, error_bytes);
    return driver != NULL && driver->path(url, path, error, error_bytes);
}

enum store_status store_back_up(struct store *store, const char *path, struct store_position *position)
{
    CHECK(!store->in_snapshot);
    return store->driver->back_up(store, path, position);
}

enum store_status store_begin_anew(struct store *store)
{
    CHECK(may_write(store));
    return store->driver->begin_anew(store);
}

enum store_status store_pack(const char *url, char *error, size_t error_bytes)
{
    char path[STORE_PATH_BYTES];
    const struct store_driver *driver = find_driver(url, error, error_bytes);
    if (driver == NULL || !driver->path(url, path, error, error_bytes))
        return STORE_FAILED;
    return driver->pack(path, error, error_bytes);
}

/* --- the audit log --- */
bool store_cause_is_of_stock(const char *cause)
{
    return strcmp(cause, "price") != 0 && strcmp(cause, "starts") != 0 && strcmp(cause, "ends") != 0;
}

/* By hand rather than with snprintf: the recorder writes one of these for every product that an entry moves. */
static char *put_text(char *at, const char *text)
{
    size_t bytes = strlen(text);
    memcpy(at, text, bytes);
    at[bytes] = ' ';
    return at + bytes + 1;
}

static char *put_number(char *at, int64_t number, char separator)
{
    at += text_from_int64(number, at);
    *at = separator;
    return at + 1;
}

size_t store_audit_text(const struct store_audit_row *row, char out[STORE_AUDIT_TEXT_BYTES])
{
    _Static_assert(10 * TEXT_INT64_BYTES + STORE_AUDIT_CAUSE_BYTES + IDEMPOTENCY_KEY_BYTES_MAX +
                           SALES_LOG_NOTE_BYTES + 4 <=
                       STORE_AUDIT_TEXT_BYTES,
                   "the longest row fits");
    char *at = put_number(out, row->seq, ' ');
    at = put_number(at, row->at_ms, ' ');
    at = put_number(at, (int64_t)row->position.epoch, '-');
    at = put_number(at, (int64_t)row->position.n, ' ');
    at = put_number(at, row->product_id, ' ');
    at = put_text(at, row->cause);
    at = put_number(at, row->delta, ' ');
    at = put_number(at, row->from, ' ');
    at = put_number(at, row->to, ' ');
    at = put_number(at, row->applied, ' ');
    at = put_number(at, row->actor, ' ');
    at = put_text(at, row->key[0] == '\0' ? "-" : row->key);
    at = put_text(at, row->note);
    *--at = '\0'; /* the last blank */
    return (size_t)(at - out);
}

enum store_status store_audit_log(struct store *store, int64_t before, int64_t product_id,
                                  struct store_audit_row *out, size_t max, size_t *count)
{
    return store->driver->audit_log(store, before, product_id, out, max, count);
}

enum store_status store_audit_row_at(struct store *store, struct log_position position, int64_t product_id,
                                     struct store_audit_row *out)
{
    return store->driver->audit_row_at(store, position, product_id, out);
}

enum store_status store_audit_chain(struct store *store, struct store_chain_audit *out)
{
    CHECK(!store->in_snapshot);
    return store->driver->audit_chain(store, out);
}

/* --- audit --- */
enum store_status store_snapshot_begin(struct store *store)
{
    CHECK(!store->in_snapshot);
    enum store_status status = store->driver->snapshot_begin(store);
    store->in_snapshot = status == STORE_OK;
    return status;
}

void store_snapshot_end(struct store *store)
{
    if (!store->in_snapshot)
        return;
    store->in_snapshot = false;
    store->driver->snapshot_end(store);
}

enum store_status store_audit_product(struct store *store, int64_t product_id,
                                      struct store_product_audit *out)
{
    return store->driver->audit_product(store, product_id, out);
}

enum store_status store_audit_orders(struct store *store, struct store_orders_audit *out)
{
    return store->driver->audit_orders(store, out);
}
