/* `verify`: proves that Redis and the store agree. main() only names the settings. */
#include "cli.h"

#include "doorbuster/log.h"
#include "doorbuster/process.h"

static struct setting options[] = {
    CLI_DATA_SETTINGS,
    {.option = "product", .value_name = "ID", .help = "only this product's books (default: all)"},
    {.option = "json", .help = "one JSON object instead of lines"},
};
static struct settings settings = {
    .program = "doorbuster-verify",
    .summary = "audits Redis against the store, each product at one position of the sales log",
    .epilogue = "It may run in the middle of a sale. Exit codes: 0 everything holds, 1 something does not, 2 "
                "could not check.",
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
