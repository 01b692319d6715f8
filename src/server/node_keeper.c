/* The keeper of the Redlock gate's nodes. The store decides what is sold and what the stock is; workers tell the nodes after each commit. What they
 * could not tell, or what a node forgot, or what somebody changed there by hand, is put right here. It decides nothing: without it sales go on,
 * but nodes that missed something stay behind.
 *
 * A pass, ten times a second:
 *
 *   1  in one snapshot of the store: its position, the products that moved since the last pass (from the audit log), and the next page of all of
 *      them; so after a while every product was looked at, moved or not
 *   2  products that were added some seconds ago and never opened are opened: whoever added them has died
 *   3  what each node says of these products; then the store's position again
 *   4  node by node:
 *        no mark          it has forgotten everything, or is new: it is told all products, and gets the mark (the figure of product 0)
 *        nothing, or behind   it is told the snapshot's figure, with the snapshot's position as version: that is true of every product, whether
 *                         it moved there or not. "Newer wins", so a worker's later figure stays
 *        not ours         unreadable, or later than any commit, or not what the store had at that position: overwritten, logged, counted
 *        newer than the snapshot   a worker was quicker; the next pass looks at it
 *        a lock without an end   it would stop the product's sale for good, and is not ours: deleted, logged, counted
 *
 * Behind is what every figure is for the moment between a commit and the telling of it; that is no fault, and is told without a word.
 *
 * One process ("doorbuster: keeper") with one thread and blocking calls, which keeping.c runs. Owns a connection to the store and one to each
 * node. The store fails: logged, closed, opened anew with the next pass. Nodes that fail or hang are done without, a hung one at the price of one
 * timeout a second. */
#include "node_keeper.h"

#include "sale_board.h"

#include "doorbuster/books.h"
#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODE_TIMEOUT_MS 250
#define PAGE 64        /* products of the round, in one pass */
#define MOVED_MAX 64   /* products that moved, in one pass; those beyond wait for their page */
#define AUDIT_ROWS 256 /* looked through for them */
#define LOOK_MAX (1 + MOVED_MAX + PAGE)
#define MARK 0 /* the product id of the mark that a node was told everything */
#define OPENING_OVERDUE_MS 5000
#define HEALED_LINES_MAX 8 /* in the program's log, of one pass */

enum verdict { FIGURE_UNJUDGED, FIGURE_IS_RIGHT, FIGURE_IS_BEHIND, FIGURE_IS_NOT_OURS };

struct keeper_node {
    bool answers;    /* in the last pass */
    bool was_filled; /* by us or a keeper before: it has lost something if it is empty again */
    bool told_away;  /* the log says that it does not answer */
};

struct node_keeper {
    const struct gate_place *place;
    const char *store_url;
    struct store *store; /* NULL: to be opened */
    struct node_books *books;
    struct keeper_node nodes[GATE_NODES_MAX];
    struct log_position seen; /* up to here all that moved was looked at */
    int64_t after;            /* the page behind this product is next */
    bool is_round_done;       /* this pass had the last page */
    bool told_fenced;
    struct sale_board *board; /* NULL: nobody looks at it */
    int64_t next_show_us;
    unsigned healed;           /* in this pass */
    bool was_healed[LOOK_MAX]; /* likewise, on any node */
    /* The look of a pass: what the store has at `position` of ids[1..count). The first is the mark. */
    struct log_position position;
    size_t count;
    int64_t ids[LOOK_MAX], stocks[LOOK_MAX];
    struct node_stock said[GATE_NODES_MAX][LOOK_MAX];
    /* The last that was looked back for, of each: most nodes say the same. */
    struct judged {
        enum verdict verdict;
        int64_t stock;
        struct log_position version;
    } judged[LOOK_MAX];
    /* room */
    struct store_product page[PAGE];
    size_t page_count;
    struct store_audit_row rows[AUDIT_ROWS];
    struct stock_moves moves;
};

struct node_keeper *node_keeper_new(const struct gate_place *place, const char *store_url,
                                    struct board *board)
{
    struct node_keeper *keeper = calloc(1, sizeof *keeper);
    CHECK(keeper != NULL);
    keeper->place = place;
    keeper->store_url = store_url;
    keeper->board = board != NULL ? sale_board_new(board) : NULL;
    return keeper;
}

void node_keeper_free(struct node_keeper **keeper)
{
    store_close(&(*keeper)->store);
    sale_board_free(&(*keeper)->board);
    node_books_close(&(*keeper)->books);
    free(*keeper);
    *keeper = NULL;
}

