/* Is the audit awake? After a round without a fault what people were told, or what was read from the store, is falsified
 * in one way, and the audit must object. A harness that finds nothing has to show that it could. */
#include "chaos.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct readings *store; /* what was read from it */

static struct wish *wished(enum wish_kind kind, enum outcome outcome, size_t skip)
{
    for (size_t i = 0; i < history.wish_count; i++) {
        if (history.wishes[i].kind == kind && history.wishes[i].outcome == outcome && skip-- == 0) {
            return &history.wishes[i];
        }
    }
    fail_msg("too few purchases, cancels or changes were confirmed");
    return NULL;
}

static struct wish *confirmed(size_t skip)
{
    return wished(WISH_PURCHASE, CONFIRMED, skip);
}

static struct wish *last_confirmed(void)
{
    struct wish *last = NULL;
    for (size_t i = 0; i < history.wish_count; i++) {
        if (history.wishes[i].kind == WISH_PURCHASE && history.wishes[i].outcome == CONFIRMED) {
            last = &history.wishes[i];
        }
    }
    assert_non_null(last);
    return last;
}

/* With so many lines, and among them the plentiful product, in *line. */
static struct wish *confirmed_plenty(size_t lines, struct wish_line **line)
{
    for (size_t i = 0;; i++) {
        struct wish *wish = confirmed(i);
        for (size_t j = 0; wish->line_count == lines && j < lines; j++) {
            *line = &wish->lines[j];
            if ((*line)->product == PLENTIFUL) {
                return wish;
            }
        }
    }
}

/* --- what people were told ----------------------------------------------------------------------------- */
static void lost(void)
{
    confirmed(10)->order += 1000000;
}

static void sold_twice(void)
{
    confirmed(10)->order = confirmed(11)->order;
}

static void other_quantity(void)
{
    confirmed(10)->lines[0].quantity++;
}

static void to_somebody_else(void)
{
    struct wish *wish = confirmed(10);
    wish->person = (wish->person + 1) % BUYERS;
}

static void nobody_asked(void)
{
    struct wish *wish = confirmed(10);
    wish->outcome = REFUSED;
}

/* Repeated with its key, then told "sold out", while the first try had been recorded. */
static void key_bought_unawares(void)
{
    struct wish *wish = confirmed(10);
    wish->outcome = SOLD_OUT;
    wish->attempts = 2;
}

static void out_of_turn(void)
{
    struct wish *early = confirmed(10), *late = last_confirmed();
    int64_t sent_us = early->first_sent_us, got_us = early->got_us;
    early->first_sent_us = late->first_sent_us;
    early->got_us = late->got_us;
    late->first_sent_us = sent_us;
    late->got_us = got_us;
}

static void refuse_plenty(size_t lines)
{
    struct wish_line *line;
    struct wish *wish = confirmed_plenty(lines, &line);
    wish->outcome = SOLD_OUT;
    line->is_short = true;
}

static void refused_with_stock_left(void)
{
    refuse_plenty(1);
}

static void cart_refused_with_stock_left(void)
{
    refuse_plenty(2);
}

static void withdrawal_refused_with_stock_left(void)
{
    struct wish *wish = wished(WISH_CHANGE, CONFIRMED, 0);
    wish->outcome = SOLD_OUT;
    wish->lines[0] = (struct wish_line){.product = PLENTIFUL, .quantity = -1, .is_short = true};
}

static void broken_in_a_strict_round(void)
{
    history.requests[history.request_count - 1].status = CROWD_BROKEN;
}

static void rejected(void)
{
    history.rejected++;
    history.refused++;
}

static void half_a_cart(void)
{
    struct wish_line *line;
    struct wish *wish = confirmed_plenty(1, &line);
    wish->as_cart = true;
    wish->lines[wish->line_count++] = (struct wish_line){.product = SCARCE, .quantity = 1};
}

static void cancelled_by_nobody(void)
{
    int64_t order = wished(WISH_CANCEL, CONFIRMED, 0)->order;
    for (size_t i = 0; i < history.wish_count; i++) {
        struct wish *wish = &history.wishes[i];
        if (wish->kind == WISH_CANCEL && wish->order == order) {
            wish->outcome = REFUSED;
            wish->order = 0;
        }
    }
}

