/* Purchases: the path that this program exists for. On the loop's thread from the request to the gate and from the gate's answer to the
 * reply; only reading past orders goes through the work pool. Owns the prebuilt sold-out answers. */
#include "api_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/json.h"
#include "doorbuster/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDER_BYTES 320
#define PROBLEM_BYTES 512
#define LIST_DEFAULT 50
#define LIST_MAX 100

/* --- buying ------------------------------------------------------------------------------------------------------------------------ */
struct buying {
    struct gate_purchase gate;
    struct http_request *request;
    struct api *api;
};

static void replay(struct buying *buying); /* the key has an order already */

static size_t format_order(const struct sale_order *order, int64_t at_ms, char *out, size_t out_bytes)
{
    char at[CLOCK_RFC3339_BYTES];
    clock_rfc3339(at_ms, at);
    int bytes = snprintf(out, out_bytes,
                         "{\"id\":%" PRId64 ",\"user_id\":%" PRId64 ",\"product_id\":%" PRId64
                         ",\"quantity\":%" PRId64 ",\"total_price\":%" PRId64 ",\"remaining_stock\":%" PRId64
                         ",\"purchased_at\":\"%s\"}",
                         order->id, order->user_id, order->product_id, order->quantity,
                         order->quantity * order->unit_price, order->remaining, at);
    CHECK(bytes > 0 && (size_t)bytes < out_bytes);
    return (size_t)bytes;
}

static void reply_confirmed(struct buying *buying)
{
    char *body = http_request_alloc(buying->request, ORDER_BYTES);
    size_t bytes = format_order(&buying->gate.purchase.order, buying->gate.purchase.at_ms, body, ORDER_BYTES);
    http_reply_bytes(buying->request, 201, HTTP_TYPE_JSON, body, bytes);
}

static size_t format_sold_out(int64_t product_id, int64_t requested, int64_t available,
                              char out[PROBLEM_BYTES])
{
    char detail[128];
    snprintf(detail, sizeof detail, "Insufficient stock: %" PRId64 " asked for, %" PRId64 " available.",
             requested, available);
    cJSON *extensions = cJSON_CreateObject();
    cJSON_AddNumberToObject(extensions, "product_id", (double)product_id);
    cJSON_AddNumberToObject(extensions, "requested", (double)requested);
    cJSON_AddNumberToObject(extensions, "available", (double)available);
    size_t bytes = http_problem_format(out, PROBLEM_BYTES, &api_problems[PROBLEM_INSUFFICIENT_STOCK],
                                       extensions, detail);
    cJSON_Delete(extensions);
    return bytes;
}

/* "One asked for, none left" is what nearly everyone hears in a flash sale: kept ready for each product. */
static const struct http_response *sold_out_answer(struct api *api, int64_t product_id)
{
    struct sold_out_answer *answer = &api->sold_out[(uint64_t)product_id % SOLD_OUT_ANSWERS];
    if (answer->product_id != product_id) {
        char body[PROBLEM_BYTES];
        size_t bytes = format_sold_out(product_id, 1, 0, body);
        if (answer->response != NULL) {
            http_response_free(&answer->response);
        }
        answer->product_id = product_id;
        answer->response = http_response_new(api_problems[PROBLEM_INSUFFICIENT_STOCK].status,
                                             HTTP_TYPE_PROBLEM, body, bytes);
        CHECK(answer->response != NULL);
    }
    return answer->response;
}

void purchases_free_answers(struct api *api)
{
    for (size_t i = 0; i < SOLD_OUT_ANSWERS; i++) {
        if (api->sold_out[i].response != NULL) {
            http_response_free(&api->sold_out[i].response);
        }
    }
}

static void reply_sold_out(struct buying *buying)
{
    const struct purchase *purchase = &buying->gate.purchase;
    if (purchase->order.quantity == 1 && purchase->figure == 0) {
        http_reply_prebuilt(buying->request, sold_out_answer(buying->api, purchase->order.product_id));
        return;
    }
    char *body = http_request_alloc(buying->request, PROBLEM_BYTES);
    size_t bytes =
        format_sold_out(purchase->order.product_id, purchase->order.quantity, purchase->figure, body);
    http_reply_bytes(buying->request, api_problems[PROBLEM_INSUFFICIENT_STOCK].status, HTTP_TYPE_PROBLEM,
                     body, bytes);
}

