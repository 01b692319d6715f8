/* The store's newer half: carts, bundles, cancellations, price changes, the audit log and its chain, and the upgrade of a store from before
 * them. Against a real SQLite store in a temporary folder, which the tests edit behind its back by a connection of their own. One process. */
#include "doorbuster/store.h"

#include "embedded.h"
#include "folder.h"
#include "testing.h"

#include <inttypes.h>
#include <sodium.h>
#include "store_fixture.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REJECTED_MAX 300
#define STOCK 10

/* The shop: three products with STOCK units each, a bundle of 1 lamp and 2 chairs, a bundle of 1 lamp and 1 table. */
enum { LAMP = 1, CHAIR, TABLE, SET, DUO, UNKNOWN = 99 };
enum { ADA = 11, BOB, ADMIN };

struct fixture {
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + 16], url[STORE_FIXTURE_URL_BYTES];
    struct store *store; /* a writer */
    bool triggers_are_gone;
    int64_t next_id, product_count;
    struct log_position position;
    int64_t at_ms;
    int64_t rejected[REJECTED_MAX];
    size_t rejected_count;
};

#define assert_ok(f, status) assert_status((f), (status), STORE_OK, __LINE__)

static void assert_status(struct fixture *f, enum store_status status, enum store_status expected, int line)
{
    if (status != expected)
        fail_msg("line %d: status %d, not %d: %s", line, (int)status, (int)expected, store_error(f->store));
}

static void open_store(struct fixture *f)
{
    char error[512] = "";
    if (store_open(&f->store, f->url, STORE_WRITER, error, sizeof error) != STORE_OK)
        fail_msg("opening %s: %s", f->url, error);
}

static int set_up_closed(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->folder);
    snprintf(f->path, sizeof f->path, "%s/shop.db", f->folder);
    store_fixture_new(f->folder, "shop.db", f->url, sizeof f->url);
    f->next_id = 1;
    f->at_ms = 1000;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    store_close(&f->store);
    folder_remove(f->folder);
    free(f);
    return 0;
}

/* --- what the gate would log --- */
static struct log_entry entry_of(struct fixture *f, enum log_entry_kind kind)
{
    f->position = (struct log_position){1, f->position.n + 1};
    return (struct log_entry){.position = f->position, .kind = kind, .at_ms = ++f->at_ms};
}

static struct log_entry stock_entry(struct fixture *f, int64_t product, int64_t delta, enum stock_cause cause)
{
    struct log_entry entry = entry_of(f, LOG_ENTRY_STOCK);
    entry.stock =
        (struct stock_change){.product_id = product, .delta = delta, .cause = cause, .actor = ADMIN};
    snprintf(entry.stock.note, sizeof entry.stock.note, "a \"pallet\" — it's 50 %% off");
    return entry;
}

static struct log_entry price_entry(struct fixture *f, int64_t product, int64_t from, int64_t to)
{
    struct log_entry entry = entry_of(f, LOG_ENTRY_PRICE);
    entry.price = (struct price_change){.product_id = product, .from = from, .to = to, .actor = ADMIN};
    snprintf(entry.price.note, sizeof entry.price.note, "second hour");
    return entry;
}

static struct log_entry window_entry(struct fixture *f, int64_t product, int64_t starts, int64_t ends)
{
    struct log_entry entry = entry_of(f, LOG_ENTRY_WINDOW);
    entry.window = (struct window_change){.product_id = product, .to = {starts, ends}, .actor = ADMIN};
    snprintf(entry.window.note, sizeof entry.window.note, "enough");
    return entry;
}

static struct log_entry sale_entry(struct fixture *f, const struct sale_order *orders, size_t count)
{
    struct log_entry entry = entry_of(f, LOG_ENTRY_SALE);
    entry.orders = orders;
    entry.order_count = count;
    return entry;
}

static struct log_entry cancel_entry(struct fixture *f, int64_t order_id, const struct order_part *parts,
                                     size_t count)
{
    struct log_entry entry = entry_of(f, LOG_ENTRY_CANCEL);
    entry.cancel = (struct cancellation){
        .order_id = order_id, .user_id = ADA, .actor = ADMIN, .parts = parts, .part_count = count};
    return entry;
}

static struct sale_order order_of(struct fixture *f, int64_t user, int64_t product, int64_t quantity)
{
    int64_t id = f->next_id++;
    return (struct sale_order){.id = id,
                               .request = 7000 + id,
                               .user_id = user,
                               .product_id = product,
                               .quantity = quantity,
                               .unit_price = 100 * product,
                               .remaining = 5};
}

static struct sale_order cart_of(struct fixture *f, int64_t user, int64_t product, int64_t quantity,
                                 struct order_part *more, size_t count)
{
    struct sale_order order = order_of(f, user, product, quantity);
    order.more = more;
    order.more_count = count;
    return order;
}

static void record(struct fixture *f, const struct log_entry *entries, size_t count)
{
    struct store_position position;
    assert_ok(f, store_position(f->store, &position));
    assert_ok(f, store_record(f->store, position.epoch, position.recorded, entries, count, f->rejected,
                              REJECTED_MAX, &f->rejected_count));
}

static void record_one(struct fixture *f, struct log_entry entry)
{
    record(f, &entry, 1);
}

static void sell(struct fixture *f, const struct sale_order *order)
{
    record_one(f, sale_entry(f, order, 1));
}

/* One bundle's parts behind its line, for a cart of `quantity` of them. */
static size_t set_parts(struct order_part *out, int64_t quantity)
{
    out[0] = (struct order_part){LAMP, quantity, 0, 9, true};
    out[1] = (struct order_part){CHAIR, 2 * quantity, 0, 8, true};
    return 2;
}

static size_t duo_parts(struct order_part *out, int64_t quantity)
{
    out[0] = (struct order_part){LAMP, quantity, 0, 9, true};
    out[1] = (struct order_part){TABLE, quantity, 0, 9, true};
    return 2;
}

/* Each has a price of its own, that of order_of(). */
static int64_t next_price(struct fixture *f)
{
    return 100 * ++f->product_count;
}

static int64_t add_product(struct fixture *f, const char *name, int64_t limit)
{
    struct store_product product = {
        .price = next_price(f), .per_customer_limit = limit, .planned_stock = STOCK};
    snprintf(product.name, sizeof product.name, "%s", name);
    assert_ok(f, store_add_product(f->store, &product));
    return product.id;
}

static int64_t add_bundle(struct fixture *f, const char *name, int64_t limit, int64_t chairs, int64_t tables)
{
    struct store_product product = {
        .price = next_price(f), .per_customer_limit = limit, .component_count = 2};
    snprintf(product.name, sizeof product.name, "%s", name);
    product.components[0] = (struct bundle_component){chairs > 0 ? CHAIR : TABLE, chairs + tables};
    product.components[1] = (struct bundle_component){LAMP, 1};
    assert_ok(f, store_add_product(f->store, &product));
    record_one(f, stock_entry(f, product.id, 0, STOCK_OPENING));
    return product.id;
}

static void add_users(struct fixture *f)
{
    for (int i = 1; i <= ADMIN; i++) {
        struct store_user user = {.password_hash = "hash"};
        snprintf(user.username, sizeof user.username, "user %d", i);
        assert_ok(f, store_add_user(f->store, &user));
    }
}

static int set_up_limited(void **state, int64_t lamp_limit, int64_t set_limit)
{
    set_up_closed(state);
    struct fixture *f = *state;
    open_store(f);
    assert_ok(f, store_raise_epoch(f->store, 0, 1));
    add_users(f);
    assert_int_equal(add_product(f, "Lamp", lamp_limit), LAMP);
    assert_int_equal(add_product(f, "Chair", 0), CHAIR);
    assert_int_equal(add_product(f, "Table", 0), TABLE);
    for (int64_t product = LAMP; product <= TABLE; product++)
        record_one(f, stock_entry(f, product, STOCK, STOCK_OPENING));
    assert_int_equal(add_bundle(f, "Set", set_limit, 2, 0), SET);
    assert_int_equal(add_bundle(f, "Duo", 0, 0, 1), DUO);
    return 0;
}

static int set_up(void **state)
{
    return set_up_limited(state, 0, 0);
}

static int set_up_with_limits(void **state)
{
    return set_up_limited(state, 3, 2);
}

/* --- looking --- */
static struct store_product find_product(struct fixture *f, int64_t id)
{
    struct store_product product;
    assert_ok(f, store_find_product(f->store, id, &product));
    return product;
}

static void assert_book(struct fixture *f, int64_t id, int64_t stock, int64_t sold, int64_t cancelled)
{
    struct store_product book = find_product(f, id);
    if (book.stock != stock || book.sold != sold || book.cancelled != cancelled)
        fail_msg("product %" PRId64 ": stock %" PRId64 ", sold %" PRId64 ", cancelled %" PRId64, id,
                 book.stock, book.sold, book.cancelled);
}

static struct store_order find_order(struct fixture *f, int64_t id)
{
    struct store_order order;
    assert_ok(f, store_find_order(f->store, id, &order));
    return order;
}

static struct store_chain_audit audit_chain(struct fixture *f)
{
    struct store_chain_audit chain;
    assert_ok(f, store_audit_chain(f->store, &chain));
    return chain;
}

static struct store_product_audit audit_product(struct fixture *f, int64_t id)
{
    struct store_product_audit audit;
    assert_ok(f, store_audit_product(f->store, id, &audit));
    return audit;
}

