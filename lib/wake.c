/*
 * wake.c - how anything that is not the loop's thread makes its descriptor
 * readable: one eventfd.
 */
#include "wake.h"

int wake_open(struct wake *wake, struct poller *poller)
{
	int r;

	wake->fd = sys.eventfd();
	if (wake->fd < 0)
		return wake->fd;
	r = poller_add(poller, wake->fd, EPOLLIN | EPOLLET, NULL);
	if (r < 0)
		(void)sys.close(wake->fd);
	return r;
}

void wake_close(struct wake *wake)
{
	(void)sys.close(wake->fd);
}
