/*
 * reads.c - buffered reads, cold and warm: onefd beside io_uring and all else
 * that a program may read files with.
 *
 * The works, what each reads next, and two contenders that are nothing but a
 * loop around a system call. No data is looked at: the tests do that.
 */
#include "reads.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "target.h"

enum kind {
	COLD,		/* anywhere, nothing twice, half of the file at most */
	STREAM,		/* in order, to the end */
	WARM,		/* anywhere, all in the cache */
	MIXED,		/* by turns in a warm half and in a cold one */
	LARGE,		/* as COLD, each reader once, with a heartbeat */
};

static const struct work {
	const char *name;
	enum kind kind;
	uint64_t block;
	struct bench_list depth;
} works[] = {
	{ "cold", COLD, 4 << 10, { { 1, 32, 128 }, 3 } },
	{ "chunk", COLD, 128 << 10, { { 16 }, 1 } },
	{ "stream", STREAM, 256 << 10, { { 8 }, 1 } },
	{ "warm", WARM, 4 << 10, { { 32 }, 1 } },
	{ "mixed", MIXED, 4 << 10, { { 32 }, 1 } },
	{ "large", LARGE, 16 << 20, { { 64 }, 1 } },
};

#define WORKS (sizeof works / sizeof *works)

static struct target target;
struct reads reads;

/* Where the run is. */
static struct {
	enum kind kind;
	uint64_t seed, mix;
	uint64_t blocks;	/* to choose from */
	uint64_t base;		/* the block where the cold ones begin */
	uint64_t taken, most;	/* cold ones */
} plan;

static enum kind kind_of(const struct bench_case *work)
{
	return ((const struct work *)work->data)->kind;
}

/* ---- what is read next ------------------------------------------------------ */

/* A permutation of 0 .. 2^bits - 1: each step of it can be undone. */
static uint64_t shuffle(uint64_t x, unsigned bits)
{
	uint64_t mask = (UINT64_C(1) << bits) - 1;

	x = (x ^ plan.mix) & mask;
	for (int i = 0; i < 3; i++) {
		x = x * UINT64_C(0x9e3779b97f4a7c15) & mask;
		x ^= x >> (bits / 2 + 1);
	}
	return x;
}

/* The @n-th of a shuffled file; what falls beside it is shuffled on. */
static uint64_t shuffled(uint64_t n)
{
	unsigned bits = plan.blocks < 2 ? 1 : 64 - (unsigned)__builtin_clzll(plan.blocks - 1);

	do
		n = shuffle(n, bits);
	while (n >= plan.blocks);
	return n;
}

static void plan_begin(struct bench_run *run)
{
	uint64_t blocks = target.size / reads.block;

	plan.kind = kind_of(run->work);
	plan.seed = plan.mix = bench_seed(run);
	plan.base = plan.kind == MIXED ? blocks / 2 : 0;
	plan.blocks = blocks - plan.base;
	plan.most = plan.kind == STREAM ? plan.blocks : plan.blocks / 2;
	if (plan.kind == LARGE)
		plan.most = run->warmup ? 4 : reads.depth;
	plan.taken = 0;
}

static uint64_t next_block(const struct reader *reader)
{
	if (plan.kind == WARM)
		return bench_random(&plan.seed) % plan.blocks;
	if (reader->warm)
		return bench_random(&plan.seed) % plan.base;
	if (plan.kind == STREAM)
		return plan.taken++;
	return plan.base + shuffled(plan.taken++);
}

static void choose(struct reader *reader, uint64_t now)
{
	reader->buf -= reads.block - reader->len;	/* back to its start */
	reader->len = reads.block;
	reader->warm = plan.kind == MIXED && !reader->warm;
	reader->offset = (off_t)(next_block(reader) * reads.block);
	reader->sent = now;
}

/* Over is over: a run that could read on stops, so that all stop alike. */
static bool over(const struct bench_run *run, uint64_t now)
{
	return now >= run->deadline || (plan.kind != WARM && plan.taken >= plan.most);
}

bool reads_first(struct bench_run *run, struct reader *reader)
{
	uint64_t now = bench_now();

	if (plan.kind == LARGE ? plan.taken >= plan.most : over(run, now))
		return false;
	choose(reader, now);
	reads.out++;
	return true;
}

static void count(struct bench_run *run, const struct reader *reader, uint64_t ns)
{
	run->ops++;
	bench_histogram_add(&run->latency, ns);
	if (plan.kind == MIXED)
		bench_histogram_add(reader->warm ? &run->hit : &run->miss, ns);
}

