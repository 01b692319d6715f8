/* The store's contract (store.h), against a real store in a temporary folder.
 *
 * Everything above the line "SQLite only" uses the contract alone and runs on any driver (store_fixture.h). Processes are
 * forked before anything is opened. */
#include "doorbuster/clock.h"
#include "doorbuster/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "store_fixture.h"

#define REJECTED_MAX 20000
#define PRICE 500

struct fixture {
    char folder[64];
    char url[STORE_FIXTURE_URL_BYTES];
    struct store *store; /* a writer */
    int64_t next_id;     /* of orders */
    uint64_t epoch;
    struct log_position position;
    int64_t rejected[REJECTED_MAX];
    size_t rejected_count;
};

/* --- fixture --- */
#define assert_ok(f, status) assert_status((f)->store, (status), STORE_OK, __LINE__)

static void assert_status(struct store *store, enum store_status status, enum store_status expected, int line)
{
    if (status != expected)
        fail_msg("line %d: status %d, not %d: %s", line, (int)status, (int)expected,
                 store == NULL ? "" : store_error(store));
}

static struct store *open_or_die(const char *url, enum store_mode mode)
{
    struct store *store;
    char error[512] = "";
    if (store_open(&store, url, mode, error, sizeof error) != STORE_OK)
        fail_msg("opening %s: %s", url, error);
    return store;
}

static void make_folder(struct fixture *f)
{
    snprintf(f->folder, sizeof f->folder, "/tmp/doorbuster-store-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    store_fixture_new(f->folder, "shop.db", f->url, sizeof f->url);
    f->next_id = 1;
}

static int set_up_closed(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    make_folder(f);
    *state = f;
    return 0;
}

static int set_up(void **state)
{
    set_up_closed(state);
    struct fixture *f = *state;
    f->store = open_or_die(f->url, STORE_WRITER);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"shop.db", "shop.db-wal", "shop.db-shm", "shop.db.lock"};
    store_close(&f->store);
    assert_null(f->store);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", f->folder, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(f->folder), 0); /* so nothing else was left behind */
    free(f);
    return 0;
}

static void reopen(struct fixture *f)
{
    store_close(&f->store);
    f->store = open_or_die(f->url, STORE_WRITER);
}

static int64_t add_user(struct fixture *f, const char *name)
{
    struct store_user user = {.role = USER_BUYER};
    snprintf(user.username, sizeof user.username, "%s", name);
    snprintf(user.password_hash, sizeof user.password_hash, "hash of %s", name);
    assert_ok(f, store_add_user(f->store, &user));
    return user.id;
}

static int64_t add_product(struct fixture *f, const char *name, int64_t limit)
{
    struct store_product product = {.price = PRICE, .per_customer_limit = limit, .planned_stock = 100};
    snprintf(product.name, sizeof product.name, "%s", name);
    assert_ok(f, store_add_product(f->store, &product));
    return product.id;
}

static struct log_position after(struct log_position position, uint64_t n)
{
    return (struct log_position){position.epoch == 0 ? 1 : position.epoch, position.n + n};
}

/* Records; on success f->position moves. */
static enum store_status record(struct fixture *f, const struct log_entry *entries, size_t count)
{
    enum store_status status = store_record(f->store, f->epoch, f->position, entries, count, f->rejected,
                                            REJECTED_MAX, &f->rejected_count);
    if (status == STORE_OK && count > 0)
        f->position = entries[count - 1].position;
    return status;
}

static struct log_entry stock_entry(const struct fixture *f, uint64_t offset, int64_t product, int64_t delta,
                                    enum stock_cause cause)
{
    struct log_entry entry = {
        .position = after(f->position, offset),
        .kind = LOG_ENTRY_STOCK,
        .at_ms = 1000,
        .stock = {.product_id = product, .delta = delta, .remaining = delta, .cause = cause, .actor = 3}};
    snprintf(entry.stock.note, sizeof entry.stock.note, "a note, it's \"quoted\"");
    return entry;
}

static struct log_entry sale_entry(const struct fixture *f, uint64_t offset, const struct sale_order *orders,
                                   size_t count)
{
    return (struct log_entry){.position = after(f->position, offset),
                              .kind = LOG_ENTRY_SALE,
                              .at_ms = 1000 + (int64_t)(f->position.n + offset),
                              .orders = orders,
                              .order_count = count};
}

static struct sale_order order_of(struct fixture *f, int64_t user, int64_t product, int64_t quantity)
{
    int64_t id = f->next_id++;
    return (struct sale_order){.id = id,
                               .request = 7000 + id,
                               .user_id = user,
                               .product_id = product,
                               .quantity = quantity,
                               .unit_price = PRICE,
                               .remaining = 10000 - id};
}

static void change_stock(struct fixture *f, int64_t product, int64_t delta, enum stock_cause cause)
{
    struct log_entry entry = stock_entry(f, 1, product, delta, cause);
    assert_ok(f, record(f, &entry, 1));
}

static void attach(struct fixture *f)
{
    assert_ok(f, store_raise_epoch(f->store, f->epoch, f->epoch + 1));
    f->epoch++;
}

/* A store with one open product and one user, both of id 1. */
static int64_t open_shop(struct fixture *f, int64_t stock)
{
    attach(f);
    add_user(f, "ada");
    int64_t product = add_product(f, "Lamp", 0);
    change_stock(f, product, stock, STOCK_OPENING);
    return product;
}

static void sell(struct fixture *f, int64_t user, int64_t product, int64_t quantity)
{
    struct sale_order order = order_of(f, user, product, quantity);
    struct log_entry entry = sale_entry(f, 1, &order, 1);
    assert_ok(f, record(f, &entry, 1));
}

/* `count` orders of one unit in entries of at most 256, for the users 1 to `users`, going round in steps of
 * `stride`. */
static void sell_many(struct fixture *f, int64_t product, int64_t users, int64_t stride, int64_t count)
{
    struct sale_order orders[SALES_LOG_ORDERS_MAX];
    while (count > 0) {
        size_t size = count < SALES_LOG_ORDERS_MAX ? (size_t)count : SALES_LOG_ORDERS_MAX;
        for (size_t i = 0; i < size; i++)
            orders[i] = order_of(f, (f->next_id - 1) * stride % users + 1, product, 1);
        struct log_entry entry = sale_entry(f, 1, orders, size);
        assert_ok(f, record(f, &entry, 1));
        count -= (int64_t)size;
    }
}

static struct store_product find_product(struct fixture *f, int64_t id)
{
    struct store_product product;
    assert_ok(f, store_find_product(f->store, id, &product));
    assert_int_equal(product.stock, product.opening + product.restocked + product.cancelled - product.sold);
    return product;
}

static enum order_state state_of(struct fixture *f, int64_t id)
{
    struct store_order order;
    assert_ok(f, store_find_order(f->store, id, &order));
    return order.state;
}

/* --- opening --- */
static void test_new_store_is_empty(void **state)
{
    struct fixture *f = *state;
    struct store_position position;
    assert_ok(f, store_position(f->store, &position));
    assert_int_equal(position.epoch, 0);
    assert_int_equal(position.recorded.epoch, 0);
    assert_int_equal(position.recorded.n, 0);
    assert_int_equal(position.last_order_id, 0);
    struct store_orders_audit audit;
    assert_ok(f, store_audit_orders(f->store, &audit));
    struct store_orders_audit nothing = {0};
    assert_memory_equal(&audit, &nothing, sizeof audit);
    struct store_order order;
    assert_status(f->store, store_find_order(f->store, 1, &order), STORE_NOT_FOUND, __LINE__);
    size_t count = 99;
    assert_ok(f, store_orders_of(f->store, 1, INT64_MAX, &order, 1, &count));
    assert_int_equal(count, 0);
}

static void test_opening_again_changes_nothing(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 10);
    sell(f, 1, product, 4);
    struct store_product before = find_product(f, product);
    for (int i = 0; i < 2; i++) {
        reopen(f);
        struct store_position position;
        assert_ok(f, store_position(f->store, &position));
        assert_int_equal(position.epoch, f->epoch);
        assert_int_equal(log_position_compare(position.recorded, f->position), 0);
        assert_int_equal(position.last_order_id, 1);
        struct store_product found = find_product(f, product);
        assert_int_equal(found.stock, 6);
        assert_int_equal(found.updated_at_ms, before.updated_at_ms);
        assert_int_equal(found.created_at_ms, before.created_at_ms);
    }
    sell(f, 1, product, 6);
    assert_int_equal(find_product(f, product).stock, 0);
}

