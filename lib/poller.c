/*
 * poller.c - epoll, once: a set of descriptors and the batch last fetched.
 *
 * Does not know what a watch is: it carries a pointer with each descriptor.
 */
#include "poller.h"

#include <errno.h>
#include <limits.h>

#include "sys.h"

#define NSEC_PER_MSEC UINT64_C(1000000)

int poller_open(struct poller *poller, uint32_t capacity)
{
	poller->capacity = capacity;
	poller->coarse = false;
	poller->events = sys.alloc(capacity * sizeof *poller->events);
	if (!poller->events)
		return -ENOMEM;
	poller->fd = sys.epoll_create();
	if (poller->fd < 0) {
		sys.free(poller->events);
		return poller->fd;
	}
	return 0;
}

void poller_close(struct poller *poller)
{
	(void)sys.close(poller->fd);
	sys.free(poller->events);
}

int poller_add(struct poller *poller, int fd, uint32_t events, void *ptr)
{
	struct epoll_event event = { .events = events, .data.ptr = ptr };

	return sys.epoll_ctl(poller->fd, EPOLL_CTL_ADD, fd, &event);
}

int poller_update(struct poller *poller, int fd, uint32_t events, void *ptr)
{
	struct epoll_event event = { .events = events, .data.ptr = ptr };

	return sys.epoll_ctl(poller->fd, EPOLL_CTL_MOD, fd, &event);
}

int poller_remove(struct poller *poller, int fd)
{
	return sys.epoll_ctl(poller->fd, EPOLL_CTL_DEL, fd, NULL);
}

/* Rounded up: a wait that ends early would be a turn for nothing. */
static int to_ms(uint64_t timeout_ns)
{
	uint64_t ms = timeout_ns / NSEC_PER_MSEC + (timeout_ns % NSEC_PER_MSEC != 0);

	return ms < INT_MAX ? (int)ms : INT_MAX;
}

static int wait_ns(struct poller *poller, uint64_t timeout_ns)
{
	int count = (int)poller->capacity, r;

	if (timeout_ns == 0)
		return sys.epoll_wait(poller->fd, poller->events, count, 0);
	if (timeout_ns == UINT64_MAX)
		return sys.epoll_wait(poller->fd, poller->events, count, -1);
	if (!poller->coarse) {
		r = sys.epoll_pwait2(poller->fd, poller->events, count, timeout_ns);
		if (r != -ENOSYS && r != -EPERM)
			return r;
		poller->coarse = true;
	}
	return sys.epoll_wait(poller->fd, poller->events, count, to_ms(timeout_ns));
}

int poller_wait(struct poller *poller, uint64_t timeout_ns)
{
	int r = wait_ns(poller, timeout_ns);

	return r == -EINTR ? 0 : r;
}
