/* See tool.h. The test process's main thread; owns nothing. */
#include "tool.h"

#include "testing.h"

#include <string.h>

#define ARGUMENTS_MAX 16

struct run_result tool_run(const struct server_fixture *server, const char *tool,
                           const char *const *arguments, const char *const *environment)
{
    const char *argv[ARGUMENTS_MAX] = {program_path(tool), "--data", server->data};
    for (size_t i = 0; arguments != NULL && arguments[i] != NULL; i++) {
        assert_in_range(i, 0, ARGUMENTS_MAX - 5);
        argv[i + 3] = arguments[i];
    }
    return program_run(argv, environment, TOOL_MS);
}

void tool_expect(const struct server_fixture *server, const char *tool, const char *const *arguments,
                 int exit_code, const char *words)
{
    struct run_result result = tool_run(server, tool, arguments, NULL);
    if (result.exit_code != exit_code ||
        (strstr(result.out, words) == NULL && strstr(result.err, words) == NULL)) {
        fail_msg("%s exited with %d, not %d, or did not say \"%s\":\n%s%s", tool, result.exit_code, exit_code,
                 words, result.out, result.err);
    }
    run_result_free(&result);
}
