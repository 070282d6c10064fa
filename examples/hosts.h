/*
 * hosts.h - a onefd loop inside a host loop that is chosen by name.
 *
 * It shows each adapter in use, and lets one program run in every host. Which ones
 * are built in, HAVE_LIBEV, HAVE_LIBUV, HAVE_LIBEVENT, HAVE_GLIB and HAVE_SD_EVENT
 * say; "native" always is, and is no host at all: its step is onefd_dispatch(). For
 * libev, a program is compiled with
 *
 *   cc -D_GNU_SOURCE -DHAVE_LIBEV ... $(pkg-config --cflags --libs onefd) -lev
 *
 * It is no reactor of its own: nothing but the loop is ever hung into the host.
 */
#ifndef HOSTS_H
#define HOSTS_H

/* libev goes first: of the names that it shares with libevent, the last one counts. */
#ifdef HAVE_LIBEV
#include <onefd/libev.h>
#endif
#ifdef HAVE_LIBUV
#include <onefd/libuv.h>
#endif
#ifdef HAVE_LIBEVENT
#include <onefd/libevent.h>
#endif
#ifdef HAVE_GLIB
#include <onefd/glib.h>
#endif
#ifdef HAVE_SD_EVENT
#include <onefd/sd-event.h>
#endif
#include <errno.h>
#include <onefd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct host;

struct host_kind {
	const char *name;
	int (*open)(struct host *host);		/* makes the host's loop; 0 or -errno */
	int (*attach)(struct host *host, struct onefd *loop);
	void (*detach)(struct host *host);
	int (*step)(struct host *host, int timeout_ms);
	void (*close)(struct host *host);
};

struct host {
	const struct host_kind *kind;
	struct onefd *loop;			/* NULL: nothing is attached */
#ifdef HAVE_LIBEV
	struct { struct ev_loop *base; ev_timer limit; struct onefd_libev adapter; } libev;
#endif
#ifdef HAVE_LIBUV
	struct { uv_loop_t base; uv_timer_t limit; struct onefd_libuv adapter; } libuv;
#endif
#ifdef HAVE_LIBEVENT
	struct { struct event_base *base; struct event *limit; struct onefd_libevent adapter; } libevent;
#endif
#ifdef HAVE_GLIB
	struct { GMainContext *base; struct onefd_glib adapter; } glib;
#endif
#ifdef HAVE_SD_EVENT
	struct { sd_event *base; struct onefd_sd_event adapter; } sd_event;
#endif
};

/* ---- native: the loop turns by itself ---------------------------------------- */

static inline int native_open(struct host *host)
{
	(void)host;
	return 0;
}

static inline int native_attach(struct host *host, struct onefd *loop)
{
	(void)host;
	(void)loop;
	return 0;
}

static inline void native_nothing(struct host *host)
{
	(void)host;
}

static inline int native_step(struct host *host, int timeout_ms)
{
	int r = onefd_dispatch(host->loop, timeout_ms);

	return r < 0 ? r : 0;
}

/* ---- libev ------------------------------------------------------------------- */

#ifdef HAVE_LIBEV
static inline int libev_open(struct host *host)
{
	host->libev.base = ev_loop_new(EVFLAG_AUTO);
	return host->libev.base ? 0 : -ENOMEM;
}

static inline int libev_attach(struct host *host, struct onefd *loop)
{
	return onefd_libev_attach(&host->libev.adapter, host->libev.base, loop);
}

static inline void libev_detach(struct host *host)
{
	onefd_libev_detach(&host->libev.adapter);
}

static inline void libev_late(struct ev_loop *base, ev_timer *limit, int events)
{
	(void)base;
	(void)limit;
	(void)events;
}

static inline int libev_step(struct host *host, int timeout_ms)
{
	struct ev_loop *base = host->libev.base;

	ev_now_update(base);
	ev_timer_init(&host->libev.limit, libev_late, timeout_ms / 1e3, 0.);
	if (timeout_ms > 0)
		ev_timer_start(base, &host->libev.limit);
	ev_run(base, timeout_ms ? EVRUN_ONCE : EVRUN_NOWAIT);
	ev_timer_stop(base, &host->libev.limit);
	return host->libev.adapter.error;
}

