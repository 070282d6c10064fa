/*
 * engine_pool.c - workers for what blocks by nature.
 *
 * A lane is a queue with a few threads of its own, made on demand, so that a
 * hung open of a dead mount delays no read; reads and writes have a lane for
 * each device, for one that has stopped keeps all it is given. What a worker
 * runs stands in the request (flight.work); this file only carries: in by the
 * lane's queue, back by a stack that takes no lock.
 *
 * Writes of which the kernel does one at a time, a file's, take turns: only the first
 * of them stands in the queue or is a worker's, the others in onefd_file.writes. Else
 * each would keep a worker, to wait for the inode's lock. Its successor goes to the end
 * of the queue, so that no file keeps a worker for itself.
 *
 * The queue has a lock, and a worker may be preempted while it holds it, for
 * milliseconds on a busy machine. So the loop's thread only ever tries it: what
 * it cannot pass on now it keeps, and tries again in the next turn, which then
 * does not wait. Only a cancel takes it, and close.
 */
#include "engine_pool.h"

#include <errno.h>

#include "core.h"
#include "probe.h"
#include "sys.h"

static struct engine_pool *pool_of(struct engine *engine)
{
	return onefd_container(engine, struct engine_pool, engine);
}

/* Any thread. */
static void hand_back(struct engine_pool *pool, struct onefd_req *req, ssize_t answer)
{
	if (handed_push(&pool->handed, req, answer))
		wake_signal(&pool->engine.loop->wake);
}

/* With the lock. Whether a worker can do it now. */
static bool enqueue(struct pool_lane *lane, struct onefd_req *req)
{
	if (flight(req)->flags & FLIGHT_TURN) {
		list_push(&req->file->writes, &flight(req)->peer);
		if (req->file->writes.next != &flight(req)->peer)
			return false;
	}
	list_push(&lane->queue, &req->link);
	return true;
}

/* With the lock. Whether it is neither a worker's nor handed back. */
static bool is_waiting(struct onefd_req *req)
{
	struct onefd_link *peer = &flight(req)->peer;

	if (!list_empty(&req->link))	/* a worker takes it out of the ring */
		return true;
	return flight(req)->flags & FLIGHT_TURN && !list_empty(peer) &&
	       req->file->writes.next != peer;
}

/* With the lock. Its turn is over, or is not to come: the next may be taken by whoever
 * looks at the queue next. */
static void leave_turn(struct pool_lane *lane, struct onefd_req *req)
{
	struct onefd_link *writes = &req->file->writes, *peer = &flight(req)->peer;
	bool first = writes->next == peer;
	struct flight *f;

	list_remove(peer);
	if (!first || list_empty(writes))
		return;
	f = list_entry(writes->next, struct flight, peer);
	list_push(&lane->queue, &list_entry((uint64_t *)f, struct onefd_req, engine)->link);
}

/* Off the loop's thread. @prio is the I/O priority that the thread has now. */
static void run(struct pool_lane *lane, struct onefd_req *req, int *prio)
{
	/* A call of the user's may answer anything, this number too. */
	bool may_fly = flight(req)->flags & FLIGHT_SLOT;
	ssize_t answer = 0;

	if (req->ioprio != *prio)
		answer = sys.ioprio_set(req->ioprio);
	if (answer == 0) {
		*prio = req->ioprio;
		answer = flight(req)->work(req);
	}
	/* In the ring means out of our hands: it may be freed by now. */
	if (may_fly && answer == ANSWER_IN_RING)
		return;
	if (flight(req)->flags & FLIGHT_TURN) {
		pthread_mutex_lock(&lane->lock);
		leave_turn(lane, req);
		pthread_mutex_unlock(&lane->lock);
	}
	hand_back(lane->pool, req, answer);
}

/* Off the loop's thread, with the lock, which it drops while it waits for more. Where
 * requests come one by one, and the last came soon, it looks for a while before it
 * sleeps. *@soon: whether this one did. */
