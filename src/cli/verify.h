/* verify's parts: what they share, and what each does. */
#ifndef DOORBUSTER_CLI_VERIFY_H
#define DOORBUSTER_CLI_VERIFY_H

#include "cli.h"

#include "doorbuster/node_books.h"

#include <cjson/cJSON.h>

#define VERIFY_PROGRAM "doorbuster-verify"
#define VERIFY_REDIS_TIMEOUT_MS 5000
#define VERIFY_NAMES_BYTES 1024

/* NOTED: worth a line, but nothing that must hold. */
enum verdict { HOLDS, BROKEN, UNKNOWN, NOTED };
enum verify_output { OUTPUT_LINES, OUTPUT_JSON, OUTPUT_NONE };

#define VERIFY_HASH_BYTES (2 * STORE_AUDIT_HASH_BYTES + 1)

/* One product's two sides at the same position of the log. Of the Redlock gate "redis" is what a majority of the nodes says. */
struct verify_book {
    int64_t product_id, redis, store; /* the stock; of a bundle, which has none, 0 */
    bool known;                       /* Redis's side */
    struct log_position version;      /* GATE_REDLOCK: the position that the nodes name */
    const char *differ_in;        /* the first thing in which they are not the same, "price"; NULL: none */
    int64_t redis_has, store_has; /* its figures, if there is one */
};

/* The log behind the store's position, and before it. */
struct verify_tail {
    bool read;
    uint64_t epoch;  /* the head's; 0: the gate is closed */
    int64_t next_id; /* expected of the first order that is not recorded yet */
    int64_t in_flight, out_of_sequence;
    int64_t entries_behind; /* not recorded yet */
    int64_t oldest_at_ms;   /* of those, the first one's time; 0: there are none */
    int64_t recorded, different;
    int64_t cancels, cancels_missing; /* recorded ones; those whose order is not cancelled in the store */
};

/* GATE_REDLOCK: the nodes. */
struct verify_nodes {
    unsigned answering;
    bool answers[GATE_NODES_MAX];
    bool stopped;        /* they are private ones of a stopped server: there is nothing to compare */
    unsigned lagging;    /* behind, wrong, or not answering */
    int64_t patience_us; /* until then what is behind is looked at again */
};

/* One pass over everything: what it reads from, what it found. */
struct audit {
    const struct cli_place *place;
    struct store *store;
    redisContext *redis;      /* GATE_LUA; NULL: could not be reached */
    struct node_books *nodes; /* GATE_REDLOCK; likewise */
    struct store *live;       /* GATE_REDLOCK: the store outside the snapshot */
    struct verify_nodes nodes_found;
    enum verify_output output;
    bool quick;           /* only what costs nothing however many orders there are */
    int64_t only_product; /* 0: all */

    size_t made, broken, unknown;
    char broken_names[VERIFY_NAMES_BYTES], unknown_names[VERIFY_NAMES_BYTES]; /* ", " in between, each once */
    cJSON *checks, *products;                                                 /* OUTPUT_JSON */
    struct store_position position;
    struct store_orders_audit orders;
    struct store_chain_audit chain;
    bool chain_read;
    char chain_error[512]; /* why not */
    struct verify_tail tail;
    struct verify_book *books;
    size_t book_count, books_room;
};

/* --- one pass (verify_checks.c) -------------------------------------------------------------------------------------------------- */
/* `audit` as its owner set it up: the connections, what is asked for; everything found starts empty. False: the store cannot be read;
 * said on stderr. The snapshot is open until audit_end(), so that more may be checked in it. The audit log, which may take long, is read before
 * the snapshot begins, for an open snapshot keeps a recorder that starts from tidying up the store, and so from opening the sale. */
