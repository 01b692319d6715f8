/* The program's own log: one line an event on stderr, in one write(2), so that lines of several processes never mix. In one of three formats:
 *   text    2026-11-27T00:00:00.123Z warn  worker 0: answered 503: no such table request_id=5f3a
 *   logfmt  ts=2026-11-27T00:00:00.123Z level=warn proc="worker 0" pid=4711 msg="answered 503: no such table" request_id=5f3a
 *   json    {"ts":"2026-11-27T00:00:00.123Z","level":"warn","proc":"worker 0","pid":4711,"msg":"answered 503: no such table","request_id":"5f3a"}
 * (The *sales log*, the Redis stream of orders, is another thing: see sales_log.h.)
 *
 * A line has at most 1 KiB; of what is cut the end is "…". What would end a line, a field or a string in it is escaped or shown as '?': nobody can
 * forge a line or a field. Any thread, any process. Never log a password, a token or an idempotency key.
 *
 * An outage at 10,000 requests a second must not fill the disk: of one format string ten lines are written in five seconds, the others are counted, and
 * a line says how many there were: by the next line of any kind after that, or by log_flush(). Debug lines are never held back: whoever turns them on
 * wants them all. */
#ifndef DOORBUSTER_LOG_H
#define DOORBUSTER_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_LOGFMT, LOG_JSON };
extern const char *const log_level_names[4];  /* "error" … */
extern const char *const log_format_names[3]; /* "text", "logfmt", "json" */

#define LOG_REPEATS_MAX 10
#define LOG_REPEATS_US 5000000

/* Who speaks: "supervisor", "worker 0", "setup". The pointer is kept; it must live as long as the process. Right after a fork: what the parent has held
 * back is the parent's to tell. */
void log_set_speaker(const char *speaker);
/* LOG_TEXT at start. */
void log_set_format(enum log_format format);
/* Lines above this level are dropped. LOG_INFO at start. */
void log_set_level(enum log_level level);
/* From now on the level is what is there (atomic, an enum log_level): in memory that processes share, one can set it for all. */
void log_use_level(int *shared);
bool log_is_on(enum log_level level);
/* Where the lines that were held back are counted (atomic); NULL: nowhere. */
void log_count_held_back(uint64_t *counter);
/* Every second or so: tells of what was held back, once its five seconds are over. Before the end: at once. */
void log_flush(bool at_once);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What an event is about, as fields behind the message: log_event(LOG_WARN, LOG_FIELDS(LOG_WORDS("request_id", id), LOG_NUMBER("order_id", 7)), "…"). */
struct log_field {
    const char *name; /* a literal of letters, digits and _ */
    const char *words;
    int64_t number; /* if words is NULL */
};
#define LOG_WORDS(name_, words_)                                                                             \
    (struct log_field)                                                                                       \
    {                                                                                                        \
        .name = (name_), .words = (words_)                                                                   \
    }
#define LOG_NUMBER(name_, number_)                                                                           \
    (struct log_field)                                                                                       \
    {                                                                                                        \
        .name = (name_), .number = (number_)                                                                 \
    }
#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {.name = NULL}})
void log_event(enum log_level level, const struct log_field *fields, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
