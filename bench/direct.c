/*
 * direct.c - random O_DIRECT reads: onefd beside a loop written by hand for
 * this one purpose.
 *
 * `libaio` is that loop as one would write it: completions signal an eventfd
 * in an epoll, each wake reaps to empty and sends as many anew in one call.
 * `libaio-lean` saves the read of the eventfd by an edge-triggered watch.
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <onefd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "harness.h"
#include "target.h"

static struct target target;

static void *aligned(const struct bench_run *run)
{
	void *memory = NULL;

	if (posix_memalign(&memory, 4096, run->work->depth * run->options->block))
		return NULL;
	memset(memory, 1, run->work->depth * run->options->block);
	return memory;
}

static off_t anywhere(const struct bench_run *run, uint64_t *seed)
{
	uint64_t block = run->options->block;

	return (off_t)(bench_random(seed) % (target.size / block) * block);
}

/* Both measure alike, from the turn that sends to the turn that receives: the
 * clock is read once a turn. Whether to go on. */
static bool tally(struct bench_run *run, ssize_t res, uint64_t sent, uint64_t now)
{
	run->ops++;
	run->failed += res != (ssize_t)run->options->block;
	bench_histogram_add(&run->latency, now - sent);
	return now < run->deadline;
}

/* ---- onefd ---------------------------------------------------------------- */

struct reader {
	struct onefd_req req;
	void *buf;
	uint64_t sent;
};

struct readers {
	struct onefd *loop;
	struct onefd_file file;
	struct reader *reader;
	uint64_t seed;
};

static int onefd_setup(struct bench_run *run)
{
	struct onefd_config config = { .depth = (uint32_t)run->work->depth };
	struct readers *readers = calloc(1, sizeof *readers);
	char *memory = aligned(run);

	run->state = readers;
	if (!readers || !memory)
		return -ENOMEM;
	readers->reader = calloc(run->work->depth, sizeof *readers->reader);
	if (!readers->reader)
		return -ENOMEM;
	for (uint64_t i = 0; i < run->work->depth; i++) {
		readers->reader[i].buf = memory + i * run->options->block;
		readers->reader[i].req.data = run;
	}
	int r = onefd_new(&readers->loop, &config);
	if (r < 0)
		return r;
	return onefd_file_init(readers->loop, &readers->file, target.fd);
}

static void on_read(struct onefd_req *req);

static void send_next(struct bench_run *run, struct reader *reader, uint64_t now)
{
	struct readers *readers = run->state;

	onefd_prep_pread(&reader->req, &readers->file, reader->buf, run->options->block,
			 anywhere(run, &readers->seed));
	reader->sent = now;
	run->failed += onefd_submit(readers->loop, &reader->req, on_read) < 0;
}

static void on_read(struct onefd_req *req)
{
	struct reader *reader = onefd_container(req, struct reader, req);
	struct bench_run *run = req->data;
	uint64_t now = onefd_now(((struct readers *)run->state)->loop);

	if (tally(run, req->res, reader->sent, now))
		send_next(run, reader, now);
}

/* The longest submission since @before was taken. */
static uint64_t longest_since(const struct onefd_histogram *before,
			      const struct onefd_histogram *after)
{
	struct onefd_histogram since = *after;

	since.count -= before->count;
	for (unsigned i = 0; i < ONEFD_HISTOGRAM_BUCKETS; i++)
		since.bucket[i] -= before->bucket[i];
	return onefd_histogram_quantile(&since, 1);
}

static int onefd_reads(struct bench_run *run)
{
	struct readers *readers = run->state;
	struct onefd_stats before, after;
	int r;

	readers->seed = bench_seed(run);
	(void)onefd_stats(readers->loop, &before, sizeof before);
	for (uint64_t i = 0; i < run->work->depth; i++)
		send_next(run, &readers->reader[i], bench_now());
	r = onefd_run(readers->loop);
	(void)onefd_stats(readers->loop, &after, sizeof after);
	run->submit_ns = after.submit_ns.sum - before.submit_ns.sum;
	run->longest_ns = longest_since(&before.submit_ns, &after.submit_ns);
	return r;
}

