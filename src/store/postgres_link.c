/* One connection to PostgreSQL: made, watched, lost; and rounds of commands on it.
 *
 * Runs in whatever thread owns the store at the time. Owns the PGconn and the list of commands that have no answer yet.
 *
 *   gone --postgres_ready()--> settled: session, schema --> pipeline mode: rounds --+
 *     ^                                                        ^--------------------+
 *     +-- cut, silent beyond the deadline, out of memory, something that libpq does not expect
 *
 * Nothing blocks: every wait is a poll() with a deadline that calls store_tell_waiting(); only looking a host's name up is the system's, with its own
 * patience. A connection on which a call was given up is closed: nobody can say what would still come on it. What PostgreSQL had begun of it ends by the
 * session's own limits (statement_timeout, idle_in_transaction_session_timeout, keepalives), so that no lock outlives its holder by more than some seconds.
 *
 * Failure: false, and what was said is kept for postgres_fail(). A password is in the URL only, and that is never part of a message. */
#include "postgres.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_AT_ONCE_MS 50 /* between two signs of life */
#define CONNECT_MS_MAX 60000
#define VERSION_MIN 130000
#define CANNOT_CONNECT                                                                                       \
    "08001" /* also what PostgreSQL says before it lets anybody in, for which libpq gives no SQLSTATE */
#define DIVISION_BY_ZERO "22012" /* ALL_OR_NONE in postgres_sentences.c */
/* Of the sessions, as POSTGRES_STATEMENT_MS_TEXT. */
#define LOCK_TIMEOUT "4000"
#define IDLE_WRITER                                                                                          \
    "1000" /* a writer that stops within a transaction holds all others up, the next recorder too */
#define VANISHED_MS "3000"

/* --- faults --- */
bool postgres_fault(struct postgres_store *store, const char *state, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(store->message, sizeof store->message, format, arguments);
    va_end(arguments);
    snprintf(store->state, sizeof store->state, "%s", state);
    return false;
}

/* As one line without an end. libpq's messages have several: those that are indented only guess at the reason. */
static void copy_line(char *out, size_t out_bytes, const char *text)
{
    size_t used = 0;
    while (*text != '\0' && used + 2 < out_bytes) {
        size_t bytes = strcspn(text, "\n");
        if (text[0] != '\t' && bytes > 0)
            used += (size_t)snprintf(out + used, out_bytes - used, "%s%.*s", used > 0 ? "; " : "", (int)bytes,
                                     text);
        text += bytes + (text[bytes] != '\0');
    }
    used = used < out_bytes ? used : out_bytes - 1;
    while (used > 0 && strchr(" .:", out[used - 1]) != NULL)
        used--;
    out[used] = '\0';
}

static bool lose(struct postgres_store *store, const char *why)
{
    char line[sizeof store->message - 32];
    copy_line(line, sizeof line, why);
    postgres_fault(store, "08006", "%s", line[0] == '\0' ? "the connection was cut" : line);
    postgres_disconnect(store);
    return false;
}

static bool lose_by_libpq(struct postgres_store *store)
{
    return lose(store, PQerrorMessage(store->connection));
}

static bool note_result(struct postgres_store *store, const PGresult *result)
{
    char line[sizeof store->message];
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    copy_line(line, sizeof line, primary != NULL ? primary : PQresultErrorMessage(result));
    return postgres_fault(store, state == NULL ? "" : state, "%s", line);
}

struct advice {
    const char *state; /* or its first two characters: a class */
    const char *text;
};

static const char *advice(const char *state)
{
    static const struct advice all[] = {
        {CANNOT_CONNECT,
         "; PostgreSQL must run there, have the database, and let this role in (pg_hba.conf)"},
        {"08", "; it is connected again at the next call"},
        {"25006",
         "; a standby is behind, and neither it nor a role or database that only reads can be written: "
         "name the primary"},
        {"28", "; the role or its password is wrong: look at pg_hba.conf, and at ~/.pgpass, PGPASSFILE or "
               "DATABASE_URL"},
        {"3D000", "; make the database first: createdb"},
        {"42501", "; the role needs CREATE on the database the first time, and must own the shop's schema"},
        {"53100", "; make room on PostgreSQL's disk"},
        {"53300", "; raise max_connections, or run fewer workers"},
        {"55P03",
         "; another session holds the store's row for seconds: pg_stat_activity and pg_locks name it"},
        {"57014", "; PostgreSQL is overloaded or its disk hangs"},
        {"57P", "; it is connected again at the next call"},
        {"58", "; the disk may be full or failing, PostgreSQL's log says more"},
        {"XX", "; the database is damaged: PostgreSQL's log says more, restore a backup"},
        {"22012",
         ": somebody has changed the books by hand in this moment; they are read anew at the next call"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strncmp(state, all[i].state, strlen(all[i].state)) == 0)
            return all[i].text;
    }
    return "";
}

