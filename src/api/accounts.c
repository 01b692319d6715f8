/* Accounts: register, log in, me. Handlers and replies on the loop's thread; hashing and the store in the work pool, in two steps: the
 * password queue runs at the lowest priority, so nothing there may hold the store's lock. */
#include "admission.h"

#include "doorbuster/clock.h"
#include "doorbuster/json.h"
#include "form.h"

#include <stdio.h>
#include <string.h>

#define PASSWORD_CHARACTERS_MIN 6
#define PASSWORD_CHARACTERS_MAX 100
#define PASSWORD_BYTES 401
#define USERNAME_CHARACTERS_MIN 3
#define USERNAME_CHARACTERS_MAX 50
#define EMAIL_CHARACTERS_MAX 254

struct account_job {
    struct job job;
    struct store_user user;
    char password[PASSWORD_BYTES];
    char username[STORE_USERNAME_BYTES]; /* of a sign-in: as it was asked for */
};

static cJSON *user_to_json(const struct store_user *user)
{
    char created_at[CLOCK_RFC3339_BYTES];
    clock_rfc3339(user->created_at_ms, created_at);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "id", (double)user->id);
    cJSON_AddStringToObject(json, "username", user->username);
    if (user->email[0] != '\0') {
        cJSON_AddStringToObject(json, "email", user->email);
    } else {
        cJSON_AddNullToObject(json, "email");
    }
    cJSON_AddStringToObject(json, "role", user->role == USER_ADMIN ? "admin" : "buyer");
    cJSON_AddStringToObject(json, "created_at", created_at);
    return json;
}

/* --- register: hash (password queue), then add (write queue) -------------------------------------------------------------------- */
static void add_user_work(struct job *job, struct desk *desk)
{
    struct account_job *account = (struct account_job *)job;
    if (desk_needs_writer(desk, job)) {
        job_store_status(job, desk->writer, store_add_user(desk->writer, &account->user));
    }
}

static void add_user_reply(struct job *job)
{
    struct account_job *account = (struct account_job *)job;
    if (job->outcome == JOB_TAKEN) {
        http_reply_problem(job->request, &api_problems[PROBLEM_USERNAME_TAKEN], NULL,
                           "The user name \"%s\" is taken.", account->user.username);
        return;
    }
    /* Most people log in right after registering: that should not cost a second Argon2. */
    password_memory_add(job->api->passwords, account->password, account->user.password_hash);
    memset(account->password, 0, sizeof account->password);
    http_reply_json(job->request, 201, user_to_json(&account->user));
}

static void hash_work(struct job *job, struct desk *desk)
{
    struct account_job *account = (struct account_job *)job;
    (void)desk;
    if (!password_hash(account->password, account->user.password_hash)) {
        job->outcome = JOB_UNAVAILABLE;
        snprintf(job->error, sizeof job->error, "no memory to hash a password");
    }
}

static void hash_reply(struct job *job)
{
    job->work = add_user_work;
    job->reply = add_user_reply;
    job_start(job, WORK_WRITE);
}

void accounts_register(struct http_request *request, void *context)
{
    cJSON *body = api_json_body(request);
    if (body == NULL) {
        return;
    }
    const char *username = NULL, *password = NULL, *email = "";
    struct validation validation = {0};
    validation_string(&validation, body, "username", true, USERNAME_CHARACTERS_MIN, USERNAME_CHARACTERS_MAX,
                      &username);
    validation_string(&validation, body, "password", true, PASSWORD_CHARACTERS_MIN, PASSWORD_CHARACTERS_MAX,
                      &password);
    validation_string(&validation, body, "email", false, 0, EMAIL_CHARACTERS_MAX, &email);
    validation_one_line(&validation, "username", username);
    if (!validation_failed(&validation, request)) {
        struct account_job *account = job_new(context, request, sizeof *account, hash_work, hash_reply);
        snprintf(account->user.username, sizeof account->user.username, "%s", username);
        snprintf(account->user.email, sizeof account->user.email, "%.*s", (int)sizeof account->user.email - 1,
                 email);
        snprintf(account->password, sizeof account->password, "%s", password);
        job_start(&account->job, WORK_PASSWORD);
    }
    cJSON_Delete(body);
}

/* --- log in: find (store queue), then verify (password queue) ------------------------------------------------------------------------ */
static void verify_work(struct job *job, struct desk *desk)
{
    struct account_job *account = (struct account_job *)job;
    (void)desk;
    /* An unknown name costs as much time as a wrong password: nobody learns which names exist. */
    static const char nobody[] =
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    bool known = account->user.id > 0;
    bool fits = password_memory_verify(job->api->passwords, account->password,
                                       known ? account->user.password_hash : nobody);
    job->outcome = known && fits ? JOB_OK : JOB_DENIED;
}

