/* What the service says of itself: name and version, health, counters. Loop thread; owns nothing. */
#include "api_internal.h"

#include "doorbuster/check.h"

void operations_root(struct http_request *request, void *context)
{
    static const char body[] =
        "{\"service\":\"doorbuster\",\"version\":\"" DOORBUSTER_VERSION
        "\",\"links\":{\"health\":\"/health\","
        "\"metrics\":\"/metrics\",\"dashboard\":\"/dashboard\",\"products\":\"/api/"
        "products\",\"purchases\":\"/api/"
        "purchases\",\"audit\":\"/api/admin/audit\",\"figures\":\"/api/figures\",\"events\":\"/api/"
        "events\",\"openapi\":\"/openapi.json\",\"docs\":\"/docs\",\"problems\":\"/problems\"}}";
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
