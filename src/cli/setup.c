/* setup's body: an admin account and a product, made on a running server's data. One thread, blocking. Owns its two connections. What it
 * cannot do is one line on stderr and exit code 1; running it again is always safe. */
#include "cli.h"

#include "doorbuster/books.h"
#include "doorbuster/check.h"
#include "doorbuster/password.h"
#include "doorbuster/sale.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIS_TIMEOUT_MS 5000
#define MADE_UP_PASSWORD_BYTES 15
#define LIMIT_MAX 1000000

struct scenario {
    const char *name;
    const char *product;
    int64_t price, stock, limit; /* stock < 0: must be given */
};

static const struct scenario scenarios[] = {
    {.name = "v1_basic", .product = "Black Friday Limited Edition", .price = 49900, .stock = 100, .limit = 1},
    {.name = "v1_stress",
     .product = "Black Friday Limited Edition",
     .price = 49900,
     .stock = 100,
     .limit = 1},
    {.name = "custom", .product = "Black Friday Limited Edition", .price = 49900, .stock = -1, .limit = 0},
};

struct setup {
    struct store *store;
    redisContext *redis;
    struct scenario scenario;
    bool reset;
    const char *admin_password; /* NULL: make one up */
};

static bool complain(const char *what, const char *why)
{
    fprintf(stderr, "doorbuster-setup: %s: %s\n", what, why);
    return false;
}

static void read_scenario(const struct settings *settings, struct scenario *out)
{
    const char *name = settings_get(settings, "scenario");
    const struct scenario *found = NULL;
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        found = strcmp(scenarios[i].name, name) == 0 ? &scenarios[i] : found;
    }
    if (found == NULL) {
        settings_refuse(settings, "scenario", "v1_basic, v1_stress or custom");
    }
    *out = *found;
    if (settings_get(settings, "stock") != NULL) {
        out->stock = settings_get_integer(settings, "stock", 0, PRODUCT_STOCK_MAX);
    }
    if (settings_get(settings, "limit") != NULL) {
        out->limit = settings_get_integer(settings, "limit", 0, LIMIT_MAX);
    }
    if (out->stock < 0) {
        fprintf(stderr, "doorbuster-setup: --scenario custom needs --stock N\n");
        exit(2);
    }
}

