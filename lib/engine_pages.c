/*
 * engine_pages.c - readahead, then notify: buffered reads whose pages are on
 * their way.
 *
 * One thread for each device waits for the page that was asked for first, by
 * reading a byte of it into memory of its own, and then tries all the others
 * without waiting. So a request is bound to the thread only for the moments
 * of a try, and can be cancelled in all others; and a device that hangs delays
 * no other. More threads for a device are slower: the reads are all in the
 * device already, and each thread more is one more to wake.
 *
 * A waiter may hang in a dead device when its loop ends, for a request that was
 * cancelled. Then nobody joins it: it frees itself when it comes back, and
 * touches nothing of the loop's any more.
 *
 * A request stands, under the waiter's lock, in `arrived` -> `waiting` -> the
 * stack of what is handed back. Only the one that the thread is trying just now
 * (`busy`) cannot be cancelled.
 */
#include "engine_pages.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

#include "cached.h"
#include "core.h"
#include "handed.h"
#include "sys.h"
#include "work.h"

/* A sweep ends after so many tries in a row that came too early: reads complete
 * nearly in the order in which they were asked for. */
#define MISSES 4
/* The loop is woken at the latest when so many have been handed back. */
#define CROWD 16
/* Waits that brought no progress: the page goes as soon as it comes, for memory
 * is short, or it never comes, for the device fails. The plain read knows. */
#define ROUNDS 3
/* Most bytes of a plain read, which holds up all the others. */
#define PLAIN_MOST (128u * 1024)

struct pages_waiter {
	struct onefd_link link;		/* in engine_pages.waiters */
	const struct wake *wake;	/* the loop's */
	pthread_t thread;
	struct handed handed;
	struct onefd_link fresh;	/* the loop's: submitted, not yet in @arrived */
	sem_t more;			/* posted once when an idle waiter has work */
	pthread_mutex_t lock;		/* of what follows; the loop's thread only tries it */
	struct onefd_link arrived;	/* not yet looked at */
	struct onefd_link waiting;	/* readahead is running, oldest first */
	struct onefd_req *busy;		/* being tried */
	bool idle, quit, joined;
	bool away;			/* waits for a page, alone with itself */
	/* The thread's own: whether the loop is to be woken, and for how many. */
	bool owes;
	uint32_t crowd;
};

/* ---- the waiter's thread -------------------------------------------------- */

/* Off the loop's thread. Takes @req a step further; whether its answer is known. */
static bool step(struct onefd_req *req, ssize_t *answer)
{
	struct flight *f = flight(req);
	bool plain = f->rounds > ROUNDS;
	uint64_t most = plain ? PLAIN_MOST : CACHED_MOST;
	uint64_t asked = f->bytes - f->done < most ? f->bytes - f->done : most;
	ssize_t n = cached_step(req, asked, plain ? 0 : RWF_NOWAIT);

	if (n > 0)
		f->rounds = 0;
	/* What came before an error is told first, as pread(2) does. */
	*answer = f->done && n != -EOPNOTSUPP ? (ssize_t)f->done : n;
	if (f->done == f->bytes || (n < 0 && n != -EAGAIN))
		return true;
	/* Short, and not for want of pages: the end of the file. */
	return plain && n >= 0 && (uint64_t)n < asked;
}

/* Off the loop's thread. The first sight of a request whose pages, or the
 * metadata that says where they are, nobody has asked for yet. */
static bool begin(struct onefd_req *req, ssize_t *answer)
{
	if (flight(req)->flags & FLIGHT_WARM)
		work_warm(req);
	return step(req, answer);
}

/* Off the loop's thread, without the lock. */
static void wake_loop(struct pages_waiter *waiter)
{
	if (waiter->owes)
		wake_signal(waiter->wake);
	waiter->owes = false;
	waiter->crowd = 0;
}

/* Off the loop's thread, with the lock, which it drops while it tries. What it
 * answers it hands back. The request after it, or the list's head. */
