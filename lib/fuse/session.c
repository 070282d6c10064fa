/*
 * session.c - a fuse_session on a loop: libonefd-fuse.
 *
 * libfuse decodes requests and encodes replies; the loop says when; here is what
 * lies between: whose buffer a request is received in, how long it keeps it, and
 * how a session ends. It uses nothing of the loop but <onefd.h>.
 *
 * A session goes from IDLE by start to SERVING, by the device's end or stop to
 * ENDING, where nothing is received, and when nothing is in hand to ENDED.
 *
 * Not here: mounting, and what any request means.
 */
#define FUSE_USE_VERSION 35

#include <errno.h>
#include <fcntl.h>
#include <onefd/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../list.h"

#define PAGE		4096u
#define TRANSFER_MOST	(1u << 20)
#define DEPTH_MOST	65536u
#define DEPTH		128u
#define BUDGET		32u

/* The bytes of a write stand behind struct fuse_in_header and fuse_write_in. */
#define WRITE_HEADER	80u

/*
 * A buffer: the request is received at RECEIVE, so that the bytes of a write begin
 * at PAGE. libfuse passes no length but its own: transfer and a page. What is not
 * a write ends below ANSWER; an answer may be made there while it is still read.
 */
#define RECEIVE		(PAGE - WRITE_HEADER)
#define ANSWER		(PAGE + 65536 + PAGE)	/* a name and the value of an attribute */

enum state { IDLE, SERVING, ENDING, ENDED };

struct onefd_fuse {
	struct onefd *loop;
	struct fuse_session *session;
	struct onefd_fuse_config config;
	struct onefd_fuse_stats stats;
	struct onefd_watch watch;
	struct onefd_task end;		/* says that it has ended */
	onefd_fuse_fn *fn;
	void *data;
	struct onefd_fuse_op *next;	/* to receive in; NULL: all are in hand */
	struct onefd_link free;		/* the last used first: its memory is warm */
	enum state state;
	bool receiving;			/* a handler may begin */
	int reason;
	char *ops, *buffers;
	size_t op_size, buffer_size;
};

static size_t op_size(const struct onefd_fuse_config *config)
{
	return (sizeof(struct onefd_fuse_op) + config->extra + 63) & ~(size_t)63;
}

static struct onefd_fuse_op *op_take(struct onefd_fuse *fuse)
{
	struct onefd_link *link = list_pop(&fuse->free);

	return link ? list_entry(link, struct onefd_fuse_op, link) : NULL;
}

/* ---- how it ends ---------------------------------------------------------- */

static void ended(struct onefd_task *task)
{
	struct onefd_fuse *fuse = onefd_container(task, struct onefd_fuse, end);

	fuse->state = ENDED;
	fuse->fn(fuse, fuse->data, fuse->reason);
}

static void end_if_empty(struct onefd_fuse *fuse)
{
	if (fuse->state == ENDING && !fuse->stats.in_hand)
		(void)onefd_post(fuse->loop, &fuse->end);
}

/* An aborted device is in error for ever: watching it would keep the loop busy. */
static void end(struct onefd_fuse *fuse, int reason)
{
	if (fuse->state != SERVING)
		return;
	fuse->state = ENDING;
	fuse->reason = reason;
	onefd_watch_stop(&fuse->watch);
	end_if_empty(fuse);
}

/* ---- what is received ------------------------------------------------------ */

/* Whether there may be another. */
static bool receive(struct onefd_fuse *fuse)
{
	struct fuse_buf buf = { .mem = fuse->next->buffer + RECEIVE };
	bool exited = fuse_session_exited(fuse->session);
	int r = exited ? 0 : fuse_session_receive_buf(fuse->session, &buf);

	if (r == -EAGAIN || r == -EINTR)
		return false;
	if (r <= 0) {
		/* libfuse says by 0 that the device is gone, too. */
		end(fuse, r < 0 ? r : exited ? 0 : -ENODEV);
		return false;
	}
	fuse->stats.received++;
	fuse->receiving = true;
	fuse_session_process_buf(fuse->session, &buf);
	fuse->receiving = false;
	return fuse->state == SERVING;
}

