/* The server's settings, read and checked at start. Runs in the supervisor before anything else does; everything wrong is one line on
 * stderr and exit 2, or 1 if it may come right by itself. Owns the files of the secret key and of the server's id. */
#include "configuration_http.h"
#include "patience.h"
#include "server.h"

#include "doorbuster/check.h"
#include "doorbuster/jwt.h"
#include "doorbuster/log.h"
#include "doorbuster/process.h"
#include "doorbuster/settings.h"
#include "doorbuster/store.h"
#include "doorbuster/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECRET_FILE_BYTES 32
#define ID_DIGITS 16
#define HANG_TIMEOUT_MAX_S 3600
#define STORE_PATIENCE_MS 30000

static struct setting options[] = {
    {.option = "listen",
     .environment = "DOORBUSTER_LISTEN",
     .value_name = "[ADDR]:PORT",
     .default_value = ":8080",
     .help = "address and port to serve on; without an address every one, IPv6 and IPv4"},
    {.option = "workers",
     .environment = "DOORBUSTER_WORKERS",
     .value_name = "N",
     .help = "worker processes (default: number of processors)"},
    {.option = "data",
     .environment = "DOORBUSTER_DATA",
     .value_name = "DIR",
     .default_value = "./data",
     .help = "folder for the database, the private Redis and the secret key; made with mode 0700"},
    {.option = "store",
     .environment = "DATABASE_URL",
     .value_name = "URL",
     .help = "where orders are kept, sqlite:PATH or postgresql://HOST/DATABASE (default: "
             "sqlite:DIR/doorbuster.db)"},
    {.option = "redis",
     .environment = "REDIS_URL",
     .value_name = "URL",
     .default_value = "spawn",
     .help = "redis://[user:password@]host:port/db, unix:/path, sentinel://NAME@host:port,…, "
             "cluster://host:port,…, or spawn: a private one in DIR"},
    {.option = "shop",
     .environment = "DOORBUSTER_SHOP",
     .value_name = "NAME",
     .default_value = GATE_SHOP_DEFAULT,
     .help = "whose sale it is, if several shops share a Redis or a PostgreSQL"},
    {.option = "gate",
     .environment = "DOORBUSTER_GATE",
     .value_name = "GATE",
     .default_value = "lua",
     .help = "who decides: lua, a script in one Redis; or redlock, the store under locks"},
    {.option = "redlock-nodes",
     .environment = "REDIS_NODES",
     .value_name = "LIST",
     .default_value = "spawn",
     .help = "host:port,…: an odd number of Redis nodes for the locks; or spawn: five in DIR"},
    {.option = "log-format",
     .environment = "DOORBUSTER_LOG_FORMAT",
     .value_name = "FORMAT",
     .default_value = "logfmt",
     .help = "logfmt, json (one object a line), or text (for people)"},
    {.option = "log-level",
     .environment = "DOORBUSTER_LOG_LEVEL",
     .value_name = "LEVEL",
     .default_value = "info",
     .help = "error, warn, info or debug; SIGUSR1 one more, SIGUSR2 one less"},
    {.option = "hang-timeout",
     .environment = "DOORBUSTER_HANG_TIMEOUT",
     .value_name = "SECONDS",
     .default_value = "10",
     .help = "a process that has not turned its loop for so long is killed and started again; 0: never"},
    {.option = "dev-open-admin",
     .help = "every signed-in account may use the admin calls; on a loopback address only"},
    {.option = "tls-certificate",
     .environment = "DOORBUSTER_TLS_CERTIFICATE",
     .value_name = "FILE",
     .help = "serve HTTPS: the certificate with its chain, PEM; read again on SIGHUP"},
    {.option = "tls-key",
     .environment = "DOORBUSTER_TLS_KEY",
     .value_name = "FILE",
     .help = "the certificate's private key, PEM"},
    {.option = "cors-origins",
     .environment = "DOORBUSTER_CORS_ORIGINS",
     .value_name = "LIST",
     .help = "https://shop.example,…: whose pages may read answers; or *: everybody's (default: nobody's)"},
    {.option = "trusted-proxies",
     .environment = "DOORBUSTER_TRUSTED_PROXIES",
     .value_name = "LIST",
     .help = "10.0.0.1,172.16.0.0/12,…: whose X-Forwarded-For is believed (default: nobody's)"},
    {.option = "rate-limits",
     .environment = "DOORBUSTER_RATE_LIMITS",
     .value_name = "on|off",
     .default_value = "on",
     .help = "429 for those who ask too fast; off for load tests"},
    {.option = "rate-account",
     .environment = "DOORBUSTER_RATE_ACCOUNT",
     .value_name = "N/s[:BURST]",
     .default_value = "50/s:100",
     .help = "calls of one account"},
    {.option = "rate-address",
     .environment = "DOORBUSTER_RATE_ADDRESS",
     .value_name = "N/s[:BURST]",
     .default_value = "500/s:1000",
     .help = "calls from one address; programs on this machine are exempt"},
    {.option = "rate-sign-in",
     .environment = "DOORBUSTER_RATE_SIGN_IN",
     .value_name = "N/min[:BURST]",
     .default_value = "10/min",
     .help = "wrong passwords for one user name from one address"},
    {.option = "connections-per-address",
     .environment = "DOORBUSTER_CONNECTIONS_PER_ADDRESS",
     .value_name = "N",
     .default_value = "1000",
     .help = "open connections of one address to one worker; programs on this machine are exempt"},
    {.environment = "REDIS_SENTINEL_USER",
     .value_name = "NAME",
     .help = "for the Sentinels themselves, if they have users"},
    {.environment = "REDIS_SENTINEL_PASSWORD",
     .value_name = "WORD",
     .help = "for the Sentinels themselves, if they want one"},
    {.environment = "JWT_SECRET_KEY",
     .value_name = "KEY",
     .help = "key that signs the tokens, 32 bytes or more (default: made once, kept in DIR)"},
    {.environment = "LOCK_TIMEOUT_SECONDS",
     .value_name = "N",
     .default_value = "10",
     .help = "redlock: a lock whose holder died ends after so long, 1 to 60"},
    {.environment = "LOCK_RETRY_ATTEMPTS",
     .value_name = "N",
     .default_value = "3",
     .help = "redlock: attempts to get a lock, 1 to 100"},
    {.environment = "LOCK_RETRY_DELAY_MS",
     .value_name = "N",
     .default_value = "100",
     .help = "redlock: the wait before the second attempt, then doubled, 1 to 10000"},
};
static struct settings settings = {
    .program = PROGRAM,
    .summary = "sells what there is, each unit once: a flash-sale server",
    .epilogue = "It runs in the foreground and logs to stderr. SIGTERM or Ctrl-C stops it cleanly, SIGHUP "
                "replaces its workers one by one\nand reads the certificate again.\n"
                "Exit codes: 0 stopped as asked, 1 gave up, 2 a bad option or setting.",
    .list = options,
    .count = sizeof options / sizeof options[0],
};