static void test_wrong_urls_say_what_they_may_be(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "shop.db",
                                        "mysql:shop",
                                        "mysql://u:secret@h/d",
                                        "sqlite",
                                        "sqlite:",
                                        "sqlite://",
                                        "sqlite://host/shop.db",
                                        "sqlite:/tmp/",
                                        "SQLITE:x"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char error[512] = "";
        struct store *store = (struct store *)&error;
        assert_false(store_url_is_valid(wrong[i], error, sizeof error));
        assert_non_null(strstr(error, "sqlite:PATH"));
        assert_null(strstr(error, "secret"));
        error[0] = '\0';
        assert_int_equal(store_open(&store, wrong[i], STORE_WRITER, error, sizeof error), STORE_FAILED);
        assert_null(store);
        assert_non_null(strstr(error, "sqlite:PATH"));
    }
}

static void test_right_urls(void **state)
{
    (void)state;
    char error[512], path[PATH_MAX + 64];
    assert_true(store_url_is_valid("sqlite:data/shop.db", error, sizeof error));
    assert_true(store_url_is_valid("sqlite:/data/shop.db", error, sizeof error));
    assert_true(store_url_is_valid("sqlite:///data/shop.db", error, sizeof error));
    memset(path, 'x', sizeof path);
    memcpy(path, "sqlite:/", 8);
    path[sizeof path - 1] = '\0';
    assert_false(store_url_is_valid(path, error, sizeof error));
    assert_non_null(strstr(error, "longer"));
}

static void test_reader_needs_a_store(void **state)
{
    struct fixture *f = *state;
    struct store *reader;
    char error[512] = "";
    assert_int_equal(store_open(&reader, f->url, STORE_READER, error, sizeof error), STORE_FAILED);
    assert_null(reader);
    assert_non_null(strstr(error, "there is no store"));
}

/* --- accounts --- */
static void test_users(void **state)
{
    struct fixture *f = *state;
    int64_t before_ms = clock_wall_ms();
    struct store_user ada = {
        .username = "ada", .email = "ada@example.org", .password_hash = "$argon2id$1", .role = USER_BUYER};
    assert_ok(f, store_add_user(f->store, &ada));
    assert_int_equal(ada.id, 1);
    assert_in_range(ada.created_at_ms, (uintmax_t)before_ms, (uintmax_t)clock_wall_ms());

    struct store_user again = {.username = "ada"};
    assert_status(f->store, store_add_user(f->store, &again), STORE_TAKEN, __LINE__);
    assert_int_equal(add_user(f, "Ada"), 2); /* compared exactly */
    assert_int_equal(add_user(f, "'; DROP TABLE users; --"), 3);

    struct store_user found;
    assert_ok(f, store_find_user(f->store, "ada", &found));
    assert_int_equal(found.id, 1);
    assert_string_equal(found.email, "ada@example.org");
    assert_string_equal(found.password_hash, "$argon2id$1");
    assert_int_equal(found.role, USER_BUYER);
    assert_int_equal(found.created_at_ms, ada.created_at_ms);
    assert_ok(f, store_find_user_by_id(f->store, 2, &found));
    assert_string_equal(found.username, "Ada");
    assert_string_equal(found.email, "");
    assert_status(f->store, store_find_user(f->store, "bob", &found), STORE_NOT_FOUND, __LINE__);
    assert_status(f->store, store_find_user_by_id(f->store, 4, &found), STORE_NOT_FOUND, __LINE__);

    assert_ok(f, store_update_user(f->store, 1, USER_ADMIN, "new hash"));
    assert_ok(f, store_find_user_by_id(f->store, 1, &found));
    assert_int_equal(found.role, USER_ADMIN);
    assert_string_equal(found.password_hash, "new hash");
    assert_string_equal(found.username, "ada");
    assert_status(f->store, store_update_user(f->store, 9, USER_ADMIN, "x"), STORE_NOT_FOUND, __LINE__);
}

static void test_longest_texts_fit(void **state)
{
    struct fixture *f = *state;
    struct store_user user = {.role = USER_BUYER}, found_user;
    memset(user.username, 'u', sizeof user.username - 1);
    memset(user.email, 'e', sizeof user.email - 1);
    memset(user.password_hash, 'p', sizeof user.password_hash - 1);
    assert_ok(f, store_add_user(f->store, &user));
    assert_ok(f, store_find_user(f->store, user.username, &found_user));
    assert_string_equal(found_user.username, user.username);
    assert_string_equal(found_user.email, user.email);
    assert_string_equal(found_user.password_hash, user.password_hash);
    struct store_product product = {.price = 1}, found;
    memset(product.name, 'n', sizeof product.name - 1);
    memset(product.description, 'd', sizeof product.description - 1);
    assert_ok(f, store_add_product(f->store, &product));
    assert_ok(f, store_find_product_by_name(f->store, product.name, &found));
    assert_string_equal(found.name, product.name);
    assert_string_equal(found.description, product.description);
}

/* --- products --- */
static void test_products(void **state)
{
    struct fixture *f = *state;
    struct store_product lamp = {.name = "Lamp",
                                 .description = "bright",
                                 .price = 4990,
                                 .per_customer_limit = 2,
                                 .planned_stock = 100,
                                 .stock = 55,
                                 .sold = 3,
                                 .opened = true};
    assert_ok(f, store_add_product(f->store, &lamp));
    assert_int_equal(lamp.id, 1);
    assert_int_equal(lamp.stock, 0); /* it opens through the log */
    assert_int_equal(lamp.sold, 0);
    assert_false(lamp.opened);
    assert_true(lamp.created_at_ms > 0 && lamp.updated_at_ms == lamp.created_at_ms);

    struct store_product found, same = {.name = "Lamp", .price = 1};
    assert_status(f->store, store_add_product(f->store, &same), STORE_TAKEN, __LINE__);
    assert_ok(f, store_find_product_by_name(f->store, "Lamp", &found));
    assert_int_equal(found.id, 1);
    assert_string_equal(found.description, "bright");
    assert_int_equal(found.price, 4990);
    assert_int_equal(found.per_customer_limit, 2);
    assert_int_equal(found.planned_stock, 100);
    assert_status(f->store, store_find_product(f->store, 2, &found), STORE_NOT_FOUND, __LINE__);
    assert_status(f->store, store_find_product_by_name(f->store, "lamp", &found), STORE_NOT_FOUND, __LINE__);

    int64_t chair = add_product(f, "Chair", 0);
    assert_status(f->store, store_rename_product(f->store, chair, "Lamp"), STORE_TAKEN, __LINE__);
    assert_status(f->store, store_rename_product(f->store, 9, "Table"), STORE_NOT_FOUND, __LINE__);
    assert_ok(f, store_rename_product(f->store, chair, "Table"));
    assert_ok(f, store_rename_product(f->store, chair, "Table"));
    assert_string_equal(find_product(f, chair).name, "Table");
    add_product(f, "Chair", 0);
}

/* Two with one key: the second is told so, whether it asks for the same or not; it is no failure of the store. */
static void test_a_key_makes_one_product(void **state)
{
    struct fixture *f = *state;
    const struct store_product_request request = {.key = "7 once", .hash = "of a lamp"};
    struct store_product lamp = {.name = "Lamp", .price = PRICE}, chair = {.name = "Chair", .price = PRICE};
    struct store_product again = lamp, found;
    bool same = false;
    assert_ok(f, store_add_product_for(f->store, &lamp, &request));
    assert_status(f->store, store_add_product_for(f->store, &again, &request), STORE_TAKEN, __LINE__);
    assert_status(f->store, store_add_product_for(f->store, &chair, &request), STORE_TAKEN, __LINE__);
    assert_status(f->store, store_find_product_by_name(f->store, "Chair", &found), STORE_NOT_FOUND, __LINE__);
    assert_ok(f, store_find_product_of_request(f->store, &request, &found, &same));
    assert_int_equal(found.id, lamp.id);
    assert_true(same);
}

