/* What the files of the audit share. */
#ifndef DOORBUSTER_CHAOS_AUDIT_H
#define DOORBUSTER_CHAOS_AUDIT_H

#include "chaos.h"

#define CLOCK_TOLERANCE_MS 3

/* The stock of a product after an entry of the log. */
struct stock_point {
    int64_t at_ms, stock;
    /* New stock: when somebody had been told of it, so that a majority of the Redlock gate's nodes knows. INT64_MAX: never,
     * or it is not new. */
    int64_t told_ms;
};

struct audit {
    struct round *round;
    struct store *store;
    struct readings read;
    int64_t first;                        /* id of read.orders[0] */
    struct stock_point *points[PRODUCTS]; /* in order of time; of the bundle none */
    size_t point_count[PRODUCTS];
    int64_t wall_less_monotonic_us;
};

struct store *audit_open_store(void);
int64_t audit_wall_ms(const struct audit *audit, int64_t monotonic_us);
/* NULL: not an order of this round. */
struct audited_order *audit_find_order(struct audit *audit, int64_t id);
/* The place of a product in round.products; PRODUCTS: it is none of them. */
unsigned audit_place_of(const struct round *round, int64_t product_id);
/* The hashes, all of them. */
void audit_chain(struct round *round, struct store *store);

/* chaos_audit_books.c */
void audit_read_rows(struct audit *audit);
void audit_books(struct audit *audit);
void audit_books_free(struct audit *audit);

/* chaos_audit_answers.c, after audit_books() */
void audit_cancels(struct audit *audit);
void audit_shortages(struct audit *audit);
/* How many bundles so much stock allows. */
int64_t audit_bundles_in(const int64_t stock[PRODUCTS]);

/* chaos_audit_nodes.c: of the Redlock gate; audit_going_on(): of several servers */
void audit_going_on(struct audit *audit);
void audit_meeting(struct audit *audit);
void audit_majority(struct audit *audit);

/* chaos_audit_sql.c: what was read is what is there. */
void audit_by_sql(struct audit *audit);

/* chaos_audit_kept.c: what was confirmed, for audit_kept(). */
void audit_remember(struct audit *audit);

#endif
