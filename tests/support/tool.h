/* Runs setup and verify on a server's data folder. */
#ifndef DOORBUSTER_TEST_TOOL_H
#define DOORBUSTER_TEST_TOOL_H

#include "run.h"
#include "server_fixture.h"

#define TOOL_MS 60000

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

/* With --data and these arguments; both lists end with NULL, or are NULL. */
struct run_result tool_run(const struct server_fixture *server, const char *tool,
                           const char *const *arguments, const char *const *environment);
/* Runs it and expects this exit code and these words on stdout or stderr. */
void tool_expect(const struct server_fixture *server, const char *tool, const char *const *arguments,
                 int exit_code, const char *words);

#endif