static void test_product_pages(void **state)
{
    struct fixture *f = *state;
    for (int i = 1; i <= 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        add_product(f, name, 0);
    }
    struct store_product page[3];
    size_t count;
    assert_ok(f, store_products(f->store, 0, page, 3, &count));
    assert_int_equal(count, 3);
    assert_int_equal(page[0].id, 1);
    assert_int_equal(page[2].id, 3);
    assert_ok(f, store_products(f->store, 3, page, 3, &count));
    assert_int_equal(count, 2);
    assert_string_equal(page[1].name, "p5");
    assert_ok(f, store_products(f->store, 5, page, 3, &count));
    assert_int_equal(count, 0);
}

/* --- recording --- */
static void test_record_writes_orders_book_and_position(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 100);
    assert_true(find_product(f, product).opened);
    struct sale_order orders[2] = {order_of(f, 11, product, 2), order_of(f, 12, product, 3)};
    struct log_entry entries[3] = {sale_entry(f, 1, orders, 2), stock_entry(f, 2, product, 7, STOCK_RESTOCK),
                                   stock_entry(f, 5, product, -4, STOCK_WITHDRAWAL)};
    entries[0].at_ms = clock_wall_ms() + 60000;
    assert_ok(f, record(f, entries, 3));
    assert_int_equal(f->rejected_count, 0);

    struct store_product book = find_product(f, product);
    assert_int_equal(book.opening, 100);
    assert_int_equal(book.restocked, 3);
    assert_int_equal(book.sold, 5);
    assert_int_equal(book.cancelled, 0);
    assert_int_equal(book.stock, 98);
    assert_int_equal(book.updated_at_ms, entries[0].at_ms);
    struct store_order order;
    assert_ok(f, store_find_order(f->store, 2, &order));
    assert_memory_equal(&order.sale, &orders[1], sizeof orders[1]);
    assert_int_equal(order.state, ORDER_CONFIRMED);
    assert_int_equal(order.at_ms, entries[0].at_ms);
    assert_int_equal(log_position_compare(order.position, entries[0].position), 0);
    struct store_position position;
    assert_ok(f, store_position(f->store, &position));
    assert_int_equal(log_position_compare(position.recorded, entries[2].position), 0);
    assert_int_equal(position.last_order_id, 2);
}

static void test_record_nothing(void **state)
{
    struct fixture *f = *state;
    f->rejected_count = 9;
    assert_ok(f, record(f, NULL, 0));
    assert_int_equal(f->rejected_count, 0);
}

static void test_the_last_unit_is_sold_and_not_one_more(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 3);
    struct sale_order orders[5] = {order_of(f, 1, product, 1), order_of(f, 2, product, 3),
                                   order_of(f, 3, product, 2), order_of(f, 4, product, 1),
                                   order_of(f, 5, product + 1, 1)};
    struct log_entry entry = sale_entry(f, 1, orders, 5);
    assert_ok(f, record(f, &entry, 1));
    assert_int_equal(f->rejected_count, 3);
    assert_int_equal(f->rejected[0], 2);
    assert_int_equal(f->rejected[1], 4);
    assert_int_equal(f->rejected[2], 5); /* no such product */
    assert_int_equal(state_of(f, 1), ORDER_CONFIRMED);
    assert_int_equal(state_of(f, 2), ORDER_REJECTED);
    assert_int_equal(state_of(f, 3), ORDER_CONFIRMED);
    assert_int_equal(state_of(f, 5), ORDER_REJECTED);
    struct store_product book = find_product(f, product);
    assert_int_equal(book.stock, 0);
    assert_int_equal(book.sold, 3);
    sell(f, 6, product, 1); /* in a run of its own */
    assert_int_equal(f->rejected_count, 1);
    assert_int_equal(f->rejected[0], 6);
    struct store_orders_audit audit;
    assert_ok(f, store_audit_orders(f->store, &audit));
    assert_int_equal(audit.count, 6);
    assert_int_equal(audit.rejected, 4);
    assert_int_equal(audit.first_gap, 0);
}

static void test_entries_of_a_run_apply_in_log_order(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 1);
    struct sale_order early[2] = {order_of(f, 1, product, 1), order_of(f, 2, product, 1)};
    struct sale_order late = order_of(f, 3, product, 1);
    struct log_entry entries[3] = {sale_entry(f, 1, early, 2), stock_entry(f, 2, product, 1, STOCK_RESTOCK),
                                   sale_entry(f, 3, &late, 1)};
    assert_ok(f, record(f, entries, 3));
    assert_int_equal(f->rejected_count, 1);
    assert_int_equal(f->rejected[0], 2);
    assert_int_equal(state_of(f, 3), ORDER_CONFIRMED);
    assert_int_equal(find_product(f, product).stock, 0);
}

static void test_an_order_id_that_is_not_new_is_refused_without_a_row(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 10);
    sell_many(f, product, 3, 1, 3);
    struct sale_order orders[4] = {order_of(f, 1, product, 1), order_of(f, 2, product, 1),
                                   order_of(f, 2, product, 1), order_of(f, 2, product, 1)};
    orders[0].id = 2; /* in the store */
    orders[1].id = 4;
    orders[2].id = 4; /* twice in one run */
    orders[3].id = 5;
    orders[3].quantity = -3; /* would add stock */
    struct log_entry entry = sale_entry(f, 1, orders, 4);
    assert_ok(f, record(f, &entry, 1));
    assert_int_equal(f->rejected_count, 3);
    assert_int_equal(f->rejected[0], 2);
    assert_int_equal(f->rejected[1], 4);
    assert_int_equal(f->rejected[2], 5);
    assert_int_equal(find_product(f, product).sold, 4);
    struct store_order order;
    assert_ok(f, store_find_order(f->store, 2, &order));
    assert_int_equal(order.sale.request, 7002);
    assert_int_equal(order.state, ORDER_CONFIRMED);
    assert_status(f->store, store_find_order(f->store, 5, &order), STORE_NOT_FOUND, __LINE__);
}

static void test_stock_changes_that_do_not_fit_are_kept_but_not_applied(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 10);
    struct log_entry entries[6] = {stock_entry(f, 1, product, -11, STOCK_WITHDRAWAL),
                                   stock_entry(f, 2, product + 7, 5, STOCK_RESTOCK),
                                   stock_entry(f, 3, product, INT64_MAX, STOCK_RESTOCK),
                                   stock_entry(f, 4, product, INT64_MIN, STOCK_WITHDRAWAL),
                                   stock_entry(f, 5, product, -10, STOCK_WITHDRAWAL),
                                   stock_entry(f, 6, product, -1, STOCK_OPENING)};
    assert_ok(f, record(f, entries, 6));
    struct store_product book = find_product(f, product);
    assert_int_equal(book.stock, 0);
    assert_int_equal(book.restocked, -10);
    assert_int_equal(book.opening, 10);
    struct store_product_audit audit;
    assert_ok(f, store_audit_product(f->store, product, &audit));
    assert_int_equal(audit.opening_units, 10);
    assert_int_equal(audit.restock_units, -10);
    change_stock(f, product, 20, STOCK_RESTOCK);
    change_stock(f, product, -11, STOCK_OPENING); /* there is stock enough, but not that it opened with */
    assert_int_equal(find_product(f, product).stock, 20);
    assert_ok(f, store_audit_product(f->store, product + 7, &audit));
    assert_int_equal(audit.restock_units, 0);
    struct store_position position;
    assert_ok(f, store_position(f->store, &position));
    assert_int_equal(position.recorded.n, entries[5].position.n + 2);
}

static void test_a_run_over_many_products(void **state)
{
    enum { PRODUCTS = 300 };
    struct fixture *f = *state;
    static struct log_entry openings[PRODUCTS];
    static struct sale_order orders[2 * PRODUCTS];
    attach(f);
    for (int i = 0; i < PRODUCTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        openings[i] = stock_entry(f, (uint64_t)i + 1, add_product(f, name, 0), i, STOCK_OPENING);
    }
    assert_ok(f, record(f, openings, PRODUCTS));
    for (int i = 0; i < 2 * PRODUCTS; i++)
        orders[i] = order_of(f, 1, i % PRODUCTS + 1, 1);
    struct log_entry sale = sale_entry(f, 1, orders, 2 * PRODUCTS);
    assert_ok(f, record(f, &sale, 1));
    assert_int_equal(f->rejected_count, 3); /* stock 0: both orders, stock 1: the second */
    for (int i = 0; i < PRODUCTS; i++)
        assert_int_equal(find_product(f, i + 1).stock, i < 2 ? 0 : i - 2);
}

