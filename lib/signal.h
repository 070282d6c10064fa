/* signal.h - signals: the part the loop calls. */
#ifndef ONEFD_LIB_SIGNAL_H
#define ONEFD_LIB_SIGNAL_H

#include <signal.h>

#include "list.h"

struct signals {
	sigset_t mask;			/* what the signalfd takes */
	uint32_t users[_NSIG];		/* how many are started for each signal */
	struct onefd_link started;
	struct onefd_watch watch;	/* of a signalfd once one is started; fd -1 */
};

void signals_open(struct signals *signals);
void signals_close(struct signals *signals);	/* marks them all stopped */

#endif
