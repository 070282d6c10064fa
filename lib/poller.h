/*
 * poller.h - epoll, once: a set of descriptors and the batch last fetched.
 *
 * Does not know what a watch is: it carries a pointer with each descriptor.
 */
#ifndef ONEFD_POLLER_H
#define ONEFD_POLLER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct poller {
	int fd;
	uint32_t capacity;		/* events fetched at a time */
	bool coarse;			/* no epoll_pwait2: round up to milliseconds */
	struct epoll_event *events;
};

int poller_open(struct poller *poller, uint32_t capacity);
void poller_close(struct poller *poller);
int poller_add(struct poller *poller, int fd, uint32_t events, void *ptr);
int poller_update(struct poller *poller, int fd, uint32_t events, void *ptr);
int poller_remove(struct poller *poller, int fd);

/* Waits up to @timeout_ns (UINT64_MAX: without limit) and returns how many of
 * poller->events are filled; 0 also when a signal interrupted the wait. */
int poller_wait(struct poller *poller, uint64_t timeout_ns);

#endif
