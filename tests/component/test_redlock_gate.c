/* The worker's side of the Redlock gate on its loop, with five real Redis nodes, two workers, and a store in memory that the test can hold up, make
 * fail or take away: who is served when, and that nothing is sold twice whatever happens to the nodes. At the end the same with a real store, on pool
 * threads. */
#include "testing.h"

#include "observations.h"
#include "folder.h"
#include "lock_nodes.h"
#include "proxy.h"

#include "node_stock.h"
#include "redlock.h"

#include "doorbuster/clock.h"
#include "doorbuster/gate.h"
#include "doorbuster/metrics.h"
#include "doorbuster/store.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORKERS 2
#define PATIENCE_MS 15000
#define PROBES 20000
#define PRODUCTS 100
#define PRICE 500
#define STORE_ID 7
#define TTL_MS 1000
#define DELAY_MS 10
#define ATTEMPTS 3
#define SERVER 0xabc
#define RUN 0xd
#define FIRST_EPOCH 3

struct worker;

/* One purchase of the test, and what became of it. */
struct probe {
    struct gate_purchase gate;
    struct worker *worker;
    bool answered, repeats;
    size_t turn; /* the how-manieth answer */
    int64_t submitted_us, answered_us;
    struct order_part more[CART_LINES_MAX - 1];
};

struct worker {
    struct gate *gate;
    uv_async_t job; /* runs what the gate has handed out, in a later turn */
    struct gate_lesson *lesson;
    struct gate_batch *batch;
    struct gate_purchase *settling;
    bool holds_batches, refuses_to_settle, refuses_to_sell, refuses_to_learn;
    unsigned fail_lessons; /* so many more */
    unsigned fence, fail_before,
        fail_after; /* so many more batches: fenced; failed unsold; failed though sold */
    size_t lessons, batches, settled;
    struct store *store; /* a real one decides, on a pool thread; NULL: that in memory, on the loop */
    uv_work_t work;
};

/* The store: plain figures, and who bought what. */
struct fake_store {
    struct sale_product products[PRODUCTS]; /* [id - 1]; id 0: there is none */
    uint64_t n;
    int64_t last_order;
    int64_t requests[PROBES];
    size_t sold;
};

static struct {
    struct lock_nodes nodes;
    struct proxy proxies[LOCK_NODES];
    char proxy_folder[FOLDER_BYTES];
    struct gate_place place;
    uint32_t starts[LOCK_NODES];
    struct gate_settings settings;
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_timer_t tick;
    struct worker workers[WORKERS];
    struct fake_store store;
    struct probe *probes;
    size_t submitted, answers, repeat_until;
    struct metrics_slot counters;
} test;

