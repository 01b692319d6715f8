/* What the fuzz targets share. Each file beside this is one target: it takes any bytes, hands them to what reads such bytes in Doorbuster, and CHECKs what
 * must then hold. With clang's libFuzzer (preset `fuzz`, scripts/fuzz.sh) each is a program of its own; with any compiler all are linked with
 * replay.c, and the test `fuzz_corpus` runs what lies in corpus/<target>/ through them. */
#ifndef DOORBUSTER_FUZZ_H
#define DOORBUSTER_FUZZ_H

#include "doorbuster/check.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A copy of its own, so that the address sanitizer sees a byte too far; terminated, up to the first NUL of the input if it is read as a C string. */
static inline char *fuzz_text(const uint8_t *data, size_t bytes)
{
    char *text = malloc(bytes + 1);
    CHECK(text != NULL);
    if (bytes > 0) {
        memcpy(text, data, bytes);
    }
    text[bytes] = '\0';
    return text;
}

#endif
