/* See model.h. Pure; the test's one thread. Owns nothing; cannot fail. Written to be read, not to be quick: whoever wonders how the sale
 * behaves finds it here, in one place and in the order in which it happens. */
#include "model.h"

#include <string.h>

const char *const model_fault_names[MODEL_FAULTS] = {
    [MODEL_HONEST] = "nothing",
    [MODEL_KEEPS_LIMIT_OF_CANCELLED] = "a cancelled order still counts for its buyer's limit",
    [MODEL_SELLS_CARTS_IN_PART] = "a cart is sold without the lines that cannot be had",
    [MODEL_SELLS_ONE_TOO_MANY] = "one unit too many is sold",
    [MODEL_FORGETS_A_COMPONENT] = "a bundle's last component is not taken",
    [MODEL_KEEPS_THE_OLD_PRICE] = "a new price does not count",
    [MODEL_FORGETS_KEYS] = "a repeated key buys again",
    [MODEL_CANCELS_TWICE] = "an order can be cancelled twice",
    [MODEL_LIMITS_LINE_BY_LINE] = "a limit is not summed over lines and components",
    [MODEL_LIMITS_BEFORE_STOCK] = "limits are checked before stock",
    [MODEL_IGNORES_WINDOWS_OF_COMPONENTS] = "a component's window does not count",
    [MODEL_WITHDRAWS_BELOW_ZERO] = "more can be withdrawn than there is",
    [MODEL_REPEATS_KEYED_CHANGES] = "a repeated change is made again",
    [MODEL_KEEPS_WHAT_WAS_NEVER_RECORDED] = "what Redis forgot before it was recorded still counts",
    [MODEL_COUNTS_RESTOCKS_TWICE] = "a restock is written down twice",
};

const char *const model_result_names[MODEL_RESULTS] = {"done",   "unknown", "not yours", "done before",
                                                       "closed", "short",   "full"};

void model_start(struct model *model, enum model_fault fault)
{
    memset(model, 0, sizeof *model);
    model->fault = fault;
}

void model_copy(struct model *to, const struct model *from)
{
    to->fault = from->fault;
    to->product_count = from->product_count;
    to->order_count = from->order_count;
    to->audit_rows = from->audit_rows;
    memcpy(to->products, from->products, sizeof to->products);
    memcpy(to->ordered, from->ordered, sizeof to->ordered);
    memcpy(to->changed, from->changed, sizeof to->changed);
    memcpy(to->orders, from->orders, (size_t)(1 + from->order_count) * sizeof to->orders[0]);
}

/* --- reading ---------------------------------------------------------------------------------------------------------------- */
bool model_knows(const struct model *model, int64_t product)
{
    return product >= 1 && product <= model->product_count && model->products[product].opened;
}

bool model_is_bundle(const struct model *model, int64_t product)
{
    return model_knows(model, product) && model->products[product].component_count > 0;
}

int64_t model_available(const struct model *model, int64_t id)
{
    const struct model_product *product = &model->products[id];
    if (product->component_count == 0) {
        return product->stock;
    }
    int64_t most = INT64_MAX;
    for (size_t i = 0; i < product->component_count; i++) {
        int64_t allows =
            model->products[product->components[i].product].stock / product->components[i].quantity;
        most = allows < most ? allows : most;
    }
    return most;
}

int64_t model_owned(const struct model *model, int64_t product, int64_t user)
{
    int64_t units = 0;
    for (int64_t id = 1; id <= model->order_count; id++) {
        const struct model_order *order = &model->orders[id];
        bool counts =
            (!order->cancelled && !order->rejected) || model->fault == MODEL_KEEPS_LIMIT_OF_CANCELLED;
        for (size_t i = 0; counts && order->user == user && i < order->part_count; i++) {
            units += order->parts[i].product == product ? order->parts[i].quantity : 0;
        }
    }
    return units;
}

