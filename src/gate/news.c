/* "recorded 4711 8 7-1042 55 56": written by the recorder, read by the workers. Pure functions, any thread; they own nothing. */
#include "news.h"

#include "doorbuster/check.h"
#include "doorbuster/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WORD "recorded "

size_t recorded_news_format(const struct gate_announcement *announcement, char *out, size_t out_bytes)
{
    char position[SALES_LOG_POSITION_BYTES];
    log_position_format(announcement->recorded, position);
    int used = snprintf(out, out_bytes, WORD "%" PRId64 " %" PRIu64 " %s", announcement->store_id,
                        announcement->epoch, position);
    for (size_t i = 0; i < announcement->rejected_count; i++) {
        used += snprintf(out + used, out_bytes - (size_t)used, " %" PRId64, announcement->rejected[i]);
        CHECK(used > 0 && (size_t)used < out_bytes);
    }
    return (size_t)used;
}

/* The next word of *at, which moves behind it and its blank. */
static size_t next_word(const char **at, const char **word)
{
    size_t bytes = strcspn(*at, " ");
    *word = *at;
    *at += bytes + ((*at)[bytes] == ' ');
    return bytes;
}

bool recorded_news_parse(const char *text, struct recorded_news *out)
{
    if (strncmp(text, WORD, strlen(WORD)) != 0) {
        return false;
    }
    const char *at = text + strlen(WORD), *store, *epoch;
    size_t store_bytes = next_word(&at, &store), epoch_bytes = next_word(&at, &epoch);
    size_t position_bytes = strcspn(at, " ");
    out->rejected = at + position_bytes;
    return text_to_int64(store, store_bytes, INT64_MIN, INT64_MAX, &out->store_id) &&
           text_to_int64(epoch, epoch_bytes, 0, INT64_MAX, &out->epoch) &&
           log_position_parse(at, position_bytes, &out->recorded);
}

bool recorded_news_reject(const char *list, int64_t order)
{
    for (const char *at = list; *at == ' ';) {
        const char *end = at + 1 + strcspn(at + 1, " ");
        int64_t rejected;
        if (text_to_int64(at + 1, (size_t)(end - at - 1), 1, INT64_MAX, &rejected) && rejected == order) {
            return true;
        }
        at = end;
    }
    return false;
}
