/* A Redis user who may do exactly what docs/operations.md says that Doorbuster needs. */
#ifndef DOORBUSTER_TEST_ACL_H
#define DOORBUSTER_TEST_ACL_H

#define ACL_PASSWORD "open@:/%,sesame" /* of both */
#define ACL_PASSWORD_IN_URL "open%40%3A%2F%25%2Csesame"

/* By the line "user NAME on >PASSWORD …" of that page, in the Redis at this port of loopback, whose other user may do everything. */
void acl_make_user(int port, const char *name);
/* Fails the test if anybody was refused anything there, or if nobody of this name is connected. */
void acl_expect_enough(int port, const char *name);

#endif
