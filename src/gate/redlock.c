/* Redlock, the distributed lock of Salvatore Sanfilippo, over independent Redis nodes. A worker's loop thread. Owns its nodes
 * (redlock_nodes.c) and the handles of its leases.
 *
 *            +------------- release, or no attempt or time left --------------+
 *            v                                                                |
 *   FREE --acquire--> ASKING --majority in time--> HELD --extend--> EXTENDING | ASKING or BACKING_OFF
 *                      ^  |                         ^                   |
 *       attempts left  |  v                         +--- answered ------+       HELD, EXTENDING --release, lost--> FREE
 *                    BACKING_OFF
 *
 * To take it: a random value (a new one for each attempt), SET NX PX on all nodes at once, each with a short time to answer. Held, if
 * more than half of *all* nodes said yes and, by our monotonic clock, less than TTL - drift (1 % + 2 ms) has gone since before the first
 * was asked; what is left of that is its validity. As soon as the votes decide, nobody else is waited for, nor is a node that hangs. An attempt that failed is
 * released on all nodes, also those that did not answer, before it waits; it waits with exponential backoff and full jitter, or until it
 * hears that the lock was let go (below). To extend:
 * compare-and-expire on a majority, while it is still valid. To release: compare-and-delete on all nodes. Answers that come when the
 * lease has moved on are not looked at (`round`).
 *
 * Waiters are woken: a holder who lets go has each node PUBLISH it, and who backs off tries again as soon as so many nodes have said so that, with
 * those that said yes to it before, a majority could say yes now. Redisson wakes its waiters like this. It is still one of the attempts, and within
 * the deadline. Released attempts that failed are not announced: those who split the votes between them must come back at different times. News may
 * be lost; then the backoff decides, and nothing else is missing.
 *
 * A token says whose it is (redlock_nodes.c has what for), and ends in 128 random bits.
 *
 * What it promises: while fewer than half of the nodes fail or are cut off, one holder at a time gets on, *as long as* nobody is delayed
 * between looking at the validity and acting on it, the clocks of the nodes run at nearly our pace, and a node that lost its memory
 * stays away for a TTL (redlock_nodes.c sees to that). What it does not promise: a process that is stopped (the scheduler, a swapped
 * page, a SIGSTOP), or a command that is long in the network, may act after the lock has passed to another, and a node whose clock is
 * set forward ends a lock early. Martin Kleppmann showed this ("How to do distributed locking", 2016): a lock by time-outs needs a
 * fencing token wherever correctness depends on it, and Redlock has none. Antirez answered ("Is Redlock safe?") that the validity is
 * looked at after the asking, so that delays up to there do no harm, that any lock service whose clients may pause has the rest of the
 * problem, and that a compare-and-set on the random value can fence. Both are right for what concerns us: **a late holder happens.**
 *
 * It cannot oversell here. What forbids that is the store's transaction, which takes the stock only if there is enough
 * (UPDATE … WHERE stock >= …, CHECK (stock >= 0)): of two that believe to hold the lock, the second finds less stock, not the old figure.
 * The lock is for order and efficiency: one worker at a time works on a product, so transactions seldom wait for each other in vain.
 * Nor is fairness promised: who asks at the right moment gets it.
 *
 * Failures: no majority, no time, no attempts left: NOT_ACQUIRED. The validity ran out: LOST. Every wait has an end: node_timeout_ms, the
 * backoff's ceiling, the caller's deadline, the validity. An attempt allocates one small record a node, bounded by redlock_nodes.c. */
#include "redlock.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"
#include "redlock_arithmetic.h"
#include "redlock_nodes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define LOST_LOG_EVERY_US 1000000
#define SPLIT_DELAY_MS 5 /* instead of a longer one, after votes that were split */

