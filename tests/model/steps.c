/* Random steps. Pure; the test's one thread. The weights are chosen so that things happen: little stock, few products, few people, few keys,
 * so that every second purchase is refused for some reason, and every reason comes up. */
#include "steps.h"

#include "testing.h"

#include <string.h>

#define PRODUCTS_FIRST 3 /* so many openings begin a sequence */
#define PRODUCTS_MAX 12
#define USERS 4
#define KEYS 6

/* What the generator knows of the sequence so far. */
struct maker {
    uint64_t random;
    int products, orders; /* about so many */
};

static int below(struct maker *maker, int limit)
{
    return (int)random_below(&maker->random, (uint32_t)limit);
}

static bool one_in(struct maker *maker, int n)
{
    return below(maker, n) == 0;
}

/* One in forty is none that there is. */
static int some_product(struct maker *maker)
{
    return maker->products == 0 || one_in(maker, 40) ? 0 : 1 + below(maker, maker->products);
}

static int some_key(struct maker *maker)
{
    return one_in(maker, 2) ? 1 + below(maker, one_in(maker, 2) ? 2 : KEYS) : 0;
}

static int some_quantity(struct maker *maker)
{
    return one_in(maker, 20) ? 1 + below(maker, 1000) : 1 + below(maker, 3);
}

static enum step_window some_window(struct maker *maker)
{
    return one_in(maker, 6) ? (enum step_window)below(maker, STEP_WINDOWS) : WINDOW_NONE;
}

static int64_t some_price(struct maker *maker)
{
    return one_in(maker, 10) ? INT64_C(100000000000) - below(maker, 2) : 1 + below(maker, 1000);
}

static void make_open(struct maker *maker, struct step *step)
{
    step->stock = one_in(maker, 8) ? 0 : one_in(maker, 2) ? 20 + below(maker, 2000) : 1 + below(maker, 12);
    step->price = some_price(maker);
    step->limit = one_in(maker, 2) ? 1 + below(maker, 8) : 0;
    step->window = some_window(maker);
    step->planned = one_in(maker, 12);
    if (maker->products > 0 && one_in(maker, 3)) {
        step->component_count = 1 + below(maker, one_in(maker, 4) ? STEP_COMPONENTS : 3);
        for (int i = 0; i < step->component_count; i++) {
            step->components[i] = (struct step_line){some_product(maker), 1 + below(maker, 3)};
        }
    }
    maker->products++;
}

static void make_cart(struct maker *maker, struct step_cart *cart)
{
    cart->user = 1 + below(maker, USERS);
    cart->key = some_key(maker);
    cart->line_count = one_in(maker, 2) ? 1 : 1 + below(maker, one_in(maker, 4) ? STEP_LINES : 4);
    for (int i = 0; i < cart->line_count; i++) {
        cart->lines[i] = (struct step_line){some_product(maker), some_quantity(maker)};
    }
    maker->orders += one_in(maker, 3);
}

static void make_buy(struct maker *maker, struct step *step)
{
    step->cart_count = one_in(maker, 2) ? 1 : 1 + below(maker, STEP_CARTS);
    step->is_lost = one_in(maker, 25);
    for (int i = 0; i < step->cart_count; i++) {
        make_cart(maker, &step->carts[i]);
    }
}

static void make_cancel(struct maker *maker, struct step *step)
{
    step->order = one_in(maker, 20) ? 0 : 1 + below(maker, maker->orders + 1);
    step->by = one_in(maker, 4) ? BY_OTHER : one_in(maker, 3) ? BY_ADMIN : BY_OWNER;
    step->is_void = one_in(maker, 15);
}

static void make_change(struct maker *maker, struct step *step)
{
    step->product = some_product(maker);
    step->key = some_key(maker);
    step->units = one_in(maker, 20) ? 999999980 + below(maker, 20) : 1 + below(maker, 10);
    step->price = some_price(maker);
    step->user = 1 + below(maker, USERS);
    step->edit = (enum step_edit)below(maker, STEP_EDITS);
}

static enum step_kind some_kind(struct maker *maker)
{
    static const int weights[STEP_KINDS] = {
        [STEP_OPEN] = 4,  [STEP_BUY] = 50,     [STEP_CANCEL] = 14, [STEP_RESTOCK] = 8, [STEP_WITHDRAW] = 5,
        [STEP_PRICE] = 5, [STEP_ATTACH] = 2,   [STEP_FORGET] = 6,  [STEP_TRIM] = 2,    [STEP_TAMPER] = 2,
        [STEP_CUT] = 2,   [STEP_OVERSELL] = 1, [STEP_FAIL] = 4,    [STEP_RESTART] = 2, [STEP_REMEMBER] = 3,
    };
    int sum = 0;
    for (int i = 0; i < STEP_KINDS; i++) {
        sum += weights[i];
    }
    int pick = below(maker, sum), kind = 0;
    while (pick >= weights[kind]) {
        pick -= weights[kind++];
    }
    return kind == STEP_OPEN && maker->products == PRODUCTS_MAX ? STEP_BUY : (enum step_kind)kind;
}

static void make_step(struct maker *maker, struct step *step)
{
    memset(step, 0, sizeof *step);
    step->kind = maker->products < PRODUCTS_FIRST ? STEP_OPEN : some_kind(maker);
    step->unrecorded = one_in(maker, 3);
    switch (step->kind) {
    case STEP_OPEN:
        make_open(maker, step);
        break;
    case STEP_BUY:
        make_buy(maker, step);
        break;
    case STEP_CANCEL:
        make_cancel(maker, step);
        break;
    case STEP_FAIL:
        step->point = below(maker, STEP_POINTS);
        break;
    case STEP_FORGET:
        step->loss = one_in(maker, 3) ? LOSE_UNRECORDED : (enum step_loss)below(maker, STEP_LOSSES);
        break;
    default:
        make_change(maker, step);
    }
}

void sequence_make(struct sequence *sequence, uint64_t seed, size_t count)
{
    /* Hashed once: the streams of neighbouring seeds must not be the same one, shifted. */
    struct maker maker = {.random = (uint64_t)random_next(&seed) << 32};
    maker.random |= random_next(&seed);
    sequence->count = count;
    for (size_t i = 0; i < count; i++) {
        make_step(&maker, &sequence->steps[i]);
    }
}