/* The book, the orders and the audit log of every product say the same, and the chain is whole. */
static void assert_agrees(struct fixture *f)
{
    struct store_product products[10];
    size_t count;
    assert_ok(f, store_products(f->store, 0, products, 10, &count));
    for (size_t i = 0; i < count; i++) {
        struct store_product_audit audit = audit_product(f, products[i].id);
        assert_int_equal(audit.order_units, products[i].sold);
        assert_int_equal(audit.cancelled_units, products[i].cancelled);
        assert_int_equal(audit.component_units, audit.bundled_units);
        assert_int_equal(audit.opening_units, products[i].opening);
        assert_int_equal(audit.restock_units, products[i].restocked);
        assert_int_equal(audit.logged_stock, products[i].stock);
        assert_true(audit.logged_price == 0 || audit.logged_price == products[i].price);
    }
    struct store_chain_audit chain = audit_chain(f);
    assert_int_equal(chain.first_gap, 0);
    assert_int_equal(chain.first_forged, 0);
    assert_int_equal(chain.first_off, 0);
    assert_int_equal(chain.first_backwards, 0);
}

static struct store_audit_row last_row(struct fixture *f, int64_t product_id)
{
    struct store_audit_row row;
    size_t count;
    assert_ok(f, store_audit_log(f->store, INT64_MAX, product_id, &row, 1, &count));
    assert_int_equal(count, 1);
    return row;
}

static void assert_row(const struct store_audit_row *row, const char *cause, int64_t delta, int64_t from,
                       int64_t to, int64_t actor, const char *note)
{
    assert_string_equal(row->cause, cause);
    assert_int_equal(row->delta, delta);
    assert_int_equal(row->from, from);
    assert_int_equal(row->to, to);
    assert_int_equal(row->actor, actor);
    assert_string_equal(row->note, note);
}

#define DROP_TRIGGERS "DROP TRIGGER audit_log_no_update; DROP TRIGGER audit_log_no_delete; "

/* By a connection of our own. False if the schema forbids it. With DROP_TRIGGERS at its head no trigger does, from then on. */
static bool edit(struct fixture *f, const char *sql)
{
    bool drops = strncmp(sql, DROP_TRIGGERS, strlen(DROP_TRIGGERS)) == 0;
    f->triggers_are_gone = f->triggers_are_gone || drops;
    if (store_fixture_is_postgres() && drops) /* they cannot be dropped by their names in SQLite */
        sql += strlen(DROP_TRIGGERS);
    return f->triggers_are_gone ? store_fixture_edit(f->url, sql) : store_fixture_try(f->url, sql);
}

static int64_t count_of(struct fixture *f, const char *sql)
{
    return store_fixture_ask(f->url, sql);
}

/* --- products --- */
static void test_a_bundle_and_its_window_come_back(void **state)
{
    struct fixture *f = *state;
    struct store_product bundle = {.name = "Trio",
                                   .price = 900,
                                   .starts_at_ms = 5000,
                                   .ends_at_ms = 6000,
                                   .component_count = 3,
                                   .components = {{TABLE, 1000}, {LAMP, 1}, {CHAIR, 4}}};
    assert_ok(f, store_add_product(f->store, &bundle));
    struct store_product found[3] = {bundle}, page[10];
    size_t count;
    assert_ok(f, store_find_product(f->store, bundle.id, &found[1]));
    assert_ok(f, store_find_product_by_name(f->store, "Trio", &found[2]));
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(found[i].starts_at_ms, 5000);
        assert_int_equal(found[i].ends_at_ms, 6000);
        assert_int_equal(found[i].component_count, 3);
        for (int64_t j = 0; j < 3; j++)
            assert_int_equal(found[i].components[j].product_id, j + 1);
        assert_int_equal(found[i].components[1].quantity, 4);
        assert_int_equal(found[i].components[2].quantity, 1000);
        assert_false(found[i].opened);
    }
    assert_ok(f, store_products(f->store, 0, page, 10, &count));
    assert_int_equal(count, 6);
    assert_int_equal(page[0].component_count, 0);
    assert_int_equal(page[0].starts_at_ms, 0);
    assert_int_equal(page[3].component_count, 2);
    assert_int_equal(page[3].components[1].product_id, CHAIR);
    assert_int_equal(page[3].components[1].quantity, 2);
    assert_int_equal(page[5].component_count, 3);
    assert_int_equal(page[5].ends_at_ms, 6000);
}

static void test_a_bundle_of_what_cannot_be_in_one(void **state)
{
    struct fixture *f = *state;
    int64_t closed = add_product(f, "Closed", 0);
    const int64_t wrong[] = {UNKNOWN, closed, SET, 0, -1};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct store_product bundle = {
            .name = "Wrong", .price = 1, .component_count = 2, .components = {{LAMP, 1}, {wrong[i], 1}}};
        assert_status(f, store_add_product(f->store, &bundle), STORE_NOT_FOUND, __LINE__);
        assert_int_equal(bundle.id, wrong[i]);
    }
    struct store_product found;
    assert_status(f, store_find_product_by_name(f->store, "Wrong", &found), STORE_NOT_FOUND, __LINE__);
    struct store_product taken = {.name = "Set", .price = 1, .component_count = 1, .components = {{LAMP, 1}}};
    assert_status(f, store_add_product(f->store, &taken), STORE_TAKEN, __LINE__);
    assert_int_equal(count_of(f, "SELECT count(*) FROM bundle_components"), 4);
}

static void test_a_bundle_has_no_stock(void **state)
{
    struct fixture *f = *state;
    assert_true(find_product(f, SET).opened);
    record_one(f, stock_entry(f, SET, 5, STOCK_RESTOCK));
    struct store_audit_row row = last_row(f, SET);
    assert_false(row.applied);
    assert_row(&row, "restock", 5, 0, 0, ADMIN, "a \"pallet\" — it's 50 % off");
    record_one(f, stock_entry(f, SET, 0, STOCK_WITHDRAWAL));
    assert_false(last_row(f, SET).applied);
    record_one(f, stock_entry(f, SET, 3, STOCK_OPENING));
    assert_false(last_row(f, SET).applied);
    record_one(f, stock_entry(f, SET, 0, STOCK_HEALING));
    assert_true(last_row(f, SET).applied);
    assert_book(f, SET, 0, 0, 0);
    assert_false(edit(f, "UPDATE products SET stock = 1 WHERE id = 4"));
    assert_false(edit(f, "UPDATE products SET stock = 1 WHERE id = 1"));
    assert_false(edit(f, "UPDATE products SET cancelled = 1 WHERE id = 4"));
    assert_agrees(f);
}

/* --- carts --- */
static void test_a_cart_is_recorded_whole(void **state)
{
    struct fixture *f = *state;
    struct order_part more[3] = {{SET, 2, 400, 3, false}};
    set_parts(more + 1, 2);
    struct sale_order order = cart_of(f, ADA, TABLE, 3, more, 3);
    order.key = "key 1";
    order.key_bytes = 5;
    sell(f, &order);
    assert_int_equal(f->rejected_count, 0);
    assert_book(f, LAMP, 8, 2, 0);
    assert_book(f, CHAIR, 6, 4, 0);
    assert_book(f, TABLE, 7, 3, 0);
    assert_book(f, SET, 0, 2, 0);
    struct store_order found = find_order(f, 1), listed;
    assert_int_equal(found.part_count, 4);
    assert_int_equal(found.state, ORDER_CONFIRMED);
    assert_int_equal(found.sale.product_id, TABLE);
    assert_int_equal(found.sale.quantity, 3);
    assert_null(found.sale.more);
    assert_int_equal(found.sale.more_count, 0);
    assert_string_equal(found.idempotency_key, "key 1");
    size_t count;
    assert_ok(f, store_orders_of(f->store, ADA, INT64_MAX, &listed, 1, &count));
    assert_int_equal(listed.part_count, 4);
    struct store_request request = {.request = order.request, .user_id = ADA};
    assert_ok(f, store_find_requests(f->store, (struct log_position){0}, &request, 1));
    assert_true(request.found);
    assert_int_equal(request.order.part_count, 4);
    struct order_part parts[5];
    assert_ok(f, store_order_parts(f->store, 1, parts, 5, &count));
    assert_int_equal(count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(parts[i].product_id, more[i].product_id);
        assert_int_equal(parts[i].quantity, more[i].quantity);
        assert_int_equal(parts[i].unit_price, more[i].unit_price);
        assert_int_equal(parts[i].remaining, more[i].remaining);
        assert_int_equal(parts[i].is_component, more[i].is_component);
    }
    assert_ok(f, store_order_parts(f->store, 1, parts, 2, &count));
    assert_int_equal(count, 2);
    assert_ok(f, store_order_parts(f->store, 2, parts, 2, &count));
    assert_int_equal(count, 0);
    assert_int_equal(count_of(f, "SELECT count(*) FROM sold_parts WHERE order_id = 1 AND user_id = 11"), 4);
    assert_int_equal(count_of(f, "SELECT sum(quantity) FROM sold_parts WHERE is_component = 1"), 6);
    assert_agrees(f);
}

static void test_a_single_purchase_has_no_parts(void **state)
{
    struct fixture *f = *state;
    struct sale_order order = order_of(f, ADA, LAMP, 2);
    sell(f, &order);
    assert_int_equal(find_order(f, 1).part_count, 1);
    assert_int_equal(count_of(f, "SELECT count(*) FROM order_parts"), 0);
    assert_int_equal(count_of(f, "SELECT count(*) FROM sold_parts"), 1);
}

