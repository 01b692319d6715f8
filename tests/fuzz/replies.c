/* What Redis answers. The input's first letter says who asks, the rest are the bytes that come back: through hiredis and a socket, as always. Whatever it
 * is, the asker says yes or no, and what it takes can be. Capital letters: texts within replies. */
#include "fuzz.h"

#include "finding.h"
#include "news.h"
#include "node_stock.h"
#include "redlock_arithmetic.h"

#include "doorbuster/gate_lease.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ENTRIES_MAX 16

/* --- who asks ------------------------------------------------------------------------------------------------------------------------- */
static void ask_head(redisContext *redis)
{
    struct gate_head head;
    if (gate_read_head(redis, &head)) {
        CHECK(head.epoch <= LOG_EPOCH_MAX && head.orders >= -1 && head.at_ms >= -1);
        CHECK(strlen(head.opened_on) < sizeof head.opened_on && strlen(head.master) < sizeof head.master);
    }
}

static void ask_log(redisContext *redis)
{
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    static struct order_part parts[SALES_LOG_PARTS_MAX];
    static struct log_entry entries[ENTRIES_MAX];
    struct log_room room = {.orders = orders,
                            .orders_max = SALES_LOG_ORDERS_MAX,
                            .parts = parts,
                            .parts_max = SALES_LOG_PARTS_MAX};
    struct gate_announcement news = {.store_id = 4711, .epoch = 7, .recorded = {7, 1041}};
    redisReply *reply = NULL;
    size_t count = 0;
    if (gate_read_log(redis, &news, (struct log_position){7, 1041}, 0, entries, ENTRIES_MAX, &room, &count,
                      &reply)) {
        CHECK(count <= ENTRIES_MAX);
        for (size_t i = 0; i < count; i++) {
            CHECK(entries[i].kind <= LOG_ENTRY_DAMAGED);
            (void)log_entry_stock_delta(&entries[i], 1);
        }
    }
    freeReplyObject(reply);
}

static void ask_stocks(redisContext *redis)
{
    struct sale_product products[2] = {{.id = 1}, {.id = 9, .component_count = 2}};
    struct gate_stock stock[2];
    struct gate_behind behind;
    products[1].components[0] = (struct bundle_component){1, 2};
    products[1].components[1] = (struct bundle_component){2, 1};
    (void)gate_read_stocks(redis, products, 2, (struct log_position){7, 1041}, stock, &behind);
}

static void ask_stock(redisContext *redis)
{
    struct sale_product product = {.id = 1};
    struct gate_stock stock;
    (void)gate_read_stock(redis, &product, (struct log_position){7, 1041}, &stock);
}

static void ask_changes(redisContext *redis)
{
    struct change_result result;
    struct stock_change restock = {.product_id = 1, .delta = 5, .cause = STOCK_RESTOCK, .actor = 1};
    struct price_change price = {.product_id = 1, .to = 5, .actor = 1};
    struct window_change window = {.product_id = 1, .actor = 1};
    (void)gate_change_stock(redis, &restock, NULL, 0, &result);
    (void)gate_change_price(redis, &price, 0, &result);
    (void)gate_change_window(redis, &window, 0, &result);
}

static void ask_cancel(redisContext *redis)
{
    struct order_part part = {.product_id = 1, .quantity = 1};
    struct cancellation cancel = {.order_id = 1, .user_id = 1, .actor = 1, .parts = &part, .part_count = 1};
    struct gate_pass pass;
    struct change_result result;
    bool is_void;
    if (gate_take_pass(redis, &pass)) {
        (void)gate_cancel(redis, &pass, &cancel, &result, &is_void);
    }
}

static void ask_ours(redisContext *redis)
{
    bool ours;
    (void)gate_is_ours(redis, 4711, 7, (struct log_position){7, 1041}, 42, &ours);
}

static void ask_opening(redisContext *redis)
{
    (void)gate_open(redis, 8);
}

static void ask_wipe(redisContext *redis)
{
    (void)gate_wipe(redis, (struct log_position){7, 1041});
}

static void ask_lease(redisContext *redis)
{
    struct gate_candidate me = {.server = 1, .run = 2, .key = 3}, holder;
    unsigned ended;
    (void)gate_take_lease(redis, &me, true, &holder);
    (void)gate_name_recorder(redis, 0);
    (void)gate_end_other_recorders(redis, &ended);
}

