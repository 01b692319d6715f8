/* work_pool.h: limits, order, priority, and when the callbacks come. No test waits for time to pass: jobs
 * stop at a gate. */
#include "doorbuster/clock.h"
#include "doorbuster/work_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>

/* The number of pool threads is settled by the first pool of the process, so every test uses these. */
enum { PASSWORDS_RUNNING = 2, PASSWORDS_WAITING = 3, READS_RUNNING = 1, READS_WAITING = 4 };

struct fixture {
    uv_loop_t loop;
    struct work_pool *pool;
};

static int set_up(void **state)
{
    static struct fixture fixture;
    const struct work_limits limits[WORK_QUEUES] = {
        [WORK_PASSWORD] = {PASSWORDS_RUNNING, PASSWORDS_WAITING},
        [WORK_STORE] = {READS_RUNNING, READS_WAITING},
        [WORK_WRITE] = {1, 1},
        [WORK_CHANGE] = {1, 1},
        [WORK_SETTLE] = {1, 1},
        [WORK_SELL] = {1, 2},
    };

    if (uv_loop_init(&fixture.loop) != 0)
        return -1;
    fixture.pool = work_pool_new(&fixture.loop, limits);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    work_pool_free(&fixture->pool);
    if (fixture->pool != NULL)
        return -1;
    uv_run(&fixture->loop, UV_RUN_DEFAULT); /* the seller's handle */
    return uv_loop_close(&fixture->loop);
}

struct job {
    sem_t *gate; /* waits here if there is one */
    pthread_t worked_on, done_on;
    int worked, done, late, order;
    int nice_value;
    struct fixture *fixture;
    struct job *then; /* submitted by the done or late callback */
};

static _Atomic int at_work, most_at_work;
static int done_count; /* loop thread */

static void work(void *context)
{
    struct job *job = context;
    int now = atomic_fetch_add(&at_work, 1) + 1;
    int most = atomic_load(&most_at_work);

    while (now > most && !atomic_compare_exchange_weak(&most_at_work, &most, now)) {
    }
    if (job->gate != NULL) {
        while (sem_wait(job->gate) != 0) {
        }
    }
    job->worked_on = pthread_self();
    job->nice_value = getpriority(PRIO_PROCESS, 0);
    job->worked++;
    atomic_fetch_sub(&at_work, 1);
}

static void done(void *context)
{
    struct job *job = context;

    job->done_on = pthread_self();
    job->order = done_count++;
    job->done++;
    if (job->then != NULL)
        assert_true(work_submit(job->fixture->pool, WORK_PASSWORD, work, done, job->then));
}

