/* One line of text for a person, in one write(2): under the log and under every message about a bad setting.
 *
 * Any thread; owns nothing, takes no lock, uses no heap. A line that cannot be written is lost: there is
 * nobody to tell. */
#include "line.h"

#include "utf8.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char ellipsis[] = "…";

/* A control character: below U+0020, U+007F, or one of U+0080 to U+009F, which terminals obey too. */
static bool is_control(const char *text, size_t sequence_bytes)
{
    unsigned char first = (unsigned char)text[0];

    return first < 0x20 || first == 0x7F ||
           (sequence_bytes == 2 && first == 0xC2 && (unsigned char)text[1] < 0xA0);
}

/* Replaces each byte that must not reach the log. */
static void clean(char *text, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        size_t step = utf8_sequence_bytes(text + at, bytes - at);
        size_t length = step == 0 ? 1 : step;
        if (step == 0 || is_control(text + at, step))
            memset(text + at, '?', length);
        at += length;
    }
}

/* The longest prefix of text[0..bytes) of at most `limit` bytes that does not end within a sequence. */
static size_t cut(const char *text, size_t limit)
{
    while (limit > 0 && ((unsigned char)text[limit] & 0xC0) == 0x80)
        limit--;
    return limit;
}

void line_write(int fd, const char *head, const char *format, va_list arguments)
{
    int saved_errno = errno;
    char line[LINE_BYTES_MAX];
    const size_t room = sizeof line - 1; /* the newline takes one byte */
    size_t length = strnlen(head, room / 2);

    memcpy(line, head, length);
    int wanted = vsnprintf(line + length, sizeof line - length, format, arguments);
    size_t message_bytes = wanted > 0 ? (size_t)wanted : 0;
    if (message_bytes > room - length) {
        /* vsnprintf stopped at `room`, and cut() looks no further than that. */
        length = cut(line, room - (sizeof ellipsis - 1));
        memcpy(line + length, ellipsis, sizeof ellipsis - 1);
        length += sizeof ellipsis - 1;
    } else {
        length += message_bytes;
        if (message_bytes > 0 && line[length - 1] == '\n')
            length--;
    }
    clean(line, length);
    line[length++] = '\n';

    ssize_t written;
    do
        written = write(fd, line, length);
    while (written < 0 && errno == EINTR);
    errno = saved_errno;
}
