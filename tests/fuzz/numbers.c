/* Times, numbers, positions of the log: what is read is in range, and written and read again it is the same. */
#include "fuzz.h"

#include "doorbuster/clock.h"
#include "doorbuster/sales_log.h"
#include "doorbuster/text.h"

#define YEAR_10000_MS INT64_C(253402300800000)

static void check_time(const char *text)
{
    int64_t at_ms, again_ms;
    char shown[CLOCK_RFC3339_BYTES];
    if (clock_parse_rfc3339(text, &at_ms)) {
        CHECK(at_ms >= 0 && at_ms < YEAR_10000_MS);
        clock_rfc3339(at_ms, shown);
        CHECK(strlen(shown) == CLOCK_RFC3339_BYTES - 1);
        CHECK(clock_parse_rfc3339(shown, &again_ms) && again_ms == at_ms);
    }
}

static void check_number(const char *text, size_t bytes)
{
    int64_t number = 7, again;
    char shown[TEXT_INT64_BYTES];
    if (text_to_int64(text, bytes, INT64_MIN, INT64_MAX, &number)) {
        size_t shown_bytes = text_from_int64(number, shown);
        CHECK(shown_bytes < sizeof shown && strlen(shown) == shown_bytes);
        CHECK(text_to_int64(shown, shown_bytes, number, number, &again) && again == number);
        CHECK(text_to_int64(text, bytes, 1, 1000, &again) == (number >= 1 && number <= 1000));
    } else {
        CHECK(number == 7);
    }
}

static void check_position(const char *text, size_t bytes)
{
    struct log_position position, again;
    char shown[SALES_LOG_POSITION_BYTES];
    if (log_position_parse(text, bytes, &position)) {
        log_position_format(position, shown);
        CHECK(log_position_parse(shown, strlen(shown), &again));
        CHECK(log_position_compare(position, again) == 0);
    }
}

/* Any moment is shown as one that can be read. */
static void check_moment(const uint8_t *data, size_t bytes)
{
    int64_t at_ms = 0, read_ms;
    char shown[CLOCK_RFC3339_BYTES];
    memcpy(&at_ms, data, bytes < sizeof at_ms ? bytes : sizeof at_ms);
    clock_rfc3339(at_ms, shown);
    CHECK(clock_parse_rfc3339(shown, &read_ms));
    CHECK(read_ms == (at_ms < 0 ? 0 : at_ms < YEAR_10000_MS ? at_ms : YEAR_10000_MS - 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *text = fuzz_text(data, bytes);
    check_time(text);
    check_number(text, bytes);
    check_position(text, bytes);
    if (bytes > 0) {
        check_moment(data, bytes);
    }
    free(text);
    return 0;
}
