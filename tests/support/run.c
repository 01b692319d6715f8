/* See run.h. The test process's main thread; children are ended by their recorded pid only. */
#include "run.h"

#include "store_fixture.h"
#include "testing.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLES_MAX 32
#define PROGRAMS_MAX 8
#define KEPT_MAX 9 /* variables of our own environment */
#define KEPT_BYTES 600

const char *program_path(const char *name)
{
    static char paths[PROGRAMS_MAX][512];
    static size_t used;
    const char *folder = getenv("DOORBUSTER_BIN");
    assert_non_null(folder);
    char path[512];
    assert_in_range(snprintf(path, sizeof path, "%s/%s", folder, name), 1, sizeof path - 1);
    for (size_t i = 0; i < used; i++) {
        if (strcmp(paths[i], path) == 0) {
            return paths[i];
        }
    }
    assert_in_range(used, 0, PROGRAMS_MAX - 1);
    return strcpy(paths[used++], path);
}

static bool names(const char *variable, const char *other)
{
    size_t bytes = strcspn(variable, "=");
    return strncmp(variable, other, bytes) == 0 && other[bytes] == '=';
}

static void fill_environment(const char *const *given, const char **out, char texts[KEPT_MAX][KEPT_BYTES])
{
    static const char *const kept[] = {
        "PATH",        "ASAN_OPTIONS",    "UBSAN_OPTIONS",        "TSAN_OPTIONS",
        "TMPDIR",      "DOORBUSTER_GATE", "LOCK_TIMEOUT_SECONDS", "REDIS_NODES",
        "DATABASE_URL"};
    size_t used = 0;
    _Static_assert(sizeof kept / sizeof kept[0] <= KEPT_MAX, "room for each");
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        const char *value = getenv(kept[i]);
        if (strcmp(kept[i], "DATABASE_URL") == 0 && !store_fixture_is_postgres()) {
            continue; /* not the fixture's */
        }
        if (value != NULL) {
            assert_in_range(snprintf(texts[i], KEPT_BYTES, "%s=%s", kept[i], value), 1, KEPT_BYTES - 1);
            out[used++] = texts[i];
        }
    }
    for (size_t i = 0; given != NULL && given[i] != NULL; i++) {
        size_t at = 0;
        while (at < used && !names(out[at], given[i])) {
            at++;
        }
        assert_in_range(at, 0, VARIABLES_MAX - 2);
        out[at] = given[i];
        used += at == used;
    }
    out[used] = NULL;
}

pid_t program_start(const char *const *argv, const char *const *environment, int out_fd, int err_fd)
{
    const char *variables[VARIABLES_MAX];
    char texts[KEPT_MAX][KEPT_BYTES];
    fill_environment(environment, variables, texts);
    fflush(NULL);
    pid_t parent = getpid();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent || dup2(out_fd, STDOUT_FILENO) < 0 || dup2(err_fd, STDERR_FILENO) < 0) {
            _exit(126);
        }
        execve(argv[0], (char *const *)argv, (char *const *)variables);
        _exit(127);
    }
    return pid;
}

int program_wait(pid_t pid, int timeout_ms)
{
    int64_t deadline = deadline_in(timeout_ms);
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(pid, &status, WNOHANG)) == 0) {
        if (!wait_a_moment(deadline)) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            fail_msg("process %d did not end within %d ms", (int)pid, timeout_ms);
        }
    }
    assert_int_equal(ended, pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static char *read_all(FILE *file)
{
    fseek(file, 0, SEEK_END);
    long bytes = ftell(file);
    char *text = malloc((size_t)bytes + 1);
    assert_non_null(text);
    rewind(file);
    text[fread(text, 1, (size_t)bytes, file)] = '\0';
    fclose(file);
    return text;
}

struct run_result program_run(const char *const *argv, const char *const *environment, int timeout_ms)
{
    struct run_result result;
    FILE *out = tmpfile(), *err = tmpfile();
    assert_non_null(out);
    assert_non_null(err);
    pid_t pid = program_start(argv, environment, fileno(out), fileno(err));
    result.exit_code = program_wait(pid, timeout_ms);
    result.out = read_all(out);
    result.err = read_all(err);
    return result;
}

void run_result_free(struct run_result *result)
{
    free(result->out);
    free(result->err);
    result->out = result->err = NULL;
}
