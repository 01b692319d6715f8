/* User and password: out of a URL, and what a Redis that will not have them says. Pure functions; any thread; they own nothing. */
#include "login.h"

#include "doorbuster/text.h"

#include <string.h>

static bool decode(const char *text, size_t bytes, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (size_t i = 0; i < bytes; i++) {
        int byte = (unsigned char)text[i];
        if (byte == '%') {
            byte = text_hex_byte(text + i + 1, bytes - i - 1);
            i += 2;
        }
        if (byte <= 0 || used + 1 >= out_bytes) {
            return false;
        }
        out[used++] = (char)byte;
    }
    out[used] = '\0';
    return true;
}

/* A user without a password would be let in by any: "nopass". AUTH wants one to be said all the same. */
bool redis_login_parse(const char *text, size_t bytes, struct redis_login *out)
{
    const char *colon = memchr(text, ':', bytes);
    size_t user_bytes = colon != NULL ? (size_t)(colon - text) : 0;
    return colon != NULL && decode(text, user_bytes, out->user, sizeof out->user) &&
           decode(colon + 1, bytes - user_bytes - 1, out->password, sizeof out->password) &&
           (out->user[0] == '\0' || out->password[0] != '\0');
}

int redis_login_words(const struct redis_login *login, const char *words[REDIS_LOGIN_WORDS])
{
    int count = 0;
    if (login->password[0] == '\0') {
        return 0;
    }
    words[count++] = "AUTH";
    if (login->user[0] != '\0') {
        words[count++] = login->user;
    }
    words[count++] = login->password;
    return count;
}

const char *redis_login_user(const struct redis_login *login)
{
    return login->user[0] != '\0' ? login->user : "default";
}

bool redis_is_login_refusal(const char *error)
{
    return text_begins_with(error, "WRONGPASS ") || text_begins_with(error, "NOAUTH ") ||
           text_begins_with(error, "NOPERM ") || text_begins_with(error, "ERR AUTH ");
}
