/* Failpoints; see failpoint.h. Compiled only into the test build.
 *
 * Any thread of any process. The state is one page shared by all processes: for each failpoint its plan, a single word, so that
 * passing is one compare-and-set, arming is a store, and no process keeps anything of its own that could be out of date. Whoever
 * arms has parsed the spec: a running server never reads text, so it cannot meet a bad one.
 *
 *   plan 0 (nothing) --arm--> passes left k, k-1, … 1 --fires--> 0, or with ~ms: passes left 0, fires until the time is over --> 0
 *
 * Fails only at start, where a bad spec or file ends the program. */
#include "doorbuster/failpoint.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/process.h"
#include "doorbuster/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PROGRAM "doorbuster-server"
#define MAGIC UINT64_C(0x31746e696f706c66) /* tells a page of ours, of this layout */
#define PAUSE_MS 300
#define PASSES_MAX ((1 << 24) - 1)
#define FOR_MS_MAX 3600000

static const char *const names[] = {
#define X(name) name,
    FAILPOINTS(X)
#undef X
};
#define NAMES (sizeof names / sizeof names[0])

enum action { ACTION_NONE, ACTION_KILL, ACTION_STOP, ACTION_PAUSE, ACTION_ERROR, ACTIONS };
static const char *const action_names[ACTIONS] = {"", "kill", "stop", "pause", "error"};

/* A plan: action in bits 0 to 7, passes left in 8 to 31, ~ms in 32 to 63. */
#define ONE_PASS (UINT64_C(1) << 8)

struct point {
    _Atomic uint64_t plan;
    _Atomic int64_t until_us; /* meaningful once the plan has no passes left */
};

struct failpoint_page {
    uint64_t magic;
    _Atomic uint64_t fired;
    struct point points[NAMES];
};
_Static_assert(sizeof(struct failpoint_page) <= 4096, "one page");

static struct failpoint_page *own_page; /* NULL: nothing can be armed */

/* --- names --- */
const char *failpoint_name(size_t index)
{
    return index < NAMES ? names[index] : NULL;
}

static size_t find(const char *const *list, size_t count, const char *text, size_t bytes)
{
    size_t i = 0;
    while (i < count && (strlen(list[i]) != bytes || memcmp(list[i], text, bytes) != 0))
        i++;
    return i;
}

/* --- specs --- */
static uint64_t plan_of(enum action action, int64_t passes, int64_t for_ms)
{
    return (uint64_t)action | (uint64_t)passes << 8 | (uint64_t)for_ms << 32;
}

/* The number behind `mark`, if the text goes on with that mark. */
static bool read_number(const char **at, char mark, int64_t max, int64_t *out)
{
    if (**at != mark)
        return true;
    size_t bytes = strspn(*at + 1, "0123456789");
    bool valid = text_to_int64(*at + 1, bytes, 1, max, out);
    *at += 1 + bytes;
    return valid;
}

/* One `name:action[@k][~ms]`; *at moves behind it. */
static bool read_item(const char **at, uint64_t plans[NAMES], char *error, size_t error_bytes)
{
    const char *item = *at;
    int item_bytes = (int)strcspn(item, ",");
    size_t name_bytes = strcspn(item, ":,");
    size_t name = find(names, NAMES, item, name_bytes);
    if (name == NAMES) {
        snprintf(error, error_bytes, "no failpoint is called \"%.*s\"; --failpoints lists them",
                 (int)name_bytes, item);
        return false;
    }
    *at += name_bytes + (item[name_bytes] == ':');
    size_t action_bytes = strcspn(*at, "@~,");
    size_t action = find(action_names, ACTIONS, *at, action_bytes);
    *at += action_bytes;
    int64_t passes = 1, for_ms = 0;
    if (action == ACTION_NONE || action == ACTIONS || plans[name] != 0 ||
        !read_number(at, '@', PASSES_MAX, &passes) || !read_number(at, '~', FOR_MS_MAX, &for_ms) ||
        *at != item + item_bytes) {
        snprintf(error, error_bytes,
                 "the failpoint \"%.*s\" is not name:action[@k][~ms], each name once, with the action kill, "
                 "stop, pause or error",
                 item_bytes, item);
        return false;
    }
    plans[name] = plan_of((enum action)action, passes, for_ms);
    return true;
}

static bool read_spec(const char *spec, uint64_t plans[NAMES], char *error, size_t error_bytes)
{
    const char *at = spec;
    while (*spec != '\0') {
        if (!read_item(&at, plans, error, error_bytes))
            return false;
        if (*at == '\0')
            break;
        at++; /* the comma: another must follow */
    }
    return true;
}

void failpoint_page_disarm(struct failpoint_page *page)
{
    for (size_t i = 0; i < NAMES; i++)
        atomic_store(&page->points[i].plan, 0);
}

