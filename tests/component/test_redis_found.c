/* The Redis to use is found through real Sentinels, and in a real Cluster: by blocking connections, and by a link on a loop, which follows a failover. */
#include "testing.h"

#include "cluster_fixture.h"
#include "sentinel_fixture.h"

#include "doorbuster/redis.h"

#include <dlfcn.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY "{doorbuster}:head"
#define WAIT_MS 10000
#define FOLLOW_MS 1000 /* from the word of the Sentinels to the link that is up again */
#define TIMEOUT_MS 2000

static struct sentinel_fixture sentinels;
static struct cluster_fixture cluster;
static struct redis_address address;
static char error[1024];

static void parse(const char *url)
{
    if (!redis_address_parse(url, &address, error, sizeof error)) {
        fail_msg("%s", error);
    }
    snprintf(address.key, sizeof address.key, "%s", KEY);
}

static int begin_sentinels(void **state)
{
    (void)state;
    sentinel_fixture_start(&sentinels);
    parse(sentinels.url);
    return 0;
}

static int begin_sentinels_over_ipv6(void **state)
{
    sentinels.host = "::1";
    return begin_sentinels(state);
}

static int begin_sentinels_with_passwords(void **state)
{
    sentinels.password = "open@:/%sesame";
    sentinels.sentinel_password = "openbarley";
    return begin_sentinels_over_ipv6(state);
}

static int end_sentinels(void **state)
{
    (void)state;
    unsetenv("REDIS_SENTINEL_USER");
    unsetenv("REDIS_SENTINEL_PASSWORD");
    sentinel_fixture_end(&sentinels);
    return 0;
}

static int begin_cluster(void **state)
{
    (void)state;
    cluster_fixture_start(&cluster, KEY);
    parse(cluster.url);
    return 0;
}

static int end_cluster(void **state)
{
    (void)state;
    cluster_fixture_end(&cluster);
    return 0;
}

/* --- name servers -------------------------------------------------------------------------------------------------------------- */
#define SILENT_NAME "silent.test" /* no name server answers for it */
#define SHOP_NAME "shop.test"     /* this machine's, while they do */
#define SILENCE_S 2

static _Atomic bool are_silent;

int getaddrinfo(const char *restrict name, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict list)
{
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    bool is_shop = name != NULL && strcmp(name, SHOP_NAME) == 0;
    bool is_silent = is_shop ? are_silent : name != NULL && strcmp(name, SILENT_NAME) == 0;
    if (is_silent && (hints->ai_flags & AI_NUMERICHOST) == 0) {
        sleep(SILENCE_S); /* less than the system has patience */
        return EAI_AGAIN;
    }
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    }
    return real(is_shop && (hints->ai_flags & AI_NUMERICHOST) == 0 ? "127.0.0.1" : name, service, hints,
                list);
}

static struct redis_address with_sentinels_at(const char *name)
{
    struct redis_address named = address;
    for (unsigned i = 0; i < SENTINELS; i++) {
        snprintf(named.seeds[i].host, sizeof named.seeds[i].host, "%s", name);
    }
    return named;
}

/* Whoever records looks every second whether its master is still it, and must not wait for that. */
static void expect_no_wait_for_names(const redisContext *redis)
{
    struct redis_address silent = with_sentinels_at(SILENT_NAME);
    for (int i = 0; i < 3; i++) {
        int64_t since_us = now_us();
        assert_false(redis_was_replaced(&silent, redis, 100));
        assert_in_range(now_us() - since_us, 0, SILENCE_S * 500000);
    }
}

static void expect_names_are_known_soon(const redisContext *replaced)
{
    struct redis_address named = with_sentinels_at("localhost");
    int64_t deadline = deadline_in(WAIT_MS);
    while (!redis_was_replaced(&named, replaced, 500)) {
        assert_true(wait_a_moment(deadline));
    }
}

/* --- blocking ---------------------------------------------------------------------------------------------------------------------- */
static redisContext *found(void)
{
    redisContext *redis = redis_connect_blocking(&address, TIMEOUT_MS, error, sizeof error);
    if (redis == NULL) {
        fail_msg("%s", error);
    }
    return redis;
}

static void expect_found_at(int port)
{
    redisContext *redis = found();
    assert_int_equal(redis->tcp.port, port);
    redisFree(redis);
}

