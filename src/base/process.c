/* Things a process does to itself and to files at start: its title, its private directory, its refusal to
 * start.
 *
 * Main thread, before other threads exist. Owns copies of argv's strings and of the environment, made once
 * and kept for ever: the memory they lay in is where `ps` reads the title. Out of memory in that: the title
 * stays as it was. */
#include "doorbuster/process.h"

#include "doorbuster/check.h"
#include "line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define TITLE_BYTES_MAX 256

static char *title_area; /* NULL: nowhere to write */
static size_t title_area_bytes;
/* Kept so that the leak checker sees an owner. */
static char **copied_environment, **copied_arguments;

/* One allocation a string; NULL if memory ran out. The copy ends in NULL, as argv and environ do. */
static char **copy_strings(char **strings, size_t count)
{
    char **copy = calloc(count + 1, sizeof *copy);

    if (copy == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        copy[i] = strdup(strings[i]);
        if (copy[i] == NULL)
            goto free_copy;
    }
    return copy;

free_copy:
    for (size_t i = 0; copy[i] != NULL; i++)
        free(copy[i]);
    free(copy);
    return NULL;
}

/* The end of the strings that follow one another without a gap from `end` on. */
static char *contiguous_end(char *end, char **strings, size_t count)
{
    for (size_t i = 0; i < count && strings[i] == end; i++)
        end += strlen(strings[i]) + 1;
    return end;
}

void process_init_title(int argc, char **argv)
{
    size_t arguments = (size_t)argc, variables = 0;

    CHECK(argc >= 0);
    if (argc == 0 || title_area != NULL || environ == NULL)
        return;
    while (environ[variables] != NULL)
        variables++;
    copied_arguments = copy_strings(argv, arguments);
    copied_environment = copy_strings(environ, variables);
    if (copied_arguments == NULL || copied_environment == NULL)
        return;

    /* The kernel lays argv's strings and then the environment's in one piece; take as much of it as that
     * holds for. */
    char *end = contiguous_end(argv[0], argv, arguments);
    if (end == argv[arguments - 1] + strlen(argv[arguments - 1]) + 1)
        end = contiguous_end(end, environ, variables);
    title_area = argv[0];
    title_area_bytes = (size_t)(end - title_area);

    /* Everyone who looks at argv or the environment from now on sees the copies, which no title will
     * overwrite. */
    for (size_t i = 0; i < arguments; i++)
        argv[i] = copied_arguments[i];
    environ = copied_environment;
    const char *slash = strrchr(argv[0], '/');
    program_invocation_name = argv[0];
    program_invocation_short_name = slash == NULL ? argv[0] : argv[0] + (slash - argv[0]) + 1;
}

void process_set_title(const char *format, ...)
{
    static const char prefix[] = "doorbuster: ";
    char title[TITLE_BYTES_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(title, sizeof title, format, arguments);
    va_end(arguments);

    if (title_area != NULL) {
        size_t length = strnlen(title, title_area_bytes - 1);
        memcpy(title_area, title, length);
        memset(title_area + length, 0, title_area_bytes - length);
    }
    const char *name = strncmp(title, prefix, sizeof prefix - 1) == 0 ? title + sizeof prefix - 1 : title;
    (void)prctl(PR_SET_NAME, name); /* the kernel cuts it at 15 bytes */
}

static int fail(char *error, size_t error_bytes, const char *path, const char *what, int reason)
{
    snprintf(error, error_bytes, "%s: %s: %s", path, what, strerror(reason));
    return -1;
}

int process_make_private_dir(const char *path, char *error, size_t error_bytes)
{
    struct stat status;

    if (mkdir(path, S_IRWXU) != 0 && errno != EEXIST)
        return fail(error, error_bytes, path, "cannot make this directory", errno);
    if (stat(path, &status) != 0)
        return fail(error, error_bytes, path, "cannot look at this directory", errno);
    if (!S_ISDIR(status.st_mode)) {
        snprintf(error, error_bytes, "%s: is not a directory", path);
        return -1;
    }
    if (faccessat(AT_FDCWD, path, R_OK | W_OK | X_OK, AT_EACCESS) != 0)
        return fail(error, error_bytes, path, "cannot write in this directory", errno);
    return 0;
}

static void say(const char *program, const char *format, va_list arguments)
{
    char head[128];

    snprintf(head, sizeof head, "%s: ", program);
    line_write(STDERR_FILENO, head, format, arguments);
}

_Noreturn void process_refuse(const char *program, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say(program, format, arguments);
    va_end(arguments);
    exit(2);
}

_Noreturn void process_give_up(const char *program, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say(program, format, arguments);
    va_end(arguments);
    exit(1);
}
