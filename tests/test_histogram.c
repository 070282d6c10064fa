/* test_histogram.c - buckets and quantiles. */
#include "harness.h"

#include "../lib/histogram.h"

static struct onefd_histogram histogram;

static void reset(void)
{
	memset(&histogram, 0, sizeof histogram);
}

START_TEST(empty_answers_zero)
{
	ck_assert_uint_eq(onefd_histogram_quantile(&histogram, 0.5), 0);
	ck_assert_uint_eq(onefd_histogram_quantile(NULL, 0.5), 0);
}
END_TEST

START_TEST(sums_what_was_added)
{
	for (uint64_t ns = 1; ns <= 100; ns++)
		histogram_add(&histogram, ns);
	ck_assert_uint_eq(histogram.count, 100);
	ck_assert_uint_eq(histogram.sum, 5050);
	ck_assert_uint_eq(histogram.max, 100);
}
END_TEST

/* Four buckets to a power of two: the edge is a quarter above at most. */
START_TEST(quantile_is_the_edge_of_the_samples_bucket)
{
	for (uint64_t ns = 0; ns < UINT64_C(1) << 40; ns = ns * 9 / 8 + 1) {
		uint64_t edge;

		reset();
		histogram_add(&histogram, ns);
		histogram_add(&histogram, UINT64_C(1) << 45);
		edge = onefd_histogram_quantile(&histogram, 0.5);
		ck_assert_uint_ge(edge, ns);
		ck_assert_uint_le(edge, ns + ns / 4);
	}
}
END_TEST

START_TEST(quantile_is_never_over_max)
{
	histogram_add(&histogram, 1000);
	ck_assert_uint_eq(onefd_histogram_quantile(&histogram, 0), 1000);
	ck_assert_uint_eq(onefd_histogram_quantile(&histogram, 1), 1000);
	ck_assert_uint_eq(onefd_histogram_quantile(&histogram, 2), 1000);
	histogram_add(&histogram, UINT64_MAX);
	ck_assert_uint_eq(onefd_histogram_quantile(&histogram, 1), UINT64_MAX);
}
END_TEST

START_TEST(quantile_counts_samples)
{
	for (int i = 0; i < 99; i++)
		histogram_add(&histogram, 1);
	histogram_add(&histogram, 3);
	ck_assert_uint_eq(onefd_histogram_quantile(&histogram, 0.5), 1);
	ck_assert_uint_eq(onefd_histogram_quantile(&histogram, 0.99), 1);
	ck_assert_uint_eq(onefd_histogram_quantile(&histogram, 0.995), 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("histogram");
	TCase *tcase = add_case(suite, "histogram", reset, NULL);

	tcase_add_test(tcase, empty_answers_zero);
	tcase_add_test(tcase, sums_what_was_added);
	tcase_add_test(tcase, quantile_is_the_edge_of_the_samples_bucket);
	tcase_add_test(tcase, quantile_is_never_over_max);
	tcase_add_test(tcase, quantile_counts_samples);
	return run_suite(suite);
}