/* --- the loop ------------------------------------------------------------------------------------------------------------------- */
static void prepare_cb(uv_prepare_t *handle)
{
    (void)handle;
    for (int i = 0; i < WORKERS; i++) {
        if (test.workers[i].gate != NULL) {
            gate_turn(test.workers[i].gate);
        }
    }
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

/* --- the store ------------------------------------------------------------------------------------------------------------------ */
static struct sale_product *product_of(int64_t id)
{
    return id >= 1 && id <= PRODUCTS && test.store.products[id - 1].id != 0 ? &test.store.products[id - 1]
                                                                            : NULL;
}

static struct sale_product *add_product(int64_t id, int64_t stock)
{
    test.store.products[id - 1] = (struct sale_product){.id = id, .stock = stock, .price = PRICE};
    return product_of(id);
}

static int64_t stock_of(int64_t id)
{
    return product_of(id)->stock;
}

static struct log_position position_now(void)
{
    return (struct log_position){FIRST_EPOCH, test.store.n};
}

/* What a line takes: its product, or a bundle's components. Returns how many kinds. */
static size_t taken_by(const struct order_part *line, struct bundle_component out[BUNDLE_COMPONENTS_MAX])
{
    const struct sale_product *product = product_of(line->product_id);
    if (product->component_count == 0) {
        out[0] = (struct bundle_component){line->product_id, line->quantity};
        return 1;
    }
    for (size_t i = 0; i < product->component_count; i++) {
        out[i] = product->components[i];
        out[i].quantity *= line->quantity;
    }
    return product->component_count;
}

static void move_stock(struct stock_moves *moves, int64_t id, int64_t delta)
{
    size_t i = 0;
    struct sale_product *product = product_of(id);
    product->stock += delta;
    assert_true(product->stock >= 0);
    while (i < moves->count && moves->each[i].product_id != id) {
        i++;
    }
    moves->count += i == moves->count;
    moves->each[i].product_id = id;
    moves->each[i].stock = product->stock;
}

static bool is_there(const struct sale_order *order)
{
    struct bundle_component parts[BUNDLE_COMPONENTS_MAX];
    for (size_t i = 0; i < order_part_count(order); i++) {
        struct order_part line = order_part_at(order, i);
        size_t count = taken_by(&line, parts);
        for (size_t j = 0; j < count; j++) {
            if (stock_of(parts[j].product_id) < parts[j].quantity) {
                return false;
            }
        }
    }
    return true;
}

static void take(struct purchase *purchase, struct stock_moves *moves)
{
    struct bundle_component parts[BUNDLE_COMPONENTS_MAX];
    for (size_t i = 0; i < order_part_count(&purchase->order); i++) {
        struct order_part line = order_part_at(&purchase->order, i);
        size_t count = taken_by(&line, parts);
        for (size_t j = 0; j < count; j++) {
            move_stock(moves, parts[j].product_id, -parts[j].quantity);
        }
    }
    purchase->order.id = ++test.store.last_order;
    purchase->order.unit_price = PRICE;
    purchase->order.remaining = stock_of(purchase->order.product_id);
    purchase->position = moves->position;
    test.store.requests[test.store.sold++] = purchase->order.request;
}

/* As store_sell(), but for windows, limits, and one product in two lines. */
static void decide(struct gate_batch *batch)
{
    batch->moves.count = 0;
    batch->moves.position = (struct log_position){FIRST_EPOCH, test.store.n + 1};
    for (size_t i = 0; i < batch->count; i++) {
        struct purchase *purchase = batch->purchases[i];
        assert_int_equal(purchase->state, PURCHASE_ASKED);
        if (purchase->order.key != NULL &&
            strncmp(purchase->order.key, "used", purchase->order.key_bytes) == 0) {
            purchase->refusal = REFUSAL_ALREADY_ORDERED;
            purchase->figure = 42;
        } else if (is_there(&purchase->order)) {
            take(purchase, &batch->moves);
        } else {
            purchase->refusal = REFUSAL_INSUFFICIENT_STOCK;
            purchase->short_lines = 1;
            purchase->order.remaining = stock_of(purchase->order.product_id);
        }
    }
    if (batch->moves.count == 0) {
        batch->moves.position = (struct log_position){0};
    } else {
        test.store.n++;
    }
}

static bool consume(unsigned *count)
{
    bool any = *count > 0;
    *count -= any;
    return any;
}

static void do_batch(struct worker *worker)
{
    struct gate_batch *batch = worker->batch;
    worker->batch = NULL;
    batch->end = GATE_BATCH_DECIDED;
    if (consume(&worker->fence)) {
        batch->end = GATE_BATCH_FENCED;
    } else if (consume(&worker->fail_before)) {
        batch->end = GATE_BATCH_FAILED;
    } else {
        decide(batch);
        batch->end = consume(&worker->fail_after) ? GATE_BATCH_FAILED : GATE_BATCH_DECIDED;
    }
    gate_sold(worker->gate, batch);
}

/* --- a real store --- */
static void sell_work_cb(uv_work_t *work)
{
    struct worker *worker = work->data;
    struct gate_batch *batch = worker->batch;
    enum store_status status = store_sell(worker->store, batch->purchases, batch->count, &batch->moves);
    batch->end = status == STORE_OK ? GATE_BATCH_DECIDED : GATE_BATCH_FAILED;
}

static void sold_cb(uv_work_t *work, int status)
{
    struct worker *worker = work->data;
    struct gate_batch *batch = worker->batch;
    assert_int_equal(status, 0);
    assert_int_equal(batch->end, GATE_BATCH_DECIDED);
    worker->batch = NULL;
    gate_sold(worker->gate, batch);
}

static void do_lesson(struct worker *worker)
{
    struct gate_lesson *lesson = worker->lesson;
    worker->lesson = NULL;
    lesson->read = !consume(&worker->fail_lessons);
    lesson->position = position_now();
    for (size_t i = 0; i < lesson->count; i++) {
        const struct sale_product *product = product_of(lesson->product_ids[i]);
        lesson->known[i] = product != NULL;
        if (product != NULL) {
            lesson->products[i] = *product;
        }
    }
    gate_learned(worker->gate, lesson);
}

static bool is_sold(int64_t request)
{
    for (size_t i = 0; i < test.store.sold; i++) {
        if (test.store.requests[i] == request) {
            return true;
        }
    }
    return false;
}

static void do_settle(struct worker *worker)
{
    while (worker->settling != NULL) {
        struct gate_purchase *purchase = worker->settling;
        struct log_position position = purchase->purchase.position;
        worker->settling = purchase->next;
        worker->settled++;
        assert_int_equal(purchase->purchase.state, PURCHASE_ASKED);
        assert_true(log_position_compare(position, position_now()) <= 0);
        bool found = is_sold(purchase->purchase.order.request);
        if (found) {
            purchase->purchase.order.id = 1;
            purchase->purchase.position = position_now();
        }
        gate_settled(worker->gate, purchase, found ? GATE_IN_STORE : GATE_NOT_IN_STORE);
    }
}

static void job_cb(uv_async_t *async)
{
    struct worker *worker = async->data;
    if (worker->lesson != NULL) {
        do_lesson(worker);
    }
    if (worker->settling != NULL) {
        do_settle(worker);
    }
    if (worker->batch != NULL && worker->store == NULL && !worker->holds_batches) {
        do_batch(worker);
    }
}

static bool learn_cb(void *context, struct gate_lesson *lesson)
{
    struct worker *worker = context;
    assert_null(worker->lesson);
    assert_in_range(lesson->count, 1, GATE_LESSON_MAX);
    if (worker->refuses_to_learn) {
        return false;
    }
    worker->lesson = lesson;
    worker->lessons++;
    uv_async_send(&worker->job);
    return true;
}

static bool sell_cb(void *context, struct gate_batch *batch)
{
    struct worker *worker = context;
    assert_null(worker->batch);
    assert_in_range(batch->count, 1, GATE_BATCH_MAX);
    if (worker->refuses_to_sell) {
        return false;
    }
    worker->batch = batch;
    worker->batches++;
    if (worker->store != NULL) {
        worker->work.data = worker;
        return uv_queue_work(&test.loop, &worker->work, sell_work_cb, sold_cb) == 0;
    }
    uv_async_send(&worker->job);
    return true;
}

static bool settle_cb(void *context, struct gate_purchase *list)
{
    struct worker *worker = context;
    assert_null(worker->settling);
    if (worker->refuses_to_settle) {
        return false;
    }
    worker->settling = list;
    uv_async_send(&worker->job);
    return true;
}

static void hold_batches(struct worker *worker, bool hold)
{
    worker->holds_batches = hold;
    uv_async_send(&worker->job);
}

/* --- purchases ------------------------------------------------------------------------------------------------------------------ */
static struct probe *submit_cart(struct worker *worker, const int64_t *lines);

static void answer_cb(struct gate_purchase *purchase, void *context)
{
    struct probe *probe = context;
    assert_ptr_equal(purchase, &probe->gate);
    assert_false(probe->answered); /* exactly once */
    probe->answered = true;
    probe->answered_us = now_us();
    probe->turn = test.answers++;
    if (probe->repeats && test.submitted < test.repeat_until) { /* the same buyer comes again at once */
        const int64_t lines[] = {purchase->purchase.order.product_id, 1, 0};
        submit_cart(probe->worker, lines)->repeats = true;
    }
}

/* Product, quantity, product, quantity, …; 0 ends it. */
static struct probe *submit_keyed(struct worker *worker, const int64_t *lines, const char *key)
{
    assert_true(test.submitted < PROBES);
    struct probe *probe = &test.probes[test.submitted++];
    *probe = (struct probe){
        .gate = {.cb = answer_cb, .context = probe}, .worker = worker, .submitted_us = now_us()};
    struct sale_order *order = &probe->gate.purchase.order;
    *order = (struct sale_order){.user_id = 5, .more = probe->more, .key = key};
    order->key_bytes = key != NULL ? strlen(key) : 0;
    for (; *lines != 0; lines += 2) {
        assert_int_equal(cart_add(order, lines[0], lines[1]), CART_FITS);
    }
    gate_submit(worker->gate, &probe->gate);
    return probe;
}

static struct probe *submit_cart(struct worker *worker, const int64_t *lines)
{
    return submit_keyed(worker, lines, NULL);
}

static struct probe *submit(struct worker *worker, int64_t product, int64_t quantity)
{
    return submit_cart(worker, (const int64_t[]){product, quantity, 0});
}

/* Its time is over in so many milliseconds, and the gate's margin. */
static void hurry(struct probe *probe, int ms)
{
    probe->gate.deadline_us = now_us() + (500 + ms) * 1000;
}

static enum purchase_state state_of(const struct probe *probe)
{
    return probe->gate.purchase.state;
}

static void expect_confirmed(struct probe *probe)
{
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_CONFIRMED);
}

static void expect_unavailable(struct probe *probe)
{
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_UNAVAILABLE);
    assert_true(probe->answered_us <= probe->gate.deadline_us);
}

static void expect_too_little(struct probe *probe, int64_t stock)
{
    TURN_UNTIL(probe->answered);
    assert_int_equal(state_of(probe), PURCHASE_REFUSED);
    assert_int_equal(probe->gate.purchase.refusal, REFUSAL_INSUFFICIENT_STOCK);
    assert_int_equal(probe->gate.purchase.short_lines, 1);
    assert_int_equal(probe->gate.purchase.order.remaining, stock);
}

static size_t confirmed(void)
{
    size_t count = 0;
    for (size_t i = 0; i < test.submitted; i++) {
        count += state_of(&test.probes[i]) == PURCHASE_CONFIRMED;
    }
    return count;
}

/* --- nodes ---------------------------------------------------------------------------------------------------------------------- */
static const char *lock_key(int64_t product)
{
    static char key[64];
    snprintf(key, sizeof key, "%s%" PRId64, gate_keys.lock, product);
    return key;
}

static const char *stock_key(int64_t product)
{
    static char key[NODE_STOCK_KEY_BYTES];
    node_stock_key(STORE_ID, product, key);
    return key;
}

static bool node_says(unsigned node, int64_t product, int64_t stock)
{
    char text[LOCK_NODE_TEXT_BYTES];
    struct node_stock said;
    lock_nodes_read(&test.nodes, node, stock_key(product), text);
    return node_stock_parse(text, strlen(text), &said) && said.stock == stock;
}

