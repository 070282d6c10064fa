/*
 * child.c - children, by one pidfd each.
 *
 * SIGCHLD is not touched: whoever handles it goes on as before.
 */
#include "child.h"

#include <errno.h>

#include "core.h"

/* P_PIDFD, which glibc has since 2.36. */
#define BY_PIDFD ((idtype_t)3)

static void child_ready(struct onefd_watch *watch, uint32_t events)
{
	struct onefd_child *child = onefd_container(watch, struct onefd_child, watch);
	struct watches *watches = &watch->loop->watches;
	siginfo_t info = { 0 };			/* as it stays when not ours to reap */
	int r = sys.waitid(BY_PIDFD, (id_t)watch->fd, &info);

	(void)events;
	/* UNTESTED: Linux 5.3 has pidfds and cannot wait for one. The number may
	 * be another child's by now, if somebody else reaped this one. */
	if (r == -EINVAL)
		r = sys.waitid(P_PID, (id_t)child->pid, &info);
	/* Dead, but its tracer's to reap first, who then makes another edge. */
	if (r == 0 && info.si_pid == 0) {
		watches_ran(watches, 0);
		return;
	}
	onefd_child_stop(child);
	child->fn(child, info.si_code, info.si_status);
}

void children_open(struct children *children)
{
	list_init(&children->started);
}

/* Closes the pidfd after what watched it is out of the poller. */
static void child_detach(struct onefd_child *child)
{
	list_remove(&child->watch.link);
	watch_detach(&child->watch);
	(void)sys.close(child->watch.fd);
	child->watch.fd = -1;
	child->loop = NULL;
}

void children_close(struct children *children)
{
	while (!list_empty(&children->started)) {
		struct onefd_watch *watch =
			list_entry(children->started.next, struct onefd_watch, link);

		child_detach(onefd_container(watch, struct onefd_child, watch));
	}
}

void onefd_child_init(struct onefd_child *child, pid_t pid, onefd_child_fn *fn)
{
	if (!child)
		return;
	*child = (struct onefd_child){ .fn = fn, .pid = pid };
	onefd_watch_init(&child->watch, -1, child_ready);
}

int onefd_child_start(struct onefd *loop, struct onefd_child *child)
{
	int fd, r;

	if (!loop || !child || !child->fn || child->pid <= 0)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	if (child->loop)
		return -EBUSY;
	fd = sys.pidfd_open(child->pid);
	if (fd == -EPERM)	/* a seccomp profile that does not know the call */
		return -ENOSYS;
	if (fd < 0)
		return fd;
	child->watch.fd = fd;
	/* An edge: one that a tracer holds would be reported without end. */
	r = watch_attach(loop, &child->watch, EPOLLIN | EPOLLET);
	if (r < 0) {
		(void)sys.close(fd);
		child->watch.fd = -1;
		return r;
	}
	list_push(&loop->children.started, &child->watch.link);
	child->loop = loop;
	return 0;
}

void onefd_child_stop(struct onefd_child *child)
{
	if (child && child->loop && loop_is_ours(child->loop))
		child_detach(child);
}
