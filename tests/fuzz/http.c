/* Requests: the real HTTP front with all routes of the API, on a socket. The input is what a client sends on one connection; then it reads, and leaves. Behind
 * the handlers nothing is real: what they want to buy is looked at here, and their jobs are not done.
 *
 *   what is handed to the gate or to the pool is somebody's whose token we signed, and in range
 *   what comes back is a row of whole answers, whose bodies are the JSON that they say they are; no bytes of the request become a header
 *   nothing is left over: no connection, no request
 *
 * The last byte of the input says when jobs and purchases are answered: at once, in the next turn, or when the client has gone. */
#include "fuzz.h"

#include "api_internal.h"

#include "doorbuster/clock.h"
#include "doorbuster/gate.h"
#include "doorbuster/json.h"
#include "doorbuster/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SENT_MAX (64 * 1024)
#define ANSWER_MAX (4 << 20)
#define TURNS_MAX 200
#define QUIET_TURNS 3
#define HELD_MAX 64
#define USER_ID 42
#define EXPIRES_S INT64_C(4102444800) /* 2100 */

void __real_gate_submit(struct gate *gate, struct gate_purchase *purchase);
void __wrap_gate_submit(struct gate *gate, struct gate_purchase *purchase);
void __wrap_job_start(struct job *job, enum work_queue queue);
void __wrap_events_stream(struct http_request *request, void *context);

enum when { AT_ONCE, NEXT_TURN, WHEN_GONE };

static struct {
    uv_loop_t loop;
    struct api *api;
    struct http_server *server;
    struct sockaddr_un address; /* an abstract name that the kernel chose */
    socklen_t address_bytes;
    enum when when;
    struct gate_purchase *purchases[HELD_MAX];
    struct job *jobs[HELD_MAX];
    size_t purchase_count, job_count;
} front;

/* --- instead of gate and pool ---------------------------------------------------------------------------------------------------------- */
static void check_order(const struct sale_order *order)
{
    CHECK(order->id == 0 && order->user_id == USER_ID);
    CHECK(order_part_count(order) >= 1 && order_part_count(order) <= CART_LINES_MAX);
    CHECK(order->key == NULL || idempotency_key_is_valid(order->key, order->key_bytes));
    for (size_t i = 0; i < order_part_count(order); i++) {
        struct order_part part = order_part_at(order, i);
        CHECK(part.product_id >= 1 && part.product_id <= JSON_INTEGER_MAX && !part.is_component);
        CHECK(part.quantity >= 1 && part.quantity <= PURCHASE_QUANTITY_MAX);
        for (size_t j = 0; j < i; j++) {
            CHECK(order_part_at(order, j).product_id != part.product_id);
        }
    }
}

/* Sold, at the highest price; every other one not answered in time. */
static void end_purchase(struct gate_purchase *purchase)
{
    struct sale_order *order = &purchase->purchase.order;
    if (order->product_id % 2 == 0) {
        purchase->purchase.state = PURCHASE_UNAVAILABLE;
    } else {
        purchase->purchase.state = PURCHASE_CONFIRMED;
        purchase->purchase.at_ms = INT64_C(1764201600123);
        order->id = JSON_INTEGER_MAX;
        order->unit_price = PRODUCT_PRICE_MAX;
        for (size_t i = 0; i < order->more_count; i++) {
            order->more[i].unit_price = PRODUCT_PRICE_MAX;
        }
        CHECK(order_total_price(order) < (INT64_C(1) << 53));
    }
    purchase->cb(purchase, purchase->context);
}

static void end_job(struct job *job)
{
    const struct job_refusal why = {.queue = WORK_STORE, .wait_ms = 1000};
    if (job->refuse != NULL) { /* answers, of a look all who wait for it */
        job->refuse(job, &why);
    } else {
        http_reply_json(job->request, 202, cJSON_CreateObject());
    }
}

