/* One round: products of its own, buyers, a fault or two at random moments, recovery, the audit. All that is
 * random in it comes from the round's seed; what the machine's scheduling does is not repeated.
 *
 *   calm -> buying -> fault (-> second fault) -> healed -> recovered -> buying a little longer -> finished -> audited
 *
 * Recovery is measured from the moment when the last fault was done, or its cause was taken away (SIGCONT, the
 * lock let go), to the first confirmed sale whose request was sent after that; of two servers, until both have sold. Where
 * one of several servers alone is concerned, the other one's sales count, from the fault on; and then until that one, too, has
 * sold again. */
#include "chaos.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SCARCE_MIN 50
#define SCARCE_MAX 2000
#define PLENTY 100000
#define BEFORE_MS_MIN 120
#define BEFORE_MS_MAX 400
#define BETWEEN_MS_MAX 300 /* two faults of a round */
#define AFTER_MS_MIN 80
#define AFTER_MS_MAX 220
#define PAIR_IN 3      /* one round of so many has two faults */
#define WATCH_US 15000 /* the Sentinels are asked so often who the master is */
#define KILLS_MAX 3    /* more of a server's children, and its backing off would be what is measured */

void violation(struct round *round, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (round->violations < VIOLATIONS_KEPT) {
        vsnprintf(round->sentences[round->violations], SENTENCE_BYTES, format, arguments);
    }
    va_end(arguments);
    round->violations++;
}

uint64_t seed_of(uint64_t base, uint64_t number)
{
    uint64_t state = base * UINT64_C(0x2545f4914f6cdd1d) + number;
    uint64_t high = random_next(&state);
    return (high << 16 ^ random_next(&state)) & UINT64_C(0xffffffffffff); /* short enough to type */
}

/* --- which faults -------------------------------------------------------------------------------------- */
static bool may_be(const struct fault *fault, const struct round *round)
{
    bool impossible = fault->inject == fill_disk && !bench.tmpfs;
    bool in_pair = round->fault_count > 0;
    impossible = impossible || ((fault->flags & TWO_SERVERS) != 0 && round->servers < 2) ||
                 (is_several(round->mode) && (fault->flags & round->flags & TWO_SERVERS) != 0);
    return !impossible && (fault->modes & 1u << round->mode) != 0 &&
           !(in_pair && (fault->flags & ALONE) != 0) && !(fault->flags & round->flags & REDIS_PROCESS) &&
           !(in_pair && fault == round->faults[0]);
}

static void add_fault(struct round *round, const struct fault *fault)
{
    assert_true(round->fault_count < ROUND_FAULTS_MAX);
    round->faults[round->fault_count++] = fault;
    round->flags |= fault->flags;
    size_t used = strlen(round->names);
    snprintf(round->names + used, sizeof round->names - used, "%s%s", used > 0 ? "+" : "", fault->name);
}

static void add_random_fault(struct round *round)
{
    const struct fault *fault;
    do {
        fault = &faults[random_below(&round->random, (uint32_t)fault_count)];
    } while (!may_be(fault, round));
    add_fault(round, fault);
}

static void add_named_faults(struct round *round)
{
    for (const char *at = options.fault; *at != '\0';) {
        size_t bytes = strcspn(at, "+");
        add_fault(round, fault_find(at, bytes));
        at += bytes + (at[bytes] == '+');
    }
}

void round_choose(struct round *round)
{
    round->random = seed_of(round->seed, 1);
    if (options.fault != NULL) {
        add_named_faults(round);
    } else {
        add_random_fault(round);
        if (random_below(&round->random, PAIR_IN) == 0 && (round->flags & ALONE) == 0) {
            add_random_fault(round);
        }
    }
    round->random = round->seed; /* a replay, which names its faults, goes on with the same numbers */
}

