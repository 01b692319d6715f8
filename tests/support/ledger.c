/* See ledger.h. The test process; owns the list of answers. */
#include "ledger.h"

#include "testing.h"

#include "doorbuster/json.h"
#include "doorbuster/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ledger_free(struct ledger *ledger)
{
    free(ledger->entries);
    *ledger = (struct ledger){0};
}

static struct ledger_entry *add(struct ledger *ledger)
{
    if (ledger->count == ledger->room) {
        ledger->room = ledger->room ? 2 * ledger->room : 1024;
        ledger->entries = realloc(ledger->entries, ledger->room * sizeof *ledger->entries);
        assert_non_null(ledger->entries);
    }
    return &ledger->entries[ledger->count++];
}

static int64_t integer(const cJSON *json, const char *name)
{
    int64_t value;
    assert_int_equal(json_get_integer(json, name, -JSON_INTEGER_MAX, JSON_INTEGER_MAX, &value),
                     JSON_FIELD_OK);
    return value;
}

static void note_confirmed(struct ledger *ledger, const cJSON *json, struct ledger_entry *entry)
{
    entry->order = integer(json, "id");
    entry->remaining = integer(json, "remaining_stock");
    assert_true(entry->order > 0);
    assert_true(entry->remaining >= 0);
    assert_int_equal(integer(json, "user_id"), entry->user_id);
    assert_int_equal(integer(json, "product_id"), entry->product_id);
    assert_int_equal(integer(json, "quantity"), entry->quantity);
    ledger->confirmed++;
}

static void note_sold_out(struct ledger *ledger, const cJSON *json, struct ledger_entry *entry)
{
    const char *detail;
    assert_int_equal(json_get_string(json, "detail", 1, 1000, &detail), JSON_FIELD_OK);
    assert_non_null(strstr(detail, "Insufficient stock"));
    assert_int_equal(integer(json, "product_id"), entry->product_id);
    assert_int_equal(integer(json, "requested"), entry->quantity);
    entry->remaining = integer(json, "available");
    assert_in_range(entry->remaining, 0, entry->quantity - 1);
    ledger->sold_out++;
}

void ledger_note(struct ledger *ledger, const struct crowd_answer *answer, int64_t user_id,
                 int64_t product_id, int64_t quantity)
{
    if (answer->status == CROWD_BROKEN) {
        ledger->broken++;
        return;
    }
    cJSON *json = json_parse_object(answer->body, strlen(answer->body));
    assert_non_null(json);
    struct ledger_entry entry = {.user_id = user_id,
                                 .product_id = product_id,
                                 .quantity = quantity,
                                 .sent_us = answer->sent_us,
                                 .got_us = answer->got_us};
    if (answer->status == 201) {
        note_confirmed(ledger, json, &entry);
        *add(ledger) = entry;
    } else if (answer->status == 400) {
        note_sold_out(ledger, json, &entry);
        *add(ledger) = entry;
    } else if (answer->status == 409) {
        ledger->over_limit++;
    } else if (answer->status == 503) {
        ledger->unavailable++;
    } else {
        ledger->other++;
        ledger->other_status = answer->status;
        snprintf(ledger->other_body, sizeof ledger->other_body, "%s", answer->body);
    }
    cJSON_Delete(json);
}

int64_t ledger_units(const struct ledger *ledger, int64_t product_id)
{
    int64_t units = 0;
    for (size_t i = 0; i < ledger->count; i++) {
        const struct ledger_entry *entry = &ledger->entries[i];
        units += entry->order > 0 && entry->product_id == product_id ? entry->quantity : 0;
    }
    return units;
}

static int by_order(const void *a, const void *b)
{
    const struct ledger_entry *x = a, *y = b;
    return x->order < y->order ? -1 : x->order > y->order;
}

void ledger_check_store(const struct ledger *ledger, const char *store_url)
{
    struct store *store;
    char error[512];
    struct ledger_entry *sorted = malloc((ledger->count + 1) * sizeof *sorted);
    assert_non_null(sorted);
    memcpy(sorted, ledger->entries, ledger->count * sizeof *sorted);
    qsort(sorted, ledger->count, sizeof *sorted, by_order);
    assert_int_equal(store_open(&store, store_url, STORE_READER, error, sizeof error), STORE_OK);
    for (size_t i = 0; i < ledger->count; i++) {
        const struct ledger_entry *entry = &sorted[i];
        struct store_order order;
        if (entry->order == 0) {
            continue;
        }
        if (i > 0 && sorted[i - 1].order == entry->order) {
            fail_msg("order %" PRId64 " was confirmed to two buyers", entry->order);
        }
        if (store_find_order(store, entry->order, &order) != STORE_OK || order.state != ORDER_CONFIRMED) {
            fail_msg("order %" PRId64 " of user %" PRId64 " was confirmed, but is not in the store",
                     entry->order, entry->user_id);
        }
        assert_int_equal(order.sale.user_id, entry->user_id);
        assert_int_equal(order.sale.product_id, entry->product_id);
        assert_int_equal(order.sale.quantity, entry->quantity);
        assert_int_equal(order.sale.remaining, entry->remaining);
    }
    store_close(&store);
    free(sorted);
}

static int by_sent(const void *a, const void *b)
{
    const struct ledger_entry *x = *(const struct ledger_entry *const *)a,
                              *y = *(const struct ledger_entry *const *)b;
    return x->sent_us < y->sent_us ? -1 : x->sent_us > y->sent_us;
}

static int by_got(const void *a, const void *b)
{
    const struct ledger_entry *x = *(const struct ledger_entry *const *)a,
                              *y = *(const struct ledger_entry *const *)b;
    return x->got_us < y->got_us ? -1 : x->got_us > y->got_us;
}

static bool in_list(const int64_t *list, size_t count, int64_t value)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i] == value) {
            return true;
        }
    }
    return false;
}

void ledger_check_order(const struct ledger *ledger)
{
    const struct ledger_entry **sent = malloc((ledger->count + 1) * sizeof *sent),
                              **got = malloc((ledger->count + 1) * sizeof *got);
    assert_non_null(sent);
    assert_non_null(got);
    for (size_t i = 0; i < ledger->count; i++) {
        sent[i] = got[i] = &ledger->entries[i];
    }
    qsort(sent, ledger->count, sizeof *sent, by_sent);
    qsort(got, ledger->count, sizeof *got, by_got);
    int64_t highest = 0, empty[64]; /* heard of before the purchase at hand was sent */
    size_t heard = 0, empty_count = 0;
    for (size_t i = 0; i < ledger->count; i++) {
        for (; heard < ledger->count && got[heard]->got_us < sent[i]->sent_us; heard++) {
            const struct ledger_entry *earlier = got[heard];
            highest = earlier->order > highest ? earlier->order : highest;
            bool none_left = earlier->remaining == 0;
            if (none_left && empty_count < 64 && !in_list(empty, empty_count, earlier->product_id)) {
                empty[empty_count++] = earlier->product_id;
            }
        }
        if (sent[i]->order > 0 && sent[i]->order < highest) {
            fail_msg("order %" PRId64 " was asked for after order %" PRId64 " had been confirmed",
                     sent[i]->order, highest);
        }
        if (sent[i]->order > 0 && in_list(empty, empty_count, sent[i]->product_id)) {
            fail_msg("order %" PRId64 " was asked for after product %" PRId64 " had been sold out",
                     sent[i]->order, sent[i]->product_id);
        }
    }
    free(sent);
    free(got);
}