/* "[ADDR]:PORT": ":8080", "127.0.0.1:8080", "[::1]:8080". */
static void read_listen(struct server_configuration *configuration)
{
    const char *value = settings_get(&settings, "listen");
    const char *colon = strrchr(value, ':');
    int64_t port;
    if (colon == NULL || !text_to_int64(colon + 1, strlen(colon + 1), 0, 65535, &port)) {
        settings_refuse(&settings, "listen",
                        ":PORT, ADDR:PORT or [ADDR]:PORT with a port from 0 to 65535 (0: any free one)");
    }
    size_t bytes = (size_t)(colon - value);
    if (bytes >= 2 && value[0] == '[' && colon[-1] == ']') {
        value++;
        bytes -= 2;
    }
    if (bytes >= sizeof configuration->listen_host) {
        settings_refuse(&settings, "listen", "an address of at most 255 bytes");
    }
    memcpy(configuration->listen_host, value, bytes);
    configuration->listen_host[bytes] = '\0';
    configuration->listen_port = (int)port;
    const char *host = configuration->listen_host;
    configuration->listen_is_loopback =
        strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 || strncmp(host, "127.", 4) == 0;
}

static size_t read_word(const char *option, const char *const *words, size_t count, const char *may_be)
{
    const char *value = settings_get(&settings, option);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(value, words[i]) == 0) {
            return i;
        }
    }
    settings_refuse(&settings, option, may_be);
}

