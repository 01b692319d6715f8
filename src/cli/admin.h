/* Admin accounts, for setup. */
#ifndef DOORBUSTER_CLI_ADMIN_H
#define DOORBUSTER_CLI_ADMIN_H

#include "doorbuster/settings.h"
#include "doorbuster/store.h"

/* DOORBUSTER_ADMIN_PASSWORD, or NULL: make one up. Exits with 2 and one line if it is too short or too long. */
const char *admin_read_password(const struct settings *settings);
/* A scenario's: nobody but setup has it, so an account that another registered under its name gets the new password too. `given` may be NULL.
 * False: why not is said. */
bool admin_make_own(struct store *store, const char *username, const char *given);
/* setup --admin: exit code. */
int admin_run(const struct settings *settings);

#endif