static void changed_by_nobody(void)
{
    wished(WISH_CHANGE, CONFIRMED, 0)->keyed = false;
}

/* --- what became of the round, under the Redlock gate ---------------------------------------------------- */
static void sold_without_a_majority(struct round *round)
{
    round->flags |= NO_MAJORITY;
    round->fault_us = round->began_us - (int64_t)LOCK_TTL_MS * 1000;
    round->heal_began_us = now_us();
}

static void nobody_sold(struct round *round)
{
    round->flags |= NO_PAUSE;
    round->calm_us = now_us() + 10000000;
}

/* --- what the store has -------------------------------------------------------------------------------- */
static struct store_audit_row *row_of(const char *cause, const char *or_cause)
{
    for (size_t i = 0; i < store->row_count; i++) {
        const char *its = store->rows[i].cause;
        if (strcmp(its, cause) == 0 || strcmp(its, or_cause) == 0) {
            return &store->rows[i];
        }
    }
    fail_msg("the audit log has no row of a %s or a %s", cause, or_cause);
    return NULL;
}

static struct store_audit_row *row_of_cancel(void)
{
    return row_of("cancel", "cancel");
}

static struct store_audit_row *row_of_change(void)
{
    return row_of("restock", "withdrawal");
}

static void add_row_again(struct store_audit_row *row)
{
    size_t behind = store->row_count - (size_t)(row - store->rows);
    memmove(row + 1, row, behind * sizeof *row); /* there is room for one */
    store->row_count++;
}

static void remove_row(struct store_audit_row *row)
{
    size_t behind = store->row_count - (size_t)(row - store->rows) - 1;
    memmove(row, row + 1, behind * sizeof *row);
    store->row_count--;
}

static struct audited_order *cancelled_order(void)
{
    for (size_t i = 0; i < store->order_count; i++) {
        if (store->orders[i].order.state == ORDER_CANCELLED) {
            return &store->orders[i];
        }
    }
    fail_msg("no order was cancelled");
    return NULL;
}

static void component_not_taken(void)
{
    for (size_t i = 0; i < store->order_count; i++) {
        struct sale_order *sale = &store->orders[i].order.sale;
        if (sale->more_count > 0 && sale->more[sale->more_count - 1].is_component) {
            sale->more_count--;
            return;
        }
    }
    fail_msg("no bundle was sold");
}

static void given_back_twice(void)
{
    add_row_again(row_of_cancel());
}

static void not_given_back(void)
{
    remove_row(row_of_cancel());
}

static void cancel_lost(void)
{
    struct store_order *order = &cancelled_order()->order;
    order->state = ORDER_CONFIRMED;
    order->cancelled_at_ms = order->cancelled_by = 0;
}

static void cancelled_and_still_sold(void)
{
    const struct store_order *order = &cancelled_order()->order;
    for (unsigned i = 0; i < PRODUCTS; i++) {
        struct store_product *product = &store->products[i];
        if (product->id == order->sale.product_id) {
            product->cancelled -= order->sale.quantity;
            product->stock -= order->sale.quantity;
        }
    }
}

static void misread(void)
{
    store->products[PLENTIFUL].stock++;
}

static void restock_lost(void)
{
    remove_row(row_of_change());
}

static void restocked_twice(void)
{
    add_row_again(row_of_change());
}