enum store_status postgres_fail(struct store *base, const char *doing)
{
    struct postgres_store *store = postgres_of(base);
    const char *in_doubt =
        store->commit_is_open ? " (the answer to COMMIT was lost: it may have been done)" : "";
    store->commit_is_open = false;
    return store_refuse(base, "%s in %s failed: %s%s%s", doing, store->where, store->message,
                        advice(store->state), in_doubt);
}

/* --- waiting --- */
static bool wait_for(struct postgres_store *store, short events, int64_t deadline_us, int timeout_ms)
{
    for (;;) {
        int64_t left_ms = (deadline_us - clock_monotonic_us() + 999) / 1000;
        if (left_ms <= 0) {
            char why[64];
            snprintf(why, sizeof why, "no answer within %d.%d s", timeout_ms / 1000, timeout_ms % 1000 / 100);
            return lose(store, why);
        }
        struct pollfd wanted = {.fd = PQsocket(store->connection), .events = events};
        int ready = poll(&wanted, 1, (int)(left_ms < WAIT_AT_ONCE_MS ? left_ms : WAIT_AT_ONCE_MS));
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return lose(store, strerror(errno));
        store_tell_waiting();
    }
}

/* The next result; NULL where libpq has one of those. */
static bool next_result(struct postgres_store *store, int64_t deadline_us, int timeout_ms, PGresult **out)
{
    while (PQisBusy(store->connection)) {
        int unsent = PQflush(store->connection);
        if (unsent < 0)
            return lose_by_libpq(store);
        if (!wait_for(store, (short)(POLLIN | (unsent > 0 ? POLLOUT : 0)), deadline_us, timeout_ms))
            return false;
        if (!PQconsumeInput(store->connection))
            return lose_by_libpq(store);
    }
    *out = PQgetResult(store->connection);
    return true;
}

/* --- the URL --- */
PQconninfoOption *postgres_parse(const char *url, char *error, size_t error_bytes)
{
    static const char form[] =
        "it may be postgresql://USER@HOST:PORT/DATABASE or postgresql:///DATABASE?host=/SOCKET/FOLDER";
    char *said = NULL;
    if (strncmp(url, "postgresql://", 13) != 0 && strncmp(url, "postgres://", 11) != 0) {
        snprintf(error, error_bytes, "the store's URL begins like PostgreSQL's, but is none; %s", form);
        return NULL;
    }
    PQconninfoOption *options = PQconninfoParse(url, &said);
    if (options == NULL) {
        /* What is behind the colon is quoted from the URL: a piece of a password, perhaps. */
        size_t bytes = said == NULL ? 0 : strcspn(said, ":\"\n");
        snprintf(error, error_bytes, "the store's URL is none of PostgreSQL's%s%.*s%s; %s",
                 bytes > 0 ? " (" : "", (int)bytes, said == NULL ? "" : said, bytes > 0 ? ")" : "", form);
    }
    PQfreemem(said);
    return options;
}

static const char *value_of(const PQconninfoOption *options, const char *keyword)
{
    for (; options != NULL && options->keyword != NULL; options++) {
        if (strcmp(options->keyword, keyword) == 0)
            return options->val != NULL && options->val[0] != '\0' ? options->val : NULL;
    }
    return NULL;
}

/* "doorbuster on db.example:5432". */
static void name_place(struct postgres_store *store)
{
    const char *shop = store_shop();
    bool is_usual = strcmp(shop, "doorbuster") == 0;
    snprintf(store->where, sizeof store->where, "%.60s on %.80s:%.8s%s%s", PQdb(store->connection),
             PQhost(store->connection), PQport(store->connection), is_usual ? "" : ", shop ",
             is_usual ? "" : shop);
}

/* --- connecting --- */
static void notice_cb(void *context, const PGresult *notice)
{
    struct postgres_store *store = context;
    const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity == NULL || strcmp(severity, "WARNING") != 0)
        return;
    char line[sizeof store->message];
    const char *primary = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
    copy_line(line, sizeof line, primary != NULL ? primary : "");
    log_warn("store: %s warns: %s", store->where, line);
    store->warned = true;
}

