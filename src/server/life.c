/* See life.h. The supervisor's thread; owns nothing, cannot fail. */
#include "life.h"

void life_begin(struct life *life, int64_t now_us)
{
    *life = (struct life){.phase = LIFE_STARTING, .heard_us = now_us};
}

void life_beat(struct life *life, int64_t beat_us)
{
    if (life->phase != LIFE_LEAVING && beat_us > life->heard_us) {
        *life = (struct life){.phase = LIFE_TURNING, .heard_us = beat_us};
    }
}

void life_leave(struct life *life, int64_t now_us)
{
    if (life->phase != LIFE_LEAVING) {
        *life = (struct life){.phase = LIFE_LEAVING, .heard_us = now_us};
    }
}

void life_pass_over(struct life *life, int64_t gap_us)
{
    life->heard_us += gap_us;
}

int64_t life_patience_us(const struct life *life, int64_t hang_timeout_us, bool shares_slot)
{
    switch (life->phase) {
    case LIFE_LEAVING:
        return LIFE_LEAVE_US;
    case LIFE_TURNING:
        return shares_slot && hang_timeout_us < LIFE_START_US ? LIFE_START_US : hang_timeout_us;
    case LIFE_STARTING:
        break;
    }
    return LIFE_START_US;
}

int64_t life_silence_us(const struct life *life, int64_t now_us)
{
    return now_us > life->heard_us ? now_us - life->heard_us : 0;
}
