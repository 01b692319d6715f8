/* log.h and check.h: the shape of a line, and that nobody can forge or tear one. */
#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/json.h"
#include "doorbuster/log.h"
#include "doorbuster/text.h"

#include "child.h"

#include <errno.h>
#include <regex.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

static void assert_matches(const char *text, const char *pattern)
{
    regex_t regex;

    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    int rc = regexec(&regex, text, 0, NULL, 0);
    regfree(&regex);
    if (rc != 0)
        fail_msg("\"%s\" does not match %s", text, pattern);
}

#define MOMENT "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "

static void one_message(void *context)
{
    log_set_speaker("worker 0");
    log_info("%s", (const char *)context);
}

static struct child log_message(const char *message)
{
    struct child child;
    char copy[4096];

    snprintf(copy, sizeof copy, "%s", message);
    child_run(one_message, copy, &child);
    assert_int_equal(child.exit_code, 0);
    assert_string_equal(child.out, "");
    return child;
}

/* What stands after the moment, level and speaker. */
static const char *message_of(const struct child *child)
{
    const char *found = strstr(child->err, " worker 0: ");

    assert_non_null(found);
    return found + strlen(" worker 0: ");
}

static void test_shape(void **state)
{
    struct child child = log_message("100 sold out product=1");

    (void)state;
    assert_matches(child.err, MOMENT "info  worker 0: 100 sold out product=1\n$");
}

static void all_levels(void *context)
{
    log_set_level((enum log_level) * (int *)context);
    log_error("e %d", 1);
    log_warn("w");
    log_info("i");
    log_debug("d");
}

static void test_levels_and_no_speaker_yet(void **state)
{
    struct child child;
    int level = LOG_DEBUG;

    (void)state;
    child_run(all_levels, &level, &child);
    assert_matches(child.err, MOMENT "error doorbuster: e 1\n[^ ]+ warn  doorbuster: w\n[^ ]+ info  "
                                     "doorbuster: i\n[^ ]+ debug doorbuster: d\n$");
    level = LOG_WARN;
    child_run(all_levels, &level, &child);
    assert_matches(child.err, MOMENT "error doorbuster: e 1\n[^ ]+ warn  doorbuster: w\n$");
    level = LOG_ERROR;
    child_run(all_levels, &level, &child);
    assert_matches(child.err, MOMENT "error doorbuster: e 1\n$");
}

static void test_no_forged_lines(void **state)
{
    struct child child = log_message("a\nb\r\nc\x1b[31md\te\x7f\xC2\x9B"
                                     "f\xFFg\xC3\xA4\xE2\x82\xAC");

    (void)state;
    assert_string_equal(message_of(&child), "a?b??c?[31md?e???f?g\xC3\xA4\xE2\x82\xAC\n");
    child = log_message("what libraries say ends like this\n");
    assert_string_equal(message_of(&child), "what libraries say ends like this\n");
    child = log_message("");
    assert_string_equal(message_of(&child), "\n");
}

static void test_long_lines_are_cut(void **state)
{
    char text[3000];

    (void)state;
    /* Characters of one to four bytes, so that the cut falls within one of them at some length. */
    for (int shift = 0; shift < 8; shift++) {
        size_t used = (size_t)snprintf(text, sizeof text, "%.*s", shift, "aaaaaaaa");
        while (used < sizeof text - 10)
            used += (size_t)snprintf(text + used, sizeof text - used, "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80");
        struct child child = log_message(text);
        size_t length = strlen(child.err);
        assert_in_range(length, 1024 - 3, 1024);
        assert_string_equal(child.err + length - 4, "…\n");
        assert_true(text_is_utf8(child.err, length));
        assert_null(strchr(message_of(&child), '?'));
    }
}

static void test_the_longest_line_that_fits(void **state)
{
    char text[1100];
    struct child child = log_message("");
    const size_t head = strlen(child.err) - 1;

    (void)state;
    memset(text, 'x', sizeof text);
    text[1023 - head] = '\0';
    child = log_message(text);
    assert_int_equal(strlen(child.err), 1024);
    assert_null(strstr(child.err, "…"));
    text[1023 - head] = 'x';
    text[1024 - head] = '\0';
    child = log_message(text);
    assert_in_range(strlen(child.err), 1024 - 3, 1024);
    assert_non_null(strstr(child.err, "x…\n"));
}

static void keep_errno(void *context)
{
    (void)context;
    errno = ECHILD;
    log_info("x");
    _exit(errno == ECHILD ? 7 : 8);
}

static void test_errno_is_kept(void **state)
{
    struct child child;

    (void)state;
    child_run(keep_errno, NULL, &child);
    assert_int_equal(child.exit_code, 7);
}

enum { WRITERS = 4, LINES = 200, FILLING = 700 };

