/* Runs a program to its end, with a clean environment, and keeps what it said. */
#ifndef DOORBUSTER_TEST_RUN_H
#define DOORBUSTER_TEST_RUN_H

#include <sys/types.h>

struct run_result {
    int exit_code; /* negative: killed by that signal */
    char *out, *err;
};

/* Path of one of our programs, from $DOORBUSTER_BIN; lives as long as the process. */
const char *program_path(const char *name);

/* Starts argv[0] (a path) with stdout and stderr into these descriptors. Its environment is PATH, the
 * sanitizers' options, the gate that is under test ($DOORBUSTER_GATE, $LOCK_TIMEOUT_SECONDS, $REDIS_NODES), the store if it is in PostgreSQL ($DATABASE_URL)
 * and then `environment` ("NAME=value", ends with NULL; may be NULL), which wins. It gets SIGTERM when the test process
 * dies. */
pid_t program_start(const char *const *argv, const char *const *environment, int out_fd, int err_fd);

/* Starts it and waits until it ends; fails the test if that takes longer than timeout_ms. */
struct run_result program_run(const char *const *argv, const char *const *environment, int timeout_ms);
void run_result_free(struct run_result *result);

/* Waits for the end of a child of this process: its exit code as above. Fails the test at the deadline, after
 * kill -9. */
int program_wait(pid_t pid, int timeout_ms);

#endif
