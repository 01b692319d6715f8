/* Private to api: looks at what many ask for in the same moment. */
#ifndef DOORBUSTER_API_LOOKS_H
#define DOORBUSTER_API_LOOKS_H

#include "api_internal.h"

/* One reading of the store and of the books' other side, under way for all who share it. */
struct look {
    struct job job;
    int64_t product_id; /* 0: the list of all */
    /* For read: what it has seen. */
    struct books books; /* of one product */
    char *list;         /* of all: the answer, malloc'ed; who shows it sets it to NULL */
    /* The rest is looks.c's. */
    job_work read;
    int64_t begun_us;             /* INT64_MAX until a thread reads */
    struct looker *first, **last; /* in the order in which they asked */
    struct look *next;            /* of its bucket */
    struct shown {
        char *(*view)(struct look *look); /* NULL: free */
        struct http_response *response;
    } shown[2];
};

/* The answer to those who want to see this of it: JSON, malloc'ed, or NULL if memory is short. Loop thread. */
typedef char *(*look_view)(struct look *look);

struct looks *looks_new(struct api *api);
/* Replies as soon as a look has been taken that began after this call: 200 with what `view` makes of it, 404, 429 or 503. `read` is the look's job_work;
 * of one product all callers give the same, and a product has two views at most. */
void looks_ask(struct api *api, struct http_request *request, int64_t product_id, job_work read,
               look_view view);
/* Refuses those whose deadline is over. Every few milliseconds. */
void looks_watch(struct looks *looks);
/* After the last one; CHECKs that nobody waits. */
void looks_free(struct looks **looks);

#endif
