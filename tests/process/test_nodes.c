/* setup and verify on a store of the Redlock gate, with five real Redis processes and no server: what they compare, what they only note, and what
 * they cannot know. */
#include "testing.h"

#include "redis_fixture.h"
#include "run.h"

#include "doorbuster/node_books.h"
#include "doorbuster/store.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES 5
#define TOOL_MS 60000
#define NODE_TIMEOUT_MS 1000
#define LIST_BYTES (NODES * (FOLDER_BYTES + 64))

static struct redis_fixture nodes[NODES];
static struct gate_place place;
static char folder[FOLDER_BYTES], url[FOLDER_BYTES + 32], list[LIST_BYTES];
static struct store *store;
static struct store_position position;
static struct store_product product;

/* --- the tools --------------------------------------------------------------------------------------------------------------------- */
static struct run_result run_tool(const char *tool, const char *const *more)
{
    const char *argv[16] = {program_path(tool), "--data", folder, "--redlock-nodes", list};
    size_t count = 5;
    for (size_t i = 0; more != NULL && more[i] != NULL; i++) {
        argv[count++] = more[i];
    }
    return program_run(argv, NULL, TOOL_MS);
}

static void expect(const char *tool, const char *const *more, int exit_code, const char *words)
{
    struct run_result result = run_tool(tool, more);
    if (result.exit_code != exit_code ||
        (strstr(result.out, words) == NULL && strstr(result.err, words) == NULL)) {
        fail_msg("%s: exit code %d, not %d, or it never said \"%s\":\n%s%s", tool, result.exit_code,
                 exit_code, words, result.out, result.err);
    }
    run_result_free(&result);
}

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* --- hands ------------------------------------------------------------------------------------------------------------------------- */
static void do_on(unsigned node, const char *figure)
{
    redisContext *redis = redis_fixture_connect(&nodes[node]);
    if (figure == NULL) {
        redis_do(redis, "FLUSHALL");
    } else {
        redis_do(redis, "SET {doorbuster}:stock:%lld:%lld %s", (long long)position.store_id,
                 (long long)product.id, figure);
    }
    redisFree(redis);
}

static void format_figure(char out[64], int64_t stock, uint64_t beyond)
{
    assert_int_equal(store_position(store, &position), STORE_OK);
    snprintf(out, 64, "%" PRId64 " %" PRIu64 " %" PRIu64, stock, position.recorded.epoch,
             position.recorded.n + beyond);
}

/* As somebody who dies before the nodes are told. */
static void sell_untold(void)
{
    enum change_outcome outcome;
    struct change_result result;
    struct stock_change change = {.product_id = product.id, .delta = -1, .cause = STOCK_WITHDRAWAL};
    assert_int_equal(store_change_stock(store, &change, &outcome, &result), STORE_OK);
    assert_int_equal(outcome, CHANGE_MADE);
}

/* As the keeper does. */
static void tell_nodes(void)
{
    static struct stock_moves moves;
    struct node_books *books = node_books_open(&place, position.store_id, NODE_TIMEOUT_MS);
    assert_int_equal(store_find_product(store, product.id, &product), STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    moves.position = position.recorded;
    moves.count = 1;
    moves.each[0] = (struct stock_move){product.id, product.stock};
    assert_true(node_books_write(books, &moves));
    node_books_close(&books);
}

static int setup(void **state)
{
    char error[512];
    (void)state;
    folder_make(folder);
    snprintf(url, sizeof url, "sqlite:%s/doorbuster.db", folder);
    assert_int_equal(store_open(&store, url, STORE_WRITER, error, sizeof error), STORE_OK);
    assert_int_equal(store_take_over(store), STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    place = (struct gate_place){.kind = GATE_REDLOCK, .node_count = NODES};
    list[0] = '\0';
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_start(&nodes[i], false);
        place.nodes[i] = nodes[i].address;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%sunix:%s", used > 0 ? "," : "", nodes[i].address.path);
    }
    expect("setup", ARGUMENTS("--scenario", "v1_stress"), 0, "stock 100");
    assert_int_equal(store_find_product_by_name(store, "Black Friday Limited Edition", &product), STORE_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(&store);
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_end(&nodes[i]);
    }
    folder_remove(folder);
    return 0;
}

/* --- all is well ------------------------------------------------------------------------------------------------------------------- */
static void test_all_agree(void **state)
{
    (void)state;
    expect("verify", NULL, 0, "nodes 100, store 100");
    expect("verify", NULL, 0, "ok, with 1 products");
    expect("verify", ARGUMENTS("--gate", "redlock"), 0, "All hold");
    expect("verify", ARGUMENTS("--json"), 0, "\"redis_stock\":\t100");
    expect("setup", ARGUMENTS("--scenario", "v1_stress"), 0, "is there already");
    expect("setup", ARGUMENTS("--scenario", "v1_stress", "--stock", "7", "--reset"), 0, "stock 7");
    expect("setup", ARGUMENTS("--scenario", "v2_multi"), 0, "bundle");
    expect("verify", NULL, 0, "nodes 7, store 7");
    expect("setup", ARGUMENTS("--scenario", "v3_redlock", "--reset"), 0, "Black Friday Everyday");
}

static void test_the_wrong_gate(void **state)
{
    (void)state;
    expect("verify", ARGUMENTS("--gate", "lua"), 2, "sold through the redlock gate");
    expect("setup", ARGUMENTS("--gate", "lua"), 2, "sold through the redlock gate");
}

/* --- a minority -------------------------------------------------------------------------------------------------------------------- */
static void test_a_minority_is_only_noted(void **state)
{
    (void)state;
    redis_fixture_kill(&nodes[1]);
    expect("verify", NULL, 0, "does not answer");
    do_on(4, NULL);
    expect("verify", NULL, 0, "is behind, with 1 of 1 products");
    do_on(4, "many");
    expect("verify", NULL, 0, "cannot be read");
}

static void test_no_majority_is_no_answer(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        redis_fixture_kill(&nodes[i]);
    }
    expect("verify", NULL, 2, "2 of 5 answer, which is no majority");
    expect("verify", NULL, 2, "only the store can be checked");
    expect("setup", ARGUMENTS("--scenario", "v2_multi"), 1, "is the server running");
}

