/* What the resources share: the api itself, who is asking, jobs off the loop, problems. */
#ifndef DOORBUSTER_API_INTERNAL_H
#define DOORBUSTER_API_INTERNAL_H

#include "doorbuster/api.h"
#include "doorbuster/books.h"
#include "doorbuster/breaker.h"
#include "doorbuster/jwt.h"
#include "doorbuster/password.h"
#include "doorbuster/store.h"
#include "doorbuster/work_pool.h"

#include <pthread.h>

/* A pool thread's connections, opened when first needed. A job borrows one for as long as it runs. */
struct desk {
    struct api *api;
    struct store *reader, *writer;
    struct gate_side side;
    uint64_t epoch; /* of the gate when `side` was used last */
    struct desk *next;
};

#define SOLD_OUT_ANSWERS 256

struct sold_out_answer {
    int64_t product_id; /* 0: free */
    struct http_response *response;
};

struct events;   /* events.c */
struct looks;    /* looks.c */
struct settling; /* settling.c */

struct api {
    struct api_settings settings;
    struct gate *gate;
    struct work_pool *pool;
    struct jwt *jwt;
    struct password_memory *passwords;
    pthread_mutex_t desks_mutex;
    struct desk *free_desks;
    uint64_t decisions_seen; /* by api_watch */
    /* What the pool's jobs need: the store; and, for the books' other side, Redis or the nodes. Loop thread. */
    struct breaker store, books;
    struct events *events;
    struct looks *looks;
    struct settling *settlings; /* under way */
    /* selling.c's: what is under way, and what belongs to the WORK_SELL thread while something is. */
    struct gate_lesson *lesson;
    struct gate_batch *batch;
    struct desk *seller; /* NULL until it is needed */
    unsigned complaints; /* not said yet */
    int64_t complain_next_us;
    struct sold_out_answer sold_out[SOLD_OUT_ANSWERS];
};

/* --- problems (problems.c) ----------------------------------------------------------------------------------------------- */
enum api_problem {
    PROBLEM_UNAUTHORIZED,
    PROBLEM_FORBIDDEN,
    PROBLEM_INSUFFICIENT_STOCK,
    PROBLEM_USERNAME_TAKEN,
    PROBLEM_PRODUCT_NAME_TAKEN,
    PROBLEM_CUSTOMER_LIMIT,
    PROBLEM_ORDER_REJECTED,
    PROBLEM_IDEMPOTENCY_KEY,
    PROBLEM_REQUEST_IN_PROGRESS,
    PROBLEM_IDEMPOTENCY_KEY_REUSED,
    PROBLEM_VALIDATION,
    PROBLEM_TOO_BUSY,
    PROBLEM_TOO_FAST,
    PROBLEM_SALE_NOT_OPEN,
    PROBLEM_SALE_OVER,
    PROBLEM_WITHDRAWAL_TOO_LARGE,
    PROBLEM_STOCK_LIMIT,
    PROBLEM_UNAVAILABLE,
    API_PROBLEMS
};
extern const struct http_problem api_problems[API_PROBLEMS];

void api_reply_unavailable(struct http_request *request, const char *detail); /* 503 with Retry-After */
/* The same problem, or another, for one who is to come back after this: whole seconds, rounded up, and some more for some, so that not all come at once. */
void api_reply_later(struct http_request *request, enum api_problem problem, int64_t wait_ms,
                     const char *detail);

/* All breakers of this process, for showing. */
#define API_BREAKERS (GATE_BREAKERS + 2)
size_t api_breakers(struct api *api, struct breaker *out[API_BREAKERS]);
void api_reply_not_found(struct http_request *request, const char *what, int64_t id);

/* A time as answers have it, RFC 3339. */
void api_add_time(cJSON *json, const char *name, int64_t at_ms);
void api_add_time_or_null(cJSON *json, const char *name, int64_t at_ms); /* 0: null */

