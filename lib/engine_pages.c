/*
 * engine_pages.c - readahead, then notify: buffered reads whose pages are on
 * their way.
 *
 * One thread for each device, the lead, waits for the page that was asked for
 * first, by reading a byte of it into memory of its own, and then tries all
 * the others without waiting. So a request is bound to the thread only for the
 * moments of a try, and can be cancelled in all others; and a device that hangs
 * delays no other. More threads at work would be slower: the reads are all in
 * the device already, and each thread more is one more to wake.
 *
 * But one page may take for ever, and the rest not. So another thread, the
 * deputy, looks now and then whether the lead still waits for the same page;
 * then it becomes the lead, and makes a deputy. Who was the lead ends when it
 * comes back.
 *
 * It may come back after the loop has ended, for a request that was cancelled.
 * So nobody joins these threads: what they share is freed by the last who
 * leaves it, and once `quit` is set they touch nothing of the loop's.
 *
 * A request stands, under the queue's lock, in `arrived` -> `waiting` -> the
 * stack of what is handed back. Cancelled, it goes there at once, and one that a
 * thread is trying (`busy`) when that has come back.
 */
#include "engine_pages.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

#include "cached.h"
#include "core.h"
#include "handed.h"
#include "prefetch.h"
#include "probe.h"
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
/* How often the deputy looks; most threads that may hang in pages. */
#define LOOK_NS 50000000
#define HANGING_MOST 8
/* So many misses are looked after: has their readahead begun? */
#define PROBES 8

/* What the threads of one device share. */
struct pages_queue {
	struct onefd_link link;		/* in engine_pages.queues */
	const struct wake *wake;	/* the loop's */
	struct handed handed;
	struct onefd_link fresh;	/* the loop's: submitted, not yet in @arrived */
	_Atomic bool lazy;		/* a miss starts no readahead here */
	sem_t more;			/* posted once when the lead is idle and has work */
	pthread_mutex_t lock;		/* of what follows; the loop's thread only tries it */
	pthread_cond_t look;		/* for the deputy: the lead waits, or it is the end */
	pthread_cond_t gone;		/* for the loop: nobody is present */
	struct onefd_link arrived;	/* not yet looked at */
	struct onefd_link waiting;	/* readahead is running, oldest first */
	const struct hand *lead;
	bool idle, unwatched;		/* the lead, the deputy: asleep until called */
	bool quit;
	uint64_t waits;			/* that were begun */
	unsigned present, away;		/* threads that may touch the loop, that hang in a page */
	unsigned users;			/* threads, and the loop: the last one frees it */
	unsigned probes, lacking;	/* misses looked after, and without readahead */
};

/* What a thread has in hand: on its own stack. */
struct hand {
	struct pages_queue *queue;
	struct onefd_req *awaited;	/* under the lock; NULL: cancelled, or done by another */
	bool away;			/* under the lock: it hangs in a page */
	bool owes;			/* the loop is to be woken */
	unsigned crowd;			/* for so many */
};

/* ---- one request ----------------------------------------------------------- */

static struct onefd_req *req_of(struct onefd_link *at)
{
	return list_entry(at, struct onefd_req, link);
}

/* Whether the loop, which tries a little at a time, asked for only a part of it.
 * A prefetch looks after that by itself. */
static bool is_long(struct onefd_req *req)
{
	return req->op == OP_READ && flight(req)->bytes - flight(req)->done > CACHED_HERE;
}

/* Off the loop's thread. Asks for the pages, where a miss does not. */
static void read_ahead(struct pages_queue *queue, struct onefd_req *req)
{
	if (atomic_load_explicit(&queue->lazy, memory_order_relaxed))
		flight(req)->marks |= MARK_READAHEAD;
	else if (!is_long(req))
		return;
	prefetch_ahead(req);
}

