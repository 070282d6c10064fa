/*
 * core.h - what a loop is made of.
 *
 * Each room's state stands here under the room's name and is touched by that
 * room alone; what is left over is the loop's own. No code.
 */
#ifndef ONEFD_CORE_H
#define ONEFD_CORE_H

#include <onefd.h>

#include "child.h"
#include "engine.h"
#include "lineage.h"
#include "names.h"
#include "poller.h"
#include "request.h"
#include "sendfile.h"
#include "signal.h"
#include "task.h"
#include "timer.h"
#include "wake.h"
#include "watch.h"
#include "window.h"

struct onefd {
	uint32_t generation;		/* see lineage.h */
	uint32_t budget;
	bool dispatching;		/* inside onefd_dispatch() */
	bool embedded;			/* onefd_fd() was asked for */
	bool attached;			/* a host watches the descriptor */
	bool stopping;			/* onefd_stop() since the run began */
	uint64_t now;			/* CLOCK_MONOTONIC ns of this turn */
	uint64_t clock;			/* read after the turn's last submission; 0: none */

	struct poller poller;
	struct wake wake;
	struct watches watches;
	struct timers timers;
	struct signals signals;
	struct children children;
	struct tasks tasks;
	struct windows windows;
	struct names names;
	struct requests requests;
	struct sender sender;
	size_t streams;			/* started: the last callback is due */
	struct onefd_stats stats;
};

static inline bool loop_is_ours(const struct onefd *loop)
{
	return lineage_holds(loop->generation);
}

#endif
