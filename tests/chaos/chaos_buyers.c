/* Sixty people who buy without end: single products, carts, bundles. A third of them send an Idempotency-Key and repeat
 * a purchase until its outcome is known; the others take no answer for an answer. Some cancel what they have just been
 * given, some of these twice, once more afterwards or at the same time as an admin. Two admins restock and withdraw, with a
 * key. What is cancelled or changed is repeated until its outcome is known. Of two servers half of them ask the one and
 * half the other, and who repeats may go to the other. Whose server has died goes on with the other, and comes back later.
 *
 *   IDLE --due--> ASKING --definite answer--> IDLE
 *                   ^  |--broken, 503, "still running", if it is repeated--> AGAIN
 *                   +--due-----------------------------------------------------+
 *
 * Owns the crowd and the accounts' tokens. */
#include "chaos.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAUSE_US_MAX 30000 /* between two purchases of a buyer */
#define ADMIN_PAUSE_US_MAX 60000
#define AGAIN_US 15000 /* before a request is repeated, and after a broken one */
#define CONNECT_TIMEOUT_MS 10000
#define KEYED_EVERY 3
#define KINDS_OF_PURCHASE 20 /* of so many purchases … */
#define CARTS 3              /* … are carts of the scarce and the plentiful product, */
#define FULL_CARTS 1         /* carts with a bundle besides, */
#define BUNDLES 1            /* and bundles alone */
#define CANCELLED_ONE_IN 16  /* confirmed orders */
#define AGAIN_ONE_IN 3       /* of these are cancelled twice */
#define BOTH_ONE_IN 8        /* by an admin too, at the same time */
#define HOME_ONE_IN 4        /* of those who went to the other server */
#define RESTOCK_MAX 4
#define WITHDRAWAL_MAX 3
#define BODY_BYTES 256
#define NO_WISH UINT32_MAX

const int64_t bundle_units[PRODUCTS] = {[SCARCE] = 1, [PLENTIFUL] = 2};

static struct {
    struct crowd *crowd;
    uint16_t ports[SERVERS_MAX];
    unsigned servers, server[PEOPLE]; /* whom each asks */
    int64_t first_user, products[PRODUCTS];
    char tokens[PEOPLE][JWT_TOKEN_BYTES_MAX];
    int64_t due_us[PEOPLE];
    unsigned wish[PEOPLE];       /* the one at hand, or NO_WISH */
    int64_t to_cancel[PEOPLE];   /* the order to cancel next; 0: none */
    int64_t to_cancel_by_admins; /* likewise */
    bool asking[PEOPLE];
    uint64_t random, run_tag;
    bool open, selling; /* selling: they begin new purchases */
    int64_t first_sale_since_us, first_sale_us[SERVERS_MAX];
} people;

static bool one_in(uint32_t number)
{
    return random_below(&people.random, number) == 0;
}

static bool is_admin(unsigned person)
{
    return person >= BUYERS;
}

/* --- answers ------------------------------------------------------------------------------------------- */
static void note_sale(unsigned server, int status, int64_t sent_us, int64_t got_us)
{
    if (status == 201 && people.first_sale_us[server] == 0 && people.first_sale_since_us != 0 &&
        sent_us > people.first_sale_since_us) {
        people.first_sale_us[server] = got_us;
    }
}

static void go_to(unsigned person, unsigned server)
{
    people.server[person] = server;
    crowd_move(people.crowd, person, people.ports[server]);
}

static void go_to_another_server(unsigned person)
{
    go_to(person, (people.server[person] + 1) % people.servers);
}

/* Who is not in the middle of a purchase looks now and then whether its own server is back. */
static void choose_server(unsigned person, const struct crowd_answer *answer, bool in_the_middle)
{
    unsigned home = person % people.servers;
    if (people.servers < 2) {
        return;
    }
    if (in_the_middle && one_in(2)) {
        go_to_another_server(person);
    } else if (is_several(bench.mode) && answer->status == CROWD_BROKEN && !answer->connected) {
        go_to_another_server(person);
    } else if (is_several(bench.mode) && !in_the_middle && people.server[person] != home &&
               one_in(HOME_ONE_IN)) {
        go_to(person, home);
    }
}

