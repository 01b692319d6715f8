/* Command-line options and their environment variables, one table a program. An option beats the environment.
 * getopt_long does the splitting; this adds the environment, --help, --version and the one clear line for a bad setting. */
#ifndef DOORBUSTER_SETTINGS_H
#define DOORBUSTER_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

struct setting {
    const char *option;        /* "workers" for --workers; NULL: only from the environment */
    const char *environment;   /* "DOORBUSTER_WORKERS"; NULL: only as an option */
    const char *value_name;    /* "N" in the help; NULL: a flag without a value */
    const char *default_value; /* NULL: none. Shown in the help */
    const char *help;          /* one line */
    const char *value;         /* out: what holds; flags: "1" or NULL. Points into argv or the environment */
    bool from_user;            /* out: given, rather than the default */
};

struct settings {
    const char *program;  /* "doorbuster-server" */
    const char *summary;  /* what it does, one line */
    const char *epilogue; /* shown at the end of --help (examples, exit codes); may be NULL */
    struct setting *list;
    size_t count;
};

/* Fills in every `value`. --help and --version print and exit 0. An unknown option, a missing value or a stray argument: one line
 * that names it and what is allowed, exit 2. An environment variable that is set but empty counts as not set. */
void settings_read(struct settings *settings, int argc, char **argv);

/* The value of --`option` (or of the environment variable of that name for those without an option). Unknown name: CHECK. */
const char *settings_get(const struct settings *settings, const char *option);

/* The same as a whole number within [min, max]; otherwise one line on stderr that names the setting and the range, exit 2. */
long long settings_get_integer(const struct settings *settings, const char *option, long long min,
                               long long max);

/* One line on stderr that names the option or variable the value came from, the value, and what it may be; exit 2.
 * Prints the value: for a secret, or a URL with a password in it, use process_refuse. */
_Noreturn void settings_refuse(const struct settings *settings, const char *option, const char *may_be);

#endif