/* --- carts --------------------------------------------------------------------------------------------------------------------- */
bool model_cart_add(struct model_cart *cart, int64_t product, int64_t quantity)
{
    for (size_t i = 0; i < cart->line_count; i++) {
        struct model_line *line = &cart->lines[i];
        if (line->product == product) {
            bool fits = line->quantity + quantity <= PURCHASE_QUANTITY_MAX;
            line->quantity += fits ? quantity : 0;
            return fits;
        }
    }
    cart->lines[cart->line_count++] = (struct model_line){product, quantity};
    return true;
}

/* What the cart takes, product by product: each line, then what it is made of. A product may be there several times. */
struct wanted {
    struct model_line each[MODEL_PARTS];
    size_t count;
};

static struct wanted wanted_of(const struct model *model, const struct model_cart *cart)
{
    struct wanted wanted = {.count = 0};
    for (size_t i = 0; i < cart->line_count; i++) {
        const struct model_line *line = &cart->lines[i];
        wanted.each[wanted.count++] = *line;
        if (!model_knows(model, line->product)) {
            continue;
        }
        const struct model_product *product = &model->products[line->product];
        for (size_t j = 0; j < product->component_count; j++) {
            const struct model_line *component = &product->components[j];
            wanted.each[wanted.count++] =
                (struct model_line){component->product, component->quantity * line->quantity};
        }
    }
    return wanted;
}

/* --- the rules of buying, in their order ------------------------------------------------------------------------------------------ */
static bool refuse_window(const struct model *model, const struct model_cart *cart, int64_t now_ms,
                          struct model_answer *answer)
{
    struct wanted wanted = wanted_of(model, cart);
    if (model->fault == MODEL_IGNORES_WINDOWS_OF_COMPONENTS) {
        memcpy(wanted.each, cart->lines, sizeof cart->lines);
        wanted.count = cart->line_count;
    }
    for (size_t i = 0; i < wanted.count; i++) {
        int64_t id = wanted.each[i].product;
        answer->product = id;
        if (!model_knows(model, id)) {
            answer->refusal = REFUSAL_NOT_ON_SALE;
            return true;
        }
        if (now_ms < model->products[id].starts_at) {
            answer->refusal = REFUSAL_NOT_OPEN;
            answer->figure = model->products[id].starts_at;
            return true;
        }
        if (model->products[id].ends_at != 0 && now_ms >= model->products[id].ends_at) {
            answer->refusal = REFUSAL_OVER;
            answer->figure = model->products[id].ends_at;
            return true;
        }
    }
    answer->product = 0;
    return false;
}

/* Takes so many of a product, or of what it is made of, from the stock. */
static void take(struct model *model, int64_t id, int64_t quantity)
{
    struct model_product *product = &model->products[id];
    if (product->component_count == 0) {
        product->stock -= quantity;
        return;
    }
    size_t count = product->component_count - (model->fault == MODEL_FORGETS_A_COMPONENT);
    for (size_t i = 0; i < count; i++) {
        model->products[product->components[i].product].stock -= product->components[i].quantity * quantity;
    }
}

static bool refuse_stock(struct model *model, const struct model_cart *cart, struct model_answer *answer)
{
    int64_t stocks[1 + MODEL_PRODUCTS];
    for (int64_t id = 1; id <= model->product_count; id++) {
        stocks[id] = model->products[id].stock;
    }
    for (size_t i = 0; i < cart->line_count; i++) {
        const struct model_line *line = &cart->lines[i];
        int64_t have = model_available(model, line->product);
        if (have + (model->fault == MODEL_SELLS_ONE_TOO_MANY) < line->quantity) {
            answer->refusal = REFUSAL_INSUFFICIENT_STOCK;
            answer->short_lines |= UINT32_C(1) << i;
            answer->remaining[i] = have;
        } else {
            take(model, line->product, line->quantity);
        }
    }
    for (int64_t id = 1; id <= model->product_count; id++) {
        model->products[id].stock = stocks[id];
    }
    return answer->short_lines != 0;
}

