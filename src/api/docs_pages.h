/* Private to api: pages made of what the API says of itself. */
#ifndef DOORBUSTER_API_DOCS_PAGES_H
#define DOORBUSTER_API_DOCS_PAGES_H

#include "api_internal.h"

#define DOCS_TYPE_HTML "text/html; charset=utf-8"

/* For the coming reply, a page: nothing from another host, nothing inline, in no frame. */
void docs_secure_page(struct http_request *request);

#endif
