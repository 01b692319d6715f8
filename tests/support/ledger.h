/* What the buyers know: every answer they got, kept on their side, to be held against the store afterwards.
 */
#ifndef DOORBUSTER_TEST_LEDGER_H
#define DOORBUSTER_TEST_LEDGER_H

#include "crowd.h"

struct ledger_entry {
    int64_t order, user_id, product_id, quantity, remaining; /* order 0: sold out */
    int64_t sent_us, got_us;
};

struct ledger {
    struct ledger_entry *entries;
    size_t count, room;
    size_t confirmed, sold_out, over_limit, unavailable, broken, other;
    int other_status; /* the last unexpected status */
    char other_body[256];
};

void ledger_free(struct ledger *ledger);
/* Notes an answer to a purchase, and checks that a 201 says what was asked for and a 400 what it must. */
void ledger_note(struct ledger *ledger, const struct crowd_answer *answer, int64_t user_id,
                 int64_t product_id, int64_t quantity);

/* Every confirmed order is in the store with that buyer, product and quantity; ids are distinct; the store
 * has no more orders of the product than the answers explain (confirmed, and those of which nobody heard). */
void ledger_check_store(const struct ledger *ledger, const char *store_url);
/* First come, first served, as far as the buyers can tell: of two purchases of which one was answered before
 * the other was sent, the first has the lower order id; nobody gets a unit who asked after a "none left" had
 * been heard. */
void ledger_check_order(const struct ledger *ledger);
/* Units sold to the ledger's buyers. */
int64_t ledger_units(const struct ledger *ledger, int64_t product_id);

#endif
