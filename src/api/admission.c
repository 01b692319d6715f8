/* Who may ask how often: limits per address, per account, and for sign-ins that fail. Loop thread; owns nothing, the tables are shared by all workers.
 *
 *     per address   before the handler        not for programs on this machine that no proxy forwarded for
 *     per account   after the token is known good, so that nobody can use up another's
 *     sign-ins      for the name from this address: before the password is looked at, given back unless it was wrong. For all names from this
 *                   address, ten times as many: when one was wrong, so that the many who share an address can all sign in at the same
 *                   moment. Guessing is slow, and nobody can lock the owner out from elsewhere
 *
 * Nothing of a request that is refused here has reached the gate: the same one with the same Idempotency-Key is welcome later. An
 * IPv6 client is its /64, which is what one household has. */
#include "admission.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define SPRAY_FACTOR 10 /* names that one address may get wrong for each that it may guess at */
#define KEY_BYTES (INET6_ADDRSTRLEN + STORE_USERNAME_BYTES)
#define IPV6_NETWORK_BYTES 8

_Static_assert(API_LIMIT_KEY_BYTES == crypto_shorthash_KEYBYTES, "siphash");

static const char *const names[API_LIMITS] = {
    [API_LIMIT_ACCOUNT] = "account", [API_LIMIT_ADDRESS] = "address", [API_LIMIT_SIGN_IN] = "sign-in"};
static const enum metrics_counter counters[API_LIMITS] = {[API_LIMIT_ACCOUNT] = METRICS_rate_limited_account,
                                                          [API_LIMIT_ADDRESS] = METRICS_rate_limited_address,
                                                          [API_LIMIT_SIGN_IN] = METRICS_rate_limited_sign_in};

/* --- keys ------------------------------------------------------------------------------------------------------------------------------ */
static uint64_t hash(const struct api_limits *limits, const void *bytes, size_t count)
{
    uint64_t key;
    unsigned char out[crypto_shorthash_BYTES];
    crypto_shorthash(out, bytes, count, limits->key);
    memcpy(&key, out, sizeof key);
    return key;
}

/* Writes what stands for the client's address; returns how much. */
static size_t address_bytes(const char *client, unsigned char out[INET6_ADDRSTRLEN])
{
    struct in6_addr address;
    if (strchr(client, ':') != NULL && inet_pton(AF_INET6, client, &address) == 1) {
        memcpy(out, &address, IPV6_NETWORK_BYTES);
        return IPV6_NETWORK_BYTES;
    }
    size_t bytes = strlen(client);
    memcpy(out, client, bytes);
    return bytes;
}

/* `username` "": the address alone. */
static uint64_t sign_in_key(const struct api_limits *limits, const struct http_request *request,
                            const char *username)
{
    unsigned char text[KEY_BYTES];
    size_t used = address_bytes(http_request_client(request), text), bytes = strlen(username);
    CHECK(used + bytes < sizeof text);
    text[used++] = '\0';
    memcpy(text + used, username, bytes);
    return hash(limits, text, used + bytes);
}

static uint64_t account_key(const struct api_limits *limits, int64_t user_id)
{
    return hash(limits, &user_id, sizeof user_id);
}

/* --- answers --------------------------------------------------------------------------------------------------------------------------- */
static int64_t seconds_up(int64_t us)
{
    return (us + 999999) / 1000000;
}

/* draft-ietf-httpapi-ratelimit-headers: so many in a window of so many seconds; so many left, all of them in so many seconds. */
static void tell(struct http_request *request, const struct api_limits *limits, enum api_limit which,
                 const struct rate_limit_verdict *verdict)
{
    char text[96];
    const struct rate_limit *limit = &limits->limits[which];
    snprintf(text, sizeof text, "\"%s\";q=%" PRIu64 ";w=%" PRId64, names[which], limit->burst,
             seconds_up(rate_limit_window_us(limit)));
    http_reply_header(request, "RateLimit-Policy", text);
    snprintf(text, sizeof text, "\"%s\";r=%" PRIu64 ";t=%" PRId64, names[which], verdict->remaining,
             seconds_up(verdict->full_after_us));
    http_reply_header(request, "RateLimit", text);
}

