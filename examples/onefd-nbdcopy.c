/*
 * onefd-nbdcopy - copies an NBD export into a new file: a foreign library as a guest.
 *
 *   cc -D_GNU_SOURCE -o onefd-nbdcopy onefd-nbdcopy.c $(pkg-config --cflags --libs onefd libnbd)
 *
 * libnbd owns a socket, says which way it wants to go next, and has to be told when
 * it can: one watch, whose events follow the library (follow()), is all that it needs.
 * What it reads is written by requests of the same loop, block by block, and the
 * progress and the signals come from there too. Nothing here waits for the server or
 * for the disk but the loop.
 *
 * The file is made by us or not at all, and goes again when the copy fails. Holes
 * are not kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libnbd.h>
#include <onefd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS_FAILED	1
#define STATUS_USAGE	2
#define BLOCK		(256u << 10)
#define DEPTH_MOST	1024u
#define PROGRESS_NS	UINT64_C(100000000)
#define NSEC_PER_SEC	1e9

struct copy;

struct slot {
	struct onefd_req req;		/* the write; the read is libnbd's */
	struct copy *copy;
	char *buf;
	off_t offset;			/* of its block */
	size_t length, done;
};

struct copy {
	const char *uri, *target;
	uint64_t depth;
	bool verbose, terminal;

	struct nbd_handle *nbd;
	struct onefd_watch watch;	/* on the descriptor that nbd has at the moment */
	struct onefd *loop;
	struct onefd_timer progress;
	struct onefd_signal signals[2];
	struct onefd_req step;		/* the stages that go one by one */
	struct onefd_file out;
	int out_fd;			/* -1: not made yet */
	bool begun;			/* the server is ready, the file is asked for */
	bool over;			/* done or failed: what is out is only awaited */
	int status;
	off_t size, next, written;
	size_t block;
	uint64_t started;
	struct slot *slots;
	char *memory;
};

