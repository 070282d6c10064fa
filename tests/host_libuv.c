/* host_libuv.c - libuv as a host. */
#include <errno.h>
#include <onefd/libuv.h>
#include <stdlib.h>

#include "host.h"

struct source {
	union {
		uv_handle_t handle;
		uv_timer_t timer;
		uv_poll_t poll;
	};
	host_fn *fn;
	void *data;
};

static void *open_host(void)
{
	uv_loop_t *host = malloc(sizeof *host);

	uv_loop_init(host);
	return host;
}

/* A handle of an earlier detach is gone when its callback has run. */
static int close_host(void *host)
{
	if (uv_loop_close(host) == UV_EBUSY) {
		uv_run(host, UV_RUN_NOWAIT);
		if (uv_loop_close(host) == UV_EBUSY)
			return -EBUSY;
	}
	free(host);
	return 0;
}

static void turn(void *host, bool wait)
{
	uv_run(host, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

static struct source *make(host_fn *fn, void *data)
{
	struct source *source = calloc(1, sizeof *source);

	source->fn = fn;
	source->data = data;
	return source;
}

static void closed(uv_handle_t *handle)
{
	free(handle);
}

static void expired(uv_timer_t *timer)
{
	struct source *source = (struct source *)timer;

	uv_close(&source->handle, closed);
	source->fn(source->data);
}

static void start_timer(void *host, unsigned ms, host_fn *fn, void *data)
{
	struct source *source = make(fn, data);

	uv_update_time(host);
	uv_timer_init(host, &source->timer);
	uv_timer_start(&source->timer, expired, ms, 0);
}

static void ready(uv_poll_t *poll, int status, int events)
{
	struct source *source = (struct source *)poll;

	(void)status;
	(void)events;
	source->fn(source->data);
}

static void *watch(void *host, int fd, host_fn *fn, void *data)
{
	struct source *source = make(fn, data);

	uv_poll_init(host, &source->poll, fd);
	uv_poll_start(&source->poll, UV_READABLE, ready);
	return source;
}

static void unwatch(void *host, void *data)
{
	struct source *source = data;

	(void)host;
	uv_close(&source->handle, closed);
}

static void forked(void *host)
{
	uv_loop_fork(host);
}

HOST_ADAPTER(libuv)

const struct host_ops host_libuv = {
	.name = "libuv",
	.forks = true,
	.refuses_to_close = true,
	.too_deep = -ELOOP,
	HOST_ROW(libuv)
};