/* Five sets and six duos want 11 lamps: each fits, both do not. */
static void test_a_component_of_two_bundles_is_counted_together(void **state)
{
    struct fixture *f = *state;
    struct order_part more[5];
    for (int64_t duos = 6; duos >= 5; duos--) {
        set_parts(more, 5);
        more[2] = (struct order_part){DUO, duos, 500, 3, false};
        duo_parts(more + 3, duos);
        struct sale_order order = cart_of(f, ADA, SET, 5, more, 5);
        sell(f, &order);
        assert_int_equal(f->rejected_count, duos == 6);
        assert_int_equal(find_order(f, order.id).state, duos == 6 ? ORDER_REJECTED : ORDER_CONFIRMED);
        assert_int_equal(find_order(f, order.id).part_count, 6);
    }
    assert_book(f, LAMP, 0, 10, 0);
    assert_book(f, CHAIR, 0, 10, 0);
    assert_book(f, TABLE, 5, 5, 0);
    assert_book(f, SET, 0, 5, 0);
    assert_book(f, DUO, 0, 5, 0);
    struct store_product_audit audit = audit_product(f, LAMP);
    assert_int_equal(audit.order_count, 1); /* one order, two parts */
    assert_int_equal(audit.order_units, 10);
    assert_int_equal(audit.last_order_id, 2);
    assert_int_equal(audit.component_units, 10);
    assert_int_equal(audit.bundled_units, 10);
    assert_int_equal(audit_product(f, SET).component_units + audit_product(f, SET).bundled_units, 0);
    assert_agrees(f);
    assert_true(edit(f, "UPDATE bundle_components SET quantity = 3 WHERE product_id = 2"));
    assert_int_equal(audit_product(f, CHAIR).component_units, 10);
    assert_int_equal(audit_product(f, CHAIR).bundled_units, 15);
    assert_true(edit(f, "UPDATE order_parts SET is_component = 0 WHERE product_id = 2"));
    assert_int_equal(audit_product(f, CHAIR).component_units, 0);
}

static void test_a_shortage_rolls_the_whole_cart_back(void **state)
{
    struct fixture *f = *state;
    struct order_part first[2] = {{CHAIR, 2, 200, 1, false}, {TABLE, STOCK + 1, 300, 0, false}};
    struct order_part unknown[1] = {{UNKNOWN, 1, 0, 1, false}};
    struct order_part itself[1] = {{LAMP, 6, 0, 0, true}};
    struct sale_order orders[4] = {cart_of(f, ADA, LAMP, 10, first, 2), cart_of(f, ADA, LAMP, 10, unknown, 1),
                                   cart_of(f, ADA, LAMP, 5, itself, 1), order_of(f, BOB, LAMP, 10)};
    struct store_product before = find_product(f, CHAIR);
    record_one(f, sale_entry(f, orders, 4));
    assert_int_equal(f->rejected_count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(f->rejected[i], i + 1);
    assert_int_equal(find_order(f, 4).state, ORDER_CONFIRMED);
    assert_book(f, LAMP, 0, 10, 0);
    assert_book(f, CHAIR, STOCK, 0, 0);
    assert_book(f, TABLE, STOCK, 0, 0);
    assert_int_equal(find_product(f, CHAIR).updated_at_ms, before.updated_at_ms);
    struct store_audit_row row = last_row(f, LAMP);
    assert_row(&row, "sale", -10, 10, 0, BOB, "order 4");
    assert_string_equal(last_row(f, CHAIR).cause, "opening"); /* what was rejected moved nothing */
    struct order_part parts[3];
    size_t count;
    assert_ok(f, store_order_parts(f->store, 1, parts, 3, &count)); /* what was asked for stays */
    assert_int_equal(count, 2);
    assert_agrees(f);
    struct store_orders_audit audit;
    assert_ok(f, store_audit_orders(f->store, &audit));
    assert_int_equal(audit.count, 4);
    assert_int_equal(audit.rejected, 3);
    assert_int_equal(audit.unknown_product, 1);
}

static void test_carts_that_no_script_writes(void **state)
{
    struct fixture *f = *state;
    struct order_part nothing[1] = {{CHAIR, 0, 200, 1, false}}, negative[1] = {{CHAIR, -1, 200, 1, false}},
                      nobody[1] = {{0, 1, 0, 1, false}}, bundle[1] = {{DUO, 1, 0, 1, true}};
    struct sale_order orders[4] = {cart_of(f, ADA, LAMP, 1, nothing, 1),
                                   cart_of(f, ADA, LAMP, 1, negative, 1), cart_of(f, ADA, LAMP, 1, nobody, 1),
                                   cart_of(f, ADA, SET, 1, bundle, 1)};
    record_one(f, sale_entry(f, orders, 4));
    assert_int_equal(f->rejected_count, 4);
    struct store_order order;
    for (int64_t id = 1; id <= 2; id++)
        assert_status(f, store_find_order(f->store, id, &order), STORE_NOT_FOUND, __LINE__);
    assert_int_equal(find_order(f, 3).state, ORDER_REJECTED);
    assert_int_equal(find_order(f, 4).state, ORDER_REJECTED);
    static struct order_part many[ORDER_PARTS_MAX]; /* one more than an order has with its first line */
    for (size_t i = 0; i < ORDER_PARTS_MAX; i++)
        many[i] = (struct order_part){LAMP, 1, 0, 1, true};
    struct sale_order large = cart_of(f, ADA, CHAIR, 1, many, ORDER_PARTS_MAX);
    sell(f, &large);
    assert_int_equal(f->rejected_count, 1);
    assert_status(f, store_find_order(f->store, 5, &order), STORE_NOT_FOUND, __LINE__);
    struct log_entry nobodys[2] = {stock_entry(f, 0, 5, STOCK_RESTOCK), price_entry(f, 0, 1, 5)};
    record(f, nobodys, 2);
    struct store_audit_row rows[2];
    size_t count;
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, 2, &count));
    assert_false(rows[0].applied || rows[1].applied);
    for (int64_t product = LAMP; product <= TABLE; product++)
        assert_book(f, product, STOCK, 0, 0);
    assert_agrees(f);
}

/* Redis was told by hand that a bundle is made of something else: what it takes then is no such bundle. */
static void test_a_bundle_takes_exactly_its_components(void **state)
{
    struct fixture *f = *state;
    struct order_part whole[3], wrong[4];
    set_parts(whole, 2);
    whole[2] = (struct order_part){TABLE, 1, 0, 9, true};
    struct sale_order none = cart_of(f, ADA, SET, 2, whole, 0), half = cart_of(f, ADA, SET, 2, whole, 1),
                      more = cart_of(f, ADA, SET, 2, whole, 3), strays = cart_of(f, ADA, TABLE, 1, whole, 1);
    sell(f, &none);
    assert_int_equal(f->rejected_count, 1);
    sell(f, &half);
    assert_int_equal(f->rejected_count, 1);
    sell(f, &more);
    assert_int_equal(f->rejected_count, 1);
    sell(f, &strays); /* a component of nothing */
    assert_int_equal(f->rejected_count, 1);
    memcpy(wrong, whole, sizeof whole);
    wrong[1].quantity = 3; /* of four */
    struct sale_order few = cart_of(f, ADA, SET, 2, wrong, 2);
    sell(f, &few);
    assert_int_equal(f->rejected_count, 1);
    wrong[0] = (struct order_part){TABLE, 1, 300, 9, false}; /* a line before the bundle has all its parts */
    set_parts(wrong + 1, 2);
    struct sale_order split = cart_of(f, ADA, SET, 2, wrong, 3);
    sell(f, &split);
    assert_int_equal(f->rejected_count, 1);
    for (int64_t product = LAMP; product <= TABLE; product++)
        assert_book(f, product, STOCK, 0, 0);
    struct sale_order right = cart_of(f, ADA, SET, 2, whole, 2);
    sell(f, &right);
    assert_int_equal(f->rejected_count, 0);
    assert_book(f, SET, 0, 2, 0);
    assert_agrees(f);
}

/* More products in one entry than the table of books begins with. */
static void test_an_entry_that_moves_many_products(void **state)
{
    enum { MANY = 200 };
    struct fixture *f = *state;
    static struct log_entry openings[MANY];
    static struct order_part more[MANY];
    int64_t first = 0;
    for (int i = 0; i < MANY; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        int64_t product = add_product(f, name, 0);
        first = i == 0 ? product : first;
        openings[i] = stock_entry(f, product, STOCK, STOCK_OPENING);
        more[i] = (struct order_part){product, 1, 100 * product, 1, false};
    }
    record(f, openings, MANY);
    struct sale_order order = cart_of(f, ADA, LAMP, 1, more, MANY);
    sell(f, &order);
    assert_int_equal(f->rejected_count, 0);
    static struct store_audit_row rows[MANY + 1];
    size_t count;
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, MANY + 1, &count));
    for (int i = 0; i <= MANY; i++) /* in the order of their first mention */
        assert_int_equal(rows[MANY - i].product_id, i == 0 ? LAMP : first + i - 1);
    assert_int_equal(audit_chain(f).first_off, 0);
}