/* Off the loop's thread. Takes @req a step further; whether its answer is known. */
static bool step(struct pages_queue *queue, struct onefd_req *req, ssize_t *answer)
{
	struct flight *f = flight(req);
	bool plain = f->rounds > ROUNDS;
	uint64_t most = plain ? PLAIN_MOST : CACHED_MOST;
	uint64_t asked = f->bytes - f->done < most ? f->bytes - f->done : most;
	ssize_t n;

	if (req->op == OP_PREFETCH)
		prefetch_ahead(req);
	n = cached_step(req, asked, plain ? 0 : RWF_NOWAIT);

	if (n > 0 && f->marks & MARK_END)
		f->marks |= MARK_FALSE_END;
	if (n > 0)
		f->rounds = 0;
	f->marks = n == 0 ? f->marks | MARK_END : f->marks & ~MARK_END;
	/* What came before an error is told first, as pread(2) does. */
	*answer = f->done && n != -EOPNOTSUPP ? (ssize_t)f->done : n;
	/* A plain read may answer -EAGAIN, too: what a FUSE server said is passed on. */
	if (f->done == f->bytes || (n < 0 && (plain || n != -EAGAIN)))
		return true;
	if (n > 0 && (uint64_t)n < asked)
		read_ahead(queue, req);
	/* Short, and not for want of pages: the end of the file. */
	return plain && n >= 0 && (uint64_t)n < asked;
}

/* Off the loop's thread. The first sight of a request whose pages, or the
 * metadata that says where they are, nobody has asked for yet. */
static bool begin(struct pages_queue *queue, struct onefd_req *req, ssize_t *answer)
{
	if (flight(req)->flags & FLIGHT_WARM)
		work_warm(req);
	read_ahead(queue, req);
	return step(queue, req, answer);
}

/* Off the loop's thread, the first times that the loop saw a miss: did that
 * start the readahead? Where cachestat() cannot tell, it is believed to. */
static bool probe(struct pages_queue *queue, struct onefd_req *req, ssize_t *answer)
{
	off_t at = req->offset + (off_t)flight(req)->done;

	(void)answer;
	if (queue->probes < PROBES) {
		queue->lacking += sys.missing(req->file->fd, at, 1) > 0;
		if (++queue->probes == PROBES && queue->lacking > PROBES / 2)
			atomic_store_explicit(&queue->lazy, true, memory_order_relaxed);
	}
	read_ahead(queue, req);
	return false;
}

/* ---- the lists, as the lead sees them ---------------------------------------- */

/* Off the loop's thread, without the lock. */
static void wake_loop(struct hand *hand)
{
	if (hand->owes)
		wake_signal(hand->queue->wake);
	hand->owes = false;
	hand->crowd = 0;
}

/* Off the loop's thread, with the lock: takes it off the lists. */
static void hand_back(struct hand *hand, struct onefd_req *req, ssize_t answer)
{
	struct hand *other = flight(req)->awaiting;

	if (other)
		other->awaited = NULL;
	list_remove(&req->link);
	hand->owes |= handed_push(&hand->queue->handed, req, answer);
	hand->crowd++;
}

typedef bool try_fn(struct pages_queue *queue, struct onefd_req *req, ssize_t *answer);

/* Off the loop's thread, with the lock, which it drops while it tries. Whether
 * that brought anything; *@next is the link after it, to be known only now, for
 * others may have been cancelled meanwhile. */
static bool attempt(struct hand *hand, struct onefd_req *req, try_fn *try_it,
		    struct onefd_link **next)
{
	struct pages_queue *queue = hand->queue;
	struct flight *f = flight(req);
	uint64_t done = f->done;
	ssize_t answer;
	bool answered, gained;

	f->busy = true;
	pthread_mutex_unlock(&queue->lock);
	/* Nor may what is done wait for a try that itself may wait. */
	if (hand->crowd >= CROWD || try_it != step || f->rounds > ROUNDS)
		wake_loop(hand);
	answered = try_it(queue, req, &answer);
	pthread_mutex_lock(&queue->lock);
	f->busy = false;
	if (f->dropped) {
		answered = true;
		answer = -ECANCELED;
	}
	*next = req->link.next;
	gained = answered || f->done > done;
	if (answered)
		hand_back(hand, req, answer);
	return gained;
}

