/* Where the server's data is, from the settings that setup and verify share. Runs at start; a wrong setting is one line and exit 2. */
#include "cli.h"

#include "doorbuster/process.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cli_read_place(const struct settings *settings, struct cli_place *out)
{
    char error[512], own[CLI_STORE_URL_BYTES];
    const char *data = settings_get(settings, "data");
    const char *store = settings_get(settings, "store");
    const char *redis = settings_get(settings, "redis");
    char *absolute = realpath(data, NULL);
    if (absolute == NULL && (store == NULL || strcmp(redis, "spawn") == 0)) {
        process_refuse(settings->program,
                       "there is no data folder %s; start the server first, or name its folder with --data",
                       data);
    }
    snprintf(out->data_dir, sizeof out->data_dir, "%s", absolute ? absolute : "");
    out->private_redis = strcmp(redis, "spawn") == 0;
    if (store != NULL) {
        snprintf(out->store_url, sizeof out->store_url, "%s", store);
    } else {
        snprintf(out->store_url, sizeof out->store_url, "sqlite:%s/doorbuster.db", absolute);
    }
    if (out->private_redis) {
        snprintf(own, sizeof own, "unix:%s/redis.sock", absolute);
        redis = own;
    }
    free(absolute);
    if (!redis_address_parse(redis, &out->redis, error, sizeof error)) {
        process_refuse(settings->program, "%s", error);
    }
}
