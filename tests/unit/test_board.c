/* The board between processes: a reader never sees a torn one, however fast it is written; a writer killed half-way does no lasting harm. */
#include "testing.h"

#include "doorbuster/metrics.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define READS 3000
#define KILLS 20

static struct board_sale sale, seen;
static struct board_processes processes, processes_seen;

/* All of it says the same number. */
static void fill(int64_t number)
{
    sale.written_us = sale.orders_total = sale.lag_entries = number;
    sale.order_count = BOARD_ORDERS_MAX;
    sale.product_count = number % (BOARD_PRODUCTS_MAX + 1);
    for (int64_t i = 0; i < BOARD_ORDERS_MAX; i++) {
        sale.orders[i].id = sale.orders[i].at_ms = number;
    }
    for (int64_t i = 0; i < sale.product_count; i++) {
        sale.products[i].id = sale.products[i].sold = sale.products[i].available = number;
        snprintf(sale.products[i].name, sizeof sale.products[i].name, "%lld", (long long)number);
    }
    processes.count = BOARD_PROCESSES_MAX;
    for (size_t i = 0; i < BOARD_PROCESSES_MAX; i++) {
        processes.each[i].started_at_ms = number;
        processes.each[i].restarts = (uint64_t)number;
    }
    processes.started_at_ms = number;
}

static void expect_whole(void)
{
    int64_t number = seen.written_us;
    assert_int_equal(seen.orders_total, number);
    assert_int_equal(seen.product_count, number % (BOARD_PRODUCTS_MAX + 1));
    for (int64_t i = 0; i < BOARD_ORDERS_MAX && number > 0; i++) {
        assert_int_equal(seen.orders[i].id, number);
        assert_int_equal(seen.orders[i].at_ms, number);
    }
    for (int64_t i = 0; i < seen.product_count; i++) {
        assert_int_equal(seen.products[i].id, number);
        assert_int_equal(seen.products[i].available, number);
        assert_int_equal(strtoll(seen.products[i].name, NULL, 10), number);
    }
}

static void expect_whole_processes(void)
{
    for (size_t i = 0; i < processes_seen.count; i++) {
        assert_int_equal(processes_seen.each[i].started_at_ms, processes_seen.started_at_ms);
        assert_int_equal(processes_seen.each[i].restarts, processes_seen.started_at_ms);
    }
}

/* Writes flat out until it is killed. */
static pid_t start_writer(struct board *board)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* with a test that failed */
    }
    for (int64_t number = 1; pid == 0; number++) {
        fill(number);
        board_write_sale(board, &sale);
        board_write_processes(board, &processes);
    }
    return pid;
}

static void kill_writer(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_never_written(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    assert_true(board_read_sale(&page->board, &seen));
    assert_int_equal(seen.written_us, 0);
    assert_true(board_read_processes(&page->board, &processes_seen));
    assert_int_equal(processes_seen.count, 0);
}

static void test_nobody_sees_a_torn_one(void **state)
{
    struct metrics_page *page = metrics_page_new();
    unsigned read = 0, changes = 0;
    int64_t last = 0;
    (void)state;
    pid_t pid = start_writer(&page->board);
    for (int i = 0; i < READS || changes < 10; i++) {
        if (board_read_sale(&page->board, &seen)) {
            read++;
            expect_whole();
            assert_true(seen.written_us >= last);
            changes += seen.written_us > last;
            last = seen.written_us;
        }
        if (board_read_processes(&page->board, &processes_seen)) {
            expect_whole_processes();
        }
    }
    kill_writer(pid);
    assert_true(read > 0);
}

/* Wherever it was killed: what is there is whole, or nobody takes it; and the next writer makes it whole. */
static void test_writers_are_killed(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    for (int i = 0; i < KILLS; i++) {
        pid_t pid = start_writer(&page->board);
        usleep((useconds_t)(200 * i));
        kill_writer(pid);
        if (board_read_sale(&page->board, &seen)) {
            expect_whole();
        }
        fill(1000 + i);
        board_write_sale(&page->board, &sale);
        board_write_processes(&page->board, &processes);
        assert_true(board_read_sale(&page->board, &seen));
        assert_int_equal(seen.written_us, 1000 + i);
        expect_whole();
        assert_true(board_read_processes(&page->board, &processes_seen));
        expect_whole_processes();
    }
}

static void test_left_half_written(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    fill(5);
    board_write_sale(&page->board, &sale);
    page->board.sale_sequence |= 1; /* a writer was here, and died */
    assert_false(board_read_sale(&page->board, &seen));
    page->board.sale.product_count = INT64_MAX; /* it may have left anything */
    assert_false(board_read_sale(&page->board, &seen));
    fill(6);
    board_write_sale(&page->board, &sale);
    assert_int_equal(page->board.sale_sequence % 2, 0);
    assert_true(board_read_sale(&page->board, &seen));
    expect_whole();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_written),
        cmocka_unit_test(test_nobody_sees_a_torn_one),
        cmocka_unit_test(test_writers_are_killed),
        cmocka_unit_test(test_left_half_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
