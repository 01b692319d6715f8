/* What a run says: a line a round, the summary, and for a failed round a folder with its sentences, its history
 * and the logs. Owns the report's folder, which is removed after a run without a violation. */
#include "chaos.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define GOAL_MS 1000
#define GOAL_REDIS_MS 2000
#define GOAL_TTL_MS (LOCK_TTL_MS + 1000)
#define GOAL_TAKEN_OVER_MS 2000
#define GOAL_FAILED_OVER_MS 4000
#define PATH_BYTES 512
#define SENTENCES_SHOWN 6 /* on the screen */

/* Some faults are of several of these. */
enum deployment { WITH_LUA, WITH_REDLOCK, WITH_SEVERAL, DEPLOYMENTS };
static enum deployment deployment_of(enum chaos_mode mode)
{
    return is_redlock(mode) ? WITH_REDLOCK : is_several(mode) ? WITH_SEVERAL : WITH_LUA;
}

struct result {
    const struct fault *faults[ROUND_FAULTS_MAX];
    size_t fault_count;
    int64_t recovery_ms, meeting_ms, pause_ms, back_ms, named_ms;
    unsigned flags;
    enum deployment deployment;
    bool violated, store_was_held;
};

static struct {
    char made[FOLDER_BYTES]; /* "" if the folder was given */
    const char *folder;
    FILE *acks;
    struct result *results;
    size_t count, room;
    size_t confirmed, sold_out, unavailable, broken, replayed, sold_unavailable, sold_broken, violations,
        violated_rounds;
    size_t carts, bundles, cancels, changes, changes_short;
    int64_t began_us;
} report;

void report_begin(void)
{
    char path[PATH_BYTES];
    report.folder = options.folder;
    if (report.folder == NULL) {
        folder_make(report.made);
        report.folder = report.made;
    } else if (mkdir(report.folder, 0700) != 0 && errno != EEXIST) {
        fprintf(stderr, "chaos: cannot make %s: %s\n", report.folder, strerror(errno));
        exit(2);
    }
    snprintf(path, sizeof path, "%s/acks.txt", report.folder);
    report.acks = fopen(path, "w");
    assert_non_null(report.acks);
    report.began_us = now_us();
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%5s  %-15s %-11s %-44s %6s %5s %6s %6s %6s %4s %6s %9s\n", "round", "seed", "mode", "fault",
           "201", "carts", "400", "cancel", "change", "503", "broken", "recovery");
}

void report_acks_header(unsigned store)
{
    fprintf(report.acks, "# store %u: order user product quantity (of a cart: product quantity …)\n", store);
}

/* As `verify --acks` reads it: a bundle is a line like others, what it took is not told. */
void report_acks_line(const struct sale_order *order)
{
    fprintf(report.acks, "%" PRId64 " %" PRId64, order->id, order->user_id);
    for (size_t i = 0; i < order_part_count(order); i++) {
        struct order_part part = order_part_at(order, i);
        if (!part.is_component) {
            fprintf(report.acks, " %" PRId64 " %" PRId64, part.product_id, part.quantity);
        }
    }
    fputc('\n', report.acks);
}

/* --- a failed round ------------------------------------------------------------------------------------ */
static void copy_text(const char *from, const char *folder, const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = fopen(path, "w");
    char *text = file_read(from);
    if (out != NULL) {
        fputs(text, out);
        fclose(out);
    }
    free(text);
}

static void write_request(const struct round *round, const struct request *request, FILE *out)
{
    static const char *const kinds[WISH_KINDS] = {"purchase", "cancel", "change"};
    const struct wish *wish = &history.wishes[request->wish];
    fprintf(out, "%u\t%u\t%s\t%u\t%" PRId64 "\t%d\t%" PRId64 "\t%" PRId64 "\t%d\t%d\t%" PRId64, request->wish,
            request->attempt, kinds[wish->kind], request->server + 1, buyers_user(wish->person), wish->keyed,
            request->sent_us - round->began_us, request->got_us - round->began_us, request->status,
            request->replayed, wish->order);
    for (size_t i = 0; i < wish->line_count; i++) {
        const struct wish_line *line = &wish->lines[i];
        fprintf(out, "\t%" PRId64 "x%" PRId64 "%s%" PRId64, line->quantity, round->products[line->product],
                line->is_short ? "!" : ":", line->remaining);
    }
    fputc('\n', out);
}

