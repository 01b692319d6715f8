/* A worker's Lua gate, with everything that Redis, the recorder and the links can do to it, in any order. The input is lines:
 *
 *   b PRODUCT QUANTITY…        somebody buys; several pairs are a cart
 *   t | s | c MS               a turn of the loop; a sweep; the clock goes on
 *   u | d | U | D              the link of the calls is up or down; that of the news
 *   r REPLY                    Redis answers the oldest command: iN, sTEXT, eTEXT (an error, to the end of the line), n (nil), [ … ]
 *   a EPOCH-N ORDER COUNT      or it sells as sell.lua does: so many orders of one line, from this order on, in this entry
 *   n TEXT | m                 the recorder's news; stock was added
 *   f N                        the store has told of the oldest purchase that was to be looked up: enum gate_finding
 *
 * Whatever happens: each purchase is answered once, by its deadline; and "confirmed" is said only of what the recorder's news or the store have told of. */
#include "fuzz.h"

#include "news.h"

#include "doorbuster/clock.h"
#include "doorbuster/gate.h"
#include "doorbuster/log.h"
#include "doorbuster/text.h"

#include <stdio.h>

#define LINE_BYTES 256
#define PURCHASES_MAX 64
#define COMMANDS_MAX 256
#define DEPTH_MAX 4
#define ELEMENTS_MAX 64
#define AFTER_ALL_MS 12000
#define STEP_MS 50

struct redis_link {
    struct redis_link_settings settings;
    bool up;
    struct {
        redis_reply_cb cb;
        void *context;
    } commands[COMMANDS_MAX], subscriptions[2];
    size_t first, count, subscribed;
};

int64_t __real_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void);
struct redis_link *__wrap_redis_link_new(uv_loop_t *loop, const struct redis_link_settings *settings);
bool __wrap_redis_link_is_up(const struct redis_link *link);
bool __wrap_redis_link_command(struct redis_link *link, redis_reply_cb cb, void *context, int argc,
                               const char **argv, const size_t *argv_bytes);
bool __wrap_redis_link_subscribe(struct redis_link *link, const char *channel, redis_reply_cb cb,
                                 void *context);
void __wrap_redis_link_flush(struct redis_link *link);
void __wrap_redis_link_reset(struct redis_link *link, const char *why);
void __wrap_redis_link_close(struct redis_link **link);

struct buyer {
    struct gate_purchase purchase;
    struct order_part more[CART_LINES_MAX];
    bool answered, found;
};

static struct {
    uv_loop_t loop;
    struct gate *gate;
    struct redis_link links[2]; /* calls, news */
    size_t link_count;
    int64_t clock_us; /* 0: the real one, for the other targets */
    struct buyer buyers[PURCHASES_MAX];
    size_t buyer_count;
    struct gate_purchase *lookups;
    struct log_position recorded; /* the highest that the news have told of */
} shop;

/* --- clock and links -------------------------------------------------------------------------------------------------------------------- */
int64_t __wrap_clock_monotonic_us(void)
{
    return shop.clock_us > 0 ? shop.clock_us : __real_clock_monotonic_us();
}

struct redis_link *__wrap_redis_link_new(uv_loop_t *loop, const struct redis_link_settings *settings)
{
    CHECK(shop.link_count < 2);
    (void)loop;
    struct redis_link *link = &shop.links[shop.link_count++];
    *link = (struct redis_link){.settings = *settings};
    return link;
}

bool __wrap_redis_link_is_up(const struct redis_link *link)
{
    return link->up;
}

bool __wrap_redis_link_command(struct redis_link *link, redis_reply_cb cb, void *context, int argc,
                               const char **argv, const size_t *argv_bytes)
{
    (void)argv_bytes;
    CHECK(argc > 0 && argv[0] != NULL);
    if (!link->up || link->count == COMMANDS_MAX) {
        CHECK(!link->up || strcmp(argv[0], "EVALSHA") != 0);
        return false;
    }
    size_t at = (link->first + link->count++) % COMMANDS_MAX;
    link->commands[at].cb = cb;
    link->commands[at].context = context;
    return true;
}

bool __wrap_redis_link_subscribe(struct redis_link *link, const char *channel, redis_reply_cb cb,
                                 void *context)
{
    (void)channel;
    CHECK(link->up && link->subscribed < 2);
    link->subscriptions[link->subscribed].cb = cb;
    link->subscriptions[link->subscribed++].context = context;
    return true;
}

void __wrap_redis_link_flush(struct redis_link *link)
{
    (void)link;
}

static void answer_oldest(struct redis_link *link, const redisReply *reply)
{
    if (link->count > 0) {
        size_t at = link->first;
        link->first = (link->first + 1) % COMMANDS_MAX;
        link->count--;
        link->commands[at].cb(reply, link->commands[at].context);
    }
}

