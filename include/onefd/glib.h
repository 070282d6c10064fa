/*
 * onefd/glib.h - a onefd loop as a guest of a GLib main context: see onefd-embed(7).
 *
 * An adapter is one source on the loop's descriptor, which is readable whenever
 * there is work; timers need nothing more. Each time it is, the guest has one turn
 * of onefd_config.budget callbacks of each kind. Link with -lglib-2.0.
 */
#ifndef ONEFD_GLIB_H
#define ONEFD_GLIB_H

#include <errno.h>
#include <glib-unix.h>
#include <onefd.h>

struct onefd_glib {
	struct onefd *loop;	/* read-only; NULL: not attached */
	int error;		/* read-only: why the host watches no more, -errno, or 0 */
	GSource *source;	/* read-only: for g_source_set_priority() */
};

static inline void onefd_glib_detach(struct onefd_glib *adapter);

/* A callback may free the adapter: only a dispatch that ran none leaves it. */
static inline gboolean onefd_glib_ready(gint fd, GIOCondition events, gpointer data)
{
	struct onefd_glib *adapter = (struct onefd_glib *)data;
	int r = onefd_dispatch(adapter->loop, 0);

	(void)fd;
	(void)events;
	if (r < 0 && r != -EBUSY) {
		onefd_glib_detach(adapter);
		adapter->error = r;
	}
	return G_SOURCE_CONTINUE;
}

/*
 * Hangs @loop in @host (NULL: the default context) until the detach; @adapter is
 * lent until then. A GMainLoop runs until it is told to quit, with or without it.
 * Errors as onefd_attach(); nothing has changed then.
 */
static inline int onefd_glib_attach(struct onefd_glib *adapter, GMainContext *host,
				    struct onefd *loop)
{
	int fd = adapter ? onefd_attach(loop) : -EINVAL;

	if (fd < 0)
		return fd;
	adapter->loop = loop;
	adapter->error = 0;
	adapter->source = g_unix_fd_source_new(fd, G_IO_IN);
	/* By way of a type without arguments: compilers warn of casts between others. */
	g_source_set_callback(adapter->source, (GSourceFunc)(void (*)(void))onefd_glib_ready,
			      adapter, NULL);
	g_source_set_name(adapter->source, "onefd");
	g_source_attach(adapter->source, host);
	return 0;
}

/* From any callback, twice, and after the host is gone. @adapter must have been
 * attached once, or be zeroed; it is the caller's at once. */
static inline void onefd_glib_detach(struct onefd_glib *adapter)
{
	if (!adapter || !adapter->loop)
		return;
	g_source_destroy(adapter->source);
	g_source_unref(adapter->source);
	onefd_detach(adapter->loop);
	adapter->loop = NULL;
}

#endif
