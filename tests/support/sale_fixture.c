/* See sale_fixture.h. The test process's main thread; owns the server, the buyers' connections and one to Redis. */
#include "sale_fixture.h"

#include "testing.h"
#include "tool.h"

#include "doorbuster/json.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SALES_MAX 2
#define STEP_MS 2
#define QUANTITY_MAX 3

static struct sale_fixture *sales[SALES_MAX]; /* that have a crowd */

static void step_cb(void)
{
    bool stepped = false;
    for (size_t i = 0; i < SALES_MAX; i++) {
        if (sales[i] != NULL) {
            crowd_step(sales[i]->crowd, stepped ? 0 : STEP_MS);
            stepped = true;
        }
    }
}

static void enlist(struct sale_fixture *old, struct sale_fixture *new)
{
    for (size_t i = 0; i < SALES_MAX; i++) {
        if (sales[i] == old) {
            sales[i] = new;
            break;
        }
    }
    wait_with(sales[0] != NULL || sales[1] != NULL ? step_cb : NULL);
}

/* --- buying
 * ------------------------------------------------------------------------------------------------------------------------ */
static void buy_anything(struct sale_fixture *sale, size_t buyer)
{
    size_t product = random_below(&sale->random, (uint32_t)sale->product_count);
    sale_fixture_ask(sale, buyer, sale->products[product], 1 + random_below(&sale->random, QUANTITY_MAX));
}

static void note_confirmed(struct sale_fixture *sale, size_t client, const struct crowd_answer *answer)
{
    const struct sale_buyer *buyer = &sale->buyers[client];
    int64_t price = 0;
    ledger_note(&sale->ledger, answer, sale->first_user + (int64_t)client, buyer->product, buyer->quantity);
    cJSON *json = json_parse_object(answer->body, strlen(answer->body));
    assert_int_equal(json_get_integer(json, "total_price", 0, JSON_INTEGER_MAX, &price), JSON_FIELD_OK);
    cJSON_Delete(json);
    assert_int_equal(price, SALE_PRICE * buyer->quantity);
    for (size_t i = 0; i < sale->product_count; i++) {
        if (sale->products[i] == buyer->product && sale->asked_us[i] < answer->sent_us) {
            sale->asked_us[i] = answer->sent_us;
        }
    }
}

static void answer_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    struct sale_fixture *sale = context;
    struct sale_buyer *buyer = &sale->buyers[client];
    buyer->status = answer->status;
    buyer->answered_us = answer->got_us - answer->sent_us;
    buyer->waits = false;
    switch (answer->status) {
    case 201:
        note_confirmed(sale, client, answer);
        break;
    case CROWD_BROKEN:
        sale->ledger.broken++;
        break;
    case 503:
        sale->ledger.unavailable++;
        break;
    case 400: /* sold out */
    case 404: /* not on sale */
    case 409: /* limit, rejected */
        break;
    default:
        fail_msg("status %d: %s", answer->status, answer->body);
    }
    if (sale->selling) {
        buy_anything(sale, client);
    }
}

void sale_fixture_ask(struct sale_fixture *sale, size_t buyer, int64_t product, int64_t quantity)
{
    struct sale_buyer *asking = &sale->buyers[buyer];
    assert_false(asking->waits);
    asking->product = product;
    asking->quantity = quantity;
    asking->waits = true;
    if (asking->port != 0) {
        crowd_move(sale->crowd, buyer, asking->port);
    }
    crowd_buy(sale->crowd, buyer, asking->token, product, quantity);
}

void sale_fixture_await_answer(struct sale_fixture *sale, size_t buyer)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (sale->buyers[buyer].waits) {
        assert_true(wait_a_moment(deadline));
    }
}

int sale_fixture_buy(struct sale_fixture *sale, size_t buyer, int64_t product, int64_t quantity)
{
    sale_fixture_ask(sale, buyer, product, quantity);
    sale_fixture_await_answer(sale, buyer);
    return sale->buyers[buyer].status;
}

void sale_fixture_start_buying(struct sale_fixture *sale)
{
    assert_true(crowd_connect(sale->crowd, SALE_PATIENCE_MS));
    sale->selling = true;
    for (size_t i = 0; i < sale->buyer_count; i++) {
        if (!sale->buyers[i].waits) {
            buy_anything(sale, i);
        }
    }
}

void sale_fixture_stop_buying(struct sale_fixture *sale)
{
    sale->selling = false;
    assert_true(crowd_finish(sale->crowd, SALE_PATIENCE_MS));
}

void sale_fixture_buy_for(struct sale_fixture *sale, int ms)
{
    (void)sale;
    int64_t deadline = deadline_in(ms);
    while (wait_a_moment(deadline)) {
    }
}