static void reply_over_limit(struct buying *buying)
{
    const struct purchase *purchase = &buying->gate.purchase;
    cJSON *extensions = cJSON_CreateObject();
    cJSON_AddNumberToObject(extensions, "product_id", (double)purchase->order.product_id);
    cJSON_AddNumberToObject(extensions, "requested", (double)purchase->order.quantity);
    cJSON_AddNumberToObject(extensions, "limit", (double)purchase->limit);
    cJSON_AddNumberToObject(extensions, "owned", (double)purchase->figure);
    http_reply_problem(buying->request, &api_problems[PROBLEM_CUSTOMER_LIMIT], extensions,
                       "At most %" PRId64 " a customer; this account has %" PRId64 " and asked for %" PRId64
                       " more.",
                       purchase->limit, purchase->figure, purchase->order.quantity);
}

static void reply_rejected(struct http_request *request)
{
    http_reply_problem(request, &api_problems[PROBLEM_ORDER_REJECTED], NULL,
                       "The reservation did not fit the recorded stock; it was not made an order.");
}

static void reply_refused(struct buying *buying)
{
    switch (buying->gate.purchase.refusal) {
    case REFUSAL_INSUFFICIENT_STOCK:
        reply_sold_out(buying);
        break;
    case REFUSAL_CUSTOMER_LIMIT:
        reply_over_limit(buying);
        break;
    case REFUSAL_NOT_ON_SALE:
        api_reply_not_found(buying->request, "product on sale with the id",
                            buying->gate.purchase.order.product_id);
        break;
    case REFUSAL_REJECTED:
        reply_rejected(buying->request);
        break;
    case REFUSAL_ALREADY_ORDERED:
        replay(buying);
        break;
    case REFUSAL_NONE:
        CHECK(false);
    }
}

static void answer_cb(struct gate_purchase *purchase, void *context)
{
    struct buying *buying = context;
    switch (purchase->purchase.state) {
    case PURCHASE_CONFIRMED:
        reply_confirmed(buying);
        break;
    case PURCHASE_REFUSED:
        reply_refused(buying);
        break;
    default:
        CHECK(purchase->purchase.state == PURCHASE_UNAVAILABLE);
        api_reply_unavailable(
            buying->request,
            purchase->purchase.order.key != NULL
                ? "The purchase could not be recorded in time; try again with the same Idempotency-Key."
                : "The purchase could not be recorded in time; look at /api/purchases/me before trying "
                  "again.");
    }
}

/* The Idempotency-Key, if there is one. False: answered 400. */
static bool take_key(struct http_request *request, struct sale_order *order)
{
    static const char header[] = "Idempotency-Key";
    size_t count = http_request_header_count(request, header), bytes;
    if (count == 0) {
        return true;
    }
    if (count > 1 || !idempotency_key_parse(http_request_header(request, header), &order->key, &bytes)) {
        http_reply_problem(request, &api_problems[PROBLEM_IDEMPOTENCY_KEY], NULL,
                           count > 1 ? "There is more than one %s."
                                     : "The %s must be 1 to 255 visible ASCII characters without spaces.",
                           header);
        return false;
    }
    order->key_bytes = bytes;
    return true;
}

void purchases_create(struct http_request *request, void *context)
{
    struct api *api = context;
    struct jwt_claims claims;
    cJSON *body;
    struct sale_order keyed = {0};
    if (!api_identify(api, request, &claims) || !take_key(request, &keyed) ||
        (body = api_json_body(request)) == NULL) {
        return;
    }
    struct buying *buying = http_request_alloc(request, sizeof *buying);
    *buying = (struct buying){.request = request, .api = api};
    struct sale_order *order = &buying->gate.purchase.order;
    *order = keyed;
    struct validation validation = {0};
    order->user_id = claims.user_id;
    validation_integer(&validation, body, "product_id", true, 1, JSON_INTEGER_MAX, &order->product_id);
    validation_integer(&validation, body, "quantity", true, 1, PURCHASE_QUANTITY_MAX, &order->quantity);
    cJSON_Delete(body);
    if (validation_failed(&validation, request)) {
        return;
    }
    buying->gate.cb = answer_cb;
    buying->gate.context = buying;
    gate_submit(api->gate, &buying->gate);
}