/* What is wrong with a request's values, gathered field by field. */
struct validation {
    cJSON *errors; /* NULL: nothing */
};
void validation_add(struct validation *validation, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* An integer or string member, with the usual complaints. `required` false: absent leaves *out alone. */
void validation_integer(struct validation *validation, const cJSON *body, const char *field, bool required,
                        int64_t min, int64_t max, int64_t *out);
/* The same of an object inside the body; `path` is what the complaint calls it: "items[2]". */
void validation_integer_in(struct validation *validation, const cJSON *object, const char *path,
                           const char *field, bool required, int64_t min, int64_t max, int64_t *out);
void validation_string(struct validation *validation, const cJSON *body, const char *field, bool required,
                       size_t min, size_t max, const char **out);
/* No controls, neither of ASCII nor of Latin-1: it comes to stand on screens and in terminals, and in lines of a log. NULL is none. */
void validation_one_line(struct validation *validation, const char *field, const char *text);
/* A time after 1970; absent or null leaves *out alone. */
void validation_time(struct validation *validation, const cJSON *body, const char *field, int64_t *out);
/* A query argument as a number from 1 on; absent leaves *out alone. */
void validation_query(struct validation *validation, const struct http_request *request, const char *name,
                      int64_t max, int64_t *out);
/* If something was wrong: answers 422, true. */
bool validation_failed(struct validation *validation, struct http_request *request);

/* --- who is asking (identity.c) -------------------------------------------------------------------------------------------- */
/* False: answered 401, or 429 because the account asks too fast. claims->username may be empty: see jwt.h. */
bool api_identify(struct api *api, struct http_request *request, struct jwt_claims *claims);
/* The same, and 403 unless an admin. */
bool api_identify_admin(struct api *api, struct http_request *request, struct jwt_claims *claims);
/* The JSON body, or NULL: answered 415 or 400. */
cJSON *api_json_body(struct http_request *request);
/* The Idempotency-Key, not terminated, valid as long as the request; *key is left alone if there is none. False: answered 400. */
bool api_idempotency_key(struct http_request *request, const char **key, size_t *bytes);

/* --- jobs off the loop (jobs.c) ---------------------------------------------------------------------------------------------- */
struct job;
typedef void (*job_work)(struct job *job, struct desk *desk); /* pool thread; must not touch the request */
typedef void (*job_reply)(struct job *job);                   /* loop thread; replies */

enum job_outcome {
    JOB_OK,
    JOB_NOT_FOUND,
    JOB_TAKEN,
    JOB_DENIED,
    JOB_UNAVAILABLE, /* refused; `error` is logged */
};

/* Whose fault it is that a job is JOB_UNAVAILABLE. */
enum job_fault { JOB_FAULT_OTHER, JOB_FAULT_STORE, JOB_FAULT_GATE };

/* Why it is answered 429 or 503 instead of by `reply`. */
struct job_refusal {
    enum work_queue queue;
    bool is_busy;    /* too much waits in that queue; else what the job needs is away */
    int64_t wait_ms; /* until it may be tried again */
};
typedef void (*job_refuse_cb)(struct job *job, const struct job_refusal *why); /* loop thread; replies */

#define JOB_DEADLINE_US INT64_C(5000000) /* from the request to its taking up */

/* First member of each job's own struct, which lives in the request's arena; of a look in looks.c's memory. */
struct job {
    struct api *api;
    struct http_request *request; /* NULL: it is no single one's (looks.c) */
    job_work work;
    job_reply reply;
    job_refuse_cb refuse; /* NULL: job_refuse() of the request */
    int64_t deadline_us;
    bool needs_gate;          /* the books' other side; set before job_start() */
    enum work_queue queue;    /* where it is */
    enum job_outcome outcome; /* set by work */
    enum job_fault fault;     /* if it is JOB_UNAVAILABLE */
    unsigned untold;          /* changes that were left to the keeper; counted on the loop's thread */
    char error[512];
};

/* Zeroed, `bytes` long, in the request's arena. */
void *job_new(struct api *api, struct http_request *request, size_t bytes, job_work work, job_reply reply);
/* Queues it. What cannot be done in time is answered here at once, with an honest Retry-After: a breaker is open, the queue is full, or too much waits in
 * it. 429 for passwords, 503 for all others. */
void job_start(struct job *job, enum work_queue queue);
/* Answers 429 or 503, with an honest Retry-After, and counts who is turned away because too much waits. */
void job_refuse(const struct api *api, struct http_request *request, const struct job_refusal *why);
/* For work: opens what is not open yet. False: job->outcome and ->error are set. */
bool desk_needs_reader(struct desk *desk, struct job *job);
bool desk_needs_writer(struct desk *desk, struct job *job);
bool desk_needs_gate(struct desk *desk, struct job *job);
/* What a change of a book needs: the gate's side, and a writer if the store makes the change. */
bool desk_needs_change(struct desk *desk, struct job *job);
/* What the gate said was done is not in the store: if so, it may have been another Redis than the recorder's, and is looked for anew next time. */
void desk_doubt_gate(struct desk *desk, const struct job *job);
/* After a STORE_FAILED of the writer: it is opened anew when next needed, and then mends first what a failed write may have left. */
void desk_drop_writer(struct desk *desk);
/* Does a change of a book fail without the other side? Under the Redlock gate the store makes it, and the nodes are told, or the keeper does. */
bool job_change_needs_gate(const struct api *api);
/* For work: JOB_UNAVAILABLE, and why. False. */
bool job_unavailable(struct job *job, enum job_fault fault, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* For replies: counts what the recorder would have counted, where there is none because the store made the change itself. */
void job_count_change(const struct job *job, enum metrics_counter counter);
/* Turns a store's status into an outcome; true if it is STORE_OK. */
bool job_store_status(struct job *job, const struct store *store, enum store_status status);
struct desk *desk_borrow(struct api *api);
void desk_return(struct desk *desk);
void desks_free(struct api *api);

/* --- purchases that are looked up in the store (settling.c) -------------------------------------------------------------------- */
/* Gives up those whose deadline comes. Every few milliseconds. */
void settling_watch(struct api *api);

/* --- live figures (events.c) --------------------------------------------------------------------------------------------------- */
struct events *events_new(struct api *api);
void events_use_server(struct events *events, struct http_server *server);
void events_watch(struct events *events); /* every few milliseconds */
void events_leave(struct events *events); /* ends all streams */
void events_free(struct events **events); /* after the server */

/* --- handlers ------------------------------------------------------------------------------------------------------------------ */
void accounts_register(struct http_request *request, void *api);
void accounts_login(struct http_request *request, void *api);
void accounts_me(struct http_request *request, void *api);
void products_create(struct http_request *request, void *api);
void products_list(struct http_request *request, void *api);
void products_get(struct http_request *request, void *api);
void products_stock(struct http_request *request, void *api);
void purchases_create(struct http_request *request, void *api);
/* The same, but only of the Redlock gate. */
void purchases_create_redlock(struct http_request *request, void *api);
void purchases_mine(struct http_request *request, void *api);
void purchases_get(struct http_request *request, void *api);
void purchases_cancel(struct http_request *request, void *api);
void stock_changes_create(struct http_request *request, void *api);
void price_changes_create(struct http_request *request, void *api);
void window_changes_create(struct http_request *request, void *api);
void audit_list(struct http_request *request, void *api);
/* The shop window for browsers, operations_root() for everybody else. */
void pages_root(struct http_request *request, void *api);
void pages_dashboard(struct http_request *request, void *api);
void pages_asset(struct http_request *request, void *api);
void events_stream(struct http_request *request, void *api);
void events_figures(struct http_request *request, void *api);
/* Name, version and links, as JSON. */
void operations_root(struct http_request *request, void *api);
void operations_health(struct http_request *request, void *api);
void readiness_get(struct http_request *request, void *api);
void operations_metrics(struct http_request *request, void *api);
void problem_pages_list(struct http_request *request, void *api);
void problem_pages_get(struct http_request *request, void *api);
void pages_docs(struct http_request *request, void *api);
void pages_description(struct http_request *request, void *api);

#endif
