/* What every test with processes in it needs: cmocka with the headers it wants first, and waiting for a
 * condition with a deadline. */
#ifndef DOORBUSTER_TEST_TESTING_H
#define DOORBUSTER_TEST_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <stdbool.h>

int64_t now_us(void); /* monotonic */

/* int64_t deadline = deadline_in(5000);
 * while (!condition) { assert_true(wait_a_moment(deadline)); } */
int64_t deadline_in(int ms);
bool wait_a_moment(int64_t deadline_us); /* sleeps 2 ms; false: the deadline is over */
/* Instead of that sleep, so that something goes on while anything waits; NULL: the sleep. It must take a
 * moment, not more. */
void wait_with(void (*step_cb)(void));

/* Seeded numbers, the same on every machine. */
uint32_t random_next(uint64_t *state);
uint32_t random_below(uint64_t *state, uint32_t limit);
/* $DOORBUSTER_SEED, or one made up; prints it, so that a failure can be repeated. */
uint64_t random_seed(const char *test);
/* $DOORBUSTER_GATE: the servers of this run sell through the Redlock gate. */
bool gate_is_redlock(void);
/* $DOORBUSTER_ROUNDS, or `usual`. */
unsigned rounds_wanted(unsigned usual);

#endif
