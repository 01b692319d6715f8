/* Private to metrics: a text that grows, and the parts of the Prometheus text. */
#ifndef METRICS_TEXT_H
#define METRICS_TEXT_H

#include "doorbuster/metrics.h"

struct metrics_text {
    char *text; /* malloc'ed, terminated; NULL at first */
    size_t used, room;
    bool failed; /* out of memory: what is appended is dropped */
};

__attribute__((format(printf, 2, 3))) void metrics_append(struct metrics_text *text, const char *format, ...);
/* The two lines before a metric's samples. `name` is what stands behind "doorbuster_". */
void metrics_append_head(struct metrics_text *text, const char *name, const char *type, const char *help);

/* Of the board: products, record, processes. */
void metrics_append_board(struct metrics_text *text, const struct metrics_page *page);

#endif