static void rest(struct pool_lane *lane, bool *soon)
{
	/* Relaxed, all of it: what is to be done stands behind the lock. */
	uint64_t most = lane->pool->spin_ns, began = most ? sys.now() : 0;
	bool look = *soon && lane->lone &&
		    !atomic_load_explicit(&lane->looks, memory_order_relaxed);

	lane->idle++;
	if (look)
		atomic_store_explicit(&lane->looks, true, memory_order_relaxed);
	pthread_mutex_unlock(&lane->lock);
	while (look && atomic_load_explicit(&lane->looks, memory_order_relaxed) &&
	       sys.now() - began < most)
		;
	/* Taken back: nobody has called. */
	if (!look || atomic_exchange_explicit(&lane->looks, false, memory_order_relaxed))
		while (sem_wait(&lane->more) < 0)
			;	/* interrupted by a debugger: no signal comes here */
	*soon = most && sys.now() - began < most;
	pthread_mutex_lock(&lane->lock);
}

/* Off the loop's thread: a worker's life. */
static void *worker(void *arg)
{
	struct pool_lane *lane = arg;
	struct onefd_link *link;
	bool soon = false;
	int prio = 0;

	pthread_mutex_lock(&lane->lock);
	while ((link = list_pop(&lane->queue)) || !lane->quit) {
		if (!link) {
			rest(lane, &soon);
			continue;
		}
		pthread_mutex_unlock(&lane->lock);
		run(lane, list_entry(link, struct onefd_req, link), &prio);
		pthread_mutex_lock(&lane->lock);
	}
	pthread_mutex_unlock(&lane->lock);
	return NULL;
}

/* Makes @count threads, as far as they may be; with none at all false. */
static bool grow(struct pool_lane *lane, uint32_t count)
{
	while (count-- && lane->threads < lane->pool->most &&
	       sys.thread(&lane->ids[lane->threads], worker, lane) == 0)
		lane->threads++;
	return lane->threads;
}

static int lane_open(struct pool_lane *lane, struct engine_pool *pool, enum lane kind)
{
	lane->ids = sys.alloc(pool->most * sizeof *lane->ids);
	if (!lane->ids)
		return -ENOMEM;
	pthread_mutex_init(&lane->lock, NULL);
	sem_init(&lane->more, 0, 0);
	list_init(&lane->queue);
	list_init(&lane->fresh);
	lane->pool = pool;
	lane->kind = kind;
	list_push(&pool->all, &lane->link);
	return 0;
}

static void lane_close(struct pool_lane *lane)
{
	pthread_mutex_lock(&lane->lock);
	lane->quit = true;
	pthread_mutex_unlock(&lane->lock);
	for (uint32_t i = 0; i < lane->threads; i++)
		(void)sem_post(&lane->more);
	/* They are idle, for nothing is out: this waits for no disk. */
	for (uint32_t i = 0; i < lane->threads; i++)
		sys.join(lane->ids[i]);
	pthread_mutex_destroy(&lane->lock);
	sem_destroy(&lane->more);
	sys.free(lane->ids);
	if (lane->allocated)
		sys.free(lane);
}

/* A lane with a thread, or NULL. */
static struct pool_lane *lane_new(struct engine_pool *pool)
{
	struct pool_lane *lane = sys.alloc(sizeof *lane);

	if (!lane)
		return NULL;
	if (lane_open(lane, pool, LANE_DATA) < 0) {
		sys.free(lane);
		return NULL;
	}
	lane->allocated = true;
	if (grow(lane, 1))
		return lane;
	list_remove(&lane->link);
	lane_close(lane);
	return NULL;
}

static struct pool_lane *lane_of(struct engine_pool *pool, struct onefd_req *req)
{
	struct pool_lane *common = &pool->lanes[flight(req)->lane];
	struct onefd_device *device;

	if (common->kind != LANE_DATA)
		return common;
	device = req->file->device;
	if (!device->lane)
		device->lane = lane_new(pool);
	/* For good: a cancel must look where the request was put. */
	if (!device->lane)
		device->lane = common;
	return device->lane;
}

