/* setup's body: an admin account and a scenario's products, made on a running server's data. One thread, blocking. Owns its two
 * connections. What it cannot do is one line on stderr and exit code 1; running it again is always safe. */
#include "admin.h"
#include "cli.h"
#include "scenarios.h"

#include "doorbuster/books.h"
#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/process.h"
#include "doorbuster/sale.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GATE_TIMEOUT_MS 5000
#define LIMIT_MAX 1000000
#define PATIENCE_MS 10000

/* A product of the scenario, and what the store has under its name. */
struct candidate {
    const struct scenario_product *wanted;
    bool exists, fits;
    struct store_product product; /* if it exists, or was added */
};

struct setup {
    struct store *store;
    struct gate_side side;
    struct scenario scenario;
    struct candidate candidates[SCENARIO_PRODUCTS_MAX]; /* as in the scenario's list */
    bool reset;
    const char *admin_password; /* NULL: make one up */
};

/* How long the gate may be closed, and the record may take: until then. */
static int64_t patience_us(void)
{
    return clock_monotonic_us() + (int64_t)PATIENCE_MS * 1000;
}

static bool complain(const char *what, const char *why)
{
    fprintf(stderr, "doorbuster-setup: %s: %s\n", what, why);
    return false;
}

static void read_scenario(const struct settings *settings, struct scenario *out)
{
    const struct scenario *found = scenario_find(settings_get(settings, "scenario"));
    if (found == NULL) {
        settings_refuse(settings, "scenario", SCENARIO_NAMES);
    }
    *out = *found;
    if (settings_get(settings, "stock") != NULL) {
        scenario_set_stock(out, settings_get_integer(settings, "stock", 0, PRODUCT_STOCK_MAX));
    }
    if (settings_get(settings, "limit") != NULL) {
        int64_t limit = settings_get_integer(settings, "limit", 0, LIMIT_MAX);
        if (!out->takes_limit) {
            process_refuse(settings->program,
                           "--limit does not go with --scenario %s, which has limits of its own", out->name);
        }
        scenario_set_limit(out, limit);
    }
    if (!out->has_stock) {
        process_refuse(settings->program, "--scenario %s needs --stock N", out->name);
    }
}

/* --- the products ------------------------------------------------------------------------------------------------------------------- */
static bool complain_catalog(const struct setup *setup, const char *doing, enum catalog_status status)
{
    switch (status) {
    case CATALOG_ADDED:
        return true;
    case CATALOG_REPEATED:
    case CATALOG_KEY_REUSED: /* setup sends no key */
        CHECK(false);
    case CATALOG_NO_COMPONENT:
        return complain(doing, "a product that the bundle is made of is not there");
    case CATALOG_NAME_TAKEN:
        return complain(doing, "the name is taken");
    case CATALOG_STORE_FAILED:
        return complain(doing, store_error(setup->store));
    case CATALOG_GATE_FAILED:
        return complain(doing, books_failure());
    case CATALOG_NOT_RECORDED:
        return complain(doing, "it is in the sales log, but nobody records it; is the server running?");
    }
    return false;
}

