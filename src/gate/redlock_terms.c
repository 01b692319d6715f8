/* A worker's memory of the terms of products: a hash table with chains over a fixed array. A worker's loop thread. Owns that array. Cannot fail:
 * when it is full the oldest entry makes room. */
#include "redlock_terms.h"

#include "doorbuster/check.h"

#include <stdlib.h>

struct slot {
    struct terms_entry entry;
    struct slot *next; /* of the same bucket */
};

struct terms {
    size_t used, oldest; /* slots are filled in turn, for ever */
    struct slot *buckets[TERMS_MAX];
    struct slot slots[TERMS_MAX];
};

static struct slot **bucket_of(struct terms *terms, int64_t product_id)
{
    return &terms->buckets[(uint64_t)product_id % TERMS_MAX];
}

struct terms *terms_new(void)
{
    struct terms *terms = calloc(1, sizeof *terms);
    CHECK(terms != NULL);
    return terms;
}

void terms_free(struct terms **terms)
{
    free(*terms);
    *terms = NULL;
}

struct terms_entry *terms_find(struct terms *terms, int64_t product_id)
{
    struct slot *slot = *bucket_of(terms, product_id);
    while (slot != NULL && slot->entry.product.id != product_id) {
        slot = slot->next;
    }
    return slot != NULL ? &slot->entry : NULL;
}

static void forget(struct terms *terms, struct slot *slot)
{
    struct slot **at = bucket_of(terms, slot->entry.product.id);
    while (*at != slot) {
        at = &(*at)->next;
    }
    *at = slot->next;
}

static struct slot *make_room(struct terms *terms)
{
    if (terms->used < TERMS_MAX) {
        return &terms->slots[terms->used++];
    }
    struct slot *slot = &terms->slots[terms->oldest];
    terms->oldest = (terms->oldest + 1) % TERMS_MAX;
    forget(terms, slot);
    return slot;
}

void terms_learn(struct terms *terms, const struct sale_product *product, struct log_position at)
{
    struct terms_entry *known = terms_find(terms, product->id);
    if (known != NULL) {
        known->product = *product;
        known->learned_at = at;
        known->is_outdated = false;
        return;
    }
    struct slot *slot = make_room(terms), **bucket = bucket_of(terms, product->id);
    *slot = (struct slot){.entry = {.product = *product, .learned_at = at, .seen_stock = INT64_MAX},
                          .next = *bucket};
    *bucket = slot;
}

void terms_see_stock(struct terms *terms, int64_t product_id, int64_t stock)
{
    struct terms_entry *entry = terms_find(terms, product_id);
    if (entry != NULL) {
        entry->seen_stock = stock;
    }
}