static void explain(struct readers *readers)
{
	struct onefd_stats stats;

	(void)onefd_describe(readers->loop, stderr);
	(void)onefd_file_describe(&readers->file, stderr);
	(void)onefd_stats(readers->loop, &stats, sizeof stats);
	fprintf(stderr, "%llu turns, %llu submissions, %llu demotions, window narrowed %llu times\n",
		(unsigned long long)stats.turns, (unsigned long long)stats.submit_calls,
		(unsigned long long)stats.demoted, (unsigned long long)stats.narrowed);
}

static void onefd_teardown(struct bench_run *run)
{
	struct readers *readers = run->state;

	if (run->options->verbose)
		explain(readers);
	(void)onefd_free(readers->loop);
}

/* ---- libaio, by hand -------------------------------------------------------- */

struct plain {
	io_context_t ctx;
	int eventfd, epoll;
	bool lean;
	unsigned depth, ready, out;
	struct iocb *iocbs, **batch;
	struct io_event *events;
	uint64_t *sent;
	uint64_t seed, turns;
};

static int plain_memory(struct bench_run *run, struct plain *plain)
{
	char *memory = aligned(run);

	plain->iocbs = calloc(plain->depth, sizeof *plain->iocbs);
	plain->batch = calloc(plain->depth, sizeof *plain->batch);
	plain->events = calloc(plain->depth, sizeof *plain->events);
	plain->sent = calloc(plain->depth, sizeof *plain->sent);
	if (!memory || !plain->iocbs || !plain->batch || !plain->events || !plain->sent)
		return -ENOMEM;
	for (unsigned i = 0; i < plain->depth; i++) {
		io_prep_pread(&plain->iocbs[i], target.fd, memory + i * run->options->block,
			      run->options->block, 0);
		io_set_eventfd(&plain->iocbs[i], plain->eventfd);
	}
	return 0;
}

static int plain_open(struct bench_run *run, bool lean)
{
	struct epoll_event event = { .events = EPOLLIN | (lean ? EPOLLET : 0) };
	struct plain *plain = calloc(1, sizeof *plain);

	if (!plain)
		return -ENOMEM;
	run->state = plain;
	plain->lean = lean;
	plain->depth = (unsigned)run->work->depth;
	plain->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	plain->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (plain->eventfd < 0 || plain->epoll < 0 ||
	    epoll_ctl(plain->epoll, EPOLL_CTL_ADD, plain->eventfd, &event) < 0)
		return -errno;
	int r = io_setup((int)plain->depth, &plain->ctx);
	if (r < 0)
		return r;
	return plain_memory(run, plain);
}

static int libaio_setup(struct bench_run *run)
{
	return plain_open(run, false);
}

static int lean_setup(struct bench_run *run)
{
	return plain_open(run, true);
}

static void plain_next(struct bench_run *run, struct plain *plain, struct iocb *iocb, uint64_t now)
{
	iocb->u.c.offset = anywhere(run, &plain->seed);
	plain->sent[iocb - plain->iocbs] = now;
	plain->batch[plain->ready++] = iocb;
}

static int plain_submit(struct plain *plain)
{
	unsigned sent = 0;
	int r = 0;

	while (sent < plain->ready) {
		r = io_submit(plain->ctx, plain->ready - sent, plain->batch + sent);
		if (r < 0)
			break;
		sent += (unsigned)r;
	}
	plain->ready -= sent;
	plain->out += sent;
	memmove(plain->batch, plain->batch + sent, plain->ready * sizeof *plain->batch);
	if (r == -EAGAIN && plain->out)
		return 0;	/* no slot: the next completion brings one */
	return r < 0 ? r : 0;
}

