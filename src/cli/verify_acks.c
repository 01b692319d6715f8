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

#define LINE_BYTES_MAX 1024 /* the longest cart: 42 numbers of 20 digits, and blanks */
#define ACKS_MAX 50000000
#define OFFENDERS_MAX 5
#define GROUPED_BYTES 32

enum ack_fault { ACK_FINE, ACK_MISSING, ACK_DIFFERENT, ACK_TOLD_TWICE, ACK_FAULTS };

struct ack_line {
    int64_t product, quantity;
};

struct ack {
    int64_t order, user;
    struct ack_line first;
    uint32_t more_from, more_count; /* of a cart: its further lines, in acks.more */
    int64_t line;                   /* of the file */
};

/* What a line of the file says. */
struct told {
    int64_t order, user;
    struct ack_line lines[CART_LINES_MAX];
    size_t count;
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
                   ": \"%.*s\" is not \"order user product quantity\", whole numbers from 1 on "
                   "(of a cart: up to %d times \"product quantity\")",
                   path, line, (int)strcspn(text, "\r\n"), text, CART_LINES_MAX);
}

#define BLANKS " \t\r\n"

/* Takes the next number off the text; false: what is there is none. */
static bool take_number(const char **text, int64_t *out)
{
    *text += strspn(*text, BLANKS);
    size_t bytes = strcspn(*text, BLANKS);
    if (!text_to_int64(*text, bytes, 1, INT64_MAX, out)) {
        return false;
    }
    *text += bytes;
    return true;
}

static bool is_at_end(const char *text)
{
    return text[strspn(text, BLANKS)] == '\0';
}

static bool parse_line(const char *text, struct told *out)
{
    out->count = 0;
    if (!take_number(&text, &out->order) || !take_number(&text, &out->user)) {
        return false;
    }
    do {
        struct ack_line *line = &out->lines[out->count++];
        if (!take_number(&text, &line->product) || !take_number(&text, &line->quantity)) {
            return false;
        }
    } while (!is_at_end(text) && out->count < CART_LINES_MAX);
    return is_at_end(text);
}

static void *grow(void *list, size_t *room, size_t bytes)
{
    *room = *room > 0 ? 2 * *room : 1024;
    list = realloc(list, *room * bytes);
    CHECK(list != NULL);
    return list;
}

static void add_more(struct acks *acks, const struct ack_line *line)
{
    if (acks->more_count == acks->more_room) {
        acks->more = grow(acks->more, &acks->more_room, sizeof *acks->more);
    }
    acks->more[acks->more_count++] = *line;
}

static void add(struct acks *acks, const struct told *told, int64_t line, const char *path)
{
    if (acks->count == ACKS_MAX) {
        process_refuse(VERIFY_PROGRAM, "%s has more than %d orders; split it", path, ACKS_MAX);
    }
    if (acks->count == acks->room) {
        acks->list = grow(acks->list, &acks->room, sizeof *acks->list);
    }
    acks->list[acks->count++] = (struct ack){.order = told->order,
                                             .user = told->user,
                                             .first = told->lines[0],
                                             .more_from = (uint32_t)acks->more_count,
                                             .more_count = (uint32_t)(told->count - 1),
                                             .line = line};
    for (size_t i = 1; i < told->count; i++) {
        add_more(acks, &told->lines[i]);
    }
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
        const char *start = text + strspn(text, BLANKS);
        bool whole = strlen(text) < sizeof text - 1 || strchr(text, '\n') != NULL;
        if (*start == '#') {
            skip_rest(file, text);
        } else if (*start != '\0' || !whole || text[0] == '\0') {
            struct told told;
            if (!whole || !parse_line(start, &told)) {
                refuse_line(path, line, text);
            }
            add(acks, &told, line, path);
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
    free(acks->more);
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

static bool put_in_cart(struct sale_order *cart, const struct ack_line *line)
{
    return line->quantity <= PURCHASE_QUANTITY_MAX &&
           cart_add(cart, line->product, line->quantity) == CART_FITS;
}

/* The lines as told, those of one product added up as the gate does. `room` for CART_LINES_MAX - 1 parts. False: no cart can be so. */
static bool fill_cart(const struct acks *acks, const struct ack *ack, struct order_part *room,
                      struct sale_order *cart)
{
    *cart = (struct sale_order){.more = room};
    bool fits = put_in_cart(cart, &ack->first);
    for (size_t i = 0; fits && i < ack->more_count; i++) {
        fits = put_in_cart(cart, &acks->more[ack->more_from + i]);
    }
    return fits;
}

/* An order that was cancelled later was confirmed when its buyer was told. What a bundle took is not told. The parts are read into `parts`,
 * room for ORDER_PARTS_MAX. *failed: the store did. */
static bool is_as_told(struct store *store, struct store_order *stored, const struct acks *acks,
                       const struct ack *ack, struct order_part *parts, bool *failed)
{
    struct order_part room[CART_LINES_MAX - 1];
    struct sale_order cart;
    if (stored->state == ORDER_REJECTED || stored->sale.user_id != ack->user ||
        !fill_cart(acks, ack, room, &cart)) {
        return false;
    }
    if (stored->part_count > 1) {
        stored->sale.more = parts;
        *failed = store_order_parts(store, ack->order, parts, ORDER_PARTS_MAX, &stored->sale.more_count) !=
                  STORE_OK;
    }
    return !*failed && order_has_same_lines(&stored->sale, &cart);
}

/* False: the store failed. */
static bool judge(const struct acks *acks, const struct ack *ack, struct store *store, enum ack_fault *fault)
{
    static struct order_part parts[ORDER_PARTS_MAX];
    struct store_order stored;
    bool failed = false;
    enum store_status status = store_find_order(store, ack->order, &stored);
    if (status != STORE_OK && status != STORE_NOT_FOUND) {
        return false;
    }
    *fault = ack > acks->list && ack[-1].order == ack->order         ? ACK_TOLD_TWICE
             : status == STORE_NOT_FOUND                             ? ACK_MISSING
             : is_as_told(store, &stored, acks, ack, parts, &failed) ? ACK_FINE
                                                                     : ACK_DIFFERENT;
    return !failed;
}

/* In order of id, so the store's pages are read one after the other. False: the store failed. */
static bool compare(const struct acks *acks, struct store *store, struct findings *findings)
{
    for (size_t i = 0; i < acks->count; i++) {
        enum ack_fault fault;
        if (!judge(acks, &acks->list[i], store, &fault)) {
            return false;
        }
        note(findings, &acks->list[i], fault);
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
