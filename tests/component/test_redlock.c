/* Redlock with five real Redis nodes, which are stopped, killed and restarted empty: who holds the lock, who finds out what, and when. */
#include "testing.h"

#include "redis_fixture.h"

#include "redlock.h"

#include "doorbuster/clock.h"
#include "doorbuster/metrics.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define NODES 5
#define MAJORITY 3
#define PATIENCE_MS 15000
#define TTL_MS 1000
#define SHORT_TTL_MS 500 /* where its end is waited for */
#define LONG_TTL_MS 2000 /* where it must not end while a busy machine goes slowly */
#define NODE_TIMEOUT_MS 100
#define SLACK_MS 400 /* what a busy machine may add */
#define DELAY_MS 10
#define ATTEMPTS 3
#define ROUNDS 500
#define SERVER 0xabc
#define RUN 0xd
#define RESOURCE "1"
#define KEY "{doorbuster}:lock:" RESOURCE

/* One who wants the lock: a worker with a lease. */
struct contender {
    uv_loop_t *loop;
    struct redlock *redlock;
    struct redlock_lease *lease;
    unsigned seen[REDLOCK_LOST + 1]; /* events */
    unsigned events;
    bool frees; /* in the event */
};

static struct {
    struct redis_fixture redis[NODES];
    uv_loop_t loop, other_loop;
    uv_prepare_t prepare;
    uv_timer_t tick;
    struct redis_address nodes[NODES];
    uint32_t
        starts[NODES]; /* as the supervisor counts them: so that only tests of young nodes wait for them */
    struct redlock_settings settings;
    struct contender a, b;
    struct metrics_slot counters;
} test;

/* --- the loop ------------------------------------------------------------------------------------------------------------------- */
static void turn_contender(struct contender *contender)
{
    if (contender->redlock != NULL) {
        redlock_turn(contender->redlock);
    }
}

static void prepare_cb(uv_prepare_t *handle)
{
    (void)handle;
    turn_contender(&test.a);
    turn_contender(&test.b);
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

/* --- contenders ------------------------------------------------------------------------------------------------------------------- */
static void event_cb(struct redlock_lease *lease, enum redlock_event event, void *context)
{
    struct contender *contender = context;
    assert_ptr_equal(lease, contender->lease);
    contender->seen[event]++;
    contender->events++;
    assert_int_equal(redlock_is_free(lease), event == REDLOCK_LOST || event == REDLOCK_NOT_ACQUIRED);
    if (contender->frees) {
        redlock_lease_free(&contender->lease);
    }
}

static void open_contender(struct contender *contender, uv_loop_t *loop)
{
    *contender = (struct contender){.loop = loop};
    test.settings.loop = loop;
    contender->redlock = redlock_open(&test.settings);
    contender->lease = redlock_lease_new(contender->redlock, RESOURCE, event_cb, contender);
}

static void close_contender(struct contender *contender)
{
    if (contender->lease != NULL) {
        redlock_lease_free(&contender->lease);
    }
    if (contender->redlock != NULL) {
        redlock_close(&contender->redlock);
    }
}

static void open_both(void)
{
    open_contender(&test.a, &test.loop);
    open_contender(&test.b, &test.loop);
    TURN_UNTIL(redlock_voting(test.a.redlock) == test.settings.node_count &&
               redlock_voting(test.b.redlock) == test.settings.node_count);
}

static void set_ttl(int ttl_ms)
{
    close_contender(&test.a);
    close_contender(&test.b);
    test.settings.ttl_ms = ttl_ms;
    open_both();
}

static void acquire(struct contender *contender)
{
    redlock_acquire(contender->lease, clock_monotonic_us() + PATIENCE_MS * 1000);
}

/* The event that comes next. */
static enum redlock_event next_event(struct contender *contender)
{
    unsigned seen[REDLOCK_LOST + 1], events = contender->events;
    memcpy(seen, contender->seen, sizeof seen);
    TURN_UNTIL(contender->events > events);
    assert_int_equal(contender->events, events + 1);
    for (int event = 0; event <= REDLOCK_LOST; event++) {
        if (contender->seen[event] > seen[event]) {
            return (enum redlock_event)event;
        }
    }
    return REDLOCK_LOST;
}

static enum redlock_event acquire_and_wait(struct contender *contender)
{
    acquire(contender);
    return next_event(contender);
}

static bool holds(const struct contender *contender)
{
    return redlock_left_us(contender->lease) > 0;
}

/* Asks again and again, as a driver does with purchases waiting. */
static void acquire_until_held(struct contender *contender)
{
    int64_t until = deadline_in(PATIENCE_MS);
    while (acquire_and_wait(contender) != REDLOCK_ACQUIRED) {
        assert_true(now_us() < until);
    }
}

/* --- nodes ---------------------------------------------------------------------------------------------------------------------- */
/* What the node has under the key: "" for nothing. */
static void read_key(unsigned node, char out[128])
{
    redisContext *redis = redis_fixture_connect(&test.redis[node]);
    redisReply *reply = redisCommand(redis, "GET %s", KEY);
    assert_non_null(reply);
    snprintf(out, 128, "%s", reply->type == REDIS_REPLY_STRING ? reply->str : "");
    freeReplyObject(reply);
    redisFree(redis);
}

static unsigned nodes_with_key(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < NODES; i++) {
        char token[128] = "";
        if (test.redis[i].pid != 0) {
            read_key(i, token);
        }
        count += token[0] != '\0';
    }
    return count;
}

