/* How many orders a second store_record() commits, in runs of several sizes, fsync included; then the same of store_sell(), which decides them too.
 *
 *   bench_store [FOLDER|URL [ORDERS [USERS]]]    a new store in FOLDER (default .), ORDERS a row (200000), that many USERS (100000)
 *
 * One process, one thread; works in a file of its own in FOLDER, which it removes, or in the empty database of URL (postgresql://…), which it
 * leaves full. A table on stdout, exit 1 on any failure. `p99` and `slowest` are of single commits: what a checkpoint costs the buyers who wait
 * behind it. */
#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RUN_MAX 1000
#define PRODUCTS 5
#define STOCK PRODUCT_STOCK_MAX

struct bench {
    struct store *store;
    struct log_position position;
    int64_t next_id;
    int64_t users;
    uint64_t random;
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fail(const char *what)
{
    fprintf(stderr, "bench_store: %s\n", what);
    exit(1);
}

static void record(struct bench *bench, const struct log_entry *entries, size_t count)
{
    static int64_t rejected[RUN_MAX];
    size_t rejected_count;
    if (store_record(bench->store, 1, bench->position, entries, count, rejected, RUN_MAX, &rejected_count) !=
        STORE_OK)
        fail(store_error(bench->store));
    CHECK(rejected_count == 0);
    bench->position = entries[count - 1].position;
}

static void open_products(struct bench *bench)
{
    for (int i = 1; i <= PRODUCTS; i++) {
        struct store_product product = {.price = 100, .planned_stock = STOCK};
        snprintf(product.name, sizeof product.name, "Product %d", i);
        if (store_add_product(bench->store, &product) != STORE_OK)
            fail(store_error(bench->store));
        struct log_entry entry = {
            .position = {1, bench->position.n + 1},
            .kind = LOG_ENTRY_STOCK,
            .at_ms = 1,
            .stock = {.product_id = product.id, .delta = STOCK, .remaining = STOCK, .cause = STOCK_OPENING}};
        record(bench, &entry, 1);
    }
}

/* One run: one entry for each 256 orders, as the gate writes them. */
static void record_run(struct bench *bench, size_t size)
{
    static struct sale_order orders[RUN_MAX];
    struct log_entry entries[RUN_MAX / SALES_LOG_ORDERS_MAX + 1];
    size_t count = 0;
    for (size_t i = 0; i < size; i++)
        orders[i] = (struct sale_order){
            .id = bench->next_id++,
            .request = (int64_t)(next_random(&bench->random) >> 1),
            .user_id = 1 + (int64_t)(next_random(&bench->random) % (uint64_t)bench->users),
            .product_id = 1 + (int64_t)(next_random(&bench->random) % PRODUCTS),
            .quantity = 1,
            .unit_price = 100,
            .remaining = STOCK - bench->next_id};
    for (size_t i = 0; i < size; i += SALES_LOG_ORDERS_MAX) {
        size_t rest = size - i;
        entries[count] =
            (struct log_entry){.position = {1, bench->position.n + 1 + count},
                               .kind = LOG_ENTRY_SALE,
                               .at_ms = clock_wall_ms(),
                               .orders = orders + i,
                               .order_count = rest < SALES_LOG_ORDERS_MAX ? rest : SALES_LOG_ORDERS_MAX};
        count++;
    }
    record(bench, entries, count);
}

/* One batch of single purchases, every other one with an idempotency key. */
static void sell_batch(struct bench *bench, size_t size)
{
    static struct purchase all[SALES_LOG_ORDERS_MAX];
    static char keys[SALES_LOG_ORDERS_MAX][32];
    static struct stock_moves moves;
    struct purchase *purchases[SALES_LOG_ORDERS_MAX];
    for (size_t i = 0; i < size; i++) {
        int bytes = snprintf(keys[i], sizeof keys[i], "key-%lld", (long long)++bench->next_id);
        all[i] = (struct purchase){
            .order = {.request = bench->next_id,
                      .user_id = 1 + (int64_t)(next_random(&bench->random) % (uint64_t)bench->users),
                      .product_id = 1 + (int64_t)(next_random(&bench->random) % PRODUCTS),
                      .quantity = 1,
                      .key = i % 2 == 0 ? keys[i] : NULL,
                      .key_bytes = i % 2 == 0 ? (size_t)bytes : 0}};
        purchases[i] = &all[i];
    }
    if (store_sell(bench->store, purchases, size, &moves) != STORE_OK)
        fail(store_error(bench->store));
    CHECK(all[size - 1].order.id > 0);
}

static int compare_times(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

static double row(struct bench *bench, void (*work)(struct bench *, size_t), size_t size, int64_t total,
                  double first)
{
    int64_t runs = total / (int64_t)size;
    if (size < 100 && runs > 20000 / (int64_t)size)
        runs = 20000 / (int64_t)size; /* small runs are slow; enough is enough */
    int64_t *took_us = calloc((size_t)runs, sizeof *took_us);
    if (took_us == NULL)
        fail("out of memory");
    int64_t began_us = clock_monotonic_us();
    for (int64_t i = 0; i < runs; i++) {
        int64_t from_us = clock_monotonic_us();
        work(bench, size);
        took_us[i] = clock_monotonic_us() - from_us;
    }
    double took_s = (double)(clock_monotonic_us() - began_us) / 1e6;
    double rate = (double)(runs * (int64_t)size) / took_s;
    qsort(took_us, (size_t)runs, sizeof *took_us, compare_times);
    printf("%10zu %14.0f %12.3f %12.3f %12.1f %9.1fx\n", size, rate, took_s * 1e3 / (double)runs,
           (double)took_us[runs - 1 - runs / 100] / 1e3, (double)took_us[runs - 1] / 1e3,
           first > 0 ? rate / first : 1.0);
    fflush(stdout);
    free(took_us);
    return rate;
}

static void table(struct bench *bench, void (*work)(struct bench *, size_t), const char *title,
                  const size_t *sizes, size_t count, int64_t total)
{
    printf("%10s %14s %12s %12s %12s %10s\n", title, "orders/s", "ms/commit", "p99 ms", "slowest ms",
           "ratio");
    double first = 0;
    for (size_t i = 0; i < count; i++) {
        double rate = row(bench, work, sizes[i], total, first);
        first = i == 0 ? rate : first;
    }
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {1, 10, 100, 256, RUN_MAX}, batches[] = {1, 32, SALES_LOG_ORDERS_MAX};
    struct bench bench = {.next_id = 1, .random = 88172645463325252u};
    const char *place = argc > 1 ? argv[1] : ".";
    bool in_folder = strchr(place, ':') == NULL;
    int64_t total = argc > 2 ? strtoll(argv[2], NULL, 10) : 200000;
    bench.users = argc > 3 ? strtoll(argv[3], NULL, 10) : 100000;
    if (total < RUN_MAX || bench.users < 1)
        fail("bench_store [FOLDER|URL [ORDERS [USERS]]]: ORDERS is at least 1000, USERS at least 1");
    char url[1024], error[512];
    if (in_folder)
        snprintf(url, sizeof url, "sqlite:%s/bench_store.%ld.db", place, (long)getpid());
    else
        snprintf(url, sizeof url, "%s", place);
    if (store_open(&bench.store, url, STORE_WRITER, error, sizeof error) != STORE_OK)
        fail(error);
    if (store_raise_epoch(bench.store, 0, 1) != STORE_OK)
        fail(store_error(bench.store));
    open_products(&bench);
    table(&bench, record_run, "orders/run", sizes, sizeof sizes / sizeof sizes[0], total);
    if (store_take_over(bench.store) != STORE_OK)
        fail(store_error(bench.store));
    table(&bench, sell_batch, "sold/batch", batches, sizeof batches / sizeof batches[0], total);
    store_close(&bench.store);
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; in_folder && i < 4; i++) {
        char path[1100];
        snprintf(path, sizeof path, "%s%s", url + strlen("sqlite:"), suffixes[i]);
        unlink(path);
    }
    return 0;
}
