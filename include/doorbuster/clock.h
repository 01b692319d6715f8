/* Time. Wall-clock time is for people and records, monotonic time for durations and deadlines. Any thread. */
#ifndef DOORBUSTER_CLOCK_H
#define DOORBUSTER_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_RFC3339_BYTES 25 /* "2026-11-27T00:00:00.123Z" and the terminator */

int64_t clock_wall_ms(void);      /* milliseconds since 1970-01-01T00:00:00Z */
int64_t clock_monotonic_us(void); /* microseconds since some fixed moment; never goes back */
/* Milliseconds until then, by clock_monotonic_us(), rounded up: 0 if it is past, at most an hour. */
int clock_left_ms(int64_t deadline_us);

/* RFC 3339 in UTC to the millisecond. `at_ms` from 0 to the end of year 9999; a moment outside shows as the nearer end. */
void clock_rfc3339(int64_t at_ms, char out[CLOCK_RFC3339_BYTES]);

/* Reads a moment in RFC 3339 with any offset: "2026-11-27T09:00:00.123+09:00". What is finer than a millisecond is cut off; a leap second is
 * not taken. False, and *at_ms left alone: it is not one, or not from 1970 to the end of year 9999. */
bool clock_parse_rfc3339(const char *text, int64_t *at_ms);

#endif
