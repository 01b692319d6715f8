/* Sixty people who buy without end, and the history of every request they made. A third of them send an
 * Idempotency-Key and repeat a purchase until its outcome is known; the others take no answer for an answer.
 *
 *   IDLE --due--> ASKING --definite answer--> IDLE
 *                   ^  |--broken, 503, "still running", with a key--> AGAIN
 *                   +--due-----------------------------------------------+
 *
 * Owns the crowd, the accounts' tokens and the history. */
#include "chaos.h"

#include "doorbuster/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_US_MAX 30000 /* between two purchases of a buyer */
#define AGAIN_US 15000     /* before a request is repeated, and after a broken one */
#define CONNECT_TIMEOUT_MS 10000
#define KEYED_EVERY 3
#define NO_PURCHASE UINT32_MAX

struct history history;

static struct {
    struct crowd *crowd;
    uint16_t port;
    int64_t first_user, products[2];
    char tokens[BUYERS][JWT_TOKEN_BYTES_MAX];
    int64_t due_us[BUYERS];
    unsigned purchase[BUYERS]; /* the one at hand, or NO_PURCHASE */
    bool asking[BUYERS];
    uint64_t random, run_tag;
    bool open, selling; /* selling: they begin new purchases */
    int64_t first_sale_since_us, first_sale_us;
} people;

/* --- history ------------------------------------------------------------------------------------------- */
void history_clear(void)
{
    free(history.requests);
    free(history.purchases);
    history = (struct history){0};
}

static void *make_room(void *list, size_t count, size_t *room, size_t bytes)
{
    if (count == *room) {
        *room = *room ? 2 * *room : 1024;
        list = realloc(list, *room * bytes);
        assert_non_null(list);
    }
    return list;
}

static struct request *add_request(void)
{
    history.requests =
        make_room(history.requests, history.request_count, &history.request_room, sizeof *history.requests);
    struct request *request = &history.requests[history.request_count++];
    *request = (struct request){0};
    return request;
}

static struct purchase *add_purchase(void)
{
    history.purchases = make_room(history.purchases, history.purchase_count, &history.purchase_room,
                                  sizeof *history.purchases);
    struct purchase *purchase = &history.purchases[history.purchase_count++];
    *purchase = (struct purchase){0};
    return purchase;
}

/* --- answers ------------------------------------------------------------------------------------------- */
static int64_t integer(const cJSON *json, const char *name)
{
    int64_t value;
    if (json_get_integer(json, name, -JSON_INTEGER_MAX, JSON_INTEGER_MAX, &value) != JSON_FIELD_OK) {
        fail_msg("an answer has no integer \"%s\"", name);
    }
    return value;
}

static void note_confirmed(const cJSON *json, struct request *request, struct purchase *purchase)
{
    int64_t user_id = buyers_user(purchase->buyer);
    request->order = integer(json, "id");
    request->remaining = integer(json, "remaining_stock");
    if (integer(json, "user_id") != user_id || integer(json, "product_id") != purchase->product_id ||
        integer(json, "quantity") != purchase->quantity) {
        fail_msg("the 201 of order %" PRId64 " is not about what user %" PRId64 " asked for", request->order,
                 user_id);
    }
    purchase->outcome = CONFIRMED;
    purchase->order = request->order;
    purchase->remaining = request->remaining;
    purchase->got_us = request->got_us;
    history.confirmed++;
    history.replayed += request->replayed;
    if (people.first_sale_us == 0 && people.first_sale_since_us != 0 &&
        request->sent_us > people.first_sale_since_us) {
        people.first_sale_us = request->got_us;
    }
}

static void note_bad_request(const cJSON *json, struct request *request, struct purchase *purchase)
{
    const char *detail;
    if (json_get_string(json, "detail", 1, 1000, &detail) != JSON_FIELD_OK ||
        strstr(detail, "Insufficient stock") == NULL) {
        fail_msg("a 400 that is not about stock");
    }
    request->remaining = integer(json, "available");
    purchase->outcome = SOLD_OUT;
    purchase->remaining = request->remaining;
    purchase->got_us = request->got_us;
    history.sold_out++;
}

/* 409: a limit (none here), an order that did not fit the store, or a request of the same key still running. */
static void note_conflict(const char *body, struct request *request, struct purchase *purchase)
{
    if (purchase->keyed && (strstr(body, "running") != NULL || strstr(body, "progress") != NULL)) {
        return; /* again */
    }
    purchase->outcome = REFUSED;
    purchase->got_us = request->got_us;
    history.refused++;
    history.rejected += strstr(body, "reject") != NULL;
}

static void note(const struct crowd_answer *answer, struct request *request, struct purchase *purchase)
{
    if (answer->status == CROWD_BROKEN) {
        history.broken++;
        return;
    }
    cJSON *json = json_parse_object(answer->body, strlen(answer->body));
    assert_non_null(json);
    if (answer->status == 201) {
        note_confirmed(json, request, purchase);
    } else if (answer->status == 400) {
        note_bad_request(json, request, purchase);
    } else if (answer->status == 409) {
        note_conflict(answer->body, request, purchase);
    } else if (answer->status == 503) {
        history.unavailable++;
        purchase->unavailable = true;
    } else {
        request->other = true;
        purchase->outcome = REFUSED;
        history.other++;
        history.other_status = answer->status;
    }
    cJSON_Delete(json);
}