static const char *name_of(const struct node_keeper *keeper, unsigned node)
{
    static char name[GATE_NODE_NAME_BYTES]; /* one thread */
    gate_place_name_node(keeper->place, node, name, sizeof name);
    return name;
}

/* --- the store ------------------------------------------------------------------------------------------------------------------------- */
static bool store_failed(struct node_keeper *keeper, const char *doing)
{
    log_error("%s: %s", doing, store_error(keeper->store));
    metrics_add(METRICS_recorder_store_failures, 1);
    store_close(&keeper->store);
    return false;
}

/* The nodes' keys are of this store: when it is known which it is, the nodes can be asked. */
static bool ensure_open(struct node_keeper *keeper)
{
    char error[512];
    struct store_position position;
    if (keeper->store == NULL &&
        store_open(&keeper->store, keeper->store_url, STORE_WRITER, error, sizeof error) != STORE_OK) {
        log_error("no store to keep the nodes by: %s", error);
        return false;
    }
    if (keeper->books == NULL) {
        if (store_position(keeper->store, &position) != STORE_OK) {
            return store_failed(keeper, "reading the position");
        }
        keeper->books = node_books_open(keeper->place, position.store_id, NODE_TIMEOUT_MS);
    }
    return true;
}

/* A worker cannot sell either then; whoever started that gate can see both logs. */
static void look_who_sells(struct node_keeper *keeper, const struct store_position *position)
{
    bool fenced = position->seller != STORE_SOLD_BY_REDLOCK;
    if (fenced && !keeper->told_fenced) {
        log_error("the store is another server's, of the Lua gate: nothing is sold here until this server is "
                  "started again");
    }
    keeper->told_fenced = fenced;
}

static bool is_listed(const struct node_keeper *keeper, int64_t product_id)
{
    for (size_t i = 0; i < keeper->count; i++) {
        if (keeper->ids[i] == product_id) {
            return true;
        }
    }
    return false;
}

/* The nodes are told of what has a stock: not of bundles, nor of what is not open yet. */
static bool has_stock(const struct store_product *product)
{
    return product->opened && product->component_count == 0;
}

static enum store_status list_product(struct node_keeper *keeper, const struct store_product *product)
{
    struct board_product *line;
    if (has_stock(product) && !is_listed(keeper, product->id)) {
        CHECK(keeper->count < LOOK_MAX);
        keeper->ids[keeper->count] = product->id;
        keeper->stocks[keeper->count++] = product->stock;
    }
    return keeper->board != NULL ? sale_board_put(keeper->board, keeper->store, product, &line) : STORE_OK;
}

/* The products in the audit log's rows behind keeper->seen, the newest first. */
static enum store_status list_moved(struct node_keeper *keeper)
{
    struct store_product product;
    size_t count;
    enum store_status status = store_audit_log(keeper->store, INT64_MAX, 0, keeper->rows, AUDIT_ROWS, &count);
    for (size_t i = 0; status == STORE_OK && i < count && keeper->count <= MOVED_MAX; i++) {
        const struct store_audit_row *row = &keeper->rows[i];
        if (log_position_compare(row->position, keeper->seen) <= 0) {
            break;
        }
        if (!is_listed(keeper, row->product_id)) {
            status = store_find_product(keeper->store, row->product_id, &product);
            status = status == STORE_OK ? list_product(keeper, &product) : status;
        }
    }
    return status == STORE_NOT_FOUND ? STORE_OK : status;
}

static enum store_status list_page(struct node_keeper *keeper)
{
    enum store_status status =
        store_products(keeper->store, keeper->after, keeper->page, PAGE, &keeper->page_count);
    for (size_t i = 0; status == STORE_OK && i < keeper->page_count; i++) {
        status = list_product(keeper, &keeper->page[i]);
    }
    return status;
}

/* A new keeper begins with what the board shows. */
static enum store_status begin_board(struct node_keeper *keeper)
{
    int64_t first;
    if (keeper->board == NULL) {
        return STORE_OK;
    }
    enum store_status status = sale_board_begin(keeper->board, keeper->store, &first);
    if (status == STORE_OK && keeper->next_show_us == 0 && first > 0) {
        keeper->after = first - 1;
    }
    return status;
}

