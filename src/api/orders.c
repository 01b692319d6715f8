/* Orders that were made: read from the store, shown as JSON, asked for by their buyers. Formatting is pure and runs on any thread; handlers and
 * replies on the loop's, reading in the work pool. Owns nothing; an order that cannot be seen is answered like one that is not there. */
#include "orders.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/json.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define LIST_DEFAULT 50
#define LIST_MAX 100
#define TAIL_BYTES 64

/* --- as text ----------------------------------------------------------------------------------------------------------------------- */
struct text {
    char *out;
    size_t bytes, used;
};

static void append(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int wrote = vsnprintf(text->out + text->used, text->bytes - text->used, format, arguments);
    va_end(arguments);
    CHECK(wrote >= 0 && (size_t)wrote < text->bytes - text->used);
    text->used += (size_t)wrote;
}

/* No more than a cart has: a store from before the log's entries were bounded may hold others. */
static void append_items(struct text *text, const struct sale_order *order)
{
    const char *separator = "";
    size_t left = CART_LINES_MAX;
    for (size_t i = 0; i < order_part_count(order) && left > 0; i++) {
        struct order_part part = order_part_at(order, i);
        if (!part.is_component) {
            left--;
            append(text,
                   "%s{\"product_id\":%" PRId64 ",\"quantity\":%" PRId64 ",\"unit_price\":%" PRId64
                   ",\"remaining_stock\":%" PRId64 "}",
                   separator, part.product_id, part.quantity, part.unit_price, part.remaining);
            separator = ",";
        }
    }
}

size_t order_format(const struct sale_order *order, int64_t at_ms, int64_t cancelled_at_ms, bool as_cart,
                    char *out, size_t out_bytes)
{
    struct text text = {.out = out, .bytes = out_bytes};
    char at[CLOCK_RFC3339_BYTES], end[TAIL_BYTES] = "}";
    if (cancelled_at_ms != 0) {
        clock_rfc3339(cancelled_at_ms, at);
        snprintf(end, sizeof end, ",\"cancelled_at\":\"%s\"}", at);
    }
    clock_rfc3339(at_ms, at);
    if (as_cart) {
        append(&text, "{\"id\":%" PRId64 ",\"user_id\":%" PRId64 ",\"items\":[", order->id, order->user_id);
        append_items(&text, order);
        append(&text, "],\"total_price\":%" PRId64 ",\"purchased_at\":\"%s\"%s", order_total_price(order), at,
               end);
    } else {
        append(&text,
               "{\"id\":%" PRId64 ",\"user_id\":%" PRId64 ",\"product_id\":%" PRId64 ",\"quantity\":%" PRId64
               ",\"total_price\":%" PRId64 ",\"remaining_stock\":%" PRId64 ",\"purchased_at\":\"%s\"%s",
               order->id, order->user_id, order->product_id, order->quantity, order_total_price(order),
               order->remaining, at, end);
    }
    return text.used;
}

bool order_has_several_lines(const struct sale_order *order)
{
    for (size_t i = 0; i < order->more_count; i++) {
        if (!order->more[i].is_component) {
            return true;
        }
    }
    return false;
}

/* --- from the store ------------------------------------------------------------------------------------------------------------------ */
static bool read_parts(struct job *job, struct store *reader, struct store_order *order,
                       struct order_part parts[ORDER_PARTS_MAX - 1])
{
    order->sale.more = parts;
    order->sale.more_count = 0;
    return order->part_count <= 1 ||
           job_store_status(job, reader,
                            store_order_parts(reader, order->sale.id, parts, ORDER_PARTS_MAX - 1,
                                              &order->sale.more_count));
}

bool order_read(struct job *job, struct store *reader, int64_t id, struct full_order *out)
{
    return job_store_status(job, reader, store_find_order(reader, id, &out->order)) &&
           read_parts(job, reader, &out->order, out->parts);
}

/* --- all of one buyer ------------------------------------------------------------------------------------------------------------------ */
struct mine_job {
    struct job job;
    int64_t user_id, before;
    size_t limit;
    cJSON *list; /* made in the pool, printed on the loop */
};