/* What it leads to: an order that its buyer does not want any more, a second try to cancel it. */
static void think_again(unsigned person, const struct wish *wish)
{
    bool bought = wish->kind == WISH_PURCHASE && wish->outcome == CONFIRMED;
    bool first_cancel = wish->kind == WISH_CANCEL && people.to_cancel[person] == wish->order;
    if (bought && one_in(CANCELLED_ONE_IN)) {
        people.to_cancel[person] = wish->order;
    } else if (first_cancel && !one_in(AGAIN_ONE_IN)) {
        people.to_cancel[person] = 0;
    }
}

static void answer_cb(void *context, size_t person, const struct crowd_answer *answer)
{
    (void)context;
    unsigned place = people.wish[person];
    people.asking[person] = false;
    if (place == NO_WISH) {
        return; /* of a round that was given up */
    }
    history_note(place, people.server[person], answer, people.products);
    note_sale(people.server[person], answer->status, answer->sent_us, answer->got_us);
    const struct wish *wish = &history.wishes[place];
    bool again = wish->outcome == UNKNOWN;
    if (!again) {
        think_again((unsigned)person, wish);
    }
    choose_server((unsigned)person, answer, again && wish->repeats);
    if (!again || !wish->repeats) {
        people.wish[person] = NO_WISH;
    }
    uint32_t pause_us = is_admin((unsigned)person) ? ADMIN_PAUSE_US_MAX : PAUSE_US_MAX;
    people.due_us[person] = now_us() + (again ? AGAIN_US : (int64_t)random_below(&people.random, pause_us));
}

/* --- what they want ------------------------------------------------------------------------------------ */
static void add_line(struct wish *wish, unsigned product)
{
    wish->lines[wish->line_count++] =
        (struct wish_line){.product = product, .quantity = 1 + random_below(&people.random, 3)};
}

static void fill_cart(struct wish *wish, bool bundle_too)
{
    unsigned first = random_below(&people.random, 2), place = random_below(&people.random, 3);
    wish->as_cart = true;
    for (unsigned i = 0; i < 3; i++) {
        if (bundle_too && i == place) {
            add_line(wish, BUNDLE);
        }
        if (i < 2) {
            add_line(wish, i == 0 ? first : 1 - first);
        }
    }
}

static void want_purchase(unsigned person, struct wish *wish)
{
    uint32_t kind = random_below(&people.random, KINDS_OF_PURCHASE);
    wish->kind = WISH_PURCHASE;
    wish->keyed = wish->repeats = options.keys && person % KEYED_EVERY == 0;
    if (kind < CARTS + FULL_CARTS) {
        fill_cart(wish, kind >= CARTS);
    } else if (kind < CARTS + FULL_CARTS + BUNDLES) {
        add_line(wish, BUNDLE);
    } else {
        add_line(wish, random_below(&people.random, 2));
    }
}

static void want_cancel(unsigned person, int64_t order, struct wish *wish)
{
    wish->kind = WISH_CANCEL;
    wish->repeats = true;
    wish->order = order;
    if (!is_admin(person) && one_in(BOTH_ONE_IN)) {
        people.to_cancel_by_admins = order;
        for (unsigned i = BUYERS; i < PEOPLE; i++) {
            people.due_us[i] = wish->first_sent_us; /* whoever is free */
        }
    }
}

static void want_change(struct wish *wish)
{
    uint32_t figure = random_below(&people.random, RESTOCK_MAX + WITHDRAWAL_MAX);
    wish->kind = WISH_CHANGE;
    wish->keyed = wish->repeats = options.keys;
    wish->line_count = 1;
    wish->lines[0] = (struct wish_line){
        .product = random_below(&people.random, 2),
        .quantity = figure < RESTOCK_MAX ? (int64_t)figure + 1 : (int64_t)RESTOCK_MAX - 1 - (int64_t)figure};
}

