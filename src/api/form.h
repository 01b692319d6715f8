/* Private to api: one field of an application/x-www-form-urlencoded body. */
#ifndef DOORBUSTER_API_FORM_H
#define DOORBUSTER_API_FORM_H

#include <stddef.h>

enum form_field { FORM_OK, FORM_MISSING, FORM_BAD };

/* Decodes field `name` of body[0..bytes) into out, terminated. FORM_BAD: twice there, too long, a broken escape, not UTF-8, or with a NUL. */
enum form_field form_get(const char *body, size_t bytes, const char *name, char *out, size_t out_bytes);

#endif
