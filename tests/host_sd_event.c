/* host_sd_event.c - sd-event as a host. */
#include <errno.h>
#include <onefd/sd-event.h>
#include <stdlib.h>
#include <time.h>

#include "host.h"

struct source {
	sd_event_source *source;
	host_fn *fn;
	void *data;
};

static void *open_host(void)
{
	sd_event *host = NULL;

	sd_event_new(&host);
	return host;
}

static int close_host(void *host)
{
	sd_event_unref(host);
	return 0;
}

static void turn(void *host, bool wait)
{
	sd_event_run(host, wait ? UINT64_MAX : 0);
}

static struct source *make(host_fn *fn, void *data)
{
	struct source *source = calloc(1, sizeof *source);

	source->fn = fn;
	source->data = data;
	return source;
}

static int expired(sd_event_source *timer, uint64_t usec, void *data)
{
	struct source *source = data;

	(void)usec;
	source->fn(source->data);
	sd_event_source_disable_unref(timer);
	free(source);
	return 0;
}

static void start_timer(void *host, unsigned ms, host_fn *fn, void *data)
{
	struct source *source = make(fn, data);

	sd_event_add_time_relative(host, &source->source, CLOCK_MONOTONIC, ms * UINT64_C(1000),
				   1, expired, source);
}

static int ready(sd_event_source *io, int fd, uint32_t events, void *data)
{
	struct source *source = data;

	(void)io;
	(void)fd;
	(void)events;
	source->fn(source->data);
	return 0;
}

static void *watch(void *host, int fd, host_fn *fn, void *data)
{
	struct source *source = make(fn, data);

	sd_event_add_io(host, &source->source, fd, EPOLLIN, ready, source);
	return source;
}

static void unwatch(void *host, void *data)
{
	struct source *source = data;

	(void)host;
	sd_event_source_disable_unref(source->source);
	free(source);
}

static void forked(void *host)
{
	(void)host;	/* all its calls answer -ECHILD */
}

HOST_ADAPTER(sd_event)

const struct host_ops host_sd_event = {
	.name = "sd-event",
	.too_deep = -ELOOP,
	HOST_ROW(sd_event)
};
