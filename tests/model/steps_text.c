/* Steps as lines of text, written and read; steps.h says how they look. Pure; the test's one thread. A line that cannot be read is reported,
 * never guessed at. */
#include "steps.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_words[STEP_KINDS] = {"open",  "buy",      "cancel", "restock", "withdraw",
                                                   "price", "attach",   "forget", "trim",    "tamper",
                                                   "cut",   "oversell", "fail",   "restart", "remember"};
static const char *const window_words[STEP_WINDOWS] = {"none", "open", "ahead", "over"};
static const char *const by_words[STEP_CANCELLERS] = {"owner", "other", "admin"};
static const char *const edit_words[STEP_EDITS] = {"stock", "price", "limit", "opening", "all"};
static const char *const loss_words[STEP_LOSSES] = {"all", "scripts", "head", "log", "unrecorded", "since"};

const char *const step_points[STEP_POINTS] = {
    "recorder.read", "store.begun",    "store.commit",  "store.committed",  "recorder.announce",
    "vfs.write",     "vfs.full",       "vfs.sync",      "attach.begin",     "attach.epoch",
    "attach.closed", "attach.drained", "attach.opened", "attach.announced", "attach.wiped",
    "attach.filled", "attach.rebuilt",
};

/* --- writing ------------------------------------------------------------------------------------------------------------------ */
struct writing {
    char *out;
    size_t used;
};

static void add(struct writing *writing, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct writing *writing, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(writing->out + writing->used, STEP_TEXT_BYTES - writing->used, format, arguments);
    va_end(arguments);
    writing->used += (size_t)length;
    writing->used = writing->used < STEP_TEXT_BYTES ? writing->used : STEP_TEXT_BYTES - 1;
}

static void add_lines(struct writing *writing, const struct step_line *lines, int count)
{
    for (int i = 0; i < count; i++) {
        add(writing, " %d p%d", lines[i].quantity, lines[i].product);
    }
}

static void add_open(struct writing *writing, const struct step *step)
{
    add(writing, " stock %" PRId64 " price %" PRId64 " limit %" PRId64 " window %s%s", step->stock,
        step->price, step->limit, window_words[step->window], step->planned ? " planned" : "");
    if (step->component_count > 0) {
        add(writing, " of");
        add_lines(writing, step->components, step->component_count);
    }
}

static void add_key(struct writing *writing, int key)
{
    if (key > 0) {
        add(writing, " key %d", key);
    }
}

static void add_carts(struct writing *writing, const struct step *step)
{
    for (int i = 0; i < step->cart_count; i++) {
        const struct step_cart *cart = &step->carts[i];
        add(writing, "%s u%d", i > 0 ? " ," : "", cart->user);
        add_lines(writing, cart->lines, cart->line_count);
        add_key(writing, cart->key);
    }
}

void step_format(const struct step *step, char out[STEP_TEXT_BYTES])
{
    struct writing writing = {.out = out};
    add(&writing, "%s", kind_words[step->kind]);
    switch (step->kind) {
    case STEP_OPEN:
        add_open(&writing, step);
        break;
    case STEP_BUY:
        add_carts(&writing, step);
        add(&writing, "%s", step->is_lost ? " lost" : "");
        break;
    case STEP_CANCEL:
        add(&writing, " o%d by %s%s", step->order, by_words[step->by], step->is_void ? " void" : "");
        break;
    case STEP_RESTOCK:
    case STEP_WITHDRAW:
    case STEP_TAMPER:
        add(&writing, " p%d %" PRId64, step->product, step->units);
        if (step->kind == STEP_TAMPER) {
            add(&writing, " %s", edit_words[step->edit]);
        } else {
            add_key(&writing, step->key);
        }
        break;
    case STEP_PRICE:
        add(&writing, " p%d %" PRId64, step->product, step->price);
        add_key(&writing, step->key);
        break;
    case STEP_OVERSELL:
        add(&writing, " u%d p%d", step->user, step->product);
        add_key(&writing, step->key);
        break;
    case STEP_FAIL:
        add(&writing, " %s", step_points[step->point]);
        break;
    case STEP_FORGET:
        add(&writing, " %s", loss_words[step->loss]);
        break;
    default:
        break;
    }
    add(&writing, "%s", step->unrecorded ? " ; unrecorded" : "");
}

void sequence_print(const struct sequence *sequence, FILE *to)
{
    char text[STEP_TEXT_BYTES];
    for (size_t i = 0; i < sequence->count; i++) {
        step_format(&sequence->steps[i], text);
        fprintf(to, "%s\n", text);
    }
}

/* --- reading -------------------------------------------------------------------------------------------------------------------- */
/* The line's words, one after the other. `word` is "" at the end. */
struct reading {
    char *rest;
    const char *word;
    bool failed;
};

static void next(struct reading *reading)
{
    const char *word = strtok_r(NULL, " \n", &reading->rest);
    reading->word = word != NULL ? word : "";
}

static bool is_word(const struct reading *reading, const char *word)
{
    return strcmp(reading->word, word) == 0;
}

/* If it is this word, goes on to the next. */
static bool take_word(struct reading *reading, const char *word)
{
    bool is = is_word(reading, word);
    if (is) {
        next(reading);
    }
    return is;
}

