/* Writes down what the server under test answered, so that tests/openapi/check_exchanges.py can hold it against web/openapi.json.
 *
 * One JSON line an exchange, appended to the file that DOORBUSTER_EXCHANGES names; without it every call returns at once. A crowd answers like
 * itself a hundred thousand times: of each shape (method, path without numbers, status, problem type) the first few are written and then each
 * that is a power of two, so that the load helpers stay as quick as they are. Any thread, any process; a file that cannot be written to is no
 * failure here: the check misses it. */
#ifndef DOORBUSTER_TEST_EXCHANGES_H
#define DOORBUSTER_TEST_EXCHANGES_H

#include <stdbool.h>
#include <stddef.h>

bool exchanges_wanted(void);
/* `request`: all that was sent, or NULL if that is not known. `head`: the answer's status line and headers, terminated. */
void exchanges_record(const char *request, size_t request_bytes, const char *head, const char *body,
                      size_t body_bytes);

#endif
