/* `setup`: seeds a running server with a scenario. main() only names the settings. */
#include "cli.h"

#include "doorbuster/log.h"
#include "doorbuster/process.h"

static struct setting options[] = {
    CLI_DATA_SETTINGS,
    {.option = "scenario",
     .value_name = "NAME",
     .default_value = "v1_stress",
     .help = "v1_basic, v1_stress or custom"},
    {.option = "stock",
     .value_name = "N",
     .help = "units to sell (default: the scenario's; needed for custom)"},
    {.option = "limit",
     .value_name = "N",
     .help = "units a customer may buy, 0 for any number (default: the scenario's)"},
    {.option = "reset", .help = "retire a product that has orders, with its name, and open a new one"},
    {.environment = "DOORBUSTER_ADMIN_PASSWORD",
     .value_name = "PASSWORD",
     .help = "password of the admin account (default: made up and printed once)"},
};
static struct settings settings = {
    .program = "doorbuster-setup",
    .summary = "makes the admin account and the scenario's product on a running server",
    .epilogue = "Running it again changes nothing; once the product has orders, --reset opens a new one. "
                "Exit codes: 0 done, 1 refused or failed, 2 a bad option or setting.",
    .list = options,
    .count = sizeof options / sizeof options[0],
};

int main(int argc, char **argv)
{
    process_init_title(argc, argv);
    log_set_speaker("setup");
    settings_read(&settings, argc, argv);
    return setup_run(&settings);
}