/* --- fencing --- */
static void test_epoch_is_raised_once(void **state)
{
    struct fixture *f = *state;
    struct store *other = open_or_die(f->url, STORE_WRITER);
    assert_ok(f, store_raise_epoch(f->store, 0, 1));
    assert_int_equal(store_raise_epoch(other, 0, 1), STORE_FENCED);
    assert_int_equal(store_raise_epoch(other, 2, 3), STORE_FENCED);
    assert_int_equal(store_raise_epoch(other, UINT64_MAX, UINT64_MAX), STORE_FENCED);
    assert_int_equal(store_raise_epoch(other, 1, 2), STORE_OK);
    struct store_position position;
    assert_ok(f, store_position(f->store, &position));
    assert_int_equal(position.epoch, 2);
    store_close(&other);
}

static void assert_fenced(struct fixture *f, uint64_t epoch, struct log_position from)
{
    struct sale_order order = order_of(f, 1, 1, 1);
    f->next_id--;
    struct log_entry entry = sale_entry(f, 9, &order, 1);
    size_t rejected_count = 5;
    assert_status(f->store,
                  store_record(f->store, epoch, from, &entry, 1, f->rejected, REJECTED_MAX, &rejected_count),
                  STORE_FENCED, __LINE__);
    assert_int_equal(rejected_count, 0);
    struct store_order found;
    assert_status(f->store, store_find_order(f->store, order.id, &found), STORE_NOT_FOUND, __LINE__);
}

static void test_record_is_fenced_by_epoch_and_position(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 10);
    struct log_position old = f->position;
    sell(f, 1, product, 1);
    assert_fenced(f, f->epoch, old);                   /* another recorder was faster */
    assert_fenced(f, f->epoch, after(f->position, 1)); /* ahead of the store */
    assert_fenced(f, f->epoch, (struct log_position){0, f->position.n});
    assert_fenced(f, f->epoch + 1, f->position);
    struct store *other = open_or_die(f->url, STORE_WRITER);
    assert_int_equal(store_raise_epoch(other, f->epoch, f->epoch + 1),
                     STORE_OK); /* another recorder attached */
    store_close(&other);
    assert_fenced(f, f->epoch, f->position);
    assert_int_equal(find_product(f, product).sold, 1);
    f->epoch++;
    sell(f, 1, product, 1); /* what was left of the old epoch's log, recorded by the new recorder */
    assert_int_equal(find_product(f, product).sold, 2);
}

static void test_entries_out_of_order_are_refused(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 10);
    struct sale_order orders[2] = {order_of(f, 1, product, 1), order_of(f, 1, product, 1)};
    struct log_entry entries[2] = {sale_entry(f, 2, &orders[0], 1), sale_entry(f, 2, &orders[1], 1)};
    assert_status(f->store, record(f, entries, 2), STORE_FAILED, __LINE__); /* one position twice */
    assert_non_null(strstr(store_error(f->store), "order"));
    entries[0].position = f->position; /* recorded already */
    assert_status(f->store, record(f, entries, 1), STORE_FAILED, __LINE__);
    entries[0].position = (struct log_position){1, (uint64_t)INT64_MAX + 1}; /* more than a store can hold */
    assert_status(f->store, record(f, entries, 1), STORE_FAILED, __LINE__);
    assert_int_equal(find_product(f, product).sold, 0);
    entries[0] = sale_entry(f, 1, &orders[0], 1);
    assert_ok(f, record(f, entries, 2));
}

/* --- reading orders --- */
static void test_orders_of_a_user(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 100000);
    sell_many(f, product, 5000, 1,
              10001);       /* user 1: 1, 5001 and 10001; far apart, so on several pages and shelves */
    sell(f, 1, product, 7); /* 10002 */
    struct store_order orders[10];
    size_t count;
    assert_ok(f, store_orders_of(f->store, 1, INT64_MAX, orders, 10, &count));
    assert_int_equal(count, 4);
    assert_int_equal(orders[0].sale.id, 10002);
    assert_int_equal(orders[0].sale.quantity, 7);
    assert_int_equal(orders[1].sale.id, 10001);
    assert_int_equal(orders[2].sale.id, 5001);
    assert_int_equal(orders[3].sale.id, 1);
    assert_ok(f, store_orders_of(f->store, 1, 10002, orders, 2, &count));
    assert_int_equal(count, 2);
    assert_int_equal(orders[0].sale.id, 10001);
    assert_int_equal(orders[1].sale.id, 5001);
    assert_ok(f, store_orders_of(f->store, 1, 5001, orders, 2, &count));
    assert_int_equal(count, 1);
    assert_ok(f, store_orders_of(f->store, 1, 1, orders, 2, &count));
    assert_int_equal(count, 0);
    assert_ok(f, store_orders_of(f->store, 5001, INT64_MAX, orders, 2, &count));
    assert_int_equal(count, 0);
    assert_ok(f, store_orders_of(f->store, 1, INT64_MAX, orders, 0, &count));
    assert_int_equal(count, 0);
}

static void test_orders_of_a_user_around_a_gap(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 10);
    sell(f, 1, product, 1);
    f->next_id = INT64_C(1) << 52; /* must not be walked step by step */
    sell(f, 1, product, 1);
    struct store_order orders[3];
    size_t count;
    assert_ok(f, store_orders_of(f->store, 1, INT64_MAX, orders, 3, &count));
    assert_int_equal(count, 2);
    assert_int_equal(orders[1].sale.id, 1);
}

struct buyers {
    int64_t units[10][10]; /* [product][user] */
    int calls, calls_max;
};

static bool buyer_cb(void *context, int64_t product_id, int64_t user_id, int64_t units)
{
    struct buyers *buyers = context;
    assert_in_range(product_id, 1, 9);
    assert_in_range(user_id, 1, 9);
    assert_int_equal(buyers->units[product_id][user_id], 0); /* once each */
    buyers->units[product_id][user_id] = units;
    return ++buyers->calls < buyers->calls_max;
}

static void test_each_buyer_of_limited_products(void **state)
{
    struct fixture *f = *state;
    int64_t unlimited = open_shop(f, 10), limited = add_product(f, "Limited", 3),
            rare = add_product(f, "Rare", 1);
    struct buyers buyers = {.calls_max = 100};
    change_stock(f, limited, 6, STOCK_OPENING);
    change_stock(f, rare, 1, STOCK_OPENING);
    sell(f, 1, unlimited, 1);
    assert_ok(f, store_each_buyer(f->store, buyer_cb, &buyers));
    assert_int_equal(buyers.calls, 0);
    sell(f, 1, limited, 2);
    sell(f, 2, limited, 1);
    sell(f, 1, limited, 2); /* one over the limit */
    sell(f, 3, limited, 5); /* rejected: one left */
    sell(f, 2, rare, 1);
    assert_ok(f, store_each_buyer(f->store, buyer_cb, &buyers));
    assert_int_equal(buyers.calls, 3);
    assert_int_equal(buyers.units[limited][1], 4);
    assert_int_equal(buyers.units[limited][2], 1);
    assert_int_equal(buyers.units[rare][2], 1);
    struct buyers impatient = {.calls_max = 1};
    assert_ok(f, store_each_buyer(f->store, buyer_cb, &impatient));
    assert_int_equal(impatient.calls, 1);
    struct store_product_audit audit;
    assert_ok(f, store_audit_product(f->store, limited, &audit));
    assert_int_equal(audit.over_limit_customers, 1);
    assert_ok(f, store_audit_product(f->store, unlimited, &audit));
    assert_int_equal(audit.over_limit_customers, 0);
}

/* --- idempotency keys --- */
static void sell_keyed_at(struct fixture *f, int64_t user, int64_t product, int64_t quantity, const char *key,
                          int64_t at_ms)
{
    struct sale_order order = order_of(f, user, product, quantity);
    order.key = key;
    order.key_bytes = key == NULL ? 0 : strlen(key);
    struct log_entry entry = sale_entry(f, 1, &order, 1);
    entry.at_ms = at_ms;
    assert_ok(f, record(f, &entry, 1));
}

