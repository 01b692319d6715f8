/* Looking at products: the list of all, one, both books of its stock. What is read is read in the work pool, by a look that all who ask meanwhile share
 * (looks.c), and shown on the loop's thread. Owns nothing. */
#include "product_views.h"

#include "looks.h"

#include "doorbuster/check.h"

#include <stdlib.h>

#define PRODUCTS_LIST_MAX 1000
#define PRODUCTS_AT_ONCE 32
#define PRINT_BYTES_FIRST 1024

static void add_integer_or_null(cJSON *json, const char *name, bool known, int64_t value)
{
    if (known) {
        cJSON_AddNumberToObject(json, name, (double)value);
    } else {
        cJSON_AddNullToObject(json, name);
    }
}

cJSON *product_json(const struct store_product *product, int64_t stock, const struct gate_stock *gate)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "id", (double)product->id);
    cJSON_AddStringToObject(json, "name", product->name);
    cJSON_AddNumberToObject(json, "price", (double)product->price);
    cJSON_AddNumberToObject(json, "stock", (double)stock);
    add_integer_or_null(json, "redis_stock", gate != NULL && gate->at_known, gate ? gate->stock_at : 0);
    cJSON_AddStringToObject(json, "description", product->description);
    add_integer_or_null(json, "per_customer_limit", product->per_customer_limit > 0,
                        product->per_customer_limit);
    api_add_time_or_null(json, "starts_at", product->starts_at_ms);
    api_add_time_or_null(json, "ends_at", product->ends_at_ms);
    if (product->component_count > 0) {
        cJSON_AddItemToObject(json, "components", books_components_json(product));
    }
    cJSON_AddNumberToObject(json, "sold", (double)product->sold);
    cJSON_AddNumberToObject(json, "cancelled", (double)product->cancelled);
    api_add_time(json, "created_at", product->created_at_ms);
    api_add_time(json, "updated_at", product->updated_at_ms);
    return json;
}

/* Frees it. */
static char *print(cJSON *json)
{
    char *text = json != NULL ? cJSON_PrintBuffered(json, PRINT_BYTES_FIRST, false) : NULL;
    cJSON_Delete(json);
    return text;
}

static void ask(struct http_request *request, struct api *api, int64_t product_id, job_work read,
                look_view view)
{
    struct jwt_claims claims;
    if (api_identify(api, request, &claims)) {
        looks_ask(api, request, product_id, read, view);
    }
}

/* --- the list ---------------------------------------------------------------------------------------------------------------------------- */
/* Adds the next products behind `*after`. How many there were; 0: there are no more, or job->outcome says why. */
static size_t add_page(struct job *job, struct store *reader, int64_t *after, cJSON *list)
{
    struct store_product *products = malloc(PRODUCTS_AT_ONCE * sizeof *products);
    size_t count = 0;
    CHECK(products != NULL);
    bool ok =
        job_store_status(job, reader, store_products(reader, *after, products, PRODUCTS_AT_ONCE, &count));
    for (size_t i = 0; i < count && ok; i++) {
        int64_t stock = 0;
        ok = job_store_status(job, reader, books_store_stock(reader, &products[i], &stock, NULL));
        cJSON_AddItemToArray(list, product_json(&products[i], stock, NULL));
        *after = products[i].id;
    }
    free(products);
    return ok ? count : 0;
}

/* Printed in the pool too: a thousand products are a long text. */
static void read_list(struct job *job, struct desk *desk)
{
    struct look *look = (struct look *)job;
    if (!desk_needs_reader(desk, job)) {
        return;
    }
    cJSON *list = cJSON_CreateArray();
    int64_t after = 0;
    size_t count = PRODUCTS_AT_ONCE, total = 0;
    while (count == PRODUCTS_AT_ONCE && total < PRODUCTS_LIST_MAX) {
        count = add_page(job, desk->reader, &after, list);
        total += count;
    }
    look->list = print(list);
}

static char *show_list(struct look *look)
{
    char *text = look->list;
    look->list = NULL;
    return text;
}

void products_list(struct http_request *request, void *api)
{
    ask(request, api, 0, read_list, show_list);
}

/* --- one, and its books --------------------------------------------------------------------------------------------------------------- */
void product_read_books(struct job *job, struct desk *desk, struct store *reader, int64_t product_id,
                        struct books *out)
{
    switch (books_read(reader, &desk->side, product_id, out)) {
    case BOOKS_READ:
        break;
    case BOOKS_NO_PRODUCT:
        job->outcome = JOB_NOT_FOUND;
        break;
    case BOOKS_STORE_FAILED:
        job_unavailable(job, JOB_FAULT_STORE, "%s", store_error(reader));
        break;
    case BOOKS_GATE_FAILED:
        job_unavailable(job, JOB_FAULT_GATE, "reading the stock from %s: %s",
                        desk->side.place->kind == GATE_LUA ? "Redis" : "the nodes",
                        gate_side_failure(&desk->side));
        break;
    }
}

static void read_books(struct job *job, struct desk *desk)
{
    struct look *look = (struct look *)job;
    if (desk_needs_reader(desk, job) && desk_needs_gate(desk, job)) {
        product_read_books(job, desk, desk->reader, look->product_id, &look->books);
    }
}

static char *show_product(struct look *look)
{
    const struct books *books = &look->books;
    return print(product_json(&books->product, books->stock, &books->gate));
}

static char *show_stock(struct look *look)
{
    const struct books *books = &look->books;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "product_id", (double)books->product.id);
    cJSON_AddNumberToObject(json, "db_stock", (double)books->stock);
    add_integer_or_null(json, "redis_stock", books->gate.at_known, books->gate.stock_at);
    cJSON_AddBoolToObject(json, "synced", books->equal);
    cJSON_AddNumberToObject(json, "available", (double)books->gate.available);
    cJSON_AddNumberToObject(json, "in_flight", (double)books->gate.in_flight);
    return print(json);
}

void products_get(struct http_request *request, void *api)
{
    ask(request, api, http_request_path_id(request), read_books, show_product);
}

void products_stock(struct http_request *request, void *api)
{
    ask(request, api, http_request_path_id(request), read_books, show_stock);
}
