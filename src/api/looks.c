/* Looks: in a flash sale thousands look at the same product in the same second, and one reading can answer them all. But a reading may answer only those
 * who asked before it began, or it would be a cache: what was sold before somebody asked is in what he sees. So of one product (and of the list) one
 * look is under way at a time, and who comes too late for it is answered by the next.
 *
 *     nobody ──first looker──▶ queued ──a thread takes it──▶ reading ──done: answers who had asked before it began──┐
 *        ▲                      ▲ │ ▲                                                                               │
 *        │                      └─┘ └──────────────────────────── somebody is left ◀────────────────────────────────┤
 *        │              newcomers join                                                                              │
 *        └──── breaker open, queue full, deadline over: 503 to all ───────────────────────────── nobody is left ◀───┘
 *
 * There are no lists of who belongs to which look: lookers stand in one line, in the order in which they asked, and at its end a look answers the front
 * of it, up to the moment when it began. Both moments are read from the same clock, the later one by the thread that reads, before it reads anything.
 *
 * A look is a job of the pool (jobs.c), and like one for breakers, the queue and its bounds: there are no more looks than that holds jobs. All who share a
 * look share how it ends; the deadline is each looker's own.
 *
 * Loop thread, but for begin_reading(). Owns the looks; a looker is in its request's arena, which lives until it is answered, also if the client has gone. */
#include "looks.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 256
#define LOOKERS_MAX 20000 /* in a worker, of all looks */

struct looker {
    struct http_request *request;
    look_view view;
    int64_t asked_us;
    struct looker *next;
};

struct looks {
    struct api *api;
    size_t lookers;
    struct look *buckets[BUCKETS]; /* by product */
};

struct looks *looks_new(struct api *api)
{
    struct looks *looks = calloc(1, sizeof *looks);
    CHECK(looks != NULL);
    looks->api = api;
    return looks;
}

void looks_free(struct looks **looks)
{
    CHECK((*looks)->lookers == 0);
    free(*looks);
    *looks = NULL;
}

static struct look **find(struct looks *looks, int64_t product_id)
{
    struct look **at = &looks->buckets[(uint64_t)product_id % BUCKETS];
    while (*at != NULL && (*at)->product_id != product_id) {
        at = &(*at)->next;
    }
    return at;
}

/* --- the line ---------------------------------------------------------------------------------------------------------------------------- */
static void push_looker(struct looks *looks, struct look *look, struct looker *looker)
{
    *look->last = looker;
    look->last = &looker->next;
    looks->lookers++;
}

static struct http_request *pop_looker(struct looks *looks, struct look *look, look_view *view)
{
    struct looker *looker = look->first;
    look->first = looker->next;
    if (look->first == NULL) {
        look->last = &look->first;
    }
    CHECK(looks->lookers > 0);
    looks->lookers--;
    *view = looker->view;
    return looker->request;
}

/* --- showing ----------------------------------------------------------------------------------------------------------------------------- */
/* Made once for all who want to see it. */
static const struct http_response *response_for(struct look *look, look_view view)
{
    struct shown *shown = &look->shown[look->shown[0].view != NULL && look->shown[0].view != view];
    CHECK(shown->view == NULL || shown->view == view);
    if (shown->view == NULL) {
        char *text = view(look);
        shown->view = view;
        shown->response = text != NULL ? http_response_new(200, HTTP_TYPE_JSON, text, strlen(text)) : NULL;
        free(text);
    }
    return shown->response;
}

static void show(struct look *look, struct http_request *request, look_view view)
{
    if (look->job.outcome == JOB_NOT_FOUND) {
        api_reply_not_found(request, "product", look->product_id);
        return;
    }
    const struct http_response *response = response_for(look, view);
    if (response != NULL) {
        http_reply_prebuilt(request, response);
    } else {
        http_reply_text(request, 200, HTTP_TYPE_JSON, NULL, 0);
    }
}

static void forget(struct look *look)
{
    for (size_t i = 0; i < sizeof look->shown / sizeof look->shown[0]; i++) {
        http_response_free(&look->shown[i].response);
        look->shown[i].view = NULL;
    }
    free(look->list);
    look->list = NULL;
}

