/* settings.h: every run in a child of its own, because --help and mistakes end the process. */
#include "doorbuster/settings.h"

#include "child.h"

#include <string.h>

struct run {
    const char *arguments[8]; /* after the program's name, NULL at the end */
    const char *variables[4]; /* NAME=VALUE, NULL at the end */
};

static void use(void *context)
{
    const struct run *run = context;
    struct setting list[] = {
        {.option = "listen",
         .environment = "DB_LISTEN",
         .value_name = "[ADDR]:PORT",
         .default_value = ":8080",
         .help = "Where to listen."},
        {.option = "workers",
         .environment = "DB_WORKERS",
         .value_name = "N",
         .default_value = "4",
         .help = "Worker processes."},
        {.option = "store", .value_name = "URL", .help = "The store."},
        {.option = "open", .environment = "DB_OPEN", .help = "A flag."},
        {.environment = "DB_KEY", .value_name = "TEXT", .help = "Only from the environment."},
    };
    struct settings settings = {"doorbuster-test", "Tests settings.", "Exit codes: 0 or 2.", list,
                                sizeof list / sizeof list[0]};
    char *argv[10] = {strdup("./test")};
    int argc = 1;

    for (; run->arguments[argc - 1] != NULL; argc++)
        argv[argc] = strdup(run->arguments[argc - 1]);
    for (int i = 0; run->variables[i] != NULL; i++)
        putenv(strdup(run->variables[i]));
    settings_read(&settings, argc, argv);

    long long workers = settings_get_integer(&settings, "workers", 1, 64);
    if (strncmp(settings_get(&settings, "listen"), "bad", 3) == 0)
        settings_refuse(&settings, "listen", "[ADDR]:PORT");
    const char *store = settings_get(&settings, "store"), *open = settings_get(&settings, "open"),
               *key = settings_get(&settings, "DB_KEY");
    if (key != NULL && strcmp(key, "bad") == 0)
        settings_refuse(&settings, "DB_KEY", "anything else");
    if (store != NULL && strcmp(store, "need-key") == 0 && key == NULL)
        settings_refuse(&settings, "DB_KEY", "a key");
    printf("%s %lld %s %s %s %d%d\n", settings_get(&settings, "listen"), workers, store != NULL ? store : "-",
           open != NULL ? open : "-", key != NULL ? key : "-", list[0].from_user, list[1].from_user);
    fflush(NULL);
    _exit(0); /* the copies above are nobody's: not a leak worth a report */
}

static struct child run_with(struct run run)
{
    struct child child;

    child_run(use, &run, &child);
    return child;
}

#define ARGUMENTS(...) ((struct run){.arguments = {__VA_ARGS__}})
#define VARIABLES(...) ((struct run){.variables = {__VA_ARGS__}})

static void assert_good(struct run run, const char *out)
{
    struct child child = run_with(run);

    assert_string_equal(child.err, "");
    assert_string_equal(child.out, out);
    assert_int_equal(child.exit_code, 0);
}

/* Exactly one line on stderr, nothing on stdout, exit 2. */
static void assert_refused(struct run run, const char *line)
{
    struct child child = run_with(run);
    char wanted[512];

    snprintf(wanted, sizeof wanted, "doorbuster-test: %s\n", line);
    assert_string_equal(child.err, wanted);
    assert_string_equal(child.out, "");
    assert_int_equal(child.exit_code, 2);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_good(ARGUMENTS(NULL), ":8080 4 - - - 00\n");
}

static void test_options(void **state)
{
    (void)state;
    assert_good(ARGUMENTS("--workers", "7", "--listen=[::1]:80", "--store", "sqlite:a", "--open"),
                "[::1]:80 7 sqlite:a 1 - 11\n");
    assert_good(ARGUMENTS("--workers=7", "--workers=8"), ":8080 8 - - - 01\n"); /* the last one holds */
    assert_good(ARGUMENTS("--store="), ":8080 4  - - 00\n");
    assert_good(ARGUMENTS("--store", "--open"),
                ":8080 4 --open - - 00\n"); /* a value may look like an option */
}

static void test_environment(void **state)
{
    struct run run = {.arguments = {"--workers", "3"},
                      .variables = {"DB_WORKERS=9", "DB_KEY=secret", "DB_OPEN=1"}};

    (void)state;
    assert_good(VARIABLES("DB_WORKERS=9", "DB_LISTEN=:1"), ":1 9 - - - 11\n");
    assert_good(run, ":8080 3 - 1 secret 01\n"); /* an option beats the environment */
    assert_good(VARIABLES("DB_WORKERS=", "DB_OPEN="), ":8080 4 - - - 00\n");
    assert_good(VARIABLES("DB_OPEN=0"), ":8080 4 - - - 00\n");
    assert_good(VARIABLES("DB_OPEN=yes"), ":8080 4 - 1 - 00\n");
}

