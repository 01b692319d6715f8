/* The board as Prometheus text: what there is of each product, how far the record is, who is running. As text.c. If the board is being written over
 * and over, or was left half-written, its lines are missing once. */
#include "text.h"

#include "doorbuster/clock.h"

#include <inttypes.h>

static const char product_line[] =
    "doorbuster_product_units{product_id=\"%" PRId64 "\",state=\"%s\"} %" PRId64 "\n";

static void append_units(struct metrics_text *text, const struct board_product *product)
{
    const struct {
        const char *state;
        int64_t units;
    } units[] = {{"available", product->available},
                 {"in_flight", product->in_flight},
                 {"sold", product->sold},
                 {"stock", product->stock}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (units[i].units >= 0) { /* else nobody knows */
            metrics_append(text, product_line, product->id, units[i].state, units[i].units);
        }
    }
}

/* More than there ever was to sell. Of a bundle: its components say it. */
static int64_t oversold(const struct board_product *product)
{
    int64_t over = product->sold - product->cancelled - product->opening - product->restocked;
    return product->is_bundle || over < 0 ? 0 : over;
}

static void append_products(struct metrics_text *text, const struct board_sale *sale)
{
    metrics_append_head(
        text, "product_units", "gauge",
        "units of a product: available by the gate, in_flight between gate and store, sold and "
        "stock by the store; of the newest products");
    for (int64_t i = 0; i < sale->product_count; i++) {
        append_units(text, &sale->products[i]);
    }
    metrics_append_head(text, "product_oversold_units", "gauge",
                        "units of a product sold beyond what there was; anything but 0 must never happen");
    for (int64_t i = 0; i < sale->product_count; i++) {
        metrics_append(text, "doorbuster_product_oversold_units{product_id=\"%" PRId64 "\"} %" PRId64 "\n",
                       sale->products[i].id, oversold(&sale->products[i]));
    }
}

static void append_number(struct metrics_text *text, const char *name, const char *help, int64_t value)
{
    metrics_append_head(text, name, "gauge", help);
    metrics_append(text, "doorbuster_%s %" PRId64 "\n", name, value);
}

static void append_seconds(struct metrics_text *text, const char *name, const char *help, double value)
{
    metrics_append_head(text, name, "gauge", help);
    metrics_append(text, "doorbuster_%s %.3f\n", name, value);
}

static void append_record(struct metrics_text *text, const struct board_sale *sale)
{
    append_number(text, "products", "products in the store", sale->products_total);
    append_number(text, "products_differing", "products whose two books differed in the last look",
                  sale->differences);
    if (sale->compared_at_ms > 0) {
        append_seconds(text, "books_compared_timestamp_seconds",
                       "when the books of all products were last compared, since 1970",
                       (double)sale->compared_at_ms / 1e3);
    }
    append_number(text, "orders", "the newest order's id: so many orders there are", sale->orders_total);
    append_number(text, "recorder_lag_entries", "entries of the sales log that are not recorded yet",
                  sale->lag_entries);
    append_seconds(text, "recorder_lag_seconds", "age of the oldest of these", (double)sale->lag_us / 1e6);
    append_number(text, "epoch", "the gate's epoch: how often a recorder attached, or a gate took over",
                  (int64_t)sale->epoch);
}

static void append_silence(struct metrics_text *text, const struct metrics_page *page,
                           const struct board_sale *sale)
{
    int64_t silent_us = sale->written_us > 0 ? clock_monotonic_us() - sale->written_us
                                             : (clock_wall_ms() - page->started_at_ms) * 1000;
    append_seconds(text, "recorder_silent_seconds",
                   "since the recorder, or the keeper, last showed what it sees; normally below 1",
                   silent_us > 0 ? (double)silent_us / 1e6 : 0);
}

static void append_processes(struct metrics_text *text, const struct metrics_page *page,
                             const struct board_processes *processes)
{
    metrics_append_head(text, "process_up", "gauge", "1 if the process runs and is ready");
    for (size_t i = 0; i < processes->count; i++) {
        const struct board_process *process = &processes->each[i];
        metrics_append(text, "doorbuster_process_up{process=\"%s\"} %d\n", process->name,
                       process->pid > 0 && process->ready);
    }
    metrics_append_head(text, "process_restarts_total", "counter",
                        "times the supervisor started the process again");
    for (size_t i = 0; i < processes->count; i++) {
        metrics_append(text, "doorbuster_process_restarts_total{process=\"%s\"} %" PRIu64 "\n",
                       processes->each[i].name, processes->each[i].restarts);
    }
    if (processes->count == 0) { /* the supervisor keeps no table */
        metrics_append(text, "doorbuster_process_restarts_total{process=\"any\"} %" PRIu64 "\n",
                       metrics_sum(page, METRICS_process_restarts));
    }
}

void metrics_append_board(struct metrics_text *text, const struct metrics_page *page)
{
    static struct board_sale sale; /* one thread */
    static struct board_processes processes;
    if (board_read_sale(&page->board, &sale)) {
        if (sale.written_us > 0) {
            append_products(text, &sale);
            append_record(text, &sale);
        }
        append_silence(text, page, &sale);
    }
    if (board_read_processes(&page->board, &processes)) {
        append_processes(text, page, &processes);
    }
}