/* Off the loop's thread, with the lock. */
static void receive(struct hand *hand)
{
	struct pages_queue *queue = hand->queue;
	struct onefd_link *next;

	while (!list_empty(&queue->arrived)) {
		struct onefd_link *at = queue->arrived.next;
		bool tried = flight(req_of(at))->flags & FLIGHT_TRIED;

		if (!tried)
			(void)attempt(hand, req_of(at), begin, &next);
		else if (queue->probes < PROBES || is_long(req_of(at)) ||
			 atomic_load_explicit(&queue->lazy, memory_order_relaxed))
			(void)attempt(hand, req_of(at), probe, &next);
		if (queue->arrived.next == at) {
			list_remove(at);
			list_push(&queue->waiting, at);
		}
	}
}

/* Off the loop's thread, with the lock. Tries all that may have come. */
static void sweep(struct hand *hand)
{
	struct onefd_link *head = &hand->queue->waiting, *next;
	unsigned misses = 0;

	for (struct onefd_link *at = head->next; at != head && misses < MISSES; at = next) {
		struct flight *f = flight(req_of(at));

		next = at->next;
		/* One that another thread hangs in would only count as a miss. */
		if (f->awaiting || f->busy)
			continue;
		misses = attempt(hand, req_of(at), step, &next) ? 0 : misses + 1;
	}
}

/* Off the loop's thread, with the lock. The oldest that nobody waits for. */
static struct onefd_req *oldest(struct pages_queue *queue)
{
	struct onefd_link *head = &queue->waiting;

	for (struct onefd_link *at = head->next; at != head; at = at->next)
		if (!flight(req_of(at))->awaiting && !flight(req_of(at))->busy)
			return req_of(at);
	return NULL;
}

/* Off the loop's thread, with the lock, which it drops while it waits. */
static ssize_t read_byte(struct hand *hand, struct onefd_req *req)
{
	struct pages_queue *queue = hand->queue;
	off_t at = req->offset + (off_t)flight(req)->done;
	int fd = req->file->fd;
	char byte;
	ssize_t n;

	if (queue->unwatched)
		pthread_cond_signal(&queue->look);
	queue->unwatched = false;
	hand->away = true;
	queue->waits++;
	queue->away++;
	queue->present--;	/* nobody waits for one who may stay for ever */
	pthread_mutex_unlock(&queue->lock);
	n = sys.preadv2(fd, &(struct iovec){ &byte, 1 }, 1, at, 0);
	pthread_mutex_lock(&queue->lock);
	hand->away = false;
	queue->away--;
	queue->present++;
	return n;
}

/* Off the loop's thread, with the lock, which it drops while it waits. */
static void wait_for(struct hand *hand, struct onefd_req *req)
{
	struct flight *f = flight(req);
	struct onefd_link *next;
	ssize_t n = 0;

	if (++f->rounds <= ROUNDS) {
		hand->awaited = req;
		f->awaiting = hand;
		n = read_byte(hand, req);
		if (!hand->awaited)
			return;
		f->awaiting = NULL;
	}
	/* The end of the file or an error: the plain read shall say it. */
	if (n <= 0)
		f->rounds = ROUNDS + 1;
	(void)attempt(hand, req, step, &next);
}

/* ---- the threads ----------------------------------------------------------------- */

/* Off the loop's thread, with the lock, which it drops while it sleeps. */
static void rest(struct pages_queue *queue)
{
	queue->idle = true;
	pthread_mutex_unlock(&queue->lock);
	while (sem_wait(&queue->more) < 0)
		;	/* interrupted by a debugger: no signal comes here */
	pthread_mutex_lock(&queue->lock);
}

/* Any thread, with the lock, which it drops. */
static void leave(struct pages_queue *queue)
{
	bool last = --queue->users == 0;

	pthread_mutex_unlock(&queue->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&queue->lock);
	pthread_cond_destroy(&queue->look);
	pthread_cond_destroy(&queue->gone);
	sem_destroy(&queue->more);
	sys.free(queue);
}

/* Off the loop's thread, with the lock, which it drops for good. */
static void go(struct pages_queue *queue)
{
	if (--queue->present == 0)
		pthread_cond_signal(&queue->gone);
	leave(queue);
}

/* Off the loop's thread, with the lock. The lead may sleep because somebody else
 * had all there was in hand, and had not done with it. */
