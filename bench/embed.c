/*
 * embed.c - what it costs to be a guest: a onefd loop in each host loop, beside
 * one that runs itself.
 *
 * Two more contenders to each host say where that goes: "-epoll" is a bare epoll
 * set in place of the guest, "-own" the host alone, which watches the descriptors
 * by its own means.
 */
#include "embed.h"

#include <errno.h>
#include <fcntl.h>
#include <onefd.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"
#include "target.h"

#define MAX_EVENTS 64	/* fetched at a time: onefd's own default */

enum layer { GUEST, NESTED, OWN };

struct seat {
	const struct embedder *host;
	enum layer layer;
};

/* Of one run, which has a process of its own. */
static const struct seat *seat;
static struct bench_run *run;
static struct onefd *loop;
static int inner;		/* a nested epoll */
static bool over;

static void stop(void)
{
	over = true;
	seat->host->stop();
}

/* ---- a descriptor, watched as the contender does ------------------------------ */

struct watched {
	struct onefd_watch watch;
	int fd;
	embed_fn *fn;
};

static void on_watch(struct onefd_watch *watch, uint32_t events)
{
	(void)events;
	onefd_container(watch, struct watched, watch)->fn(watch->fd);
}

static void on_inner(int fd)
{
	struct epoll_event events[MAX_EVENTS];
	int n = epoll_wait(fd, events, MAX_EVENTS, 0);

	for (int i = 0; i < n; i++) {
		struct watched *watched = events[i].data.ptr;

		watched->fn(watched->fd);
	}
}

static int watch(int fd, embed_fn *fn)
{
	struct watched *watched = malloc(sizeof *watched);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = watched };

	if (!watched)
		return -ENOMEM;
	watched->fd = fd;
	watched->fn = fn;
	switch (seat->layer) {
	case GUEST:
		onefd_watch_init(&watched->watch, fd, on_watch);
		return onefd_watch_start(loop, &watched->watch, EPOLLIN);
	case NESTED:
		return epoll_ctl(inner, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
	default:
		return seat->host->watch(fd, fn);
	}
}

static int take_seat(struct bench_run *of)
{
	int r;

	run = of;
	seat = run->data;
	r = seat->host->open();
	if (r < 0 || seat->layer == OWN)
		return r;
	if (seat->layer == NESTED) {
		inner = epoll_create1(EPOLL_CLOEXEC);
		return inner < 0 ? -errno : seat->host->watch(inner, on_inner);
	}
	r = onefd_new(&loop, NULL);
	return r < 0 ? r : seat->host->attach(loop);
}

/* ---- event: bytes to and fro over socket pairs --------------------------------- */

/* A byte read is always answered, so that the next run finds as many in play. */
static void on_byte(int fd)
{
	char byte;

	if (read(fd, &byte, 1) != 1 || write(fd, &byte, 1) != 1)
		run->failed++;
	if (!over && !bench_more(run))
		stop();
}

static int event_setup(void)
{
	int pair[2], r = 0;

	for (uint64_t i = 0; r == 0 && i < run->work->depth; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0 ||
		    write(pair[0], "x", 1) != 1)
			return -errno;
		r = watch(pair[0], on_byte);
		if (r == 0)
			r = watch(pair[1], on_byte);
	}
	return r;
}

static void event_begin(void)
{
}

/* ---- task: each posts itself again ----------------------------------------------- */

static struct onefd_task *tasks;

static void on_task(struct onefd_task *task)
{
	run->failed += onefd_post(loop, task) < 0;
	if (!over && !bench_more(run))
		stop();
}

static int task_setup(void)
{
	tasks = calloc(run->work->depth, sizeof *tasks);
	for (uint64_t i = 0; tasks && i < run->work->depth; i++)
		onefd_task_init(&tasks[i], on_task);
	return tasks ? 0 : -ENOMEM;
}

/* In the second run they are posted already, and that is no failure. */
static void task_begin(void)
{
	for (uint64_t i = 0; i < run->work->depth; i++)
		(void)onefd_post(loop, &tasks[i]);
}

