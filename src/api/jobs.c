/* Jobs off the loop, and the desks they work at: a desk is a pool thread's connections to the store and to the gate. job_start and the replies
 * run on the loop's thread, the work on a pool thread; between them the job belongs to the pool. The free list of desks has a mutex, a desk
 * has one user at a time. A desk whose connection failed opens a new one for the next job. */
#include "api_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIS_TIMEOUT_MS 1000
#define NODE_TIMEOUT_MS 250              /* one node of several that hangs must not hold up those who read */
#define JOB_DEADLINE_US INT64_C(5000000) /* from the request to its taking up */

struct desk *desk_borrow(struct api *api)
{
    pthread_mutex_lock(&api->desks_mutex);
    struct desk *desk = api->free_desks;
    if (desk != NULL) {
        api->free_desks = desk->next;
    }
    pthread_mutex_unlock(&api->desks_mutex);
    if (desk == NULL) {
        desk = calloc(1, sizeof *desk);
        CHECK(desk != NULL);
        desk->api = api;
        desk->side = (struct gate_side){
            .place = api->settings.place,
            .store_id = api->settings.store_id,
            .timeout_ms = api->settings.place->kind == GATE_LUA ? REDIS_TIMEOUT_MS : NODE_TIMEOUT_MS};
    }
    return desk;
}

void desk_return(struct desk *desk)
{
    struct api *api = desk->api;
    gate_side_rest(&desk->side);
    pthread_mutex_lock(&api->desks_mutex);
    desk->next = api->free_desks;
    api->free_desks = desk;
    pthread_mutex_unlock(&api->desks_mutex);
}

void desks_free(struct api *api)
{
    while (api->free_desks != NULL) {
        struct desk *desk = api->free_desks;
        api->free_desks = desk->next;
        store_close(&desk->reader);
        store_close(&desk->writer);
        gate_side_close(&desk->side);
        free(desk);
    }
}

static bool open_store(struct store **store, struct desk *desk, enum store_mode mode, struct job *job)
{
    if (*store == NULL &&
        store_open(store, desk->api->settings.store_url, mode, job->error, sizeof job->error) != STORE_OK) {
        job->outcome = JOB_UNAVAILABLE;
        return false;
    }
    return true;
}

bool desk_needs_reader(struct desk *desk, struct job *job)
{
    return open_store(&desk->reader, desk, STORE_READER, job);
}

bool desk_needs_writer(struct desk *desk, struct job *job)
{
    return open_store(&desk->writer, desk, STORE_WRITER, job);
}

void job_count_change(const struct job *job, enum metrics_counter counter)
{
    if (job->api->settings.place->kind == GATE_REDLOCK) {
        metrics_add(counter, 1);
    }
}

bool desk_needs_gate(struct desk *desk, struct job *job)
{
    bool ready = gate_side_ready(&desk->side, job->error, sizeof job->error);
    job->outcome = ready ? job->outcome : JOB_UNAVAILABLE;
    return ready;
}

bool desk_needs_change(struct desk *desk, struct job *job)
{
    return desk_needs_gate(desk, job) && (desk->side.place->kind == GATE_LUA || desk_needs_writer(desk, job));
}

void desk_drop_writer(struct desk *desk)
{
    store_close(&desk->writer);
}

bool job_store_status(struct job *job, const struct store *store, enum store_status status)
{
    switch (status) {
    case STORE_OK:
        return true;
    case STORE_NOT_FOUND:
        job->outcome = JOB_NOT_FOUND;
        return false;
    case STORE_TAKEN:
        job->outcome = JOB_TAKEN;
        return false;
    default:
        job->outcome = JOB_UNAVAILABLE;
        snprintf(job->error, sizeof job->error, "%s", store_error(store));
        return false;
    }
}

void *job_new(struct api *api, struct http_request *request, size_t bytes, job_work work, job_reply reply)
{
    struct job *job = http_request_alloc(request, bytes);
    memset(job, 0, bytes);
    job->api = api;
    job->request = request;
    job->work = work;
    job->reply = reply;
    job->deadline_us = clock_monotonic_us() + JOB_DEADLINE_US;
    return job;
}

static void work_job_cb(void *context)
{
    struct job *job = context;
    int64_t waited_us = clock_monotonic_us() + JOB_DEADLINE_US - job->deadline_us;
    metrics_observe(METRICS_HISTOGRAM_queue_wait_us, (uint64_t)waited_us);
    if (waited_us >
        JOB_DEADLINE_US) { /* whoever asked has had to wait too long already: do not make the others wait too */
        job->outcome = JOB_UNAVAILABLE;
        snprintf(job->error, sizeof job->error, "waited longer than %d s for a pool thread",
                 (int)(JOB_DEADLINE_US / 1000000));
        return;
    }
    struct desk *desk = desk_borrow(job->api);
    job->work(job, desk);
    job->untold = desk->side.untold;
    desk->side.untold = 0;
    desk_return(desk);
}

static void job_done_cb(void *context)
{
    struct job *job = context;
    metrics_add(METRICS_nodes_untold, job->untold);
    if (job->outcome == JOB_UNAVAILABLE) {
        log_error("answered 503: %s", job->error);
        api_reply_unavailable(job->request, job->api->settings.place->kind == GATE_REDLOCK
                                                ? "The store or the lock nodes cannot be reached just now."
                                                : "The store or Redis cannot be reached just now.");
        return;
    }
    job->reply(job);
}

void job_start(struct job *job, enum work_queue queue)
{
    if (work_submit(job->api->pool, queue, work_job_cb, job_done_cb, job)) {
        return;
    }
    if (queue == WORK_PASSWORD) {
        metrics_add(METRICS_logins_refused_busy, 1);
        http_reply_header(job->request, "Retry-After", "2");
        http_reply_problem(job->request, &api_problems[PROBLEM_TOO_BUSY], NULL,
                           "Too many people are signing in; try again in 2 seconds.");
    } else {
        api_reply_unavailable(job->request, "Too many reads are waiting for the store.");
    }
}
