/* The seam between the store's front (store.c) and its drivers. store.h says what each function does; the
 * front has checked the arguments and the mode before it calls. */
#ifndef STORE_DRIVER_H
#define STORE_DRIVER_H

#include "doorbuster/store.h"

#include <limits.h>

#define STORE_ERROR_BYTES 512

/* For drivers, in the loop in which they wait for others: calls what store_while_waiting() was given. */
void store_tell_waiting(void);

struct store_driver {
    const char *scheme; /* "sqlite:": what its URLs begin with */
    bool (*url_is_valid)(const char *url, char *error, size_t error_bytes);
    bool (*path)(const char *url, char path[PATH_MAX], char *error, size_t error_bytes);
    enum store_status (*open)(struct store **out, const char *url, enum store_mode mode, char *error,
                              size_t error_bytes);
    void (*close)(struct store *store);

    enum store_status (*back_up)(struct store *store, const char *path, struct store_position *position);
    enum store_status (*begin_anew)(struct store *store);
    enum store_status (*pack)(const char *path, char *error, size_t error_bytes);

    enum store_status (*add_user)(struct store *store, struct store_user *user);
    enum store_status (*find_user)(struct store *store, const char *username, struct store_user *out);
    enum store_status (*find_user_by_id)(struct store *store, int64_t id, struct store_user *out);
    enum store_status (*update_user)(struct store *store, int64_t id, enum user_role role,
                                     const char *password_hash);

    enum store_status (*add_product)(struct store *store, struct store_product *product);
    enum store_status (*find_product)(struct store *store, int64_t id, struct store_product *out);
    enum store_status (*find_product_by_name)(struct store *store, const char *name,
                                              struct store_product *out);
    enum store_status (*rename_product)(struct store *store, int64_t id, const char *name);
    enum store_status (*products)(struct store *store, int64_t after, struct store_product *out, size_t max,
                                  size_t *count);
    enum store_status (*catalog_size)(struct store *store, size_t newest, int64_t *count, int64_t *first);

    enum store_status (*find_order)(struct store *store, int64_t id, struct store_order *out);
    enum store_status (*order_parts)(struct store *store, int64_t id, struct order_part *out, size_t max,
                                     size_t *count);
    enum store_status (*orders_of)(struct store *store, int64_t user_id, int64_t before,
                                   struct store_order *out, size_t max, size_t *count);
    enum store_status (*latest_orders)(struct store *store, struct store_order *out, size_t max,
                                       size_t *count);
    enum store_status (*find_requests)(struct store *store, struct log_position from,
                                       struct store_request *wanted, size_t count);

    enum store_status (*position)(struct store *store, struct store_position *out);
    enum store_status (*raise_epoch)(struct store *store, uint64_t from, uint64_t to);
    enum store_status (*skip_to)(struct store *store, uint64_t epoch, struct log_position from,
                                 struct log_position to);
    enum store_status (*record)(struct store *store, uint64_t epoch, struct log_position from,
                                const struct log_entry *entries, size_t count, int64_t *rejected,
                                size_t *rejected_count);
    enum store_status (*take_over)(struct store *store);
    enum store_status (*sell)(struct store *store, struct purchase *const *purchases, size_t count,
                              struct stock_moves *moves);
    enum store_status (*change_stock)(struct store *store, const struct stock_change *change,
                                      enum change_outcome *outcome, struct change_result *result);
    enum store_status (*change_price)(struct store *store, const struct price_change *change,
                                      enum change_outcome *outcome, struct change_result *result);
    enum store_status (*change_window)(struct store *store, const struct window_change *change,
                                       enum change_outcome *outcome, struct change_result *result);
    enum store_status (*cancel)(struct store *store, int64_t order_id, int64_t actor,
                                enum change_outcome *outcome, struct change_result *result,
                                struct stock_moves *moves);
    enum store_status (*stock_at)(struct store *store, int64_t product_id, struct log_position position,
                                  bool *known, int64_t *stock);
    enum store_status (*each_buyer)(struct store *store, store_buyer_cb cb, void *context);
    enum store_status (*each_key)(struct store *store, int64_t since_ms, store_key_cb cb, void *context);
    enum store_status (*each_change_key)(struct store *store, int64_t since_ms, store_change_key_cb cb,
                                         void *context);

    enum store_status (*audit_log)(struct store *store, int64_t before, int64_t product_id,
                                   struct store_audit_row *out, size_t max, size_t *count);
    enum store_status (*audit_row_at)(struct store *store, struct log_position position, int64_t product_id,
                                      struct store_audit_row *out);
    enum store_status (*audit_chain)(struct store *store, struct store_chain_audit *out);

    enum store_status (*snapshot_begin)(struct store *store);
    void (*snapshot_end)(struct store *store);
    enum store_status (*audit_product)(struct store *store, int64_t product_id,
                                       struct store_product_audit *out);
    enum store_status (*audit_orders)(struct store *store, struct store_orders_audit *out);
};

/* Every driver's connection begins with this. */
struct store {
    const struct store_driver *driver;
    enum store_mode mode;
    bool in_snapshot;
    char error[STORE_ERROR_BYTES];
};

extern const struct store_driver sqlite_driver;

#endif