static unsigned nodes_saying(int64_t product, int64_t stock)
{
    unsigned count = 0;
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        count += test.nodes.redis[i].pid != 0 && node_says(i, product, stock);
    }
    return count;
}

static bool votes(const struct worker *worker, unsigned node)
{
    struct gate_part parts[GATE_PARTS_MAX];
    assert_int_equal(gate_parts(worker->gate, parts), LOCK_NODES);
    return parts[node].up;
}

static unsigned voting(const struct worker *worker)
{
    unsigned count = 0;
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        count += votes(worker, i);
    }
    return count;
}

/* --- workers -------------------------------------------------------------------------------------------------------------------- */
static void open_worker(struct worker *worker)
{
    test.settings.context = worker;
    worker->gate = gate_open_for_worker(&test.settings);
}

static void open_workers(void)
{
    for (int i = 0; i < WORKERS; i++) {
        open_worker(&test.workers[i]);
    }
    TURN_UNTIL(voting(&test.workers[0]) == LOCK_NODES && voting(&test.workers[1]) == LOCK_NODES);
}

static void close_worker(struct worker *worker)
{
    if (worker->gate != NULL) {
        TURN_UNTIL(worker->lesson == NULL);
        gate_close_for_worker(&worker->gate);
    }
}

static void reopen_workers(void)
{
    for (int i = 0; i < WORKERS; i++) {
        close_worker(&test.workers[i]);
    }
    open_workers();
}

static struct worker *const a = &test.workers[0], *const b = &test.workers[1];

/* --- order and batches ---------------------------------------------------------------------------------------------------------- */
static void test_order_of_arrival(void **state)
{
    (void)state;
    add_product(1, 500);
    for (int i = 0; i < 600; i++) {
        submit(a, 1, 1);
        if (i % 50 == 0) {
            turn();
        }
    }
    TURN_UNTIL(test.answers == 600);
    for (int i = 0; i < 500; i++) {
        expect_confirmed(&test.probes[i]);
        assert_int_equal(test.probes[i].gate.purchase.order.id, i + 1);
        assert_int_equal(test.probes[i].turn, i);
    }
    for (int i = 500; i < 600; i++) {
        expect_too_little(&test.probes[i], 0);
    }
    assert_true(a->batches < 20);
    assert_int_equal(observations(&test.counters, METRICS_HISTOGRAM_gate_batch), a->batches);
    assert_int_equal(gate_pending(a->gate), 0);
    TURN_UNTIL(nodes_saying(1, 0) == LOCK_NODES);
    TURN_UNTIL(lock_nodes_with(&test.nodes, lock_key(1)) == 0); /* nobody needs it any more */
}

/* More lines than a batch holds. */
static void test_carts_of_many_lines(void **state)
{
    int64_t lines[2 * CART_LINES_MAX + 1] = {0};
    (void)state;
    for (int i = 0; i < CART_LINES_MAX; i++) {
        add_product(i + 1, 100);
        lines[2 * i] = CART_LINES_MAX - i;
        lines[2 * i + 1] = 1;
    }
    for (int i = 0; i < 40; i++) {
        submit_cart(a, lines);
    }
    TURN_UNTIL(test.answers == 40);
    assert_int_equal(confirmed(), 40);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(test.probes[i].gate.purchase.order.id, i + 1);
    }
}

static void test_a_key_that_was_used(void **state)
{
    (void)state;
    add_product(1, 1);
    expect_confirmed(submit(a, 1, 1));
    /* Sold out, but only the store knows what a key stands for. */
    struct probe *probe = submit_keyed(a, (const int64_t[]){1, 1, 0}, "used");
    TURN_UNTIL(probe->answered);
    assert_int_equal(probe->gate.purchase.refusal, REFUSAL_ALREADY_ORDERED);
    assert_int_equal(probe->gate.purchase.figure, 42);
    assert_int_equal(counted(METRICS_purchases_sold_out_by_nodes), 0);
}

/* --- learning ------------------------------------------------------------------------------------------------------------------- */
static void test_terms_are_learned_once(void **state)
{
    (void)state;
    for (int i = 1; i <= PRODUCTS; i++) {
        add_product(i, 10);
    }
    for (int i = 1; i <= PRODUCTS; i++) {
        submit(a, i, 1);
    }
    TURN_UNTIL(test.answers == PRODUCTS);
    assert_int_equal(a->lessons, 2); /* of at most 64 products */
    for (int i = 1; i <= PRODUCTS; i++) {
        submit(a, i, 1);
    }
    TURN_UNTIL(test.answers == 2 * PRODUCTS);
    assert_int_equal(a->lessons, 2);
    assert_int_equal(confirmed(), 2 * PRODUCTS);
}

static void test_what_is_not_sold(void **state)
{
    (void)state;
    add_product(1, 10);
    struct probe *unknown = submit(a, 77, 1), *half = submit_cart(a, (const int64_t[]){1, 1, 78, 1, 0});
    TURN_UNTIL(unknown->answered && half->answered);
    assert_int_equal(unknown->gate.purchase.refusal, REFUSAL_NOT_ON_SALE);
    assert_int_equal(unknown->gate.purchase.refused_product_id, 77);
    assert_int_equal(half->gate.purchase.refusal, REFUSAL_NOT_ON_SALE);
    assert_int_equal(half->gate.purchase.refused_product_id, 78);
    add_product(77, 10); /* that it is unknown is not remembered */
    expect_confirmed(submit(a, 77, 1));
}

static void test_a_store_that_cannot_be_read(void **state)
{
    (void)state;
    add_product(1, 10);
    a->fail_lessons = 2;
    expect_confirmed(submit(a, 1, 1));
    assert_int_equal(a->lessons, 3);
    add_product(2, 10);
    a->refuses_to_learn = true;
    struct probe *probe = submit(a, 2, 1);
    hurry(probe, 150);
    expect_unavailable(probe);
    a->refuses_to_learn = false;
    expect_confirmed(submit(a, 2, 1));
}

/* It takes the locks of what it is made of, not its own. */
static void test_a_bundle(void **state)
{
    (void)state;
    add_product(1, 10);
    add_product(2, 10);
    struct sale_product *bundle = add_product(3, 0);
    bundle->component_count = 2;
    bundle->components[0] = (struct bundle_component){2, 2};
    bundle->components[1] = (struct bundle_component){1, 1};
    a->holds_batches = true;
    struct probe *probe = submit(a, 3, 3);
    TURN_UNTIL(a->batch != NULL);
    TURN_UNTIL(lock_nodes_with(&test.nodes, lock_key(1)) == LOCK_NODES);
    assert_int_equal(lock_nodes_with(&test.nodes, lock_key(2)), LOCK_NODES);
    assert_int_equal(lock_nodes_with(&test.nodes, lock_key(3)), 0);
    hold_batches(a, false);
    expect_confirmed(probe);
    TURN_UNTIL(nodes_saying(1, 7) == LOCK_NODES && nodes_saying(2, 4) == LOCK_NODES);
    assert_int_equal(lock_nodes_with(&test.nodes, stock_key(3)), 0);
}

