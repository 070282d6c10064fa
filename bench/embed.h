/*
 * embed.h - host loops as bench-embed drives them: a guest loop hung into each,
 * or descriptors watched by the host itself.
 *
 * Each contender runs in a forked child of its own, so there is one of everything.
 */
#ifndef BENCH_EMBED_H
#define BENCH_EMBED_H

struct onefd;

/* The descriptor is readable. */
typedef void embed_fn(int fd);

struct embedder {
	const char *name;
	int (*open)(void);			/* 0 or -errno, as in the next two */
	int (*attach)(struct onefd *loop);	/* by its adapter, where it has one */
	int (*watch)(int fd, embed_fn *fn);	/* by the host's own means; NULL: it has none */
	int (*run)(void);			/* until stop(), as its programs do */
	void (*stop)(void);
};

/* onefd_run(), which is no host: what the others are measured against. */
extern const struct embedder embed_native;
/* poll(2) and epoll by hand. */
extern const struct embedder embed_poll, embed_epoll;
#ifdef HAVE_LIBEV
extern const struct embedder embed_libev;
#endif
#ifdef HAVE_LIBUV
extern const struct embedder embed_libuv;
#endif
#ifdef HAVE_LIBEVENT
extern const struct embedder embed_libevent;
#endif
#ifdef HAVE_GLIB
extern const struct embedder embed_glib;
#endif
#ifdef HAVE_SD_EVENT
extern const struct embedder embed_sd_event;
#endif

#endif
