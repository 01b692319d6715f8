/* First whole stretches of steps are left out, then single ones, then each step is made simpler: fewer carts, fewer lines, smaller numbers, no key,
 * no limit, no window. Whatever still fails is kept. The test's one thread; owns nothing; bounded by the number of runs. */
#include "testing.h"

#include "shrink.h"

#include <stdlib.h>
#include <string.h>

struct shrinking {
    struct trial *trial;
    struct world *world;
    enum model_fault fault;
    struct sequence *best;
    char failure[TRIAL_FAILURE_BYTES]; /* of the best */
    size_t runs_left;
};

/* Does it fail too? Then it is the best from now on. */
static bool keep_if_failing(struct shrinking *shrinking, const struct sequence *candidate)
{
    if (shrinking->runs_left == 0) {
        return false;
    }
    shrinking->runs_left--;
    if (trial_run(shrinking->trial, shrinking->world, candidate, shrinking->fault)) {
        return false;
    }
    memcpy(shrinking->failure, shrinking->trial->failure, sizeof shrinking->failure);
    *shrinking->best = shrinking->trial->done;
    shrinking->best->count = shrinking->trial->step; /* what came after the failure does not matter */
    return true;
}

/* --- fewer steps ------------------------------------------------------------------------------------------------------------------ */
static bool without(struct shrinking *shrinking, size_t from, size_t count)
{
    struct sequence *candidate = malloc(sizeof *candidate);
    assert_non_null(candidate);
    *candidate = *shrinking->best;
    memmove(&candidate->steps[from], &candidate->steps[from + count],
            (candidate->count - from - count) * sizeof candidate->steps[0]);
    candidate->count -= count;
    bool kept = keep_if_failing(shrinking, candidate);
    free(candidate);
    return kept;
}

static void close_gap(int *number, int gap)
{
    *number -= *number > gap;
}

/* What names the products behind the `gap`th names those before them from here on. */
static void close_product_gap(struct step *step, int gap)
{
    close_gap(&step->product, gap);
    for (int i = 0; i < step->component_count; i++) {
        close_gap(&step->components[i].product, gap);
    }
    for (int i = 0; i < step->cart_count; i++) {
        for (int j = 0; j < step->carts[i].line_count; j++) {
            close_gap(&step->carts[i].lines[j].product, gap);
        }
    }
}

/* A product less, and the others keep their places in the story. */
static bool without_product(struct shrinking *shrinking, size_t at)
{
    if (shrinking->best->steps[at].kind != STEP_OPEN) {
        return false;
    }
    struct sequence *candidate = malloc(sizeof *candidate);
    assert_non_null(candidate);
    *candidate = *shrinking->best;
    int gap = 0;
    for (size_t i = 0; i <= at; i++) {
        gap += candidate->steps[i].kind == STEP_OPEN;
    }
    candidate->count--;
    for (size_t i = at; i < candidate->count; i++) {
        candidate->steps[i] = candidate->steps[i + 1];
        close_product_gap(&candidate->steps[i], gap);
    }
    bool kept = keep_if_failing(shrinking, candidate);
    free(candidate);
    return kept;
}

/* From the end: what comes late hangs on what came before. */
static bool leave_out(struct shrinking *shrinking, size_t stretch)
{
    bool any = false;
    for (size_t end = shrinking->best->count; end >= stretch && stretch > 0; end--) {
        if (end <= shrinking->best->count && (without(shrinking, end - stretch, stretch) ||
                                              (stretch == 1 && without_product(shrinking, end - 1)))) {
            any = true;
            end -= stretch - 1;
        }
    }
    return any;
}

/* --- simpler steps ------------------------------------------------------------------------------------------------------------------ */
/* One way to make a step simpler; `i` and `j` say which cart, which line. False: there is nothing to do. */
typedef bool (*simplify)(struct step *step, int i, int j);

static bool set_to(int64_t *value, int64_t simple)
{
    bool differs = *value != simple;
    *value = simple;
    return differs;
}

static bool set_int(int *value, int simple)
{
    bool differs = *value != simple;
    *value = simple;
    return differs;
}

static bool clear(bool *value)
{
    bool was = *value;
    *value = false;
    return was;
}

static bool record_it(struct step *step, int i, int j)
{
    (void)i;
    (void)j;
    return clear(&step->unrecorded);
}

static bool drop_flags(struct step *step, int i, int j)
{
    (void)i;
    (void)j;
    bool planned = clear(&step->planned), is_void = clear(&step->is_void);
    planned = clear(&step->is_lost) || planned;
    return set_int(&step->key, 0) || planned || is_void;
}

static bool drop_window(struct step *step, int i, int j)
{
    (void)i;
    (void)j;
    bool differs = step->window != WINDOW_NONE;
    step->window = WINDOW_NONE;
    return differs;
}

static bool drop_limit(struct step *step, int i, int j)
{
    (void)i;
    (void)j;
    return set_to(&step->limit, 0);
}

static bool halve_numbers(struct step *step, int i, int j)
{
    (void)i;
    (void)j;
    bool differs = step->units > 1 || step->stock > 1;
    step->units = step->units > 1 ? step->units / 2 : step->units;
    step->stock = step->stock > 1 ? step->stock / 2 : step->stock;
    return differs;
}