bool failpoint_page_arm(struct failpoint_page *page, const char *spec, char *error, size_t error_bytes)
{
    uint64_t plans[NAMES] = {0};
    if (!read_spec(spec, plans, error, error_bytes))
        return false;
    failpoint_page_disarm(page);
    atomic_store(&page->fired, 0);
    for (size_t i = 0; i < NAMES; i++)
        atomic_store(&page->points[i].plan, plans[i]);
    return true;
}

uint64_t failpoint_page_fired(const struct failpoint_page *page)
{
    return atomic_load(&page->fired);
}

/* --- the page --- */
static bool make_file_ready(int fd, bool create)
{
    struct stat status;
    if (create && ftruncate(fd, sizeof(struct failpoint_page)) != 0)
        return false;
    if (fstat(fd, &status) != 0)
        return false;
    errno = EINVAL; /* said of a file that is too small */
    return (size_t)status.st_size >= sizeof(struct failpoint_page);
}

static void *map_file(const char *path, bool create)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    void *page = MAP_FAILED;
    if (fd >= 0 && make_file_ready(fd, create))
        page = mmap(NULL, sizeof(struct failpoint_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int problem = errno;
    if (fd >= 0)
        close(fd);
    errno = problem;
    return page;
}

struct failpoint_page *failpoint_page_map(const char *path, bool create, char *error, size_t error_bytes)
{
    struct failpoint_page *page =
        path != NULL ? map_file(path, create)
                     : mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        snprintf(error, error_bytes, "mapping the failpoints in %.200s failed: %s",
                 path != NULL ? path : "memory", strerror(errno));
        return NULL;
    }
    if (create || path == NULL)
        page->magic = MAGIC;
    if (page->magic != MAGIC) {
        snprintf(error, error_bytes, "%.200s is not a file of failpoints", path);
        failpoint_page_unmap(&page);
    }
    return page;
}

void failpoint_page_unmap(struct failpoint_page **page)
{
    if (*page != NULL)
        CHECK(munmap(*page, sizeof **page) == 0);
    *page = NULL;
}

static void print_names_and_leave(void)
{
    for (size_t i = 0; i < NAMES; i++)
        puts(names[i]);
    exit(0);
}

void failpoint_init(int argc, char **argv)
{
    char error[512];
    const char *path = getenv("DOORBUSTER_FAILPOINT_FILE"), *spec = getenv("DOORBUSTER_FAILPOINT");
    if (argc == 2 && strcmp(argv[1], "--failpoints") == 0)
        print_names_and_leave();
    failpoint_page_unmap(&own_page);
    if (path == NULL && spec == NULL)
        return;
    own_page = failpoint_page_map(path, false, error, sizeof error);
    if (own_page == NULL || (spec != NULL && !failpoint_page_arm(own_page, spec, error, sizeof error)))
        process_refuse(PROGRAM, "%s", error);
}

/* --- passing --- */
/* The plan after this pass, and whether it fires. */
static uint64_t advance(struct point *point, uint64_t plan, bool *fires)
{
    uint64_t passes = plan >> 8 & PASSES_MAX;
    int64_t now_us = clock_monotonic_us(), for_ms = (int64_t)(plan >> 32);
    *fires = passes == 1 || (passes == 0 && now_us < atomic_load(&point->until_us));
    if (passes == 0)
        return *fires ? plan : 0; /* its time is over */
    if (passes == 1 && for_ms == 0)
        return 0;
    if (passes == 1)
        atomic_store(&point->until_us, now_us + for_ms * 1000);
    return plan - ONE_PASS;
}

static enum action pass(struct point *point)
{
    uint64_t plan = atomic_load_explicit(&point->plan, memory_order_relaxed), next;
    bool fires;
    do {
        if (plan == 0)
            return ACTION_NONE;
        next = advance(point, plan, &fires);
    } while (!atomic_compare_exchange_weak(&point->plan, &plan, next));
    return fires ? (enum action)(plan & 0xff) : ACTION_NONE;
}

static void act(enum action action)
{
    switch (action) {
    case ACTION_KILL:
        kill(getpid(), SIGKILL);
        break;
    case ACTION_STOP:
        /* to this thread: it goes no further, where kill() might let it enter the next system call */
        raise(SIGSTOP);
        break;
    case ACTION_PAUSE:
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
        break;
    default:
        break;
    }
}

bool failpoint(const char *name)
{
    size_t index = find(names, NAMES, name, strlen(name));
    CHECK(index < NAMES);
    enum action action = own_page == NULL ? ACTION_NONE : pass(&own_page->points[index]);
    if (action == ACTION_NONE)
        return false;
    atomic_fetch_add(&own_page->fired, 1);
    log_warn("failpoint %s: %s", name, action_names[action]);
    act(action);
    return action == ACTION_ERROR;
}
