/* Private to api: the live figures (figures.c), which events.c hands out. Loop thread. */
#ifndef API_FIGURES_H
#define API_FIGURES_H

#include "api_internal.h"

#define FIGURES_PERIOD_MS 500
#define FIGURES_SAMPLES 21 /* ten seconds */

struct figures_sample {
    int64_t at_us;
    uint64_t counters[METRICS_COUNT];
    struct metrics_buckets took; /* by purchases, since the server started */
};

struct figures {
    struct figures_sample samples[FIGURES_SAMPLES]; /* a ring */
    size_t newest, count;
    struct board_sale sale, sale_room;
    struct board_processes processes, processes_room;
};

/* Once every FIGURES_PERIOD_MS. */
void figures_sample(struct figures *figures, const struct metrics_page *page);
/* After the first sample. The JSON document, to be freed with cJSON_free(). */
char *figures_print(struct figures *figures, const struct metrics_page *page, const struct gate_place *place);

#endif