/* Is the bundle made of the scenario's products as they are now? The store keeps components in order of product id. */
static bool has_wanted_components(const struct setup *setup, const struct candidate *candidate)
{
    const struct scenario_product *wanted = candidate->wanted;
    if (candidate->product.component_count != wanted->component_count) {
        return false;
    }
    for (size_t i = 0; i < wanted->component_count; i++) {
        const struct candidate *of = &setup->candidates[wanted->components[i].product];
        bool found = false;
        for (size_t j = 0; j < candidate->product.component_count; j++) {
            const struct bundle_component *has = &candidate->product.components[j];
            found = found || (of->exists && has->product_id == of->product.id &&
                              has->quantity == wanted->components[i].quantity);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static bool is_as_wanted(const struct setup *setup, const struct candidate *candidate)
{
    const struct store_product *product = &candidate->product;
    const struct scenario_product *wanted = candidate->wanted;
    return product->opened && product->sold == 0 && product->stock == wanted->stock &&
           product->price == wanted->price && product->per_customer_limit == wanted->limit &&
           has_wanted_components(setup, candidate);
}

static bool find_products(struct setup *setup)
{
    for (size_t i = 0; i < setup->scenario.product_count; i++) {
        struct candidate *candidate = &setup->candidates[i];
        candidate->wanted = &setup->scenario.products[i];
        enum store_status status =
            store_find_product_by_name(setup->store, candidate->wanted->name, &candidate->product);
        if (status != STORE_OK && status != STORE_NOT_FOUND) {
            return complain("looking for the products", store_error(setup->store));
        }
        candidate->exists = status == STORE_OK;
        candidate->fits = candidate->exists && is_as_wanted(setup, candidate);
    }
    return true;
}

/* The first that is there and is not as it should be; NULL: none. */
static const struct candidate *find_misfit(const struct setup *setup)
{
    for (size_t i = 0; i < setup->scenario.product_count; i++) {
        const struct candidate *candidate = &setup->candidates[i];
        if (candidate->exists && !candidate->fits) {
            return candidate;
        }
    }
    return NULL;
}

static bool refuse_without_reset(const struct setup *setup, const struct store_product *product)
{
    bool many = setup->scenario.product_count > 1;
    fprintf(stderr,
            "doorbuster-setup: product %" PRId64
            " \"%s\" %s; --reset retires %s (%s orders stay) and opens %s\n",
            product->id, product->name,
            product->sold > 0 ? "has orders" : "is there with another stock, price, limit or components",
            many ? "the scenario's products" : "it", many ? "their" : "its", many ? "new ones" : "a new one");
    return false;
}

static bool retire_product(struct setup *setup, const struct store_product *product)
{
    char name[STORE_PRODUCT_NAME_BYTES];
    /* A bundle has no stock of its own to withdraw: it is sold out with its components. */
    if (product->component_count == 0 &&
        !complain_catalog(setup, "retiring the product",
                          catalog_withdraw_all(setup->store, &setup->side, product->id, 0,
                                               "retired by setup --reset", patience_us()))) {
        return false;
    }
    snprintf(name, sizeof name, "%.600s (retired %" PRId64 ")", product->name, product->id);
    if (store_rename_product(setup->store, product->id, name) != STORE_OK) {
        return complain("retiring the product", store_error(setup->store));
    }
    printf("retired   product %" PRId64 " as \"%s\"\n", product->id, name);
    return true;
}

/* Bundles first: what is left of a bundle must not be there under its name without its components. */
static bool retire_all(struct setup *setup)
{
    for (size_t i = setup->scenario.product_count; i-- > 0;) {
        struct candidate *candidate = &setup->candidates[i];
        if (candidate->exists && !retire_product(setup, &candidate->product)) {
            return false;
        }
        candidate->exists = candidate->fits = false;
    }
    return true;
}

static void print_product(const struct store_product *product)
{
    printf("product   %" PRId64 " \"%s\", stock %" PRId64 ", price %" PRId64, product->id, product->name,
           product->stock, product->price);
    printf(product->per_customer_limit > 0 ? ", at most %" PRId64 " a customer\n" : ", no customer limit\n",
           product->per_customer_limit);
}

static void print_bundle(const struct store_product *product)
{
    printf("bundle    %" PRId64 " \"%s\" of", product->id, product->name);
    for (size_t i = 0; i < product->component_count; i++) {
        printf("%s %" PRId64 " x product %" PRId64, i > 0 ? "," : "", product->components[i].quantity,
               product->components[i].product_id);
    }
    printf(", price %" PRId64 "\n", product->price);
}

static bool add_product(struct setup *setup, struct candidate *candidate)
{
    const struct scenario_product *wanted = candidate->wanted;
    struct store_product *product = &candidate->product;
    *product = (struct store_product){.price = wanted->price,
                                      .per_customer_limit = wanted->limit,
                                      .planned_stock = wanted->stock,
                                      .component_count = wanted->component_count};
    snprintf(product->name, sizeof product->name, "%s", wanted->name);
    for (size_t i = 0; i < wanted->component_count; i++) {
        const struct candidate *of = &setup->candidates[wanted->components[i].product];
        CHECK(of->exists && of < candidate);
        product->components[i] = (struct bundle_component){of->product.id, wanted->components[i].quantity};
    }
    if (!complain_catalog(setup, "adding the product",
                          catalog_add(setup->store, &setup->side, product, 0, NULL, patience_us()))) {
        return false;
    }
    candidate->exists = candidate->fits = true;
    if (wanted->component_count > 0) {
        print_bundle(product);
    } else {
        print_product(product);
    }
    return true;
}

static void print_there(const struct store_product *product)
{
    if (product->component_count > 0) {
        printf("bundle    %" PRId64 " \"%s\" is there already\n", product->id, product->name);
    } else {
        printf("product   %" PRId64 " \"%s\" is there already, stock %" PRId64 "\n", product->id,
               product->name, product->stock);
    }
}

/* All or nothing as far as refusals go: first everything is looked at, then something is done. What is missing is added in any case, so a
 * setup that was cut short is finished by the next. */
static bool make_products(struct setup *setup)
{
    if (!find_products(setup)) {
        return false;
    }
    const struct candidate *misfit = find_misfit(setup);
    if (misfit != NULL && !setup->reset) {
        return refuse_without_reset(setup, &misfit->product);
    }
    if (misfit != NULL && !retire_all(setup)) {
        return false;
    }
    for (size_t i = 0; i < setup->scenario.product_count; i++) {
        struct candidate *candidate = &setup->candidates[i];
        if (candidate->fits) {
            print_there(&candidate->product);
        } else if (!add_product(setup, candidate)) {
            return false;
        }
    }
    return true;
}

/* Without a majority of the nodes nothing would be sold: then the products can wait too. */
static bool has_majority(struct gate_side *side)
{
    const int64_t any = 1;
    struct node_stock ignored;
    return side->place->kind == GATE_LUA || node_books_read(side->nodes, &any, 1, &ignored);
}

static bool reach_gate(struct setup *setup)
{
    char error[512];
    if (!gate_side_ready(&setup->side, error, sizeof error)) {
        return complain("is the server running", error);
    }
    return has_majority(&setup->side) || complain("is the server running", gate_side_failure(&setup->side));
}

static bool make_admin(const struct setup *setup)
{
    char username[STORE_USERNAME_BYTES];
    snprintf(username, sizeof username, "admin_%s", setup->scenario.name);
    return admin_make_own(setup->store, username, setup->admin_password);
}

static int seed(const struct settings *settings)
{
    CHECK(sodium_init() >= 0);
    struct cli_place place;
    static struct setup setup;
    setup = (struct setup){.reset = settings_get(settings, "reset") != NULL,
                           .admin_password = admin_read_password(settings)};
    char error[512];
    read_scenario(settings, &setup.scenario);
    cli_read_place(settings, &place);
    if (store_open(&setup.store, place.store_url, STORE_WRITER, error, sizeof error) != STORE_OK) {
        complain("opening the store", error);
        return 1;
    }
    if (!cli_choose_gate(settings, setup.store, &place)) {
        complain("reading the store", store_error(setup.store));
        store_close(&setup.store);
        return 1;
    }
    setup.side =
        (struct gate_side){.place = &place.gate, .store_id = place.store_id, .timeout_ms = GATE_TIMEOUT_MS};
    bool ok = reach_gate(&setup) && make_products(&setup) &&
              make_admin(&setup); /* a refusal leaves no account behind */
    gate_side_close(&setup.side);
    store_close(&setup.store);
    return ok ? 0 : 1;
}

static bool is_given(const struct settings *settings, const char *option)
{
    for (size_t i = 0; i < settings->count; i++) {
        if (settings->list[i].option != NULL && strcmp(settings->list[i].option, option) == 0) {
            return settings->list[i].from_user;
        }
    }
    return false;
}

static void refuse_what_does_not_go_together(const struct settings *settings)
{
    static const char *const of_a_sale[] = {"scenario", "stock", "limit"};
    bool backup = is_given(settings, "backup"), restore = is_given(settings, "restore"),
         admin = is_given(settings, "admin");
    if (backup && restore) {
        process_refuse(settings->program, "--backup and --restore are two commands");
    }
    if (is_given(settings, "restored") && (backup || restore || admin)) {
        process_refuse(settings->program, "--restored is a command of its own");
    }
    if (admin && (backup || restore)) {
        process_refuse(settings->program, "--admin and --%s are two commands", backup ? "backup" : "restore");
    }
    if ((is_given(settings, "keep") && !backup) || (is_given(settings, "replace") && !restore)) {
        process_refuse(settings->program, "--keep goes with --backup, --replace with --restore");
    }
    for (size_t i = 0; admin && i < sizeof of_a_sale / sizeof of_a_sale[0]; i++) {
        if (is_given(settings, of_a_sale[i])) {
            process_refuse(settings->program, "--%s does not go with --admin, which puts nothing on sale",
                           of_a_sale[i]);
        }
    }
}

int setup_run(const struct settings *settings)
{
    refuse_what_does_not_go_together(settings);
    return is_given(settings, "backup")     ? backup_run(settings)
           : is_given(settings, "restore")  ? restore_run(settings)
           : is_given(settings, "restored") ? restored_run(settings)
           : is_given(settings, "admin")    ? admin_run(settings)
                                            : seed(settings);
}