/* --- the look ---------------------------------------------------------------------------------------------------------------------------- */
/* Pool thread. */
static void begin_reading(struct job *job, struct desk *desk)
{
    struct look *look = (struct look *)job;
    look->begun_us = clock_monotonic_us();
    look->read(job, desk);
    if (failpoint("look.read")) {
        job_unavailable(job, JOB_FAULT_STORE, "as if the store could not be read");
    }
}

static void end_look(struct job *job);
static void refuse_look(struct job *job, const struct job_refusal *why);

static void start(struct look *look)
{
    struct looks *looks = look->job.api->looks;
    look->begun_us = INT64_MAX;
    look->books = (struct books){.position = {0}};
    look->job = (struct job){.api = looks->api,
                             .work = begin_reading,
                             .reply = end_look,
                             .refuse = refuse_look,
                             .needs_gate = look->product_id != 0,
                             .deadline_us = look->first->asked_us + JOB_DEADLINE_US};
    job_start(&look->job, WORK_STORE); /* may have ended it by now */
}

/* Answers all for whom it began early enough. `why` NULL: with what it has seen. */
static void settle(struct look *look, const struct job_refusal *why)
{
    struct looks *looks = look->job.api->looks;
    uint64_t answered = 0;
    look_view view;
    while (look->first != NULL && look->first->asked_us < look->begun_us) {
        struct http_request *request = pop_looker(looks, look, &view);
        if (why != NULL) {
            job_refuse(looks->api, request, why);
        } else {
            show(look, request, view);
        }
        answered++;
    }
    forget(look);
    if (why == NULL) {
        metrics_observe(METRICS_HISTOGRAM_look_requests, answered);
    }
    if (look->first != NULL) {
        start(look);
    } else {
        *find(looks, look->product_id) = look->next;
        free(look);
    }
}

static void end_look(struct job *job)
{
    settle((struct look *)job, NULL);
}

static void refuse_look(struct job *job, const struct job_refusal *why)
{
    settle((struct look *)job, why);
}

/* --- asking ------------------------------------------------------------------------------------------------------------------------------ */
static void refuse_as_busy(struct looks *looks, struct http_request *request)
{
    const struct job_refusal why = {.queue = WORK_STORE,
                                    .is_busy = true,
                                    .wait_ms = work_expected_wait_us(looks->api->pool, WORK_STORE) / 1000};
    job_refuse(looks->api, request, &why);
}

void looks_ask(struct api *api, struct http_request *request, int64_t product_id, job_work read,
               look_view view)
{
    struct looks *looks = api->looks;
    if (looks->lookers >= LOOKERS_MAX) {
        refuse_as_busy(looks, request);
        return;
    }
    struct looker *looker = http_request_alloc(request, sizeof *looker);
    *looker = (struct looker){.request = request, .view = view, .asked_us = clock_monotonic_us()};
    struct look **at = find(looks, product_id), *look = *at;
    bool is_first = look == NULL;
    if (is_first) {
        *at = look = calloc(1, sizeof *look);
        CHECK(look != NULL);
        look->job.api = api;
        look->product_id = product_id;
        look->read = read;
        look->last = &look->first;
    }
    push_looker(looks, look, looker);
    if (is_first) {
        start(look);
    }
}

/* Also of a look that is under way: it may take longer than they have time. */
static void expire(struct looks *looks, struct look *look, int64_t now_us)
{
    look_view view;
    while (look->first != NULL && look->first->asked_us + JOB_DEADLINE_US < now_us) {
        refuse_as_busy(looks, pop_looker(looks, look, &view));
    }
}

void looks_watch(struct looks *looks)
{
    int64_t now_us = clock_monotonic_us();
    for (size_t i = 0; i < BUCKETS && looks->lookers > 0; i++) {
        for (struct look *look = looks->buckets[i]; look != NULL; look = look->next) {
            expire(looks, look, now_us);
        }
    }
}