static void take_down(struct redis_link *link)
{
    if (!link->up) {
        return;
    }
    link->up = false;
    while (link->count > 0) {
        answer_oldest(link, NULL);
    }
    for (size_t i = 0; i < link->subscribed; i++) {
        link->subscriptions[i].cb(NULL, link->subscriptions[i].context);
    }
    link->subscribed = 0;
    link->settings.down_cb(link->settings.context);
}

void __wrap_redis_link_reset(struct redis_link *link, const char *why)
{
    CHECK(why != NULL);
    take_down(link);
}

void __wrap_redis_link_close(struct redis_link **link)
{
    take_down(*link);
    *link = NULL;
}

static void bring_up(struct redis_link *link)
{
    if (!link->up) {
        link->up = true;
        link->settings.up_cb(link->settings.context);
    }
}

/* --- buyers and the store --------------------------------------------------------------------------------------------------------------- */
static void answer_cb(struct gate_purchase *purchase, void *context)
{
    struct buyer *buyer = context;
    enum purchase_state state = purchase->purchase.state;
    CHECK(!buyer->answered);
    CHECK(state == PURCHASE_CONFIRMED || state == PURCHASE_REFUSED || state == PURCHASE_UNAVAILABLE);
    CHECK(state != PURCHASE_CONFIRMED || buyer->found ||
          log_position_compare(purchase->purchase.position, shop.recorded) <= 0);
    buyer->answered = true;
}

static bool settle_cb(void *context, struct gate_purchase *list)
{
    (void)context;
    struct gate_purchase **last = &shop.lookups;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = list;
    return true;
}

static void settle(enum gate_finding finding)
{
    struct gate_purchase *purchase = shop.lookups;
    if (purchase == NULL) {
        return;
    }
    struct purchase *asked = &purchase->purchase;
    shop.lookups = purchase->next;
    purchase->next = NULL;
    if (finding == GATE_IN_STORE) {
        ((struct buyer *)purchase->context)->found = true;
        asked->order.id = asked->order.id > 0 ? asked->order.id : 1;
        asked->position =
            asked->position.epoch > 0 ? asked->position : (struct log_position){.epoch = 1, .n = 1};
    }
    gate_settled(shop.gate, purchase, finding);
}

static void buy(const char *text)
{
    struct buyer *buyer = &shop.buyers[shop.buyer_count];
    struct sale_order *order = &buyer->purchase.purchase.order;
    long long product, quantity;
    int used;
    if (shop.buyer_count == PURCHASES_MAX) {
        return;
    }
    *buyer = (struct buyer){.purchase = {.cb = answer_cb, .context = buyer}};
    order->user_id = 1001;
    order->more = buyer->more;
    while (sscanf(text, " %4lld %4lld%n", &product, &quantity, &used) == 2 && product > 0 && quantity > 0 &&
           quantity <= PURCHASE_QUANTITY_MAX) {
        (void)cart_add(order, product, quantity);
        text += used;
    }
    if (order->quantity > 0) {
        shop.buyer_count++;
        gate_submit(shop.gate, &buyer->purchase);
    }
}

/* --- replies ---------------------------------------------------------------------------------------------------------------------------- */
static redisReply *new_reply(int type, const char *text, size_t bytes)
{
    redisReply *reply = calloc(1, sizeof *reply);
    CHECK(reply != NULL);
    reply->type = type;
    if (text != NULL) {
        reply->str = fuzz_text((const uint8_t *)text, bytes);
        reply->len = bytes;
    }
    return reply;
}

static redisReply *read_reply(const char **at, int depth);

static redisReply *read_list(const char **at, int depth)
{
    redisReply *list = new_reply(REDIS_REPLY_ARRAY, NULL, 0);
    list->element = calloc(ELEMENTS_MAX, sizeof *list->element);
    CHECK(list->element != NULL);
    while (list->elements < ELEMENTS_MAX && (*at += strspn(*at, " "), **at != '\0' && **at != ']')) {
        list->element[list->elements++] = read_reply(at, depth + 1);
    }
    *at += **at == ']';
    return list;
}

static redisReply *read_reply(const char **at, int depth)
{
    *at += strspn(*at, " ");
    char kind = **at;
    *at += kind != '\0';
    if (kind == '[' && depth < DEPTH_MAX) {
        return read_list(at, depth);
    }
    size_t bytes = strcspn(*at, kind == 'e' ? "" : " ");
    const char *text = *at;
    *at += bytes;
    redisReply *reply = new_reply(kind == 'i'   ? REDIS_REPLY_INTEGER
                                  : kind == 's' ? REDIS_REPLY_STRING
                                  : kind == 'e' ? REDIS_REPLY_ERROR
                                                : REDIS_REPLY_NIL,
                                  kind == 's' || kind == 'e' ? text : NULL, bytes);
    int64_t number;
    if (kind == 'i' && text_to_int64(text, bytes, INT64_MIN, INT64_MAX, &number)) {
        reply->integer = number;
    }
    return reply;
}

