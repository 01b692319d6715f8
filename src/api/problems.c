/* The problems that the API itself knows, and validation errors. Loop thread; owns nothing. */
#include "api_internal.h"

#include "doorbuster/clock.h"
#include "doorbuster/json.h"
#include "doorbuster/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DETAIL_BYTES 1000
#define FIELD_BYTES 64
#define TIME_CHARACTERS_MAX 64
#define RETRY_AFTER_MAX_S 60

const struct http_problem api_problems[API_PROBLEMS] = {
    [PROBLEM_UNAUTHORIZED] = {401, "unauthorized", "Not signed in",
                              "The call needs a valid token. Sign in at /api/auth/login and send it as "
                              "\"Authorization: Bearer …\"."},
    [PROBLEM_FORBIDDEN] = {403, "forbidden", "Not allowed",
                           "The account may not do this. Admin accounts are made by the setup tool."},
    [PROBLEM_INSUFFICIENT_STOCK] =
        {400, "insufficient-stock", "Insufficient stock",
         "Fewer units are left than were asked for; \"available\" says how many. Nothing was taken."},
    [PROBLEM_USERNAME_TAKEN] = {409, "username-taken", "User name taken",
                                "Another account has this user name. Choose another one."},
    [PROBLEM_PRODUCT_NAME_TAKEN] = {409, "product-name-taken", "Product name taken",
                                    "Another product has this name. Choose another one."},
    [PROBLEM_CUSTOMER_LIMIT] = {409, "customer-limit", "Customer limit reached",
                                "The product is sold up to a number of units a customer (\"limit\"), and "
                                "this account would have more. "
                                "Nothing was taken."},
    [PROBLEM_ORDER_REJECTED] = {409, "order-rejected", "Order rejected",
                                "The reservation did not fit the recorded stock, so it was not made an "
                                "order. Nothing was charged or kept."},
    [PROBLEM_IDEMPOTENCY_KEY] = {400, "idempotency-key", "Not an idempotency key",
                                 "The header Idempotency-Key must be there at most once, and be 1 to 255 "
                                 "visible ASCII characters without spaces, in quotes or not."},
    [PROBLEM_REQUEST_IN_PROGRESS] = {409, "request-in-progress", "The same request is still running",
                                     "An order with the same Idempotency-Key has been reserved, but is not "
                                     "on disk yet. Ask again, with the same "
                                     "key, after the seconds in Retry-After."},
    [PROBLEM_IDEMPOTENCY_KEY_REUSED] =
        {422, "idempotency-key-reused", "Idempotency key used for something else",
         "This account has used the Idempotency-Key for another request within a day: for an order of other "
         "products or quantities, which is \"purchase_id\", or for another change of a product. Choose a new "
         "key for each."},
    [PROBLEM_VALIDATION] = {422, "validation", "Values not valid",
                            "The JSON is well-formed, but some values are not valid; \"errors\" names each "
                            "field and what it may be."},
    [PROBLEM_TOO_BUSY] = {429, "too-busy", "Too many sign-ins at once",
                          "The queue for sign-ins is full. Try again after the seconds in Retry-After."},
    [PROBLEM_TOO_FAST] =
        {429, "too-fast", "Too fast",
         "More requests came from one account or one address, or more sign-ins failed, than "
         "\"limit\" allows; RateLimit-Policy says how many that is. Nothing was done: send the "
         "same again, with the same Idempotency-Key, after the seconds in Retry-After."},
    [PROBLEM_SALE_NOT_OPEN] = {409, "sale-not-open", "Sale not open yet",
                               "The sale of the product \"product_id\" opens at \"starts_at\". Nothing was "
                               "taken; come again after the seconds in Retry-After."},
    [PROBLEM_SALE_OVER] =
        {409, "sale-over", "Sale over",
         "The sale of the product \"product_id\" was over at \"ends_at\". Nothing was taken."},
    [PROBLEM_WITHDRAWAL_TOO_LARGE] = {409, "withdrawal-too-large", "Withdrawal too large",
                                      "More units were to be withdrawn than are in stock; \"available\" says "
                                      "how many are. Nothing was changed."},
    [PROBLEM_STOCK_LIMIT] = {409, "stock-limit", "Too much stock",
                             "A product holds at most 1,000,000,000 units. Nothing was changed."},
    [PROBLEM_UNAVAILABLE] =
        {503, "unavailable", "Not available now",
         "Redis, a majority of the lock nodes or the store cannot be reached, or is too far "
         "behind to promise a record in time. Try again after the "
         "seconds in Retry-After."},
};

void api_reply_unavailable(struct http_request *request, const char *detail)
{
    http_reply_header(request, "Retry-After", "1");
    http_reply_problem(request, &api_problems[PROBLEM_UNAVAILABLE], NULL, "%s", detail);
}

