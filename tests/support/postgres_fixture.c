/* See postgres_fixture.h. The test process; owns the cluster's folder and its postmaster; kills nothing but that recorded pid and its children. */
#include "postgres_fixture.h"

#include "run.h"
#include "tcp_redis.h"
#include "testing.h"

#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER "postgres"
#define PORT_OF_SOCKET 5432
#define MAKE_TIMEOUT_MS 60000
#define START_TIMEOUT_MS 30000
#define PROGRAM_BYTES 128
#define CHILDREN_MAX 128
#define ARGUMENTS_MAX 24

/* Kept from one question to the next; the sentences come one at a time. */
static struct {
    PGconn *connection;
    char url[POSTGRES_URL_BYTES];
    pid_t owner;
} kept;

static void let_go(void)
{
    if (kept.owner == getpid()) {
        PQfinish(kept.connection);
    }
    kept.connection = NULL;
}

/* Of the newest PostgreSQL that is installed. */
static void find_program(const char *name, char out[PROGRAM_BYTES])
{
    char pattern[PROGRAM_BYTES];
    glob_t found;
    snprintf(pattern, sizeof pattern, "/usr/lib/postgresql/*/bin/%s", name);
    if (glob(pattern, 0, NULL, &found) != 0) {
        fail_msg("PostgreSQL's %s is not installed: scripts/deps.sh test", name);
    }
    snprintf(out, PROGRAM_BYTES, "%s", found.gl_pathv[found.gl_pathc - 1]);
    globfree(&found);
}

static size_t put_user(const char *argv[ARGUMENTS_MAX])
{
    static const char *const as_user[] = {"/usr/bin/setpriv", "--reuid=" USER, "--regid=" USER,
                                          "--init-groups"};
    size_t count = geteuid() == 0 ? sizeof as_user / sizeof as_user[0] : 0;
    memcpy(argv, as_user, count * sizeof argv[0]);
    return count;
}

static void make_cluster(const struct postgres_fixture *fixture)
{
    char initdb[PROGRAM_BYTES], data[FOLDER_BYTES + 8];
    const char *argv[ARGUMENTS_MAX];
    find_program("initdb", initdb);
    snprintf(data, sizeof data, "%s/data", fixture->folder);
    const char *const rest[] = {initdb,      "-D",
                                data,        "-U",
                                USER,        "-A",
                                "trust",     "-E",
                                "UTF8",      "--locale=C.UTF-8",
                                "--no-sync", "--no-instructions",
                                NULL};
    size_t count = put_user(argv);
    memcpy(argv + count, rest, sizeof rest);
    struct run_result made = program_run(argv, NULL, MAKE_TIMEOUT_MS);
    if (made.exit_code != 0) {
        fail_msg("initdb: %s%s", made.out, made.err);
    }
    run_result_free(&made);
}

/* By hand, for a change of user takes the signal away that it gets when we die. */
static pid_t start_as_user(const char *const *argv, int log_fd)
{
    const struct passwd *user = geteuid() == 0 ? getpwnam(USER) : NULL;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) {
        return pid;
    }
    bool is_user = user == NULL || (initgroups(USER, user->pw_gid) == 0 && setgid(user->pw_gid) == 0 &&
                                    setuid(user->pw_uid) == 0);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    signal(SIGINT, SIG_DFL);
    if (!is_user || dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0) {
        _exit(126);
    }
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

static void launch(struct postgres_fixture *fixture)
{
    char server[PROGRAM_BYTES], data[FOLDER_BYTES + 8], sockets[FOLDER_BYTES + 40], listen[64], port[16];
    find_program("postgres", server);
    snprintf(data, sizeof data, "%s/data", fixture->folder);
    snprintf(sockets, sizeof sockets, "unix_socket_directories=%s", fixture->folder);
    snprintf(listen, sizeof listen, "listen_addresses=%s", fixture->port > 0 ? "127.0.0.1" : "");
    snprintf(port, sizeof port, "port=%d", fixture->port > 0 ? fixture->port : PORT_OF_SOCKET);
    const char *const rest[] = {server,
                                "-D",
                                data,
                                "-c",
                                sockets,
                                "-c",
                                listen,
                                "-c",
                                port,
                                "-c",
                                "fsync=on",
                                "-c",
                                "max_connections=100",
                                "-c",
                                "log_min_messages=fatal",
                                NULL};
    /* what it says belongs to nobody; when it does not start the reason is in the failing connection */
    FILE *log = tmpfile();
    assert_non_null(log);
    fixture->pid = start_as_user(rest, fileno(log));
    fclose(log);
}

