/*
 * reads.h - what the contenders of bench-reads share: the readers, what each
 * of them reads next, and how their answers are counted.
 *
 * A contender carries: it is given readers that want something, and hands back
 * their answers. It runs in a forked child of its own, so there is one of
 * everything. The loop's thread only.
 */
#ifndef BENCH_READS_H
#define BENCH_READS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "harness.h"

struct reader {
	int fd;
	char *buf;		/* the rest of what it wants: */
	size_t len;
	off_t offset;
	uint64_t sent;
	bool warm;		/* it reads where the cache has the data, in mixed work */

	/* the contender's */
	struct reader *next;
	ssize_t res;
};

struct reads {
	int fd;
	unsigned depth;
	uint64_t block;
	unsigned out;		/* readers that want something */
	bool beats;		/* a heartbeat is wanted beside the reads */
	bool streams;		/* one reader, who wants the file in order */
	struct reader *reader;	/* @depth of them */
};

extern struct reads reads;

/* Each contender's setup begins here. 0 or -errno. */
int reads_setup(struct bench_run *run);

/* A reader's first; false when there is nothing left to read. */
bool reads_first(struct bench_run *run, struct reader *reader);

/* An answer came: whether the reader wants something more, which may be the
 * rest after a short one. The clock is looked at once for each answer, and the
 * end of one read is the beginning of the next, for all contenders. */
bool reads_next(struct bench_run *run, struct reader *reader, ssize_t res);

/* A beat each millisecond. Takes all that were due by now, moves @due on to the
 * next: nobody is spared the beats that he slept through. */
#define READS_BEAT_NS UINT64_C(1000000)
void reads_beat(struct bench_run *run, uint64_t *due);

/* A timerfd of the same beat, to be started by each run; the beat that is due
 * is kept with it. */
struct beat {
	int fd;
	uint64_t due;
};

int beat_open(struct beat *beat);
void beat_start(struct beat *beat);
void beat_stop(struct beat *beat);
void beat_take(struct bench_run *run, struct beat *beat);

/* The longest time on the loop's thread between two waits, from depth 16 on:
 * below it two looks at the clock would be seen. */
static inline bool reads_timed(void)
{
	return reads.depth >= 16;
}

static inline void reads_turn(struct bench_run *run, uint64_t ns)
{
	if (run->longest_ns == BENCH_NONE || ns > run->longest_ns)
		run->longest_ns = ns;
}

/* reads_loops.c: loops of libraries. */
int onefd_setup(struct bench_run *run);
int onefd_spin_setup(struct bench_run *run);
int onefd_play(struct bench_run *run);
void onefd_teardown(struct bench_run *run);
int uv4_setup(struct bench_run *run);
int uv8_setup(struct bench_run *run);
int uv16_setup(struct bench_run *run);
int uv32_setup(struct bench_run *run);
int uv_play(struct bench_run *run);

/* reads_byhand.c: one epoll loop over what the kernel and the C library have. */
int uring_setup(struct bench_run *run);
int kaio_setup(struct bench_run *run);
int posix_setup(struct bench_run *run);
int threads4_setup(struct bench_run *run);
int threads32_setup(struct bench_run *run);
int byhand_play(struct bench_run *run);

#endif
