/* What the Lua gate and sell.lua say to each other; the script's head has the same, seen from its side. Pure functions, but for one room for
 * the words of a call, which a process has once: a worker's loop thread. What Redis answers is checked here before anything believes it; a
 * CHECK is not for what others say. */
#include "lua_call.h"

#include "doorbuster/text.h"
#include "keys.h"

#include <string.h>

#define FIELDS_MIN 4  /* of a purchase */
#define FIELDS_KEY 5  /* these and its idempotency key, if any of the call has one */
#define FIELDS_CART 6 /* these and the number of its further lines, if any is a cart */
#define ARGUMENTS_MAX (GATE_BATCH_MAX * FIELDS_CART + 2 * SALES_LOG_LINES_MAX)
#define ARGUMENTS_FIXED 9 /* EVALSHA sha 5 key key key key key fields */
#define REPLY_FIXED 2     /* the entry's id, the time */
#define REPLY_EACH 3

size_t lua_call_lines(const struct purchase *purchase)
{
    return order_part_count(&purchase->order);
}

/* --- asked -------------------------------------------------------------------------------------------------------------------- */
struct room {
    int count;
    const char *words[ARGUMENTS_FIXED + ARGUMENTS_MAX];
    size_t bytes[ARGUMENTS_FIXED + ARGUMENTS_MAX];
    char numbers[ARGUMENTS_MAX][TEXT_INT64_BYTES];
    size_t numbers_used;
};

static void add_word(struct room *room, const char *text, size_t bytes)
{
    room->words[room->count] = text;
    room->bytes[room->count++] = bytes;
}

static void add_number(struct room *room, int64_t number)
{
    char *text = room->numbers[room->numbers_used++];
    add_word(room, text, text_from_int64(number, text));
}

/* The lines of a cart behind its first; of others their number is 0. */
static void add_lines(struct room *room, const struct sale_order *order)
{
    add_number(room, (int64_t)order->more_count);
    for (size_t i = 0; i < order->more_count; i++) {
        add_number(room, order->more[i].product_id);
        add_number(room, order->more[i].quantity);
    }
}

static void add_purchase(struct room *room, const struct sale_order *order, int fields)
{
    add_number(room, order->request);
    add_number(room, order->user_id);
    add_number(room, order->product_id);
    add_number(room, order->quantity);
    if (fields >= FIELDS_KEY) {
        add_word(room, order->key != NULL ? order->key : "", order->key_bytes);
    }
    if (fields == FIELDS_CART) {
        add_lines(room, order);
    }
}

/* Calls without any key or cart do not pay for them. */
static int fields_of(struct gate_purchase *const *purchases, size_t count)
{
    int fields = FIELDS_MIN;
    for (size_t i = 0; i < count; i++) {
        const struct sale_order *order = &purchases[i]->purchase.order;
        int own = order->more_count > 0 ? FIELDS_CART : order->key != NULL ? FIELDS_KEY : FIELDS_MIN;
        fields = own > fields ? own : fields;
    }
    return fields;
}

struct lua_call_words lua_call_ask(const char *sha, struct gate_purchase *const *purchases, size_t count)
{
    static struct room room;
    static const char *const digits[FIELDS_CART + 1] = {"0", "1", "2", "3", "4", "5", "6"};
    int fields = fields_of(purchases, count);
    const char *fixed[ARGUMENTS_FIXED] = {"EVALSHA",
                                          sha,
                                          "5",
                                          gate_keys.head,
                                          gate_keys.log,
                                          gate_keys.product,
                                          gate_keys.buyers,
                                          gate_keys.ordered,
                                          digits[fields]};
    room.count = 0;
    room.numbers_used = 0;
    for (size_t i = 0; i < ARGUMENTS_FIXED; i++) {
        add_word(&room, fixed[i], strlen(fixed[i]));
    }
    for (size_t i = 0; i < count; i++) {
        add_purchase(&room, &purchases[i]->purchase.order, fields);
    }
    return (struct lua_call_words){.count = room.count, .words = room.words, .bytes = room.bytes};
}

/* --- answered ------------------------------------------------------------------------------------------------------------------ */
static bool are_numbers(const redisReply *list, size_t count)
{
    bool ok = list->type == REDIS_REPLY_ARRAY && list->elements == count;
    for (size_t i = 0; ok && i < count; i++) {
        ok = list->element[i]->type == REDIS_REPLY_INTEGER && list->element[i]->integer >= 0;
    }
    return ok;
}

static bool are_shortages(const redisReply *list, size_t lines)
{
    bool ok = list->type == REDIS_REPLY_ARRAY && list->elements >= 2 && list->elements % 2 == 0 &&
              are_numbers(list, list->elements);
    for (size_t i = 0; ok && i < list->elements; i += 2) {
        ok = list->element[i]->integer < (int64_t)lines;
    }
    return ok;
}

