/* What holds of the Redlock gate alone: its nodes come to say what the store says; without a majority nothing is sold; who
 * has one goes on selling. And of several servers: what concerns one of them does not stop the other. Read from the nodes themselves, past the proxies, and
 * from the history. */
#include "chaos_audit.h"

#include <inttypes.h>

#define MEETING_TIMEOUT_MS 10000
#define SLACK_US 150000          /* of a busy machine */
#define REFUSED_AFTER_US 6000000 /* a purchase is answered within 5 s */
#define STALL_MS 6000            /* no fault lasts so long, but for one that leaves the other server alone */
#define PAUSE_MAX_MS 1000        /* where sales are to go on as if nothing were */

/* --- the nodes and the store --------------------------------------------------------------------------- */
static bool store_says(struct audit *audit, unsigned place, int64_t *stock)
{
    struct store_product product;
    bool known = store_find_product(audit->store, audit->round->products[place], &product) == STORE_OK;
    *stock = known ? product.stock : 0;
    return known;
}

static unsigned agreeing(struct audit *audit, unsigned place)
{
    int64_t stock;
    return store_says(audit, place, &stock) ? nodes_that_say(audit->round->products[place], stock) : 0;
}

/* All of them: those that forgot are filled again. */
void audit_meeting(struct audit *audit)
{
    int64_t began_us = now_us(), deadline = deadline_in(MEETING_TIMEOUT_MS);
    for (unsigned place = 0; place < BUNDLE; place++) {
        while (agreeing(audit, place) < NODES) {
            if (!wait_a_moment(deadline)) {
                int64_t stock;
                store_says(audit, place, &stock);
                violation(audit->round,
                          "%d ms after the last answer only %u of %d nodes say that %" PRId64
                          " of product %" PRId64 " are left, as the store does",
                          MEETING_TIMEOUT_MS, agreeing(audit, place), NODES, stock,
                          audit->round->products[place]);
                return;
            }
        }
    }
    audit->round->meeting_ms = (now_us() - began_us) / 1000;
}

/* --- with and without a majority ----------------------------------------------------------------------- */
static bool is_concerned(const struct round *round, const struct request *request)
{
    return (round->concerned == SERVERS_MAX || round->concerned == request->server) &&
           history.wishes[request->wish].kind == WISH_PURCHASE && request->got_us < round->heal_began_us;
}

/* A lock that was had before may serve until its end. Replays are no sales. Who waits too long is told that it cannot be had now. */
static void check_no_sale(struct audit *audit)
{
    const struct round *round = audit->round;
    int64_t from_us = round->fault_us + (int64_t)LOCK_TTL_MS * 1000 + SLACK_US;
    size_t refused = 0;
    for (size_t i = 0; i < history.request_count; i++) {
        const struct request *request = &history.requests[i];
        const struct wish *wish = &history.wishes[request->wish];
        if (!is_concerned(round, request)) {
            continue;
        }
        refused += request->status == 503;
        if (request->status == 201 && !request->replayed && request->sent_us > from_us) {
            violation(audit->round,
                      "server %u confirmed order %" PRId64 ", asked for %" PRId64
                      " ms after it had lost its majority of nodes, which was back only %" PRId64
                      " ms after the answer",
                      request->server + 1, wish->order, (request->sent_us - round->fault_us) / 1000,
                      (round->heal_began_us - request->got_us) / 1000);
            return;
        }
    }
    if (refused == 0 && round->heal_began_us - round->fault_us > REFUSED_AFTER_US) {
        violation(audit->round, "without a majority of nodes nobody was answered 503 within %" PRId64 " ms",
                  (round->heal_began_us - round->fault_us) / 1000);
    }
}

/* The longest time between two moments in which this server confirmed nothing. */
static int64_t longest_pause_us(unsigned server, int64_t from_us, int64_t to_us)
{
    int64_t last_us = from_us, longest_us = 0;
    for (size_t i = 0; i < history.request_count; i++) { /* in order of their answers */
        const struct request *request = &history.requests[i];
        if (request->status == 201 && request->server == server && request->got_us > from_us &&
            request->got_us < to_us) {
            longest_us = request->got_us - last_us > longest_us ? request->got_us - last_us : longest_us;
            last_us = request->got_us;
        }
    }
    return to_us - last_us > longest_us ? to_us - last_us : longest_us;
}

/* Does what fails concern all of several servers? Then the pause is told, and is what it is. */
static bool may_pause(const struct round *round)
{
    return is_several(round->mode) && (round->fault_count > 1 || (round->flags & TWO_SERVERS) == 0);
}

static void check_pauses(struct audit *audit)
{
    struct round *round = audit->round;
    bool alone = round->fault_count == 1;
    int64_t limit_ms = (round->flags & NO_PAUSE) != 0      ? PAUSE_MAX_MS
                       : (round->flags & TWO_SERVERS) != 0 ? LOCK_TTL_MS + PAUSE_MAX_MS
                                                           : STALL_MS;
    int64_t until_us = round->recovered_us > round->calm_us ? round->recovered_us : round->calm_us;
    for (unsigned server = 0; server < round->servers; server++) {
        if (server == round->concerned) {
            continue;
        }
        int64_t pause_ms = longest_pause_us(server, round->first_fault_us, until_us) / 1000;
        round->pause_ms = pause_ms > round->pause_ms ? pause_ms : round->pause_ms;
        if (may_pause(round)) {
            continue;
        }
        if (pause_ms > (alone && is_redlock(round->mode) ? limit_ms : STALL_MS)) {
            violation(round, "server %u confirmed nothing for %" PRId64 " ms, though it had %s", server + 1,
                      pause_ms, is_redlock(round->mode) ? "a majority of nodes" : "all that it needs");
        }
    }
}

void audit_going_on(struct audit *audit)
{
    if (audit->round->fault_us != 0) {
        check_pauses(audit);
    }
}

void audit_majority(struct audit *audit)
{
    const struct round *round = audit->round;
    bool alone = round->fault_count == 1;
    if (round->fault_us == 0) {
        return;
    }
    if (alone && (round->flags & NO_MAJORITY) != 0 && bench.mode == MODE_NODES) {
        check_no_sale(audit);
    }
    check_pauses(audit);
}