static void run(struct fixture *fixture)
{
    assert_int_equal(uv_run(&fixture->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(work_pool_busy(fixture->pool), 0);
}

static void open_gate(sem_t *gate, int jobs)
{
    for (int i = 0; i < jobs; i++)
        sem_post(gate);
}

static void wait_until_at_work(int jobs)
{
    while (atomic_load(&at_work) < jobs)
        sched_yield();
}

/* Turns the loop until this many jobs are done; the test's own timeout is the deadline. */
static void run_until_done(struct fixture *fixture, int jobs)
{
    while (done_count < jobs)
        uv_run(&fixture->loop, UV_RUN_ONCE);
}

static int reset(void **state)
{
    done_count = 0;
    atomic_store(&most_at_work, 0);
    return set_up(state);
}

static void test_one_job(void **state)
{
    struct fixture *fixture = *state;
    struct job job = {0};

    assert_true(work_submit(fixture->pool, WORK_STORE, work, done, &job));
    assert_int_equal(job.done, 0); /* never before work_submit has returned */
    assert_int_equal(work_pool_busy(fixture->pool), 1);
    run(fixture);
    assert_int_equal(job.worked, 1);
    assert_int_equal(job.done, 1);
    assert_false(pthread_equal(job.worked_on, pthread_self()));
    assert_true(pthread_equal(job.done_on, pthread_self()));
}

static void test_priorities(void **state)
{
    struct fixture *fixture = *state;
    int own = getpriority(PRIO_PROCESS, 0);

    /* Over and over: a thread that has done the one kind may get the other next. */
    for (int i = 0; i < 20; i++) {
        struct job password = {0}, read = {0};
        assert_true(work_submit(fixture->pool, WORK_PASSWORD, work, done, &password));
        assert_true(work_submit(fixture->pool, WORK_STORE, work, done, &read));
        run(fixture);
        assert_int_equal(password.nice_value, 19);
        assert_int_equal(read.nice_value, own + 5 < 19 ? own + 5 : 19);
        assert_int_equal(getpriority(PRIO_PROCESS, 0), own); /* the loop's own thread is left alone */
    }
}

static void test_first_in_first_out(void **state)
{
    struct fixture *fixture = *state;
    struct job jobs[READS_RUNNING + READS_WAITING] = {0};

    for (int i = 0; i < READS_RUNNING + READS_WAITING; i++)
        assert_true(work_submit(fixture->pool, WORK_STORE, work, done, &jobs[i]));
    run(fixture);
    for (int i = 0; i < READS_RUNNING + READS_WAITING; i++) {
        assert_int_equal(jobs[i].worked, 1);
        assert_int_equal(jobs[i].order, i);
    }
    assert_int_equal(atomic_load(&most_at_work), READS_RUNNING);
}

static void test_a_full_queue_says_no(void **state)
{
    struct fixture *fixture = *state;
    enum { ALL = PASSWORDS_RUNNING + PASSWORDS_WAITING };
    struct job jobs[ALL] = {0}, refused = {0}, again = {0};
    sem_t gate;

    assert_int_equal(sem_init(&gate, 0, 0), 0);
    for (int i = 0; i < ALL; i++) {
        jobs[i].gate = &gate;
        assert_true(work_submit(fixture->pool, WORK_PASSWORD, work, done, &jobs[i]));
        assert_int_equal(work_pool_busy(fixture->pool), i + 1);
    }
    for (int i = 0; i < 3; i++)
        assert_false(work_submit(fixture->pool, WORK_PASSWORD, work, done, &refused));
    assert_int_equal(work_pool_busy(fixture->pool), ALL);

    wait_until_at_work(PASSWORDS_RUNNING);

    /* One that ends makes room for one more. */
    open_gate(&gate, 1);
    run_until_done(fixture, 1);
    again.gate = &gate;
    assert_true(work_submit(fixture->pool, WORK_PASSWORD, work, done, &again));
    assert_false(work_submit(fixture->pool, WORK_PASSWORD, work, done, &refused));

    open_gate(&gate, ALL);
    run(fixture);
    for (int i = 0; i < ALL; i++)
        assert_int_equal(jobs[i].done, 1);
    assert_int_equal(again.done, 1);
    assert_int_equal(refused.worked + refused.done, 0);
    assert_int_equal(atomic_load(&most_at_work), PASSWORDS_RUNNING);
    sem_destroy(&gate);
}

static void test_a_login_storm_does_not_keep_out_a_read(void **state)
{
    struct fixture *fixture = *state;
    enum { ALL = PASSWORDS_RUNNING + PASSWORDS_WAITING };
    struct job logins[ALL] = {0}, reads[READS_RUNNING + READS_WAITING] = {0};
    sem_t gate;

    assert_int_equal(sem_init(&gate, 0, 0), 0);
    for (int i = 0; i < ALL; i++) {
        logins[i].gate = &gate;
        assert_true(work_submit(fixture->pool, WORK_PASSWORD, work, done, &logins[i]));
    }
    for (int i = 0; i < READS_RUNNING + READS_WAITING; i++)
        assert_true(work_submit(fixture->pool, WORK_STORE, work, done, &reads[i]));
    run_until_done(fixture, READS_RUNNING + READS_WAITING); /* would not end if a read stood behind a login */
    for (int i = 0; i < ALL; i++)
        assert_int_equal(logins[i].done, 0);
    open_gate(&gate, ALL);
    run(fixture);
    assert_int_equal(done_count, ALL + READS_RUNNING + READS_WAITING);
    sem_destroy(&gate);
}

static void do_nothing(void *context)
{
    (void)context;
}

static void free_pool(void *context)
{
    struct fixture *fixture = context;

    work_pool_free(&fixture->pool);
}

/* Even where every thread of the pool has stepped back, and whatever the other queues do. */
static void test_selling_keeps_the_loops_priority(void **state)
{
    struct fixture *fixture = *state;
    int own = getpriority(PRIO_PROCESS, 0);
    struct job stuck = {0}, sales[3] = {0}, refused = {0};
    sem_t gate;

    assert_int_equal(sem_init(&gate, 0, 0), 0);
    stuck.gate = &gate;
    assert_true(work_submit(fixture->pool, WORK_STORE, work, done, &stuck));
    for (int i = 0; i < 3; i++)
        assert_true(work_submit(fixture->pool, WORK_SELL, work, done, &sales[i]));
    assert_false(work_submit(fixture->pool, WORK_SELL, work, done, &refused));
    run_until_done(fixture, 3); /* would not end if a sale stood behind a read */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sales[i].order, i);
        assert_int_equal(sales[i].nice_value, own);
        assert_true(pthread_equal(sales[i].worked_on, sales[0].worked_on));
        assert_true(pthread_equal(sales[i].done_on, pthread_self()));
    }
    open_gate(&gate, 1);
    run(fixture);
    assert_int_equal(stuck.done, 1);
    assert_int_equal(refused.worked + refused.done, 0);
    sem_destroy(&gate);
}

