/*
 * onefd-stress - random work of every kind, to see whether the loop keeps its word.
 *
 *   cc -D_GNU_SOURCE -pthread -o onefd-stress onefd-stress.c $(pkg-config --cflags --libs onefd)
 *
 * Step k of a run is planned from the seed and k alone, never from what has
 * completed so far: the same seed makes the same choices, and "hash=" is the
 * hash of the plans. Everything that is asked for is entered in a book before,
 * and every callback is held against it: once, not from inside a call, not after
 * a stop, with the answer that the model of the files expects, byte for byte.
 *
 * It measures nothing. What the model cannot foresee (which of two overlapping
 * writes comes last), it does not ask for: overlapping ranges wait for each other.
 */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <getopt.h>
#include <limits.h>
#include <onefd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hosts.h"

#define RECORDS		256u		/* requests in flight, at most */
#define FILES		6u
#define FILE_MOST	(256u << 10)	/* bytes to a file, at most */
#define LENGTH_MOST	(64u << 10)	/* bytes to a request */
#define PIECES_MOST	8u
#define BUFFER		(112u << 10)	/* LENGTH_MOST, with a page of gap to each piece */
#define TIMERS		64u
#define PAIRS		16u
#define BACKLOG		8192u		/* bytes in one pair */
#define HELPERS		2u
#define TASKS		64u		/* of each helper */
#define OPENED		16u		/* names that openat makes */
#define REALTIME_MOST	64u		/* signals queued */
#define COMPLAINTS	20u		/* printed, of more they are only counted */
#define STALL_NS	UINT64_C(30000000000)
#define USEC		UINT64_C(1000)
#define MSEC		UINT64_C(1000000)

#define OURS		0x5a		/* fills the buffers of requests that are not out */
#define UNTOUCHED	0xa5		/* ... and what a request may not touch */

/* ---- what is asked for on the command line ------------------------------- */

static struct {
	uint64_t ops, seed, cancel;
	const char *parent;		/* where the directory is made */
	bool direct, verbose, depth_fixed, budget_fixed, threads_fixed;
	struct onefd_config config;
	const struct host_kind *kind;
} options = { .ops = 10000, .seed = 1, .cancel = 10, .kind = host_kinds };

/* ---- the account --------------------------------------------------------- */

static struct {
	uint64_t submitted, completed, cancelled, lost, twice, inside, corrupt, wrong;
	uint64_t timers, signals, tasks, events, lives;
} account;

static struct onefd *loop;
static struct host host;		/* what the loop runs in */
static uint64_t step_number, hash;
static unsigned calling;		/* inside which a callback may not run */
static bool in_callback, stuck, quit;
static int quit_signo;
static uint64_t ran;			/* callbacks, to hold dispatch's answer against */

static void __attribute__((format(printf, 2, 3))) blame(uint64_t *count, const char *format, ...)
{
	static unsigned printed;
	va_list args;

	++*count;
	if (printed++ >= COMPLAINTS)
		return;
	fprintf(stderr, "onefd-stress: step %llu: ", (unsigned long long)step_number);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static void die(const char *what, int error)
{
	fprintf(stderr, "onefd-stress: %s: %s\n", what, strerror(error));
	exit(2);
}

/* Brackets every call into the loop during which no callback may run. */
#define CALL(expression) ({			\
	calling++;				\
	__typeof__(expression) answer_ = (expression); \
	calling--;				\
	answer_;				\
})

#define CALL_VOID(expression) do {		\
	calling++;				\
	expression;				\
	calling--;				\
} while (0)

/* Opens every callback; leave() closes it. */
static void enter(const char *what)
{
	if (calling || in_callback)
		blame(&account.inside, "the %s callback ran inside %s", what,
		      calling ? "a call" : "another callback");
	in_callback = true;
	ran++;
}

static void leave(void)
{
	in_callback = false;
}

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 * MSEC + (uint64_t)ts.tv_nsec;
}

/* ---- the plan ------------------------------------------------------------ */

enum kind {
	READ, WRITE, FSYNC, POLL, OPENAT, STATX, FALLOCATE, TRUNCATE, WORK, CLOSED,
	TIMER, SIGNAL, TASK, SOCKET, REOPEN, BAD, RUN, FLUSH, LIFE,
	KINDS
};

/* Out of 2000 steps. LIFE ends the loop and makes a new one. */
static const unsigned weights[KINDS] = {
	[READ] = 600, [WRITE] = 520, [FSYNC] = 6, [POLL] = 80, [OPENAT] = 60, [STATX] = 60,
	[FALLOCATE] = 24, [TRUNCATE] = 6, [WORK] = 90, [CLOSED] = 30, [TIMER] = 180,
	[SIGNAL] = 20, [TASK] = 100, [SOCKET] = 160, [REOPEN] = 4, [BAD] = 20, [RUN] = 19,
	[FLUSH] = 20, [LIFE] = 1,
};

enum shape { PAGES, SECTORS, ODD_LENGTH, ODD_RANGE, ODD_ALL };

enum then { NOTHING, AGAIN, CANCEL_OTHER, NESTED, FLUSH_INSIDE, SUBMIT_OTHER, STOP_TIMER, THENS };

/* What one step does; every member is drawn always, needed or not. */
struct plan {
	uint64_t pattern;
	enum kind kind;
	enum shape shape;
	enum then then;
	unsigned which, act, offset, length, pieces;
	unsigned cancel;		/* 0: no; 1: at once; else so many steps later */
	bool doomed;			/* cancel, indeed */
	unsigned turn, variant, cap;
};

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static unsigned draw(uint64_t *dice, unsigned sides)
{
	unsigned side;

	*dice = mix(*dice);
	side = (unsigned)((*dice >> 32) * sides >> 32);
	hash = mix(hash ^ side);
	return side;
}

static enum kind draw_kind(uint64_t *dice)
{
	unsigned sum = 0, at, kind = 0;

	for (unsigned i = 0; i < KINDS; i++)
		sum += weights[i];
	at = draw(dice, sum);
	while (at >= weights[kind])
		at -= weights[kind++];
	return (enum kind)kind;
}

/* Mostly small, so that a run is about the many and not about the disk. */
static unsigned draw_length(uint64_t *dice)
{
	static const unsigned most[8] = { 16, 512, 4096, 4096, 8192, 16384, 16384, LENGTH_MOST };
	unsigned limit = most[draw(dice, 8)];

	return draw(dice, limit + 1);
}

static enum shape draw_shape(uint64_t *dice)
{
	static const enum shape shapes[16] = {
		PAGES, PAGES, PAGES, PAGES, PAGES, PAGES, SECTORS, SECTORS, SECTORS,
		ODD_LENGTH, ODD_LENGTH, ODD_RANGE, ODD_RANGE, ODD_ALL, ODD_ALL, ODD_ALL,
	};

	return shapes[draw(dice, 16)];
}

static struct plan make_plan(uint64_t k)
{
	static const unsigned caps[6] = { 1, 4, 16, 64, RECORDS, RECORDS };
	uint64_t dice = mix(options.seed) ^ mix(~k);
	uint64_t phase = mix(options.seed ^ mix(k / 512));
	struct plan plan = { .pattern = mix(dice), .kind = draw_kind(&dice) };

	plan.shape = draw_shape(&dice);
	plan.then = draw(&dice, 8) ? NOTHING : (enum then)draw(&dice, THENS);
	plan.which = draw(&dice, 1 << 20);
	plan.act = draw(&dice, 1 << 20);
	plan.offset = draw(&dice, FILE_MOST);
	plan.length = draw_length(&dice);
	plan.pieces = draw(&dice, 3) ? 1 : 1 + draw(&dice, PIECES_MOST);
	plan.doomed = draw(&dice, 100) < options.cancel;
	plan.cancel = 1 + draw(&dice, 3) * draw(&dice, 40);
	plan.turn = draw(&dice, 100);
	plan.variant = draw(&dice, 100);
	plan.cap = caps[draw(&phase, 6)];
	return plan;
}

/* ---- the model of the files ---------------------------------------------- */

struct model {
	struct onefd_file file;
	int fd;
	char name[8];
	bool direct;
	off_t size;			/* as settled: by what has called back */
	uint8_t *bytes;			/* zeros past the size */
};

static struct model models[FILES];
static char directory[PATH_MAX];
static int directory_fd = -1;
static struct model scratch;		/* its descriptors are closed in flight */

