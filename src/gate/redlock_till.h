/* Tills: a worker's locks on products, and who waits at them. A purchase on its way to a batch is a ticket here; it becomes runnable when the locks
 * of all its products are this worker's. redlock_till.c has the drawing.
 *
 * Loop thread only; nothing blocks. No function here answers a purchase, so none calls back. */
#ifndef DOORBUSTER_GATE_REDLOCK_TILL_H
#define DOORBUSTER_GATE_REDLOCK_TILL_H

#include "doorbuster/gate.h"
#include "redlock.h"

/* A reference to a till: good as long as the till is held and this is its tenure. */
struct ticket_till {
    int64_t product_id;
    uint64_t tenure;
};

struct ticket {
    struct gate_purchase *purchase;
    struct ticket *next, *previous; /* of the list it is in */
    bool has_looked;                /* the nodes were asked what there is */
    bool has_learned_anew;          /* what it is about was learned while it waited */
    bool is_counted;                /* among the gate's decisions */
    bool is_unknown;                /* the store does not know a product of it, but perhaps its key */
    size_t till_count, taken;       /* wanted; how many references it has, from the first on */
    struct ticket_till *tills;      /* by rising product id */
    struct ticket_till only;        /* room for one, as nearly all have */
};

struct ticket *ticket_new(struct gate_purchase *purchase);
void ticket_free(struct ticket **ticket); /* it has no references and is in no list */
/* Which products' locks it needs; sorts them, and takes each once. */
void ticket_set_tills(struct ticket *ticket, int64_t *product_ids, size_t count);

/* In the order in which the purchases came, so in that of their deadlines too. */
struct ticket_list {
    struct ticket *first, *last;
    size_t count;
};
void ticket_list_insert(struct ticket_list *list, struct ticket *ticket);
struct ticket *ticket_list_take(struct ticket_list *list); /* the first, or NULL */
/* Moves those whose deadline is not after until_us; `expired` is in no order. */
void ticket_list_take_expired(struct ticket_list *list, int64_t until_us, struct ticket_list *expired);

struct tills;

struct tills *tills_open(struct redlock *redlock, uv_loop_t *loop, const struct gate_place *place);
/* No ticket may be here. Before redlock_close(). The loop must run until its handles are closed. Sets NULL. */
void tills_close(struct tills **tills);

/* Asks for the locks that are wanted; once a turn of the loop. */
void tills_turn(struct tills *tills);
/* Extends what is still needed; every few ten milliseconds. */
void tills_tick(struct tills *tills);

/* The ticket, with its tills set and no references, wants to run. */
void tills_place(struct tills *tills, struct ticket *ticket);
/* The next that may run now, with at most `lines_max` lines; NULL: none. It keeps its references until tills_leave(). */
struct ticket *tills_take_runnable(struct tills *tills, size_t lines_max);
/* Gives the references back; a lock that nobody needs any more is released. `is_served`: it was in a batch. */
void tills_leave(struct tills *tills, struct ticket *ticket, bool is_served);
/* Takes out whose deadline is not after until_us; they have no references any more. */
void tills_take_expired(struct tills *tills, int64_t until_us, struct ticket_list *expired);

/* Is the product's lock this worker's, and open to one more? */
bool tills_is_open(const struct tills *tills, int64_t product_id);

#endif
