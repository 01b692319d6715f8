/* Products: create, list, look at one, both books of its stock. Handlers and replies on the loop's thread; the store and Redis are asked in
 * the work pool. */
#include "api_internal.h"

#include "doorbuster/books.h"
#include "doorbuster/clock.h"
#include "doorbuster/json.h"
#include "doorbuster/sale.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_CHARACTERS_MAX 200
#define DESCRIPTION_CHARACTERS_MAX 1000
#define LIMIT_MAX 1000000
#define PRODUCTS_LIST_MAX 1000
#define PRODUCTS_AT_ONCE 32

struct product_job {
    struct job job;
    int64_t actor;
    struct books books;
    enum catalog_status added;
};

struct list_job {
    struct job job;
    cJSON *list; /* made in the pool, printed on the loop */
};

static void add_time(cJSON *json, const char *name, int64_t at_ms)
{
    char text[CLOCK_RFC3339_BYTES];
    clock_rfc3339(at_ms, text);
    cJSON_AddStringToObject(json, name, text);
}

static void add_integer_or_null(cJSON *json, const char *name, bool known, int64_t value)
{
    if (known) {
        cJSON_AddNumberToObject(json, name, (double)value);
    } else {
        cJSON_AddNullToObject(json, name);
    }
}

/* `gate` is NULL where Redis was not asked: in lists. */
static cJSON *product_to_json(const struct store_product *product, const struct gate_stock *gate)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "id", (double)product->id);
    cJSON_AddStringToObject(json, "name", product->name);
    cJSON_AddNumberToObject(json, "price", (double)product->price);
    cJSON_AddNumberToObject(json, "stock", (double)product->stock);
    add_integer_or_null(json, "redis_stock", gate != NULL && gate->at_known, gate ? gate->stock_at : 0);
    cJSON_AddStringToObject(json, "description", product->description);
    add_integer_or_null(json, "per_customer_limit", product->per_customer_limit > 0,
                        product->per_customer_limit);
    cJSON_AddNumberToObject(json, "sold", (double)product->sold);
    add_time(json, "created_at", product->created_at_ms);
    add_time(json, "updated_at", product->updated_at_ms);
    return json;
}

/* --- create -------------------------------------------------------------------------------------------------------------------- */
static void create_work(struct job *job, struct desk *desk)
{
    struct product_job *product = (struct product_job *)job;
    if (!desk_needs_writer(desk, job) || !desk_needs_redis(desk, job)) {
        return;
    }
    product->added = catalog_add(desk->writer, desk->redis, &product->books.product, product->actor);
    switch (product->added) {
    case CATALOG_ADDED:
        break;
    case CATALOG_NAME_TAKEN:
        job->outcome = JOB_TAKEN;
        break;
    case CATALOG_STORE_FAILED:
        job->outcome = JOB_UNAVAILABLE;
        snprintf(job->error, sizeof job->error, "%s", store_error(desk->writer));
        break;
    case CATALOG_REDIS_FAILED:
        job->outcome = JOB_UNAVAILABLE;
        snprintf(job->error, sizeof job->error, "opening product %lld: %s",
                 (long long)product->books.product.id, redis_failure());
        break;
    case CATALOG_NOT_RECORDED:
        job->outcome = JOB_UNAVAILABLE;
        snprintf(job->error, sizeof job->error, "the opening of product %lld is not recorded yet; it will be",
                 (long long)product->books.product.id);
        break;
    }
}

static void create_reply(struct job *job)
{
    struct product_job *product = (struct product_job *)job;
    if (job->outcome == JOB_TAKEN) {
        http_reply_problem(job->request, &api_problems[PROBLEM_PRODUCT_NAME_TAKEN], NULL,
                           "There is a product \"%s\" already.", product->books.product.name);
        return;
    }
    /* Just opened: both books say the opening stock. */
    struct gate_stock gate = {.at_known = true, .stock_at = product->books.product.opening};
    http_reply_json(job->request, 201, product_to_json(&product->books.product, &gate));
}

/* Asked for in good faith, and silently leaving them out would open a sale too early or at the wrong price. */
static void refuse_not_yet(struct validation *validation, const cJSON *body)
{
    static const char *const later[] = {"starts_at", "ends_at", "components"};
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        const cJSON *member = cJSON_GetObjectItemCaseSensitive(body, later[i]);
        if (member != NULL && !cJSON_IsNull(member)) {
            validation_add(validation, later[i], "is not supported by this version");
        }
    }
}

