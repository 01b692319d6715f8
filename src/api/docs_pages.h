/* Private to api: pages made of what the API says of itself. */
#ifndef DOORBUSTER_API_DOCS_PAGES_H
#define DOORBUSTER_API_DOCS_PAGES_H

#include "api_internal.h"

#define DOCS_TYPE_HTML "text/html; charset=utf-8"

#endif