static void answer_cb(void *context, size_t buyer, const struct crowd_answer *answer)
{
    (void)context;
    unsigned number = people.purchase[buyer];
    people.asking[buyer] = false;
    if (number == NO_PURCHASE) {
        return; /* of a round that was given up */
    }
    struct purchase *purchase = &history.purchases[number];
    struct request *request = add_request();
    *request = (struct request){.purchase = number,
                                .attempt = purchase->attempts,
                                .status = answer->status,
                                .sent_us = answer->sent_us,
                                .got_us = answer->got_us,
                                .replayed = answer->replayed};
    note(answer, request, purchase);
    bool again = purchase->outcome == UNKNOWN;
    if (!again || !purchase->keyed) {
        people.purchase[buyer] = NO_PURCHASE;
    }
    people.due_us[buyer] =
        now_us() + (again ? AGAIN_US : (int64_t)random_below(&people.random, PAUSE_US_MAX));
}

/* --- asking -------------------------------------------------------------------------------------------- */
static void begin_purchase(unsigned buyer)
{
    struct purchase *purchase = add_purchase();
    purchase->buyer = buyer;
    purchase->product_id = people.products[random_below(&people.random, 2)];
    purchase->quantity = 1 + random_below(&people.random, 3);
    purchase->keyed = options.keys && buyer % KEYED_EVERY == 0;
    purchase->first_sent_us = now_us();
    people.purchase[buyer] = (unsigned)(history.purchase_count - 1);
}

static void ask(unsigned buyer)
{
    char body[96], headers[96] = "";
    struct purchase *purchase = &history.purchases[people.purchase[buyer]];
    purchase->attempts++;
    purchase->last_sent_us = now_us();
    if (purchase->keyed) {
        snprintf(headers, sizeof headers, "Idempotency-Key: %" PRIx64 "-%u\r\n", people.run_tag,
                 people.purchase[buyer]);
    }
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":%" PRId64 "}", purchase->product_id,
             purchase->quantity);
    people.asking[buyer] = true;
    crowd_request_with(people.crowd, buyer, "POST", "/api/purchases", people.tokens[buyer], headers, body);
}

static void ask_those_due(void)
{
    int64_t now = now_us();
    for (unsigned i = 0; i < BUYERS; i++) {
        bool wants = people.purchase[i] != NO_PURCHASE || people.selling;
        if (people.asking[i] || !wants || people.due_us[i] > now) {
            continue;
        }
        if (people.purchase[i] == NO_PURCHASE) {
            begin_purchase(i);
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
int64_t buyers_user(unsigned buyer)
{
    return people.first_user + buyer;
}

void buyers_forget(void)
{
    buyers_close();
    people.first_user = 0;
}

static void make_accounts(void)
{
    people.first_user = server_fixture_add_users(&bench.server, BUYERS);
    for (unsigned i = 0; i < BUYERS; i++) {
        server_fixture_token(&bench.server, buyers_user(i), USER_BUYER, people.tokens[i]);
    }
}

void buyers_open(void)
{
    if (people.open && people.port == bench.server.port) {
        return;
    }
    buyers_close();
    if (people.first_user == 0) {
        make_accounts();
    }
    people.port = bench.server.port;
    people.crowd = crowd_new(people.port, BUYERS, answer_cb, NULL);
    for (unsigned i = 0; i < BUYERS; i++) {
        people.purchase[i] = NO_PURCHASE;
        people.asking[i] = false;
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

void buyers_begin(const int64_t products[2], uint64_t seed)
{
    history_clear();
    people.random = seed;
    people.run_tag = seed ^ (uint64_t)now_us(); /* keys of a replayed round are new ones */
    people.products[0] = products[0];
    people.products[1] = products[1];
    people.first_sale_since_us = people.first_sale_us = 0;
    for (unsigned i = 0; i < BUYERS; i++) {
        people.purchase[i] = NO_PURCHASE;
        people.due_us[i] = now_us() + (int64_t)random_below(&people.random, PAUSE_US_MAX);
    }
    assert_true(crowd_connect(people.crowd, CONNECT_TIMEOUT_MS));
    people.selling = true;
}

static bool all_have_their_answer(void)
{
    for (unsigned i = 0; i < BUYERS; i++) {
        if (people.purchase[i] != NO_PURCHASE || people.asking[i]) {
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

int64_t buyers_first_sale(int64_t since_us)
{
    if (people.first_sale_since_us != since_us) {
        people.first_sale_since_us = since_us;
        people.first_sale_us = 0;
        for (size_t i = 0; i < history.request_count && people.first_sale_us == 0; i++) {
            const struct request *request = &history.requests[i];
            if (request->status == 201 && request->sent_us > since_us) {
                people.first_sale_us = request->got_us;
            }
        }
    }
    return people.first_sale_us;
}
