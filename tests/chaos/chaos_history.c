/* Everything that was wanted and asked for in a round, and what each answer says of it. An answer that does not say
 * what its request was about ends the round.
 *
 * Owns the history. */
#include "chaos.h"

#include "doorbuster/clock.h"
#include "doorbuster/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct history history;

/* --- what is kept -------------------------------------------------------------------------------------- */
void history_clear(void)
{
    free(history.requests);
    free(history.wishes);
    history = (struct history){0};
}

static void *make_room(void *list, size_t count, size_t *room, size_t bytes)
{
    if (count == *room) {
        *room = *room ? 2 * *room : 1024;
        list = realloc(list, *room * bytes);
        assert_non_null(list);
    }
    return list;
}

static struct request *add_request(void)
{
    history.requests =
        make_room(history.requests, history.request_count, &history.request_room, sizeof *history.requests);
    return &history.requests[history.request_count++];
}

struct wish *history_add(const struct wish *wish)
{
    history.wishes =
        make_room(history.wishes, history.wish_count, &history.wish_room, sizeof *history.wishes);
    struct wish *added = &history.wishes[history.wish_count++];
    *added = *wish;
    return added;
}

/* --- reading ------------------------------------------------------------------------------------------- */
static int64_t integer(const cJSON *json, const char *name)
{
    int64_t value;
    if (json_get_integer(json, name, -JSON_INTEGER_MAX, JSON_INTEGER_MAX, &value) != JSON_FIELD_OK) {
        fail_msg("an answer has no integer \"%s\"", name);
    }
    return value;
}

static const char *text(const cJSON *json, const char *name)
{
    const char *value;
    if (json_get_string(json, name, 1, 4000, &value) != JSON_FIELD_OK) {
        fail_msg("an answer has no text \"%s\"", name);
    }
    return value;
}

static int64_t price_of(unsigned product)
{
    return product == BUNDLE ? BUNDLE_PRICE : PRODUCT_PRICE;
}

/* --- purchases ----------------------------------------------------------------------------------------- */
static void read_sold_line(const cJSON *json, const int64_t products[PRODUCTS], struct wish_line *line)
{
    if (integer(json, "product_id") != products[line->product] ||
        integer(json, "quantity") != line->quantity) {
        fail_msg("a 201 has %" PRId64 " of product %" PRId64 ", asked for were %" PRId64 " of %" PRId64,
                 integer(json, "quantity"), integer(json, "product_id"), line->quantity,
                 products[line->product]);
    }
    line->remaining = integer(json, "remaining_stock");
}

static void read_sold_cart(const cJSON *json, const int64_t products[PRODUCTS], struct wish *wish)
{
    const cJSON *items = cJSON_GetObjectItemCaseSensitive(json, "items");
    if (cJSON_GetArraySize(items) != (int)wish->line_count) {
        fail_msg("the 201 of a cart has %d lines, asked for were %zu", cJSON_GetArraySize(items),
                 wish->line_count);
    }
    for (size_t i = 0; i < wish->line_count; i++) {
        const cJSON *item = cJSON_GetArrayItem(items, (int)i);
        read_sold_line(item, products, &wish->lines[i]);
        assert_int_equal(integer(item, "unit_price"), price_of(wish->lines[i].product));
    }
}

static void note_confirmed(const cJSON *json, const int64_t products[PRODUCTS], bool replayed,
                           struct wish *wish)
{
    int64_t total_price = 0;
    if (wish->as_cart) {
        read_sold_cart(json, products, wish);
    } else {
        read_sold_line(json, products, &wish->lines[0]);
    }
    for (size_t i = 0; i < wish->line_count; i++) {
        total_price += wish->lines[i].quantity * price_of(wish->lines[i].product);
        history.bundles += wish->lines[i].product == BUNDLE;
    }
    assert_int_equal(integer(json, "user_id"), buyers_user(wish->person));
    assert_int_equal(integer(json, "total_price"), total_price);
    wish->outcome = CONFIRMED;
    wish->order = integer(json, "id");
    history.confirmed++;
    history.carts += wish->line_count > 1;
    history.replayed += replayed;
}

static void read_short_line(const cJSON *json, const int64_t products[PRODUCTS], struct wish *wish)
{
    for (size_t i = 0; i < wish->line_count; i++) {
        struct wish_line *line = &wish->lines[i];
        if (products[line->product] == integer(json, "product_id")) {
            assert_int_equal(integer(json, "requested"), line->quantity);
            line->is_short = true;
            line->remaining = integer(json, "available");
            return;
        }
    }
    fail_msg("a 400 is about product %" PRId64 ", which was not asked for", integer(json, "product_id"));
}