static bool refuse_limit(const struct model *model, const struct model_cart *cart,
                         struct model_answer *answer)
{
    struct wanted wanted = wanted_of(model, cart);
    for (size_t i = 0; i < wanted.count; i++) {
        int64_t id = wanted.each[i].product, units = 0;
        for (size_t j = 0; j < wanted.count; j++) {
            units += wanted.each[j].product == id ? wanted.each[j].quantity : 0;
        }
        if (model->fault == MODEL_LIMITS_LINE_BY_LINE) {
            units = wanted.each[i].quantity;
        }
        int64_t owned = model_owned(model, id, cart->user), limit = model->products[id].limit;
        if (limit > 0 && owned + units > limit) {
            *answer = (struct model_answer){.refusal = REFUSAL_CUSTOMER_LIMIT,
                                            .product = id,
                                            .figure = owned,
                                            .requested = units,
                                            .limit = limit};
            return true;
        }
    }
    return false;
}

static void add_part(struct model *model, struct model_order *order, struct model_part part)
{
    order->parts[order->part_count++] = part;
    model->products[part.product].sold += part.quantity;
}

static void sell_line(struct model *model, struct model_order *order, const struct model_line *line)
{
    const struct model_product *product = &model->products[line->product];
    take(model, line->product, line->quantity);
    add_part(model, order,
             (struct model_part){.product = line->product,
                                 .quantity = line->quantity,
                                 .unit_price = product->price,
                                 .remaining = model_available(model, line->product)});
    for (size_t i = 0; i < product->component_count; i++) {
        const struct model_line *component = &product->components[i];
        add_part(model, order,
                 (struct model_part){.product = component->product,
                                     .quantity = component->quantity * line->quantity,
                                     .remaining = model->products[component->product].stock,
                                     .is_component = true});
    }
}

static void sell(struct model *model, const struct model_cart *cart, struct model_answer *answer)
{
    answer->order = ++model->order_count;
    struct model_order *order = &model->orders[answer->order];
    *order = (struct model_order){.user = cart->user, .key = cart->key};
    for (size_t i = 0; i < cart->line_count; i++) {
        size_t part = order->part_count;
        if ((answer->short_lines & UINT32_C(1) << i) == 0) {
            sell_line(model, order, &cart->lines[i]);
            answer->unit_price[i] = order->parts[part].unit_price;
            answer->remaining[i] = order->parts[part].remaining;
        }
    }
    model->ordered[cart->user][cart->key] = cart->key > 0 ? answer->order : 0;
    answer->refusal = REFUSAL_NONE;
    answer->short_lines = 0;
}

static void buy_one(struct model *model, const struct model_cart *cart, int64_t now_ms,
                    struct model_answer *answer)
{
    *answer = (struct model_answer){0};
    int64_t earlier = model->ordered[cart->user][cart->key];
    if (earlier != 0 && model->fault != MODEL_FORGETS_KEYS) {
        answer->refusal = REFUSAL_ALREADY_ORDERED;
        answer->order = earlier;
        return;
    }
    if (refuse_window(model, cart, now_ms, answer) ||
        (model->fault == MODEL_LIMITS_BEFORE_STOCK && refuse_limit(model, cart, answer))) {
        return;
    }
    bool in_part = model->fault == MODEL_SELLS_CARTS_IN_PART && cart->line_count > 1;
    if ((refuse_stock(model, cart, answer) && !in_part) || refuse_limit(model, cart, answer)) {
        return;
    }
    sell(model, cart, answer);
}

/* --- the audit log --------------------------------------------------------------------------------------------------------------- */
/* Of a bundle's stock nothing is written down, for it has none. */
static void write_row(struct model *model, int64_t id, struct model_row row)
{
    struct model_product *product = &model->products[id];
    if (product->component_count > 0 && strcmp(row.cause, "price") != 0) {
        row.from = row.to = 0;
    }
    product->row = row;
    model->audit_rows++;
}