static void open_model(struct model *model, bool direct)
{
	int flags = O_RDWR | O_CREAT | O_CLOEXEC;

	model->direct = direct;
	model->fd = openat(directory_fd, model->name, flags | (direct ? O_DIRECT : 0), 0600);
	if (model->fd < 0 && errno == EINVAL && direct) {
		model->direct = false;
		model->fd = openat(directory_fd, model->name, flags, 0600);
	}
	if (model->fd < 0)
		die(model->name, errno);
}

static void init_model(struct model *model)
{
	int r = CALL(onefd_file_init(loop, &model->file, model->fd));

	if (r < 0)
		blame(&account.wrong, "onefd_file_init answered %d", r);
}

static void make_models(void)
{
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(models[i].name, sizeof models[i].name, "f%u", i);
		models[i].bytes = calloc(1, FILE_MOST);
		if (!models[i].bytes)
			die("memory", ENOMEM);
		open_model(&models[i], options.direct && i % 2);
	}
	strcpy(scratch.name, "scratch");
	open_model(&scratch, false);
	if (ftruncate(scratch.fd, LENGTH_MOST) < 0)
		die(scratch.name, errno);
}

/* Through a descriptor of its own, as another program would see the file. */
static void verify_model(const struct model *model)
{
	static uint8_t seen[FILE_MOST + 1];
	int fd = openat(directory_fd, model->name, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -errno : pread(fd, seen, sizeof seen, 0);

	if (length != model->size)
		blame(&account.corrupt, "%s is %zd bytes long, not %lld", model->name, length,
		      (long long)model->size);
	for (off_t i = 0; i < length && i < model->size; i++) {
		if (seen[i] == model->bytes[i])
			continue;
		blame(&account.corrupt, "%s differs at byte %lld", model->name, (long long)i);
		break;
	}
	if (fd >= 0)
		close(fd);
}

/* ---- the book of requests ------------------------------------------------ */

struct record {
	struct onefd_req req;
	bool out;
	bool promised;			/* cancel said 0 */
	bool again;			/* submit once more when it is done */
	unsigned callbacks;
	uint64_t serial;		/* tells this use of the record from the next */
	struct plan plan;
	struct model *model;		/* whose range below is taken, or NULL */
	off_t from, to;
	bool writes;			/* the range is ours alone */
	bool past;			/* it went past the settled end of the file */
	ssize_t expected;		/* of a read */
	uint8_t *buffer;
	size_t span;			/* of buffer, with the gaps */
	struct iovec iov[PIECES_MOST];
	struct statx stat;
	char name[16];
	int fds[2];			/* of a poll; fds[1] -1 once it was made ready */
	uint64_t due;			/* of a poll: the step that makes it ready */
	struct onefd_file own;		/* of a file closed in flight */
};

static struct record records[RECORDS];
static struct { struct record *record; uint64_t serial, step; } doomed[RECORDS];
static unsigned out;

static bool filled(const uint8_t *bytes, size_t length, uint8_t value)
{
	return !length || (bytes[0] == value && !memcmp(bytes, bytes + 1, length - 1));
}

static uint8_t pattern_byte(uint64_t pattern, size_t at)
{
	return (uint8_t)((pattern + (at >> 3) * UINT64_C(0x9e3779b97f4a7c15)) >> (at & 7) * 8);
}

/* Runs over the bytes of a vector, in order. */
struct cursor {
	const struct iovec *iov;
	size_t at;
};

static uint8_t *cursor_next(struct cursor *cursor)
{
	while (cursor->at == cursor->iov->iov_len) {
		cursor->iov++;
		cursor->at = 0;
	}
	return (uint8_t *)cursor->iov->iov_base + cursor->at++;
}

static void fill_pattern(struct record *record)
{
	struct cursor cursor = { record->iov, 0 };

	for (off_t i = 0; i < record->to - record->from; i++)
		*cursor_next(&cursor) = pattern_byte(record->plan.pattern, (size_t)i);
}

static size_t unit_of(enum shape shape)
{
	return shape == PAGES ? 4096 : shape == SECTORS ? 512 : 1;
}

/* Places the pieces in the buffer, with gaps that nobody may touch. */
static void lay_out(struct record *record, size_t length)
{
	const struct plan *plan = &record->plan;
	size_t unit = unit_of(plan->shape), gap = unit > 1 ? unit : 16;
	size_t share = length / plan->pieces / unit * unit;
	uint8_t *at = record->buffer;

	if (plan->shape == SECTORS)
		at += 512;
	else if (plan->shape == ODD_ALL)
		at += 1 + plan->which % 61;
	for (unsigned i = 0; i < plan->pieces; i++) {
		record->iov[i].iov_base = at;
		record->iov[i].iov_len = i + 1 < plan->pieces ? share : length;
		length -= record->iov[i].iov_len;
		at += record->iov[i].iov_len + gap;
	}
	record->span = (size_t)(at - record->buffer);
	memset(record->buffer, UNTOUCHED, record->span);
}

static bool gaps_untouched(const struct record *record)
{
	const uint8_t *at = record->buffer, *end = at + record->span;

	for (unsigned i = 0; i < record->plan.pieces; i++) {
		const uint8_t *piece = record->iov[i].iov_base;
		if (!filled(at, (size_t)(piece - at), UNTOUCHED))
			return false;
		at = piece + record->iov[i].iov_len;
	}
	return filled(at, (size_t)(end - at), UNTOUCHED);
}

/* A device that still writes to a buffer handed back is found here. */
static void check_idle_buffer(struct record *record)
{
	if (!filled(record->buffer, record->span, OURS))
		blame(&account.corrupt, "a buffer changed after its callback");
	record->span = 0;
}

static void make_records(void)
{
	for (unsigned i = 0; i < RECORDS; i++) {
		records[i].buffer = aligned_alloc(4096, BUFFER);
		if (!records[i].buffer)
			die("memory", ENOMEM);
	}
}

/* Whether the range [from, to) must wait for a request that is out. */
static bool conflicts(const struct model *model, off_t from, off_t to, bool writes)
{
	bool past = to > model->size;

	for (unsigned i = 0; i < RECORDS; i++) {
		const struct record *other = &records[i];

		if (!other->out || other->model != model)
			continue;
		if ((writes || other->writes) && from < other->to && other->from < to)
			return true;
		/* Where the file ends is known between extensions only. */
		if (past && other->past && writes != other->writes)
			return true;
	}
	return false;
}

/* ---- turning ------------------------------------------------------------- */

static bool embedded;

static bool readable(int timeout_ms)
{
	struct pollfd pfd = { .fd = CALL(onefd_fd(loop)), .events = POLLIN };

	return poll(&pfd, 1, timeout_ms) > 0;
}

static void turn_native(int timeout_ms)
{
	uint64_t before = ran;
	int r;

	/* Waits by the one descriptor, as a host loop would. */
	if (embedded && timeout_ms) {
		(void)readable(timeout_ms);
		timeout_ms = 0;
	}
	r = onefd_dispatch(loop, timeout_ms);
	if (r < 0 || (uint64_t)r != ran - before)
		blame(&account.wrong, "dispatch answered %d after %llu callbacks", r,
		      (unsigned long long)(ran - before));
}

static void hang(void)
{
	int r = CALL(host_attach(&host, loop));

	if (r < 0)
		die("cannot attach to the host", -r);
}

static struct onefd_stats counts(void)
{
	struct onefd_stats stats;

	(void)CALL(onefd_stats(loop, &stats, offsetof(struct onefd_stats, in_flight)));
	return stats;
}

/* What dispatch answers, the host keeps to itself: the loop's own counts are held
 * against ours, and each turn against what the descriptor said. */
static void turn_in_host(int timeout_ms)
{
	struct onefd_stats before = counts(), after;
	uint64_t ran_before = ran, turns;
	bool ready;
	int r;

	if (!host.loop)
		hang();			/* a callback took it out */
	ready = readable(0);
	r = host_step(&host, timeout_ms);
	after = counts();
	turns = after.turns - before.turns;
	if (r < 0)
		blame(&account.wrong, "the host gave up with %d", r);
	if (turns > 1 || turns < ready)
		blame(&account.wrong, "the host gave a loop that was %sreadable %llu turns",
		      ready ? "" : "not ", (unsigned long long)turns);
	if (after.callbacks - before.callbacks != ran - ran_before)
		blame(&account.wrong, "the loop counted %llu callbacks, not %llu",
		      (unsigned long long)(after.callbacks - before.callbacks),
		      (unsigned long long)(ran - ran_before));
}

/* How many callbacks ran. */
static uint64_t turn(int timeout_ms)
{
	uint64_t before = ran;

	if (host_is_native(&host))
		turn_native(timeout_ms);
	else
		turn_in_host(timeout_ms);
	if (onefd_pending(loop) != out)
		blame(&account.wrong, "%zu requests pending, not %u", onefd_pending(loop), out);
	return ran - before;
}

static void ready_polls(uint64_t step);

/* Turns until @done; nothing for half a minute means that something is lost. */
static bool turn_until(bool (*done)(const void *), const void *arg)
{
	uint64_t last = clock_ns();

	while (!stuck && !done(arg)) {
		/* Polls may have taken the whole depth: others wait for them. */
		if (turn(10) > 0)
			last = clock_ns();
		else
			ready_polls(UINT64_MAX);
		stuck = clock_ns() - last > STALL_NS;
	}
	return !stuck;
}

static bool below(const void *arg)
{
	const unsigned *limit = arg;

	return out < *limit;
}

static bool free_range(const void *arg)
{
	const struct record *record = arg;

	return !conflicts(record->model, record->from, record->to, record->writes);
}

/* ---- requests: their callback -------------------------------------------- */

static void request_done(struct onefd_req *req);

static void send_request(struct record *record)
{
	int r;

	record->past = record->model && record->to > record->model->size;
	record->out = true;
	record->callbacks = 0;
	record->promised = false;
	out++;
	r = CALL(onefd_submit(loop, &record->req, request_done));
	if (r < 0) {
		record->out = false;
		out--;
		blame(&account.wrong, "a good request of kind %d was refused: %d",
		      (int)record->plan.kind, r);
		return;
	}
	account.submitted++;
}

static void cancel_request(struct record *record)
{
	int r = CALL(onefd_cancel(&record->req));

	if (!record->out ? r != -EINVAL : r != 0 && r != -EBUSY)
		blame(&account.wrong, "cancel answered %d to a request that is %s", r,
		      record->out ? "out" : "not out");
	if (r == 0)
		record->promised = true;
}

static off_t clamp(off_t value, off_t least, off_t most)
{
	return value < least ? least : value > most ? most : value;
}

static bool may_refuse(const struct record *record, ssize_t res)
{
	return (record->req.rw_flags & RWF_NOWAIT) && (res == -EAGAIN || res == -EOPNOTSUPP);
}

static void check_read(struct record *record)
{
	struct cursor cursor = { record->iov, 0 };
	off_t due = clamp(record->model->size - record->from, 0, record->to - record->from);
	ssize_t res = record->req.res;

	if (may_refuse(record, res))
		return;
	if (res != due && !(record->req.rw_flags & RWF_NOWAIT && res >= 0 && res < due))
		blame(&account.wrong, "a read of %lld at %lld in %s of %lld answered %zd",
		      (long long)(record->to - record->from), (long long)record->from,
		      record->model->name, (long long)record->model->size, res);
	for (off_t i = 0; i < res && i < due; i++) {
		if (*cursor_next(&cursor) == record->model->bytes[record->from + i])
			continue;
		blame(&account.corrupt, "a read of %s is wrong at byte %lld, %lld after its start",
		      record->model->name, (long long)(record->from + i), (long long)i);
		break;
	}
	if (!gaps_untouched(record))
		blame(&account.corrupt, "a read wrote outside of its buffers");
}

static void grow_model(struct model *model, off_t to)
{
	if (to > model->size)
		model->size = to;
}

static void check_write(struct record *record)
{
	struct cursor cursor = { record->iov, 0 };
	struct model *model = record->model;
	off_t length = record->to - record->from;
	ssize_t res = record->req.res;

	if (!gaps_untouched(record))
		blame(&account.corrupt, "a write wrote to its buffers");
	if (may_refuse(record, res))
		return;
	if (res != length && !(record->req.rw_flags & RWF_NOWAIT && res > 0 && res < length))
		blame(&account.wrong, "a write of %lld at %lld in %s answered %zd",
		      (long long)length, (long long)record->from, model->name, res);
	for (off_t i = 0; i < res && i < length; i++) {
		uint8_t byte = *cursor_next(&cursor);
		if (byte != pattern_byte(record->plan.pattern, (size_t)i))
			blame(&account.corrupt, "a write changed its buffer");
		model->bytes[record->from + i] = byte;
	}
	if (res > 0)
		grow_model(model, record->from + res);
}

enum { FALLOCATE_EXTEND, FALLOCATE_KEEP, FALLOCATE_PUNCH };

static void check_fallocate(struct record *record)
{
	struct model *model = record->model;
	unsigned act = record->plan.act % 3;

	if (record->req.res == -EOPNOTSUPP)
		return;
	if (record->req.res != 0)
		blame(&account.wrong, "fallocate answered %zd", record->req.res);
	else if (act == FALLOCATE_EXTEND)
		grow_model(model, record->to);
	else if (act == FALLOCATE_PUNCH)
		memset(model->bytes + record->from, 0, (size_t)(record->to - record->from));
}

static void check_truncate(struct record *record)
{
	struct model *model = record->model;
	off_t size = record->plan.offset;

	if (record->req.res != 0)
		blame(&account.wrong, "truncate answered %zd", record->req.res);
	if (size < model->size)
		memset(model->bytes + size, 0, (size_t)(model->size - size));
	model->size = size;
}

static void check_poll(struct record *record)
{
	ssize_t res = record->req.res;

	if (res != -EOPNOTSUPP && !(res > 0 && res & EPOLLIN))
		blame(&account.wrong, "poll answered %zd", res);
}

enum { OPEN_OLD, OPEN_NEW, OPEN_MISSING, OPEN_DIRECTORY, OPENS };

static void check_openat(struct record *record)
{
	ssize_t res = record->req.res;

	if (record->plan.act % OPENS == OPEN_MISSING ? res != -ENOENT : res < 0)
		blame(&account.wrong, "openat of %s answered %zd", record->name, res);
	if (res >= 0)
		close((int)res);
}

static void check_statx(struct record *record)
{
	ssize_t res = record->req.res;

	if (record->plan.act % OPENS == OPEN_MISSING ? res != -ENOENT : res != 0)
		blame(&account.wrong, "statx of %s answered %zd", record->name, res);
	else if (res == 0 && record->plan.act % OPENS == OPEN_OLD && !S_ISREG(record->stat.stx_mode))
		blame(&account.wrong, "statx of %s filled in nothing", record->name);
}

/* Of a call: any number but the one that says it was cancelled. */
static ssize_t planned_answer(const struct record *record)
{
	ssize_t answer = (ssize_t)(record->plan.act % 4096) - 2048;

	return answer == -ECANCELED ? 0 : answer;
}

static void check_answer(struct record *record)
{
	switch (record->plan.kind) {
	case READ:
		check_read(record);
		break;
	case WRITE:
		check_write(record);
		break;
	case FALLOCATE:
		check_fallocate(record);
		break;
	case TRUNCATE:
		check_truncate(record);
		break;
	case POLL:
		check_poll(record);
		break;
	case OPENAT:
		check_openat(record);
		break;
	case STATX:
		check_statx(record);
		break;
	case WORK:
		if (record->req.res != planned_answer(record))
			blame(&account.wrong, "a call answered %zd", record->req.res);
		break;
	case FSYNC:
		if (record->req.res != 0)
			blame(&account.wrong, "fsync answered %zd", record->req.res);
		break;
	default:
		break;		/* CLOSED: any answer is one */
	}
}

/* Hands the memory back to us; see check_idle_buffer(). */
static void release(struct record *record)
{
	record->out = false;
	out--;
	memset(record->buffer, OURS, record->span);
	if (record->plan.kind != POLL)
		return;
	close(record->fds[0]);
	if (record->fds[1] >= 0)
		close(record->fds[1]);
}

static struct record *any_out(unsigned from)
{
	for (unsigned i = 0; i < RECORDS; i++) {
		if (records[(from + i) % RECORDS].out)
			return &records[(from + i) % RECORDS];
	}
	return NULL;
}

static void stop_timer(unsigned i);

static void must_be_busy(const char *what, int r)
{
	if (r != -EBUSY)
		blame(&account.wrong, "%s answered %d, not -EBUSY", what, r);
}

/* Out of the host, at times into it again at once, else before the next turn. */
static void leave_host(const struct plan *plan)
{
	if (host_is_native(&host) || plan->variant % 3 == 0)
		return;
	CALL_VOID(host_detach(&host));
	CALL_VOID(host_detach(&host));
	if (plan->variant % 3 == 1)
		hang();
}

/* What a callback does besides, as planned when its request was made. */
static void act_inside(const struct plan *plan)
{
	struct record *other = any_out(plan->which % RECORDS);

	switch (plan->then) {
	case CANCEL_OTHER:
		if (other)
			cancel_request(other);
		break;
	case NESTED:
		must_be_busy("dispatch in a callback", CALL(onefd_dispatch(loop, 0)));
		must_be_busy("free in a callback", CALL(onefd_free(loop)));
		must_be_busy("drain in a callback", CALL(onefd_drain(loop, 0)));
		must_be_busy("run in a callback", CALL(onefd_run(loop)));
		leave_host(plan);
		break;
	case FLUSH_INSIDE:
		(void)CALL(onefd_flush(loop));
		break;
	case SUBMIT_OTHER:
		if (other)
			must_be_busy("submit of what is out",
				     CALL(onefd_submit(loop, &other->req, request_done)));
		break;
	case STOP_TIMER:
		stop_timer(plan->act % TIMERS);
		break;
	default:
		break;
	}
}

static void request_done(struct onefd_req *req)
{
	struct record *record = onefd_container(req, struct record, req);
	bool was_cancelled = req->res == -ECANCELED;
	struct plan plan = record->plan;

	enter("request");
	if (record->callbacks++ || !record->out) {
		blame(&account.twice, "a request of kind %d called back twice", (int)plan.kind);
		leave();
		return;
	}
	account.completed++;
	account.cancelled += was_cancelled;
	if (record->promised != was_cancelled)
		blame(&account.wrong, "cancel %s, and a request of kind %d answered %zd",
		      record->promised ? "promised" : "did not promise", (int)plan.kind, req->res);
	if (!was_cancelled)
		check_answer(record);
	if (record->again && !was_cancelled) {
		record->again = false;
		out--;
		record->out = false;
		send_request(record);
	} else {
		release(record);
	}
	act_inside(&plan);
	leave();
}

/* ---- requests: making them ----------------------------------------------- */

static struct record *take_record(const struct plan *plan)
{
	static uint64_t serial;

	for (unsigned i = 0; i < RECORDS; i++) {
		struct record *record = &records[(plan->which + i) % RECORDS];

		if (record->out)
			continue;
		check_idle_buffer(record);
		record->plan = *plan;
		record->serial = ++serial;
		record->again = false;
		record->model = NULL;
		return record;
	}
	return NULL;
}

/* Sends it, and enters when it is to be cancelled. */
static void launch(struct record *record)
{
	unsigned later = record->plan.cancel;

	send_request(record);
	if (!record->plan.doomed || !record->out)
		return;
	if (later == 1) {
		cancel_request(record);
		return;
	}
	unsigned i = (unsigned)(record - records);
	doomed[i].record = record;
	doomed[i].serial = record->serial;
	doomed[i].step = step_number + later;
}

static void cancel_doomed(void)
{
	for (unsigned i = 0; i < RECORDS; i++) {
		struct record *record = doomed[i].record;

		if (!record || doomed[i].step > step_number)
			continue;
		doomed[i].record = NULL;
		if (record->out && record->serial == doomed[i].serial)
			cancel_request(record);
	}
}

/* Takes the range once nothing that is out stands in its way. */
static bool take_range(struct record *record, off_t from, off_t to, bool writes)
{
	record->model = &models[record->plan.act % FILES];
	record->from = from;
	record->to = to;
	record->writes = writes;
	return turn_until(free_range, record);
}

static bool take_planned_range(struct record *record, bool writes)
{
	const struct plan *plan = &record->plan;
	off_t unit = plan->shape == ODD_LENGTH ? 4096 : (off_t)unit_of(plan->shape);
	off_t from = (off_t)plan->offset / unit * unit;
	off_t length = (off_t)plan->length;

	unit = (off_t)unit_of(plan->shape);
	length = length / unit * unit;
	if (length > FILE_MOST - from)
		length = (FILE_MOST - from) / unit * unit;
	return take_range(record, from, from + length, writes);
}

static void garnish(struct record *record)
{
	const struct plan *plan = &record->plan;

	record->again = plan->then == AGAIN;
	if (plan->variant < 3)
		record->req.rw_flags = RWF_NOWAIT;
	else if (plan->variant == 3 && plan->kind == WRITE)
		record->req.rw_flags = RWF_DSYNC;
	else if (plan->variant < 6)
		record->req.ioprio = 2 << 13 | 4;	/* best effort, 4 */
}

static void do_read(struct record *record)
{
	size_t length;

	if (!take_planned_range(record, false))
		return;
	length = (size_t)(record->to - record->from);
	lay_out(record, length);
	if (record->plan.pieces == 1 && record->plan.variant % 2)
		onefd_prep_pread(&record->req, &record->model->file, record->iov[0].iov_base, length,
				 record->from);
	else
		onefd_prep_preadv(&record->req, &record->model->file, record->iov, record->plan.pieces,
				  record->from);
	garnish(record);
	launch(record);
}

static void do_write(struct record *record)
{
	size_t length;

	if (!take_planned_range(record, true))
		return;
	length = (size_t)(record->to - record->from);
	lay_out(record, length);
	fill_pattern(record);
	if (record->plan.pieces == 1 && record->plan.variant % 2)
		onefd_prep_pwrite(&record->req, &record->model->file, record->iov[0].iov_base, length,
				  record->from);
	else
		onefd_prep_pwritev(&record->req, &record->model->file, record->iov, record->plan.pieces,
				   record->from);
	garnish(record);
	launch(record);
}

static void do_fsync(struct record *record)
{
	onefd_prep_fsync(&record->req, &models[record->plan.act % FILES].file,
			 (int)(record->plan.variant % 2));
	launch(record);
}

static void do_fallocate(struct record *record)
{
	static const int modes[3] = {
		[FALLOCATE_EXTEND] = 0,
		[FALLOCATE_KEEP] = FALLOC_FL_KEEP_SIZE,
		[FALLOCATE_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	};

	/* The kernel refuses a length of 0. */
	record->plan.length += record->plan.length == 0;
	record->plan.shape = ODD_RANGE;
	record->plan.offset -= record->plan.offset == FILE_MOST;
	if (!take_planned_range(record, true))
		return;
	onefd_prep_fallocate(&record->req, &record->model->file, modes[record->plan.act % 3],
			     record->from, record->to - record->from);
	launch(record);
}

/* On a worker. */
static ssize_t truncate_model(void *arg)
{
	const struct record *record = arg;

	return ftruncate(record->model->fd, record->plan.offset) < 0 ? -errno : 0;
}

static void do_truncate(struct record *record)
{
	if (!take_range(record, 0, FILE_MOST, true))
		return;
	onefd_prep_call(&record->req, truncate_model, record);
	launch(record);
}

/* On a worker. */
static ssize_t work(void *arg)
{
	return planned_answer(arg);
}

static void do_work(struct record *record)
{
	onefd_prep_call(&record->req, work, record);
	launch(record);
}

static void name_path(struct record *record)
{
	static const char *const fixed[OPENS] = {
		[OPEN_MISSING] = "missing", [OPEN_DIRECTORY] = "."
	};
	unsigned act = record->plan.act % OPENS;

	if (fixed[act])
		strcpy(record->name, fixed[act]);
	else if (act == OPEN_OLD)
		snprintf(record->name, sizeof record->name, "f%u", record->plan.which % FILES);
	else
		snprintf(record->name, sizeof record->name, "o%u", record->plan.which % OPENED);
}

static void do_openat(struct record *record)
{
	static const int flags[OPENS] = {
		[OPEN_OLD] = O_RDONLY, [OPEN_NEW] = O_RDWR | O_CREAT,
		[OPEN_MISSING] = O_RDONLY, [OPEN_DIRECTORY] = O_RDONLY | O_DIRECTORY,
	};

	name_path(record);
	onefd_prep_openat(&record->req, directory_fd, record->name,
			  flags[record->plan.act % OPENS] | O_CLOEXEC, 0600);
	launch(record);
}

static void do_statx(struct record *record)
{
	if (record->plan.act % OPENS == OPEN_NEW)
		record->plan.act++;	/* nobody knows whether it is there yet */
	name_path(record);
	record->stat.stx_mode = 0;
	onefd_prep_statx(&record->req, directory_fd, record->name, 0, STATX_BASIC_STATS, &record->stat);
	launch(record);
}

static void make_ready(struct record *record)
{
	if (record->plan.act % 2)
		(void)!write(record->fds[1], "", 1);
	close(record->fds[1]);		/* EPOLLHUP comes with EPOLLIN */
	record->fds[1] = -1;
}

static void ready_polls(uint64_t step)
{
	for (unsigned i = 0; i < RECORDS; i++) {
		struct record *record = &records[i];
		if (record->out && record->plan.kind == POLL && record->fds[1] >= 0 &&
		    record->due <= step)
			make_ready(record);
	}
}

static void do_poll(struct record *record)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, record->fds) < 0)
		die("socketpair", errno);
	record->due = step_number + record->plan.length % 64;
	if (record->due == step_number)
		make_ready(record);
	onefd_prep_poll(&record->req, record->fds[0], EPOLLIN);
	launch(record);
	if (!record->out)
		release(record);
}

