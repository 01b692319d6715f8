/* Purchases: the path that this program exists for. On the loop's thread from the request to the gate and from the gate's answer to the
 * reply; only what an idempotency key has bought before is read in the work pool. */
#include "admission.h"
#include "orders.h"
#include "refusals.h"

#include "doorbuster/check.h"
#include "doorbuster/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- buying ------------------------------------------------------------------------------------------------------------------------ */
struct buying {
    struct gate_purchase gate;
    struct http_request *request;
    struct api *api;
    bool as_cart; /* asked for as one, so answered as one */
};

static void replay(struct buying *buying); /* the key has an order already */

static void reply_confirmed(struct buying *buying)
{
    size_t room = buying->as_cart ? ORDER_CART_BYTES : ORDER_BYTES;
    char *body = http_request_alloc(buying->request, room);
    size_t bytes = order_format(&buying->gate.purchase.order, buying->gate.purchase.at_ms, 0, buying->as_cart,
                                body, room);
    admission_tell(buying->api, buying->request, buying->gate.purchase.order.user_id);
    http_reply_bytes(buying->request, 201, HTTP_TYPE_JSON, body, bytes);
}

static void answer_cb(struct gate_purchase *purchase, void *context)
{
    struct buying *buying = context;
    switch (purchase->purchase.state) {
    case PURCHASE_CONFIRMED:
        reply_confirmed(buying);
        break;
    case PURCHASE_REFUSED:
        if (purchase->purchase.refusal == REFUSAL_ALREADY_ORDERED) {
            replay(buying);
        } else {
            refusal_reply(buying->api, buying->request, &purchase->purchase, buying->as_cart);
        }
        break;
    default:
        CHECK(purchase->purchase.state == PURCHASE_UNAVAILABLE);
        if (purchase->purchase.turned_away) {
            api_reply_later(
                buying->request, PROBLEM_UNAVAILABLE, purchase->purchase.wait_ms,
                purchase->purchase.order.key != NULL
                    ? "Purchases cannot be taken in time just now, and this request was not tried; an "
                      "earlier one with "
                      "this Idempotency-Key may have been: repeat it, with the same key, after the seconds "
                      "in "
                      "Retry-After."
                    : "Purchases cannot be taken in time just now, and this one was not tried; try again "
                      "after the seconds in Retry-After.");
            return;
        }
        api_reply_unavailable(
            buying->request,
            purchase->purchase.order.key != NULL
                ? "The purchase could not be recorded in time; try again with the same Idempotency-Key."
                : "The purchase could not be recorded in time; look at /api/purchases/me before trying "
                  "again.");
    }
}

/* --- what is asked for ------------------------------------------------------------------------------------------------------------------- */
static void take_cart_line(struct validation *validation, const cJSON *item, int i, struct sale_order *order)
{
    char path[32];
    int64_t product_id = 0, quantity = 0;
    snprintf(path, sizeof path, "items[%d]", i);
    if (!cJSON_IsObject(item)) {
        validation_add(validation, path, "must be an object with product_id and quantity");
        return;
    }
    validation_integer_in(validation, item, path, "product_id", true, 1, JSON_INTEGER_MAX, &product_id);
    validation_integer_in(validation, item, path, "quantity", true, 1, PURCHASE_QUANTITY_MAX, &quantity);
    if (product_id > 0 && quantity > 0 && cart_add(order, product_id, quantity) == CART_TOO_MANY_UNITS) {
        snprintf(path, sizeof path, "items[%d].quantity", i);
        validation_add(validation, path, "makes more than %d units of product %" PRId64 " in this cart",
                       PURCHASE_QUANTITY_MAX, product_id);
    }
}

static void take_cart(struct validation *validation, const cJSON *body, const cJSON *items,
                      struct buying *buying)
{
    static const char *const single[] = {"product_id", "quantity"};
    struct sale_order *order = &buying->gate.purchase.order;
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++) {
        const cJSON *member = cJSON_GetObjectItemCaseSensitive(body, single[i]);
        if (member != NULL && !cJSON_IsNull(member)) {
            validation_add(validation, single[i], "cannot be given beside items");
        }
    }
    int count = cJSON_IsArray(items) ? cJSON_GetArraySize(items) : 0;
    if (count < 1 || count > CART_LINES_MAX) {
        validation_add(validation, "items", "must be a list of 1 to %d lines", CART_LINES_MAX);
        return;
    }
    buying->as_cart = true;
    order->more = http_request_alloc(buying->request, (CART_LINES_MAX - 1) * sizeof order->more[0]);
    const cJSON *item;
    int i = 0;
    cJSON_ArrayForEach(item, items)
    {
        take_cart_line(validation, item, i++, order);
    }
}

