/* See world.h. The test's one thread, blocking calls and the worker's loop in turn. Owns the redis-server, the folder and the loop. What fails at
 * start ends the test; what fails later is for the caller to report. */
#include "testing.h"

#include "world.h"

#include "server.h"

#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_FOLDER "/dev/shm"
#define PATIENCE_MS 10000 /* the gate itself answers within 5 s */
#define SPEAK_EVERY_US 5000
#define TICK_MS 1
#define ATTACH_TRIES 4

/* recorder.c wants it; nobody waits for readiness here. */
void supervisor_tell_ready(const struct server_shared *shared)
{
    (void)shared;
}

/* --- the folder ------------------------------------------------------------------------------------------------------------------ */
static void make_folder(char out[FOLDER_BYTES])
{
    snprintf(out, FOLDER_BYTES, MEMORY_FOLDER "/doorbuster-model-XXXXXX");
    if (mkdtemp(out) == NULL) {
        folder_make(out);
    }
}

static void empty_folder(const char *path)
{
    DIR *folder = opendir(path);
    assert_non_null(folder);
    const struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        unlinkat(dirfd(folder), entry->d_name, 0);
    }
    closedir(folder);
}

/* --- failpoints ------------------------------------------------------------------------------------------------------------------- */
#ifdef DOORBUSTER_FAILPOINTS
static struct failpoint_page *failpoints;

static void failpoints_start(const struct world *world)
{
    char path[FOLDER_BYTES + 32];
    snprintf(path, sizeof path, "%s/failpoints", world->redis.folder);
    failpoints = failpoints_file_make(path);
    setenv("DOORBUSTER_FAILPOINT_FILE", path, 1);
    failpoint_init(0, NULL);
}

static void failpoints_end(void)
{
    failpoints_file_close(&failpoints);
}

bool world_can_fail(void)
{
    return true;
}

static void arm(const char *failpoint)
{
    char spec[64];
    snprintf(spec, sizeof spec, "%s:error", failpoint);
    failpoints_arm(failpoints, spec);
}

/* How often did it fire? */
static uint64_t disarm(void)
{
    failpoints_disarm(failpoints);
    return failpoints_fired(failpoints);
}
#else
static void failpoints_start(const struct world *world)
{
    (void)world;
}

static void failpoints_end(void)
{
}

bool world_can_fail(void)
{
    return false;
}

static void arm(const char *failpoint)
{
    (void)failpoint;
}

static uint64_t disarm(void)
{
    return 0;
}
#endif

static void tick_cb(uv_timer_t *handle)
{
    (void)handle; /* so that the loop turns */
}

void world_start(struct world *world)
{
    memset(world, 0, sizeof *world);
    redis_fixture_start(&world->redis, false);
    world->books = redis_fixture_connect(&world->redis);
    failpoints_start(world);
    make_folder(world->folder);
    assert_int_equal(uv_loop_init(&world->loop), 0);
    uv_timer_init(&world->loop, &world->tick);
    uv_timer_start(&world->tick, tick_cb, TICK_MS, TICK_MS);
    uv_unref((uv_handle_t *)&world->tick);
    world->purchases = calloc(WORLD_PURCHASES, sizeof *world->purchases);
    assert_non_null(world->purchases);
}

void world_end(struct world *world)
{
    uv_close((uv_handle_t *)&world->tick, NULL);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world->loop), 0);
    redisFree(world->books);
    failpoints_end();
    redis_fixture_end(&world->redis);
    empty_folder(world->folder);
    rmdir(world->folder);
    free(world->purchases);
}

/* --- what the gate could not tell from the news: the store is asked ------------------------------------------------------------------ */
static bool settle_cb(void *context, struct gate_purchase *list)
{
    struct world *world = context;
    struct gate_purchase **end = &world->settling;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = list;
    return true;
}

static void take_found(struct purchase *purchase, const struct store_order *found,
                       const struct order_part *parts, size_t count)
{
    struct order_part *more = purchase->order.more;
    for (size_t i = 0; i < purchase->order.more_count; i++) {
        for (size_t j = 0; j < count; j++) {
            if (!parts[j].is_component && parts[j].product_id == more[i].product_id) {
                more[i] = parts[j];
            }
        }
    }
    purchase->order.id = found->sale.id;
    purchase->order.unit_price = found->sale.unit_price;
    purchase->order.remaining = found->sale.remaining;
    purchase->at_ms = found->at_ms;
    purchase->position = found->position;
}

/* Its answer was lost: it has no order id yet. */
static enum gate_finding find_doubtful(struct world *world, struct purchase *purchase)
{
    struct store *store = world->recorder->store;
    struct store_request wanted = {.request = purchase->order.request, .user_id = purchase->order.user_id};
    struct order_part parts[ORDER_PARTS_MAX];
    size_t count;
    if (store_find_requests(store, purchase->position, &wanted, 1) != STORE_OK) {
        return GATE_STORE_UNREADABLE;
    }
    if (!wanted.found) {
        return GATE_NOT_IN_STORE;
    }
    if (store_order_parts(store, wanted.order.sale.id, parts, ORDER_PARTS_MAX, &count) != STORE_OK) {
        return GATE_STORE_UNREADABLE;
    }
    take_found(purchase, &wanted.order, parts, count);
    return GATE_IN_STORE;
}

