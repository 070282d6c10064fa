/* host_libevent.c - libevent as a host. */
#include <errno.h>
#include <onefd/libevent.h>
#include <stdlib.h>

#include "host.h"

struct source {
	struct event event;
	host_fn *fn;
	void *data;
};

/* What the host says of a descriptor that it cannot watch, attach says as well. */
static void silent(int severity, const char *message)
{
	(void)severity;
	(void)message;
}

static void *open_host(void)
{
	event_set_log_callback(silent);
	return event_base_new();
}

static int close_host(void *host)
{
	event_base_free(host);
	return 0;
}

static void turn(void *host, bool wait)
{
	event_base_loop(host, wait ? EVLOOP_ONCE : EVLOOP_NONBLOCK);
}

static struct source *make(host_fn *fn, void *data)
{
	struct source *source = calloc(1, sizeof *source);

	source->fn = fn;
	source->data = data;
	return source;
}

static void expired(evutil_socket_t fd, short events, void *data)
{
	struct source *source = data;

	(void)fd;
	(void)events;
	source->fn(source->data);
	free(source);
}

static void start_timer(void *host, unsigned ms, host_fn *fn, void *data)
{
	struct source *source = make(fn, data);
	struct timeval after = { ms / 1000, ms % 1000 * 1000 };

	evtimer_assign(&source->event, host, expired, source);
	evtimer_add(&source->event, &after);
}

static void ready(evutil_socket_t fd, short events, void *data)
{
	struct source *source = data;

	(void)fd;
	(void)events;
	source->fn(source->data);
}

static void *watch(void *host, int fd, host_fn *fn, void *data)
{
	struct source *source = make(fn, data);

	event_assign(&source->event, host, fd, EV_READ | EV_PERSIST, ready, source);
	event_add(&source->event, NULL);
	return source;
}

static void unwatch(void *host, void *data)
{
	struct source *source = data;

	(void)host;
	event_del(&source->event);
	free(source);
}

static void forked(void *host)
{
	event_reinit(host);
}

HOST_ADAPTER(libevent)

const struct host_ops host_libevent = {
	.name = "libevent",
	.forks = true,
	.too_deep = -ELOOP,
	HOST_ROW(libevent)
};