static void url_of(const struct postgres_fixture *fixture, const char *database, char url[POSTGRES_URL_BYTES])
{
    if (fixture->port > 0) {
        snprintf(url, POSTGRES_URL_BYTES, "postgresql://" USER "@127.0.0.1:%d/%s", fixture->port, database);
    } else {
        snprintf(url, POSTGRES_URL_BYTES, "postgresql:///%s?host=%s&user=" USER, database, fixture->folder);
    }
}

static void wait_until_it_answers(const struct postgres_fixture *fixture)
{
    char url[POSTGRES_URL_BYTES];
    int64_t deadline = deadline_in(START_TIMEOUT_MS);
    url_of(fixture, "postgres", url);
    while (PQping(url) != PQPING_OK) {
        int status;
        if (!wait_a_moment(deadline) || waitpid(fixture->pid, &status, WNOHANG) != 0) {
            fail_msg("PostgreSQL in %s does not answer", fixture->folder);
        }
    }
}

void postgres_fixture_start(struct postgres_fixture *fixture, bool on_tcp)
{
    *fixture = (struct postgres_fixture){.owner = getpid()};
    folder_make(fixture->folder);
    if (geteuid() == 0) {
        const struct passwd *user = getpwnam(USER);
        assert_non_null(user); /* its package makes it */
        assert_int_equal(chown(fixture->folder, user->pw_uid, user->pw_gid), 0);
    }
    fixture->port = on_tcp ? free_port() : 0;
    make_cluster(fixture);
    postgres_fixture_restart(fixture);
}

void postgres_fixture_restart(struct postgres_fixture *fixture)
{
    launch(fixture);
    wait_until_it_answers(fixture);
}

void postgres_fixture_stop(struct postgres_fixture *fixture)
{
    let_go();
    kill(fixture->pid, SIGINT);
    program_wait(fixture->pid, START_TIMEOUT_MS);
    fixture->pid = 0;
}

/* As in /proc/PID/stat: 'T' for one that is stopped; 0: there is none. */
static char state_of(pid_t pid)
{
    char path[32], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    bool known = file != NULL && fgets(line, sizeof line, file) != NULL;
    if (file != NULL) {
        fclose(file);
    }
    const char *name_end = strrchr(line, ')');
    return known && name_end != NULL ? name_end[2] : 0;
}

static bool is_alive(pid_t pid)
{
    char state = state_of(pid);
    return state != 0 && state != 'Z'; /* whoever is its parent now may take his time */
}

/* The postmaster stops first, so that it makes no more of them: not when it is told to, but when it does. Its children are listed only as long as it is there. */
static size_t stop_all(const struct postgres_fixture *fixture, pid_t pids[CHILDREN_MAX])
{
    char path[64], line[4096] = "";
    size_t count = 0;
    kill(fixture->pid, SIGSTOP);
    int64_t deadline = deadline_in(START_TIMEOUT_MS);
    while (state_of(fixture->pid) != 'T') {
        assert_true(wait_a_moment(deadline));
    }
    pids[count++] = fixture->pid;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)fixture->pid, (int)fixture->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    if (fgets(line, sizeof line, file) == NULL) {
        line[0] = '\0';
    }
    fclose(file);
    char *at = line, *end;
    for (long pid = strtol(at, &end, 10); end != at && count < CHILDREN_MAX; pid = strtol(at, &end, 10)) {
        pids[count++] = (pid_t)pid;
        at = end;
    }
    for (size_t i = 1; i < count; i++) {
        kill(pids[i], SIGSTOP);
    }
    return count;
}

void postgres_fixture_kill(struct postgres_fixture *fixture)
{
    pid_t pids[CHILDREN_MAX];
    let_go();
    size_t count = stop_all(fixture, pids);
    for (size_t i = 0; i < count; i++) {
        kill(pids[i], SIGKILL);
    }
    waitpid(fixture->pid, NULL, 0);
    int64_t deadline = deadline_in(START_TIMEOUT_MS);
    for (size_t i = 1; i < count; i++) { /* one that is left keeps the next from starting */
        while (is_alive(pids[i])) {
            assert_true(wait_a_moment(deadline));
        }
    }
    fixture->pid = 0;
}

