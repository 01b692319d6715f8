/* The pages behind the problem types: what an error means, what a buyer and what a developer do about it. HTML for browsers, text for others. Loop
 * thread; owns nothing. */
#include "api_internal.h"

#include "accept.h"

#include "doorbuster/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 8192
#define LIST_BYTES 32768
#define TYPE_TEXT "text/plain; charset=utf-8"
#define TYPE_HTML "text/html; charset=utf-8"

/* One for each problem: tests/process/test_docs.c sees to that. */
static const struct advice {
    const char *slug, *buyer, *developer;
} advices[] = {
    {"bad-request", "Nothing was bought. Load the page again and try once more.",
     "\"detail\" says what is wrong. The same request will be refused again: mend the client."},
    {"not-found", "The link is wrong, or what it led to is not for sale.",
     "Check the path and the id; /openapi.json has all paths. What belongs to another account "
     "looks like what is not there."},
    {"method-not-allowed", "Nothing was bought. This is a fault of the shop's page, not yours.",
     "Use one of the methods in the Allow header."},
    {"body-too-large", "Nothing was bought. This is a fault of the shop's page, not yours.",
     "Send a smaller body; a cart has at most 20 lines."},
    {"uri-too-long", "Nothing was bought. This is a fault of the shop's page, not yours.",
     "Send arguments in the body instead of the query."},
    {"unsupported-media-type", "Nothing was bought. This is a fault of the shop's page, not yours.",
     "Send application/json; /api/auth/login takes application/x-www-form-urlencoded."},
    {"header-too-large", "Clear this site's cookies in your browser and try again.",
     "Send fewer or smaller headers: 6 KiB and 48 lines at most."},
    {"internal-error", "Look at your purchases before you try again.",
     "Look into the server's log for the X-Request-Id. A purchase may be sent again with the same "
     "Idempotency-Key: it buys once."},
    {"unauthorized", "Sign in (again), then try once more. Nothing was bought.",
     "Get a token from /api/auth/login; it lasts a day. Then send the request again with the same "
     "Idempotency-Key."},
    {"forbidden", "This is for the people who run the sale.",
     "Sign in with an account that the setup tool has made an admin; a new token is needed after that."},
    {"insufficient-stock",
     "It is sold out, or fewer are left than you asked for. You have not bought anything. Cancelled orders "
     "and restocks go on sale again: "
     "looking later can help.",
     "Show it; do not repeat at once. \"available\" says how many could be had. The refusal is not pinned to "
     "the Idempotency-Key: later the "
     "same key may buy."},
    {"username-taken", "Choose another user name. If it is yours, sign in instead.",
     "If your own first try was answered 503 or not at all, it may have worked: sign in."},
    {"product-name-taken", "This is for the people who run the sale.",
     "Choose another name. If your own first try was answered 503 or not at all, it may have worked: with an "
     "Idempotency-Key the "
     "same request is answered with the product."},
    {"customer-limit",
     "You have as many of it as one customer may have. You can cancel an order to buy again.",
     "Do not repeat. \"limit\" and \"owned\" are the figures to show."},
    {"order-rejected", "You have not bought anything, and owe nothing. You may try again.",
     "Somebody has edited Redis by hand; the server has mended it. A new request, with a new "
     "Idempotency-Key, is decided anew."},
    {"idempotency-key", "Nothing was bought. This is a fault of the shop's page, not yours.",
     "Send the header once, with 1 to 255 visible ASCII characters; a UUID is good."},
    {"request-in-progress", "Your purchase is on its way. Wait a second.",
     "Send the same request with the same key after the seconds in Retry-After; it will be answered with the "
     "order."},
    {"idempotency-key-reused", "Nothing was bought this time. This is a fault of the shop's page, not yours.",
     "Make a new key for each thing that is to be bought or changed, and use it again only for repeats of "
     "that same request."},
    {"validation", "Correct what is marked, then send it again.",
     "\"errors\" has a field and a message for each fault; show them beside the fields."},
    {"too-busy", "Many people are signing in just now. Wait a few seconds and try again.",
     "Repeat after the seconds in Retry-After, with some jitter. A token lasts a day: keep it instead of "
     "signing in for every request."},
    {"too-fast",
     "You, or others at your address, ask very often. Wait a few seconds and try again. Nothing was bought.",
     "Repeat after the seconds in Retry-After, with the same Idempotency-Key. The headers RateLimit and "
     "RateLimit-Policy say what is left, and "
     "of how much: slow down before it is used up."},
    {"sale-not-open", "The sale has not begun. Come back when it opens.",
     "\"starts_at\" says when, Retry-After in how many seconds by the server's clock. Asking earlier gains "
     "nothing."},
    {"sale-over", "The sale is over. You have not bought anything.", "Do not repeat."},
    {"withdrawal-too-large", "This is for the people who run the sale.",
     "Withdraw at most \"available\" units: what is sold cannot be withdrawn."},
    {"stock-limit", "This is for the people who run the sale.", "Restock less, or make another product."},
    {"unavailable",
     "Nobody knows yet. Try again in a few seconds: you will not be charged twice if the page repeats the "
     "same purchase. Your purchases list "
     "has everything that was bought.",
     "Repeat after the seconds in Retry-After, with some jitter and always with the same Idempotency-Key: it "
     "buys once. Without a key look at "
     "/api/purchases/me first. /health/ready names the part that is missing."},
};

static const struct http_problem *problem_at(size_t i)
{
    return i < HTTP_PROBLEM_KINDS                  ? &http_problems[i]
           : i < HTTP_PROBLEM_KINDS + API_PROBLEMS ? &api_problems[i - HTTP_PROBLEM_KINDS]
                                                   : NULL;
}