static void expect_script(int port, const char *sha, int exists)
{
    redisContext *redis = tcp_redis_connect(port);
    redisReply *reply = redis_ask(redis, "SCRIPT EXISTS %s", sha);
    assert_non_null(reply);
    assert_int_equal(reply->element[0]->integer, exists);
    freeReplyObject(reply);
    redisFree(redis);
}

static void expect_none(const char *words)
{
    assert_null(redis_connect_blocking(&address, TIMEOUT_MS, error, sizeof error));
    if (strstr(error, words) == NULL) {
        fail_msg("wanted \"%s\", got \"%s\"", words, error);
    }
    assert_null(strstr(error, "open"));
}

static void test_a_master_by_its_sentinels(void **state)
{
    (void)state;
    int first = sentinel_fixture_master(&sentinels);
    redisContext *before = found();
    const char *sha = tcp_redis_do(first, "SCRIPT LOAD return{1}");
    assert_int_equal(before->tcp.port, first);
    assert_false(redis_was_replaced(&address, before, 500));
    struct redis_address by_name = {.host = "localhost", .port = first};
    redisContext *named = redis_connect_blocking(&by_name, TIMEOUT_MS, error, sizeof error);
    assert_non_null(named);
    assert_false(redis_was_replaced(&address, named, 500)); /* the same, by another name */
    redisFree(named);
    expect_no_wait_for_names(before);
    sentinel_fixture_fail_over(&sentinels);
    int second = sentinel_fixture_master(&sentinels);
    assert_int_not_equal(first, second);
    expect_script(first, sha, 1); /* it survives a demotion: ADR 16 */
    expect_script(second, sha, 0);
    expect_found_at(second);
    assert_true(redis_was_replaced(&address, before, 500));
    expect_names_are_known_soon(before);
    redisFree(before);

    /* One of them is dead, another hangs. */
    tcp_redis_kill(&sentinels.sentinels[0]);
    kill(sentinels.sentinels[1].pid, SIGSTOP);
    for (int i = 0; i < 4; i++) {
        int64_t since_us = now_us();
        expect_found_at(second);
        assert_in_range(now_us() - since_us, 0, 1500000);
    }
    kill(sentinels.sentinels[1].pid, SIGCONT);

    snprintf(address.group, sizeof address.group, "another");
    expect_none("knows no master of that name");
}

/* Whom the Sentinels still call master has been made a replica: it says so itself. */
static void test_a_master_that_is_none(void **state)
{
    (void)state;
    int port = sentinel_fixture_master(&sentinels);
    for (size_t i = 0; i < SENTINELS; i++) {
        kill(sentinels.sentinels[i].pid, SIGSTOP);
    }
    tcp_redis_do(port, "REPLICAOF 127.0.0.1 %d", sentinels.redis[sentinels.redis[0].port == port].port);
    kill(sentinels.sentinels[0].pid, SIGCONT);
    redisContext *redis = redis_connect_blocking(&address, TIMEOUT_MS, error, sizeof error);
    if (redis != NULL) { /* the Sentinel may have put it right meanwhile */
        redisReply *role = redis_ask(redis, "ROLE");
        assert_string_equal(role->element[0]->str, "master");
        freeReplyObject(role);
        redisFree(redis);
    }
    kill(sentinels.sentinels[1].pid, SIGCONT);
    kill(sentinels.sentinels[2].pid, SIGCONT);
}

/* --- a link ------------------------------------------------------------------------------------------------------------------------- */
static struct {
    uv_loop_t loop;
    struct redis_link *link;
    unsigned ups, downs, replies;
    char said[128];
} test;

static void up_cb(void *context)
{
    (void)context;
    test.ups++;
}

static void down_cb(void *context)
{
    (void)context;
    test.downs++;
}

static void reply_cb(const redisReply *reply, void *context)
{
    (void)context;
    test.replies++;
    snprintf(test.said, sizeof test.said, "%s",
             reply == NULL        ? "broken"
             : reply->str != NULL ? reply->str
                                  : "a number");
}

static void turn(void)
{
    uv_run(&test.loop, UV_RUN_NOWAIT);
    redis_link_flush(test.link);
}

