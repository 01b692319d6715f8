/* What setup and verify share: where the data is. */
#ifndef DOORBUSTER_CLI_H
#define DOORBUSTER_CLI_H

#include "doorbuster/gate_place.h"
#include "doorbuster/settings.h"
#include "doorbuster/store.h"

#define CLI_STORE_URL_BYTES 4200
#define CLI_DATA_DIR_BYTES 4100

/* The settings `data`, `store`, `redis`, `gate` and `redlock-nodes`, as the server has them, but for the default of `gate`. */
#define CLI_DATA_SETTINGS                                                                                    \
    {.option = "data",                                                                                       \
     .environment = "DOORBUSTER_DATA",                                                                       \
     .value_name = "DIR",                                                                                    \
     .default_value = "./data",                                                                              \
     .help = "the server's data folder"},                                                                    \
        {.option = "store",                                                                                  \
         .environment = "DATABASE_URL",                                                                      \
         .value_name = "URL",                                                                                \
         .help = "where orders are kept, sqlite:PATH or postgresql://HOST/DATABASE (default: "               \
                 "sqlite:DIR/doorbuster.db)"},                                                               \
        {.option = "redis",                                                                                  \
         .environment = "REDIS_URL",                                                                         \
         .value_name = "URL",                                                                                \
         .default_value = "spawn",                                                                           \
         .help = "the server's Redis; spawn: its private one in DIR"},                                       \
        {.option = "shop",                                                                                   \
         .environment = "DOORBUSTER_SHOP",                                                                   \
         .value_name = "NAME",                                                                               \
         .default_value = GATE_SHOP_DEFAULT,                                                                 \
         .help = "the server's shop"},                                                                       \
        {.option = "gate",                                                                                   \
         .environment = "DOORBUSTER_GATE",                                                                   \
         .value_name = "GATE",                                                                               \
         .help = "the server's gate, lua or redlock (default: the one that the store is sold through)"},     \
    {                                                                                                        \
        .option = "redlock-nodes", .environment = "REDIS_NODES", .value_name = "LIST",                       \
        .default_value = "spawn",                                                                            \
        .help = "the Redlock gate's nodes, host:port,host:port,...; spawn: its private ones in DIR"          \
    }

struct cli_place {
    char data_dir[CLI_DATA_DIR_BYTES]; /* absolute; "" if there is none and none is needed */
    char store_url[CLI_STORE_URL_BYTES];
    struct gate_place gate; /* once it is chosen */
    int64_t store_id;       /* likewise */
};

/* Where the store is; looks at what is said of the gate. Exits with 2 and one line if a setting is wrong. */
void cli_read_place(const struct settings *settings, struct cli_place *out);
/* Which gate it is, by the open store's word, and where. Exits likewise, also if --gate says another one. False: the store failed. */
bool cli_choose_gate(const struct settings *settings, struct store *store, struct cli_place *place);

/* Backups: FOLDER/doorbuster-20261127T090000.123Z.db, so that they sort by time. */
#define CLI_BACKUP_PREFIX "doorbuster-"
#define CLI_BACKUP_SUFFIX ".db"
#define CLI_STAMP_BYTES 32
#define CLI_BACKUP_NAME_BYTES (CLI_STAMP_BYTES + 32)
bool cli_is_backup(const char *name);
void cli_stamp(char out[CLI_STAMP_BYTES]); /* now */

/* setup --backup: copies the store of a server that may be selling. Exit code. */
int backup_run(const struct settings *settings);
/* setup --restore: puts a backup in the place of a stopped server's store. Exit code. */
int restore_run(const struct settings *settings);
/* setup --restored: marks a store as restored that its database has brought back to an earlier moment, while no server runs. Exit code. */
int restored_run(const struct settings *settings);
/* setup: makes the admin account and the scenario's products. Exit code. */
int setup_run(const struct settings *settings);
/* verify: audits Redis against the store. Exit code. */
int verify_run(const struct settings *settings);

#endif
