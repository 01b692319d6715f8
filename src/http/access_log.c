/* The line of a request that is answered: at debug of every one, at warn of those answered 5xx. Loop thread; owns nothing.
 *
 * Never the path, its arguments or a header: there are tokens and keys among them. The route's label says what was asked for. */
#include "http_internal.h"

#include "doorbuster/log.h"

void http_log_answer(const struct http_request *request, unsigned status, int64_t took_us)
{
    static const char *const names[HTTP_METHODS] = {"GET", "POST", "PUT", "DELETE"};
    enum log_level level = status >= 500 ? LOG_WARN : LOG_DEBUG;

    if (!log_is_on(level))
        return;
    const struct http_route *route = request->route;
    const char *label = route ? route->label : "none", *method = route ? names[route->method] : "-";
    log_event(level,
              LOG_FIELDS(LOG_WORDS("method", method), LOG_WORDS("route", label), LOG_NUMBER("status", status),
                         LOG_NUMBER("took_us", took_us), LOG_WORDS("request_id", http_request_id(request)),
                         LOG_WORDS("client", http_request_client(request))),
              "%s %s answered %u", method, label, status);
}
