#include "server.h"
int node_keeper_run(const struct server_shared *shared)
{
    (void)shared;
    return 0;
}
