/* The board in the shared page: copied in and out under a sequence number. Writers: one process each; readers: any. Owns nothing; a reader that
 * finds it half-written tries a few times and then says so. */
#include "doorbuster/board.h"

#include "doorbuster/check.h"

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

/* True: nobody wrote since `before`, which is even. */
static bool is_whole(const uint64_t *sequence, uint64_t before)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return before % 2 == 0 && __atomic_load_n(sequence, __ATOMIC_RELAXED) == before;
}

/* What comes before the products, and those that are there: a sale has one product, not 256. */
static size_t sale_bytes(int64_t product_count)
{
    return offsetof(struct board_sale, products) + (size_t)product_count * sizeof(struct board_product);
}

void board_write_sale(struct board *board, const struct board_sale *sale)
{
    CHECK(sale->product_count >= 0 && sale->product_count <= BOARD_PRODUCTS_MAX);
    uint64_t odd = begin_write(&board->sale_sequence);
    memcpy(&board->sale, sale, sale_bytes(sale->product_count));
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
    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t before = __atomic_load_n(&board->sale_sequence, __ATOMIC_ACQUIRE);
        int64_t count = board->sale.product_count; /* anything, if it is being written */
        if (count >= 0 && count <= BOARD_PRODUCTS_MAX) {
            memcpy(out, &board->sale, sale_bytes(count));
            if (is_whole(&board->sale_sequence, before)) {
                return true;
            }
        }
    }
    return false;
}

bool board_read_processes(const struct board *board, struct board_processes *out)
{
    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t before = __atomic_load_n(&board->processes_sequence, __ATOMIC_ACQUIRE);
        memcpy(out, &board->processes, sizeof *out);
        if (is_whole(&board->processes_sequence, before)) {
            return true;
        }
    }
    return false;
}