bool reads_next(struct bench_run *run, struct reader *reader, ssize_t res)
{
	uint64_t now;

	if (res > 0 && (size_t)res < reader->len) {
		reader->buf += res;
		reader->offset += res;
		reader->len -= (size_t)res;
		return true;
	}
	now = bench_now();
	run->failed += res <= 0;
	reader->buf += reader->len;
	reader->len = 0;
	count(run, reader, now - reader->sent);
	if (!over(run, now)) {
		choose(reader, now);
		return true;
	}
	reads.out--;
	return false;
}

/* ---- before a run ------------------------------------------------------------ */

static int prepare(struct bench_run *run)
{
	uint64_t half;

	plan_begin(run);
	half = plan.base * reads.block;
	if (plan.kind == WARM)
		return target_warm(&target, 0, target.size / 4096 * 4096);
	int r = target_chill(&target, half, target.size - half);
	if (r == 0 && half)
		r = target_warm(&target, 0, half);
	return r;
}

static int make_readers(void)
{
	size_t bytes = reads.depth * reads.block;
	void *memory;

	reads.reader = calloc(reads.depth, sizeof *reads.reader);
	if (!reads.reader || posix_memalign(&memory, 4096, bytes))
		return -ENOMEM;
	memset(memory, 1, bytes);
	for (unsigned i = 0; i < reads.depth; i++)
		reads.reader[i] = (struct reader){
			.fd = reads.fd,
			.buf = (char *)memory + i * reads.block,
			.len = reads.block,
			.warm = i % 2,
		};
	return 0;
}

/* A descriptor of its own: what the kernel has learnt about how one is read,
 * the next contender does not inherit. */
int reads_setup(struct bench_run *run)
{
	reads.depth = (unsigned)run->work->depth;
	reads.block = run->work->size;
	reads.beats = kind_of(run->work) == LARGE;
	reads.streams = kind_of(run->work) == STREAM;
	reads.fd = open(target.path, O_RDONLY | O_CLOEXEC);
	if (reads.fd < 0)
		return -errno;
	return make_readers();
}

/* ---- the heartbeat ------------------------------------------------------------- */

void reads_beat(struct bench_run *run, uint64_t *due)
{
	uint64_t now = bench_now();

	for (; *due <= now; *due += READS_BEAT_NS)
		bench_histogram_add(&run->late, now - *due);
}

int beat_open(struct beat *beat)
{
	beat->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	return beat->fd < 0 ? -errno : 0;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000),
				  .tv_nsec = (long)(ns % 1000000000) };
}

void beat_start(struct beat *beat)
{
	struct itimerspec timer = { .it_interval = timespec_of(READS_BEAT_NS) };

	if (!reads.beats)
		return;
	beat->due = bench_now() + READS_BEAT_NS;
	timer.it_value = timespec_of(beat->due);
	timerfd_settime(beat->fd, TFD_TIMER_ABSTIME, &timer, NULL);
}

void beat_stop(struct beat *beat)
{
	struct itimerspec never = { 0 };

	timerfd_settime(beat->fd, 0, &never, NULL);
}

void beat_take(struct bench_run *run, struct beat *beat)
{
	uint64_t count;

	if (read(beat->fd, &count, sizeof count) == sizeof count)
		reads_beat(run, &beat->due);
}

/* ---- a loop around a system call -------------------------------------------------- */

static int around(struct bench_run *run, ssize_t (*call)(struct reader *reader))
{
	struct reader *reader = reads.reader;

	if (reads_first(run, reader))
		while (reads_next(run, reader, call(reader)))
			;
	return 0;
}

static bool is_warm(const struct bench_case *work)
{
	return kind_of(work) == WARM;
}

/* Spinning is for the only read that is out. */
static bool is_single(const struct bench_case *work)
{
	return work->depth == 1 && kind_of(work) != STREAM;
}

static bool is_stream(const struct bench_case *work)
{
	return kind_of(work) == STREAM;
}

static ssize_t call_preadv2(struct reader *reader)
{
	struct iovec iov = { reader->buf, reader->len };

	return preadv2(reader->fd, &iov, 1, reader->offset, RWF_NOWAIT);
}

static int preadv2_play(struct bench_run *run)
{
	return around(run, call_preadv2);
}

