/* See refusal.h. The test process; owns nothing. */
#include "refusal.h"

#include "testing.h"

#include <string.h>

static void expect_end(const char *const *argv, const char *const *environment, int exit_code,
                       const char *const words[3])
{
    struct run_result result = program_run(argv, environment, REFUSAL_MS);
    const char *said = strstr(result.err, "failpoint ") == NULL ? result.err : strchr(result.err, '\n') + 1;
    size_t bytes = strlen(said);
    bool one_line = bytes > 1 && strchr(said, '\n') == said + bytes - 1;
    bool named = strncmp(said, "doorbuster-server: ", 19) == 0, worded = true;
    for (int i = 0; i < 3; i++) {
        worded = worded && (words[i] == NULL || strstr(said, words[i]) != NULL);
    }
    if (result.exit_code != exit_code || !one_line || !named || !worded || result.out[0] != '\0') {
        fail_msg("exit code %d, wanted \"%s\" \"%s\" \"%s\", stderr:\n%sstdout: \"%s\"", result.exit_code,
                 words[0], words[1] ? words[1] : "", words[2] ? words[2] : "", result.err, result.out);
    }
    run_result_free(&result);
}

void expect_refusal(const char *const *argv, const char *const *environment, const char *const words[3])
{
    expect_end(argv, environment, 2, words);
}

void expect_giving_up(const char *const *argv, const char *const words[3])
{
    expect_end(argv, ENVIRONMENT("DOORBUSTER_FAILPOINT=start.wait:error"), 1, words);
}