static void write_lines(int writer, int fd)
{
    char filling[FILLING + 1];

    memset(filling, 'a' + writer, FILLING);
    filling[FILLING] = '\0';
    if (dup2(fd, STDERR_FILENO) < 0)
        _exit(99);
    log_set_level(LOG_DEBUG);
    for (int i = 0; i < LINES; i++)
        log_debug("%s", filling); /* of other levels equal lines are held back */
    _exit(0);
}

/* Several processes, one pipe: each line comes out whole. */
static void test_lines_of_several_processes_do_not_mix(void **state)
{
    int ends[2];
    char line[2048];
    int counts[WRITERS] = {0};

    (void)state;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    for (int writer = 0; writer < WRITERS; writer++) {
        if (fork() == 0)
            write_lines(writer, ends[1]);
    }
    close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    assert_non_null(in);
    while (fgets(line, sizeof line, in) != NULL) {
        const char *message = strstr(line, "doorbuster: ");
        assert_non_null(message);
        message += strlen("doorbuster: ");
        char letter = message[0];
        assert_in_range(letter, 'a', 'a' + WRITERS - 1);
        char set[] = {letter, '\0'};
        assert_int_equal(strspn(message, set), FILLING);
        assert_string_equal(message + FILLING, "\n");
        counts[letter - 'a']++;
    }
    fclose(in);
    for (int writer = 0; writer < WRITERS; writer++) {
        assert_int_equal(counts[writer], LINES);
        assert_true(wait(NULL) > 0);
    }
}

/* --- fields and formats ------------------------------------------------------------------------------ */
static void one_event(void *context)
{
    enum log_format format = *(enum log_format *)context;

    log_set_speaker("worker 0");
    log_set_format(format);
    log_event(LOG_WARN,
              LOG_FIELDS(LOG_WORDS("request_id", "a-1"), LOG_NUMBER("order_id", -7),
                         LOG_WORDS("reason", "it said \"no\" level=info\n\\"), LOG_WORDS("client", "::1"),
                         LOG_WORDS("nothing", "")),
              "a \"quoted\" word\nlevel=error \\ %d", 1);
}

#define TS "[0-9T:.-]{23}Z"

static void test_text_with_fields(void **state)
{
    struct child child;
    enum log_format format = LOG_TEXT;

    (void)state;
    child_run(one_event, &format, &child);
    assert_matches(child.err, MOMENT
                   "warn  worker 0: a \"quoted\" word\\?level=error \\\\ 1 request_id=a-1 order_id=-7 "
                   "reason=\"it said \\\\\"no\\\\\" level=info\\?\\\\\\\\\" client=::1 nothing=\"\"\n$");
}

/* The same message, and nobody has forged a field: what is in quotes stays in quotes. */
static void test_logfmt(void **state)
{
    struct child child;
    enum log_format format = LOG_LOGFMT;

    (void)state;
    child_run(one_event, &format, &child);
    assert_matches(child.err,
                   "^ts=" TS " level=warn proc=\"worker 0\" pid=[0-9]+ "
                   "msg=\"a \\\\\"quoted\\\\\" word\\?level=error \\\\\\\\ 1\" request_id=a-1 order_id=-7 "
                   "reason=\"it said \\\\\"no\\\\\" level=info\\?\\\\\\\\\" client=::1 nothing=\"\"\n$");
}

static const char *member(const cJSON *json, const char *name)
{
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(json, name);

    assert_true(cJSON_IsString(found));
    return found->valuestring;
}

static void test_json(void **state)
{
    struct child child;
    enum log_format format = LOG_JSON;

    (void)state;
    child_run(one_event, &format, &child);
    assert_int_equal(strcspn(child.err, "\n"), strlen(child.err) - 1);
    cJSON *json = json_parse_object(child.err, strlen(child.err));
    assert_non_null(json);
    assert_matches(member(json, "ts"), "^" TS "$");
    assert_string_equal(member(json, "level"), "warn");
    assert_string_equal(member(json, "proc"), "worker 0");
    assert_true(cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(json, "pid")));
    assert_string_equal(member(json, "msg"), "a \"quoted\" word?level=error \\ 1");
    assert_string_equal(member(json, "request_id"), "a-1");
    assert_true(cJSON_GetObjectItemCaseSensitive(json, "order_id")->valuedouble == -7);
    assert_string_equal(member(json, "reason"), "it said \"no\" level=info?\\");
    assert_string_equal(member(json, "nothing"), "");
    cJSON_Delete(json);
}

static void long_event(void *context)
{
    char text[3000];
    size_t used = (size_t) * (int *)context;

    memset(text, 'a', used);
    while (used < sizeof text - 10)
        used += (size_t)snprintf(text + used, sizeof text - used, "\"\\\xC3\xA4\xF0\x9F\x98\x80");
    log_set_format(LOG_JSON);
    log_event(LOG_ERROR,
              LOG_FIELDS(LOG_WORDS("one", text), LOG_WORDS("two", text), LOG_WORDS("three", text),
                         LOG_NUMBER("last", 1)),
              "%s", text);
}

