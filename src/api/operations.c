/* What the service says of itself: name and version, health, counters. Loop thread; owns nothing. */
#include "api_internal.h"

#define METRICS_BYTES 16384

void operations_root(struct http_request *request, void *context)
{
    static const char body[] =
        "{\"service\":\"doorbuster\",\"version\":\"" DOORBUSTER_VERSION
        "\",\"links\":{\"health\":\"/health\","
        "\"metrics\":\"/metrics\",\"products\":\"/api/products\",\"purchases\":\"/api/"
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
    char *text = http_request_alloc(request, METRICS_BYTES);
    size_t bytes = metrics_format(api->settings.metrics, text, METRICS_BYTES);
    http_reply_bytes(request, 200, "text/plain; version=0.0.4; charset=utf-8", text, bytes);
}