static void write_stock_row(struct model *model, int64_t id, const char *cause, int64_t delta, int64_t actor,
                            int key)
{
    int64_t stock = model->products[id].stock;
    write_row(
        model, id,
        (struct model_row){
            .cause = cause, .delta = delta, .from = stock - delta, .to = stock, .actor = actor, .key = key});
}

static int64_t units_in(const struct model_order *order, int64_t product)
{
    int64_t units = 0;
    for (size_t i = 0; i < order->part_count; i++) {
        units += order->parts[i].product == product ? order->parts[i].quantity : 0;
    }
    return units;
}

/* One row for each product that these orders have sold. */
static void write_sale(struct model *model, int64_t first, int64_t last)
{
    for (int64_t product = 1; product <= model->product_count; product++) {
        struct model_row row = {.cause = "sale", .to = model->products[product].stock};
        for (int64_t id = first; id <= last; id++) {
            const struct model_order *order = &model->orders[id];
            int64_t units = units_in(order, product);
            if (units > 0) {
                bool is_first = row.first_order == 0;
                row.actor = is_first || row.actor == order->user ? order->user : 0;
                row.first_order = is_first ? id : row.first_order;
                row.last_order = id;
                row.delta -= units;
            }
        }
        row.from = row.to - row.delta;
        if (row.first_order != 0) {
            write_row(model, product, row);
        }
    }
}

static void write_cancellation(struct model *model, int64_t id)
{
    const struct model_order *order = &model->orders[id];
    for (int64_t product = 1; product <= model->product_count; product++) {
        int64_t units = units_in(order, product), stock = model->products[product].stock;
        if (units > 0) {
            write_row(model, product,
                      (struct model_row){.cause = "cancel",
                                         .delta = units,
                                         .from = stock - units,
                                         .to = stock,
                                         .actor = order->cancelled_by,
                                         .first_order = id,
                                         .last_order = id});
        }
    }
}

void model_buy(struct model *model, const struct model_cart *carts, size_t count, int64_t now_ms,
               struct model_answer *answers)
{
    int64_t before = model->order_count;
    for (size_t i = 0; i < count; i++) {
        buy_one(model, &carts[i], now_ms, &answers[i]);
    }
    write_sale(model, before + 1, model->order_count);
}

void model_oversell(struct model *model, const struct model_cart *cart, struct model_answer *answer)
{
    const struct model_product *product = &model->products[cart->lines[0].product];
    *answer = (struct model_answer){
        .order = ++model->order_count, .unit_price = {product->price}, .remaining = {product->stock}};
    model->orders[answer->order] =
        (struct model_order){.user = cart->user, .key = cart->key, .rejected = true};
    struct model_order *order = &model->orders[answer->order];
    order->parts[order->part_count++] = (struct model_part){.product = cart->lines[0].product,
                                                            .quantity = cart->lines[0].quantity,
                                                            .unit_price = product->price,
                                                            .remaining = product->stock};
}

/* --- cancelling --------------------------------------------------------------------------------------------------------------------- */
enum model_result model_cancel(struct model *model, int64_t id, int64_t actor, int64_t recorded)
{
    if (id < 1 || id > recorded || model->orders[id].rejected) {
        return MODEL_UNKNOWN;
    }
    struct model_order *order = &model->orders[id];
    if (actor != order->user && actor != MODEL_ADMIN) {
        return MODEL_NOT_YOURS;
    }
    if (order->cancelled && model->fault != MODEL_CANCELS_TWICE) {
        return MODEL_DONE_BEFORE;
    }
    for (size_t i = 0; i < order->part_count; i++) {
        struct model_product *product = &model->products[order->parts[i].product];
        product->stock += product->component_count == 0 ? order->parts[i].quantity : 0;
        product->cancelled += order->parts[i].quantity;
    }
    order->cancelled = true;
    order->cancelled_by = actor;
    write_cancellation(model, id);
    return MODEL_DONE;
}