/* Those of the URL come after ours, and win. */
static bool begin_connecting(struct postgres_store *store)
{
    static const char *const keywords[] = {
        "keepalives",       "keepalives_idle",  "keepalives_interval",
        "keepalives_count", "tcp_user_timeout", "fallback_application_name",
        "dbname",           "client_encoding",  NULL};
    const char *const values[] = {"1", "1", "1", "2", VANISHED_MS, "doorbuster", store->url, "UTF8", NULL};
    store->connection = PQconnectStartParams(keywords, values, 1);
    if (store->connection == NULL)
        return postgres_fault(store, "", "out of memory");
    name_place(store);
    PQsetNoticeReceiver(store->connection, notice_cb, store);
    return PQstatus(store->connection) != CONNECTION_BAD || lose_by_libpq(store);
}

/* As the URL says; else a call's time for each host that it names: those that are gone take 3 s each. */
static int connect_timeout_ms(struct postgres_store *store)
{
    PQconninfoOption *options = PQconninfo(store->connection);
    const char *given = value_of(options, "connect_timeout"), *hosts = value_of(options, "host");
    long ms = given == NULL ? 0 : 1000 * strtol(given, NULL, 10);
    if (ms <= 0) {
        ms = POSTGRES_CALL_MS;
        for (; hosts != NULL && (hosts = strchr(hosts, ',')) != NULL; hosts++)
            ms += POSTGRES_CALL_MS;
    }
    PQconninfoFree(options);
    return (int)(ms < CONNECT_MS_MAX ? ms : CONNECT_MS_MAX);
}

static bool connect_by(struct postgres_store *store, int64_t deadline_us, int timeout_ms)
{
    PostgresPollingStatusType wants = PGRES_POLLING_WRITING;
    while (wants != PGRES_POLLING_OK) {
        if (wants == PGRES_POLLING_FAILED)
            return lose_by_libpq(store);
        if (!wait_for(store, wants == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_us, timeout_ms))
            return false;
        wants = PQconnectPoll(store->connection);
    }
    name_place(store); /* of several hosts it is one now */
    return PQsetnonblocking(store->connection, 1) == 0 || lose_by_libpq(store);
}

PGresult *postgres_execute(struct postgres_store *store, const char *sql, int timeout_ms)
{
    int64_t deadline_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    PGresult *last = NULL, *result;
    if (!PQsendQuery(store->connection, sql)) {
        lose_by_libpq(store);
        return NULL;
    }
    for (;;) {
        if (!next_result(store, deadline_us, timeout_ms, &result)) {
            PQclear(last);
            return NULL;
        }
        if (result == NULL)
            break;
        if (last == NULL || PQresultStatus(last) != PGRES_FATAL_ERROR) {
            PQclear(last);
            last = result;
        } else {
            PQclear(result);
        }
    }
    if (last != NULL && PQresultStatus(last) != PGRES_FATAL_ERROR)
        return last;
    if (PQstatus(store->connection) == CONNECTION_BAD)
        lose_by_libpq(store);
    else if (last != NULL)
        note_result(store, last);
    PQclear(last);
    return NULL;
}

