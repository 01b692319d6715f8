/* failpoint.h: specs, counting over processes, each action in a child, arming a process that runs. */
#include "doorbuster/failpoint.h"

#include "child.h"
#include "failpoints.h"
#include "folder.h"
#include "testing.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* --- specs --- */
static bool is_accepted(const char *spec)
{
    char error[512] = "";
    struct failpoint_page *page = failpoint_page_map(NULL, true, error, sizeof error);
    assert_non_null(page);
    bool accepted = failpoint_page_arm(page, spec, error, sizeof error);
    assert_int_equal(accepted, error[0] == '\0');
    failpoint_page_unmap(&page);
    return accepted;
}

static void test_specs(void **state)
{
    static const char *const good[] = {
        "", "vfs.sync:error", "recorder.read:kill@3", "recorder.read:stop~50",
        "store.commit:pause@16777215~3600000,store.begun:error,vfs.full:error"};
    static const char *const bad[] = {
        "recorder",
        "recorder.rea:kill",
        "recorder.read",
        "recorder.read:",
        "recorder.read:die",
        ":kill",
        "recorder.read:kill@",
        "recorder.read:kill@0",
        "recorder.read:kill@-1",
        "recorder.read:kill@16777216",
        "recorder.read:kill@1x",
        "recorder.read:kill~0",
        "recorder.read:kill~3600001",
        "recorder.read:kill~5@2",
        "recorder.read:kill,",
        ",recorder.read:kill",
        "recorder.read:kill,,vfs.sync:error",
        " vfs.sync:error",
        "vfs.sync:error vfs.full:error",
        "vfs.sync:error,vfs.sync:kill",
        "vfs.sync:kill:error",
        "vfs.sync,error",
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!is_accepted(good[i]))
            fail_msg("refused: %s", good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (is_accepted(bad[i]))
            fail_msg("accepted: %s", bad[i]);
    }
}

static void init(void *context)
{
    setenv("DOORBUSTER_FAILPOINT", context, 1);
    failpoint_init(0, NULL);
}

static void init_with_file(void *context)
{
    setenv("DOORBUSTER_FAILPOINT_FILE", context, 1);
    failpoint_init(0, NULL);
}

static void print_names(void *context)
{
    char *argv[] = {"server", "--failpoints", NULL};
    (void)context;
    failpoint_init(2, argv);
}

static void assert_refused(void (*body)(void *), const char *context, const char *text)
{
    struct child child;
    child_run(body, (void *)(uintptr_t)context, &child);
    assert_int_equal(child.exit_code, 2);
    assert_non_null(strstr(child.err, text));
    assert_ptr_equal(strchr(child.err, '\n'), child.err + strlen(child.err) - 1); /* one line */
}

static void test_a_bad_environment_is_refused(void **state)
{
    (void)state;
    assert_refused(init, "store.cmmit:kill", "store.cmmit");
    assert_refused(init, "store.commit:kil", "store.commit:kil");
    assert_refused(init_with_file, "/nowhere/at/all", "/nowhere/at/all");
    assert_refused(init_with_file, "/proc/self/exe", "/proc/self/exe");
}

static void test_names_are_listed(void **state)
{
    struct child child;
    size_t count = 0;
    (void)state;
    child_run(print_names, NULL, &child);
    assert_int_equal(child.exit_code, 0);
    for (const char *at = child.out; *at != '\0'; at = strchr(at, '\n') + 1, count++) {
        const char *name = failpoint_name(count);
        assert_non_null(name);
        assert_memory_equal(at, name, strlen(name));
    }
    assert_int_equal(count, 28);
    assert_null(failpoint_name(count));
}

/* --- actions --- */
static void pass_once(void *context)
{
    init(context);
    bool fails = failpoint("recorder.read");
    printf("%s\n", fails ? "fails" : "goes on");
}

static void test_kill(void **state)
{
    struct child child;
    (void)state;
    child_run(pass_once, "recorder.read:kill", &child);
    assert_int_equal(child.exit_code, -SIGKILL);
    assert_non_null(strstr(child.err, "failpoint recorder.read: kill"));
}

static void test_error(void **state)
{
    struct child child;
    (void)state;
    child_run(pass_once, "recorder.read:error", &child);
    assert_string_equal(child.out, "fails\n");
    assert_non_null(strstr(child.err, "failpoint recorder.read: error"));
    child_run(pass_once, "store.commit:error", &child); /* another one */
    assert_string_equal(child.out, "goes on\n");
    assert_string_equal(child.err, "");
}

static void test_pause(void **state)
{
    struct child child;
    (void)state;
    int64_t start = now_us();
    child_run(pass_once, "recorder.read:pause", &child);
    assert_in_range(now_us() - start, 300000, 5000000);
    assert_string_equal(child.out, "goes on\n");
}

