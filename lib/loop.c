/*
 * loop.c - the turn: the only file that knows the order.
 *
 * What each kind of event is, its own room knows.
 */
#include <errno.h>
#include <unistd.h>

#include "core.h"
#include "histogram.h"
#include "probe.h"

#define NSEC_PER_MSEC UINT64_C(1000000)

#define DEFAULT_BUDGET 64
#define EVENTS_MOST 1024	/* fetched at a time, however large the budget */
#define DEPTH_MOST 65536
#define THREADS_MOST 1024
#define SPIN_US_MOST 1000
#define KNOWN_FLAGS (ONEFD_NO_KAIO | ONEFD_NO_RING | ONEFD_NO_NOWAIT | \
		     ONEFD_NO_SYSFS | ONEFD_NO_PROC)

static const struct onefd_config defaults;

static int check_config(const struct onefd_config *config)
{
	if (config->flags & ~KNOWN_FLAGS)
		return -EINVAL;
	if (config->depth > DEPTH_MOST || config->threads > THREADS_MOST ||
	    config->spin_us > SPIN_US_MOST || config->pad)
		return -EINVAL;
	if ((uintptr_t)config->ring_address % (uintptr_t)sysconf(_SC_PAGESIZE))
		return -EINVAL;
	for (size_t i = 0; i < sizeof config->reserved / sizeof config->reserved[0]; i++)
		if (config->reserved[i])
			return -EINVAL;
	return 0;
}

static int open_rooms(struct onefd *loop, const struct onefd_config *config)
{
	uint32_t events = loop->budget < EVENTS_MOST ? loop->budget : EVENTS_MOST;
	int r = poller_open(&loop->poller, events);
	if (r < 0)
		return r;
	r = wake_open(&loop->wake, &loop->poller);
	if (r < 0)
		goto err_poller;
	r = timers_open(loop);
	if (r < 0)
		goto err_wake;
	watches_open(&loop->watches);
	signals_open(&loop->signals);
	children_open(&loop->children);
	r = requests_open(loop, config);
	if (r < 0)
		goto err_timers;
	return 0;

err_timers:
	timers_close(&loop->timers);
err_wake:
	wake_close(&loop->wake);
err_poller:
	poller_close(&loop->poller);
	return r;
}

static void close_rooms(struct onefd *loop)
{
	requests_close(loop);
	children_close(&loop->children);
	signals_close(&loop->signals);
	watches_close(&loop->watches);
	timers_close(&loop->timers);
	wake_close(&loop->wake);
	poller_close(&loop->poller);
}

int onefd_new(struct onefd **ret, const struct onefd_config *config)
{
	struct onefd *loop;
	int r;

	if (!config)
		config = &defaults;
	if (!ret)
		return -EINVAL;
	r = check_config(config);
	if (r < 0)
		return r;
	loop = sys.alloc(sizeof *loop);
	if (!loop)
		return -ENOMEM;
	loop->budget = config->budget ? config->budget : DEFAULT_BUDGET;
	r = lineage_join(&loop->generation);
	if (r < 0)
		goto err_loop;
	r = open_rooms(loop, config);
	if (r < 0)
		goto err_loop;
	*ret = loop;
	return 0;

err_loop:
	sys.free(loop);
	return r;
}

/* What onefd_drain() waits for and onefd_free() refuses to lose. */
static bool undelivered(const struct onefd *loop)
{
	return onefd_pending(loop) || tasks_pending(&loop->tasks);
}

int onefd_free(struct onefd *loop)
{
	if (!loop)
		return 0;
	if (!loop_is_ours(loop))
		return -ECHILD;
	/* A stream may have nothing out, for its reader has all the chunks. */
	if (loop->dispatching || loop->attached || undelivered(loop) || loop->streams)
		return -EBUSY;
	close_rooms(loop);
	sys.free(loop);
	return 0;
}

/* Work that no descriptor announces: the next wait must not sleep on it. */
static bool work_is_left(struct onefd *loop)
{
	return tasks_pending(&loop->tasks) || requests_ready(loop);
}

static uint64_t shorten(struct onefd *loop, uint64_t timeout_ns, uint64_t now)
{
	uint64_t due = timers_next(&loop->timers);

	if (due <= now || work_is_left(loop))
		return 0;
	if (due != UINT64_MAX && due - now < timeout_ns)
		return due - now;
	return timeout_ns;
}

/* Waits for the single request that is out by looking, for as long as such
 * have taken of late: what else happens is seen as soon. */
static int spin(struct onefd *loop, uint64_t most, uint64_t began)
{
	int count = 0;

	while (!count && !requests_ready(loop) && sys.now() - began < most)
		count = poller_wait(&loop->poller, 0);
	return count;
}

static int wait_for_events(struct onefd *loop, uint64_t timeout_ns, uint64_t now)
{
	uint64_t wait = shorten(loop, timeout_ns, now);
	uint64_t most = wait ? requests_spin_ns(loop, now) : 0, spent;
	int count;

	if (most) {
		count = spin(loop, most < wait ? most : wait, now);
		if (count)
			return count;
		/* What was spun is no more to be slept. */
		spent = sys.now() - now;
		wait = shorten(loop, wait > spent ? wait - spent : 0, now + spent);
	}
	return poller_wait(&loop->poller, wait);
}

/* Sends what the callbacks submitted. What is answered on the spot, from the page
 * cache say, calls back in this turn as far as the budget goes: each of a chain of
 * hits would cost a host a wake. What was sent elsewhere ends the turn. */
