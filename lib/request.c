/*
 * request.c - a request's life. None is accepted yet: nothing is ever out.
 */
#include "request.h"

#include "core.h"

int requests_open(struct onefd *loop, const struct onefd_config *config)
{
	(void)config;
	list_init(&loop->requests.queued);
	list_init(&loop->requests.done);
	return 0;
}

void requests_close(struct onefd *loop)
{
	(void)loop;
}

bool requests_ready(struct onefd *loop)
{
	return !list_empty(&loop->requests.done);
}

int requests_flush(struct onefd *loop)
{
	(void)loop;
	return 0;
}

int requests_dispatch(struct onefd *loop, uint32_t budget)
{
	(void)loop;
	(void)budget;
	return 0;
}

size_t onefd_pending(const struct onefd *loop)
{
	return loop ? loop->requests.out : 0;
}
