/* verify --acks: what clients were told, held against the store. Reads the whole file before the audit's snapshot begins: whoever was told
 * of an order was told after the store had it, so everything in the file must be in the snapshot. One thread, blocking. Owns the list. A
 * malformed line ends the program: one line on stderr and exit 2. */
#include "verify.h"

#include "doorbuster/check.h"
#include "doorbuster/process.h"
#include "doorbuster/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES_MAX 512
#define ACKS_MAX 50000000
#define OFFENDERS_MAX 5
#define GROUPED_BYTES 32

enum ack_fault { ACK_FINE, ACK_MISSING, ACK_DIFFERENT, ACK_TOLD_TWICE, ACK_FAULTS };

struct ack {
    int64_t order, user, product, quantity;
    int64_t line;
};

/* The offenders with the lowest line numbers, in order. */
struct offender {
    int64_t line, order;
    enum ack_fault fault;
};
struct findings {
    int64_t faults[ACK_FAULTS];
    struct offender first[OFFENDERS_MAX];
    size_t first_count;
};

/* --- reading -------------------------------------------------------------------------------------------------------------------- */
_Noreturn static void refuse_line(const char *path, int64_t line, const char *text)
{
    process_refuse(VERIFY_PROGRAM,
                   "%s, line %" PRId64
                   ": \"%.*s\" is not \"order user product quantity\", four whole numbers "
                   "from 1 on",
                   path, line, (int)strcspn(text, "\r\n"), text);
}

static bool parse_line(const char *text, struct ack *out)
{
    static const char blanks[] = " \t\r\n";
    int64_t numbers[4];
    for (size_t i = 0; i < 4; i++) {
        text += strspn(text, blanks);
        size_t bytes = strcspn(text, blanks);
        if (!text_to_int64(text, bytes, 1, INT64_MAX, &numbers[i])) {
            return false;
        }
        text += bytes;
    }
    out->order = numbers[0];
    out->user = numbers[1];
    out->product = numbers[2];
    out->quantity = numbers[3];
    return text[strspn(text, blanks)] == '\0';
}

static struct ack *add(struct acks *acks, const char *path)
{
    if (acks->count == ACKS_MAX) {
        process_refuse(VERIFY_PROGRAM, "%s has more than %d orders; split it", path, ACKS_MAX);
    }
    if (acks->count == acks->room) {
        acks->room = acks->room > 0 ? 2 * acks->room : 1024;
        acks->list = realloc(acks->list, acks->room * sizeof *acks->list);
        CHECK(acks->list != NULL);
    }
    return &acks->list[acks->count++];
}

/* A line that did not fit: only a comment may be so long. */
static void skip_rest(FILE *file, const char *text)
{
    int c = text[strlen(text) - 1];
    while (c != '\n' && c != EOF) {
        c = getc(file);
    }
}

static void read_lines(struct acks *acks, FILE *file, const char *path)
{
    char text[LINE_BYTES_MAX];
    for (int64_t line = 1; fgets(text, sizeof text, file) != NULL; line++) {
        const char *start = text + strspn(text, " \t\r\n");
        bool whole = strlen(text) < sizeof text - 1 || strchr(text, '\n') != NULL;
        if (*start == '#') {
            skip_rest(file, text);
        } else if (*start != '\0' || !whole || text[0] == '\0') {
            struct ack ack = {.line = line};
            if (!whole || !parse_line(start, &ack)) {
                refuse_line(path, line, text);
            }
            *add(acks, path) = ack;
        }
    }
}

static int by_order(const void *a, const void *b)
{
    const struct ack *left = a, *right = b;
    if (left->order != right->order) {
        return left->order < right->order ? -1 : 1;
    }
    return left->line < right->line ? -1 : left->line > right->line;
}

