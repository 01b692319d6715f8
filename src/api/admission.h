/* Private to api: limits per account and for sign-ins. False: answered 429. */
#ifndef DOORBUSTER_API_ADMISSION_H
#define DOORBUSTER_API_ADMISSION_H

#include "api_internal.h"

bool admission_account(const struct api *api, struct http_request *request, int64_t user_id);
/* Adds the headers that say how much is left to the coming answer. */
void admission_tell(const struct api *api, struct http_request *request, int64_t user_id);
/* Before the password is looked at. */
bool admission_sign_in(const struct api *api, struct http_request *request, const char *username);
/* It was wrong. */
void admission_sign_in_failed(const struct api *api, struct http_request *request);
/* It was right, or nobody could look at it: the attempt does not count. */
void admission_sign_in_taken_back(const struct api *api, struct http_request *request, const char *username);

#endif
