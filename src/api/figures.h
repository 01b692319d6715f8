/* Private to api: the live figures (figures.c), which events.c hands out. Loop thread. */
#ifndef API_FIGURES_H
#define API_FIGURES_H

#include "api_internal.h"

#define FIGURES_PERIOD_MS 500
#define FIGURES_SAMPLES 21       /* ten seconds */
#define FIGURES_POINT_SAMPLES 10 /* a point of the past, every five seconds */
#define FIGURES_POINTS 120       /* ten minutes */

struct figures_sample {
    int64_t at_us;
    uint64_t counters[METRICS_COUNT];
    struct metrics_buckets took; /* by purchases, since the server started */
};

struct figures_point {
    int64_t at_ms;
    double confirmed, refused, unavailable; /* a second */
    double p99_us;                          /* -1: nothing was asked for */
};

struct figures {
    struct figures_sample samples[FIGURES_SAMPLES]; /* a ring */
    size_t newest, count;
    uint64_t taken;                              /* samples, since the worker started */
    struct figures_point points[FIGURES_POINTS]; /* a ring too */
    size_t point_count;                          /* all that were ever made */
    struct board_sale sale, sale_room;
    struct board_processes processes, processes_room;
};

/* Once every FIGURES_PERIOD_MS. */
void figures_sample(struct figures *figures, const struct metrics_page *page);
/* After the first sample. The JSON document, to be freed with cJSON_free(); with the last ten minutes, for whoever begins to look. */
char *figures_print(struct figures *figures, const struct metrics_page *page, const struct gate_place *place,
                    bool with_history);

#endif
