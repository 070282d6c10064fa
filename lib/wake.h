/*
 * wake.h - how anything that is not the loop's thread makes its descriptor
 * readable: one eventfd.
 *
 * Registered edge-triggered and never read: each signal is a new edge, which
 * saves a system call a wake. So it says only "look": whoever is woken looks
 * at every inbox, and whoever leaves work behind signals again. Kernel AIO
 * signals the same descriptor.
 */
#ifndef ONEFD_WAKE_H
#define ONEFD_WAKE_H

#include "poller.h"
#include "sys.h"

struct wake {
	int fd;
};

int wake_open(struct wake *wake, struct poller *poller);
void wake_close(struct wake *wake);

/* Any thread, and signal handlers. */
static inline void wake_signal(const struct wake *wake)
{
	(void)sys.eventfd_signal(wake->fd);	/* full means signalled already */
}

#endif