/* What a commit promises must be on the disk; nothing may be waited for without end, on either side. */
static bool begin_session(struct postgres_store *store)
{
    enum { ENCODING = 13, FSYNC, IN_RECOVERY, BACKEND }; /* columns */
    char sql[1700];
    bool writes = store->base.mode == STORE_WRITER;
    snprintf(
        sql, sizeof sql,
        "SELECT set_config('search_path', '\"%s\"', false), set_config('synchronous_commit',"
        " CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, "
        "false),"
        " set_config('statement_timeout', '" POSTGRES_STATEMENT_MS_TEXT "', false),"
        " set_config('lock_timeout', '" LOCK_TIMEOUT "', false),"
        " set_config('idle_in_transaction_session_timeout', '%s', false),"
        " set_config('default_transaction_read_only', '%s', false),"
        " set_config('default_transaction_isolation', 'read committed', false), "
        "set_config('doorbuster.writes', 'yes', false), set_config('client_min_messages', 'warning', false),"
        " set_config('tcp_keepalives_idle', '1', false), set_config('tcp_keepalives_interval', '1', false),"
        " set_config('tcp_keepalives_count', '2', false), set_config('tcp_user_timeout', '" VANISHED_MS
        "', false),"
        " current_setting('server_encoding'), current_setting('fsync'), pg_is_in_recovery(),"
        " pg_backend_pid()",
        store_shop(), writes ? IDLE_WRITER : POSTGRES_SCAN_MS_TEXT, writes ? "off" : "on");
    PGresult *row = postgres_execute(store, sql, POSTGRES_CALL_MS);
    if (row == NULL)
        return false;
    const char *encoding = PQgetvalue(row, 0, ENCODING);
    bool sound = true;
    if (PQserverVersion(store->connection) < VERSION_MIN)
        sound = postgres_fault(store, "", "it is PostgreSQL %d; 13 or later is needed",
                               PQserverVersion(store->connection) / 10000);
    else if (strtol(PQgetvalue(row, 0, BACKEND), NULL, 10) != PQbackendPID(store->connection))
        /* What is set for a session, the shop's schema first of all, would be set for whoever gets it next. */
        sound = postgres_fault(store, "",
                               "a pooler (pgbouncer?) stands in between, which may hand a session from one "
                               "client to another; name PostgreSQL itself");
    else if (strcmp(encoding, "UTF8") != 0 && strcmp(encoding, "SQL_ASCII") != 0)
        sound = postgres_fault(
            store, "", "its encoding is %.20s; make the database with --encoding=UTF8 --template=template0",
            encoding);
    else if (strcmp(PQgetvalue(row, 0, IN_RECOVERY), "t") ==
             0) /* for readers too: what it has not replayed they would not find */
        sound = postgres_fault(store, "25006", "it is a standby");
    if (sound && writes && strcmp(PQgetvalue(row, 0, FSYNC), "on") != 0)
        log_warn("store: %s runs with fsync off: what buyers were promised does not survive a power failure",
                 store->where);
    PQclear(row);
    return sound;
}

static bool settle(struct postgres_store *store)
{
    int timeout_ms = connect_timeout_ms(store);
    if (!connect_by(store, clock_monotonic_us() + (int64_t)timeout_ms * 1000, timeout_ms) ||
        !begin_session(store) || !postgres_claim_schema(store))
        return false;
    return PQenterPipelineMode(store->connection) == 1 || lose_by_libpq(store);
}

void postgres_disconnect(struct postgres_store *store)
{
    PQfinish(store->connection);
    store->connection = NULL;
    store->edited = true;
    store->scan = SQL_STATEMENTS;
    store->round.count = 0;
    memset(store->prepared, 0, sizeof store->prepared);
}

/* Nothing comes unasked but notices, and the word that it ends, behind which it is closed. */
static bool still_lives(struct postgres_store *store)
{
    struct pollfd unasked = {.fd = PQsocket(store->connection), .events = POLLIN};
    while (poll(&unasked, 1, 0) > 0) {
        if (!PQconsumeInput(store->connection) || PQisBusy(store->connection) ||
            PQstatus(store->connection) != CONNECTION_OK)
            return false;
    }
    return true;
}

bool postgres_ready(struct postgres_store *store)
{
    CHECK(store->owner_pid == (long)getpid());
    if (store->connection != NULL && still_lives(store))
        return true;
    postgres_disconnect(store);
    postgres_forget_answers(store);
    if (begin_connecting(store) && settle(store))
        return true;
    if (store->connection == NULL) /* not refused by PostgreSQL for a reason of its own */
        snprintf(store->state, sizeof store->state, CANNOT_CONNECT);
    postgres_disconnect(store);
    return false;
}

/* --- rounds --- */
static bool push(struct postgres_store *store, enum postgres_job job, size_t index)
{
    struct postgres_round *round = &store->round;
    if (round->count == round->capacity) {
        size_t capacity = round->capacity == 0 ? 64 : 2 * round->capacity;
        struct postgres_command *larger = realloc(round->commands, capacity * sizeof *larger);
        if (larger == NULL)
            return false;
        round->commands = larger;
        round->capacity = capacity;
    }
    round->commands[round->count++] = (struct postgres_command){job, index};
    return true;
}

/* What was sent but cannot be noted would shift all answers. */
static bool note_sent(struct postgres_store *store, int sent, enum postgres_job job, size_t index)
{
    if (!sent)
        return lose_by_libpq(store);
    return push(store, job, index) || lose(store, "out of memory");
}

bool postgres_put_script(struct postgres_store *store, const char *sql, enum postgres_job job)
{
    if (store->connection == NULL)
        return false;
    store->commit_is_open = store->commit_is_open || job == JOB_COMMIT;
    return note_sent(store, PQsendQueryParams(store->connection, sql, 0, NULL, NULL, NULL, NULL, 1), job, 0);
}