static bool look_at_store(struct node_keeper *keeper)
{
    struct store_position position;
    keeper->count = 1;
    keeper->ids[0] = MARK;
    enum store_status status = store_snapshot_begin(keeper->store);
    status = status == STORE_OK ? begin_board(keeper) : status;
    status = status == STORE_OK ? store_position(keeper->store, &position) : status;
    if (status == STORE_OK && log_position_compare(position.recorded, keeper->seen) > 0) {
        status = list_moved(keeper);
    }
    status = status == STORE_OK ? list_page(keeper) : status;
    store_snapshot_end(keeper->store);
    if (status != STORE_OK) {
        return store_failed(keeper, "looking at the stock");
    }
    look_who_sells(keeper, &position);
    keeper->position = keeper->seen = position.recorded;
    keeper->after = keeper->page_count == PAGE ? keeper->page[PAGE - 1].id : 0;
    keeper->is_round_done = keeper->page_count < PAGE;
    return true;
}

/* --- products whose opening was never recorded ------------------------------------------------------------------------------------------- */
static bool is_overdue(const struct store_product *product)
{
    return !product->opened && clock_wall_ms() - product->created_at_ms > OPENING_OVERDUE_MS;
}

static bool open_product(struct node_keeper *keeper, const struct store_product *product)
{
    struct stock_change change = {.product_id = product->id,
                                  .delta = product->planned_stock,
                                  .cause = STOCK_OPENING,
                                  .note = "opened by the keeper"};
    struct change_result result;
    enum change_outcome outcome;
    enum store_status status = store_change_stock(keeper->store, &change, &outcome, &result);
    if (status == STORE_FENCED) {
        return true; /* the Lua gate's recorder does it */
    }
    if (status != STORE_OK) {
        return store_failed(keeper, "opening a product");
    }
    if (outcome == CHANGE_MADE) {
        log_event(LOG_WARN, LOG_FIELDS(LOG_NUMBER("product_id", product->id)),
                  "product %" PRId64 " was added and never opened: opened it", product->id);
    }
    return true; /* the next pass tells the nodes: it has moved */
}

static bool open_overdue(struct node_keeper *keeper)
{
    for (size_t i = 0; i < keeper->page_count; i++) {
        if (is_overdue(&keeper->page[i]) && !open_product(keeper, &keeper->page[i])) {
            return false;
        }
    }
    return true;
}

/* --- an empty node ------------------------------------------------------------------------------------------------------------------------- */
/* The next page of all products and the position they have this stock at. */
static bool read_page_of_all(struct node_keeper *keeper, int64_t after, struct log_position *position)
{
    struct store_position now;
    enum store_status status = store_snapshot_begin(keeper->store);
    status = status == STORE_OK ? store_position(keeper->store, &now) : status;
    status = status == STORE_OK
                 ? store_products(keeper->store, after, keeper->page, PAGE, &keeper->page_count)
                 : status;
    store_snapshot_end(keeper->store);
    if (status != STORE_OK) {
        return store_failed(keeper, "reading the products");
    }
    *position = now.recorded;
    return true;
}

/* Puts the page's products into keeper->moves. */
static void move_page(struct node_keeper *keeper, struct log_position position)
{
    keeper->moves.position = position;
    keeper->moves.count = 0;
    for (size_t i = 0; i < keeper->page_count; i++) {
        const struct store_product *product = &keeper->page[i];
        if (has_stock(product)) {
            keeper->moves.each[keeper->moves.count++] = (struct stock_move){product->id, product->stock};
        }
    }
}

static bool set_mark(struct node_keeper *keeper, unsigned node, int64_t products,
                     struct log_position position)
{
    struct node_stock mark = {.known = true, .stock = products, .version = position};
    return node_books_force(keeper->books, node, MARK, &mark);
}

/* False: the store failed. A node that fails meanwhile has no mark yet, and is filled another time. */
static bool fill_node(struct node_keeper *keeper, unsigned node)
{
    struct log_position position;
    int64_t after = 0, products = 0;
    do {
        metrics_beat(clock_monotonic_us());
        if (!read_page_of_all(keeper, after, &position)) {
            return false;
        }
        move_page(keeper, position);
        if (!node_books_write_node(keeper->books, node, &keeper->moves)) {
            return true;
        }
        products += (int64_t)keeper->moves.count;
        after = keeper->page_count > 0 ? keeper->page[keeper->page_count - 1].id : after;
    } while (keeper->page_count == PAGE);
    if (set_mark(keeper, node, products, position)) {
        bool again = keeper->nodes[node].was_filled;
        log_line(again          ? LOG_WARN
                 : products > 0 ? LOG_INFO
                                : LOG_DEBUG,
                 "%s had %s: told it the stock of %" PRId64 " products", name_of(keeper, node),
                 again ? "forgotten everything" : "no stock yet", products);
        metrics_add(METRICS_nodes_refilled, again);
        keeper->nodes[node].was_filled = true;
    }
    return true;
}

