/*
 * onefd/sd-event.h - a onefd loop as a guest of an sd_event: see onefd-embed(7).
 *
 * An adapter is one source on the loop's descriptor, which is readable whenever
 * there is work; timers need nothing more. Each time it is, the guest has one turn
 * of onefd_config.budget callbacks of each kind. Link with -lsystemd.
 */
#ifndef ONEFD_SD_EVENT_H
#define ONEFD_SD_EVENT_H

#include <errno.h>
#include <onefd.h>
#include <systemd/sd-event.h>

struct onefd_sd_event {
	struct onefd *loop;	/* read-only; NULL: not attached */
	int error;		/* read-only: why the host watches no more, -errno, or 0 */
	sd_event_source *source;	/* read-only: for sd_event_source_set_priority() */
};

static inline void onefd_sd_event_detach(struct onefd_sd_event *adapter);

/* A callback may free the adapter: only a dispatch that ran none leaves it. */
static inline int onefd_sd_event_ready(sd_event_source *source, int fd, uint32_t events,
				       void *data)
{
	struct onefd_sd_event *adapter = (struct onefd_sd_event *)data;
	int r = onefd_dispatch(adapter->loop, 0);

	(void)source;
	(void)fd;
	(void)events;
	if (r < 0 && r != -EBUSY) {
		onefd_sd_event_detach(adapter);
		adapter->error = r;
	}
	return 0;
}

/*
 * Hangs @loop in @host until the detach; @adapter is lent until then, and @host
 * lives as long. sd_event_loop() runs until sd_event_exit(), with or without it.
 * Errors as onefd_attach(), or what sd_event_add_io() answers: -ELOOP, -ENOMEM,
 * -ENOSPC, -ESTALE; nothing has changed then.
 */
static inline int onefd_sd_event_attach(struct onefd_sd_event *adapter, sd_event *host,
					struct onefd *loop)
{
	int fd = adapter && host ? onefd_attach(loop) : -EINVAL, r;
	sd_event_source *source;

	if (fd < 0)
		return fd;
	r = sd_event_add_io(host, &source, fd, EPOLLIN, onefd_sd_event_ready, adapter);
	if (r < 0) {
		onefd_detach(loop);
		return r;
	}
	(void)sd_event_source_set_description(source, "onefd");
	adapter->loop = loop;
	adapter->error = 0;
	adapter->source = source;
	return 0;
}

/* From any callback, twice, and after the host was unreferenced. @adapter must have
 * been attached once, or be zeroed; it is the caller's at once. */
static inline void onefd_sd_event_detach(struct onefd_sd_event *adapter)
{
	if (!adapter || !adapter->loop)
		return;
	sd_event_source_disable_unref(adapter->source);
	onefd_detach(adapter->loop);
	adapter->loop = NULL;
}

#endif