/* Its descriptor is closed while it is out: any answer will do, but one must come. */
static void do_closed(struct record *record)
{
	int fd = openat(directory_fd, scratch.name, O_RDONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : CALL(onefd_file_init(loop, &record->own, fd));

	if (r < 0)
		die(scratch.name, -r);
	record->plan.shape = ODD_RANGE;
	record->plan.pieces = 1;
	lay_out(record, record->plan.length);
	onefd_prep_pread(&record->req, &record->own, record->iov[0].iov_base, record->plan.length, 0);
	launch(record);
	if (record->plan.variant % 2)
		(void)CALL(onefd_flush(loop));
	close(fd);
}

/* ---- timers -------------------------------------------------------------- */

static struct clockwork {
	struct onefd_timer timer;
	bool armed, again;
	unsigned stops;			/* this one stops its neighbour when it fires */
	uint64_t deadline;
} timers[TIMERS];

static void stop_timer(unsigned i)
{
	CALL_VOID(onefd_timer_stop(&timers[i].timer));
	timers[i].armed = false;
}

static void start_timer(struct clockwork *clockwork, uint64_t deadline)
{
	clockwork->armed = true;
	clockwork->deadline = deadline;
	CALL_VOID(onefd_timer_start(loop, &clockwork->timer, deadline));
}

static void timer_fired(struct onefd_timer *timer)
{
	struct clockwork *clockwork = onefd_container(timer, struct clockwork, timer);

	enter("timer");
	account.timers++;
	if (!clockwork->armed)
		blame(&account.wrong, "a stopped timer fired");
	else if (timer->deadline != clockwork->deadline || onefd_now(loop) < timer->deadline)
		blame(&account.wrong, "a timer fired before its time");
	clockwork->armed = false;
	if (clockwork->again)
		start_timer(clockwork, timer->deadline + 50 * USEC);
	clockwork->again = false;
	if (clockwork->stops)
		stop_timer((unsigned)(clockwork - timers + clockwork->stops) % TIMERS);
	leave();
}

static void do_timer(const struct plan *plan)
{
	struct clockwork *clockwork = &timers[plan->which % TIMERS];

	if (plan->act % 4 == 0) {
		stop_timer(plan->which % TIMERS);
		return;
	}
	clockwork->again = plan->act % 3 == 0;
	clockwork->stops = plan->act % 5 ? 0 : plan->length % TIMERS;
	start_timer(clockwork, plan->act % 7 ? onefd_now(loop) + plan->offset * 8 : 1);
}

static bool timers_fired(const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < TIMERS; i++) {
		if (timers[i].armed)
			return false;
	}
	return true;
}

