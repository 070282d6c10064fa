/*
 * heart.h - a timer of a millisecond beside other work: whether a call on the
 * loop's thread waited for anything.
 *
 * A busy machine makes a loop late that blocks nowhere, so a beat is excused for
 * what the loop cannot help: that the kernel returned from a wait later than it
 * was asked to; that the thread was ready to run and had no processor, which
 * /proc/thread-self/schedstat tells; and, where it never slept outside its wait,
 * all but the processor time it used, for then a hypervisor took the rest. The
 * naive figure is printed beside it.
 */
#ifndef ONEFD_TESTS_HEART_H
#define ONEFD_TESTS_HEART_H

#include "harness.h"

#include <fcntl.h>
#include <inttypes.h>
#include <onefd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../lib/sys.h"

#define MILLISECOND UINT64_C(1000000)
#define BEAT MILLISECOND
/* A sanitizer makes threads and pages dear; a loop that waits for this device
 * is 100 ms late and still shows. */
#ifdef __SANITIZE_ADDRESS__
#define LATE (25 * MILLISECOND)
#else
#define LATE (5 * MILLISECOND)
#endif

static struct onefd *loop;

/* What became of this thread's time, ever, and of that outside its waits. */
struct times {
	uint64_t overslept;		/* in waits, beyond what was asked */
	uint64_t crowded_out;		/* ready, and without a processor */
	uint64_t sleeps;		/* how often it gave up the processor */
};

struct heart {
	struct onefd_timer timer;
	struct times last;		/* as of the last beat */
	uint64_t beats, naive, late;	/* the latest of all, both ways */
};

static struct sys_calls real;
static int schedstat;
static struct times turns;		/* the sums of all turns but this */
static struct times began;		/* thread_times() when this turn began */

/* Nanoseconds that this thread was ready and did not run, ever. */
static inline uint64_t without_processor(void)
{
	uint64_t ran, waited = 0;
	char text[96];
	ssize_t n = pread(schedstat, text, sizeof text - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = '\0';
	if (sscanf(text, "%" SCNu64 " %" SCNu64, &ran, &waited) != 2)
		return 0;
	return waited;
}

static inline struct times thread_times(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (struct times){
		.crowded_out = without_processor(),
		.sleeps = (uint64_t)usage.ru_nvcsw,
	};
}

/* All turns so far, this one as far as it has come. */
static inline struct times turn_times(void)
{
	struct times sum = turns, now = thread_times();

	sum.crowded_out += now.crowded_out - began.crowded_out;
	sum.sleeps += now.sleeps - began.sleeps;
	return sum;
}

/* The end of a turn, a wait, and the beginning of the next. */
static inline int timed_pwait2(int epfd, struct epoll_event *events, int count, uint64_t timeout)
{
	uint64_t until, now;
	int r;

	turns = turn_times();
	until = sys.now() + timeout;
	r = real.epoll_pwait2(epfd, events, count, timeout);
	now = sys.now();
	if (now > until)
		turns.overslept += now - until;
	began = thread_times();
	return r;
}

/* Of @naive nanoseconds, those that the loop has to answer for. */
static inline uint64_t own_fault(uint64_t naive, const struct times *since, const struct times *now)
{
	uint64_t excuse = now->overslept - since->overslept +
			  now->crowded_out - since->crowded_out;

	/* It did not sleep in any turn, so it waited for nothing. What it seems to
	 * have run may have been the hypervisor's: stolen time counts as running. */
	if (now->sleeps == since->sleeps)
		return 0;
	return naive > excuse ? naive - excuse : 0;
}

static inline void beat(struct onefd_timer *timer)
{
	struct heart *heart = onefd_container(timer, struct heart, timer);
	uint64_t now = sys.now(), naive = now - timer->deadline, late;
	struct times times = turn_times();

	late = own_fault(naive, &heart->last, &times);
	heart->last = times;
	heart->beats++;
	if (naive > heart->naive)
		heart->naive = naive;
	if (late > heart->late)
		heart->late = late;
	/* From now: one delay shall not be counted in the beats after it. */
	onefd_timer_start(loop, timer, now + BEAT);
}

static inline void heart_start(struct heart *heart)
{
	schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	began = thread_times();
	real = sys;
	sys.epoll_pwait2 = timed_pwait2;
	*heart = (struct heart){ .last = turn_times() };
	onefd_timer_init(&heart->timer, beat);
	onefd_timer_start(loop, &heart->timer, sys.now() + BEAT);
}

/* The last beat is due at once: a turn that has just blocked shall count. How late
 * the latest was, in nanoseconds. */
static inline uint64_t heart_measure(struct heart *heart, const char *fs, const char *what)
{
	struct onefd_stats stats;
	uint64_t beats = heart->beats;

	while (heart->beats == beats)
		must(onefd_dispatch(loop, -1));
	onefd_timer_stop(&heart->timer);
	sys = real;
	close(schedstat);
	must(onefd_stats(loop, &stats, sizeof stats));
	printf("# %s %s: %" PRIu64 " beats, late %.2f ms (%.2f on the clock), "
	       "longest submit %.2f ms, longest turn %.2f ms, kaio %" PRIu64
	       ", pool %" PRIu64 "\n", fs, what, heart->beats,
	       heart->late / 1e6, heart->naive / 1e6, stats.submit_ns.max / 1e6,
	       stats.turn_ns.max / 1e6, stats.kaio, stats.pool);
	fflush(stdout);
	return heart->late;
}

static inline void heart_stop(struct heart *heart, const char *fs, const char *what)
{
	uint64_t late = heart_measure(heart, fs, what);

	ck_assert_msg(late <= LATE, "%s: a beat was %.2f ms late", what, late / 1e6);
}

#endif
