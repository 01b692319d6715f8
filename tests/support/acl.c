/* See acl.h. The test process's main thread; owns nothing that lasts. */
#include "acl.h"

#include "tcp_redis.h"
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES 2048
#define WORDS_MAX 64

static void find_line(const char *name, char line[LINE_BYTES])
{
    char begins[64];
    FILE *page = fopen(OPERATIONS_PAGE, "r");
    assert_non_null(page);
    snprintf(begins, sizeof begins, "user %s on >PASSWORD ", name);
    bool found = false;
    while (!found && fgets(line, LINE_BYTES, page) != NULL) {
        found = strncmp(line, begins, strlen(begins)) == 0;
    }
    fclose(page);
    if (!found) {
        fail_msg("the page has no line \"%s…\"", begins);
    }
}

void acl_make_user(int port, const char *name)
{
    char line[LINE_BYTES], *rest;
    const char *words[WORDS_MAX] = {"ACL"};
    int count = 1;
    find_line(name, line);
    for (char *word = strtok_r(line, " \n", &rest); word != NULL; word = strtok_r(NULL, " \n", &rest)) {
        assert_in_range(count, 1, WORDS_MAX - 1);
        words[count++] = word;
    }
    words[1] = "SETUSER";
    words[4] = ">" ACL_PASSWORD;
    redisContext *redis = tcp_redis_connect(port);
    redisReply *reply = redisCommandArgv(redis, count, words, NULL);
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_ERROR) {
        fail_msg("%s", reply->str);
    }
    freeReplyObject(reply);
    redisFree(redis);
}

/* An entry: count, n, reason, "command", context, "toplevel", object, "hset", … */
void acl_expect_enough(int port, const char *name)
{
    char user[64];
    redisContext *redis = tcp_redis_connect(port);
    redisReply *log = redis_ask(redis, "ACL LOG");
    assert_non_null(log);
    if (log->elements > 0) {
        redisReply *const *entry = log->element[0]->element;
        fail_msg("refused: %s %s, %s", entry[3]->str, entry[7]->str, entry[5]->str);
    }
    freeReplyObject(log);
    snprintf(user, sizeof user, " user=%s ", name);
    redisReply *clients = redis_ask(redis, "CLIENT LIST");
    assert_non_null(clients);
    assert_non_null(strstr(clients->str, user));
    freeReplyObject(clients);
    redisFree(redis);
}
