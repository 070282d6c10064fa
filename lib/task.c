/*
 * task.c - messages from any thread, without a lock.
 *
 * Posters push onto a stack; the loop takes it whole and turns it over, which
 * puts each thread's tasks in the order they were posted.
 */
#include "task.h"

#include <errno.h>

#include "core.h"
#include "probe.h"

void tasks_attend(struct tasks *tasks, bool attended)
{
	/* Ceasing is one half of a handshake, the other is in onefd_post(): each
	 * side writes its word, then reads the other's. Either the poster sees
	 * that nobody attends, or the loop sees the task; with anything weaker
	 * than sequential consistency both could miss. Beginning is a hint: who
	 * does not see it yet wakes once too often. */
	atomic_store_explicit(&tasks->attended, attended,
			      attended ? memory_order_relaxed : memory_order_seq_cst);
}

bool tasks_pending(const struct tasks *tasks)
{
	return tasks->first ||
	       atomic_load_explicit(&tasks->inbox, memory_order_seq_cst);
}

/* Appends the inbox to what is left from earlier turns. */
static void take_inbox(struct tasks *tasks)
{
	struct onefd_task *task, *older, *newest, *oldest = NULL;

	if (!atomic_load_explicit(&tasks->inbox, memory_order_relaxed))
		return;
	/* Acquire pairs with the posters' pushes: their tasks are whole. */
	newest = atomic_exchange_explicit(&tasks->inbox, NULL, memory_order_acquire);
	for (task = newest; task; task = older) {
		older = task->next;
		task->next = oldest;
		oldest = task;
	}
	if (tasks->first)
		tasks->last->next = oldest;
	else
		tasks->first = oldest;
	tasks->last = newest;
}

int tasks_dispatch(struct onefd *loop)
{
	struct tasks *tasks = &loop->tasks;
	uint32_t ran = 0;

	take_inbox(tasks);
	for (; ran < loop->budget && tasks->first; ran++) {
		struct onefd_task *task = tasks->first;

		tasks->first = task->next;
		/* Before it may be posted anew: a tracer pairs this with the post. */
		PROBE(task, loop, task);
		/* From here on it may be posted anew. An exchange and no plain
		 * store: it acquires what a poster wrote that was told
		 * -EALREADY. */
		__atomic_exchange_n(&task->posted, 0, __ATOMIC_ACQ_REL);
		task->fn(task);
	}
	return (int)ran;
}

void onefd_task_init(struct onefd_task *task, onefd_task_fn *fn)
{
	if (task)
		*task = (struct onefd_task){ .fn = fn };
}

int onefd_post(struct onefd *loop, struct onefd_task *task)
{
	struct onefd_task *newest;

	if (!loop || !task || !task->fn)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	if (__atomic_exchange_n(&task->posted, 1, __ATOMIC_ACQ_REL))
		return -EALREADY;
	PROBE(post, loop, task);
	newest = atomic_load_explicit(&loop->tasks.inbox, memory_order_relaxed);
	do
		task->next = newest;
	while (!atomic_compare_exchange_weak_explicit(&loop->tasks.inbox, &newest, task,
						      memory_order_seq_cst,
						      memory_order_relaxed));
	/* @task may have run and be gone by now. Who found the inbox empty
	 * wakes; those after it ride along. */
	if (!newest && !atomic_load_explicit(&loop->tasks.attended, memory_order_seq_cst))
		wake_signal(&loop->wake);
	return 0;
}