static int send_on(struct onefd *loop, uint32_t budget)
{
	loop->clock = 0;
	return requests_flush(loop) ? 0 : requests_follow(loop, budget);
}

/* Timers run first, so that no other callback can stop one already due. */
static int run_callbacks(struct onefd *loop, int count)
{
	int ran, completed;

	/* Before any callback: a timer may stop a watch of this batch. */
	watches_fetched(loop, count);
	ran = timers_dispatch(loop);
	ran += watches_dispatch(loop, count);
	completed = requests_dispatch(loop, loop->budget);
	ran += completed + tasks_dispatch(loop);
	return ran + send_on(loop, loop->budget - (uint32_t)completed);
}

/* Keeps the descriptor readable while there is work: an edge that was fetched
 * is gone from the host's view, so what is left must be announced again. */
static void announce(struct onefd *loop)
{
	timers_arm(&loop->timers);
	if (work_is_left(loop))
		wake_signal(&loop->wake);
}

/*
 * One turn; @clock is the time at its start and becomes that at its end, which
 * saves onefd_run() a reading each.
 */
static int turn(struct onefd *loop, uint64_t timeout_ns, uint64_t *clock)
{
	uint64_t busy = *clock;
	int count, ran;

	loop->dispatching = true;
	if (requests_flush(loop) > 0)
		*clock = sys.now();
	busy = *clock - busy;
	count = wait_for_events(loop, timeout_ns, *clock);
	if (count < 0) {
		loop->dispatching = false;
		return count;
	}
	loop->now = sys.now();
	PROBE(turn_begin, loop, count);
	tasks_attend(&loop->tasks, true);
	ran = run_callbacks(loop, count);
	tasks_attend(&loop->tasks, false);
	loop->dispatching = false;
	if (loop->embedded)
		announce(loop);
	/* A submission was the last that the turn did, and has looked. */
	*clock = loop->clock ? loop->clock : sys.now();
	loop->stats.turns++;
	loop->stats.callbacks += (uint64_t)ran;
	busy += *clock - loop->now;
	histogram_add(&loop->stats.turn_ns, busy);
	PROBE(turn_end, loop, ran, busy);
	return ran;
}

/* What dispatch, run and drain refuse alike. */
static int check_idle(const struct onefd *loop)
{
	if (!loop)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	return loop->dispatching ? -EBUSY : 0;
}

static uint64_t to_ns(int timeout_ms)
{
	return timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * NSEC_PER_MSEC;
}

int onefd_dispatch(struct onefd *loop, int timeout_ms)
{
	int r = check_idle(loop);
	uint64_t clock;

	if (r < 0)
		return r;
	/* A host has done the waiting, and asks for each of its events: with nothing
	 * to send before, nothing counts from here. */
	clock = timeout_ms || onefd_pending(loop) ? sys.now() : 0;
	return turn(loop, to_ns(timeout_ms), &clock);
}

/* Whether anything is started or out that could ever make work. */
static bool is_alive(const struct onefd *loop)
{
	return !list_empty(&loop->watches.started) || loop->timers.heap.root ||
	       !list_empty(&loop->signals.started) ||
	       !list_empty(&loop->children.started) || undelivered(loop);
}

int onefd_run(struct onefd *loop)
{
	int r = check_idle(loop);
	uint64_t clock;

	if (r < 0)
		return r;
	clock = sys.now();
	while (!loop->stopping && is_alive(loop)) {
		r = turn(loop, UINT64_MAX, &clock);
		if (r < 0)
			return r;
	}
	loop->stopping = false;
	return 0;
}

void onefd_stop(struct onefd *loop)
{
	if (loop && loop_is_ours(loop))
		loop->stopping = true;
}

int onefd_drain(struct onefd *loop, int timeout_ms)
{
	int r = check_idle(loop);
	uint64_t clock, end, left;

	if (r < 0)
		return r;
	clock = sys.now();
	end = timeout_ms < 0 ? UINT64_MAX : clock + to_ns(timeout_ms);
	while (undelivered(loop)) {
		left = end > clock ? end - clock : 0;
		r = turn(loop, end == UINT64_MAX ? end : left, &clock);
		if (r < 0)
			return r;
		if (!left && undelivered(loop))
			return -ETIMEDOUT;
	}
	return 0;
}

int onefd_fd(struct onefd *loop)
{
	if (!loop)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	if (!loop->embedded) {
		loop->embedded = true;
		if (!loop->dispatching)
			announce(loop);
	}
	return loop->poller.fd;
}

int onefd_attach(struct onefd *loop)
{
	int fd = onefd_fd(loop);

	if (fd < 0)
		return fd;
	if (loop->attached)
		return -EBUSY;
	loop->attached = true;
	return fd;
}

void onefd_detach(struct onefd *loop)
{
	if (loop && loop_is_ours(loop))
		loop->attached = false;
}

uint64_t onefd_now(const struct onefd *loop)
{
	if (loop && loop_is_ours(loop) && loop->dispatching)
		return loop->now;
	return sys.now();
}

void onefd_wake(struct onefd *loop)
{
	if (loop && loop_is_ours(loop))
		wake_signal(&loop->wake);
}

#define STRING(x) #x
#define VERSION(major, minor, patch) STRING(major) "." STRING(minor) "." STRING(patch)

const char *onefd_version(void)
{
	return VERSION(ONEFD_VERSION_MAJOR, ONEFD_VERSION_MINOR, ONEFD_VERSION_PATCH);
}
