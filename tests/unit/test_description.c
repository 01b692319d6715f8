/* web/openapi.json and the program know the same: each route is described and each described call has a route; each problem is a type of the
 * description and the other way round, with the same status and title. */
#include "testing.h"

#include "api_internal.h"
#include "embedded.h"

#include <stdio.h>
#include <string.h>

#define PROBLEMS_MAX 64

static cJSON *document;

static const cJSON *member(const cJSON *json, const char *name)
{
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(json, name);
    if (found == NULL) {
        fail_msg("openapi.json: no member %s", name);
    }
    return found;
}

static bool is_one_of(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* --- calls -------------------------------------------------------------------------------------------------------------------------------- */
static const char *const methods[HTTP_METHODS] = {"get", "post", "put", "delete"};

static const cJSON *operation_of(const char *path, enum http_method method)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(member(document, "paths"), path);
    return item == NULL ? NULL : cJSON_GetObjectItemCaseSensitive(item, methods[method]);
}

static void test_each_route_is_described(void **state)
{
    size_t count;
    const struct http_route *routes = api_routes(&count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        if (operation_of(routes[i].path, routes[i].method) == NULL) {
            fail_msg("%s %s is not described", methods[routes[i].method], routes[i].path);
        }
    }
}

static bool has_route(const char *path, const char *method)
{
    size_t count;
    const struct http_route *routes = api_routes(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(routes[i].path, path) == 0 && strcmp(methods[routes[i].method], method) == 0) {
            return true;
        }
    }
    return false;
}

static void test_each_described_call_has_a_route(void **state)
{
    const cJSON *item, *operation;
    (void)state;
    cJSON_ArrayForEach(item, member(document, "paths"))
    {
        cJSON_ArrayForEach(operation, item)
        {
            if (strcmp(operation->string, "parameters") != 0 && !has_route(item->string, operation->string)) {
                fail_msg("%s %s is described, but there is no such route", operation->string, item->string);
            }
        }
    }
}

/* --- problems ----------------------------------------------------------------------------------------------------------------------------- */
static size_t all_problems(const struct http_problem *out[PROBLEMS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < HTTP_PROBLEM_KINDS; i++) {
        out[count++] = &http_problems[i];
    }
    for (size_t i = 0; i < API_PROBLEMS; i++) {
        out[count++] = &api_problems[i];
    }
    assert_in_range(count, 1, PROBLEMS_MAX);
    return count;
}

/* The schema whose `type` is this and nothing else, or NULL. */
static const cJSON *schema_of(const char *type)
{
    const cJSON *schema;
    cJSON_ArrayForEach(schema, member(member(document, "components"), "schemas"))
    {
        const cJSON *found = cJSON_GetObjectItemCaseSensitive(
            cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(schema, "properties"), "type"),
            "const");
        if (cJSON_IsString(found) && strcmp(found->valuestring, type) == 0) {
            return schema;
        }
    }
    return NULL;
}

static bool is_listed(const char *type)
{
    const cJSON *each, *schemas = member(member(document, "components"), "schemas"),
                       *list = member(member(schemas, "ProblemType"), "enum");
    cJSON_ArrayForEach(each, list)
    {
        if (strcmp(each->valuestring, type) == 0) {
            return true;
        }
    }
    return false;
}

static void test_each_problem_is_described(void **state)
{
    const struct http_problem *problems[PROBLEMS_MAX];
    size_t count = all_problems(problems);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        char type[128];
        snprintf(type, sizeof type, "/problems/%s", problems[i]->slug);
        const cJSON *schema = schema_of(type);
        if (schema == NULL || !is_listed(type)) {
            fail_msg("%s has no schema, or is not in ProblemType", type);
        }
        const cJSON *properties = member(schema, "properties");
        assert_int_equal(member(member(properties, "status"), "const")->valueint, problems[i]->status);
        assert_string_equal(member(member(properties, "title"), "const")->valuestring, problems[i]->title);
    }
}

static void test_each_described_problem_is_there(void **state)
{
    const struct http_problem *problems[PROBLEMS_MAX];
    const char *slugs[PROBLEMS_MAX];
    size_t count = all_problems(problems);
    const cJSON *each, *schemas = member(member(document, "components"), "schemas");
    (void)state;
    for (size_t i = 0; i < count; i++) {
        slugs[i] = problems[i]->slug;
    }
    cJSON_ArrayForEach(each, member(member(schemas, "ProblemType"), "enum"))
    {
        const char *slug = strrchr(each->valuestring, '/') + 1;
        if (!is_one_of(slug, slugs, count)) {
            fail_msg("%s is described, but the program does not know it", each->valuestring);
        }
    }
}

static void test_its_version_is_the_program_s(void **state)
{
    (void)state;
    assert_string_equal(member(member(document, "info"), "version")->valuestring, DOORBUSTER_VERSION);
}

static int setup(void **state)
{
    (void)state;
    document = cJSON_Parse(embedded_openapi_json);
    return document == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    cJSON_Delete(document);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_route_is_described),
        cmocka_unit_test(test_each_described_call_has_a_route),
        cmocka_unit_test(test_each_problem_is_described),
        cmocka_unit_test(test_each_described_problem_is_there),
        cmocka_unit_test(test_its_version_is_the_program_s),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
