/* Private to base: one thread of the loop's own priority, which does one job at a time. For work_pool.c. */
#ifndef DOORBUSTER_BASE_WORK_THREAD_H
#define DOORBUSTER_BASE_WORK_THREAD_H

#include <uv.h>

struct work_thread;

/* `run` on the thread, then `finish` on the loop's thread, with what was given. */
typedef void (*work_thread_cb)(void *job);

/* Started from the loop's thread, whose priority it gets. NULL: no thread can be had. */
struct work_thread *work_thread_start(uv_loop_t *loop, work_thread_cb run, work_thread_cb finish);
/* Loop thread; the one before must be finished. While a job is under way it keeps the loop alive. */
void work_thread_give(struct work_thread *thread, void *job);
/* Nothing may be under way. The loop must run until its handle is closed; the memory is freed then. */
void work_thread_stop(struct work_thread **thread);

#endif