static bool add_order(struct mine_job *mine, struct store *reader, struct store_order *order)
{
    struct order_part parts[ORDER_PARTS_MAX - 1];
    char text[ORDER_CART_BYTES];
    if (!read_parts(&mine->job, reader, order, parts)) {
        return false;
    }
    order_format(&order->sale, order->at_ms, order->cancelled_at_ms, order_has_several_lines(&order->sale),
                 text, sizeof text);
    cJSON_AddItemToArray(mine->list, cJSON_CreateRaw(text));
    return true;
}

static void mine_work(struct job *job, struct desk *desk)
{
    struct mine_job *mine = (struct mine_job *)job;
    struct store_order found[LIST_MAX];
    size_t count = 0;
    if (!desk_needs_reader(desk, job) ||
        !job_store_status(
            job, desk->reader,
            store_orders_of(desk->reader, mine->user_id, mine->before, found, mine->limit, &count))) {
        return;
    }
    mine->list = cJSON_CreateArray();
    for (size_t i = 0; i < count; i++) {
        if (found[i].state != ORDER_REJECTED && !add_order(mine, desk->reader, &found[i])) {
            cJSON_Delete(mine->list);
            return;
        }
    }
}

static void mine_reply(struct job *job)
{
    http_reply_json(job->request, 200, ((struct mine_job *)job)->list);
}

void purchases_mine(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    if (!api_identify(context, request, &claims)) {
        return;
    }
    int64_t limit = LIST_DEFAULT, before = INT64_MAX;
    struct validation validation = {0};
    validation_query(&validation, request, "limit", LIST_MAX, &limit);
    validation_query(&validation, request, "before", JSON_INTEGER_MAX, &before);
    if (validation_failed(&validation, request)) {
        return;
    }
    struct mine_job *mine = job_new(context, request, sizeof *mine, mine_work, mine_reply);
    mine->user_id = claims.user_id;
    mine->limit = (size_t)limit;
    mine->before = before;
    job_start(&mine->job, WORK_STORE);
}

/* --- one --------------------------------------------------------------------------------------------------------------------------------- */
struct get_job {
    struct job job;
    struct jwt_claims claims;
    int64_t id;
    struct full_order found;
};

static void get_work(struct job *job, struct desk *desk)
{
    struct get_job *get = (struct get_job *)job;
    if (desk_needs_reader(desk, job) && order_read(job, desk->reader, get->id, &get->found) &&
        !order_is_visible(&get->found.order, &get->claims)) {
        job->outcome = JOB_NOT_FOUND;
    }
}

bool order_is_visible(const struct store_order *order, const struct jwt_claims *claims)
{
    return order->state != ORDER_REJECTED &&
           (order->sale.user_id == claims->user_id || claims->role == USER_ADMIN);
}

void order_reply(struct http_request *request, unsigned status, const struct store_order *order, bool as_cart)
{
    size_t room = as_cart ? ORDER_CART_BYTES : ORDER_BYTES;
    char *body = http_request_alloc(request, room);
    size_t bytes = order_format(&order->sale, order->at_ms, order->cancelled_at_ms, as_cart, body, room);
    http_reply_bytes(request, status, HTTP_TYPE_JSON, body, bytes);
}

static void get_reply(struct job *job)
{
    const struct get_job *get = (const struct get_job *)job;
    if (job->outcome != JOB_OK) { /* not there, or not the caller's: the two must look alike */
        api_reply_not_found(job->request, "purchase", get->id);
        return;
    }
    order_reply(job->request, 200, &get->found.order, order_has_several_lines(&get->found.order.sale));
}

void purchases_get(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    if (!api_identify(context, request, &claims)) {
        return;
    }
    struct get_job *get = job_new(context, request, sizeof *get, get_work, get_reply);
    get->claims = claims;
    get->id = http_request_path_id(request);
    job_start(&get->job, WORK_STORE);
}