static void open_link(void)
{
    memset(&test, 0, sizeof test);
    assert_int_equal(uv_loop_init(&test.loop), 0);
    test.link = redis_link_new(&test.loop, &(struct redis_link_settings){.name = "test",
                                                                         .address = address,
                                                                         .connect_timeout_ms = 1000,
                                                                         .command_timeout_ms = 1000,
                                                                         .up_cb = up_cb,
                                                                         .down_cb = down_cb});
}

static void close_link(void)
{
    redis_link_close(&test.link);
    while (uv_run(&test.loop, UV_RUN_DEFAULT) != 0) {
    }
    assert_int_equal(uv_loop_close(&test.loop), 0);
}

static void await_ups(unsigned ups, int within_ms)
{
    int64_t deadline = deadline_in(within_ms);
    while (test.ups < ups || !redis_link_is_up(test.link)) {
        turn();
        if (!wait_a_moment(deadline)) {
            fail_msg("up %u times, not %u, within %d ms; said last: %s", test.ups, ups, within_ms, test.said);
        }
    }
}

/* What it said; "" if the link is not up. */
static const char *say(int argc, const char **argv)
{
    unsigned replies = test.replies;
    int64_t deadline = deadline_in(WAIT_MS);
    if (!redis_link_command(test.link, reply_cb, NULL, argc, argv, NULL)) {
        return "";
    }
    while (test.replies == replies) {
        turn();
        assert_true(wait_a_moment(deadline));
    }
    return test.said;
}

#define SAY(...)                                                                                             \
    say((int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *)), (const char *[]){__VA_ARGS__})

/* --- users and passwords --------------------------------------------------------------------------------------------------------------- */
/* By the default user, who may do everything. */
static redisContext *hand_at(int port, const char *password)
{
    struct redis_address at = {.host = "::1", .port = port};
    snprintf(at.login.password, sizeof at.login.password, "%s", password);
    redisContext *redis = redis_connect_blocking(&at, TIMEOUT_MS, error, sizeof error);
    if (redis == NULL) {
        fail_msg("%s", error);
    }
    return redis;
}

static void do_at(int port, const char *password, const char *command)
{
    redisContext *redis = hand_at(port, password);
    if (!redis_done(redis_ask(redis, command))) {
        fail_msg("%s: %s", command, redis_failure());
    }
    redisFree(redis);
}

static void let_at_master(const char *command)
{
    do_at(sentinel_fixture_master(&sentinels), sentinels.password, command);
}

/* So often was somebody refused something: "auth", "command". */
static size_t refused(const char *reason)
{
    redisContext *redis = hand_at(sentinel_fixture_master(&sentinels), sentinels.password);
    redisReply *log = redis_ask(redis, "ACL LOG");
    size_t count = 0;
    assert_non_null(log);
    for (size_t i = 0; i < log->elements; i++) { /* count, n, reason, "auth", … */
        const redisReply *entry = log->element[i];
        count += strcmp(entry->element[3]->str, reason) == 0 ? (size_t)entry->element[1]->integer : 0;
    }
    freeReplyObject(log);
    redisFree(redis);
    return count;
}

static void parse_with_login(const char *login)
{
    char url[sizeof sentinels.url + 64];
    snprintf(url, sizeof url, "sentinel://%s@%s", login, sentinels.url + strlen("sentinel://"));
    parse(url);
}

