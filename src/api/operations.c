/* What the service says of itself: name and version, health, counters, the pages behind the problem types. Loop thread; owns nothing. */
#include "api_internal.h"

#include "doorbuster/check.h"

#include <stdio.h>
#include <string.h>

#define PAGE_BYTES 1024

void operations_root(struct http_request *request, void *context)
{
    static const char body[] = "{\"service\":\"doorbuster\",\"version\":\"" DOORBUSTER_VERSION
                               "\",\"links\":{\"health\":\"/health\","
                               "\"metrics\":\"/metrics\",\"dashboard\":\"/dashboard\",\"products\":\"/api/"
                               "products\",\"purchases\":\"/api/"
                               "purchases\",\"audit\":\"/api/admin/audit\"}}";
    (void)context;
    http_reply_bytes(request, 200, HTTP_TYPE_JSON, body, sizeof body - 1);
}

void operations_health(struct http_request *request, void *context)
{
    static const char body[] = "{\"status\":\"healthy\"}";
    (void)context;
    http_reply_bytes(request, 200, HTTP_TYPE_JSON, body, sizeof body - 1);
}

void operations_metrics(struct http_request *request, void *context)
{
    struct api *api = context;
    const char *labels[METRICS_ROUTES_MAX];
    struct metrics_names names = {.route_labels = labels,
                                  .version = DOORBUSTER_VERSION,
                                  .gate = gate_kind_names[api->settings.place->kind]};
    const struct http_route *routes = api_routes(&names.route_count);
    CHECK(names.route_count <= METRICS_ROUTES_MAX);
    for (size_t i = 0; i < names.route_count; i++) {
        labels[i] = routes[i].label;
    }
    size_t bytes = 0;
    char *text = metrics_format(api->settings.metrics, &names, &bytes);
    http_reply_text(request, 200, "text/plain; version=0.0.4; charset=utf-8", text, bytes);
}

static const struct http_problem *find_problem(const char *slug)
{
    for (size_t i = 0; i < HTTP_PROBLEM_KINDS; i++) {
        if (strcmp(http_problems[i].slug, slug) == 0) {
            return &http_problems[i];
        }
    }
    for (size_t i = 0; i < API_PROBLEMS; i++) {
        if (strcmp(api_problems[i].slug, slug) == 0) {
            return &api_problems[i];
        }
    }
    return NULL;
}

void operations_problem(struct http_request *request, void *context)
{
    (void)context;
    const struct http_problem *problem = find_problem(http_request_path_text(request));
    if (problem == NULL) {
        http_reply_problem(request, &http_problems[HTTP_PROBLEM_NOT_FOUND], NULL,
                           "There is no problem type of this name.");
        return;
    }
    char *page = http_request_alloc(request, PAGE_BYTES);
    int bytes = snprintf(page, PAGE_BYTES, "%s (HTTP status %u)\n\n%s\n", problem->title, problem->status,
                         problem->about);
    CHECK(bytes > 0 && bytes < PAGE_BYTES);
    http_reply_bytes(request, 200, "text/plain; charset=utf-8", page, (size_t)bytes);
}
