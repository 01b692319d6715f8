/* The sale's board being filled: a draft, put together from a look at the store and at the gate, and then shown in the shared page, where every
 * process reads it. What is shown is what a person on call looks at, so it is shown as well while nothing is sold, and while the gate is away.
 *
 * In the recorder or the keeper, one thread, blocking. Owns the draft. If the store fails it says so, and what was shown last stays: its age tells. */
#include "sale_board.h"

#include "doorbuster/books.h"
#include "doorbuster/check.h"
#include "doorbuster/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEW_PRODUCTS 16
#define FEW_EVERY_US 250000
#define PAGE 64

_Static_assert(BOARD_NAME_BYTES == STORE_PRODUCT_NAME_BYTES, "a product's name");

struct sale_board {
    struct board *to;
    struct board_sale draft;
    int64_t differing; /* since it was last shown */
    /* room */
    struct store_product page[PAGE];
    struct store_order orders[BOARD_ORDERS_MAX];
    struct order_part parts[ORDER_PARTS_MAX];
};

struct sale_board *sale_board_new(struct board *to)
{
    struct sale_board *board = calloc(1, sizeof *board);
    CHECK(board != NULL);
    board->to = to;
    return board;
}

void sale_board_free(struct sale_board **board)
{
    free(*board);
    *board = NULL;
}

/* --- products -------------------------------------------------------------------------------------------------------------------------- */
enum store_status sale_board_begin(struct sale_board *board, struct store *store, int64_t *first)
{
    return store_catalog_size(store, BOARD_PRODUCTS_MAX, &board->draft.products_total, first);
}

