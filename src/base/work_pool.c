/* Blocking work off the loop: bounded queues in front of libuv's thread pool.
 *
 * Everything here runs on the loop's thread but run_job(), which runs on a pool thread. The pool owns its
 * jobs, one allocation each, at most the sum of all limits. Full, or out of memory: work_submit() says no and
 * nothing happens.
 *
 * How long a newcomer would wait is known from how the queue has gone lately: the mean time between two ends while others were waiting. That holds
 * whatever it is that makes them slow: few threads, a slow disk, the pace below.
 *
 * Two priorities, because a job that holds what the recorder waits for must not be starved itself. Measured
 * on two busy cores, the longest wait for a lock that a pool thread takes over and over: 2 ms at the loop's
 * priority, 9 ms at nice 5, 15 to 180 ms at nice 19, 80 to 400 ms under SCHED_IDLE. So store jobs run at nice
 * 5, and password jobs, which hold nothing, at nice 19. (For the loop's own latency SCHED_IDLE and
 * SCHED_BATCH gained nothing over nice 19: 1.5 ms in the 99th percentile, 4.6 ms without.)
 *
 * WORK_SELL is not libuv's: its jobs are done by a thread of their own (work_thread.c), which never stepped back.
 *
 * Priority alone does not keep a purchase fast: its way leads through four processes, and a processor that is busy with anything at all
 * answers the wake-up between two of them later than an idle one (measured: one thread of SCHED_IDLE beside a saturated sale took p99
 * from 3 to 8 ms, two to 11). So while purchases are under way (work_pool_press), password jobs start at a slow pace only.
 *
 *   submit ──▶ running < running_max ──▶ running ──run_job()──▶ finish_job() ──▶ done callback
 *      │                                    ▲                        │
 *      └──▶ waiting < waiting_max ──▶ waiting (first in, first out) ◀┘ starts the next
 *                                       └── deadline over ──▶ late callback
 *
 * libuv calls finish_job() from the loop, so a done callback never comes before work_submit() has returned.
 */
#include "doorbuster/work_pool.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "work_thread.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define POOL_THREADS_MAX 1024 /* libuv's own limit */
#define NICE_STORE 5
#define NICE_LOWEST 19
#define EXPIRE_EVERY_US 100000
#define PRESSED_PACE_US 500000 /* between two starts of password jobs while the loop is pressed */

struct job {
    uv_work_t request;
    struct work_pool *pool;
    struct job *next;
    enum work_queue queue;
    work_cb work;
    work_done_cb done, late; /* late NULL: there is no deadline */
    void *context;
    int64_t submitted_us, started_us, deadline_us;
};

struct queue {
    struct work_limits limits;
    unsigned running, waiting;
    struct job *first, *last; /* the waiting ones */
    int64_t job_us;           /* between two ends, lately; 0: nothing has ended yet */
    int64_t ended_us;
    bool was_waited_for; /* when the last one ended */
};

struct work_pool {
    uv_loop_t *loop;
    struct queue queues[WORK_QUEUES];
    struct work_thread *seller; /* NULL until it is needed */
    bool pressed;
    int64_t password_started_us, expired_us;
};

struct work_pool *work_pool_new(uv_loop_t *loop, const struct work_limits limits[WORK_QUEUES])
{
    struct work_pool *pool = calloc(1, sizeof *pool);
    unsigned threads = 0;
    char text[16];

    CHECK(pool != NULL);
    pool->loop = loop;
    for (int i = 0; i < WORK_QUEUES; i++) {
        CHECK(limits[i].running_max >= 1 && limits[i].running_max <= POOL_THREADS_MAX);
        pool->queues[i].limits = limits[i];
        threads += i == WORK_SELL ? 0 : limits[i].running_max;
    }
    CHECK(limits[WORK_SELL].running_max == 1);
    CHECK(threads <= POOL_THREADS_MAX);

    /* As many threads as jobs may run, so that a job libuv has accepted never waits behind one of the other
     * queue. */
    snprintf(text, sizeof text, "%u", threads);
    int rc = setenv("UV_THREADPOOL_SIZE", text, 1);
    CHECK(rc == 0);
    return pool;
}

