/* A program that must not start: it says in one line what is wrong, and exits with 2; with 1 if it was worth waiting for, and did not come. */
#ifndef DOORBUSTER_TEST_REFUSAL_H
#define DOORBUSTER_TEST_REFUSAL_H

#include "run.h"

/* Runs the server (argv[0] is its path) and expects its refusal: exit 2, nothing on stdout, one line on stderr that begins
 * with the program's name and has all these words (NULL: none). */
void expect_refusal(const char *const *argv, const char *const *environment, const char *const words[3]);
/* The same for what it waits for, in vain: exit 1, so that whoever started it tries again. The wait is cut short; only in builds with failpoints. */
void expect_giving_up(const char *const *argv, const char *const words[3]);

#define REFUSAL_MS 20000
#define WORDS(...) ((const char *const[3]){__VA_ARGS__})
#define ARGUMENTS(...) ((const char *const[]){program_path("server"), __VA_ARGS__, NULL})
#define ENVIRONMENT(...) ((const char *const[]){__VA_ARGS__, NULL})

#endif