static struct onefd_link *attempt(struct pages_waiter *waiter, struct onefd_link *at,
				  bool (*try)(struct onefd_req *, ssize_t *), bool *gained)
{
	struct onefd_req *req = list_entry(at, struct onefd_req, link);
	uint64_t done = flight(req)->done;
	struct onefd_link *next;
	ssize_t answer;
	bool answered;

	waiter->busy = req;
	pthread_mutex_unlock(&waiter->lock);
	if (waiter->crowd >= CROWD)
		wake_loop(waiter);
	answered = try(req, &answer);
	pthread_mutex_lock(&waiter->lock);
	waiter->busy = NULL;
	next = at->next;	/* only now: it may have been cancelled meanwhile */
	*gained = answered || flight(req)->done > done;
	if (answered) {
		list_remove(at);
		waiter->owes |= handed_push(&waiter->handed, req, answer);
		waiter->crowd++;
	}
	return next;
}

/* Off the loop's thread, with the lock. */
static void receive(struct pages_waiter *waiter)
{
	bool gained;

	while (!list_empty(&waiter->arrived)) {
		struct onefd_link *at = waiter->arrived.next;
		struct onefd_req *req = list_entry(at, struct onefd_req, link);

		if (!(flight(req)->flags & FLIGHT_TRIED))
			(void)attempt(waiter, at, begin, &gained);
		if (waiter->arrived.next == at) {
			list_remove(at);
			list_push(&waiter->waiting, at);
		}
	}
}

/* Off the loop's thread, with the lock. Tries all that may have come. */
static void sweep(struct pages_waiter *waiter)
{
	struct onefd_link *at = waiter->waiting.next;
	unsigned misses = 0;
	bool gained;

	while (at != &waiter->waiting && misses < MISSES) {
		at = attempt(waiter, at, step, &gained);
		misses = gained ? 0 : misses + 1;
	}
}

/* Off the loop's thread, with the lock, which it drops while it waits. */
static void wait_for_oldest(struct pages_waiter *waiter)
{
	struct onefd_link *oldest = waiter->waiting.next;
	struct onefd_req *req = list_entry(oldest, struct onefd_req, link);
	off_t at = req->offset + (off_t)flight(req)->done;
	int fd = req->file->fd;
	char byte;
	ssize_t n = 1;

	if (++flight(req)->rounds <= ROUNDS) {
		waiter->away = true;
		pthread_mutex_unlock(&waiter->lock);
		n = sys.preadv2(fd, &(struct iovec){ &byte, 1 }, 1, at, 0);
		pthread_mutex_lock(&waiter->lock);
		waiter->away = false;
	}
	/* The end of the file or an error: the plain read shall say it. */
	if (n <= 0 && waiter->waiting.next == oldest)
		flight(req)->rounds = ROUNDS + 1;
}

/* Off the loop's thread, with the lock, which it drops while it sleeps. */
static void rest(struct pages_waiter *waiter)
{
	waiter->idle = true;
	pthread_mutex_unlock(&waiter->lock);
	while (sem_wait(&waiter->more) < 0)
		;	/* interrupted by a debugger: no signal comes here */
	pthread_mutex_lock(&waiter->lock);
}

static void waiter_free(struct pages_waiter *waiter)
{
	pthread_mutex_destroy(&waiter->lock);
	sem_destroy(&waiter->more);
	sys.free(waiter);
}

/* Off the loop's thread: a waiter's life. */
static void *wait_for_pages(void *arg)
{
	struct pages_waiter *waiter = arg;
	bool joined;

	pthread_mutex_lock(&waiter->lock);
	while (!waiter->quit) {
		receive(waiter);
		if (waiter->owes) {
			pthread_mutex_unlock(&waiter->lock);
			wake_loop(waiter);
			pthread_mutex_lock(&waiter->lock);
		} else if (!list_empty(&waiter->waiting)) {
			wait_for_oldest(waiter);
			sweep(waiter);
		} else if (list_empty(&waiter->arrived)) {
			rest(waiter);
		}
	}
	joined = waiter->joined;
	pthread_mutex_unlock(&waiter->lock);
	if (!joined)
		waiter_free(waiter);
	return NULL;
}

/* ---- the loop's side -------------------------------------------------------- */

static struct engine_pages *pages_of(struct engine *engine)
{
	return onefd_container(engine, struct engine_pages, engine);
}

static int waiter_new(struct engine_pages *pages, struct pages_waiter **ret)
{
	struct pages_waiter *waiter = sys.alloc(sizeof *waiter);
	int r;

	if (!waiter)
		return -ENOMEM;
	pthread_mutex_init(&waiter->lock, NULL);
	sem_init(&waiter->more, 0, 0);
	list_init(&waiter->fresh);
	list_init(&waiter->arrived);
	list_init(&waiter->waiting);
	waiter->wake = &pages->engine.loop->wake;
	r = sys.thread(&waiter->thread, wait_for_pages, waiter);
	if (r < 0) {
		waiter_free(waiter);
		return r;
	}
	list_push(&pages->waiters, &waiter->link);
	*ret = waiter;
	return 0;
}

