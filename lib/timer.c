/*
 * timer.c - deadlines.
 *
 * A loop that runs itself waits with a timeout; only one that is embedded has
 * its timerfd armed, for there the host does the waiting.
 */
#include "timer.h"

#include "core.h"
#include "probe.h"

int timers_open(struct onefd *loop)
{
	struct timers *timers = &loop->timers;
	int r;

	timers->fd = sys.timerfd_create();
	if (timers->fd < 0)
		return timers->fd;
	/* No watch: like a wake it only says "look", for due timers are looked
	 * for every turn. */
	r = poller_add(&loop->poller, timers->fd, EPOLLIN, NULL);
	if (r < 0)
		(void)sys.close(timers->fd);
	return r;
}

static struct onefd_timer *take_first(struct timers *timers)
{
	struct onefd_timer *timer = timers->heap.root;

	heap_remove(&timers->heap, timer);
	timer->loop = NULL;
	return timer;
}

void timers_close(struct timers *timers)
{
	while (timers->heap.root)
		take_first(timers);
	(void)sys.close(timers->fd);
}

int timers_dispatch(struct onefd *loop)
{
	uint32_t ran = 0;

	for (; ran < loop->budget && timers_next(&loop->timers) <= loop->now; ran++) {
		struct onefd_timer *timer = take_first(&loop->timers);

		PROBE(timer, loop, timer, timer->deadline);
		timer->fn(timer);
	}
	return (int)ran;
}

void timers_arm(struct timers *timers)
{
	uint64_t due = 0;

	if (timers->heap.root)
		due = timers->heap.root->due ? timers->heap.root->due : 1;
	if (due == timers->armed)
		return;
	timers->armed = due;
	(void)sys.timerfd_arm(timers->fd, due);
}

/* Inside a turn the loop arms once, at its end. */
static void earliest_changed(struct onefd *loop)
{
	if (loop->embedded && !loop->dispatching)
		timers_arm(&loop->timers);
}

void onefd_timer_init(struct onefd_timer *timer, onefd_timer_fn *fn)
{
	if (timer)
		*timer = (struct onefd_timer){ .fn = fn };
}

void onefd_timer_start(struct onefd *loop, struct onefd_timer *timer, uint64_t deadline)
{
	if (!loop || !timer || !timer->fn || !loop_is_ours(loop))
		return;
	if (timer->loop == loop)
		heap_remove(&loop->timers.heap, timer);
	else
		onefd_timer_stop(timer);
	timer->loop = loop;
	timer->deadline = deadline;
	timer->due = deadline;
	/* Due in the next turn at the earliest, and behind what is due by now:
	 * a timer that keeps starting itself in the past starves nobody. The
	 * deadline stays as asked for, periodic timers count from it. */
	if (loop->dispatching && deadline <= loop->now)
		timer->due = loop->now + 1;
	heap_insert(&loop->timers.heap, timer);
	earliest_changed(loop);
}

void onefd_timer_stop(struct onefd_timer *timer)
{
	struct onefd *loop;

	if (!timer || !timer->loop || !loop_is_ours(timer->loop))
		return;
	loop = timer->loop;
	heap_remove(&loop->timers.heap, timer);
	timer->loop = NULL;
	earliest_changed(loop);
}
