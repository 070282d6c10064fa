/* signal.h - signals: the part the loop calls. */
#ifndef ONEFD_LIB_SIGNAL_H
#define ONEFD_LIB_SIGNAL_H

#include <signal.h>

#include "list.h"

struct signals {
	int fd;				/* a signalfd once one is started, else -1 */
	sigset_t mask;
	struct onefd_link started;
	struct onefd_watch watch;
};

#endif
