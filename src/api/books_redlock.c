/* The books of the Redlock gate: what a majority of the nodes says of a product, the store's stock at the position that the nodes name, and changes,
 * which the store makes and the nodes are told of. Blocking; pool threads, setup, verify. Owns nothing. Nodes that cannot be told are left to the
 * keeper: the change stands. */
#include "books_sides.h"

#include "doorbuster/log.h"

#include <string.h>
#include <time.h>

#define READ_TRIES 20
#define READ_AGAIN_MS 10

/* --- reading ----------------------------------------------------------------------------------------------------------------------------- */
/* The products that the nodes are asked about: the product itself, or of a bundle what it is made of. */
struct reading {
    size_t count;
    int64_t ids[BUNDLE_COMPONENTS_MAX];
    struct node_stock told[BUNDLE_COMPONENTS_MAX];
    int64_t store[BUNDLE_COMPONENTS_MAX]; /* the store's stock at the version told */
    bool all_known;
};

static void list_products(const struct store_product *product, struct reading *reading)
{
    *reading = (struct reading){.count = 1, .ids = {product->id}, .all_known = true};
    if (product->component_count > 0) {
        reading->count = product->component_count;
        for (size_t i = 0; i < product->component_count; i++) {
            reading->ids[i] = product->components[i].product_id;
        }
    }
}

static enum store_status todays_stock(struct store *store, int64_t product_id, struct log_position position,
                                      bool *known, int64_t *stock)
{
    struct store_position now;
    struct store_product product;
    enum store_status status = store_find_product(store, product_id, &product);
    status = status == STORE_OK ? store_position(store, &now) : status;
    if (status == STORE_OK) {
        *known = log_position_compare(position, now.recorded) <= 0;
        *stock = product.stock;
    }
    return status;
}

enum store_status books_stock_at(struct store *store, int64_t product_id, struct log_position position,
                                 bool *known, int64_t *stock)
{
    struct store_audit_row row;
    enum store_status status = store_audit_row_at(store, position, product_id, &row);
    if (status == STORE_OK && row.applied && store_cause_is_of_stock(row.cause)) {
        *known = true;
        *stock = row.to;
        return STORE_OK;
    }
    if (status == STORE_OK || status == STORE_NOT_FOUND) {
        status = store_stock_at(store, product_id, position, known, stock);
    }
    return status == STORE_OK && !*known ? todays_stock(store, product_id, position, known, stock) : status;
}

static enum store_status read_store_figures(struct store *reader, struct reading *reading)
{
    for (size_t i = 0; i < reading->count; i++) {
        bool known = reading->told[i].known;
        if (known) {
            enum store_status status =
                books_stock_at(reader, reading->ids[i], reading->told[i].version, &known, &reading->store[i]);
            if (status != STORE_OK) {
                return status;
            }
        }
        reading->all_known = reading->all_known && known;
    }
    return STORE_OK;
}

/* What both sides allow, of a bundle at each component's own version. */
static void take_figures(const struct reading *reading, struct books *out)
{
    bool is_bundle = out->product.component_count > 0;
    out->gate.stock_at = out->stock = INT64_MAX;
    out->equal = reading->all_known;
    for (size_t i = 0; i < reading->count; i++) {
        int64_t each = is_bundle ? out->product.components[i].quantity : 1;
        int64_t told = reading->told[i].stock, store = reading->store[i];
        out->gate.stock_at = told / each < out->gate.stock_at ? told / each : out->gate.stock_at;
        out->stock = store / each < out->stock ? store / each : out->stock;
        out->equal = out->equal && told == store;
        if (is_bundle) {
            out->gate.components_at[i] = told;
            out->component_stocks[i] = store;
        }
        if (log_position_compare(reading->told[i].version, out->position) > 0) {
            out->position = reading->told[i].version;
        }
    }
}

/* Nobody has told the nodes of a product that is not open yet: the two agree that there is nothing. */
static void take_unknown(const struct reading *reading, int64_t live, struct books *out)
{
    bool is_closed = !out->product.opened && !reading->told[0].known && reading->count == 1;
    out->gate.stock_at = 0;
    out->stock = is_closed ? 0 : live;
    out->gate.at_known = out->equal = is_closed;
}

static void take_sides(const struct reading *reading, int64_t live, struct books *out)
{
    out->gate = (struct gate_stock){.available = live,
                                    .at_known = reading->all_known,
                                    .now = books_sale_product(&out->product),
                                    .price_at = out->product.price};
    out->gate.on_sale = reading->all_known && out->product.opened;
    out->position = (struct log_position){0};
    if (reading->all_known) {
        take_figures(reading, out);
    } else {
        take_unknown(reading, live, out);
    }
    int64_t behind = out->gate.stock_at - live;
    out->gate.in_flight = out->gate.at_known && behind > 0 ? behind : 0;
}