static void do_on(unsigned node, const char *command)
{
    redisContext *redis = redis_fixture_connect(&test.redis[node]);
    freeReplyObject(redisCommand(redis, command));
    redisFree(redis);
}

static void do_on_all(const char *command)
{
    for (unsigned i = 0; i < NODES; i++) {
        do_on(i, command);
    }
}

static int64_t calls_of(unsigned node, const char *command)
{
    char name[32];
    redisContext *redis = redis_fixture_connect(&test.redis[node]);
    redisReply *reply = redisCommand(redis, "INFO commandstats");
    assert_non_null(reply);
    snprintf(name, sizeof name, "cmdstat_%s:calls=", command);
    const char *at = strstr(reply->str, name);
    int64_t calls = at != NULL ? strtoll(at + strlen(name), NULL, 10) : 0;
    freeReplyObject(reply);
    redisFree(redis);
    return calls;
}

static void freeze(unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        redis_fixture_freeze(&test.redis[i]);
    }
}

static void thaw(unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        redis_fixture_thaw(&test.redis[i]);
    }
}

/* kill -9; nothing is kept. */
static void kill_node(unsigned node)
{
    redis_fixture_kill(&test.redis[node]);
    test.starts[node] = 2; /* when it is started again */
}

/* Returns when both contenders know. */
static void kill_nodes(unsigned first, unsigned count, unsigned left)
{
    for (unsigned i = first; i < first + count; i++) {
        kill_node(i);
    }
    TURN_UNTIL(redlock_voting(test.a.redlock) == left && redlock_voting(test.b.redlock) == left);
}

static void start_node(unsigned node)
{
    redis_fixture_launch(&test.redis[node], REDIS_NOTHING_KEPT);
    TURN_UNTIL(redis_fixture_answers(&test.redis[node]));
}

/* --- one at a time ----------------------------------------------------------------------------------------------------------------- */
static void test_one_at_a_time(void **state)
{
    (void)state;
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    assert_in_range(redlock_left_us(test.a.lease), 1, TTL_MS * 1000 - 12000); /* less 1 % + 2 ms */
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_NOT_ACQUIRED);
    assert_true(holds(&test.a));
    assert_false(holds(&test.b));
    assert_int_equal(counted(METRICS_lock_acquisitions), 1);
    assert_int_equal(counted(METRICS_lock_failures), 1);
    assert_int_equal(counted(METRICS_lock_retries), ATTEMPTS - 1);
    redlock_release(test.a.lease);
    assert_false(holds(&test.a));
    assert_true(redlock_is_free(test.a.lease));
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_ACQUIRED);
}

/* So that it makes room. */
static void test_a_holder_hears_that_another_wants_it(void **state)
{
    (void)state;
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    turn_for(20);
    assert_false(redlock_is_wanted(test.a.lease));
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_NOT_ACQUIRED);
    TURN_UNTIL(redlock_is_wanted(test.a.lease));
    int64_t until = deadline_in(PATIENCE_MS); /* each node says it, and not all at once */
    do {
        assert_true(now_us() < until);
        redlock_release(test.a.lease);
        assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
        turn();
    } while (redlock_is_wanted(test.a.lease));
}

static void test_resources_are_apart(void **state)
{
    struct contender c = {.redlock = test.b.redlock};
    (void)state;
    c.lease = redlock_lease_new(test.b.redlock, "2", event_cb, &c);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    assert_int_equal(acquire_and_wait(&c), REDLOCK_ACQUIRED);
    redlock_lease_free(&c.lease);
}

/* "<server>-<run>-<pid>-<128 random bits>" */
static void expect_token_of(const char *token, pid_t pid)
{
    char begin[64];
    size_t bytes = (size_t)snprintf(begin, sizeof begin, "%x-%x-%d-", SERVER, RUN, (int)pid);
    assert_memory_equal(token, begin, bytes);
    assert_int_equal(strlen(token + bytes), 32);
}

static void test_keys_come_and_go(void **state)
{
    char tokens[NODES][128], again[128];
    (void)state;
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    TURN_UNTIL(nodes_with_key() == NODES); /* the votes that were not waited for, too */
    for (unsigned i = 0; i < NODES; i++) {
        read_key(i, tokens[i]);
        expect_token_of(tokens[i], getpid());
        assert_string_equal(tokens[i], tokens[0]);
    }
    redlock_release(test.a.lease);
    TURN_UNTIL(nodes_with_key() == 0);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    TURN_UNTIL(nodes_with_key() == NODES);
    read_key(0, again);
    assert_string_not_equal(again, tokens[0]);
}