static const struct {
    const char *name;
    void (*told)(void); /* one of the three */
    void (*read)(void);
    const char *objection;             /* one of the sentences has this */
    void (*went)(struct round *round); /* of the Redlock gate only */
} falsifications[] = {
    {"a confirmed order is not in the store", lost, NULL, "was confirmed to user", NULL},
    {"an order is confirmed to two", sold_twice, NULL, "was confirmed twice", NULL},
    {"another quantity", other_quantity, NULL, "the store has", NULL},
    {"another buyer", to_somebody_else, NULL, "the store has", NULL},
    {"an order that nobody asked for", nobody_asked, NULL, "nobody asked for it", NULL},
    {"refused to a key whose first try was recorded", key_bought_unawares, NULL, "was refused", NULL},
    {"an earlier buyer gets the later order", out_of_turn, NULL, "was first asked for after", NULL},
    {"sold out while there was stock", refused_with_stock_left, NULL, "were left", NULL},
    {"a cart is refused while there was stock", cart_refused_with_stock_left, NULL, "in a cart", NULL},
    {"a withdrawal is refused while there was stock", withdrawal_refused_with_stock_left, NULL,
     "be withdrawn", NULL},
    {"a broken request where none may break", broken_in_a_strict_round, NULL, "not one may fail", NULL},
    {"409 for nothing", rejected, NULL, "were answered 409", NULL},
    {"half a cart", half_a_cart, NULL, "the store has", NULL},
    {"a bundle without one of its components", NULL, component_not_taken, "the store has", NULL},
    {"cancelled, and nobody asked for it", cancelled_by_nobody, NULL, "did not ask for it", NULL},
    {"a cancel is lost", NULL, cancel_lost, "was told that order", NULL},
    {"a cancel gives back twice", NULL, given_back_twice, "was given back 2 times", NULL},
    {"a cancel gives nothing back", NULL, not_given_back, "was given back 0 times", NULL},
    {"a cancelled order still counts as sold", NULL, cancelled_and_still_sold, "cancelled ones", NULL},
    {"the store is not what was read", NULL, misread, "the second reader", NULL},
    {"a restock is lost", NULL, restock_lost, "the audit log does not have it", NULL},
    {"a restock is applied twice", NULL, restocked_twice, "it was applied already", NULL},
    {"a restock that nobody asked for", changed_by_nobody, NULL, "nobody asked for that", NULL},
    {"a sale without a majority of nodes", NULL, NULL, "had lost its majority", sold_without_a_majority},
    {"sales stop though there is a majority", NULL, NULL, "though it had a majority", nobody_sold},
};

#define FALSIFICATIONS (sizeof falsifications / sizeof falsifications[0])
#define NOT_FALSIFIED FALSIFICATIONS
static size_t current = NOT_FALSIFIED;
static size_t noticed, tried;

void selftest_falsify_readings(struct readings *readings)
{
    store = readings;
    if (current != NOT_FALSIFIED && falsifications[current].read != NULL) {
        falsifications[current].read();
    }
}

static bool has_objected(const struct round *round, const char *objection)
{
    bool found = false;
    for (size_t i = 0; i < round->violations && i < VIOLATIONS_KEPT; i++) {
        found = found || strstr(round->sentences[i], objection) != NULL;
    }
    return found;
}

static void falsify_and_audit(struct round *round)
{
    struct round as_it_went = *round;
    if (falsifications[current].told != NULL) {
        falsifications[current].told();
    }
    if (falsifications[current].went != NULL) {
        falsifications[current].went(round);
    }
    audit_round(round);
    bool objected = has_objected(round, falsifications[current].objection);
    noticed += objected;
    tried++;
    printf("%s: %s%s%s\n", objected ? "noticed" : "NOT NOTICED", falsifications[current].name,
           round->violations > 0 ? ": " : "", round->violations > 0 ? round->sentences[0] : "");
    *round = as_it_went;
}

/* What was told is falsified in place, and put right again before the next. */
void selftest_audit(struct round *round)
{
    size_t bytes = history.wish_count * sizeof *history.wishes;
    struct history told = history;
    size_t request_bytes = history.request_count * sizeof *history.requests;
    struct wish *wishes = malloc(bytes);
    struct request *requests = malloc(request_bytes);
    assert_non_null(wishes);
    assert_non_null(requests);
    memcpy(wishes, history.wishes, bytes);
    memcpy(requests, history.requests, request_bytes);
    audit_round(round);
    if (round->violations > 0) {
        printf("NOT FALSIFIED, and yet: %s\n", round->sentences[0]);
        free(wishes);
        free(requests);
        return;
    }
    for (current = 0; current < FALSIFICATIONS && !interrupted; current++) {
        history = told;
        memcpy(history.wishes, wishes, bytes);
        memcpy(history.requests, requests, request_bytes);
        if (falsifications[current].went == NULL || is_redlock(round->mode)) {
            falsify_and_audit(round);
        }
    }
    free(wishes);
    free(requests);
}

bool selftest_passed(const struct round *round)
{
    for (size_t i = 0; i < round->violations && i < VIOLATIONS_KEPT; i++) {
        printf("%s\n", round->sentences[i]);
    }
    printf("%zu of %zu noticed\n", noticed, tried);
    return tried > 0 && noticed == tried;
}
