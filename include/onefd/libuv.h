/*
 * onefd/libuv.h - a onefd loop as a guest of a libuv loop: see onefd-embed(7).
 *
 * An adapter is one uv_poll_t on the loop's descriptor, which is readable whenever
 * there is work; timers need nothing more. Each time it is, the guest has one turn
 * of onefd_config.budget callbacks of each kind. Link with -luv.
 */
#ifndef ONEFD_LIBUV_H
#define ONEFD_LIBUV_H

#include <errno.h>
#include <onefd.h>
#include <stdlib.h>
#include <uv.h>

struct onefd_libuv {
	struct onefd *loop;	/* read-only; NULL: not attached */
	int error;		/* read-only: why the host watches no more, -errno, or 0 */
	uv_poll_t *poll;	/* read-only: for uv_unref(); libuv's after the detach */
};

struct onefd_libuv_handle {	/* private: what libuv needs for longer */
	uv_poll_t poll;
	uv_close_cb closed;
};

static inline void onefd_libuv_detach(struct onefd_libuv *adapter);

/* A callback may free the adapter: only a dispatch that ran none leaves it. */
static inline void onefd_libuv_ready(uv_poll_t *poll, int status, int events)
{
	struct onefd_libuv *adapter = (struct onefd_libuv *)poll->data;
	int r = status < 0 ? status : onefd_dispatch(adapter->loop, 0);

	(void)events;
	if (r < 0 && r != -EBUSY) {
		onefd_libuv_detach(adapter);
		adapter->error = r;
	}
}

static inline void onefd_libuv_closed(uv_handle_t *poll)
{
	struct onefd_libuv_handle *handle = (struct onefd_libuv_handle *)poll;

	if (handle->closed)
		handle->closed(poll);
	free(handle);
}

/*
 * Hangs @loop in @host until the detach; @adapter is lent until then. It keeps
 * uv_run() going (uv_unref() if it shall not). Errors as onefd_attach(), and
 * -ENOMEM, or what libuv answers: -ELOOP, -ENOSPC; nothing has changed then.
 */
static inline int onefd_libuv_attach(struct onefd_libuv *adapter, uv_loop_t *host,
				     struct onefd *loop)
{
	int fd = adapter && host ? onefd_attach(loop) : -EINVAL, r;
	struct onefd_libuv_handle *handle;

	if (fd < 0)
		return fd;
	handle = (struct onefd_libuv_handle *)malloc(sizeof *handle);
	r = handle ? uv_poll_init(host, &handle->poll, fd) : -ENOMEM;
	if (r < 0) {
		free(handle);
		onefd_detach(loop);
		return r;
	}
	handle->poll.data = adapter;
	handle->closed = NULL;
	/* Fails for a descriptor that has another handle, which init has refused. */
	(void)uv_poll_start(&handle->poll, UV_READABLE, onefd_libuv_ready);
	adapter->loop = loop;
	adapter->error = 0;
	adapter->poll = &handle->poll;
	return 0;
}

/* The host has closed the handle, as one of all: it may not be closed again, and is
 * freed at once if libuv has done with it, bit 1 of its flags, and after that if not. */
static inline void onefd_libuv_disown(struct onefd_libuv_handle *handle)
{
	if (handle->poll.flags & 2) {
		free(handle);
		return;
	}
	handle->closed = handle->poll.close_cb;
	handle->poll.close_cb = onefd_libuv_closed;
}

/*
 * From any callback, twice, and after the host has closed all its handles. @adapter
 * must have been attached once, or be zeroed; it is the caller's at once. Until the
 * host has run once more uv_loop_close() answers UV_EBUSY.
 */
static inline void onefd_libuv_detach(struct onefd_libuv *adapter)
{
	if (!adapter || !adapter->loop)
		return;
	if (uv_is_closing((uv_handle_t *)adapter->poll))
		onefd_libuv_disown((struct onefd_libuv_handle *)adapter->poll);
	else
		uv_close((uv_handle_t *)adapter->poll, onefd_libuv_closed);
	onefd_detach(adapter->loop);
	adapter->loop = NULL;
}

#endif
