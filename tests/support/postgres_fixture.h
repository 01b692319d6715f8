/* A real PostgreSQL for tests: a cluster of its own in a temporary folder, on a Unix socket there, nothing on the network unless asked for. Writes are
 * synced as in earnest. It runs as the system's user `postgres` if the test is root's, for root must not run it; connections come in as the
 * superuser `postgres` and are trusted. */
#ifndef DOORBUSTER_TEST_POSTGRES_FIXTURE_H
#define DOORBUSTER_TEST_POSTGRES_FIXTURE_H

#include "folder.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define POSTGRES_URL_BYTES 200

struct postgres_fixture {
    char folder[FOLDER_BYTES]; /* the socket's too; "": there is none */
    int port;                  /* on 127.0.0.1; 0: the socket only */
    int databases;             /* made so far */
    pid_t pid;                 /* 0: not running */
    pid_t owner;               /* who may end it: not a child of the test's */
};

/* Makes the cluster, starts it and waits until it answers. */
void postgres_fixture_start(struct postgres_fixture *fixture, bool on_tcp);
void postgres_fixture_stop(
    struct postgres_fixture *fixture); /* as an administrator does: sessions are ended, all is kept */
void postgres_fixture_kill(
    struct postgres_fixture *fixture); /* kill -9, all its processes at once, as when the machine stops */
void postgres_fixture_restart(struct postgres_fixture *fixture);
void postgres_fixture_freeze(const struct postgres_fixture *fixture); /* SIGSTOP, all its processes */
void postgres_fixture_thaw(const struct postgres_fixture *fixture);
void postgres_fixture_end(struct postgres_fixture *fixture);

/* A new, empty database; its URL. zeroblob() is in it, as SQLite has it. */
void postgres_fixture_new_database(struct postgres_fixture *fixture, char url[POSTGRES_URL_BYTES]);
/* One sentence, or several, in the database of this URL, in the schema "doorbuster", as the superuser; triggers as they are. Other failures
 * than constraints fail the test. */
void postgres_fixture_do(const char *url, const char *sql);
bool postgres_fixture_try(const char *url, const char *sql); /* false: a constraint forbids it */
/* As postgres_fixture_try(), but triggers stand aside: for what only a hand that means to can do. */
bool postgres_fixture_edit(const char *url, const char *sql);
/* The number in the first column of the first row; -1: none. */
long long postgres_fixture_ask(const char *url, const char *sql);

#endif
