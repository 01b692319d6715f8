/* Things a process does to itself and to files at start. */
#ifndef DOORBUSTER_PROCESS_H
#define DOORBUSTER_PROCESS_H

#include <stddef.h>

/* Remembers where argv lives, so that process_set_title() can write there, and puts copies of its strings and of the
 * environment in their place. Call first in main(), before anything keeps a pointer into either. */
void process_init_title(int argc, char **argv);
/* What `ps` shows: "doorbuster: worker 0". Also sets the thread name (15 bytes of what follows the colon). */
void process_set_title(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Creates `path` with mode 0700 and checks that it can be written. 0, or -1 with a sentence for the user in `error`. */
int process_make_private_dir(const char *path, char *error, size_t error_bytes);

/* In the data folder: whoever holds its flock may start the private Redis and write there. A server writes its pid into it. */
#define PROCESS_DATA_LOCK "lock"
#define PROCESS_SECRET_KEY "secret.key" /* likewise: what tokens are signed with; made at the first start */

/* One clear line on stderr and exit(2): for a broken environment at start. "doorbuster-server: <message>" */
_Noreturn void process_refuse(const char *program, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same and exit(1): what has not come in time may come yet, and the service manager shall try again. */
_Noreturn void process_give_up(const char *program, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
