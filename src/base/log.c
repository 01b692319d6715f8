/* The program's own log: formats an event and writes it to stderr.
 *
 * Any thread of any process. Owns some words, all atomic, so there is no lock to die with: two threads that race may let a line too much through,
 * never lose one uncounted. A line that cannot be written is lost. */
#include "doorbuster/log.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/text.h"
#include "line.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE_BYTES (2 * LINE_BYTES_MAX) /* longer than any line: it is cut there anyway */
#define FIELD_ROOM 200                     /* of one value */
#define FIELDS_ROOM 400                    /* of all fields: the message may be cut, they are not */
#define REPEATS 512                        /* format strings that are watched; the program has fewer */

const char *const log_level_names[4] = {"error", "warn", "info", "debug"};
const char *const log_format_names[3] = {"text", "logfmt", "json"};

static const char *_Atomic log_speaker = "doorbuster";
static int own_level = LOG_INFO;
static int *_Atomic log_level_max = &own_level;
static _Atomic int log_format_used = LOG_TEXT;
static uint64_t *_Atomic held_back_counter;

/* --- settings ---------------------------------------------------------------------------------------- */
/* The lines of one format string. */
struct repeats {
    const char *_Atomic format;
    _Atomic int64_t since_us;
    _Atomic unsigned said, held_back;
};
static struct repeats repeats[REPEATS];
static _Atomic int64_t flush_at_us; /* when held-back lines are due to be told; 0: there are none */

void log_set_speaker(const char *speaker)
{
    CHECK(speaker != NULL);
    atomic_store(&log_speaker, speaker);
    atomic_store(&flush_at_us, 0);
    for (size_t i = 0; i < REPEATS; i++) {
        atomic_store(&repeats[i].said, 0);
        atomic_store(&repeats[i].held_back, 0);
    }
}

void log_set_format(enum log_format format)
{
    CHECK(format >= LOG_TEXT && format <= LOG_JSON);
    atomic_store(&log_format_used, (int)format);
}

void log_set_level(enum log_level level)
{
    CHECK(level >= LOG_ERROR && level <= LOG_DEBUG);
    __atomic_store_n(atomic_load(&log_level_max), (int)level, __ATOMIC_RELAXED);
}

void log_use_level(int *shared)
{
    CHECK(shared != NULL);
    atomic_store(&log_level_max, shared);
}

bool log_is_on(enum log_level level)
{
    return (int)level <=
           __atomic_load_n(atomic_load_explicit(&log_level_max, memory_order_relaxed), __ATOMIC_RELAXED);
}

void log_count_held_back(uint64_t *counter)
{
    atomic_store(&held_back_counter, counter);
}

/* --- a line ------------------------------------------------------------------------------------------ */
struct event {
    enum log_level level;
    const struct log_field *fields; /* may be NULL */
    const char *message;
    size_t message_bytes;
};

/* A value that can stand without quotes. */
static bool is_plain(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+";

    return text[0] != '\0' && text[strspn(text, plain)] == '\0';
}

static void add_text_value(struct line *line, const char *value)
{
    bool quoted = !is_plain(value);

    line_add(line, quoted ? "\"" : "");
    line_add_said(line, value, strlen(value), quoted, FIELD_ROOM);
    line_add(line, quoted ? "\"" : "");
}

/* Name and value, each behind the last; those that would not fit are left out. */
static void add_fields(struct line *line, const struct log_field *fields, enum log_format format)
{
    for (const struct log_field *field = fields; field != NULL && field->name != NULL; field++) {
        struct line one = {.used = 0};
        char number[TEXT_INT64_BYTES];
        line_add(&one, format == LOG_JSON ? ",\"" : " ");
        line_add(&one, field->name);
        line_add(&one, format == LOG_JSON ? "\":" : "=");
        if (field->words == NULL) {
            text_from_int64(field->number, number);
            line_add(&one, number);
        } else if (format == LOG_JSON) {
            line_add(&one, "\"");
            line_add_said(&one, field->words, strlen(field->words), true, FIELD_ROOM);
            line_add(&one, "\"");
        } else {
            add_text_value(&one, field->words);
        }
        one.text[one.used] = '\0';
        if (line->used + one.used <= FIELDS_ROOM)
            line_add(line, one.text);
    }
    line->text[line->used] = '\0';
}

static void add_head(struct line *line, enum log_level level, enum log_format format)
{
    char now[CLOCK_RFC3339_BYTES], head[256];
    const char *speaker = atomic_load(&log_speaker);

    clock_rfc3339(clock_wall_ms(), now);
    if (format == LOG_TEXT)
        snprintf(head, sizeof head, "%s %-5s %.60s: ", now, log_level_names[level], speaker);
    else if (format == LOG_LOGFMT)
        snprintf(head, sizeof head, "ts=%s level=%s proc=\"%.60s\" pid=%d msg=\"", now,
                 log_level_names[level], speaker, (int)getpid());
    else
        snprintf(head, sizeof head,
                 "{\"ts\":\"%s\",\"level\":\"%s\",\"proc\":\"%.60s\",\"pid\":%d,\"msg\":\"", now,
                 log_level_names[level], speaker, (int)getpid());
    line_add(line, head);
}

