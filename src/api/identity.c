/* Who is asking, and with what body. Loop thread; owns nothing; answers the request itself when it cannot go on. */
#include "admission.h"

#include "doorbuster/clock.h"
#include "doorbuster/json.h"

#include <string.h>
#include <strings.h>

static const char *const token_complaints[] = {
    [JWT_MALFORMED] = "The token is not a JSON Web Token of this service.",
    [JWT_WRONG_ALGORITHM] = "The token is signed with another algorithm than HS256.",
    [JWT_BAD_SIGNATURE] = "The token's signature does not fit.",
    [JWT_EXPIRED] = "The token has expired; sign in again.",
};

static bool deny(struct http_request *request, const char *detail)
{
    http_reply_header(request, "WWW-Authenticate", "Bearer");
    http_reply_problem(request, &api_problems[PROBLEM_UNAUTHORIZED], NULL, "%s", detail);
    return false;
}

bool api_identify(struct api *api, struct http_request *request, struct jwt_claims *claims)
{
    static const char scheme[] = "Bearer ";
    const char *value = http_request_header(request, "Authorization");
    if (value == NULL || strncasecmp(value, scheme, sizeof scheme - 1) != 0) {
        return deny(request, "There is no bearer token; sign in and send it as \"Authorization: Bearer …\".");
    }
    const char *token = value + sizeof scheme - 1;
    enum jwt_status status = jwt_verify(api->jwt, token, strlen(token), clock_wall_ms() / 1000, claims);
    return status == JWT_OK ? admission_account(api, request, claims->user_id)
                            : deny(request, token_complaints[status]);
}

bool api_identify_admin(struct api *api, struct http_request *request, struct jwt_claims *claims)
{
    if (!api_identify(api, request, claims)) {
        return false;
    }
    if (claims->role == USER_ADMIN || api->settings.dev_open_admin) {
        return true;
    }
    http_reply_problem(request, &api_problems[PROBLEM_FORBIDDEN], NULL,
                       "This call is for admins; accounts become admins by the setup tool.");
    return false;
}

cJSON *api_json_body(struct http_request *request)
{
    if (!http_request_is_media_type(request, HTTP_TYPE_JSON)) {
        http_reply_problem(request, &http_problems[HTTP_PROBLEM_UNSUPPORTED_MEDIA_TYPE], NULL,
                           "The body must be %s.", HTTP_TYPE_JSON);
        return NULL;
    }
    size_t bytes;
    const char *text = http_request_body(request, &bytes);
    cJSON *body = json_parse_object(text, bytes);
    if (body == NULL) {
        http_reply_problem(request, &http_problems[HTTP_PROBLEM_BAD_REQUEST], NULL,
                           "The body is not a JSON object in UTF-8.");
    }
    return body;
}

bool api_idempotency_key(struct http_request *request, const char **key, size_t *bytes)
{
    static const char header[] = "Idempotency-Key";
    size_t count = http_request_header_count(request, header);
    const char *found;
    size_t found_bytes;
    if (count == 0) {
        return true;
    }
    if (count > 1 || !idempotency_key_parse(http_request_header(request, header), &found, &found_bytes)) {
        http_reply_problem(request, &api_problems[PROBLEM_IDEMPOTENCY_KEY], NULL,
                           count > 1 ? "There is more than one %s."
                                     : "The %s must be 1 to 255 visible ASCII characters without spaces.",
                           header);
        return false;
    }
    *key = found;
    *bytes = found_bytes;
    return true;
}
