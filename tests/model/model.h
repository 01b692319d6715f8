/* The specification: what a sale is, in plain C arrays and obvious loops. It shares nothing with the code under test but the numbers of its
 * limits and refusals. Everything here is a rule that a buyer or an admin could be told.
 *
 * Buying, one purchase after the other:
 *   1. A key that stands for an order: that order is the answer.
 *   2. Windows: line by line, the product and then what it is made of. The first that is unknown, not open or over is the answer.
 *   3. Stock: line by line, each beside those before it that could be had. Every line that cannot be had is named, with what there was.
 *   4. Limits: in the order of 2, units of the whole cart, components among them, and what the buyer has already.
 *   5. Sold: the next order id. A refusal changes nothing and is not kept to its key.
 * Cancelling: one's own order, or any if admin; once. All its units come back, and so does the room in its buyer's limit; its key stays. There is always room
 * for what comes back.
 * Changes: a key that stands for a change of the same admin: that change is the answer. Stock stays from 0 to PRODUCT_STOCK_MAX; a bundle has
 * none of its own. A price counts for the orders after it. */
#ifndef DOORBUSTER_TEST_MODEL_H
#define DOORBUSTER_TEST_MODEL_H

#include "doorbuster/sale.h"

#define MODEL_PRODUCTS 12
#define MODEL_USERS 4 /* buyers, ids 1 to 4 */
#define MODEL_ADMIN 5 /* the admin's user id */
#define MODEL_KEYS 6  /* idempotency keys, 1 to 6; 0: none */
#define MODEL_LINES 8 /* of a cart */
#define MODEL_COMPONENTS 5
#define MODEL_PARTS (MODEL_LINES * (1 + MODEL_COMPONENTS))
#define MODEL_ORDERS 720

/* Ways in which the model can be falsified, so that the comparisons can show that they are awake. */
enum model_fault {
    MODEL_HONEST,
    MODEL_KEEPS_LIMIT_OF_CANCELLED,
    MODEL_SELLS_CARTS_IN_PART,
    MODEL_SELLS_ONE_TOO_MANY,
    MODEL_FORGETS_A_COMPONENT,
    MODEL_KEEPS_THE_OLD_PRICE,
    MODEL_FORGETS_KEYS,
    MODEL_CANCELS_TWICE,
    MODEL_LIMITS_LINE_BY_LINE,
    MODEL_LIMITS_BEFORE_STOCK,
    MODEL_IGNORES_WINDOWS_OF_COMPONENTS,
    MODEL_WITHDRAWS_BELOW_ZERO,
    MODEL_REPEATS_KEYED_CHANGES,
    MODEL_COUNTS_RESTOCKS_TWICE,
    MODEL_KEEPS_WHAT_WAS_NEVER_RECORDED,
    MODEL_FAULTS
};
extern const char *const model_fault_names[MODEL_FAULTS];

struct model_line {
    int64_t product, quantity;
};

/* A product's newest row in the audit log. */
struct model_row {
    const char *cause; /* NULL: it has none */
    int64_t delta, from, to;
    int64_t actor; /* of a sale its buyer, if there was one alone */
    int key;
    int64_t first_order, last_order; /* of a sale or a cancellation */
};

struct model_product {
    bool opened; /* else only planned: not on sale until the recorder attaches */
    int64_t stock, planned, price, limit, starts_at, ends_at; /* stock of a bundle: 0 */
    struct model_line components[MODEL_COMPONENTS];           /* a bundle's */
    size_t component_count;
    int64_t sold, cancelled, restocked; /* so far, in units */
    int64_t logged_price;               /* of the last price change, 0: none */
    struct model_row row;
};

struct model_part {
    int64_t product, quantity, unit_price, remaining;
    bool is_component;
};

struct model_order {
    int64_t user;
    int key;
    struct model_part parts[MODEL_PARTS];
    size_t part_count;
    bool rejected; /* Redis sold it and the store had not so many: it counts for nothing */
    bool cancelled;
    int64_t cancelled_by;
};

/* What a keyed change did. */
struct model_change {
    bool done;
    int64_t product, figure, stock; /* stock: afterwards; of a price the price before */
    bool is_price;
};

struct model {
    enum model_fault fault;
    struct model_product products[1 + MODEL_PRODUCTS]; /* by id, from 1 */
    int64_t product_count;
    struct model_order orders[1 + MODEL_ORDERS]; /* by id, from 1 */
    int64_t order_count;
    int64_t ordered[1 + MODEL_USERS][1 + MODEL_KEYS]; /* the order that a buyer's key stands for; 0: none */
    struct model_change changed[1 + MODEL_KEYS];
    int64_t audit_rows; /* one for each product that a log entry moves */
};

void model_start(struct model *model, enum model_fault fault);
/* Copies what is used. */
void model_copy(struct model *to, const struct model *from);

/* --- reading ---------------------------------------------------------------------------------------------------------------- */
bool model_knows(const struct model *model, int64_t product); /* is it on sale? */
bool model_is_bundle(const struct model *model, int64_t product);
int64_t model_available(const struct model *model, int64_t product);
int64_t model_owned(const struct model *model, int64_t product, int64_t user);

/* --- buying ------------------------------------------------------------------------------------------------------------------- */
struct model_cart {
    int64_t user;
    int key;
    struct model_line lines[MODEL_LINES];
    size_t line_count;
};
/* A product that is there already is added up. False: it does not fit, and the cart is as it was. */
bool model_cart_add(struct model_cart *cart, int64_t product, int64_t quantity);

struct model_answer {
    enum refusal refusal; /* REFUSAL_NONE: sold */
    int64_t order;        /* sold, or REFUSAL_ALREADY_ORDERED */
    int64_t product;      /* what a refusal for window or limit is about */
    int64_t figure;       /* opens at, was over at, units owned already */
    int64_t requested, limit;
    uint32_t short_lines;
    int64_t unit_price[MODEL_LINES], remaining[MODEL_LINES]; /* by line; remaining also of short lines */
};
/* One call to the gate at `now_ms`: several purchases in their order. */
void model_buy(struct model *model, const struct model_cart *carts, size_t count, int64_t now_ms,
               struct model_answer *answers);

/* Somebody has added to the stock in Redis by hand, and then a buyer takes more of a product than the store has. The order id is used up. */
void model_oversell(struct model *model, const struct model_cart *cart, struct model_answer *answer);

/* --- the rest ------------------------------------------------------------------------------------------------------------------- */
enum model_result {
    MODEL_DONE,
    MODEL_UNKNOWN,
    MODEL_NOT_YOURS,
    MODEL_DONE_BEFORE,
    MODEL_CLOSED,
    MODEL_SHORT,
    MODEL_FULL,
    MODEL_RESULTS
};
extern const char *const model_result_names[MODEL_RESULTS];

/* Orders above `recorded` are not known to the store yet, and so to nobody. */
enum model_result model_cancel(struct model *model, int64_t order, int64_t actor, int64_t recorded);
/* *out: what was done, now or earlier. */
enum model_result model_change_stock(struct model *model, int64_t product, int64_t delta, int key,
                                     struct model_change *out);
enum model_result model_change_price(struct model *model, int64_t product, int64_t price, int key,
                                     struct model_change *out);
/* MODEL_UNKNOWN: a component cannot be one. `opened` of *product: at once; else it stays planned. */
enum model_result model_open(struct model *model, const struct model_product *product);
/* The recorder attaches: what was planned is opened. */
void model_attach(struct model *model);
/* Somebody changed a product's stock in Redis by hand, and it was put right. */
void model_heal(struct model *model, int64_t product);

#endif