static inline void libev_close(struct host *host)
{
	ev_loop_destroy(host->libev.base);
}
#endif

/* ---- libuv ------------------------------------------------------------------- */

#ifdef HAVE_LIBUV
static inline int libuv_open(struct host *host)
{
	int r = uv_loop_init(&host->libuv.base);

	return r < 0 ? r : uv_timer_init(&host->libuv.base, &host->libuv.limit);
}

static inline int libuv_attach(struct host *host, struct onefd *loop)
{
	return onefd_libuv_attach(&host->libuv.adapter, &host->libuv.base, loop);
}

static inline void libuv_detach(struct host *host)
{
	onefd_libuv_detach(&host->libuv.adapter);
}

static inline void libuv_late(uv_timer_t *limit)
{
	(void)limit;
}

static inline int libuv_step(struct host *host, int timeout_ms)
{
	uv_update_time(&host->libuv.base);
	if (timeout_ms > 0)
		(void)uv_timer_start(&host->libuv.limit, libuv_late, (uint64_t)timeout_ms, 0);
	(void)uv_run(&host->libuv.base, timeout_ms ? UV_RUN_ONCE : UV_RUN_NOWAIT);
	(void)uv_timer_stop(&host->libuv.limit);
	return host->libuv.adapter.error;
}

/* What was closed, the timer and the adapter's handle, is let go by one more run. */
static inline void libuv_close(struct host *host)
{
	uv_close((uv_handle_t *)&host->libuv.limit, NULL);
	(void)uv_run(&host->libuv.base, UV_RUN_DEFAULT);
	(void)uv_loop_close(&host->libuv.base);
}
#endif

/* ---- libevent ---------------------------------------------------------------- */

#ifdef HAVE_LIBEVENT
static inline void libevent_late(evutil_socket_t fd, short events, void *data)
{
	(void)fd;
	(void)events;
	(void)data;
}

static inline int libevent_open(struct host *host)
{
	host->libevent.base = event_base_new();
	if (!host->libevent.base)
		return -ENOMEM;
	host->libevent.limit = evtimer_new(host->libevent.base, libevent_late, NULL);
	if (host->libevent.limit)
		return 0;
	event_base_free(host->libevent.base);
	return -ENOMEM;
}

static inline int libevent_attach(struct host *host, struct onefd *loop)
{
	return onefd_libevent_attach(&host->libevent.adapter, host->libevent.base, loop);
}

static inline void libevent_detach(struct host *host)
{
	onefd_libevent_detach(&host->libevent.adapter);
}

static inline int libevent_step(struct host *host, int timeout_ms)
{
	struct timeval limit = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };

	if (timeout_ms > 0)
		(void)evtimer_add(host->libevent.limit, &limit);
	/* EVLOOP_NONBLOCK alone goes on for as long as there is work. */
	(void)event_base_loop(host->libevent.base,
			      EVLOOP_ONCE | (timeout_ms ? 0 : EVLOOP_NONBLOCK));
	(void)evtimer_del(host->libevent.limit);
	return host->libevent.adapter.error;
}

static inline void libevent_close(struct host *host)
{
	event_free(host->libevent.limit);
	event_base_free(host->libevent.base);
}
#endif

/* ---- GLib -------------------------------------------------------------------- */

#ifdef HAVE_GLIB
static inline int glib_open(struct host *host)
{
	host->glib.base = g_main_context_new();
	return 0;
}

static inline int glib_attach(struct host *host, struct onefd *loop)
{
	return onefd_glib_attach(&host->glib.adapter, host->glib.base, loop);
}

static inline void glib_detach(struct host *host)
{
	onefd_glib_detach(&host->glib.adapter);
}

static inline gboolean glib_late(void *data)
{
	(void)data;
	return G_SOURCE_REMOVE;
}

