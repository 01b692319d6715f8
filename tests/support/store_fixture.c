/* See store_fixture.h. The test process; owns the PostgreSQL, if there is one. */
#include "store_fixture.h"

#include "postgres_fixture.h"
#include "testing.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_MS 5000

static struct postgres_fixture postgres;

static void end_cb(void)
{
    postgres_fixture_end(&postgres);
}

bool store_fixture_is_postgres(void)
{
    const char *store = getenv("DOORBUSTER_TEST_STORE");
    return store != NULL && strcmp(store, "postgres") == 0;
}

struct postgres_fixture *store_fixture_postgres(void)
{
    if (!store_fixture_is_postgres()) {
        return NULL;
    }
    if (postgres.folder[0] == '\0') {
        atexit(end_cb);
        postgres_fixture_start(&postgres, false);
    }
    return &postgres;
}

void store_fixture_new(const char *folder, const char *name, char *url, size_t url_bytes)
{
    char database[POSTGRES_URL_BYTES];
    if (!store_fixture_is_postgres()) {
        snprintf(url, url_bytes, "sqlite:%s/%s", folder, name);
        return;
    }
    postgres_fixture_new_database(store_fixture_postgres(), database);
    assert_in_range(snprintf(url, url_bytes, "%s", database), 1, url_bytes - 1);
}

static sqlite3 *open_file(const char *url)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open_v2(url + strlen("sqlite:"), &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    sqlite3_busy_timeout(db, BUSY_MS);
    return db;
}

static bool try_in_file(const char *url, const char *sql)
{
    sqlite3 *db = open_file(url);
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (code != SQLITE_OK && code != SQLITE_CONSTRAINT) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    }
    sqlite3_close(db);
    return code == SQLITE_OK;
}

bool store_fixture_try(const char *url, const char *sql)
{
    return store_fixture_is_postgres() ? postgres_fixture_try(url, sql) : try_in_file(url, sql);
}

/* SQLite cannot put triggers aside: they are taken away for it. */
bool store_fixture_edit(const char *url, const char *sql)
{
    return store_fixture_is_postgres() ? postgres_fixture_edit(url, sql) : try_in_file(url, sql);
}

int64_t store_fixture_ask(const char *url, const char *sql)
{
    sqlite3_stmt *row;
    if (store_fixture_is_postgres()) {
        return postgres_fixture_ask(url, sql);
    }
    sqlite3 *db = open_file(url);
    if (sqlite3_prepare_v2(db, sql, -1, &row, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    }
    int64_t number = sqlite3_step(row) == SQLITE_ROW ? sqlite3_column_int64(row, 0) : -1;
    sqlite3_finalize(row);
    sqlite3_close(db);
    return number;
}