void sale_fixture_await_silence(struct sale_fixture *sale)
{
    size_t confirmed;
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    do {
        confirmed = sale->ledger.confirmed;
        sale_fixture_buy_for(sale, 300);
        assert_true(now_us() < deadline);
    } while (sale->ledger.confirmed != confirmed);
}

void sale_fixture_expect_going_on(struct sale_fixture *sale, int64_t since_us, const char *what)
{
    int64_t deadline = since_us + (int64_t)SALE_GO_ON_MS * 1000;
    for (size_t i = 0; i < sale->product_count; i++) {
        while (sale->asked_us[i] <= since_us) {
            if (!wait_a_moment(deadline)) {
                fail_msg("%s: product %" PRId64 " is not sold within %d ms (%zu confirmed, %zu unavailable)",
                         what, sale->products[i], SALE_GO_ON_MS, sale->ledger.confirmed,
                         sale->ledger.unavailable);
            }
        }
    }
}

/* --- Redis
 * ------------------------------------------------------------------------------------------------------------------------- */
void sale_fixture_head(const struct sale_fixture *sale, const char *field, char out[64])
{
    redisReply *reply = redisCommand(sale->redis, "HGET {doorbuster}:head %s", field);
    assert_non_null(reply);
    snprintf(out, 64, "%s", reply->type == REDIS_REPLY_STRING ? reply->str : "");
    freeReplyObject(reply);
}

static int64_t head_number(const struct sale_fixture *sale, const char *field)
{
    char text[64], *end;
    sale_fixture_head(sale, field, text);
    int64_t number = strtoll(text, &end, 10);
    return text[0] != '\0' && *end == '\0' ? number : -1;
}

int64_t sale_fixture_orders_given(const struct sale_fixture *sale)
{
    return head_number(sale, "orders");
}

void sale_fixture_await_orders_given(struct sale_fixture *sale, int64_t orders)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (sale_fixture_orders_given(sale) < orders) {
        assert_true(wait_a_moment(deadline));
    }
}

uint64_t sale_fixture_epoch(const struct sale_fixture *sale)
{
    int64_t epoch = head_number(sale, "epoch");
    return epoch > 0 ? (uint64_t)epoch : 0;
}

void sale_fixture_await_epoch_after(struct sale_fixture *sale, uint64_t epoch)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (sale_fixture_epoch(sale) <= epoch) {
        assert_true(wait_a_moment(deadline));
    }
}

static redisContext *connect_to_redis(const struct sale_fixture *sale)
{
    struct redis_address address;
    char error[512];
    if (sale->redis_url == NULL) {
        return server_fixture_redis(&sale->server);
    }
    assert_true(redis_address_parse(sale->redis_url, &address, error, sizeof error));
    snprintf(address.key, sizeof address.key, "{doorbuster}:head");
    redisContext *redis = redis_connect_blocking(&address, SALE_PATIENCE_MS, error, sizeof error);
    if (redis == NULL) {
        fail_msg("%s", error);
    }
    return redis;
}

void sale_fixture_find_redis(struct sale_fixture *sale)
{
    redisFree(sale->redis);
    sale->redis = NULL;
    sale->redis = connect_to_redis(sale);
}

/* --- the store
 * --------------------------------------------------------------------------------------------------------------------- */
static struct store *read_store(const struct sale_fixture *sale)
{
    struct store *store;
    char error[512];
    if (store_open(&store, sale->server.store_url, STORE_READER, error, sizeof error) != STORE_OK) {
        fail_msg("%s", error);
    }
    return store;
}

size_t sale_fixture_orders_of(const struct sale_fixture *sale, size_t buyer, enum order_state state)
{
    struct store_order orders[100];
    struct store *store = read_store(sale);
    size_t count, found = 0;
    assert_int_equal(
        store_orders_of(store, sale->first_user + (int64_t)buyer, INT64_MAX, orders, 100, &count), STORE_OK);
    assert_in_range(count, 0, 99);
    for (size_t i = 0; i < count; i++) {
        found += orders[i].state == state;
    }
    store_close(&store);
    return found;
}

struct store_product sale_fixture_product(const struct sale_fixture *sale, int64_t product)
{
    struct store *store = read_store(sale);
    struct store_product found;
    assert_int_equal(store_find_product(store, product, &found), STORE_OK);
    store_close(&store);
    return found;
}

static void check_prices(const struct sale_fixture *sale, struct store *store)
{
    for (size_t i = 0; i < sale->ledger.count; i++) {
        struct store_order order;
        assert_int_equal(store_find_order(store, sale->ledger.entries[i].order, &order), STORE_OK);
        assert_int_equal(order.sale.unit_price, SALE_PRICE);
    }
}

