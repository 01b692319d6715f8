/* Which of two representations does a client want? Pure; a header that makes no sense is one that wants nothing. */
#include "accept.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define QUALITY_MAX 1000

enum fit { FIT_NONE, FIT_ANY, FIT_GROUP, FIT_EXACT };

static enum fit fit_of(const char *range, size_t bytes, const char *type)
{
    size_t group = (size_t)(strchr(type, '/') - type) + 1; /* with the slash */
    if (bytes == 3 && memcmp(range, "*/*", 3) == 0) {
        return FIT_ANY;
    }
    if (bytes == group + 1 && strncasecmp(range, type, group) == 0 && range[group] == '*') {
        return FIT_GROUP;
    }
    return bytes == strlen(type) && strncasecmp(range, type, bytes) == 0 ? FIT_EXACT : FIT_NONE;
}

/* "0.8" -> 800. */
static int parse_quality(const char *text, const char *end)
{
    int quality = 0, scale = QUALITY_MAX;
    bool fraction = false;
    for (; text < end && (isdigit((unsigned char)*text) || (*text == '.' && !fraction)); text++) {
        if (*text == '.') {
            fraction = true;
        } else if (scale > 0) {
            quality += (*text - '0') * scale;
            scale /= 10;
        }
    }
    return quality < QUALITY_MAX ? quality : QUALITY_MAX;
}

/* Of the parameters behind a media range. */
static int quality_of(const char *parameters, const char *end)
{
    while (parameters < end && *parameters == ';') {
        parameters++;
        while (parameters < end && (*parameters == ' ' || *parameters == '\t')) {
            parameters++;
        }
        if (end - parameters > 2 && strncasecmp(parameters, "q=", 2) == 0) {
            return parse_quality(parameters + 2, end);
        }
        while (parameters < end && *parameters != ';') {
            parameters++;
        }
    }
    return QUALITY_MAX;
}

int accept_quality(const char *accept, const char *type)
{
    enum fit best = FIT_NONE;
    int quality = 0;
    while (*accept != '\0') {
        accept += strspn(accept, ", \t");
        const char *end = accept + strcspn(accept, ",");
        size_t bytes = strcspn(accept, ",; \t");
        enum fit fit = fit_of(accept, bytes, type);
        if (fit > best) {
            const char *parameters = accept + bytes;
            parameters += strspn(parameters, " \t");
            best = fit;
            quality = quality_of(parameters, end);
        }
        accept = end;
    }
    return quality;
}

bool accept_prefers_html(const char *accept)
{
    return accept != NULL && accept_quality(accept, "text/html") > accept_quality(accept, "application/json");
}
