/* What the Redlock gate has done off the loop, with a real store, a real loop and a gate that only takes what comes back (below: it stands in the
 * real one's place). */
#include "api_internal.h"
#include "store_fixture.h"
#include "testing.h"

#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif
#include "folder.h"

#include "doorbuster/api.h"
#include "doorbuster/clock.h"
#include "doorbuster/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define USERS 3
#define STOCK 2
#define ANSWER_MS 10000

static char folder[FOLDER_BYTES], url[STORE_FIXTURE_URL_BYTES];
static uv_loop_t loop;
static struct api *api;
static struct gate_place place = {.kind = GATE_REDLOCK};
static struct store *store;
static int64_t product, first_user;

/* --- the gate ---------------------------------------------------------------------------------------------------------------------- */
struct gate {
    struct gate_lesson *learned;
    struct gate_batch *sold;
    unsigned settled;
    enum gate_finding finding; /* the last */
};
static struct gate gate;

void gate_learned(struct gate *to, struct gate_lesson *lesson)
{
    to->learned = lesson;
}

void gate_sold(struct gate *to, struct gate_batch *batch)
{
    to->sold = batch;
}

void gate_submit(struct gate *to, struct gate_purchase *purchase)
{
    (void)to, (void)purchase;
    fail();
}

void gate_settled(struct gate *to, struct gate_purchase *purchase, enum gate_finding finding)
{
    (void)purchase;
    to->settled++;
    to->finding = finding;
}

bool gate_is_ready(const struct gate *of)
{
    (void)of;
    return true;
}

size_t gate_parts(const struct gate *of, struct gate_part out[GATE_PARTS_MAX])
{
    (void)of, (void)out;
    return 0;
}

uint64_t gate_decisions(const struct gate *of)
{
    (void)of;
    return 0;
}

uint64_t gate_epoch(const struct gate *of)
{
    (void)of;
    return 0;
}

/* --- a shop ------------------------------------------------------------------------------------------------------------------------ */
static void add_users(void)
{
    for (int i = 0; i < USERS; i++) {
        struct store_user user = {.password_hash = "-"};
        snprintf(user.username, sizeof user.username, "user%d", i);
        assert_int_equal(store_add_user(store, &user), STORE_OK);
        first_user = i == 0 ? user.id : first_user;
    }
}

static void add_product(void)
{
    struct store_product row = {.name = "one", .price = 100, .per_customer_limit = 1, .planned_stock = STOCK};
    enum change_outcome outcome;
    struct change_result result;
    assert_int_equal(store_add_product(store, &row), STORE_OK);
    struct stock_change opening = {.product_id = row.id, .delta = STOCK, .cause = STOCK_OPENING};
    assert_int_equal(store_change_stock(store, &opening, &outcome, &result), STORE_OK);
    assert_int_equal(outcome, CHANGE_MADE);
    product = row.id;
}

static int setup(void **state)
{
    char error[512];
    (void)state;
    folder_make(folder);
    store_fixture_new(folder, "doorbuster.db", url, sizeof url);
    assert_int_equal(store_open(&store, url, STORE_WRITER, error, sizeof error), STORE_OK);
    assert_int_equal(store_take_over(store), STORE_OK);
    add_users();
    add_product();
    gate = (struct gate){0};
    assert_int_equal(uv_loop_init(&loop), 0);
    struct api_settings settings = {.loop = &loop,
                                    .store_url = url,
                                    .place = &place,
                                    .secret =
                                        (const unsigned char *)"a secret of the tests, 32 bytes or more",
                                    .secret_bytes = 39};
    api = api_new(&settings);
    api_use_gate(api, &gate);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    api_free(&api);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    store_close(&store);
    folder_remove(folder);
    return 0;
}

/* --- asking ------------------------------------------------------------------------------------------------------------------------ */
static struct purchase purchases[USERS];
static struct gate_batch batch;

static void fill_batch(void)
{
    static int64_t request;
    batch = (struct gate_batch){.count = USERS};
    for (int i = 0; i < USERS; i++) {
        purchases[i] = (struct purchase){
            .order = {.user_id = first_user + i, .request = ++request, .product_id = product, .quantity = 1}};
        batch.purchases[i] = &purchases[i];
    }
}

static void await(void)
{
    int64_t deadline = deadline_in(ANSWER_MS);
    while (api_busy(api) > 0) {
        uv_run(&loop, UV_RUN_NOWAIT);
        assert_true(wait_a_moment(deadline));
    }
}

static enum gate_batch_end sell(void)
{
    fill_batch();
    gate.sold = NULL;
    assert_true(api_sell(api, &batch));
    assert_null(gate.sold); /* never before it has returned */
    await();
    assert_ptr_equal(gate.sold, &batch);
    return batch.end;
}

static void expect_sold(void)
{
    assert_int_equal(batch.end, GATE_BATCH_DECIDED);
    assert_true(purchases[0].order.id > 0 && purchases[1].order.id == purchases[0].order.id + 1);
    assert_int_equal(purchases[2].order.id, 0);
    assert_int_equal(purchases[2].refusal, REFUSAL_INSUFFICIENT_STOCK);
    assert_int_equal(batch.moves.count, 1);
    assert_int_equal(batch.moves.each[0].product_id, product);
    assert_int_equal(batch.moves.each[0].stock, 0);
}

/* --- selling ----------------------------------------------------------------------------------------------------------------------- */
static void test_a_batch_is_decided(void **state)
{
    (void)state;
    sell();
    expect_sold();
}

