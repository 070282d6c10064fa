/*
 * onefd/libevent.h - a onefd loop as a guest of a libevent base: see onefd-embed(7).
 *
 * An adapter is one event on the loop's descriptor, which is readable whenever
 * there is work; timers need nothing more. Each time it is, the guest has one turn
 * of onefd_config.budget callbacks of each kind. Link with -levent_core, before -lev.
 * Its names clash with libev's: where both are used <onefd/libev.h> comes first.
 */
#ifndef ONEFD_LIBEVENT_H
#define ONEFD_LIBEVENT_H

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <onefd.h>

struct onefd_libevent {
	struct onefd *loop;	/* read-only; NULL: not attached */
	int error;		/* read-only: why the host watches no more, -errno, or 0 */
	/* private */
	struct event event;
};

static inline void onefd_libevent_detach(struct onefd_libevent *adapter);

/* A callback may free the adapter: only a dispatch that ran none leaves it. */
static inline void onefd_libevent_ready(evutil_socket_t fd, short events, void *data)
{
	struct onefd_libevent *adapter = (struct onefd_libevent *)data;
	int r = onefd_dispatch(adapter->loop, 0);

	(void)fd;
	(void)events;
	if (r < 0 && r != -EBUSY) {
		onefd_libevent_detach(adapter);
		adapter->error = r;
	}
}

/*
 * Hangs @loop in @host until the detach; @adapter is lent until then. It keeps
 * event_base_dispatch() going (event_base_loop() has a flag to end otherwise).
 * Errors as onefd_attach(), or what epoll answers: -ELOOP, -ENOMEM, -ENOSPC, or
 * -EIO for want of that; nothing has changed then.
 */
static inline int onefd_libevent_attach(struct onefd_libevent *adapter,
					struct event_base *host, struct onefd *loop)
{
	int fd = adapter && host ? onefd_attach(loop) : -EINVAL;

	if (fd < 0)
		return fd;
	/* Nobody waits in it, but libevent's debug mode aborts for what could block. */
	(void)evutil_make_socket_nonblocking(fd);
	errno = 0;
	if (event_assign(&adapter->event, host, fd, EV_READ | EV_PERSIST,
			 onefd_libevent_ready, adapter) < 0 ||
	    event_add(&adapter->event, NULL) < 0) {
		fd = errno ? -errno : -EIO;
		onefd_detach(loop);
		return fd;
	}
	adapter->loop = loop;
	adapter->error = 0;
	return 0;
}

/* From any callback, twice, and after the host is gone. @adapter must have been
 * attached once, or be zeroed; it is the caller's at once. */
static inline void onefd_libevent_detach(struct onefd_libevent *adapter)
{
	if (!adapter || !adapter->loop)
		return;
	/* A base that is freed deletes its events, and may not be named after. */
	if (adapter->event.ev_evcallback.evcb_flags & EVLIST_INSERTED)
		event_del(&adapter->event);
	event_debug_unassign(&adapter->event);
	onefd_detach(adapter->loop);
	adapter->loop = NULL;
}

#endif