static void end_held(void)
{
    for (size_t i = 0; i < front.purchase_count; i++) {
        end_purchase(front.purchases[i]);
    }
    for (size_t i = 0; i < front.job_count; i++) {
        end_job(front.jobs[i]);
    }
    front.purchase_count = front.job_count = 0;
}

void __wrap_gate_submit(struct gate *gate, struct gate_purchase *purchase)
{
    if (gate != NULL) { /* another target's: there is none here */
        __real_gate_submit(gate, purchase);
        return;
    }
    check_order(&purchase->purchase.order);
    if (front.when == AT_ONCE || front.purchase_count == HELD_MAX) {
        end_purchase(purchase);
    } else {
        front.purchases[front.purchase_count++] = purchase;
    }
}

void __wrap_job_start(struct job *job, enum work_queue queue)
{
    CHECK(queue < WORK_QUEUES && job->work != NULL && job->reply != NULL);
    if (front.when == AT_ONCE || front.job_count == HELD_MAX) {
        end_job(job);
    } else {
        front.jobs[front.job_count++] = job;
    }
}

/* Without an end, and nobody notices that its client has gone before the next frame: no stream here. */
void __wrap_events_stream(struct http_request *request, void *context)
{
    (void)context;
    http_reply_json(request, 202, cJSON_CreateObject());
}

/* --- the front -------------------------------------------------------------------------------------------------------------------------- */
static int listen_somewhere(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0);
    front.address.sun_family = AF_UNIX;
    CHECK(bind(fd, (const struct sockaddr *)&front.address, sizeof(sa_family_t)) == 0);
    CHECK(listen(fd, 16) == 0);
    front.address_bytes = sizeof front.address;
    CHECK(getsockname(fd, (struct sockaddr *)&front.address, &front.address_bytes) == 0);
    return fd;
}

static void begin(void)
{
    static const unsigned char secret[] = "a secret of the fuzz targets, 32+ bytes";
    static struct gate_place place = {.kind = GATE_REDLOCK};
    char error[256];
    CHECK(sodium_init() >= 0 && uv_loop_init(&front.loop) == 0);
    log_set_level(LOG_ERROR);
    struct api_settings settings = {.loop = &front.loop,
                                    .store_url = "sqlite:/nonexistent",
                                    .place = &place,
                                    .secret = secret,
                                    .secret_bytes = sizeof secret - 1,
                                    .metrics = metrics_page_new()};
    front.api = api_new(&settings);
    struct http_settings http = {.listen_fd = listen_somewhere(),
                                 .connections_max = 64,
                                 .body_bytes_max = 16384,
                                 .head_timeout_ms = 60000,
                                 .body_timeout_ms = 60000,
                                 .idle_timeout_ms = 60000,
                                 .context = front.api,
                                 .admit_cb = api_admit,
                                 .cors_origins = "https://shop.example",
                                 .trusted_proxies = "::/128,10.0.0.0/8"};
    http.routes = api_routes(&http.route_count);
    front.server = http_server_new(&front.loop, &http, error, sizeof error);
    CHECK(front.server != NULL);
    api_use_server(front.api, front.server);
}

static void turn(void)
{
    http_server_turn(front.server);
    uv_run(&front.loop, UV_RUN_NOWAIT);
}