/* --- sold out ------------------------------------------------------------------------------------------------------------------- */
static void test_sold_out_by_the_nodes_without_a_lock(void **state)
{
    (void)state;
    add_product(1, 3);
    expect_confirmed(submit(a, 1, 2));
    TURN_UNTIL(nodes_saying(1, 1) == LOCK_NODES);
    int64_t locks = counted(METRICS_lock_acquisitions);
    uint64_t decisions = gate_decisions(a->gate);
    struct probe *two[50];
    for (int i = 0; i < 50; i++) {
        two[i] = submit(a, 1, 2);
    }
    for (int i = 0; i < 50; i++) {
        expect_too_little(two[i], 1);
    }
    assert_int_equal(counted(METRICS_lock_acquisitions), locks);
    assert_int_equal(counted(METRICS_purchases_sold_out_by_nodes), 50);
    assert_int_equal(counted(METRICS_purchases_sold_out), 50);
    assert_int_equal(gate_decisions(a->gate), decisions);
    /* One unit is there, and is sold. */
    expect_confirmed(submit(a, 1, 1));
    TURN_UNTIL(nodes_saying(1, 0) == LOCK_NODES);
    /* Somebody adds stock, and tells a majority. */
    product_of(1)->stock = 5;
    test.store.n++;
    for (unsigned i = 1; i < 1 + LOCK_NODES_MAJORITY; i++) {
        lock_nodes_do(&test.nodes, i, "SET %s %s", stock_key(1), "5 3 3");
    }
    expect_confirmed(submit(a, 1, 5));
}

/* A window that was closed is a later position on the nodes: then it is not for them to say "sold out", but for the store to say why. */
static void test_terms_are_learned_anew_when_the_nodes_are_ahead(void **state)
{
    char figure[64];
    (void)state;
    add_product(1, 1);
    expect_confirmed(submit(a, 1, 1));
    TURN_UNTIL(nodes_saying(1, 0) == LOCK_NODES);
    expect_too_little(submit(a, 1, 1), 0);
    expect_too_little(submit(a, 1, 1), 0);
    assert_int_equal(a->lessons, 2); /* the sale was news; then nothing was */
    assert_int_equal(counted(METRICS_purchases_sold_out_by_nodes), 2);
    product_of(1)->ends_at_ms = 1;
    test.store.n++;
    snprintf(figure, sizeof figure, "0 %d %llu", FIRST_EPOCH, (unsigned long long)test.store.n);
    for (unsigned i = 0; i < LOCK_NODES_MAJORITY; i++) {
        lock_nodes_do(&test.nodes, i, "SET %s %s", stock_key(1), figure);
    }
    expect_too_little(submit(a, 1, 1), 0); /* by the store, which here knows no windows */
    assert_int_equal(a->lessons, 3);
    assert_int_equal(counted(METRICS_purchases_sold_out_by_nodes), 2);
}

/* Where customers have a limit, only "nothing left" is sure to be the reason. */
static void test_a_limit_is_for_the_store(void **state)
{
    (void)state;
    add_product(1, 3)->limit = 2;
    expect_confirmed(submit(a, 1, 2));
    TURN_UNTIL(nodes_saying(1, 1) == LOCK_NODES);
    int64_t locks = counted(METRICS_lock_acquisitions);
    expect_too_little(submit(a, 1, 2), 1);
    assert_int_equal(counted(METRICS_lock_acquisitions), locks + 1);
    expect_confirmed(submit(a, 1, 1));
    TURN_UNTIL(nodes_saying(1, 0) == LOCK_NODES);
    locks = counted(METRICS_lock_acquisitions);
    expect_too_little(submit(a, 1, 2), 0);
    assert_int_equal(counted(METRICS_lock_acquisitions), locks);
}

/* Nodes that know nothing decide nothing: the store is asked. */
static void test_nodes_that_know_nothing(void **state)
{
    (void)state;
    add_product(1, 1);
    expect_confirmed(submit(a, 1, 1));
    TURN_UNTIL(nodes_saying(1, 0) == LOCK_NODES);
    lock_nodes_do_on_all(&test.nodes, "FLUSHALL");
    int64_t batches = (int64_t)a->batches;
    expect_too_little(submit(a, 1, 1), 0);
    assert_int_equal(a->batches, batches + 1);
    for (unsigned i = 0; i < LOCK_NODES; i++) { /* nor what nobody of ours can have written */
        lock_nodes_do(&test.nodes, i, "SET %s nonsense", stock_key(1));
    }
    expect_too_little(submit(a, 1, 1), 0);
    assert_int_equal(a->batches, batches + 2);
    expect_confirmed(((void)(product_of(1)->stock = 1), submit(a, 1, 1)));
    TURN_UNTIL(nodes_saying(1, 0) == LOCK_NODES); /* it is overwritten */
}

/* An older figure does not replace a newer one. */
static void test_newer_wins_on_the_nodes(void **state)
{
    (void)state;
    add_product(1, 10);
    lock_nodes_do(&test.nodes, 0, "SET %s %s", stock_key(1), "99 3 10");
    lock_nodes_do(&test.nodes, 1, "SET %s %s", stock_key(1), "99 4 0");
    lock_nodes_do(&test.nodes, 2, "SET %s %s", stock_key(1), "99 2 10");
    lock_nodes_do(&test.nodes, 3, "LPUSH %s x", stock_key(1));
    test.store.n = 8;
    expect_confirmed(submit(a, 1, 1)); /* 3-9 */
    TURN_UNTIL(node_says(4, 1, 9) && node_says(3, 1, 9) && node_says(2, 1, 9));
    assert_true(node_says(0, 1, 99));
    assert_true(node_says(1, 1, 99));
}

/* --- two workers ---------------------------------------------------------------------------------------------------------------- */
static void test_opposite_carts(void **state)
{
    enum { CARTS = 300 };
    (void)state;
    add_product(1, 10000);
    add_product(2, 10000);
    add_product(3, 10000);
    for (int i = 0; i < CARTS; i++) {
        submit_cart(a, (const int64_t[]){1, 1, 2, 1, 3, 1, 0});
        submit_cart(b, (const int64_t[]){3, 1, 2, 1, 1, 1, 0});
        submit_cart(i % 2 ? a : b, (const int64_t[]){2 + i % 2, 1, 1, 2, 0});
        if (i % 10 == 0) {
            turn_for(2);
        }
    }
    TURN_UNTIL(test.answers == 3 * CARTS);
    assert_int_equal(confirmed(), 3 * CARTS);
    assert_int_equal(stock_of(1), 10000 - 4 * CARTS);
}

static int by_size(const void *x, const void *y)
{
    int64_t one = *(const int64_t *)x, other = *(const int64_t *)y;
    return (one > other) - (one < other);
}

/* Buyers who come again as soon as they are answered, at two workers, for one product: nobody is kept waiting for long. */
static void test_two_workers_compete(void **state)
{
    enum { PURCHASES = 6000 };
    static int64_t took_us[PURCHASES];
    size_t served[WORKERS] = {0};
    (void)state;
    add_product(1, 1000000);
    test.repeat_until = PURCHASES;
    for (int i = 0; i < 50; i++) {
        submit(a, 1, 1)->repeats = true;
        submit(b, 1, 1)->repeats = true;
    }
    TURN_UNTIL(test.answers == PURCHASES);
    for (size_t i = 0; i < PURCHASES; i++) {
        expect_confirmed(&test.probes[i]);
        took_us[i] = test.probes[i].answered_us - test.probes[i].submitted_us;
        served[test.probes[i].worker - test.workers]++;
    }
    qsort(took_us, PURCHASES, sizeof *took_us, by_size);
    print_message(
        "[  FIGURE  ] two workers, one product, 100 buyers: %zu and %zu served, p50 %lld us, p99 %lld us, "
        "longest %lld us\n",
        served[0], served[1], (long long)took_us[PURCHASES / 2], (long long)took_us[PURCHASES * 99 / 100],
        (long long)took_us[PURCHASES - 1]);
    assert_true(served[0] > PURCHASES / 20 && served[1] > PURCHASES / 20); /* a tenure is a sixth of it */
    assert_true(took_us[PURCHASES * 99 / 100] < 250000);
    assert_int_equal(counted(METRICS_purchases_unavailable), 0);
}