/* Passes on what is fresh, under the lock, which it drops. */
static void pass_on_locked(struct pages_waiter *waiter)
{
	bool wake = waiter->idle && !list_empty(&waiter->fresh);

	list_splice(&waiter->arrived, &waiter->fresh);
	waiter->idle = waiter->idle && !wake;
	pthread_mutex_unlock(&waiter->lock);
	if (wake)
		(void)sem_post(&waiter->more);
}

/* Leaves those in @batch for which there is no thread to be had. */
static int pages_submit(struct engine *engine, struct onefd_link *batch)
{
	struct engine_pages *pages = pages_of(engine);
	int taken = 0;

	for (struct onefd_link *at = batch->next, *next; at != batch; at = next) {
		struct onefd_req *req = list_entry(at, struct onefd_req, link);
		struct onefd_device *device = req->file->device;

		next = at->next;
		if (!device->waiter)
			pages->error = waiter_new(pages, &device->waiter);
		if (!device->waiter)
			continue;
		req->state = STATE_OUT;
		flight(req)->engine = engine;
		flight(req)->rounds = 0;
		list_remove(at);
		list_push(&device->waiter->fresh, at);
		taken++;
	}
	for (struct onefd_link *at = pages->waiters.next; at != &pages->waiters; at = at->next) {
		struct pages_waiter *waiter = list_entry(at, struct pages_waiter, link);

		if (!list_empty(&waiter->fresh) && pthread_mutex_trylock(&waiter->lock) == 0)
			pass_on_locked(waiter);
	}
	engine->loop->stats.pages += (uint64_t)taken;
	return taken;
}

static void pages_reap(struct engine *engine, struct onefd_link *done)
{
	struct onefd_link *waiters = &pages_of(engine)->waiters;

	for (struct onefd_link *at = waiters->next; at != waiters; at = at->next)
		handed_take(&list_entry(at, struct pages_waiter, link)->handed, done);
}

static bool pages_ready(struct engine *engine)
{
	struct onefd_link *waiters = &pages_of(engine)->waiters;

	for (struct onefd_link *at = waiters->next; at != waiters; at = at->next) {
		struct pages_waiter *waiter = list_entry(at, struct pages_waiter, link);

		if (!list_empty(&waiter->fresh) || handed_any(&waiter->handed))
			return true;
	}
	return false;
}

static int pages_cancel(struct engine *engine, struct onefd_req *req)
{
	struct pages_waiter *waiter = req->file->device->waiter;
	bool waits;

	pthread_mutex_lock(&waiter->lock);
	waits = req != waiter->busy && !list_empty(&req->link);
	if (waits)
		list_remove(&req->link);
	pass_on_locked(waiter);
	if (!waits)
		return -EBUSY;
	if (handed_push(&waiter->handed, req, -ECANCELED))
		wake_signal(&engine->loop->wake);
	return 0;
}

static void waiter_close(struct pages_waiter *waiter)
{
	pthread_t thread = waiter->thread;
	bool join, wake;

	pthread_mutex_lock(&waiter->lock);
	waiter->quit = true;
	waiter->joined = join = !waiter->away;
	wake = waiter->idle;
	pthread_mutex_unlock(&waiter->lock);
	if (!join) {
		sys.detach(thread);	/* it frees itself, and may have by now */
		return;
	}
	if (wake)
		(void)sem_post(&waiter->more);
	/* Nothing is out, so there is nothing it could wait for. */
	sys.join(thread);
	waiter_free(waiter);
}

static void pages_close(struct engine *engine)
{
	struct onefd_link *link;

	while ((link = list_pop(&pages_of(engine)->waiters)))
		waiter_close(list_entry(link, struct pages_waiter, link));
}

static const struct engine_ops pages_ops = {
	.name = "page waiters",
	.submit = pages_submit,
	.reap = pages_reap,
	.ready = pages_ready,
	.cancel = pages_cancel,
	.close = pages_close,
};

void engine_pages_open(struct engine_pages *pages, struct onefd *loop)
{
	pages->engine = (struct engine){ .ops = &pages_ops, .loop = loop };
	list_init(&pages->waiters);
}