static void check_store(const struct sale_fixture *sale)
{
    struct store_orders_audit orders;
    ledger_check_store(&sale->ledger, sale->server.store_url);
    struct store *store = read_store(sale);
    check_prices(sale, store);
    assert_int_equal(store_snapshot_begin(store), STORE_OK);
    assert_int_equal(store_audit_orders(store, &orders), STORE_OK);
    assert_int_equal(orders.first_gap, 0);
    assert_int_equal(orders.last_id, orders.count);
    assert_int_equal(orders.out_of_log_order + orders.out_of_time_order, 0);
    for (size_t i = 0; i < sale->product_count; i++) {
        struct store_product product;
        struct store_product_audit sums;
        assert_int_equal(store_find_product(store, sale->products[i], &product), STORE_OK);
        assert_int_equal(store_audit_product(store, sale->products[i], &sums), STORE_OK);
        assert_int_equal(sums.order_units, product.sold);
        assert_int_equal(product.sold + product.stock, sale->stocks[i]);
        assert_int_equal(sums.over_limit_customers, 0);
    }
    store_snapshot_end(store);
    store_close(&store);
}

/* --- processes
 * ----------------------------------------------------------------------------------------------------------------------- */
void sale_fixture_signal(const struct sale_fixture *sale, const char *title, int signal_number)
{
    assert_int_equal(kill(server_fixture_child(&sale->server, title), signal_number), 0);
}

void sale_fixture_kill(const struct sale_fixture *sale, const char *title)
{
    pid_t pid = server_fixture_child(&sale->server, title), now;
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    assert_int_equal(kill(pid, SIGKILL), 0);
    while (server_fixture_find(&sale->server, title, &now, 1) != 1 || now == pid) {
        assert_true(wait_a_moment(deadline));
    }
}

/* --- the whole
 * --------------------------------------------------------------------------------------------------------------------- */
void sale_fixture_begin(struct sale_fixture *sale, unsigned workers, size_t buyers, const char *redis_url,
                        const char *const *environment)
{
    static uint64_t seed;
    *sale = (struct sale_fixture){.redis_url = redis_url, .buyer_count = buyers, .random = ++seed};
    assert_in_range(buyers, 1, SALE_BUYERS_MAX);
    server_fixture_begin(&sale->server);
    server_fixture_start(&sale->server, workers, redis_url != NULL ? LIST("--redis", redis_url) : NULL,
                         environment);
    sale->first_user = server_fixture_add_users(&sale->server, buyers);
    for (size_t i = 0; i < buyers; i++) {
        server_fixture_token(&sale->server, sale->first_user + (int64_t)i, USER_BUYER, sale->buyers[i].token);
    }
    sale->redis = gate_is_redlock() ? NULL : connect_to_redis(sale);
    sale->crowd = crowd_new(sale->server.port, buyers, answer_cb, sale);
    enlist(NULL, sale);
}

int64_t sale_fixture_add_product(struct sale_fixture *sale, int64_t stock, int64_t limit)
{
    assert_in_range(sale->product_count, 0, SALE_PRODUCTS_MAX - 1);
    int64_t product = server_fixture_add_product(&sale->server, stock, limit);
    sale->stocks[sale->product_count] = stock;
    sale->products[sale->product_count++] = product;
    return product;
}

static void let_go(struct sale_fixture *sale)
{
    if (sale->crowd != NULL) {
        enlist(sale, NULL);
        crowd_free(&sale->crowd);
    }
    if (sale->redis != NULL) {
        redisFree(sale->redis);
        sale->redis = NULL;
    }
}

void sale_fixture_judge(struct sale_fixture *sale)
{
    sale_fixture_stop_buying(sale);
    tool_expect(&sale->server, "verify", sale->redis_url != NULL ? LIST("--redis", sale->redis_url) : NULL, 0,
                "");
    check_store(sale);
}

void sale_fixture_end_sale(struct sale_fixture *sale, int64_t restarts)
{
    sale_fixture_stop_buying(sale);
    assert_int_equal(sale->ledger.broken, 0);
    assert_int_equal(server_fixture_metric(&sale->server, "process_restarts"), restarts);
    sale_fixture_judge(sale);
    let_go(sale);
    server_fixture_stop(&sale->server);
}

void sale_fixture_end(struct sale_fixture *sale)
{
    if (sale->server.folder[0] == '\0') {
        return;
    }
    let_go(sale);
    ledger_free(&sale->ledger);
    server_fixture_end(&sale->server);
    sale->server.folder[0] = '\0';
}