/* --- cancelling --- */
static void test_a_cancelled_order_gives_everything_back_once(void **state)
{
    struct fixture *f = *state;
    struct order_part more[3] = {{SET, 2, 400, 3, false}};
    set_parts(more + 1, 2);
    struct sale_order order = cart_of(f, ADA, LAMP, 3, more, 3);
    sell(f, &order);
    assert_book(f, LAMP, 5, 5, 0);
    /* The entry's own figures are Redis's; what counts is what the store's order has. */
    const struct order_part parts[2] = {{LAMP, 900, 0, 1, false}, {UNKNOWN, 1, 0, 1, false}};
    record_one(f, cancel_entry(f, 1, parts, 2));
    int64_t cancelled_at_ms = f->at_ms;
    struct store_order found = find_order(f, 1);
    assert_int_equal(found.state, ORDER_CANCELLED);
    assert_int_equal(found.cancelled_at_ms, cancelled_at_ms);
    assert_int_equal(found.cancelled_by, ADMIN);
    assert_book(f, LAMP, STOCK, 5, 5);
    assert_book(f, CHAIR, STOCK, 4, 4);
    assert_book(f, SET, 0, 2, 2);
    struct store_audit_row row = last_row(f, LAMP);
    assert_true(row.applied);
    assert_row(&row, "cancel", 5, 5, 10, ADMIN, "order 1");
    row = last_row(f, SET);
    assert_row(&row, "cancel", 2, 0, 0, ADMIN, "order 1");
    assert_agrees(f);

    record_one(f, cancel_entry(f, 1, parts, 2)); /* again */
    row = last_row(f, LAMP);
    assert_false(row.applied);
    assert_row(&row, "cancel", 900, 10, 10, ADMIN, "order 1");
    row = last_row(f, UNKNOWN);
    assert_false(row.applied);
    assert_book(f, LAMP, STOCK, 5, 5);
    assert_int_equal(find_order(f, 1).cancelled_at_ms, cancelled_at_ms);
    struct store_order listed;
    size_t count;
    assert_ok(f, store_orders_of(f->store, ADA, INT64_MAX, &listed, 1, &count));
    assert_int_equal(listed.state, ORDER_CANCELLED);
    assert_int_equal(listed.cancelled_by, ADMIN);
    struct sale_order again = order_of(f, BOB, LAMP, STOCK);
    sell(f, &again);
    assert_int_equal(f->rejected_count, 0);
    assert_agrees(f);
}

static void test_cancelling_what_cannot_be(void **state)
{
    struct fixture *f = *state;
    const struct order_part parts[4] = {
        {LAMP, 1, 0, 1, false}, {0, -5, 0, 1, false}, {LAMP, INT64_MAX, 0, 1, false}, {0, 1, 0, 1, false}};
    struct sale_order order = order_of(f, ADA, LAMP, STOCK + 1);
    sell(f, &order);
    record_one(f, cancel_entry(f, 1, parts, 4)); /* rejected */
    record_one(f, cancel_entry(f, 2, parts, 4)); /* unknown */
    record_one(f, cancel_entry(f, -1, NULL, 0));
    assert_int_equal(find_order(f, 1).state, ORDER_REJECTED);
    assert_int_equal(find_order(f, 1).cancelled_at_ms, 0);
    assert_int_equal(find_order(f, 1).cancelled_by, 0);
    assert_book(f, LAMP, STOCK, 0, 0);
    struct store_audit_row row = last_row(f, LAMP);
    assert_false(row.applied);
    assert_row(&row, "cancel", 1, STOCK, STOCK, ADMIN, "order 2");
    assert_int_equal(count_of(f, "SELECT count(*) FROM cancellations"), 0);
    assert_agrees(f);
}

static void test_an_order_is_cancelled_in_the_run_of_its_sale(void **state)
{
    struct fixture *f = *state;
    const struct order_part part = {LAMP, 10, 0, 10, false};
    struct sale_order first = order_of(f, ADA, LAMP, 10), second = order_of(f, BOB, LAMP, 10);
    struct log_entry entries[5] = {sale_entry(f, &first, 1), cancel_entry(f, 1, &part, 1),
                                   cancel_entry(f, 2, &part, 1), sale_entry(f, &second, 1),
                                   cancel_entry(f, 1, &part, 1)};
    record(f, entries, 5);
    assert_int_equal(f->rejected_count, 0);
    assert_int_equal(find_order(f, 1).state, ORDER_CANCELLED);
    assert_int_equal(find_order(f, 2).state, ORDER_CONFIRMED);
    assert_book(f, LAMP, 0, 20, 10);
    struct store_product_audit audit = audit_product(f, LAMP);
    assert_int_equal(audit.order_count, 2);
    assert_int_equal(audit.order_units, 20);
    assert_int_equal(audit.cancelled_units, 10);
    assert_agrees(f);
}

/* Somebody has put the books back by hand: the recorder must not stop for ever, nor give back what was not sold. */
static void test_cancelling_what_the_books_do_not_have(void **state)
{
    struct fixture *f = *state;
    struct order_part more[1] = {{CHAIR, 2, 200, 1, false}};
    struct sale_order order = cart_of(f, ADA, LAMP, 3, more, 1);
    sell(f, &order);
    assert_true(edit(f, "UPDATE products SET sold = 0, stock = 10 WHERE id = 2"));
    const struct order_part part = {LAMP, 3, 0, 10, false};
    record_one(f, cancel_entry(f, 1, &part, 1));
    assert_int_equal(find_order(f, 1).state, ORDER_CONFIRMED);
    assert_book(f, LAMP, 7, 3, 0);
    assert_book(f, CHAIR, 10, 0, 0);
    assert_false(last_row(f, LAMP).applied);
}

/* --- windows --- */
static bool keep_key_cb(void *context, const struct store_change_key *key)
{
    *(struct store_change_key *)context = *key;
    return true;
}

static void test_a_window_has_two_rows(void **state)
{
    struct fixture *f = *state;
    struct log_entry entries[3] = {window_entry(f, LAMP, 1000, 5000), window_entry(f, SET, 0, 7000),
                                   window_entry(f, LAMP, 1000, 4000)};
    entries[2].window.key = "w-1 and more";
    entries[2].window.key_bytes = 3;
    record(f, entries, 3);
    assert_int_equal(find_product(f, LAMP).starts_at_ms, 1000);
    assert_int_equal(find_product(f, LAMP).ends_at_ms, 4000);
    assert_int_equal(find_product(f, SET).ends_at_ms, 7000);
    struct store_audit_row rows[8], row;
    size_t count;
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, 6, &count));
    assert_row(&rows[5], "starts", 1000, 0, 1000, ADMIN, "enough");
    assert_row(&rows[4], "ends", 5000, 0, 5000, ADMIN, "enough");
    assert_row(&rows[1], "starts", 0, 1000, 1000, ADMIN, "enough");
    assert_row(&rows[0], "ends", -1000, 5000, 4000, ADMIN, "enough");
    assert_ok(f, store_audit_row_at(f->store, entries[2].position, LAMP, &row));
    assert_true(row.applied);
    struct store_change_key key = {0};
    assert_ok(f, store_each_change_key(f->store, 0, keep_key_cb, &key));
    assert_int_equal(key.kind, CHANGE_OF_WINDOW);
    assert_string_equal(key.key, "w-1");
    assert_int_equal(key.figure, 1000);
    assert_int_equal(key.stock, 4000);
    struct store_product_audit audit = audit_product(f, LAMP);
    assert_true(audit.window_logged);
    assert_int_equal(audit.logged_window.starts_at_ms, 1000);
    assert_int_equal(audit.logged_window.ends_at_ms, 4000);
    assert_int_equal(audit.logged_stock, STOCK);
    assert_false(audit_product(f, CHAIR).window_logged);
    assert_agrees(f);
    struct log_entry wrong[4] = {window_entry(f, UNKNOWN, 1, 5), window_entry(f, LAMP, 5, 5),
                                 window_entry(f, LAMP, -1, 5), window_entry(f, LAMP, 0, INT64_MIN)};
    record(f, wrong, 4);
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, 8, &count));
    for (size_t i = 0; i < 8; i++) {
        assert_false(rows[i].applied);
        assert_int_equal(rows[i].from, rows[i].to);
    }
    assert_int_equal(find_product(f, LAMP).ends_at_ms, 4000);
    assert_agrees(f);
}

/* --- prices --- */
static void test_a_price_counts_from_its_entry_on(void **state)
{
    struct fixture *f = *state;
    struct log_entry entries[4] = {price_entry(f, LAMP, 777, 90), price_entry(f, SET, 400, 350),
                                   price_entry(f, LAMP, 90, 80), stock_entry(f, LAMP, 1, STOCK_RESTOCK)};
    entries[1].price.key = "price-17 and more";
    entries[1].price.key_bytes = 8;
    record(f, entries, 4);
    assert_int_equal(find_product(f, LAMP).price, 80);
    assert_int_equal(find_product(f, SET).price, 350);
    assert_int_equal(find_product(f, LAMP).updated_at_ms > 1000, true);
    struct store_audit_row rows[5];
    size_t count;
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, 4, &count));
    assert_row(&rows[3], "price", -10, 100, 90, ADMIN, "second hour"); /* from what the store had */
    assert_row(&rows[2], "price", -50, 400, 350, ADMIN, "second hour");
    assert_string_equal(rows[2].key, "price-17");
    assert_row(&rows[1], "price", -10, 90, 80, ADMIN, "second hour");
    assert_int_equal(audit_product(f, LAMP).logged_price, 80);
    assert_int_equal(audit_product(f, CHAIR).logged_price, 0);
    assert_agrees(f);
    struct log_entry wrong[5] = {price_entry(f, UNKNOWN, 1, 5), price_entry(f, LAMP, 80, 0),
                                 price_entry(f, LAMP, 80, -5), price_entry(f, LAMP, 80, INT64_MIN),
                                 price_entry(f, LAMP, 80, PRODUCT_PRICE_MAX + 1)};
    record(f, wrong, 5);
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, 5, &count));
    for (size_t i = 0; i < 5; i++) {
        assert_false(rows[i].applied);
        assert_int_equal(rows[i].from, rows[i].to);
    }
    assert_int_equal(rows[3].delta, -80);
    assert_int_equal(find_product(f, LAMP).price, 80);
    assert_agrees(f);
    assert_true(edit(f, "UPDATE products SET price = 81 WHERE id = 1"));
    assert_int_equal(audit_product(f, LAMP).logged_price, 80);
}