static void test_another_gates_store(void **state)
{
    struct store_position now;
    (void)state;
    assert_int_equal(store_position(store, &now), STORE_OK);
    assert_int_equal(store_raise_epoch(store, now.epoch, now.epoch + 1), STORE_OK);
    assert_int_equal(sell(), GATE_BATCH_FENCED);
    assert_int_equal(store_take_over(store), STORE_OK);
    sell();
    expect_sold();
}

static void test_a_store_that_cannot_be_opened(void **state)
{
    char away[STORE_FIXTURE_URL_BYTES];
    (void)state;
    snprintf(away, sizeof away, "%s", url);
    snprintf(url, sizeof url, "sqlite:%s/none/doorbuster.db", folder);
    assert_int_equal(sell(), GATE_BATCH_FAILED);
    snprintf(url, sizeof url, "%s", away);
    sell();
    expect_sold();
}

#ifdef DOORBUSTER_FAILPOINTS
static struct failpoint_page *failpoints;

/* The writer that failed is let go; the next batch has a sound one. */
static void test_a_write_that_fails(void **state)
{
    static const char *const faults[] = {"store.begun:error", "store.commit:error", "vfs.write:error",
                                         "vfs.sync:error"};
    (void)state;
    size_t count =
        store_fixture_is_postgres() ? 2 : sizeof faults / sizeof faults[0]; /* its disk is its own */
    for (size_t i = 0; i < count; i++) {
        failpoints_arm(failpoints, faults[i]);
        assert_int_equal(sell(), GATE_BATCH_FAILED);
        assert_int_equal(failpoints_fired(failpoints), 1);
        failpoints_disarm(failpoints);
    }
    sell();
    expect_sold();
}

static int make_failpoints(void **state)
{
    static char page_folder[FOLDER_BYTES], path[FOLDER_BYTES + 16];
    (void)state;
    folder_make(page_folder);
    snprintf(path, sizeof path, "%s/failpoints", page_folder);
    failpoints = failpoints_file_make(path);
    setenv("DOORBUSTER_FAILPOINT_FILE", path, 1);
    failpoint_init(0, NULL);
    folder_remove(page_folder); /* it is mapped */
    return 0;
}
#else
#define make_failpoints NULL
#endif

/* --- learning ---------------------------------------------------------------------------------------------------------------------- */
static void test_a_lesson(void **state)
{
    static struct gate_lesson lesson;
    struct store_position now;
    (void)state;
    lesson = (struct gate_lesson){.product_ids = {product, 99}, .count = 2};
    assert_int_equal(store_position(store, &now), STORE_OK);
    fill_batch();
    assert_true(api_learn(api, &lesson)); /* both may be under way */
    assert_true(api_sell(api, &batch));
    await();
    expect_sold();
    assert_ptr_equal(gate.learned, &lesson);
    assert_true(lesson.read && lesson.known[0] && !lesson.known[1]);
    assert_int_equal(lesson.products[0].id, product);
    assert_int_equal(lesson.products[0].price, 100);
    assert_int_equal(lesson.products[0].limit, 1);
    assert_int_equal(log_position_compare(lesson.position, now.recorded), 0);
}

static void test_a_lesson_that_cannot_be_read(void **state)
{
    static struct gate_lesson lesson;
    char away[STORE_FIXTURE_URL_BYTES];
    (void)state;
    lesson = (struct gate_lesson){.product_ids = {product}, .count = 1};
    snprintf(away, sizeof away, "%s", url);
    snprintf(url, sizeof url, "sqlite:%s/none/doorbuster.db", folder);
    assert_true(api_learn(api, &lesson));
    await();
    assert_ptr_equal(gate.learned, &lesson);
    assert_false(lesson.read);
    snprintf(url, sizeof url, "%s", away);
    assert_true(api_learn(api, &lesson));
    await();
    assert_true(lesson.read && lesson.known[0]);
}

/* --- settling ---------------------------------------------------------------------------------------------------------------------- */
static struct gate_purchase *ask_settling(int64_t left_us)
{
    struct gate_purchase *purchase = calloc(1, sizeof *purchase);
    assert_non_null(purchase);
    purchase->purchase.order = (struct sale_order){.id = 7, .user_id = first_user, .request = 70};
    purchase->purchase.state = PURCHASE_RESERVED;
    purchase->deadline_us = clock_monotonic_us() + left_us;
    assert_true(api_settle(api, purchase));
    return purchase;
}

/* However long the store takes: what is found after that is for nobody. */
static void test_what_is_looked_up_is_answered_at_its_deadline(void **state)
{
    (void)state;
    struct gate_purchase *late = ask_settling(1000);
    settling_watch(api);
    assert_int_equal(gate.settled, 1);
    assert_int_equal(gate.finding, GATE_STORE_UNREADABLE);
    free(late);
    struct gate_purchase *in_time = ask_settling(ANSWER_MS * INT64_C(1000));
    settling_watch(api);
    assert_int_equal(gate.settled, 1);
    await();
    assert_int_equal(gate.settled, 2);
    assert_int_equal(gate.finding, GATE_NOT_IN_STORE);
    free(in_time);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_batch_is_decided),
        TEST(test_another_gates_store),
        TEST(test_a_store_that_cannot_be_opened),
#ifdef DOORBUSTER_FAILPOINTS
        TEST(test_a_write_that_fails),
#endif
        TEST(test_a_lesson),
        TEST(test_a_lesson_that_cannot_be_read),
        TEST(test_what_is_looked_up_is_answered_at_its_deadline),
    };
    return cmocka_run_group_tests(tests, make_failpoints, NULL);
}
