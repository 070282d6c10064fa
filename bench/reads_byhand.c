/*
 * reads_byhand.c - contenders made by hand: one epoll loop as a server would
 * write it, over io_uring, kernel AIO, POSIX AIO or threads.
 *
 * Each engine says it has answers by one descriptor in the epoll. A wake reaps
 * to empty and sends what the readers want next in one go. No engine is spared
 * what a real loop needs, and none is charged with more.
 */
#include "reads.h"

#include <aio.h>
#include <errno.h>
#include <libaio.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

struct engine {
	int (*send)(struct reader *reader);	/* or notes it for flush */
	int (*flush)(void);			/* once a turn; NULL: all is sent */
	int (*reap)(struct bench_run *run);	/* to empty; sends what is wanted next */
};

static struct {
	const struct engine *engine;
	int epoll, ready;
	struct beat beat;
} byhand;

/* ---- the loop -------------------------------------------------------------------- */

static int watch(int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return epoll_ctl(byhand.epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* An edge each time it is signalled: the eventfd need not be read. */
static int byhand_setup(struct bench_run *run, const struct engine *engine)
{
	int r = reads_setup(run);

	if (r < 0)
		return r;
	byhand.engine = engine;
	byhand.epoll = epoll_create1(EPOLL_CLOEXEC);
	byhand.ready = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (byhand.epoll < 0 || byhand.ready < 0)
		return -errno;
	r = watch(byhand.ready, EPOLLIN | EPOLLET);
	if (r == 0)
		r = beat_open(&byhand.beat);
	if (r == 0)
		r = watch(byhand.beat.fd, EPOLLIN);
	return r;
}

/* An answer, and what its reader wants next. */
static int answer(struct bench_run *run, struct reader *reader, ssize_t res)
{
	return reads_next(run, reader, res) ? byhand.engine->send(reader) : 0;
}

static int turn(struct bench_run *run, const struct epoll_event *events, int n)
{
	bool answers = false;
	int r = 0;

	for (int i = 0; i < n; i++) {
		if (events[i].data.fd == byhand.beat.fd)
			beat_take(run, &byhand.beat);
		else
			answers = true;
	}
	if (answers)
		r = byhand.engine->reap(run);
	if (r >= 0 && byhand.engine->flush)
		r = byhand.engine->flush();
	return r;
}

static int first_turn(struct bench_run *run)
{
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < reads.depth; i++)
		if (reads_first(run, &reads.reader[i]))
			r = byhand.engine->send(&reads.reader[i]);
	return r < 0 ? r : turn(run, NULL, 0);
}

int byhand_play(struct bench_run *run)
{
	struct epoll_event events[2];
	uint64_t start = bench_now();
	int n, r;

	beat_start(&byhand.beat);
	r = first_turn(run);
	while (r >= 0 && reads.out) {
		if (reads_timed())
			reads_turn(run, bench_now() - start);
		n = epoll_wait(byhand.epoll, events, 2, -1);
		if (reads_timed())
			start = bench_now();
		/* io_uring's completions run as signals do, and interrupt it. */
		r = n < 0 && errno != EINTR ? -errno : turn(run, events, n);
	}
	beat_stop(&byhand.beat);
	return r;
}

/* ---- io_uring -------------------------------------------------------------------- */

#ifdef HAVE_LIBURING
static struct io_uring ring;

static int uring_send(struct reader *reader)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);	/* one for each reader */

	io_uring_prep_read(sqe, reader->fd, reader->buf, (unsigned)reader->len,
			   (uint64_t)reader->offset);
	io_uring_sqe_set_data(sqe, reader);
	return 0;
}

static int uring_flush(void)
{
	return io_uring_submit(&ring);
}

static int uring_reap(struct bench_run *run)
{
	struct io_uring_cqe *cqe;
	int r = 0;

	while (r >= 0 && io_uring_peek_cqe(&ring, &cqe) == 0) {
		struct reader *reader = io_uring_cqe_get_data(cqe);
		ssize_t res = cqe->res;

		io_uring_cqe_seen(&ring, cqe);
		r = answer(run, reader, res);
	}
	return r;
}