enum lease_state { LEASE_FREE, LEASE_ASKING, LEASE_BACKING_OFF, LEASE_HELD, LEASE_EXTENDING, LEASE_STATES };
static const bool may_move[LEASE_STATES][LEASE_STATES] = {
    [LEASE_FREE] = {[LEASE_ASKING] = true},
    [LEASE_ASKING] = {[LEASE_HELD] = true, [LEASE_BACKING_OFF] = true, [LEASE_FREE] = true},
    [LEASE_BACKING_OFF] = {[LEASE_ASKING] = true, [LEASE_FREE] = true},
    [LEASE_HELD] = {[LEASE_EXTENDING] = true, [LEASE_FREE] = true},
    [LEASE_EXTENDING] = {[LEASE_HELD] = true, [LEASE_FREE] = true},
};

struct redlock {
    struct redlock_settings settings;
    struct redlock_nodes *nodes;
    size_t leases;
    struct redlock_lease *busy;              /* all that are not FREE */
    char holder[3 * (TEXT_INT64_BYTES + 1)]; /* how its tokens begin */
    uint64_t random;                         /* state of the generator of jitter, which need not be secret */
    uint64_t lost;                           /* locks, since the log said so */
    int64_t lost_logged_us;
    unsigned late; /* bits of nodes that let an asking run out and have answered nothing since */
};

struct redlock_lease {
    struct redlock *redlock;
    redlock_event_cb cb;
    void *context;
    struct redlock_key key;
    enum lease_state state;
    uv_timer_t timer;
    int64_t due_us; /* when the present state ends, at the latest; FREE: never */
    /* acquiring */
    int64_t deadline_us;
    int attempts;
    /* the round: one asking of all nodes. Bits are nodes. */
    uint64_t round;
    int64_t started_us;
    unsigned asked, yes, no;
    unsigned heard; /* nodes that said, since this round began, that the lock was let go */
    struct redlock_lease *next_busy, *previous_busy;
    bool had_grace;
    unsigned touched; /* nodes that may have the key with this token */
    /* held */
    int64_t valid_until_us; /* 0: not held */
    int extensions;
    bool is_wanted; /* by others */
    size_t pending; /* asks without an answer: the lease's memory is needed */
    bool closed;    /* the timer is */
};

static unsigned count_bits(unsigned bits)
{
    return (unsigned)__builtin_popcount(bits);
}