static const int binary[POSTGRES_PARAMETERS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

bool postgres_put_query(struct postgres_store *store, const char *sql, int count, const Oid *types,
                        const char *const *values, const int *lengths)
{
    return store->connection != NULL &&
           note_sent(store,
                     PQsendQueryParams(store->connection, sql, count, types, values, lengths, binary, 1),
                     JOB_SCRIPT, 0);
}

bool postgres_put_fetch(struct postgres_store *store, enum sql_statement statement)
{
    char sql[40];
    snprintf(sql, sizeof sql, "FETCH %d FROM scan", POSTGRES_SCAN_ROWS);
    return store->connection != NULL &&
           note_sent(store, PQsendQueryParams(store->connection, sql, 0, NULL, NULL, NULL, NULL, 1),
                     JOB_ANSWER, statement);
}

bool postgres_put(struct postgres_store *store, size_t name, const char *sql, enum postgres_job job,
                  size_t index, int count, const Oid *types, const char *const *values, const int *lengths)
{
    char text[16];
    snprintf(text, sizeof text, "s%zu", name);
    if (store->connection == NULL)
        return false;
    if (store->prepared[name] == NOT_PREPARED) {
        if (!note_sent(store, PQsendPrepare(store->connection, text, sql, count, types), JOB_PREPARE, name))
            return false;
        store->prepared[name] = PREPARING;
    }
    return note_sent(store, PQsendQueryPrepared(store->connection, text, count, values, lengths, binary, 1),
                     job, index);
}

/* The row of `state` is locked. Have the products been changed by a hand since the last time? If the transaction believes that they were not, it is over. */
static void take_lock(struct postgres_store *store, const PGresult *row)
{
    int64_t edits = postgres_int_of(row, 0, 0);
    bool is_mistaken = store->is_trusted && edits != store->edits;
    store->edited = store->edited || edits != store->edits;
    store->edits = edits;
    if (is_mistaken) {
        store->was_mistaken = true;
        store->round.failed =
            !postgres_fault(store, "", "somebody has changed products by hand in between; once more");
    }
}

/* Takes an answer over or frees it. */
static void take_answer(struct postgres_store *store, const struct postgres_command *command,
                        PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    bool done = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
    if (!done && status != PGRES_PIPELINE_ABORTED && !store->round.failed)
        note_result(store, result);
    store->round.failed = store->round.failed || !done;
    if (command->job == JOB_COMMIT) {
        store->commit_is_open = false;
        /* Of a transaction that has failed before, COMMIT is a rollback. */
        if (done && strcmp(PQcmdStatus(result), "COMMIT") != 0)
            store->round.failed = !postgres_fault(store, "25P02", "the transaction had failed before");
    } else if (command->job == JOB_LOCK && done) {
        take_lock(store, result);
    } else if (command->job == JOB_BATCH && !done && strcmp(store->state, DIVISION_BY_ZERO) == 0) {
        store->was_mistaken = true; /* ALL_OR_NONE */
    } else if (command->job == JOB_PREPARE) {
        store->prepared[command->index] = done ? PREPARED : NOT_PREPARED;
    } else if (command->job == JOB_ANSWER && done) {
        store->statements[command->index].result = result;
        store->changes = strtoll(PQcmdTuples(result), NULL, 10);
        return;
    } else if (command->job == JOB_EXPECTED && done) {
        store->expected.each[command->index].answer = result;
        return;
    }
    PQclear(result);
}

static bool take_answers(struct postgres_store *store, int64_t deadline_us, int timeout_ms)
{
    size_t at = 0;
    bool was_between = false; /* libpq says NULL between two commands; twice: it has no more */
    for (;;) {
        PGresult *result;
        if (!next_result(store, deadline_us, timeout_ms, &result))
            return false;
        if (result == NULL) {
            if (was_between || PQstatus(store->connection) == CONNECTION_BAD)
                return lose_by_libpq(store);
            was_between = true;
            continue;
        }
        was_between = false;
        if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            return at == store->round.count || lose(store, "an answer is missing");
        }
        if (PQstatus(store->connection) == CONNECTION_BAD || at == store->round.count) {
            PQclear(result);
            return lose_by_libpq(store);
        }
        take_answer(store, &store->round.commands[at++], result);
    }
}

bool postgres_run_round(struct postgres_store *store, int timeout_ms)
{
    if (store->connection == NULL)
        return false;
    int64_t deadline_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    store->round.failed = store->warned = false;
    if (!PQpipelineSync(store->connection))
        return lose_by_libpq(store);
    bool whole = take_answers(store, deadline_us, timeout_ms);
    store->round.count = 0;
    return whole && !store->round.failed;
}
