/* A sale with a real server: products, buyers on one thread who come again as long as they are told to, what they heard, and a connection to
 * the Redis behind it. Judged by the store: sale_fixture_end_sale().
 *
 * While anything waits with wait_a_moment(), the buyers of every fixture go on; one test process has at most two. */
#ifndef DOORBUSTER_TEST_SALE_FIXTURE_H
#define DOORBUSTER_TEST_SALE_FIXTURE_H

#include "crowd.h"
#include "ledger.h"
#include "server_fixture.h"

#include "doorbuster/redis.h"

#define SALE_BUYERS_MAX 256
#define SALE_PRODUCTS_MAX 8
#define SALE_PRICE 500     /* of every product, see server_fixture_add_product() */
#define SALE_GO_ON_MS 3000 /* from a fault to purchases that are asked for and confirmed again */
#define SALE_PATIENCE_MS 20000

struct sale_buyer {
    char token[JWT_TOKEN_BYTES_MAX];
    int64_t product, quantity; /* asked for last */
    uint16_t port;             /* of the server that is asked, from the next connection on; 0: as it is */
    bool waits;                /* for the answer */
    int status;                /* of the last answer; CROWD_BROKEN: none came */
    int64_t answered_us;       /* from the request to it */
};

struct sale_fixture {
    struct server_fixture server;
    const char *redis_url; /* NULL: a private one */
    redisContext *redis;   /* NULL: it is the Redlock gate */
    struct crowd *crowd;
    struct ledger ledger;
    size_t buyer_count, product_count;
    int64_t first_user;
    struct sale_buyer buyers[SALE_BUYERS_MAX];
    int64_t products[SALE_PRODUCTS_MAX], stocks[SALE_PRODUCTS_MAX];
    int64_t asked_us[SALE_PRODUCTS_MAX]; /* when the latest of all confirmed purchases of it was asked for */
    bool selling;                        /* buyers come again */
    uint64_t random;
};

/* Starts the server, on a private Redis or on this one; on the nodes of $REDIS_NODES or private ones, if the gate under test is the Redlock
 * gate. `environment` as in server_fixture_start(). */
void sale_fixture_begin(struct sale_fixture *sale, unsigned workers, size_t buyers, const char *redis_url,
                        const char *const *environment);
/* For teardown, whatever has happened. */
void sale_fixture_end(struct sale_fixture *sale);
int64_t sale_fixture_add_product(struct sale_fixture *sale, int64_t stock, int64_t limit);

/* --- buying
 * ------------------------------------------------------------------------------------------------------------------------ */
/* One purchase; the buyer must not be waiting. */
void sale_fixture_ask(struct sale_fixture *sale, size_t buyer, int64_t product, int64_t quantity);
/* Asks and waits for the answer: its status. */
int sale_fixture_buy(struct sale_fixture *sale, size_t buyer, int64_t product, int64_t quantity);
void sale_fixture_await_answer(struct sale_fixture *sale, size_t buyer);
/* All of them, again and again, all products. */
void sale_fixture_start_buying(struct sale_fixture *sale);
void sale_fixture_stop_buying(struct sale_fixture *sale); /* and waits for the last answers */
void sale_fixture_buy_for(struct sale_fixture *sale, int ms);
/* Until nobody has heard of an order for a moment: what was told already has arrived. */
void sale_fixture_await_silence(struct sale_fixture *sale);
/* Within SALE_GO_ON_MS of `since_us` a purchase of every product is confirmed that was asked for after it. Or else
 * the test fails, and says after `what`. */
void sale_fixture_expect_going_on(struct sale_fixture *sale, int64_t since_us, const char *what);

/* --- the books
 * --------------------------------------------------------------------------------------------------------------------- */
/* Connects anew: after a failover another one is behind its address. */
void sale_fixture_find_redis(struct sale_fixture *sale);
/* A field of the head, "" if there is none. */
void sale_fixture_head(const struct sale_fixture *sale, const char *field, char out[64]);
int64_t sale_fixture_orders_given(const struct sale_fixture *sale); /* -1: the head does not say */
void sale_fixture_await_orders_given(struct sale_fixture *sale, int64_t orders);
uint64_t sale_fixture_epoch(const struct sale_fixture *sale); /* of the open gate; 0: closed */
/* The gate is open with an epoch above this. */
void sale_fixture_await_epoch_after(struct sale_fixture *sale, uint64_t epoch);
/* A buyer's orders in the store. */
size_t sale_fixture_orders_of(const struct sale_fixture *sale, size_t buyer, enum order_state state);
struct store_product sale_fixture_product(const struct sale_fixture *sale,
                                          int64_t product); /* from the store */

void sale_fixture_signal(const struct sale_fixture *sale, const char *title, int signal_number);
/* kill -9, and until there is another one. */
void sale_fixture_kill(const struct sale_fixture *sale, const char *title);

/* Buying stops; every 201 is in the store, with its price; order ids are dense; verify finds nothing. The server goes on. */
void sale_fixture_judge(struct sale_fixture *sale);
/* Buying stops; every 201 is in the store, with its price; order ids are dense; nobody's connection broke; verify finds nothing; the server
 * had to restart so many processes, and leaves as it should. */
void sale_fixture_end_sale(struct sale_fixture *sale, int64_t restarts);

#endif
