/* `verify`: proves that Redis and the store agree. main() only names the settings. */
#include "cli.h"

#include "doorbuster/log.h"
#include "doorbuster/process.h"

static struct setting options[] = {
    CLI_DATA_SETTINGS,
    {.option = "product", .value_name = "ID", .help = "only this product's books (default: all)"},
    {.option = "acks",
     .value_name = "FILE",
     .help = "every order in FILE must be in the store; - is standard input"},
    {.option = "repair",
     .help = "first ask the running recorder to compare and mend Redis at once (of the Redlock gate: wait "
             "for the keeper)"},
    {.option = "watch", .help = "a line about every second, until Ctrl-C"},
    {.option = "json", .help = "one JSON object instead of lines; with --watch one a line"},
};
static struct settings settings = {
    .program = "doorbuster-verify",
    .summary =
        "audits Redis, or the lock nodes, against the store, each product at one position of the sales log",
    .epilogue =
        "It may run in the middle of a sale. It changes nothing itself (--repair has the server mend Redis); "
        "of a stopped\nserver it starts the private Redis for as long as the audit takes, and holds the data "
        "folder's lock meanwhile.\n\n"
        "Of the Redlock gate it compares what a majority of the nodes says of each product with the store's "
        "figure at the\nposition that they name. A node that is away or behind is noted, as long as there is "
        "a "
        "majority without it. Of a\nstopped server with private nodes, which keep nothing, the store alone "
        "is "
        "checked.\n\n"
        "--acks FILE has a line for each order that a client was told of: order, user, product, quantity, "
        "with blanks in\nbetween, and of a cart product and quantity of each further line; empty lines and "
        "lines that begin with # are\npassed over. The order must be in the store with exactly these lines, "
        "confirmed or cancelled since.\n\n"
        "--watch checks the products' books, Redis against the store and the log in flight each time, and "
        "every order and\nthe audit log in the first pass, then every 30 s, or more seldom if that would "
        "take "
        "more than a twentieth of the\ntime. The line names what does not hold; what a full pass found stays "
        "there until the next one. It never starts\nRedis. The exit code is that of the worst pass: 1 if "
        "anything did not hold in any of them, else 2 if anything could\nnot be checked.\n\n"
        "--repair has the recorder attach to Redis anew: it puts right in Redis what differs from the store "
        "and writes each\nsuch change into the audit log; orders stay as they are. It waits up to 10 s, and "
        "needs a running server.\n\n"
        "Exit codes: 0 everything holds, 1 something does not, 2 could not check.",
    .list = options,
    .count = sizeof options / sizeof options[0],
};

int main(int argc, char **argv)
{
    process_init_title(argc, argv);
    log_set_speaker("verify");
    settings_read(&settings, argc, argv);
    return verify_run(&settings);
}
