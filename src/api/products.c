/* Products: adding one to the catalogue. Handler and reply on the loop's thread; the store and the gate are asked in the work pool. */
#include "product_views.h"

#include "doorbuster/books.h"
#include "doorbuster/clock.h"
#include "doorbuster/json.h"
#include "doorbuster/sale.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_CHARACTERS_MAX 200
#define DESCRIPTION_CHARACTERS_MAX 1000
#define LIMIT_MAX 1000000
#define FIELD_BYTES 64

struct product_job {
    struct job job;
    int64_t actor;
    struct books books;
    struct store_product_request request; /* "": it came without an Idempotency-Key */
    enum catalog_status added;
    const char *component_fault; /* CATALOG_NO_COMPONENT: why */
    int64_t faulty_component;
    int64_t components_asked
        [BUNDLE_COMPONENTS_MAX]; /* their ids as they were sent: the store keeps another order */
};

/* --- create -------------------------------------------------------------------------------------------------------------------- */
/* Why can product.id, which the store named, not be a component? */
static void find_component_fault(struct product_job *product, struct store *store)
{
    struct store_product component;
    product->faulty_component = product->books.product.id;
    enum store_status status = store_find_product(store, product->faulty_component, &component);
    if (status != STORE_NOT_FOUND && !job_store_status(&product->job, store, status)) {
        return;
    }
    product->component_fault = status == STORE_NOT_FOUND       ? "names no product"
                               : component.component_count > 0 ? "names a product that is a bundle itself"
                                                               : "names a product that is not open yet";
}

static void create_work(struct job *job, struct desk *desk)
{
    struct product_job *product = (struct product_job *)job;
    if (!desk_needs_writer(desk, job) || !desk_needs_gate(desk, job)) {
        return;
    }
    product->added =
        catalog_add(desk->writer, &desk->side, &product->books.product, product->actor,
                    product->request.key[0] != '\0' ? &product->request : NULL, job->deadline_us);
    switch (product->added) {
    case CATALOG_ADDED:
        job_store_status(
            job, desk->writer,
            books_store_stock(desk->writer, &product->books.product, &product->books.stock, NULL));
        break;
    case CATALOG_REPEATED:
        product_read_books(job, desk, desk->writer, product->books.product.id, &product->books);
        break;
    case CATALOG_NAME_TAKEN:
    case CATALOG_KEY_REUSED:
        job->outcome = JOB_TAKEN;
        break;
    case CATALOG_NO_COMPONENT:
        find_component_fault(product, desk->writer);
        break;
    case CATALOG_STORE_FAILED:
        job_unavailable(job, JOB_FAULT_STORE, "%s", store_error(desk->writer));
        desk_drop_writer(desk);
        break;
    case CATALOG_GATE_FAILED:
        job_unavailable(job, JOB_FAULT_GATE, "opening product %lld: %s", (long long)product->books.product.id,
                        books_failure());
        desk_drop_writer(desk);
        break;
    case CATALOG_NOT_RECORDED:
        job_unavailable(job, JOB_FAULT_OTHER, "the opening of product %lld is not recorded yet; it will be",
                        (long long)product->books.product.id);
        break;
    }
}

static void reply_component_fault(struct http_request *request, const struct product_job *product)
{
    char field[FIELD_BYTES];
    struct validation validation = {0};
    size_t i = 0;
    while (i < BUNDLE_COMPONENTS_MAX - 1 && product->components_asked[i] != product->faulty_component) {
        i++;
    }
    snprintf(field, sizeof field, "components[%zu].product_id", i);
    validation_add(&validation, field, "%s", product->component_fault);
    validation_failed(&validation, request);
}

static void create_reply(struct job *job)
{
    struct product_job *product = (struct product_job *)job;
    if (product->added == CATALOG_KEY_REUSED) {
        http_reply_problem(job->request, &api_problems[PROBLEM_IDEMPOTENCY_KEY_REUSED], NULL,
                           "This Idempotency-Key has made product %lld already; it cannot make another one.",
                           (long long)product->books.product.id);
        return;
    }
    if (product->added == CATALOG_REPEATED) {
        http_reply_header(job->request, "Idempotent-Replayed", "true");
        http_reply_json(job->request, 201,
                        product_json(&product->books.product, product->books.stock, &product->books.gate));
        return;
    }
    if (job->outcome == JOB_TAKEN) {
        http_reply_problem(job->request, &api_problems[PROBLEM_PRODUCT_NAME_TAKEN], NULL,
                           "There is a product \"%s\" already.", product->books.product.name);
        return;
    }
    if (product->component_fault != NULL) {
        reply_component_fault(job->request, product);
        return;
    }
    job_count_change(job, METRICS_recorder_stock_changes);
    /* Just opened: both books say the opening stock, of a bundle what its components allow. */
    bool is_bundle = product->books.product.component_count > 0;
    struct gate_stock gate = {.at_known = true,
                              .stock_at = is_bundle ? product->books.stock : product->books.product.opening};
    http_reply_json(job->request, 201, product_json(&product->books.product, gate.stock_at, &gate));
}

/* --- what is asked for ------------------------------------------------------------------------------------------------------------------- */
static void take_window(struct validation *validation, const cJSON *body, struct store_product *product)
{
    validation_time(validation, body, "starts_at", &product->starts_at_ms);
    validation_time(validation, body, "ends_at", &product->ends_at_ms);
    if (product->ends_at_ms != 0 && product->ends_at_ms <= product->starts_at_ms) {
        validation_add(validation, "ends_at", "must be after starts_at");
    }
}

