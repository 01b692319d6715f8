/* The program's own log: formats an event and writes it to stderr.
 *
 * Any thread of any process. Owns two words, both atomic, so there is no lock to die with. A line that cannot
 * be written is lost. */
#include "doorbuster/log.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "line.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

static const char *_Atomic log_speaker = "doorbuster";
static _Atomic int log_level_max = LOG_INFO;

void log_set_speaker(const char *speaker)
{
    CHECK(speaker != NULL);
    atomic_store(&log_speaker, speaker);
}

void log_set_level(enum log_level level)
{
    CHECK(level >= LOG_ERROR && level <= LOG_DEBUG);
    atomic_store(&log_level_max, (int)level);
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const words[] = {"error", "warn ", "info ", "debug"};
    char now[CLOCK_RFC3339_BYTES], head[128];
    va_list arguments;

    CHECK(level >= LOG_ERROR && level <= LOG_DEBUG);
    if ((int)level > atomic_load_explicit(&log_level_max, memory_order_relaxed))
        return;
    clock_rfc3339(clock_wall_ms(), now);
    snprintf(head, sizeof head, "%s %s %s: ", now, words[level], atomic_load(&log_speaker));
    va_start(arguments, format);
    line_write(STDERR_FILENO, head, format, arguments);
    va_end(arguments);
}