/* --- changes ------------------------------------------------------------------------------------------------------------------------- */
static enum model_result change_done(struct model *model, int key, struct model_change change,
                                     struct model_change *out)
{
    change.done = true;
    *out = change;
    model->changed[key] = key > 0 ? change : (struct model_change){0};
    return MODEL_DONE;
}

static bool was_done(const struct model *model, int key, struct model_change *out)
{
    *out = model->changed[key];
    return out->done && model->fault != MODEL_REPEATS_KEYED_CHANGES;
}

enum model_result model_change_stock(struct model *model, int64_t id, int64_t delta, int key,
                                     struct model_change *out)
{
    if (was_done(model, key, out)) {
        return MODEL_DONE_BEFORE;
    }
    if (!model_knows(model, id) || model_is_bundle(model, id)) {
        return MODEL_CLOSED;
    }
    struct model_product *product = &model->products[id];
    if (product->stock + delta < 0 && model->fault != MODEL_WITHDRAWS_BELOW_ZERO) {
        return MODEL_SHORT;
    }
    if (delta > 0 && product->stock + delta > PRODUCT_STOCK_MAX) {
        return MODEL_FULL;
    }
    product->stock += delta;
    write_stock_row(model, id, delta < 0 ? "withdrawal" : "restock", delta, MODEL_ADMIN, key);
    product->restocked += model->fault == MODEL_COUNTS_RESTOCKS_TWICE ? 2 * delta : delta;
    return change_done(model, key,
                       (struct model_change){.product = id, .figure = delta, .stock = product->stock}, out);
}

enum model_result model_change_price(struct model *model, int64_t id, int64_t price, int key,
                                     struct model_change *out)
{
    if (was_done(model, key, out)) {
        return MODEL_DONE_BEFORE;
    }
    if (!model_knows(model, id)) {
        return MODEL_CLOSED;
    }
    struct model_product *product = &model->products[id];
    int64_t before = product->price;
    product->logged_price = price;
    write_row(model, id,
              (struct model_row){.cause = "price",
                                 .delta = price - before,
                                 .from = before,
                                 .to = price,
                                 .actor = MODEL_ADMIN,
                                 .key = key});
    if (model->fault != MODEL_KEEPS_THE_OLD_PRICE) {
        product->price = price;
    }
    return change_done(
        model, key, (struct model_change){.product = id, .figure = price, .stock = before, .is_price = true},
        out);
}

/* --- opening -------------------------------------------------------------------------------------------------------------------------- */
static void open_product(struct model *model, int64_t id, int64_t actor)
{
    struct model_product *product = &model->products[id];
    product->opened = true;
    product->stock = product->planned;
    write_stock_row(model, id, "opening", product->planned, actor, 0);
}

/* What a bundle is made of is written down in order of product id, however it was asked for. */
static void sort_components(struct model_product *bundle)
{
    for (size_t i = 1; i < bundle->component_count; i++) {
        for (size_t j = i; j > 0 && bundle->components[j].product < bundle->components[j - 1].product; j--) {
            struct model_line lower = bundle->components[j];
            bundle->components[j] = bundle->components[j - 1];
            bundle->components[j - 1] = lower;
        }
    }
}

enum model_result model_open(struct model *model, const struct model_product *product)
{
    for (size_t i = 0; i < product->component_count; i++) {
        int64_t component = product->components[i].product;
        if (!model_knows(model, component) || model_is_bundle(model, component)) {
            return MODEL_UNKNOWN;
        }
    }
    struct model_product *added = &model->products[++model->product_count];
    *added = *product;
    sort_components(added);
    if (product->opened) {
        open_product(model, model->product_count, MODEL_ADMIN);
    }
    return MODEL_DONE;
}

void model_attach(struct model *model)
{
    for (int64_t id = 1; id <= model->product_count; id++) {
        if (!model->products[id].opened) {
            open_product(model, id, 0);
        }
    }
}

void model_heal(struct model *model, int64_t product)
{
    write_stock_row(model, product, "healing", 0, 0, 0);
}