/* --- the same again: what did this key buy? ---------------------------------------------------------------------------------------------- */
struct replay_job {
    struct job job;
    const struct purchase *asked; /* the request's, until it is answered */
    struct store_order found;
};

/* Redis may have forgotten the reservation that the key stood for, and given its order id to somebody else, or to another purchase of the
 * same buyer: then the key has no order (any more), and the next try will be decided anew. */
static bool is_of_key(const struct store_order *found, const struct sale_order *asked)
{
    return found->sale.user_id == asked->user_id && strlen(found->idempotency_key) == asked->key_bytes &&
           memcmp(found->idempotency_key, asked->key, asked->key_bytes) == 0;
}

static void replay_work(struct job *job, struct desk *desk)
{
    struct replay_job *replaying = (struct replay_job *)job;
    const struct purchase *asked = replaying->asked;
    if (desk_needs_reader(desk, job) &&
        job_store_status(job, desk->reader,
                         store_find_order(desk->reader, asked->figure, &replaying->found)) &&
        !is_of_key(&replaying->found, &asked->order)) {
        job->outcome = JOB_NOT_FOUND;
    }
}

static void reply_in_progress(struct http_request *request)
{
    http_reply_header(request, "Retry-After", "1");
    http_reply_problem(request, &api_problems[PROBLEM_REQUEST_IN_PROGRESS], NULL,
                       "A purchase with this Idempotency-Key is being recorded; ask again in a second.");
}

static void reply_key_reused(struct http_request *request, const struct sale_order *first)
{
    cJSON *extensions = cJSON_CreateObject();
    cJSON_AddNumberToObject(extensions, "purchase_id", (double)first->id);
    http_reply_problem(request, &api_problems[PROBLEM_IDEMPOTENCY_KEY_REUSED], extensions,
                       "This Idempotency-Key has bought %" PRId64 " of product %" PRId64
                       " already; it cannot buy something else.",
                       first->quantity, first->product_id);
}

static void reply_first_order(struct http_request *request, const struct store_order *first, bool is_repeat)
{
    char *body = http_request_alloc(request, ORDER_BYTES);
    size_t bytes = format_order(&first->sale, first->at_ms, body, ORDER_BYTES);
    if (is_repeat) {
        http_reply_header(request, "Idempotent-Replayed", "true");
    }
    http_reply_bytes(request, 201, HTTP_TYPE_JSON, body, bytes);
}

static void replay_reply(struct job *job)
{
    const struct replay_job *replaying = (const struct replay_job *)job;
    const struct sale_order *asked = &replaying->asked->order, *first = &replaying->found.sale;
    if (job->outcome == JOB_NOT_FOUND) {
        reply_in_progress(job->request);
    } else if (replaying->found.state != ORDER_CONFIRMED) {
        reply_rejected(job->request);
    } else if (first->product_id != asked->product_id || first->quantity != asked->quantity) {
        reply_key_reused(job->request, first);
    } else { /* the gate may have asked Redis twice for one request: then its own order is no repeat */
        reply_first_order(job->request, &replaying->found, first->request != asked->request);
    }
}

static void replay(struct buying *buying)
{
    struct replay_job *replaying =
        job_new(buying->api, buying->request, sizeof *replaying, replay_work, replay_reply);
    replaying->asked = &buying->gate.purchase;
    job_start(&replaying->job, WORK_STORE);
}

/* --- settling: was this reservation recorded? ------------------------------------------------------------------------------------------ */
struct settling_one {
    struct gate_purchase *purchase;
    enum gate_finding finding;
    struct store_order found; /* GATE_IN_STORE, for one that was in doubt */
};

struct settling {
    struct api *api;
    size_t count;
    struct settling_one each[];
};