/* ---- signals ------------------------------------------------------------- */

/* Two watch a real-time signal, which counts; one watches SIGUSR1, which does not. */
static struct onefd_signal realtime[2], user, leaving[2];
static uint64_t realtime_sent, realtime_seen[2];
static bool user_on;

static void realtime_came(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	enter("signal");
	account.signals++;
	if ((int)info->ssi_signo != SIGRTMIN)
		blame(&account.wrong, "signal %u came for SIGRTMIN", info->ssi_signo);
	realtime_seen[signal - realtime]++;
	leave();
}

static void user_came(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	(void)info;
	enter("signal");
	account.signals++;
	if (!user_on)
		blame(&account.wrong, "a stopped signal called");
	leave();
}

static void leaving_came(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	enter("signal");
	quit = true;
	quit_signo = (int)info->ssi_signo;
	leave();
}

static void start_signal(struct onefd_signal *signal)
{
	int r = CALL(onefd_signal_start(loop, signal, ONEFD_SIGNAL_BLOCK));

	if (r < 0)
		blame(&account.wrong, "onefd_signal_start answered %d", r);
}

static void toggle_user(void)
{
	if (user_on)
		CALL_VOID(onefd_signal_stop(&user));
	else
		start_signal(&user);
	user_on = !user_on;
}

