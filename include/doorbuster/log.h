/* The program's own log: one line an event on stderr, in one write(2), so that lines of several processes never mix.
 *   2026-11-27T00:00:00.123Z info  worker 0: 100 sold out product=1
 * (The *sales log*, the Redis stream of orders, is another thing: see sales_log.h.)
 * A line has at most 1 KiB; what is cut ends in "…". Control characters in a message are shown as '?': nobody can forge a line.
 * Any thread, any process. Never log a password or a token. */
#ifndef DOORBUSTER_LOG_H
#define DOORBUSTER_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Who speaks: "supervisor", "worker 0", "setup". The pointer is kept; it must live as long as the process. */
void log_set_speaker(const char *speaker);
/* Lines above this level are dropped. LOG_INFO at start. */
void log_set_level(enum log_level level);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
