/* verify's look at the nodes of the Redlock gate. They decide nothing, but what they say of the stock must be what the store had at the position that
 * they name, and must not stay behind: of each product what a majority says is a check. Each node by itself is a line; one that is away or behind,
 * in a minority, is only told, for the sale goes on without it and the keeper brings it up to date.
 *
 * In a running sale the nodes are told right after the store's commit, so what is behind is looked at again until NODES_PATIENCE_MS are over. The
 * nodes' positions lie behind the audit's snapshot then: they are looked up over a connection of their own. One thread, blocking, reads
 * only. Owns nothing: the connections are the audit's. */
#include "verify.h"

#include "doorbuster/books.h"
#include "doorbuster/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define NODE_TIMEOUT_MS 1000
#define NODES_PATIENCE_MS 2000
#define NODES_AGAIN_MS 10
#define PRODUCTS_AT_ONCE 64
#define ROWS_AT_ONCE 16

static const char name_of_books[] = "nodes = store", name_of_nodes[] = "lock nodes";

static unsigned majority_of(const struct audit *audit)
{
    return audit->place->gate.node_count / 2 + 1;
}

static bool may_wait(struct audit *audit)
{
    if (clock_monotonic_us() >= audit->nodes_found.patience_us) {
        return false;
    }
    nanosleep(&(struct timespec){.tv_nsec = NODES_AGAIN_MS * 1000000}, NULL);
    return true;
}

/* --- reaching them ------------------------------------------------------------------------------------------------------------------------ */
static bool open_connections(struct audit *audit, char *error, size_t error_bytes)
{
    const struct cli_place *place = audit->place;
    if (audit->live == NULL &&
        store_open(&audit->live, place->store_url, STORE_READER, error, error_bytes) != STORE_OK) {
        return false;
    }
    if (audit->nodes == NULL) {
        audit->nodes = node_books_open(&place->gate, place->store_id, NODE_TIMEOUT_MS);
    }
    if (audit->nodes == NULL) {
        snprintf(error, error_bytes, "no memory for the connections to the lock nodes");
    }
    return audit->nodes != NULL;
}

bool audit_connect_nodes(struct audit *audit, char *error, size_t error_bytes)
{
    struct verify_nodes *found = &audit->nodes_found;
    const int64_t any = 1;
    struct node_stock ignored;
    *found = (struct verify_nodes){0};
    if (!open_connections(audit, error, error_bytes)) {
        return false;
    }
    for (unsigned i = 0; i < audit->place->gate.node_count; i++) {
        found->answers[i] = node_books_read_node(audit->nodes, i, &any, 1, &ignored);
        found->answering += found->answers[i];
    }
    if (found->answering >= majority_of(audit)) {
        return true;
    }
    found->stopped =
        found->answering == 0 && audit->place->gate.spawn_nodes && private_is_stopped(audit->place);
    snprintf(error, error_bytes, "%u of %u lock nodes answer, which is no majority", found->answering,
             audit->place->gate.node_count);
    return false;
}

void audit_be_patient(struct audit *audit)
{
    audit->nodes_found.patience_us = clock_monotonic_us() + (int64_t)NODES_PATIENCE_MS * 1000;
    audit->nodes_found.lagging = 0;
}

/* --- a product ---------------------------------------------------------------------------------------------------------------------------- */
/* The position of the last entry that moved its stock, in the snapshot; {0,0}: none did. False: the store failed. */
static bool read_last_move(struct audit *audit, int64_t product_id, struct log_position *out)
{
    struct store_audit_row rows[ROWS_AT_ONCE];
    size_t count = ROWS_AT_ONCE;
    int64_t before = INT64_MAX;
    *out = (struct log_position){0};
    while (count == ROWS_AT_ONCE) {
        if (store_audit_log(audit->store, before, product_id, rows, ROWS_AT_ONCE, &count) != STORE_OK) {
            return false;
        }
        for (size_t i = 0; i < count; i++) {
            before = rows[i].seq;
            if (rows[i].applied && rows[i].from != rows[i].to && store_cause_is_of_stock(rows[i].cause)) {
                *out = rows[i].position;
                return true;
            }
        }
    }
    return true;
}

