/* Bodies of requests, payloads of tokens: json_parse_object() takes strict JSON only. What it takes prints back and reads the same; numbers stay in
 * range; any text can be quoted. */
#include "fuzz.h"

#include "doorbuster/json.h"
#include "doorbuster/text.h"

#define QUANTITY_MAX 1000

static void check_members(const cJSON *object)
{
    const cJSON *member;
    cJSON_ArrayForEach(member, object)
    {
        int64_t number = -1;
        const char *text = NULL;
        enum json_field found = json_get_integer(object, member->string, 1, QUANTITY_MAX, &number);
        CHECK(found == JSON_FIELD_OK ? number >= 1 && number <= QUANTITY_MAX : number == -1);
        if (json_get_integer(object, member->string, -JSON_INTEGER_MAX, JSON_INTEGER_MAX, &number) ==
            JSON_FIELD_OK) {
            CHECK(number >= -JSON_INTEGER_MAX && number <= JSON_INTEGER_MAX);
        }
        if (json_get_string(object, member->string, 1, 50, &text) == JSON_FIELD_OK) {
            size_t points = text_code_points(text, strlen(text));
            CHECK(points >= 1 && points <= 50 && text_is_utf8(text, strlen(text)));
        }
    }
}

static void check_prints_back(const cJSON *object)
{
    char *printed = cJSON_PrintUnformatted(object);
    cJSON *again = json_parse_object(printed, strlen(printed));
    CHECK(again != NULL);
    char *printed_again = cJSON_PrintUnformatted(again);
    CHECK(strcmp(printed, printed_again) == 0);
    cJSON_free(printed_again);
    cJSON_free(printed);
    cJSON_Delete(again);
}

/* {"t":<text>} is JSON and has the text, unless that is no UTF-8. */
static void check_quotes(const char *text)
{
    size_t bytes = strlen(text), room = 6 * bytes + sizeof "{\"t\":\"\"}";
    char *object = malloc(room);
    const char *read = NULL;
    CHECK(object != NULL);
    memcpy(object, "{\"t\":", 5);
    size_t quoted = json_quote(text, object + 5, room - 5);
    CHECK(quoted >= 2 && 5 + quoted + 1 < room);
    memcpy(object + 5 + quoted, "}", 2);
    cJSON *parsed = json_parse_object(object, 5 + quoted + 1);
    CHECK(parsed != NULL && json_get_string(parsed, "t", 0, SIZE_MAX, &read) == JSON_FIELD_OK);
    CHECK(!text_is_utf8(text, bytes) || strcmp(read, text) == 0);
    char small[8];
    size_t short_quoted = json_quote(text, small, sizeof small);
    CHECK(short_quoted == (quoted < sizeof small ? quoted : 0) && strlen(small) == short_quoted);
    cJSON_Delete(parsed);
    free(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    cJSON *object = json_parse_object((const char *)data, bytes);
    if (object != NULL) {
        CHECK(text_is_utf8((const char *)data, bytes));
        check_members(object);
        check_prints_back(object);
        cJSON_Delete(object);
    }
    char *text = fuzz_text(data, bytes);
    check_quotes(text);
    free(text);
    return 0;
}