void work_pool_free(struct work_pool **pool)
{
    if (*pool == NULL)
        return;
    CHECK(work_pool_busy(*pool) == 0);
    work_thread_stop(&(*pool)->seller);
    free(*pool);
    *pool = NULL;
}

/* The calling thread alone, on Linux. A refusal is no reason to stop: the work is right at any priority. */
static void be_nice(int value)
{
    (void)setpriority(PRIO_PROCESS, 0, value);
}

/* Once a thread, relative to what the process was started with. */
static void step_back(void)
{
    static _Thread_local bool done;

    if (!done)
        be_nice(getpriority(PRIO_PROCESS, 0) + NICE_STORE);
    done = true;
}

static void *work_at_lowest_priority(void *context)
{
    struct job *job = context;

    be_nice(NICE_LOWEST);
    job->work(job->context);
    return NULL;
}

/* A pool thread that went down to nice 19 could not come up again without a privilege, and its next job may
 * be the store's. So a password job gets a thread of its own: some 30 microseconds on top of ten milliseconds
 * of hashing. */
static void run_job(uv_work_t *request)
{
    struct job *job = request->data;
    pthread_t thread;

    step_back();
    if (job->queue == WORK_PASSWORD && pthread_create(&thread, NULL, work_at_lowest_priority, job) == 0) {
        int rc = pthread_join(thread, NULL);
        CHECK(rc == 0);
    } else {
        job->work(job->context);
    }
}

static void finish_job(uv_work_t *request, int status);

static void start(struct job *job)
{
    struct queue *queue = &job->pool->queues[job->queue];

    queue->running++;
    job->started_us = clock_monotonic_us();
    if (job->queue == WORK_PASSWORD)
        job->pool->password_started_us = job->started_us;
    CHECK(queue->running <= queue->limits.running_max);
    if (job->queue == WORK_SELL) {
        work_thread_give(job->pool->seller, job);
        return;
    }
    int rc = uv_queue_work(job->pool->loop, &job->request, run_job, finish_job);
    CHECK(rc == 0); /* it fails only without a work callback */
}

static void push_waiting(struct queue *queue, struct job *job)
{
    if (queue->last != NULL)
        queue->last->next = job;
    else
        queue->first = job;
    queue->last = job;
    queue->waiting++;
}

static struct job *pop_waiting(struct queue *queue)
{
    struct job *job = queue->first;

    if (job == NULL)
        return NULL;
    queue->first = job->next;
    if (queue->first == NULL)
        queue->last = NULL;
    job->next = NULL;
    queue->waiting--;
    return job;
}

static bool may_start(const struct work_pool *pool, enum work_queue queue_index)
{
    const struct queue *queue = &pool->queues[queue_index];

    if (queue->running == queue->limits.running_max)
        return false;
    return queue_index != WORK_PASSWORD || !pool->pressed ||
           clock_monotonic_us() - pool->password_started_us >= PRESSED_PACE_US;
}

static void start_waiting(struct work_pool *pool, enum work_queue queue_index)
{
    while (pool->queues[queue_index].first != NULL && may_start(pool, queue_index))
        start(pop_waiting(&pool->queues[queue_index]));
}

/* Takes the late ones out of the queue, into a list. */
static void take_late(struct queue *queue, int64_t now_us, struct queue *late)
{
    struct queue kept = {.first = NULL};
    struct job *job;

    while ((job = pop_waiting(queue)) != NULL)
        push_waiting(job->late != NULL && job->deadline_us < now_us ? late : &kept, job);
    queue->first = kept.first;
    queue->last = kept.last;
    queue->waiting = kept.waiting;
}

static void expire(struct work_pool *pool, int64_t now_us)
{
    struct queue late = {.first = NULL};
    struct job *job;

    if (now_us - pool->expired_us < EXPIRE_EVERY_US)
        return;
    pool->expired_us = now_us;
    for (int i = 0; i < WORK_QUEUES; i++)
        take_late(&pool->queues[i], now_us, &late);
    while ((job = pop_waiting(&late)) != NULL) {
        work_done_cb tell = job->late;
        void *context = job->context;
        free(job);
        tell(context);
    }
}