static void test_passwords(void **state)
{
    (void)state;
    int master = sentinel_fixture_master(&sentinels);
    assert_int_equal(setenv("REDIS_SENTINEL_PASSWORD", sentinels.sentinel_password, 1), 0);
    parse_with_login(":open%40%3A%2F%25sesame");
    expect_found_at(master);
    parse_with_login(":open@:/%25sesame");
    expect_found_at(master);
    parse_with_login(":openwrong");
    expect_none("does not let the user \"default\" in: WRONGPASS");
    assert_true(redis_login_was_refused());
    assert_int_equal(setenv("REDIS_SENTINEL_PASSWORD", "openwrong", 1), 0);
    parse_with_login(":open@:/%25sesame");
    expect_none("does not let the user \"default\" in: WRONGPASS");
    assert_true(redis_login_was_refused());

    /* Users of their own, who may do what they need. */
    for (size_t i = 0; i < SENTINELS; i++) {
        do_at(sentinels.sentinels[i].port, sentinels.sentinel_password,
              "ACL SETUSER watcher on >opentower +ping +sentinel|get-master-addr-by-name");
    }
    let_at_master("ACL SETUSER shop on >open,word ~{doorbuster}:* +ping +role +set");
    assert_int_equal(setenv("REDIS_SENTINEL_USER", "watcher", 1), 0);
    assert_int_equal(setenv("REDIS_SENTINEL_PASSWORD", "opentower", 1), 0);
    parse_with_login("shop:open,word");
    expect_found_at(master);
    redisContext *redis = found();
    assert_false(redis_was_replaced(&address, redis, 500));
    redisFree(redis);
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", KEY, "1"), "OK");

    /* While it runs: it goes on trying. */
    let_at_master("ACL SETUSER shop resetpass >openlater");
    expect_none("does not let the user \"shop\" in: WRONGPASS");
    let_at_master("CLIENT KILL USER shop");
    int64_t deadline = deadline_in(WAIT_MS);
    while (test.downs == 0 || refused("auth") < 4) {
        turn();
        assert_true(wait_a_moment(deadline));
    }
    assert_false(redis_link_is_up(test.link));
    let_at_master("ACL SETUSER shop >open,word");
    await_ups(2, WAIT_MS);
    close_link();

    /* Whoever may not choose its database does not go on in another. */
    address.database = 2;
    expect_none("does not let the user \"shop\" in: NOPERM");
    open_link();
    for (size_t before = refused("command"); refused("command") < before + 3;) {
        turn();
        assert_int_equal(test.ups, 0);
        assert_true(wait_a_moment(deadline));
    }
    close_link();
    address.database = 0;

    let_at_master("ACL SETUSER shop -role");
    expect_none("does not let the user \"shop\" in: NOPERM");
    assert_true(redis_login_was_refused());
}

/* --- a Cluster --------------------------------------------------------------------------------------------------------------------------- */
/* Until a node that does not own the slot says "MOVED 866 <where>". */
static void await_moved(int port, const char *where)
{
    redisContext *redis = tcp_redis_connect(port);
    int64_t deadline = deadline_in(WAIT_MS);
    do {
        assert_false(redis_done(redis_ask(redis, "EXISTS " KEY)));
        redis->err = 0; /* it may be asked again */
        if (!wait_a_moment(deadline)) {
            fail_msg("wanted \"%s\", got \"%s\"", where, redis_failure());
        }
    } while (strstr(redis_failure(), where) == NULL);
    redisFree(redis);
}

/* By its address, a name, or by nothing but its port: what a Cluster is told to announce. */
static void expect_found_however_it_is_named(void)
{
    static const struct {
        const char *announce, *type, *moved;
    } names[] = {{"cluster-announce-ip ::1", "ip", " ::1:"},
                 {"cluster-announce-hostname localhost", "hostname", " localhost:"},
                 {"cluster-announce-ip ::1", "unknown-endpoint", " :"}};
    unsigned seed = (cluster.owner + 1) % 3;
    int owner = cluster.nodes[cluster.owner].port;
    char url[64];
    snprintf(url, sizeof url, "cluster://[::1]:%d", cluster.nodes[seed].port);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (unsigned node = 0; node < CLUSTER_NODES; node++) {
            char command[96];
            snprintf(command, sizeof command, "CONFIG SET %s cluster-preferred-endpoint-type %s",
                     names[i].announce, names[i].type);
            tcp_redis_do(cluster.nodes[node].port, command, NULL);
        }
        await_moved(cluster.nodes[seed].port, names[i].moved);
        parse(url);
        expect_found_at(owner);
        open_link();
        await_ups(1, WAIT_MS);
        assert_string_equal(SAY("SET", KEY, "1"), "OK");
        close_link();
    }
    parse(cluster.url);
}

/* The last of the test: the fixture itself is not let in any more. */
static void expect_one_login_for_all_nodes(void)
{
    char url[64];
    for (unsigned node = 0; node < CLUSTER_NODES; node++) {
        tcp_redis_do(cluster.nodes[node].port,
                     "ACL SETUSER shop on >open:cluster ~" KEY " +ping +exists +set");
        tcp_redis_do(cluster.nodes[node].port, "CONFIG SET requirepass opendefault masterauth opendefault");
    }
    int seed = cluster.nodes[(cluster.owner + 1) % 3].port;
    snprintf(url, sizeof url, "cluster://shop:open%%3Acluster@127.0.0.1:%d", seed);
    parse(url);
    expect_found_at(cluster.nodes[3].port);
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", KEY, "1"), "OK");
    close_link();
    snprintf(url, sizeof url, "cluster://127.0.0.1:%d", seed);
    parse(url);
    expect_none("does not let the user \"default\" in: NOAUTH");
    assert_true(redis_login_was_refused());
}