/* However it is cut: a line is at most 1 KiB of well-formed JSON, and its short fields are there. */
static void test_long_json_is_json(void **state)
{
    (void)state;
    for (int shift = 0; shift < 12; shift++) {
        struct child child;
        child_run(long_event, &shift, &child);
        size_t length = strlen(child.err);
        assert_in_range(length, 1000, 1024);
        assert_true(text_is_utf8(child.err, length));
        cJSON *json = json_parse_object(child.err, length);
        assert_non_null(json);
        assert_non_null(strstr(member(json, "msg"), "…"));
        assert_non_null(strstr(member(json, "one"), "…"));
        assert_non_null(cJSON_GetObjectItemCaseSensitive(json, "last"));
        cJSON_Delete(json);
    }
}

/* --- level, shared ----------------------------------------------------------------------------------- */
static void follow_a_shared_level(void *context)
{
    static int level = LOG_WARN;

    (void)context;
    log_use_level(&level);
    log_info("one");
    level = LOG_DEBUG; /* another process did */
    log_debug("two");
    log_set_level(LOG_ERROR);
    log_warn("three");
    _exit(level == LOG_ERROR && !log_is_on(LOG_WARN) && log_is_on(LOG_ERROR) ? 7 : 8);
}

static void test_a_shared_level(void **state)
{
    struct child child;

    (void)state;
    child_run(follow_a_shared_level, NULL, &child);
    assert_int_equal(child.exit_code, 7);
    assert_matches(child.err, MOMENT "debug doorbuster: two\n$");
}

/* --- lines that repeat ------------------------------------------------------------------------------- */
static int64_t clock_us = 1000000000;
int64_t __wrap_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void)
{
    return clock_us;
}

static void say_so_often(int times)
{
    for (int i = 0; i < times; i++)
        log_warn("the disk is full, again: %d", i);
}

static void repeat(void *context)
{
    static uint64_t counter;

    (void)context;
    log_count_held_back(&counter);
    say_so_often(130);
    log_info("something else");
    if (counter != 120)
        _exit(1);
    clock_us += 4999999;
    log_flush(false);
    log_info("not yet");
    clock_us += 1;
    log_flush(false);
    say_so_often(12);
    log_flush(true);
    log_flush(true);
    _exit(counter == 122 ? 7 : 8);
}

static size_t count_of(const char *text, const char *word)
{
    size_t count = 0;

    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word))
        count++;
    return count;
}

static void test_repeated_lines_are_counted(void **state)
{
    struct child child;

    (void)state;
    child_run(repeat, NULL, &child);
    assert_int_equal(child.exit_code, 7);
    assert_int_equal(count_of(child.err, ": the disk is full, again"), 2 * LOG_REPEATS_MAX);
    assert_int_equal(count_of(child.err, "something else"), 1);
    assert_int_equal(
        count_of(child.err, "… 120 more like \"the disk is full, again: %d\" in 5.0 s held_back=120\n"), 1);
    assert_int_equal(
        count_of(child.err, "… 2 more like \"the disk is full, again: %d\" in 0.0 s held_back=2\n"), 1);
    assert_true(strstr(child.err, "not yet") < strstr(child.err, "… 120 more"));
}

static void debug_all(void *context)
{
    (void)context;
    log_set_level(LOG_DEBUG);
    for (int i = 0; i < 50; i++)
        log_debug("all of them");
}

static void test_debug_lines_are_never_held_back(void **state)
{
    struct child child;

    (void)state;
    child_run(debug_all, NULL, &child);
    assert_int_equal(count_of(child.err, "all of them"), 50);
}

/* --- CHECK ------------------------------------------------------------------------------------------- */
static void break_a_check(void *context)
{
    int stock = *(int *)context;

    CHECK(stock >= 0);
    printf("still here\n");
}

static void test_check(void **state)
{
    struct child child;
    int stock = 0;

    (void)state;
    child_run(break_a_check, &stock, &child);
    assert_int_equal(child.exit_code, 0);
    assert_string_equal(child.out, "still here\n");
    stock = -1;
    child_run(break_a_check, &stock, &child);
    assert_int_equal(child.exit_code, -SIGABRT);
    assert_string_equal(child.out, "");
    assert_matches(child.err,
                   "^doorbuster: bug: CHECK\\(stock >= 0\\) failed in break_a_check, .*test_log.c:[0-9]+\n$");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_levels_and_no_speaker_yet),
        cmocka_unit_test(test_no_forged_lines),
        cmocka_unit_test(test_long_lines_are_cut),
        cmocka_unit_test(test_the_longest_line_that_fits),
        cmocka_unit_test(test_errno_is_kept),
        cmocka_unit_test(test_lines_of_several_processes_do_not_mix),
        cmocka_unit_test(test_text_with_fields),
        cmocka_unit_test(test_logfmt),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_long_json_is_json),
        cmocka_unit_test(test_a_shared_level),
        cmocka_unit_test(test_repeated_lines_are_counted),
        cmocka_unit_test(test_debug_lines_are_never_held_back),
        cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