static enum gate_finding finding_of(const struct store_order *order)
{
    return order->state == ORDER_CONFIRMED ? GATE_IN_STORE : GATE_REJECTED_BY_STORE;
}

static enum gate_finding look_up(struct store *reader, const struct sale_order *reserved)
{
    struct store_order found;
    switch (store_find_order(reader, reserved->id, &found)) {
    case STORE_OK:
        break;
    case STORE_NOT_FOUND:
        return GATE_NOT_IN_STORE;
    default:
        return GATE_STORE_UNREADABLE;
    }
    /* Redis may have forgotten the reservation and given its order id to somebody else. */
    if (found.sale.request != reserved->request || found.sale.user_id != reserved->user_id) {
        return GATE_NOT_IN_STORE;
    }
    return finding_of(&found);
}

static bool is_in_doubt(const struct settling_one *one)
{
    return one->purchase->purchase.state == PURCHASE_ASKED;
}

static void note_request(struct settling *settling, const struct store_request *request)
{
    for (size_t i = 0; i < settling->count; i++) {
        struct settling_one *one = &settling->each[i];
        if (is_in_doubt(one) && one->purchase->purchase.order.request == request->request) {
            one->finding = finding_of(&request->order);
            one->found = request->order;
            return;
        }
    }
}

/* Those in doubt have no order id: all of them in one pass over the newest orders. */
static void look_up_doubtful(struct settling *settling, struct store *reader)
{
    struct store_request *wanted = calloc(settling->count, sizeof *wanted);
    struct log_position from = {UINT64_MAX, UINT64_MAX};
    size_t count = 0;
    CHECK(wanted != NULL);
    for (size_t i = 0; i < settling->count; i++) {
        const struct purchase *asked = &settling->each[i].purchase->purchase;
        if (is_in_doubt(&settling->each[i])) {
            wanted[count++] =
                (struct store_request){.request = asked->order.request, .user_id = asked->order.user_id};
            from = log_position_compare(asked->position, from) < 0 ? asked->position : from;
        }
    }
    bool read = count == 0 || store_find_requests(reader, from, wanted, count) == STORE_OK;
    for (size_t i = 0; i < settling->count; i++) {
        if (is_in_doubt(&settling->each[i])) {
            settling->each[i].finding = read ? GATE_NOT_IN_STORE : GATE_STORE_UNREADABLE;
        }
    }
    for (size_t i = 0; read && i < count; i++) {
        if (wanted[i].found) {
            note_request(settling, &wanted[i]);
        }
    }
    free(wanted);
}

static void settle_work_cb(void *context)
{
    struct settling *settling = context;
    struct desk *desk = desk_borrow(settling->api);
    struct job nobody = {0};
    bool open = desk_needs_reader(desk, &nobody);
    for (size_t i = 0; i < settling->count; i++) {
        struct settling_one *one = &settling->each[i];
        one->finding = !open              ? GATE_STORE_UNREADABLE
                       : is_in_doubt(one) ? GATE_NOT_IN_STORE
                                          : look_up(desk->reader, &one->purchase->purchase.order);
    }
    if (open) {
        look_up_doubtful(settling, desk->reader);
    }
    desk_return(desk);
}

static void settle_done_cb(void *context)
{
    struct settling *settling = context;
    /* From the last: what was never sold goes to the front of the queue, and the first shall be first there. */
    for (size_t i = settling->count; i-- > 0;) {
        struct settling_one *one = &settling->each[i];
        if (one->finding == GATE_IN_STORE && is_in_doubt(one)) {
            one->purchase->purchase.order = one->found.sale;
            one->purchase->purchase.at_ms = one->found.at_ms;
            one->purchase->purchase.position = one->found.position;
        }
        gate_settled(settling->api->gate, one->purchase, one->finding);
    }
    free(settling);
}