/* Backing off for long, it is woken by the release. */
static void test_news_of_a_release_wake_a_waiter(void **state)
{
    (void)state;
    test.place.lock_attempts = 2;
    test.place.lock_retry_delay_ms = 900;
    reopen_workers();
    add_product(1, 100);
    int64_t longest_us = 0, wakes = 0;
    for (int i = 0; i < 5; i++) {
        a->holds_batches = true;
        struct probe *first = submit(a, 1, 1);
        TURN_UNTIL(a->batch != NULL);
        struct probe *second = submit(b, 1, 1);
        turn_for(20);
        assert_false(second->answered);
        hold_batches(a, false);
        expect_confirmed(first);
        expect_confirmed(second);
        int64_t waited_us = second->answered_us - first->answered_us;
        longest_us = waited_us > longest_us ? waited_us : longest_us;
        wakes = counted(METRICS_lock_wakes);
    }
    assert_true(wakes >= 3); /* a backoff may be over by chance */
    assert_true(longest_us < 150000);
}

/* --- locks that are lost -------------------------------------------------------------------------------------------------------- */
/* Somebody deletes the lock while a batch is under way: another worker gets it, and the store still sells nothing twice. */
static void test_a_lock_deleted_by_hand(void **state)
{
    (void)state;
    add_product(1, 3);
    a->holds_batches = true;
    struct probe *first = submit(a, 1, 2);
    TURN_UNTIL(a->batch != NULL);
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        lock_nodes_do(&test.nodes, i, "DEL %s", lock_key(1));
    }
    expect_confirmed(submit(b, 1, 2));
    hold_batches(a, false);
    expect_too_little(first, 1);
    expect_confirmed(submit(a, 1, 1));
    assert_int_equal(stock_of(1), 0);
}

/* The nodes do not answer while a batch is under way: the lock ends, the batch is finished. Who waits goes on when they are back. */
static void test_a_lock_that_could_not_be_extended(void **state)
{
    (void)state;
    add_product(1, 100);
    a->holds_batches = true;
    struct probe *first = submit(a, 1, 1);
    TURN_UNTIL(a->batch != NULL);
    struct probe *second = submit(a, 1, 1);
    lock_nodes_freeze(&test.nodes, 0, 3);
    TURN_UNTIL(counted(METRICS_lock_lost) == 1);
    assert_false(first->answered || second->answered);
    hold_batches(a, false);
    expect_confirmed(first);
    turn_for(50);
    assert_false(second->answered);
    lock_nodes_thaw(&test.nodes, 0, 3);
    expect_confirmed(second);
    assert_int_equal(a->batches, 2);
}

/* Held for longer than a lock lives, as long as it is needed. */
static void test_a_lock_is_extended(void **state)
{
    (void)state;
    add_product(1, 100);
    a->holds_batches = true;
    struct probe *first = submit(a, 1, 1);
    TURN_UNTIL(a->batch != NULL);
    struct probe *second = submit(b, 1, 1);
    TURN_UNTIL(counted(METRICS_lock_extensions) >= 2);
    assert_int_equal(b->batches, 0);
    hold_batches(a, false);
    expect_confirmed(first);
    expect_confirmed(second);
    assert_int_equal(counted(METRICS_lock_lost), 0);
}

/* --- nodes that are away -------------------------------------------------------------------------------------------------------- */
static void test_without_a_majority(void **state)
{
    (void)state;
    add_product(1, 100);
    expect_confirmed(submit(a, 1, 1));
    lock_nodes_freeze(&test.nodes, 1, 3);
    struct probe *late = submit(a, 1, 1), *patient;
    hurry(late, 300);
    expect_unavailable(late);
    TURN_UNTIL(!gate_is_ready(a->gate));
    late = submit(a, 1, 1);
    hurry(late, 100); /* who came first must be the first whose time is over */
    patient = submit(a, 1, 1);
    expect_unavailable(late);
    assert_false(patient->answered);
    lock_nodes_thaw(&test.nodes, 1, 1);
    expect_confirmed(patient); /* by itself */
    assert_true(gate_is_ready(a->gate));
    assert_int_equal(a->batches, 2);
}

static void test_two_nodes_dead(void **state)
{
    struct gate_part parts[GATE_PARTS_MAX];
    (void)state;
    add_product(1, 1000);
    redis_fixture_kill(&test.nodes.redis[0]);
    redis_fixture_kill(&test.nodes.redis[3]);
    TURN_UNTIL(voting(a) == 3 && voting(b) == 3);
    assert_int_equal(gate_parts(a->gate, parts), LOCK_NODES);
    assert_string_equal(parts[0].state, "down");
    assert_string_equal(parts[1].state, "up");
    for (unsigned i = 0; i < LOCK_NODES; i++) { /* whole, so that each is another */
        char name[512];
        snprintf(name, sizeof name, "lock node %u (unix:%s)", i + 1, test.nodes.redis[i].address.path);
        assert_string_equal(parts[i].name, name);
    }
    assert_true(gate_is_ready(a->gate));
    int64_t began_us = now_us();
    for (int i = 0; i < 500; i++) {
        submit(i % 2 ? a : b, 1, 1);
    }
    TURN_UNTIL(test.answers == 500);
    assert_int_equal(confirmed(), 500);
    assert_true(now_us() - began_us < 2000000);
    expect_confirmed(submit(a, 1, 500));
    TURN_UNTIL(nodes_saying(1, 0) == 3);
    int64_t batches = (int64_t)a->batches;
    expect_too_little(submit(a, 1, 1), 0);
    assert_int_equal(a->batches, batches); /* three that answer are a majority for a read too */
}

/* A node that came back empty is told, but does not count until it votes. */
static void test_a_restarted_node_is_told_but_not_believed(void **state)
{
    (void)state;
    add_product(1, 2);
    expect_confirmed(submit(a, 1, 1));
    expect_confirmed(submit(a, 1, 1));
    TURN_UNTIL(nodes_saying(1, 0) == LOCK_NODES);
    for (unsigned i = 0; i < 3; i++) {
        redis_fixture_kill(&test.nodes.redis[i]);
        test.starts[i] = 2;
    }
    TURN_UNTIL(voting(a) == 2);
    for (unsigned i = 0; i < 3; i++) {
        redis_fixture_launch(&test.nodes.redis[i], REDIS_NOTHING_KEPT);
        TURN_UNTIL(redis_fixture_answers(&test.nodes.redis[i]));
    }
    int64_t refused = counted(METRICS_purchases_sold_out_by_nodes);
    struct probe *probe = submit(a, 1, 1); /* no majority of those that may vote: it waits */
    TURN_UNTIL(voting(a) >= LOCK_NODES_MAJORITY);
    expect_too_little(probe, 0);
    assert_int_equal(counted(METRICS_purchases_sold_out_by_nodes), refused);
    product_of(1)->stock = 2;
    expect_confirmed(submit(b, 1, 1));
    TURN_UNTIL(nodes_saying(1, 1) == LOCK_NODES);
}

