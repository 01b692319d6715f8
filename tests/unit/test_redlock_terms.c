/* What a worker remembers of products: found, overwritten, and forgotten in the order in which it was learned. */
#include "testing.h"

#include "redlock_terms.h"

static void learn(struct terms *terms, int64_t id, int64_t limit)
{
    terms_learn(terms, &(struct sale_product){.id = id, .limit = limit},
                (struct log_position){7, (uint64_t)id});
}

static void test_known_and_unknown(void **state)
{
    struct terms *terms = terms_new();
    (void)state;
    assert_null(terms_find(terms, 1));
    learn(terms, 1, 3);
    learn(terms, 1 + TERMS_MAX, 4); /* the same bucket */
    assert_int_equal(terms_find(terms, 1)->product.limit, 3);
    assert_int_equal(terms_find(terms, 1 + TERMS_MAX)->product.limit, 4);
    assert_null(terms_find(terms, 1 + 2 * TERMS_MAX));
    terms_free(&terms);
    assert_null(terms);
}

static void test_the_stock_that_was_seen(void **state)
{
    struct terms *terms = terms_new();
    (void)state;
    terms_see_stock(terms, 1, 5); /* of what is not known: nothing */
    learn(terms, 1, 0);
    assert_true(terms_find(terms, 1)->seen_stock == INT64_MAX);
    terms_see_stock(terms, 1, 5);
    learn(terms, 1, 2); /* learned again: the figure stays */
    assert_int_equal(terms_find(terms, 1)->seen_stock, 5);
    assert_int_equal(terms_find(terms, 1)->product.limit, 2);
    terms_free(&terms);
}

static void test_the_oldest_makes_room(void **state)
{
    struct terms *terms = terms_new();
    (void)state;
    for (int64_t id = 1; id <= 3 * TERMS_MAX + 7; id++) {
        learn(terms, id * TERMS_MAX / 2, id); /* two buckets for all */
        int64_t oldest = id > TERMS_MAX ? id - TERMS_MAX + 1 : 1;
        assert_int_equal(terms_find(terms, oldest * TERMS_MAX / 2)->product.limit, oldest);
        assert_null(terms_find(terms, (oldest - 1) * TERMS_MAX / 2));
    }
    terms_free(&terms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_and_unknown),
        cmocka_unit_test(test_the_stock_that_was_seen),
        cmocka_unit_test(test_the_oldest_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
