/* The rules of a sale: what sell.lua decides in Redis, decided here, in the same order of checks and with the same figures. Pure functions on
 * the caller's shelf; any thread, any process. A purchase is refused by an answer; only a shelf that lacks what the purchase is about is a bug
 * of the caller, and ends the process. tests/component/test_selling_parity.c holds the two against each other. */
#include "doorbuster/selling.h"

#include "doorbuster/check.h"

#include <string.h>

_Static_assert(SHELF_PRODUCTS_MAX < SHELF_SLOTS / 2 && SHELF_OWNERS_MAX < SHELF_SLOTS / 2 &&
                   SHELF_KEYS_MAX <= SHELF_KEY_SLOTS / 2,
               "the tables are never more than half full");
_Static_assert(CART_LINES_MAX <= 32, "a bit for each line in short_lines");

/* --- the shelf --- */
void shelf_clear(struct shelf *shelf, int64_t now_ms, int64_t last_order_id)
{
    shelf->now_ms = now_ms;
    shelf->last_order_id = last_order_id;
    shelf->product_count = 0;
    shelf->owner_count = 0;
    shelf->key_count = 0;
    memset(shelf->product_slots, 0, sizeof shelf->product_slots);
    memset(shelf->owner_slots, 0, sizeof shelf->owner_slots);
    memset(shelf->key_slots, 0, sizeof shelf->key_slots);
}

