/* closer.c - descriptors that are given back: see closer.h. */
#include "closer.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "list.h"

static ssize_t close_batch(void *arg)	/* on a worker */
{
	struct closer_lane *lane = arg;

	for (size_t i = 0; i < lane->count; i++)
		(void)close(lane->fds[i]);
	return 0;
}

static void go_on(struct closer *closer);

static void wake_waits(struct closer *closer)
{
	struct onefd_link waits;

	/* Who waits again meanwhile waits for the next. */
	list_move(&closer->waits, &waits);
	while (!list_empty(&waits)) {
		struct closer_wait *wait = onefd_container(waits.next, struct closer_wait, link);

		list_remove(&wait->link);
		wait->fn(wait);
	}
}

static void closed(struct onefd_req *req)
{
	struct closer_lane *lane = req->data;

	lane->count = 0;
	lane->closer->out--;
	go_on(lane->closer);
	wake_waits(lane->closer);
}

static void lane_go(struct closer *closer, struct closer_lane *lane)
{
	while (closer->count && lane->count < CLOSER_BATCH) {
		lane->fds[lane->count++] = closer->fds[closer->first];
		closer->first = (closer->first + 1) % closer->room;
		closer->count--;
	}
	onefd_prep_call(&lane->req, close_batch, lane);
	lane->req.data = lane;
	closer->out++;
	if (onefd_submit(closer->loop, &lane->req, closed) < 0) {
		(void)close_batch(lane);
		lane->count = 0;
		closer->out--;
	}
}

static void go_on(struct closer *closer)
{
	for (int i = 0; i < CLOSER_LANES && closer->count; i++)
		if (!closer->lanes[i].count)
			lane_go(closer, &closer->lanes[i]);
}

void closer_add(struct closer *closer, int fd)
{
	if (closer->count == closer->room) {
		(void)close(fd);	/* UNTESTED: there are not that many descriptors */
		return;
	}
	closer->fds[(closer->first + closer->count++) % closer->room] = fd;
	go_on(closer);
}

bool closer_wait(struct closer *closer, struct closer_wait *wait)
{
	if (!closer->out)
		return false;
	list_push(&closer->waits, &wait->link);
	return true;
}

size_t closer_backlog(const struct closer *closer)
{
	size_t count = closer->count;

	for (int i = 0; i < CLOSER_LANES; i++)
		count += closer->lanes[i].count;
	return count;
}

int closer_init(struct closer *closer, struct onefd *loop, size_t limit)
{
	closer->loop = loop;
	closer->room = limit;
	list_init(&closer->waits);
	for (int i = 0; i < CLOSER_LANES; i++)
		closer->lanes[i].closer = closer;
	closer->fds = malloc(limit * sizeof *closer->fds);
	return closer->fds ? 0 : -ENOMEM;
}

void closer_free(struct closer *closer)
{
	for (; closer->count; closer->count--) {
		(void)close(closer->fds[closer->first]);
		closer->first = (closer->first + 1) % closer->room;
	}
	free(closer->fds);
	closer->fds = NULL;
}
