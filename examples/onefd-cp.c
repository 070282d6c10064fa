/*
 * onefd-cp - copies one file with many requests in flight.
 *
 *   cc -D_GNU_SOURCE -o onefd-cp onefd-cp.c $(pkg-config --cflags --libs onefd)
 *
 * A fixed set of buffers, each a small machine of its own: reading a block,
 * writing it, reading the next one that nobody has. The copy grows in a file
 * without a name (or with one of its own, where O_TMPFILE is refused) and takes
 * the name DST when it is whole and on the disk, so whatever happens before that
 * leaves DST as it was.
 *
 * It does not keep holes, and it copies no directories.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <onefd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hosts.h"

#define STATUS_FAILED	1
#define STATUS_USAGE	2
#define PAGE		4096u
#define MEMORY_MOST	(UINT64_C(1) << 30)	/* of all buffers together */
#define PROGRESS_NS	UINT64_C(100000000)
#define NSEC_PER_SEC	1e9

struct copy;

struct slot {
	struct onefd_req req;
	struct copy *copy;
	char *buf;
	off_t offset;		/* of its block */
	size_t length, done;	/* of its block: all, and moved in this direction */
};

struct copy {
	uint64_t depth, block;
	bool in_direct, out_direct, verbose, terminal;
	char source[PATH_MAX], target[PATH_MAX];	/* target: with its last part */
	char real[PATH_MAX];				/* target, through all links */
	char folder[PATH_MAX], temporary[PATH_MAX];	/* of real, beside real */

	const struct host_kind *kind;
	struct host host;		/* what the loop runs in */
	struct onefd *loop;
	struct onefd_req step;		/* the stages that go one by one */
	struct onefd_timer progress;
	struct onefd_signal signals[3];
	struct onefd_file in, out;
	int in_fd, out_fd;
	bool unnamed;			/* out_fd is an O_TMPFILE */
	bool named;			/* temporary is to be unlinked, if we fail */
	bool publishing;		/* too late to stop: DST takes its new content */
	bool over;			/* done or failed: what is out is only awaited */
	int status;
	struct statx in_stat, target_stat;
	bool exists;			/* target, before us */
	off_t size, next, written;
	uint64_t began;
	struct slot *slots;
	char *memory;
};

