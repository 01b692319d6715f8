/* The process "doorbuster: keeper", in the recorder's place under the Redlock gate: passes of the keeper (node_keeper.c), ten a second. One thread,
 * blocking calls. Owns the keeper.
 *
 * It ends when nobody is left who could sell (the workers' lifeline closes). If the supervisor is gone too, nobody else will shut its private
 * nodes down: that is done here. If it dies it is started again, and begins with the first page. */
#include "server.h"

#include "node_keeper.h"

#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/process.h"
#include "doorbuster/redis.h"
#include "doorbuster/store.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define PERIOD_MS 100
#define RETRY_FIRST_MS 20 /* after a pass that failed; doubled up to the other */
#define RETRY_MAX_MS 500
#define SHUTDOWN_TIMEOUT_MS 1000

static void shut_nodes_down(const struct gate_place *place)
{
    char error[512];
    log_warn("the supervisor is gone: shutting the private nodes down");
    for (unsigned i = 0; i < place->node_count; i++) {
        redisContext *redis =
            redis_connect_blocking(&place->nodes[i], SHUTDOWN_TIMEOUT_MS, error, sizeof error);
        if (redis != NULL) {
            freeReplyObject(redis_ask(redis, "SHUTDOWN NOSAVE"));
            redisFree(redis);
        }
    }
}

/* How long to wait before the next pass. */
static int after_pass(bool passed, int *retry_ms)
{
    if (passed) {
        *retry_ms = RETRY_FIRST_MS;
        return PERIOD_MS;
    }
    int wait_ms = *retry_ms;
    *retry_ms = wait_ms * 2 < RETRY_MAX_MS ? wait_ms * 2 : RETRY_MAX_MS;
    return wait_ms;
}

/* Whoever waits its turn at the store does not hang. */
static void beat_cb(void)
{
    metrics_beat(clock_monotonic_us());
}

int node_keeper_run(const struct server_shared *shared)
{
    const struct server_configuration *configuration = &shared->configuration;
    signal(SIGINT, SIG_IGN); /* the supervisor decides when to stop; Ctrl-C reaches the whole group */
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    close(shared->supervisor_lifeline[1]);
    close(shared->workers_lifeline[1]);
    process_set_title("doorbuster: keeper");
    log_set_speaker("keeper");
    metrics_use_slot(&shared->metrics->recorder);
    metrics_set(METRICS_GAUGE_recorder_active, 1); /* keepers do not take turns */

    struct node_keeper *keeper =
        node_keeper_new(&configuration->place, configuration->store_url, &shared->metrics->board);
    store_while_waiting(beat_cb);
    int retry_ms = RETRY_FIRST_MS;
    bool ready = false, passed;
    do {
        passed = node_keeper_pass(keeper);
        log_flush(false);
        if (passed && !ready) {
            ready = true;
            supervisor_tell_ready(shared);
        }
    } while (!lifeline_is_closed(shared->workers_lifeline[0], after_pass(passed, &retry_ms)));
    node_keeper_free(&keeper);
    if (configuration->place.spawn_nodes && lifeline_is_closed(shared->supervisor_lifeline[0], 0)) {
        shut_nodes_down(&configuration->place);
    }
    return 0;
}
