/* Jobs off the loop, and the desks they work at: a desk is a pool thread's connections to the store and to the gate. job_start and the replies
 * run on the loop's thread, the work on a pool thread; between them the job belongs to the pool. The free list of desks has a mutex, a desk
 * has one user at a time. A desk whose connection failed opens a new one for the next job.
 *
 * What keeps failing is not asked by each: a breaker for the store, and one for the books' other side (Redis, the nodes). And what would wait beyond its
 * deadline is refused at once. */
#include "api_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIS_TIMEOUT_MS 1000
#define NODE_TIMEOUT_MS 250 /* one node of several that hangs must not hold up those who read */

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

bool job_unavailable(struct job *job, enum job_fault fault, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(job->error, sizeof job->error, format, arguments);
    va_end(arguments);
    job->outcome = JOB_UNAVAILABLE;
    job->fault = fault;
    return false;
}

bool job_change_needs_gate(const struct api *api)
{
    return api->settings.place->kind == GATE_LUA;
}

static bool open_store(struct store **store, struct desk *desk, enum store_mode mode, struct job *job)
{
    char error[sizeof job->error];
    if (*store == NULL &&
        store_open(store, desk->api->settings.store_url, mode, error, sizeof error) != STORE_OK) {
        return job_unavailable(job, JOB_FAULT_STORE, "%s", error);
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

/* A new epoch may be at another Redis, while the one that this desk knows goes on answering: an old master that is cut off. */
static void follow_epoch(struct desk *desk)
{
    uint64_t epoch = gate_epoch(desk->api->gate);
    if (desk->epoch != epoch) {
        gate_side_close(&desk->side);
    }
    desk->epoch = epoch;
}

bool desk_needs_gate(struct desk *desk, struct job *job)
{
    char error[sizeof job->error];
    follow_epoch(desk);
    return gate_side_ready(&desk->side, error, sizeof error) ||
           job_unavailable(job, JOB_FAULT_GATE, "%s", error);
}

void desk_doubt_gate(struct desk *desk, const struct job *job)
{
    if (job->outcome != JOB_OK) {
        gate_side_close(&desk->side);
    }
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
        return job_unavailable(job, JOB_FAULT_STORE, "%s", store_error(store));
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
    metrics_observe(METRICS_HISTOGRAM_queue_wait_us,
                    (uint64_t)(clock_monotonic_us() + JOB_DEADLINE_US - job->deadline_us));
    struct desk *desk = desk_borrow(job->api);
    job->work(job, desk);
    job->untold = desk->side.untold;
    desk->side.untold = 0;
    desk_return(desk);
}

/* --- the breakers ----------------------------------------------------------------------------------------------------------------------- */
static void tell_breaker(struct breaker *breaker, bool is_at_fault, bool is_well, const char *error)
{
    int64_t now_us = clock_monotonic_us();
    if (is_at_fault) {
        breaker_failed(breaker, now_us, error);
    } else if (is_well) {
        breaker_succeeded(breaker, now_us);
    } else {
        breaker_abandoned(breaker);
    }
}

static bool needs_store(const struct job *job)
{
    return job->queue != WORK_PASSWORD;
}

static void tell_breakers(struct job *job)
{
    bool unavailable = job->outcome == JOB_UNAVAILABLE;
    if (needs_store(job)) {
        tell_breaker(&job->api->store, unavailable && job->fault == JOB_FAULT_STORE, !unavailable,
                     job->error);
    }
    if (job->needs_gate) { /* it may have been answered without: only a job that did all says that the gate is well */
        tell_breaker(&job->api->books, unavailable && job->fault == JOB_FAULT_GATE, job->outcome == JOB_OK,
                     job->error);
    }
}

/* A password job needs no store, but one that comes next does: no use in hashing for one that is away. */
static bool may_be_worth_hashing(const struct breaker *store, int64_t now_us, unsigned *retry_ms)
{
    *retry_ms = store->open_ms;
    return store->state != BREAKER_OPEN || now_us - store->since_us >= (int64_t)store->open_ms * 1000;
}

static bool breakers_allow(struct job *job, unsigned *retry_ms)
{
    struct api *api = job->api;
    int64_t now_us = clock_monotonic_us();
    if (!needs_store(job)) {
        return may_be_worth_hashing(&api->store, now_us, retry_ms);
    }
    if (!breaker_allows(&api->store, now_us, retry_ms)) {
        return false;
    }
    if (job->needs_gate && !breaker_allows(&api->books, now_us, retry_ms)) {
        breaker_abandoned(&api->store);
        return false;
    }
    return true;
}

static void abandon(struct job *job)
{
    if (needs_store(job)) {
        breaker_abandoned(&job->api->store);
    }
    if (job->needs_gate) {
        breaker_abandoned(&job->api->books);
    }
}

/* --- replies ---------------------------------------------------------------------------------------------------------------------------- */
static const char *away_words(const struct api *api)
{
    return api->settings.place->kind == GATE_REDLOCK
               ? "The store or the lock nodes cannot be reached just now."
               : "The store or Redis cannot be reached just now.";
}

static void shed(struct http_request *request, const struct job_refusal *why)
{
    static const enum metrics_counter counters[WORK_QUEUES] = {
        [WORK_PASSWORD] = METRICS_shed_password, [WORK_STORE] = METRICS_shed_store,
        [WORK_WRITE] = METRICS_shed_write,       [WORK_CHANGE] = METRICS_shed_change,
        [WORK_SETTLE] = METRICS_shed_settle,     [WORK_SELL] = METRICS_shed_sell,
    };
    metrics_add(counters[why->queue], 1);
    if (why->queue == WORK_PASSWORD) {
        metrics_add(METRICS_logins_refused_busy, 1);
        api_reply_later(request, PROBLEM_TOO_BUSY, why->wait_ms,
                        "Too many people are signing in; try again after the seconds in Retry-After.");
    } else {
        api_reply_later(request, PROBLEM_UNAVAILABLE, why->wait_ms,
                        "Too much is waiting for the store; try again after the seconds in Retry-After.");
    }
}

void job_refuse(const struct api *api, struct http_request *request, const struct job_refusal *why)
{
    if (why->is_busy) {
        shed(request, why);
    } else {
        api_reply_later(request, PROBLEM_UNAVAILABLE, why->wait_ms, away_words(api));
    }
}

static void refuse(struct job *job, bool is_busy, int64_t wait_ms)
{
    const struct job_refusal why = {.queue = job->queue, .is_busy = is_busy, .wait_ms = wait_ms};
    if (job->refuse != NULL) {
        job->refuse(job, &why);
    } else {
        job_refuse(job->api, job->request, &why);
    }
}

static void log_failure(const struct job *job)
{
    if (job->request != NULL) {
        log_event(LOG_ERROR, LOG_FIELDS(LOG_WORDS("request_id", http_request_id(job->request))),
                  "answered 503: %s", job->error);
    } else {
        log_error("answered 503: %s", job->error);
    }
}

static void job_done_cb(void *context)
{
    struct job *job = context;
    metrics_add(METRICS_nodes_untold, job->untold);
    tell_breakers(job);
    if (job->outcome == JOB_UNAVAILABLE) {
        log_failure(job);
        refuse(job, false, 0);
        return;
    }
    job->reply(job);
}

/* No thread took it up in time. */
static void job_late_cb(void *context)
{
    struct job *job = context;
    abandon(job);
    refuse(job, true, work_expected_wait_us(job->api->pool, job->queue) / 1000);
}

void job_start(struct job *job, enum work_queue queue)
{
    struct work_pool *pool = job->api->pool;
    unsigned retry_ms;
    job->queue = queue;
    if (!breakers_allow(job, &retry_ms)) {
        refuse(job, false, retry_ms);
        return;
    }
    int64_t wait_us = work_expected_wait_us(pool, queue);
    if (clock_monotonic_us() + wait_us > job->deadline_us ||
        !work_submit_until(pool, queue, work_job_cb, job_done_cb, job_late_cb, job, job->deadline_us)) {
        abandon(job);
        refuse(job, true, wait_us / 1000);
    }
}