static void leave_the_rest(struct pages_queue *queue)
{
	if (!queue->idle || !oldest(queue))
		return;
	queue->idle = false;
	(void)sem_post(&queue->more);
}

static void *deputy(void *arg);

/* Any thread, with the lock. @life is what it does: -errno. */
static int make_thread(struct pages_queue *queue, void *(*life)(void *))
{
	int r = sys.thread(NULL, life, queue);

	if (r < 0)
		return r;
	queue->users++;
	queue->present++;
	return 0;
}

/* Off the loop's thread, with the lock, which it drops for good. */
static void *lead(struct pages_queue *queue)
{
	struct hand hand = { .queue = queue };
	struct onefd_req *req;

	queue->lead = &hand;
	/* Without one, a page that never comes holds up the others. */
	(void)make_thread(queue, deputy);
	while (!queue->quit && queue->lead == &hand) {
		receive(&hand);
		req = oldest(queue);
		if (hand.owes) {
			pthread_mutex_unlock(&queue->lock);
			wake_loop(&hand);
			pthread_mutex_lock(&queue->lock);
		} else if (req) {
			wait_for(&hand, req);
			sweep(&hand);
		} else if (list_empty(&queue->arrived)) {
			rest(queue);
		}
	}
	/* Replaced in a wait that brought something after all. */
	if (hand.owes) {
		pthread_mutex_unlock(&queue->lock);
		wake_loop(&hand);
		pthread_mutex_lock(&queue->lock);
	}
	leave_the_rest(queue);
	go(queue);
	return NULL;
}

/* Off the loop's thread: the life of the first. */
static void *first_lead(void *arg)
{
	struct pages_queue *queue = arg;

	pthread_mutex_lock(&queue->lock);
	return lead(queue);
}

/* Off the loop's thread, with the lock. Whether the lead has hung in one page
 * since its wait was the @waits-th, while others could be served. */
static bool lead_hangs(const struct pages_queue *queue, uint64_t waits)
{
	const struct onefd_link *first = queue->waiting.next;

	if (queue->quit || !queue->lead->away || queue->waits != waits)
		return false;
	return queue->away <= HANGING_MOST &&
	       (!list_empty(&queue->arrived) || first->next != &queue->waiting);
}

/* Off the loop's thread, with the lock, which it drops while it sleeps. */
static void look_later(struct pages_queue *queue)
{
	struct timespec until;
	uint64_t ns = sys.now() + LOOK_NS;

	until.tv_sec = (time_t)(ns / 1000000000);
	until.tv_nsec = (long)(ns % 1000000000);
	pthread_cond_timedwait(&queue->look, &queue->lock, &until);
}

/* Off the loop's thread: the life of the next lead. */
static void *deputy(void *arg)
{
	struct pages_queue *queue = arg;

	pthread_mutex_lock(&queue->lock);
	while (!queue->quit) {
		uint64_t waits = queue->waits;

		if (!queue->lead->away) {
			queue->unwatched = true;
			pthread_cond_wait(&queue->look, &queue->lock);
			continue;
		}
		look_later(queue);
		if (lead_hangs(queue, waits))
			return lead(queue);
	}
	go(queue);
	return NULL;
}

/* ---- the loop's side -------------------------------------------------------- */

static struct engine_pages *pages_of(struct engine *engine)
{
	return onefd_container(engine, struct engine_pages, engine);
}

static void init_locks(struct pages_queue *queue)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->look, &attr);
	pthread_cond_init(&queue->gone, NULL);
	sem_init(&queue->more, 0, 0);
	pthread_condattr_destroy(&attr);
}

static int queue_new(struct engine_pages *pages, struct pages_queue **ret)
{
	struct pages_queue *queue = sys.alloc(sizeof *queue);
	int r;

	if (!queue)
		return -ENOMEM;
	init_locks(queue);
	list_init(&queue->fresh);
	list_init(&queue->arrived);
	list_init(&queue->waiting);
	queue->wake = &pages->engine.loop->wake;
	queue->users = 1;
	pthread_mutex_lock(&queue->lock);
	r = make_thread(queue, first_lead);
	if (r < 0) {
		leave(queue);
		return r;
	}
	pthread_mutex_unlock(&queue->lock);
	list_push(&pages->queues, &queue->link);
	*ret = queue;
	return 0;
}