static void begin_wish(unsigned person)
{
    struct wish wish = {.person = person, .first_sent_us = now_us()};
    int64_t *admins = &people.to_cancel_by_admins;
    if (is_admin(person) && *admins != 0) {
        want_cancel(person, *admins, &wish);
        *admins = 0;
    } else if (is_admin(person)) {
        want_change(&wish);
    } else if (people.to_cancel[person] != 0) {
        want_cancel(person, people.to_cancel[person], &wish);
    } else {
        want_purchase(person, &wish);
    }
    history_add(&wish);
    people.wish[person] = (unsigned)(history.wish_count - 1);
}

/* --- asking -------------------------------------------------------------------------------------------- */
void buyers_key(const struct wish *wish, char out[KEY_BYTES])
{
    out[0] = '\0';
    if (wish->keyed) {
        snprintf(out, KEY_BYTES, "%" PRIx64 "-%td", people.run_tag, wish - history.wishes);
    }
}

static void write_lines(const struct wish *wish, char out[BODY_BYTES])
{
    size_t used = 0;
    for (size_t i = 0; i < wish->line_count; i++) {
        used += (size_t)snprintf(out + used, BODY_BYTES - used,
                                 "%s{\"product_id\":%" PRId64 ",\"quantity\":%" PRId64 "}", i > 0 ? "," : "",
                                 people.products[wish->lines[i].product], wish->lines[i].quantity);
        assert_true(used < BODY_BYTES);
    }
}

static void ask_purchase(const struct wish *wish, const char *headers)
{
    char lines[BODY_BYTES], body[BODY_BYTES + 16];
    write_lines(wish, lines);
    snprintf(body, sizeof body, wish->as_cart ? "{\"items\":[%s]}" : "%s", lines);
    crowd_request_with(people.crowd, wish->person, "POST", "/api/purchases", people.tokens[wish->person],
                       headers, body);
}

static void ask_cancel(const struct wish *wish)
{
    char target[64];
    snprintf(target, sizeof target, "/api/purchases/%" PRId64, wish->order);
    crowd_request_with(people.crowd, wish->person, "DELETE", target, people.tokens[wish->person], "", NULL);
}

static void ask_change(const struct wish *wish, const char *headers)
{
    char target[64], body[BODY_BYTES];
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/stock",
             people.products[wish->lines[0].product]);
    snprintf(body, sizeof body, "{\"delta\":%" PRId64 ",\"reason\":\"%s\"}", wish->lines[0].quantity,
             wish->lines[0].quantity > 0 ? "a box was found" : "a box was damaged");
    crowd_request_with(people.crowd, wish->person, "POST", target, people.tokens[wish->person], headers,
                       body);
}

static void ask(unsigned person)
{
    char key[KEY_BYTES], headers[KEY_BYTES + 32] = "";
    struct wish *wish = &history.wishes[people.wish[person]];
    wish->attempts++;
    wish->last_sent_us = now_us();
    buyers_key(wish, key);
    if (key[0] != '\0') {
        snprintf(headers, sizeof headers, "Idempotency-Key: %s\r\n", key);
    }
    people.asking[person] = true;
    if (wish->kind == WISH_PURCHASE) {
        ask_purchase(wish, headers);
    } else if (wish->kind == WISH_CANCEL) {
        ask_cancel(wish);
    } else {
        ask_change(wish, headers);
    }
}

static void ask_those_due(void)
{
    int64_t now = now_us();
    for (unsigned i = 0; i < PEOPLE; i++) {
        bool wants = people.wish[i] != NO_WISH || people.selling;
        if (people.asking[i] || !wants || people.due_us[i] > now) {
            continue;
        }
        if (people.wish[i] == NO_WISH) {
            begin_wish(i);
        }
        ask(i);
    }
}

