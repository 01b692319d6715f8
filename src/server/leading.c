/* Whose turn it is to record (docs/adr/0018). In the recorder's one thread; owns nothing.
 *
 *   STANDING BY --the lease is free, or our dead predecessor's--> LEADING --another's, or Redis does not answer--> STANDING BY
 *
 * A Redis that answers with an error (its disk is full, its replicas are missing) gives the turn to nobody: whoever has it keeps it, but does not attach
 * (`refused`): it could not open the gate, and a new epoch in the store would stop the server that can, at another master.
 *
 * The turn decides who tries, never who may: a recorder that believes in a turn that is over finds the store's epoch or position moved, and
 * records nothing. So clocks, pauses and lost answers cost time, no order. */
#include "leading.h"

#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"

#include <inttypes.h>
#include <sodium.h>
#include <string.h>

#define RENEW_EVERY_US 300000

void leading_init(struct leading *leading, uint64_t server, uint64_t run, const unsigned char *secret,
                  size_t secret_bytes)
{
    unsigned char hash[crypto_generichash_BYTES_MIN];
    *leading = (struct leading){.me = {.server = server, .run = run}};
    crypto_generichash(hash, sizeof hash, secret, secret_bytes, NULL, 0);
    memcpy(&leading->me.key, hash, sizeof leading->me.key);
    metrics_set(METRICS_GAUGE_recorder_active,
                0); /* a predecessor in this process's slot may have left another word */
}

static bool is_same(const struct gate_candidate *a, const struct gate_candidate *b)
{
    return a->server == b->server && a->run == b->run;
}

/* Once for each holder. */
static void say_standby(struct leading *leading, const struct gate_candidate *holder)
{
    if (leading->said_standby && is_same(&leading->holder, holder)) {
        return;
    }
    leading->said_standby = true;
    if (holder->server == leading->me.server) {
        log_error("another server has this one's id: a data folder was copied. It records, this one stands "
                  "by; stop one of them, "
                  "remove its server.id and start it again");
    } else {
        log_info("server %016" PRIx64 " records: standing by", holder->server);
    }
    if (holder->key != leading->me.key) {
        log_warn("server %016" PRIx64
                 " signs tokens with another key: who signs in there is unknown here. Give all servers "
                 "the same JWT_SECRET_KEY",
                 holder->server);
    }
}

static void begin_to_lead(struct leading *leading)
{
    if (leading->said_standby) {
        log_warn("no other server records any more: this one does");
        metrics_add(METRICS_recorder_turns, 1);
    }
    leading->leads = leading->has_led = true;
    leading->said_standby = false;
    metrics_set(METRICS_GAUGE_recorder_active, 1);
}

void leading_lose(struct leading *leading)
{
    leading->leads = false;
    leading->renew_us = 0;
    metrics_set(METRICS_GAUGE_recorder_active, 0);
}

bool leading_keep(struct leading *leading, redisContext *redis, int64_t now_us)
{
    struct gate_candidate holder;
    if (failpoint("leading.ignore")) { /* a recorder that believes in a turn that it does not have */
        begin_to_lead(leading);
        leading->refused = false;
        return true;
    }
    if (leading->leads && now_us < leading->renew_us) {
        return true;
    }
    enum gate_lease lease = gate_take_lease(redis, &leading->me, !leading->has_led, &holder);
    leading->refused = lease == GATE_LEASE_UNKNOWN;
    switch (lease) {
    case GATE_LEASE_MINE:
        leading->renew_us = now_us + RENEW_EVERY_US;
        if (!leading->leads) {
            begin_to_lead(leading);
        }
        return true;
    case GATE_LEASE_TAKEN:
        if (leading->leads) {
            log_warn("this server's turn to record is over");
        }
        leading_lose(leading);
        say_standby(leading, &holder);
        leading->holder = holder;
        return false;
    case GATE_LEASE_UNKNOWN:
        break;
    }
    log_warn("asking whose turn it is to record: %s", redis_failure());
    leading->renew_us = now_us + RENEW_EVERY_US;
    if (redis->err != 0) {
        leading_lose(leading);
    }
    return leading->leads;
}

void leading_doubt(struct leading *leading)
{
    leading->renew_us = 0;
}

void leading_drop(struct leading *leading, redisContext *redis, const char *why)
{
    if (!leading->leads) {
        return;
    }
    leading_lose(leading);
    log_info("recording no more: %s", why);
    if (redis != NULL && redis->err == 0 && !gate_drop_lease(redis, &leading->me)) {
        log_warn("letting the turn to record go: %s; it ends by itself", redis_failure());
    }
}