/* --- the audit log --- */
static void test_an_entry_is_one_row_for_each_product(void **state)
{
    struct fixture *f = *state;
    struct order_part more[2];
    set_parts(more, 1);
    struct sale_order orders[4] = {order_of(f, ADA, LAMP, 1), order_of(f, BOB, CHAIR, 2),
                                   cart_of(f, BOB, SET, 1, more, 2), order_of(f, BOB, TABLE, 50)};
    record_one(f, sale_entry(f, orders, 4));
    struct store_audit_row rows[4];
    size_t count;
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, 4, &count));
    assert_int_equal(count, 4);
    assert_row(&rows[0], "sale", -1, 0, 0, BOB, "order 3");
    assert_int_equal(rows[0].product_id, SET);
    assert_row(&rows[1], "sale", -4, 10, 6, BOB, "orders 2 to 3");
    assert_row(&rows[2], "sale", -2, 10, 8, 0, "orders 1 to 3");
    assert_string_equal(rows[3].cause, "opening");
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(log_position_compare(rows[i].position, f->position), 0);
        assert_int_equal(rows[i].at_ms, f->at_ms);
        assert_true(rows[i].applied);
        assert_string_equal(rows[i].key, "");
        assert_int_equal(rows[i].seq, rows[0].seq - (int64_t)i);
    }
    assert_agrees(f);
}

static void test_pages_of_the_audit_log(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++) {
        record_one(f, stock_entry(f, LAMP, i + 1, STOCK_RESTOCK));
        record_one(f, stock_entry(f, CHAIR, 1, STOCK_RESTOCK));
    }
    struct store_audit_row rows[20];
    size_t count;
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, 20, &count));
    assert_int_equal(count, 15);
    for (size_t i = 0; i < 15; i++)
        assert_int_equal(rows[i].seq, 15 - i);
    assert_ok(f, store_audit_log(f->store, INT64_MAX, LAMP, rows, 2, &count));
    assert_int_equal(count, 2);
    assert_int_equal(rows[1].delta, 4);
    assert_ok(f, store_audit_log(f->store, rows[1].seq, LAMP, rows, 20, &count));
    assert_int_equal(count, 4);
    assert_int_equal(rows[0].delta, 3);
    assert_string_equal(rows[3].cause, "opening");
    assert_ok(f, store_audit_log(f->store, INT64_MAX, UNKNOWN, rows, 20, &count));
    assert_int_equal(count, 0);
    assert_ok(f, store_audit_log(f->store, 1, 0, rows, 20, &count));
    assert_int_equal(count, 0);
}

static void assert_row_at(struct fixture *f, uint64_t n, int64_t product, int64_t seq)
{
    struct store_audit_row row;
    enum store_status status = store_audit_row_at(f->store, (struct log_position){1, n}, product, &row);
    if (status != (seq > 0 ? STORE_OK : STORE_NOT_FOUND) || (seq > 0 && row.seq != seq))
        fail_msg("1-%d, product %d: status %d", (int)n, (int)product, (int)status);
}

static void test_the_row_of_an_entry(void **state)
{
    struct fixture *f = *state; /* five openings, 1-1 to 1-5 */
    struct order_part more[2] = {{CHAIR, 1, 200, 9, false}, {TABLE, 1, 300, 9, false}};
    struct sale_order order = cart_of(f, ADA, LAMP, 1, more, 2);
    sell(f, &order);
    f->position.n += 10; /* forgotten by Redis before they were recorded */
    struct log_entry entries[3] = {stock_entry(f, CHAIR, 1, STOCK_RESTOCK), price_entry(f, LAMP, 100, 90),
                                   stock_entry(f, LAMP, -900, STOCK_WITHDRAWAL)};
    record(f, entries, 3);
    for (int64_t seq = 1; seq <= 5; seq++)
        assert_row_at(f, (uint64_t)seq, seq, seq);
    for (int64_t i = 0; i < 3; i++)
        assert_row_at(f, 6, LAMP + i, 6 + i);
    assert_row_at(f, 17, CHAIR, 9);
    assert_row_at(f, 18, LAMP, 10);
    assert_row_at(f, 19, LAMP, 11);
    assert_row_at(f, 0, LAMP, 0);
    assert_row_at(f, 1, CHAIR, 0); /* another product's */
    assert_row_at(f, 6, SET, 0);
    assert_row_at(f, 12, LAMP, 0);
    assert_row_at(f, 20, LAMP, 0);
    struct store_audit_row row, same;
    size_t count;
    assert_ok(f, store_audit_row_at(f->store, entries[2].position, LAMP, &row));
    assert_false(row.applied);
    assert_ok(f, store_audit_log(f->store, INT64_MAX, LAMP, &same, 1, &count));
    assert_memory_equal(row.hash, same.hash, sizeof row.hash);
    assert_string_equal(row.note, same.note);
}

static void test_what_is_hashed(void **state)
{
    (void)state;
    char text[STORE_AUDIT_TEXT_BYTES];
    struct store_audit_row row = {.seq = 12,
                                  .at_ms = 1764201600123,
                                  .position = {7, 1042},
                                  .product_id = 3,
                                  .cause = "restock",
                                  .delta = -5,
                                  .from = 20,
                                  .to = 15,
                                  .applied = true,
                                  .actor = 9,
                                  .note = "a pallet"};
    size_t bytes = store_audit_text(&row, text);
    assert_string_equal(text, "12 1764201600123 7-1042 3 restock -5 20 15 1 9 - a pallet");
    assert_int_equal(bytes, strlen(text));
    snprintf(row.key, sizeof row.key, "k");
    row.applied = false;
    store_audit_text(&row, text);
    assert_string_equal(text, "12 1764201600123 7-1042 3 restock -5 20 15 0 9 k a pallet");
    row = (struct store_audit_row){.seq = INT64_MIN,
                                   .at_ms = INT64_MIN,
                                   .position = {UINT64_MAX, UINT64_MAX},
                                   .product_id = INT64_MIN,
                                   .delta = INT64_MIN,
                                   .from = INT64_MIN,
                                   .to = INT64_MIN,
                                   .actor = INT64_MIN};
    memset(row.cause, 'c', sizeof row.cause - 1);
    memset(row.note, 'n', sizeof row.note - 1);
    memset(row.key, 'k', sizeof row.key - 1);
    bytes = store_audit_text(&row, text); /* the longest fits */
    assert_int_equal(bytes, strlen(text));
}

/* A day in the shop, so that the log has rows of every cause. */
static void fill_log(struct fixture *f)
{
    struct order_part more[2];
    set_parts(more, 1);
    struct sale_order orders[2] = {order_of(f, ADA, LAMP, 1), cart_of(f, BOB, SET, 1, more, 2)};
    const struct order_part part = {LAMP, 1, 0, 9, false};
    struct log_entry entries[5] = {sale_entry(f, orders, 2), cancel_entry(f, 1, &part, 1),
                                   price_entry(f, CHAIR, 200, 190), stock_entry(f, TABLE, 4, STOCK_RESTOCK),
                                   stock_entry(f, TABLE, -2, STOCK_WITHDRAWAL)};
    entries[3].stock.key = "restock-1";
    entries[3].stock.key_bytes = 9;
    record(f, entries, 5);
}

#define FILLED_ROWS 12 /* 5 openings, 3 of the sale, 1 of the cancellation, the price, 2 of stock */

/* Straight from the columns, by nothing that the store itself uses. */
static void test_the_chain_is_what_it_says(void **state)
{
    struct fixture *f = *state;
    fill_log(f);
    assert_agrees(f);
    struct store_chain_audit chain = audit_chain(f);
    assert_int_equal(chain.rows, FILLED_ROWS);
    sqlite3 *db;
    sqlite3_stmt *row;
    unsigned char hash[32] = {0};
    int64_t rows = 0;
    assert_int_equal(sqlite3_open_v2(f->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(
            db,
            "SELECT seq || ' ' || at_ms || ' ' || log_epoch || '-' || log_n || ' ' || product_id || ' ' || "
            "cause"
            " || ' ' || delta || ' ' || from_figure || ' ' || to_figure || ' ' || applied || ' ' || actor"
            " || ' ' || ifnull(idempotency_key, '-') || ' ' || note, hash FROM audit_log ORDER BY seq",
            -1, &row, NULL),
        SQLITE_OK);
    while (sqlite3_step(row) == SQLITE_ROW) {
        unsigned char bytes[4096];
        size_t text_bytes = (size_t)sqlite3_column_bytes(row, 0);
        memcpy(bytes, hash, 32);
        memcpy(bytes + 32, sqlite3_column_text(row, 0), text_bytes);
        crypto_generichash(hash, sizeof hash, bytes, 32 + text_bytes, NULL, 0);
        assert_memory_equal(hash, sqlite3_column_blob(row, 1), 32);
        rows++;
    }
    sqlite3_finalize(row);
    sqlite3_close(db);
    assert_int_equal(rows, FILLED_ROWS);
    assert_memory_equal(chain.head, hash, 32);
    assert_memory_equal(last_row(f, 0).hash, hash, 32);
}

static void test_an_empty_chain(void **state)
{
    struct fixture *f = *state;
    open_store(f);
    struct store_chain_audit chain = audit_chain(f), nothing = {0};
    assert_row_at(f, 1, LAMP, 0);
    assert_memory_equal(&chain, &nothing, sizeof chain);
}

static void test_the_audit_log_is_append_only(void **state)
{
    struct fixture *f = *state;
    fill_log(f);
    assert_false(edit(f, "UPDATE audit_log SET note = 'x' WHERE seq = 3"));
    assert_false(edit(f, "UPDATE audit_log SET delta = delta"));
    assert_false(edit(f, "DELETE FROM audit_log WHERE seq = 12"));
    assert_false(edit(f, "DELETE FROM audit_log"));
    assert_int_equal(audit_chain(f).rows, FILLED_ROWS);
    assert_agrees(f);
}

/* Each edit is undone by restoring the row from a copy, so that the next one is the only one. */
static void test_each_forged_column_is_found(void **state)
{
    static const char *const edits[] = {
        "at_ms = at_ms + 1",   "log_epoch = log_epoch + 1", "log_n = log_n + 1",
        "product_id = 2",      "cause = 'restock'",         "delta = delta + 1",
        "from_figure = 4",     "to_figure = to_figure + 1", "applied = 1 - applied",
        "actor = actor + 1",   "note = note || ' '",        "idempotency_key = 'k'",
        "hash = zeroblob(32)", "note = 'order 3'",
    };
    struct fixture *f = *state;
    fill_log(f);
    assert_true(edit(f, DROP_TRIGGERS "CREATE TABLE copy AS SELECT * FROM audit_log"));
    for (int seq = 1; seq <= FILLED_ROWS; seq++) {
        for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
            char sql[256];
            snprintf(sql, sizeof sql, "UPDATE audit_log SET %s WHERE seq = %d", edits[i], seq);
            assert_true(edit(f, sql));
            struct store_chain_audit chain = audit_chain(f);
            bool is_as_it_was =
                count_of(
                    f,
                    "SELECT count(*) FROM (SELECT * FROM audit_log EXCEPT SELECT * FROM copy) AS changed") ==
                0;
            if (chain.first_forged != (is_as_it_was ? 0 : seq))
                fail_msg("%s: forged at %" PRId64, sql, chain.first_forged);
            snprintf(sql, sizeof sql,
                     "DELETE FROM audit_log WHERE seq = %d; INSERT INTO audit_log SELECT * FROM copy WHERE "
                     "seq = %d",
                     seq, seq);
            assert_true(edit(f, sql));
        }
    }
    assert_agrees(f);
}