enum told { TOLD_NOW, TOLD_LATE, TOLD_UNKNOWN }; /* up to date; still behind; cannot be known */

/* What a majority says, once it is as new as the snapshot. `why`: of TOLD_UNKNOWN. */
static enum told read_told(struct audit *audit, const struct store_product *product, struct node_stock *told,
                           const char **why)
{
    struct log_position last;
    bool last_read = false;
    do {
        if (!node_books_read(audit->nodes, &product->id, 1, told)) {
            *why = node_books_failure(audit->nodes);
            return TOLD_UNKNOWN;
        }
        if (told->known && told->stock == product->stock) {
            return TOLD_NOW;
        }
        if (!last_read && !read_last_move(audit, product->id, &last)) {
            *why = store_error(audit->store);
            return TOLD_UNKNOWN;
        }
        last_read = true;
        if (told->known && log_position_compare(told->version, last) >= 0) {
            return TOLD_NOW;
        }
    } while (may_wait(audit));
    return TOLD_LATE;
}

/* The store's figure at the version told; -1: it has never been there, so no figure is right. False: it cannot be read. */
static bool read_store_at(struct audit *audit, const struct store_product *product,
                          const struct node_stock *told, int64_t *stock)
{
    bool known = false;
    enum store_status status = books_stock_at(audit->live, product->id, told->version, &known, stock);
    *stock = known ? *stock : -1;
    return status == STORE_OK;
}

static void report_book(struct audit *audit, const struct store_product *product,
                        const struct verify_book *book, bool is_late)
{
    char at[SALES_LOG_POSITION_BYTES];
    log_position_format(book->version, at);
    if (book->store < 0) {
        audit_report(audit, name_of_books, BROKEN,
                     "product %" PRId64 ": nodes %" PRId64
                     " at position %s, where the store has never been (it has %" PRId64 ")",
                     product->id, book->redis, at, product->stock);
    } else {
        audit_report(audit, name_of_books, audit_holds(book->differ_in == NULL),
                     "product %" PRId64 ": nodes %" PRId64 ", store %" PRId64 " at position %s%s",
                     product->id, book->redis, book->store, at, is_late ? "; they stay behind" : "");
    }
}

static void compare(struct audit *audit, const struct store_product *product, const struct node_stock *told,
                    bool is_late, struct verify_book *book)
{
    book->redis = told->stock;
    book->version = told->version;
    if (!is_late && !read_store_at(audit, product, told, &book->store)) {
        audit_report(audit, name_of_books, UNKNOWN, "product %" PRId64 ": %s", product->id,
                     store_error(audit->live));
        return;
    }
    book->known = true;
    if (is_late || book->redis != book->store) {
        book->differ_in = "stock";
        book->redis_has = book->redis;
        book->store_has = book->store;
    }
    report_book(audit, product, book, is_late);
}

void audit_check_node_book(struct audit *audit, const struct store_product *product, struct verify_book *book)
{
    struct node_stock told = {0};
    const char *why = "no majority of the lock nodes answers";
    if (audit->nodes_found.stopped) {
        return; /* said once, of the nodes */
    }
    if (!product->opened) {
        book->known = true;
        audit_report(audit, name_of_books, HOLDS, "product %" PRId64 ": not open yet", product->id);
        return;
    }
    enum told found = audit->nodes_found.answering >= majority_of(audit)
                          ? read_told(audit, product, &told, &why)
                          : TOLD_UNKNOWN;
    if (found == TOLD_UNKNOWN) {
        audit_report(audit, name_of_books, UNKNOWN, "product %" PRId64 ": %s", product->id, why);
    } else if (!told.known) {
        book->known = true;
        book->differ_in = "being known to the nodes";
        book->store_has = 1;
        audit_report(audit, name_of_books, BROKEN,
                     "product %" PRId64 ": no majority of the nodes knows it, store %" PRId64, product->id,
                     product->stock);
    } else {
        compare(audit, product, &told, found == TOLD_LATE, book);
    }
}

/* --- each node ---------------------------------------------------------------------------------------------------------------------------- */
/* What is wrong with one node's figures. */
struct node_faults {
    size_t products, behind, wrong, damaged;
    int64_t first_behind, first_wrong, wrong_stock, right_stock, first_damaged;
};

