/*
 * onefd/libev.h - a onefd loop as a guest of a libev loop: see onefd-embed(7).
 *
 * An adapter is one ev_io on the loop's descriptor, which is readable whenever
 * there is work; timers need nothing more. Each time it is, the guest has one turn
 * of onefd_config.budget callbacks of each kind. Link with -lev.
 */
#ifndef ONEFD_LIBEV_H
#define ONEFD_LIBEV_H

#include <errno.h>
#include <onefd.h>
#include <unistd.h>

#if defined(EV_READ) && !defined(EV_H_)
#error "<ev.h> comes before libevent's headers, which have macros of its names"
#endif
#include <ev.h>

struct onefd_libev {
	struct onefd *loop;	/* read-only; NULL: not attached */
	int error;		/* read-only: why the host watches no more, -errno, or 0 */
	/* private */
	struct ev_loop *host;
	ev_io io;
	ev_cleanup cleanup;
};

static inline void onefd_libev_detach(struct onefd_libev *adapter);

/* A callback may free the adapter: only a dispatch that ran none leaves it. */
static inline void onefd_libev_ready(struct ev_loop *host, ev_io *io, int events)
{
	struct onefd_libev *adapter = onefd_container(io, struct onefd_libev, io);
	int r = events & EV_ERROR ? -EIO : onefd_dispatch(adapter->loop, 0);

	(void)host;
	if (r < 0 && r != -EBUSY) {
		onefd_libev_detach(adapter);
		adapter->error = r;
	}
}

/* The host is being destroyed, and would leave the watch behind. */
static inline void onefd_libev_orphan(struct ev_loop *host, ev_cleanup *cleanup, int events)
{
	(void)host;
	(void)events;
	onefd_libev_detach(onefd_container(cleanup, struct onefd_libev, cleanup));
}

/* Most builds of libev abort when epoll refuses a descriptor: ask it before. */
static inline int onefd_libev_too_deep(int fd)
{
	struct epoll_event event = { EPOLLIN, { NULL } };
	int outer = epoll_create1(EPOLL_CLOEXEC), deep;

	deep = epoll_ctl(outer, EPOLL_CTL_ADD, fd, &event) < 0 && errno == ELOOP;
	if (outer >= 0)
		close(outer);
	return deep;
}

/*
 * Hangs @loop in @host until the detach; @adapter is lent until then. It keeps
 * ev_run() going (ev_unref() if it shall not). Errors as onefd_attach(), and
 * -ELOOP: epolls nest too deep; nothing has changed then.
 */
static inline int onefd_libev_attach(struct onefd_libev *adapter, struct ev_loop *host,
				     struct onefd *loop)
{
	int fd = adapter && host ? onefd_attach(loop) : -EINVAL;

	if (fd < 0)
		return fd;
	if (onefd_libev_too_deep(fd)) {
		onefd_detach(loop);
		return -ELOOP;
	}
	adapter->loop = loop;
	adapter->error = 0;
	adapter->host = host;
	/* EV_IO is EV_READ by a name that libevent's headers leave alone. */
	ev_io_init(&adapter->io, onefd_libev_ready, fd, EV_IO);
	ev_io_start(host, &adapter->io);
	ev_cleanup_init(&adapter->cleanup, onefd_libev_orphan);
	ev_cleanup_start(host, &adapter->cleanup);
	return 0;
}

/* From any callback, twice, and after the host is gone. @adapter must have been
 * attached once, or be zeroed; it is the caller's at once. */
static inline void onefd_libev_detach(struct onefd_libev *adapter)
{
	if (!adapter || !adapter->loop)
		return;
	ev_cleanup_stop(adapter->host, &adapter->cleanup);
	ev_io_stop(adapter->host, &adapter->io);
	onefd_detach(adapter->loop);
	adapter->loop = NULL;
}

#endif