static void write_history(const struct round *round, const char *folder)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/history.tsv", folder);
    FILE *out = fopen(path, "w");
    if (out == NULL) {
        return;
    }
    fprintf(out,
            "# times in us from the round's start; first fault at %" PRId64 ", last at %" PRId64
            ", healed at %" PRId64 ", first sale after it at %" PRId64 "\n"
            "# lines: quantity x product : remaining, of the wish in the end; with ! it cannot be had\n"
            "wish\tattempt\tkind\tserver\tuser\tkeyed\tsent\tgot\tstatus\treplayed\torder\tlines\n",
            round->first_fault_us - round->began_us, round->fault_us - round->began_us,
            round->healed_us ? round->healed_us - round->began_us : 0,
            round->recovered_us ? round->recovered_us - round->began_us : 0);
    for (size_t i = 0; i < history.request_count; i++) {
        write_request(round, &history.requests[i], out);
    }
    fclose(out);
}

static void write_sentences(const struct round *round, FILE *out, const char *indent, size_t max)
{
    for (size_t i = 0; i < round->violations && i < max; i++) {
        fprintf(out, "%s%s\n", indent, round->sentences[i]);
    }
    if (round->violations > max) {
        fprintf(out, "%sand %zu more\n", indent, round->violations - max);
    }
}

static void copy_cluster_logs(const char *folder)
{
    static const char *const names[CLUSTER_LOGS] = {"redis1.log", "redis2.log", "sentinel1.log",
                                                    "sentinel2.log", "sentinel3.log"};
    char paths[CLUSTER_LOGS][FOLDER_BYTES + 32];
    cluster_log_paths(paths);
    for (size_t i = 0; i < CLUSTER_LOGS; i++) {
        copy_text(paths[i], folder, names[i]);
    }
}