static void __attribute__((format(printf, 2, 3))) say(struct copy *c, const char *format, ...)
{
	va_list args;

	if (c->terminal)
		fputs("\r\033[K", stderr);
	fputs("onefd-nbdcopy: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* Once nothing is started and nothing is out, onefd_run() returns. */
static void end(struct copy *c, int status)
{
	c->over = true;
	c->status = status;
	onefd_watch_stop(&c->watch);
	onefd_timer_stop(&c->progress);
	for (size_t i = 0; i < 2; i++)
		onefd_signal_stop(&c->signals[i]);
	for (size_t i = 0; c->slots && i < c->depth; i++)
		(void)onefd_cancel(&c->slots[i].req);	/* what is too late, returns */
	(void)onefd_cancel(&c->step);
}

static void fail(struct copy *c, ssize_t error, const char *what, const char *name)
{
	if (c->over)
		return;
	say(c, "%s '%s': %s", what, name, strerror((int)-error));
	end(c, STATUS_FAILED);
}

/* The library has its own words for what went wrong. */
static void fail_nbd(struct copy *c)
{
	const char *error = nbd_get_error();

	if (c->over)
		return;
	say(c, "cannot read '%s': %s", c->uri, error ? error : "the server is gone");
	end(c, STATUS_FAILED);
}

static void submit(struct copy *c, struct onefd_req *req, onefd_req_fn *fn)
{
	int r = onefd_submit(c->loop, req, fn);

	if (r < 0)
		fail(c, r, "cannot write", c->target);
}

/* ---- the guest: libnbd in a watch -------------------------------------------- */

static void begin(struct copy *c);
static void nbd_ready(struct onefd_watch *watch, uint32_t events);

/* What the library waits for now: after every call that may have moved it. */
static void follow(struct copy *c)
{
	unsigned direction = nbd_aio_get_direction(c->nbd);
	uint32_t events = (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0) |
			  (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0);
	int fd, r = -ENOENT;

	if (c->over)
		return;
	fd = nbd_aio_get_fd(c->nbd);
	if (fd < 0) {
		fail_nbd(c);
		return;
	}
	if (fd == c->watch.fd)
		r = onefd_watch_update(&c->watch, events);
	/* The first socket, or that of the next address: its number may be the same.
	 * UNTESTED: the latter needs a library that waits for a connect() to fail. */
	if (r == -ENOENT) {
		onefd_watch_stop(&c->watch);
		onefd_watch_init(&c->watch, fd, nbd_ready);
		c->watch.data = c;
		r = onefd_watch_start(c->loop, &c->watch, events);
	}
	if (r < 0)
		fail(c, r, "cannot watch", c->uri);
	else if (!c->begun && nbd_aio_is_ready(c->nbd))
		begin(c);
}

/* A connection that broke is told to whichever side the library is on. */
static void nbd_ready(struct onefd_watch *watch, uint32_t events)
{
	struct copy *c = watch->data;
	unsigned direction = nbd_aio_get_direction(c->nbd);
	int r = 0;

	if (direction & LIBNBD_AIO_DIRECTION_READ && events & ~(uint32_t)EPOLLOUT)
		r = nbd_aio_notify_read(c->nbd);
	else if (direction & LIBNBD_AIO_DIRECTION_WRITE && events & ~(uint32_t)EPOLLIN)
		r = nbd_aio_notify_write(c->nbd);
	if (r < 0)
		fail_nbd(c);
	else
		follow(c);
}

/* ---- the blocks -------------------------------------------------------------- */

static void slot_next(struct slot *slot);
static void slot_written(struct onefd_req *req);
static void sync_all(struct copy *c);

static void slot_write(struct slot *slot)
{
	onefd_prep_pwrite(&slot->req, &slot->copy->out, slot->buf + slot->done,
			  slot->length - slot->done, slot->offset + (off_t)slot->done);
	submit(slot->copy, &slot->req, slot_written);
}

static void slot_written(struct onefd_req *req)
{
	struct slot *slot = onefd_container(req, struct slot, req);
	struct copy *c = slot->copy;

	if (c->over)
		return;
	if (req->res <= 0) {
		fail(c, req->res ? req->res : -EIO, "cannot write", c->target);
		return;
	}
	slot->done += (size_t)req->res;
	c->written += req->res;
	if (slot->done < slot->length)
		slot_write(slot);
	else if (c->written == c->size)
		sync_all(c);
	else
		slot_next(slot);
}

/* Inside the library, whose lock is held: it is not called from here. An answer that
 * the server never gave is the connection's to explain: see follow(). */
static int slot_read(void *data, int *error)
{
	struct slot *slot = data;
	struct copy *c = slot->copy;

	if (*error && *error != ENOTCONN)
		fail(c, -*error, "cannot read", c->uri);
	else if (!*error && !c->over)
		slot_write(slot);
	return 1;		/* nobody else asks how it went */
}

/* Takes the next block that nobody has. */
static void slot_next(struct slot *slot)
{
	struct copy *c = slot->copy;
	nbd_completion_callback done = { .callback = slot_read, .user_data = slot };
	off_t left = c->size - c->next;

	if (left == 0)
		return;
	slot->offset = c->next;
	slot->length = (uint64_t)left < c->block ? (size_t)left : c->block;
	slot->done = 0;
	c->next += (off_t)slot->length;
	if (nbd_aio_pread(c->nbd, slot->buf, slot->length, (uint64_t)slot->offset, done, 0) < 0)
		fail_nbd(c);
	else
		follow(c);
}

static int make_slots(struct copy *c)
{
	c->memory = malloc(c->depth * c->block);
	c->slots = calloc(c->depth, sizeof *c->slots);
	if (!c->memory || !c->slots)
		return -ENOMEM;
	for (size_t i = 0; i < c->depth; i++) {
		c->slots[i].copy = c;
		c->slots[i].buf = c->memory + i * c->block;
	}
	return 0;
}

/* ---- the file ---------------------------------------------------------------- */

static void synced(struct onefd_req *req)
{
	struct copy *c = req->data;
	double seconds = (double)(onefd_now(c->loop) - c->started) / NSEC_PER_SEC;

	if (c->over)
		return;
	if (req->res < 0) {
		fail(c, req->res, "cannot write", c->target);
		return;
	}
	if (c->verbose)
		say(c, "%lld bytes in %.2f s", (long long)c->size, seconds);
	end(c, EXIT_SUCCESS);
}

static void sync_all(struct copy *c)
{
	onefd_prep_fsync(&c->step, &c->out, 0);
	submit(c, &c->step, synced);
}

static void copy_blocks(struct copy *c)
{
	int r = make_slots(c);

	if (r < 0)
		fail(c, r, "cannot copy", c->uri);
	for (size_t i = 0; i < c->depth && !c->over; i++)
		slot_next(&c->slots[i]);
}

static void allocated(struct onefd_req *req)
{
	struct copy *c = req->data;

	if (c->over)
		return;
	if (req->res < 0 && req->res != -EOPNOTSUPP && req->res != -ENOSYS)
		fail(c, req->res, "cannot write", c->target);
	else
		copy_blocks(c);
}

static void target_opened(struct onefd_req *req)
{
	struct copy *c = req->data;
	int r;

	if (req->res >= 0)
		c->out_fd = (int)req->res;	/* kept also when it is over: to be removed */
	if (c->over)
		return;
	r = req->res < 0 ? (int)req->res : onefd_file_init(c->loop, &c->out, c->out_fd);
	if (r < 0) {
		fail(c, r, "cannot create", c->target);
	} else if (c->size == 0) {
		sync_all(c);
	} else {
		/* A file system too small says so at once. */
		onefd_prep_fallocate(&c->step, &c->out, 0, 0, c->size);
		submit(c, &c->step, allocated);
	}
}

/* The server is ready: how large its export is, and in what pieces it may be read. */
static void begin(struct copy *c)
{
	int64_t size = nbd_get_size(c->nbd);
	int64_t least = nbd_get_block_size(c->nbd, LIBNBD_SIZE_MINIMUM);
	int64_t most = nbd_get_block_size(c->nbd, LIBNBD_SIZE_MAXIMUM);

	c->begun = true;
	if (size < 0) {
		fail_nbd(c);
		return;
	}
	c->size = size;
	c->block = least > BLOCK ? (size_t)least : BLOCK;
	if (most > 0 && most < (int64_t)c->block)
		c->block = (size_t)most;
	onefd_prep_openat(&c->step, AT_FDCWD, c->target,
			  O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	submit(c, &c->step, target_opened);
}

/* ---- the program ------------------------------------------------------------- */

static void draw_progress(struct onefd_timer *timer)
{
	struct copy *c = timer->data;
	double seconds = (double)(onefd_now(c->loop) - c->started) / NSEC_PER_SEC;

	fprintf(stderr, "\r\033[K%3.0f %%  %.0f MiB/s",
		c->size ? (double)c->written / (double)c->size * 100 : 0,
		(double)c->written / (1 << 20) / seconds);
	fflush(stderr);
	onefd_timer_start(c->loop, timer, timer->deadline + PROGRESS_NS);
}

static void interrupted(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	struct copy *c = signal->data;

	say(c, "stopped, there is no '%s'", c->target);
	end(c, 128 + (int)info->ssi_signo);
}

static int start_signals(struct copy *c)
{
	static const int signos[2] = { SIGINT, SIGTERM };

	for (size_t i = 0; i < 2; i++) {
		int r;

		onefd_signal_init(&c->signals[i], signos[i], interrupted);
		c->signals[i].data = c;
		r = onefd_signal_start(c->loop, &c->signals[i], ONEFD_SIGNAL_BLOCK);
		if (r < 0)
			return r;
	}
	return 0;
}

static int run(struct copy *c)
{
	int r = start_signals(c);

	if (r < 0)
		return r;
	c->step.data = c;
	c->started = onefd_now(c->loop);
	onefd_watch_init(&c->watch, -1, nbd_ready);
	onefd_timer_init(&c->progress, draw_progress);
	c->progress.data = c;
	if (c->terminal)
		onefd_timer_start(c->loop, &c->progress, c->started + PROGRESS_NS);
	/* Only a host's name in it is looked up here and now. */
	if (nbd_aio_connect_uri(c->nbd, c->uri) < 0)
		fail_nbd(c);
	else
		follow(c);
	r = onefd_run(c->loop);
	if (c->terminal)
		fputs("\r\033[K", stderr);
	return r;
}

/* Reads that the server has not answered are in nobody's memory once it is closed. */
static void let_go(struct copy *c)
{
	if (c->status == EXIT_SUCCESS)
		(void)nbd_aio_disconnect(c->nbd, 0);
	nbd_close(c->nbd);
	if (c->out_fd >= 0) {
		if (close(c->out_fd) < 0 && c->status == EXIT_SUCCESS) {
			say(c, "cannot write '%s': %s", c->target, strerror(errno));
			c->status = STATUS_FAILED;
		}
		if (c->status != EXIT_SUCCESS)
			(void)unlink(c->target);
	}
	/* Refused when the run broke off with requests out: what they point at then
	 * stays until the process is gone. */
	if (onefd_free(c->loop) == 0) {
		free(c->slots);
		free(c->memory);
	}
}

static int copy(struct copy *c)
{
	int r = onefd_new(&c->loop, NULL);

	c->nbd = r == 0 ? nbd_create() : NULL;
	if (!c->nbd) {
		say(c, "cannot begin: %s", r < 0 ? strerror(-r) : nbd_get_error());
		(void)onefd_free(c->loop);
		return STATUS_FAILED;
	}
	r = run(c);
	if (r < 0) {
		say(c, "cannot run a loop: %s", strerror(-r));
		c->status = STATUS_FAILED;
	}
	let_go(c);
	return c->status;
}

static void usage(FILE *out)
{
	fputs("usage: onefd-nbdcopy [OPTION]... URI FILE\n"
	      "Copies the NBD export at URI (nbd://HOST, nbd+unix:///?socket=PATH) into FILE,\n"
	      "which must not exist.\n\n"
	      "  -n, --depth=N    N blocks of 256 KiB at once (16)\n"
	      "  -v, --verbose    say how long it took\n"
	      "  -h, --help       this text\n\n"
	      "Exit status: 0 copied, 1 failed, 2 wrong usage, 130 and 143 stopped by SIGINT\n"
	      "and SIGTERM. Unless it is 0 there is no FILE.\n", out);
}

/* 0 when @text is no number from 1 to @most. */
static uint64_t number(const char *text, uint64_t most)
{
	char *rest;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &rest, 10);
	return errno || rest == text || *rest || *text == '-' || value > most ? 0 : value;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "depth", required_argument, NULL, 'n' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static struct copy c = { .depth = 16, .out_fd = -1 };
	int option;

	while ((option = getopt_long(argc, argv, "n:vh", options, NULL)) != -1) {
		if (option == 'n') {
			c.depth = number(optarg, DEPTH_MOST);
		} else if (option == 'v') {
			c.verbose = true;
		} else {
			usage(option == 'h' ? stdout : stderr);
			return option == 'h' ? EXIT_SUCCESS : STATUS_USAGE;
		}
	}
	if (argc - optind != 2 || !c.depth) {
		usage(stderr);
		return STATUS_USAGE;
	}
	c.uri = argv[optind];
	c.target = argv[optind + 1];
	c.terminal = isatty(STDERR_FILENO);
	return copy(&c);
}