/* What another has set is neither taken nor deleted. */
static void test_others_keys_are_left_alone(void **state)
{
    char token[128];
    (void)state;
    for (unsigned i = 0; i < MAJORITY; i++) {
        do_on(i, "SET " KEY " another");
    }
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_NOT_ACQUIRED);
    TURN_UNTIL(nodes_with_key() == MAJORITY); /* ours are released */
    for (unsigned i = 0; i < MAJORITY; i++) {
        read_key(i, token);
        assert_string_equal(token, "another");
    }
    do_on(0, "DEL " KEY);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    redlock_release(test.a.lease);
    TURN_UNTIL(nodes_with_key() == MAJORITY - 1);
}

/* Two processes, a counter that only the holder may raise, and never in one step. */
static void contend(int *counter, int *holders, int *wrong)
{
    uv_loop_init(&test.loop);
    uv_prepare_init(&test.loop, &test.prepare);
    uv_prepare_start(&test.prepare, prepare_cb);
    uv_timer_init(&test.loop, &test.tick);
    uv_timer_start(&test.tick, tick_cb, 5, 5);
    test.settings.retry_delay_ms = 1;
    open_contender(&test.a, &test.loop);
    TURN_UNTIL(redlock_is_ready(test.a.redlock));
    for (int done = 0; done < ROUNDS;) {
        if (acquire_and_wait(&test.a) != REDLOCK_ACQUIRED) {
            continue;
        }
        *wrong += __atomic_add_fetch(holders, 1, __ATOMIC_SEQ_CST) != 1;
        int before = __atomic_load_n(counter, __ATOMIC_SEQ_CST);
        uv_run(&test.loop, UV_RUN_NOWAIT);
        usleep(100); /* a holder works for a moment: not a wait for anything */
        __atomic_store_n(counter, before + 1, __ATOMIC_SEQ_CST);
        __atomic_sub_fetch(holders, 1, __ATOMIC_SEQ_CST);
        *wrong += !holds(&test.a); /* then the figures prove nothing */
        redlock_release(test.a.lease);
        done++;
    }
    uv_run(&test.loop, UV_RUN_NOWAIT);
    _exit(0);
}

static void test_a_thousand_rounds_of_two_processes(void **state)
{
    pid_t pids[2];
    (void)state;
    /* counter, holders, and what each process saw wrong */
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    test.settings.ttl_ms = LONG_TTL_MS;
    int64_t began_us = now_us();
    for (int i = 0; i < 2; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            contend(&shared[0], &shared[1], &shared[2 + i]);
        }
    }
    for (int i = 0; i < 2; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    print_message("[  FIGURE  ] two processes for one lock, 100 us of work: %lld us a round\n",
                  (long long)((now_us() - began_us) / (2 * ROUNDS)));
    assert_int_equal(shared[0], 2 * ROUNDS);
    assert_int_equal(shared[2] + shared[3], 0);
    munmap(shared, 4096);
}

/* --- nodes that fail --------------------------------------------------------------------------------------------------------------- */
static void expect_quick_lock(void)
{
    int64_t began_us = now_us();
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    assert_true(now_us() - began_us < (NODE_TIMEOUT_MS + SLACK_MS) * 1000);
    assert_int_equal(counted(METRICS_lock_retries) + counted(METRICS_lock_node_timeouts), 0);
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_NOT_ACQUIRED);
    redlock_release(test.a.lease);
    acquire_until_held(&test.b);
}

static void test_two_nodes_killed(void **state)
{
    (void)state;
    kill_nodes(0, 2, MAJORITY);
    expect_quick_lock();
}

/* Nobody waits for them: three of five are enough. */
static void test_two_nodes_stopped(void **state)
{
    (void)state;
    set_ttl(LONG_TTL_MS);
    freeze(0, 2);
    expect_quick_lock();
}

/* The third no is what decides; with two nodes silent it cannot come, so the node timeout ends the first attempt. They are not waited for again,
 * or nobody would get three of three while several ask, and each holds two of them back for a timeout. */
static void test_stopped_nodes_cost_the_timeout_once(void **state)
{
    (void)state;
    do_on(4, "SET " KEY " another");
    freeze(0, 2);
    int64_t began_us = now_us();
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_NOT_ACQUIRED);
    assert_true(now_us() - began_us >= NODE_TIMEOUT_MS * 1000);
    assert_int_equal(counted(METRICS_lock_node_timeouts), 2);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_NOT_ACQUIRED);
    assert_int_equal(counted(METRICS_lock_node_timeouts), 2);
    thaw(0, 2); /* then their votes count again */
    acquire_until_held(&test.a);
}