bool api_settle(void *context, struct gate_purchase *list)
{
    struct api *api = context;
    size_t count = 0;
    for (const struct gate_purchase *purchase = list; purchase != NULL; purchase = purchase->next) {
        count++;
    }
    struct settling *settling = malloc(sizeof *settling + count * sizeof settling->each[0]);
    CHECK(settling != NULL);
    settling->api = api;
    settling->count = 0;
    for (struct gate_purchase *purchase = list; purchase != NULL; purchase = purchase->next) {
        settling->each[settling->count++].purchase = purchase;
    }
    if (!work_submit(api->pool, WORK_SETTLE, settle_work_cb, settle_done_cb, settling)) {
        free(settling);
        return false;
    }
    return true;
}

/* --- past orders ------------------------------------------------------------------------------------------------------------------------- */
struct orders_job {
    struct job job;
    struct jwt_claims claims;
    int64_t before, id;
    size_t limit, count;
    char *text; /* made in the pool; in the request's arena */
    size_t text_bytes;
};

static void mine_work(struct job *job, struct desk *desk)
{
    struct orders_job *orders = (struct orders_job *)job;
    struct store_order found[LIST_MAX];
    if (!desk_needs_reader(desk, job) ||
        !job_store_status(job, desk->reader,
                          store_orders_of(desk->reader, orders->claims.user_id, orders->before, found,
                                          orders->limit, &orders->count))) {
        return;
    }
    char *at = orders->text;
    *at++ = '[';
    for (size_t i = 0; i < orders->count; i++) {
        if (found[i].state != ORDER_CONFIRMED) {
            continue;
        }
        if (at[-1] != '[') {
            *at++ = ',';
        }
        at += format_order(&found[i].sale, found[i].at_ms, at, ORDER_BYTES);
    }
    *at++ = ']';
    orders->text_bytes = (size_t)(at - orders->text);
}

static void orders_reply(struct job *job)
{
    struct orders_job *orders = (struct orders_job *)job;
    if (job->outcome != JOB_OK) { /* not there, or not the caller's: the two must look alike */
        api_reply_not_found(job->request, "purchase", orders->id);
        return;
    }
    http_reply_bytes(job->request, 200, HTTP_TYPE_JSON, orders->text, orders->text_bytes);
}

/* A query argument as a number; absent leaves *out alone. */
static void query_integer(struct validation *validation, const struct http_request *request, const char *name,
                          int64_t max, int64_t *out)
{
    const char *text = http_request_query(request, name);
    if (text != NULL && !text_to_int64(text, strlen(text), 1, max, out)) {
        validation_add(validation, name, "must be a whole number from 1 to %" PRId64, max);
    }
}

void purchases_mine(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    if (!api_identify(context, request, &claims)) {
        return;
    }
    int64_t limit = LIST_DEFAULT, before = INT64_MAX;
    struct validation validation = {0};
    query_integer(&validation, request, "limit", LIST_MAX, &limit);
    query_integer(&validation, request, "before", JSON_INTEGER_MAX, &before);
    if (validation_failed(&validation, request)) {
        return;
    }
    struct orders_job *orders = job_new(context, request, sizeof *orders, mine_work, orders_reply);
    orders->claims = claims;
    orders->limit = (size_t)limit;
    orders->before = before;
    orders->text = http_request_alloc(request, (size_t)limit * (ORDER_BYTES + 1) + 2);
    job_start(&orders->job, WORK_STORE);
}

static void get_work(struct job *job, struct desk *desk)
{
    struct orders_job *orders = (struct orders_job *)job;
    struct store_order found;
    if (!desk_needs_reader(desk, job) ||
        !job_store_status(job, desk->reader, store_find_order(desk->reader, orders->id, &found))) {
        return;
    }
    bool visible = found.sale.user_id == orders->claims.user_id || orders->claims.role == USER_ADMIN;
    if (!visible || found.state != ORDER_CONFIRMED) {
        job->outcome = JOB_NOT_FOUND;
        return;
    }
    orders->text_bytes = format_order(&found.sale, found.at_ms, orders->text, ORDER_BYTES);
}

void purchases_get(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    if (!api_identify(context, request, &claims)) {
        return;
    }
    struct orders_job *orders = job_new(context, request, sizeof *orders, get_work, orders_reply);
    orders->claims = claims;
    orders->id = http_request_path_id(request);
    orders->text = http_request_alloc(request, ORDER_BYTES);
    job_start(&orders->job, WORK_STORE);
}
