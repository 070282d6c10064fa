/*
 * embed_hosts.c - the host loops of bench-embed, each used as a program of its
 * own would use it. What hangs a onefd loop into them is <onefd/...h>.
 */
#include "embed.h"

#ifdef HAVE_LIBEV
#include <onefd/libev.h>
enum { LIBEV_READ = EV_READ };	/* libevent defines the word anew, as another bit */
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
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MAX_EVENTS 64	/* fetched at a time: onefd's own default, and libev's */

/* What a host carries for a descriptor. */
struct own {
	int fd;
	embed_fn *fn;
};

static struct own *own_new(int fd, embed_fn *fn)
{
	struct own *own = malloc(sizeof *own);

	if (own)
		*own = (struct own){ fd, fn };
	return own;
}

static bool stopped;

static void stop_stepping(void)
{
	stopped = true;
}

/* ---- native ------------------------------------------------------------------- */

static struct onefd *guest;

static int native_open(void)
{
	return 0;
}

static int native_attach(struct onefd *loop)
{
	guest = loop;
	return 0;
}

static int native_run(void)
{
	return onefd_run(guest);
}

static void native_stop(void)
{
	onefd_stop(guest);
}

const struct embedder embed_native = {
	"native", native_open, native_attach, NULL, native_run, native_stop,
};

/* ---- poll and epoll, by hand ----------------------------------------------------- */

static void dispatch(int fd)
{
	(void)fd;
	(void)onefd_dispatch(guest, 0);
}

static int attach_by_hand(struct onefd *loop, int (*watch)(int fd, embed_fn *fn))
{
	int fd = onefd_attach(loop);

	guest = loop;
	return fd < 0 ? fd : watch(fd, dispatch);
}

static struct pollfd *polled;
static struct own *polled_own;
static nfds_t polled_count;

static int poll_watch(int fd, embed_fn *fn)
{
	polled = realloc(polled, (polled_count + 1) * sizeof *polled);
	polled_own = realloc(polled_own, (polled_count + 1) * sizeof *polled_own);
	if (!polled || !polled_own)
		return -ENOMEM;
	polled[polled_count] = (struct pollfd){ .fd = fd, .events = POLLIN };
	polled_own[polled_count++] = (struct own){ fd, fn };
	return 0;
}

static int poll_attach(struct onefd *loop)
{
	return attach_by_hand(loop, poll_watch);
}

static int poll_run(void)
{
	int left;

	for (stopped = false; !stopped;) {
		left = poll(polled, polled_count, -1);
		if (left < 0)
			return -errno;
		for (nfds_t i = 0; left > 0; i++)
			if (polled[i].revents) {
				polled_own[i].fn(polled[i].fd);
				left--;
			}
	}
	return 0;
}

const struct embedder embed_poll = {
	"poll", native_open, poll_attach, poll_watch, poll_run, stop_stepping,
};

static int epoll_fd;

static int epoll_open(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return epoll_fd < 0 ? -errno : 0;
}

static int epoll_watch(int fd, embed_fn *fn)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = own_new(fd, fn) };

	if (!event.data.ptr)
		return -ENOMEM;
	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int epoll_attach(struct onefd *loop)
{
	return attach_by_hand(loop, epoll_watch);
}

static int epoll_run(void)
{
	struct epoll_event events[MAX_EVENTS];
	struct own *own;
	int n;

	for (stopped = false; !stopped;) {
		n = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++) {
			own = events[i].data.ptr;
			own->fn(own->fd);
		}
	}
	return 0;
}

const struct embedder embed_epoll = {
	"epoll", epoll_open, epoll_attach, epoll_watch, epoll_run, stop_stepping,
};

/* ---- libev --------------------------------------------------------------------- */

#ifdef HAVE_LIBEV
static struct ev_loop *ev;
static struct onefd_libev ev_adapter;

static int libev_open(void)
{
	ev = ev_loop_new(EVBACKEND_EPOLL);
	return ev ? 0 : -ENOMEM;
}

static int libev_attach(struct onefd *loop)
{
	return onefd_libev_attach(&ev_adapter, ev, loop);
}

static void on_ev(struct ev_loop *loop, ev_io *io, int events)
{
	(void)loop;
	(void)events;
	((struct own *)io->data)->fn(io->fd);
}

static int libev_watch(int fd, embed_fn *fn)
{
	ev_io *io = malloc(sizeof *io);

	if (!io)
		return -ENOMEM;
	ev_io_init(io, on_ev, fd, LIBEV_READ);
	io->data = own_new(fd, fn);
	ev_io_start(ev, io);
	return io->data ? 0 : -ENOMEM;
}

static int libev_run(void)
{
	ev_run(ev, 0);
	return ev_adapter.error;
}

static void libev_stop(void)
{
	ev_break(ev, EVBREAK_ONE);
}

const struct embedder embed_libev = {
	"libev", libev_open, libev_attach, libev_watch, libev_run, libev_stop,
};
#endif