static void write_event(const struct event *event)
{
    static const char *const ends[] = {[LOG_TEXT] = "", [LOG_LOGFMT] = "", [LOG_JSON] = "}"};
    enum log_format format = (enum log_format)atomic_load(&log_format_used);
    struct line line = {.used = 0}, fields = {.used = 0};

    add_fields(&fields, event->fields, format);
    add_head(&line, event->level, format);
    size_t behind = fields.used + (format == LOG_TEXT ? 0 : 1) + strlen(ends[format]);
    line_add_said(&line, event->message, event->message_bytes, format != LOG_TEXT, line_room(&line) - behind);
    line_add(&line, format == LOG_TEXT ? "" : "\"");
    line_add(&line, fields.text);
    line_add(&line, ends[format]);
    line_end(&line, STDERR_FILENO);
}

/* --- repeated lines ---------------------------------------------------------------------------------- */
static struct repeats *repeats_of(const char *format)
{
    size_t first = ((uintptr_t)format >> 2) % REPEATS;

    for (size_t i = 0; i < REPEATS; i++) {
        struct repeats *one = &repeats[(first + i) % REPEATS];
        const char *taken = NULL;
        if (atomic_compare_exchange_strong(&one->format, &taken, format) || taken == format)
            return one;
    }
    return NULL;
}

static void tell_held_back(struct repeats *one, int64_t now_us)
{
    unsigned count = atomic_exchange(&one->held_back, 0);
    char message[MESSAGE_BYTES];

    if (count == 0)
        return;
    int bytes = snprintf(message, sizeof message, "… %u more like \"%.300s\" in %.1f s", count,
                         atomic_load(&one->format), (double)(now_us - atomic_load(&one->since_us)) / 1e6);
    write_event(&(struct event){.level = LOG_WARN,
                                .fields = LOG_FIELDS(LOG_NUMBER("held_back", count)),
                                .message = message,
                                .message_bytes = (size_t)bytes});
}

/* Of all whose time is over. */
static void tell_all_held_back(int64_t now_us, bool at_once)
{
    int64_t next_us = 0, none = 0;

    for (size_t i = 0; i < REPEATS; i++) {
        struct repeats *one = &repeats[i];
        int64_t due_us = atomic_load(&one->since_us) + LOG_REPEATS_US;
        if (atomic_load(&one->held_back) == 0)
            continue;
        if (at_once || due_us <= now_us) {
            tell_held_back(one, now_us);
            atomic_store(&one->since_us, now_us);
            atomic_store(&one->said, 0);
        } else if (next_us == 0 || due_us < next_us) {
            next_us = due_us;
        }
    }
    atomic_compare_exchange_strong(&flush_at_us, &none, next_us); /* unless another thread has just set it */
}

static void tell_what_is_due(int64_t now_us)
{
    int64_t due_us = atomic_load_explicit(&flush_at_us, memory_order_relaxed);

    if (due_us != 0 && due_us <= now_us && atomic_compare_exchange_strong(&flush_at_us, &due_us, 0))
        tell_all_held_back(now_us, false);
}

static void hold_back(struct repeats *one)
{
    uint64_t *counter = atomic_load(&held_back_counter);
    int64_t none = 0;

    atomic_fetch_add(&one->held_back, 1);
    if (counter != NULL)
        __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
    atomic_compare_exchange_strong(&flush_at_us, &none, atomic_load(&one->since_us) + LOG_REPEATS_US);
}

/* May this line be written? If not it is counted. */
static bool may_speak(enum log_level level, const char *format)
{
    int64_t now_us = clock_monotonic_us();
    struct repeats *one = level == LOG_DEBUG ? NULL : repeats_of(format);

    tell_what_is_due(now_us);
    if (one == NULL)
        return true;
    int64_t since_us = atomic_load(&one->since_us);
    if (now_us - since_us >= LOG_REPEATS_US &&
        atomic_compare_exchange_strong(&one->since_us, &since_us, now_us))
        atomic_store(&one->said, 0);
    if (atomic_fetch_add(&one->said, 1) < LOG_REPEATS_MAX)
        return true;
    hold_back(one);
    return false;
}

void log_flush(bool at_once)
{
    int64_t due_us = atomic_load_explicit(&flush_at_us, memory_order_relaxed);

    if (due_us == 0)
        return;
    if (!at_once)
        tell_what_is_due(clock_monotonic_us());
    else if (atomic_exchange(&flush_at_us, 0) != 0)
        tell_all_held_back(clock_monotonic_us(), true);
}

/* --- what is called ---------------------------------------------------------------------------------- */
__attribute__((format(printf, 3, 0))) static void write_unless_repeated(enum log_level level,
                                                                        const struct log_field *fields,
                                                                        const char *format, va_list arguments)
{
    int saved_errno = errno;
    char message[MESSAGE_BYTES];

    CHECK(level >= LOG_ERROR && level <= LOG_DEBUG);
    if (!log_is_on(level) || !may_speak(level, format))
        return;
    size_t bytes = line_print(message, sizeof message, format, arguments);
    write_event(
        &(struct event){.level = level, .fields = fields, .message = message, .message_bytes = bytes});
    errno = saved_errno;
}

void log_line(enum log_level level, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_unless_repeated(level, NULL, format, arguments);
    va_end(arguments);
}

void log_event(enum log_level level, const struct log_field *fields, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_unless_repeated(level, fields, format, arguments);
    va_end(arguments);
}
