/* CHECK(x): states what must be true if the program has no bug. Stays on in release builds; never used on input. */
#ifndef DOORBUSTER_CHECK_H
#define DOORBUSTER_CHECK_H

#define CHECK(condition) ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__, __func__))

/* Writes one line to stderr and aborts. Any thread. */
_Noreturn void check_failed(const char *condition, const char *file, int line, const char *function);

#endif