void postgres_fixture_freeze(const struct postgres_fixture *fixture)
{
    pid_t pids[CHILDREN_MAX];
    stop_all(fixture, pids);
}

void postgres_fixture_thaw(const struct postgres_fixture *fixture)
{
    pid_t pids[CHILDREN_MAX];
    size_t count = stop_all(fixture, pids);
    for (size_t i = count; i-- > 0;) {
        kill(pids[i], SIGCONT);
    }
}

void postgres_fixture_end(struct postgres_fixture *fixture)
{
    if (fixture->folder[0] == '\0' || fixture->owner != getpid()) {
        return;
    }
    let_go();
    if (fixture->pid != 0) {
        postgres_fixture_thaw(fixture);
        kill(fixture->pid, SIGQUIT);
        waitpid(fixture->pid, NULL, 0);
    }
    folder_remove(fixture->folder);
    *fixture = (struct postgres_fixture){0};
}

/* --- behind the store's back --- */
static PGconn *connect_to(const char *url)
{
    bool is_it = kept.connection != NULL && kept.owner == getpid() && strcmp(kept.url, url) == 0;
    if (is_it && PQstatus(kept.connection) == CONNECTION_OK) {
        return kept.connection;
    }
    let_go();
    kept.owner = getpid();
    snprintf(kept.url, sizeof kept.url, "%s", url);
    kept.connection = PQconnectdb(url);
    if (PQstatus(kept.connection) != CONNECTION_OK) {
        fail_msg("%s: %s", url, PQerrorMessage(kept.connection));
    }
    return kept.connection;
}

static PGresult *try_it(PGconn *connection, const char *sql, bool *forbidden)
{
    PGresult *result = PQexec(connection, sql);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    *forbidden = state != NULL && strncmp(state, "23", 2) == 0;
    if (!*forbidden && PQresultStatus(result) != PGRES_COMMAND_OK &&
        PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_EMPTY_QUERY) {
        fail_msg("%s: %s", sql, PQresultErrorMessage(result));
    }
    return result;
}

static bool edit(const char *url, const char *first, const char *sql)
{
    bool forbidden;
    PGconn *connection = connect_to(url);
    PQclear(try_it(connection, first, &forbidden));
    PQclear(try_it(connection, sql, &forbidden));
    return !forbidden;
}

bool postgres_fixture_try(const char *url, const char *sql)
{
    return edit(url, "SET search_path = doorbuster, public; SET session_replication_role = origin", sql);
}

bool postgres_fixture_edit(const char *url, const char *sql)
{
    return edit(url, "SET search_path = doorbuster, public; SET session_replication_role = replica", sql);
}

void postgres_fixture_do(const char *url, const char *sql)
{
    assert_true(postgres_fixture_try(url, sql));
}

long long postgres_fixture_ask(const char *url, const char *sql)
{
    bool forbidden;
    PGconn *connection = connect_to(url);
    PQclear(try_it(connection, "SET search_path = doorbuster, public; SET session_replication_role = origin",
                   &forbidden));
    PGresult *row = try_it(connection, sql, &forbidden);
    long long number = PQntuples(row) > 0 ? strtoll(PQgetvalue(row, 0, 0), NULL, 10) : -1;
    PQclear(row);
    return number;
}

void postgres_fixture_new_database(struct postgres_fixture *fixture, char url[POSTGRES_URL_BYTES])
{
    char sql[64], name[24];
    url_of(fixture, "postgres", url);
    snprintf(name, sizeof name, "shop%d", ++fixture->databases);
    snprintf(sql, sizeof sql, "CREATE DATABASE %s", name);
    PGconn *connection = connect_to(url);
    bool forbidden;
    PQclear(try_it(connection, sql, &forbidden));
    url_of(fixture, name, url);
    PQclear(try_it(connect_to(url),
                   "CREATE FUNCTION public.zeroblob(integer) RETURNS bytea LANGUAGE sql AS"
                   " 'SELECT decode(repeat(''00'', $1), ''hex'')'",
                   &forbidden));
}