static void test_the_owner_of_a_slot(void **state)
{
    static const char *const keys[] = {
        "{doorbuster}:head", "{second}:head", "{third-shop}:head", "a", "b", "c"};
    unsigned owners_seen = 0;
    (void)state;
    expect_found_at(cluster.nodes[cluster.owner].port);
    expect_found_however_it_is_named();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        snprintf(address.key, sizeof address.key, "%s", keys[i]);
        redisContext *redis = found();
        assert_true(redis_done(redis_ask(redis, "SET %s 1", keys[i])));
        for (unsigned j = 0; j < CLUSTER_NODES; j++) {
            owners_seen |= redis->tcp.port == cluster.nodes[j].port ? 1u << j : 0;
        }
        redisFree(redis);
    }
    assert_true(owners_seen > 1 && (owners_seen & (owners_seen - 1)) != 0); /* more than one of them */
    snprintf(address.key, sizeof address.key, "%s", KEY);

    redisContext *before = found();
    const char *sha = tcp_redis_do(cluster.nodes[cluster.owner].port, "SCRIPT LOAD return{1}");
    cluster_fixture_fail_over(&cluster);
    expect_script(cluster.nodes[cluster.owner].port, sha, 1);
    expect_script(cluster.nodes[3].port, sha, 0);
    assert_false(redis_done(redis_ask(before, "SET " KEY " 2")));
    assert_true(redis_is_elsewhere(redis_failure()));
    assert_true(redis_is_dead(before)); /* whoever uses it connects anew */
    redisFree(before);
    expect_found_at(cluster.nodes[3].port);
    expect_one_login_for_all_nodes();
}

static void test_a_link_follows_a_dead_master(void **state)
{
    (void)state;
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", KEY, "1"), "OK");
    int old = sentinel_fixture_master(&sentinels);
    tcp_redis_kill(sentinel_fixture_redis_at(&sentinels, old));
    int64_t deadline = deadline_in(WAIT_MS), announced_us = 0;
    while (test.ups < 2) {
        turn();
        if (announced_us == 0 && sentinel_fixture_master(&sentinels) != old) {
            announced_us = now_us();
        }
        assert_true(wait_a_moment(deadline));
    }
    assert_in_range(announced_us != 0 ? now_us() - announced_us : 0, 0, FOLLOW_MS * 1000);
    assert_string_equal(SAY("SET", KEY, "2"), "OK");
    assert_int_equal(test.downs, 1);
    close_link();
}

static void test_a_link_follows_a_failover(void **state)
{
    (void)state;
    tcp_redis_kill(&sentinels.sentinels[0]);
    kill(sentinels.sentinels[1].pid, SIGSTOP); /* passed over */
    open_link();
    await_ups(1, WAIT_MS);
    kill(sentinels.sentinels[1].pid, SIGCONT);
    int old = sentinel_fixture_master(&sentinels);
    redisReply *reply;
    redisContext *sentinel = tcp_redis_connect(sentinels.sentinels[2].port);
    int64_t deadline = deadline_in(WAIT_MS);
    while ((reply = redis_ask(sentinel, "SENTINEL FAILOVER shop")) == NULL) {
        assert_true(wait_a_moment(deadline));
    }
    freeReplyObject(reply);
    redisFree(sentinel);
    while (sentinel_fixture_master(&sentinels) == old || strcmp(SAY("SET", KEY, "3"), "OK") != 0 ||
           test.ups < 2) {
        turn();
        assert_true(wait_a_moment(deadline));
    }
    assert_string_equal(tcp_redis_do(sentinel_fixture_master(&sentinels), "GET " KEY), "3");
    close_link();
}