/* --- its parts ----------------------------------------------------------------------------------------- */
static int64_t make_product(int64_t stock, const struct round *bundle_of)
{
    struct bundle_component components[PRODUCTS];
    size_t count = 0;
    for (unsigned i = 0; bundle_of != NULL && i < PRODUCTS; i++) {
        if (bundle_units[i] > 0) {
            components[count++] = (struct bundle_component){bundle_of->products[i], bundle_units[i]};
        }
    }
    return count > 0 ? server_fixture_try_bundle(&bench.server, BUNDLE_PRICE, components, count)
                     : server_fixture_try_product(&bench.server, stock, 0);
}

static void make_products(struct round *round)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    round->stocks[SCARCE] = SCARCE_MIN + (int64_t)random_below(&round->random, SCARCE_MAX - SCARCE_MIN);
    round->stocks[PLENTIFUL] = PLENTY;
    for (size_t i = 0; i < PRODUCTS; i++) {
        while ((round->products[i] = make_product(round->stocks[i], i == BUNDLE ? round : NULL)) == 0) {
            if (!wait_a_moment(deadline)) {
                fail_msg("no product could be added for %d ms", PATIENCE_MS);
            }
        }
    }
}

static void get_ready(struct round *round)
{
    if ((round->flags & KILLS) != 0 && bench.kills >= KILLS_MAX) {
        bench_stop();
        bench_start();
    }
    bench_wait_calm();
    for (size_t i = 0; i < round->fault_count; i++) {
        if (round->faults[i]->prepare != NULL) {
            round->faults[i]->prepare(round);
        }
    }
    if (bench.mode == MODE_CLUSTER) {
        cluster_watch();
    }
    round->row_before = audit_last_row();
    make_products(round);
    round->order_before = audit_last_order();
    buyers_open();
    buyers_begin(round->products, round->random);
}

static void inject(struct round *round, size_t i)
{
    const struct fault *fault = round->faults[i];
    round->fault_us = now_us();
    if (i == 0) {
        round->first_fault_us = round->fault_us;
    }
    fault->inject(round);
    if (fault->heal != NULL) {
        unsigned ms =
            fault->heal_min_ms + random_below(&round->random, fault->heal_max_ms - fault->heal_min_ms);
        round->heal_at_us[i] = deadline_in((int)ms);
    }
}

/* True: nothing is left to heal. */
static bool heal_what_is_due(struct round *round, bool at_once)
{
    bool healed = true;
    for (size_t i = 0; i < round->fault_count; i++) {
        if (round->heal_at_us[i] != 0 && (at_once || round->heal_at_us[i] <= now_us())) {
            round->heal_began_us = now_us();
            round->faults[i]->heal(round);
            round->heal_at_us[i] = 0;
            round->concerned_healed_us =
                (round->faults[i]->flags & TWO_SERVERS) != 0 ? now_us() : round->concerned_healed_us;
            if ((round->faults[i]->flags & INSTANT) == 0 || round->store_was_held) {
                round->healed_us = now_us();
            }
        }
        healed = healed && round->heal_at_us[i] == 0;
    }
    return healed;
}

static void buy_and_heal_for(struct round *round, int ms)
{
    int64_t deadline = deadline_in(ms);
    while (now_us() < deadline && !interrupted) {
        heal_what_is_due(round, false);
        buyers_step(1);
    }
}

static void watch_failover(void)
{
    static int64_t last_us;
    if (bench.mode == MODE_CLUSTER && now_us() - last_us > WATCH_US) {
        last_us = now_us();
        cluster_renamed_us();
    }
}

/* When all servers but this one have sold; 0: not within the time. */
static int64_t await_sale(int64_t since_us, unsigned but, int64_t deadline)
{
    while (buyers_first_sale(since_us, but) == 0 && now_us() < deadline && !interrupted) {
        buyers_step(1);
        watch_failover();
    }
    return buyers_first_sale(since_us, but);
}

/* Is it one of several servers that was hit, and had the other one to go on? */
static bool one_alone(const struct round *round)
{
    return is_several(round->mode) && (round->flags & TWO_SERVERS) != 0 && round->concerned < SERVERS_MAX;
}

