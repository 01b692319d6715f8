/* User and password: out of a URL, and what a Redis that will not have them says. Pure functions. */
#ifndef DOORBUSTER_REDIS_LOGIN_H
#define DOORBUSTER_REDIS_LOGIN_H

#include "doorbuster/redis.h"

/* "[user]:password" in text[0..bytes), percent-decoded: a '%' that is meant is "%25". False: it is something else, or too long. */
bool redis_login_parse(const char *text, size_t bytes, struct redis_login *out);
/* What AUTH says: its arguments, of which there are 0 (nothing is to be said), 2 or 3. They point into `login`. */
#define REDIS_LOGIN_WORDS 3
int redis_login_words(const struct redis_login *login, const char *words[REDIS_LOGIN_WORDS]);
/* As Redis calls it. */
const char *redis_login_user(const struct redis_login *login);
#endif
