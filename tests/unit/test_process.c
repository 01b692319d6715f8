/* process.h: the title as `ps` sees it, the private directory, the refusal. */
#include "doorbuster/process.h"

#include "child.h"

#include <string.h>
#include <sys/stat.h>

static char *first_argument; /* as main() got it, before the title took its place */

static void print_file(const char *path)
{
    char text[4096];
    FILE *file = fopen(path, "r");
    size_t bytes = file == NULL ? 0 : fread(text, 1, sizeof text, file);

    for (size_t i = 0; i < bytes; i++)
        putchar(text[i] == '\0' ? '|' : text[i]);
    if (file != NULL)
        fclose(file);
}

static void set_title(void *context)
{
    process_set_title("doorbuster: %s", (const char *)context);
    print_file("/proc/self/comm");
    print_file("/proc/self/cmdline");
}

static void test_title(void **state)
{
    struct child child;

    (void)state;
    child_run(set_title, "worker 0", &child);
    assert_int_equal(child.exit_code, 0);
    assert_memory_equal(child.out, "worker 0\ndoorbuster: worker 0|", 30);
    /* nothing of the old command line is left behind the title */
    assert_int_equal(strspn(child.out + 29, "|"), strlen(child.out + 29));
}

static void test_a_title_longer_than_the_command_line(void **state)
{
    struct child child;
    char name[201];

    (void)state;
    memset(name, 'n', 200);
    name[200] = '\0';
    child_run(set_title, name, &child);
    assert_int_equal(child.exit_code, 0);
    const char *line = strchr(child.out, '\n');
    assert_non_null(line);
    assert_int_equal(line - child.out, 15);
    assert_memory_equal(line + 1, "doorbuster: nnn", 15);
    assert_int_equal(strspn(line + 13, "n"), 200); /* it grew into the environment's place */
}

static void titles_again(void *context)
{
    process_set_title("doorbuster: a rather long title");
    process_set_title("doorbuster: b");
    set_title(context);
}

static void test_a_shorter_title_leaves_nothing_behind(void **state)
{
    struct child child;

    (void)state;
    child_run(titles_again, "c", &child);
    assert_memory_equal(child.out, "c\ndoorbuster: c|", 16);
    assert_null(strstr(child.out, "title"));
}

static void use_arguments_after(void *context)
{
    (void)context;
    process_set_title("doorbuster: %0200d", 7);
    printf("%s %s ", first_argument, getenv("DB_TITLE_TEST"));
    setenv("DB_TITLE_TEST", "other", 1);
    printf("%s %d", getenv("DB_TITLE_TEST"), getenv("PATH") != NULL);
}

static void test_arguments_and_environment_stay(void **state)
{
    struct child child;

    (void)state;
    child_run(use_arguments_after, NULL, &child);
    assert_string_equal(child.out, "the-argument value other 1");
}

struct folder {
    char parent[64], path[128];
};

static int make_parent(void **state)
{
    static struct folder folder;

    snprintf(folder.parent, sizeof folder.parent, "/tmp/doorbuster-test-XXXXXX");
    if (mkdtemp(folder.parent) == NULL)
        return -1;
    snprintf(folder.path, sizeof folder.path, "%s/data", folder.parent);
    *state = &folder;
    return 0;
}

static int remove_parent(void **state)
{
    struct folder *folder = *state;

    chmod(folder->parent, 0700);
    remove(folder->path);
    return remove(folder->parent);
}

static void test_private_dir(void **state)
{
    struct folder *folder = *state;
    struct stat status;
    char error[256] = "";

    assert_int_equal(process_make_private_dir(folder->path, error, sizeof error), 0);
    assert_int_equal(stat(folder->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    assert_int_equal(process_make_private_dir(folder->path, error, sizeof error), 0); /* again */
    assert_string_equal(error, "");
}

static void test_private_dir_without_a_parent(void **state)
{
    struct folder *folder = *state;
    char path[256], error[256] = "", wanted[512];

    snprintf(path, sizeof path, "%s/none/data", folder->parent);
    assert_int_equal(process_make_private_dir(path, error, sizeof error), -1);
    snprintf(wanted, sizeof wanted, "%s: cannot make this directory: No such file or directory", path);
    assert_string_equal(error, wanted);
}

static void test_private_dir_that_is_a_file(void **state)
{
    struct folder *folder = *state;
    char error[256] = "", wanted[512];
    FILE *file = fopen(folder->path, "w");

    assert_non_null(file);
    fclose(file);
    assert_int_equal(process_make_private_dir(folder->path, error, sizeof error), -1);
    snprintf(wanted, sizeof wanted, "%s: is not a directory", folder->path);
    assert_string_equal(error, wanted);
    assert_int_equal(process_make_private_dir(folder->path, error, 8), -1); /* little room: cut, terminated */
    assert_int_equal(strlen(error), 7);
}

static void try_as_nobody(void *context)
{
    struct folder *folder = context;
    char error[256] = "";

    if (geteuid() == 0 && seteuid(65534) != 0)
        _exit(99);
    int rc = process_make_private_dir(folder->parent, error, sizeof error);
    printf("%d %s", rc, error);
    fflush(NULL);
    _exit(0);
}

static void test_private_dir_that_cannot_be_written(void **state)
{
    struct folder *folder = *state;
    struct child child;
    char wanted[256];

    assert_int_equal(chmod(folder->parent, 0555), 0);
    child_run(try_as_nobody, folder, &child);
    snprintf(wanted, sizeof wanted, "-1 %s: cannot write in this directory: Permission denied",
             folder->parent);
    assert_string_equal(child.out, wanted);
}

static void refuse(void *context)
{
    process_refuse("doorbuster-server", "cannot listen on %s\nforged: line", (const char *)context);
}

static void test_refuse(void **state)
{
    struct child child;

    (void)state;
    child_run(refuse, ":80", &child);
    assert_int_equal(child.exit_code, 2);
    assert_string_equal(child.out, "");
    assert_string_equal(child.err, "doorbuster-server: cannot listen on :80?forged: line\n");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_title),
        cmocka_unit_test(test_a_title_longer_than_the_command_line),
        cmocka_unit_test(test_a_shorter_title_leaves_nothing_behind),
        cmocka_unit_test(test_arguments_and_environment_stay),
        cmocka_unit_test_setup_teardown(test_private_dir, make_parent, remove_parent),
        cmocka_unit_test_setup_teardown(test_private_dir_without_a_parent, make_parent, remove_parent),
        cmocka_unit_test_setup_teardown(test_private_dir_that_is_a_file, make_parent, remove_parent),
        cmocka_unit_test_setup_teardown(test_private_dir_that_cannot_be_written, make_parent, remove_parent),
        cmocka_unit_test(test_refuse),
    };

    /* A known argument and variable: start over with them. */
    if (argc < 2) {
        char room[] = "DB_TITLE_ROOM=........................................................................"
                      "........................"
                      "......................................................................................"
                      "..........................";
        setenv("DB_TITLE_TEST", "value", 1);
        putenv(room);
        execl("/proc/self/exe", argv[0], "the-argument", (char *)NULL);
        return 1;
    }
    process_init_title(argc, argv);
    first_argument = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
