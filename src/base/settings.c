/* Command-line options and their environment variables.
 *
 * Main thread, at start. Owns nothing that outlives settings_read(): values point into argv, the environment
 * or the table. What a user got wrong ends the program with one line and exit code 2; a wrong table is a
 * CHECK. */
#include "doorbuster/settings.h"

#include "doorbuster/check.h"
#include "doorbuster/process.h"
#include "doorbuster/text.h"

#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTINGS_MAX 64
#define HELP_COLUMNS 110
enum {
    VALUE_HELP = 256,
    VALUE_VERSION,
    VALUE_FIRST
}; /* what getopt_long returns; above any short option's letter */

static bool is_flag(const struct setting *setting)
{
    return setting->value_name == NULL;
}

/* --- reading -------------------------------------------------------------------------------------------- */

/* The value a flag gets from its variable: words that people use for yes and no. */
static const char *flag_from_environment(const struct settings *settings, const struct setting *setting,
                                         const char *value)
{
    static const char *const yes[] = {"1", "true", "yes", "on"};
    static const char *const no[] = {"0", "false", "no", "off"};

    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(value, yes[i]) == 0)
            return "1";
        if (strcmp(value, no[i]) == 0)
            return NULL;
    }
    process_refuse(settings->program, "%s is \"%s\"; it may be 1 or 0; see --help", setting->environment,
                   value);
}

static void read_environment(const struct settings *settings, struct setting *setting)
{
    const char *value = setting->environment == NULL ? NULL : getenv(setting->environment);

    setting->from_user = value != NULL && value[0] != '\0';
    if (!setting->from_user)
        setting->value = setting->default_value;
    else
        setting->value = is_flag(setting) ? flag_from_environment(settings, setting, value) : value;
}

/* getopt_long's table. options[] has room for SETTINGS_MAX + 3. */
static void fill_options(const struct settings *settings, struct option *options)
{
    size_t used = 0;

    CHECK(settings->count <= SETTINGS_MAX);
    options[used++] = (struct option){"help", no_argument, NULL, VALUE_HELP};
    options[used++] = (struct option){"version", no_argument, NULL, VALUE_VERSION};
    for (size_t i = 0; i < settings->count; i++) {
        const struct setting *setting = &settings->list[i];
        CHECK(setting->option != NULL || setting->environment != NULL);
        if (setting->option != NULL)
            options[used++] =
                (struct option){setting->option, is_flag(setting) ? no_argument : required_argument, NULL,
                                VALUE_FIRST + (int)i};
    }
    options[used] = (struct option){NULL, 0, NULL, 0};
}

/* What getopt_long answered '?' to. optopt is 0 for an unknown long option, and the option's value for a flag
 * given one. */
_Noreturn static void refuse_option(const struct settings *settings, char **argv)
{
    const char *word = argv[optind - 1];

    if (optopt == VALUE_HELP || optopt == VALUE_VERSION || optopt >= VALUE_FIRST)
        process_refuse(settings->program, "option %.*s takes no value; see --help", (int)strcspn(word, "="),
                       word);
    if (optopt != 0)
        process_refuse(settings->program, "unknown option -%c; see --help", optopt);
    process_refuse(settings->program, "unknown option %.*s; see --help", (int)strcspn(word, "="), word);
}

static void print_help(const struct settings *settings);

