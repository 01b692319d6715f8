/* The real `server` from $DOORBUSTER_BIN for a test: on a free port, with a data folder of its own.
 *
 * Setup: server_fixture_begin(), server_fixture_start(). The test ends with server_fixture_stop(), which
 * checks that the server leaves as it should. Teardown: server_fixture_end(): a server that still runs then
 * is one whose test failed, so its log is printed. */
#ifndef DOORBUSTER_TEST_SERVER_FIXTURE_H
#define DOORBUSTER_TEST_SERVER_FIXTURE_H

#include "folder.h"
#include "store_fixture.h"

#include "doorbuster/jwt.h"
#include "doorbuster/store.h"

#include <stdbool.h>
#include <sys/types.h>

#define SERVER_CHILDREN_MAX 64
#define SERVER_SECRET "a secret of the tests, 32 bytes or more"

struct server_fixture {
    char folder[FOLDER_BYTES];
    char data[FOLDER_BYTES + 8], log_path[FOLDER_BYTES + 8];
    char store_url[STORE_FIXTURE_URL_BYTES];
    pid_t pid; /* the supervisor; 0: not running */
    uint16_t port;
    unsigned workers;
    bool bug_lines_allowed;
    uint16_t wanted_port; /* 0: any */
    long log_from;        /* where the log of this run begins */
    struct jwt *jwt;
};

void server_fixture_begin(struct server_fixture *fixture);
/* Starts it with so many workers and waits for the ready line. `arguments` and `environment` end with NULL,
 * or are NULL. */
void server_fixture_start(struct server_fixture *fixture, unsigned workers, const char *const *arguments,
                          const char *const *environment);
/* SIGTERM; it must exit with 0, leave nothing running, and have logged no bug. */
void server_fixture_stop(struct server_fixture *fixture);
void server_fixture_end(struct server_fixture *fixture);

/* --- processes
 * ----------------------------------------------------------------------------------------------------------------
 */
/* Children of the supervisor whose title begins with `title` ("doorbuster: worker 0", "doorbuster: recorder",
 * "redis-server"); their number. */
size_t server_fixture_find(const struct server_fixture *fixture, const char *title, pid_t *pids, size_t max);
/* The one child of this title, waited for. */
pid_t server_fixture_child(const struct server_fixture *fixture, const char *title);
/* "doorbuster: recorder", or "doorbuster: keeper" under the Redlock gate. */
const char *server_fixture_bookkeeper(void);
/* How many children a server of so many workers has, its private Redis or nodes included. */
size_t server_fixture_family(unsigned workers);
/* All children. */
size_t server_fixture_children(const struct server_fixture *fixture, pid_t *pids, size_t max);
/* kill -9 of the supervisor; its children become ours (they are reaped here). */
void server_fixture_kill_supervisor(struct server_fixture *fixture);
/* Waits until all of these, orphans of ours, are gone; false: not within the time. */
bool server_fixture_wait_gone(const pid_t *pids, size_t count, int timeout_ms);
/* Does the log of this run have this text? */
bool server_fixture_logged(const struct server_fixture *fixture, const char *text);

/* --- people and products
 * ----------------------------------------------------------------------------------------------------------
 */
/* Adds accounts straight to the store, without the cost of a password hash; the first one's id, the others
 * follow. */
int64_t server_fixture_add_users(const struct server_fixture *fixture, size_t count);
/* A token for that account (it need not exist). */
void server_fixture_token(const struct server_fixture *fixture, int64_t user_id, enum user_role role,
                          char out[JWT_TOKEN_BYTES_MAX]);
/* POST /api/products as an admin, with a name of its own; its id. limit 0: none. */
int64_t server_fixture_add_product(const struct server_fixture *fixture, int64_t stock, int64_t limit);
/* As above, but a refusal or a broken connection is no failure of the test: 0. */
int64_t server_fixture_try_product(const struct server_fixture *fixture, int64_t stock, int64_t limit);
/* The same for a bundle. */
int64_t server_fixture_try_bundle(const struct server_fixture *fixture, int64_t price,
                                  const struct bundle_component *components, size_t count);
/* GET, as an admin: the status (0: no answer) and, if `body` is not NULL, as much of the body as it holds. */
int server_fixture_get(const struct server_fixture *fixture, const char *target, char *body, size_t room);
/* The sum of a metric's samples that have `label` among their labels, as text: "http_requests_total", "status=\"5"; "": all of them. 0 if there
 * are none; the metric itself must be there. */
double server_fixture_sample(const struct server_fixture *fixture, const char *name, const char *label);
/* A counter of /metrics, over all its labels: "process_restarts". */
int64_t server_fixture_metric(const struct server_fixture *fixture, const char *name);
/* Runs `verify` with --data and one more argument (or NULL); prints what it said if the exit code is another.
 */
void server_fixture_verify(const struct server_fixture *fixture, int exit_code);
/* Puts so many on sale again, or takes them away, as an admin does. */
void server_fixture_restock(const struct server_fixture *fixture, int64_t product, int64_t delta);
/* The last order id that was given out: by Redis, or by the store under the Redlock gate. */
int64_t server_fixture_orders_given(const struct server_fixture *fixture);
/* A connection to the private Redis. */
struct redisContext *server_fixture_redis(const struct server_fixture *fixture);

#endif