static void test_an_order_keeps_its_key(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 100);
    char longest[IDEMPOTENCY_KEY_BYTES_MAX + 1] = "";
    memset(longest, '~', IDEMPOTENCY_KEY_BYTES_MAX);
    sell_keyed_at(f, 1, product, 1, "it's \"1\"; --%s", 2000);
    sell_keyed_at(f, 1, product, 1, NULL, 2000);
    sell_keyed_at(f, 1, product, 1, longest, 2000);
    sell_keyed_at(f, 1, product, 1, "123", 2000); /* text, not a number */
    const char *const keys[] = {"it's \"1\"; --%s", "", longest, "123"};
    struct store_order orders[4];
    size_t count;
    reopen(f);
    assert_ok(f, store_orders_of(f->store, 1, INT64_MAX, orders, 4, &count));
    assert_int_equal(count, 4);
    for (size_t i = 0; i < 4; i++) {
        struct store_order order;
        assert_ok(f, store_find_order(f->store, (int64_t)i + 1, &order));
        assert_string_equal(order.idempotency_key, keys[i]);
        assert_string_equal(orders[3 - i].idempotency_key, keys[i]);
        assert_null(order.sale.key);
        assert_int_equal(order.sale.key_bytes, 0);
    }
}

struct keys_seen {
    size_t calls, calls_max;
    int64_t orders[1000], users[1000], times[1000];
    char last[IDEMPOTENCY_KEY_BYTES_MAX + 1];
};

static bool key_cb(void *context, int64_t user_id, const char *key, int64_t order_id, int64_t at_ms)
{
    struct keys_seen *seen = context;
    seen->users[seen->calls] = user_id;
    seen->orders[seen->calls] = order_id;
    seen->times[seen->calls] = at_ms;
    snprintf(seen->last, sizeof seen->last, "%s", key);
    return ++seen->calls < seen->calls_max;
}

static size_t keys_since(struct fixture *f, int64_t since_ms, struct keys_seen *seen)
{
    *seen = (struct keys_seen){.calls_max = 1000};
    assert_ok(f, store_each_key(f->store, since_ms, key_cb, seen));
    return seen->calls;
}

static void test_each_recent_key(void **state)
{
    struct fixture *f = *state;
    struct keys_seen seen;
    assert_int_equal(keys_since(f, 0, &seen), 0); /* no orders at all */
    int64_t product = open_shop(f, 300);
    sell_keyed_at(f, 1, product, 1, "a", 2000);
    sell_keyed_at(f, 2, product, 1, NULL, 3000);
    sell_keyed_at(f, 2, product, 1000, "rejected", 3000);
    sell_keyed_at(f, 3, product, 1, "b", 3000);
    sell_keyed_at(f, 1, product, 1, "a", 4000);
    assert_int_equal(keys_since(f, 0, &seen), 3);
    assert_int_equal(seen.orders[0], 1);
    assert_int_equal(seen.orders[1], 4);
    assert_int_equal(seen.orders[2], 5); /* the newer one last */
    assert_int_equal(seen.users[1], 3);
    assert_int_equal(seen.times[1], 3000);
    assert_string_equal(seen.last, "a");
    assert_int_equal(keys_since(f, 2000, &seen), 3);
    assert_int_equal(keys_since(f, 2001, &seen), 2);
    assert_int_equal(keys_since(f, 3000, &seen), 2);
    assert_int_equal(keys_since(f, 3001, &seen), 1);
    assert_int_equal(keys_since(f, 4000, &seen), 1);
    assert_int_equal(keys_since(f, 4001, &seen), 0);
    assert_int_equal(keys_since(f, INT64_MAX, &seen), 0);
    seen = (struct keys_seen){.calls_max = 1};
    assert_ok(f, store_each_key(f->store, 0, key_cb, &seen));
    assert_int_equal(seen.calls, 1);
    /* As part of a snapshot too; and the connection can write afterwards. */
    assert_ok(f, store_snapshot_begin(f->store));
    assert_int_equal(keys_since(f, 0, &seen), 3);
    store_snapshot_end(f->store);
    sell_keyed_at(f, 9, product, 1, "c", 5000);
    assert_int_equal(keys_since(f, 4500, &seen), 1);
}

/* The search for the first order by time, against a plain count: many orders of one time, and gaps in the ids. */
static void test_recent_keys_from_every_time(void **state)
{
    struct fixture *f = *state;
    struct keys_seen seen;
    int64_t product = open_shop(f, 1000), times[120];
    for (int64_t i = 0; i < 120; i++) {
        times[i] = 1000 + i / 7 * 10;
        if (i % 11 == 0)
            f->next_id += 5;
        sell_keyed_at(f, i + 1, product, 1, "k", times[i]);
    }
    for (int64_t since = 995; since < 1180; since++) {
        size_t expected = 0;
        for (size_t i = 0; i < 120; i++)
            expected += times[i] >= since;
        assert_int_equal(keys_since(f, since, &seen), expected);
    }
}

/* --- audits --- */
static void test_audit_of_products(void **state)
{
    struct fixture *f = *state;
    int64_t lamp = open_shop(f, 5), chair = add_product(f, "Chair", 0), unsold = add_product(f, "Unsold", 0);
    change_stock(f, chair, 8, STOCK_OPENING);
    change_stock(f, chair, 4, STOCK_RESTOCK);
    change_stock(f, chair, -1, STOCK_WITHDRAWAL);
    sell(f, 1, lamp, 2);
    sell(f, 1, chair, 3);
    sell(f, 2, lamp, 1);
    sell(f, 2, lamp, 9); /* rejected */
    for (int in_snapshot = 0; in_snapshot < 2; in_snapshot++) {
        struct store_product_audit audit;
        if (in_snapshot)
            assert_ok(f, store_snapshot_begin(f->store));
        assert_ok(f, store_audit_product(f->store, lamp, &audit));
        assert_int_equal(audit.order_count, 2);
        assert_int_equal(audit.order_units, 3);
        assert_int_equal(audit.opening_units, 5);
        assert_int_equal(audit.restock_units, 0);
        assert_int_equal(audit.last_order_id, 3);
        struct store_order last;
        assert_ok(f, store_find_order(f->store, 3, &last));
        assert_int_equal(audit.last_order_at_ms, last.at_ms);
        assert_ok(f, store_audit_product(f->store, chair, &audit));
        assert_int_equal(audit.order_units, 3);
        assert_int_equal(audit.opening_units, 8);
        assert_int_equal(audit.restock_units, 3);
        assert_int_equal(audit.last_order_id, 2);
        assert_ok(f, store_audit_product(f->store, unsold, &audit));
        struct store_product_audit nothing = {0};
        assert_memory_equal(&audit, &nothing, sizeof audit);
        store_snapshot_end(f->store);
    }
    sell(f, 1, lamp, 1); /* the snapshot's counts are forgotten with it */
    struct store_product_audit audit;
    assert_ok(f, store_audit_product(f->store, lamp, &audit));
    assert_int_equal(audit.order_units, 4);
}

static struct store_orders_audit audit_orders(struct fixture *f)
{
    struct store_orders_audit audit;
    assert_ok(f, store_audit_orders(f->store, &audit));
    return audit;
}

static void test_audit_of_orders_finds_each_fault(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 100);
    for (int i = 0; i < 10; i++)
        sell(f, 1, product, 1);
    struct store_orders_audit audit = audit_orders(f);
    struct store_orders_audit sound = {.count = 10, .first_id = 1, .last_id = 10};
    assert_memory_equal(&audit, &sound, sizeof audit);

    assert_true(store_fixture_try(
        f->url, "UPDATE orders SET log_n = (SELECT log_n FROM orders WHERE id = 3) - 1 WHERE id = 4"));
    assert_true(store_fixture_try(f->url, "UPDATE orders SET at_ms = at_ms - 100 WHERE id = 6"));
    assert_true(store_fixture_try(f->url, "UPDATE orders SET user_id = 77 WHERE id = 7"));
    assert_true(store_fixture_try(f->url, "UPDATE orders SET product_id = 78 WHERE id IN (8, 9)"));
    assert_true(store_fixture_try(f->url, "UPDATE orders SET log_epoch = log_epoch + 1 WHERE id = 10"));
    audit = audit_orders(f);
    assert_int_equal(audit.out_of_log_order, 1);
    assert_int_equal(audit.out_of_time_order, 1);
    assert_int_equal(audit.first_out_of_order, 4);
    assert_int_equal(audit.unknown_user, 1);
    assert_int_equal(audit.unknown_product, 2);
    assert_int_equal(audit.beyond_position, 1);
    assert_int_equal(audit.first_gap, 0);

    assert_true(store_fixture_try(f->url, "DELETE FROM orders WHERE id IN (5, 8)"));
    audit = audit_orders(f);
    assert_int_equal(audit.first_gap, 5);
    assert_int_equal(audit.count, 8);
    assert_int_equal(audit.last_id, 10);
    assert_true(store_fixture_try(f->url, "DELETE FROM orders WHERE id IN (1, 2)"));
    audit = audit_orders(f);
    assert_int_equal(audit.first_gap, 1);
    assert_int_equal(audit.first_id, 3);
}

