/* password.h: Argon2id's parameters, and that the memory remembers this password for this hash, for five
 * minutes and no longer. The monotonic clock is the test's own (--wrap). "not a hash" never verifies, so a
 * yes to it can only come from the memory. */
#include "doorbuster/clock.h"
#include "doorbuster/password.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static _Atomic int64_t now_us = 1000000;

int64_t __wrap_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void)
{
    return atomic_load(&now_us);
}

static int set_up(void **state)
{
    *state = password_memory_new();
    return 0;
}

static int tear_down(void **state)
{
    struct password_memory *memory = *state;

    password_memory_free(&memory);
    return memory == NULL ? 0 : -1;
}

static void test_hash_and_verify(void **state)
{
    char hash[PASSWORD_HASH_BYTES], other[PASSWORD_HASH_BYTES];

    (void)state;
    assert_true(password_hash("hunter2", hash));
    assert_true(password_hash("hunter2", other));
    assert_memory_equal(hash, "$argon2id$v=19$m=19456,t=2,p=1$", 31);
    assert_string_not_equal(hash, other); /* salted */
    assert_true(password_verify("hunter2", hash));
    assert_true(password_verify("hunter2", other));
    assert_false(password_verify("hunter3", hash));
    assert_false(password_verify("", hash));
    assert_false(password_verify("hunter2 ", hash));
    hash[strlen(hash) - 1] = hash[strlen(hash) - 1] == 'A' ? 'B' : 'A';
    assert_false(password_verify("hunter2", hash));
}

static void test_what_is_no_hash(void **state)
{
    static const char *const hashes[] = {"",
                                         "x",
                                         "not a hash",
                                         "$argon2id$",
                                         "$argon2id$v=19$m=19456,t=2,p=1$",
                                         "$2b$12$abcdefghijklmnopqrstuv"};
    char huge[1000];

    (void)state;
    for (size_t i = 0; i < sizeof hashes / sizeof hashes[0]; i++)
        assert_false(password_verify("", hashes[i]));
    memset(huge, 'a', sizeof huge);
    huge[sizeof huge - 1] = '\0';
    assert_false(password_verify("", huge));
    memcpy(huge, "$argon2id$v=19$m=19456,t=2,p=1$", 31);
    assert_false(password_verify("", huge));
}

static void test_remembers_what_it_verified(void **state)
{
    char hash[PASSWORD_HASH_BYTES];

    assert_true(password_hash("hunter2", hash));
    assert_false(password_memory_verify(*state, "hunter3", hash));
    assert_false(password_memory_knows(*state, "hunter2", hash));
    assert_true(password_memory_verify(*state, "hunter2", hash));
    assert_true(password_memory_knows(*state, "hunter2", hash));
    assert_false(password_memory_knows(*state, "hunter3", hash));
    assert_true(password_memory_verify(*state, "hunter2", hash));
    assert_false(
        password_memory_verify(*state, "hunter3", hash)); /* a wrong one was not remembered either time */
    assert_false(password_memory_verify(*state, "hunter2", "not a hash"));
}

static void test_remembers_what_was_added(void **state)
{
    assert_false(password_memory_verify(*state, "hunter2", "not a hash"));
    password_memory_add(*state, "hunter2", "not a hash");
    assert_true(password_memory_verify(*state, "hunter2", "not a hash"));
    assert_false(password_memory_verify(*state, "hunter2", "not a hash "));
    assert_false(password_memory_verify(*state, "hunter", "2not a hash")); /* lengths count */
    assert_false(password_memory_verify(*state, "hunter2not a hash", ""));
    assert_false(password_memory_verify(*state, "", "hunter2not a hash"));
}

static void test_forgets_after_five_minutes(void **state)
{
    password_memory_add(*state, "hunter2", "not a hash");
    atomic_fetch_add(&now_us, INT64_C(299999999));
    assert_true(password_memory_verify(*state, "hunter2",
                                       "not a hash")); /* which does not start the five minutes again */
    atomic_fetch_add(&now_us, 1);
    assert_false(password_memory_verify(*state, "hunter2", "not a hash"));
    password_memory_add(*state, "hunter2", "not a hash");
    assert_true(password_memory_verify(*state, "hunter2", "not a hash"));
}

static void test_two_memories_share_nothing(void **state)
{
    struct password_memory *other = password_memory_new();

    password_memory_add(*state, "hunter2", "not a hash");
    assert_false(password_memory_verify(other, "hunter2", "not a hash"));
    password_memory_free(&other);
    assert_null(other);
    password_memory_free(&other); /* NULL is fine */
}

static void test_bounded(void **state)
{
    char password[32];
    int remembered = 0;

    for (int i = 0; i < 50000; i++) {
        snprintf(password, sizeof password, "password %d", i);
        password_memory_add(*state, password, "not a hash");
        assert_true(password_memory_verify(*state, password, "not a hash"));
        atomic_fetch_add(&now_us, 1);
    }
    for (int i = 0; i < 50000; i++) {
        snprintf(password, sizeof password, "password %d", i);
        remembered += password_memory_verify(*state, password, "not a hash");
    }
    assert_in_range(remembered, 2000, 4096);
}

static void *add_and_verify(void *context)
{
    char password[32];
    uintptr_t missed = 0;

    for (int i = 0; i < 2000; i++) {
        snprintf(password, sizeof password, "password %d", i % 100);
        password_memory_add(context, password, "not a hash");
        missed += !password_memory_verify(context, password, "not a hash");
    }
    return (void *)missed;
}

static void test_several_threads(void **state)
{
    pthread_t threads[4];
    void *missed;

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_and_verify, *state), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &missed), 0);
        assert_null(missed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_and_verify),
        cmocka_unit_test(test_what_is_no_hash),
        cmocka_unit_test_setup_teardown(test_remembers_what_it_verified, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_remembers_what_was_added, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_forgets_after_five_minutes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_two_memories_share_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_several_threads, set_up, tear_down),
    };

    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