static void __attribute__((format(printf, 2, 3))) say(struct copy *c, const char *format, ...)
{
	va_list args;

	if (c->terminal)
		fputs("\r\033[K", stderr);
	fputs("onefd-cp: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* What is out then is awaited: see turn_until_over(). */
static void end(struct copy *c, int status)
{
	c->over = true;
	c->status = status;
	onefd_timer_stop(&c->progress);
	for (size_t i = 0; i < 3; i++)
		onefd_signal_stop(&c->signals[i]);
	for (size_t i = 0; c->slots && i < c->depth; i++)
		(void)onefd_cancel(&c->slots[i].req);	/* what is too late, returns */
	(void)onefd_cancel(&c->step);
}

static void fail(struct copy *c, ssize_t error, const char *what, const char *path)
{
	if (c->over)
		return;
	say(c, "%s '%s': %s", what, path, strerror((int)-error));
	end(c, STATUS_FAILED);
}

static void submit(struct copy *c, struct onefd_req *req, onefd_req_fn *fn)
{
	int r = onefd_submit(c->loop, req, fn);

	if (r < 0)
		fail(c, r, "cannot copy", c->source);
}

/* ---- the end: DST takes its new content ---------------------------------- */

/* Where a directory cannot be read or knows no fsync, the name is as safe as
 * that file system makes it. */
static int sync_folder(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return 0;
	r = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
	close(fd);
	return r;
}

static int link_unnamed(struct copy *c)
{
	char proc[64];

	if (linkat(c->out_fd, "", AT_FDCWD, c->temporary, AT_EMPTY_PATH) == 0)
		return 0;
	/* AT_EMPTY_PATH wants a capability before Linux 6.10. */
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", c->out_fd);
	return linkat(AT_FDCWD, proc, AT_FDCWD, c->temporary, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* On a worker. */
static ssize_t publish(void *arg)
{
	struct copy *c = arg;

	if (c->unnamed) {
		int r = link_unnamed(c);
		if (r < 0)
			return r;
		c->named = true;
	}
	if (rename(c->temporary, c->real) < 0)
		return -errno;
	c->named = false;
	return sync_folder(c->folder);
}

static void published(struct onefd_req *req)
{
	struct copy *c = req->data;
	double seconds = (double)(onefd_now(c->loop) - c->began) / NSEC_PER_SEC;

	if (req->res < 0) {
		fail(c, req->res, "cannot create", c->target);
		return;
	}
	if (c->verbose)
		say(c, "%lld bytes in %.2f s", (long long)c->size, seconds);
	end(c, EXIT_SUCCESS);
}

static void synced(struct onefd_req *req)
{
	struct copy *c = req->data;

	if (c->over)
		return;
	if (req->res < 0) {
		fail(c, req->res, "cannot write", c->target);
		return;
	}
	c->publishing = true;
	onefd_prep_call(&c->step, publish, c);
	submit(c, &c->step, published);
}

static void sync_all(struct copy *c)
{
	onefd_prep_fsync(&c->step, &c->out, 0);
	submit(c, &c->step, synced);
}

/* ---- the blocks ---------------------------------------------------------- */

static void slot_next(struct slot *slot);

static void slot_written(struct onefd_req *req);

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

static void slot_read_done(struct onefd_req *req);

static void slot_read(struct slot *slot)
{
	onefd_prep_pread(&slot->req, &slot->copy->in, slot->buf + slot->done,
			 slot->length - slot->done, slot->offset + (off_t)slot->done);
	submit(slot->copy, &slot->req, slot_read_done);
}

static void slot_read_done(struct onefd_req *req)
{
	struct slot *slot = onefd_container(req, struct slot, req);
	struct copy *c = slot->copy;

	if (c->over)
		return;
	if (req->res < 0) {
		fail(c, req->res, "cannot read", c->source);
		return;
	}
	if (req->res == 0) {
		say(c, "'%s' shrank while it was copied", c->source);
		end(c, STATUS_FAILED);
		return;
	}
	slot->done += (size_t)req->res;
	if (slot->done < slot->length) {
		slot_read(slot);
		return;
	}
	slot->done = 0;
	slot_write(slot);
}

/* Takes the next block that nobody has. */
static void slot_next(struct slot *slot)
{
	struct copy *c = slot->copy;
	off_t left = c->size - c->next;

	if (left == 0)
		return;
	slot->offset = c->next;
	slot->length = (uint64_t)left < c->block ? (size_t)left : (size_t)c->block;
	slot->done = 0;
	c->next += (off_t)slot->length;
	slot_read(slot);
}

static int make_slots(struct copy *c)
{
	/* Each buffer on pages of its own, so that O_DIRECT takes it as it is. */
	size_t stride = (c->block + PAGE - 1) / PAGE * PAGE;
	struct slot *slots;

	c->memory = mmap(NULL, c->depth * stride, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	slots = calloc(c->depth, sizeof *slots);
	if (c->memory == MAP_FAILED || !slots) {
		free(slots);
		return -ENOMEM;
	}
	for (size_t i = 0; i < c->depth; i++) {
		slots[i].copy = c;
		slots[i].buf = c->memory + i * stride;
	}
	c->slots = slots;
	return 0;
}

static void copy_blocks(struct copy *c)
{
	int r;

	if (c->size == 0) {
		sync_all(c);
		return;
	}
	r = make_slots(c);
	if (r < 0) {
		fail(c, r, "cannot copy", c->source);
		return;
	}
	for (size_t i = 0; i < c->depth && !c->over; i++)
		slot_next(&c->slots[i]);
}

/* ---- opening ------------------------------------------------------------- */

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

/* With its size given beforehand no write extends the file, and a file system
 * too small says so at once. */
static void allocate(struct copy *c)
{
	if (c->size == 0) {
		copy_blocks(c);
		return;
	}
	onefd_prep_fallocate(&c->step, &c->out, 0, 0, c->size);
	submit(c, &c->step, allocated);
}

/* On a worker. Who was let in before is let in now; the owner can be kept by
 * root alone, so that failing is no error. */
static ssize_t adopt(void *arg)
{
	struct copy *c = arg;

	if (fchown(c->out_fd, c->target_stat.stx_uid, c->target_stat.stx_gid) < 0 && errno != EPERM)
		return -errno;
	return fchmod(c->out_fd, c->target_stat.stx_mode & 0777) < 0 ? -errno : 0;
}

static void adopted(struct onefd_req *req)
{
	struct copy *c = req->data;

	if (c->over)
		return;
	if (req->res < 0)
		fail(c, req->res, "cannot create", c->target);
	else
		allocate(c);
}

static void use_output(struct copy *c)
{
	int r = onefd_file_init(c->loop, &c->out, c->out_fd);

	if (r < 0) {
		fail(c, r, "cannot write", c->target);
	} else if (c->exists) {
		onefd_prep_call(&c->step, adopt, c);
		submit(c, &c->step, adopted);
	} else {
		allocate(c);
	}
}

static void without_direct(struct copy *c, bool *direct, const char *path)
{
	if (c->verbose)
		say(c, "'%s': no O_DIRECT there, going through the page cache", path);
	*direct = false;
}

static void output_opened(struct onefd_req *req);

static void open_output(struct copy *c)
{
	int flags = O_RDWR | O_CLOEXEC | (c->out_direct ? O_DIRECT : 0);
	/* Until adopt() nobody may read what replaces a file of his. */
	mode_t mode = c->exists ? 0600 : c->in_stat.stx_mode & 0777;

	if (c->unnamed)
		onefd_prep_openat(&c->step, AT_FDCWD, c->folder, flags | O_TMPFILE, mode);
	else
		onefd_prep_openat(&c->step, AT_FDCWD, c->temporary, flags | O_CREAT | O_EXCL, mode);
	submit(c, &c->step, output_opened);
}

static void output_opened(struct onefd_req *req)
{
	struct copy *c = req->data;
	ssize_t r = req->res;

	/* Kept also when it is over: it must be closed and unlinked. */
	if (r >= 0) {
		c->out_fd = (int)r;
		c->named = !c->unnamed;
	}
	if (c->over)
		return;
	if (r >= 0) {
		use_output(c);
	} else if (r == -EINVAL && c->out_direct) {
		without_direct(c, &c->out_direct, c->target);
		open_output(c);
	} else if ((r == -EOPNOTSUPP || r == -EISDIR) && c->unnamed) {
		c->unnamed = false;
		open_output(c);
	} else {
		fail(c, r, "cannot create", c->target);
	}
}

/* Whether @size bytes at @buf hold the whole of what was printed. */
static bool fits(int printed, size_t size)
{
	return printed >= 0 && (size_t)printed < size;
}

/* Names the folder of real, and a file in it that nobody has. */
static int name_temporary(struct copy *c)
{
	char *slash = strrchr(c->real, '/');
	uint64_t random = 0;

	if (slash && !slash[1])
		return -ENOTDIR;	/* "name/" is a directory, and there is none */
	if (!slash)
		strcpy(c->folder, ".");
	else
		memcpy(c->folder, c->real, slash == c->real ? 1 : slash - c->real);
	if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
		random = (uint64_t)getpid();	/* O_EXCL decides */
	if (!fits(snprintf(c->temporary, PATH_MAX, "%s/.onefd-cp.%016llx", c->folder,
			   (unsigned long long)random), PATH_MAX))
		return -ENAMETOOLONG;
	return 0;
}

/* On a worker: rename() would replace a link, and what may not be written to. */
static ssize_t resolve(void *arg)
{
	struct copy *c = arg;

	if (c->exists)
		return realpath(c->target, c->real) &&
		       faccessat(AT_FDCWD, c->real, W_OK, AT_EACCESS) == 0 ? 0 : -errno;
	if (readlink(c->target, c->real, PATH_MAX) >= 0)
		return -EEXIST;		/* a link to nowhere */
	strcpy(c->real, c->target);
	return 0;
}

static void resolved(struct onefd_req *req)
{
	struct copy *c = req->data;
	ssize_t r = req->res;

	if (c->over)
		return;
	if (r == 0)
		r = name_temporary(c);
	if (r < 0)
		fail(c, r, "cannot create", c->target);
	else
		open_output(c);
}

static bool same_file(const struct statx *a, const struct statx *b)
{
	return a->stx_ino == b->stx_ino && a->stx_dev_major == b->stx_dev_major &&
	       a->stx_dev_minor == b->stx_dev_minor;
}

static void target_known(struct copy *c)
{
	if (c->exists && same_file(&c->in_stat, &c->target_stat)) {
		say(c, "'%s' and '%s' are the same file", c->source, c->target);
		end(c, STATUS_FAILED);
	} else if (c->exists && S_ISDIR(c->target_stat.stx_mode)) {
		fail(c, -EISDIR, "cannot create", c->target);
	} else if (c->exists && !S_ISREG(c->target_stat.stx_mode)) {
		say(c, "'%s' is not a regular file", c->target);
		end(c, STATUS_FAILED);
	} else {
		onefd_prep_call(&c->step, resolve, c);
		submit(c, &c->step, resolved);
	}
}

static void target_seen(struct onefd_req *req)
{
	struct copy *c = req->data;

	if (c->over)
		return;
	c->exists = req->res == 0;
	if (req->res < 0 && req->res != -ENOENT)
		fail(c, req->res, "cannot create", c->target);
	else
		target_known(c);
}

static void see_target(struct copy *c, onefd_req_fn *fn)
{
	onefd_prep_statx(&c->step, AT_FDCWD, c->target, 0, STATX_BASIC_STATS, &c->target_stat);
	submit(c, &c->step, fn);
}

/* The first look at DST: a directory takes the copy under SRC's name. */
static void place_seen(struct onefd_req *req)
{
	struct copy *c = req->data;
	const char *slash = strrchr(c->source, '/');
	size_t length = strlen(c->target);

	if (c->over)
		return;
	if (req->res < 0 || !S_ISDIR(c->target_stat.stx_mode)) {
		target_seen(req);
		return;
	}
	if (!fits(snprintf(c->target + length, PATH_MAX - length, "/%s",
			   slash ? slash + 1 : c->source), PATH_MAX - length))
		fail(c, -ENAMETOOLONG, "cannot create", c->target);
	else
		see_target(c, target_seen);
}

static void use_source(struct copy *c)
{
	int r = onefd_file_init(c->loop, &c->in, c->in_fd);

	c->size = (off_t)c->in_stat.stx_size;
	if (r < 0)
		fail(c, r, "cannot read", c->source);
	else
		see_target(c, place_seen);
}

static void source_seen(struct onefd_req *req)
{
	struct copy *c = req->data;

	if (c->over)
		return;
	if (req->res < 0) {
		fail(c, req->res, "cannot stat", c->source);
		return;
	}
	if (S_ISREG(c->in_stat.stx_mode)) {
		use_source(c);
		return;
	}
	say(c, "'%s' is %s", c->source,
	    S_ISDIR(c->in_stat.stx_mode) ? "a directory" : "not a regular file");
	end(c, STATUS_FAILED);
}

static void source_opened(struct onefd_req *req);

/* O_NONBLOCK: a FIFO is refused, not waited for. */
static void open_source(struct copy *c)
{
	onefd_prep_openat(&c->step, AT_FDCWD, c->source,
			  O_RDONLY | O_NONBLOCK | O_CLOEXEC | (c->in_direct ? O_DIRECT : 0), 0);
	submit(c, &c->step, source_opened);
}

static void see_source(struct copy *c)
{
	onefd_prep_statx(&c->step, c->in_fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &c->in_stat);
	submit(c, &c->step, source_seen);
}

static void source_opened(struct onefd_req *req)
{
	struct copy *c = req->data;

	if (req->res >= 0)
		c->in_fd = (int)req->res;
	if (c->over)
		return;
	if (req->res >= 0) {
		see_source(c);
	} else if (req->res == -EINVAL && c->in_direct) {
		without_direct(c, &c->in_direct, c->source);
		open_source(c);
	} else {
		fail(c, req->res, "cannot open", c->source);
	}
}

/* ---- the program --------------------------------------------------------- */

static void draw_progress(struct onefd_timer *timer)
{
	struct copy *c = timer->data;
	double seconds = (double)(onefd_now(c->loop) - c->began) / NSEC_PER_SEC;
	double share = c->size ? (double)c->written / (double)c->size : 0;
	static const char bar[] = "########################################";

	fprintf(stderr, "\r\033[K[%-40.*s] %3.0f %%  %.0f MiB/s", (int)(share * 40), bar, share * 100,
		(double)c->written / (1 << 20) / seconds);
	fflush(stderr);
	onefd_timer_start(c->loop, timer, timer->deadline + PROGRESS_NS);
}

static void interrupted(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	struct copy *c = signal->data;

	if (c->publishing || c->over)
		return;
	say(c, "stopped, '%s' is as it was", c->target);
	end(c, 128 + (int)info->ssi_signo);
}

static ssize_t unlink_temporary(void *arg)
{
	struct copy *c = arg;

	return unlink(c->temporary) < 0 ? -errno : 0;
}

static void unlinked(struct onefd_req *req)
{
	struct copy *c = req->data;

	if (req->res < 0)
		say(c, "cannot remove '%s': %s", c->temporary, strerror((int)-req->res));
}

/* Under nohup SIGHUP stays ignored. A shell ignores SIGINT for what it runs in
 * the background, but one that is sent on purpose is meant. */
static bool is_ignored(int signo)
{
	struct sigaction action;

	return signo == SIGHUP && sigaction(signo, NULL, &action) == 0 &&
	       action.sa_handler == SIG_IGN;
}

static int start_signals(struct copy *c)
{
	static const int signos[3] = { SIGINT, SIGTERM, SIGHUP };

	for (size_t i = 0; i < 3; i++) {
		int r;

		if (is_ignored(signos[i]))
			continue;
		onefd_signal_init(&c->signals[i], signos[i], interrupted);
		c->signals[i].data = c;
		r = onefd_signal_start(c->loop, &c->signals[i], ONEFD_SIGNAL_BLOCK);
		if (r < 0)
			return r;
	}
	return 0;
}

/* In any host the same, where native could as well say onefd_run(). */
static int turn_until_over(struct copy *c)
{
	int r = 0;

	while (r == 0 && (!c->over || onefd_pending(c->loop)))
		r = host_step(&c->host, -1);
	return r;
}

static int run(struct copy *c)
{
	int r = start_signals(c);

	if (r < 0)
		return r;
	c->began = onefd_now(c->loop);
	onefd_timer_init(&c->progress, draw_progress);
	c->progress.data = c;
	if (c->terminal)
		onefd_timer_start(c->loop, &c->progress, c->began + PROGRESS_NS);
	open_source(c);
	r = turn_until_over(c);
	if (r == 0 && c->named) {
		onefd_prep_call(&c->step, unlink_temporary, c);
		submit(c, &c->step, unlinked);
		r = turn_until_over(c);
	}
	if (c->terminal)
		fputs("\r\033[K", stderr);
	return r;
}

static int run_in_host(struct copy *c)
{
	int r = host_open(&c->host, c->kind, c->loop);

	if (r < 0)
		return r;
	r = run(c);
	host_close(&c->host);
	return r;
}

static int copy(struct copy *c)
{
	struct onefd_config config = { .depth = (uint32_t)c->depth };
	int r = onefd_new(&c->loop, &config);

	if (r == 0) {
		c->step.data = c;
		r = run_in_host(c);
		/* Refused when the run broke off with requests out: what they
		 * point at then stays until the process is gone. */
		if (onefd_free(c->loop) == 0)
			free(c->slots);
	}
	if (r < 0) {
		say(c, "cannot run a loop: %s", strerror(-r));
		return STATUS_FAILED;
	}
	return c->status;
}

static void usage(FILE *out)
{
	fputs("usage: onefd-cp [OPTION]... SRC DST\n"
	      "Copies the file SRC to DST, or into it when DST is a directory.\n\n"
	      "  -d, --direct     past the page cache (O_DIRECT), where that is possible\n"
	      "  -n, --depth=N    N blocks at once (32)\n"
	      "  -b, --block=N    N bytes to a block; k, M and G multiply (256k)\n"
	      "  -l, --loop=NAME  run inside that loop: libev, libuv, libevent, glib or\n"
	      "                   sd-event, where it is built in (native: in none)\n"
	      "  -v, --verbose    say what was chosen, and how long it took\n"
	      "  -h, --help       this text\n\n"
	      "Exit status: 0 copied, 1 failed, 2 wrong usage, 130 and 143 stopped by SIGINT\n"
	      "and SIGTERM. DST takes its new content at the end, all at once.\n", out);
}

/* 0 when @text is no number from 1 to @most. */
static uint64_t number(const char *text, uint64_t most)
{
	char *rest;
	uint64_t value, unit = 1;

	errno = 0;
	value = strtoull(text, &rest, 10);
	if (*rest == 'k' || *rest == 'K')
		unit = UINT64_C(1) << 10;
	else if (*rest == 'M')
		unit = UINT64_C(1) << 20;
	else if (*rest == 'G')
		unit = UINT64_C(1) << 30;
	if (errno || rest == text || *text == '-' || rest[unit > 1] || value > most / unit)
		return 0;
	return value * unit;
}

static const struct option options[] = {
	{ "direct", no_argument, NULL, 'd' },
	{ "depth", required_argument, NULL, 'n' },
	{ "block", required_argument, NULL, 'b' },
	{ "loop", required_argument, NULL, 'l' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static bool parse(struct copy *c, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "dn:b:l:vh", options, NULL)) != -1) {
		switch (option) {
		case 'd':
			c->in_direct = c->out_direct = true;
			break;
		case 'n':
			c->depth = number(optarg, 4096);
			break;
		case 'b':
			c->block = number(optarg, MEMORY_MOST);
			break;
		case 'l':
			c->kind = host_named("onefd-cp", optarg);
			if (!c->kind)
				exit(STATUS_USAGE);
			break;
		case 'v':
			c->verbose = true;
			break;
		case 'h':
			usage(stdout);
			exit(EXIT_SUCCESS);
		default:
			return false;
		}
	}
	return argc - optind == 2 && c->depth && c->block && c->depth * c->block <= MEMORY_MOST;
}

int main(int argc, char **argv)
{
	static struct copy c = { .depth = 32, .block = 256 << 10, .kind = host_kinds,
				 .in_fd = -1, .out_fd = -1 };

	if (!parse(&c, argc, argv)) {
		usage(stderr);
		return STATUS_USAGE;
	}
	c.unnamed = true;
	c.terminal = isatty(STDERR_FILENO);
	if (!fits(snprintf(c.source, PATH_MAX, "%s", argv[optind]), PATH_MAX) ||
	    !fits(snprintf(c.target, PATH_MAX, "%s", argv[optind + 1]), PATH_MAX)) {
		say(&c, "%s", strerror(ENAMETOOLONG));
		return STATUS_FAILED;
	}
	return copy(&c);
}
