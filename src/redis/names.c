/* Addresses of hosts as they were last heard. A look-up lasts as long as the system's patience with name servers that do not answer, ten seconds or more, and
 * cannot be given up; so each runs in a thread of its own, one a host, and nobody waits for it. What could not be looked up stays what it was.
 *
 * Any thread of one process, which must not fork while a look-up is under way. Owns a small table; a host that has no room in it is not known. */
#include "names.h"

#include "doorbuster/clock.h"
#include "finding.h"

#include <netdb.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define HOSTS_MAX 32
#define FRESH_US 1000000

struct host {
    char name[256];
    char address[NAMES_ADDRESS_BYTES]; /* "": never heard */
    int64_t asked_us;                  /* 0: never */
    bool asking;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct host hosts[HOSTS_MAX]; /* with the mutex, but for the name, which stays; "": free */

/* An IPv6 address only if there is no other. */
static bool look_up(const char *name, int flags, char out[NAMES_ADDRESS_BYTES])
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *list;
    if (getaddrinfo(name, NULL, &hints, &list) != 0) {
        return false;
    }
    const struct addrinfo *chosen = finding_address(list, 0);
    bool found = getnameinfo(chosen->ai_addr, chosen->ai_addrlen, out, NAMES_ADDRESS_BYTES, NULL, 0,
                             NI_NUMERICHOST) == 0;
    freeaddrinfo(list);
    return found;
}

static void *thread_main(void *context)
{
    struct host *host = context;
    char address[NAMES_ADDRESS_BYTES];
    bool found = look_up(host->name, 0, address);
    pthread_mutex_lock(&mutex);
    if (found) {
        memcpy(host->address, address, sizeof address);
    }
    host->asking = false;
    pthread_mutex_unlock(&mutex);
    return NULL;
}

/* Made, if there is none and there is room. */
static struct host *find_host(const char *name)
{
    struct host *host = hosts;
    while (host < hosts + HOSTS_MAX && host->name[0] != '\0' && strcmp(host->name, name) != 0) {
        host++;
    }
    if (host == hosts + HOSTS_MAX) {
        return NULL;
    }
    if (host->name[0] == '\0') { /* a thread may be reading one that is there */
        snprintf(host->name, sizeof host->name, "%s", name);
    }
    return host;
}

static void ask(struct host *host)
{
    pthread_t thread;
    host->asked_us = clock_monotonic_us();
    host->asking = pthread_create(&thread, NULL, thread_main, host) == 0;
    if (host->asking) {
        pthread_detach(thread);
    }
}

static bool take(const struct host *host, char out[NAMES_ADDRESS_BYTES])
{
    snprintf(out, NAMES_ADDRESS_BYTES, "%s", host != NULL ? host->address : "");
    return out[0] != '\0';
}

bool names_address(const char *name, char out[NAMES_ADDRESS_BYTES])
{
    if (look_up(name, AI_NUMERICHOST, out)) { /* it is an address already */
        return true;
    }
    pthread_mutex_lock(&mutex);
    struct host *host = find_host(name);
    if (host != NULL && !host->asking && clock_monotonic_us() - host->asked_us >= FRESH_US) {
        ask(host);
    }
    bool known = take(host, out);
    pthread_mutex_unlock(&mutex);
    return known;
}

bool names_known(const char *name, char out[NAMES_ADDRESS_BYTES])
{
    pthread_mutex_lock(&mutex);
    bool known = take(find_host(name), out);
    pthread_mutex_unlock(&mutex);
    return known;
}

void names_note(const char *name, const char *address)
{
    pthread_mutex_lock(&mutex);
    struct host *host = find_host(name);
    if (host != NULL) {
        snprintf(host->address, sizeof host->address, "%s", address);
    }
    pthread_mutex_unlock(&mutex);
}
