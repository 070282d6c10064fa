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
#include <linux/fuse.h>
#include <onefd/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../list.h"
#include "pipe.h"

#define PAGE 4096u
#define TRANSFER_MOST (1u << 20)
#define DEPTH_MOST 65536u
#define DEPTH 128u
#define BUDGET 32u
#define EXTRA_MOST (1u << 20)
#define ATTRIBUTE 65536u /* of an attribute's value, or the list of their names */

/* Behind it stands the backend's own, aligned for anything. */
#define OP_SIZE ((sizeof(struct onefd_fuse_op) + 63) & ~(size_t)63)

struct write_header {
	struct fuse_in_header in;
	struct fuse_write_in write;
};

/* The bytes of a write stand behind it. */
#define WRITE_HEADER sizeof(struct write_header)

/* Smaller ones xfs takes at once, on the loop's thread. */
#define SPLICE_LEAST (256u << 10)
/* Requests without a large write after which none is expected any more: a writer looks at
 * other files between two, and what comes by a pipe for nothing costs a call more. */
#define SPLICE_WAIT 16u

/*
 * A buffer: the request is received at RECEIVE, so that the bytes of a write begin
 * at PAGE. libfuse passes no length but its own: transfer and a page. What is not
 * a write ends below ANSWER; an answer may be made there while it is still read.
 */
#define RECEIVE (PAGE - WRITE_HEADER)
#define ANSWER (PAGE + ATTRIBUTE + PAGE) /* a name and a value */

enum state { IDLE, SERVING, ENDING, ENDED };

struct onefd_fuse {
	struct onefd *loop;
	struct fuse_session *session;
	struct onefd_fuse_config config;
	struct onefd_fuse_stats stats;
	struct onefd_watch watch;
	struct onefd_task end; /* says that it has ended */
	onefd_fuse_fn *fn;
	void *data;
	struct onefd_fuse_op *current; /* what a handler may begin */
	struct onefd_link free;	       /* the last used first: its memory is warm */
	struct onefd_link in_hand;
	struct pipes pipes;
	unsigned expects_large; /* writes, for so many requests */
	enum state state;
	int reason;
	pid_t pid; /* who made it */
	char *ops, *buffers;
	size_t op_size, buffer_size;
};

static int check(const struct onefd_fuse *fuse)
{
	if (!fuse)
		return -EINVAL;
	return fuse->pid == getpid() ? 0 : -ECHILD;
}

/* ---- how it ends ---------------------------------------------------------- */

static void ended(struct onefd_task *task)
{
	struct onefd_fuse *fuse = onefd_container(task, struct onefd_fuse, end);

	/* A handler may stop first, and then begin. */
	if (fuse->stats.in_hand)
		return;
	fuse->state = ENDED;
	fuse->fn(fuse, fuse->data, fuse->reason);
}

static void end_if_empty(struct onefd_fuse *fuse)
{
	if (fuse->state == ENDING && !fuse->stats.in_hand)
		(void)onefd_post(fuse->loop, &fuse->end);
}

static void cancel(struct onefd_fuse_op *op)
{
	if (onefd_cancel(&op->req) == 0)
		op->session->stats.cancelled++;
}

/* What waits for somebody else, as for a lock, would keep the session for ever. */
static void interrupt_all(struct onefd_fuse *fuse)
{
	struct onefd_link *link = fuse->in_hand.next;

	for (; link != &fuse->in_hand; link = link->next) {
		struct onefd_fuse_op *op = list_entry(link, struct onefd_fuse_op, link);

		if (op->interruptible)
			cancel(op);
	}
}

/* An aborted device is in error for ever: watching it would keep the loop busy. */
static void end(struct onefd_fuse *fuse, int reason)
{
	if (fuse->state != SERVING)
		return;
	fuse->state = ENDING;
	fuse->reason = reason;
	onefd_watch_stop(&fuse->watch);
	interrupt_all(fuse);
	end_if_empty(fuse);
}

/* ---- what libfuse leaves out ------------------------------------------------- */