static size_t hash_of(uint64_t number)
{
    return (size_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

/* Each of the three finds the slot of what is asked for, or the free one where it belongs. */
static size_t product_slot(const struct shelf *shelf, int64_t product_id)
{
    size_t i = hash_of((uint64_t)product_id) % SHELF_SLOTS;
    while (shelf->product_slots[i] != 0 &&
           shelf->products[shelf->product_slots[i] - 1].terms.id != product_id) {
        i = (i + 1) % SHELF_SLOTS;
    }
    return i;
}

static size_t owner_slot(const struct shelf *shelf, int64_t product_id, int64_t user_id)
{
    size_t i = hash_of((uint64_t)product_id * 31 + (uint64_t)user_id) % SHELF_SLOTS;
    while (shelf->owner_slots[i] != 0) {
        const struct shelf_owner *owner = &shelf->owners[shelf->owner_slots[i] - 1];
        if (owner->product_id == product_id && owner->user_id == user_id) {
            break;
        }
        i = (i + 1) % SHELF_SLOTS;
    }
    return i;
}

static size_t key_slot(const struct shelf *shelf, int64_t user_id, const char *key, size_t key_bytes)
{
    uint64_t sum = (uint64_t)user_id;
    for (size_t i = 0; i < key_bytes; i++) {
        sum = sum * 31 + (unsigned char)key[i];
    }
    size_t i = hash_of(sum) % SHELF_KEY_SLOTS;
    while (shelf->key_slots[i] != 0) {
        const struct shelf_key *there = &shelf->keys[shelf->key_slots[i] - 1];
        if (there->user_id == user_id && there->key_bytes == key_bytes &&
            memcmp(there->key, key, key_bytes) == 0) {
            break;
        }
        i = (i + 1) % SHELF_KEY_SLOTS;
    }
    return i;
}

bool shelf_has_product(const struct shelf *shelf, int64_t product_id)
{
    return shelf->product_slots[product_slot(shelf, product_id)] != 0;
}

void shelf_put_product(struct shelf *shelf, const struct sale_product *terms, bool on_sale)
{
    size_t slot = product_slot(shelf, terms->id);
    CHECK(shelf->product_slots[slot] == 0 && shelf->product_count < SHELF_PRODUCTS_MAX);
    CHECK(terms->component_count <= BUNDLE_COMPONENTS_MAX);
    shelf->products[shelf->product_count++] = (struct shelf_product){.terms = *terms, .on_sale = on_sale};
    shelf->product_slots[slot] = (uint16_t)shelf->product_count;
}

static struct shelf_product *find_product(struct shelf *shelf, int64_t product_id)
{
    size_t slot = product_slot(shelf, product_id);
    CHECK(shelf->product_slots[slot] != 0);
    return &shelf->products[shelf->product_slots[slot] - 1];
}

const struct shelf_product *shelf_product(const struct shelf *shelf, int64_t product_id)
{
    size_t slot = product_slot(shelf, product_id);
    CHECK(shelf->product_slots[slot] != 0);
    return &shelf->products[shelf->product_slots[slot] - 1];
}

bool shelf_has_owner(const struct shelf *shelf, int64_t product_id, int64_t user_id)
{
    return shelf->owner_slots[owner_slot(shelf, product_id, user_id)] != 0;
}

void shelf_put_owner(struct shelf *shelf, int64_t product_id, int64_t user_id, int64_t units)
{
    size_t slot = owner_slot(shelf, product_id, user_id);
    CHECK(shelf->owner_slots[slot] == 0 && shelf->owner_count < SHELF_OWNERS_MAX);
    shelf->owners[shelf->owner_count++] =
        (struct shelf_owner){.product_id = product_id, .user_id = user_id, .units = units};
    shelf->owner_slots[slot] = (uint16_t)shelf->owner_count;
}

static struct shelf_owner *find_owner(struct shelf *shelf, int64_t product_id, int64_t user_id)
{
    size_t slot = owner_slot(shelf, product_id, user_id);
    CHECK(shelf->owner_slots[slot] != 0);
    return &shelf->owners[shelf->owner_slots[slot] - 1];
}

bool shelf_has_key(const struct shelf *shelf, int64_t user_id, const char *key, size_t key_bytes)
{
    return shelf->key_slots[key_slot(shelf, user_id, key, key_bytes)] != 0;
}

void shelf_put_key(struct shelf *shelf, int64_t user_id, const char *key, size_t key_bytes, int64_t order_id)
{
    size_t slot = key_slot(shelf, user_id, key, key_bytes);
    CHECK(shelf->key_slots[slot] == 0 && shelf->key_count < SHELF_KEYS_MAX);
    shelf->keys[shelf->key_count++] =
        (struct shelf_key){.user_id = user_id, .key = key, .key_bytes = key_bytes, .order_id = order_id};
    shelf->key_slots[slot] = (uint16_t)shelf->key_count;
}

static struct shelf_key *find_key(struct shelf *shelf, const struct sale_order *order)
{
    size_t slot = key_slot(shelf, order->user_id, order->key, order->key_bytes);
    CHECK(shelf->key_slots[slot] != 0);
    return &shelf->keys[shelf->key_slots[slot] - 1];
}

/* --- is it on sale, and is it time? --- */
static bool refuse_product(const struct shelf *shelf, const struct shelf_product *product,
                           struct verdict *out)
{
    const struct sale_product *terms = &product->terms;
    out->refused_product_id = terms->id;
    if (!product->on_sale) {
        out->refusal = REFUSAL_NOT_ON_SALE;
    } else if (terms->starts_at_ms > 0 && shelf->now_ms < terms->starts_at_ms) {
        out->refusal = REFUSAL_NOT_OPEN;
        out->figure = terms->starts_at_ms;
        out->wait_ms = terms->starts_at_ms - shelf->now_ms;
    } else if (terms->ends_at_ms > 0 && shelf->now_ms >= terms->ends_at_ms) {
        out->refusal = REFUSAL_OVER;
        out->figure = terms->ends_at_ms;
    } else {
        out->refused_product_id = 0;
    }
    return out->refusal != REFUSAL_NONE;
}

/* A bundle is on sale while all that it is made of is. */
static bool refuse_line(struct shelf *shelf, const struct shelf_product *product, struct verdict *out)
{
    bool refused = refuse_product(shelf, product, out);
    for (size_t i = 0; product->on_sale && i < product->terms.component_count && !refused; i++) {
        refused = refuse_product(shelf, find_product(shelf, product->terms.components[i].product_id), out);
    }
    return refused;
}

static bool refuse_lines(struct shelf *shelf, const struct sale_order *lines, struct verdict *out)
{
    bool refused = false;
    for (size_t i = 0; i < order_part_count(lines) && !refused; i++) {
        refused = refuse_line(shelf, find_product(shelf, order_part_at(lines, i).product_id), out);
    }
    return refused;
}

/* --- stock --- */
/* Of a bundle, as many as its components allow. */
static int64_t available(struct shelf *shelf, const struct sale_product *terms)
{
    if (terms->component_count == 0) {
        return terms->stock;
    }
    int64_t most = INT64_MAX;
    for (size_t i = 0; i < terms->component_count; i++) {
        const struct bundle_component *component = &terms->components[i];
        int64_t allows = find_product(shelf, component->product_id)->terms.stock / component->quantity;
        most = allows < most ? allows : most;
    }
    return most;
}

static void move_stock(struct shelf *shelf, struct sale_product *terms, int64_t quantity)
{
    if (terms->component_count == 0) {
        terms->stock += quantity;
    }
    for (size_t i = 0; i < terms->component_count; i++) {
        const struct bundle_component *component = &terms->components[i];
        find_product(shelf, component->product_id)->terms.stock += component->quantity * quantity;
    }
}

/* Takes each line that can be had beside those before it. Notes those that cannot, and how many there were. */
static void take_lines(struct shelf *shelf, const struct sale_order *lines, struct verdict *out)
{
    for (size_t i = 0; i < order_part_count(lines); i++) {
        struct order_part line = order_part_at(lines, i);
        struct sale_product *terms = &find_product(shelf, line.product_id)->terms;
        int64_t have = available(shelf, terms);
        if (have < line.quantity) {
            out->refusal = REFUSAL_INSUFFICIENT_STOCK;
            out->short_lines |= UINT32_C(1) << i;
            out->available[i] = have;
        } else {
            move_stock(shelf, terms, -line.quantity);
        }
    }
}

static void put_back(struct shelf *shelf, const struct sale_order *lines, uint32_t short_lines)
{
    for (size_t i = 0; i < order_part_count(lines); i++) {
        struct order_part line = order_part_at(lines, i);
        if ((short_lines >> i & 1) == 0) {
            move_stock(shelf, &find_product(shelf, line.product_id)->terms, line.quantity);
        }
    }
}

/* --- the customer's limit, summed over the whole cart --- */
/* Called for each product with a limit that the purchase takes, at its first mention; false: stop. */
typedef bool (*limited_cb)(struct shelf *shelf, int64_t user_id, struct shelf_product *product,
                           struct verdict *out);

static void add_wanted(struct shelf_product *product, int64_t units)
{
    product->wanted += product->terms.limit > 0 ? units : 0;
}

static void sum_wanted(struct shelf *shelf, const struct sale_order *lines)
{
    for (size_t i = 0; i < order_part_count(lines); i++) {
        struct order_part line = order_part_at(lines, i);
        struct shelf_product *product = find_product(shelf, line.product_id);
        add_wanted(product, line.quantity);
        for (size_t j = 0; j < product->terms.component_count; j++) {
            const struct bundle_component *component = &product->terms.components[j];
            add_wanted(find_product(shelf, component->product_id), component->quantity * line.quantity);
        }
    }
}

static bool each_limited(struct shelf *shelf, const struct sale_order *lines, limited_cb cb,
                         struct verdict *out)
{
    bool go_on = true;
    for (size_t i = 0; i < order_part_count(lines) && go_on; i++) {
        struct shelf_product *product = find_product(shelf, order_part_at(lines, i).product_id);
        go_on = product->wanted == 0 || cb(shelf, lines->user_id, product, out);
        for (size_t j = 0; j < product->terms.component_count && go_on; j++) {
            struct shelf_product *component = find_product(shelf, product->terms.components[j].product_id);
            go_on = component->wanted == 0 || cb(shelf, lines->user_id, component, out);
        }
    }
    return go_on;
}

static bool fits_limit_cb(struct shelf *shelf, int64_t user_id, struct shelf_product *product,
                          struct verdict *out)
{
    int64_t owned = find_owner(shelf, product->terms.id, user_id)->units;
    if (owned + product->wanted <= product->terms.limit) {
        return true;
    }
    out->refusal = REFUSAL_CUSTOMER_LIMIT;
    out->refused_product_id = product->terms.id;
    out->requested = product->wanted;
    out->figure = owned;
    out->limit = product->terms.limit;
    return false;
}

static bool own_cb(struct shelf *shelf, int64_t user_id, struct shelf_product *product, struct verdict *out)
{
    (void)out;
    struct shelf_owner *owner = find_owner(shelf, product->terms.id, user_id);
    owner->units += product->wanted;
    owner->changed = true;
    product->wanted = 0; /* a second mention adds nothing */
    return true;
}

static bool forget_wanted_cb(struct shelf *shelf, int64_t user_id, struct shelf_product *product,
                             struct verdict *out)
{
    (void)shelf, (void)user_id, (void)out;
    product->wanted = 0;
    return true;
}

/* Refused if it is more than this customer may have; else noted as his. */
static bool refuse_over_limit(struct shelf *shelf, const struct sale_order *lines, struct verdict *out)
{
    sum_wanted(shelf, lines);
    bool fits = each_limited(shelf, lines, fits_limit_cb, out);
    each_limited(shelf, lines, fits ? own_cb : forget_wanted_cb, out);
    return !fits;
}

/* --- the order --- */
static void write_components(struct shelf *shelf, const struct sale_product *terms, int64_t quantity,
                             struct log_room *room)
{
    for (size_t i = 0; i < terms->component_count; i++) {
        const struct bundle_component *component = &terms->components[i];
        struct shelf_product *taken = find_product(shelf, component->product_id);
        CHECK(room->parts_used < room->parts_max);
        room->parts[room->parts_used++] = (struct order_part){.product_id = component->product_id,
                                                              .quantity = component->quantity * quantity,
                                                              .remaining = taken->terms.stock,
                                                              .is_component = true};
        taken->moved = true;
    }
}

static struct order_part take_line(struct shelf *shelf, struct order_part line)
{
    struct shelf_product *product = find_product(shelf, line.product_id);
    move_stock(shelf, &product->terms, -line.quantity);
    product->moved = true;
    return (struct order_part){.product_id = line.product_id,
                               .quantity = line.quantity,
                               .unit_price = product->terms.price,
                               .remaining = available(shelf, &product->terms)};
}

/* Takes and writes down line by line: `remaining` is what was left right after each, and a later line may take of the same product. */
static void write_order(struct shelf *shelf, const struct sale_order *lines, struct log_room *room,
                        struct verdict *out)
{
    CHECK(room->orders_used < room->orders_max);
    struct sale_order *order = &room->orders[room->orders_used++];
    size_t parts_before = room->parts_used;
    for (size_t i = 0; i < order_part_count(lines); i++) {
        struct order_part line = take_line(shelf, order_part_at(lines, i));
        if (i == 0) {
            *order = (struct sale_order){.id = ++shelf->last_order_id,
                                         .request = lines->request,
                                         .user_id = lines->user_id,
                                         .product_id = line.product_id,
                                         .quantity = line.quantity,
                                         .unit_price = line.unit_price,
                                         .remaining = line.remaining,
                                         .key = lines->key,
                                         .key_bytes = lines->key_bytes};
        } else {
            CHECK(room->parts_used < room->parts_max);
            room->parts[room->parts_used++] = line;
        }
        write_components(shelf, &find_product(shelf, line.product_id)->terms, line.quantity, room);
    }
    order->more_count = room->parts_used - parts_before;
    order->more = order->more_count > 0 ? &room->parts[parts_before] : NULL;
    out->order = order;
}

/* --- the decision --- */
static void decide_lines(struct shelf *shelf, const struct sale_order *lines, struct log_room *room,
                         struct verdict *out)
{
    if (refuse_lines(shelf, lines, out)) {
        return;
    }
    take_lines(shelf, lines, out);
    put_back(shelf, lines, out->short_lines);
    if (out->short_lines == 0 && !refuse_over_limit(shelf, lines, out)) {
        write_order(shelf, lines, room, out);
    }
}

void shelf_decide(struct shelf *shelf, const struct purchase *purchase, struct log_room *room,
                  struct verdict *out)
{
    const struct sale_order *lines = &purchase->order;
    struct shelf_key *key = lines->key != NULL ? find_key(shelf, lines) : NULL;
    CHECK(order_part_count(lines) <= CART_LINES_MAX);
    *out = (struct verdict){0};
    if (key != NULL && key->order_id != 0) {
        out->refusal = REFUSAL_ALREADY_ORDERED;
        out->figure = key->order_id;
        return;
    }
    decide_lines(shelf, lines, room, out);
    if (key != NULL && out->order != NULL) { /* a refusal is not kept: the same key may ask again */
        key->order_id = out->order->id;
        key->is_new = true;
    }
}

/* The lines of an order with all its parts, in the order in which they were asked for. */
static void take_lines_of(struct sale_order *asked, const struct sale_order *order)
{
    size_t line = 0;
    asked->id = order->id;
    asked->unit_price = order->unit_price;
    asked->remaining = order->remaining;
    for (size_t i = 0; i < order->more_count; i++) {
        if (!order->more[i].is_component) {
            CHECK(line < asked->more_count && asked->more[line].product_id == order->more[i].product_id);
            asked->more[line].unit_price = order->more[i].unit_price;
            asked->more[line++].remaining = order->more[i].remaining;
        }
    }
    CHECK(line == asked->more_count);
}

void purchase_take_verdict(struct purchase *purchase, const struct verdict *verdict)
{
    if (verdict->order != NULL) {
        take_lines_of(&purchase->order, verdict->order);
        return;
    }
    purchase->refusal = verdict->refusal;
    purchase->figure = verdict->figure;
    purchase->refused_product_id = verdict->refused_product_id;
    purchase->limit = verdict->limit;
    purchase->requested = verdict->requested;
    purchase->wait_ms = verdict->wait_ms;
    purchase->short_lines = 0;
    for (size_t i = 0; i < order_part_count(&purchase->order); i++) {
        if ((verdict->short_lines >> i & 1) != 0) {
            purchase_note_short(purchase, i, verdict->available[i]);
        }
    }
}