static void test_a_strangers_lock(void **state)
{
    (void)state;
    add_product(1, 100);
    add_product(2, 100);
    expect_confirmed(submit(b, 1, 1)); /* its terms are known */
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        lock_nodes_do(&test.nodes, i, "SET %s stranger PX 700", lock_key(2));
    }
    int64_t began_us = now_us();
    struct probe *hopeless = submit(a, 2, 1), *waits = submit(a, 2, 1),
                 *cart = submit_cart(a, (const int64_t[]){1, 1, 2, 1, 0});
    hurry(hopeless, 200);
    /* A cart that waits for it does not keep what it has for so long that others suffer. */
    for (int i = 0; i < 10; i++) {
        expect_confirmed(submit(b, 1, 1));
    }
    assert_true(now_us() - began_us < 600000);
    expect_unavailable(hopeless);
    expect_confirmed(waits);
    expect_confirmed(cart);
    assert_true(now_us() - began_us >= 600000);
    assert_true(counted(METRICS_lock_failures) >= 1);
    assert_true(counted(METRICS_lock_retries) < 300); /* not a busy loop */
}

/* People buy product 1, one after the other, while somebody new wants it in a cart with product 2 now and then. How long did one of them wait? */
static int64_t longest_wait_us(int ms)
{
    int64_t longest_us = 0, end_us = now_us() + (int64_t)ms * 1000;
    for (int i = 0; now_us() < end_us && test.submitted < PROBES - 2; i++) {
        if (i % 20 == 0) {
            submit_cart(a, (int64_t[]){1, 1, 2, 1, 0});
        }
        struct probe *probe = submit(a, 1, 1);
        expect_confirmed(probe);
        int64_t waited_us = probe->answered_us - probe->submitted_us;
        longest_us = waited_us > longest_us ? waited_us : longest_us;
    }
    return longest_us;
}

static void test_a_product_out_of_reach_stops_no_other(void **state)
{
    (void)state;
    add_product(1, 100000);
    add_product(2, 100000);
    test.place.lock_retry_delay_ms = 400;
    reopen_workers();
    TURN_UNTIL(gate_is_ready(a->gate));
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        lock_nodes_do(&test.nodes, i, "SET %s stranger PX 3000", lock_key(2));
    }
    struct probe *cart = submit_cart(a, (int64_t[]){1, 1, 2, 1, 0});
    TURN_UNTIL(counted(METRICS_lock_failures) > 0); /* its second lock was asked for in vain */
    assert_true(longest_wait_us(1000) < 200000); /* else carts keep its lock while they wait for the other */
    assert_false(cart->answered);
    TURN_UNTIL(test.answers == test.submitted);
    assert_int_equal(confirmed(), test.submitted);
}

/* Of this thread: what others take does not count. */
static int64_t processor_us(void)
{
    struct timespec used;
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used), 0);
    return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

static void test_thousands_expire_at_once(void **state)
{
    (void)state;
    for (int id = 1; id < PRODUCTS; id++) {
        add_product(id, 100000);
        submit(a, id, 1);
    }
    TURN_UNTIL(test.answers == test.submitted);
    lock_nodes_freeze(&test.nodes, 0, LOCK_NODES_MAJORITY);
    TURN_UNTIL(!gate_is_ready(a->gate));
    int64_t deadline_us = now_us() + 2500000, longest_us = 0;
    while (test.submitted < PROBES) {
        submit(a, 1 + (int64_t)test.submitted % (PRODUCTS - 1), 1)->gate.deadline_us = deadline_us;
    }
    while (test.answers < test.submitted) {
        int64_t began_us = processor_us();
        turn();
        int64_t took_us = processor_us() - began_us;
        longest_us = took_us > longest_us ? took_us : longest_us;
    }
    lock_nodes_thaw(&test.nodes, 0, LOCK_NODES_MAJORITY);
    printf("[  FIGURE  ] %d purchases at %d tills expire: longest turn %lld us\n", PROBES, PRODUCTS - 1,
           (long long)longest_us);
    assert_true(longest_us < 300000); /* the loop stands still meanwhile */
}

/* --- the store fails ------------------------------------------------------------------------------------------------------------ */
static void test_in_doubt(void **state)
{
    (void)state;
    add_product(1, 100);
    a->fail_after = 1;
    expect_confirmed(submit(a, 1, 1)); /* it was the answer that was lost */
    assert_int_equal(a->settled, 1);
    assert_int_equal(stock_of(1), 99);
    a->fail_before = 2;
    struct probe *first = submit(a, 1, 1), *second = submit(a, 1, 1);
    expect_confirmed(first);
    expect_confirmed(second);
    assert_int_equal(a->settled, 5);
    assert_true(first->gate.purchase.order.id < second->gate.purchase.order.id);
    assert_int_equal(stock_of(1), 97);
    assert_int_equal(counted(METRICS_purchases_in_doubt), 5);
    a->fail_before = 1;
    a->refuses_to_settle = true;
    struct probe *lost = submit(a, 1, 1);
    TURN_UNTIL(lost->answered);
    assert_int_equal(state_of(lost), PURCHASE_UNAVAILABLE);
    a->refuses_to_settle = false;
    expect_confirmed(submit(b, 1, 1));
}

/* The store has a batch and says nothing: its purchases are answered all the same, and whatever comes of it later harms nobody. */
static void test_a_store_that_does_not_come_back(void **state)
{
    static const int64_t lines[] = {1, 1, 2, 1, 0};
    (void)state;
    add_product(1, 100);
    add_product(2, 100);
    a->holds_batches = true;
    struct probe *first = submit_cart(a, lines), *second = submit_cart(a, lines),
                 *keyed = submit_keyed(a, lines, "fresh");
    TURN_UNTIL(a->batch != NULL);
    assert_int_equal(a->batch->count, 3);
    int64_t until_us = now_us() + 700000;
    first->gate.deadline_us = second->gate.deadline_us = keyed->gate.deadline_us = until_us;
    TURN_UNTIL(first->answered && second->answered && keyed->answered);
    assert_true(now_us() <= until_us);
    assert_int_equal(state_of(first), PURCHASE_UNAVAILABLE);
    memset(first, 0xee, sizeof *first); /* their memory is the caller's again */
    memset(second, 0xee, sizeof *second);
    memset(keyed, 0xee, sizeof *keyed);
    assert_int_equal(gate_pending(a->gate), 0);
    expect_confirmed(submit(b, 1, 1)); /* the lock is free */
    hold_batches(a, false);
    TURN_UNTIL(a->batch == NULL);
    expect_confirmed(submit(a, 1, 1));
    assert_int_equal(stock_of(1), 100 - 3 - 2);
    /* The gate may even be closed meanwhile, and its handles just about to be. */
    for (int i = 0; i < 2; i++) {
        a->holds_batches = true;
        first = submit(a, 1, 1);
        TURN_UNTIL(a->batch != NULL);
        first->gate.deadline_us = now_us() + 150000;
        TURN_UNTIL(first->answered);
        struct gate *closed = a->gate;
        gate_close_for_worker(&a->gate);
        turn_for(i == 0 ? 20 : 0);
        a->gate = closed;
        do_batch(a);
        a->gate = NULL;
        turn_for(20);
        a->holds_batches = false;
        open_worker(a);
        TURN_UNTIL(gate_is_ready(a->gate));
    }
}

/* Half of a batch is answered at its deadline; then the store fails, or is another's. */
static void test_half_a_batch_is_late(void **state)
{
    (void)state;
    add_product(1, 100);
    for (int i = 0; i < 2; i++) {
        hold_batches(a, true);
        a->fail_after = i == 0;
        a->fence = i == 1;
        struct probe *late = submit(a, 1, 1), *early = submit(a, 1, 1);
        hurry(late, 300);
        TURN_UNTIL(a->batch != NULL);
        expect_unavailable(late);
        hold_batches(a, false);
        if (i == 0) {
            expect_confirmed(early);
        } else {
            expect_unavailable(early);
        }
    }
}

