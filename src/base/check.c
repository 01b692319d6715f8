/* CHECK's other half: says which statement turned out false, and stops.
 *
 * Any thread of any process; owns nothing. It calls as little as it can, because the program is known to be
 * wrong by now: no heap, no locks, one write(2), abort(3). The core dump or the sanitizer's report shows the
 * rest. */
#include "doorbuster/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void check_failed(const char *condition, const char *file, int line, const char *function)
{
    char text[512];
    int length = snprintf(text, sizeof text, "doorbuster: bug: CHECK(%s) failed in %s, %s:%d\n", condition,
                          function, file, line);

    if (length > 0) {
        size_t bytes = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
        ssize_t written = write(STDERR_FILENO, text, bytes);
        (void)written; /* nobody is left to tell */
    }
    abort();
}