int uring_setup(struct bench_run *run)
{
	static const struct engine engine = { uring_send, uring_flush, uring_reap };
	int r = byhand_setup(run, &engine);

	if (r == 0)
		r = io_uring_queue_init(reads.depth, &ring, 0);
	if (r == 0)
		r = io_uring_register_eventfd(&ring, byhand.ready);
	return r;
}
#endif

/* ---- kernel AIO, as it is ---------------------------------------------------------- */

static struct {
	io_context_t ctx;
	struct iocb *iocbs, **batch;
	struct io_event *events;
	unsigned ready, out;
} kaio;

static int kaio_send(struct reader *reader)
{
	struct iocb *iocb = &kaio.iocbs[reader - reads.reader];

	io_prep_pread(iocb, reader->fd, reader->buf, reader->len, reader->offset);
	io_set_eventfd(iocb, byhand.ready);
	iocb->data = reader;
	kaio.batch[kaio.ready++] = iocb;
	return 0;
}

static int kaio_flush(void)
{
	unsigned sent = 0;
	int r = 0;

	while (r >= 0 && sent < kaio.ready) {
		r = io_submit(kaio.ctx, kaio.ready - sent, kaio.batch + sent);
		if (r > 0)
			sent += (unsigned)r;
	}
	kaio.ready -= sent;
	kaio.out += sent;
	memmove(kaio.batch, kaio.batch + sent, kaio.ready * sizeof *kaio.batch);
	/* No slot: the next completion brings one. */
	return r == -EAGAIN && kaio.out ? 0 : r;
}

static int kaio_reap(struct bench_run *run)
{
	struct timespec zero = { 0 };	/* lets libaio see an empty ring by itself */
	int n, r = 0;

	do {
		n = io_getevents(kaio.ctx, 0, reads.depth, kaio.events, &zero);
		for (int i = 0; r >= 0 && i < n; i++)
			r = answer(run, kaio.events[i].data, (ssize_t)kaio.events[i].res);
		kaio.out -= n > 0 ? (unsigned)n : 0;
	} while (r >= 0 && n == (int)reads.depth && kaio.out);
	return n < 0 ? n : r;
}

int kaio_setup(struct bench_run *run)
{
	static const struct engine engine = { kaio_send, kaio_flush, kaio_reap };
	int r = byhand_setup(run, &engine);

	if (r < 0)
		return r;
	kaio.iocbs = calloc(reads.depth, sizeof *kaio.iocbs);
	kaio.batch = calloc(reads.depth, sizeof *kaio.batch);
	kaio.events = calloc(reads.depth, sizeof *kaio.events);
	if (!kaio.iocbs || !kaio.batch || !kaio.events)
		return -ENOMEM;
	return io_setup((int)reads.depth, &kaio.ctx);
}

/* ---- threads ------------------------------------------------------------------------ */

static struct {
	pthread_mutex_t lock, done_lock;
	pthread_cond_t more;
	struct reader *head, **tail;
	struct reader *done;
	struct reader *batch, **batch_tail;	/* the loop's thread alone */
	unsigned batched;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .done_lock = PTHREAD_MUTEX_INITIALIZER,
	   .more = PTHREAD_COND_INITIALIZER,
	   .tail = &pool.head,
	   .batch_tail = &pool.batch };

static int pool_send(struct reader *reader)
{
	reader->next = NULL;
	*pool.batch_tail = reader;
	pool.batch_tail = &reader->next;
	pool.batched++;
	return 0;
}

/* The whole turn's under one lock. */
static int pool_flush(void)
{
	if (!pool.batched)
		return 0;
	pthread_mutex_lock(&pool.lock);
	*pool.tail = pool.batch;
	pool.tail = pool.batch_tail;
	pthread_mutex_unlock(&pool.lock);
	for (; pool.batched; pool.batched--)
		pthread_cond_signal(&pool.more);
	pool.batch = NULL;
	pool.batch_tail = &pool.batch;
	return 0;
}

/* Off the loop's thread. */
static struct reader *pool_take(void)
{
	struct reader *reader;

	pthread_mutex_lock(&pool.lock);
	while (!(reader = pool.head))
		pthread_cond_wait(&pool.more, &pool.lock);
	pool.head = reader->next;
	if (!pool.head)
		pool.tail = &pool.head;
	pthread_mutex_unlock(&pool.lock);
	return reader;
}