static void compare_figure(struct node_faults *faults, const struct verify_book *book,
                           const struct node_stock *has)
{
    int order = has->known ? log_position_compare(has->version, book->version) : -1;
    faults->products++;
    if (has->damaged) {
        faults->first_damaged = faults->damaged++ == 0 ? book->product_id : faults->first_damaged;
    } else if (order < 0 && !(has->known && has->stock == book->redis)) {
        /* An older position with the same stock is true as well: the keeper names the moment at which it told a node. */
        faults->first_behind = faults->behind++ == 0 ? book->product_id : faults->first_behind;
    } else if (order == 0 && has->stock != book->redis && faults->wrong++ == 0) {
        faults->first_wrong = book->product_id;
        faults->wrong_stock = has->stock;
        faults->right_stock = book->redis;
    }
}

/* False: the node has stopped answering. */
static bool compare_node(struct audit *audit, unsigned node, struct node_faults *faults)
{
    int64_t ids[PRODUCTS_AT_ONCE];
    const struct verify_book *books[PRODUCTS_AT_ONCE];
    struct node_stock has[PRODUCTS_AT_ONCE];
    *faults = (struct node_faults){0};
    for (size_t next = 0; next < audit->book_count;) {
        size_t count = 0;
        for (; next < audit->book_count && count < PRODUCTS_AT_ONCE; next++) {
            const struct verify_book *book = &audit->books[next];
            if (book->known && log_position_compare(book->version, (struct log_position){0}) > 0) {
                books[count] = book;
                ids[count++] = book->product_id;
            }
        }
        if (count > 0 && !node_books_read_node(audit->nodes, node, ids, count, has)) {
            return false;
        }
        for (size_t i = 0; i < count; i++) {
            compare_figure(faults, books[i], &has[i]);
        }
    }
    return true;
}

static void check_node(struct audit *audit, unsigned node)
{
    char name[GATE_NODE_NAME_BYTES];
    struct node_faults faults;
    bool answers = audit->nodes_found.answers[node];
    gate_place_name_node(&audit->place->gate, node, name, sizeof name);
    do {
        answers = answers && compare_node(audit, node, &faults);
    } while (answers && faults.behind > 0 && may_wait(audit));
    if (!answers) {
        audit_report(audit, name_of_nodes, NOTED, "%s: does not answer", name);
    } else if (faults.wrong > 0) {
        audit_report(audit, name_of_nodes, BROKEN,
                     "%s: says %" PRId64 " of product %" PRId64 ", which is %" PRId64
                     " at the same position (%zu such products)",
                     name, faults.wrong_stock, faults.first_wrong, faults.right_stock, faults.wrong);
    } else if (faults.damaged > 0) {
        audit_report(audit, name_of_nodes, NOTED,
                     "%s: what it has of %zu products cannot be read (the first: %" PRId64 ")", name,
                     faults.damaged, faults.first_damaged);
    } else if (faults.behind > 0) {
        audit_report(audit, name_of_nodes, NOTED,
                     "%s: is behind, with %zu of %zu products (the first: %" PRId64 ")", name, faults.behind,
                     faults.products, faults.first_behind);
    } else {
        audit_report(audit, name_of_nodes, HOLDS, "%s: ok, with %zu products", name, faults.products);
    }
    audit->nodes_found.lagging += !answers || faults.behind > 0 || faults.wrong > 0 || faults.damaged > 0;
}

void audit_check_nodes(struct audit *audit)
{
    const struct verify_nodes *found = &audit->nodes_found;
    if (found->stopped) {
        audit_report(audit, name_of_nodes, NOTED,
                     "the server is stopped, and its private nodes keep nothing: only the store is checked");
        return;
    }
    if (audit->nodes == NULL || found->answering < majority_of(audit)) {
        audit_report(audit, name_of_nodes, UNKNOWN, "%u of %u answer, which is no majority", found->answering,
                     audit->place->gate.node_count);
    }
    for (unsigned i = 0; audit->nodes != NULL && i < audit->place->gate.node_count; i++) {
        check_node(audit, i);
    }
}