static enum gate_finding find_in_store(struct world *world, struct purchase *purchase)
{
    const struct sale_order *order = &purchase->order;
    if (purchase->state == PURCHASE_ASKED) {
        return find_doubtful(world, purchase);
    }
    struct store_order found;
    switch (store_find_order(world->recorder->store, order->id, &found)) {
    case STORE_OK:
        return found.sale.request != order->request || found.sale.user_id != order->user_id
                   ? GATE_NOT_IN_STORE
               : found.state == ORDER_REJECTED ? GATE_REJECTED_BY_STORE
                                               : GATE_IN_STORE;
    case STORE_NOT_FOUND:
        return GATE_NOT_IN_STORE;
    default:
        return GATE_STORE_UNREADABLE;
    }
}

/* From the last: what was never sold goes to the front of the queue, and the first shall be first there. */
static void settle_all(struct world *world)
{
    struct gate_purchase *backwards = NULL;
    while (world->settling != NULL) {
        struct gate_purchase *purchase = world->settling;
        world->settling = purchase->next;
        purchase->next = backwards;
        backwards = purchase;
    }
    while (backwards != NULL) {
        struct gate_purchase *purchase = backwards;
        backwards = purchase->next;
        gate_settled(world->gate, purchase, find_in_store(world, &purchase->purchase));
    }
}

/* --- turning ---------------------------------------------------------------------------------------------------------------------------- */
static bool speak(struct world *world)
{
    const struct recorder *recorder = world->recorder;
    return gate_announce(world->books, &(struct gate_announcement){.store_id = recorder->store_id,
                                                                   .epoch = recorder->open_epoch,
                                                                   .recorded = recorder->recorded});
}

static bool all_decided(const struct world *world)
{
    for (size_t i = 0; i < world->purchase_count; i++) {
        const struct world_purchase *purchase = &world->purchases[i];
        if (!purchase->answered && purchase->gate.purchase.state != PURCHASE_RESERVED) {
            return false;
        }
    }
    return true;
}

static bool all_answered(const struct world *world)
{
    return world->answer_count == world->purchase_count;
}

static bool is_ready(const struct world *world)
{
    return gate_is_ready(world->gate);
}

/* The recorder goes on saying what it said last, as it does while nothing happens. */
static bool turn_until(struct world *world, bool (*is_so)(const struct world *world))
{
    int64_t deadline_us = deadline_in(PATIENCE_MS), next_us = now_us() + SPEAK_EVERY_US;
    while (!is_so(world)) {
        gate_turn(world->gate);
        uv_run(&world->loop, UV_RUN_ONCE);
        settle_all(world);
        if (now_us() > next_us) {
            speak(world);
            next_us = now_us() + SPEAK_EVERY_US;
        }
        if (now_us() > deadline_us) {
            return false;
        }
    }
    return true;
}

/* After a round trip all that was published lies in the gate's socket. */
void world_listen(struct world *world)
{
    redis_do(world->books, "PING");
    for (int i = 0; i < 3; i++) {
        gate_turn(world->gate);
        uv_run(&world->loop, UV_RUN_NOWAIT);
        settle_all(world);
    }
}

/* --- a sequence --------------------------------------------------------------------------------------------------------------------------- */
static bool add_users(struct world *world, int64_t users, char *error, size_t error_bytes)
{
    for (int64_t i = 1; i <= users; i++) {
        struct store_user user = {.password_hash = "none"};
        snprintf(user.username, sizeof user.username, "user-%d", (int)i);
        if (store_add_user(world->recorder->store, &user) != STORE_OK || user.id != i) {
            snprintf(error, error_bytes, "adding a user: %s", store_error(world->recorder->store));
            return false;
        }
    }
    return true;
}

static bool open_store(const struct world *world, struct recorder *recorder, char *error, size_t error_bytes)
{
    char url[FOLDER_BYTES + 32];
    snprintf(url, sizeof url, "sqlite:%s/store.db", world->folder);
    return store_open(&recorder->store, url, STORE_WRITER, error, error_bytes) == STORE_OK;
}

static struct recorder *new_recorder(const struct world *world)
{
    struct recorder *recorder = calloc(1, sizeof *recorder);
    assert_non_null(recorder);
    recorder->redis = redis_fixture_connect(&world->redis);
    return recorder;
}

static void free_recorder(struct recorder **recorder)
{
    if (*recorder != NULL) {
        redisFree((*recorder)->redis);
        store_close(&(*recorder)->store);
        free(*recorder);
        *recorder = NULL;
    }
}

