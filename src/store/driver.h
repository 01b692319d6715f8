/* The seam between the store's front (store.c), its rules (rules.h) and its drivers. A driver is a connection to a database that
 * runs the rules' statements (sql.h), and what else each database does in its own way. store.h says what each function does; the front has
 * checked the arguments and the mode before it calls. */
#ifndef STORE_DRIVER_H
#define STORE_DRIVER_H

#include "rules.h"

#include <limits.h>

#define STORE_ERROR_BYTES 512

struct store_driver {
    const char *scheme; /* "sqlite:": what its URLs begin with */
    bool (*url_is_valid)(const char *url, char *error, size_t error_bytes);
    bool (*path)(const char *url, char path[PATH_MAX], char *error, size_t error_bytes);
    /* Fills in all of *out that this header has, but what the rules keep: that begins empty. */
    enum store_status (*open)(struct store **out, const char *url, enum store_mode mode, char *error,
                              size_t error_bytes);
    void (*close)(struct store *store); /* frees it too; what the rules keep: store_free_kept() */
    enum store_status (*back_up)(struct store *store, const char *path, struct store_position *position);
    enum store_status (*pack)(const char *path, char *error, size_t error_bytes);
    bool (*is_away)(const char *url); /* NULL: it cannot be */
};

/* Every driver's connection begins with this. */
struct store {
    const struct store_driver *driver;
    const struct sql_calls *sql;
    enum store_mode mode;
    bool in_snapshot;
    char error[STORE_ERROR_BYTES];
    /* What the rules keep. */
    struct store_books books;
    struct store_counter *counter; /* selling.c; made at the first sale */
    struct store_tallies tallies;  /* held from the first question of a snapshot to its end */
    struct store_tallies walked;   /* held from a walk along the chain to the end of the next snapshot */
};

static inline bool store_may_write(const struct store *store)
{
    return store->mode == STORE_WRITER && !store->in_snapshot;
}

/* For drivers: frees what the rules keep, at the end of a connection. */
void store_free_kept(struct store *store);

/* In the loop in which a driver waits for others: calls what store_while_waiting() was given. */
void store_tell_waiting(void);

/* What store_use_shop() was given: for drivers that keep several shops in one database. */
const char *store_shop(void);

/* Makes store_error() say this. Always returns STORE_FAILED. */
enum store_status store_refuse(struct store *store, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

extern const struct store_driver sqlite_driver, postgres_driver;

#endif