/*
 * libfuse before 3.17 wants FUSE_CAP_PARALLEL_DIROPS and does not tell the kernel
 * (its #861): then one look-up that waits for the disk makes all others in its
 * directory wait. Its answer to FUSE_INIT, the first after the init handler and
 * from the same call, is completed on its way out.
 */
#define INIT_FLAGS_AT 12u		/* in struct fuse_init_out */
#define INIT_PARALLEL_DIROPS (1u << 18) /* <linux/fuse.h> */
#define INIT_KILLPRIV_V2 (1u << 28)

static _Thread_local uint32_t left_out; /* of the answer that is being made */

static void complete_init(struct iovec *iov, int count)
{
	uint32_t flags;

	if (count != 2 || iov[1].iov_len < INIT_FLAGS_AT + sizeof flags)
		return; /* it was refused */
	memcpy(&flags, (char *)iov[1].iov_base + INIT_FLAGS_AT, sizeof flags);
	flags |= left_out;
	memcpy((char *)iov[1].iov_base + INIT_FLAGS_AT, &flags, sizeof flags);
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *data)
{
	(void)data;
	if (left_out)
		complete_init(iov, count);
	left_out = 0;
	return writev(fd, iov, count);
}

static ssize_t io_read(int fd, void *memory, size_t size, void *data)
{
	(void)data;
	return read(fd, memory, size);
}

/* Who does the reading and writing himself has no splice, or we would be in his way. */
static void want_what_is_left_out(const struct onefd_fuse *fuse, const struct fuse_conn_info *conn)
{
	static const struct fuse_custom_io io = { .writev = io_writev, .read = io_read };
	const unsigned splice = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE;
	uint32_t flags = 0;

	if (fuse_version() < 317 && conn->want & FUSE_CAP_PARALLEL_DIROPS)
		flags |= INIT_PARALLEL_DIROPS;
	if (fuse->config.flags & ONEFD_FUSE_HANDLE_KILLPRIV_V2)
		flags |= INIT_KILLPRIV_V2;
	if (flags && (conn->capable & splice) == splice &&
	    fuse_session_custom_io(fuse->session, &io, fuse_session_fd(fuse->session)) == 0)
		left_out = flags;
}

/* ---- writes through pipes ---------------------------------------------------- */

static void give_back_pipe(struct onefd_fuse_op *op)
{
	if (op->pipe)
		pipes_give_back(&op->session->pipes, op->pipe);
	op->pipe = NULL;
}

void onefd_fuse_prep_pwrite(struct onefd_fuse_op *op, struct onefd_file *file, const void *buf,
			    size_t len, off_t offset, int rw_flags)
{
	struct onefd_fuse_pipe *pipe = op->pipe;

	/* What is direct has an order of the loop's. */
	if (!pipe || (file->flags & ONEFD_FILE_DIRECT && pipe_gather(pipe))) {
		onefd_prep_pwrite(&op->req, file, buf, len, offset);
		op->req.rw_flags = rw_flags;
		return;
	}
	pipe->fd = file->fd;
	pipe->offset = offset;
	pipe->rw_flags = rw_flags;
	onefd_prep_call(&op->req, pipe_write_out, pipe);
}

/* ---- what is received ------------------------------------------------------ */

/* How many bytes a large write of @size in all has; 0: it is none. */
static size_t large(const struct write_header *header, size_t size)
{
	if (size < SPLICE_LEAST || header->in.opcode != FUSE_WRITE ||
	    header->write.size != size - sizeof *header)
		return 0;
	return header->write.size;
}

/*
 * The kernel has let go of it, nobody else will reply. Of a large write the bytes stay in
 * the pipe, which is the op's then; all else is read out of it, and it is given back.
 */
static int take_from_pipe(struct onefd_fuse_op *op, size_t size)
{
	char *memory = op->buffer + RECEIVE;
	struct onefd_fuse_pipe *pipe = op->pipe;
	size_t first = size < WRITE_HEADER ? size : WRITE_HEADER;
	bool done = pipe_pull(pipe, memory, first);

	if (done && large((void *)memory, size)) {
		pipe->size = pipe->left;
		op->session->stats.spliced++;
		return (int)size;
	}
	done = done && pipe_pull(pipe, memory + first, size - first);
	give_back_pipe(op);
	return done ? (int)size : -EIO;
}

