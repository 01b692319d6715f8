/* Runs setup and verify on a server's data folder; a shop for them: a server, a buyer who buys in twos, what the buyer heard, and hands that
 * change one of the books behind the server's back. */
#ifndef DOORBUSTER_TEST_TOOL_H
#define DOORBUSTER_TEST_TOOL_H

#include "ledger.h"
#include "run.h"
#include "server_fixture.h"

#define TOOL_MS 60000
#define TOOL_QUANTITY 2
#define TOOL_PATH_BYTES (FOLDER_BYTES + 64)

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

/* With --data and these arguments; both lists end with NULL, or are NULL. */
struct run_result tool_run(const struct server_fixture *server, const char *tool,
                           const char *const *arguments, const char *const *environment);
/* Runs it and expects this exit code and these words on stdout or stderr. */
void tool_expect(const struct server_fixture *server, const char *tool, const char *const *arguments,
                 int exit_code, const char *words);

/* --- a shop
 * ------------------------------------------------------------------------------------------------------------------------ */
struct tool_shop {
    struct server_fixture server;
    struct ledger ledger;
    int64_t buyer, product; /* bought last */
    char token[JWT_TOKEN_BYTES_MAX];
};

/* With a server of one worker, and the buyer. */
void tool_shop_begin(struct tool_shop *shop);
/* For teardown. Nothing is checked: some tests leave a store that is damaged on purpose. */
void tool_shop_end(struct tool_shop *shop);
/* So many purchases of TOOL_QUANTITY, one after the other; the answers go to the ledger. */
void tool_shop_sell(struct tool_shop *shop, int64_t product, unsigned orders);
/* Any request of the buyer's: the answer's status, and its `id` (0: it has none; NULL: never mind). */
int tool_shop_ask(struct tool_shop *shop, const char *method, const char *target, const char *body,
                  int64_t *id);
/* A path in the server's folder; one of the last four. */
const char *tool_shop_path(const struct tool_shop *shop, const char *name);

/* By hand: SQL that must change something; "HINCRBY {doorbuster}:product:%lld stock %lld". */
void tool_shop_change_store(const struct tool_shop *shop, const char *sql);
void tool_shop_change_redis(const struct tool_shop *shop, const char *command, int64_t id, int64_t by);

#endif