void api_reply_later(struct http_request *request, enum api_problem problem, int64_t wait_ms,
                     const char *detail)
{
    int64_t seconds = (wait_ms + 999) / 1000;
    seconds = seconds < 1 ? 1 : seconds > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : seconds;
    seconds += rand() % (seconds + 1);
    char text[TEXT_INT64_BYTES];
    text_from_int64(seconds, text);
    http_reply_header(request, "Retry-After", text);
    http_reply_problem(request, &api_problems[problem], NULL, "%s", detail);
}

void api_reply_not_found(struct http_request *request, const char *what, int64_t id)
{
    http_reply_problem(request, &http_problems[HTTP_PROBLEM_NOT_FOUND], NULL, "There is no %s %" PRId64 ".",
                       what, id);
}

void api_add_time(cJSON *json, const char *name, int64_t at_ms)
{
    char text[CLOCK_RFC3339_BYTES];
    clock_rfc3339(at_ms, text);
    cJSON_AddStringToObject(json, name, text);
}

void api_add_time_or_null(cJSON *json, const char *name, int64_t at_ms)
{
    if (at_ms != 0) {
        api_add_time(json, name, at_ms);
    } else {
        cJSON_AddNullToObject(json, name);
    }
}

void validation_add(struct validation *validation, const char *field, const char *format, ...)
{
    char message[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (validation->errors == NULL) {
        validation->errors = cJSON_CreateArray();
    }
    cJSON *error = cJSON_CreateObject();
    cJSON_AddStringToObject(error, "field", field);
    cJSON_AddStringToObject(error, "message", message);
    cJSON_AddItemToArray(validation->errors, error);
}

void validation_integer_in(struct validation *validation, const cJSON *object, const char *path,
                           const char *field, bool required, int64_t min, int64_t max, int64_t *out)
{
    enum json_field found = json_get_integer(object, field, min, max, out);
    if (found == JSON_FIELD_OK || (found == JSON_FIELD_MISSING && !required)) {
        return;
    }
    char label[FIELD_BYTES];
    snprintf(label, sizeof label, "%s%s%s", path, path[0] != '\0' ? "." : "", field);
    validation_add(validation, label, "%s a whole number from %" PRId64 " to %" PRId64,
                   found == JSON_FIELD_MISSING ? "is required:" : "must be", min, max);
}

void validation_integer(struct validation *validation, const cJSON *body, const char *field, bool required,
                        int64_t min, int64_t max, int64_t *out)
{
    validation_integer_in(validation, body, "", field, required, min, max, out);
}

void validation_string(struct validation *validation, const cJSON *body, const char *field, bool required,
                       size_t min, size_t max, const char **out)
{
    switch (json_get_string(body, field, min, max, out)) {
    case JSON_FIELD_OK:
        return;
    case JSON_FIELD_MISSING:
        if (required) {
            validation_add(validation, field, "is required: text of %zu to %zu characters", min, max);
        }
        return;
    case JSON_FIELD_WRONG_TYPE:
    case JSON_FIELD_OUT_OF_RANGE:
        validation_add(validation, field, "must be text of %zu to %zu characters", min, max);
    }
}

void validation_one_line(struct validation *validation, const char *field, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; at != NULL && *at != '\0'; at++) {
        if (*at < 0x20 || *at == 0x7f || (*at == 0xc2 && at[1] < 0xa0)) {
            validation_add(validation, field, "must be one line, without control characters");
            return;
        }
    }
}

void validation_time(struct validation *validation, const cJSON *body, const char *field, int64_t *out)
{
    const char *text = NULL;
    validation_string(validation, body, field, false, 1, TIME_CHARACTERS_MAX, &text);
    if (text != NULL && (!clock_parse_rfc3339(text, out) || *out == 0)) {
        validation_add(validation, field, "must be a time after 1970 as in RFC 3339: 2026-11-27T09:00:00Z");
    }
}

void validation_query(struct validation *validation, const struct http_request *request, const char *name,
                      int64_t max, int64_t *out)
{
    const char *text = http_request_query(request, name);
    if (text != NULL && !text_to_int64(text, strlen(text), 1, max, out)) {
        validation_add(validation, name, "must be a whole number from 1 to %" PRId64, max);
    }
}

bool validation_failed(struct validation *validation, struct http_request *request)
{
    if (validation->errors == NULL) {
        return false;
    }
    char detail[DETAIL_BYTES] = "";
    size_t used = 0;
    const cJSON *error;
    cJSON_ArrayForEach(error, validation->errors)
    {
        int wrote = snprintf(detail + used, sizeof detail - used, "%s%s %s", used ? "; " : "",
                             cJSON_GetObjectItemCaseSensitive(error, "field")->valuestring,
                             cJSON_GetObjectItemCaseSensitive(error, "message")->valuestring);
        used = used + (size_t)wrote < sizeof detail ? used + (size_t)wrote : sizeof detail - 1;
    }
    cJSON *extensions = cJSON_CreateObject();
    cJSON_AddItemToObject(extensions, "errors", validation->errors);
    validation->errors = NULL;
    http_reply_problem(request, &api_problems[PROBLEM_VALIDATION], extensions, "%s.", detail);
    return true;
}