/* Off the loop's thread. The first of a stack wakes the loop, which takes all. */
static void pool_give(struct reader *reader)
{
	bool first;

	pthread_mutex_lock(&pool.done_lock);
	first = !pool.done;
	reader->next = pool.done;
	pool.done = reader;
	pthread_mutex_unlock(&pool.done_lock);
	if (first)
		eventfd_write(byhand.ready, 1);
}

/* Off the loop's thread; it ends with the process. */
static void *pool_worker(void *arg)
{
	struct reader *reader;

	(void)arg;
	for (;;) {
		reader = pool_take();
		reader->res = pread(reader->fd, reader->buf, reader->len, reader->offset);
		pool_give(reader);
	}
	return NULL;
}

static int pool_reap(struct bench_run *run)
{
	struct reader *reader, *next;

	pthread_mutex_lock(&pool.done_lock);
	reader = pool.done;
	pool.done = NULL;
	pthread_mutex_unlock(&pool.done_lock);
	for (; reader; reader = next) {
		next = reader->next;
		(void)answer(run, reader, reader->res);
	}
	return 0;
}

static int threads_setup(struct bench_run *run, unsigned count)
{
	static const struct engine engine = { pool_send, pool_flush, pool_reap };
	pthread_t thread;
	int r = byhand_setup(run, &engine);

	for (unsigned i = 0; r == 0 && i < count; i++)
		r = -pthread_create(&thread, NULL, pool_worker, NULL);
	return r;
}

int threads4_setup(struct bench_run *run)
{
	return threads_setup(run, 4);
}

int threads32_setup(struct bench_run *run)
{
	return threads_setup(run, 32);
}

/* ---- POSIX AIO ------------------------------------------------------------------------ */

static struct {
	struct aiocb *aiocbs;
	int signalfd;
} posix;

static int posix_send(struct reader *reader)
{
	struct aiocb *aiocb = &posix.aiocbs[reader - reads.reader];

	*aiocb = (struct aiocb){
		.aio_fildes = reader->fd,
		.aio_buf = reader->buf,
		.aio_nbytes = reader->len,
		.aio_offset = reader->offset,
		.aio_sigevent = { .sigev_notify = SIGEV_SIGNAL,
				  .sigev_signo = SIGRTMIN,
				  .sigev_value.sival_ptr = reader },
	};
	return aio_read(aiocb) < 0 ? -errno : 0;
}

static int posix_answer(struct bench_run *run, struct reader *reader)
{
	struct aiocb *aiocb = &posix.aiocbs[reader - reads.reader];
	int error = aio_error(aiocb);

	return answer(run, reader, error ? -error : aio_return(aiocb));
}

static int posix_reap(struct bench_run *run)
{
	struct signalfd_siginfo info[64];
	ssize_t n = 0;
	int r = 0;

	do {
		n = read(posix.signalfd, info, sizeof info);
		for (ssize_t i = 0; r >= 0 && i < n / (ssize_t)sizeof *info; i++)
			r = posix_answer(run, (struct reader *)(uintptr_t)info[i].ssi_ptr);
	} while (r >= 0 && n == sizeof info);
	return r;
}

static int posix_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);	/* before the C library makes its threads */
	posix.signalfd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return posix.signalfd < 0 ? -errno : watch(posix.signalfd, EPOLLIN);
}

/*
 * The C library reads one request at a time of one descriptor, so each reader
 * gets his own; and it makes 20 threads unless it is told. Of its ways to say
 * that a read is done only a signal fits a loop: SIGEV_THREAD makes a thread for
 * each read, aio_suspend() waits for nothing else.
 */
int posix_setup(struct bench_run *run)
{
	static const struct engine engine = { posix_send, NULL, posix_reap };
	struct aioinit init = { .aio_threads = 32, .aio_num = 64, .aio_idle_time = 10 };
	int r = byhand_setup(run, &engine);

	if (r < 0)
		return r;
	aio_init(&init);
	posix.aiocbs = calloc(reads.depth, sizeof *posix.aiocbs);
	for (unsigned i = 0; i < reads.depth; i++) {
		reads.reader[i].fd = dup(reads.fd);
		if (reads.reader[i].fd < 0)
			return -errno;
	}
	return posix.aiocbs ? posix_signals() : -ENOMEM;
}
