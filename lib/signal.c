/*
 * signal.c - signals, by one signalfd per loop.
 *
 * It keeps no signal blocked or unblocked of its own accord: that is the
 * process's business, but for ONEFD_SIGNAL_BLOCK.
 */
#include "signal.h"

#include <errno.h>

#include "core.h"

#undef sigmask	/* a BSD macro of <signal.h> */

/* Safe against callbacks that stop and free any of the ring: the rest of it
 * hangs on a head of its own, and each is back in place before its fn runs. */
static int deliver(struct signals *signals, const struct signalfd_siginfo *info)
{
	struct onefd_link rest, *link;
	int ran = 0;

	list_init(&rest);
	list_splice(&rest, &signals->started);
	while ((link = list_pop(&rest))) {
		struct onefd_signal *signal = list_entry(link, struct onefd_signal, link);

		list_push(&signals->started, link);
		if ((uint32_t)signal->signo != info->ssi_signo)
			continue;
		ran++;
		signal->fn(signal, info);
	}
	return ran;
}

/* One at a time: what a callback stops waiting for stays pending. */
static void signals_ready(struct onefd_watch *watch, uint32_t events)
{
	struct onefd *loop = watch->loop;
	struct signals *signals = &loop->signals;
	struct signalfd_siginfo info;
	int ran = 0;

	(void)events;
	for (uint32_t i = 0; i < loop->budget; i++) {
		if (sys.read(watch->fd, &info, sizeof info) != (ssize_t)sizeof info)
			break;
		ran += deliver(signals, &info);
	}
	watches_ran(&loop->watches, ran);
}

void signals_open(struct signals *signals)
{
	sigemptyset(&signals->mask);
	list_init(&signals->started);
	onefd_watch_init(&signals->watch, -1, signals_ready);
}

void signals_close(struct signals *signals)
{
	struct onefd_link *link;

	while ((link = list_pop(&signals->started)))
		list_entry(link, struct onefd_signal, link)->loop = NULL;
	if (signals->watch.fd >= 0)
		(void)sys.close(signals->watch.fd);
}

static int make_signalfd(struct onefd *loop, const sigset_t *mask)
{
	struct onefd_watch *watch = &loop->signals.watch;
	int fd = sys.signalfd(-1, mask), r;

	if (fd < 0)
		return fd;
	watch->fd = fd;
	r = watch_attach(loop, watch, EPOLLIN);
	if (r < 0) {
		(void)sys.close(fd);
		watch->fd = -1;
	}
	return r;
}

/* Puts @signo into what the signalfd takes. */
static int listen_to(struct onefd *loop, int signo)
{
	struct signals *signals = &loop->signals;
	sigset_t mask = signals->mask;
	int r;

	sigaddset(&mask, signo);
	if (signals->watch.fd < 0)
		r = make_signalfd(loop, &mask);
	else
		r = sys.signalfd(signals->watch.fd, &mask);
	if (r < 0)
		return r;
	signals->mask = mask;
	return 0;
}

static int check_args(struct onefd *loop, struct onefd_signal *signal, unsigned flags)
{
	sigset_t set;

	if (!loop || !signal || !signal->fn || (flags & ~ONEFD_SIGNAL_BLOCK))
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	if (signal->loop)
		return -EBUSY;
	if (signal->signo == SIGKILL || signal->signo == SIGSTOP)
		return -EINVAL;
	sigemptyset(&set);
	if (sigaddset(&set, signal->signo))	/* no such signal, or libc's own */
		return -EINVAL;
	if (flags & ONEFD_SIGNAL_BLOCK)
		return 0;
	(void)sys.sigmask(SIG_BLOCK, NULL, &set);
	return sigismember(&set, signal->signo) ? 0 : -EINVAL;
}

void onefd_signal_init(struct onefd_signal *signal, int signo, onefd_signal_fn *fn)
{
	if (!signal)
		return;
	*signal = (struct onefd_signal){ .fn = fn, .signo = signo };
	list_init(&signal->link);
}

int onefd_signal_start(struct onefd *loop, struct onefd_signal *signal, unsigned flags)
{
	int r = check_args(loop, signal, flags);

	if (r < 0)
		return r;
	if (!loop->signals.users[signal->signo]) {
		r = listen_to(loop, signal->signo);
		if (r < 0)
			return r;
	}
	/* Blocked last, so that a failed start leaves the mask alone. */
	if (flags & ONEFD_SIGNAL_BLOCK) {
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, signal->signo);
		(void)sys.sigmask(SIG_BLOCK, &set, NULL);
	}
	loop->signals.users[signal->signo]++;
	list_push(&loop->signals.started, &signal->link);
	signal->loop = loop;
	return 0;
}

void onefd_signal_stop(struct onefd_signal *signal)
{
	struct signals *signals;

	if (!signal || !signal->loop || !loop_is_ours(signal->loop))
		return;
	signals = &signal->loop->signals;
	signal->loop = NULL;
	list_remove(&signal->link);
	if (--signals->users[signal->signo])
		return;
	sigdelset(&signals->mask, signal->signo);
	(void)sys.signalfd(signals->watch.fd, &signals->mask);
}
