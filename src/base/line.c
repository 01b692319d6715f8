/* One line of text, in one write(2): under the log and under every message about a bad setting.
 *
 * Any thread; owns nothing, takes no lock, uses no heap. A line that cannot be written is lost: there is
 * nobody to tell. */
#include "line.h"

#include "doorbuster/check.h"
#include "utf8.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char ellipsis[] = "…";
#define ELLIPSIS_BYTES (sizeof ellipsis - 1)
#define MESSAGE_BYTES_MAX (2 * LINE_BYTES_MAX) /* longer than any line: it is cut there anyway */

/* A control character: below U+0020, U+007F, or one of U+0080 to U+009F, which terminals obey too. */
static bool is_control(const char *text, size_t sequence_bytes)
{
    unsigned char first = (unsigned char)text[0];

    return first < 0x20 || first == 0x7F ||
           (sequence_bytes == 2 && first == 0xC2 && (unsigned char)text[1] < 0xA0);
}

void line_add(struct line *line, const char *words)
{
    size_t bytes = strlen(words);

    CHECK(bytes <= line_room(line));
    memcpy(line->text + line->used, words, bytes);
    line->used += bytes;
}

size_t line_room(const struct line *line)
{
    return sizeof line->text - 1 - line->used;
}

/* The next character as the line shows it; how many bytes of `said` it was. */
static size_t show(const char *said, size_t bytes, bool quoted, char out[4], size_t *out_bytes)
{
    size_t sequence = utf8_sequence_bytes(said, bytes), length = sequence == 0 ? 1 : sequence;

    *out_bytes = length;
    if (sequence == 0 || is_control(said, sequence)) {
        memset(out, '?', length);
    } else if (quoted && (said[0] == '"' || said[0] == '\\')) {
        out[0] = '\\';
        out[1] = said[0];
        *out_bytes = 2;
    } else {
        memcpy(out, said, length);
    }
    return length;
}

/* As much of it as fits; *at_ellipsis is where it could end and still have room for an ellipsis. True: all of it did. */
static bool add_what_fits(struct line *line, const char *said, size_t bytes, bool quoted, size_t room,
                          size_t *at_ellipsis)
{
    const size_t begin = line->used;
    char shown[4];
    size_t shown_bytes;

    *at_ellipsis = begin;
    for (size_t at = 0; at < bytes;) {
        at += show(said + at, bytes - at, quoted, shown, &shown_bytes);
        if (line->used - begin + shown_bytes > room)
            return false;
        memcpy(line->text + line->used, shown, shown_bytes);
        line->used += shown_bytes;
        if (line->used - begin + ELLIPSIS_BYTES <= room)
            *at_ellipsis = line->used;
    }
    return true;
}

void line_add_said(struct line *line, const char *said, size_t bytes, bool quoted, size_t room)
{
    size_t at_ellipsis, fitting = room < line_room(line) ? room : line_room(line);

    if (!add_what_fits(line, said, bytes, quoted, fitting, &at_ellipsis)) {
        line->used = at_ellipsis;
        if (fitting >= ELLIPSIS_BYTES)
            line_add(line, ellipsis);
    }
}

void line_end(struct line *line, int fd)
{
    int saved_errno = errno;
    ssize_t written;

    line->text[line->used++] = '\n';
    do
        written = write(fd, line->text, line->used);
    while (written < 0 && errno == EINTR);
    errno = saved_errno;
}

size_t line_print(char *out, size_t out_bytes, const char *format, va_list arguments)
{
    int wanted = vsnprintf(out, out_bytes, format, arguments);
    size_t bytes = wanted > 0 ? (size_t)wanted : 0;

    if (bytes >= out_bytes) {
        bytes = out_bytes - 1 - ELLIPSIS_BYTES;
        while (bytes > 0 && ((unsigned char)out[bytes] & 0xC0) == 0x80)
            bytes--;
        memcpy(out + bytes, ellipsis, ELLIPSIS_BYTES);
        return bytes + ELLIPSIS_BYTES;
    }
    return bytes > 0 && out[bytes - 1] == '\n' ? bytes - 1 : bytes;
}

void line_write(int fd, const char *head, const char *format, va_list arguments)
{
    char message[MESSAGE_BYTES_MAX];
    struct line line = {.used = 0};
    int saved_errno = errno;
    size_t bytes = line_print(message, sizeof message, format, arguments);

    line_add_said(&line, head, strlen(head), false, LINE_BYTES_MAX / 2);
    line_add_said(&line, message, bytes, false, line_room(&line));
    errno = saved_errno;
    line_end(&line, fd);
}
