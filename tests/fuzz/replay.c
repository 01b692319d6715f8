/* Runs files through fuzz targets without libFuzzer: replay CORPUS, where CORPUS/<target>/ has the inputs of each target. One process, one thread.
 * A target that finds a fault ends it, after the file's name was printed; a target without a file is a fault too. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>

#define PATH_BYTES 4096

#define X(name) int fuzz_##name(const uint8_t *data, size_t bytes);
FUZZ_TARGETS(X)
#undef X

static const struct {
    const char *name;
    int (*run)(const uint8_t *data, size_t bytes);
} targets[] = {
#define X(name) {#name, fuzz_##name},
    FUZZ_TARGETS(X)
#undef X
};

/* Exactly as large as the file: a byte too far is seen. */
static uint8_t *read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    long size = ftell(file);
    CHECK(size >= 0 && fseek(file, 0, SEEK_SET) == 0);
    uint8_t *data = malloc(size > 0 ? (size_t)size : 1);
    CHECK(data != NULL);
    *bytes = fread(data, 1, (size_t)size, file);
    CHECK(*bytes == (size_t)size);
    fclose(file);
    return data;
}

static unsigned replay(size_t target, const char *corpus)
{
    char folder[PATH_BYTES], path[2 * PATH_BYTES];
    unsigned count = 0;
    snprintf(folder, sizeof folder, "%s/%s", corpus, targets[target].name);
    DIR *files = opendir(folder);
    for (const struct dirent *file; files != NULL && (file = readdir(files)) != NULL;) {
        if (file->d_name[0] == '.') {
            continue;
        }
        size_t bytes;
        snprintf(path, sizeof path, "%s/%s", folder, file->d_name);
        printf("%s\n", path);
        fflush(stdout);
        uint8_t *data = read_file(path, &bytes);
        targets[target].run(data, bytes);
        free(data);
        count++;
    }
    if (files != NULL) {
        closedir(files);
    }
    return count;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: replay CORPUS\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        if (replay(i, argv[1]) == 0) {
            fprintf(stderr, "replay: %s/%s has no file\n", argv[1], targets[i].name);
            return 1;
        }
    }
    return 0;
}
