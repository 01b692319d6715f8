/* The store's front: picks the driver that a URL names; connections, copies, snapshots. What is done with a connection is in the rules (rules.h).
 *
 * Runs in whatever process and thread calls it; owns nothing but the list of drivers, the shop's name and the word for those who wait. Fails only on a URL
 * that nobody understands; a broken promise of the caller (a write on a reader, a snapshot opened twice) is a
 * bug and stops the program. */
#include "sql.h"

#include "doorbuster/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct store_driver *const drivers[] = {&sqlite_driver, &postgres_driver};

static const struct store_driver *find_driver(const char *url, char *error, size_t error_bytes)
{
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0]; i++) {
        if (strncmp(url, drivers[i]->scheme, strlen(drivers[i]->scheme)) == 0)
            return drivers[i];
    }
    /* A URL may carry a password: of one that we do not know, say no more than the part before the colon. */
    size_t scheme = strcspn(url, ":");
    if (scheme == strlen(url))
        scheme = 0;
    snprintf(
        error, error_bytes,
        "no store is called \"%.*s%s\"; it may be sqlite:PATH, for example sqlite:data/doorbuster.db, or "
        "postgresql://HOST/DATABASE",
        (int)(scheme < 32 ? scheme : 32), url, scheme > 0 ? ":" : "");
    return NULL;
}

static void (*waiting_cb)(void);

void store_while_waiting(void (*cb)(void))
{
    waiting_cb = cb;
}

void store_tell_waiting(void)
{
    if (waiting_cb != NULL)
        waiting_cb();
}

static const char *shop_name = "doorbuster";

void store_use_shop(const char *name)
{
    CHECK(name[0] != '\0');
    shop_name = name;
}

const char *store_shop(void)
{
    return shop_name;
}

bool store_url_is_valid(const char *url, char *error, size_t error_bytes)
{
    const struct store_driver *driver = find_driver(url, error, error_bytes);
    return driver != NULL && driver->url_is_valid(url, error, error_bytes);
}

enum store_status store_open(struct store **out, const char *url, enum store_mode mode, char *error,
                             size_t error_bytes)
{
    *out = NULL;
    const struct store_driver *driver = find_driver(url, error, error_bytes);
    if (driver == NULL)
        return STORE_FAILED;
    enum store_status status = driver->open(out, url, mode, error, error_bytes);
    CHECK((status == STORE_OK) == (*out != NULL));
    return status;
}

bool store_is_away(const char *url)
{
    char error[STORE_ERROR_BYTES];
    const struct store_driver *driver = find_driver(url, error, sizeof error);
    return driver != NULL && driver->is_away != NULL && driver->is_away(url);
}

void store_close(struct store **store)
{
    if (*store == NULL)
        return;
    store_snapshot_end(*store);
    (*store)->driver->close(*store);
    *store = NULL;
}

void store_free_kept(struct store *store)
{
    store_tallies_forget(store);
    store_books_free(&store->books);
    store_counter_free(&store->counter);
}

enum store_status store_refuse(struct store *store, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(store->error, sizeof store->error, format, arguments);
    va_end(arguments);
    return STORE_FAILED;
}

const char *store_error(const struct store *store)
{
    return store->error;
}

/* --- backup --- */
bool store_file(const char *url, char path[STORE_PATH_BYTES], char *error, size_t error_bytes)
{
    _Static_assert(STORE_PATH_BYTES == PATH_MAX, "a path is as long as the system has it");
    const struct store_driver *driver = find_driver(url, error, error_bytes);
    return driver != NULL && driver->path(url, path, error, error_bytes);
}

enum store_status store_back_up(struct store *store, const char *path, struct store_position *position)
{
    CHECK(!store->in_snapshot);
    return store->driver->back_up(store, path, position);
}

enum store_status store_pack(const char *url, char *error, size_t error_bytes)
{
    char path[STORE_PATH_BYTES];
    const struct store_driver *driver = find_driver(url, error, error_bytes);
    if (driver == NULL || !driver->path(url, path, error, error_bytes))
        return STORE_FAILED;
    return driver->pack(path, error, error_bytes);
}

/* --- snapshots --- */
enum store_status store_snapshot_begin(struct store *store)
{
    CHECK(!store->in_snapshot);
    enum store_status status = sql_read_begin(store);
    store->in_snapshot = status == STORE_OK;
    return status;
}

void store_snapshot_end(struct store *store)
{
    if (!store->in_snapshot)
        return;
    store->in_snapshot = false;
    sql_read_end(store);
}