/* --- a node's figures ---------------------------------------------------------------------------------------------------------------------- */
/* Another stock than today's, at a version up to today's: was it so then? FIGURE_UNJUDGED: the store failed. */
static enum verdict look_back(struct node_keeper *keeper, const struct node_stock *said, size_t line)
{
    struct judged *judged = &keeper->judged[line];
    bool known;
    int64_t stock_then;
    if (judged->verdict != FIGURE_UNJUDGED && judged->stock == said->stock &&
        log_position_compare(judged->version, said->version) == 0) {
        return judged->verdict;
    }
    if (store_stock_at(keeper->store, keeper->ids[line], said->version, &known, &stock_then) != STORE_OK) {
        store_failed(keeper, "looking back at the stock");
        return FIGURE_UNJUDGED;
    }
    bool was_so = !known || stock_then == said->stock; /* so long ago that nobody knows: it is told anyway */
    *judged = (struct judged){.verdict = was_so ? FIGURE_IS_BEHIND : FIGURE_IS_NOT_OURS,
                              .stock = said->stock,
                              .version = said->version};
    return judged->verdict;
}

/* `last`: the store's position, read after the node's figure was. */
static enum verdict judge(struct node_keeper *keeper, const struct node_stock *said, size_t line,
                          struct log_position last)
{
    if (!said->known) {
        return said->damaged ? FIGURE_IS_NOT_OURS : FIGURE_IS_BEHIND;
    }
    if (log_position_compare(said->version, last) > 0) {
        return FIGURE_IS_NOT_OURS;
    }
    if (said->stock == keeper->stocks[line] || log_position_compare(said->version, keeper->position) > 0) {
        return FIGURE_IS_RIGHT;
    }
    return look_back(keeper, said, line);
}

static void tell_healed(struct node_keeper *keeper, unsigned node, size_t line, const struct node_stock *said)
{
    char version[SALES_LOG_POSITION_BYTES], position[SALES_LOG_POSITION_BYTES], was[128];
    metrics_add(METRICS_nodes_healed, 1);
    if (++keeper->healed > HEALED_LINES_MAX) {
        return;
    }
    log_position_format(said->version, version);
    log_position_format(keeper->position, position);
    snprintf(was, sizeof was, "%" PRId64 " at %s", said->stock, version);
    log_event(
        LOG_ERROR,
        LOG_FIELDS(LOG_WORDS("node", name_of(keeper, node)), LOG_NUMBER("product_id", keeper->ids[line])),
        "%s healed: of product %" PRId64 " it had %s, which none of ours has written; the store has %" PRId64
        " at %s",
        name_of(keeper, node), keeper->ids[line], said->known ? was : "something that is no figure",
        keeper->stocks[line], position);
}

static void heal(struct node_keeper *keeper, unsigned node, size_t line)
{
    struct node_stock to = {.known = true, .stock = keeper->stocks[line], .version = keeper->position};
    keeper->was_healed[line] = true;
    if (node_books_force(keeper->books, node, keeper->ids[line], &to)) {
        tell_healed(keeper, node, line, &keeper->said[node][line]);
    }
}

static void delete_endless_locks(struct node_keeper *keeper, unsigned node)
{
    size_t deleted = node_books_delete_endless_locks(keeper->books, node, keeper->ids + 1, keeper->count - 1);
    if (deleted > 0) {
        metrics_add(METRICS_nodes_healed, deleted);
        log_error("%s healed: %zu lock%s without an end, which none of ours has set; deleted",
                  name_of(keeper, node), deleted, deleted == 1 ? "" : "s");
    }
}

/* False: the store failed. What a node does not take now is found again. */
static bool mend_node(struct node_keeper *keeper, unsigned node, struct log_position last)
{
    keeper->moves.position = keeper->position;
    keeper->moves.count = 0;
    for (size_t i = 1; i < keeper->count; i++) {
        switch (judge(keeper, &keeper->said[node][i], i, last)) {
        case FIGURE_IS_RIGHT:
            break;
        case FIGURE_IS_BEHIND:
            keeper->moves.each[keeper->moves.count++] =
                (struct stock_move){keeper->ids[i], keeper->stocks[i]};
            break;
        case FIGURE_IS_NOT_OURS:
            heal(keeper, node, i);
            break;
        case FIGURE_UNJUDGED:
            return false;
        }
    }
    node_books_write_node(keeper->books, node, &keeper->moves);
    delete_endless_locks(keeper, node);
    return true;
}