static void test_a_row_taken_out_is_found(void **state)
{
    struct fixture *f = *state;
    fill_log(f);
    assert_true(edit(f, DROP_TRIGGERS "DELETE FROM audit_log WHERE seq = 7"));
    struct store_chain_audit chain = audit_chain(f);
    assert_int_equal(chain.rows, FILLED_ROWS - 1);
    assert_int_equal(chain.first_gap, 7);
    assert_int_equal(chain.first_forged, 8);
    /* A successor in its place, but the hashes do not follow. */
    assert_true(edit(f, "UPDATE audit_log SET seq = 7 WHERE seq = 8"));
    chain = audit_chain(f);
    assert_int_equal(chain.first_forged, 7);
    assert_int_equal(chain.first_gap, 8);
}

static void test_rows_that_changed_places_are_found(void **state)
{
    struct fixture *f = *state;
    fill_log(f);
    assert_true(edit(f, DROP_TRIGGERS "UPDATE audit_log SET seq = 100 WHERE seq = 11;"
                                      "UPDATE audit_log SET seq = 11 WHERE seq = 12;"
                                      "UPDATE audit_log SET seq = 12 WHERE seq = 100"));
    struct store_chain_audit chain = audit_chain(f);
    assert_int_equal(chain.first_gap, 0);
    assert_int_equal(chain.first_forged, 11);
    assert_int_equal(chain.first_off, 11);
    assert_int_equal(chain.first_backwards, 12);
}

/* Figures may be wrong and the hashes right: a store that miscounted. The hashes are made anew behind each edit. */
static void forge(struct fixture *f, const char *sql)
{
    assert_true(edit(f, sql));
    struct store_audit_row rows[40];
    size_t count;
    unsigned char hash[32] = {0};
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, 40, &count));
    while (count-- > 0) {
        char text[32 + STORE_AUDIT_TEXT_BYTES], update[200], hex[65];
        memcpy(text, hash, 32);
        size_t bytes = store_audit_text(&rows[count], text + 32);
        crypto_generichash(hash, sizeof hash, (const unsigned char *)text, 32 + bytes, NULL, 0);
        sodium_bin2hex(hex, sizeof hex, hash, 32);
        snprintf(update, sizeof update, "UPDATE audit_log SET hash = %s%s' WHERE seq = %" PRId64,
                 store_fixture_is_postgres() ? "'\\x" : "x'", hex, rows[count].seq);
        assert_true(edit(f, update));
    }
    assert_int_equal(audit_chain(f).first_forged, 0);
}

static void test_figures_that_do_not_follow_are_found(void **state)
{
    static const struct {
        const char *edit, *undo;
        int64_t first_off;
    } faults[] = {
        {"delta = delta - 1 WHERE seq = 6", "delta = delta + 1 WHERE seq = 6", 6},
        {"delta = delta - 1, to_figure = to_figure - 1 WHERE seq = 6",
         "delta = delta + 1, to_figure = to_figure + 1 WHERE seq = 6", 9},
        {"from_figure = 1, to_figure = 1 + delta WHERE seq = 9",
         "from_figure = 8, to_figure = 8 + delta WHERE seq = 9", 9},
        {"applied = 0 WHERE seq = 12", "applied = 1 WHERE seq = 12", 12},
        {"to_figure = 5 WHERE seq = 7", "to_figure = 0 WHERE seq = 7", 7},
        {"delta = 7 WHERE seq = 10", "delta = -10 WHERE seq = 10", 10},
        {"delta = 7, from_figure = 3, to_figure = 10 WHERE seq = 1",
         "delta = 10, from_figure = 0, to_figure = 10 WHERE seq = 1", 1},
    };
    struct fixture *f = *state;
    fill_log(f);
    struct store_audit_row row = last_row(f, SET);
    assert_int_equal(row.seq, 7); /* what the table above takes for granted */
    assert_int_equal(last_row(f, LAMP).seq, 9);
    assert_true(edit(f, DROP_TRIGGERS));
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        char sql[160];
        snprintf(sql, sizeof sql, "UPDATE audit_log SET %s", faults[i].edit);
        forge(f, sql);
        if (audit_chain(f).first_off != faults[i].first_off)
            fail_msg("%s: off at %" PRId64, sql, audit_chain(f).first_off);
        snprintf(sql, sizeof sql, "UPDATE audit_log SET %s", faults[i].undo);
        forge(f, sql);
        assert_agrees(f);
    }
    forge(f, "UPDATE audit_log SET log_n = 1 WHERE seq = 9");
    assert_int_equal(audit_chain(f).first_backwards, 9);
}

static void assert_logged(struct fixture *f, bool after_a_walk)
{
    struct store_product products[10];
    struct store_product_audit logged[10];
    size_t count;
    assert_ok(f, store_products(f->store, 0, products, 10, &count));
    assert_ok(f, store_snapshot_begin(f->store));
    for (size_t i = 0; i < count; i++)
        logged[i] = audit_product(f, products[i].id);
    store_snapshot_end(f->store);
    for (size_t i = 0; i < count; i++) {
        if (logged[i].opening_units != products[i].opening ||
            logged[i].restock_units != products[i].restocked || logged[i].logged_stock != products[i].stock ||
            (logged[i].logged_price != 0 && logged[i].logged_price != products[i].price))
            fail_msg("product %" PRId64 "%s", products[i].id, after_a_walk ? " after a walk" : "");
    }
    assert_int_equal(logged[CHAIR - 1].logged_price, 190);
}

/* What a walk along the chain has counted is not read again; what came behind it is, and both are the snapshot's then. */
static void test_a_walk_leaves_its_counts_to_the_next_snapshot(void **state)
{
    struct fixture *f = *state;
    fill_log(f);
    audit_chain(f);
    assert_logged(f, true);
    struct store_chain_audit before = audit_chain(f);
    struct order_part more[2];
    set_parts(more, 1);
    struct sale_order order = cart_of(f, ADA, SET, 1, more, 2);
    struct log_entry entries[4] = {price_entry(f, CHAIR, 190, 180), price_entry(f, CHAIR, 180, 190),
                                   sale_entry(f, &order, 1), stock_entry(f, LAMP, 3, STOCK_RESTOCK)};
    record(f, entries, 4);
    assert_logged(f, true);
    assert_logged(f, false); /* by then the walk is forgotten */
    assert_int_equal(audit_chain(f).rows, before.rows + 6);
    assert_agrees(f);
}

/* A walk reads so many rows at a time. */
static void test_a_chain_longer_than_is_read_at_once(void **state)
{
    enum { MANY = 40000, FAULTS = 3 };
    static const int64_t at[FAULTS] = {20000, 20001, 40003};
    struct fixture *f = *state;
    struct log_entry *entries = calloc(MANY, sizeof *entries);
    assert_non_null(entries);
    for (int i = 0; i < MANY; i++)
        entries[i] = stock_entry(f, LAMP, 1, STOCK_RESTOCK);
    record(f, entries, MANY);
    free(entries);
    struct store_chain_audit chain = audit_chain(f);
    assert_int_equal(chain.rows, MANY + 5);
    assert_memory_equal(chain.head, last_row(f, 0).hash, sizeof chain.head);
    assert_agrees(f);
    assert_true(edit(f, DROP_TRIGGERS));
    for (int i = 0; i < FAULTS; i++) {
        char sql[128];
        snprintf(sql, sizeof sql, "UPDATE audit_log SET actor = actor + 1 WHERE seq = %" PRId64, at[i]);
        assert_true(edit(f, sql));
        assert_int_equal(audit_chain(f).first_forged, at[i]);
        snprintf(sql, sizeof sql, "UPDATE audit_log SET actor = actor - 1 WHERE seq = %" PRId64, at[i]);
        assert_true(edit(f, sql));
    }
    assert_true(edit(f, "DELETE FROM audit_log WHERE seq BETWEEN 15000 AND 36000")); /* a whole stretch */
    chain = audit_chain(f);
    assert_int_equal(chain.rows, MANY + 5 - 21001);
    assert_int_equal(chain.first_gap, 15000);
}

