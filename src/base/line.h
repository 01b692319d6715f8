/* Private to base: one line of text for a person, in one write(2). */
#ifndef BASE_LINE_H
#define BASE_LINE_H

#include <stdarg.h>

#define LINE_BYTES_MAX                                                                                       \
    1024 /* with the newline; below PIPE_BUF, so lines of several processes never mix in a pipe */

/* Writes head, the formatted message and a newline to `fd`. What would let a message forge a second line or
 * steer a terminal is replaced by '?'; a trailing newline is dropped; what does not fit is cut and ends in
 * "…". Keeps errno. Any thread. */
void line_write(int fd, const char *head, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

#endif