static void note_short(const cJSON *json, const int64_t products[PRODUCTS], struct wish *wish)
{
    if (strstr(text(json, "detail"), "Insufficient stock") == NULL) {
        fail_msg("a 400 that is not about stock");
    }
    read_short_line(json, products, wish); /* of a cart its first one */
    if (wish->as_cart) {
        const cJSON *shortages = cJSON_GetObjectItemCaseSensitive(json, "shortages"), *shortage;
        assert_true(cJSON_GetArraySize(shortages) > 0);
        cJSON_ArrayForEach(shortage, shortages)
        {
            read_short_line(shortage, products, wish);
        }
    }
    wish->outcome = SOLD_OUT;
    history.sold_out++;
}

/* 409: a limit (none here), an order that did not fit the store, or a request of the same key still running. */
static void note_conflict(const char *body, struct wish *wish)
{
    if (wish->keyed && (strstr(body, "running") != NULL || strstr(body, "progress") != NULL)) {
        return; /* again */
    }
    wish->outcome = REFUSED;
    history.refused++;
    history.rejected += strstr(body, "reject") != NULL;
}

/* --- cancels and changes ------------------------------------------------------------------------------- */
static void note_cancelled(const cJSON *json, struct wish *wish)
{
    assert_int_equal(integer(json, "id"), wish->order);
    if (!clock_parse_rfc3339(text(json, "cancelled_at"), &wish->cancelled_at_ms)) {
        fail_msg("order %" PRId64 " was cancelled at \"%s\"", wish->order, text(json, "cancelled_at"));
    }
    wish->outcome = CONFIRMED;
    history.cancels++;
}

static void note_changed(const cJSON *json, const int64_t products[PRODUCTS], struct wish *wish)
{
    const char *position = text(json, "position");
    assert_int_equal(integer(json, "product_id"), products[wish->lines[0].product]);
    assert_int_equal(integer(json, "delta"), wish->lines[0].quantity);
    assert_true(log_position_parse(position, strlen(position), &wish->position));
    wish->stock = integer(json, "stock");
    wish->outcome = CONFIRMED;
    history.changes++;
}

/* 409 of a change: more was to be withdrawn than there is. */
static void note_change_short(const cJSON *json, const int64_t products[PRODUCTS], struct wish *wish)
{
    struct wish_line *line = &wish->lines[0];
    assert_int_equal(integer(json, "product_id"), products[line->product]);
    assert_int_equal(integer(json, "requested"), -line->quantity);
    line->is_short = true;
    line->remaining = integer(json, "available");
    wish->outcome = SOLD_OUT;
    history.changes_short++;
}

/* --- any answer ---------------------------------------------------------------------------------------- */
/* False: not an answer that such a wish may get. */
static bool note_definite(const cJSON *json, const struct crowd_answer *answer,
                          const int64_t products[PRODUCTS], struct wish *wish)
{
    if (wish->kind == WISH_PURCHASE && answer->status == 201) {
        note_confirmed(json, products, answer->replayed, wish);
    } else if (wish->kind == WISH_PURCHASE && answer->status == 400) {
        note_short(json, products, wish);
    } else if (wish->kind == WISH_PURCHASE && answer->status == 409) {
        note_conflict(answer->body, wish);
    } else if (wish->kind == WISH_CANCEL && answer->status == 200) {
        note_cancelled(json, wish);
    } else if (wish->kind == WISH_CHANGE && answer->status == 200) {
        note_changed(json, products, wish);
    } else if (wish->kind == WISH_CHANGE && answer->status == 409) {
        note_change_short(json, products, wish);
    } else {
        return false;
    }
    return true;
}

void history_note(size_t place, unsigned server, const struct crowd_answer *answer,
                  const int64_t products[PRODUCTS])
{
    struct wish *wish = &history.wishes[place];
    *add_request() = (struct request){.wish = (unsigned)place,
                                      .attempt = wish->attempts,
                                      .server = server,
                                      .status = answer->status,
                                      .sent_us = answer->sent_us,
                                      .got_us = answer->got_us,
                                      .replayed = answer->replayed};
    if (answer->status == CROWD_BROKEN) {
        history.broken++;
        return;
    }
    if (answer->status == 503) {
        history.unavailable++;
        wish->unavailable = true;
        return;
    }
    cJSON *json = json_parse_object(answer->body, strlen(answer->body));
    assert_non_null(json);
    if (!note_definite(json, answer, products, wish)) {
        wish->outcome = REFUSED;
        history.other++;
        history.other_status = answer->status;
    }
    if (wish->outcome != UNKNOWN) {
        wish->got_us = answer->got_us;
    }
    cJSON_Delete(json);
}