static bool realtime_room(const void *arg)
{
	const uint64_t *limit = arg;

	return realtime_sent - realtime_seen[0] <= *limit && realtime_sent - realtime_seen[1] <= *limit;
}

static void send_realtime(void)
{
	union sigval value = { .sival_int = (int)realtime_sent };
	uint64_t limit = REALTIME_MOST;

	if (turn_until(realtime_room, &limit) && sigqueue(getpid(), SIGRTMIN, value) == 0)
		realtime_sent++;
}

static void do_signal(const struct plan *plan)
{
	switch (plan->act % 4) {
	case 0:
		raise(SIGUSR1);
		break;
	case 1:
		kill(getpid(), SIGUSR1);
		break;
	case 2:
		toggle_user();
		break;
	default:
		send_realtime();
	}
}

static void start_signals(void)
{
	for (unsigned i = 0; i < 2; i++) {
		start_signal(&realtime[i]);
		start_signal(&leaving[i]);
	}
	user_on = false;
	toggle_user();
}

static void init_signals(void)
{
	for (unsigned i = 0; i < 2; i++)
		onefd_signal_init(&realtime[i], SIGRTMIN, realtime_came);
	onefd_signal_init(&user, SIGUSR1, user_came);
	onefd_signal_init(&leaving[0], SIGINT, leaving_came);
	onefd_signal_init(&leaving[1], SIGTERM, leaving_came);
}

