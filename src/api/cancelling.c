/* DELETE of a purchase: the order is taken back whole, once, however often it is asked for. Handlers and replies on the loop's thread, the work
 * in the pool, with the Lua gate:
 *
 *   take the gate's pass -> read the order -> cancelled already: that is the answer
 *     ^                                    -> gate_cancel() -> await its record -> read the order again: the answer
 *     +------- the pass is void -----------------+
 *
 * and with the Redlock gate, where the store itself sees to it that it is done once:
 *
 *   read the order -> cancelled already: that is the answer
 *                  -> store_cancel() -> tell the nodes -> read the order again: the answer
 *
 * Owns nothing. What cannot be done within the job's patience is answered 503; the next try finds what this one has done. */
#include "orders.h"

#include "doorbuster/books.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"

#include <stdio.h>
#include <time.h>

#define AGAIN_MS 10 /* while the gate is being opened anew */

struct cancel_job {
    struct job job;
    struct jwt_claims claims;
    int64_t id;
    bool made; /* by the store, just now */
    struct full_order found;
};

static bool give_up(struct job *job, enum job_fault fault, const char *why)
{
    return job_unavailable(job, fault, "cancelling: %s", why);
}

/* The order, as long as the caller may see it. */
static bool read_own(struct cancel_job *cancel, struct store *reader)
{
    if (!order_read(&cancel->job, reader, cancel->id, &cancel->found)) {
        return false;
    }
    if (!order_is_visible(&cancel->found.order, &cancel->claims)) {
        cancel->job.outcome = JOB_NOT_FOUND;
        return false;
    }
    return true;
}

static enum change_outcome ask_gate(const struct cancel_job *cancel, redisContext *redis,
                                    const struct gate_pass *pass, struct change_result *result, bool *is_void)
{
    const struct sale_order *order = &cancel->found.order.sale;
    struct order_part parts[ORDER_PARTS_MAX];
    struct cancellation cancellation = {.order_id = order->id,
                                        .user_id = order->user_id,
                                        .actor = cancel->claims.user_id,
                                        .parts = parts,
                                        .part_count = order_part_count(order)};
    for (size_t i = 0; i < cancellation.part_count; i++) {
        parts[i] = order_part_at(order, i);
    }
    return gate_cancel(redis, pass, &cancellation, result, is_void);
}

/* One try. False: again, or it is over and the job's outcome says how. */
static bool try_cancel(struct cancel_job *cancel, struct desk *desk, struct change_result *result)
{
    struct gate_pass pass;
    bool is_void = false;
    if (!gate_take_pass(desk->side.redis, &pass)) {
        return give_up(&cancel->job, JOB_FAULT_GATE, redis_failure());
    }
    if (!read_own(cancel, desk->reader)) {
        return false;
    }
    if (cancel->found.order.state == ORDER_CANCELLED) {
        return true;
    }
    if (failpoint("cancel.read")) {
        return give_up(&cancel->job, JOB_FAULT_OTHER, "as if the gate could not be asked");
    }
    enum change_outcome changed = ask_gate(cancel, desk->side.redis, &pass, result, &is_void);
    return changed == CHANGE_MADE || changed == CHANGE_MADE_BEFORE ||
           (!is_void && give_up(&cancel->job, JOB_FAULT_GATE, redis_failure()));
}

static bool is_cancelled(const struct cancel_job *cancel)
{
    return cancel->found.order.state == ORDER_CANCELLED;
}

/* What was done is read again: that is the answer. */
static void read_back(struct cancel_job *cancel, struct store *reader)
{
    if (read_own(cancel, reader) && !is_cancelled(cancel)) {
        give_up(&cancel->job, JOB_FAULT_OTHER, "the store did not have it");
    }
}

static void cancel_in_store(struct cancel_job *cancel, struct desk *desk)
{
    struct job *job = &cancel->job;
    enum change_outcome outcome;
    struct change_result result;
    struct stock_moves moves; /* large, and filled in by the store */
    if (!read_own(cancel, desk->reader) || is_cancelled(cancel)) {
        return;
    }
    if (failpoint("cancel.read")) {
        give_up(job, JOB_FAULT_OTHER, "as if the store could not be asked");
        return;
    }
    enum store_status status =
        store_cancel(desk->writer, cancel->id, cancel->claims.user_id, &outcome, &result, &moves);
    if (status != STORE_OK) {
        give_up(job, JOB_FAULT_STORE,
                status == STORE_FENCED ? "the store belongs to the Lua gate" : store_error(desk->writer));
        desk_drop_writer(desk);
        return;
    }
    cancel->made = outcome == CHANGE_MADE;
    books_tell_nodes(&desk->side, &moves);
    if (failpoint("cancel.done")) {
        give_up(job, JOB_FAULT_OTHER, "as if the store's answer was lost");
    } else {
        read_back(cancel, desk->reader);
    }
}

static void cancel_through_log(struct cancel_job *cancel, struct desk *desk)
{
    struct job *job = &cancel->job;
    struct change_result result = {0};
    while (!try_cancel(cancel, desk, &result)) {
        if (job->outcome != JOB_OK) {
            return;
        }
        if (clock_monotonic_us() > job->deadline_us) {
            give_up(job, JOB_FAULT_OTHER, "the gate was closed all the time");
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = AGAIN_MS * 1000000}, NULL);
    }
    if (is_cancelled(cancel)) {
        return; /* before we came */
    }
    if (failpoint("cancel.done")) {
        give_up(job, JOB_FAULT_OTHER, "as if the gate's answer was lost");
    } else if (!books_await_recorded(desk->reader, result.position, job->deadline_us)) {
        give_up(job, JOB_FAULT_OTHER, "it is not recorded yet; it will be");
    } else {
        read_back(cancel, desk->reader);
    }
    desk_doubt_gate(desk, job);
}

static void cancel_work(struct job *job, struct desk *desk)
{
    struct cancel_job *cancel = (struct cancel_job *)job;
    if (!desk_needs_reader(desk, job) || !desk_needs_change(desk, job)) {
        return;
    }
    if (desk->side.place->kind == GATE_REDLOCK) {
        cancel_in_store(cancel, desk);
    } else {
        cancel_through_log(cancel, desk);
    }
}

static void cancel_reply(struct job *job)
{
    const struct cancel_job *cancel = (const struct cancel_job *)job;
    const struct store_order *order = &cancel->found.order;
    if (job->outcome == JOB_NOT_FOUND) { /* not there, or not the caller's: the two must look alike */
        api_reply_not_found(job->request, "purchase", cancel->id);
    } else {
        if (cancel->made) {
            job_count_change(job, METRICS_recorder_cancellations);
        }
        order_reply(job->request, 200, order, order_has_several_lines(&order->sale));
    }
}

void purchases_cancel(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    if (!api_identify(context, request, &claims)) {
        return;
    }
    struct cancel_job *cancel = job_new(context, request, sizeof *cancel, cancel_work, cancel_reply);
    cancel->claims = claims;
    cancel->id = http_request_path_id(request);
    cancel->job.needs_gate = job_change_needs_gate(context);
    job_start(&cancel->job, WORK_CHANGE);
}
