/* Purchases that were refused: what the buyer hears. Loop thread. Owns the prebuilt sold-out answers. */
#include "refusals.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PROBLEM_BYTES 512
#define CART_PROBLEM_BYTES 4096
#define CART_DETAIL_BYTES 1600

/* --- not enough in stock ---------------------------------------------------------------------------------------------------------------- */
static void add_shortage(cJSON *json, int64_t product_id, int64_t requested, int64_t available)
{
    cJSON_AddNumberToObject(json, "product_id", (double)product_id);
    cJSON_AddNumberToObject(json, "requested", (double)requested);
    cJSON_AddNumberToObject(json, "available", (double)available);
}

static size_t format_sold_out(int64_t product_id, int64_t requested, int64_t available,
                              char out[PROBLEM_BYTES])
{
    char detail[128];
    snprintf(detail, sizeof detail, "Insufficient stock: %" PRId64 " asked for, %" PRId64 " available.",
             requested, available);
    cJSON *extensions = cJSON_CreateObject();
    add_shortage(extensions, product_id, requested, available);
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

void refusals_free_answers(struct api *api)
{
    for (size_t i = 0; i < SOLD_OUT_ANSWERS; i++) {
        if (api->sold_out[i].response != NULL) {
            http_response_free(&api->sold_out[i].response);
        }
    }
}

static void reply_sold_out(struct api *api, struct http_request *request, const struct sale_order *order)
{
    if (order->quantity == 1 && order->remaining == 0) {
        http_reply_prebuilt(request, sold_out_answer(api, order->product_id));
        return;
    }
    char *body = http_request_alloc(request, PROBLEM_BYTES);
    size_t bytes = format_sold_out(order->product_id, order->quantity, order->remaining, body);
    http_reply_bytes(request, api_problems[PROBLEM_INSUFFICIENT_STOCK].status, HTTP_TYPE_PROBLEM, body,
                     bytes);
}

/* The members of the problem itself are those of the first short line: what reads a single purchase's answer reads a cart's too. */
static void reply_short_cart(struct http_request *request, const struct purchase *purchase)
{
    char detail[CART_DETAIL_BYTES] = "Insufficient stock:",
         *body = http_request_alloc(request, CART_PROBLEM_BYTES);
    size_t used = strlen(detail);
    cJSON *extensions = cJSON_CreateObject(), *shortages = cJSON_CreateArray();
    for (size_t i = 0; i < order_part_count(&purchase->order); i++) {
        struct order_part line = order_part_at(&purchase->order, i);
        if ((purchase->short_lines & UINT32_C(1) << i) == 0) {
            continue;
        }
        if (cJSON_GetArraySize(shortages) == 0) {
            add_shortage(extensions, line.product_id, line.quantity, line.remaining);
        }
        used += (size_t)snprintf(detail + used, sizeof detail - used,
                                 "%s product %" PRId64 ": %" PRId64 " asked for, %" PRId64 " available",
                                 cJSON_GetArraySize(shortages) == 0 ? "" : ";", line.product_id,
                                 line.quantity, line.remaining);
        CHECK(used < sizeof detail);
        cJSON *shortage = cJSON_CreateObject();
        add_shortage(shortage, line.product_id, line.quantity, line.remaining);
        cJSON_AddItemToArray(shortages, shortage);
    }
    used += (size_t)snprintf(detail + used, sizeof detail - used, ". Nothing was taken.");
    CHECK(used < sizeof detail);
    cJSON_AddItemToObject(extensions, "shortages", shortages);
    size_t bytes = http_problem_format(body, CART_PROBLEM_BYTES, &api_problems[PROBLEM_INSUFFICIENT_STOCK],
                                       extensions, detail);
    cJSON_Delete(extensions);
    http_reply_bytes(request, api_problems[PROBLEM_INSUFFICIENT_STOCK].status, HTTP_TYPE_PROBLEM, body,
                     bytes);
}

/* --- the others -------------------------------------------------------------------------------------------------------------------------- */
static void reply_over_limit(struct http_request *request, const struct purchase *purchase)
{
    cJSON *extensions = cJSON_CreateObject();
    cJSON_AddNumberToObject(extensions, "product_id", (double)purchase->refused_product_id);
    cJSON_AddNumberToObject(extensions, "requested", (double)purchase->requested);
    cJSON_AddNumberToObject(extensions, "limit", (double)purchase->limit);
    cJSON_AddNumberToObject(extensions, "owned", (double)purchase->figure);
    http_reply_problem(request, &api_problems[PROBLEM_CUSTOMER_LIMIT], extensions,
                       "At most %" PRId64 " of product %" PRId64 " a customer; this account has %" PRId64
                       " and asked for %" PRId64 " more.",
                       purchase->limit, purchase->refused_product_id, purchase->figure, purchase->requested);
}

static void reply_out_of_window(struct http_request *request, const struct purchase *purchase,
                                enum api_problem problem, const char *member, const char *says)
{
    char at[CLOCK_RFC3339_BYTES];
    clock_rfc3339(purchase->figure, at);
    cJSON *extensions = cJSON_CreateObject();
    cJSON_AddNumberToObject(extensions, "product_id", (double)purchase->refused_product_id);
    cJSON_AddStringToObject(extensions, member, at);
    http_reply_problem(request, &api_problems[problem], extensions,
                       "The sale of product %" PRId64 " %s %s. Nothing was taken.",
                       purchase->refused_product_id, says, at);
}

static void reply_not_open(struct http_request *request, const struct purchase *purchase)
{
    char seconds[TEXT_INT64_BYTES];
    text_from_int64(purchase->wait_ms > 1000 ? (purchase->wait_ms + 999) / 1000 : 1, seconds);
    http_reply_header(request, "Retry-After", seconds);
    reply_out_of_window(request, purchase, PROBLEM_SALE_NOT_OPEN, "starts_at", "opens at");
}

void refusal_reply_rejected(struct http_request *request)
{
    http_reply_problem(request, &api_problems[PROBLEM_ORDER_REJECTED], NULL,
                       "The reservation did not fit the recorded stock; it was not made an order.");
}

void refusal_reply(struct api *api, struct http_request *request, const struct purchase *purchase,
                   bool as_cart)
{
    switch (purchase->refusal) {
    case REFUSAL_INSUFFICIENT_STOCK:
        if (as_cart) {
            reply_short_cart(request, purchase);
        } else {
            reply_sold_out(api, request, &purchase->order);
        }
        break;
    case REFUSAL_CUSTOMER_LIMIT:
        reply_over_limit(request, purchase);
        break;
    case REFUSAL_NOT_ON_SALE:
        api_reply_not_found(request, "product on sale with the id", purchase->refused_product_id);
        break;
    case REFUSAL_NOT_OPEN:
        reply_not_open(request, purchase);
        break;
    case REFUSAL_OVER:
        reply_out_of_window(request, purchase, PROBLEM_SALE_OVER, "ends_at", "was over at");
        break;
    case REFUSAL_REJECTED:
        refusal_reply_rejected(request);
        break;
    default: /* none, and one that is answered with an order */
        CHECK(false);
    }
}