bool world_begin(struct world *world, int64_t users, char *error, size_t error_bytes)
{
    redis_do(world->books, "FLUSHALL");
    redis_do(world->books, "SCRIPT FLUSH");
    world->purchase_count = world->answer_count = 0;
    empty_folder(world->folder);
    world->recorder = new_recorder(world);
    world->place = (struct gate_place){.kind = GATE_LUA, .redis = world->redis.address};
    struct gate_settings settings = {
        .loop = &world->loop, .place = &world->place, .settle_cb = settle_cb, .context = world};
    world->gate = gate_open_for_worker(&settings);
    if (!open_store(world, world->recorder, error, error_bytes) ||
        !add_users(world, users, error, error_bytes)) {
        return false;
    }
    snprintf(error, error_bytes, "the gate does not become ready");
    return world_attach(world) && speak(world) && turn_until(world, is_ready) && speak(world);
}

static void answer_cb(struct gate_purchase *purchase, void *context)
{
    struct world *world = context;
    struct world_purchase *own = (struct world_purchase *)purchase;
    assert_false(own->answered); /* exactly once */
    own->answered = true;
    world->answer_count++;
}

struct world_purchase *world_submit(struct world *world, const struct sale_order *order)
{
    assert_true(world->purchase_count < WORLD_PURCHASES);
    struct world_purchase *purchase = &world->purchases[world->purchase_count++];
    memset(purchase, 0, sizeof *purchase);
    purchase->gate = (struct gate_purchase){.cb = answer_cb, .context = world};
    purchase->gate.purchase.order = *order;
    if (order->more_count > 0) {
        memcpy(purchase->more, order->more, order->more_count * sizeof *order->more);
    }
    purchase->gate.purchase.order.more = purchase->more;
    gate_submit(world->gate, &purchase->gate);
    return purchase;
}

bool world_decide(struct world *world)
{
    return turn_until(world, all_decided);
}

bool world_lose_answer(struct world *world)
{
    int64_t deadline_us = deadline_in(PATIENCE_MS);
    arm("gate.reply");
    while (!world->recorder->attach_wanted && now_us() < deadline_us) {
        gate_turn(world->gate);
        uv_run(&world->loop, UV_RUN_ONCE);
        if (recorder_record(world->recorder, 0) >= RECORD_FAILED) {
            break;
        }
    }
    world->failures += disarm();
    return world->recorder->attach_wanted;
}

bool world_answer_all(struct world *world)
{
    return turn_until(world, all_answered);
}

/* Somebody else has the store now: it may say and do what it likes, nothing comes of it. */
static bool overtaken_is_fenced(struct world *world)
{
    if (world->overtaken == NULL) {
        return true;
    }
    enum record_result result = recorder_record(world->overtaken, 0);
    world->fenced += result == RECORD_FAILED;
    free_recorder(&world->overtaken);
    return result != RECORDED_SOME;
}

bool world_record(struct world *world)
{
    enum record_result result;
    if (!overtaken_is_fenced(world)) {
        return false;
    }
    do {
        result = recorder_record(world->recorder, 0);
    } while (result == RECORDED_SOME && !world->recorder->attach_wanted);
    return result == RECORDED_NOTHING && !world->recorder->attach_wanted && world_answer_all(world);
}

bool world_cut(struct world *world)
{
    redis_do(world->books, "CLIENT KILL TYPE pubsub");
    world_listen(world);
    return turn_until(world, is_ready);
}

/* As in recorder.c: what does not work is opened anew, and then it attaches again. */
static bool attach_at_last(struct world *world)
{
    char error[512];
    struct recorder *recorder = world->recorder;
    bool attached = false;
    for (int try = 0; !attached && try < ATTACH_TRIES; try++) {
        if (recorder->redis->err != 0) {
            redisFree(recorder->redis);
            recorder->redis = redis_fixture_connect(&world->redis);
        }
        attached = (recorder->store != NULL || open_store(world, recorder, error, sizeof error)) &&
                   recorder_attach(recorder);
    }
    return attached;
}

bool world_fail(struct world *world, const char *failpoint)
{
    arm(failpoint);
    while (recorder_record(world->recorder, 0) == RECORDED_SOME) {
    }
    bool attached = attach_at_last(world);
    world->failures += disarm();
    world_listen(world);
    return attached;
}

bool world_restart(struct world *world)
{
    free_recorder(&world->overtaken);
    world->overtaken = world->recorder;
    world->recorder = new_recorder(world);
    bool attached = attach_at_last(world);
    world_listen(world);
    return attached;
}

bool world_attach(struct world *world)
{
    bool attached = recorder_attach(world->recorder);
    world_listen(world);
    return attached;
}

void world_finish(struct world *world)
{
    if (world->gate != NULL) {
        /* in a sequence that failed some may wait; at the latest their deadline ends that */
        if (!world_record(world)) {
            turn_until(world, all_answered);
        }
        gate_close_for_worker(&world->gate);
        uv_run(&world->loop, UV_RUN_DEFAULT);
    }
    world_forget_keys(world);
    free_recorder(&world->recorder);
    free_recorder(&world->overtaken);
}
