/* See testing.h. Test processes, any thread but for wait_with(); owns nothing. */
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t deadline_in(int ms)
{
    return now_us() + (int64_t)ms * 1000;
}

static void (*waiting_cb)(void);

void wait_with(void (*step_cb)(void))
{
    waiting_cb = step_cb;
}

bool wait_a_moment(int64_t deadline_us)
{
    if (waiting_cb != NULL) {
        waiting_cb();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return now_us() < deadline_us;
}

/* splitmix64 */
uint32_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

uint32_t random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(((uint64_t)random_next(state) * limit) >> 32);
}

uint64_t random_seed(const char *test)
{
    const char *given = getenv("DOORBUSTER_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)now_us();
    print_message("[   SEED   ] %s: DOORBUSTER_SEED=%llu\n", test, (unsigned long long)seed);
    return seed;
}

bool gate_is_redlock(void)
{
    const char *gate = getenv("DOORBUSTER_GATE");
    return gate != NULL && strcmp(gate, "redlock") == 0;
}

unsigned rounds_wanted(unsigned usual)
{
    const char *given = getenv("DOORBUSTER_ROUNDS");
    unsigned long rounds = given != NULL ? strtoul(given, NULL, 10) : 0;
    return rounds > 0 ? (unsigned)rounds : usual;
}