/* 0: it is to be read. */
static int receive_by_pipe(struct onefd_fuse *fuse, struct onefd_fuse_op *op)
{
	struct pipes *pipes = &fuse->pipes;
	ssize_t n;

	op->pipe = fuse->expects_large ? pipes_take(pipes, op->buffer + PAGE) : NULL;
	if (!op->pipe)
		return 0;
	n = pipe_fill(op->pipe, fuse->watch.fd, pipes->most);
	if (n > 0)
		return take_from_pipe(op, (size_t)n);
	give_back_pipe(op);
	/* What else there is, libfuse knows to tell. */
	return n == -EAGAIN ? -EAGAIN : 0;
}

static int receive_one(struct onefd_fuse *fuse, struct onefd_fuse_op *op, struct fuse_buf *buf)
{
	int r = receive_by_pipe(fuse, op);

	if (r > 0)
		buf->size = (size_t)r;
	else if (!r)
		r = fuse_session_receive_buf(fuse->session, buf);
	if (r <= 0)
		return r;
	if (fuse->pipes.most && large(buf->mem, (size_t)r))
		fuse->expects_large = SPLICE_WAIT;
	else if (fuse->expects_large)
		fuse->expects_large--;
	return r;
}

/* Whether there may be another. */
static bool receive(struct onefd_fuse *fuse, struct onefd_fuse_op *op)
{
	struct fuse_buf buf = { .mem = op->buffer + RECEIVE };
	bool exited = fuse_session_exited(fuse->session);
	int r = exited ? 0 : receive_one(fuse, op, &buf);

	if (r == -EAGAIN || r == -EINTR)
		return false;
	if (r <= 0) {
		/* That the device is gone libfuse says by 0; the kernel, where that comes
		 * while a request is on its way, by ECONNABORTED. */
		end(fuse, exited ? 0 : r && r != -ECONNABORTED ? r : -ENODEV);
		return false;
	}
	fuse->stats.received++;
	fuse->current = op;
	fuse_session_process_buf(fuse->session, &buf);
	if (fuse->current)
		give_back_pipe(op);
	fuse->current = NULL;
	left_out = 0;
	return fuse->state == SERVING;
}

/*
 * While all are in hand the device stays watched, for nothing but its end: that
 * comes unasked, and to ask for requests again cannot want for memory.
 */
static void readable(struct onefd_watch *watch, uint32_t events)
{
	struct onefd_fuse *fuse = onefd_container(watch, struct onefd_fuse, watch);
	struct onefd_link *free = &fuse->free;

	(void)events;
	if (list_empty(free)) {
		end(fuse, -ENODEV);
		return;
	}
	for (uint32_t i = 0; i < fuse->config.budget && !list_empty(free); i++)
		if (!receive(fuse, list_entry(free->next, struct onefd_fuse_op, link)))
			break;
	if (list_empty(free) && fuse->state == SERVING) {
		fuse->stats.full++;
		(void)onefd_watch_update(watch, 0);
	}
	/* The disk may begin while this turn replies to others. */
	(void)onefd_flush(fuse->loop);
}

/* ---- requests in hand ------------------------------------------------------- */

