/* The board in the shared page: copied in and out under a sequence number. Writers: one process each; readers: any. Owns nothing; a reader that
 * finds it half-written tries a few times and then says so. */
#include "doorbuster/board.h"

#include <string.h>

#define READ_TRIES 64

/* Odd from here on: also if a writer that was killed had left it odd. */
static uint64_t begin_write(uint64_t *sequence)
{
    uint64_t odd = __atomic_load_n(sequence, __ATOMIC_RELAXED) | 1;
    __atomic_store_n(sequence, odd, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return odd;
}

static void end_write(uint64_t *sequence, uint64_t odd)
{
    __atomic_store_n(sequence, odd + 1, __ATOMIC_RELEASE);
}

static bool read_part(const uint64_t *sequence, const void *part, void *out, size_t bytes)
{
    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t before = __atomic_load_n(sequence, __ATOMIC_ACQUIRE);
        if (before % 2 == 0) {
            memcpy(out, part, bytes);
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            if (__atomic_load_n(sequence, __ATOMIC_RELAXED) == before) {
                return true;
            }
        }
    }
    return false;
}

void board_write_sale(struct board *board, const struct board_sale *sale)
{
    uint64_t odd = begin_write(&board->sale_sequence);
    memcpy(&board->sale, sale, sizeof *sale);
    end_write(&board->sale_sequence, odd);
}

void board_write_processes(struct board *board, const struct board_processes *processes)
{
    uint64_t odd = begin_write(&board->processes_sequence);
    memcpy(&board->processes, processes, sizeof *processes);
    end_write(&board->processes_sequence, odd);
}

bool board_read_sale(const struct board *board, struct board_sale *out)
{
    return read_part(&board->sale_sequence, &board->sale, out, sizeof *out);
}

bool board_read_processes(const struct board *board, struct board_processes *out)
{
    return read_part(&board->processes_sequence, &board->processes, out, sizeof *out);
}
