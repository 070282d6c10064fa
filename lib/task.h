/* task.h - messages from any thread: the part the loop calls. */
#ifndef ONEFD_LIB_TASK_H
#define ONEFD_LIB_TASK_H

#include <stdatomic.h>
#include <stdbool.h>

#include "list.h"

struct tasks {
	_Atomic(struct onefd_task *) inbox;	/* a stack, newest first */
	_Atomic bool attended;			/* see tasks_attend() */
	struct onefd_task *first, *last;	/* taken out, in order, not yet run */
};

/*
 * While attended, posters need not wake the loop, for it promises to look at
 * the inbox after it ceases to attend: it attends from the return of its wait
 * to the end of its turn. So a busy loop's posters make no system call.
 */
void tasks_attend(struct tasks *tasks, bool attended);

/* Whether some task was posted and has not run. */
bool tasks_pending(const struct tasks *tasks);

/* Runs at most loop->budget of those posted by now; how many. */
int tasks_dispatch(struct onefd *loop);

#endif