static void test_three_nodes_stopped_and_continued(void **state)
{
    (void)state;
    freeze(0, 3);
    /* The deadline cuts it short, in the middle of an attempt. */
    int64_t began_us = now_us();
    redlock_acquire(test.a.lease, clock_monotonic_us() + NODE_TIMEOUT_MS * 1000 / 2);
    assert_int_equal(next_event(&test.a), REDLOCK_NOT_ACQUIRED);
    assert_true(now_us() - began_us < (NODE_TIMEOUT_MS + SLACK_MS) * 1000);
    /* For longer than the links wait. */
    TURN_UNTIL(!redlock_is_ready(test.a.redlock));
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_NOT_ACQUIRED);
    thaw(0, 1);
    TURN_UNTIL(redlock_is_ready(test.a.redlock)); /* the same run as before: it forgot nothing */
    acquire_until_held(&test.a);
    assert_int_equal(counted(METRICS_lock_nodes_restarted), 0);
}

static void test_three_nodes_killed_and_one_back(void **state)
{
    (void)state;
    kill_nodes(0, 3, 2);
    int64_t began_us = now_us();
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_NOT_ACQUIRED);
    assert_true(now_us() - began_us < (3 * DELAY_MS + SLACK_MS) * 1000); /* nobody to wait for */
    assert_int_equal(nodes_with_key(), 0);
    start_node(0);
    acquire_until_held(&test.a);
    assert_true(counted(METRICS_lock_nodes_restarted) >= 1);
}

/* --- a node that forgot ------------------------------------------------------------------------------------------------------------- */
/* A holds it on three nodes; one of them restarts empty, and with the two that A never reached it would make a majority for B. */
static void test_a_node_that_restarted_empty_does_not_vote(void **state)
{
    (void)state;
    set_ttl(LONG_TTL_MS);
    kill_nodes(3, 2, MAJORITY);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    int64_t restarted_us = now_us();
    kill_nodes(2, 1, MAJORITY - 1);
    start_node(2);
    start_node(3);
    start_node(4);
    assert_true(holds(&test.a));
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_NOT_ACQUIRED);
    while (acquire_and_wait(&test.b) != REDLOCK_ACQUIRED) {
        assert_true(now_us() - restarted_us < (LONG_TTL_MS + PATIENCE_MS) * 1000);
    }
    assert_false(holds(&test.a));
    assert_true(now_us() - restarted_us >= LONG_TTL_MS * 1000);
    assert_int_equal(counted(METRICS_lock_nodes_restarted), 2 * 3); /* seen by both */
}

/* First contact: a worker that starts right after a node did. */
static void test_a_young_node_does_not_vote(void **state)
{
    (void)state;
    close_contender(&test.b);
    kill_node(0);
    int64_t started_us = now_us();
    start_node(0);
    open_contender(&test.b, &test.loop);
    TURN_UNTIL(redlock_voting(test.b.redlock) == NODES);
    assert_true(now_us() - started_us >= TTL_MS * 1000);
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_ACQUIRED);
}

/* Private nodes: the supervisor has started each once, so none can have forgotten anything. */
static void test_the_first_run_of_a_private_node_votes_at_once(void **state)
{
    (void)state;
    close_contender(&test.b);
    redis_fixture_kill(&test.redis[0]);
    int64_t started_us = now_us();
    start_node(0);
    open_contender(&test.b, &test.loop);
    TURN_UNTIL(redlock_voting(test.b.redlock) == NODES);
    assert_true(now_us() - started_us < TTL_MS * 1000);
}

static int64_t uptime_s(unsigned node)
{
    redisContext *redis = redis_fixture_connect(&test.redis[node]);
    redisReply *reply = redisCommand(redis, "INFO server");
    assert_non_null(reply);
    const char *at = strstr(reply->str, "uptime_in_seconds:");
    assert_non_null(at);
    int64_t uptime = strtoll(strchr(at, ':') + 1, NULL, 10);
    freeReplyObject(reply);
    redisFree(redis);
    return uptime;
}

static void test_an_old_node_votes_at_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++) {
        TURN_UNTIL(uptime_s(i) * 1000 >= TTL_MS + 2000);
    }
    close_contender(&test.b);
    test.settings.node_starts = NULL; /* by their own word */
    int64_t began_us = now_us();
    open_contender(&test.b, &test.loop);
    TURN_UNTIL(redlock_voting(test.b.redlock) == NODES);
    assert_true(now_us() - began_us < SLACK_MS * 1000);
}

static void test_a_broken_link_is_no_restart(void **state)
{
    (void)state;
    set_ttl(LONG_TTL_MS);
    int64_t began_us = now_us();
    do_on_all("CLIENT KILL TYPE normal");
    TURN_UNTIL(counted(METRICS_redis_links_lost) == 2 * NODES);
    TURN_UNTIL(redlock_voting(test.a.redlock) == NODES);
    assert_true(now_us() - began_us < LONG_TTL_MS * 1000);
    assert_int_equal(counted(METRICS_lock_nodes_restarted), 0);
}

static void test_one_redis_has_one_vote(void **state)
{
    (void)state;
    close_contender(&test.a);
    struct redis_address nodes[] = {test.nodes[0], test.nodes[0], test.nodes[1]};
    test.settings.nodes = nodes;
    test.settings.node_count = 3;
    open_contender(&test.a, &test.loop);
    TURN_UNTIL(redlock_is_ready(test.a.redlock));
    turn_for(200);
    assert_int_equal(redlock_voting(test.a.redlock), 2);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
}