static void keep_round(const struct round *round)
{
    char folder[PATH_BYTES - 32], path[PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/round-%u-%" PRIu64, report.folder, round->number, round->seed);
    mkdir(folder, 0700);
    snprintf(path, sizeof path, "%s/round.txt", folder);
    FILE *out = fopen(path, "w");
    if (out != NULL) {
        fprintf(out,
                "round %u, seed %" PRIu64 ", mode %s, fault %s\nreplay: scripts/chaos.sh --replay %" PRIu64
                " --mode %s --servers %u --fault %s --workers %u%s\n",
                round->number, round->seed, mode_names[round->mode], round->names, round->seed,
                mode_names[round->mode], round->servers, round->names, options.workers,
                options.keys ? "" : " --no-keys");
        write_sentences(round, out, "", VIOLATIONS_KEPT);
        fclose(out);
    }
    write_history(round, folder);
    copy_text(bench.server.log_path, folder, "server.log");
    if (round->servers > 1) {
        copy_text(bench.second.log_path, folder, "server2.log");
    }
    snprintf(path, sizeof path, "%s/redis.log", bench.redis.folder);
    if (bench.has_redis) {
        copy_text(path, folder, "redis.log");
    }
    if (round->mode == MODE_CLUSTER) {
        copy_cluster_logs(folder);
    }
    printf("       kept in %s\n", folder);
}

/* --- a round ------------------------------------------------------------------------------------------- */
static void add_result(const struct round *round)
{
    if (report.count == report.room) {
        report.room = report.room ? 2 * report.room : 256;
        report.results = realloc(report.results, report.room * sizeof *report.results);
        assert_non_null(report.results);
    }
    struct result *result = &report.results[report.count++];
    *result = (struct result){.fault_count = round->fault_count,
                              .recovery_ms = round->recovery_ms,
                              .meeting_ms = round->meeting_ms,
                              .pause_ms = round->pause_ms,
                              .back_ms = round->back_ms,
                              .named_ms = round->named_ms,
                              .flags = round->flags,
                              .violated = round->violations > 0,
                              .store_was_held = round->store_was_held,
                              .deployment = deployment_of(round->mode)};
    memcpy(result->faults, round->faults, sizeof result->faults);
    report.confirmed += history.confirmed;
    report.sold_out += history.sold_out;
    report.unavailable += history.unavailable;
    report.broken += history.broken;
    report.replayed += history.replayed;
    report.sold_unavailable += history.sold_unavailable;
    report.sold_broken += history.sold_broken;
    report.carts += history.carts;
    report.bundles += history.bundles;
    report.cancels += history.cancels;
    report.changes += history.changes;
    report.changes_short += history.changes_short;
}

void report_round(const struct round *round)
{
    char recovery[24] = "none", mode[24];
    snprintf(mode, sizeof mode, "%s%s", mode_names[round->mode], round->servers > 1 ? "/2" : "");
    if (round->recovery_ms >= 0) {
        snprintf(recovery, sizeof recovery, "%" PRId64 " ms", round->recovery_ms);
    }
    if (round->fault_count > 0) {
        add_result(round);
    }
    if (round->unasked_failover) {
        printf("       a failover that nobody asked for\n");
    }
    printf("%5u  %-15" PRIu64 " %-11s %-44s %6zu %5zu %6zu %6zu %6zu %4zu %6zu %9s  %s\n", round->number,
           round->seed, mode, round->names, history.confirmed, history.carts,
           history.sold_out + history.refused, history.cancels, history.changes, history.unavailable,
           history.broken, recovery, round->violations == 0 ? "ok" : "VIOLATION");
    report.violations += round->violations;
    report.violated_rounds += round->violations > 0;
    if (round->violations > 0) {
        write_sentences(round, stdout, "       ", SENTENCES_SHOWN);
    }
    if (round->violations > 0 || options.keep) {
        keep_round(round);
    }
}

/* --- the summary --------------------------------------------------------------------------------------- */
struct row {
    size_t rounds, violated, never, late; /* late: later than the goal of all faults of the round */
    int64_t *times;
    size_t count;
    int64_t pause_ms; /* the longest */
};

static int64_t goal_ms(unsigned flags, enum deployment deployment)
{
    if (deployment == WITH_SEVERAL) {
        return (flags & FAILED_OVER) != 0                 ? GOAL_FAILED_OVER_MS
               : (flags & (TAKEN_OVER | REDIS_DIES)) != 0 ? GOAL_TAKEN_OVER_MS
                                                          : GOAL_MS;
    }
    return (flags & OUTLASTS_TTL) != 0                           ? GOAL_TTL_MS
           : deployment == WITH_LUA && (flags & REDIS_DIES) != 0 ? GOAL_REDIS_MS
                                                                 : GOAL_MS;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void add_to_row(struct row *row, const struct result *result)
{
    row->rounds++;
    row->violated += result->violated;
    row->never += result->recovery_ms < 0;
    row->pause_ms = result->pause_ms > row->pause_ms ? result->pause_ms : row->pause_ms;
    if (result->recovery_ms >= 0) {
        row->times[row->count++] = result->recovery_ms;
        row->late += result->recovery_ms >= goal_ms(result->flags, result->deployment);
    }
}

static bool concerns(const struct result *result, const struct fault *fault)
{
    for (size_t i = 0; i < result->fault_count; i++) {
        if (result->faults[i] == fault) {
            return true;
        }
    }
    return false;
}

static void print_row(const char *name, struct row *row, int64_t goal)
{
    if (row->rounds == 0) {
        return;
    }
    qsort(row->times, row->count, sizeof *row->times, by_value);
    printf("%-32s %6zu %9zu", name, row->rounds, row->violated);
    if (row->count > 0) {
        int64_t p99 = row->times[(row->count * 99 - 1) / 100];
        printf(" %8" PRId64 " %8" PRId64 " %8" PRId64 "   < %" PRId64 " ms: %s", row->times[row->count / 2],
               p99, row->times[row->count - 1], goal,
               row->late <= row->count / 100 && row->never == 0 ? "met" : "MISSED");
        if (row->pause_ms > 0) {
            printf("; longest pause %" PRId64 " ms", row->pause_ms);
        }
    }
    printf("\n");
}

static void print_fault(const struct fault *fault, int64_t *times, enum deployment deployment)
{
    struct row row = {.times = times};
    for (size_t i = 0; i < report.count; i++) {
        const struct result *result = &report.results[i];
        if (result->deployment == deployment && concerns(result, fault)) {
            add_to_row(&row, result);
        }
    }
    print_row(fault->name, &row, goal_ms(fault->flags, deployment));
}

static void print_faults(int64_t *times, enum deployment deployment)
{
    for (size_t i = 0; i < fault_count; i++) {
        print_fault(&faults[i], times, deployment);
    }
    for (size_t i = 0; i < sweep_count(); i++) {
        print_fault(sweep_fault(i), times, deployment);
    }
}

/* Those of one deployment that have, or have not, one of these flags. */
static void print_all(const char *name, int64_t *times, enum deployment deployment, unsigned flags, bool have)
{
    struct row row = {.times = times};
    for (size_t i = 0; i < report.count; i++) {
        const struct result *result = &report.results[i];
        if (result->deployment == deployment && ((result->flags & flags) != 0) == have) {
            add_to_row(&row, result);
        }
    }
    print_row(name, &row, goal_ms(have ? flags : 0, deployment));
}

static void print_meeting(int64_t *times)
{
    size_t count = 0, held = 0;
    for (size_t i = 0; i < report.count; i++) {
        held += report.results[i].store_was_held;
        if (report.results[i].meeting_ms >= 0) {
            times[count++] = report.results[i].meeting_ms;
        }
    }
    qsort(times, count, sizeof *times, by_value);
    if (count > 0) {
        printf("All five nodes said what the store says %" PRId64
               " ms after the last answer (median; 99 of 100: %" PRId64 ", longest %" PRId64 ")\n",
               times[count / 2], times[(count * 99 - 1) / 100], times[count - 1]);
    }
    if (held > 0) {
        printf(
            "In %zu rounds the worker that was stopped had the store's turn at writing: recovery counts from "
            "when it went on\n",
            held);
    }
}

static void print_times(const char *what, int64_t *times, size_t count)
{
    qsort(times, count, sizeof *times, by_value);
    if (count > 0) {
        printf("%s: %" PRId64 " ms (median of %zu; 99 of 100: %" PRId64 ", longest %" PRId64 ")\n", what,
               times[count / 2], count, times[(count * 99 - 1) / 100], times[count - 1]);
    }
}

static void print_several(int64_t *times)
{
    size_t back = 0, named = 0;
    for (size_t i = 0; i < report.count; i++) {
        if (report.results[i].back_ms >= 0) {
            times[back++] = report.results[i].back_ms;
        }
    }
    print_times("Of two servers the one that was hit sold again after that was over", times, back);
    for (size_t i = 0; i < report.count; i++) {
        if (report.results[i].named_ms >= 0) {
            times[named++] = report.results[i].named_ms;
        }
    }
    print_times("After the Sentinels had named another master sales went on", times, named);
}

static void print_table(void)
{
    int64_t *times = calloc(report.count + 1, sizeof *times);
    assert_non_null(times);
    printf("\n%-32s %6s %9s %8s %8s %8s   (recovery in ms; a round with two faults counts for both)\n",
           "fault", "rounds", "violated", "median", "p99", "max");
    print_faults(times, WITH_LUA);
    print_all("all, Redis lives", times, WITH_LUA, REDIS_DIES, false);
    print_all("all, Redis is killed", times, WITH_LUA, REDIS_DIES, true);
    print_faults(times, WITH_REDLOCK);
    print_all("all, no lock has to end", times, WITH_REDLOCK, OUTLASTS_TTL, false);
    print_all("all, a lock has to end by itself", times, WITH_REDLOCK, OUTLASTS_TTL, true);
    print_faults(times, WITH_SEVERAL);
    print_all("several servers, no failover", times, WITH_SEVERAL, FAILED_OVER, false);
    print_all("several servers, a failover", times, WITH_SEVERAL, FAILED_OVER, true);
    print_meeting(times);
    print_several(times);
    free(times);
}

bool report_summary(void)
{
    double seconds = (double)(now_us() - report.began_us) / 1e6;
    print_table();
    printf("\n%zu rounds in %.0f s (%.2f s each): %zu purchases confirmed (%zu by replay), %zu sold out, %zu "
           "answered 503, %zu broken\n",
           report.count, seconds, report.count ? seconds / (double)report.count : 0, report.confirmed,
           report.replayed, report.sold_out, report.unavailable, report.broken);
    printf("%zu of them were carts, %zu had a bundle; %zu cancels and %zu restocks and withdrawals were "
           "confirmed, %zu "
           "withdrawals refused\n",
           report.carts, report.bundles, report.cancels, report.changes, report.changes_short);
    printf("Of those answered 503 %zu had been sold, of the broken ones %zu\n", report.sold_unavailable,
           report.sold_broken);
    if (sweep_not_passed() > 0) {
        printf("In %zu rounds of the sweep nobody passed the failpoint\n", sweep_not_passed());
    }
    printf("%zu violations in %zu rounds\n", report.violations, report.violated_rounds);
    report_end();
    return report.violations == 0;
}

void report_end(void)
{
    fclose(report.acks);
    free(report.results);
    if (report.violations > 0 || options.keep || report.made[0] == '\0') {
        printf("Kept: %s\n", report.folder);
    } else {
        folder_remove(report.made);
    }
}