/* --- a pass -------------------------------------------------------------------------------------------------------------------------------- */
/* Said once when it goes, once when it is back. At first it is only waited for: a private node needs a moment. */
static void note_answer(struct node_keeper *keeper, unsigned node, bool answers)
{
    struct keeper_node *state = &keeper->nodes[node];
    if (state->answers && !answers) {
        log_warn("a node does not answer: %s", node_books_failure(keeper->books));
        state->told_away = true;
    } else if (answers && state->told_away) {
        log_info("%s answers again", name_of(keeper, node));
        state->told_away = false;
    }
    state->answers = answers;
}

static unsigned ask_nodes(struct node_keeper *keeper)
{
    unsigned answering = 0;
    for (unsigned i = 0; i < keeper->place->node_count; i++) {
        note_answer(keeper, i,
                    node_books_read_node(keeper->books, i, keeper->ids, keeper->count, keeper->said[i]));
        answering += keeper->nodes[i].answers;
    }
    return answering;
}

static bool mend_nodes(struct node_keeper *keeper)
{
    struct store_position last;
    if (store_position(keeper->store, &last) != STORE_OK) {
        return store_failed(keeper, "reading the position");
    }
    keeper->healed = 0;
    memset(keeper->judged, 0, sizeof keeper->judged);
    memset(keeper->was_healed, 0, sizeof keeper->was_healed);
    for (unsigned i = 0; i < keeper->place->node_count; i++) {
        bool is_marked = keeper->said[i][0].known;
        metrics_beat(clock_monotonic_us());
        keeper->nodes[i].was_filled = keeper->nodes[i].was_filled || is_marked;
        if (keeper->nodes[i].answers &&
            !(is_marked ? mend_node(keeper, i, last.recorded) : fill_node(keeper, i))) {
            return false;
        }
    }
    if (keeper->healed > HEALED_LINES_MAX) {
        log_error("and %u more figures on nodes healed", keeper->healed - HEALED_LINES_MAX);
    }
    return true;
}

/* --- the board ------------------------------------------------------------------------------------------------------------------------------ */
/* The store decides, so its stock is what is available, as long as there is a majority to lock on. */
static void set_available(struct board_product *line, void *context)
{
    const bool *has_majority = context;
    line->available = *has_majority ? line->stock : -1;
}

/* In flight: what was sold, and the nodes have not been told of. */
static void show_line(struct node_keeper *keeper, size_t line)
{
    struct board_product *shown = sale_board_find(keeper->board, keeper->ids[line]);
    struct node_stock newest = {0};
    bool equal = true;
    for (unsigned i = 0; i < keeper->place->node_count; i++) {
        const struct node_stock *said = &keeper->said[i][line];
        if (keeper->nodes[i].answers && said->known &&
            (!newest.known || log_position_compare(said->version, newest.version) > 0)) {
            newest = *said;
        }
    }
    bool is_behind = newest.known && log_position_compare(newest.version, keeper->position) < 0 &&
                     newest.stock > keeper->stocks[line];
    if (keeper->was_healed[line]) {
        sale_board_differs(keeper->board);
        equal = false;
    }
    if (shown != NULL) {
        shown->in_flight = is_behind ? newest.stock - keeper->stocks[line] : 0;
        shown->books_equal = equal;
    }
}

static bool show_board(struct node_keeper *keeper, bool has_majority)
{
    int64_t now_us = clock_monotonic_us();
    if (keeper->board == NULL) {
        return true;
    }
    for (size_t i = 1; i < keeper->count; i++) {
        show_line(keeper, i);
    }
    if (keeper->is_round_done) {
        sale_board_compared(keeper->board);
    }
    if (now_us < keeper->next_show_us) {
        return true;
    }
    keeper->next_show_us = now_us + sale_board_pause_us(keeper->board);
    sale_board_each(keeper->board, set_available, &has_majority);
    return sale_board_show(keeper->board, keeper->store) == STORE_OK ||
           store_failed(keeper, "showing the books");
}

bool node_keeper_pass(struct node_keeper *keeper)
{
    metrics_beat(clock_monotonic_us());
    if (!ensure_open(keeper) || !look_at_store(keeper) || !open_overdue(keeper)) {
        return false;
    }
    unsigned answering = ask_nodes(keeper);
    bool has_majority = answering > keeper->place->node_count / 2;
    return mend_nodes(keeper) && show_board(keeper, has_majority) && has_majority;
}