static void test_a_sale_may_free_an_idle_pool(void **state)
{
    struct fixture *fixture = *state;

    assert_true(work_submit(fixture->pool, WORK_SELL, do_nothing, free_pool, fixture));
    assert_int_equal(uv_run(&fixture->loop, UV_RUN_DEFAULT), 0);
    assert_null(fixture->pool);
}

static void test_done_may_submit(void **state)
{
    struct fixture *fixture = *state;
    struct job third = {.fixture = fixture}, second = {.fixture = fixture, .then = &third},
               first = {.fixture = fixture, .then = &second};

    assert_true(work_submit(fixture->pool, WORK_PASSWORD, work, done, &first));
    run(fixture);
    assert_int_equal(third.done, 1);
    assert_int_equal(third.order, 2);
}

static void test_done_may_free_an_idle_pool(void **state)
{
    struct fixture *fixture = *state;

    assert_true(work_submit(fixture->pool, WORK_STORE, do_nothing, free_pool, fixture));
    assert_int_equal(uv_run(&fixture->loop, UV_RUN_DEFAULT), 0);
    assert_null(fixture->pool);
}

static void late(void *context)
{
    struct job *job = context;

    job->late++;
    if (job->then != NULL)
        assert_true(work_submit(job->fixture->pool, WORK_WRITE, work, done, job->then));
}

