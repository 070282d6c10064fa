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
#include <stdio.h>
#include <string.h>

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

/* What rows have in common, by the names of the functions that they all have. */
#define HOST_ROW(kind)							\
	.open = open_host,						\
	.close = close_host,						\
	.turn = turn,							\
	.timer = start_timer,						\
	.watch = watch,							\
	.unwatch = unwatch,						\
	.forked = forked,						\
	.adapter_size = sizeof(struct onefd_##kind),			\
	.attach = attach,						\
	.detach = detach

/* Its attach and detach, for any host's type. */
#define HOST_ADAPTER(kind)						\
	static int attach(void *adapter, void *host, struct onefd *loop)	\
	{								\
		return onefd_##kind##_attach(adapter, host, loop);	\
	}								\
	static void detach(void *adapter)				\
	{								\
		onefd_##kind##_detach(adapter);				\
	}

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

/* Says what is left out. */
static inline void name_missing_hosts(void)
{
	static const char *const names[] = { "libev", "libuv", "libevent", "glib", "sd-event" };

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		int at = 0;

		while (at < HOSTS && strcmp(hosts[at]->name, names[i]))
			at++;
		if (at == HOSTS)
			printf("# SKIP %s is not installed\n", names[i]);
	}
	fflush(stdout);
}

#endif