void settings_read(struct settings *settings, int argc, char **argv)
{
    struct option options[SETTINGS_MAX + 3];
    int found;

    fill_options(settings, options);
    opterr = 0; /* the messages are ours */
    optind = 0; /* glibc: start afresh */
    for (size_t i = 0; i < settings->count; i++) {
        settings->list[i].value = NULL;
        settings->list[i].from_user = false;
    }
    while ((found = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
        switch (found) {
        case VALUE_HELP:
            print_help(settings);
            exit(0);
        case VALUE_VERSION:
            printf("%s %s\n", settings->program, DOORBUSTER_VERSION);
            exit(0);
        case ':':
            process_refuse(settings->program, "option --%s needs a value; see --help",
                           settings->list[optopt - VALUE_FIRST].option);
        case '?':
            refuse_option(settings, argv);
        default:
            CHECK(found >= VALUE_FIRST && (size_t)(found - VALUE_FIRST) < settings->count);
            settings->list[found - VALUE_FIRST].value = optarg != NULL ? optarg : "1";
            settings->list[found - VALUE_FIRST].from_user = true;
        }
    }
    if (optind < argc)
        process_refuse(settings->program, "unexpected argument %s; see --help", argv[optind]);

    /* The environment comes after, so that a variable which an option overrides need not even be valid. */
    for (size_t i = 0; i < settings->count; i++) {
        if (!settings->list[i].from_user)
            read_environment(settings, &settings->list[i]);
    }
}

/* --- getting -------------------------------------------------------------------------------------------- */

static const struct setting *find(const struct settings *settings, const char *name)
{
    const struct setting *found = NULL;

    for (size_t i = 0; i < settings->count && found == NULL; i++) {
        const struct setting *setting = &settings->list[i];
        if (strcmp(setting->option != NULL ? setting->option : setting->environment, name) == 0)
            found = setting;
    }
    CHECK(found != NULL);
    return found;
}

const char *settings_get(const struct settings *settings, const char *option)
{
    return find(settings, option)->value;
}

_Noreturn void settings_refuse(const struct settings *settings, const char *option, const char *may_be)
{
    const struct setting *setting = find(settings, option);
    bool from_environment =
        setting->option == NULL || (setting->environment != NULL && setting->value != NULL &&
                                    setting->value == getenv(setting->environment));
    const char *dashes = from_environment ? "" : "--";
    const char *name = from_environment ? setting->environment : setting->option;

    if (setting->value == NULL)
        process_refuse(settings->program, "%s%s is not set; it may be %s", dashes, name, may_be);
    process_refuse(settings->program, "%s%s is \"%s\"; it may be %s", dashes, name, setting->value, may_be);
}

long long settings_get_integer(const struct settings *settings, const char *option, long long min,
                               long long max)
{
    const char *value = settings_get(settings, option);
    int64_t number;

    if (value == NULL || !text_to_int64(value, strlen(value), min, max, &number)) {
        char may_be[96];
        snprintf(may_be, sizeof may_be, "a whole number from %lld to %lld", min, max);
        settings_refuse(settings, option, may_be);
    }
    return number;
}

/* --- help ----------------------------------------------------------------------------------------------- */

/* "--workers N", or "DOORBUSTER_WORKERS" for a setting without an option. Returns its width. */
static int label(const struct setting *setting, char *out, size_t bytes)
{
    if (setting->option == NULL)
        return snprintf(out, bytes, "%s", setting->environment);
    return snprintf(out, bytes, "--%s%s%s", setting->option, is_flag(setting) ? "" : " ",
                    is_flag(setting) ? "" : setting->value_name);
}

/* "[DOORBUSTER_WORKERS; default 4]", or nothing. Returns its width. */
static int origin(const struct setting *setting, char *out, size_t bytes)
{
    const char *variable = setting->option == NULL ? NULL : setting->environment;
    const char *fallback = setting->default_value;

    out[0] = '\0';
    if (variable == NULL && fallback == NULL)
        return 0;
    return snprintf(out, bytes, "[%s%s%s%s]", variable != NULL ? variable : "",
                    variable != NULL && fallback != NULL ? "; " : "", fallback != NULL ? "default " : "",
                    fallback != NULL ? fallback : "");
}

static void print_one(const struct setting *setting, int width)
{
    char left[128], right[256];

    label(setting, left, sizeof left);
    int origin_width = origin(setting, right, sizeof right);
    printf("  %-*s  %s", width, left, setting->help);
    if (origin_width > 0) {
        if (2 + width + 2 + (int)strlen(setting->help) + 1 + origin_width <= HELP_COLUMNS)
            printf(" %s", right);
        else
            printf("\n  %-*s  %s", width, "", right);
    }
    putchar('\n');
}

static void print_help(const struct settings *settings)
{
    static const struct setting own[] = {
        {.option = "help", .help = "Print this and exit."},
        {.option = "version", .help = "Print the version and exit."},
    };
    int width = (int)sizeof "--version" - 1;
    size_t variables_only = 0;
    char text[128];

    for (size_t i = 0; i < settings->count; i++) {
        int wide = label(&settings->list[i], text, sizeof text);
        width = wide > width ? wide : width;
        variables_only += settings->list[i].option == NULL;
    }
    printf("Usage: %s [OPTION]...\n%s\n\nOptions [environment variable; default]:\n", settings->program,
           settings->summary);
    for (size_t i = 0; i < settings->count; i++) {
        if (settings->list[i].option != NULL)
            print_one(&settings->list[i], width);
    }
    print_one(&own[0], width);
    print_one(&own[1], width);
    if (variables_only > 0)
        printf("\nEnvironment only:\n");
    for (size_t i = 0; i < settings->count; i++) {
        if (settings->list[i].option == NULL)
            print_one(&settings->list[i], width);
    }
    printf("\nAn option beats its environment variable.\n");
    if (settings->epilogue != NULL)
        printf("\n%s\n", settings->epilogue);
}
