/* The pages: shop window, dashboard, the API's description for machines and for people, and what they are made of, all of it from web/, embedded at
 * build. Loop thread; owns nothing, fails never.
 *
 * A browser keeps what it has and asks each time whether it is still right (ETag): a page and its scripts are never of two versions. */
#include "api_internal.h"

#include "accept.h"
#include "embedded.h"

#include <stdio.h>
#include <string.h>

#define TAG_BYTES (sizeof embedded_shop_html_tag + 2) /* in quotes */

struct asset {
    const char *name, *content_type, *text, *tag;
};

#define ASSET(name, identifier, type)                                                                        \
    {                                                                                                        \
        name, type, embedded_##identifier, embedded_##identifier##_tag                                       \
    }
#define HTML "text/html; charset=utf-8"
#define CSS "text/css; charset=utf-8"
#define SCRIPT "text/javascript; charset=utf-8"

static const struct asset shop = ASSET("shop.html", shop_html, HTML);
static const struct asset dashboard = ASSET("dashboard.html", dashboard_html, HTML);

static const struct asset docs = ASSET("docs.html", docs_html, HTML);
static const struct asset description = ASSET("openapi.json", openapi_json, HTTP_TYPE_JSON);

static const struct asset assets[] = {
    ASSET("style.css", style_css, CSS),
    ASSET("shop.css", shop_css, CSS),
    ASSET("dashboard.css", dashboard_css, CSS),
    ASSET("docs.css", docs_css, CSS),
    ASSET("icon.svg", icon_svg, "image/svg+xml"),
    ASSET("account.js", account_js, SCRIPT),
    ASSET("admin.js", admin_js, SCRIPT),
    ASSET("audit.js", audit_js, SCRIPT),
    ASSET("buying.js", buying_js, SCRIPT),
    ASSET("calls.js", calls_js, SCRIPT),
    ASSET("chart.js", chart_js, SCRIPT),
    ASSET("dashboard.js", dashboard_js, SCRIPT),
    ASSET("dialogs.js", dialogs_js, SCRIPT),
    ASSET("docs.js", docs_js, SCRIPT),
    ASSET("dom.js", dom_js, SCRIPT),
    ASSET("figures.js", figures_js, SCRIPT),
    ASSET("orders.js", orders_js, SCRIPT),
    ASSET("session.js", session_js, SCRIPT),
    ASSET("shop.js", shop_js, SCRIPT),
    ASSET("stock_cards.js", stock_cards_js, SCRIPT),
    ASSET("troubles.js", troubles_js, SCRIPT),
};

/* Has the client this very text? If-None-Match lists the tags it has; tags of ours have no commas and no quotes in them. */
static bool has_it(const struct http_request *request, const char *tag)
{
    const char *has = http_request_header(request, "If-None-Match");
    return has != NULL && (strcmp(has, "*") == 0 || strstr(has, tag) != NULL);
}

static void reply_asset(struct http_request *request, const struct asset *asset)
{
    char tag[TAG_BYTES];
    snprintf(tag, sizeof tag, "\"%s\"", asset->tag);
    http_reply_header(request, "ETag", tag);
    http_reply_header(request, "Cache-Control", "no-cache");
    /* With 304 libmicrohttpd sends the length alone, as RFC 9110 wants it. */
    http_reply_bytes(request, has_it(request, tag) ? 304 : 200, asset->content_type, asset->text,
                     strlen(asset->text));
}

void pages_root(struct http_request *request, void *context)
{
    http_reply_header(request, "Vary", "Accept");
    if (accept_prefers_html(http_request_header(request, "Accept"))) {
        reply_asset(request, &shop);
    } else {
        operations_root(request, context);
    }
}

void pages_dashboard(struct http_request *request, void *context)
{
    (void)context;
    reply_asset(request, &dashboard);
}

void pages_docs(struct http_request *request, void *context)
{
    (void)context;
    reply_asset(request, &docs);
}

void pages_description(struct http_request *request, void *context)
{
    (void)context;
    reply_asset(request, &description);
}

void pages_asset(struct http_request *request, void *context)
{
    (void)context;
    const char *name = http_request_path_text(request);
    for (size_t i = 0; i < sizeof assets / sizeof assets[0]; i++) {
        if (strcmp(assets[i].name, name) == 0) {
            reply_asset(request, &assets[i]);
            return;
        }
    }
    http_reply_problem(request, &http_problems[HTTP_PROBLEM_NOT_FOUND], NULL,
                       "There is no asset of this name.");
}