static void test_a_variable_that_an_option_overrides_may_be_bad(void **state)
{
    struct run run = {.arguments = {"--workers", "3", "--open"},
                      .variables = {"DB_WORKERS=many", "DB_OPEN=perhaps"}};

    (void)state;
    assert_good(run, ":8080 3 - 1 - 01\n");
}

static void test_bad_options(void **state)
{
    (void)state;
    assert_refused(ARGUMENTS("--wrokers", "4"), "unknown option --wrokers; see --help");
    assert_refused(ARGUMENTS("--wrokers=4"), "unknown option --wrokers; see --help");
    assert_refused(ARGUMENTS("--workers", "4", "-x"), "unknown option -x; see --help");
    assert_refused(ARGUMENTS("--workers"), "option --workers needs a value; see --help");
    assert_refused(ARGUMENTS("--open=1"), "option --open takes no value; see --help");
    assert_refused(ARGUMENTS("--help=1"), "option --help takes no value; see --help");
    assert_refused(ARGUMENTS("stray"), "unexpected argument stray; see --help");
    assert_refused(ARGUMENTS("--open", "--", "--workers"), "unexpected argument --workers; see --help");
    assert_refused(ARGUMENTS("--a\nforged: line"), "unknown option --a?forged: line; see --help");
}

static void test_bad_values(void **state)
{
    (void)state;
    assert_refused(ARGUMENTS("--workers", "0"), "--workers is \"0\"; it may be a whole number from 1 to 64");
    assert_refused(ARGUMENTS("--workers=65"), "--workers is \"65\"; it may be a whole number from 1 to 64");
    assert_refused(ARGUMENTS("--workers", "4x"),
                   "--workers is \"4x\"; it may be a whole number from 1 to 64");
    assert_refused(ARGUMENTS("--workers="), "--workers is \"\"; it may be a whole number from 1 to 64");
    assert_refused(VARIABLES("DB_WORKERS= 4"), "DB_WORKERS is \" 4\"; it may be a whole number from 1 to 64");
    assert_refused(ARGUMENTS("--listen", "bad"), "--listen is \"bad\"; it may be [ADDR]:PORT");
    assert_refused(VARIABLES("DB_LISTEN=bad"), "DB_LISTEN is \"bad\"; it may be [ADDR]:PORT");
    assert_refused(VARIABLES("DB_KEY=bad"), "DB_KEY is \"bad\"; it may be anything else");
    assert_refused(ARGUMENTS("--store", "need-key"), "DB_KEY is not set; it may be a key");
    assert_refused(VARIABLES("DB_OPEN=perhaps"), "DB_OPEN is \"perhaps\"; it may be 1 or 0; see --help");
}

static void test_version(void **state)
{
    struct child child = run_with(ARGUMENTS("--version", "--nonsense"));

    (void)state;
    assert_string_equal(child.out, "doorbuster-test " DOORBUSTER_VERSION "\n");
    assert_string_equal(child.err, "");
    assert_int_equal(child.exit_code, 0);
}

static void test_help(void **state)
{
    struct child child = run_with(ARGUMENTS("--help"));

    (void)state;
    assert_string_equal(child.err, "");
    assert_int_equal(child.exit_code, 0);
    assert_string_equal(child.out, "Usage: doorbuster-test [OPTION]...\n"
                                   "Tests settings.\n"
                                   "\n"
                                   "Options [environment variable; default]:\n"
                                   "  --listen [ADDR]:PORT  Where to listen. [DB_LISTEN; default :8080]\n"
                                   "  --workers N           Worker processes. [DB_WORKERS; default 4]\n"
                                   "  --store URL           The store.\n"
                                   "  --open                A flag. [DB_OPEN]\n"
                                   "  --help                Print this and exit.\n"
                                   "  --version             Print the version and exit.\n"
                                   "\n"
                                   "Environment only:\n"
                                   "  DB_KEY                Only from the environment.\n"
                                   "\n"
                                   "An option beats its environment variable.\n"
                                   "\n"
                                   "Exit codes: 0 or 2.\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_a_variable_that_an_option_overrides_may_be_bad),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