/* Whether @pid, a thread, was told to die: an interrupt does not say. */
static bool dying(pid_t pid)
{
	unsigned long long set, pending = 0;
	char path[40], *line = NULL;
	size_t room = 0;
	FILE *status;

	/* One that is not in our name space. */
	if (pid <= 0)
		return false;
	(void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	/* It is there, for it waits; but /proc may not be, or not show it. */
	status = fopen(path, "re");
	if (!status)
		return false;
	/* Its groups, of which there may be 65536, stand before. */
	while (getline(&line, &room, status) > 0)
		if (sscanf(line, "SigPnd: %llx", &set) == 1 || sscanf(line, "ShdPnd: %llx", &set) == 1)
			pending |= set;
	free(line);
	(void)fclose(status);
	return pending & 1ull << (9 - 1); /* SIGKILL */
}

static void interrupted(fuse_req_t req, void *data)
{
	struct onefd_fuse_op *op = data;

	op->session->stats.interrupted++;
	/* libfuse holds the request's lock: no reply from here, nor does cancel call. */
	if (op->interruptible || dying(fuse_req_ctx(req)->pid))
		cancel(op);
}

struct onefd_fuse_op *onefd_fuse_begin(struct onefd_fuse *fuse, fuse_req_t req)
{
	struct onefd_fuse_op *op = fuse ? fuse->current : NULL;

	if (!op || !req)
		return NULL;
	fuse->current = NULL;
	list_remove(&op->link);
	list_push(&fuse->in_hand, &op->link);
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

	if (!op || !op->fuse)
		return -EINVAL;
	r = onefd_submit(op->session->loop, &op->req, fn);
	if (r < 0)
		return r;
	/* Called at once where the interrupt came first. */
	fuse_req_interrupt_func(op->fuse, interrupted, op);
	if (op->session->state == ENDING && op->interruptible)
		cancel(op);
	return 0;
}

void onefd_fuse_end(struct onefd_fuse_op *op)
{
	struct onefd_fuse *fuse = op ? op->session : NULL;

	if (!op || !op->fuse)
		return;
	op->fuse = NULL;
	give_back_pipe(op);
	list_remove(&op->link);
	list_push_front(&fuse->free, &op->link);
	fuse->stats.in_hand--;
	if (fuse->state == SERVING && !fuse->watch.events) {
		int r = onefd_watch_update(&fuse->watch, EPOLLIN);

		if (r < 0)
			end(fuse, r);
	}
	end_if_empty(fuse);
}

/* ---- its life --------------------------------------------------------------- */

static int check_config(const struct onefd_fuse_config *config)
{
	for (size_t i = 0; i < sizeof config->reserved / sizeof *config->reserved; i++)
		if (config->reserved[i])
			return -EINVAL;
	if (config->flags & ~(ONEFD_FUSE_HANDLE_KILLPRIV_V2 | ONEFD_FUSE_SPLICE_WRITES))
		return -EINVAL;
	if (config->depth > DEPTH_MOST || config->transfer > TRANSFER_MOST ||
	    config->transfer % PAGE || config->extra > EXTRA_MOST)
		return -EINVAL;
	return 0;
}

static void fill_in(struct onefd_fuse *fuse, const struct onefd_fuse_config *config)
{
	fuse->config = *config;
	if (!fuse->config.depth)
		fuse->config.depth = DEPTH;
	if (!fuse->config.budget)
		fuse->config.budget = BUDGET;
	if (!fuse->config.transfer)
		fuse->config.transfer = TRANSFER_MOST;
	fuse->op_size = OP_SIZE + ((fuse->config.extra + 63) & ~(size_t)63);
	/* Until init has said what the kernel may send, libfuse asks for all. */
	fuse->buffer_size = ANSWER + TRANSFER_MOST + PAGE;
}

static void make_op(struct onefd_fuse *fuse, uint32_t index)
{
	struct onefd_fuse_op *op = (void *)(fuse->ops + index * fuse->op_size);

	op->data = (char *)op + OP_SIZE;
	op->session = fuse;
	op->buffer = fuse->buffers + index * fuse->buffer_size;
	op->memory = op->buffer + ANSWER;
	op->size = fuse->config.transfer > ATTRIBUTE ? fuse->config.transfer : ATTRIBUTE;
	list_push(&fuse->free, &op->link);
}

static int make_ops(struct onefd_fuse *fuse)
{
	uint32_t depth = fuse->config.depth;

	fuse->ops = calloc(depth, fuse->op_size);
	if (!fuse->ops || depth > SIZE_MAX / fuse->buffer_size)
		return -ENOMEM;
	/* Address space; memory is what is used. */
	fuse->buffers = mmap(NULL, depth * fuse->buffer_size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (fuse->buffers == MAP_FAILED) {
		fuse->buffers = NULL;
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < depth; i++)
		make_op(fuse, i);
	return 0;
}

static void destroy(struct onefd_fuse *fuse)
{
	if (fuse->buffers)
		(void)munmap(fuse->buffers, fuse->config.depth * fuse->buffer_size);
	pipes_free(&fuse->pipes);
	free(fuse->ops);
	free(fuse);
}

/* Of the errors, -ECHILD: it asks for nothing. */
static int check_loop(const struct onefd *loop)
{
	struct onefd_stats none;

	return onefd_stats(loop, &none, 0);
}

int onefd_fuse_new(struct onefd_fuse **ret, struct onefd *loop, struct fuse_session *session,
		   const struct onefd_fuse_config *config)
{
	static const struct onefd_fuse_config none;
	struct onefd_fuse *fuse;
	int r;

	if (!config)
		config = &none;
	if (!ret || !loop || !session || fuse_session_fd(session) < 0 || check_config(config) < 0)
		return -EINVAL;
	r = check_loop(loop);
	if (r < 0)
		return r;
	fuse = calloc(1, sizeof *fuse);
	if (!fuse)
		return -ENOMEM;
	fuse->loop = loop;
	fuse->session = session;
	fuse->pid = getpid();
	list_init(&fuse->free);
	list_init(&fuse->in_hand);
	pipes_init(&fuse->pipes);
	onefd_watch_init(&fuse->watch, fuse_session_fd(session), readable);
	onefd_task_init(&fuse->end, ended);
	fill_in(fuse, config);
	r = make_ops(fuse);
	if (r < 0) {
		destroy(fuse);
		return r;
	}
	*ret = fuse;
	return 0;
}

int onefd_fuse_free(struct onefd_fuse *fuse)
{
	int r = fuse ? check(fuse) : 0;

	if (r < 0 || !fuse)
		return r;
	if (fuse->state == SERVING || fuse->state == ENDING || fuse->stats.in_hand)
		return -EBUSY;
	destroy(fuse);
	return 0;
}

void onefd_fuse_init(struct onefd_fuse *fuse, struct fuse_conn_info *conn)
{
	uint32_t depth, transfer;

	if (!fuse || !conn)
		return;
	transfer = fuse->config.transfer;
	if (fuse->config.flags & ONEFD_FUSE_SPLICE_WRITES && conn->capable & FUSE_CAP_SPLICE_READ)
		transfer = transfer < SPLICE_LEAST ? transfer : pipes_fit(&fuse->pipes, transfer);
	depth = fuse->config.depth;
	conn->want &=
		~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	/* If readahead and writeback had all, a look-up would wait for one of them. */
	depth -= depth / 4;
	conn->max_background = depth < UINT16_MAX ? depth : UINT16_MAX;
	conn->congestion_threshold = conn->max_background - conn->max_background / 4;
	/* The kernel counts in pages what it may send: this bounds the reads, too. */
	if (conn->max_write > transfer)
		conn->max_write = transfer;
	want_what_is_left_out(fuse, conn);
}

int onefd_fuse_start(struct onefd_fuse *fuse, onefd_fuse_fn *fn, void *data)
{
	int r = check(fuse), flags;

	if (r < 0)
		return r;
	if (!fn)
		return -EINVAL;
	if (fuse->state == SERVING || fuse->state == ENDING)
		return -EBUSY;
	flags = fcntl(fuse->watch.fd, F_GETFL);
	/* Nothing else can be wrong. */
	if (flags < 0 || fcntl(fuse->watch.fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -EBADF;
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
	if (check(fuse) == 0)
		end(fuse, 0);
}

int onefd_fuse_stats(const struct onefd_fuse *fuse, struct onefd_fuse_stats *stats, size_t size)
{
	size_t known = size < sizeof *stats ? size : sizeof *stats;
	int r = check(fuse);

	if (r < 0)
		return r;
	if (!stats)
		return -EINVAL;
	memset(stats, 0, size);
	memcpy(stats, &fuse->stats, known);
	return 0;
}