static void test_a_link_follows_moved(void **state)
{
    (void)state;
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", KEY, "1"), "OK");
    cluster_fixture_fail_over(&cluster);
    assert_memory_equal(SAY("SET", KEY, "2"), "MOVED", 5);
    assert_false(redis_link_is_up(test.link));
    await_ups(2, FOLLOW_MS);
    assert_string_equal(SAY("SET", KEY, "3"), "OK");
    assert_string_equal(tcp_redis_do(cluster.nodes[3].port, "GET " KEY), "3");
    close_link();
}

/* While a slot moves a call that names a key which is not there is refused as a whole; the link looks again until all is over, on the other node. */
static void test_a_link_waits_for_a_moving_slot(void **state)
{
    unsigned from = cluster.owner, to = (from + 1) % 3;
    (void)state;
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", KEY, "1"), "OK");
    cluster_fixture_begin_move(&cluster, from, to);
    assert_string_equal(SAY("GET", KEY), "1");
    static const char script[] = "return redis.call('SET', KEYS[1], '2')";
    const char *said = SAY("EVAL", script, "2", KEY, "{doorbuster}:never");
    assert_true(strncmp(said, "ASK", 3) == 0 || strncmp(said, "TRYAGAIN", 8) == 0);
    assert_false(redis_link_is_up(test.link));
    await_ups(2, FOLLOW_MS); /* the key that says whose the slot is has not moved yet */
    said = SAY("EVAL", script, "2", KEY, "{doorbuster}:never");
    assert_false(strcmp(said, "OK") == 0);
    cluster_fixture_end_move(&cluster, from, to);
    int64_t deadline = deadline_in(WAIT_MS);
    while (strcmp(SAY("EVAL", script, "2", KEY, "{doorbuster}:never"), "OK") != 0) {
        turn();
        assert_true(wait_a_moment(deadline));
    }
    assert_string_equal(tcp_redis_do(cluster.nodes[to].port, "GET " KEY), "2");
    close_link();
}

/* --- names ----------------------------------------------------------------------------------------------------------------------------- */
static void test_a_link_looks_names_up(void **state)
{
    struct tcp_redis redis = {0};
    char folder[FOLDER_BYTES];
    (void)state;
    folder_make(folder);
    tcp_redis_start(&redis, folder, "redis", NULL);
    address = (struct redis_address){.host = "localhost", .port = redis.port};
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", "a", "1"), "OK");
    close_link();

    snprintf(address.login.password, sizeof address.login.password, "open");
    expect_none("does not let the user \"default\" in: ERR AUTH"); /* it wants none: is it the right one? */
    snprintf(address.host, sizeof address.host, "no-such-host.invalid");
    expect_none("no-such-host.invalid:");
    address.login.password[0] = '\0';

    snprintf(address.host, sizeof address.host, SHOP_NAME);
    open_link();
    await_ups(1, WAIT_MS);
    are_silent = true; /* then it is where it was */
    redis_link_reset(test.link, "a test");
    await_ups(2, FOLLOW_MS);
    close_link();

    snprintf(address.host, sizeof address.host, "no-such-host.invalid");
    open_link();
    int64_t deadline = deadline_in(300);
    while (wait_a_moment(deadline)) {
        turn();
        assert_false(redis_link_is_up(test.link));
    }
    close_link(); /* also in the middle of a look-up */
    open_link();
    turn();
    close_link();
    tcp_redis_kill(&redis);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_master_by_its_sentinels, begin_sentinels, end_sentinels),
        cmocka_unit_test_setup_teardown(test_a_master_that_is_none, begin_sentinels, end_sentinels),
        cmocka_unit_test_setup_teardown(test_passwords, begin_sentinels_with_passwords, end_sentinels),
        cmocka_unit_test_setup_teardown(test_a_link_follows_a_dead_master, begin_sentinels, end_sentinels),
        cmocka_unit_test_setup_teardown(test_a_link_follows_a_failover, begin_sentinels_over_ipv6,
                                        end_sentinels),
        cmocka_unit_test_setup_teardown(test_the_owner_of_a_slot, begin_cluster, end_cluster),
        cmocka_unit_test_setup_teardown(test_a_link_follows_moved, begin_cluster, end_cluster),
        cmocka_unit_test_setup_teardown(test_a_link_waits_for_a_moving_slot, begin_cluster, end_cluster),
        cmocka_unit_test(test_a_link_looks_names_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