/* --- holders that are late --------------------------------------------------------------------------------------------------------- */
/* A worker is stopped for longer than its lock lives: its loop does not turn. */
static void test_a_stopped_holder_finds_out(void **state)
{
    char token[128];
    (void)state;
    set_ttl(SHORT_TTL_MS);
    close_contender(&test.a);
    uv_loop_init(&test.other_loop);
    open_contender(&test.a, &test.other_loop);
    TURN_UNTIL((uv_run(&test.other_loop, UV_RUN_NOWAIT), redlock_voting(test.a.redlock) == NODES));
    acquire(&test.a);
    TURN_UNTIL((uv_run(&test.other_loop, UV_RUN_NOWAIT), test.a.seen[REDLOCK_ACQUIRED] == 1));
    /* From here on it is stopped. The other gets the lock, and not before the first's time is over. */
    while (acquire_and_wait(&test.b) != REDLOCK_ACQUIRED) {
    }
    assert_int_equal(redlock_left_us(test.a.lease), 0);
    assert_int_equal(test.a.seen[REDLOCK_LOST], 0); /* nobody has told it, but whoever looks sees it */
    read_key(0, token);
    /* It goes on: is told, lets go, and the other's lock stays. */
    for (int64_t until = deadline_in(PATIENCE_MS); test.a.seen[REDLOCK_LOST] == 0;) {
        uv_run(&test.other_loop, UV_RUN_NOWAIT);
        assert_true(now_us() < until);
    }
    int64_t calls = calls_of(0, "eval");
    redlock_turn(test.a.redlock);
    TURN_UNTIL(calls_of(0, "eval") == calls + 1);
    TURN_UNTIL(nodes_with_key() >= MAJORITY);
    char after[128];
    read_key(0, after);
    assert_string_equal(after, token);
    assert_true(holds(&test.b));
    close_contender(&test.a);
    uv_run(&test.other_loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&test.other_loop), 0);
}

static void test_the_validity_ends(void **state)
{
    (void)state;
    set_ttl(SHORT_TTL_MS);
    int64_t began_us = now_us();
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    assert_int_equal(next_event(&test.a), REDLOCK_LOST);
    assert_in_range(now_us() - began_us, SHORT_TTL_MS * 1000 - 12000, (SHORT_TTL_MS + SLACK_MS) * 1000);
    assert_false(holds(&test.a));
    assert_int_equal(counted(METRICS_lock_lost), 1);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
}

/* Asks, and then the loop is busy with something else for so long. */
static void acquire_and_be_busy(int ttl_ms, int node_timeout_ms, int busy_ms)
{
    close_contender(&test.a);
    test.settings.ttl_ms = ttl_ms;
    test.settings.node_timeout_ms = node_timeout_ms;
    open_contender(&test.a, &test.loop);
    TURN_UNTIL(redlock_voting(test.a.redlock) == NODES);
    acquire(&test.a);
    redlock_turn(test.a.redlock);
    for (int64_t until = deadline_in(busy_ms); now_us() < until;) {
    }
    assert_int_equal(next_event(&test.a), REDLOCK_ACQUIRED);
}

/* The answers were there in time, only nobody had read them. */
static void test_a_busy_loop_is_no_timeout(void **state)
{
    (void)state;
    acquire_and_be_busy(LONG_TTL_MS, 50, 120);
    assert_int_equal(counted(METRICS_lock_retries), 0);
    assert_int_equal(counted(METRICS_lock_node_timeouts), 0);
}

/* All said yes, but that was a whole TTL ago: it is asked anew. */
static void test_votes_do_not_outlive_the_validity(void **state)
{
    (void)state;
    acquire_and_be_busy(200, 150, 250);
    assert_true(counted(METRICS_lock_retries) >= 1);
    assert_int_equal(counted(METRICS_lock_acquisitions), 1);
}

/* --- answers and releases that are late ------------------------------------------------------------------------------------------ */
static void test_a_release_reaches_the_node_that_did_not_answer(void **state)
{
    (void)state;
    set_ttl(10000);
    do_on(4, "CONFIG RESETSTAT");
    freeze(4, 1);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    redlock_release(test.a.lease);
    turn_for(20);
    thaw(4, 1);
    TURN_UNTIL(calls_of(4, "eval") == 1);
    assert_int_equal(calls_of(4, "set"), 1); /* it did take it, late */
    assert_int_equal(nodes_with_key(), 0);
}

static void test_late_votes_win_nothing(void **state)
{
    (void)state;
    close_contender(&test.a);
    test.settings.attempts = 1;
    open_contender(&test.a, &test.loop);
    TURN_UNTIL(redlock_voting(test.a.redlock) == NODES);
    do_on_all("CONFIG RESETSTAT");
    freeze(0, 3);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_NOT_ACQUIRED);
    thaw(0, 3);
    for (unsigned i = 0; i < 3; i++) {
        TURN_UNTIL(calls_of(i, "eval") == 1);
        assert_int_equal(calls_of(i, "set"), 1);
    }
    turn_for(50);
    assert_int_equal(test.a.events, 1);
    assert_true(redlock_is_free(test.a.lease));
    assert_int_equal(nodes_with_key(), 0);
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_ACQUIRED);
}