/* Where it is, or would be: they are in order of id. */
static size_t place_of(const struct board_sale *draft, int64_t product_id)
{
    size_t from = 0, to = (size_t)draft->product_count;
    while (from < to) {
        size_t middle = (from + to) / 2;
        if (draft->products[middle].id < product_id) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

struct board_product *sale_board_find(struct sale_board *board, int64_t product_id)
{
    size_t at = place_of(&board->draft, product_id);
    bool found = at < (size_t)board->draft.product_count && board->draft.products[at].id == product_id;
    return found ? &board->draft.products[at] : NULL;
}

/* If there is no room the oldest goes. NULL: it would be that one. */
static struct board_product *add_line(struct board_sale *draft, int64_t product_id)
{
    struct board_product *products = draft->products;
    size_t at = place_of(draft, product_id);
    if (draft->product_count < BOARD_PRODUCTS_MAX) {
        memmove(&products[at + 1], &products[at], ((size_t)draft->product_count - at) * sizeof *products);
        draft->product_count++;
    } else if (at == 0) {
        return NULL;
    } else {
        memmove(&products[0], &products[1], --at * sizeof *products);
    }
    products[at] = (struct board_product){.id = product_id, .available = -1, .books_equal = true};
    return &products[at];
}

static void take_product(const struct store_product *product, int64_t stock, struct board_product *line)
{
    memcpy(line->name, product->name, sizeof line->name);
    line->price = product->price;
    line->per_customer_limit = product->per_customer_limit;
    line->starts_at_ms = product->starts_at_ms;
    line->ends_at_ms = product->ends_at_ms;
    line->is_bundle = product->component_count > 0;
    line->opened = product->opened;
    line->opening = product->opening;
    line->restocked = product->restocked;
    line->cancelled = product->cancelled;
    line->sold = product->sold;
    line->stock = stock;
}

enum store_status sale_board_put(struct sale_board *board, struct store *store,
                                 const struct store_product *product, struct board_product **line)
{
    int64_t stock;
    *line = sale_board_find(board, product->id);
    *line = *line != NULL ? *line : add_line(&board->draft, product->id);
    if (*line == NULL) {
        return STORE_OK;
    }
    enum store_status status = books_store_stock(store, product, &stock, NULL);
    if (status == STORE_OK) {
        take_product(product, stock, *line);
    }
    return status;
}

void sale_board_each(struct sale_board *board, sale_board_update_cb update, void *context)
{
    for (int64_t i = 0; i < board->draft.product_count; i++) {
        update(&board->draft.products[i], context);
    }
}

/* --- what is said of all of them ------------------------------------------------------------------------------------------------------- */
void sale_board_differs(struct sale_board *board)
{
    board->differing++;
}

void sale_board_compared(struct sale_board *board)
{
    board->draft.compared_at_ms = clock_wall_ms();
}

/* The log's times are Redis's, whose clock may be ahead of ours. */
void sale_board_behind(struct sale_board *board, const struct gate_behind *behind)
{
    int64_t age_ms = behind->oldest_at_ms > 0 ? clock_wall_ms() - behind->oldest_at_ms : 0;
    board->draft.lag_entries = behind->entries;
    board->draft.lag_us = age_ms > 0 ? age_ms * 1000 : 0;
}

/* --- the newest orders ------------------------------------------------------------------------------------------------------------------- */
static enum store_status take_order(struct sale_board *board, struct store *store, struct store_order *order,
                                    struct board_order *out)
{
    order->sale.more = board->parts;
    order->sale.more_count = 0;
    enum store_status status = order->part_count <= 1
                                   ? STORE_OK
                                   : store_order_parts(store, order->sale.id, board->parts,
                                                       ORDER_PARTS_MAX - 1, &order->sale.more_count);
    *out = (struct board_order){.id = order->sale.id,
                                .at_ms = order->at_ms,
                                .cancelled = order->state == ORDER_CANCELLED,
                                .rejected = order->state == ORDER_REJECTED};
    for (size_t i = 0; status == STORE_OK && i < order_part_count(&order->sale); i++) {
        struct order_part part = order_part_at(&order->sale, i);
        if (!part.is_component && out->line_count < BOARD_ORDER_LINES_MAX) {
            out->lines[out->line_count] = (struct board_order_line){part.product_id, part.quantity};
        }
        out->line_count += !part.is_component;
    }
    return status;
}

static enum store_status take_orders(struct sale_board *board, struct store *store)
{
    size_t count = 0;
    enum store_status status = store_latest_orders(store, board->orders, BOARD_ORDERS_MAX, &count);
    for (size_t i = 0; status == STORE_OK && i < count; i++) {
        status = take_order(board, store, &board->orders[i], &board->draft.orders[i]);
    }
    board->draft.order_count = status == STORE_OK ? (int64_t)count : 0;
    return status;
}

/* --- showing it ---------------------------------------------------------------------------------------------------------------------------- */
enum store_status sale_board_show(struct sale_board *board, struct store *store)
{
    struct store_position position;
    enum store_status status = take_orders(board, store);
    status = status == STORE_OK ? store_position(store, &position) : status;
    if (status == STORE_OK) {
        board->draft.epoch = position.epoch;
        board->draft.orders_total = position.last_order_id;
        board->draft.differences = board->differing;
        board->differing = 0;
        board->draft.written_us = clock_monotonic_us();
        board_write_sale(board->to, &board->draft);
    }
    return status;
}

static enum store_status put_page(struct sale_board *board, struct store *store, size_t count)
{
    enum store_status status = STORE_OK;
    struct board_product *line;
    for (size_t i = 0; status == STORE_OK && i < count; i++) {
        status = sale_board_put(board, store, &board->page[i], &line);
        if (line != NULL) {
            line->available = -1;
            line->in_flight = 0;
        }
    }
    return status;
}

enum store_status sale_board_show_store(struct sale_board *board, struct store *store)
{
    int64_t first;
    size_t count = PAGE;
    if (clock_monotonic_us() < board->draft.written_us + SALE_BOARD_EVERY_US) {
        return STORE_OK;
    }
    enum store_status status = sale_board_begin(board, store, &first);
    board->differing = board->draft.differences; /* as they were: nobody has looked */
    for (int64_t after = first - 1; status == STORE_OK && count == PAGE;) {
        status = store_products(store, after, board->page, PAGE, &count);
        status = status == STORE_OK ? put_page(board, store, count) : status;
        after = status == STORE_OK && count > 0 ? board->page[count - 1].id : after;
    }
    return status == STORE_OK ? sale_board_show(board, store) : status;
}

int64_t sale_board_pause_us(const struct sale_board *board)
{
    return board->draft.products_total <= FEW_PRODUCTS ? FEW_EVERY_US : SALE_BOARD_EVERY_US;
}