/* ---- post: from another thread to a loop that sleeps ------------------------------ */

#define PAUSE_NS 100000		/* in which the loop falls asleep */

static struct onefd_task posted;
static sem_t answered;
static uint64_t sent;
static int mailbox;

static void arrived(void)
{
	bench_histogram_add(&run->latency, bench_now() - sent);
	run->ops++;
	/* Who posts is let go on by the next run. */
	if (bench_over(run))
		stop();
	else
		sem_post(&answered);
}

static void on_posted(struct onefd_task *task)
{
	(void)task;
	arrived();
}

static void on_mail(int fd)
{
	eventfd_t value;

	run->failed += eventfd_read(fd, &value) < 0;
	arrived();
}

static void *poster(void *unused)
{
	static const struct timespec pause = { 0, PAUSE_NS };

	(void)unused;
	prctl(PR_SET_TIMERSLACK, 1);
	for (;;) {
		while (sem_wait(&answered) < 0)
			;
		nanosleep(&pause, NULL);
		sent = bench_now();
		if (loop)
			(void)onefd_post(loop, &posted);
		else
			(void)eventfd_write(mailbox, 1);
	}
	return NULL;
}

/* A guest watches the mailbox too, which stays empty: onefd_run() ends where
 * nothing is started, and a task that is yet to be posted does not count. */
static int post_setup(void)
{
	pthread_t thread;
	int r;

	sem_init(&answered, 0, 0);
	onefd_task_init(&posted, on_posted);
	mailbox = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r = mailbox < 0 ? -errno : watch(mailbox, on_mail);
	return r < 0 ? r : -pthread_create(&thread, NULL, poster, NULL);
}

static void post_begin(void)
{
	sem_post(&answered);
}

/* ---- hit, direct: reads of a file ------------------------------------------------- */

static struct target target;
static struct onefd_file file;
static struct onefd_req *reqs;
static uint64_t seed;
static unsigned out;

static void on_read(struct onefd_req *req);

static void read_next(struct onefd_req *req)
{
	uint64_t block = run->options->block;
	off_t offset = (off_t)(bench_random(&seed) % (target.size / block) * block);

	onefd_prep_pread(req, &file, req->data, block, offset);
	run->failed += onefd_submit(loop, req, on_read) < 0;
}

/* The clock is looked at for each, hit or not: a direct one takes a while. */
static void on_read(struct onefd_req *req)
{
	run->ops++;
	run->failed += req->res != (ssize_t)run->options->block;
	if (!bench_over(run))
		read_next(req);
	else if (--out == 0)
		stop();
}

static int reads_setup(int flags)
{
	int fd = open(target.path, O_RDONLY | O_CLOEXEC | flags);
	uint64_t block = run->options->block;

	if (fd < 0)
		return -errno;
	reqs = calloc(run->work->depth, sizeof *reqs);
	if (!reqs)
		return -ENOMEM;
	for (uint64_t i = 0; i < run->work->depth; i++) {
		if (posix_memalign(&reqs[i].data, 4096, block))
			return -ENOMEM;
		memset(reqs[i].data, 1, block);
	}
	return onefd_file_init(loop, &file, fd);
}

static int hit_setup(void)
{
	int r = target_warm(&target, 0, target.size);

	return r < 0 ? r : reads_setup(0);
}

static int direct_setup(void)
{
	return reads_setup(O_DIRECT);
}

static void reads_begin(void)
{
	seed = bench_seed(run);
	for (out = 0; out < run->work->depth; out++)
		read_next(&reqs[out]);
}

/* ---- the program ------------------------------------------------------------------ */

struct work {
	const char *name;
	int (*setup)(void);
	void (*begin)(void);	/* of each run */
	struct bench_list depth;
	bool by_descriptor;	/* hosts without a guest can do it too */
	bool of_file;
};

