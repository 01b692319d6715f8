/* A step of a sequence: one operation, as it is generated, printed, read back and made smaller. It names products, orders and users by number,
 * and the number means something whatever came before: p3 is product 3 if there are three, else one of those that there are; p0 and o0 never
 * exist. So a sequence still makes sense after steps were left out.
 *
 * As text, one step a line (a '#' begins a comment):
 *   open stock 5 price 100 limit 2 window none|open|ahead|over [planned] [of 2 p1 3 p2]
 *   buy u1 2 p1 3 p2 key 4 , u2 1 p1             one call to the gate; at most STEP_CARTS carts
 *   buy u1 2 p1 lost                             the gate does not get the answer: it is in doubt until the recorder has attached
 *   cancel o3 by owner|other|admin [void]        void: the recorder attaches between reading the order and asking the gate
 *   restock p1 5 [key 2]    withdraw p1 5 [key 2]    price p1 300 [key 2]
 *   attach                  the recorder attaches to a sound Redis
 *   forget all|scripts|head|log|unrecorded|since       Redis loses that; then an attach. unrecorded: all, and the recorder had not caught up
 *   fail store.commit       that step of the recorder or of an attach fails once (failpoint.h); then attaches until one succeeds
 *   restart                 another recorder takes over; the old one is not dead, and goes on once there is something to record
 *   remember                Redis writes down what it has; "forget since" brings that back, as an old replica or a snapshot would
 *   cut                     the link that brings the gate its news
 *   oversell u1 p1 [key 2]  somebody adds to the stock in Redis by hand, and u1 takes more than the store has
 *   trim                    the recorder drops what it has recorded from the log
 *   tamper p1 7 stock|price|limit|opening|all    somebody adds so much to that in Redis by hand, or takes the product away; the recorder notices
 * A line may end in "; unrecorded": the recorder is slow, and the next steps come before it has recorded this one. */
#ifndef DOORBUSTER_TEST_STEPS_H
#define DOORBUSTER_TEST_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define STEP_CARTS 6
#define STEP_LINES 8
#define STEP_COMPONENTS 5
#define STEPS_MAX 120
#define STEP_TEXT_BYTES 1024
#define STEP_POINTS 17
#define STEP_POINT_REBUILD 14 /* those from here on are passed only when Redis is rebuilt */
extern const char *const step_points[STEP_POINTS];

enum step_kind {
    STEP_OPEN,
    STEP_BUY,
    STEP_CANCEL,
    STEP_RESTOCK,
    STEP_WITHDRAW,
    STEP_PRICE,
    STEP_ATTACH,
    STEP_FORGET,
    STEP_TRIM,
    STEP_TAMPER,
    STEP_CUT,
    STEP_OVERSELL,
    STEP_FAIL,
    STEP_RESTART,
    STEP_REMEMBER,
    STEP_KINDS
};
enum step_window { WINDOW_NONE, WINDOW_OPEN, WINDOW_AHEAD, WINDOW_OVER, STEP_WINDOWS };
enum step_canceller { BY_OWNER, BY_OTHER, BY_ADMIN, STEP_CANCELLERS };
enum step_edit { EDIT_STOCK, EDIT_PRICE, EDIT_LIMIT, EDIT_OPENING, EDIT_ALL, STEP_EDITS };
enum step_loss { LOSE_ALL, LOSE_SCRIPTS, LOSE_HEAD, LOSE_LOG, LOSE_UNRECORDED, LOSE_SINCE, STEP_LOSSES };

struct step_line {
    int product, quantity;
};
struct step_cart {
    int user, key; /* key 0: none */
    int line_count;
    struct step_line lines[STEP_LINES];
};

struct step {
    enum step_kind kind;
    bool unrecorded;
    /* STEP_OPEN */
    int64_t stock, price, limit; /* price: of STEP_PRICE too */
    enum step_window window;
    bool planned;
    int component_count;
    struct step_line components[STEP_COMPONENTS];
    /* STEP_BUY */
    int cart_count;
    bool is_lost;
    struct step_cart carts[STEP_CARTS];
    /* the others */
    int order, product, key, user;
    int64_t units; /* STEP_RESTOCK, STEP_WITHDRAW, STEP_TAMPER */
    enum step_canceller by;
    bool is_void;
    enum step_loss loss;
    enum step_edit edit;
    int point; /* STEP_FAIL: of step_points */
};

struct sequence {
    struct step steps[STEPS_MAX];
    size_t count;
};

/* The same seed gives the same steps. */
void sequence_make(struct sequence *sequence, uint64_t seed, size_t count);
void step_format(const struct step *step, char out[STEP_TEXT_BYTES]);
bool step_parse(const char *text, struct step *out);
void sequence_print(const struct sequence *sequence, FILE *to);
/* False: `error` says which line cannot be read. */
bool sequence_read(struct sequence *sequence, FILE *from, char *error, size_t error_bytes);

#endif