/* --- the client ------------------------------------------------------------------------------------------------------------------------- */
static int connect_to_front(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), room = SENT_MAX * 2;
    CHECK(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    CHECK(connect(fd, (const struct sockaddr *)&front.address, front.address_bytes) == 0);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

/* Turns until nothing comes any more. Returns how much came. */
static size_t exchange(int fd, const uint8_t *data, size_t bytes, char *answer)
{
    size_t sent = 0, used = 0;
    for (int quiet = 0, turns = 0; quiet < QUIET_TURNS && turns < TURNS_MAX; turns++) {
        ssize_t wrote = sent < bytes ? send(fd, data + sent, bytes - sent, MSG_NOSIGNAL) : 0;
        sent += wrote > 0 ? (size_t)wrote : 0;
        turn();
        if (front.when == NEXT_TURN) {
            end_held();
        }
        ssize_t got = recv(fd, answer + used, ANSWER_MAX - used, 0);
        used += got > 0 ? (size_t)got : 0;
        quiet = got > 0 || wrote > 0 ? 0 : quiet + 1;
    }
    return used;
}

/* --- what came -------------------------------------------------------------------------------------------------------------------------- */
static const char *header_of(const char *head, const char *name, size_t *bytes)
{
    const char *at = strstr(head, name);
    if (at == NULL) {
        return NULL;
    }
    at += strlen(name);
    *bytes = strcspn(at, "\r\n");
    return at;
}

static void check_body(const char *head, const char *body, size_t bytes)
{
    size_t type_bytes = 0;
    const char *type = header_of(head, "\r\nContent-Type: ", &type_bytes);
    bool is_json = type != NULL && (strncmp(type, HTTP_TYPE_JSON, sizeof HTTP_TYPE_JSON - 1) == 0 ||
                                    strncmp(type, HTTP_TYPE_PROBLEM, sizeof HTTP_TYPE_PROBLEM - 1) == 0);
    if (is_json && bytes > 0 && body[0] == '{' && bytes < 65536) {
        cJSON *json = json_parse_object(body, bytes);
        CHECK(json != NULL);
        cJSON_Delete(json);
    }
}

/* One answer at the begin of answer[0..bytes); returns its length, or 0 if it has no end. */
static size_t check_answer(char *answer, size_t bytes)
{
    CHECK(strncmp(answer, "HTTP/1.1 ", 9) == 0);
    char *end = strstr(answer, "\r\n\r\n");
    CHECK(end != NULL);
    size_t head_bytes = (size_t)(end - answer) + 4, length_bytes = 0;
    end[2] = '\0';
    const char *length = header_of(answer, "\r\nContent-Length: ", &length_bytes);
    bool has_body = length != NULL && (head_bytes == bytes || strncmp(end + 4, "HTTP/1.1 ", 9) != 0);
    size_t body_bytes = has_body ? strtoull(length, NULL, 10) : 0;
    if (head_bytes == bytes) {
        body_bytes = 0; /* of HEAD */
    }
    CHECK(head_bytes + body_bytes <= bytes);
    CHECK(strstr(answer, "\r\nSet-Cookie") == NULL && strstr(answer, "\r\nInjected") == NULL);
    check_body(answer, end + 4, body_bytes);
    return length != NULL || strncmp(answer + 9, "204", 3) == 0 ? head_bytes + body_bytes : 0;
}

static void check_answers(char *answer, size_t bytes)
{
    answer[bytes] = '\0';
    while (bytes > 0 && strncmp(answer, "HTTP/1.1 100", 12) == 0) {
        answer += 25; /* "HTTP/1.1 100 Continue\r\n\r\n" */
        bytes -= 25;
    }
    for (size_t one; bytes > 0 && (one = check_answer(answer, bytes)) > 0;) {
        answer += one;
        bytes -= one;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char *answer;
    if (answer == NULL) {
        begin();
        answer = malloc(ANSWER_MAX + 1);
        CHECK(answer != NULL);
    }
    if (bytes < 2 || bytes > SENT_MAX) {
        return 0;
    }
    front.when = (enum when)(data[bytes - 1] % 3);
    int fd = connect_to_front();
    size_t used = exchange(fd, data, bytes - 1, answer);
    close(fd);
    for (int turns = 0; turns < TURNS_MAX && http_server_connections(front.server) > 0; turns++) {
        turn();
    }
    end_held();
    turn();
    CHECK(http_server_connections(front.server) == 0 && http_server_pending(front.server) == 0);
    check_answers(answer, used);
    return 0;
}
