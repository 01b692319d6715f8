/* verify --acks: lines of a file that anybody may have written. Each is read as a whole or ends the program; what is read is a promise of one to twenty
 * lines. */
#include "fuzz.h"

#include "verify.h"

#include <setjmp.h>
#include <stdio.h>

_Noreturn void __wrap_process_refuse(const char *program, const char *format, ...);

static jmp_buf refused;

/* It would print a line and exit. */
_Noreturn void __wrap_process_refuse(const char *program, const char *format, ...)
{
    (void)program;
    (void)format;
    longjmp(refused, 1);
}

static size_t count_newlines(const uint8_t *data, size_t bytes)
{
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++) {
        count += data[i] == '\n';
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct acks acks;
    FILE *was = stdin;
    if (bytes == 0) {
        return 0;
    }
    char *text = fuzz_text(data, bytes);
    stdin = fmemopen(text, bytes, "r");
    CHECK(stdin != NULL);
    if (setjmp(refused) == 0) {
        acks_read(&acks, "-");
        CHECK(acks.count <= count_newlines(data, bytes) + 1);
        CHECK(acks.more_count <= acks.count * (CART_LINES_MAX - 1));
    }
    acks_fini(&acks);
    fclose(stdin);
    stdin = was;
    free(text);
    return 0;
}
