/*
 * harness.h - the same work done by several contenders, in turns.
 *
 * A program hands over a table of contenders and a list of cases. Each run of
 * a contender is a forked child of its own, so that CPU time and memory are its
 * own; runs are interleaved (A B C, B C A, C A B ...), so that what the machine
 * does meanwhile falls on all of them. Knows nothing of loops or files.
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#define BENCH_LIST 16

struct bench_list {
	uint64_t value[BENCH_LIST];
	unsigned count;
};

/* What was said on the command line; a program fills in its defaults first. */
struct bench_options {
	unsigned rounds;
	double seconds;			/* of each run, its warm-up not included */
	const char *file;
	struct bench_list size;
	struct bench_list depth;
	uint64_t block;			/* bytes of one request */
	const char *work;		/* comma-separated names, or NULL: all */
	const char *only;		/* the same of contenders */
	FILE *json;			/* NULL: none wanted */
	bool table;
	bool verbose;			/* contenders may say on stderr what they did */
};

/* 64 buckets to each power of two: a quantile is right to 1.6 %. */
#define BENCH_BUCKETS (64 * 64)

struct bench_histogram {
	uint64_t count, max;
	uint64_t bucket[BENCH_BUCKETS];
};

struct bench_case {
	const char *work;
	uint64_t size, depth;		/* what they mean is the program's */
	const char *note;		/* printed above the table, or NULL */
	bool counted;			/* a run is a count of operations, not a time */
	void *data;
};

#define BENCH_NONE UINT64_MAX		/* not measured: null in the JSON */

struct bench_run {
	const struct bench_case *work;
	const struct bench_options *options;
	unsigned round;
	bool warmup;			/* nothing of this run is kept */
	const void *data;		/* the contender's, from its table */
	void *state;			/* its own, from its setup */

	/* the contender's answer, emptied before each run */
	uint64_t ops;
	uint64_t failed;
	uint64_t submit_ns;		/* inside kernel submissions, or BENCH_NONE */
	uint64_t longest_ns;		/* longest call on the loop's thread, or BENCH_NONE */
	struct bench_histogram latency;
	struct bench_histogram hit, miss;	/* latency by what was to be expected */
	struct bench_histogram late;		/* a heartbeat's, after it was due */

	/* the harness's */
	uint64_t left, deadline, started, stopped, cpu_ns;
	int error;
};

struct bench_contender {
	const char *name;
	int (*setup)(struct bench_run *run);		/* 0 or -errno */
	int (*run)(struct bench_run *run);		/* 0 or -errno */
	void (*teardown)(struct bench_run *run);	/* NULL: the child just ends */
	bool (*fits)(const struct bench_case *work);	/* NULL: takes part in all */
	const void *data;
	const char *beside;		/* whose time is taken off its own, or NULL */
};

struct bench_program {
	const char *name;
	const char *peer;			/* whom the others are measured against */
	const char *ours;			/* measured against every other too, or NULL */
	bool differences;			/* it is the time that each adds that is of interest */
	const char *help;			/* what --size and --depth mean here */
	const char *const *works;		/* for --work, up to a NULL; NULL: none */
	int (*prepare)(struct bench_run *run);	/* before each run's clock, or NULL */
	const struct bench_contender *contenders;
	unsigned count;
};

/* Exits on what it does not understand, and after --help. */
void bench_options(struct bench_options *options, const struct bench_program *program,
		   int argc, char **argv);

/* Whether --work lets this one through. */
bool bench_wanted(const struct bench_options *options, const char *work);

/* Runs all rounds of one case and prints what came; how many runs failed. */
int bench_case(const struct bench_program *program, const struct bench_options *options,
	       const struct bench_case *work);

void bench_histogram_add(struct bench_histogram *histogram, uint64_t ns);
uint64_t bench_histogram_quantile(const struct bench_histogram *histogram, double q);

/* For a contender that has to prepare before its clock runs: the start is that
 * of the whole run otherwise, and so is the end. */
void bench_start(struct bench_run *run);
void bench_stop(struct bench_run *run);

/* Whether the time is over; reads the clock. */
bool bench_over(struct bench_run *run);

/* Counts an operation; false once the time is over. It looks at the clock once
 * in a thousand operations, the same for every contender. */
static inline bool bench_more(struct bench_run *run)
{
	run->ops++;
	if (--run->left)
		return true;
	run->left = 1024;
	return !bench_over(run);
}

static inline uint64_t bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* xorshift64: the same numbers for all contenders of a round. */
static inline uint64_t bench_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static inline uint64_t bench_seed(const struct bench_run *run)
{
	return UINT64_C(0x9e3779b97f4a7c15) * (2 * run->round + run->warmup + 1);
}

#endif