bool audit_begin(struct audit *audit);
void audit_check(struct audit *audit);
void audit_end(struct audit *audit);
/* Forgets what the pass found. The connections stay. */
void audit_clear(struct audit *audit);
/* A check's line, or JSON, or only the counts. */
void audit_report(struct audit *audit, const char *name, enum verdict verdict, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
enum verdict audit_holds(bool condition);
/* A name into a list like broken_names, unless it is there. */
void audit_add_name(char *names, size_t bytes, const char *name);
/* The check could not be made: store_error(). */
void audit_report_store_failure(struct audit *audit, const char *name);
/* As 64 hexadecimal digits. */
void audit_format_hash(const unsigned char *hash, char out[VERIFY_HASH_BYTES]);
/* 0, 1, 2 */
int audit_exit_code(const struct audit *audit);

/* To Redis, again if the connection is dead, or to a majority of the nodes. False: `error` says why not. */
bool audit_connect(struct audit *audit, char *error, size_t error_bytes);
void audit_disconnect(struct audit *audit);

/* --- each product (verify_product.c) ------------------------------------------------------------------------------------------------- */
void audit_check_products(struct audit *audit);

/* --- the nodes of the Redlock gate (verify_nodes.c) ---------------------------------------------------------------------------------- */
/* Looks which of them answer. False: no majority does. */
bool audit_connect_nodes(struct audit *audit, char *error, size_t error_bytes);
/* A pass begins to compare. */
void audit_be_patient(struct audit *audit);
/* A product's stock, which is no bundle's: what a majority says against the store. Fills in the book's other side. */
void audit_check_node_book(struct audit *audit, const struct store_product *product,
                           struct verify_book *book);
/* Each node by itself, after the products. */
void audit_check_nodes(struct audit *audit);

/* --- the log's tail (verify_tail.c) ---------------------------------------------------------------------------------------------------- */
/* First the one, as close to the snapshot as can be; later the other says what was found. */
void audit_read_tail(struct audit *audit);
void audit_check_tail(struct audit *audit);

/* --- --acks (verify_acks.c) -------------------------------------------------------------------------------------------------------- */
struct acks {
    struct ack *list;
    size_t count, room;
    struct ack_line *more; /* of carts: the lines behind the first */
    size_t more_count, more_room;
};
/* Reads the file ("-": standard input). Exits with 2 and one line if a line is malformed. */
void acks_read(struct acks *acks, const char *path);
void acks_fini(struct acks *acks);
/* Within the audit's snapshot, which must be younger than the reading. */
void acks_check(const struct acks *acks, struct audit *audit);

/* --- --repair (verify_repair.c) ---------------------------------------------------------------------------------------------------- */
struct repair {
    bool by_keeper; /* GATE_REDLOCK: nobody attaches */
    uint64_t epoch_before, epoch_after;
    struct verify_book *before;
    size_t before_count;
};
/* Asks the recorder to attach and waits until it has; of the Redlock gate, waits until the keeper has brought the nodes up to date, as it does
 * by itself. False: said on stderr. */
bool repair_ask(struct repair *repair, struct audit *audit);
/* What the audit made of the figures from before; JSON: into `json`. */
void repair_report(const struct repair *repair, const struct audit *audit, cJSON *json);
void repair_fini(struct repair *repair);

/* --- --watch (verify_watch.c) ------------------------------------------------------------------------------------------------------ */
/* Passes until SIGINT or SIGTERM; the worst one's exit code. */
int watch_run(struct audit *audit, bool json);

/* --- a stopped server's Redis (verify_private.c) ------------------------------------------------------------------------------------- */
/* While it is awake, the data folder is locked. */
struct private_sleeper {
    int lock_fd; /* -1: not ours */
    pid_t pid;
};
/* Starts the private Redis of a stopped server. False: `error` says why not. */
bool private_wake(struct private_sleeper *sleeper, const struct cli_place *place, char *error,
                  size_t error_bytes);
void private_put_back(struct private_sleeper *sleeper);
/* Does no server hold the data folder? */
bool private_is_stopped(const struct cli_place *place);

#endif
