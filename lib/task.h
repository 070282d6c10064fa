/* task.h - messages from any thread: the part the loop calls. */
#ifndef ONEFD_LIB_TASK_H
#define ONEFD_LIB_TASK_H

#include <stdatomic.h>

#include "list.h"

struct tasks {
	_Atomic(struct onefd_task *) inbox;	/* a stack, newest first */
	struct onefd_task *first, *last;	/* taken out, in order, not yet run */
};

#endif