/* Passes on what is fresh, under the lock, which it drops. */
static void pass_on_locked(struct pages_queue *queue)
{
	bool wake = queue->idle && !list_empty(&queue->fresh);

	list_splice(&queue->arrived, &queue->fresh);
	queue->idle = queue->idle && !wake;
	pthread_mutex_unlock(&queue->lock);
	if (wake)
		(void)sem_post(&queue->more);
}

static void join_queue(struct engine *engine, struct pages_queue *queue, struct onefd_req *req)
{
	req->state = STATE_OUT;
	flight(req)->engine = engine;
	flight(req)->rounds = 0;
	flight(req)->awaiting = NULL;
	flight(req)->busy = flight(req)->dropped = false;
	PROBE(sent, engine->loop, req, req->op, ROUTE_PAGES);
	list_remove(&req->link);
	list_push(&queue->fresh, &req->link);
}

/* Leaves those in @batch for which there is no thread to be had. */
static int pages_submit(struct engine *engine, struct onefd_link *batch)
{
	struct engine_pages *pages = pages_of(engine);
	int taken = 0;

	for (struct onefd_link *at = batch->next, *next; at != batch; at = next) {
		struct onefd_device *device = req_of(at)->file->device;

		next = at->next;
		if (!device->pages)
			pages->error = queue_new(pages, &device->pages);
		if (!device->pages)
			continue;
		join_queue(engine, device->pages, req_of(at));
		taken++;
	}
	for (struct onefd_link *at = pages->queues.next; at != &pages->queues; at = at->next) {
		struct pages_queue *queue = list_entry(at, struct pages_queue, link);

		if (!list_empty(&queue->fresh) && pthread_mutex_trylock(&queue->lock) == 0)
			pass_on_locked(queue);
	}
	engine->loop->stats.pages += (uint64_t)taken;
	return taken;
}

static void pages_reap(struct engine *engine, struct onefd_link *done)
{
	struct onefd_link *queues = &pages_of(engine)->queues;

	for (struct onefd_link *at = queues->next; at != queues; at = at->next)
		handed_take(&list_entry(at, struct pages_queue, link)->handed, done);
}

static bool pages_ready(struct engine *engine)
{
	struct onefd_link *queues = &pages_of(engine)->queues;

	for (struct onefd_link *at = queues->next; at != queues; at = at->next) {
		struct pages_queue *queue = list_entry(at, struct pages_queue, link);

		if (!list_empty(&queue->fresh) || handed_any(&queue->handed))
			return true;
	}
	return false;
}

static int pages_cancel(struct engine *engine, struct onefd_req *req)
{
	struct pages_queue *queue = req->file->device->pages;
	struct flight *f = flight(req);
	bool waits, out;

	pthread_mutex_lock(&queue->lock);
	/* In no list: handed back. Dropped: cancelled before. */
	out = !list_empty(&req->link) && !f->dropped;
	waits = out && !f->busy;
	f->dropped |= out && !waits;
	if (waits && f->awaiting)
		f->awaiting->awaited = NULL;
	if (waits)
		list_remove(&req->link);
	pass_on_locked(queue);
	if (!waits)
		return out ? 0 : -EBUSY;
	if (handed_push(&queue->handed, req, -ECANCELED))
		wake_signal(&engine->loop->wake);
	return 0;
}

/* The threads that are present have nothing to wait for: this ends soon. */
static void queue_close(struct pages_queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	queue->quit = true;
	pthread_cond_signal(&queue->look);
	if (queue->idle)
		(void)sem_post(&queue->more);
	while (queue->present)
		pthread_cond_wait(&queue->gone, &queue->lock);
	leave(queue);
}

static void pages_close(struct engine *engine)
{
	struct onefd_link *link;

	while ((link = list_pop(&pages_of(engine)->queues)))
		queue_close(list_entry(link, struct pages_queue, link));
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
	list_init(&pages->queues);
}

bool engine_pages_reads_ahead(const struct pages_queue *queue)
{
	return queue && atomic_load_explicit(&queue->lazy, memory_order_relaxed);
}
