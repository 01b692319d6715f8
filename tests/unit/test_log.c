/* log.h and check.h: the shape of a line, and that nobody can forge or tear one. */
#include "doorbuster/check.h"
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
    for (int i = 0; i < LINES; i++)
        log_info("%s", filling);
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
        cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
