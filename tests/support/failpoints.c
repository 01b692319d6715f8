/* See failpoints.h. The test process; owns nothing. */
#include "failpoints.h"

#include "testing.h"

struct failpoint_page *failpoints_file_make(const char *path)
{
    char error[512] = "";
    struct failpoint_page *file = failpoint_page_map(path, true, error, sizeof error);
    if (file == NULL)
        fail_msg("%s", error);
    return file;
}

void failpoints_file_close(struct failpoint_page **file)
{
    failpoint_page_unmap(file);
}

void failpoints_arm(struct failpoint_page *file, const char *spec)
{
    char error[512] = "";
    if (!failpoint_page_arm(file, spec, error, sizeof error))
        fail_msg("%s", error);
}

void failpoints_disarm(struct failpoint_page *file)
{
    failpoint_page_disarm(file);
}

uint64_t failpoints_fired(const struct failpoint_page *file)
{
    return failpoint_page_fired(file);
}
