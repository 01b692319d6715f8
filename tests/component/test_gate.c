/* The worker's gate on its loop, with a real Redis and the test as the recorder: when a purchase is answered,
 * and with what, also when links break, epochs change and the news are lost. */
#include "testing.h"

#include "observations.h"
#include "redis_fixture.h"

#include "doorbuster/gate.h"
#include "doorbuster/gate_books.h"
#include "doorbuster/metrics.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 7000
#define PROBES 2000
#define PRICE 500
#define STORE_ID 1
#define HEAD "{doorbuster}:head"

/* One purchase of the test, and what became of it. */
struct probe {
    struct gate_purchase gate;
    bool answered;
    size_t turn; /* the how-manieth answer */
    int64_t submitted_us, answered_us;
    struct order_part more[CART_LINES_MAX - 1];
};

static struct {
    struct redis_fixture redis;
    struct gate_place place;
    redisContext *books; /* the recorder's */
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_timer_t tick;
    struct gate *gate;
    struct probe *probes;
    size_t submitted, answers;
    struct log_position recorded;
    uint64_t epoch;
    /* what was given to settle_cb and is not settled yet */
    struct gate_purchase *settling;
    size_t settle_calls;
    bool refuse_to_settle;
    struct metrics_slot counters;
} test;

/* --- the loop
 * -------------------------------------------------------------------------------------------------------------------------
 */
static void prepare_cb(uv_prepare_t *handle)
{
    (void)handle;
    gate_turn(test.gate);
}

static void tick_cb(uv_timer_t *handle)
{
    (void)handle; /* so that the loop turns */
}

static void turn(void)
{
    uv_run(&test.loop, UV_RUN_ONCE);
}