static void readable(struct onefd_watch *watch, uint32_t events)
{
	struct onefd_fuse *fuse = onefd_container(watch, struct onefd_fuse, watch);

	(void)events;
	for (uint32_t i = 0; i < fuse->config.budget; i++) {
		if (!receive(fuse))
			return;
		if (!fuse->next && !(fuse->next = op_take(fuse))) {
			fuse->stats.full++;
			onefd_watch_stop(watch);
			return;
		}
	}
}

/* ---- requests in hand ------------------------------------------------------- */

/* Whether @pid, a thread, was told to die: an interrupt does not say. */
static bool dying(pid_t pid)
{
	char path[40], text[4096], *line;
	ssize_t length = -1;
	unsigned long long pending = 0, shared = 0;
	int fd;

	/* Of a process that is not in our name space nothing is known. */
	if (pid <= 0)
		return false;
	(void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		length = read(fd, text, sizeof text - 1);
		(void)close(fd);
	}
	if (length < 0)
		return errno == ENOENT || errno == ESRCH;
	text[length] = 0;
	line = strstr(text, "\nSigPnd:");
	if (line)
		(void)sscanf(line, "\nSigPnd: %llx\nShdPnd: %llx", &pending, &shared);
	return (pending | shared) & 1ull << (9 - 1);	/* SIGKILL */
}

static void interrupted(fuse_req_t req, void *data)
{
	struct onefd_fuse_op *op = data;

	op->session->stats.interrupted++;
	/* libfuse holds the request's lock: no reply from here, nor does cancel call. */
	if ((op->interruptible || dying(fuse_req_ctx(req)->pid)) && onefd_cancel(&op->req) == 0)
		op->session->stats.cancelled++;
}

struct onefd_fuse_op *onefd_fuse_begin(struct onefd_fuse *fuse, fuse_req_t req)
{
	struct onefd_fuse_op *op = fuse->next;

	if (!fuse->receiving || !op)
		return NULL;
	fuse->next = NULL;
	op->fuse = req;
	op->interruptible = false;
	fuse->stats.begun++;
	if (++fuse->stats.in_hand > fuse->stats.in_hand_most)
		fuse->stats.in_hand_most = fuse->stats.in_hand;
	return op;
}

int onefd_fuse_submit(struct onefd_fuse_op *op, onefd_req_fn *fn)
{
	int r;

	if (!op)
		return -EINVAL;
	r = onefd_submit(op->session->loop, &op->req, fn);
	/* Called at once where the interrupt came first. */
	if (r >= 0)
		fuse_req_interrupt_func(op->fuse, interrupted, op);
	return r;
}

void onefd_fuse_end(struct onefd_fuse_op *op)
{
	struct onefd_fuse *fuse = op->session;

	op->fuse = NULL;
	fuse->stats.in_hand--;
	if (fuse->receiving || fuse->next) {
		list_push_front(&fuse->free, &op->link);
	} else {
		fuse->next = op;
		if (fuse->state == SERVING) {
			int r = onefd_watch_start(fuse->loop, &fuse->watch, EPOLLIN);

			if (r < 0)
				end(fuse, r);
		}
	}
	end_if_empty(fuse);
}

/* ---- its life --------------------------------------------------------------- */

static int check(const struct onefd_fuse_config *config)
{
	for (size_t i = 0; i < sizeof config->reserved / sizeof *config->reserved; i++)
		if (config->reserved[i])
			return -EINVAL;
	if (config->depth > DEPTH_MOST || config->transfer > TRANSFER_MOST ||
	    config->transfer % PAGE || config->extra > 1u << 20)
		return -EINVAL;
	return 0;
}