static void test_fenced(void **state)
{
    (void)state;
    add_product(1, 100);
    a->fence = 1000000;
    struct probe *first = submit(a, 1, 1), *second = submit(a, 1, 1);
    int64_t asked_us = clock_monotonic_us();
    expect_unavailable(first);
    expect_unavailable(second);
    assert_true(clock_monotonic_us() - asked_us <
                1000000); /* not at their deadline: it will not be better by then */
    assert_int_equal(a->settled, 0);
    a->fence = 0;
    expect_confirmed(submit(a, 1, 1));
    a->refuses_to_sell = true;
    struct probe *probe = submit(a, 1, 1);
    hurry(probe, 100);
    expect_unavailable(probe);
    a->refuses_to_sell = false;
    expect_confirmed(submit(a, 1, 1));
}

/* --- networks ------------------------------------------------------------------------------------------------------------------- */
static void use_proxies(void)
{
    close_worker(a);
    close_worker(b);
    folder_make(test.proxy_folder);
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        struct redis_address *address = &test.place.nodes[i];
        snprintf(address->path, sizeof address->path, "%s/node%u.sock", test.proxy_folder, i + 1);
        proxy_start(&test.proxies[i], address->path, test.nodes.addresses[i].path);
    }
    open_workers();
}

static void buy_all(int64_t product, int buyers)
{
    size_t before = test.answers;
    for (int i = 0; i < buyers; i++) {
        submit(i % 2 ? a : b, product, 1 + i % 3);
        if (i % 20 == 0) {
            turn_for(5);
        }
    }
    TURN_UNTIL(test.answers == before + (size_t)buyers);
}

static void test_slow_and_lossy_nodes(void **state)
{
    (void)state;
    use_proxies();
    add_product(1, 200);
    /* Late: beyond the time that a node has. */
    proxy_do(&test.proxies[0], PROXY_DELAY, 120, 0);
    proxy_do(&test.proxies[1], PROXY_DELAY, 30, 0);
    /* Answers that are lost, and calls that arrive when their sender has given up. */
    proxy_do(&test.proxies[2], PROXY_LOSE_ANSWER, 0, 3);
    proxy_do(&test.proxies[3], PROXY_DELIVER_LATE, 200, 3);
    /* It never answers again, on that connection. */
    proxy_do(&test.proxies[4], PROXY_MUTE_ANSWER, 0, 1);
    buy_all(1, 300);
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        proxy_do(&test.proxies[i], PROXY_CALM, 0, 0);
    }
    TURN_UNTIL(gate_is_ready(a->gate) && gate_is_ready(b->gate));
    int64_t sold = 0;
    for (size_t i = 0; i < test.submitted; i++) {
        const struct probe *probe = &test.probes[i];
        assert_true(probe->answered_us <= probe->gate.deadline_us);
        sold += state_of(probe) == PURCHASE_CONFIRMED ? probe->gate.purchase.order.quantity : 0;
        if (state_of(probe) == PURCHASE_REFUSED) { /* nobody was told of less than there was */
            assert_true(probe->gate.purchase.order.remaining < probe->gate.purchase.order.quantity);
        }
    }
    assert_int_equal(sold, 200 - stock_of(1));
    submit(a, 1, stock_of(1) > 0 ? stock_of(1) : 1);
    TURN_UNTIL(test.answers == test.submitted);
    assert_int_equal(stock_of(1), 0);
}

/* --- the dead ------------------------------------------------------------------------------------------------------------------- */
static void set_lock(int64_t product, const char *token)
{
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        lock_nodes_do(&test.nodes, i, "SET %s %s PX 60000", lock_key(product), token);
    }
}

static void test_locks_of_the_dead_are_released(void **state)
{
    (void)state;
    close_worker(a);
    set_lock(1, "abc-c-4711-00");  /* an earlier run of this server */
    set_lock(2, "abc-d-4711-00");  /* the worker in whose place we are */
    set_lock(3, "abc-d-4712-00");  /* a living one */
    set_lock(4, "abc-d-47110-00"); /* likewise */
    set_lock(5, "ab-d-4711-00");   /* another server's */
    set_lock(6, "stranger");
    lock_nodes_do_on_all(&test.nodes, "LPUSH {doorbuster}:lock:7 x");
    int64_t before = counted(METRICS_lock_orphans_released);
    test.settings.holder = (struct gate_holder){.server = SERVER, .run = RUN, .dead_pid = 4711};
    open_worker(a);
    TURN_UNTIL(voting(a) == LOCK_NODES);
    assert_int_equal(counted(METRICS_lock_orphans_released) - before, 2 * LOCK_NODES);
    for (int i = 1; i <= 6; i++) {
        assert_int_equal(lock_nodes_with(&test.nodes, lock_key(i)), i <= 2 ? 0 : LOCK_NODES);
    }
    add_product(1, 1);
    expect_confirmed(submit(a, 1, 1));
}

/* --- a real store --------------------------------------------------------------------------------------------------------------- */
/* The product in the store, and its terms in ours, which the lessons are from. */
static void open_in_store(struct store *store, int64_t id, int64_t stock,
                          const struct bundle_component *made_of)
{
    struct store_product product = {.price = PRICE, .planned_stock = stock};
    enum change_outcome outcome;
    struct change_result result;
    snprintf(product.name, sizeof product.name, "product %d", (int)id);
    if (made_of != NULL) {
        product.components[0] = made_of[0];
        product.components[1] = made_of[1];
        product.component_count = 2;
    }
    assert_int_equal(store_add_product(store, &product), STORE_OK);
    assert_int_equal(product.id, id);
    struct stock_change opening = {.product_id = id, .delta = stock, .cause = STOCK_OPENING};
    assert_int_equal(store_change_stock(store, &opening, &outcome, &result), STORE_OK);
    assert_int_equal(outcome, CHANGE_MADE);
    struct sale_product *terms = add_product(id, stock);
    terms->component_count = product.component_count;
    memcpy(terms->components, product.components, sizeof terms->components);
}

static int64_t stock_in_store(struct store *store, int64_t id)
{
    struct store_product product;
    assert_int_equal(store_find_product(store, id, &product), STORE_OK);
    return product.stock;
}

static void open_stores(char folder[FOLDER_BYTES])
{
    char url[FOLDER_BYTES + 32], error[512];
    folder_make(folder);
    snprintf(url, sizeof url, "sqlite:%s/shop.db", folder);
    for (int i = 0; i < WORKERS; i++) {
        assert_int_equal(store_open(&test.workers[i].store, url, STORE_WRITER, error, sizeof error),
                         STORE_OK);
    }
    assert_int_equal(store_take_over(a->store), STORE_OK);
}

static void buy_anything(uint64_t *random)
{
    static const int64_t carts[][5] = {{1, 1, 0}, {2, 2, 0}, {3, 1, 0}, {1, 1, 2, 1, 0}, {3, 1, 1, 2, 0}};
    struct worker *worker = &test.workers[random_below(random, WORKERS)];
    submit_cart(worker, carts[random_below(random, 5)]);
}

