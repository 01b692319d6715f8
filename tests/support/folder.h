/* A temporary folder of a test, removed with all that is in it. */
#ifndef DOORBUSTER_TEST_FOLDER_H
#define DOORBUSTER_TEST_FOLDER_H

#define FOLDER_BYTES 64

void folder_make(char out[FOLDER_BYTES]); /* "/tmp/doorbuster-test-…" */
void folder_remove(const char *path);     /* only such a folder */
char *file_read(const char *path);        /* the whole, terminated; malloc'ed; "" if there is none */

#endif