/* The server that was hit sells again. */
static void come_back(struct round *round)
{
    int64_t since_us =
        round->concerned_healed_us > round->fault_us ? round->concerned_healed_us : round->fault_us;
    int64_t sold_us = await_sale(since_us, SERVERS_MAX, since_us + (int64_t)RECOVERY_PATIENCE_MS * 1000);
    if (sold_us != 0) {
        round->back_ms = (sold_us - since_us) / 1000;
        round->recovered_us = sold_us > round->recovered_us ? sold_us : round->recovered_us;
    } else if (!interrupted) {
        violation(round, "server %u sold nothing within %d ms after it was there again", round->concerned + 1,
                  RECOVERY_PATIENCE_MS);
    }
}

static void note_failover(struct round *round)
{
    int64_t named_us = bench.mode == MODE_CLUSTER ? cluster_renamed_us() : 0;
    if (named_us != 0) {
        round->named_ms = round->recovered_us > named_us ? (round->recovered_us - named_us) / 1000 : 0;
    }
}

static void recover(struct round *round)
{
    while (!heal_what_is_due(round, false) && !interrupted) {
        buyers_step(1);
        watch_failover();
    }
    round->calm_us = now_us();
    int64_t since_us = round->healed_us > round->fault_us ? round->healed_us : round->fault_us;
    int64_t deadline = since_us + (int64_t)RECOVERY_PATIENCE_MS * 1000;
    round->recovered_us = await_sale(since_us, one_alone(round) ? round->concerned : SERVERS_MAX, deadline);
    if (round->recovered_us != 0) {
        round->recovery_ms = (round->recovered_us - since_us) / 1000;
        note_failover(round);
    } else if (!interrupted) {
        violation(round, "no sale was confirmed within %d ms after the fault", RECOVERY_PATIENCE_MS);
    }
    if (round->recovered_us != 0 && one_alone(round)) {
        come_back(round);
    }
}

static void while_waiting(void)
{
    buyers_step(2);
}

static void body(struct round *round)
{
    get_ready(round);
    wait_with(while_waiting);
    buyers_for(BEFORE_MS_MIN + (int)random_below(&round->random, BEFORE_MS_MAX - BEFORE_MS_MIN));
    for (size_t i = 0; i < round->fault_count && !interrupted; i++) {
        inject(round, i);
        if (i + 1 < round->fault_count) {
            buy_and_heal_for(round, (int)random_below(&round->random, BETWEEN_MS_MAX));
        }
    }
    recover(round);
    buyers_for(AFTER_MS_MIN + (int)random_below(&round->random, AFTER_MS_MAX - AFTER_MS_MIN));
    if (!buyers_finish(PATIENCE_MS) && !interrupted) {
        violation(round, "a request had no answer, or no definite one with its key, for %d ms", PATIENCE_MS);
    }
    wait_with(NULL);
    if (bench.mode == MODE_PROXY && !proxy_calm(&bench.proxy, PATIENCE_MS)) {
        fail_msg("the proxy could not deliver what it held for %d ms", PATIENCE_MS);
    }
    if (bench.mode == MODE_NODES && !nodes_calm(PATIENCE_MS)) {
        fail_msg("the nodes' proxies could not deliver what they held for %d ms", PATIENCE_MS);
    }
    if (is_several(bench.mode) && !several_links_calm(PATIENCE_MS)) {
        fail_msg("the servers' proxies could not deliver what they held for %d ms", PATIENCE_MS);
    }
    if (bench.mode == MODE_CLUSTER && (round->flags & FAILED_OVER) == 0 && cluster_has_failed_over()) {
        round->flags = (round->flags | FORGETS | FAILED_OVER) & ~(unsigned)STRICT;
        round->unasked_failover = true;
    }
    if (options.self_test) {
        selftest_audit(round);
    } else if (!interrupted) {
        audit_round(round);
    }
}

static void heal_all(struct round *round)
{
    heal_what_is_due(round, true);
}

void round_run(struct round *round)
{
    round->began_us = now_us();
    round->concerned = SERVERS_MAX;
    bool whole = guarded(round, body);
    wait_with(NULL);
    if (!whole) {
        guarded(round, heal_all); /* before the bench is put down */
    }
}