static inline int glib_step(struct host *host, int timeout_ms)
{
	GSource *limit = timeout_ms > 0 ? g_timeout_source_new((guint)timeout_ms) : NULL;

	if (limit) {
		g_source_set_callback(limit, glib_late, NULL, NULL);
		g_source_attach(limit, host->glib.base);
	}
	(void)g_main_context_iteration(host->glib.base, timeout_ms != 0);
	if (limit) {
		g_source_destroy(limit);
		g_source_unref(limit);
	}
	return host->glib.adapter.error;
}

static inline void glib_close(struct host *host)
{
	g_main_context_unref(host->glib.base);
}
#endif

/* ---- sd-event ---------------------------------------------------------------- */

#ifdef HAVE_SD_EVENT
static inline int sd_event_open(struct host *host)
{
	return sd_event_new(&host->sd_event.base);
}

static inline int sd_event_attach(struct host *host, struct onefd *loop)
{
	return onefd_sd_event_attach(&host->sd_event.adapter, host->sd_event.base, loop);
}

static inline void sd_event_detach(struct host *host)
{
	onefd_sd_event_detach(&host->sd_event.adapter);
}

static inline int sd_event_step(struct host *host, int timeout_ms)
{
	uint64_t limit_us = timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000;
	int r = sd_event_run(host->sd_event.base, limit_us);

	return r < 0 ? r : host->sd_event.adapter.error;
}

static inline void sd_event_close(struct host *host)
{
	sd_event_unref(host->sd_event.base);
}
#endif

/* ---- by name ----------------------------------------------------------------- */

#define HOST_KIND(name, prefix) \
	{ name, prefix##_open, prefix##_attach, prefix##_detach, prefix##_step, prefix##_close }

static const struct host_kind host_kinds[] = {
	{ "native", native_open, native_attach, native_nothing, native_step, native_nothing },
#ifdef HAVE_LIBEV
	HOST_KIND("libev", libev),
#endif
#ifdef HAVE_LIBUV
	HOST_KIND("libuv", libuv),
#endif
#ifdef HAVE_LIBEVENT
	HOST_KIND("libevent", libevent),
#endif
#ifdef HAVE_GLIB
	HOST_KIND("glib", glib),
#endif
#ifdef HAVE_SD_EVENT
	HOST_KIND("sd-event", sd_event),
#endif
};

/* NULL if there is none of that name: then @program has said which ones there are. */
static inline const struct host_kind *host_named(const char *program, const char *name)
{
	const struct host_kind *end = host_kinds + sizeof host_kinds / sizeof *host_kinds;

	for (const struct host_kind *kind = host_kinds; kind < end; kind++)
		if (strcmp(kind->name, name) == 0)
			return kind;
	fprintf(stderr, "%s: no loop '%s' is built in, but these are:", program, name);
	for (const struct host_kind *kind = host_kinds; kind < end; kind++)
		fprintf(stderr, " %s", kind->name);
	fputc('\n', stderr);
	return NULL;
}

static inline bool host_is_native(const struct host *host)
{
	return host->kind == host_kinds;
}

/* 0 or -errno, in this and in those below. */
static inline int host_attach(struct host *host, struct onefd *loop)
{
	int r = host->kind->attach(host, loop);

	if (r == 0)
		host->loop = loop;
	return r;
}

/* In callbacks too; twice is no harm. */
static inline void host_detach(struct host *host)
{
	if (!host->loop)
		return;
	host->kind->detach(host);
	host->loop = NULL;
}

/* Makes a host of @kind, with @loop in it. */
static inline int host_open(struct host *host, const struct host_kind *kind, struct onefd *loop)
{
	int r;

	*host = (struct host){ .kind = kind };
	r = kind->open(host);
	if (r < 0)
		return r;
	r = host_attach(host, loop);
	if (r < 0)
		kind->close(host);
	return r;
}

/* One iteration of the host, which waits @timeout_ms milliseconds at most (< 0:
 * without limit) until there is something to do. */
static inline int host_step(struct host *host, int timeout_ms)
{
	return host->kind->step(host, timeout_ms);
}

/* The loop is free to go, and the host is gone. */
static inline void host_close(struct host *host)
{
	host_detach(host);
	host->kind->close(host);
}

#endif