static void test_orders_of_one_entry_are_in_order(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 1000);
    sell_many(f, product, 1, 1, 600);
    struct store_orders_audit audit = audit_orders(f);
    struct store_orders_audit sound = {.count = 600, .first_id = 1, .last_id = 600};
    assert_memory_equal(&audit, &sound, sizeof audit);
}

static void test_the_schema_forbids_an_oversale(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 2);
    assert_false(store_fixture_try(f->url, "UPDATE products SET stock = -1, sold = 3"));
    assert_false(store_fixture_try(f->url, "UPDATE products SET stock = stock + 1"));
    assert_false(store_fixture_try(f->url, "UPDATE products SET sold = sold + 1"));
    assert_false(store_fixture_try(f->url, "UPDATE products SET price = 0"));
    assert_true(store_fixture_try(f->url, "UPDATE products SET stock = 0, sold = 2"));
    assert_int_equal(find_product(f, product).stock, 0);
}

/* --- snapshots --- */
static void test_a_snapshot_is_one_moment(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 10);
    sell(f, 1, product, 1);
    struct store *reader = open_or_die(f->url, STORE_READER);
    assert_int_equal(store_snapshot_begin(reader), STORE_OK);
    sell(f, 1, product, 2); /* a reader holds nobody up */
    struct store_product seen;
    struct store_position position;
    struct store_product_audit audit;
    assert_int_equal(store_find_product(reader, product, &seen), STORE_OK);
    assert_int_equal(seen.stock, 9);
    assert_int_equal(store_position(reader, &position), STORE_OK);
    assert_int_equal(position.recorded.n, f->position.n - 1);
    assert_int_equal(store_audit_product(reader, product, &audit), STORE_OK);
    assert_int_equal(audit.order_units, 1);
    store_snapshot_end(reader);
    store_snapshot_end(reader); /* again: nothing */
    assert_int_equal(store_find_product(reader, product, &seen), STORE_OK);
    assert_int_equal(seen.stock, 7);
    store_close(&reader);
}

static void test_closing_inside_a_snapshot(void **state)
{
    struct fixture *f = *state;
    open_shop(f, 10);
    struct store *reader = open_or_die(f->url, STORE_READER);
    struct store_product_audit audit;
    assert_int_equal(store_snapshot_begin(reader), STORE_OK);
    assert_int_equal(store_audit_product(reader, 1, &audit), STORE_OK);
    store_close(&reader);
    assert_null(reader);
    store_close(&reader);
}

/* --- several processes --- */
/* Runs `body` in a child. It opens what it needs itself; an assert that fails there ends it with another exit
 * code than 0. */
static pid_t start(void (*body)(struct fixture *f, int fd), struct fixture *f, int fd)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    alarm(50); /* never outlives the test */
    body(f, fd);
    _exit(0);
}

#define child_check(condition) ((condition) ? (void)0 : _exit(__LINE__ % 200 + 1))

static void assert_ends_well(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child ended with status 0x%x", (unsigned)status);
}

#define RACE_ENTRIES 300

/* Records entry after entry; the other one does, too. Whoever is fenced reads the position again. */
static void racing_recorder(struct fixture *f, int fd)
{
    (void)fd;
    char error[512];
    struct store_position position;
    child_check(store_open(&f->store, f->url, STORE_WRITER, error, sizeof error) == STORE_OK);
    for (;;) {
        child_check(store_position(f->store, &position) == STORE_OK);
        if (position.recorded.n >= RACE_ENTRIES)
            break;
        f->epoch = position.epoch;
        f->position = position.recorded;
        f->next_id = position.last_order_id + 1;
        struct sale_order orders[3] = {order_of(f, 1, 1, 1), order_of(f, 1, 1, 2), order_of(f, 1, 1, 1)};
        struct log_entry entry = sale_entry(f, 1, orders, 3);
        enum store_status status = record(f, &entry, 1);
        child_check(status == STORE_OK || status == STORE_FENCED);
    }
    store_close(&f->store);
}

#define RACE_USERS 100

static void registering_worker(struct fixture *f, int fd)
{
    (void)fd;
    char error[512];
    child_check(store_open(&f->store, f->url, STORE_WRITER, error, sizeof error) == STORE_OK);
    for (int i = 0; i < RACE_USERS; i++) {
        struct store_user user = {.password_hash = "x"};
        snprintf(user.username, sizeof user.username, "racer %d", i);
        enum store_status status = store_add_user(f->store, &user);
        child_check(status == STORE_OK || status == STORE_TAKEN);
    }
    store_close(&f->store);
}

/* Reads while the others write: whatever it sees must fit together. */
static void assert_consistent(struct store *reader)
{
    struct store_product book;
    struct store_product_audit product;
    struct store_orders_audit orders;
    struct store_chain_audit chain;
    struct store_position position;
    assert_status(reader, store_audit_chain(reader, &chain), STORE_OK, __LINE__);
    assert_status(reader, store_snapshot_begin(reader), STORE_OK, __LINE__);
    assert_status(reader, store_find_product(reader, 1, &book), STORE_OK, __LINE__);
    assert_status(reader, store_audit_product(reader, 1, &product), STORE_OK, __LINE__);
    assert_status(reader, store_audit_orders(reader, &orders), STORE_OK, __LINE__);
    assert_status(reader, store_position(reader, &position), STORE_OK, __LINE__);
    store_snapshot_end(reader);
    assert_int_equal(book.sold, product.order_units);
    assert_int_equal(book.stock, book.opening - book.sold);
    assert_int_equal(product.opening_units, book.opening);
    assert_int_equal(product.logged_stock, book.stock);
    assert_true(chain.rows <= (int64_t)position.recorded.n); /* each entry moves product 1; some came since */
    assert_int_equal(chain.first_gap + chain.first_forged + chain.first_off + chain.first_backwards, 0);
    assert_int_equal(orders.last_id, orders.count);
    assert_int_equal(orders.first_gap, 0);
    assert_int_equal(orders.beyond_position, 0);
    assert_int_equal(orders.out_of_log_order, 0);
    assert_int_equal(position.last_order_id, orders.last_id);
}

static void test_processes_that_write_and_read_at_once(void **state)
{
    struct fixture *f = *state;
    open_shop(f, 100000);
    store_close(&f->store); /* nothing open crosses a fork */
    pid_t children[4];
    for (int i = 0; i < 4; i++)
        children[i] = start(i < 2 ? racing_recorder : registering_worker, f, -1);
    struct store *reader = open_or_die(f->url, STORE_READER);
    struct store_position position;
    do {
        assert_consistent(reader);
        assert_int_equal(store_position(reader, &position), STORE_OK);
        for (int i = 0; i < 4; i++) {
            int status;
            if (children[i] != 0 && waitpid(children[i], &status, WNOHANG) == children[i]) {
                assert_int_equal(status, 0);
                children[i] = 0;
            }
        }
    } while (children[0] != 0 || children[1] != 0 || children[2] != 0 || children[3] != 0);
    assert_consistent(reader);
    assert_int_equal(store_position(reader, &position), STORE_OK);
    assert_int_equal(position.recorded.n, RACE_ENTRIES);
    assert_int_equal(position.last_order_id,
                     3 * (RACE_ENTRIES - 1)); /* entry 1 was the opening: none lost, none twice */
    struct store_user user;
    assert_int_equal(store_find_user_by_id(reader, RACE_USERS + 1, &user), STORE_OK);
    assert_int_equal(store_find_user_by_id(reader, RACE_USERS + 2, &user), STORE_NOT_FOUND);
    store_close(&reader);
}