/* --- what is wrong is found -------------------------------------------------------------------------------------------------------- */
static void test_a_figure_that_stays_behind(void **state)
{
    (void)state;
    sell_untold();
    expect("verify", NULL, 1, "they stay behind");
    tell_nodes();
    expect("verify", NULL, 0, "nodes 99, store 99");
}

static void test_a_figure_that_never_was(void **state)
{
    char figure[64];
    (void)state;
    format_figure(figure, 101, 0);
    for (unsigned i = 0; i < NODES; i++) {
        do_on(i, figure);
    }
    expect("verify", NULL, 1, "nodes 101, store 100");
    format_figure(figure, 100, 1000);
    do_on(2, figure);
    expect("verify", NULL, 1, "where the store has never been");
}

static void test_one_node_with_a_false_figure(void **state)
{
    char figure[64];
    (void)state;
    format_figure(figure, 3, 0);
    do_on(4, figure);
    expect("verify", NULL, 1, "at the same position");
}

static void test_nodes_that_know_nothing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++) {
        do_on(i, NULL);
    }
    expect("verify", NULL, 1, "no majority of the nodes knows it");
}

/* --- private nodes of a stopped server --------------------------------------------------------------------------------------------- */
static void test_a_stopped_server_with_private_nodes(void **state)
{
    (void)state;
    snprintf(list, sizeof list, "spawn");
    expect("verify", NULL, 0, "the server is stopped");
    expect("verify", NULL, 0, "All hold");
    expect("verify", ARGUMENTS("--repair"), 2, "is the server running");
}

/* --- --repair, --watch ------------------------------------------------------------------------------------------------------------- */
static pid_t start_verify(const char *option, const char *out_name, char out_path[FOLDER_BYTES + 16])
{
    snprintf(out_path, FOLDER_BYTES + 16, "%s/%s", folder, out_name);
    FILE *out = fopen(out_path, "w");
    assert_non_null(out);
    const char *argv[] = {program_path("verify"), "--data", folder, "--redlock-nodes", list, option, NULL};
    pid_t pid = program_start(argv, NULL, fileno(out), fileno(out));
    fclose(out);
    return pid;
}

static void await_words(const char *path, const char *words)
{
    int64_t deadline = deadline_in(TOOL_MS);
    bool found = false;
    while (!found) {
        char *text = file_read(path);
        found = strstr(text, words) != NULL;
        if (!found && !wait_a_moment(deadline)) {
            fail_msg("never said \"%s\": %s", words, text);
        }
        free(text);
    }
}

/* The keeper, here ourselves, does it; --repair waits for that. */
static void test_repair_waits_for_the_keeper(void **state)
{
    char path[FOLDER_BYTES + 16];
    (void)state;
    sell_untold();
    pid_t pid = start_verify("--repair", "repair", path);
    await_words(path, "waiting up to 10 s for the keeper");
    tell_nodes();
    assert_int_equal(program_wait(pid, TOOL_MS), 0);
    await_words(path, "1 products differed, 1 of them agree now");
    await_words(path, "All hold");
}

static void test_watch(void **state)
{
    char path[FOLDER_BYTES + 16];
    (void)state;
    redis_fixture_kill(&nodes[1]);
    pid_t pid = start_verify("--watch", "watch", path);
    await_words(path, "4 of 5 nodes");
    sell_untold();
    await_words(path, "BROKEN: nodes = store");
    tell_nodes();
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(program_wait(pid, TOOL_MS), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_agree),
        TEST(test_the_wrong_gate),
        TEST(test_a_minority_is_only_noted),
        TEST(test_no_majority_is_no_answer),
        TEST(test_a_figure_that_stays_behind),
        TEST(test_a_figure_that_never_was),
        TEST(test_one_node_with_a_false_figure),
        TEST(test_nodes_that_know_nothing),
        TEST(test_a_stopped_server_with_private_nodes),
        TEST(test_repair_waits_for_the_keeper),
        TEST(test_watch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
