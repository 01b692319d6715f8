/* The schema of a shop in PostgreSQL: one schema of the database, called as the shop; who makes it, and who brings it up to date.
 *
 * Runs at each new connection, before pipeline mode. Owns nothing. Migrations are numbered in the table schema_version; all that are missing are
 * applied in one transaction under an advisory lock, so of several writers that come at once one does it and the others find it done. A connection that
 * finds its own version asks for no lock and needs no right to make anything. A schema of a newer version is left alone. */
#include "postgres.h"

#include "embedded.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Migration i takes the schema from version i to i + 1. Never edit one that has been released. */
static const char *const migrations[] = {embedded__0001_postgres_sql, embedded__0002_product_requests_sql};
#define SCHEMA_VERSION ((int)(sizeof migrations / sizeof migrations[0]))
#define LOCK_KEY "1145206644" /* "DBst" */

/* The first column of the first row as a number. */
static bool ask_number(struct postgres_store *store, const char *sql, int timeout_ms, int64_t *out)
{
    PGresult *row = postgres_execute(store, sql, timeout_ms);
    if (row == NULL)
        return false;
    *out = PQntuples(row) > 0 ? strtoll(PQgetvalue(row, 0, 0), NULL, 10) : 0;
    PQclear(row);
    return true;
}

static bool execute(struct postgres_store *store, const char *sql)
{
    PGresult *result = postgres_execute(store, sql, POSTGRES_MIGRATION_MS);
    PQclear(result);
    return result != NULL;
}

/* 0: there is no schema, or an empty one. */
static bool read_version(struct postgres_store *store, int64_t *version)
{
    char sql[400];
    const char *shop = store_shop();
    int64_t tables;
    snprintf(sql, sizeof sql,
             "SELECT CASE WHEN to_regclass('\"%s\".schema_version') IS NOT NULL THEN -1 ELSE"
             " (SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE "
             "nspname = '%s') END",
             shop, shop);
    *version = 0;
    if (!ask_number(store, sql, POSTGRES_CALL_MS, &tables))
        return false;
    if (tables > 0)
        return postgres_fault(
            store, "",
            "its schema \"%s\" has tables of another program; name another database, or another --shop",
            shop);
    return tables == 0 || ask_number(store, "SELECT coalesce(max(version), 0) FROM schema_version",
                                     POSTGRES_CALL_MS, version);
}

static bool refuse_newer(struct postgres_store *store, int64_t version)
{
    return postgres_fault(store, "",
                          "its schema is of version %" PRId64
                          ", made by a newer Doorbuster than this one, which knows versions up to %d",
                          version, SCHEMA_VERSION);
}

static bool apply(struct postgres_store *store, int64_t version)
{
    char sql[100];
    snprintf(sql, sizeof sql, "INSERT INTO schema_version (version) VALUES (%" PRId64 ")", version + 1);
    return execute(store, migrations[version]) && execute(store, sql);
}

/* In a transaction, with the lock. */
static bool migrate_alone(struct postgres_store *store)
{
    char sql[300];
    int64_t version;
    snprintf(sql, sizeof sql,
             "CREATE SCHEMA IF NOT EXISTS \"%s\"; CREATE TABLE IF NOT EXISTS schema_version"
             " (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())",
             store_shop());
    /* Looked for first: a role that may not make a schema may have been given one. */
    bool ok = read_version(store, &version);
    if (ok && version == 0)
        ok = execute(store, sql);
    for (; ok && version < SCHEMA_VERSION; version++)
        ok = apply(store, version);
    return ok;
}

static bool migrate(struct postgres_store *store)
{
    bool ok = execute(store, "BEGIN; SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0;"
                             " SELECT pg_advisory_xact_lock(" LOCK_KEY ")") &&
              migrate_alone(store) && execute(store, "COMMIT");
    if (!ok && store->connection != NULL) {
        char state[sizeof store->state], message[sizeof store->message];
        memcpy(state, store->state, sizeof state);
        memcpy(message, store->message, sizeof message);
        execute(store, "ROLLBACK");
        postgres_fault(store, state, "%s", message);
    }
    return ok;
}

bool postgres_claim_schema(struct postgres_store *store)
{
    int64_t version;
    if (!read_version(store, &version))
        return false;
    if (version > SCHEMA_VERSION)
        return refuse_newer(store, version);
    if (version == SCHEMA_VERSION)
        return true;
    if (store->base.mode == STORE_WRITER)
        return migrate(store);
    return version == 0
               ? postgres_fault(
                     store, "",
                     "there is no store in its schema \"%s\"; the server makes it at its first start",
                     store_shop())
               : postgres_fault(store, "",
                                "it has not been set up by this version yet; start the server on it once");
}