static void verify_reply(struct job *job)
{
    struct account_job *account = (struct account_job *)job;
    memset(account->password, 0, sizeof account->password);
    if (job->outcome == JOB_DENIED) {
        admission_sign_in_failed(job->api, job->request);
        http_reply_header(job->request, "WWW-Authenticate", "Bearer");
        http_reply_problem(job->request, &api_problems[PROBLEM_UNAUTHORIZED], NULL,
                           "The user name or the password is wrong.");
        return;
    }
    admission_sign_in_taken_back(job->api, job->request, account->username);
    struct jwt_claims claims = {
        .user_id = account->user.id, .role = account->user.role, .issued_at_s = clock_wall_ms() / 1000};
    claims.expires_at_s = claims.issued_at_s + JWT_LIFETIME_S;
    memcpy(claims.username, account->user.username, sizeof claims.username);
    char token[JWT_TOKEN_BYTES_MAX];
    jwt_sign(job->api->jwt, &claims, token);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "access_token", token);
    cJSON_AddStringToObject(json, "token_type", "bearer");
    cJSON_AddNumberToObject(json, "expires_in", JWT_LIFETIME_S);
    http_reply_json(job->request, 200, json);
}

static void find_user_work(struct job *job, struct desk *desk)
{
    struct account_job *account = (struct account_job *)job;
    char username[STORE_USERNAME_BYTES];
    memcpy(username, account->user.username, sizeof username);
    if (desk_needs_reader(desk, job)) {
        job_store_status(job, desk->reader, store_find_user(desk->reader, username, &account->user));
    }
}

static void find_user_reply(struct job *job)
{
    struct account_job *account = (struct account_job *)job;
    if (job->outcome == JOB_NOT_FOUND) {
        account->user.id = 0;
    }
    job->outcome = JOB_OK;
    job->work = verify_work;
    job->reply = verify_reply;
    if (account->user.id > 0 &&
        password_memory_knows(job->api->passwords, account->password, account->user.password_hash)) {
        verify_reply(job); /* past the queue of those who must be hashed */
    } else {
        job_start(job, WORK_PASSWORD);
    }
}

/* Nobody has looked at the password, so it was not a wrong one. */
static void refuse_sign_in(struct job *job, const struct job_refusal *why)
{
    admission_sign_in_taken_back(job->api, job->request, ((struct account_job *)job)->username);
    job_refuse(job->api, job->request, why);
}

void accounts_login(struct http_request *request, void *context)
{
    static const char type[] = "application/x-www-form-urlencoded";
    if (!http_request_is_media_type(request, type)) {
        http_reply_problem(request, &http_problems[HTTP_PROBLEM_UNSUPPORTED_MEDIA_TYPE], NULL,
                           "The body must be %s.", type);
        return;
    }
    size_t bytes;
    const char *body = http_request_body(request, &bytes);
    struct account_job *account = job_new(context, request, sizeof *account, find_user_work, find_user_reply);
    struct validation validation = {0};
    if (form_get(body, bytes, "username", account->user.username, sizeof account->user.username) != FORM_OK ||
        account->user.username[0] == '\0') {
        validation_add(&validation, "username", "is required once: UTF-8 text of at most %d characters",
                       USERNAME_CHARACTERS_MAX);
    }
    if (form_get(body, bytes, "password", account->password, sizeof account->password) != FORM_OK ||
        account->password[0] == '\0') {
        validation_add(&validation, "password", "is required once: UTF-8 text of at most %d characters",
                       PASSWORD_CHARACTERS_MAX);
    }
    memcpy(account->username, account->user.username, sizeof account->username);
    account->job.refuse = refuse_sign_in;
    if (!validation_failed(&validation, request) && admission_sign_in(context, request, account->username)) {
        job_start(&account->job, WORK_STORE);
    }
}

/* --- me ---------------------------------------------------------------------------------------------------------------------------- */
static void me_work(struct job *job, struct desk *desk)
{
    struct account_job *account = (struct account_job *)job;
    if (desk_needs_reader(desk, job)) {
        job_store_status(job, desk->reader,
                         store_find_user_by_id(desk->reader, account->user.id, &account->user));
    }
}

static void me_reply(struct job *job)
{
    struct account_job *account = (struct account_job *)job;
    if (job->outcome == JOB_NOT_FOUND) {
        http_reply_header(job->request, "WWW-Authenticate", "Bearer");
        http_reply_problem(job->request, &api_problems[PROBLEM_UNAUTHORIZED], NULL,
                           "The token's account does not exist any more.");
        return;
    }
    http_reply_json(job->request, 200, user_to_json(&account->user));
}

void accounts_me(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    if (api_identify(context, request, &claims)) {
        struct account_job *account = job_new(context, request, sizeof *account, me_work, me_reply);
        account->user.id = claims.user_id;
        job_start(&account->job, WORK_STORE);
    }
}
