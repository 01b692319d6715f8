/* Admin accounts: the one of a scenario, and `setup --admin NAME`, which makes one and puts nothing on sale. One thread, blocking; needs the store alone,
 * not the gate. A made-up password is printed this once, when the account has it. */
#include "admin.h"

#include "cli.h"

#include "doorbuster/check.h"
#include "doorbuster/password.h"
#include "doorbuster/process.h"
#include "doorbuster/text.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define MADE_UP_PASSWORD_BYTES 15
#define PASSWORD_BYTES_MIN 6
#define PASSWORD_BYTES_MAX 63
/* As the registration has it. */
#define USERNAME_CHARACTERS_MIN 3
#define USERNAME_CHARACTERS_MAX 50

static bool complain(const char *what, const char *why)
{
    fprintf(stderr, "doorbuster-setup: %s: %s\n", what, why);
    return false;
}

const char *admin_read_password(const struct settings *settings)
{
    const char *password = settings_get(settings, "DOORBUSTER_ADMIN_PASSWORD");
    if (password != NULL &&
        (strlen(password) < PASSWORD_BYTES_MIN || strlen(password) > PASSWORD_BYTES_MAX)) {
        process_refuse(settings->program, "DOORBUSTER_ADMIN_PASSWORD must have %d to %d bytes",
                       PASSWORD_BYTES_MIN, PASSWORD_BYTES_MAX);
    }
    return password;
}

static void choose_password(const char *given, char out[PASSWORD_BYTES_MAX + 1])
{
    unsigned char random[MADE_UP_PASSWORD_BYTES];
    if (given != NULL) {
        snprintf(out, PASSWORD_BYTES_MAX + 1, "%s", given);
        return;
    }
    randombytes_buf(random, sizeof random);
    sodium_bin2base64(out, PASSWORD_BYTES_MAX + 1, random, sizeof random,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* A new account, or, if `existing` is not NULL, the new role and password of that one. */
static bool make_with_password(struct store *store, const char *username, const struct store_user *existing,
                               const char *given)
{
    struct store_user user = {.role = USER_ADMIN};
    char password[PASSWORD_BYTES_MAX + 1];
    snprintf(user.username, sizeof user.username, "%s", username);
    choose_password(given, password);
    if (!password_hash(password, user.password_hash)) {
        return complain("making the admin account", "no memory to hash its password");
    }
    enum store_status status = existing != NULL
                                   ? store_update_user(store, existing->id, USER_ADMIN, user.password_hash)
                                   : store_add_user(store, &user);
    if (status != STORE_OK) {
        return complain("making the admin account", store_error(store));
    }
    if (given != NULL) {
        printf("admin     %s, password from DOORBUSTER_ADMIN_PASSWORD\n", username);
    } else {
        printf("admin     %s, password %s (shown this once)\n", username, password);
    }
    return true;
}

/* False: the store failed, which is said. */
static bool find(struct store *store, const char *username, struct store_user *out, bool *exists)
{
    enum store_status status = store_find_user(store, username, out);
    *exists = status == STORE_OK;
    return status == STORE_OK || status == STORE_NOT_FOUND ||
           complain("looking for the admin account", store_error(store));
}

bool admin_make_own(struct store *store, const char *username, const char *given)
{
    struct store_user existing;
    bool exists;
    if (!find(store, username, &existing, &exists)) {
        return false;
    }
    if (exists && existing.role == USER_ADMIN &&
        (given == NULL || password_verify(given, existing.password_hash))) {
        printf("admin     %s is there already\n", username);
        return true;
    }
    /* An account of this name that a buyer registered gets the new password with the new role. */
    return make_with_password(store, username, exists ? &existing : NULL, given);
}

/* --- setup --admin NAME --------------------------------------------------------------------------------------------------------------- */
static const char *read_username(const struct settings *settings)
{
    const char *username = settings_get(settings, "admin");
    size_t bytes = strlen(username);
    bool good = text_is_utf8(username, bytes);
    for (size_t i = 0; good && i < bytes; i++) {
        good = (unsigned char)username[i] >= 0x20 && username[i] != 0x7f;
    }
    if (!good || text_code_points(username, bytes) < USERNAME_CHARACTERS_MIN ||
        text_code_points(username, bytes) > USERNAME_CHARACTERS_MAX) {
        settings_refuse(settings, "admin", "a user name of 3 to 50 characters, UTF-8, no control characters");
    }
    return username;
}

/* It keeps its password: who named an account of somebody else has not locked that person out. */
static bool promote(struct store *store, const struct store_user *existing)
{
    if (existing->role == USER_ADMIN) {
        printf("admin     %s is one already; its password stays (--reset: a new one)\n", existing->username);
        return true;
    }
    if (store_update_user(store, existing->id, USER_ADMIN, existing->password_hash) != STORE_OK) {
        return complain("making the account an admin", store_error(store));
    }
    printf("admin     %s, an account that was there; its password stays (--reset: a new one). It signs in "
           "anew to be one\n",
           existing->username);
    return true;
}

static bool make_named(struct store *store, const char *username, const char *given, bool reset)
{
    struct store_user existing;
    bool exists;
    if (!find(store, username, &existing, &exists)) {
        return false;
    }
    return exists && !reset ? promote(store, &existing)
                            : make_with_password(store, username, exists ? &existing : NULL, given);
}

/* Only a store that is there: a folder that was mistyped gets none. */
static bool open_existing(struct store **out, const char *url)
{
    char error[512];
    if (store_open(out, url, STORE_READER, error, sizeof error) != STORE_OK) {
        return complain("opening the store", error);
    }
    store_close(out);
    return store_open(out, url, STORE_WRITER, error, sizeof error) == STORE_OK ||
           complain("opening the store", error);
}

int admin_run(const struct settings *settings)
{
    CHECK(sodium_init() >= 0);
    struct cli_place place;
    struct store *store;
    const char *username = read_username(settings), *given = admin_read_password(settings);
    cli_read_place(settings, &place);
    if (!open_existing(&store, place.store_url)) {
        return 1;
    }
    bool ok = make_named(store, username, given, settings_get(settings, "reset") != NULL);
    store_close(&store);
    return ok ? 0 : 1;
}
