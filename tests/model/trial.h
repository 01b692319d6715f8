/* One sequence, carried out on the real thing and on the model side by side, and compared after each step. */
#ifndef DOORBUSTER_TEST_TRIAL_H
#define DOORBUSTER_TEST_TRIAL_H

#include "model.h"
#include "steps.h"
#include "world.h"

#define TRIAL_FAILURE_BYTES 1024

struct trial {
    struct world *world;
    struct model now;      /* what Redis must have */
    struct model recorded; /* what the store must have: `now` as it was when the recorder last recorded */
    struct model_answer answers[WORLD_PURCHASES]; /* of the world's purchases, by index */
    struct model_cart carts[WORLD_PURCHASES];     /* likewise */
    struct log_position change_positions[1 + MODEL_KEYS], cancel_positions[1 + MODEL_ORDERS];
    int64_t compared_orders; /* up to here, since they were recorded */
    struct sequence done;    /* the sequence, with numbers as they were understood */
    size_t step;             /* how many of it were carried out */
    /* Over all trials: so that whoever reads the report sees that everything came up. */
    uint64_t purchases[REFUSALS], carts_sold, results[STEP_KINDS][MODEL_RESULTS], steps;
    char failure[TRIAL_FAILURE_BYTES];
};

/* False: ->failure says what differs, after how many steps. The world is then as it was left, but usable. */
bool trial_run(struct trial *trial, struct world *world, const struct sequence *sequence,
               enum model_fault fault);

/* --- for the files of the trial --------------------------------------------------------------------------------------------- */
/* Are they equal? Else the failure is "<what>: <found>, but the model says <wanted>". */
bool trial_equal(struct trial *trial, int64_t found, int64_t wanted, const char *what, ...)
    __attribute__((format(printf, 4, 5)));
bool trial_fail(struct trial *trial, const char *what, ...) __attribute__((format(printf, 2, 3)));
const char *trial_key(int key); /* each awkward in its own way; one as long as can be. NULL for 0 */

/* The step's number of something, made one that there is; 0: none, then an id that does not exist. The step is told, so that it reads as what was
 * done. */
int64_t trial_number(int *number, int64_t count);
int64_t trial_product(const struct trial *trial, int *number);

/* Carries one step out on both, and compares what was answered. */
bool trial_step(struct trial *trial, struct step *step);
/* The recorder catches up; all that was bought is confirmed. */
bool trial_record(struct trial *trial);
/* A new epoch: all is recorded, all is answered, what was planned is open. */
bool trial_attach(struct trial *trial);
bool trial_after_attach(struct trial *trial, bool attached); /* if the attach was made otherwise */
/* Redis loses something or all, and the recorder attaches. */
bool trial_forget(struct trial *trial, enum step_loss loss);
bool trial_tamper(struct trial *trial, struct step *step);
bool trial_oversell(struct trial *trial, struct step *step);
bool trial_fail_once(struct trial *trial, int point);
/* The purchases from `first` on were submitted; their answer is lost. */
bool trial_lose_answer(struct trial *trial, size_t first);
bool trial_cancel(struct trial *trial, struct step *step);

/* The purchase at that index, as it was decided or answered. */
bool compare_answer(struct trial *trial, size_t index, bool is_recorded);
/* Redis: live, and at the store's position. */
bool compare_gate(struct trial *trial);
/* The store: the products' books, and the orders recorded since the last time. */
bool compare_store(struct trial *trial);
/* Every order, every key, the audits of the store, the recorder's own comparison. */
bool compare_all(struct trial *trial);

#endif