/* The nodes first: what they know of, the store has. */
static enum books_status read_once(struct store *reader, struct gate_side *side, int64_t product_id,
                                   struct books *out)
{
    struct reading reading;
    int64_t live = 0;
    enum store_status status = store_find_product(reader, product_id, &out->product);
    if (status != STORE_OK) {
        return status == STORE_NOT_FOUND ? BOOKS_NO_PRODUCT : BOOKS_STORE_FAILED;
    }
    list_products(&out->product, &reading);
    if (!node_books_read(side->nodes, reading.ids, reading.count, reading.told)) {
        return BOOKS_GATE_FAILED;
    }
    if (store_snapshot_begin(reader) != STORE_OK) {
        return BOOKS_STORE_FAILED;
    }
    status = store_find_product(reader, product_id, &out->product);
    status = status == STORE_OK ? books_store_stock(reader, &out->product, &live, NULL) : status;
    status = status == STORE_OK ? read_store_figures(reader, &reading) : status;
    store_snapshot_end(reader);
    if (status != STORE_OK) {
        return BOOKS_STORE_FAILED; /* neither it nor a component can be gone: the schema sees to that */
    }
    take_sides(&reading, live, out);
    return BOOKS_READ;
}

enum books_status books_redlock_read(struct store *reader, struct gate_side *side, int64_t product_id,
                                     struct books *out)
{
    for (int try = 1;; try++) {
        enum books_status status = read_once(reader, side, product_id, out);
        if (status != BOOKS_READ || out->gate.at_known || try == READ_TRIES) {
            return status;
        }
        nanosleep(&(struct timespec){.tv_nsec = READ_AGAIN_MS * 1000000}, NULL);
    }
}

/* --- changing ---------------------------------------------------------------------------------------------------------------------------- */
bool books_tell_nodes(struct gate_side *side, const struct stock_moves *moves)
{
    if (moves->count == 0 || node_books_write(side->nodes, moves)) {
        return true;
    }
    side->untold++;
    log_event(
        LOG_WARN, LOG_FIELDS(LOG_NUMBER("product_id", moves->each[0].product_id)),
        "the new stock of %zu products (the first: %lld) is left to the keeper, for no majority of the nodes "
        "could be told: %s",
        moves->count, (long long)moves->each[0].product_id, node_books_failure(side->nodes));
    return false;
}

static void tell_one(struct gate_side *side, int64_t product_id, int64_t stock, struct log_position position)
{
    struct stock_moves moves; /* large: only what is used is filled in */
    moves.position = position;
    moves.count = 1;
    moves.each[0] = (struct stock_move){.product_id = product_id, .stock = stock};
    books_tell_nodes(side, &moves);
}

static enum change_outcome fail(const struct store *writer, enum store_status status)
{
    return books_fail(status == STORE_FENCED ? "the store belongs to the Lua gate" : store_error(writer));
}

enum change_outcome books_redlock_change_stock(struct gate_side *side, struct store *writer,
                                               const struct stock_change *change,
                                               const struct sale_product *opening,
                                               struct change_result *result)
{
    bool is_bundle = opening != NULL && opening->component_count > 0; /* which has no stock to tell of */
    enum change_outcome outcome;
    enum store_status status = store_change_stock(writer, change, &outcome, result);
    if (status != STORE_OK) {
        return fail(writer, status);
    }
    if (outcome == CHANGE_MADE && !is_bundle) {
        tell_one(side, change->product_id, result->stock, result->position);
    } else if (outcome == CHANGE_CLOSED) {
        books_fail("the product is not open");
    }
    return outcome;
}

/* The nodes know no prices. */
enum change_outcome books_redlock_change_price(struct store *writer, const struct price_change *change,
                                               struct change_result *result)
{
    enum change_outcome outcome;
    enum store_status status = store_change_price(writer, change, &outcome, result);
    if (status != STORE_OK) {
        return fail(writer, status);
    }
    if (outcome == CHANGE_CLOSED) {
        books_fail("the product is not open");
    }
    return outcome;
}

/* Its stock may have moved since: the newer figure stays, if it is there already; else it comes. A store that cannot be read leaves it to the
 * next sale. */
static void tell_window(struct gate_side *side, struct store *writer, int64_t product_id)
{
    struct store_position now;
    struct store_product product;
    bool read = store_snapshot_begin(writer) == STORE_OK && store_position(writer, &now) == STORE_OK &&
                store_find_product(writer, product_id, &product) == STORE_OK;
    store_snapshot_end(writer);
    if (read && product.component_count == 0) {
        tell_one(side, product_id, product.stock, now.recorded);
    }
}

enum change_outcome books_redlock_change_window(struct gate_side *side, struct store *writer,
                                                const struct window_change *change,
                                                struct change_result *result)
{
    enum change_outcome outcome;
    enum store_status status = store_change_window(writer, change, &outcome, result);
    if (status != STORE_OK) {
        return fail(writer, status);
    }
    if (outcome == CHANGE_MADE) {
        tell_window(side, writer, change->product_id);
    } else if (outcome == CHANGE_CLOSED) {
        books_fail("the product is not open");
    }
    return outcome;
}