/* The helpers inherit the mask; see onefd_signal_start(). */
static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* What was still on its way when the loop was freed, in the kernel or fetched. */
static void forget_signals(void)
{
	struct timespec zero = { 0, 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	while (sigtimedwait(&set, NULL, &zero) > 0)
		;
	realtime_sent = realtime_seen[0] = realtime_seen[1] = 0;
}

/* ---- tasks, from helpers -------------------------------------------------- */

struct parcel {
	struct onefd_task task;
	struct helper *helper;
	uint64_t posted;		/* the helper's: how often post said 0 */
	uint64_t sequence;		/* the helper's, the loop's once posted */
	_Atomic uint64_t delivered;
};

static struct helper {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned wanted;		/* under the lock */
	bool ends;			/* under the lock */
	unsigned next;
	uint64_t sequence, seen;
	_Atomic uint64_t refused;	/* posts with an answer that is none */
	struct parcel parcels[TASKS];
} helpers[HELPERS];

static void task_ran(struct onefd_task *task)
{
	struct parcel *parcel = onefd_container(task, struct parcel, task);
	struct helper *helper = parcel->helper;

	enter("task");
	account.tasks++;
	if (parcel->sequence < helper->seen)
		blame(&account.wrong, "tasks of one thread ran out of order");
	helper->seen = parcel->sequence;
	atomic_fetch_add_explicit(&parcel->delivered, 1, memory_order_release);
	leave();
}

static void post_one(struct parcel *parcel)
{
	int r = onefd_post(loop, &parcel->task);

	if (r == 0)
		parcel->posted++;
	else if (r != -EALREADY)
		atomic_fetch_add(&parcel->helper->refused, 1);
}

/* On the helper's thread. A task in the inbox is left alone: its sequence is
 * the loop's to read. Every third is posted twice on end. */
static void help_once(struct helper *helper)
{
	struct parcel *parcel = &helper->parcels[helper->next++ % TASKS];

	if (atomic_load_explicit(&parcel->delivered, memory_order_acquire) != parcel->posted)
		return;
	parcel->sequence = ++helper->sequence;
	post_one(parcel);
	if (helper->next % 3 == 0)
		post_one(parcel);
	if (helper->next % 8 == 0)
		onefd_wake(loop);
}

static void *help(void *arg)
{
	struct helper *helper = arg;

	pthread_mutex_lock(&helper->lock);
	while (!helper->ends) {
		if (!helper->wanted) {
			pthread_cond_wait(&helper->changed, &helper->lock);
			continue;
		}
		pthread_mutex_unlock(&helper->lock);
		help_once(helper);
		pthread_mutex_lock(&helper->lock);
		if (--helper->wanted == 0)
			pthread_cond_broadcast(&helper->changed);
	}
	pthread_mutex_unlock(&helper->lock);
	return NULL;
}

static void do_task(const struct plan *plan)
{
	struct helper *helper = &helpers[plan->which % HELPERS];

	pthread_mutex_lock(&helper->lock);
	helper->wanted += 1 + plan->act % 8;
	pthread_cond_broadcast(&helper->changed);
	pthread_mutex_unlock(&helper->lock);
}

/* No helper touches the loop from here to the next do_task(). */
static void rest_helpers(void)
{
	for (unsigned i = 0; i < HELPERS; i++) {
		pthread_mutex_lock(&helpers[i].lock);
		while (helpers[i].wanted)
			pthread_cond_wait(&helpers[i].changed, &helpers[i].lock);
		pthread_mutex_unlock(&helpers[i].lock);
	}
}

static void start_helpers(void)
{
	for (unsigned i = 0; i < HELPERS; i++) {
		pthread_mutex_init(&helpers[i].lock, NULL);
		pthread_cond_init(&helpers[i].changed, NULL);
		for (unsigned j = 0; j < TASKS; j++) {
			onefd_task_init(&helpers[i].parcels[j].task, task_ran);
			helpers[i].parcels[j].helper = &helpers[i];
		}
		if (pthread_create(&helpers[i].thread, NULL, help, &helpers[i]))
			die("thread", EAGAIN);
	}
}

static void end_helpers(void)
{
	for (unsigned i = 0; i < HELPERS; i++) {
		pthread_mutex_lock(&helpers[i].lock);
		helpers[i].ends = true;
		pthread_cond_broadcast(&helpers[i].changed);
		pthread_mutex_unlock(&helpers[i].lock);
		pthread_join(helpers[i].thread, NULL);
	}
}

static bool tasks_delivered(void)
{
	for (unsigned i = 0; i < HELPERS * TASKS; i++) {
		struct parcel *parcel = &helpers[i / TASKS].parcels[i % TASKS];

		if (atomic_load_explicit(&parcel->delivered, memory_order_acquire) < parcel->posted)
			return false;
	}
	return true;
}

/* The helpers rest and the loop is drained: what was posted has been delivered. */
static void check_tasks(void)
{
	for (unsigned i = 0; i < HELPERS; i++) {
		if (atomic_exchange(&helpers[i].refused, 0))
			blame(&account.wrong, "onefd_post refused a task");
		for (unsigned j = 0; j < TASKS; j++) {
			struct parcel *parcel = &helpers[i].parcels[j];
			uint64_t delivered = atomic_load(&parcel->delivered);

			if (delivered < parcel->posted)
				blame(&account.lost, "a task was lost");
			else if (delivered > parcel->posted)
				blame(&account.twice, "a task ran twice");
			parcel->posted = delivered;
		}
	}
}

/* ---- sockets ------------------------------------------------------------- */

static struct pair {
	struct onefd_watch watch;
	int near, far;			/* near is watched, far is written to */
	uint32_t mode;			/* EPOLLET, EPOLLONESHOT or 0 */
	bool on;
	unsigned stops;			/* this one stops a neighbour in its next event */
	uint64_t sent, seen;
} pairs[PAIRS];

static uint8_t stream_byte(uint64_t at)
{
	return (uint8_t)(at * 7 + (at >> 8));
}

static void stop_pair(struct pair *pair)
{
	CALL_VOID(onefd_watch_stop(&pair->watch));
	pair->on = false;
}

static void start_pair(struct pair *pair, uint32_t mode)
{
	int r;

	pair->mode = mode;
	r = pair->on ? CALL(onefd_watch_update(&pair->watch, EPOLLIN | mode))
		     : CALL(onefd_watch_start(loop, &pair->watch, EPOLLIN | mode));
	if (r < 0)
		blame(&account.wrong, "a watch was refused: %d", r);
	pair->on = true;
}

static bool read_pair(struct pair *pair)
{
	uint8_t chunk[512];
	ssize_t n = read(pair->near, chunk, sizeof chunk);

	for (ssize_t i = 0; i < n; i++) {
		if (chunk[i] != stream_byte(pair->seen + (uint64_t)i))
			blame(&account.corrupt, "a socket's bytes are wrong");
	}
	if (n > 0)
		pair->seen += (uint64_t)n;
	return n > 0;
}

static void pair_ready(struct onefd_watch *watch, uint32_t events)
{
	struct pair *pair = onefd_container(watch, struct pair, watch);

	enter("watch");
	account.events++;
	if (!pair->on)
		blame(&account.wrong, "a stopped watch was called");
	if (!(events & EPOLLIN) || !read_pair(pair))
		blame(&account.wrong, "a watch was called with nothing to read");
	while (pair->mode == EPOLLET && read_pair(pair))
		;
	if (pair->mode == EPOLLONESHOT)
		start_pair(pair, pair->mode);
	if (pair->stops)
		stop_pair(&pairs[(unsigned)(pair - pairs + pair->stops) % PAIRS]);
	pair->stops = 0;
	leave();
}

static void open_pair(struct pair *pair)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
		die("socketpair", errno);
	pair->near = fds[0];
	pair->far = fds[1];
	pair->sent = pair->seen = 0;
	pair->on = false;
	onefd_watch_init(&pair->watch, pair->near, pair_ready);
}

static void close_pair(struct pair *pair)
{
	close(pair->near);
	close(pair->far);
}

static void send_pair(struct pair *pair, size_t length)
{
	uint8_t bytes[2048];
	ssize_t n;

	if (pair->sent - pair->seen + length > BACKLOG)
		return;
	for (size_t i = 0; i < length; i++)
		bytes[i] = stream_byte(pair->sent + i);
	n = write(pair->far, bytes, length);
	if (n > 0)
		pair->sent += (uint64_t)n;
}

static void do_socket(const struct plan *plan)
{
	static const uint32_t modes[3] = { 0, EPOLLET, EPOLLONESHOT };
	struct pair *pair = &pairs[plan->which % PAIRS];

	switch (plan->act % 16) {
	case 0:
		stop_pair(pair);
		break;
	case 1:
	case 2:
		start_pair(pair, modes[plan->offset % 3]);
		break;
	case 3:		/* closed with an event perhaps fetched already */
		stop_pair(pair);
		close_pair(pair);
		open_pair(pair);
		start_pair(pair, 0);
		break;
	case 4:
		pair->stops = 1 + plan->offset % (PAIRS - 1);
		break;
	default:
		send_pair(pair, 1 + plan->length % 2000);
	}
}

static bool pairs_read(const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < PAIRS; i++) {
		if (pairs[i].seen != pairs[i].sent)
			return false;
	}
	return true;
}

/* ---- other steps --------------------------------------------------------- */

static bool file_idle(const void *arg)
{
	for (unsigned i = 0; i < RECORDS; i++) {
		const struct record *record = &records[i];
		/* A truncate has no file: it is a call on the descriptor. */
		bool truncates = record->plan.kind == TRUNCATE && record->model &&
				 &record->model->file == arg;

		if (record->out && (truncates || record->req.file == arg))
			return false;
	}
	return true;
}

static void do_reopen(const struct plan *plan)
{
	struct model *model = &models[plan->which % FILES];

	if (!turn_until(file_idle, &model->file))
		return;
	close(model->fd);
	open_model(model, options.direct && plan->act % 2);
	init_model(model);
}

static void expect(const char *what, int r, int expected)
{
	if (r != expected)
		blame(&account.wrong, "%s answered %d, not %d", what, r, expected);
}

