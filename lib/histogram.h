/*
 * histogram.h - counts of nanoseconds, four buckets to each power of two.
 *
 * Knows nothing of what was measured.
 */
#ifndef ONEFD_HISTOGRAM_H
#define ONEFD_HISTOGRAM_H

#include <onefd.h>

void histogram_add(struct onefd_histogram *histogram, uint64_t ns);

#endif