/* splitmix64 */
static uint32_t next_random(struct redlock *redlock)
{
    uint64_t z = redlock->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static int64_t ttl_us(const struct redlock *redlock)
{
    return (int64_t)redlock->settings.ttl_ms * 1000;
}

static int64_t earlier(int64_t a_us, int64_t b_us)
{
    return a_us < b_us ? a_us : b_us;
}

unsigned redlock_voting(const struct redlock *redlock)
{
    return redlock_nodes_voting(redlock->nodes);
}

bool redlock_is_ready(const struct redlock *redlock)
{
    return redlock_voting(redlock) >= redlock_majority(redlock->settings.node_count);
}

struct redlock_nodes *redlock_nodes(struct redlock *redlock)
{
    return redlock->nodes;
}

/* --- states ------------------------------------------------------------------------------------------------------------------ */
static void list_busy(struct redlock_lease *lease)
{
    struct redlock_lease **first = &lease->redlock->busy;
    lease->previous_busy = NULL;
    lease->next_busy = *first;
    if (*first != NULL) {
        (*first)->previous_busy = lease;
    }
    *first = lease;
}

static void unlist_busy(struct redlock_lease *lease)
{
    if (lease->previous_busy != NULL) {
        lease->previous_busy->next_busy = lease->next_busy;
    } else {
        lease->redlock->busy = lease->next_busy;
    }
    if (lease->next_busy != NULL) {
        lease->next_busy->previous_busy = lease->previous_busy;
    }
}

static void lease_move(struct redlock_lease *lease, enum lease_state state)
{
    CHECK(may_move[lease->state][state]);
    if (lease->state == LEASE_FREE) {
        list_busy(lease);
    } else if (state == LEASE_FREE) {
        unlist_busy(lease);
    }
    lease->state = state;
    bool is_held = state == LEASE_HELD || state == LEASE_EXTENDING;
    CHECK(is_held == (lease->valid_until_us != 0));
    CHECK(state != LEASE_FREE || lease->touched == 0);
    CHECK(state != LEASE_BACKING_OFF || lease->touched == 0);
}

static void due_cb(uv_timer_t *timer);

static void due_at(struct redlock_lease *lease, int64_t due_us)
{
    lease->due_us = due_us;
    uv_timer_start(&lease->timer, due_cb, (uint64_t)clock_left_ms(due_us), 0);
}

/* Lets go on all nodes; whatever they still answer is of no interest. */
static void let_go(struct redlock_lease *lease)
{
    if (lease->touched != 0) {
        redlock_nodes_release(lease->redlock->nodes, &lease->key, lease->touched, lease->valid_until_us != 0);
    }
    lease->touched = 0;
    lease->valid_until_us = 0;
    lease->round++;
}

static void make_free(struct redlock_lease *lease)
{
    let_go(lease);
    uv_timer_stop(&lease->timer);
    lease_move(lease, LEASE_FREE);
}

/* The last thing that is done: the owner may free the lease. */
static void tell(struct redlock_lease *lease, enum redlock_event event)
{
    lease->cb(lease, event, lease->context);
}

/* --- a round ----------------------------------------------------------------------------------------------------------------- */
static void new_token(const struct redlock *redlock, struct redlock_key *key)
{
    unsigned char random[REDLOCK_RANDOM_BYTES];
    CHECK(getrandom(random, sizeof random, 0) == sizeof random);
    char *end = stpcpy(key->token, redlock->holder);
    for (size_t i = 0; i < sizeof random; i++) {
        snprintf(end + 2 * i, 3, "%02x", random[i]);
    }
}

static void ask_all(struct redlock_lease *lease, enum redlock_command command)
{
    struct redlock *redlock = lease->redlock;
    lease->round++;
    lease->asked = lease->yes = lease->no = lease->heard = 0;
    lease->had_grace = false;
    lease->started_us = clock_monotonic_us();
    /* Without a majority a key on the others would only be in somebody's way. */
    unsigned nodes = redlock_is_ready(redlock) ? redlock->settings.node_count : 0;
    for (unsigned i = 0; i < nodes; i++) {
        if (redlock_nodes_ask(redlock->nodes, i, command, &lease->key, lease, lease->round)) {
            lease->asked |= 1U << i;
            lease->pending++;
        }
    }
    lease->touched |= lease->asked;
}

/* A node that hangs is asked, but not waited for: if the others cannot agree, they let go at once, and do not hold their votes back for a node
 * timeout each, in which all who want the lock would only meet each other again. */
static enum redlock_verdict verdict(const struct redlock_lease *lease)
{
    unsigned undecided = lease->asked & ~(lease->yes | lease->no | lease->redlock->late);
    return redlock_count(lease->redlock->settings.node_count, count_bits(lease->yes), count_bits(undecided));
}

/* When to stop waiting for answers; at once if there cannot be enough. */
static int64_t round_end_us(const struct redlock_lease *lease)
{
    return verdict(lease) == REDLOCK_NOT_WON
               ? lease->started_us
               : lease->started_us + (int64_t)lease->redlock->settings.node_timeout_ms * 1000;
}

/* --- taking it ------------------------------------------------------------------------------------------------------------------ */
static void attempt(struct redlock_lease *lease)
{
    lease_move(lease, LEASE_ASKING);
    metrics_add(METRICS_lock_retries, lease->attempts > 0);
    lease->attempts++;
    new_token(lease->redlock, &lease->key);
    ask_all(lease, REDLOCK_TAKE);
    due_at(lease, earlier(round_end_us(lease), lease->deadline_us));
}

/* Would a majority say yes now, by the votes before and the news since? */
static bool may_be_had(const struct redlock_lease *lease)
{
    return lease->heard != 0 &&
           count_bits(lease->heard | lease->yes) >= redlock_majority(lease->redlock->settings.node_count);
}

static void wake(struct redlock_lease *lease)
{
    if (lease->state == LEASE_BACKING_OFF && may_be_had(lease)) {
        metrics_add(METRICS_lock_wakes, 1);
        attempt(lease);
    }
}

static void hear(struct redlock_lease *lease, unsigned node, enum redlock_news news)
{
    bool is_held = lease->state == LEASE_HELD || lease->state == LEASE_EXTENDING;
    if (is_held) {
        lease->is_wanted = lease->is_wanted || news == REDLOCK_WANTED;
    } else if (news == REDLOCK_RELEASED) {
        lease->heard |= 1U << node;
        wake(lease);
    }
}

static void news_cb(void *context, unsigned node, enum redlock_news news, const char *resource)
{
    struct redlock *redlock = context;
    struct redlock_lease *next;
    for (struct redlock_lease *lease = redlock->busy; lease != NULL; lease = next) {
        next = lease->next_busy;
        if (strcmp(lease->key.name + strlen(gate_keys.lock), resource) == 0) {
            hear(lease, node, news);
        }
    }
}

/* A lock that somebody holds takes as long as that one needs. But one of which some nodes said yes and others no was asked for by several at once,
 * and nobody has it now: they only have to miss each other. */
static int64_t delay_ms(const struct redlock_lease *lease)
{
    int64_t delay = lease->redlock->settings.retry_delay_ms;
    bool is_split = lease->yes != 0 && lease->no != 0;
    return is_split && delay > SPLIT_DELAY_MS ? SPLIT_DELAY_MS : delay;
}

static void attempt_failed(struct redlock_lease *lease)
{
    struct redlock *redlock = lease->redlock;
    int64_t ceiling_ms = redlock_backoff_ceiling_ms(delay_ms(lease), (unsigned)lease->attempts);
    int64_t retry_us = clock_monotonic_us() + redlock_jitter_ms(ceiling_ms, next_random(redlock)) * 1000;
    if (lease->attempts < redlock->settings.attempts && retry_us < lease->deadline_us) {
        let_go(lease);
        lease_move(lease, LEASE_BACKING_OFF);
        due_at(lease, retry_us);
        wake(lease); /* let go while we asked */
    } else {
        make_free(lease);
        metrics_add(METRICS_lock_failures, 1);
        tell(lease, REDLOCK_NOT_ACQUIRED);
    }
}

static void attempt_won(struct redlock_lease *lease)
{
    int64_t now_us = clock_monotonic_us();
    int64_t valid_until_us = redlock_valid_until_us(lease->started_us, ttl_us(lease->redlock));
    if (now_us >= valid_until_us || now_us >= lease->deadline_us) {
        attempt_failed(lease);
        return;
    }
    lease->valid_until_us = valid_until_us;
    lease->extensions = 0;
    lease->is_wanted = false;
    lease_move(lease, LEASE_HELD);
    due_at(lease, valid_until_us);
    metrics_add(METRICS_lock_acquisitions, 1);
    tell(lease, REDLOCK_ACQUIRED);
}

/* --- keeping it -------------------------------------------------------------------------------------------------------------------- */
static void lose(struct redlock_lease *lease)
{
    struct redlock *redlock = lease->redlock;
    int64_t now_us = clock_monotonic_us();
    redlock->lost++;
    if (now_us - redlock->lost_logged_us >= LOST_LOG_EVERY_US) {
        log_warn("%llu lock%s lost, the last of %s: its time was over before it was released",
                 (unsigned long long)redlock->lost, redlock->lost == 1 ? "" : "s", lease->key.name);
        redlock->lost_logged_us = now_us;
        redlock->lost = 0;
    }
    metrics_add(METRICS_lock_lost, 1);
    make_free(lease);
    tell(lease, REDLOCK_LOST);
}

static void extension_ended(struct redlock_lease *lease, bool is_won)
{
    int64_t now_us = clock_monotonic_us();
    if (now_us >= lease->valid_until_us) { /* too late, whatever the nodes said */
        lose(lease);
        return;
    }
    if (is_won) {
        lease->valid_until_us = redlock_valid_until_us(lease->started_us, ttl_us(lease->redlock));
        metrics_add(METRICS_lock_extensions, 1);
    }
    lease->round++;
    lease_move(lease, LEASE_HELD);
    due_at(lease, lease->valid_until_us);
    tell(lease, is_won ? REDLOCK_EXTENDED : REDLOCK_NOT_EXTENDED);
}

/* --- what moves it ------------------------------------------------------------------------------------------------------------------ */
/* Timers run before sockets are read. If the loop was busy for so long, the answers are there: they are read first. */
static bool needs_grace(struct redlock_lease *lease)
{
    bool is_asking = lease->state == LEASE_ASKING || lease->state == LEASE_EXTENDING;
    if (!is_asking || lease->had_grace || verdict(lease) != REDLOCK_OPEN) {
        return false;
    }
    lease->had_grace = true;
    uv_timer_start(&lease->timer, due_cb, 1, 0);
    return true;
}

/* Not if something else ended the asking: the deadline, or that it could not be won. */
static void note_timeouts(const struct redlock_lease *lease)
{
    struct redlock *redlock = lease->redlock;
    unsigned silent = lease->asked & ~(lease->yes | lease->no);
    if (clock_monotonic_us() >= lease->started_us + (int64_t)redlock->settings.node_timeout_ms * 1000) {
        metrics_add(METRICS_lock_node_timeouts, count_bits(silent));
        redlock->late |= silent;
    }
}

static void due_cb(uv_timer_t *timer)
{
    struct redlock_lease *lease = timer->data;
    if (clock_monotonic_us() < lease->due_us) { /* the loop's time is of the begin of its turn */
        due_at(lease, lease->due_us);
        return;
    }
    if (needs_grace(lease)) {
        return;
    }
    switch (lease->state) {
    case LEASE_ASKING:
        note_timeouts(lease);
        attempt_failed(lease);
        break;
    case LEASE_BACKING_OFF:
        attempt(lease);
        break;
    case LEASE_HELD:
        lose(lease);
        break;
    case LEASE_EXTENDING:
        note_timeouts(lease);
        extension_ended(lease, false);
        break;
    case LEASE_FREE:
    case LEASE_STATES:
        CHECK(false); /* a free lease waits for nothing */
    }
}

static void judge(struct redlock_lease *lease)
{
    enum redlock_verdict now = verdict(lease);
    if (now == REDLOCK_OPEN) {
        return;
    }
    if (lease->state == LEASE_EXTENDING) {
        extension_ended(lease, now == REDLOCK_WON);
    } else if (now == REDLOCK_WON) {
        attempt_won(lease);
    } else {
        attempt_failed(lease);
    }
}

static void free_if_over(struct redlock_lease *lease)
{
    if (lease->closed && lease->pending == 0) {
        free(lease);
    }
}

static void answer_cb(void *context, uint64_t round, unsigned node, enum redlock_answer answer)
{
    struct redlock_lease *lease = context;
    bool is_asking = lease->state == LEASE_ASKING || lease->state == LEASE_EXTENDING;
    CHECK(lease->pending > 0);
    if (lease->redlock != NULL) {
        lease->redlock->late &= ~(1U << node);
    }
    if (is_asking && round == lease->round) {
        *(answer == REDLOCK_YES ? &lease->yes : &lease->no) |= 1U << node;
        judge(lease); /* its memory stays: this answer is still pending */
    }
    lease->pending--;
    free_if_over(lease);
}

/* --- the face ------------------------------------------------------------------------------------------------------------------------ */
struct redlock *redlock_open(const struct redlock_settings *settings)
{
    CHECK(settings->node_count % 2 == 1 && settings->node_count <= REDLOCK_NODES_MAX);
    CHECK(settings->node_timeout_ms > 0 && settings->ttl_ms > settings->node_timeout_ms);
    CHECK(settings->attempts > 0 && settings->retry_delay_ms >= 0 && settings->extensions_max >= 0);
    struct redlock *redlock = calloc(1, sizeof *redlock);
    CHECK(redlock != NULL);
    redlock->settings = *settings;
    redlock->settings.nodes = NULL; /* the caller's */
    redlock->lost_logged_us = -LOST_LOG_EVERY_US;
    CHECK(getrandom(&redlock->random, sizeof redlock->random, 0) == sizeof redlock->random);
    int bytes = snprintf(redlock->holder, sizeof redlock->holder, "%" PRIx64 "-%" PRIx64 "-%" PRId64 "-",
                         settings->holder.server, settings->holder.run, (int64_t)getpid());
    CHECK(bytes > 0 && (size_t)bytes < sizeof redlock->holder);
    redlock->nodes = redlock_nodes_open(settings, answer_cb, news_cb, redlock);
    return redlock;
}

void redlock_turn(struct redlock *redlock)
{
    redlock_nodes_turn(redlock->nodes);
}

void redlock_close(struct redlock **redlock_pointer)
{
    struct redlock *redlock = *redlock_pointer;
    *redlock_pointer = NULL;
    CHECK(redlock->leases == 0);
    redlock_nodes_turn(redlock->nodes);
    redlock_nodes_close(&redlock->nodes);
    free(redlock);
}

struct redlock_lease *redlock_lease_new(struct redlock *redlock, const char *resource, redlock_event_cb cb,
                                        void *context)
{
    struct redlock_lease *lease = calloc(1, sizeof *lease);
    CHECK(lease != NULL);
    lease->redlock = redlock;
    lease->cb = cb;
    lease->context = context;
    int bytes = snprintf(lease->key.name, sizeof lease->key.name, "%s%s", gate_keys.lock, resource);
    CHECK(bytes > 0 && (size_t)bytes < sizeof lease->key.name);
    uv_timer_init(redlock->settings.loop, &lease->timer);
    lease->timer.data = lease;
    redlock->leases++;
    return lease;
}

static void closed_cb(uv_handle_t *handle)
{
    struct redlock_lease *lease = handle->data;
    lease->closed = true;
    free_if_over(lease);
}

void redlock_lease_free(struct redlock_lease **lease_pointer)
{
    struct redlock_lease *lease = *lease_pointer;
    *lease_pointer = NULL;
    redlock_release(lease);
    lease->redlock->leases--;
    lease->redlock = NULL; /* late answers do not need it, and it may be gone */
    uv_close((uv_handle_t *)&lease->timer, closed_cb);
}

void redlock_acquire(struct redlock_lease *lease, int64_t deadline_us)
{
    CHECK(lease->state == LEASE_FREE);
    lease->deadline_us = deadline_us;
    lease->attempts = 0;
    attempt(lease);
}

int64_t redlock_left_us(const struct redlock_lease *lease)
{
    int64_t left_us = lease->valid_until_us - clock_monotonic_us();
    return lease->valid_until_us == 0 || left_us < 0 ? 0 : left_us;
}

bool redlock_is_wanted(const struct redlock_lease *lease)
{
    return lease->is_wanted;
}

bool redlock_extend(struct redlock_lease *lease)
{
    if (lease->state != LEASE_HELD || redlock_left_us(lease) == 0 ||
        lease->extensions >= lease->redlock->settings.extensions_max) {
        return false;
    }
    lease->extensions++;
    lease_move(lease, LEASE_EXTENDING);
    ask_all(lease, REDLOCK_EXTEND);
    due_at(lease, earlier(round_end_us(lease), lease->valid_until_us));
    return true;
}

void redlock_release(struct redlock_lease *lease)
{
    if (lease->state != LEASE_FREE) {
        make_free(lease);
    }
}

bool redlock_is_free(const struct redlock_lease *lease)
{
    return lease->state == LEASE_FREE;
}