/* Two looks at the clock are a hundredth of a request at depth 1. The loop by
 * hand would not take them, so there one submission in eight stands for all. */
static int timed_submit(struct bench_run *run, struct plain *plain)
{
	unsigned weight = plain->depth < 32 ? 8 : 1;
	uint64_t start, took;
	int r;

	if (!plain->ready)
		return 0;
	if (plain->turns++ % weight)
		return plain_submit(plain);
	start = bench_now();
	r = plain_submit(plain);
	took = bench_now() - start;
	run->submit_ns += took * weight;
	if (took > run->longest_ns)
		run->longest_ns = took;
	return r;
}

static void plain_reap(struct bench_run *run, struct plain *plain, uint64_t now)
{
	struct timespec zero = { 0 };	/* lets libaio see an empty ring by itself */
	int n;

	do {
		n = io_getevents(plain->ctx, 0, plain->depth, plain->events, &zero);
		for (int i = 0; i < n; i++) {
			struct iocb *iocb = plain->events[i].obj;

			plain->out--;
			if (tally(run, (ssize_t)plain->events[i].res,
				  plain->sent[iocb - plain->iocbs], now))
				plain_next(run, plain, iocb, now);
		}
	} while (n == (int)plain->depth && plain->out);
}

static int plain_wait(struct plain *plain)
{
	struct epoll_event event;
	uint64_t count;

	if (epoll_wait(plain->epoll, &event, 1, -1) < 0)
		return -errno;
	/* Cleared before the ring is emptied: a wake for nothing at worst. */
	if (!plain->lean && read(plain->eventfd, &count, sizeof count) < 0 && errno != EAGAIN)
		return -errno;
	return 0;
}

static int plain_reads(struct bench_run *run)
{
	struct plain *plain = run->state;
	int r;

	plain->seed = bench_seed(run);
	run->submit_ns = run->longest_ns = 0;
	for (unsigned i = 0; i < plain->depth; i++)
		plain_next(run, plain, &plain->iocbs[i], bench_now());
	for (;;) {
		r = timed_submit(run, plain);
		if (r < 0 || !plain->out)
			return r;
		r = plain_wait(plain);
		if (r < 0)
			return r;
		plain_reap(run, plain, bench_now());
	}
}

/* ---- the program -------------------------------------------------------------- */

static const struct bench_contender contenders[] = {
	{ "onefd", onefd_setup, onefd_reads, onefd_teardown },
	{ "libaio", libaio_setup, plain_reads, NULL },
	{ "libaio-lean", lean_setup, plain_reads, NULL },
};

static const struct bench_program program = {
	.name = "bench-direct",
	.peer = "libaio",
	.help = "  --file PATH      read this one; made and removed when it is not there\n"
		"  --size BYTES     of the file, when it is made (2G)\n"
		"  --block BYTES    of one read (4K)\n"
		"  --depth A,B,...  reads in flight (1,32,128,1024)\n",
	.contenders = contenders,
	.count = sizeof contenders / sizeof *contenders,
};

int main(int argc, char **argv)
{
	struct bench_options options = {
		.rounds = 5,
		.seconds = 2,
		.file = "bench-direct.tmp",
		.size = { { UINT64_C(2) << 30 }, 1 },
		.depth = { { 1, 32, 128, 1024 }, 4 },
		.block = 4096,
	};
	int r, failures = 0;

	bench_options(&options, &program, argc, argv);
	r = target_open(&target, options.file, options.size.value[0], O_DIRECT);
	if (r == 0 && target.size < options.block)
		r = -EINVAL;
	if (r < 0) {
		fprintf(stderr, "%s: %s: %s\n", program.name, options.file, strerror(-r));
		return 1;
	}
	for (unsigned i = 0; i < options.depth.count; i++) {
		struct bench_case work = {
			.work = "direct-read",
			.size = options.block,
			.depth = options.depth.value[i],
		};

		failures += bench_case(&program, &options, &work);
	}
	return failures ? 1 : 0;
}
