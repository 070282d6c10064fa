/*
 * histogram.c - counts of nanoseconds, four buckets to each power of two.
 *
 * Knows nothing of what was measured. Values below 4 have a bucket each; the
 * last bucket takes all from 2^40 * 7/4 ns on, a little over half an hour.
 */
#include "histogram.h"

static unsigned bucket_of(uint64_t ns)
{
	unsigned power, bucket;

	if (ns < 4)
		return (unsigned)ns;
	power = 63 - (unsigned)__builtin_clzll(ns);
	bucket = (power - 1) * 4 + ((ns >> (power - 2)) & 3);
	return bucket < ONEFD_HISTOGRAM_BUCKETS ? bucket : ONEFD_HISTOGRAM_BUCKETS - 1;
}

/* The largest value that falls into @bucket. */
static uint64_t upper_edge(unsigned bucket)
{
	if (bucket < 4)
		return bucket;
	if (bucket == ONEFD_HISTOGRAM_BUCKETS - 1)
		return UINT64_MAX;
	return ((UINT64_C(5) + bucket % 4) << (bucket / 4 - 1)) - 1;
}

void histogram_add(struct onefd_histogram *histogram, uint64_t ns)
{
	histogram->count++;
	histogram->sum += ns;
	if (ns > histogram->max)
		histogram->max = ns;
	histogram->bucket[bucket_of(ns)]++;
}

uint64_t onefd_histogram_quantile(const struct onefd_histogram *histogram, double q)
{
	uint64_t seen = 0, edge;
	double share;

	if (!histogram || !histogram->count)
		return 0;
	share = q * (double)histogram->count;
	for (unsigned i = 0; i < ONEFD_HISTOGRAM_BUCKETS; i++) {
		seen += histogram->bucket[i];
		if (!seen || (double)seen < share)
			continue;
		edge = upper_edge(i);
		return edge < histogram->max ? edge : histogram->max;
	}
	return histogram->max;
}