/* --- the admin account ------------------------------------------------------------------------------------------------------------ */
/* The password to give the account: the setting's, or one made up and printed this once. */
static void choose_password(const struct setup *setup, const char *username, char out[64])
{
    if (setup->admin_password != NULL) {
        snprintf(out, 64, "%s", setup->admin_password);
        return;
    }
    unsigned char random[MADE_UP_PASSWORD_BYTES];
    randombytes_buf(random, sizeof random);
    sodium_bin2base64(out, 64, random, sizeof random, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    printf("admin     %s, password %s (shown this once)\n", username, out);
}

static bool keep_admin(const struct setup *setup, const struct store_user *user)
{
    return user->role == USER_ADMIN &&
           (setup->admin_password == NULL || password_verify(setup->admin_password, user->password_hash));
}

static bool make_admin(const struct setup *setup)
{
    struct store_user user = {.role = USER_ADMIN};
    char password[64];
    snprintf(user.username, sizeof user.username, "admin_%s", setup->scenario.name);
    struct store_user existing;
    enum store_status status = store_find_user(setup->store, user.username, &existing);
    if (status == STORE_OK && keep_admin(setup, &existing)) {
        printf("admin     %s is there already\n", user.username);
        return true;
    }
    if (status != STORE_OK && status != STORE_NOT_FOUND) {
        return complain("looking for the admin account", store_error(setup->store));
    }
    choose_password(setup, user.username, password);
    if (!password_hash(password, user.password_hash)) {
        return complain("making the admin account", "no memory to hash its password");
    }
    /* An account of this name that a buyer registered gets the new password with the new role. */
    status = status == STORE_OK ? store_update_user(setup->store, existing.id, USER_ADMIN, user.password_hash)
                                : store_add_user(setup->store, &user);
    if (status != STORE_OK) {
        return complain("making the admin account", store_error(setup->store));
    }
    if (setup->admin_password != NULL) {
        printf("admin     %s, password from DOORBUSTER_ADMIN_PASSWORD\n", user.username);
    }
    return true;
}

/* --- the product --------------------------------------------------------------------------------------------------------------------- */
static bool complain_catalog(const struct setup *setup, const char *doing, enum catalog_status status)
{
    switch (status) {
    case CATALOG_ADDED:
        return true;
    case CATALOG_NAME_TAKEN:
        return complain(doing, "the name is taken");
    case CATALOG_STORE_FAILED:
        return complain(doing, store_error(setup->store));
    case CATALOG_REDIS_FAILED:
        return complain(doing, redis_failure());
    case CATALOG_NOT_RECORDED:
        return complain(doing, "it is in the sales log, but nobody records it; is the server running?");
    }
    return false;
}

static bool retire_product(const struct setup *setup, const struct store_product *product)
{
    enum catalog_status status =
        catalog_withdraw_all(setup->store, setup->redis, product->id, 0, "retired by setup --reset");
    char name[STORE_PRODUCT_NAME_BYTES];
    snprintf(name, sizeof name, "%.600s (retired %" PRId64 ")", product->name, product->id);
    if (!complain_catalog(setup, "retiring the product", status)) {
        return false;
    }
    if (store_rename_product(setup->store, product->id, name) != STORE_OK) {
        return complain("retiring the product", store_error(setup->store));
    }
    printf("retired   product %" PRId64 " as \"%s\"\n", product->id, name);
    return true;
}

static bool add_product(const struct setup *setup)
{
    const struct scenario *scenario = &setup->scenario;
    struct store_product product = {
        .price = scenario->price, .per_customer_limit = scenario->limit, .planned_stock = scenario->stock};
    snprintf(product.name, sizeof product.name, "%s", scenario->product);
    if (!complain_catalog(setup, "adding the product",
                          catalog_add(setup->store, setup->redis, &product, 0))) {
        return false;
    }
    printf("product   %" PRId64 " \"%s\", stock %" PRId64 ", price %" PRId64, product.id, product.name,
           product.stock, product.price);
    printf(product.per_customer_limit > 0 ? ", at most %" PRId64 " a customer\n" : ", no customer limit\n",
           product.per_customer_limit);
    return true;
}

static bool make_product(const struct setup *setup)
{
    const struct scenario *scenario = &setup->scenario;
    struct store_product existing;
    enum store_status status = store_find_product_by_name(setup->store, scenario->product, &existing);
    if (status == STORE_NOT_FOUND) {
        return add_product(setup);
    }
    if (status != STORE_OK) {
        return complain("looking for the product", store_error(setup->store));
    }
    bool as_wanted = existing.sold == 0 && existing.opened && existing.stock == scenario->stock &&
                     existing.per_customer_limit == scenario->limit;
    if (as_wanted) {
        printf("product   %" PRId64 " \"%s\" is there already, stock %" PRId64 "\n", existing.id,
               existing.name, existing.stock);
        return true;
    }
    if (!setup->reset) {
        fprintf(stderr,
                "doorbuster-setup: product %" PRId64
                " \"%s\" %s; --reset retires it (its orders stay) and opens a new one\n",
                existing.id, existing.name,
                existing.sold > 0 ? "has orders" : "is there with another stock or limit");
        return false;
    }
    return retire_product(setup, &existing) && add_product(setup);
}

int setup_run(const struct settings *settings)
{
    CHECK(sodium_init() >= 0);
    struct cli_place place;
    struct setup setup = {.reset = settings_get(settings, "reset") != NULL,
                          .admin_password = settings_get(settings, "DOORBUSTER_ADMIN_PASSWORD")};
    char error[512];
    read_scenario(settings, &setup.scenario);
    cli_read_place(settings, &place);
    if (setup.admin_password != NULL &&
        (strlen(setup.admin_password) < 6 || strlen(setup.admin_password) > 63)) {
        fprintf(stderr, "doorbuster-setup: DOORBUSTER_ADMIN_PASSWORD must have 6 to 63 bytes\n");
        return 2;
    }
    if (store_open(&setup.store, place.store_url, STORE_WRITER, error, sizeof error) != STORE_OK) {
        complain("opening the store", error);
        return 1;
    }
    setup.redis = redis_connect_blocking(&place.redis, REDIS_TIMEOUT_MS, error, sizeof error);
    if (setup.redis == NULL) {
        complain("is the server running", error);
        store_close(&setup.store);
        return 1;
    }
    bool ok = make_product(&setup) && make_admin(&setup); /* a refusal leaves no account behind */
    redisFree(setup.redis);
    store_close(&setup.store);
    return ok ? 0 : 1;
}