static bool has_component(const struct store_product *product, int64_t product_id)
{
    for (size_t i = 0; i < product->component_count; i++) {
        if (product->components[i].product_id == product_id) {
            return true;
        }
    }
    return false;
}

static void take_component(struct validation *validation, const cJSON *item, size_t i,
                           struct store_product *product)
{
    char path[FIELD_BYTES];
    struct bundle_component component = {0};
    snprintf(path, sizeof path, "components[%zu]", i);
    if (!cJSON_IsObject(item)) {
        validation_add(validation, path, "must be an object with product_id and quantity");
        return;
    }
    validation_integer_in(validation, item, path, "product_id", true, 1, JSON_INTEGER_MAX,
                          &component.product_id);
    validation_integer_in(validation, item, path, "quantity", true, 1, PURCHASE_QUANTITY_MAX,
                          &component.quantity);
    if (component.product_id > 0 && has_component(product, component.product_id)) {
        snprintf(path, sizeof path, "components[%zu].product_id", i);
        validation_add(validation, path, "is there twice");
    }
    product->components[product->component_count++] = component;
}

static void take_stock(struct validation *validation, const cJSON *body, struct store_product *product)
{
    const cJSON *components = cJSON_GetObjectItemCaseSensitive(body, "components");
    if (components == NULL || cJSON_IsNull(components)) {
        validation_integer(validation, body, "stock", true, 0, PRODUCT_STOCK_MAX, &product->planned_stock);
        return;
    }
    int count = cJSON_IsArray(components) ? cJSON_GetArraySize(components) : 0;
    if (count < 1 || count > BUNDLE_COMPONENTS_MAX) {
        validation_add(validation, "components", "must be a list of 1 to %d products", BUNDLE_COMPONENTS_MAX);
        return;
    }
    const cJSON *item;
    size_t i = 0;
    cJSON_ArrayForEach(item, components)
    {
        take_component(validation, item, i++, product);
    }
    validation_integer(validation, body, "stock", false, 0, PRODUCT_STOCK_MAX, &product->planned_stock);
    if (product->planned_stock != 0) {
        validation_add(validation, "stock",
                       "must be left out: a bundle's stock is what its components allow");
    }
}

/* The key's account and name, and what is asked for in it: the values, not the bytes, which a client may write differently the next time. */
static void take_request(struct product_job *job, const char *key, size_t key_bytes)
{
    const struct store_product *product = &job->books.product;
    const int64_t figures[] = {
        product->price,        product->planned_stock, product->per_customer_limit,
        product->starts_at_ms, product->ends_at_ms,    (int64_t)product->component_count};
    unsigned char hash[(STORE_REQUEST_HASH_BYTES - 1) / 2];
    crypto_generichash_state state;
    snprintf(job->request.key, sizeof job->request.key, "%lld %.*s", (long long)job->actor, (int)key_bytes,
             key);
    crypto_generichash_init(&state, NULL, 0, sizeof hash);
    crypto_generichash_update(&state, (const unsigned char *)product->name, strlen(product->name) + 1);
    crypto_generichash_update(&state, (const unsigned char *)product->description,
                              strlen(product->description) + 1);
    crypto_generichash_update(&state, (const unsigned char *)figures, sizeof figures);
    for (size_t i = 0; i < product->component_count; i++) {
        crypto_generichash_update(&state, (const unsigned char *)&product->components[i],
                                  sizeof product->components[i]);
    }
    crypto_generichash_final(&state, hash, sizeof hash);
    sodium_bin2hex(job->request.hash, sizeof job->request.hash, hash, sizeof hash);
}

void products_create(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    const char *key = NULL;
    size_t key_bytes = 0;
    cJSON *body;
    if (!api_identify_admin(context, request, &claims) || !api_idempotency_key(request, &key, &key_bytes) ||
        (body = api_json_body(request)) == NULL) {
        return;
    }
    struct product_job *job = job_new(context, request, sizeof *job, create_work, create_reply);
    struct store_product *product = &job->books.product;
    const char *name = "", *description = "";
    struct validation validation = {0};
    validation_string(&validation, body, "name", true, 1, NAME_CHARACTERS_MAX, &name);
    validation_one_line(&validation, "name", name);
    validation_integer(&validation, body, "price", true, 1, PRODUCT_PRICE_MAX, &product->price);
    take_stock(&validation, body, product);
    validation_string(&validation, body, "description", false, 0, DESCRIPTION_CHARACTERS_MAX, &description);
    validation_integer(&validation, body, "per_customer_limit", false, 1, LIMIT_MAX,
                       &product->per_customer_limit);
    take_window(&validation, body, product);
    if (!validation_failed(&validation, request)) {
        for (size_t i = 0; i < product->component_count; i++) {
            job->components_asked[i] = product->components[i].product_id;
        }
        snprintf(product->name, sizeof product->name, "%s", name);
        snprintf(product->description, sizeof product->description, "%s", description);
        job->actor = claims.user_id;
        if (key != NULL) {
            take_request(job, key, key_bytes);
        }
        job->job.needs_gate = job_change_needs_gate(context);
        job_start(&job->job, WORK_CHANGE);
    }
    cJSON_Delete(body);
}