static bool lower_numbers(struct step *step, int i, int j)
{
    (void)i;
    (void)j;
    bool differs = step->units > 1 || step->stock > 0;
    step->units -= step->units > 1;
    step->stock -= step->stock > 0;
    return differs;
}

static bool lower_order(struct step *step, int i, int j)
{
    (void)i;
    (void)j;
    bool differs = step->order > 1;
    step->order -= differs;
    return differs;
}

static bool by_owner(struct step *step, int i, int j)
{
    (void)i;
    (void)j;
    bool differs = step->by != BY_OWNER;
    step->by = BY_OWNER;
    return step->kind == STEP_CANCEL && differs;
}

static bool drop_component(struct step *step, int i, int j)
{
    (void)j;
    if (i >= step->component_count) {
        return false;
    }
    memmove(&step->components[i], &step->components[i + 1],
            (size_t)(STEP_COMPONENTS - 1 - i) * sizeof step->components[0]);
    step->component_count--;
    return true;
}

static bool one_of_component(struct step *step, int i, int j)
{
    (void)j;
    return i < step->component_count && set_int(&step->components[i].quantity, 1);
}

static bool drop_cart(struct step *step, int i, int j)
{
    (void)j;
    if (i >= step->cart_count || step->cart_count == 1) {
        return false;
    }
    memmove(&step->carts[i], &step->carts[i + 1], (size_t)(STEP_CARTS - 1 - i) * sizeof step->carts[0]);
    step->cart_count--;
    return true;
}

static bool drop_cart_key(struct step *step, int i, int j)
{
    (void)j;
    return i < step->cart_count && set_int(&step->carts[i].key, 0);
}

static bool first_user(struct step *step, int i, int j)
{
    (void)j;
    return i < step->cart_count && set_int(&step->carts[i].user, 1);
}

static bool drop_line(struct step *step, int i, int j)
{
    struct step_cart *cart = &step->carts[i];
    if (i >= step->cart_count || j >= cart->line_count || cart->line_count == 1) {
        return false;
    }
    memmove(&cart->lines[j], &cart->lines[j + 1], (size_t)(STEP_LINES - 1 - j) * sizeof cart->lines[0]);
    cart->line_count--;
    return true;
}

static bool one_of_line(struct step *step, int i, int j)
{
    return i < step->cart_count && j < step->carts[i].line_count &&
           set_int(&step->carts[i].lines[j].quantity, 1);
}

static bool halve_line(struct step *step, int i, int j)
{
    bool can = i < step->cart_count && j < step->carts[i].line_count && step->carts[i].lines[j].quantity > 1;
    step->carts[i].lines[j].quantity /= can ? 2 : 1;
    return can;
}

static bool try_one(struct shrinking *shrinking, size_t at, simplify way, int i, int j)
{
    struct sequence *candidate = malloc(sizeof *candidate);
    assert_non_null(candidate);
    *candidate = *shrinking->best;
    bool kept = way(&candidate->steps[at], i, j) && keep_if_failing(shrinking, candidate);
    free(candidate);
    return kept;
}

static bool simplify_steps(struct shrinking *shrinking)
{
    static const struct {
        simplify way;
        int i_max, j_max;
        bool again; /* as long as it goes */
    } ways[] = {
        {drop_cart, STEP_CARTS, 1, true},
        {drop_line, STEP_CARTS, STEP_LINES, true},
        {drop_component, STEP_COMPONENTS, 1, true},
        {record_it, 1, 1, false},
        {drop_flags, 1, 1, false},
        {drop_window, 1, 1, false},
        {drop_limit, 1, 1, false},
        {by_owner, 1, 1, false},
        {drop_cart_key, STEP_CARTS, 1, false},
        {first_user, STEP_CARTS, 1, false},
        {one_of_line, STEP_CARTS, STEP_LINES, false},
        {halve_line, STEP_CARTS, STEP_LINES, true},
        {one_of_component, STEP_COMPONENTS, 1, false},
        {halve_numbers, 1, 1, true},
        {lower_numbers, 1, 1, true},
        {lower_order, 1, 1, true},
    };
    bool any = false;
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        for (size_t at = 0; at < shrinking->best->count; at++) {
            for (int i = 0; i < ways[way].i_max; i++) {
                for (int j = 0; j < ways[way].j_max; j++) {
                    while (at < shrinking->best->count && try_one(shrinking, at, ways[way].way, i, j)) {
                        any = true;
                        if (!ways[way].again) {
                            break;
                        }
                    }
                }
            }
        }
    }
    return any;
}

void shrink(struct trial *trial, struct world *world, struct sequence *sequence, enum model_fault fault,
            size_t runs_max)
{
    struct shrinking shrinking = {
        .trial = trial, .world = world, .fault = fault, .best = sequence, .runs_left = runs_max};
    memcpy(shrinking.failure, trial->failure, sizeof shrinking.failure);
    *sequence = trial->done;
    sequence->count = trial->step;
    for (size_t stretch = sequence->count / 2; stretch > 0; stretch /= 2) {
        leave_out(&shrinking, stretch);
    }
    while (simplify_steps(&shrinking) || leave_out(&shrinking, 1)) {
        if (shrinking.runs_left == 0) {
            break;
        }
    }
    memcpy(trial->failure, shrinking.failure, sizeof trial->failure);
}