static void bad_requests(void)
{
	static struct iovec many[1025];
	struct onefd_req req = { 0 };

	expect("submit of nothing", CALL(onefd_submit(loop, &req, request_done)), -EINVAL);
	expect("cancel of nothing", CALL(onefd_cancel(&req)), -EINVAL);
	onefd_prep_pread(&req, &models[0].file, many, 1, -1);
	expect("a negative offset", CALL(onefd_submit(loop, &req, request_done)), -EINVAL);
	onefd_prep_preadv(&req, &models[0].file, many, 1025, 0);
	expect("1025 buffers", CALL(onefd_submit(loop, &req, request_done)), -EINVAL);
	onefd_prep_preadv(&req, &models[0].file, NULL, 1, 0);
	expect("a NULL vector", CALL(onefd_submit(loop, &req, request_done)), -EINVAL);
	onefd_prep_pread(&req, &models[0].file, many, 1, 0);
	expect("no callback", CALL(onefd_submit(loop, &req, NULL)), -EINVAL);
}

static void bad_objects(void)
{
	struct onefd_watch watch = { 0 };
	struct onefd_file file;

	expect("a watch without init", CALL(onefd_watch_start(loop, &watch, EPOLLIN)), -EINVAL);
	onefd_watch_init(&watch, scratch.fd, pair_ready);
	expect("a watch on a file", CALL(onefd_watch_start(loop, &watch, EPOLLIN)), -EPERM);
	onefd_watch_init(&watch, -1, pair_ready);
	expect("a watch on -1", CALL(onefd_watch_start(loop, &watch, EPOLLIN)), -EBADF);
	expect("a socket as file", CALL(onefd_file_init(loop, &file, pairs[0].near)), -ESPIPE);
	expect("a directory as file", CALL(onefd_file_init(loop, &file, directory_fd)), -EISDIR);
	expect("-1 as file", CALL(onefd_file_init(loop, &file, -1)), -EBADF);
}

static void do_bad(const struct plan *plan)
{
	if (plan->act % 3 == 0)
		bad_requests();
	else if (plan->act % 3 == 1)
		bad_objects();
	else if (out)
		must_be_busy("free with requests out", CALL(onefd_free(loop)));
}

static bool told;

static void stop_loop(struct onefd_timer *timer)
{
	(void)timer;
	enter("stop");
	told = true;
	if (host_is_native(&host))
		onefd_stop(loop);
	leave();
}

static bool was_told(const void *arg)
{
	(void)arg;
	return told;
}

/* As a program runs its host until it has what it wants. */
static void run_host(void)
{
	if (!turn_until(was_told, NULL))
		blame(&account.lost, "the timer that ends a run did not fire");
}

static void do_run(const struct plan *plan)
{
	struct onefd_timer timer;

	told = false;
	onefd_timer_init(&timer, stop_loop);
	CALL_VOID(onefd_timer_start(loop, &timer, onefd_now(loop) + plan->act % (200 * USEC)));
	if (host_is_native(&host))
		expect("run", onefd_run(loop), 0);
	else
		run_host();
	CALL_VOID(onefd_timer_stop(&timer));
}

/* ---- the life of a loop -------------------------------------------------- */

static void open_host(void)
{
	int r = CALL(host_open(&host, options.kind, loop));

	if (r < 0)
		die("cannot make a host", -r);
	if (!host_is_native(&host))
		must_be_busy("attach of what is attached", CALL(onefd_attach(loop)));
}

static void begin_life(const struct plan *plan)
{
	static const uint32_t depths[4] = { 0, 1, 8, 64 }, budgets[4] = { 0, 1, 7, 256 },
			      threads[4] = { 0, 1, 2, 8 };
	struct onefd_config config = options.config;
	int r;

	if (!options.depth_fixed)
		config.depth = depths[plan->act % 4];
	if (!options.budget_fixed)
		config.budget = budgets[plan->which % 4];
	if (!options.threads_fixed)
		config.threads = threads[plan->offset % 4];
	r = onefd_new(&loop, &config);
	if (r < 0)
		die("onefd_new", -r);
	account.lives++;
	embedded = plan->variant % 2;
	if (embedded)
		(void)CALL(onefd_fd(loop));
	open_host();
	for (unsigned i = 0; i < FILES; i++)
		init_model(&models[i]);
	start_signals();
	for (unsigned i = 0; i < PAIRS; i++) {
		open_pair(&pairs[i]);
		start_pair(&pairs[i], 0);
	}
}

static bool nothing_out(const void *arg)
{
	(void)arg;
	return !out && tasks_delivered();
}

/* In a host, half of the loops are drained by its turns. */
static int drain_loop(void)
{
	if (!host_is_native(&host) && embedded)
		return turn_until(nothing_out, NULL) ? 0 : -ETIMEDOUT;
	return onefd_drain(loop, (int)(STALL_NS / MSEC));
}

/* Requests and tasks: these must end before the loop may. */
static void drain(void)
{
	int r;

	if (out)
		must_be_busy("free with requests out", CALL(onefd_free(loop)));
	ready_polls(UINT64_MAX);
	rest_helpers();
	r = drain_loop();
	if (r < 0 || out || onefd_pending(loop)) {
		blame(&account.wrong, "drain answered %d with %u requests out", r, out);
		stuck = true;
	}
	check_tasks();
}

/* Everything else, to the last timer and byte. */
static void settle(void)
{
	uint64_t none = 0;

	for (unsigned i = 0; i < PAIRS; i++) {
		pairs[i].stops = 0;
		start_pair(&pairs[i], 0);
	}
	if (!turn_until(timers_fired, NULL))
		blame(&account.lost, "a timer did not fire");
	if (!turn_until(realtime_room, &none))
		blame(&account.lost, "a signal did not come");
	if (!turn_until(pairs_read, NULL))
		blame(&account.lost, "a watch was not called");
}

static void cancel_all(void)
{
	for (unsigned i = 0; i < RECORDS; i++) {
		if (records[i].out)
			cancel_request(&records[i]);
	}
}

/* By act: after all is done, with timers and watches started, or all cancelled. */
static void end_life(const struct plan *plan)
{
	int r;

	if (plan->act % 3 == 1)
		cancel_all();
	drain();
	if (plan->act % 3 == 0)
		settle();
	if (stuck)
		return;
	if (!host_is_native(&host) && host.loop)
		must_be_busy("free in a host", CALL(onefd_free(loop)));
	CALL_VOID(host_detach(&host));
	r = CALL(onefd_free(loop));
	if (r < 0) {
		blame(&account.wrong, "free answered %d when all was drained", r);
		stuck = true;
		return;
	}
	loop = NULL;
	host_close(&host);
	for (unsigned i = 0; i < TIMERS; i++)
		timers[i].armed = false;
	for (unsigned i = 0; i < PAIRS; i++)
		close_pair(&pairs[i]);
	forget_signals();
	for (unsigned i = 0; i < FILES; i++)
		verify_model(&models[i]);
	for (unsigned i = 0; i < RECORDS; i++)
		check_idle_buffer(&records[i]);
}

/* ---- the run ------------------------------------------------------------- */

static void (*const request_steps[KINDS])(struct record *) = {
	[READ] = do_read, [WRITE] = do_write, [FSYNC] = do_fsync, [POLL] = do_poll,
	[OPENAT] = do_openat, [STATX] = do_statx, [FALLOCATE] = do_fallocate,
	[TRUNCATE] = do_truncate, [WORK] = do_work, [CLOSED] = do_closed,
};

static void (*const other_steps[KINDS])(const struct plan *) = {
	[TIMER] = do_timer, [SIGNAL] = do_signal, [TASK] = do_task, [SOCKET] = do_socket,
	[REOPEN] = do_reopen, [BAD] = do_bad, [RUN] = do_run,
};

/* A poll that nobody makes ready could hold its place for ever. */
static bool make_room(const struct plan *plan)
{
	if (!below(&plan->cap))
		ready_polls(UINT64_MAX);
	return turn_until(below, &plan->cap);
}

static void take_step(const struct plan *plan)
{
	if (request_steps[plan->kind]) {
		if (make_room(plan))
			request_steps[plan->kind](take_record(plan));
	} else if (other_steps[plan->kind]) {
		other_steps[plan->kind](plan);
	} else if (plan->kind == FLUSH) {
		(void)CALL(onefd_flush(loop));
	} else {
		end_life(plan);
		if (!stuck)
			begin_life(plan);
	}
	if (stuck)
		return;
	cancel_doomed();
	ready_polls(step_number);
	if (plan->turn < 25)
		(void)turn(0);
}