/* ---- libuv --------------------------------------------------------------------- */

#ifdef HAVE_LIBUV
static uv_loop_t uv;
static struct onefd_libuv uv_adapter;

static int libuv_open(void)
{
	return uv_loop_init(&uv);
}

static int libuv_attach(struct onefd *loop)
{
	return onefd_libuv_attach(&uv_adapter, &uv, loop);
}

static void on_uv(uv_poll_t *poll, int status, int events)
{
	struct own *own = poll->data;

	(void)status;
	(void)events;
	own->fn(own->fd);
}

static int libuv_watch(int fd, embed_fn *fn)
{
	uv_poll_t *poll = malloc(sizeof *poll);
	int r = poll ? uv_poll_init(&uv, poll, fd) : -ENOMEM;

	if (r < 0)
		return r;
	poll->data = own_new(fd, fn);
	return poll->data ? uv_poll_start(poll, UV_READABLE, on_uv) : -ENOMEM;
}

static int libuv_run(void)
{
	(void)uv_run(&uv, UV_RUN_DEFAULT);
	return uv_adapter.error;
}

static void libuv_stop(void)
{
	uv_stop(&uv);
}

const struct embedder embed_libuv = {
	"libuv", libuv_open, libuv_attach, libuv_watch, libuv_run, libuv_stop,
};
#endif

/* ---- libevent -------------------------------------------------------------------- */

#ifdef HAVE_LIBEVENT
static struct event_base *base;
static struct onefd_libevent event_adapter;

static int libevent_open(void)
{
	base = event_base_new();
	return base ? 0 : -ENOMEM;
}

static int libevent_attach(struct onefd *loop)
{
	return onefd_libevent_attach(&event_adapter, base, loop);
}

static void on_event(evutil_socket_t fd, short events, void *data)
{
	(void)events;
	((struct own *)data)->fn(fd);
}

static int libevent_watch(int fd, embed_fn *fn)
{
	struct event *event = event_new(base, fd, EV_READ | EV_PERSIST, on_event, own_new(fd, fn));

	return event && event_add(event, NULL) == 0 ? 0 : -ENOMEM;
}

static int libevent_run(void)
{
	return event_base_dispatch(base) < 0 ? -EIO : event_adapter.error;
}

static void libevent_stop(void)
{
	event_base_loopexit(base, NULL);
}

const struct embedder embed_libevent = {
	"libevent", libevent_open, libevent_attach, libevent_watch, libevent_run, libevent_stop,
};
#endif

/* ---- GLib ---------------------------------------------------------------------- */

#ifdef HAVE_GLIB
static GMainContext *context;
static struct onefd_glib glib_adapter;

static int glib_open(void)
{
	context = g_main_context_new();
	return 0;
}

static int glib_attach(struct onefd *loop)
{
	return onefd_glib_attach(&glib_adapter, context, loop);
}

static gboolean on_glib(gint fd, GIOCondition events, gpointer data)
{
	(void)events;
	((struct own *)data)->fn(fd);
	return G_SOURCE_CONTINUE;
}

static int glib_watch(int fd, embed_fn *fn)
{
	GSource *source = g_unix_fd_source_new(fd, G_IO_IN);
	struct own *own = own_new(fd, fn);

	if (!own)
		return -ENOMEM;
	g_source_set_callback(source, (GSourceFunc)(void (*)(void))on_glib, own, NULL);
	g_source_attach(source, context);
	return 0;
}

/* As g_main_loop_run() does. */
static int glib_run(void)
{
	for (stopped = false; !stopped;)
		g_main_context_iteration(context, TRUE);
	return glib_adapter.error;
}

const struct embedder embed_glib = {
	"glib", glib_open, glib_attach, glib_watch, glib_run, stop_stepping,
};
#endif

/* ---- sd-event -------------------------------------------------------------------- */

#ifdef HAVE_SD_EVENT
static sd_event *sd;
static struct onefd_sd_event sd_adapter;

static int sd_open(void)
{
	return sd_event_new(&sd);
}

static int sd_attach(struct onefd *loop)
{
	return onefd_sd_event_attach(&sd_adapter, sd, loop);
}

static int on_sd(sd_event_source *source, int fd, uint32_t events, void *data)
{
	(void)source;
	(void)events;
	((struct own *)data)->fn(fd);
	return 0;
}

static int sd_watch(int fd, embed_fn *fn)
{
	struct own *own = own_new(fd, fn);

	return own ? sd_event_add_io(sd, NULL, fd, EPOLLIN, on_sd, own) : -ENOMEM;
}

/* As sd_event_loop() does, which could not be run a second time. */
static int sd_run(void)
{
	int r = 0;

	for (stopped = false; !stopped && r >= 0;)
		r = sd_event_run(sd, UINT64_MAX);
	return r < 0 ? r : sd_adapter.error;
}

const struct embedder embed_sd_event = {
	"sd-event", sd_open, sd_attach, sd_watch, sd_run, stop_stepping,
};
#endif