static bool refuse(struct http_request *request, const struct api_limits *limits, enum api_limit which,
                   const struct rate_limit_verdict *verdict)
{
    static const char *const says[API_LIMITS] = {
        [API_LIMIT_ACCOUNT] = "This account asks too fast",
        [API_LIMIT_ADDRESS] = "Too many requests come from this address",
        [API_LIMIT_SIGN_IN] = "Too many sign-ins have failed",
    };
    char seconds[24];
    int64_t wait_s = seconds_up(verdict->retry_after_us);
    snprintf(seconds, sizeof seconds, "%" PRId64, wait_s);
    metrics_add(counters[which], 1);
    http_reply_header(request, "Retry-After", seconds);
    tell(request, limits, which, verdict);
    cJSON *extensions = cJSON_CreateObject();
    cJSON_AddStringToObject(extensions, "limit", names[which]);
    http_reply_problem(request, &api_problems[PROBLEM_TOO_FAST], extensions,
                       "%s; try again in %" PRId64 " s. Nothing was done.", says[which], wait_s);
    return false;
}

static bool take(struct http_request *request, const struct api_limits *limits, enum api_limit which,
                 uint64_t key)
{
    struct rate_limit_verdict verdict =
        rate_limit_take(limits->tables[which], &limits->limits[which], key, clock_monotonic_us());
    return verdict.allowed || refuse(request, limits, which, &verdict);
}

/* --- the limits ------------------------------------------------------------------------------------------------------------------------ */
bool api_admit(struct http_request *request, void *context)
{
    const struct api *api = context;
    const struct api_limits *limits = api->settings.limits;
    unsigned char address[INET6_ADDRSTRLEN];
    if (limits == NULL || http_request_client_is_local(request)) {
        return true;
    }
    size_t bytes = address_bytes(http_request_client(request), address);
    return take(request, limits, API_LIMIT_ADDRESS, hash(limits, address, bytes));
}

bool admission_account(const struct api *api, struct http_request *request, int64_t user_id)
{
    const struct api_limits *limits = api->settings.limits;
    return limits == NULL || take(request, limits, API_LIMIT_ACCOUNT, account_key(limits, user_id));
}

void admission_tell(const struct api *api, struct http_request *request, int64_t user_id)
{
    const struct api_limits *limits = api->settings.limits;
    if (limits != NULL) {
        struct rate_limit_verdict verdict =
            rate_limit_look(limits->tables[API_LIMIT_ACCOUNT], &limits->limits[API_LIMIT_ACCOUNT],
                            account_key(limits, user_id), clock_monotonic_us());
        tell(request, limits, API_LIMIT_ACCOUNT, &verdict);
    }
}

/* An address may get ten times as many names wrong: one taken from it is a tenth. */
static struct rate_limit spray_limit(const struct api_limits *limits)
{
    struct rate_limit limit = limits->limits[API_LIMIT_SIGN_IN];
    uint64_t interval = limit.interval / SPRAY_FACTOR;
    return (struct rate_limit){.interval = interval > 0 ? interval : 1, .burst = limit.burst * SPRAY_FACTOR};
}

bool admission_sign_in(const struct api *api, struct http_request *request, const char *username)
{
    const struct api_limits *limits = api->settings.limits;
    if (limits == NULL) {
        return true;
    }
    if (!http_request_client_is_local(request)) {
        struct rate_limit spray = spray_limit(limits);
        struct rate_limit_verdict verdict =
            rate_limit_look(limits->tables[API_LIMIT_SIGN_IN], &spray, sign_in_key(limits, request, ""),
                            clock_monotonic_us());
        if (!verdict.allowed) {
            return refuse(request, limits, API_LIMIT_SIGN_IN, &verdict);
        }
    }
    return take(request, limits, API_LIMIT_SIGN_IN, sign_in_key(limits, request, username));
}

void admission_sign_in_failed(const struct api *api, struct http_request *request)
{
    const struct api_limits *limits = api->settings.limits;
    if (limits != NULL && !http_request_client_is_local(request)) {
        struct rate_limit spray = spray_limit(limits);
        (void)rate_limit_take(limits->tables[API_LIMIT_SIGN_IN], &spray, sign_in_key(limits, request, ""),
                              clock_monotonic_us());
    }
}

void admission_sign_in_taken_back(const struct api *api, struct http_request *request, const char *username)
{
    const struct api_limits *limits = api->settings.limits;
    if (limits != NULL) {
        rate_limit_give_back(limits->tables[API_LIMIT_SIGN_IN], &limits->limits[API_LIMIT_SIGN_IN],
                             sign_in_key(limits, request, username), clock_monotonic_us());
    }
}