/* Passes on what is fresh, under the lock, which it drops. */
static void pass_on_locked(struct pool_lane *lane)
{
	bool lone = lane->fresh_count == 1 && list_empty(&lane->queue);
	uint32_t count = lane->fresh_count, wake;	/* count: for workers */
	struct onefd_link *link;

	/* A cancelled one may be among the count: a worker looks in vain. */
	while ((link = list_pop(&lane->fresh)))
		count -= !enqueue(lane, list_entry(link, struct onefd_req, link));
	wake = count < lane->idle ? count : lane->idle;
	lane->lone = lone && count;
	lane->fresh_count = 0;
	lane->idle -= wake;
	pthread_mutex_unlock(&lane->lock);
	(void)grow(lane, count - wake);
	if (wake && atomic_exchange_explicit(&lane->looks, false, memory_order_relaxed))
		wake--;
	while (wake--)
		(void)sem_post(&lane->more);
}

/* No thread to be had: slower, and it blocks the loop, but it is done. */
static void work_alone(struct pool_lane *lane, struct onefd_req *req)
{
	lane->pool->alone = true;
	run(lane, req, &(int){ req->ioprio });
}

static int pool_submit(struct engine *engine, struct onefd_link *batch)
{
	struct engine_pool *pool = pool_of(engine);
	struct onefd_link *link;
	int taken = 0;

	for (; (link = list_pop(batch)); taken++) {
		struct onefd_req *req = list_entry(link, struct onefd_req, link);
		struct pool_lane *lane = lane_of(pool, req);

		req->state = STATE_OUT;
		flight(req)->engine = engine;
		if (flight(req)->flags & FLIGHT_TURN)
			list_init(&flight(req)->peer);
		PROBE(sent, engine->loop, req, req->op,
		      flight(req)->flags & FLIGHT_SLOT ? ROUTE_WORKER_KAIO : ROUTE_WORKER);
		if (!lane->threads && !grow(lane, 1)) {
			work_alone(lane, req);
			continue;
		}
		list_push(&lane->fresh, &req->link);
		lane->fresh_count++;
	}
	for (struct onefd_link *at = pool->all.next; at != &pool->all; at = at->next) {
		struct pool_lane *lane = list_entry(at, struct pool_lane, link);

		if (lane->fresh_count && pthread_mutex_trylock(&lane->lock) == 0)
			pass_on_locked(lane);
	}
	engine->loop->stats.pool += (uint64_t)taken;
	return taken;
}

static bool pool_ready(struct engine *engine)
{
	struct engine_pool *pool = pool_of(engine);

	for (struct onefd_link *at = pool->all.next; at != &pool->all; at = at->next)
		if (list_entry(at, struct pool_lane, link)->fresh_count)
			return true;
	return handed_any(&pool->handed);
}

static void pool_reap(struct engine *engine, struct onefd_link *done)
{
	handed_take(&pool_of(engine)->handed, done);
}

static int pool_cancel(struct engine *engine, struct onefd_req *req)
{
	struct engine_pool *pool = pool_of(engine);
	struct pool_lane *lane = lane_of(pool, req);
	bool waits;

	pthread_mutex_lock(&lane->lock);
	waits = is_waiting(req);
	list_remove(&req->link);
	if (waits && flight(req)->flags & FLIGHT_TURN)
		leave_turn(lane, req);
	pass_on_locked(lane);
	if (!waits)
		return -EBUSY;
	hand_back(pool, req, -ECANCELED);
	return 0;
}

static void close_lanes(struct engine_pool *pool)
{
	struct onefd_link *link;

	while ((link = list_pop(&pool->all)))
		lane_close(list_entry(link, struct pool_lane, link));
}

static void pool_close(struct engine *engine)
{
	close_lanes(pool_of(engine));
}

static const struct engine_ops pool_ops = {
	.name = "workers",
	.submit = pool_submit,
	.reap = pool_reap,
	.ready = pool_ready,
	.cancel = pool_cancel,
	.close = pool_close,
};

int engine_pool_open(struct engine_pool *pool, struct onefd *loop, uint32_t threads,
		     uint32_t spin_us)
{
	pool->engine = (struct engine){ .ops = &pool_ops, .loop = loop };
	pool->most = threads;
	pool->spin_ns = spin_us * UINT64_C(1000);
	list_init(&pool->all);
	for (int i = 0; i < LANES; i++)
		if (lane_open(&pool->lanes[i], pool, (enum lane)i) < 0) {
			close_lanes(pool);
			return -ENOMEM;
		}
	return 0;
}