static const struct work works[] = {
	{ "event", event_setup, event_begin, { { 1, 64 }, 2 }, true },
	{ "task", task_setup, task_begin, { { 1, 64 }, 2 } },
	{ "post", post_setup, post_begin, { { 1 }, 1 }, true },
	{ "hit", hit_setup, reads_begin, { { 1, 32 }, 2 }, .of_file = true },
	{ "direct", direct_setup, reads_begin, { { 1, 32 }, 2 }, .of_file = true },
};
#define WORKS (sizeof works / sizeof *works)

static int setup(struct bench_run *of)
{
	const struct work *work = of->work->data;
	int r = take_seat(of);

	return r < 0 ? r : work->setup();
}

static int play(struct bench_run *of)
{
	const struct work *work = of->work->data;

	over = false;
	work->begin();
	return seat->host->run();
}

static bool by_descriptor(const struct bench_case *one)
{
	return ((const struct work *)one->data)->by_descriptor;
}

#define SEAT(host, layer) &(const struct seat){ &(host), layer }
#define HOST(name, host)									\
	{ name, setup, play, .data = SEAT(host, GUEST), .beside = name "-epoll" },		\
	{ name "-epoll", setup, play, .fits = by_descriptor, .data = SEAT(host, NESTED),	\
	  .beside = name "-own" },								\
	{ name "-own", setup, play, .fits = by_descriptor, .data = SEAT(host, OWN) }

static const struct bench_contender contenders[] = {
	{ "native", setup, play, .data = SEAT(embed_native, GUEST) },
	HOST("epoll", embed_epoll),
	HOST("poll", embed_poll),
#ifdef HAVE_LIBEV
	HOST("libev", embed_libev),
#endif
#ifdef HAVE_LIBEVENT
	HOST("libevent", embed_libevent),
#endif
#ifdef HAVE_LIBUV
	HOST("libuv", embed_libuv),
#endif
#ifdef HAVE_GLIB
	HOST("glib", embed_glib),
#endif
#ifdef HAVE_SD_EVENT
	HOST("sd-event", embed_sd_event),
#endif
};

static const char *const names[WORKS + 1] = { "event", "task", "post", "hit", "direct" };

static const struct bench_program program = {
	.name = "bench-embed",
	.peer = "native",
	.differences = true,
	.help = "  --file PATH      read this one; made and removed when it is not there\n"
		"  --size BYTES     of the file, when it is made (64M)\n"
		"  --block BYTES    of one read (4K)\n"
		"  --depth A,B,...  bytes, tasks or reads in play at once (each work's own)\n",
	.works = names,
	.contenders = contenders,
	.count = sizeof contenders / sizeof *contenders,
};

static int open_file(const struct bench_options *options)
{
	int r = target_open(&target, options->file, options->size.value[0], 0);

	if (r == 0 && target.size < options->block)
		r = -EINVAL;
	if (r < 0)
		fprintf(stderr, "%s: %s: %s\n", program.name, options->file, strerror(-r));
	return r;
}

static int play_all(const struct bench_options *options, const struct work *work)
{
	const struct bench_list *depth = options->depth.count ? &options->depth : &work->depth;
	int failures = 0;

	for (unsigned i = 0; i < depth->count; i++) {
		struct bench_case one = {
			.work = work->name,
			.size = work->of_file ? options->block : 1,
			.depth = depth->value[i],
			.data = (void *)(uintptr_t)work,
		};

		failures += bench_case(&program, options, &one);
	}
	return failures;
}

int main(int argc, char **argv)
{
	struct bench_options options = {
		.rounds = 9,
		.seconds = 0.3,
		.file = "bench-embed.tmp",
		.size = { { UINT64_C(64) << 20 }, 1 },
		.block = 4096,
	};
	int failures = 0;

	bench_options(&options, &program, argc, argv);
	for (unsigned i = 0; i < WORKS; i++) {
		if (!bench_wanted(&options, works[i].name))
			continue;
		if (works[i].of_file && !target.path && open_file(&options) < 0)
			return 1;
		failures += play_all(&options, &works[i]);
	}
	return failures ? 1 : 0;
}
