/* What setup and verify share: where the data is. */
#ifndef DOORBUSTER_CLI_H
#define DOORBUSTER_CLI_H

#include "doorbuster/redis.h"
#include "doorbuster/settings.h"
#include "doorbuster/store.h"

#define CLI_STORE_URL_BYTES 4200
#define CLI_DATA_DIR_BYTES 4100

/* The settings `data`, `store` and `redis`, as the server has them. */
#define CLI_DATA_SETTINGS                                                                                    \
    {.option = "data",                                                                                       \
     .environment = "DOORBUSTER_DATA",                                                                       \
     .value_name = "DIR",                                                                                    \
     .default_value = "./data",                                                                              \
     .help = "the server's data folder"},                                                                    \
        {.option = "store",                                                                                  \
         .environment = "DATABASE_URL",                                                                      \
         .value_name = "URL",                                                                                \
         .help = "where orders are kept (default: sqlite:DIR/doorbuster.db)"},                               \
    {                                                                                                        \
        .option = "redis", .environment = "REDIS_URL", .value_name = "URL", .default_value = "spawn",        \
        .help = "the server's Redis; spawn: its private one in DIR"                                          \
    }

struct cli_place {
    char data_dir[CLI_DATA_DIR_BYTES]; /* absolute; "" if there is none and none is needed */
    bool private_redis;                /* --redis spawn: the one in the data folder */
    char store_url[CLI_STORE_URL_BYTES];
    struct redis_address redis;
};

/* Exits with 2 and one line if a setting is wrong. */
void cli_read_place(const struct settings *settings, struct cli_place *out);

/* setup: makes the admin account and the scenario's products. Exit code. */
int setup_run(const struct settings *settings);
/* verify: audits Redis against the store. Exit code. */
int verify_run(const struct settings *settings);

#endif
