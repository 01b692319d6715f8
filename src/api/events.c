/* Handing out the live figures: GET /api/events as Server-Sent Events (WHATWG HTML, 9.2), twice a second, and GET /api/figures once. Open to all, for
 * nothing in them is about a person. On the loop's thread. Owns the channel of all streams and the figures; made once in a period, however many
 * there are who look. */
#include "figures.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"

#include <stdlib.h>
#include <string.h>

#define STREAMS_MAX 512 /* a worker; beyond, clients ask for /api/figures now and then */
#define RETRY_LINE "retry: 2000\n"

struct events {
    struct api *api;
    struct http_channel *channel;   /* NULL until the server is there */
    struct http_response *response; /* the figures as they are; NULL: to be made */
    struct figures figures;
    int64_t next_us;
};

struct events *events_new(struct api *api)
{
    struct events *events = calloc(1, sizeof *events);
    CHECK(events != NULL);
    events->api = api;
    return events;
}

void events_use_server(struct events *events, struct http_server *server)
{
    events->channel = http_channel_new(server, "text/event-stream", STREAMS_MAX);
}

static char *print(struct events *events, bool with_history)
{
    const struct api_settings *settings = &events->api->settings;
    char *text = figures_print(&events->figures, settings->metrics, settings->place, with_history);
    CHECK(text != NULL);
    return text;
}

static void send_frame(struct events *events)
{
    static const char head[] = RETRY_LINE "event: figures\ndata: ", tail[] = "\n\n";
    char *text = print(events, false);
    size_t bytes = strlen(text), head_bytes = sizeof head - 1, tail_bytes = sizeof tail - 1;
    char *frame = malloc(head_bytes + bytes + tail_bytes);
    CHECK(frame != NULL);
    memcpy(frame, head, head_bytes);
    memcpy(frame + head_bytes, text, bytes);
    memcpy(frame + head_bytes + bytes, tail, tail_bytes);
    http_channel_send(events->channel, frame, head_bytes + bytes + tail_bytes);
    free(frame);
    cJSON_free(text);
}

void events_watch(struct events *events)
{
    int64_t now_us = clock_monotonic_us();
    if (now_us < events->next_us) {
        return;
    }
    events->next_us = now_us + (int64_t)FIGURES_PERIOD_MS * 1000;
    figures_sample(&events->figures, events->api->settings.metrics);
    http_response_free(&events->response);
    if (events->channel != NULL) {
        size_t streams = http_channel_streams(events->channel);
        metrics_set(METRICS_GAUGE_event_streams, (int64_t)streams);
        if (streams > 0) {
            send_frame(events);
        }
    }
}

void events_leave(struct events *events)
{
    if (events->channel != NULL) {
        http_channel_close(events->channel);
    }
}

void events_free(struct events **slot)
{
    struct events *events = *slot;
    *slot = NULL;
    http_channel_free(&events->channel);
    http_response_free(&events->response);
    free(events);
}

/* --- handlers ----------------------------------------------------------------------------------------------------------------------------- */
void events_stream(struct http_request *request, void *context)
{
    struct events *events = ((struct api *)context)->events;
    if (http_channel_streams(events->channel) == 0 && events->figures.count > 0) {
        send_frame(events); /* nobody was there for whom the last one could have been made */
    }
    if (!http_reply_channel(request, events->channel)) {
        http_reply_header(request, "Retry-After", "5");
        http_reply_problem(request, &api_problems[PROBLEM_UNAVAILABLE], NULL,
                           "Too many are looking already; ask for /api/figures now and then instead.");
    }
}

void events_figures(struct http_request *request, void *context)
{
    struct events *events = ((struct api *)context)->events;
    if (events->response == NULL) {
        if (events->figures.count == 0) {
            figures_sample(&events->figures, events->api->settings.metrics);
        }
        char *text = print(events, true);
        events->response = http_response_new(200, HTTP_TYPE_JSON, text, strlen(text));
        cJSON_free(text);
    }
    http_reply_prebuilt(request, events->response);
}
