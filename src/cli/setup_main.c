/* `setup`: seeds a running server with a scenario, makes an admin, backs its store up, restores it. main() only names the settings. */
#include "cli.h"
#include "scenarios.h"

#include "doorbuster/log.h"
#include "doorbuster/process.h"

static struct setting options[] = {
    CLI_DATA_SETTINGS,
    {.option = "scenario", .value_name = "NAME", .default_value = "v1_stress", .help = SCENARIO_NAMES},
    {.option = "stock",
     .value_name = "N",
     .help = "units of each product to sell (default: the scenario's; needed for custom)"},
    {.option = "limit",
     .value_name = "N",
     .help = "units a customer may buy, 0 for any number (default: the scenario's); not for v2_multi, "
             "v4_production"},
    {.option = "reset",
     .help = "retire products that have orders, with their names, and open new ones; with --admin: a new "
             "password"},
    {.option = "admin",
     .value_name = "NAME",
     .help = "instead of a scenario: make the admin account NAME, or the existing account NAME an admin; "
             "puts nothing on sale"},
    {.option = "backup",
     .value_name = "FOLDER",
     .help = "instead: copy the store into a new file in FOLDER, checked, while the server sells"},
    {.option = "keep",
     .value_name = "N",
     .help = "with --backup: the newest N stay, older ones go (default: all stay)"},
    {.option = "restore",
     .value_name = "PATH",
     .help = "instead: make a backup, or the newest one in a folder, the store of a stopped server"},
    {.option = "restored",
     .help = "instead: PostgreSQL has brought the store back to an earlier moment; mark it, before a server "
             "starts on it"},
    {.option = "replace", .help = "with --restore: put the store that is there aside"},
    {.environment = "DOORBUSTER_ADMIN_PASSWORD",
     .value_name = "PASSWORD",
     .help = "password of the admin account (default: made up and printed once)"},
};
static struct settings settings = {
    .program = "doorbuster-setup",
    .summary =
        "makes the admin account and the scenario's products on a running server; or an admin account alone; "
        "backs its store up, restores it",
    .epilogue =
        "v2_multi has ten products and two bundles, v3_redlock and v4_production two products, the "
        "others one.\n"
        "Running it again changes nothing; once a product has orders, --reset retires all of the "
        "scenario and opens new ones.\n\n"
        "--admin needs no running server. An existing account keeps its password; with --reset it gets "
        "the new one (a\nforgotten password).\n\n"
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
