/* The API's description for machines (/openapi.json) and for people (/docs, its style and its script), embedded at build. Loop thread. Owns nothing
 * but the entity tags, worked out when a file is first asked for; bodies are sent from where they are, never copied. */
#include "docs_pages.h"

#include "embedded.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ETAG_BYTES 24

struct file {
    const char *text, *content_type;
    size_t bytes;
    char etag[ETAG_BYTES]; /* "" until it is asked for */
};

static struct file description = {.text = embedded_openapi_json, .content_type = HTTP_TYPE_JSON};
static struct file page = {.text = embedded_docs_html, .content_type = DOCS_TYPE_HTML};
static struct file style = {.text = embedded_docs_css, .content_type = "text/css; charset=utf-8"};
static struct file script = {.text = embedded_docs_js, .content_type = "text/javascript; charset=utf-8"};

/* FNV-1a: it need only change with the text. */
static void measure(struct file *file)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (const char *c = file->text; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
        file->bytes++;
    }
    snprintf(file->etag, sizeof file->etag, "\"%016" PRIx64 "\"", hash);
}

static bool is_known(const struct http_request *request, const struct file *file)
{
    const char *known = http_request_header(request, "If-None-Match");
    return known != NULL && (strcmp(known, "*") == 0 || strstr(known, file->etag) != NULL);
}

static void reply_file(struct http_request *request, struct file *file)
{
    if (file->etag[0] == '\0') {
        measure(file);
    }
    http_reply_header(request, "ETag", file->etag);
    http_reply_header(request, "Cache-Control", "no-cache"); /* keep it, but ask whether it is still so */
    if (file->content_type == page.content_type) {
        docs_secure_page(request);
    }
    /* With 304 libmicrohttpd sends the length alone, as RFC 9110 wants it. */
    http_reply_bytes(request, is_known(request, file) ? 304 : 200, file->content_type, file->text,
                     file->bytes);
}

void docs_secure_page(struct http_request *request)
{
    http_reply_header(request, "Content-Security-Policy",
                      "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'");
    http_reply_header(request, "X-Content-Type-Options", "nosniff");
    http_reply_header(request, "Referrer-Policy", "no-referrer");
}

void docs_description(struct http_request *request, void *context)
{
    (void)context;
    reply_file(request, &description);
}

void docs_page(struct http_request *request, void *context)
{
    (void)context;
    reply_file(request, &page);
}

void docs_style(struct http_request *request, void *context)
{
    (void)context;
    reply_file(request, &style);
}

void docs_script(struct http_request *request, void *context)
{
    (void)context;
    reply_file(request, &script);
}