/* Tells the position over the pipe after each commit, until it is killed. */
static void telling_recorder(struct fixture *f, int fd)
{
    char error[512];
    child_check(store_open(&f->store, f->url, STORE_WRITER, error, sizeof error) == STORE_OK);
    for (;;) {
        struct sale_order order = order_of(f, 1, 1, 1);
        struct log_entry entry = sale_entry(f, 1, &order, 1);
        child_check(record(f, &entry, 1) == STORE_OK);
        child_check(write(fd, &order.id, sizeof order.id) == sizeof order.id);
    }
}

static void test_what_was_recorded_survives_a_kill(void **state)
{
    struct fixture *f = *state;
    open_shop(f, 1000000);
    store_close(&f->store);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = start(telling_recorder, f, ends[1]);
    close(ends[1]);
    int64_t told = 0;
    while (told < 50)
        assert_int_equal(read(ends[0], &told, sizeof told), sizeof told);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    while (read(ends[0], &told, sizeof told) == sizeof told)
        ;
    close(ends[0]);
    struct store *reader = open_or_die(f->url, STORE_READER); /* the first to open it afterwards */
    assert_consistent(reader);
    f->store = open_or_die(f->url, STORE_WRITER);
    assert_consistent(f->store);
    assert_consistent(reader);
    store_close(&reader);
    struct store_position position;
    assert_ok(f, store_position(f->store, &position));
    assert_in_range(position.last_order_id, told, told + 1);
    f->next_id = position.last_order_id + 1;
    f->position = position.recorded;
    sell(f, 1, 1, 1);
}

/* ============================================================ SQLite only
 * ============================================= */

static const char *path_of(const struct fixture *f)
{
    return f->url + strlen("sqlite:");
}

static void write_file(const char *path, const char *bytes, size_t count, off_t offset)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, count, offset), count);
    close(fd);
}

static void test_url_with_slashes_is_the_same_file(void **state)
{
    struct fixture *f = *state;
    add_user(f, "ada");
    char url[400];
    snprintf(url, sizeof url, "sqlite://%s", path_of(f));
    struct store *store = open_or_die(url, STORE_READER);
    struct store_user user;
    assert_int_equal(store_find_user(store, "ada", &user), STORE_OK);
    store_close(&store);
}

static void test_relative_path_is_a_file_whatever_its_name(void **state)
{
    struct fixture *f = *state;
    char before[PATH_MAX];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(f->folder), 0);
    static const char *const names[] = {":memory:", "file:x?mode=memory"};
    for (size_t i = 0; i < 2; i++) {
        char url[64], path[64];
        snprintf(url, sizeof url, "sqlite:%s", names[i]);
        struct store *store = open_or_die(url, STORE_WRITER);
        store_close(&store);
        assert_int_equal(unlink(names[i]), 0);
        snprintf(path, sizeof path, "%s.lock", names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(chdir(before), 0);
}

static void test_files_are_private(void **state)
{
    struct fixture *f = *state;
    open_shop(f, 10);
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < 4; i++) {
        char path[160];
        struct stat found;
        snprintf(path, sizeof path, "%s%s", path_of(f), suffixes[i]);
        assert_int_equal(stat(path, &found), 0);
        assert_int_equal(found.st_mode & 0777, 0600);
    }
}

static void assert_open_fails(const char *url, enum store_mode mode, const char *because)
{
    struct store *store;
    char error[512] = "";
    assert_int_equal(store_open(&store, url, mode, error, sizeof error), STORE_FAILED);
    assert_null(store);
    if (strstr(error, because) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error, because);
}

static void test_a_file_that_is_no_database(void **state)
{
    struct fixture *f = *state;
    char text[8192];
    memset(text, 'x', sizeof text);
    write_file(path_of(f), text, sizeof text, 0);
    assert_open_fails(f->url, STORE_WRITER, "not made by Doorbuster");
    assert_open_fails(f->url, STORE_READER, "not made by Doorbuster");
    struct stat found;
    assert_int_equal(stat(path_of(f), &found), 0);
    assert_int_equal(found.st_size, sizeof text);
}

static void test_the_database_of_another_program_is_left_alone(void **state)
{
    struct fixture *f = *state;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path_of(f), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE users (x)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_open_fails(f->url, STORE_WRITER, "another program");
    assert_open_fails(f->url, STORE_READER, "another program");
    char mode = 0;
    int fd = open(path_of(f), O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, &mode, 1, 18), 1);
    close(fd);
    assert_int_equal(mode, 1); /* not turned to WAL */
}

static void test_a_store_of_a_newer_version_is_left_alone(void **state)
{
    struct fixture *f = *state;
    store_close(&f->store);
    assert_true(store_fixture_try(f->url, "PRAGMA user_version = 999"));
    assert_open_fails(f->url, STORE_WRITER, "newer Doorbuster");
    assert_open_fails(f->url, STORE_READER, "newer Doorbuster");
}

static void test_reader_of_an_empty_file(void **state)
{
    struct fixture *f = *state;
    write_file(path_of(f), "", 0, 0);
    assert_open_fails(f->url, STORE_READER, "start the server");
    f->store = open_or_die(f->url, STORE_WRITER);
}

static void test_folders_that_cannot_be_written(void **state)
{
    struct fixture *f = *state;
    char url[400];
    snprintf(url, sizeof url, "sqlite:%s/missing/shop.db", f->folder);
    assert_open_fails(url, STORE_WRITER, "must exist");
    assert_open_fails("sqlite:/proc/shop.db", STORE_WRITER, "writable");
}

static void nobody_opens(struct fixture *f, int fd)
{
    (void)fd;
    char error[512] = "";
    if (geteuid() == 0)
        child_check(setuid(65534) == 0);
    child_check(store_open(&f->store, f->url, STORE_WRITER, error, sizeof error) == STORE_FAILED);
    child_check(strstr(error, "writable") != NULL && strstr(error, "Permission denied") != NULL);
}

static void test_a_folder_of_somebody_else(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(chmod(f->folder, 0555), 0);
    assert_ends_well(start(nobody_opens, f, -1));
    assert_int_equal(chmod(f->folder, 0700), 0);
}

/* The first page of each table and index; the pages that say what there is stay. */
static void damage_every_table(const struct fixture *f)
{
    char junk[4096];
    off_t pages[64];
    size_t count = 0;
    sqlite3 *db;
    sqlite3_stmt *roots;
    memset(junk, 0x5a, sizeof junk);
    assert_int_equal(sqlite3_open_v2(path_of(f), &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT rootpage FROM sqlite_schema WHERE rootpage > 1", -1, &roots, NULL),
        SQLITE_OK);
    while (sqlite3_step(roots) == SQLITE_ROW && count < sizeof pages / sizeof pages[0])
        pages[count++] = sqlite3_column_int64(roots, 0);
    sqlite3_finalize(roots);
    sqlite3_close(db);
    assert_in_range(count, 8, 63);
    for (size_t i = 0; i < count; i++)
        write_file(path_of(f), junk, sizeof junk, (pages[i] - 1) * 4096);
}

static void test_a_damaged_file_is_an_error_and_no_crash(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 100000);
    sell_many(f, product, 10, 1, 5000);
    store_close(&f->store); /* checkpoints */
    damage_every_table(f);
    f->store = open_or_die(f->url, STORE_WRITER);
    struct store_order order;
    assert_status(f->store, store_find_order(f->store, 3, &order), STORE_FAILED, __LINE__);
    assert_non_null(strstr(store_error(f->store), "damaged"));
    struct store_position position;
    assert_status(f->store, store_position(f->store, &position), STORE_FAILED, __LINE__);
    struct store_user user = {.username = "bob"};
    assert_status(f->store, store_add_user(f->store, &user), STORE_FAILED, __LINE__);
    assert_status(f->store, store_snapshot_begin(f->store), STORE_FAILED, __LINE__);
    struct store_orders_audit audit;
    assert_status(f->store, store_audit_orders(f->store, &audit), STORE_FAILED, __LINE__);
    struct sale_order sale = order_of(f, 1, product, 1);
    struct log_entry entry = sale_entry(f, 1, &sale, 1);
    assert_status(f->store, record(f, &entry, 1), STORE_FAILED, __LINE__);
}

