/* For tests of what a process prints and how it ends: runs a function in a forked child and keeps its exit
 * code, stdout and stderr. The function must not use cmocka's asserts: they would go on with the parent's
 * tests in the child. */
#ifndef TESTS_UNIT_CHILD_H
#define TESTS_UNIT_CHILD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct child {
    int exit_code; /* negative: killed by that signal */
    char out[16384], err[16384];
};

static void child_read(FILE *file, char *text, size_t bytes)
{
    rewind(file);
    text[fread(text, 1, bytes - 1, file)] = '\0';
    fclose(file);
}

static void child_run(void (*body)(void *context), void *context, struct child *child)
{
    FILE *out = tmpfile(), *err = tmpfile();
    int status = 0;

    assert_non_null(out);
    assert_non_null(err);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (dup2(fileno(out), STDOUT_FILENO) < 0 || dup2(fileno(err), STDERR_FILENO) < 0)
            _exit(99);
        body(context);
        fflush(NULL);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    child->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    child_read(out, child->out, sizeof child->out);
    child_read(err, child->err, sizeof child->err);
}

#endif
