/* See folder.h. The test process; owns nothing. */
#include "folder.h"

#include "testing.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "/tmp/doorbuster-test-"

void folder_make(char out[FOLDER_BYTES])
{
    snprintf(out, FOLDER_BYTES, PREFIX "XXXXXX");
    assert_non_null(mkdtemp(out));
}

static int remove_cb(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    (void)remove(path);
    return 0;
}

void folder_remove(const char *path)
{
    assert_int_equal(strncmp(path, PREFIX, strlen(PREFIX)), 0);
    nftw(path, remove_cb, 16, FTW_DEPTH | FTW_PHYS);
}

char *file_read(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return strdup("");
    }
    fseek(file, 0, SEEK_END);
    long bytes = ftell(file);
    char *text = malloc((size_t)bytes + 1);
    assert_non_null(text);
    rewind(file);
    text[fread(text, 1, (size_t)bytes, file)] = '\0';
    fclose(file);
    return text;
}
