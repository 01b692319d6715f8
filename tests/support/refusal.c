/* See refusal.h. The test process; owns nothing. */
#include "refusal.h"

#include "testing.h"

#include <string.h>

void expect_refusal(const char *const *argv, const char *const *environment, const char *const words[3])
{
    struct run_result result = program_run(argv, environment, REFUSAL_MS);
    size_t bytes = strlen(result.err);
    bool one_line = bytes > 1 && strchr(result.err, '\n') == result.err + bytes - 1;
    bool named = strncmp(result.err, "doorbuster-server: ", 19) == 0, worded = true;
    for (int i = 0; i < 3; i++) {
        worded = worded && (words[i] == NULL || strstr(result.err, words[i]) != NULL);
    }
    if (result.exit_code != 2 || !one_line || !named || !worded || result.out[0] != '\0') {
        fail_msg("exit code %d, wanted \"%s\" \"%s\" \"%s\", stderr:\n%sstdout: \"%s\"", result.exit_code,
                 words[0], words[1] ? words[1] : "", words[2] ? words[2] : "", result.err, result.out);
    }
    run_result_free(&result);
}