/* The same into as many buffers as the others have in flight: their memory is
 * no longer all in the nearest cache. */
static int preadv2_all_play(struct bench_run *run)
{
	uint64_t depth = run->work->depth;
	bool more = true;

	for (uint64_t i = 0; i < depth && more; i++)
		more = reads_first(run, &reads.reader[i]);
	for (uint64_t i = 0; more; i = (i + 1) % depth)
		more = reads_next(run, &reads.reader[i], call_preadv2(&reads.reader[i]));
	return 0;
}

static ssize_t call_read(struct reader *reader)
{
	return read(reader->fd, reader->buf, reader->len);
}

static int read_play(struct bench_run *run)
{
	if (lseek(reads.fd, 0, SEEK_SET) < 0)
		return -errno;
	return around(run, call_read);
}

/* ---- the program ------------------------------------------------------------------ */

static const struct bench_contender contenders[] = {
	{ "onefd", onefd_setup, onefd_play, onefd_teardown },
	{ "onefd-spin", onefd_spin_setup, onefd_play, onefd_teardown, .fits = is_single },
#ifdef HAVE_LIBURING
	{ "io_uring", uring_setup, byhand_play },
#endif
#ifdef HAVE_LIBUV
	{ "libuv-4", uv4_setup, uv_play },
	{ "libuv-8", uv8_setup, uv_play },
	{ "libuv-16", uv16_setup, uv_play },
	{ "libuv-32", uv32_setup, uv_play },
#endif
	{ "threads-4", threads4_setup, byhand_play },
	{ "threads-32", threads32_setup, byhand_play },
	{ "io_submit", kaio_setup, byhand_play },
	{ "posix-aio", posix_setup, byhand_play },
	{ "preadv2", reads_setup, preadv2_play, .fits = is_warm },
	{ "preadv2-all", reads_setup, preadv2_all_play, .fits = is_warm },
	{ "read", reads_setup, read_play, .fits = is_stream },
};

static const char *const names[WORKS + 1] = { "cold", "chunk", "stream", "warm", "mixed", "large" };

static const struct bench_program program = {
	.name = "bench-reads",
	.peer = "io_uring",
	.ours = "onefd",
	.help = "  --file PATH      read this one; made and removed when it is not there\n"
		"  --size BYTES     of the file, when it is made (2G)\n"
		"  --block BYTES    of one read, whole pages (each work's own)\n"
		"  --depth A,B,...  reads in flight (each work's own)\n",
	.works = names,
	.prepare = prepare,
	.contenders = contenders,
	.count = sizeof contenders / sizeof *contenders,
};

/* Half of the file is enough for each reader once. */
static bool large_enough(const struct bench_case *work)
{
	uint64_t least = 2 * work->depth * work->size;

	if (work->size % 4096)
		fprintf(stderr, "%s: --block: not whole pages\n", program.name);
	else if (target.size < least)
		fprintf(stderr, "%s: %s, size %llu, depth %llu: wants a file of %llu MiB\n",
			program.name, work->work, (unsigned long long)work->size,
			(unsigned long long)work->depth, (unsigned long long)(least >> 20));
	else
		return true;
	return false;
}

static int play(const struct bench_options *options, const struct work *work)
{
	const struct bench_list *depth = options->depth.count ? &options->depth : &work->depth;
	int failures = 0;

	for (unsigned i = 0; i < depth->count; i++) {
		struct bench_case one = {
			.work = work->name,
			.size = options->block ? options->block : work->block,
			.depth = depth->value[i],
			.counted = work->kind == LARGE,
			.data = (void *)work,
		};

		if (!large_enough(&one)) {
			failures++;
			continue;
		}
		failures += bench_case(&program, options, &one);
	}
	return failures;
}

int main(int argc, char **argv)
{
	struct bench_options options = {
		.rounds = 5,
		.seconds = 1,
		.file = "bench-reads.tmp",
		.size = { { UINT64_C(2) << 30 }, 1 },
	};
	int r, failures = 0;

	bench_options(&options, &program, argc, argv);
	r = target_open(&target, options.file, options.size.value[0], 0);
	if (r < 0) {
		fprintf(stderr, "%s: %s: %s\n", program.name, options.file, strerror(-r));
		return 1;
	}
	for (unsigned i = 0; i < WORKS; i++)
		if (bench_wanted(&options, works[i].name))
			failures += play(&options, &works[i]);
	return failures ? 1 : 0;
}