/* Crowds at two workers, nodes that stop and go on, and locks deleted by hand: every unit is sold once, and the nodes say so. */
static void test_a_real_store_and_bad_nodes(void **state)
{
    char folder[FOLDER_BYTES];
    uint64_t random = random_seed("real store");
    (void)state;
    open_stores(folder);
    open_in_store(a->store, 1, 300, NULL);
    open_in_store(a->store, 2, 400, NULL);
    open_in_store(a->store, 3, 0, (const struct bundle_component[]){{1, 1}, {2, 1}});
    for (int i = 0; i < 1200; i++) {
        buy_anything(&random);
        if (i % 100 == 50) {
            unsigned node = random_below(&random, LOCK_NODES - 1);
            lock_nodes_freeze(&test.nodes, node, 2);
            turn_for(30);
            lock_nodes_thaw(&test.nodes, node, 2);
            lock_nodes_do(&test.nodes, random_below(&random, LOCK_NODES), "DEL %s", lock_key(1));
        } else if (i % 10 == 0) {
            turn_for(2);
        }
    }
    TURN_UNTIL(test.answers == test.submitted);
    int64_t units[3] = {0};
    for (size_t i = 0; i < test.submitted; i++) {
        const struct sale_order *order = &test.probes[i].gate.purchase.order;
        for (size_t j = 0; state_of(&test.probes[i]) == PURCHASE_CONFIRMED && j < order_part_count(order);
             j++) {
            struct order_part line = order_part_at(order, j);
            units[0] += line.product_id != 2 ? line.quantity : 0;
            units[1] += line.product_id != 1 ? line.quantity : 0;
        }
    }
    struct store_position position;
    assert_int_equal(store_position(a->store, &position), STORE_OK);
    assert_int_equal(position.last_order_id, confirmed());
    assert_int_equal(counted(METRICS_purchases_unavailable), 0);
    assert_int_equal(stock_in_store(a->store, 1), 300 - units[0]);
    assert_int_equal(stock_in_store(a->store, 2), 400 - units[1]);
    assert_true(stock_in_store(a->store, 1) < 3);
    TURN_UNTIL(nodes_saying(1, 300 - units[0]) == LOCK_NODES &&
               nodes_saying(2, 400 - units[1]) == LOCK_NODES);
    for (int i = 0; i < WORKERS; i++) {
        close_worker(&test.workers[i]);
        store_close(&test.workers[i].store);
    }
    folder_remove(folder);
}

/* --- around --------------------------------------------------------------------------------------------------------------------- */
static void test_how_fast_it_is(void **state)
{
    enum { BUYERS = 256 };
    (void)state;
    add_product(1, 1000000);
    test.repeat_until = PROBES;
    int64_t began_us = now_us();
    for (int i = 0; i < BUYERS; i++) {
        submit(a, 1, 1)->repeats = true;
    }
    TURN_UNTIL(test.answers == PROBES);
    print_message(
        "[  FIGURE  ] one worker, one product, %d buyers, a store that takes no time: %lld purchases a "
        "second, %lld a batch, %lld locks\n",
        BUYERS, (long long)PROBES * 1000000 / (now_us() - began_us),
        (long long)PROBES / (long long)a->batches, (long long)counted(METRICS_lock_acquisitions));
    assert_int_equal(confirmed(), PROBES);
}

static int start_nodes(void **state)
{
    (void)state;
    lock_nodes_start(&test.nodes);
    test.probes = calloc(PROBES, sizeof *test.probes);
    return test.probes == NULL;
}

static int end_nodes(void **state)
{
    (void)state;
    lock_nodes_end(&test.nodes);
    free(test.probes);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    lock_nodes_refresh(&test.nodes);
    memset(&test.store, 0, sizeof test.store);
    test.submitted = test.answers = 0;
    test.place = (struct gate_place){.kind = GATE_REDLOCK,
                                     .node_count = LOCK_NODES,
                                     .lock_ttl_ms = TTL_MS,
                                     .lock_attempts = ATTEMPTS,
                                     .lock_retry_delay_ms = DELAY_MS};
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        test.place.nodes[i] = test.nodes.addresses[i];
        test.starts[i] = 1;
    }
    test.settings = (struct gate_settings){.loop = &test.loop,
                                           .place = &test.place,
                                           .settle_cb = settle_cb,
                                           .learn_cb = learn_cb,
                                           .sell_cb = sell_cb,
                                           .holder = {.server = SERVER, .run = RUN},
                                           .store_id = STORE_ID,
                                           .node_starts = test.starts};
    uv_loop_init(&test.loop);
    uv_prepare_init(&test.loop, &test.prepare);
    uv_prepare_start(&test.prepare, prepare_cb);
    uv_timer_init(&test.loop, &test.tick);
    uv_timer_start(&test.tick, tick_cb, 5, 5);
    for (int i = 0; i < WORKERS; i++) {
        test.workers[i] = (struct worker){0};
        uv_async_init(&test.loop, &test.workers[i].job, job_cb);
        test.workers[i].job.data = &test.workers[i];
    }
    open_workers();
    memset(&test.counters, 0, sizeof test.counters);
    metrics_use_slot(&test.counters);
    return 0;
}

/* Of a test that failed: the gate must not be closed with it, or nobody would hear of the failure. */
static void let_end(struct worker *worker)
{
    worker->holds_batches = false;
    while (worker->gate != NULL && gate_pending(worker->gate) > 0) {
        uv_async_send(&worker->job);
        turn();
    }
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < WORKERS; i++) {
        let_end(&test.workers[i]);
        close_worker(&test.workers[i]);
        uv_close((uv_handle_t *)&test.workers[i].job, NULL);
    }
    uv_close((uv_handle_t *)&test.prepare, NULL);
    uv_close((uv_handle_t *)&test.tick, NULL);
    uv_run(&test.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&test.loop), 0);
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        if (test.proxies[i].pid != 0) {
            proxy_end(&test.proxies[i]);
        }
    }
    if (test.proxy_folder[0] != '\0') {
        folder_remove(test.proxy_folder);
        test.proxy_folder[0] = '\0';
    }
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_order_of_arrival),
        TEST(test_carts_of_many_lines),
        TEST(test_a_key_that_was_used),
        TEST(test_terms_are_learned_once),
        TEST(test_terms_are_learned_anew_when_the_nodes_are_ahead),
        TEST(test_what_is_not_sold),
        TEST(test_a_store_that_cannot_be_read),
        TEST(test_a_bundle),
        TEST(test_sold_out_by_the_nodes_without_a_lock),
        TEST(test_a_limit_is_for_the_store),
        TEST(test_nodes_that_know_nothing),
        TEST(test_newer_wins_on_the_nodes),
        TEST(test_opposite_carts),
        TEST(test_two_workers_compete),
        TEST(test_news_of_a_release_wake_a_waiter),
        TEST(test_a_lock_deleted_by_hand),
        TEST(test_a_lock_that_could_not_be_extended),
        TEST(test_a_lock_is_extended),
        TEST(test_without_a_majority),
        TEST(test_two_nodes_dead),
        TEST(test_a_restarted_node_is_told_but_not_believed),
        TEST(test_a_strangers_lock),
        TEST(test_a_product_out_of_reach_stops_no_other),
        TEST(test_thousands_expire_at_once),
        TEST(test_in_doubt),
        TEST(test_a_store_that_does_not_come_back),
        TEST(test_half_a_batch_is_late),
        TEST(test_fenced),
        TEST(test_slow_and_lossy_nodes),
        TEST(test_locks_of_the_dead_are_released),
        TEST(test_a_real_store_and_bad_nodes),
        TEST(test_how_fast_it_is),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start_nodes, end_nodes);
}