/* First of all: what is wrong with the others is no line of the log, but what they have to tell is. */
static void read_log(struct server_configuration *configuration)
{
    log_set_format(
        (enum log_format)read_word("log-format", log_format_names, 3, "one of logfmt, json and text"));
    configuration->log_level =
        (enum log_level)read_word("log-level", log_level_names, 4, "one of error, warn, info and debug");
    log_set_level(configuration->log_level);
}

static void read_data_dir(struct server_configuration *configuration)
{
    char error[512];
    configuration->data_dir = settings_get(&settings, "data");
    if (strlen(configuration->data_dir) > 4000) {
        settings_refuse(&settings, "data", "a path of at most 4000 bytes");
    }
    if (process_make_private_dir(configuration->data_dir, error, sizeof error) != 0) {
        process_refuse(PROGRAM, "%s; make it writable for this user or choose another --data", error);
    }
}

static void read_shop(void)
{
    char error[512];
    const char *shop = settings_get(&settings, "shop");
    if (!gate_use_shop(shop, error, sizeof error)) {
        process_refuse(PROGRAM, "--shop or DOORBUSTER_SHOP: %s", error);
    }
    store_use_shop(shop);
}

static void read_store(struct server_configuration *configuration)
{
    char error[512];
    const char *url = settings_get(&settings, "store");
    if (url == NULL) {
        snprintf(configuration->store_url, sizeof configuration->store_url, "sqlite:%s/doorbuster.db",
                 configuration->data_dir);
    } else if (strlen(url) >= sizeof configuration->store_url) {
        settings_refuse(&settings, "store", "a URL of at most 4000 bytes");
    } else {
        strcpy(configuration->store_url, url);
    }
    if (!store_url_is_valid(configuration->store_url, error, sizeof error)) {
        process_refuse(PROGRAM, "%s", error);
    }
}

void configuration_read(struct server_configuration *configuration, int argc, char **argv)
{
    *configuration = (struct server_configuration){0};
    settings_read(&settings, argc, argv);
    read_log(configuration);
    CHECK(sodium_init() >= 0);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    read_listen(configuration);
    configuration->workers =
        settings_get(&settings, "workers") != NULL
            ? (unsigned)settings_get_integer(&settings, "workers", 1, METRICS_WORKERS_MAX)
            : (unsigned)(processors < 1                     ? 1
                         : processors > METRICS_WORKERS_MAX ? METRICS_WORKERS_MAX
                                                            : processors);
    configuration->hang_timeout_us =
        settings_get_integer(&settings, "hang-timeout", 0, HANG_TIMEOUT_MAX_S) * 1000000;
    configuration->dev_open_admin = settings_get(&settings, "dev-open-admin") != NULL;
    if (configuration->dev_open_admin && !configuration->listen_is_loopback) {
        process_refuse(PROGRAM, "--dev-open-admin makes everyone an admin; it needs --listen on a loopback "
                                "address, such as 127.0.0.1:8080");
    }
    read_data_dir(configuration);
    read_shop();
    configuration_read_http(&settings, configuration);
    configuration_read_gate(&settings, configuration);
    read_store(configuration);
}

/* --- with the data folder's lock held ------------------------------------------------------------------------------------------------ */
static void make_secret_file(const char *path, unsigned char secret[SECRET_FILE_BYTES])
{
    randombytes_buf(secret, SECRET_FILE_BYTES);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, secret, SECRET_FILE_BYTES) != SECRET_FILE_BYTES || fsync(fd) != 0) {
        process_refuse(PROGRAM, "cannot write the secret key to %s: %s", path, strerror(errno));
    }
    close(fd);
}

