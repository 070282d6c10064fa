/* host_glib.c - a GLib main context as a host. */
#include <onefd/glib.h>
#include <stdlib.h>

#include "host.h"

struct source {
	GSource *source;
	host_fn *fn;
	void *data;
};

static void *open_host(void)
{
	return g_main_context_new();
}

static int close_host(void *host)
{
	g_main_context_unref(host);
	return 0;
}

static void turn(void *host, bool wait)
{
	g_main_context_iteration(host, wait);
}

static struct source *start(void *host, GSource *source, GSourceFunc call, host_fn *fn, void *data)
{
	struct source *mine = calloc(1, sizeof *mine);

	mine->source = source;
	mine->fn = fn;
	mine->data = data;
	g_source_set_callback(source, call, mine, NULL);
	g_source_attach(source, host);
	return mine;
}

static gboolean expired(gpointer data)
{
	struct source *source = data;

	source->fn(source->data);
	g_source_unref(source->source);
	free(source);
	return G_SOURCE_REMOVE;
}

static void start_timer(void *host, unsigned ms, host_fn *fn, void *data)
{
	start(host, g_timeout_source_new(ms), expired, fn, data);
}

static gboolean ready(gint fd, GIOCondition events, gpointer data)
{
	struct source *source = data;

	(void)fd;
	(void)events;
	source->fn(source->data);
	return G_SOURCE_CONTINUE;
}

static void *watch(void *host, int fd, host_fn *fn, void *data)
{
	return start(host, g_unix_fd_source_new(fd, G_IO_IN), G_SOURCE_FUNC(ready), fn, data);
}

static void unwatch(void *host, void *data)
{
	struct source *source = data;

	(void)host;
	g_source_destroy(source->source);
	g_source_unref(source->source);
	free(source);
}

static void forked(void *host)
{
	(void)host;	/* it keeps nothing in the kernel */
}

HOST_ADAPTER(glib)

const struct host_ops host_glib = {
	.name = "glib",
	.nests = true,
	.forks = true,
	HOST_ROW(glib)
};