/* The link broke with the key standing: the deletion is owed, and paid when it is back, long before the key expires. */
static void test_a_release_over_a_broken_link_is_owed(void **state)
{
    (void)state;
    set_ttl(10000);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    TURN_UNTIL(nodes_with_key() == NODES);
    do_on_all("CLIENT KILL TYPE normal");
    redlock_release(test.a.lease); /* the loop has not noticed yet */
    int64_t began_us = now_us();
    TURN_UNTIL(nodes_with_key() == 0);
    assert_true(now_us() - began_us < 5000000);
    acquire_until_held(&test.b);
}

/* The same, released when the links are known to be down. */
static void test_a_release_without_links_is_owed(void **state)
{
    (void)state;
    set_ttl(10000);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    TURN_UNTIL(nodes_with_key() == NODES);
    do_on_all("CLIENT KILL TYPE normal");
    TURN_UNTIL(redlock_voting(test.a.redlock) == 0);
    redlock_release(test.a.lease);
    int64_t began_us = now_us();
    TURN_UNTIL(nodes_with_key() == 0);
    assert_true(now_us() - began_us < 5000000);
}

/* More than may be on its way to a node, and more than can be owed to it. */
static void test_a_stopped_node_is_not_asked_without_bound(void **state)
{
    (void)state;
    set_ttl(LONG_TTL_MS);
    freeze(4, 1);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
        redlock_release(test.a.lease);
    }
    TURN_UNTIL(redlock_voting(test.a.redlock) == NODES - 1); /* given up */
    thaw(4, 1);
    TURN_UNTIL(redlock_voting(test.a.redlock) == NODES);
    /* It reads what is left of the old connection beside the new one: a key may be set after its deletion, and expires. */
    TURN_UNTIL(nodes_with_key() == 0);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    TURN_UNTIL(nodes_with_key() == NODES);
}

static void test_connections_lost_while_asking(void **state)
{
    (void)state;
    close_contender(&test.a);
    test.settings.node_timeout_ms = 900; /* the loss must be what ends it */
    open_contender(&test.a, &test.loop);
    TURN_UNTIL(redlock_voting(test.a.redlock) == NODES);
    freeze(0, 3);
    acquire(&test.a);
    turn_for(20);
    assert_int_equal(test.a.events, 0);
    /* One is lost, two answer late: a majority still. */
    redis_fixture_kill(&test.redis[0]);
    thaw(1, 2);
    assert_int_equal(next_event(&test.a), REDLOCK_ACQUIRED);
    redlock_release(test.a.lease);
    turn_for(20);
    /* Three of four are lost. */
    freeze(1, 2);
    acquire(&test.a);
    turn_for(20);
    redis_fixture_kill(&test.redis[1]);
    redis_fixture_kill(&test.redis[2]);
    assert_int_equal(next_event(&test.a), REDLOCK_NOT_ACQUIRED);
    TURN_UNTIL(nodes_with_key() == 0);
}

/* --- extension ----------------------------------------------------------------------------------------------------------------------- */
static void test_extension(void **state)
{
    (void)state;
    test.settings.extensions_max = 2;
    set_ttl(TTL_MS);
    int64_t began_us = now_us();
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_NOT_ACQUIRED);
    for (int i = 0; i < test.settings.extensions_max; i++) {
        turn_for(TTL_MS / 2);
        int64_t left_us = redlock_left_us(test.a.lease);
        assert_true(left_us > 0 && left_us <= TTL_MS * 1000 / 2);
        assert_true(redlock_extend(test.a.lease));
        assert_false(redlock_extend(test.a.lease)); /* one at a time */
        assert_true(holds(&test.a));                /* meanwhile too */
        assert_int_equal(next_event(&test.a), REDLOCK_EXTENDED);
        assert_true(redlock_left_us(test.a.lease) > TTL_MS * 1000 / 2);
        assert_int_equal(acquire_and_wait(&test.b), REDLOCK_NOT_ACQUIRED);
    }
    assert_true(now_us() - began_us > TTL_MS * 1000);
    assert_false(redlock_extend(test.a.lease)); /* nobody keeps it for ever */
    assert_int_equal(next_event(&test.a), REDLOCK_LOST);
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_ACQUIRED);
    assert_int_equal(counted(METRICS_lock_extensions), test.settings.extensions_max);
    assert_false(redlock_extend(test.a.lease));
}

/* It stays to the old end, not longer. */
static void test_extension_without_a_majority(void **state)
{
    (void)state;
    set_ttl(SHORT_TTL_MS);
    int64_t began_us = now_us();
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    freeze(0, 3);
    assert_true(redlock_extend(test.a.lease));
    assert_int_equal(next_event(&test.a), REDLOCK_NOT_EXTENDED);
    assert_true(holds(&test.a));
    assert_int_equal(next_event(&test.a), REDLOCK_LOST);
    assert_true(now_us() - began_us < (SHORT_TTL_MS + SLACK_MS) * 1000);
}

