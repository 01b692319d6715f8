/* The store that a test runs on: in a file, or, with DOORBUSTER_TEST_STORE=postgres, in a database of a PostgreSQL that the test program starts at the first
 * need and ends with itself. */
#ifndef DOORBUSTER_TEST_STORE_FIXTURE_H
#define DOORBUSTER_TEST_STORE_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_FIXTURE_URL_BYTES 300

bool store_fixture_is_postgres(void);
/* The URL of a new, empty store; in a file it is the file `name` of `folder`. */
void store_fixture_new(const char *folder, const char *name, char *url, size_t url_bytes);
/* Behind the store's back: false if a constraint forbids it. Triggers stand aside only in the second. */
bool store_fixture_try(const char *url, const char *sql);
bool store_fixture_edit(const char *url, const char *sql);
/* The number in the first column of the first row; -1: none. */
int64_t store_fixture_ask(const char *url, const char *sql);
/* The PostgreSQL, to do something to it; NULL: it is a file. */
struct postgres_fixture *store_fixture_postgres(void);

#endif