#define TURN_UNTIL(condition)                                                                                \
    for (int64_t until = deadline_in(PATIENCE_MS); !(condition);) {                                          \
        turn();                                                                                              \
        if (now_us() > until) {                                                                              \
            fail_msg("waited for ever: %s", #condition);                                                     \
        }                                                                                                    \
    }

/* Lets the loop run for a while in which something must not happen. */
static void turn_for(int ms)
{
    for (int64_t until = deadline_in(ms); now_us() < until;) {
        turn();
    }
}

static int64_t counted(enum metrics_counter counter)
{
    return (int64_t)test.counters.counters[counter];
}

/* --- purchases
 * ----------------------------------------------------------------------------------------------------------------------------
 */
static void answer_cb(struct gate_purchase *purchase, void *context)
{
    struct probe *probe = context;
    assert_ptr_equal(purchase, &probe->gate);
    assert_false(probe->answered); /* exactly once */
    probe->answered = true;
    probe->answered_us = now_us();
    probe->turn = test.answers++;
}

/* `key` may be NULL; it must live as long as the probe. */
static struct probe *submit_keyed(int64_t user, int64_t product, int64_t quantity, const char *key)
{
    assert_true(test.submitted < PROBES);
    struct probe *probe = &test.probes[test.submitted++];
    *probe = (struct probe){.gate = {.cb = answer_cb, .context = probe}, .submitted_us = now_us()};
    probe->gate.purchase.order =
        (struct sale_order){.user_id = user, .product_id = product, .quantity = quantity, .key = key};
    probe->gate.purchase.order.key_bytes = key != NULL ? strlen(key) : 0;
    gate_submit(test.gate, &probe->gate);
    return probe;
}

static struct probe *submit(int64_t user, int64_t product, int64_t quantity)
{
    return submit_keyed(user, product, quantity, NULL);
}

/* A cart: product, quantity, product, quantity, …; 0 ends it. */
static struct probe *submit_cart(int64_t user, const int64_t *lines)
{
    assert_true(test.submitted < PROBES);
    struct probe *probe = &test.probes[test.submitted++];
    *probe = (struct probe){.gate = {.cb = answer_cb, .context = probe}, .submitted_us = now_us()};
    struct sale_order *order = &probe->gate.purchase.order;
    *order = (struct sale_order){.user_id = user, .more = probe->more};
    for (; *lines != 0; lines += 2) {
        assert_int_equal(cart_add(order, lines[0], lines[1]), CART_FITS);
    }
    gate_submit(test.gate, &probe->gate);
    return probe;
}

static enum purchase_state state_of(const struct probe *probe)
{
    return probe->gate.purchase.state;
}

static void expect_refused(const struct probe *probe, enum refusal refusal, int64_t figure)
{
    assert_true(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_REFUSED);
    assert_int_equal(probe->gate.purchase.refusal, refusal);
    assert_int_equal(refusal == REFUSAL_INSUFFICIENT_STOCK ? probe->gate.purchase.order.remaining
                                                           : probe->gate.purchase.figure,
                     figure);
    assert_int_equal(probe->gate.purchase.short_lines, refusal == REFUSAL_INSUFFICIENT_STOCK);
}

/* --- the recorder's part
 * --------------------------------------------------------------------------------------------------------------------
 */
/* Announces everything in the log as recorded, these orders as rejected. */
static bool announce(uint64_t epoch, struct log_position recorded, const int64_t *rejected, size_t count)
{
    return gate_announce(test.books, &(struct gate_announcement){STORE_ID, epoch, recorded, rejected, count});
}

/* The recorder says what it said last, until the gate has heard it and all else is well. */
static void wait_ready(void)
{
    int64_t until = deadline_in(PATIENCE_MS), next_us = 0;
    while (!gate_is_ready(test.gate)) {
        if (now_us() > next_us) {
            assert_true(announce(test.epoch, test.recorded, NULL, 0));
            next_us = now_us() + 50000;
        }
        turn();
        assert_true(now_us() < until);
    }
}

static void record_all(const int64_t *rejected, size_t rejected_count)
{
    struct gate_head head;
    assert_true(gate_read_head(test.books, &head));
    test.recorded = head.log_last;
    assert_true(announce(test.epoch, test.recorded, rejected, rejected_count));
}

static void open_epoch(uint64_t epoch)
{
    test.epoch = epoch;
    assert_true(gate_close(test.books));
    assert_true(gate_open(test.books, epoch));
    assert_true(announce(epoch, test.recorded, NULL, 0));
}

static void open_product(int64_t product, int64_t stock, int64_t limit)
{
    struct stock_change change = {.product_id = product, .delta = stock, .cause = STOCK_OPENING};
    struct sale_product opening = {.price = PRICE, .limit = limit};
    struct change_result result;
    assert_int_equal(gate_change_stock(test.books, &change, &opening, 1000, &result), CHANGE_MADE);
}

static void restock(int64_t product, int64_t delta)
{
    struct stock_change change = {.product_id = product, .delta = delta, .cause = STOCK_RESTOCK};
    struct change_result result;
    assert_int_equal(gate_change_stock(test.books, &change, NULL, 1000, &result), CHANGE_MADE);
}

static int64_t live_stock(int64_t product)
{
    struct gate_stock stock;
    assert_true(gate_read_stock(test.books, &(struct sale_product){.id = product}, test.recorded, &stock));
    return stock.available;
}

static int64_t orders_given(void)
{
    struct gate_head head;
    assert_true(gate_read_head(test.books, &head));
    return head.orders;
}

/* --- settling
 * -----------------------------------------------------------------------------------------------------------------------------------
 */
static bool settle_cb(void *context, struct gate_purchase *list)
{
    (void)context;
    test.settle_calls++;
    if (test.refuse_to_settle) {
        return false;
    }
    struct gate_purchase **end = &test.settling;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = list;
    return true;
}

static size_t settling_count(void)
{
    size_t count = 0;
    for (const struct gate_purchase *purchase = test.settling; purchase != NULL; purchase = purchase->next) {
        count++;
    }
    return count;
}

/* The first of the list is found to be this. */
static void settle_first(enum gate_finding finding)
{
    struct gate_purchase *purchase = test.settling;
    assert_non_null(purchase);
    test.settling = purchase->next;
    gate_settled(test.gate, purchase, finding);
}

/* A purchase that is reserved and waits for its record. */
static struct probe *submit_reserved(int64_t user, int64_t product, int64_t quantity)
{
    struct probe *probe = submit(user, product, quantity);
    TURN_UNTIL(state_of(probe) == PURCHASE_RESERVED);
    return probe;
}

/* --- confirmed after the record, not before
 * ---------------------------------------------------------------------------------------------------- */
static void test_confirmed_only_when_recorded(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    struct probe *probe = submit_reserved(5, 1, 2);
    turn_for(150);
    assert_false(probe->answered);
    assert_int_equal(live_stock(1), 8); /* it is taken already */
    /* News of what came before it change nothing. */
    struct log_position before = probe->gate.purchase.position;
    before.n--;
    assert_true(announce(test.epoch, before, NULL, 0));
    turn_for(100);
    assert_false(probe->answered);
    record_all(NULL, 0);
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
    const struct sale_order *order = &probe->gate.purchase.order;
    assert_int_equal(order->id, 1);
    assert_int_equal(order->remaining, 8);
    assert_int_equal(order->unit_price, PRICE);
    assert_true(order->request != 0);
    assert_int_equal(gate_pending(test.gate), 0);
    assert_int_equal(test.settle_calls, 0);
}

static void test_answers_in_log_order(void **state)
{
    struct probe *probes[50];
    (void)state;
    open_product(1, 100, 0);
    for (int i = 0; i < 50; i++) {
        probes[i] = submit(i + 1, 1, 1);
        if (i % 7 == 0) {
            turn();
        }
    }
    TURN_UNTIL(orders_given() == 50);
    TURN_UNTIL(state_of(probes[49]) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(test.answers == 50);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(probes[i]->gate.purchase.order.id, i + 1);
        assert_int_equal(probes[i]->turn, i);
    }
}

/* The reply and the news come over two links: the news may be first. */
static void test_news_before_the_reply(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    record_all(NULL, 0);
    turn_for(50);
    struct probe *probe = submit(5, 1, 1);
    /* The gate may not know yet that it was sold when it hears that everything up to 1-1 is recorded. */
    turn();
    assert_true(announce(test.epoch, (struct log_position){test.epoch, 1}, NULL, 0));
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
    /* For certain: the news of 1-2 are heard before it is even asked for. */
    assert_true(announce(test.epoch, (struct log_position){test.epoch, 2}, NULL, 0));
    turn_for(50);
    struct probe *late = submit(6, 1, 1);
    TURN_UNTIL(late->answered);
    assert_int_equal(state_of(late), PURCHASE_CONFIRMED);
    /* If those news named a rejected order, they alone do not say which: the store is asked. */
    const int64_t rejected = 3;
    assert_true(announce(test.epoch, (struct log_position){test.epoch, 3}, &rejected, 1));
    turn_for(50);
    struct probe *third = submit(7, 1, 1);
    TURN_UNTIL(settling_count() == 1);
    settle_first(GATE_REJECTED_BY_STORE);
    expect_refused(third, REFUSAL_REJECTED, 0);
}

static void test_refusals_are_answered_at_once(void **state)
{
    (void)state;
    open_product(1, 3, 2);
    struct probe *unknown = submit(5, 99, 1), *much = submit(5, 1, 4), *limited = submit(5, 1, 3);
    TURN_UNTIL(unknown->answered && much->answered && limited->answered);
    expect_refused(unknown, REFUSAL_NOT_ON_SALE, 0);
    expect_refused(much, REFUSAL_INSUFFICIENT_STOCK, 3);
    expect_refused(limited, REFUSAL_CUSTOMER_LIMIT, 0);
    assert_int_equal(limited->gate.purchase.limit, 2);
}

static void test_rejected_by_the_store(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    struct probe *first = submit_reserved(5, 1, 1), *second = submit_reserved(6, 1, 1),
                 *third = submit_reserved(7, 1, 1);
    record_all(&second->gate.purchase.order.id, 1);
    TURN_UNTIL(first->answered && second->answered && third->answered);
    assert_int_equal(state_of(first), PURCHASE_CONFIRMED);
    expect_refused(second, REFUSAL_REJECTED, 0);
    assert_int_equal(state_of(third), PURCHASE_CONFIRMED);
}

/* --- batches
 * --------------------------------------------------------------------------------------------------------------------------------------
 */
static void test_one_call_a_turn(void **state)
{
    (void)state;
    open_product(1, 1000, 0);
    int64_t calls = observations(&test.counters, METRICS_HISTOGRAM_gate_batch);
    for (int i = 0; i < 100; i++) {
        submit(i + 1, 1, 1);
    }
    TURN_UNTIL(orders_given() == 100);
    assert_int_equal(observations(&test.counters, METRICS_HISTOGRAM_gate_batch), calls + 1);
    TURN_UNTIL(state_of(&test.probes[99]) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(test.answers == 100);
}

static void test_more_than_a_batch_keeps_its_order(void **state)
{
    (void)state;
    open_product(1, 1000, 0);
    int64_t calls = observations(&test.counters, METRICS_HISTOGRAM_gate_batch);
    for (int i = 0; i < 1000; i++) {
        submit(i + 1, 1, 1);
    }
    TURN_UNTIL(state_of(&test.probes[999]) == PURCHASE_RESERVED);
    assert_int_equal(observations(&test.counters, METRICS_HISTOGRAM_gate_batch),
                     calls + 4); /* of at most 256 */
    record_all(NULL, 0);
    TURN_UNTIL(test.answers == 1000);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(state_of(&test.probes[i]), PURCHASE_CONFIRMED);
        assert_int_equal(test.probes[i].gate.purchase.order.id, i + 1);
        assert_int_equal(test.probes[i].turn, i);
    }
}

/* --- the sold-out mark
 * ------------------------------------------------------------------------------------------------------------------------------
 */
static void test_sold_out_mark(void **state)
{
    (void)state;
    open_product(1, 1, 0);
    submit_reserved(5, 1, 1);
    struct probe *first = submit(6, 1, 1);
    TURN_UNTIL(first->answered);
    expect_refused(first, REFUSAL_INSUFFICIENT_STOCK, 0);
    /* From here on Redis is not asked: it cannot even answer. */
    redis_fixture_freeze(&test.redis);
    struct probe *marked = submit(7, 1, 5);
    bool at_once = marked->answered;
    redis_fixture_thaw(&test.redis);
    assert_true(at_once);
    expect_refused(marked, REFUSAL_INSUFFICIENT_STOCK, 0);
    assert_int_equal(counted(METRICS_purchases_sold_out_at_once), 1);
    /* New stock clears it, long before its second is over. */
    int64_t began_us = now_us();
    restock(1, 1);
    struct probe *lucky = NULL;
    while (lucky == NULL || (lucky->answered && state_of(lucky) == PURCHASE_REFUSED)) {
        turn();
        lucky = submit(8, 1, 1);
        assert_true(now_us() - began_us < 900000);
    }
    TURN_UNTIL(state_of(lucky) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(gate_pending(test.gate) == 0);
    assert_int_equal(state_of(lucky), PURCHASE_CONFIRMED);
}

static void test_sold_out_mark_ends_by_itself(void **state)
{
    (void)state;
    open_product(1, 0, 0);
    struct probe *first = submit(6, 1, 1);
    TURN_UNTIL(first->answered);
    assert_true(submit(7, 1, 1)->answered);
    /* Stock that comes without news (somebody edits Redis). */
    redis_do(test.books, "HSET {doorbuster}:product:1 stock 1");
    struct probe *probe = NULL;
    int64_t began_us = now_us(), next_us = 0;
    do {
        if (now_us() > next_us) { /* a recorder that is silent for a second stops the sale */
            assert_true(announce(test.epoch, test.recorded, NULL, 0));
            next_us = now_us() + 50000;
        }
        turn();
        probe = submit(8, 1, 1);
    } while (probe->answered && now_us() - began_us < 3000000 && test.submitted < PROBES);
    assert_false(probe->answered);
    TURN_UNTIL(state_of(probe) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(probe->answered);
}

static void test_little_stock_is_not_marked(void **state)
{
    (void)state;
    open_product(1, 2, 0);
    struct probe *much = submit(6, 1, 3);
    TURN_UNTIL(much->answered);
    struct probe *two = submit_reserved(7, 1, 2);
    record_all(NULL, 0);
    TURN_UNTIL(two->answered);
    assert_int_equal(state_of(two), PURCHASE_CONFIRMED);
}

/* --- idempotency keys
 * ------------------------------------------------------------------------------------------------------------------------
 */
static void test_a_key_is_answered_with_its_order(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    /* In one call, some with a key and some without. */
    struct probe *plain = submit(5, 1, 1), *first = submit_keyed(5, 1, 1, "key"),
                 *again = submit_keyed(5, 1, 1, "key"), *other = submit_keyed(6, 1, 1, "key"),
                 *last = submit(5, 1, 1);
    TURN_UNTIL(again->answered);
    expect_refused(again, REFUSAL_ALREADY_ORDERED, 2);
    assert_false(first->answered); /* not recorded yet */
    TURN_UNTIL(state_of(last) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(plain->answered && first->answered && other->answered && last->answered);
    assert_int_equal(first->gate.purchase.order.id, 2);
    assert_int_equal(other->gate.purchase.order.id, 3);
    assert_int_equal(last->gate.purchase.order.id, 4);
    again = submit_keyed(5, 1, 7, "key");
    TURN_UNTIL(again->answered);
    expect_refused(again, REFUSAL_ALREADY_ORDERED, 2);
    assert_int_equal(live_stock(1), 6);
    assert_int_equal(counted(METRICS_purchases_repeated), 2);
}

/* The mark says "sold out", but the key may have bought before. */
static void test_a_key_is_not_answered_by_the_sold_out_mark(void **state)
{
    (void)state;
    open_product(1, 1, 0);
    struct probe *first = submit_keyed(5, 1, 1, "key");
    TURN_UNTIL(state_of(first) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(first->answered);
    struct probe *late = submit(6, 1, 1);
    TURN_UNTIL(late->answered);
    assert_true(submit(7, 1, 1)->answered); /* by the mark */
    struct probe *again = submit_keyed(5, 1, 1, "key"), *another = submit_keyed(5, 1, 1, "another");
    assert_false(again->answered || another->answered);
    TURN_UNTIL(again->answered && another->answered);
    expect_refused(again, REFUSAL_ALREADY_ORDERED, 1);
    expect_refused(another, REFUSAL_INSUFFICIENT_STOCK, 0);
}

/* A reservation that Redis forgot goes back to the queue with its key. */
static void test_a_lost_reservation_keeps_its_key(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    struct probe *probe = submit_keyed(5, 1, 1, "key");
    TURN_UNTIL(state_of(probe) == PURCHASE_RESERVED);
    redis_do(test.books, "DEL {doorbuster}:idem:5:key");
    open_epoch(2);
    TURN_UNTIL(settling_count() == 1);
    settle_first(GATE_NOT_IN_STORE);
    TURN_UNTIL(state_of(probe) == PURCHASE_RESERVED);
    struct probe *again = submit_keyed(5, 1, 1, "key");
    TURN_UNTIL(again->answered);
    expect_refused(again, REFUSAL_ALREADY_ORDERED, probe->gate.purchase.order.id);
    record_all(NULL, 0);
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
}

/* --- epochs
 * ------------------------------------------------------------------------------------------------------------------------------------------------
 */
static void test_stale_reads_the_head_again(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    /* Silently: nobody publishes the new epoch. */
    redis_do(test.books, "HSET " HEAD " epoch 0");
    struct probe *first = submit(5, 1, 1), *second = submit(6, 1, 1);
    TURN_UNTIL(counted(METRICS_purchases_stale) >= 2);
    turn_for(100);
    assert_false(first->answered);
    assert_int_equal(live_stock(1), 10);
    open_epoch(2);
    TURN_UNTIL(state_of(second) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(second->answered);
    assert_int_equal(first->gate.purchase.order.id, 1); /* still the first */
    assert_int_equal(second->gate.purchase.order.id, 2);
    assert_int_equal(state_of(first), PURCHASE_CONFIRMED);
    assert_int_equal(test.settle_calls, 0);
}

static void test_noscript_reads_the_head_again(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    redis_do(test.books, "SCRIPT FLUSH");
    struct probe *probe = submit(5, 1, 1);
    TURN_UNTIL(counted(METRICS_purchases_stale) >= 1);
    turn_for(60);
    assert_false(probe->answered);
    open_epoch(2);
    TURN_UNTIL(state_of(probe) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
    assert_int_equal(live_stock(1), 9);
}

/* Reserved in epoch 1, then epoch 2 begins: only the store knows. Each finding has its answer. */
static void test_older_epochs_are_settled(void **state)
{
    struct probe *probes[4];
    (void)state;
    open_product(1, 10, 0);
    for (int i = 0; i < 4; i++) {
        probes[i] = submit_reserved(i + 1, 1, 1);
    }
    open_epoch(2);
    TURN_UNTIL(settling_count() == 4);
    turn_for(50);
    assert_int_equal(test.answers, 0);
    settle_first(GATE_IN_STORE);
    assert_int_equal(state_of(probes[0]), PURCHASE_CONFIRMED);
    settle_first(GATE_REJECTED_BY_STORE);
    expect_refused(probes[1], REFUSAL_REJECTED, 0);
    settle_first(GATE_STORE_UNREADABLE);
    assert_int_equal(state_of(probes[2]), PURCHASE_UNAVAILABLE);
    settle_first(GATE_NOT_IN_STORE); /* never sold: it is asked again */
    assert_false(probes[3]->answered);
    TURN_UNTIL(state_of(probes[3]) == PURCHASE_RESERVED);
    assert_int_equal(probes[3]->gate.purchase.position.epoch, 2);
    assert_int_equal(probes[3]->gate.purchase.order.id, 5);
    record_all(NULL, 0);
    TURN_UNTIL(probes[3]->answered);
    assert_int_equal(state_of(probes[3]), PURCHASE_CONFIRMED);
    assert_int_equal(counted(METRICS_purchases_settled), 4);
}

/* News of a new epoch's record do not confirm what waits from an older one. */
static void test_new_records_do_not_confirm_old_epochs(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    struct probe *old = submit_reserved(5, 1, 1);
    redis_do(test.books, "PUBLISH {doorbuster}:news %s", "recorded 1 0 2-100");
    turn_for(100);
    assert_false(old->answered && state_of(old) == PURCHASE_CONFIRMED && test.settle_calls == 0);
    open_epoch(3);
    TURN_UNTIL(settling_count() == 1);
    settle_first(GATE_IN_STORE);
    assert_true(old->answered);
}

static void test_too_much_to_settle(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    struct probe *first = submit_reserved(5, 1, 1), *second = submit_reserved(6, 1, 1);
    test.refuse_to_settle = true;
    open_epoch(2);
    TURN_UNTIL(first->answered && second->answered);
    assert_int_equal(state_of(first), PURCHASE_UNAVAILABLE);
    assert_int_equal(state_of(second), PURCHASE_UNAVAILABLE);
}

/* --- links
 * ---------------------------------------------------------------------------------------------------------------------------------------------------
 */
static void test_lost_news_are_settled(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    struct probe *probe = submit_reserved(5, 1, 1);
    redis_do(test.books, "CLIENT KILL TYPE pubsub");
    record_all(NULL, 0); /* nobody hears it */
    TURN_UNTIL(!gate_is_ready(test.gate));
    wait_ready();
    assert_false(probe->answered);
    record_all(NULL, 0); /* the recorder repeats itself */
    TURN_UNTIL(settling_count() == 1);
    settle_first(GATE_IN_STORE);
    assert_true(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
    /* And with news again, all is as before. */
    struct probe *next = submit_reserved(6, 1, 1);
    record_all(NULL, 0);
    TURN_UNTIL(next->answered || settling_count() == 1);
    if (!next->answered) {
        settle_first(GATE_IN_STORE);
    }
    assert_int_equal(state_of(next), PURCHASE_CONFIRMED);
}

/* A rejection announced while the link was down must not be taken for a confirmation. */
static void test_a_rejection_that_was_missed(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    struct probe *probe = submit_reserved(5, 1, 1);
    redis_do(test.books, "CLIENT KILL TYPE pubsub");
    record_all(&probe->gate.purchase.order.id, 1);
    TURN_UNTIL(!gate_is_ready(test.gate));
    wait_ready();
    record_all(NULL, 0);
    TURN_UNTIL(settling_count() == 1);
    assert_false(probe->answered);
    settle_first(GATE_REJECTED_BY_STORE);
    expect_refused(probe, REFUSAL_REJECTED, 0);
}

/* A link that broke without a word would leave the gate waiting for ever: after 3 s without news it takes a new
 * one. Before that, and while there are news, it keeps the one it has. */
static void test_a_silent_news_link_is_replaced(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    record_all(NULL, 0);
    int64_t lost = counted(METRICS_redis_links_lost);
    for (int64_t until = deadline_in(3500); now_us() < until;) {
        turn_for(50);
        record_all(NULL, 0);
    }
    assert_int_equal(counted(METRICS_redis_links_lost), lost);
    /* From here on nobody says anything. */
    int64_t silent_us = now_us();
    struct probe *probe = submit_reserved(5, 1, 1);
    TURN_UNTIL(counted(METRICS_redis_links_lost) > lost);
    assert_true(now_us() - silent_us > 2500000);
    wait_ready();
    assert_false(probe->answered);
    record_all(NULL, 0);
    TURN_UNTIL(probe->answered || settling_count() == 1); /* the rejection may have been missed: it asks */
    if (!probe->answered) {
        settle_first(GATE_IN_STORE);
    }
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
    assert_int_equal(counted(METRICS_purchases_unavailable), 0);
}

static void test_a_call_without_an_answer(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    redis_fixture_freeze(&test.redis);
    struct probe *probe = submit(5, 1, 1);
    TURN_UNTIL(state_of(probe) == PURCHASE_ASKED);
    turn_for(20);
    redis_fixture_kill(&test.redis); /* whether it was sold nobody will know */
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_UNAVAILABLE);
    assert_false(gate_is_ready(test.gate));
}

static void test_a_frozen_redis_is_given_up(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    redis_fixture_freeze(&test.redis);
    struct probe *probe = submit(5, 1, 1);
    TURN_UNTIL(probe->answered);
    redis_fixture_thaw(&test.redis);
    assert_int_equal(state_of(probe), PURCHASE_UNAVAILABLE);
    assert_in_range(probe->answered_us - probe->submitted_us, 1500000, 5500000);
    wait_ready(); /* it mends itself */
    struct probe *next = submit_reserved(6, 1, 1);
    record_all(NULL, 0);
    TURN_UNTIL(next->answered || settling_count() > 0);
    while (test.settling != NULL) {
        settle_first(GATE_IN_STORE);
    }
}

/* --- in doubt
 * ------------------------------------------------------------------------------------------------------------------------------------------------------
 */
/* Asked, and the answer is lost: Redis stands still until the gate has given the link up, then goes on and sells after all. */
static struct probe *submit_in_doubt(int64_t user)
{
    redis_fixture_freeze(&test.redis);
    struct probe *probe = submit(user, 1, 1);
    TURN_UNTIL(counted(METRICS_purchases_in_doubt) == 1);
    assert_int_equal(state_of(probe), PURCHASE_ASKED);
    redis_fixture_thaw(&test.redis);
    TURN_UNTIL(orders_given() == 1); /* the late call */
    return probe;
}

/* The worker asks for an attach, in the log. */
static void expect_attach_asked(void)
{
    TURN_UNTIL(counted(METRICS_attaches_asked) > 0);
    static struct sale_order orders[SALES_LOG_ORDERS_MAX * 8];
    struct log_entry entries[8];
    size_t count, asked = 0;
    redisReply *reply;
    turn_for(50);
    static struct order_part parts[SALES_LOG_PARTS_MAX * 8];
    struct log_room room = {.orders = orders,
                            .orders_max = sizeof orders / sizeof orders[0],
                            .parts = parts,
                            .parts_max = sizeof parts / sizeof parts[0]};
    assert_true(
        gate_read_log(test.books, NULL, (struct log_position){0, 0}, 0, entries, 8, &room, &count, &reply));
    for (size_t i = 0; i < count; i++) {
        if (entries[i].kind == LOG_ENTRY_ATTACH) {
            asked++;
            assert_int_equal(entries[i].position.epoch, 1);
            assert_non_null(strstr(entries[i].stock.note, "1 purchases"));
        }
    }
    freeReplyObject(reply);
    assert_int_equal(asked, 1); /* not at every turn */
}

static void test_in_doubt_and_sold(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    struct log_position opened = {1, 1};
    record_all(NULL, 0);
    struct probe *probe = submit_in_doubt(5);
    expect_attach_asked();
    record_all(NULL, 0); /* of the same epoch: settles nothing */
    turn_for(100);
    assert_int_equal(test.settle_calls, 0);
    open_epoch(2);
    TURN_UNTIL(settling_count() == 1);
    struct purchase *asked = &test.settling->purchase;
    assert_ptr_equal(test.settling, &probe->gate);
    assert_int_equal(asked->state, PURCHASE_ASKED);
    assert_true(log_position_compare(asked->position, opened) <= 0); /* where to look from */
    asked->order.id = 1;                                             /* found, as the api fills it in */
    asked->order.unit_price = PRICE;
    asked->order.remaining = 9;
    asked->position = (struct log_position){1, 2};
    settle_first(GATE_IN_STORE);
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
    assert_int_equal(orders_given(), 1);
}

static void test_in_doubt_and_never_sold(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    record_all(NULL, 0);
    struct probe *probe = submit_in_doubt(5);
    expect_attach_asked();
    open_epoch(2);
    TURN_UNTIL(settling_count() == 1);
    settle_first(GATE_NOT_IN_STORE);
    TURN_UNTIL(state_of(probe) == PURCHASE_RESERVED); /* asked again, with the new script */
    assert_int_equal(probe->gate.purchase.position.epoch, 2);
    record_all(NULL, 0);
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
    assert_int_equal(counted(METRICS_purchases_unavailable), 0);
}

/* --- back-pressure
 * ------------------------------------------------------------------------------------------------------------------------------------------------------
 */
/* A recorder that says nothing does not record: not a unit more is taken until it speaks again. */
static void test_nothing_is_sold_while_the_recorder_is_silent(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    record_all(NULL, 0);
    TURN_UNTIL(counted(METRICS_sale_stalls) == 1);
    assert_false(gate_is_ready(test.gate));
    struct probe *probe = submit(5, 1, 1);
    turn_for(300);
    assert_int_equal(state_of(probe), PURCHASE_QUEUED);
    assert_int_equal(live_stock(1), 10);
    record_all(NULL, 0);
    TURN_UNTIL(state_of(probe) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
}

/* --- deadlines
 * ------------------------------------------------------------------------------------------------------------------------------------------------------
 */
/* What could not even be asked is given up 2 s earlier: so much a lost reply may take. */
static void expect_unavailable_in_time(const struct probe *probe)
{
    assert_int_equal(state_of(probe), PURCHASE_UNAVAILABLE);
    assert_in_range(probe->answered_us - probe->submitted_us, GATE_DEADLINE_MS * 1000 - 2100000,
                    GATE_DEADLINE_MS * 1000);
}

static void test_deadlines(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    struct probe *waiting = submit_reserved(5, 1, 1); /* nobody records it */
    redis_do(test.books, "CLIENT KILL TYPE pubsub");
    TURN_UNTIL(!gate_is_ready(test.gate));
    wait_ready();
    struct probe *also_waiting = submit_reserved(6, 1, 1);
    redis_do(test.books, "HSET " HEAD " epoch 0"); /* nobody opens it again */
    struct probe *queued = submit(7, 1, 1);
    TURN_UNTIL(waiting->answered && also_waiting->answered && queued->answered);
    expect_unavailable_in_time(waiting);
    expect_unavailable_in_time(also_waiting);
    expect_unavailable_in_time(queued);
    assert_int_equal(gate_pending(test.gate), 0);
    assert_int_equal(counted(METRICS_purchases_unavailable), 3);
}

static void test_a_full_gate(void **state)
{
    (void)state;
    free(test.probes);
    test.probes = calloc(GATE_PENDING_MAX + 1, sizeof *test.probes);
    assert_non_null(test.probes);
    redis_do(test.books, "HSET " HEAD " epoch 0");
    for (size_t i = 0; i <= GATE_PENDING_MAX; i++) {
        struct probe *probe = &test.probes[i];
        *probe = (struct probe){.gate = {.cb = answer_cb, .context = probe}};
        probe->gate.purchase.order = (struct sale_order){.user_id = 1, .product_id = 1, .quantity = 1};
        gate_submit(test.gate, &probe->gate);
        assert_int_equal(probe->answered, i == GATE_PENDING_MAX);
    }
    assert_int_equal(state_of(&test.probes[GATE_PENDING_MAX]), PURCHASE_UNAVAILABLE);
    open_epoch(2);
    TURN_UNTIL(gate_pending(test.gate) == 0); /* the product is unknown: all are refused */
    assert_int_equal(test.answers, GATE_PENDING_MAX + 1);
}

/* --- carts ------------------------------------------------------------------------------------------------ */
static void test_a_cart_among_singles(void **state)
{
    (void)state;
    open_product(1, 10, 0);
    open_product(2, 10, 0);
    open_product(3, 1, 0);
    struct probe *single = submit(1, 1, 2);
    struct probe *cart = submit_cart(2, (const int64_t[]){1, 1, 2, 3, 1, 1, 3, 1, 0});
    struct probe *short_cart = submit_cart(3, (const int64_t[]){2, 8, 1, 1, 3, 2, 0});
    struct probe *keyed = submit_keyed(4, 2, 1, "k");
    struct probe *last = submit(5, 1, 1);
    TURN_UNTIL(state_of(last) == PURCHASE_RESERVED);
    record_all(NULL, 0);
    TURN_UNTIL(single->answered && cart->answered && keyed->answered && last->answered);
    const struct sale_order *order = &cart->gate.purchase.order;
    assert_int_equal(state_of(cart), PURCHASE_CONFIRMED);
    assert_int_equal(order->id, 2);
    assert_int_equal(order->quantity, 2); /* added up */
    assert_int_equal(order->unit_price, PRICE);
    assert_int_equal(order->remaining, 6);
    assert_int_equal(order->more_count, 2);
    assert_int_equal(order->more[0].remaining, 7);
    assert_int_equal(order->more[1].remaining, 0);
    assert_int_equal(order_total_price(order), 6 * PRICE);
    assert_int_equal(state_of(short_cart), PURCHASE_REFUSED);
    assert_int_equal(short_cart->gate.purchase.refusal, REFUSAL_INSUFFICIENT_STOCK);
    assert_int_equal(short_cart->gate.purchase.short_lines, 1 << 0 | 1 << 2);
    assert_int_equal(short_cart->gate.purchase.order.remaining, 7);
    assert_int_equal(short_cart->gate.purchase.order.more[1].remaining, 0);
    assert_int_equal(keyed->gate.purchase.order.id, 3);
    assert_int_equal(live_stock(1), 5); /* one call: the single's two, the cart's two, the last one */
    assert_int_equal(live_stock(2), 6);
    assert_int_equal(live_stock(3), 0);
    assert_int_equal(observations(&test.counters, METRICS_HISTOGRAM_gate_batch), 1);
}

/* So many lines that they do not fit into one call: it is split between carts, never within one. */
static void test_lines_are_bounded_in_a_call(void **state)
{
    enum { CARTS = 60 };
    struct probe *probes[CARTS];
    int64_t lines[2 * CART_LINES_MAX + 1] = {0};
    (void)state;
    for (int64_t product = 1; product <= CART_LINES_MAX; product++) {
        open_product(product, CARTS - 5, 0);
        lines[2 * (product - 1)] = product;
        lines[2 * (product - 1) + 1] = 1;
    }
    for (int i = 0; i < CARTS; i++) {
        probes[i] = submit_cart(i + 1, lines);
    }
    TURN_UNTIL(probes[CARTS - 1]->answered);
    record_all(NULL, 0);
    TURN_UNTIL(probes[CARTS - 6]->answered);
    for (int i = 0; i < CARTS; i++) {
        assert_int_equal(state_of(probes[i]), i < CARTS - 5 ? PURCHASE_CONFIRMED : PURCHASE_REFUSED);
    }
    assert_int_equal(observations(&test.counters, METRICS_HISTOGRAM_gate_batch),
                     5); /* 12 carts of 20 lines are 240 of at most 256 */
    assert_int_equal(live_stock(CART_LINES_MAX), 0);
}

/* A cart is refused at once only if nothing of it is left at all. */
static void test_sold_out_marks_and_carts(void **state)
{
    (void)state;
    open_product(1, 0, 0);
    open_product(2, 0, 0);
    open_product(3, 5, 0);
    struct probe *gone;
    int64_t latest_us = deadline_in(PATIENCE_MS);
    bool at_once = false;
    while (!at_once) { /* the news of the openings may still be on their way, and clear the marks */
        struct probe *first = submit(1, 1, 1), *second = submit(1, 2, 1);
        TURN_UNTIL(first->answered && second->answered);
        gone = submit_cart(2, (const int64_t[]){1, 1, 2, 1, 0});
        at_once = gone->answered;
        TURN_UNTIL(gone->answered);
        assert_true(now_us() < latest_us);
    }
    assert_int_equal(gone->gate.purchase.short_lines, 3);
    struct probe *mixed = submit_cart(2, (const int64_t[]){3, 1, 1, 1, 0});
    assert_false(mixed->answered);
    TURN_UNTIL(mixed->answered);
    assert_int_equal(mixed->gate.purchase.short_lines, 2);
    /* New stock of any product clears all marks: a bundle may have it as a component. */
    restock(3, 1);
    struct probe *asked = submit(1, 1, 1);
    while (asked->answered) { /* by the mark, until the news have come */
        turn();
        asked = submit(1, 1, 1);
    }
    TURN_UNTIL(asked->answered);
    expect_refused(asked, REFUSAL_INSUFFICIENT_STOCK, 0);
}

static void test_windows_and_limits_of_a_cart(void **state)
{
    (void)state;
    open_product(1, 10, 2);
    struct stock_change change = {.product_id = 2, .delta = 5, .cause = STOCK_OPENING};
    struct sale_product opening = {.price = PRICE, .starts_at_ms = 4102444800000};
    struct change_result result;
    assert_int_equal(gate_change_stock(test.books, &change, &opening, 1000, &result), CHANGE_MADE);
    struct probe *early = submit_cart(1, (const int64_t[]){1, 1, 2, 1, 0});
    struct probe *many = submit_cart(1, (const int64_t[]){1, 3, 0});
    TURN_UNTIL(early->answered && many->answered);
    expect_refused(early, REFUSAL_NOT_OPEN, 4102444800000);
    assert_int_equal(early->gate.purchase.refused_product_id, 2);
    assert_true(early->gate.purchase.wait_ms > 1000000000);
    expect_refused(many, REFUSAL_CUSTOMER_LIMIT, 0);
    assert_int_equal(many->gate.purchase.refused_product_id, 1);
    assert_int_equal(many->gate.purchase.requested, 3);
    assert_int_equal(many->gate.purchase.limit, 2);
    assert_int_equal(counted(METRICS_purchases_closed), 1);
    assert_int_equal(live_stock(1), 10);
}

/* --- the tests
 * ------------------------------------------------------------------------------------------------------------------------------------------------------------
 */
static int setup(void **state)
{
    (void)state;
    struct redis_fixture redis;
    memset(&test, 0, sizeof test);
    redis_fixture_start(&redis, false);
    test.redis = redis;
    test.books = redis_fixture_connect(&test.redis);
    test.probes = calloc(PROBES, sizeof *test.probes);
    metrics_use_slot(&test.counters);
    assert_true(gate_wipe(test.books, (struct log_position){0, 0}));
    assert_true(gate_finish_rebuild(test.books, STORE_ID, 0, 0));
    open_epoch(1);
    assert_int_equal(uv_loop_init(&test.loop), 0);
    uv_prepare_init(&test.loop, &test.prepare);
    uv_prepare_start(&test.prepare, prepare_cb);
    uv_timer_init(&test.loop, &test.tick);
    uv_timer_start(&test.tick, tick_cb, 1, 1);
    test.place = (struct gate_place){.kind = GATE_LUA, .redis = test.redis.address};
    struct gate_settings settings = {.loop = &test.loop, .place = &test.place, .settle_cb = settle_cb};
    test.gate = gate_open_for_worker(&settings);
    wait_ready();
    /* The first news after subscribing confirm nothing by themselves; let the gate have heard some. */
    assert_true(announce(test.epoch, test.recorded, NULL, 0));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bool clean = gate_pending(test.gate) == 0;
    if (clean) { /* a test that failed leaves purchases in the gate, which then cannot be closed */
        uv_close((uv_handle_t *)&test.prepare, NULL);
        uv_close((uv_handle_t *)&test.tick, NULL);
        gate_close_for_worker(&test.gate);
        uv_run(&test.loop, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(&test.loop), 0);
    }
    redisFree(test.books);
    free(test.probes);
    redis_fixture_end(&test.redis);
    return clean ? 0 : -1;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_confirmed_only_when_recorded),
        TEST(test_answers_in_log_order),
        TEST(test_news_before_the_reply),
        TEST(test_refusals_are_answered_at_once),
        TEST(test_rejected_by_the_store),
        TEST(test_one_call_a_turn),
        TEST(test_more_than_a_batch_keeps_its_order),
        TEST(test_a_cart_among_singles),
        TEST(test_lines_are_bounded_in_a_call),
        TEST(test_sold_out_marks_and_carts),
        TEST(test_windows_and_limits_of_a_cart),
        TEST(test_sold_out_mark),
        TEST(test_sold_out_mark_ends_by_itself),
        TEST(test_little_stock_is_not_marked),
        TEST(test_a_key_is_answered_with_its_order),
        TEST(test_a_key_is_not_answered_by_the_sold_out_mark),
        TEST(test_a_lost_reservation_keeps_its_key),
        TEST(test_stale_reads_the_head_again),
        TEST(test_noscript_reads_the_head_again),
        TEST(test_older_epochs_are_settled),
        TEST(test_new_records_do_not_confirm_old_epochs),
        TEST(test_too_much_to_settle),
        TEST(test_lost_news_are_settled),
        TEST(test_a_rejection_that_was_missed),
        TEST(test_a_silent_news_link_is_replaced),
        TEST(test_a_call_without_an_answer),
        TEST(test_a_frozen_redis_is_given_up),
        TEST(test_in_doubt_and_sold),
        TEST(test_in_doubt_and_never_sold),
        TEST(test_nothing_is_sold_while_the_recorder_is_silent),
        TEST(test_deadlines),
        TEST(test_a_full_gate),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