static void ask_who_is_master(redisContext *redis)
{
    struct redis_host host;
    redisReply *reply = redis_ask(redis, "SENTINEL GET-MASTER-ADDR-BY-NAME x");
    if (reply != NULL && finding_master(reply, &host)) {
        CHECK(host.port >= 1 && host.port <= 65535 && host.host[0] != '\0');
    }
    (void)(reply != NULL && finding_is_master(reply));
    freeReplyObject(reply);
}

/* --- texts ------------------------------------------------------------------------------------------------------------------------------ */
static void read_news(const char *text, size_t bytes)
{
    struct recorded_news news, again;
    char shown[256];
    (void)bytes;
    if (!recorded_news_parse(text, &news)) {
        return;
    }
    (void)recorded_news_reject(news.rejected, 55);
    CHECK(news.epoch >= 0 && (*news.rejected == '\0' || *news.rejected == ' '));
    struct gate_announcement announcement = {
        .store_id = news.store_id, .epoch = (uint64_t)news.epoch, .recorded = news.recorded};
    CHECK(recorded_news_format(&announcement, shown, sizeof shown) == strlen(shown));
    CHECK(recorded_news_parse(shown, &again));
    CHECK(again.store_id == news.store_id && again.epoch == news.epoch);
    CHECK(log_position_compare(again.recorded, news.recorded) == 0);
}

static void read_node_stock(const char *text, size_t bytes)
{
    struct node_stock stock, again;
    char shown[NODE_STOCK_VALUE_BYTES];
    if (node_stock_parse(text, bytes, &stock)) {
        CHECK(stock.known && stock.stock >= 0);
        CHECK(node_stock_parse(shown, node_stock_format(&stock, shown), &again));
        CHECK(again.stock == stock.stock && log_position_compare(again.version, stock.version) == 0);
    }
}

static void read_info(const char *text, size_t bytes)
{
    struct redlock_run run;
    char role[16];
    if (redlock_run_parse(text, bytes, &run)) {
        CHECK(strlen(run.id) < sizeof run.id && run.uptime_s >= 0);
    }
    redis_info_value(text, "role:", role, sizeof role);
    CHECK(strlen(role) < sizeof role);
}

static void read_moved(const char *text, size_t bytes)
{
    struct redis_host host;
    (void)bytes;
    if (finding_moved(text, "127.0.0.1", &host)) {
        CHECK(redis_is_elsewhere(text));
        CHECK(host.port >= 1 && host.port <= 65535 && host.host[0] != '\0');
    }
}

/* hiredis takes memory for as many elements as a list says that it has: the sanitizer's limit would end the run. */
static bool announces_millions(const uint8_t *data, size_t bytes)
{
    size_t digits = 0;
    bool in_length = false;
    for (size_t i = 0; i < bytes && digits <= 6; i++) {
        in_length = data[i] == '*' || (in_length && data[i] >= '0' && data[i] <= '9');
        digits = in_length ? digits + (data[i] != '*') : 0;
    }
    return digits > 6;
}

/* All of it is there before the first question, and nothing comes behind it. */
static void answer(void (*ask)(redisContext *), const uint8_t *data, size_t bytes)
{
    int ends[2];
    const struct timeval patience = {.tv_sec = 1};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    redisContext *redis = redisConnectFd(ends[0]);
    CHECK(redis != NULL && redisSetTimeout(redis, patience) == REDIS_OK);
    if (send(ends[1], data, bytes, MSG_DONTWAIT) == (ssize_t)bytes) {
        shutdown(ends[1], SHUT_WR);
        ask(redis);
    }
    redisFree(redis);
    close(ends[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static void (*const askers[])(redisContext *) = {
        ['h'] = ask_head,   ['l'] = ask_log,     ['s'] = ask_stocks,        ['1'] = ask_stock,
        ['c'] = ask_cancel, ['g'] = ask_changes, ['o'] = ask_ours,          ['O'] = ask_opening,
        ['w'] = ask_wipe,   ['r'] = ask_lease,   ['m'] = ask_who_is_master,
    };
    static void (*const readers[])(const char *, size_t) = {
        ['N'] = read_news, ['S'] = read_node_stock, ['I'] = read_info, ['M'] = read_moved};
    if (bytes < 1) {
        return 0;
    }
    if (data[0] < sizeof readers / sizeof readers[0] && readers[data[0]] != NULL) {
        char *text = fuzz_text(data + 1, bytes - 1);
        readers[data[0]](text, bytes - 1);
        free(text);
    } else if (data[0] < sizeof askers / sizeof askers[0] && askers[data[0]] != NULL &&
               !announces_millions(data, bytes)) {
        answer(askers[data[0]], data + 1, bytes - 1);
    }
    return 0;
}