void products_create(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    cJSON *body;
    if (!api_identify_admin(context, request, &claims) || (body = api_json_body(request)) == NULL) {
        return;
    }
    struct product_job *job = job_new(context, request, sizeof *job, create_work, create_reply);
    struct store_product *product = &job->books.product;
    const char *name = "", *description = "";
    struct validation validation = {0};
    validation_string(&validation, body, "name", true, 1, NAME_CHARACTERS_MAX, &name);
    validation_integer(&validation, body, "price", true, 1, PRODUCT_PRICE_MAX, &product->price);
    validation_integer(&validation, body, "stock", true, 0, PRODUCT_STOCK_MAX, &product->planned_stock);
    validation_string(&validation, body, "description", false, 0, DESCRIPTION_CHARACTERS_MAX, &description);
    validation_integer(&validation, body, "per_customer_limit", false, 1, LIMIT_MAX,
                       &product->per_customer_limit);
    refuse_not_yet(&validation, body);
    if (!validation_failed(&validation, request)) {
        snprintf(product->name, sizeof product->name, "%s", name);
        snprintf(product->description, sizeof product->description, "%s", description);
        job->actor = claims.user_id;
        job_start(&job->job, WORK_STORE);
    }
    cJSON_Delete(body);
}

/* --- list --------------------------------------------------------------------------------------------------------------------------- */
static void list_work(struct job *job, struct desk *desk)
{
    struct list_job *list = (struct list_job *)job;
    list->list = cJSON_CreateArray();
    struct store_product *products = malloc(PRODUCTS_AT_ONCE * sizeof *products);
    if (products == NULL || !desk_needs_reader(desk, job)) {
        job->outcome = JOB_UNAVAILABLE;
        free(products);
        return;
    }
    int64_t after = 0;
    size_t count = PRODUCTS_AT_ONCE, total = 0;
    while (count == PRODUCTS_AT_ONCE && total < PRODUCTS_LIST_MAX &&
           job_store_status(job, desk->reader,
                            store_products(desk->reader, after, products, PRODUCTS_AT_ONCE, &count))) {
        for (size_t i = 0; i < count; i++) {
            cJSON_AddItemToArray(list->list, product_to_json(&products[i], NULL));
            after = products[i].id;
        }
        total += count;
    }
    free(products);
}

static void list_reply(struct job *job)
{
    struct list_job *list = (struct list_job *)job;
    http_reply_json(job->request, 200, list->list);
}

void products_list(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    if (api_identify(context, request, &claims)) {
        struct list_job *list = job_new(context, request, sizeof *list, list_work, list_reply);
        job_start(&list->job, WORK_STORE);
    }
}

/* --- one, and its books --------------------------------------------------------------------------------------------------------------- */
static void books_work(struct job *job, struct desk *desk)
{
    struct product_job *product = (struct product_job *)job;
    if (!desk_needs_reader(desk, job) || !desk_needs_redis(desk, job)) {
        return;
    }
    switch (books_read(desk->reader, desk->redis, product->books.product.id, &product->books)) {
    case BOOKS_READ:
        break;
    case BOOKS_NO_PRODUCT:
        job->outcome = JOB_NOT_FOUND;
        break;
    case BOOKS_STORE_FAILED:
        job->outcome = JOB_UNAVAILABLE;
        snprintf(job->error, sizeof job->error, "%s", store_error(desk->reader));
        break;
    case BOOKS_REDIS_FAILED:
        job->outcome = JOB_UNAVAILABLE;
        snprintf(job->error, sizeof job->error, "reading the stock from Redis: %s", redis_failure());
        break;
    }
}

static void get_reply(struct job *job)
{
    struct product_job *product = (struct product_job *)job;
    if (job->outcome == JOB_NOT_FOUND) {
        api_reply_not_found(job->request, "product", http_request_path_id(job->request));
        return;
    }
    http_reply_json(job->request, 200, product_to_json(&product->books.product, &product->books.gate));
}

static void stock_reply(struct job *job)
{
    const struct books *books = &((struct product_job *)job)->books;
    if (job->outcome == JOB_NOT_FOUND) {
        api_reply_not_found(job->request, "product", http_request_path_id(job->request));
        return;
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "product_id", (double)books->product.id);
    cJSON_AddNumberToObject(json, "db_stock", (double)books->product.stock);
    add_integer_or_null(json, "redis_stock", books->gate.at_known, books->gate.stock_at);
    cJSON_AddBoolToObject(json, "synced", books->equal);
    cJSON_AddNumberToObject(json, "available", (double)books->gate.available);
    cJSON_AddNumberToObject(json, "in_flight", (double)books->gate.in_flight);
    http_reply_json(job->request, 200, json);
}

static void start_books(struct http_request *request, struct api *api, job_reply reply)
{
    struct jwt_claims claims;
    if (api_identify(api, request, &claims)) {
        struct product_job *product = job_new(api, request, sizeof *product, books_work, reply);
        product->books.product.id = http_request_path_id(request);
        job_start(&product->job, WORK_STORE);
    }
}

void products_get(struct http_request *request, void *context)
{
    start_books(request, context, get_reply);
}

void products_stock(struct http_request *request, void *context)
{
    start_books(request, context, stock_reply);
}