/* Of nodes that no longer have it, none says yes. */
static void test_extension_of_a_key_that_is_gone(void **state)
{
    (void)state;
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    TURN_UNTIL(nodes_with_key() == NODES);
    for (unsigned i = 0; i < MAJORITY; i++) {
        do_on(i, "SET " KEY " another");
    }
    assert_true(redlock_extend(test.a.lease));
    assert_int_equal(next_event(&test.a), REDLOCK_NOT_EXTENDED);
}

/* --- waiting ---------------------------------------------------------------------------------------------------------------------------- */
static void test_backoff_has_jitter_and_bounds(void **state)
{
    enum { RUNS = 8, TRIES = 4, FIRST_MS = 40 };
    int64_t took_us[RUNS], longest_us = 0, shortest_us = INT64_MAX;
    (void)state;
    close_contender(&test.a);
    test.settings.attempts = TRIES;
    test.settings.retry_delay_ms = FIRST_MS;
    open_contender(&test.a, &test.loop);
    TURN_UNTIL(redlock_voting(test.a.redlock) == NODES);
    do_on_all("SET " KEY " another");
    for (int i = 0; i < RUNS; i++) {
        int64_t began_us = now_us();
        assert_int_equal(acquire_and_wait(&test.a), REDLOCK_NOT_ACQUIRED);
        took_us[i] = now_us() - began_us;
        longest_us = took_us[i] > longest_us ? took_us[i] : longest_us;
        shortest_us = took_us[i] < shortest_us ? took_us[i] : shortest_us;
    }
    assert_true(longest_us < ((1 + 2 + 4) * FIRST_MS + SLACK_MS) * 1000);
    assert_true(longest_us - shortest_us > 10000); /* else they would all come back together */
    assert_int_equal(counted(METRICS_lock_retries), RUNS * (TRIES - 1));
}

/* Some nodes said yes, so nobody has it: it is tried again soon, however long one would wait for a holder. */
static void test_split_votes_are_tried_again_soon(void **state)
{
    (void)state;
    kill_nodes(0, 2, MAJORITY);
    close_contender(&test.a);
    test.settings.node_timeout_ms = 900; /* the no must be what ends it */
    test.settings.retry_delay_ms = 2000;
    open_contender(&test.a, &test.loop);
    TURN_UNTIL(redlock_voting(test.a.redlock) == MAJORITY);
    do_on(4, "SET " KEY " another");
    freeze(4, 1);
    acquire(&test.a);
    turn_for(20);
    int64_t began_us = now_us();
    thaw(4, 1);
    do_on(4, "DEL " KEY); /* behind our asking: it said no, after two had said yes */
    assert_int_equal(next_event(&test.a), REDLOCK_ACQUIRED);
    assert_true(now_us() - began_us < SLACK_MS * 1000);
    assert_in_range(counted(METRICS_lock_retries), 1, ATTEMPTS - 1);
}

/* --- ends ------------------------------------------------------------------------------------------------------------------------------- */
static void test_a_lease_may_be_freed_at_any_time(void **state)
{
    (void)state;
    redlock_lease_free(&test.a.lease); /* free */
    test.a.lease = redlock_lease_new(test.a.redlock, RESOURCE, event_cb, &test.a);
    acquire(&test.a);
    redlock_lease_free(&test.a.lease); /* asking, unsent */
    test.a.lease = redlock_lease_new(test.a.redlock, RESOURCE, event_cb, &test.a);
    acquire(&test.a);
    redlock_turn(test.a.redlock);
    redlock_lease_free(&test.a.lease); /* asking */
    test.a.lease = redlock_lease_new(test.a.redlock, RESOURCE, event_cb, &test.a);
    acquire_until_held(&test.a);
    redlock_lease_free(&test.a.lease); /* held */
    TURN_UNTIL(nodes_with_key() == 0);
    test.a.lease = redlock_lease_new(test.a.redlock, RESOURCE, event_cb, &test.a);
    test.a.frees = true;
    acquire(&test.a);
    TURN_UNTIL(test.a.lease == NULL); /* in its event */
    TURN_UNTIL(nodes_with_key() == 0);
    assert_int_equal(acquire_and_wait(&test.b), REDLOCK_ACQUIRED);
    assert_true(redlock_extend(test.b.lease));
    redlock_lease_free(&test.b.lease); /* extending */
    TURN_UNTIL(nodes_with_key() == 0);
}

