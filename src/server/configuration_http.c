/* The settings of HTTP: who may come in, from where, and under which certificate. Runs in the supervisor, at start and again, for the certificate
 * alone, on SIGHUP; blocking. Owns the copies of certificate and key; the key's is wiped before it is freed. */
#include "configuration_http.h"

#include "doorbuster/http.h"
#include "doorbuster/process.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PEM_BYTES_MAX 262144

/* The file as text, to be freed; NULL: `error` says why. */
static char *read_file(const char *path, char *error, size_t error_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd >= 0 ? malloc(PEM_BYTES_MAX + 1) : NULL;
    ssize_t bytes = -1;
    size_t used = 0;
    if (text != NULL) {
        while (used < PEM_BYTES_MAX && (bytes = read(fd, text + used, PEM_BYTES_MAX - used)) > 0) {
            used += (size_t)bytes;
        }
    }
    if (bytes != 0) {
        snprintf(error, error_bytes, "cannot read %s: %s", path, bytes > 0 ? "too large" : strerror(errno));
        free(text);
        text = NULL;
    } else {
        text[used] = '\0';
    }
    if (fd >= 0) {
        close(fd);
    }
    return text;
}

static void free_key(char *key)
{
    if (key != NULL) {
        sodium_memzero(key, strlen(key));
        free(key);
    }
}

bool configuration_read_tls(struct server_configuration *configuration, char *error, size_t error_bytes)
{
    struct server_tls *tls = &configuration->tls;
    char why[256] = "";
    if (tls->certificate_path == NULL) {
        return true;
    }
    char *certificate = read_file(tls->certificate_path, error, error_bytes);
    char *key = certificate != NULL ? read_file(tls->key_path, error, error_bytes) : NULL;
    const struct http_settings http = {.tls_certificate_pem = certificate, .tls_key_pem = key};
    struct http_certificate read;
    bool good = key != NULL && http_settings_check(&http, why, sizeof why);
    if (good && !http_certificate_read(certificate, &read)) {
        snprintf(why, sizeof why, "the certificate does not say until when it is valid");
        good = false;
    }
    if (key != NULL && !good) {
        snprintf(error, error_bytes, "the certificate %s and the key %s cannot be used: %s",
                 tls->certificate_path, tls->key_path, why);
    }
    if (good) {
        char *old_certificate = tls->certificate_pem, *old_key = tls->key_pem;
        tls->certificate_pem = certificate;
        tls->key_pem = key;
        tls->certificate = read;
        certificate = old_certificate;
        key = old_key;
    }
    free(certificate);
    free_key(key);
    return good;
}

static void read_tls_settings(const struct settings *settings, struct server_configuration *configuration)
{
    char error[1024];
    struct server_tls *tls = &configuration->tls;
    tls->certificate_path = settings_get(settings, "tls-certificate");
    tls->key_path = settings_get(settings, "tls-key");
    if ((tls->certificate_path == NULL) != (tls->key_path == NULL)) {
        process_refuse(PROGRAM, "--tls-certificate and --tls-key go together; there is only the %s",
                       tls->key_path == NULL ? "first" : "second");
    }
    if (!configuration_read_tls(configuration, error, sizeof error)) {
        process_refuse(PROGRAM, "%s", error);
    }
}

static void read_limits(const struct settings *settings, struct server_configuration *configuration)
{
    static const char *const names[API_LIMITS] = {[API_LIMIT_ACCOUNT] = "rate-account",
                                                  [API_LIMIT_ADDRESS] = "rate-address",
                                                  [API_LIMIT_SIGN_IN] = "rate-sign-in"};
    const char *wanted = settings_get(settings, "rate-limits");
    configuration->has_limits = strcmp(wanted, "on") == 0;
    if (!configuration->has_limits && strcmp(wanted, "off") != 0) {
        settings_refuse(settings, "rate-limits", "on or off");
    }
    configuration->connections_per_address =
        (unsigned)settings_get_integer(settings, "connections-per-address", 1, 1000000);
    for (int i = 0; i < API_LIMITS; i++) {
        if (!rate_limit_parse(settings_get(settings, names[i]), &configuration->limits.limits[i])) {
            settings_refuse(settings, names[i],
                            "N/s or N/min, N up to 10000, and perhaps a burst: 50/s:100 is 50 a second and "
                            "100 at once (a day's worth at most)");
        }
    }
}

void configuration_read_http(const struct settings *settings, struct server_configuration *configuration)
{
    char error[512];
    struct http_settings http = {.cors_origins = settings_get(settings, "cors-origins")};
    if (!http_settings_check(&http, error, sizeof error)) {
        process_refuse(PROGRAM, "--cors-origins or DOORBUSTER_CORS_ORIGINS: %s", error);
    }
    http = (struct http_settings){.trusted_proxies = settings_get(settings, "trusted-proxies")};
    if (!http_settings_check(&http, error, sizeof error)) {
        process_refuse(PROGRAM, "--trusted-proxies or DOORBUSTER_TRUSTED_PROXIES: %s", error);
    }
    configuration->cors_origins = settings_get(settings, "cors-origins");
    configuration->trusted_proxies = settings_get(settings, "trusted-proxies");
    read_limits(settings, configuration);
    read_tls_settings(settings, configuration);
}
