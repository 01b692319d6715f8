/* Failpoints: named places where a test makes the server die, stop, wait or fail. Only in a build with DOORBUSTER_FAILPOINTS; in any
 * other, failpoint() is `false` and the program contains none of this, not even the names.
 *
 *   if (failpoint("store.commit"))
 *       return …as if the step failed…
 *
 * A spec says what happens where: `name:action[@k][~ms]`, several separated by commas.
 *   kill    SIGKILL to the process that passes           pause   300 ms of sleep
 *   stop    SIGSTOP to it; somebody else continues it    error   failpoint() returns true
 *   @k      at the k-th pass, counted over all processes of the server (default 1); once
 *   ~ms     from then on at every pass, for so many milliseconds
 * It comes from $DOORBUSTER_FAILPOINT, or while the server runs through the file $DOORBUSTER_FAILPOINT_FILE, which a test has made
 * (tests/support/failpoints.h) and every process of the server maps. Each firing is logged: "failpoint recorder.read: kill".
 *
 * Any thread, any process. */
#ifndef DOORBUSTER_FAILPOINT_H
#define DOORBUSTER_FAILPOINT_H

#ifdef DOORBUSTER_FAILPOINTS

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* clang-format off */
#define FAILPOINTS(X)                                                                                        \
    X("gate.sell")          /* pool: a batch has its locks, the store is not asked yet */                    \
    X("gate.reply")         /* worker: a call's reply came, nothing done with it yet */                      \
    X("gate.confirm")       /* worker: before a confirmed purchase is answered */                            \
    X("look.read")          /* pool: a look has read, nobody is answered yet; error: the store failed */     \
    X("cancel.read")        /* pool: the order was read from the store, the gate not asked yet */            \
    X("cancel.done")        /* pool: taken back in Redis, before its record is awaited */                    \
    X("change.done")        /* pool: stock or price changed in Redis, likewise */                            \
    X("recorder.read")      /* recorder: entries read, before BEGIN */                                       \
    X("store.begun")        /* store_record, store_sell and its like: BEGIN done, nothing written */         \
    X("store.commit")       /* likewise: all written, before COMMIT */                                       \
    X("store.committed")    /* likewise: after COMMIT, before it returns; error: the answer is lost */       \
    X("recorder.announce")  /* recorder: recorded, before the workers are told */                            \
    X("leading.ignore")     /* recorder: asks whose turn it is; error: believes that it is its own */        \
    X("attach.beside")      /* attach: others' connections are to be closed; error: they stay */             \
    X("attach.begin")       /* attach: nothing done yet */                                                   \
    X("attach.epoch")       /* attach: epoch raised */                                                       \
    X("attach.closed")      /* attach: gate closed */                                                        \
    X("attach.drained")     /* attach: the log is in the store */                                            \
    X("attach.wiped")       /* attach, rebuilding: Redis emptied */                                          \
    X("attach.filled")      /* attach, rebuilding: products and buyers put, head not finished */             \
    X("attach.rebuilt")     /* attach, rebuilding: head finished, still closed */                            \
    X("attach.opened")      /* attach: scripts loaded, head open */                                          \
    X("attach.announced")   /* attach: the workers were told */                                              \
    X("start.wait")         /* start: a store or a master is away; error: the patience is over */            \
    X("backup.step")        /* setup: a step of the copy is due; error: it rests, its snapshot held */       \
    X("vfs.write")          /* SQLite: writing the database or its WAL fails with an I/O error */            \
    X("vfs.full")           /* SQLite: the same for want of room; half of it is written */                   \
    X("vfs.sync")           /* SQLite: fsync fails, and what was not synced is lost */
/* clang-format on */

/* Reads both environment variables; a spec or a file that is no good ends the program (one line, exit 2). Call in main() before any
 * fork. `server --failpoints` ends here too: it prints the names, one a line. */
void failpoint_init(int argc, char **argv);

/* Passes the failpoint. True: act as if this step failed. CHECKs that the name is in the list. */
bool failpoint(const char *name);

/* --- for tests --- */
const char *failpoint_name(size_t index); /* NULL: no more */

struct failpoint_page; /* what the processes share */
/* Maps a file, made first if `create`; `path` NULL: memory of this process and its children. NULL: failed, `error` says why. */
struct failpoint_page *failpoint_page_map(const char *path, bool create, char *error, size_t error_bytes);
void failpoint_page_unmap(struct failpoint_page **page);
/* Disarms everything, sets the count to 0 and arms what the spec says ("": nothing). False: a bad spec; nothing was changed. */
bool failpoint_page_arm(struct failpoint_page *page, const char *spec, char *error, size_t error_bytes);
void failpoint_page_disarm(struct failpoint_page *page); /* keeps the count */
/* How often anything fired since it was armed. */
uint64_t failpoint_page_fired(const struct failpoint_page *page);

#else
#define failpoint(name) false
#define failpoint_init(argc, argv) ((void)0)
#endif

#endif