static const struct http_problem *find_problem(const char *slug)
{
    const struct http_problem *problem;
    for (size_t i = 0; (problem = problem_at(i)) != NULL; i++) {
        if (strcmp(problem->slug, slug) == 0) {
            return problem;
        }
    }
    return NULL;
}

/* Empty sentences if there are none. */
static struct advice find_advice(const char *slug)
{
    for (size_t i = 0; i < sizeof advices / sizeof advices[0]; i++) {
        if (strcmp(advices[i].slug, slug) == 0) {
            return advices[i];
        }
    }
    return (struct advice){slug, "", ""};
}

/* --- writing ------------------------------------------------------------------------------------------------------------------------------ */
struct text {
    char *out;
    size_t bytes, used;
    bool is_html;
};

static void put(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int wrote = vsnprintf(text->out + text->used, text->bytes - text->used, format, arguments);
    va_end(arguments);
    CHECK(wrote >= 0 && (size_t)wrote < text->bytes - text->used);
    text->used += (size_t)wrote;
}

/* Our own sentences, which may have quotes in them. */
static void put_words(struct text *text, const char *words)
{
    for (const char *c = words; *c != '\0'; c++) {
        if (text->is_html && *c == '<') {
            put(text, "&lt;");
        } else if (text->is_html && *c == '&') {
            put(text, "&amp;");
        } else {
            put(text, "%c", *c);
        }
    }
}

static void put_section(struct text *text, const char *heading, const char *words)
{
    put(text, text->is_html ? "<h2>%s</h2>\n<p>" : "\n%s:\n", heading);
    put_words(text, words);
    put(text, text->is_html ? "</p>\n" : "\n");
}

static void begin_html(struct text *text, const char *title)
{
    put(text,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
        "content=\"width=device-width, "
        "initial-scale=1\">\n<title>%s - Doorbuster</title>\n<link rel=\"stylesheet\" "
        "href=\"/assets/docs.css\">\n</head>\n<body "
        "class=\"leaf\">\n<nav><a href=\"/problems\">All problems</a> <a href=\"/docs\">The HTTP "
        "API</a></nav>\n<main>\n<h1>%s</h1>\n",
        title, title);
}

static void put_problem(struct text *text, const struct http_problem *problem)
{
    struct advice advice = find_advice(problem->slug);
    if (text->is_html) {
        begin_html(text, problem->title);
        put(text, "<p class=\"quiet\">HTTP status %u, type <code>/problems/%s</code></p>\n<p>",
            problem->status, problem->slug);
    } else {
        put(text, "%s (HTTP status %u)\n\n", problem->title, problem->status);
    }
    put_words(text, problem->about);
    put(text, text->is_html ? "</p>\n" : "\n");
    put_section(text, "If you are a buyer", advice.buyer);
    put_section(text, "If you write the client", advice.developer);
    put(text, "%s", text->is_html ? "</main>\n</body>\n</html>\n" : "");
}

static void put_row(struct text *text, const struct http_problem *problem)
{
    if (text->is_html) {
        put(text, "<tr><td>%u</td><td><a href=\"/problems/%s\">%s</a></td><td>", problem->status,
            problem->slug, problem->title);
    } else {
        put(text, "%u /problems/%s\n    ", problem->status, problem->slug);
    }
    put_words(text, problem->about);
    put(text, text->is_html ? "</td></tr>\n" : "\n");
}

/* By status, and by name within it: what somebody who saw one looks for. */
static int compare_problems(const void *one, const void *other)
{
    const struct http_problem *left = *(const struct http_problem *const *)one,
                              *right = *(const struct http_problem *const *)other;
    return left->status != right->status ? (int)left->status - (int)right->status
                                         : strcmp(left->slug, right->slug);
}

static void put_list(struct text *text)
{
    const struct http_problem *problems[HTTP_PROBLEM_KINDS + API_PROBLEMS];
    size_t count = sizeof problems / sizeof problems[0];
    for (size_t i = 0; i < count; i++) {
        problems[i] = problem_at(i);
    }
    qsort(problems, count, sizeof problems[0], compare_problems);
    if (text->is_html) {
        begin_html(text, "Problems");
        put(text, "<p>What goes wrong has a type, and each type a "
                  "page.</p>\n<table>\n<tr><th>Status</th><th>Type</th><th>What it means</th></tr>\n");
    }
    for (size_t i = 0; i < count; i++) {
        put_row(text, problems[i]);
    }
    put(text, "%s", text->is_html ? "</table>\n</main>\n</body>\n</html>\n" : "");
}

/* --- handlers ----------------------------------------------------------------------------------------------------------------------------- */
static struct text begin(struct http_request *request, size_t bytes)
{
    bool is_html = accept_prefers_html(http_request_header(request, "Accept"));
    return (struct text){.out = http_request_alloc(request, bytes), .bytes = bytes, .is_html = is_html};
}

static void finish(struct http_request *request, const struct text *text)
{
    http_reply_header(request, "Vary", "Accept");
    http_reply_bytes(request, 200, text->is_html ? TYPE_HTML : TYPE_TEXT, text->out, text->used);
}

void problem_pages_list(struct http_request *request, void *context)
{
    (void)context;
    struct text text = begin(request, LIST_BYTES);
    put_list(&text);
    finish(request, &text);
}

void problem_pages_get(struct http_request *request, void *context)
{
    (void)context;
    const struct http_problem *problem = find_problem(http_request_path_text(request));
    if (problem == NULL) {
        http_reply_problem(request, &http_problems[HTTP_PROBLEM_NOT_FOUND], NULL,
                           "There is no problem type of this name; /problems has them all.");
        return;
    }
    struct text text = begin(request, PAGE_BYTES);
    put_problem(&text, problem);
    finish(request, &text);
}
