/* Private to base: one line of text for a person or a program, in one write(2). */
#ifndef BASE_LINE_H
#define BASE_LINE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#define LINE_BYTES_MAX                                                                                       \
    1024 /* with the newline; below PIPE_BUF, so lines of several processes never mix in a pipe */

struct line {
    char text[LINE_BYTES_MAX];
    size_t used;
};

/* Our own words, as they are; they must fit. */
void line_add(struct line *line, const char *words);
/* What others may have said. What would let it forge a second line or steer a terminal is replaced by '?'; `quoted` puts a backslash before " and \, as
 * in JSON. It gets `room` bytes at most, and leaves the newline's; what does not fit is cut and ends in "…". */
void line_add_said(struct line *line, const char *said, size_t bytes, bool quoted, size_t room);
/* Bytes that are left, but for the newline. */
size_t line_room(const struct line *line);
/* Ends it and writes it to `fd`. Keeps errno. */
void line_end(struct line *line, int fd);

/* Prints the message into `out`; a trailing newline is dropped, an end that does not fit becomes "…". Returns its length. */
size_t line_print(char *out, size_t out_bytes, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));
/* A whole line: head, message, newline. */
void line_write(int fd, const char *head, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

#endif
