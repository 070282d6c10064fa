/*
 * watch.c - descriptor readiness.
 *
 * The events of a batch point at their watches and these, through slot, back
 * at their events: a stop clears the event, and its callback never runs.
 */
#include "watch.h"

#include <errno.h>

#include "core.h"
#include "probe.h"

void watches_open(struct watches *watches)
{
	list_init(&watches->started);
}

void watches_close(struct watches *watches)
{
	struct onefd_link *link;

	/* Nothing to undo in the kernel: the epoll goes with the loop. */
	while ((link = list_pop(&watches->started)))
		list_entry(link, struct onefd_watch, link)->loop = NULL;
}

void watches_fetched(struct onefd *loop, int count)
{
	struct epoll_event *event = loop->poller.events;

	for (struct epoll_event *end = event + count; event < end; event++) {
		struct onefd_watch *watch = event->data.ptr;

		if (watch)
			watch->slot = event;
	}
}

int watches_dispatch(struct onefd *loop, int count)
{
	struct epoll_event *event = loop->poller.events;

	loop->watches.ran = 0;
	for (struct epoll_event *end = event + count; event < end; event++) {
		struct onefd_watch *watch = event->data.ptr;

		if (!watch)
			continue;
		watch->slot = NULL;
		loop->watches.ran++;
		PROBE(watch, loop, watch, watch->fd, event->events);
		watch->fn(watch, event->events);
	}
	return loop->watches.ran;
}

int watch_attach(struct onefd *loop, struct onefd_watch *watch, uint32_t events)
{
	int r = poller_add(&loop->poller, watch->fd, events, watch);

	if (r < 0)
		return r;
	watch->loop = loop;
	watch->events = events;
	watch->slot = NULL;
	return 0;
}

void watch_detach(struct onefd_watch *watch)
{
	/* -EBADF or -ENOENT: closed already, which removed it. */
	(void)poller_remove(&watch->loop->poller, watch->fd);
	if (watch->slot)
		watch->slot->data.ptr = NULL;
	watch->slot = NULL;
	watch->loop = NULL;
}

void onefd_watch_init(struct onefd_watch *watch, int fd, onefd_watch_fn *fn)
{
	if (!watch)
		return;
	*watch = (struct onefd_watch){ .fn = fn, .fd = fd };
	list_init(&watch->link);
}

int onefd_watch_start(struct onefd *loop, struct onefd_watch *watch, uint32_t events)
{
	int r;

	if (!loop || !watch || !watch->fn)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	if (watch->loop)
		return -EBUSY;
	r = watch_attach(loop, watch, events);
	if (r < 0)
		return r;
	list_push(&loop->watches.started, &watch->link);
	return 0;
}

/* Takes from an event already fetched what is no longer asked for. */
static void narrow_slot(struct onefd_watch *watch)
{
	struct epoll_event *slot = watch->slot;

	slot->events &= watch->events | EPOLLERR | EPOLLHUP;
	if (slot->events)
		return;
	slot->data.ptr = NULL;
	watch->slot = NULL;
}

int onefd_watch_update(struct onefd_watch *watch, uint32_t events)
{
	int r;

	if (!watch || !watch->loop)
		return -EINVAL;
	if (!loop_is_ours(watch->loop))
		return -ECHILD;
	r = poller_update(&watch->loop->poller, watch->fd, events, watch);
	if (r < 0)
		return r;
	watch->events = events;
	if (watch->slot)
		narrow_slot(watch);
	return 0;
}

void onefd_watch_stop(struct onefd_watch *watch)
{
	if (!watch || !watch->loop || !loop_is_ours(watch->loop))
		return;
	watch_detach(watch);
	list_remove(&watch->link);
}