/* The three that the script answers to one purchase. */
static const redisReply *const *three_of(const redisReply *reply, size_t i)
{
    return (const redisReply *const *)&reply->element[REPLY_FIXED + REPLY_EACH * i];
}

static bool is_sold(const redisReply *const *three)
{
    return three[0]->integer > 0;
}

static bool is_sale(const redisReply *const *three, size_t lines)
{
    const redisReply *second = three[1];
    return lines > 1 ? are_numbers(second, 2 * lines)
                     : second->type == REDIS_REPLY_INTEGER && second->integer > 0 && three[2]->integer >= 0;
}

static bool is_refusal(const redisReply *const *three, size_t lines)
{
    const redisReply *second = three[1];
    switch (three[0]->integer) {
    case REFUSAL_INSUFFICIENT_STOCK:
        return lines > 1 ? are_shortages(second, lines) : second->type == REDIS_REPLY_INTEGER;
    case REFUSAL_CUSTOMER_LIMIT:
        return are_numbers(second, 4);
    case REFUSAL_NOT_OPEN:
    case REFUSAL_OVER:
        return are_numbers(second, 3);
    case REFUSAL_NOT_ON_SALE:
    case REFUSAL_ALREADY_ORDERED:
        return second->type == REDIS_REPLY_INTEGER;
    default:
        return false;
    }
}

static bool is_answer_to(const struct purchase *asked, const redisReply *const *three)
{
    size_t lines = lua_call_lines(asked);
    if (three[0]->type != REDIS_REPLY_INTEGER || three[2]->type != REDIS_REPLY_INTEGER) {
        return false;
    }
    return is_sold(three) ? is_sale(three, lines) : is_refusal(three, lines);
}

bool lua_call_is_answer(const redisReply *reply, struct gate_purchase *const *purchases, size_t count,
                        struct log_position *position)
{
    *position = (struct log_position){0};
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != REPLY_FIXED + REPLY_EACH * count ||
        reply->element[1]->type != REDIS_REPLY_INTEGER) {
        return false;
    }
    const redisReply *entry = reply->element[0];
    bool sold = entry->type == REDIS_REPLY_STRING;
    if (sold && (!log_position_parse(entry->str, entry->len, position) || position->epoch == 0)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const redisReply *const *three = three_of(reply, i);
        if (!is_answer_to(&purchases[i]->purchase, three) || (is_sold(three) && !sold)) {
            return false;
        }
    }
    return true;
}

static void take_shortages(struct purchase *purchase, const redisReply *second)
{
    if (second->type == REDIS_REPLY_INTEGER) {
        purchase_note_short(purchase, 0, second->integer);
        return;
    }
    for (size_t i = 0; i < second->elements; i += 2) {
        purchase_note_short(purchase, (size_t)second->element[i]->integer, second->element[i + 1]->integer);
    }
}

/* Price and remaining of each line. */
static void take_prices(struct sale_order *order, const redisReply *second, const redisReply *third)
{
    if (order->more_count == 0) {
        order->unit_price = second->integer;
        order->remaining = third->integer;
        return;
    }
    order->unit_price = second->element[0]->integer;
    order->remaining = second->element[1]->integer;
    for (size_t i = 0; i < order->more_count; i++) {
        order->more[i].unit_price = second->element[2 * (i + 1)]->integer;
        order->more[i].remaining = second->element[2 * (i + 1) + 1]->integer;
    }
}

static enum refusal take_refusal(struct purchase *purchase, enum refusal refusal, const redisReply *second)
{
    redisReply *const *figures = second->element;
    switch (refusal) {
    case REFUSAL_INSUFFICIENT_STOCK:
        take_shortages(purchase, second);
        break;
    case REFUSAL_CUSTOMER_LIMIT:
        purchase->refused_product_id = figures[0]->integer;
        purchase->requested = figures[1]->integer;
        purchase->figure = figures[2]->integer;
        purchase->limit = figures[3]->integer;
        break;
    case REFUSAL_NOT_OPEN:
    case REFUSAL_OVER:
        purchase->refused_product_id = figures[0]->integer;
        purchase->figure = figures[1]->integer;
        purchase->wait_ms = figures[2]->integer;
        break;
    case REFUSAL_NOT_ON_SALE:
        purchase->refused_product_id = second->integer;
        break;
    default:
        purchase->figure = second->integer;
    }
    return refusal;
}

enum refusal lua_call_take(const redisReply *reply, size_t i, struct purchase *purchase)
{
    const redisReply *const *three = three_of(reply, i);
    if (!is_sold(three)) {
        return take_refusal(purchase, (enum refusal)three[0]->integer, three[1]);
    }
    purchase->order.id = three[0]->integer;
    take_prices(&purchase->order, three[1], three[2]);
    purchase->at_ms = reply->element[1]->integer;
    return REFUSAL_NONE;
}