/* None, unless it is stuck. */
static void count_lost(void)
{
	for (unsigned i = 0; i < RECORDS; i++) {
		const struct record *record = &records[i];

		if (record->out)
			blame(&account.lost, "lost: kind %d, %lld to %lld of %s, cancelled: %d",
			      (int)record->plan.kind, (long long)record->from, (long long)record->to,
			      record->model ? record->model->name : "no file", record->promised);
	}
}

static void run(void)
{
	struct plan plan = make_plan(0);

	begin_life(&plan);
	for (step_number = 1; step_number <= options.ops && !stuck && !quit; step_number++) {
		plan = make_plan(step_number);
		take_step(&plan);
	}
	if (!stuck) {
		plan.act = 0;		/* the last life is settled to the end */
		end_life(&plan);
	}
	count_lost();
}

static unsigned count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

static void remove_directory(void)
{
	char name[16];

	for (unsigned i = 0; i < FILES; i++)
		unlinkat(directory_fd, models[i].name, 0);
	for (unsigned i = 0; i < OPENED; i++) {
		snprintf(name, sizeof name, "o%u", i);
		unlinkat(directory_fd, name, 0);
	}
	unlinkat(directory_fd, scratch.name, 0);
	if (rmdir(directory) < 0)
		fprintf(stderr, "onefd-stress: %s: %s\n", directory, strerror(errno));
}

static void make_directory(void)
{
	const char *parent = options.parent;

	if (!parent)
		parent = getenv("TMPDIR");
	if (!parent || !*parent)
		parent = "/tmp";
	snprintf(directory, sizeof directory, "%s/onefd-stress.XXXXXX", parent);
	if (!mkdtemp(directory))
		die(parent, errno);
	directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory_fd < 0)
		die(directory, errno);
	atexit(remove_directory);	/* also when something later is wrong */
}

static void report(void)
{
	if (options.verbose)
		fprintf(stderr, "loops=%llu timers=%llu signals=%llu tasks=%llu events=%llu\n",
			(unsigned long long)account.lives, (unsigned long long)account.timers,
			(unsigned long long)account.signals, (unsigned long long)account.tasks,
			(unsigned long long)account.events);
	printf("submitted=%llu completed=%llu cancelled=%llu lost=%llu double=%llu inside=%llu "
	       "corrupt=%llu wrong=%llu hash=%016llx\n",
	       (unsigned long long)account.submitted, (unsigned long long)account.completed,
	       (unsigned long long)account.cancelled, (unsigned long long)account.lost,
	       (unsigned long long)account.twice, (unsigned long long)account.inside,
	       (unsigned long long)account.corrupt, (unsigned long long)account.wrong,
	       (unsigned long long)hash);
}

/* What a host's library opens once for all its loops, it keeps. */
static void warm_up(void)
{
	int r = onefd_new(&loop, NULL);

	if (r < 0)
		die("onefd_new", -r);
	open_host();
	host_close(&host);
	(void)onefd_free(loop);
}

static int stress(void)
{
	unsigned before;

	block_signals();
	signal(SIGPIPE, SIG_IGN);	/* whoever reads the complaints may have had enough */
	make_directory();
	make_models();
	make_records();
	init_signals();
	for (unsigned i = 0; i < TIMERS; i++)
		onefd_timer_init(&timers[i].timer, timer_fired);
	start_helpers();
	warm_up();
	before = count_descriptors();
	run();
	if (!stuck && count_descriptors() != before)
		blame(&account.wrong, "%u descriptors were left open", count_descriptors() - before);
	report();
	if (account.lost || account.twice || account.inside || account.corrupt || account.wrong)
		return EXIT_FAILURE;
	end_helpers();
	return quit ? 128 + quit_signo : EXIT_SUCCESS;
}

static void usage(FILE *stream)
{
	fputs("usage: onefd-stress [OPTION]...\n"
	      "Random requests, timers, signals, tasks and sockets, every answer checked.\n\n"
	      "  --ops=N       N steps (10000)\n"
	      "  --seed=S      which ones; the same seed makes the same choices (1)\n"
	      "  --cancel=PCT  cancel so many of a hundred requests (10)\n"
	      "  --dir=DIR     make the files in a directory made in DIR ($TMPDIR, /tmp)\n"
	      "  --direct      half of the files O_DIRECT, where that is possible\n"
	      "  --depth=N --threads=N --budget=N\n"
	      "                as in struct onefd_config (each loop draws its own)\n"
	      "  --loop=NAME   inside that loop: libev, libuv, libevent, glib or sd-event, where\n"
	      "                it is built in (native: in none)\n"
	      "  --no-kaio --no-ring --no-nowait --no-sysfs --no-proc\n"
	      "                as if the machine did not have it\n"
	      "  --verbose     more counts\n"
	      "  --help        this text\n\n"
	      "Exit status: 0 all well, 1 something lost, double or wrong, 2 it could not be\n"
	      "tried, 130 and 143 stopped by SIGINT and SIGTERM.\n", stream);
}

static uint64_t number(const char *text, uint64_t most)
{
	char *rest;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &rest, 0);
	if (errno || rest == text || *rest || *text == '-' || value > most) {
		fprintf(stderr, "onefd-stress: '%s' is no number up to %llu\n", text,
			(unsigned long long)most);
		exit(2);
	}
	return value;
}

/* Long options stand for themselves from here; those below are flags of the loop. */
enum { OPT_OPS = 256, OPT_SEED, OPT_CANCEL, OPT_DIR, OPT_DIRECT, OPT_DEPTH, OPT_THREADS,
       OPT_BUDGET, OPT_LOOP, OPT_VERBOSE, OPT_HELP };

static const struct option long_options[] = {
	{ "ops", required_argument, NULL, OPT_OPS },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "cancel", required_argument, NULL, OPT_CANCEL },
	{ "dir", required_argument, NULL, OPT_DIR },
	{ "direct", no_argument, NULL, OPT_DIRECT },
	{ "depth", required_argument, NULL, OPT_DEPTH },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "budget", required_argument, NULL, OPT_BUDGET },
	{ "loop", required_argument, NULL, OPT_LOOP },
	{ "verbose", no_argument, NULL, OPT_VERBOSE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "no-kaio", no_argument, NULL, ONEFD_NO_KAIO },
	{ "no-ring", no_argument, NULL, ONEFD_NO_RING },
	{ "no-nowait", no_argument, NULL, ONEFD_NO_NOWAIT },
	{ "no-sysfs", no_argument, NULL, ONEFD_NO_SYSFS },
	{ "no-proc", no_argument, NULL, ONEFD_NO_PROC },
	{ 0 },
};

static bool parse_config(int option, const char *text)
{
	switch (option) {
	case OPT_DEPTH:
		options.config.depth = (uint32_t)number(text, UINT32_MAX);
		options.depth_fixed = true;
		return true;
	case OPT_THREADS:
		options.config.threads = (uint32_t)number(text, UINT32_MAX);
		options.threads_fixed = true;
		return true;
	case OPT_BUDGET:
		options.config.budget = (uint32_t)number(text, UINT32_MAX);
		options.budget_fixed = true;
		return true;
	default:
		if (option >= OPT_OPS || option == '?')
			return false;
		options.config.flags |= (uint32_t)option;
		return true;
	}
}

static bool parse_option(int option, const char *text)
{
	switch (option) {
	case OPT_OPS:
		options.ops = number(text, UINT64_MAX);
		return true;
	case OPT_SEED:
		options.seed = number(text, UINT64_MAX);
		return true;
	case OPT_CANCEL:
		options.cancel = number(text, 100);
		return true;
	case OPT_DIR:
		options.parent = text;
		return true;
	case OPT_DIRECT:
		options.direct = true;
		return true;
	case OPT_LOOP:
		options.kind = host_named("onefd-stress", text);
		if (!options.kind)
			exit(2);
		return true;
	case OPT_VERBOSE:
		options.verbose = true;
		return true;
	case OPT_HELP:
		usage(stdout);
		exit(EXIT_SUCCESS);
	default:
		return parse_config(option, text);
	}
}

int main(int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (!parse_option(option, optarg)) {
			usage(stderr);
			return 2;
		}
	}
	if (optind != argc) {
		usage(stderr);
		return 2;
	}
	return stress();
}
