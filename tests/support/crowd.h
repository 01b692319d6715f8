/* A crowd of HTTP clients on one thread: each has a connection and at most one request on its way, all in one
 * epoll loop.
 *
 * The crowd connects first and asks then, so that hundreds of requests leave within a few milliseconds. A
 * connection that breaks is an answer with the status CROWD_BROKEN; the next request of that client opens a
 * new one. */
#ifndef DOORBUSTER_TEST_CROWD_H
#define DOORBUSTER_TEST_CROWD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CROWD_BROKEN 0

struct crowd_answer {
    int status;       /* or CROWD_BROKEN: no answer came */
    const char *body; /* terminated; "" if broken */
    int64_t sent_us, got_us;
    bool reused;    /* not the first request on its connection */
    bool replayed;  /* says `Idempotent-Replayed: true` */
    bool connected; /* broken only after the connection was there */
};

struct crowd;
/* From within crowd_step(); may call crowd_request() for this client. */
typedef void (*crowd_answer_cb)(void *context, size_t client, const struct crowd_answer *answer);

struct crowd *crowd_new(uint16_t port, size_t clients, crowd_answer_cb cb, void *context);
void crowd_free(struct crowd **crowd);
/* Opens a connection for every client that has none, and waits until all are there. False: not within the
 * time. */
bool crowd_connect(struct crowd *crowd, int timeout_ms);
/* From its next connection on this client asks another server. It must not be busy. */
void crowd_move(struct crowd *crowd, size_t client, uint16_t port);
/* The client must not be busy. `token` and `body` may be NULL. */
void crowd_request(struct crowd *crowd, size_t client, const char *method, const char *target,
                   const char *token, const char *body);
/* The same with more headers, lines that end in CRLF. */
void crowd_request_with(struct crowd *crowd, size_t client, const char *method, const char *target,
                        const char *token, const char *headers, const char *body);
/* POST /api/purchases */
void crowd_buy(struct crowd *crowd, size_t client, const char *token, int64_t product_id, int64_t quantity);
/* The same with an Idempotency-Key. */
void crowd_buy_keyed(struct crowd *crowd, size_t client, const char *token, int64_t product_id,
                     int64_t quantity, const char *key);
/* Waits up to timeout_ms for something to happen, and handles all that has. */
void crowd_step(struct crowd *crowd, int timeout_ms);
/* Clients with a request on its way. */
size_t crowd_busy(const struct crowd *crowd);
/* Steps until nobody is busy. False: not within the time. */
bool crowd_finish(struct crowd *crowd, int timeout_ms);

#endif
