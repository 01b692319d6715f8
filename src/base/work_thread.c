/* A thread beside the loop's, for blocking work that must not run at a lower priority than the loop: libuv's pool threads have stepped back for
 * good (work_pool.c), and a thread cannot come up again without a privilege. One job at a time, given on the loop's thread, done here, finished
 * on the loop's thread again: a uv_async_t carries the news, a mutex and a condition the job. Owns the thread; fails only where there is none to
 * be had. */
#include "work_thread.h"

#include "doorbuster/check.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct work_thread {
    uv_async_t done;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    work_thread_cb run, finish;
    void *job; /* given, or done and not finished yet; with the mutex */
    bool is_done, ending;
};

/* Waits for a job; NULL: it is over. */
static void *take_job(struct work_thread *thread)
{
    pthread_mutex_lock(&thread->mutex);
    while (!thread->ending && (thread->job == NULL || thread->is_done))
        pthread_cond_wait(&thread->changed, &thread->mutex);
    void *job = thread->ending ? NULL : thread->job;
    pthread_mutex_unlock(&thread->mutex);
    return job;
}

static void *thread_main(void *context)
{
    struct work_thread *thread = context;
    void *job;

    while ((job = take_job(thread)) != NULL) {
        thread->run(job);
        pthread_mutex_lock(&thread->mutex);
        thread->is_done = true;
        pthread_mutex_unlock(&thread->mutex);
        uv_async_send(&thread->done);
    }
    return NULL;
}

static void done_cb(uv_async_t *handle)
{
    struct work_thread *thread = handle->data;

    pthread_mutex_lock(&thread->mutex);
    void *job = thread->is_done ? thread->job : NULL;
    if (job != NULL) {
        thread->job = NULL;
        thread->is_done = false;
    }
    pthread_mutex_unlock(&thread->mutex);
    if (job == NULL)
        return; /* news that have been heard already */
    uv_unref((uv_handle_t *)&thread->done);
    thread->finish(job); /* last: it may give the next, or stop us */
}

struct work_thread *work_thread_start(uv_loop_t *loop, work_thread_cb run, work_thread_cb finish)
{
    struct work_thread *thread = calloc(1, sizeof *thread);

    if (thread == NULL)
        return NULL;
    thread->run = run;
    thread->finish = finish;
    int rc = pthread_mutex_init(&thread->mutex, NULL);
    CHECK(rc == 0);
    rc = pthread_cond_init(&thread->changed, NULL);
    CHECK(rc == 0);
    if (pthread_create(&thread->thread, NULL, thread_main, thread) != 0) {
        pthread_cond_destroy(&thread->changed);
        pthread_mutex_destroy(&thread->mutex);
        free(thread);
        return NULL;
    }
    rc = uv_async_init(loop, &thread->done, done_cb);
    CHECK(rc == 0); /* the loop has had its descriptor since it was made */
    thread->done.data = thread;
    uv_unref((uv_handle_t *)&thread->done);
    return thread;
}

void work_thread_give(struct work_thread *thread, void *job)
{
    CHECK(job != NULL);
    uv_ref((uv_handle_t *)&thread->done);
    pthread_mutex_lock(&thread->mutex);
    CHECK(thread->job == NULL);
    thread->job = job;
    pthread_cond_signal(&thread->changed);
    pthread_mutex_unlock(&thread->mutex);
}

static void closed_cb(uv_handle_t *handle)
{
    struct work_thread *thread = handle->data;

    pthread_cond_destroy(&thread->changed);
    pthread_mutex_destroy(&thread->mutex);
    free(thread);
}

void work_thread_stop(struct work_thread **thread_pointer)
{
    struct work_thread *thread = *thread_pointer;

    if (thread == NULL)
        return;
    *thread_pointer = NULL;
    pthread_mutex_lock(&thread->mutex);
    CHECK(thread->job == NULL);
    thread->ending = true;
    pthread_cond_signal(&thread->changed);
    pthread_mutex_unlock(&thread->mutex);
    int rc = pthread_join(thread->thread, NULL);
    CHECK(rc == 0);
    uv_close((uv_handle_t *)&thread->done, closed_cb);
}