static void test_a_run_that_fails_leaves_the_chain(void **state)
{
    struct fixture *f = *state;
    struct store_chain_audit before = audit_chain(f), after;
    struct log_entry entry = stock_entry(f, LAMP, 1, STOCK_RESTOCK);
    size_t rejected_count;
    assert_status(f, store_record(f->store, 1, f->position, &entry, 1, NULL, 0, &rejected_count),
                  STORE_FAILED, __LINE__);
    assert_status(f,
                  store_record(f->store, 9, (struct log_position){1, f->position.n - 1}, &entry, 1, NULL, 0,
                               &rejected_count),
                  STORE_FENCED, __LINE__);
    after = audit_chain(f);
    assert_memory_equal(&before, &after, sizeof after);
    store_close(&f->store);
    open_store(f);
    record_one(f, entry); /* a new connection goes on behind the last row */
    assert_int_equal(audit_chain(f).rows, before.rows + 1);
    assert_agrees(f);
}

static void test_entries_that_change_nothing(void **state)
{
    struct fixture *f = *state;
    struct store_chain_audit before = audit_chain(f), after;
    struct log_entry entries[2] = {entry_of(f, LOG_ENTRY_ATTACH), entry_of(f, LOG_ENTRY_FOREIGN)};
    record(f, entries, 2);
    after = audit_chain(f);
    assert_memory_equal(&before, &after, sizeof after);
    struct store_position position;
    assert_ok(f, store_position(f->store, &position));
    assert_int_equal(log_position_compare(position.recorded, f->position), 0);
}

/* --- for rebuilding Redis --- */
struct keys_seen {
    size_t count, max;
    struct store_change_key keys[10];
};

static bool change_key_cb(void *context, const struct store_change_key *key)
{
    struct keys_seen *seen = context;
    seen->keys[seen->count++] = *key;
    return seen->count < seen->max;
}

static void test_each_key_of_a_change(void **state)
{
    struct fixture *f = *state;
    struct log_entry entries[4] = {
        stock_entry(f, LAMP, 5, STOCK_RESTOCK), price_entry(f, CHAIR, 200, 90),
        stock_entry(f, LAMP, -900, STOCK_WITHDRAWAL), /* does not fit: may be tried again with its key */
        stock_entry(f, LAMP, -1, STOCK_WITHDRAWAL)};
    entries[0].stock.key = "a b";
    entries[1].price.key = "p-1";
    entries[2].stock.key = "c-1";
    entries[0].stock.key_bytes = entries[1].price.key_bytes = entries[2].stock.key_bytes = 3;
    record(f, entries, 4);
    struct keys_seen seen = {.max = 10};
    assert_ok(f, store_each_change_key(f->store, 0, change_key_cb, &seen));
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.keys[0].key, "a b");
    assert_int_equal(seen.keys[0].kind, CHANGE_OF_STOCK);
    assert_int_equal(seen.keys[0].actor, ADMIN);
    assert_int_equal(seen.keys[0].at_ms, entries[0].at_ms);
    assert_int_equal(seen.keys[0].product_id, LAMP);
    assert_int_equal(seen.keys[0].figure, 5);
    assert_int_equal(seen.keys[0].stock, STOCK + 5);
    assert_int_equal(log_position_compare(seen.keys[0].position, entries[0].position), 0);
    assert_string_equal(seen.keys[1].key, "p-1");
    assert_int_equal(seen.keys[1].kind, CHANGE_OF_PRICE);
    assert_int_equal(seen.keys[1].figure, 90);
    assert_int_equal(seen.keys[1].stock, 200);
    seen = (struct keys_seen){.max = 1};
    assert_ok(f, store_each_change_key(f->store, 0, change_key_cb, &seen));
    assert_int_equal(seen.count, 1);
    seen = (struct keys_seen){.max = 10};
    assert_ok(f, store_each_change_key(f->store, entries[1].at_ms, change_key_cb, &seen));
    assert_int_equal(seen.count, 1);
    assert_ok(f, store_each_change_key(f->store, entries[1].at_ms + 1, change_key_cb, &seen));
    assert_int_equal(seen.count, 1);
}

struct buyers {
    int64_t units[UNKNOWN][ADMIN + 1];
    int calls;
};

static bool buyer_cb(void *context, int64_t product_id, int64_t user_id, int64_t units)
{
    struct buyers *buyers = context;
    assert_int_equal(buyers->units[product_id][user_id], 0); /* once each */
    buyers->units[product_id][user_id] = units;
    buyers->calls++;
    return true;
}

/* Lamps are limited to 3, sets to 2 a customer. */
static void test_limits_count_what_is_in_bundles(void **state)
{
    struct fixture *f = *state;
    struct order_part sets[2], duo[4] = {{LAMP, 1, 0, 1, true}, {TABLE, 1, 0, 1, true}};
    set_parts(sets, 2);
    duo[2] = (struct order_part){LAMP, 1, 100, 1, false};
    struct sale_order orders[4] = {cart_of(f, ADA, SET, 2, sets, 2), cart_of(f, BOB, DUO, 1, duo, 3),
                                   order_of(f, ADA, LAMP, 2), order_of(f, ADA, LAMP, STOCK)};
    record_one(f, sale_entry(f, orders, 4));
    assert_int_equal(f->rejected_count, 1);
    struct buyers buyers = {0};
    assert_ok(f, store_each_buyer(f->store, buyer_cb, &buyers));
    assert_int_equal(buyers.calls, 3);
    assert_int_equal(buyers.units[LAMP][ADA], 4);
    assert_int_equal(buyers.units[LAMP][BOB], 2);
    assert_int_equal(buyers.units[SET][ADA], 2);
    assert_int_equal(audit_product(f, LAMP).over_limit_customers, 1);
    assert_int_equal(audit_product(f, SET).over_limit_customers, 0);
    record_one(f, cancel_entry(f, 1, NULL, 0));
    buyers = (struct buyers){0};
    assert_ok(f, store_each_buyer(f->store, buyer_cb, &buyers));
    assert_int_equal(buyers.calls, 2);
    assert_int_equal(buyers.units[LAMP][ADA], 2);
    assert_int_equal(audit_product(f, LAMP).over_limit_customers, 0);
    assert_agrees(f);
}

static void test_an_unknown_product_in_a_cart_is_found(void **state)
{
    struct fixture *f = *state;
    struct order_part more[1] = {{CHAIR, 2, 200, 1, false}};
    struct sale_order order = cart_of(f, ADA, LAMP, 3, more, 1);
    sell(f, &order);
    struct store_orders_audit audit;
    assert_ok(f, store_audit_orders(f->store, &audit));
    assert_int_equal(audit.unknown_product, 0);
    assert_true(edit(f, "UPDATE order_parts SET product_id = 77"));
    assert_ok(f, store_audit_orders(f->store, &audit));
    assert_int_equal(audit.unknown_product, 1);
}

/* --- stores from before --- */
static void make_old_store(struct fixture *f, const char *rows)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    const char *const scripts[] = {"PRAGMA journal_mode = WAL", embedded__0001_first_sql,
                                   "PRAGMA application_id = 1145205620; PRAGMA user_version = 1", rows};
    for (size_t i = 0; i < 4; i++) {
        if (sqlite3_exec(db, scripts[i], NULL, NULL, NULL) != SQLITE_OK)
            fail_msg("%s: %s", scripts[i], sqlite3_errmsg(db));
    }
    sqlite3_close(db);
}

#define OLD_PRODUCT                                                                                          \
    "INSERT INTO products (id, name, description, price, per_customer_limit, planned_stock, opened, stock,"  \
    " opening, restocked, cancelled, sold, created_at_ms, updated_at_ms) VALUES "
#define OLD_CHANGE                                                                                           \
    "INSERT INTO stock_changes (log_epoch, log_n, at_ms, product_id, delta, remaining, cause, applied,"      \
    " actor, note) VALUES "
#define OLD_ORDER                                                                                            \
    "INSERT INTO orders (id, state, request, user_id, product_id, quantity, unit_price, remaining, at_ms,"   \
    " log_epoch, log_n, idempotency_key) VALUES "

static const char old_rows[] =
    OLD_PRODUCT "(1, 'Lamp', 'bright', 100, 2, 10, 1, 8, 10, 2, 0, 4, 5, 6);" /* its orders: 1, 2 and 5 */
    OLD_PRODUCT "(2, 'Chair', '', 200, 0, 10, 1, 7, 10, 0, 0, 3, 5, 6);" OLD_PRODUCT
                "(3, 'Planned', '', 300, 0, 10, 0, 0, 0, 0, 0, 0, 5, 6);"
                "INSERT INTO users VALUES (7, 'ada', '', 'hash', 0, 5);" OLD_CHANGE
                "(1, 1, 1001, 1, 10, 10, 'opening', 1, 0, 'opening stock');" OLD_CHANGE
                "(1, 2, 1002, 2, 10, 10, 'opening', 1, 0, 'opening stock');" OLD_CHANGE
                "(1, 5, 1005, 1, -900, 0, 'withdrawal', 0, 3, 'too many');" OLD_CHANGE
                "(2, 1, 1006, 1, 2, 9, 'restock', 1, 3, 'a pallet');" OLD_ORDER
                "(1, 0, 71, 7, 1, 1, 100, 9, 1003, 1, 3, NULL);" OLD_ORDER
                "(2, 0, 72, 7, 1, 2, 100, 7, 1003, 1, 3, 'key');" OLD_ORDER
                "(3, 0, 73, 8, 2, 3, 200, 7, 1004, 1, 4, NULL);" OLD_ORDER
                "(4, 1, 74, 8, 2, 9, 200, 0, 1004, 1, 4, NULL);" OLD_ORDER
                "(5, 0, 75, 9, 1, 1, 100, 8, 1007, 2, 2, NULL);"
                "UPDATE state SET epoch = 2, recorded_epoch = 2, recorded_n = 2";