/* Whoever waits longer than he can use is told so, though no thread has come to him; the others keep their order. */
static void test_a_late_job_is_not_done(void **state)
{
    struct fixture *fixture = *state;
    int64_t past_us = clock_monotonic_us() - 1, future_us = past_us + 60000000;
    struct job next = {0}, stuck = {0}, first = {0}, second = {.fixture = fixture, .then = &next},
               third = {0};
    sem_t gate;

    assert_int_equal(sem_init(&gate, 0, 0), 0);
    stuck.gate = &gate;
    assert_true(work_submit_until(fixture->pool, WORK_STORE, work, done, late, &stuck, past_us));
    assert_true(work_submit_until(fixture->pool, WORK_STORE, work, done, late, &first, future_us));
    assert_true(work_submit_until(fixture->pool, WORK_STORE, work, done, late, &second, past_us));
    assert_true(work_submit(fixture->pool, WORK_STORE, work, done, &third));
    work_pool_press(fixture->pool, false);
    assert_int_equal(second.late, 1);
    assert_int_equal(work_pool_busy(fixture->pool), 4); /* and the one that its end brought */
    open_gate(&gate, 1);
    run(fixture);
    assert_int_equal(second.worked + second.done, 0);
    assert_int_equal(stuck.done + first.done + third.done + next.done, 4); /* taken up in time is in time */
    assert_int_equal(stuck.late + first.late, 0);
    assert_true(first.order < third.order);
    sem_destroy(&gate);
}

static void take_five_ms(void *context)
{
    int64_t until_us = clock_monotonic_us() + 5000;

    (void)context;
    while (clock_monotonic_us() < until_us)
        sched_yield();
}

static void test_the_wait_is_known_beforehand(void **state)
{
    struct fixture *fixture = *state;
    struct job stuck = {0}, waits = {0};
    sem_t gate;

    assert_int_equal(sem_init(&gate, 0, 0), 0);
    stuck.gate = &gate;
    assert_int_equal(work_expected_wait_us(fixture->pool, WORK_STORE), 0);
    for (int i = 0; i < READS_RUNNING + READS_WAITING; i++)
        assert_true(work_submit(fixture->pool, WORK_STORE, take_five_ms, do_nothing, NULL));
    run(fixture);
    assert_int_equal(work_expected_wait_us(fixture->pool, WORK_STORE), 0); /* a thread is free */
    assert_true(work_submit(fixture->pool, WORK_STORE, work, done, &stuck));
    int64_t one_us = work_expected_wait_us(fixture->pool, WORK_STORE);
    assert_true(one_us >= 5000);
    assert_true(work_submit(fixture->pool, WORK_STORE, work, done, &waits));
    assert_true(work_expected_wait_us(fixture->pool, WORK_STORE) >= 2 * one_us);
    /* Nothing ends: then it is at least what the first one has waited. */
    int64_t since_us = clock_monotonic_us(), wait_us = 3 * one_us;
    while (clock_monotonic_us() - since_us < wait_us)
        sched_yield();
    assert_true(work_expected_wait_us(fixture->pool, WORK_STORE) >= wait_us);
    assert_int_equal(work_expected_wait_us(fixture->pool, WORK_WRITE), 0); /* the others go their way */
    open_gate(&gate, 1);
    run(fixture);
    sem_destroy(&gate);
}

static void test_many_jobs(void **state)
{
    struct fixture *fixture = *state;
    enum { MANY = 2000 };
    struct job *jobs = calloc(MANY, sizeof *jobs);
    int submitted = 0;

    assert_non_null(jobs);
    while (submitted < MANY) {
        if (work_submit(fixture->pool, submitted % 2 == 0 ? WORK_PASSWORD : WORK_STORE, work, done,
                        &jobs[submitted]))
            submitted++;
        else
            uv_run(&fixture->loop, UV_RUN_ONCE);
    }
    run(fixture);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(jobs[i].worked * 10 + jobs[i].done, 11);
    assert_true(atomic_load(&most_at_work) <= PASSWORDS_RUNNING + READS_RUNNING);
    free(jobs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_job, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_priorities, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_first_in_first_out, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_a_full_queue_says_no, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_a_login_storm_does_not_keep_out_a_read, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_done_may_submit, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_done_may_free_an_idle_pool, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_selling_keeps_the_loops_priority, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_a_sale_may_free_an_idle_pool, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_a_late_job_is_not_done, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_the_wait_is_known_beforehand, reset, tear_down),
        cmocka_unit_test_setup_teardown(test_many_jobs, reset, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
