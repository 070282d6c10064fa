/* host_libev.c - libev as a host. */
#include <errno.h>
#include <onefd/libev.h>
#include <stdlib.h>

#include "host.h"

struct source {
	ev_timer timer;
	ev_io io;
	host_fn *fn;
	void *data;
};

/* Not the default loop: that reaps the children of everybody. */
static void *open_host(void)
{
	return ev_loop_new(EVFLAG_AUTO);
}

static int close_host(void *host)
{
	ev_loop_destroy(host);
	return 0;
}

static void turn(void *host, bool wait)
{
	ev_run(host, wait ? EVRUN_ONCE : EVRUN_NOWAIT);
}

static struct source *make(host_fn *fn, void *data)
{
	struct source *source = calloc(1, sizeof *source);

	source->fn = fn;
	source->data = data;
	return source;
}

static void expired(struct ev_loop *host, ev_timer *timer, int events)
{
	struct source *source = onefd_container(timer, struct source, timer);

	(void)host;
	(void)events;
	source->fn(source->data);
	free(source);
}

static void start_timer(void *host, unsigned ms, host_fn *fn, void *data)
{
	struct source *source = make(fn, data);

	ev_timer_init(&source->timer, expired, ms / 1e3, 0);
	ev_now_update(host);
	ev_timer_start(host, &source->timer);
}

static void ready(struct ev_loop *host, ev_io *io, int events)
{
	struct source *source = onefd_container(io, struct source, io);

	(void)host;
	(void)events;
	source->fn(source->data);
}

static void *watch(void *host, int fd, host_fn *fn, void *data)
{
	struct source *source = make(fn, data);

	ev_io_init(&source->io, ready, fd, EV_READ);
	ev_io_start(host, &source->io);
	return source;
}

static void unwatch(void *host, void *data)
{
	struct source *source = data;

	ev_io_stop(host, &source->io);
	free(source);
}

static void forked(void *host)
{
	ev_loop_fork(host);
}

HOST_ADAPTER(libev)

const struct host_ops host_libev = {
	.name = "libev",
	.nests = true,
	.forks = true,
	.too_deep = -ELOOP,
	HOST_ROW(libev)
};