static void test_stop(void **state)
{
    int status;
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        pass_once("recorder.read:stop");
        _exit(7);
    }
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

/* --- counting --- */
static void count_passes(void *context)
{
    init(context);
    for (int i = 1; i <= 6; i++)
        printf("%d", failpoint("recorder.read"));
}

static void test_fires_once_at_the_kth_pass(void **state)
{
    struct child child;
    (void)state;
    child_run(count_passes, "recorder.read:error", &child);
    assert_string_equal(child.out, "100000");
    child_run(count_passes, "recorder.read:error@4", &child);
    assert_string_equal(child.out, "000100");
    child_run(count_passes, "recorder.read:error@3~60000", &child);
    assert_string_equal(child.out, "001111");
}

static void test_fires_no_longer_than_told(void **state)
{
    (void)state;
    init("recorder.read:error~50");
    int64_t deadline = deadline_in(5000), start = now_us();
    assert_true(failpoint("recorder.read"));
    while (failpoint("recorder.read"))
        assert_true(wait_a_moment(deadline));
    assert_in_range(now_us() - start, 50000, 5000000);
    assert_false(failpoint("recorder.read"));
}

#define PROCESSES 4
#define PASSES 2000

static int run_passes(void)
{
    int fired = 0;
    for (int i = 0; i < PASSES; i++)
        fired += failpoint("recorder.read");
    return fired;
}

static void test_counts_over_processes(void **state)
{
    int fired = 0, status;
    (void)state;
    for (int at = 1; at <= 2; at++) {
        init(at == 1 ? "recorder.read:error@8000" : "recorder.read:error@8001");
        for (int i = 0; i < PROCESSES; i++) {
            if (fork() == 0)
                _exit(run_passes());
        }
        for (fired = 0; wait(&status) > 0;)
            fired += WEXITSTATUS(status);
        assert_int_equal(fired, at == 1 ? 1 : 0); /* the last pass of them all, and one more than there are */
    }
    assert_true(failpoint("recorder.read"));
}

/* --- arming --- */
static void test_a_bad_spec_changes_nothing(void **state)
{
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + 16], error[512];
    (void)state;
    folder_make(folder);
    snprintf(path, sizeof path, "%s/failpoints", folder);
    struct failpoint_page *file = failpoints_file_make(path);
    unsetenv("DOORBUSTER_FAILPOINT");
    init_with_file(path);
    failpoints_arm(file, "vfs.sync:error");
    assert_false(failpoint_page_arm(file, "vfs.full:error,nonsense", error, sizeof error));
    assert_non_null(strstr(error, "nonsense"));
    assert_false(failpoint("vfs.full"));
    assert_true(failpoint("vfs.sync"));
    unsetenv("DOORBUSTER_FAILPOINT_FILE");
    failpoint_init(0, NULL);
    assert_false(failpoint("vfs.sync"));
    failpoints_file_close(&file);
    folder_remove(folder);
}

static void test_a_running_process_is_armed(void **state)
{
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + 16];
    int status;
    (void)state;
    folder_make(folder);
    snprintf(path, sizeof path, "%s/failpoints", folder);
    struct failpoint_page *file = failpoints_file_make(path);
    unsetenv("DOORBUSTER_FAILPOINT");
    pid_t pid = fork();
    if (pid == 0) {
        init_with_file(path);
        for (int64_t deadline = deadline_in(10000); wait_a_moment(deadline);)
            (void)failpoint("recorder.read");
        _exit(1);
    }
    int64_t deadline = deadline_in(5000);
    failpoints_arm(file, "recorder.read:error@5");
    while (failpoints_fired(file) == 0)
        assert_true(wait_a_moment(deadline));
    failpoints_arm(file, "recorder.read:error@3~60000");
    while (failpoints_fired(file) < 3)
        assert_true(wait_a_moment(deadline));
    failpoints_disarm(file);
    assert_true(failpoints_fired(file) >= 3);
    failpoints_arm(file, "store.commit:kill"); /* which it does not pass */
    assert_int_equal(failpoints_fired(file), 0);
    failpoints_arm(file, "recorder.read:kill");
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(failpoints_fired(file), 1);
    failpoints_file_close(&file);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_specs),
        cmocka_unit_test(test_a_bad_environment_is_refused),
        cmocka_unit_test(test_names_are_listed),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_error),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_fires_once_at_the_kth_pass),
        cmocka_unit_test(test_fires_no_longer_than_told),
        cmocka_unit_test(test_counts_over_processes),
        cmocka_unit_test(test_a_bad_spec_changes_nothing),
        cmocka_unit_test(test_a_running_process_is_armed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
