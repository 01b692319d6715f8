/* Is the audit awake? After a round without a fault the history is falsified in one way, and the audit must object.
 * A harness that finds nothing has to show that it could. */
#include "chaos.h"

#include <stdio.h>
#include <string.h>

static struct purchase *confirmed(size_t skip)
{
    for (size_t i = 0; i < history.purchase_count; i++) {
        if (history.purchases[i].outcome == CONFIRMED && skip-- == 0) {
            return &history.purchases[i];
        }
    }
    fail_msg("too few purchases were confirmed");
    return NULL;
}

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
    confirmed(10)->quantity++;
}

static void to_somebody_else(void)
{
    struct purchase *purchase = confirmed(10);
    purchase->buyer = (purchase->buyer + 1) % BUYERS;
}

static void nobody_asked(void)
{
    struct purchase *purchase = confirmed(10);
    purchase->outcome = REFUSED;
}

/* Repeated with its key, then told "sold out", while the first try had been recorded. */
static void key_bought_unawares(void)
{
    struct purchase *purchase = confirmed(10);
    purchase->outcome = SOLD_OUT;
    purchase->attempts = 2;
}

static void out_of_turn(void)
{
    struct purchase *early = confirmed(10), *late = confirmed(200);
    int64_t sent_us = early->first_sent_us, got_us = early->got_us;
    early->first_sent_us = late->first_sent_us;
    early->got_us = late->got_us;
    late->first_sent_us = sent_us;
    late->got_us = got_us;
}

static void refused_with_stock_left(void)
{
    struct purchase *purchase = confirmed(10);
    history.purchases[history.purchase_count - 1] = *purchase; /* somebody's last try, whatever came of it */
    history.purchases[history.purchase_count - 1].outcome = SOLD_OUT;
}

static void broken_in_a_strict_round(void)
{
    history.broken++;
}

static void rejected(void)
{
    history.rejected++;
    history.refused++;
}

static const struct {
    const char *name;
    void (*falsify)(void);
    const char *objection; /* one of the sentences has this */
} falsifications[] = {
    {"a confirmed order is not in the store", lost, "was confirmed to user"},
    {"an order is confirmed to two", sold_twice, "was confirmed twice"},
    {"another quantity", other_quantity, "the store has"},
    {"another buyer", to_somebody_else, "the store has"},
    {"an order that nobody asked for", nobody_asked, "nobody asked for it"},
    {"refused to a key whose first try was recorded", key_bought_unawares, "was refused"},
    {"an earlier buyer gets the later order", out_of_turn, "was first asked for after"},
    {"sold out while there was stock", refused_with_stock_left, "were left"},
    {"a broken request where none may break", broken_in_a_strict_round, "not one may fail"},
    {"409 for nothing", rejected, "were answered 409"},
};

size_t selftest_count(void)
{
    return sizeof falsifications / sizeof falsifications[0];
}

static size_t current;

void selftest_choose(size_t index)
{
    current = index;
}

void selftest_falsify(void)
{
    falsifications[current].falsify();
}

bool selftest_objected(const struct round *round)
{
    bool found = false;
    for (size_t i = 0; i < round->violations && i < VIOLATIONS_KEPT; i++) {
        found = found || strstr(round->sentences[i], falsifications[current].objection) != NULL;
    }
    printf("%s: %s%s%s\n", found ? "noticed" : "NOT NOTICED", falsifications[current].name,
           round->violations > 0 ? ": " : "", round->violations > 0 ? round->sentences[0] : "");
    return found;
}