static void test_a_store_from_before_the_audit_log(void **state)
{
    struct fixture *f = *state;
    make_old_store(f, old_rows);
    struct store *reader;
    char error[512] = "";
    assert_int_equal(store_open(&reader, f->url, STORE_READER, error, sizeof error), STORE_FAILED);
    assert_non_null(strstr(error, "start the server"));
    open_store(f);
    assert_agrees(f);
    struct store_audit_row rows[10];
    size_t count;
    assert_ok(f, store_audit_log(f->store, INT64_MAX, 0, rows, 10, &count));
    assert_int_equal(count, 7);
    assert_row(&rows[6], "opening", 10, 0, 10, 0, "opening stock");
    assert_row(&rows[5], "opening", 10, 0, 10, 0, "opening stock");
    assert_row(&rows[4], "sale", -3, 10, 7, 7, "orders 1 to 2, from before the audit log");
    assert_row(&rows[3], "sale", -3, 10, 7, 8, "orders 3 to 3, from before the audit log");
    assert_row(&rows[2], "withdrawal", -900, 7, 7, 3, "too many");
    assert_false(rows[2].applied);
    assert_row(&rows[1], "restock", 2, 7, 9, 3, "a pallet");
    assert_int_equal(rows[1].at_ms, 1006);
    assert_row(&rows[0], "sale", -1, 9, 8, 9, "orders 5 to 5, from before the audit log");
    assert_int_equal(count_of(f, "SELECT count(*) FROM sqlite_schema WHERE name = 'stock_changes'"), 0);

    struct store_product lamp = find_product(f, 1);
    assert_string_equal(lamp.description, "bright");
    assert_int_equal(lamp.per_customer_limit, 2);
    assert_int_equal(lamp.starts_at_ms, 0);
    assert_int_equal(lamp.component_count, 0);
    assert_int_equal(lamp.created_at_ms, 5);
    assert_false(find_product(f, 3).opened);
    struct store_order order = find_order(f, 2);
    assert_int_equal(order.part_count, 1);
    assert_int_equal(order.state, ORDER_CONFIRMED);
    assert_string_equal(order.idempotency_key, "key");

    /* And it goes on: what was bought before can be cancelled. */
    f->position = (struct log_position){1, 0};
    struct log_entry entry = cancel_entry(f, 2, NULL, 0);
    entry.position = (struct log_position){2, 3};
    record_one(f, entry);
    assert_int_equal(find_order(f, 2).state, ORDER_CANCELLED);
    assert_book(f, 1, 10, 4, 2);
    assert_agrees(f);
    store_close(&f->store);
    open_store(f); /* only once */
    assert_int_equal(audit_chain(f).rows, 8);
}

static void test_an_old_store_without_orders(void **state)
{
    struct fixture *f = *state;
    make_old_store(f, "");
    open_store(f);
    assert_int_equal(audit_chain(f).rows, 0);
    assert_agrees(f);
}

/* An upgrade that fails leaves the old store as it was. */
static void test_an_upgrade_that_fails_changes_nothing(void **state)
{
    struct fixture *f = *state;
    make_old_store(f, old_rows);
    assert_true(edit(f, "CREATE TABLE cancellations (x)"));
    char error[512] = "";
    assert_int_equal(store_open(&f->store, f->url, STORE_WRITER, error, sizeof error), STORE_FAILED);
    assert_non_null(strstr(error, "cancellations"));
    assert_int_equal(count_of(f, "SELECT count(*) FROM stock_changes"), 4);
    assert_int_equal(count_of(f, "SELECT user_version FROM pragma_user_version"), 1);
    assert_true(edit(f, "DROP TABLE cancellations"));
    open_store(f);
    assert_agrees(f);
}

/* Somebody has edited the price in Redis: the log says in which order prices and sales came, so the store knows better. */
static void test_a_price_that_the_book_does_not_have(void **state)
{
    struct fixture *f = *state;
    struct sale_order order = order_of(f, ADA, LAMP, 1);
    order.unit_price = 1;
    sell(f, &order);
    assert_int_equal(find_order(f, 1).state, ORDER_REJECTED);
    struct order_part more[3] = {{LAMP, 1, 0, 9, true}, {CHAIR, 2, 0, 8, true}, {TABLE, 1, 299, 9, false}};
    struct sale_order later_line = cart_of(f, ADA, SET, 1, more, 3);
    sell(f, &later_line);
    assert_int_equal(find_order(f, 2).state, ORDER_REJECTED);
    more[2].unit_price = 300;
    more[1].unit_price = 1; /* a component has none */
    struct sale_order component = cart_of(f, ADA, SET, 1, more, 3);
    sell(f, &component);
    assert_int_equal(find_order(f, 3).state, ORDER_REJECTED);
    for (int64_t product = LAMP; product <= TABLE; product++)
        assert_book(f, product, STOCK, 0, 0);
    struct sale_order before = order_of(f, ADA, LAMP, 1), after = order_of(f, ADA, LAMP, 1);
    after.unit_price = 90;
    struct log_entry entries[3] = {sale_entry(f, &before, 1), price_entry(f, LAMP, 100, 90),
                                   sale_entry(f, &after, 1)};
    record(f, entries, 3); /* each at the price of its place in the log */
    assert_int_equal(f->rejected_count, 0);
    assert_agrees(f);
}

/* Redis filled from a store that has more is damaged: its scripts do not take such figures. */
static void test_stock_beyond_what_a_product_holds(void **state)
{
    struct fixture *f = *state;
    record_one(f, stock_entry(f, LAMP, PRODUCT_STOCK_MAX, STOCK_RESTOCK));
    assert_false(last_row(f, LAMP).applied);
    assert_book(f, LAMP, STOCK, 0, 0);
    struct sale_order order = order_of(f, ADA, LAMP, STOCK);
    sell(f, &order);
    record_one(f, stock_entry(f, LAMP, PRODUCT_STOCK_MAX, STOCK_RESTOCK));
    assert_true(last_row(f, LAMP).applied);
    record_one(f, cancel_entry(f, 1, NULL, 0)); /* may lift it above */
    assert_book(f, LAMP, PRODUCT_STOCK_MAX + STOCK, STOCK, STOCK);
    record_one(f, stock_entry(f, LAMP, 0, STOCK_HEALING));
    assert_true(last_row(f, LAMP).applied);
    record_one(f, stock_entry(f, LAMP, 1, STOCK_RESTOCK));
    assert_false(last_row(f, LAMP).applied);
    record_one(f, stock_entry(f, LAMP, -1, STOCK_WITHDRAWAL)); /* lowers it, if not below */
    assert_true(last_row(f, LAMP).applied);
    assert_agrees(f);
}

int main(void)
{
#define SHOP(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define CLOSED(test) cmocka_unit_test_setup_teardown(test, set_up_closed, tear_down)
    const struct CMUnitTest tests[] = {
        SHOP(test_a_price_that_the_book_does_not_have),
        SHOP(test_the_row_of_an_entry),
        SHOP(test_a_walk_leaves_its_counts_to_the_next_snapshot),
        SHOP(test_a_chain_longer_than_is_read_at_once),
        SHOP(test_stock_beyond_what_a_product_holds),
        SHOP(test_a_bundle_and_its_window_come_back),
        SHOP(test_a_bundle_of_what_cannot_be_in_one),
        SHOP(test_a_bundle_has_no_stock),
        SHOP(test_a_cart_is_recorded_whole),
        SHOP(test_a_single_purchase_has_no_parts),
        SHOP(test_a_component_of_two_bundles_is_counted_together),
        SHOP(test_a_bundle_takes_exactly_its_components),
        SHOP(test_a_shortage_rolls_the_whole_cart_back),
        SHOP(test_carts_that_no_script_writes),
        SHOP(test_an_entry_that_moves_many_products),
        SHOP(test_a_cancelled_order_gives_everything_back_once),
        SHOP(test_cancelling_what_cannot_be),
        SHOP(test_an_order_is_cancelled_in_the_run_of_its_sale),
        SHOP(test_cancelling_what_the_books_do_not_have),
        SHOP(test_a_price_counts_from_its_entry_on),
        SHOP(test_a_window_has_two_rows),
        SHOP(test_an_entry_is_one_row_for_each_product),
        SHOP(test_pages_of_the_audit_log),
        cmocka_unit_test(test_what_is_hashed),
        CLOSED(test_an_empty_chain),
        SHOP(test_the_audit_log_is_append_only),
        SHOP(test_each_forged_column_is_found),
        SHOP(test_a_row_taken_out_is_found),
        SHOP(test_rows_that_changed_places_are_found),
        SHOP(test_figures_that_do_not_follow_are_found),
        SHOP(test_a_run_that_fails_leaves_the_chain),
        SHOP(test_entries_that_change_nothing),
        SHOP(test_each_key_of_a_change),
        cmocka_unit_test_setup_teardown(test_limits_count_what_is_in_bundles, set_up_with_limits, tear_down),
        SHOP(test_an_unknown_product_in_a_cart_is_found),
    };
    const struct CMUnitTest in_a_file[] = {
        SHOP(test_the_chain_is_what_it_says),
        CLOSED(test_a_store_from_before_the_audit_log),
        CLOSED(test_an_old_store_without_orders),
        CLOSED(test_an_upgrade_that_fails_changes_nothing),
    };
    int failed = cmocka_run_group_tests_name("store carts", tests, NULL, NULL);
    if (!store_fixture_is_postgres())
        failed += cmocka_run_group_tests_name("store carts in a file", in_a_file, NULL, NULL);
    return failed;
}