void work_pool_press(struct work_pool *pool, bool pressed)
{
    pool->pressed = pressed;
    start_waiting(pool, WORK_PASSWORD);
    expire(pool, clock_monotonic_us());
}

/* The mean of some eight. A job that nobody waited behind says what one thread needs. */
static void note_end(struct queue *queue, const struct job *job)
{
    int64_t now_us = clock_monotonic_us();
    int64_t sample_us = queue->was_waited_for ? now_us - queue->ended_us
                                              : (now_us - job->started_us) / queue->limits.running_max;

    queue->job_us += queue->job_us == 0 ? sample_us : (sample_us - queue->job_us) / 8;
    queue->ended_us = now_us;
    queue->was_waited_for = queue->first != NULL;
}

static void finish(void *context_of_job)
{
    struct job *job = context_of_job;
    struct work_pool *pool = job->pool;
    enum work_queue queue_index = job->queue;
    work_done_cb done = job->done;
    void *context = job->context;

    CHECK(pool->queues[queue_index].running > 0);
    pool->queues[queue_index].running--;
    note_end(&pool->queues[queue_index], job);
    free(job);
    /* The next job starts before the callback, which may submit another: first come, first served. */
    start_waiting(pool, queue_index);
    done(context); /* last: it may free the pool */
}

static void finish_job(uv_work_t *request, int status)
{
    CHECK(status == 0); /* nobody cancels */
    finish(request->data);
}

/* On the seller's thread. */
static void sell(void *context)
{
    struct job *job = context;

    job->work(job->context);
}

static bool has_thread(struct work_pool *pool, enum work_queue queue_index)
{
    if (queue_index == WORK_SELL && pool->seller == NULL)
        pool->seller = work_thread_start(pool->loop, sell, finish);
    return queue_index != WORK_SELL || pool->seller != NULL;
}

bool work_submit(struct work_pool *pool, enum work_queue queue_index, work_cb work, work_done_cb done,
                 void *context)
{
    return work_submit_until(pool, queue_index, work, done, NULL, context, 0);
}

bool work_submit_until(struct work_pool *pool, enum work_queue queue_index, work_cb work, work_done_cb done,
                       work_done_cb late, void *context, int64_t deadline_us)
{
    CHECK(queue_index >= 0 && queue_index < WORK_QUEUES);
    CHECK(work != NULL && done != NULL);
    struct queue *queue = &pool->queues[queue_index];
    bool may_run = queue->first == NULL && may_start(pool, queue_index);

    if ((!may_run && queue->waiting >= queue->limits.waiting_max) || !has_thread(pool, queue_index))
        return false;
    struct job *job = calloc(1, sizeof *job);
    if (job == NULL)
        return false;
    *job = (struct job){.pool = pool,
                        .queue = queue_index,
                        .work = work,
                        .done = done,
                        .late = late,
                        .context = context,
                        .submitted_us = clock_monotonic_us(),
                        .deadline_us = deadline_us};
    job->request.data = job;
    if (may_run)
        start(job);
    else
        push_waiting(queue, job);
    return true;
}

int64_t work_expected_wait_us(const struct work_pool *pool, enum work_queue queue_index)
{
    const struct queue *queue = &pool->queues[queue_index];

    if (queue->first == NULL && may_start(pool, queue_index))
        return 0;
    int64_t behind_us = (int64_t)(queue->waiting + 1) * queue->job_us;
    /* Nothing ends any more: then the first one's wait says more. */
    int64_t first_us = queue->first != NULL ? clock_monotonic_us() - queue->first->submitted_us : 0;
    return behind_us > first_us ? behind_us : first_us;
}

size_t work_pool_length(const struct work_pool *pool, enum work_queue queue_index)
{
    return (size_t)pool->queues[queue_index].running + pool->queues[queue_index].waiting;
}

size_t work_pool_busy(const struct work_pool *pool)
{
    size_t busy = 0;

    for (int i = 0; i < WORK_QUEUES; i++)
        busy += work_pool_length(pool, (enum work_queue)i);
    return busy;
}