static void read_secret(struct server_configuration *configuration)
{
    const char *given = settings_get(&settings, "JWT_SECRET_KEY");
    if (given != NULL) {
        size_t bytes = strlen(given);
        if (bytes < JWT_SECRET_BYTES_MIN || bytes > SERVER_SECRET_BYTES_MAX) {
            process_refuse(PROGRAM, "JWT_SECRET_KEY has %zu bytes; it must have %d to %d", bytes,
                           JWT_SECRET_BYTES_MIN, SERVER_SECRET_BYTES_MAX);
        }
        memcpy(configuration->secret, given, bytes);
        configuration->secret_bytes = bytes;
        return;
    }
    char path[4200];
    snprintf(path, sizeof path, "%s/" PROCESS_SECRET_KEY, configuration->data_dir);
    configuration->secret_bytes = SECRET_FILE_BYTES;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        make_secret_file(path, configuration->secret);
        return;
    }
    if (fd < 0 || read(fd, configuration->secret, SECRET_FILE_BYTES) != SECRET_FILE_BYTES) {
        process_refuse(
            PROGRAM,
            "cannot read the secret key from %s: %s; mend or remove it (removing it ends all sessions)", path,
            fd < 0 ? strerror(errno) : "it is too short");
    }
    close(fd);
}

/* A database somewhere else may just be starting again, and is waited for; what else is wrong somebody has to mend. Whether it is away is asked
 * after it was found so, when it may have come: then it is tried once more. */
static struct store *open_store(const char *url)
{
    char error[512];
    struct store *store;
    bool was_away = true;
    struct patience patience = patience_begin(STORE_PATIENCE_MS);
    while (store_open(&store, url, STORE_WRITER, error, sizeof error) != STORE_OK) {
        bool is_away = store_is_away(url);
        if (!is_away && !was_away) {
            process_refuse(PROGRAM, "%s", error);
        }
        if (is_away && !patience_wait(&patience, error)) {
            process_give_up(PROGRAM, "%s", error);
        }
        was_away = is_away;
    }
    return store;
}

/* Makes it and brings its schema up to date; closed again before the first fork. */
static void claim_store(struct server_configuration *configuration)
{
    struct store_position position;
    struct store *store = open_store(configuration->store_url);
    /* The Lua gate's recorder makes it that gate's when it attaches. */
    if ((configuration->place.kind == GATE_REDLOCK && store_take_over(store) != STORE_OK) ||
        store_position(store, &position) != STORE_OK) {
        /* It was there, so no setting is bad. */
        process_give_up(PROGRAM, "cannot begin with the store: %s", store_error(store));
    }
    configuration->store_id = position.store_id;
    store_close(&store);
}

static bool read_id(const char *path, uint64_t *id)
{
    char text[ID_DIGITS + 1] = "", *end;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool whole = read(fd, text, ID_DIGITS) == ID_DIGITS && strspn(text, "0123456789abcdef") == ID_DIGITS;
    close(fd);
    *id = whole ? strtoull(text, &end, 16) : 0;
    return whole;
}

/* Under another name first: a server killed meanwhile leaves no half an id. */
static void make_id(const char *path, uint64_t *id)
{
    char half[4300], text[ID_DIGITS + 2];
    randombytes_buf(id, sizeof *id);
    int bytes = snprintf(text, sizeof text, "%0*" PRIx64 "\n", ID_DIGITS, *id);
    snprintf(half, sizeof half, "%s.new", path);
    int fd = open(half, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)bytes) != bytes || fsync(fd) != 0 || rename(half, path) != 0) {
        process_refuse(PROGRAM, "cannot write the server's id to %s: %s", path, strerror(errno));
    }
    close(fd);
}

/* The id tells our own locks on the nodes, those of our dead, from other servers'. A new one does no harm: those locks end by themselves. */
static void claim_id(struct server_configuration *configuration)
{
    char path[4200];
    struct gate_holder *holder = &configuration->holder;
    snprintf(path, sizeof path, "%s/server.id", configuration->data_dir);
    if (!read_id(path, &holder->server)) {
        if (access(path, F_OK) == 0) {
            log_warn("%s is no server's id; making a new one", path);
        }
        make_id(path, &holder->server);
    }
    randombytes_buf(&holder->run, sizeof holder->run);
}

void configuration_claim(struct server_configuration *configuration)
{
    read_secret(configuration);
    claim_store(configuration);
    claim_id(configuration);
}