void buyers_step(int ms)
{
    if (!people.open) {
        return;
    }
    ask_those_due();
    crowd_step(people.crowd, ms);
}

void buyers_for(int ms)
{
    int64_t deadline = deadline_in(ms);
    while (now_us() < deadline && !interrupted) {
        buyers_step(1);
    }
}

/* --- coming and going ---------------------------------------------------------------------------------- */
int64_t buyers_user(unsigned person)
{
    return people.first_user + person;
}

void buyers_forget(void)
{
    buyers_close();
    people.first_user = 0;
}

static void make_accounts(void)
{
    people.first_user = server_fixture_add_users(&bench.server, PEOPLE);
    for (unsigned i = 0; i < PEOPLE; i++) {
        server_fixture_token(&bench.server, buyers_user(i), is_admin(i) ? USER_ADMIN : USER_BUYER,
                             people.tokens[i]);
    }
}

void buyers_open(void)
{
    bool same = people.open && people.servers == bench.server_count;
    for (unsigned i = 0; i < bench.server_count; i++) {
        same = same && people.ports[i] == bench_server(i)->port;
    }
    if (same) {
        return;
    }
    buyers_close();
    if (people.first_user == 0) {
        make_accounts();
    }
    people.servers = bench.server_count;
    for (unsigned i = 0; i < people.servers; i++) {
        people.ports[i] = bench_server(i)->port;
    }
    people.crowd = crowd_new(people.ports[0], PEOPLE, answer_cb, NULL);
    for (unsigned i = 0; i < PEOPLE; i++) {
        people.wish[i] = NO_WISH;
        people.asking[i] = false;
        people.server[i] = 0;
    }
    people.open = true;
}

void buyers_close(void)
{
    if (people.crowd != NULL) {
        crowd_free(&people.crowd);
    }
    people.open = people.selling = false;
}

void buyers_begin(const int64_t products[PRODUCTS], uint64_t seed)
{
    history_clear();
    people.random = seed;
    people.run_tag = seed ^ (uint64_t)now_us(); /* keys of a replayed round are new ones */
    memcpy(people.products, products, sizeof people.products);
    people.to_cancel_by_admins = 0;
    people.first_sale_since_us = 0;
    for (unsigned i = 0; i < PEOPLE; i++) {
        if (!people.asking[i]) {
            people.server[i] = i % people.servers;
            crowd_move(people.crowd, i, people.ports[people.server[i]]);
        }
        people.wish[i] = NO_WISH;
        people.to_cancel[i] = 0;
        people.due_us[i] = now_us() + (int64_t)random_below(&people.random, PAUSE_US_MAX);
    }
    assert_true(crowd_connect(people.crowd, CONNECT_TIMEOUT_MS));
    people.selling = true;
}

static bool all_have_their_answer(void)
{
    for (unsigned i = 0; i < PEOPLE; i++) {
        if (people.wish[i] != NO_WISH || people.asking[i]) {
            return false;
        }
    }
    return true;
}

bool buyers_finish(int timeout_ms)
{
    int64_t deadline = deadline_in(timeout_ms);
    people.selling = false;
    while (!all_have_their_answer() && now_us() < deadline && !interrupted) {
        buyers_step(5);
    }
    return all_have_their_answer();
}

int64_t buyers_first_sale(int64_t since_us, unsigned but)
{
    int64_t last_us = 0;
    if (people.first_sale_since_us != since_us) {
        people.first_sale_since_us = since_us;
        memset(people.first_sale_us, 0, sizeof people.first_sale_us);
        for (size_t i = 0; i < history.request_count; i++) {
            const struct request *request = &history.requests[i];
            note_sale(request->server, request->status, request->sent_us, request->got_us);
        }
    }
    for (unsigned i = 0; i < people.servers; i++) {
        if (i == but) {
            continue;
        }
        if (people.first_sale_us[i] == 0) {
            return 0;
        }
        last_us = people.first_sale_us[i] > last_us ? people.first_sale_us[i] : last_us;
    }
    return last_us;
}