static void take_order(struct validation *validation, const cJSON *body, struct buying *buying)
{
    const cJSON *items = cJSON_GetObjectItemCaseSensitive(body, "items");
    if (items != NULL && !cJSON_IsNull(items)) {
        take_cart(validation, body, items, buying);
        return;
    }
    struct sale_order *order = &buying->gate.purchase.order;
    validation_integer(validation, body, "product_id", true, 1, JSON_INTEGER_MAX, &order->product_id);
    validation_integer(validation, body, "quantity", true, 1, PURCHASE_QUANTITY_MAX, &order->quantity);
}

void purchases_create(struct http_request *request, void *context)
{
    struct api *api = context;
    struct jwt_claims claims;
    cJSON *body;
    struct sale_order keyed = {0};
    if (!api_identify(api, request, &claims) || !api_idempotency_key(request, &keyed.key, &keyed.key_bytes) ||
        (body = api_json_body(request)) == NULL) {
        return;
    }
    struct buying *buying = http_request_alloc(request, sizeof *buying);
    *buying = (struct buying){.request = request, .api = api};
    buying->gate.purchase.order = keyed;
    buying->gate.purchase.order.user_id = claims.user_id;
    struct validation validation = {0};
    take_order(&validation, body, buying);
    cJSON_Delete(body);
    if (validation_failed(&validation, request)) {
        return;
    }
    buying->gate.cb = answer_cb;
    buying->gate.context = buying;
    gate_submit(api->gate, &buying->gate);
}

void purchases_create_redlock(struct http_request *request, void *context)
{
    const struct api *api = context;
    if (api->settings.place->kind == GATE_REDLOCK) {
        purchases_create(request, context);
        return;
    }
    http_reply_problem(
        request, &http_problems[HTTP_PROBLEM_NOT_FOUND], NULL,
        "This server sells through the Lua gate, at /api/purchases. To turn the Redlock gate on, start "
        "the server with --gate redlock, or with DOORBUSTER_GATE=redlock in its environment.");
}

/* --- the same again: what did this key buy? ---------------------------------------------------------------------------------------------- */
struct replay_job {
    struct job job;
    const struct purchase *asked; /* the request's, until it is answered */
    bool as_cart;
    struct full_order found;
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
    if (desk_needs_reader(desk, job) && order_read(job, desk->reader, asked->figure, &replaying->found) &&
        !is_of_key(&replaying->found.order, &asked->order)) {
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
                       "%s already; it cannot buy something else.",
                       first->quantity, first->product_id,
                       order_has_several_lines(first) ? " and others" : "");
}

static void replay_reply(struct job *job)
{
    const struct replay_job *replaying = (const struct replay_job *)job;
    const struct sale_order *asked = &replaying->asked->order, *first = &replaying->found.order.sale;
    if (job->outcome == JOB_NOT_FOUND) {
        reply_in_progress(job->request);
    } else if (replaying->found.order.state == ORDER_REJECTED) {
        refusal_reply_rejected(job->request);
    } else if (!order_has_same_lines(first, asked)) {
        reply_key_reused(job->request, first);
    } else {
        /* The gate may have asked Redis twice for one request: then its own order is no repeat. */
        if (first->request != asked->request) {
            http_reply_header(job->request, "Idempotent-Replayed", "true");
        }
        order_reply(job->request, 201, &replaying->found.order, replaying->as_cart);
    }
}

static void replay(struct buying *buying)
{
    struct replay_job *replaying =
        job_new(buying->api, buying->request, sizeof *replaying, replay_work, replay_reply);
    replaying->asked = &buying->gate.purchase;
    replaying->as_cart = buying->as_cart;
    job_start(&replaying->job, WORK_STORE);
}