/* A limit on file sizes stands in for a full disk. */
static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes == RLIM_INFINITY ? limit.rlim_max : bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_a_full_disk_changes_nothing_and_passes(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 100000);
    sell(f, 1, product, 1);
    char wal[160];
    struct stat found;
    snprintf(wal, sizeof wal, "%s-wal", path_of(f));
    assert_int_equal(stat(wal, &found), 0);

    struct sale_order orders[SALES_LOG_ORDERS_MAX];
    for (size_t i = 0; i < SALES_LOG_ORDERS_MAX; i++)
        orders[i] = order_of(f, 1, product, 1);
    struct log_entry entry = sale_entry(f, 1, orders, SALES_LOG_ORDERS_MAX);
    struct store_user user = {.username = "bob"};
    limit_file_size((rlim_t)found.st_size + 5000); /* room for one page: it fails half-way */
    enum store_status recorded = record(f, &entry, 1);
    char error[512];
    snprintf(error, sizeof error, "%s", store_error(f->store));
    enum store_status added = store_add_user(f->store, &user);
    limit_file_size(RLIM_INFINITY);

    assert_int_equal(recorded, STORE_FAILED);
    assert_int_equal(added, STORE_FAILED);
    assert_non_null(strstr(error, path_of(f)));
    assert_non_null(strstr(error, "disk"));
    assert_int_equal(find_product(f, product).sold, 1);
    struct store_order order;
    assert_status(f->store, store_find_order(f->store, 2, &order), STORE_NOT_FOUND, __LINE__);
    assert_ok(f, record(f, &entry, 1)); /* from the same position, when there is room again */
    assert_int_equal(find_product(f, product).sold, 257);
    reopen(f);
    assert_consistent(f->store);
    assert_ok(f, store_add_user(f->store, &user));
}

static void test_readers_wait_for_no_writer(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 10);
    char path[160];
    snprintf(path, sizeof path, "%s.lock", path_of(f));
    int lock = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path_of(f), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE; UPDATE products SET price = 9", NULL, NULL, NULL),
                     SQLITE_OK);
    struct store *reader = open_or_die(f->url, STORE_READER); /* would hang if it took a turn */
    struct store_product seen;
    assert_int_equal(store_find_product(reader, product, &seen), STORE_OK);
    assert_int_equal(seen.price, PRICE);
    assert_consistent(reader);
    store_close(&reader);
    struct store_user user = {.username = "ada"};
    assert_status(f->store, store_add_user(f->store, &user), STORE_TAKEN,
                  __LINE__); /* a taken name needs no turn */
    sqlite3_close(db);
    close(lock);
}

static void adding_worker(struct fixture *f, int fd)
{
    char error[512], go;
    struct store_user user = {.username = "late"};
    child_check(store_open(&f->store, f->url, STORE_WRITER, error, sizeof error) == STORE_OK);
    child_check(write(fd, "o", 1) == 1 && read(fd, &go, 1) == 1);
    child_check(store_add_user(f->store, &user) == STORE_OK);
    store_close(&f->store);
}

/* How often it has gone to sleep of its own accord. Who waits for a turn does so all the time. */
static long naps_of(pid_t pid)
{
    char line[256], path[64];
    long naps = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL)
        (void)sscanf(line, "voluntary_ctxt_switches: %ld", &naps);
    fclose(file);
    assert_true(naps >= 0);
    return naps;
}

static void test_writers_take_turns(void **state)
{
    struct fixture *f = *state;
    store_close(&f->store);
    char path[160], opened;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    pid_t child = start(adding_worker, f, ends[1]);
    close(ends[1]);
    assert_int_equal(read(ends[0], &opened, 1), 1);
    snprintf(path, sizeof path, "%s.lock", path_of(f));
    int lock = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    long naps = naps_of(child);
    assert_int_equal(write(ends[0], "g", 1), 1);
    int64_t deadline_us = clock_monotonic_us() + 6000000;
    while (naps_of(child) < naps + 100) /* it is seen looking for its turn, in vain */
        assert_true(clock_monotonic_us() < deadline_us && waitpid(child, NULL, WNOHANG) == 0);
    struct store *reader = open_or_die(f->url, STORE_READER);
    struct store_user user;
    assert_int_equal(store_find_user(reader, "late", &user), STORE_NOT_FOUND);
    close(lock);
    assert_ends_well(child);
    assert_int_equal(store_find_user(reader, "late", &user), STORE_OK);
    store_close(&reader);
    close(ends[0]);
}

static void test_the_write_ahead_log_stays_small(void **state)
{
    struct fixture *f = *state;
    int64_t product = open_shop(f, 1000000);
    char wal[160];
    struct stat found;
    snprintf(wal, sizeof wal, "%s-wal", path_of(f));
    struct store *reader = open_or_die(f->url, STORE_READER);
    assert_int_equal(store_snapshot_begin(reader), STORE_OK); /* a reader that stays puts it off */
    sell_many(f, product, 60000, 7919, 20000);
    store_snapshot_end(reader);
    sell_many(f, product, 60000, 7919, 100000);
    store_close(&reader);
    assert_int_equal(stat(wal, &found), 0);
    assert_in_range(found.st_size, 1, 24 * 1024 * 1024); /* measured: 16 MB; without checkpoints 33 */
    assert_consistent(f->store);
}

int main(void)
{
#define SHOP(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define CLOSED(test) cmocka_unit_test_setup_teardown(test, set_up_closed, tear_down)
    const struct CMUnitTest tests[] = {
        SHOP(test_new_store_is_empty),
        SHOP(test_opening_again_changes_nothing),
        cmocka_unit_test(test_wrong_urls_say_what_they_may_be),
        CLOSED(test_reader_needs_a_store),
        SHOP(test_users),
        SHOP(test_longest_texts_fit),
        SHOP(test_products),
        SHOP(test_a_key_makes_one_product),
        SHOP(test_product_pages),
        SHOP(test_record_writes_orders_book_and_position),
        SHOP(test_record_nothing),
        SHOP(test_the_last_unit_is_sold_and_not_one_more),
        SHOP(test_entries_of_a_run_apply_in_log_order),
        SHOP(test_an_order_id_that_is_not_new_is_refused_without_a_row),
        SHOP(test_stock_changes_that_do_not_fit_are_kept_but_not_applied),
        SHOP(test_a_run_over_many_products),
        SHOP(test_epoch_is_raised_once),
        SHOP(test_record_is_fenced_by_epoch_and_position),
        SHOP(test_entries_out_of_order_are_refused),
        SHOP(test_orders_of_a_user),
        SHOP(test_orders_of_a_user_around_a_gap),
        SHOP(test_each_buyer_of_limited_products),
        SHOP(test_an_order_keeps_its_key),
        SHOP(test_each_recent_key),
        SHOP(test_recent_keys_from_every_time),
        SHOP(test_audit_of_products),
        SHOP(test_audit_of_orders_finds_each_fault),
        SHOP(test_orders_of_one_entry_are_in_order),
        SHOP(test_the_schema_forbids_an_oversale),
        SHOP(test_a_snapshot_is_one_moment),
        SHOP(test_closing_inside_a_snapshot),
        SHOP(test_processes_that_write_and_read_at_once),
        SHOP(test_what_was_recorded_survives_a_kill),
    };
    const struct CMUnitTest in_a_file[] = {
        cmocka_unit_test(test_right_urls),
        SHOP(test_url_with_slashes_is_the_same_file),
        CLOSED(test_relative_path_is_a_file_whatever_its_name),
        SHOP(test_files_are_private),
        CLOSED(test_a_file_that_is_no_database),
        CLOSED(test_the_database_of_another_program_is_left_alone),
        SHOP(test_a_store_of_a_newer_version_is_left_alone),
        CLOSED(test_reader_of_an_empty_file),
        CLOSED(test_folders_that_cannot_be_written),
        CLOSED(test_a_folder_of_somebody_else),
        SHOP(test_a_damaged_file_is_an_error_and_no_crash),
        SHOP(test_a_full_disk_changes_nothing_and_passes),
        SHOP(test_readers_wait_for_no_writer),
        SHOP(test_writers_take_turns),
        SHOP(test_the_write_ahead_log_stays_small),
    };
    int failed = cmocka_run_group_tests_name("store", tests, NULL, NULL);
    if (!store_fixture_is_postgres())
        failed += cmocka_run_group_tests_name("store in a file", in_a_file, NULL, NULL);
    return failed;
}