static void reply(const char *text)
{
    redisReply *read = read_reply(&text, 0);
    answer_oldest(&shop.links[0], read);
    freeReplyObject(read);
}

static void sell(const char *text)
{
    char answer[4096];
    int epoch = 0, n = 0, order = 0, count = 0;
    if (sscanf(text, " %4d-%6d %6d %2d", &epoch, &n, &order, &count) != 4 || epoch < 1 || n < 0 ||
        order < 1) {
        return;
    }
    int used = snprintf(answer, sizeof answer, "[ s%d-%d i1764201600123", epoch, n);
    for (int i = 0; i < count; i++) {
        used += snprintf(answer + used, sizeof answer - (size_t)used, " i%d i49900 i5", order + i);
    }
    snprintf(answer + used, sizeof answer - (size_t)used, " ]");
    reply(answer);
}

/* On the news' channel, or on that of the stock. */
static void tell(size_t channel, const char *kind, const char *text)
{
    struct redis_link *link = &shop.links[1];
    struct recorded_news news;
    char words[LINE_BYTES + 64];
    if (channel >= link->subscribed) {
        return;
    }
    if (channel == 1 && recorded_news_parse(text, &news) &&
        log_position_compare(news.recorded, shop.recorded) > 0) {
        shop.recorded = news.recorded;
    }
    snprintf(words, sizeof words, "[ s%s schannel ]", kind);
    const char *at = words;
    redisReply *message = read_reply(&at, 0);
    message->element[message->elements++] = new_reply(REDIS_REPLY_STRING, text, strlen(text));
    link->subscriptions[channel].cb(message, link->subscriptions[channel].context);
    freeReplyObject(message);
}

/* --- the input -------------------------------------------------------------------------------------------------------------------------- */
static void sweep_cb(uv_handle_t *handle, void *context)
{
    (void)context;
    if (handle->type == UV_TIMER) {
        ((uv_timer_t *)handle)->timer_cb((uv_timer_t *)handle);
    }
}

static void step(const char *line)
{
    const char *rest = line + 1;
    rest += *rest == ' ';
    switch (line[0]) {
    case 'b':
        buy(rest);
        break;
    case 't':
        gate_turn(shop.gate);
        break;
    case 's':
        uv_walk(&shop.loop, sweep_cb, NULL);
        break;
    case 'c':
        shop.clock_us += (int64_t)(strtoul(rest, NULL, 10) % 10000) * 1000;
        break;
    case 'u':
        bring_up(&shop.links[0]);
        break;
    case 'd':
        take_down(&shop.links[0]);
        break;
    case 'U':
        bring_up(&shop.links[1]);
        tell(1, "subscribe", "");
        break;
    case 'D':
        take_down(&shop.links[1]);
        break;
    case 'r':
        reply(rest);
        break;
    case 'a':
        sell(rest);
        break;
    case 'n':
        tell(1, "message", rest);
        break;
    case 'm':
        tell(0, "message", "1");
        break;
    case 'f':
        settle((enum gate_finding)(strtoul(rest, NULL, 10) % 4));
        break;
    default:
        break;
    }
}

static void open_shop(void)
{
    static const struct gate_place place = {.kind = GATE_LUA};
    struct gate_settings settings = {
        .loop = &shop.loop, .place = &place, .settle_cb = settle_cb, .store_id = 4711};
    shop.link_count = shop.buyer_count = 0;
    shop.lookups = NULL;
    shop.recorded = (struct log_position){0};
    shop.clock_us = INT64_C(1000000000);
    shop.gate = gate_open_for_worker(&settings);
}

/* Nothing answers any more: by their deadlines all purchases are. */
static void close_shop(void)
{
    take_down(&shop.links[0]);
    take_down(&shop.links[1]);
    for (int ms = 0; ms < AFTER_ALL_MS && gate_pending(shop.gate) > 0; ms += STEP_MS) {
        shop.clock_us += STEP_MS * 1000;
        while (shop.lookups != NULL) {
            settle(GATE_STORE_UNREADABLE);
        }
        step("s");
        step("t");
    }
    for (size_t i = 0; i < shop.buyer_count; i++) {
        CHECK(shop.buyers[i].answered);
    }
    gate_close_for_worker(&shop.gate);
    uv_run(&shop.loop, UV_RUN_DEFAULT);
    shop.clock_us = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static bool begun;
    char line[LINE_BYTES];
    if (!begun) {
        CHECK(uv_loop_init(&shop.loop) == 0);
        log_set_level(LOG_ERROR);
        begun = true;
    }
    char *text = fuzz_text(data, bytes);
    open_shop();
    for (const char *at = text; *at != '\0';) {
        size_t length = strcspn(at, "\n");
        snprintf(line, sizeof line, "%.*s", (int)length, at);
        step(line);
        at += length + (at[length] == '\n');
    }
    close_shop();
    free(text);
    return 0;
}
