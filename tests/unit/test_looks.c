/* looks.c alone: who is answered by which look, and how it ends. The pool, the requests and the clock are this test's own. */
#include "testing.h"

#include "looks.h"

#include "doorbuster/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOKERS 8
#define PRODUCT 7

struct http_request {
    struct looker_memory {
        max_align_t bytes[8];
    } memory;
    bool used;
    int answers;
    char heard[32]; /* "view:what was read", "404", "503" */
};

struct http_response {
    char body[32];
};

static int64_t now = 1000;
static struct api api;
static struct http_request requests[LOOKERS];
static struct job *started; /* the one in the pool, NULL: none */
static unsigned starts, responses_made, refused_busy;
static bool refuses_at_once;
static int read_value;

int64_t __wrap_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void)
{
    return now;
}

/* --- in the place of jobs.c, http and the pool ------------------------------------------------------------------------------------------- */
void job_start(struct job *job, enum work_queue queue)
{
    assert_null(started);
    job->queue = queue;
    starts++;
    if (refuses_at_once) {
        job->refuse(job, &(struct job_refusal){.queue = queue});
        return;
    }
    started = job;
}

void job_refuse(const struct api *of, struct http_request *request, const struct job_refusal *why)
{
    assert_ptr_equal(of, &api);
    refused_busy += why->is_busy;
    request->answers++;
    snprintf(request->heard, sizeof request->heard, "503");
}

bool job_unavailable(struct job *job, enum job_fault fault, const char *format, ...)
{
    (void)format;
    job->outcome = JOB_UNAVAILABLE;
    job->fault = fault;
    return false;
}

void *http_request_alloc(struct http_request *request, size_t bytes)
{
    assert_false(request->used);
    assert_true(bytes <= sizeof request->memory);
    request->used = true;
    return &request->memory;
}

struct http_response *http_response_new(unsigned status, const char *type, const char *body, size_t bytes)
{
    struct http_response *response = calloc(1, sizeof *response);
    (void)type;
    assert_int_equal(status, 200);
    assert_true(bytes < sizeof response->body);
    memcpy(response->body, body, bytes);
    responses_made++;
    return response;
}

void http_response_free(struct http_response **response)
{
    free(*response);
    *response = NULL;
}

void http_reply_prebuilt(struct http_request *request, const struct http_response *response)
{
    request->answers++;
    snprintf(request->heard, sizeof request->heard, "%s", response->body);
}

void http_reply_text(struct http_request *request, unsigned status, const char *type, char *text,
                     size_t bytes)
{
    (void)request, (void)status, (void)type, (void)text, (void)bytes;
    fail();
}

void api_reply_not_found(struct http_request *request, const char *what, int64_t id)
{
    (void)what;
    request->answers++;
    snprintf(request->heard, sizeof request->heard, "404 of %d", (int)id);
}

int64_t work_expected_wait_us(const struct work_pool *pool, enum work_queue queue)
{
    (void)pool, (void)queue;
    return 0;
}

/* --- the test's own ---------------------------------------------------------------------------------------------------------------------- */
static void read_cb(struct job *job, struct desk *desk)
{
    (void)desk;
    ((struct look *)job)->books.stock = read_value;
    job->outcome = read_value < 0 ? JOB_NOT_FOUND : JOB_OK;
}

static char *view(const struct look *look, const char *name)
{
    char text[32];
    snprintf(text, sizeof text, "%s:%d", name, (int)look->books.stock);
    return strdup(text);
}

static char *stock_view(struct look *look)
{
    return view(look, "stock");
}

static char *product_view(struct look *look)
{
    return view(look, "product");
}

static void ask_at(size_t i, int64_t product, look_view see, int64_t at_us)
{
    now = at_us;
    looks_ask(&api, &requests[i], product, read_cb, see);
}

static void ask(size_t i, int64_t at_us)
{
    ask_at(i, PRODUCT, stock_view, at_us);
}

static void read_at(int value, int64_t at_us)
{
    now = at_us;
    read_value = value;
    started->work(started, NULL);
}

static void end(void)
{
    struct job *job = started;
    started = NULL;
    if (job->outcome == JOB_UNAVAILABLE) {
        job->refuse(job, &(struct job_refusal){.queue = job->queue});
    } else {
        job->reply(job);
    }
}

static void expect(size_t i, const char *heard)
{
    assert_string_equal(requests[i].heard, heard);
    assert_int_equal(requests[i].answers, heard[0] != '\0');
}

static int setup(void **state)
{
    (void)state;
    memset(requests, 0, sizeof requests);
    starts = responses_made = refused_busy = 0;
    refuses_at_once = false;
    started = NULL;
    api = (struct api){0};
    api.looks = looks_new(&api);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    looks_free(&api.looks); /* CHECKs that nobody waits */
    return 0;
}