static int make_ops(struct onefd_fuse *fuse)
{
	uint32_t depth = fuse->config.depth;

	fuse->op_size = op_size(&fuse->config);
	/* Until init has said what the kernel may send, libfuse asks for all. */
	fuse->buffer_size = ANSWER + TRANSFER_MOST + PAGE;
	fuse->ops = calloc(depth, fuse->op_size);
	if (!fuse->ops)
		return -ENOMEM;
	/* Address space; memory is what is used. */
	fuse->buffers = mmap(NULL, depth * fuse->buffer_size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (fuse->buffers == MAP_FAILED) {
		fuse->buffers = NULL;
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < depth; i++) {
		struct onefd_fuse_op *op = (void *)(fuse->ops + i * fuse->op_size);

		op->data = op + 1;
		op->session = fuse;
		op->buffer = fuse->buffers + i * fuse->buffer_size;
		op->memory = op->buffer + ANSWER;
		op->size = fuse->config.transfer;
		list_push(&fuse->free, &op->link);
	}
	fuse->next = op_take(fuse);
	return 0;
}

int onefd_fuse_new(struct onefd_fuse **ret, struct onefd *loop,
		   struct fuse_session *session, const struct onefd_fuse_config *config)
{
	static const struct onefd_fuse_config none;
	struct onefd_fuse *fuse;
	int r;

	if (!config)
		config = &none;
	if (!ret || !loop || !session || fuse_session_fd(session) < 0 || check(config) < 0)
		return -EINVAL;
	fuse = calloc(1, sizeof *fuse);
	if (!fuse)
		return -ENOMEM;
	fuse->loop = loop;
	fuse->session = session;
	fuse->config = *config;
	if (!fuse->config.depth)
		fuse->config.depth = DEPTH;
	if (!fuse->config.budget)
		fuse->config.budget = BUDGET;
	if (!fuse->config.transfer)
		fuse->config.transfer = TRANSFER_MOST;
	list_init(&fuse->free);
	onefd_watch_init(&fuse->watch, fuse_session_fd(session), readable);
	onefd_task_init(&fuse->end, ended);
	r = make_ops(fuse);
	if (r < 0) {
		fuse->state = ENDED;
		(void)onefd_fuse_free(fuse);
		return r;
	}
	*ret = fuse;
	return 0;
}

int onefd_fuse_free(struct onefd_fuse *fuse)
{
	if (!fuse)
		return 0;
	if (fuse->state == SERVING || fuse->state == ENDING || fuse->stats.in_hand)
		return -EBUSY;
	if (fuse->buffers)
		(void)munmap(fuse->buffers, fuse->config.depth * fuse->buffer_size);
	free(fuse->ops);
	free(fuse);
	return 0;
}

void onefd_fuse_init(struct onefd_fuse *fuse, struct fuse_conn_info *conn)
{
	uint32_t depth = fuse->config.depth;

	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	conn->max_background = depth < UINT16_MAX ? depth : UINT16_MAX;
	conn->congestion_threshold = conn->max_background - conn->max_background / 4;
	/* The kernel counts in pages what it may send: this bounds the reads, too. */
	if (conn->max_write > fuse->config.transfer)
		conn->max_write = fuse->config.transfer;
}

int onefd_fuse_start(struct onefd_fuse *fuse, onefd_fuse_fn *fn, void *data)
{
	int flags, r;

	if (!fuse || !fn)
		return -EINVAL;
	if (fuse->state == SERVING || fuse->state == ENDING)
		return -EBUSY;
	flags = fcntl(fuse->watch.fd, F_GETFL);
	if (flags < 0 || fcntl(fuse->watch.fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	r = onefd_watch_start(fuse->loop, &fuse->watch, EPOLLIN);
	if (r < 0)
		return r;
	fuse->fn = fn;
	fuse->data = data;
	fuse->state = SERVING;
	return 0;
}

void onefd_fuse_stop(struct onefd_fuse *fuse)
{
	if (fuse)
		end(fuse, 0);
}

int onefd_fuse_stats(const struct onefd_fuse *fuse, struct onefd_fuse_stats *stats, size_t size)
{
	size_t known = size < sizeof fuse->stats ? size : sizeof fuse->stats;

	if (!fuse || !stats)
		return -EINVAL;
	memset(stats, 0, size);
	memcpy(stats, &fuse->stats, known);
	return 0;
}