static void test_a_close_releases(void **state)
{
    (void)state;
    set_ttl(10000);
    assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
    close_contender(&test.a);
    TURN_UNTIL(nodes_with_key() == 0);
    acquire(&test.b);
    close_contender(&test.b); /* with answers on their way */
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void test_how_long_it_takes(void **state)
{
    enum { CYCLES = 2000 };
    static int64_t took_us[CYCLES], cycle_us[CYCLES];
    (void)state;
    set_ttl(10000);
    for (int i = 0; i < CYCLES; i++) {
        int64_t began_us = now_us();
        assert_int_equal(acquire_and_wait(&test.a), REDLOCK_ACQUIRED);
        took_us[i] = now_us() - began_us;
        redlock_release(test.a.lease);
        redlock_turn(test.a.redlock);
        cycle_us[i] = now_us() - began_us;
    }
    qsort(took_us, CYCLES, sizeof *took_us, by_size);
    qsort(cycle_us, CYCLES, sizeof *cycle_us, by_size);
    print_message("[  FIGURE  ] five nodes, nobody else: acquire p50 %lld us, p99 %lld us; with release sent "
                  "p50 %lld us, p99 %lld us\n",
                  (long long)took_us[CYCLES / 2], (long long)took_us[CYCLES * 99 / 100],
                  (long long)cycle_us[CYCLES / 2], (long long)cycle_us[CYCLES * 99 / 100]);
    assert_true(took_us[CYCLES / 2] < NODE_TIMEOUT_MS * 1000);
}

/* --- around ----------------------------------------------------------------------------------------------------------------------------- */
static int start_nodes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_start(&test.redis[i], false);
        test.nodes[i] = test.redis[i].address;
    }
    return 0;
}

static int end_nodes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_end(&test.redis[i]);
    }
    return 0;
}

static int setup_nodes_only(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++) {
        test.starts[i] = 1;
        if (test.redis[i].pid == 0) {
            redis_fixture_launch(&test.redis[i], REDIS_NOTHING_KEPT);
        }
        redis_fixture_thaw(&test.redis[i]);
        for (int64_t until = deadline_in(PATIENCE_MS); !redis_fixture_answers(&test.redis[i]);) {
            assert_true(wait_a_moment(until));
        }
    }
    do_on_all("FLUSHALL");
    test.settings = (struct redlock_settings){.nodes = test.nodes,
                                              .node_count = NODES,
                                              .ttl_ms = TTL_MS,
                                              .node_timeout_ms = NODE_TIMEOUT_MS,
                                              .attempts = ATTEMPTS,
                                              .retry_delay_ms = DELAY_MS,
                                              .extensions_max = 4,
                                              .node_starts = test.starts,
                                              .holder = {.server = SERVER, .run = RUN}};
    return 0;
}

static int setup(void **state)
{
    setup_nodes_only(state);
    uv_loop_init(&test.loop);
    uv_prepare_init(&test.loop, &test.prepare);
    uv_prepare_start(&test.prepare, prepare_cb);
    uv_timer_init(&test.loop, &test.tick);
    uv_timer_start(&test.tick, tick_cb, 5, 5);
    open_both();
    memset(&test.counters, 0, sizeof test.counters);
    metrics_use_slot(&test.counters);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close_contender(&test.a);
    close_contender(&test.b);
    uv_close((uv_handle_t *)&test.prepare, NULL);
    uv_close((uv_handle_t *)&test.tick, NULL);
    uv_run(&test.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&test.loop), 0);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_at_a_time),
        TEST(test_a_holder_hears_that_another_wants_it),
        TEST(test_resources_are_apart),
        TEST(test_keys_come_and_go),
        TEST(test_others_keys_are_left_alone),
        cmocka_unit_test_setup(test_a_thousand_rounds_of_two_processes, setup_nodes_only),
        TEST(test_two_nodes_stopped),
        TEST(test_stopped_nodes_cost_the_timeout_once),
        TEST(test_three_nodes_stopped_and_continued),
        TEST(test_a_broken_link_is_no_restart),
        TEST(test_an_old_node_votes_at_once),
        TEST(test_one_redis_has_one_vote),
        TEST(test_a_stopped_holder_finds_out),
        TEST(test_the_validity_ends),
        TEST(test_a_busy_loop_is_no_timeout),
        TEST(test_votes_do_not_outlive_the_validity),
        TEST(test_a_release_over_a_broken_link_is_owed),
        TEST(test_a_release_without_links_is_owed),
        TEST(test_a_release_reaches_the_node_that_did_not_answer),
        TEST(test_late_votes_win_nothing),
        TEST(test_a_stopped_node_is_not_asked_without_bound),
        TEST(test_extension),
        TEST(test_extension_without_a_majority),
        TEST(test_extension_of_a_key_that_is_gone),
        TEST(test_backoff_has_jitter_and_bounds),
        TEST(test_a_lease_may_be_freed_at_any_time),
        TEST(test_a_close_releases),
        TEST(test_how_long_it_takes),
        TEST(test_two_nodes_killed),
        TEST(test_split_votes_are_tried_again_soon),
        TEST(test_three_nodes_killed_and_one_back),
        TEST(test_connections_lost_while_asking),
        TEST(test_a_young_node_does_not_vote),
        TEST(test_the_first_run_of_a_private_node_votes_at_once),
        TEST(test_a_node_that_restarted_empty_does_not_vote),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start_nodes, end_nodes);
}