/* --- tests ------------------------------------------------------------------------------------------------------------------------------- */
static void test_who_asked_before_it_began_shares_it(void **state)
{
    (void)state;
    ask(0, 10);
    ask(1, 20); /* joins: no thread has taken it yet */
    read_at(5, 30);
    ask(2, 30); /* the same microsecond may be later */
    ask(3, 40);
    end();
    expect(0, "stock:5");
    expect(1, "stock:5");
    expect(2, "");
    expect(3, "");
    assert_int_equal(responses_made, 1);
    read_at(4, 50);
    end();
    expect(2, "stock:4");
    expect(3, "stock:4");
    assert_null(started); /* nobody is left */
    assert_int_equal(starts, 2);
    ask(4, 60);
    read_at(3, 70);
    end();
    expect(4, "stock:3");
    assert_int_equal(starts, 3);
}

static void test_each_view_is_made_once(void **state)
{
    (void)state;
    ask(0, 10);
    ask_at(1, PRODUCT, product_view, 11);
    ask(2, 12);
    ask_at(3, PRODUCT, product_view, 13);
    read_at(5, 30);
    end();
    expect(0, "stock:5");
    expect(1, "product:5");
    expect(2, "stock:5");
    expect(3, "product:5");
    assert_int_equal(responses_made, 2);
}

/* Also of two that fall into the same bucket. */
static void test_products_do_not_wait_for_each_other(void **state)
{
    (void)state;
    ask(0, 10);
    struct job *first = started;
    started = NULL;
    ask_at(1, PRODUCT + 256, stock_view, 11);
    struct job *second = started;
    assert_ptr_not_equal(first, second);
    read_at(2, 20);
    end();
    expect(1, "stock:2");
    ask(2, 30);
    assert_null(started); /* there is one under way */
    started = first;
    read_at(1, 40);
    end();
    expect(0, "stock:1");
    expect(2, "stock:1");
}

static void test_all_hear_that_there_is_none(void **state)
{
    (void)state;
    ask(0, 10);
    ask(1, 11);
    read_at(-1, 20);
    ask(2, 30);
    end();
    expect(0, "404 of 7");
    expect(1, "404 of 7");
    read_at(6, 40); /* it was added meanwhile */
    end();
    expect(2, "stock:6");
}

static void test_a_failure_is_of_those_who_shared_it(void **state)
{
    (void)state;
    ask(0, 10);
    ask(1, 11);
    read_at(5, 20);
    ask(2, 30);
    job_unavailable(started, JOB_FAULT_STORE, "%s", "");
    end();
    expect(0, "503");
    expect(1, "503");
    expect(2, "");
    read_at(4, 40);
    assert_int_equal(started->outcome, JOB_OK);
    end();
    expect(2, "stock:4");
}

static void test_what_is_refused_before_it_began_is_refused_to_all(void **state)
{
    (void)state;
    refuses_at_once = true;
    ask(0, 10);
    expect(0, "503");
    refuses_at_once = false;
    ask(1, 20);
    read_at(5, 30);
    ask(2, 40);
    ask(3, 41);
    refuses_at_once = true; /* a breaker has opened */
    end();
    expect(1, "stock:5");
    expect(2, "503");
    expect(3, "503");
}

static void test_the_deadline_is_each_looker_s_own(void **state)
{
    (void)state;
    ask(0, 10);
    read_at(5, 20);
    ask(1, 1000);
    ask(2, 2000);
    assert_int_equal(started->deadline_us, 10 + JOB_DEADLINE_US);
    now = 1000 + JOB_DEADLINE_US;
    looks_watch(api.looks);
    expect(0, "503"); /* it hangs */
    expect(1, "");
    now = 1001 + JOB_DEADLINE_US;
    looks_watch(api.looks);
    expect(1, "503");
    expect(2, "");
    assert_int_equal(refused_busy, 2);
    end();
    assert_int_equal(started->deadline_us, 2000 + JOB_DEADLINE_US);
    now = 2001 + JOB_DEADLINE_US;
    looks_watch(api.looks);
    expect(2, "503");
    ask(3, now + 1); /* whose look it is now: no thread has taken it yet */
    read_at(4, now + 2);
    end();
    expect(3, "stock:4");
    assert_int_equal(starts, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_who_asked_before_it_began_shares_it),
        TEST(test_each_view_is_made_once),
        TEST(test_products_do_not_wait_for_each_other),
        TEST(test_all_hear_that_there_is_none),
        TEST(test_a_failure_is_of_those_who_shared_it),
        TEST(test_what_is_refused_before_it_began_is_refused_to_all),
        TEST(test_the_deadline_is_each_looker_s_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