static int64_t take_number(struct reading *reading, const char *prefix, int64_t max)
{
    size_t bytes = strlen(prefix);
    char *end = NULL;
    int64_t number = 0;
    if (strncmp(reading->word, prefix, bytes) == 0) {
        number = strtoll(reading->word + bytes, &end, 10);
    }
    if (end == NULL || *end != '\0' || end == reading->word + bytes || number < 0 || number > max) {
        reading->failed = true;
    }
    next(reading);
    return number;
}

static int64_t take_named(struct reading *reading, const char *name, int64_t max)
{
    reading->failed = !take_word(reading, name) || reading->failed;
    return take_number(reading, "", max);
}

static int take_choice(struct reading *reading, const char *const *words, int count)
{
    for (int i = 0; i < count; i++) {
        if (take_word(reading, words[i])) {
            return i;
        }
    }
    reading->failed = true;
    return 0;
}

static int take_key(struct reading *reading)
{
    return is_word(reading, "key") ? (int)take_named(reading, "key", 6) : 0;
}

static int take_lines(struct reading *reading, struct step_line *lines, int max)
{
    int count = 0;
    while (!reading->failed && count < max && *reading->word >= '0' && *reading->word <= '9') {
        lines[count].quantity = (int)take_number(reading, "", 1000);
        lines[count++].product = (int)take_number(reading, "p", 1000);
    }
    reading->failed = reading->failed || count == 0;
    return count;
}

static void take_open(struct reading *reading, struct step *step)
{
    step->stock = take_named(reading, "stock", INT64_C(1000000000));
    step->price = take_named(reading, "price", INT64_C(100000000000));
    step->limit = take_named(reading, "limit", 1000000);
    reading->failed = !take_word(reading, "window") || reading->failed;
    step->window = (enum step_window)take_choice(reading, window_words, STEP_WINDOWS);
    step->planned = take_word(reading, "planned");
    step->component_count =
        take_word(reading, "of") ? take_lines(reading, step->components, STEP_COMPONENTS) : 0;
}

static void take_carts(struct reading *reading, struct step *step)
{
    do {
        struct step_cart *cart = &step->carts[step->cart_count++];
        cart->user = (int)take_number(reading, "u", 1000);
        cart->line_count = take_lines(reading, cart->lines, STEP_LINES);
        cart->key = take_key(reading);
    } while (step->cart_count < STEP_CARTS && take_word(reading, ","));
    step->is_lost = take_word(reading, "lost");
}

static void take_cancel(struct reading *reading, struct step *step)
{
    step->order = (int)take_number(reading, "o", 1000000);
    reading->failed = !take_word(reading, "by") || reading->failed;
    step->by = (enum step_canceller)take_choice(reading, by_words, STEP_CANCELLERS);
    step->is_void = take_word(reading, "void");
}

static void take_change(struct reading *reading, struct step *step)
{
    step->product = (int)take_number(reading, "p", 1000);
    step->units = step->price = take_number(reading, "", INT64_C(100000000000));
    if (step->kind == STEP_TAMPER) {
        step->edit = (enum step_edit)take_choice(reading, edit_words, STEP_EDITS);
    }
    step->key = take_key(reading);
}

bool step_parse(const char *text, struct step *out)
{
    char copy[STEP_TEXT_BYTES];
    snprintf(copy, sizeof copy, "%s", text);
    struct reading reading = {0};
    const char *first = strtok_r(copy, " \n", &reading.rest);
    reading.word = first != NULL ? first : "";
    memset(out, 0, sizeof *out);
    out->kind = (enum step_kind)take_choice(&reading, kind_words, STEP_KINDS);
    switch (reading.failed ? STEP_KINDS : out->kind) {
    case STEP_OPEN:
        take_open(&reading, out);
        break;
    case STEP_BUY:
        take_carts(&reading, out);
        break;
    case STEP_CANCEL:
        take_cancel(&reading, out);
        break;
    case STEP_RESTOCK:
    case STEP_WITHDRAW:
    case STEP_PRICE:
    case STEP_TAMPER:
        take_change(&reading, out);
        break;
    case STEP_OVERSELL:
        out->user = (int)take_number(&reading, "u", 1000);
        out->product = (int)take_number(&reading, "p", 1000);
        out->key = take_key(&reading);
        break;
    case STEP_FAIL:
        out->point = take_choice(&reading, step_points, STEP_POINTS);
        break;
    case STEP_FORGET:
        out->loss = (enum step_loss)take_choice(&reading, loss_words, STEP_LOSSES);
        break;
    default:
        break;
    }
    if (take_word(&reading, ";")) {
        out->unrecorded = take_word(&reading, "unrecorded");
    }
    return !reading.failed && *reading.word == '\0';
}

bool sequence_read(struct sequence *sequence, FILE *from, char *error, size_t error_bytes)
{
    char line[STEP_TEXT_BYTES];
    sequence->count = 0;
    for (int number = 1; fgets(line, sizeof line, from) != NULL; number++) {
        if (line[strspn(line, " \n")] == '\0' || line[0] == '#') {
            continue;
        }
        if (sequence->count == STEPS_MAX || !step_parse(line, &sequence->steps[sequence->count++])) {
            snprintf(error, error_bytes, "line %d cannot be read: %s", number, line);
            return false;
        }
    }
    return true;
}
