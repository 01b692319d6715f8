/* The recorder's word to the workers, as text on the channel gate_keys.news. Pure functions. */
#ifndef DOORBUSTER_GATE_NEWS_H
#define DOORBUSTER_GATE_NEWS_H

#include "doorbuster/gate_books.h"

struct recorded_news {
    int64_t store_id, epoch;
    struct log_position recorded;
    const char *rejected; /* " 55 56" or "": the rest of the text */
};

/* Terminated; CHECKs that it fits. Returns the length. */
size_t recorded_news_format(const struct gate_announcement *announcement, char *out, size_t out_bytes);
/* False: nobody of ours can have sent that. `text` must outlive *out. */
bool recorded_news_parse(const char *text, struct recorded_news *out);
/* Is the order among the rejected? */
bool recorded_news_reject(const char *rejected, int64_t order);

#endif
