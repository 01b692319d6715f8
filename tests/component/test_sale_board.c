/* The draft of the sale's board with a real store: of many products the newest are shown, in order, and without the gate the store's figures. */
#include "testing.h"

#include "folder.h"

#include "doorbuster/store.h"
#include "sale_board.h"

#include <stdio.h>
#include <string.h>

#define PRODUCTS (BOARD_PRODUCTS_MAX + 44)
#define OLDEST_SHOWN (PRODUCTS - BOARD_PRODUCTS_MAX + 1)
#define STOCK 9

static char folder[FOLDER_BYTES];
static struct store *store;
static struct sale_board *draft;
static struct board board;
static struct board_sale shown;
static struct store_product product;

static int64_t add_product(void)
{
    static unsigned serial;
    product = (struct store_product){.price = 500, .planned_stock = STOCK};
    snprintf(product.name, sizeof product.name, "product %u", ++serial);
    assert_int_equal(store_add_product(store, &product), STORE_OK);
    return product.id;
}

static struct board_product *put(int64_t id)
{
    struct board_product *line;
    assert_int_equal(store_find_product(store, id, &product), STORE_OK);
    assert_int_equal(sale_board_put(draft, store, &product, &line), STORE_OK);
    return line;
}

static int64_t begin(void)
{
    int64_t first;
    assert_int_equal(sale_board_begin(draft, store, &first), STORE_OK);
    return first;
}

static void read_board(void)
{
    assert_true(board_read_sale(&board, &shown));
    for (int64_t i = 1; i < shown.product_count; i++) {
        assert_true(shown.products[i - 1].id < shown.products[i].id);
    }
}

static int setup(void **state)
{
    char url[FOLDER_BYTES + 32], error[512];
    (void)state;
    folder_make(folder);
    snprintf(url, sizeof url, "sqlite:%s/doorbuster.db", folder);
    assert_int_equal(store_open(&store, url, STORE_WRITER, error, sizeof error), STORE_OK);
    draft = sale_board_new(&board);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sale_board_free(&draft);
    store_close(&store);
    folder_remove(folder);
    return 0;
}

static void test_no_products(void **state)
{
    (void)state;
    assert_int_equal(begin(), 0);
    assert_int_equal(sale_board_show(draft, store), STORE_OK);
    read_board();
    assert_int_not_equal(shown.written_us, 0);
    assert_int_equal(shown.product_count, 0);
    assert_int_equal(shown.order_count, 0);
    assert_int_equal(sale_board_pause_us(draft), 250000); /* few: look more often */
}

static void test_of_many_the_newest(void **state)
{
    (void)state;
    for (int64_t i = 1; i <= PRODUCTS; i++) {
        assert_int_equal(add_product(), i);
    }
    assert_int_equal(begin(), OLDEST_SHOWN);
    for (int64_t i = PRODUCTS; i >= 1; i--) { /* whatever the order */
        struct board_product *line = put(i);
        assert_true(i >= OLDEST_SHOWN ? line != NULL && line->id == i : line == NULL);
    }
    assert_null(sale_board_find(draft, OLDEST_SHOWN - 1));
    put(PRODUCTS)->available = 3;
    sale_board_differs(draft);
    sale_board_compared(draft);
    assert_int_equal(sale_board_show(draft, store), STORE_OK);
    read_board();
    assert_int_equal(shown.products_total, PRODUCTS);
    assert_int_equal(shown.product_count, BOARD_PRODUCTS_MAX);
    assert_int_equal(shown.products[0].id, OLDEST_SHOWN);
    assert_int_equal(shown.products[0].available, -1); /* nobody has said it yet */
    assert_int_equal(shown.products[BOARD_PRODUCTS_MAX - 1].available, 3);
    assert_int_equal(shown.differences, 1);
    assert_int_not_equal(shown.compared_at_ms, 0);
    assert_int_equal(sale_board_pause_us(draft), SALE_BOARD_EVERY_US);
}

static void test_a_newer_one_takes_the_oldest_ones_place(void **state)
{
    (void)state;
    int64_t id = add_product();
    assert_int_equal(begin(), OLDEST_SHOWN + 1);
    assert_int_equal(put(id)->id, id);
    assert_null(sale_board_find(draft, OLDEST_SHOWN));
    assert_int_equal(sale_board_find(draft, PRODUCTS)->available, 3); /* as it was */
    assert_int_equal(sale_board_show(draft, store), STORE_OK);
    read_board();
    assert_int_equal(shown.products[0].id, OLDEST_SHOWN + 1);
    assert_int_equal(shown.products[BOARD_PRODUCTS_MAX - 1].id, id);
    assert_int_equal(shown.differences, 0); /* in this look */
}

static void test_without_the_gate(void **state)
{
    int64_t deadline = deadline_in(5000), before = shown.written_us;
    (void)state;
    assert_int_equal(sale_board_show_store(draft, store), STORE_OK);
    read_board();
    assert_int_equal(shown.written_us, before); /* not so soon again */
    while (shown.written_us == before) {
        assert_true(wait_a_moment(deadline));
        assert_int_equal(sale_board_show_store(draft, store), STORE_OK);
        read_board();
    }
    assert_int_equal(shown.product_count, BOARD_PRODUCTS_MAX);
    for (int64_t i = 0; i < shown.product_count; i++) {
        assert_int_equal(shown.products[i].available, -1);
    }
}

/* The log's clock is Redis's: its entries may come from the future. */
static void test_how_far_the_record_is_behind(void **state)
{
    (void)state;
    sale_board_behind(draft, &(struct gate_behind){.entries = 7, .oldest_at_ms = 1000});
    assert_int_equal(sale_board_show(draft, store), STORE_OK);
    read_board();
    assert_int_equal(shown.lag_entries, 7);
    assert_true(shown.lag_us > INT64_C(1000000000000));
    sale_board_behind(draft, &(struct gate_behind){.entries = 1, .oldest_at_ms = INT64_MAX});
    assert_int_equal(sale_board_show(draft, store), STORE_OK);
    read_board();
    assert_int_equal(shown.lag_us, 0);
    sale_board_behind(draft, &(struct gate_behind){0});
    assert_int_equal(sale_board_show(draft, store), STORE_OK);
    read_board();
    assert_int_equal(shown.lag_entries, 0);
    assert_int_equal(shown.lag_us, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_products),
        cmocka_unit_test(test_of_many_the_newest),
        cmocka_unit_test(test_a_newer_one_takes_the_oldest_ones_place),
        cmocka_unit_test(test_without_the_gate),
        cmocka_unit_test(test_how_far_the_record_is_behind),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