void acks_read(struct acks *acks, const char *path)
{
    bool is_input = strcmp(path, "-") == 0;
    FILE *file = is_input ? stdin : fopen(path, "re");
    if (file == NULL) {
        process_refuse(VERIFY_PROGRAM, "cannot read %s: %s", path, strerror(errno));
    }
    read_lines(acks, file, is_input ? "standard input" : path);
    if (ferror(file)) {
        process_refuse(VERIFY_PROGRAM, "cannot read %s: %s", path, strerror(errno));
    }
    if (!is_input) {
        fclose(file);
    }
    if (acks->count > 0) {
        qsort(acks->list, acks->count, sizeof *acks->list, by_order);
    }
}

void acks_fini(struct acks *acks)
{
    free(acks->list);
    *acks = (struct acks){0};
}

/* --- comparing ------------------------------------------------------------------------------------------------------------------ */
static void note(struct findings *findings, const struct ack *ack, enum ack_fault fault)
{
    findings->faults[fault]++;
    if (fault == ACK_FINE) {
        return;
    }
    size_t at = findings->first_count;
    while (at > 0 && findings->first[at - 1].line > ack->line) {
        at--;
    }
    if (at == OFFENDERS_MAX) {
        return;
    }
    findings->first_count += findings->first_count < OFFENDERS_MAX;
    for (size_t i = findings->first_count - 1; i > at; i--) {
        findings->first[i] = findings->first[i - 1];
    }
    findings->first[at] = (struct offender){ack->line, ack->order, fault};
}

static bool is_as_told(const struct store_order *stored, const struct ack *ack)
{
    return stored->state == ORDER_CONFIRMED && stored->sale.user_id == ack->user &&
           stored->sale.product_id == ack->product && stored->sale.quantity == ack->quantity;
}

/* In order of id, so the store's pages are read one after the other. False: the store failed. */
static bool compare(const struct acks *acks, struct store *store, struct findings *findings)
{
    for (size_t i = 0; i < acks->count; i++) {
        const struct ack *ack = &acks->list[i];
        struct store_order stored;
        enum store_status status = store_find_order(store, ack->order, &stored);
        if (status != STORE_OK && status != STORE_NOT_FOUND) {
            return false;
        }
        note(findings, ack,
             i > 0 && ack[-1].order == ack->order ? ACK_TOLD_TWICE
             : status == STORE_NOT_FOUND          ? ACK_MISSING
             : is_as_told(&stored, ack)           ? ACK_FINE
                                                  : ACK_DIFFERENT);
    }
    return true;
}

/* 1234567 as 1,234,567 */
static const char *grouped(size_t number, char out[GROUPED_BYTES])
{
    char digits[24];
    size_t count = (size_t)snprintf(digits, sizeof digits, "%zu", number), used = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) {
            out[used++] = ',';
        }
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

void acks_check(const struct acks *acks, struct audit *audit)
{
    static const char name[] = "acknowledged orders";
    static const char *const words[ACK_FAULTS] = {
        [ACK_MISSING] = "missing", [ACK_DIFFERENT] = "different", [ACK_TOLD_TWICE] = "told twice"};
    struct findings findings = {0};
    char offenders[64 * OFFENDERS_MAX] = "", told[GROUPED_BYTES];
    size_t used = 0;
    if (!compare(acks, audit->store, &findings)) {
        audit_report(audit, name, UNKNOWN, "%s", store_error(audit->store));
        return;
    }
    for (size_t i = 0; i < findings.first_count; i++) {
        const struct offender *offender = &findings.first[i];
        used += (size_t)snprintf(offenders + used, sizeof offenders - used,
                                 "%sline %" PRId64 " (order %" PRId64 " %s)", i == 0 ? "; the first: " : ", ",
                                 offender->line, offender->order, words[offender->fault]);
        used = used < sizeof offenders ? used : sizeof offenders - 1;
    }
    audit_report(audit, name, audit_holds(findings.first_count == 0),
                 "%s told to clients, %" PRId64 " missing, %" PRId64 " different, %" PRId64 " told twice%s",
                 grouped(acks->count, told), findings.faults[ACK_MISSING], findings.faults[ACK_DIFFERENT],
                 findings.faults[ACK_TOLD_TWICE], offenders);
}
