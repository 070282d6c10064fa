/*
 * host.h - the loops of others behind one table, so that one test is run in each.
 *
 * host_libev.c and its like, one for each that is installed, are the rows. What a
 * host cannot do, such as run inside its own callback, its row says.
 */
#ifndef ONEFD_TESTS_HOST_H
#define ONEFD_TESTS_HOST_H

#include <onefd.h>
#include <stdbool.h>

typedef void host_fn(void *data);

/* What all adapters begin with. */
struct adapter {
	struct onefd *loop;
	int error;
};

struct host_ops {
	const char *name;
	bool nests;		/* may be run inside its own callbacks */
	bool forks;		/* may be run in a forked child */
	bool refuses_to_close;	/* while it has a guest */
	int too_deep;		/* what attach answers then; 0: the host has no epoll */
	void *(*open)(void);
	int (*close)(void *host);	/* 0, or -EBUSY */
	/* One iteration; sleeps until there is something to do if @wait. */
	void (*turn)(void *host, bool wait);
	/* Calls once, after @ms milliseconds. */
	void (*timer)(void *host, unsigned ms, host_fn *fn, void *data);
	/* Calls while @fd is readable, until unwatch. */
	void *(*watch)(void *host, int fd, host_fn *fn, void *data);
	void (*unwatch)(void *host, void *watch);
	void (*forked)(void *host);	/* to be called in a forked child */
	size_t adapter_size;
	int (*attach)(void *adapter, void *host, struct onefd *loop);
	void (*detach)(void *adapter);
};

extern const struct host_ops host_libev, host_libuv, host_libevent, host_glib,
	host_sd_event;

static const struct host_ops *const hosts[] = {
#ifdef HAVE_LIBEV
	&host_libev,
#endif
#ifdef HAVE_LIBUV
	&host_libuv,
#endif
#ifdef HAVE_LIBEVENT
	&host_libevent,
#endif
#ifdef HAVE_GLIB
	&host_glib,
#endif
#ifdef HAVE_SD_EVENT
	&host_sd_event,
#endif
	NULL
};

#define HOSTS ((int)(sizeof hosts / sizeof hosts[0]) - 1)

#endif
