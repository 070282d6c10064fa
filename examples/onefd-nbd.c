/*
 * onefd-nbd - serves files and block devices as network block devices (NBD).
 *
 *   cc -D_GNU_SOURCE -o onefd-nbd onefd-nbd.c $(pkg-config --cflags --libs onefd)
 *
 * One thread and one loop hold all sockets, timers, signals and file I/O, and that
 * thread never waits for a disk: who asks for what is in memory is answered at once,
 * beside any number that wait for a slow device.
 *
 * A connection that is idle has no buffer. All receive into one of the loop's, a whole
 * batch of requests at a time; only the rest of a request that is not whole stays with
 * its connection. A transfer is done in pieces, each with a buffer of its own out of a
 * bounded budget: see "memory". A connection for which there is no room is not read
 * from until there is. Answers of one turn leave by one sendmsg(), but of large ones some
 * only in the next: while they are copied nobody sees to the disk.
 *
 * It is no relay for the open network: there is no TLS, and no password.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/falloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <onefd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define STATUS_FAILED	1
#define STATUS_USAGE	2
#define NSEC_PER_SEC	UINT64_C(1000000000)

#define PIECE		(256u << 10)	/* of a transfer, at most */
#define WINDOW		8u		/* pieces of one read at a time */
#define SMALL		4096u		/* the least buffer, which everybody gets */
#define MEMORY		((size_t)64 << 20)	/* of all requests; SMALL ones may go beyond */
#define RETAINED	((size_t)16 << 20)	/* of it kept for the next requests */
#define REQUESTS_MOST	256u		/* of one connection at a time */
#define RECEIVE		(256u << 10)	/* at a time */
#define RECEIVE_BULKY	1024u		/* ... where a large payload is to follow */
#define RECEIVES	4		/* of a connection in a turn */
#define BULKY		(16u << 10)	/* a payload not to be copied */
#define UNSENT		(1 << 20)	/* that the kernel holds for a UNIX socket */
#define OPTION_MOST	(16u << 10)	/* data of an option */
#define PAYLOAD_MOST	(32u << 20)	/* of a request */
#define CACHE_MOST	(64u << 20)	/* read ahead for one request */
#define ACCEPTS		64		/* a turn */
#define VECTORS		256		/* a sendmsg() */
#define SHARE		(256u << 10)	/* about what a connection sends in a turn */
#define ZERO_VECTORS	16		/* pieces of zeroes in one write */
#define SPIN_US		100		/* most that is looked for the answer to a lone read */
#define FINISH_S	5		/* for the last answers, when we are to end */
#define TIMEOUT_MOST	86400u

/* ---- the protocol's numbers --------------------------------------------------- */

#define GREETING_MAGIC	UINT64_C(0x4e42444d41474943)	/* "NBDMAGIC" */
#define OPTION_MAGIC	UINT64_C(0x49484156454f5054)	/* "IHAVEOPT" */
#define OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define REQUEST_MAGIC	0x25609513u
#define SIMPLE_MAGIC	0x67446698u
#define CHUNK_MAGIC	0x668e33efu
#define OPTION_HEADER	16u
#define OPTION_REPLY_HEADER 20u
#define REQUEST_HEADER	28u
#define SIMPLE_HEADER	16u
#define CHUNK_HEADER	20u
#define ZEROES		124u		/* after the answer to OPTION_EXPORT_NAME */
#define ALLOCATION	"base:allocation"
#define ALLOCATION_ID	1

enum { HELLO_FIXED = 1, HELLO_NO_ZEROES = 2 };
enum {
	OPTION_EXPORT_NAME = 1, OPTION_ABORT, OPTION_LIST, OPTION_STARTTLS = 5, OPTION_INFO,
	OPTION_GO, OPTION_STRUCTURED, OPTION_LIST_META, OPTION_SET_META,
};
enum { REP_ACK = 1, REP_SERVER, REP_INFO, REP_META };
#define REP_UNSUPPORTED	0x80000001u
#define REP_POLICY	0x80000002u
#define REP_INVALID	0x80000003u
#define REP_UNKNOWN	0x80000006u
#define REP_TOO_BIG	0x80000009u
enum { INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE };
enum {
	HAS_FLAGS = 1, HAS_READ_ONLY = 2, HAS_FLUSH = 4, HAS_FUA = 8, HAS_TRIM = 32,
	HAS_ZEROES = 64, HAS_DF = 128, HAS_MULTI_CONN = 256, HAS_CACHE = 1024, HAS_FAST_ZERO = 2048,
};
enum { READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS };
enum { FLAG_FUA = 1, FLAG_NO_HOLE = 2, FLAG_DF = 4, FLAG_REQ_ONE = 8, FLAG_FAST_ZERO = 16 };
enum { CHUNK_DONE = 1 };
enum { CHUNK_NONE, CHUNK_DATA, CHUNK_STATUS = 5, CHUNK_ERROR = 32769 };
enum { EXTENT_DATA, EXTENT_HOLE = 3 };	/* a hole, which reads as zeroes */

/* What is sent so: the answer to a request that is not of ours to be translated. */
static uint32_t wire_error(int error)
{
	switch (error) {
	case 0:
		return 0;
	case EPERM:
	case EACCES:
	case EROFS:
		return 1;
	case ENOMEM:
		return 12;
	case EINVAL:
		return 22;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return 28;
	case EOVERFLOW:
		return 75;
	case EOPNOTSUPP:
		return 95;
	case ESHUTDOWN:
		return 108;
	default:
		return 5;
	}
}

static uint16_t get16(const char *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof value);
	return be16toh(value);
}

static uint32_t get32(const char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof value);
	return be32toh(value);
}

static uint64_t get64(const char *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof value);
	return be64toh(value);
}

/* Each returns where the next goes. */
static char *put16(char *at, uint16_t value)
{
	value = htobe16(value);
	return (char *)memcpy(at, &value, sizeof value) + sizeof value;
}

static char *put32(char *at, uint32_t value)
{
	value = htobe32(value);
	return (char *)memcpy(at, &value, sizeof value) + sizeof value;
}

static char *put64(char *at, uint64_t value)
{
	value = htobe64(value);
	return (char *)memcpy(at, &value, sizeof value) + sizeof value;
}

/* ---- what there is ------------------------------------------------------------- */

struct export {
	const char *path, *name;
	struct onefd_file file;
	uint64_t size;
	unsigned failures;		/* syncs that failed: each connection is told once */
	bool written;
};

/* Bytes that are to be sent. */
struct out {
	struct out *next;
	const char *bytes;
	size_t length;
	void (*sent)(struct out *out);	/* or dropped: the connection is dead then */
};

/* A part of a transfer. */
struct piece {
	struct piece *next;		/* of the request, or of those that are free */
	struct request *request;
	char *buffer;
	size_t size;			/* of the buffer; 0: none */
	uint64_t offset;
	size_t length, filled;		/* filled: received, or what the I/O has done */
	bool ready;			/* read */
	struct out out;
	struct onefd_req io;
};

/* Lives until no I/O is under way for it and all of its answer is sent. */
struct request {
	struct request *next;		/* of those that are free, or that answer later */
	struct connection *connection;
	uint64_t cookie, offset;
	uint32_t length;
	uint16_t type, flags;
	uint32_t begun;			/* bytes of it: in pieces */
	unsigned io, outs;		/* what it lives for; io: its receiver, too */
	int error;			/* errno, the first */
	bool answered;			/* its header is on its way */
	bool data;			/* ... and pieces follow it */
	bool trailed;			/* a chunk that tells how it ended follows */
	struct piece *pieces, *last;	/* of a read, in order */
	struct out head;
	char head_bytes[CHUNK_HEADER + 8];
	struct piece first;
};

enum phase { PHASE_HELLO, PHASE_OPTIONS, PHASE_REQUESTS };

struct connection {
	struct onefd_watch watch;
	struct onefd_timer timer;
	struct connection *next, **at;	/* in the list of all, or of the dead */
	struct connection *send_next;	/* of those that have something to send this turn */
	struct connection *wait_next;	/* of those that wait for room */
	struct export *export, *meta;	/* meta: whose allocation was chosen to be told */
	struct out *outs, *outs_last;
	size_t sent;			/* of the first */
	struct request *speaking;	/* whose data is announced and not all handed over */
	struct request *later, *later_last;	/* answers that are to follow it */
	struct request *payload;	/* that is being received */
	struct piece *piece;		/* into which, or NULL */
	char *kept;			/* what came and was not taken yet */
	size_t kept_at, kept_length;
	size_t held, need;		/* bytes: of its requests; what it waits for */
	size_t skip;			/* bytes to come that nobody wants */
	uint64_t taken_at, sent_at;	/* when it last got further */
	unsigned requests, failures;
	uint32_t events;		/* that are watched */
	enum phase phase;
	bool no_zeroes, structured;
	bool full;			/* its socket takes no more */
	bool sending, waiting;		/* stands in that list */
	bool ending;			/* nothing more is taken from it */
	bool bulky;			/* its last request was a large write */
	bool dead, timed;
};

static struct onefd *loop;
static struct export *exports;
static size_t export_count;
static struct connection *connections, *dead;
static struct connection *senders, **senders_end = &senders;
static struct connection *waiters, **waiters_end = &waiters;
static unsigned connection_count, connection_most, request_count;
static size_t used;			/* bytes of requests, buffers and what is kept */
static struct onefd_watch listener;
static struct onefd_task turn_task;
static struct onefd_timer ending_timer, retry_timer;
static bool released;			/* room, in this turn */
static bool stopping, direct, read_only;
static unsigned handshake_s = 10, idle_s, stall_s = 30;
static char *received;			/* an option for what was kept, then RECEIVE */
static char *zeroes;			/* PIECE of them */
static struct iovec zero_iov[ZERO_VECTORS];	/* each of them that piece */

static void die(const char *what, int error)
{
	fprintf(stderr, "onefd-nbd: %s: %s\n", what, strerror(error));
	exit(STATUS_FAILED);
}

static void submit(struct onefd_req *io, onefd_req_fn *fn)
{
	int r = onefd_submit(loop, io, fn);

	if (r < 0)
		die("cannot submit", -r);
}

/* What is left to do when the callbacks of this turn have run: see end_turn(). */
static void post_turn(void)
{
	(void)onefd_post(loop, &turn_task);	/* -EALREADY: it will run */
}

/* ---- memory --------------------------------------------------------------------
 *
 * A connection may hold half of what is free: one alone has plenty, and however many
 * sit on what they hold, something is left for the next. When that is too little, who
 * holds nothing else still gets a SMALL buffer, and a large transfer goes through it
 * bit by bit. So all that is held is bounded, and nobody starves.
 */

#define CLASSES 7			/* SMALL << 0 .. SMALL << 6 == PIECE */

union slot {
	union slot *next;
	char bytes[SMALL];
};

static union slot *free_buffers[CLASSES];
static struct request *free_requests;
static size_t retained;

static unsigned class_of(size_t size)
{
	return size <= SMALL ? 0 : 64u - 12u - (unsigned)__builtin_clzll(size - 1);
}

static bool may_hold(const struct connection *connection, size_t bytes)
{
	return used < MEMORY && connection->held + bytes <= (MEMORY - used) / 2;
}

/* How large a buffer it may have towards @want bytes; 0: none now. */
static size_t grant(const struct connection *connection, size_t want)
{
	size_t size = (size_t)SMALL << class_of(want);

	if (may_hold(connection, size + sizeof(struct request)))
		return size;
	return connection->held <= sizeof(struct request) ? SMALL : 0;
}

static void charge(struct connection *connection, size_t bytes)
{
	connection->held += bytes;
	used += bytes;
}

static void discharge(struct connection *connection, size_t bytes)
{
	connection->held -= bytes;
	used -= bytes;
	released = true;
	if (waiters)
		post_turn();
}

/* The last that was given back is the first to go: it is in the processor's cache. */
static bool take_buffer(struct piece *piece, size_t size)
{
	union slot **free_list = &free_buffers[class_of(size)], *slot = *free_list;

	if (slot) {
		*free_list = slot->next;
		retained -= size;
	} else if (posix_memalign((void **)&slot, SMALL, size) != 0) {
		return false;
	}
	piece->buffer = slot->bytes;
	piece->size = size;
	charge(piece->request->connection, size);
	return true;
}

static void free_buffer(struct piece *piece)
{
	union slot **free_list, *slot;

	if (!piece->size)
		return;
	slot = (union slot *)(void *)piece->buffer;
	free_list = &free_buffers[class_of(piece->size)];
	discharge(piece->request->connection, piece->size);
	if (retained + piece->size > RETAINED) {
		free(slot);
	} else {
		slot->next = *free_list;
		*free_list = slot;
		retained += piece->size;
	}
	piece->size = 0;
}

static void free_memory(void)
{
	for (unsigned class = 0; class < CLASSES; class++)
		for (union slot *slot = free_buffers[class], *next; slot; slot = next) {
			next = slot->next;
			free(slot);
		}
	for (struct request *request = free_requests, *next; request; request = next) {
		next = request->next;
		free(request);
	}
	free(received);
	free(zeroes);
}

/* A piece besides the request's first: a transfer of more than one. */
static struct piece *new_piece(struct request *request, size_t size)
{
	struct piece *piece = malloc(sizeof *piece);

	if (!piece)
		return NULL;
	piece->request = request;
	piece->size = 0;
	if (take_buffer(piece, size))
		return piece;
	free(piece);
	return NULL;
}

static void free_piece(struct piece *piece)
{
	free_buffer(piece);
	if (piece != &piece->request->first)
		free(piece);
}

static struct request *new_request(struct connection *connection)
{
	struct request *request = free_requests;

	if (request) {
		free_requests = request->next;
		retained -= sizeof *request;
	} else {
		request = malloc(sizeof *request);
		if (!request)
			return NULL;
	}
	memset(request, 0, offsetof(struct request, first));
	request->connection = connection;
	request->first.request = request;
	request->first.size = 0;
	charge(connection, sizeof *request);
	connection->requests++;
	request_count++;
	return request;
}

static void end_if_done(struct connection *connection);

/* Frees it when nothing needs it any more. */
static void put_request(struct request *request)
{
	struct connection *connection = request->connection;

	if (request->io || request->outs)
		return;
	for (struct piece *piece = request->pieces, *next; piece; piece = next) {
		next = piece->next;
		free_piece(piece);
	}
	free_buffer(&request->first);
	discharge(connection, sizeof *request);
	connection->requests--;
	connection->taken_at = onefd_now(loop);
	request_count--;
	if (retained + sizeof *request > RETAINED) {
		free(request);
	} else {
		request->next = free_requests;
		free_requests = request;
		retained += sizeof *request;
	}
	end_if_done(connection);
}

/* ---- a connection's life -------------------------------------------------------
 *
 * It is dead when its socket is closed, and freed, at the end of a turn, when no request
 * of it is left: the disk may still write to their buffers.
 */

static void watch_connection(struct connection *connection);
static void end_payload(struct connection *connection, int error);
static void accept_on(void);

static void unlink_connection(struct connection *connection)
{
	*connection->at = connection->next;
	if (connection->next)
		connection->next->at = connection->at;
}

static void link_connection(struct connection **list, struct connection *connection)
{
	connection->next = *list;
	connection->at = list;
	if (*list)
		(*list)->at = &connection->next;
	*list = connection;
}

static void drop_kept(struct connection *connection)
{
	used -= connection->kept_length;
	free(connection->kept);
	connection->kept = NULL;
	connection->kept_at = connection->kept_length = 0;
}

static void drop_later(struct connection *connection)
{
	struct request *request;

	connection->speaking = NULL;
	while ((request = connection->later)) {
		connection->later = request->next;
		request->outs--;
		put_request(request);
	}
}

static void kill_connection(struct connection *connection)
{
	struct out *out;

	if (connection->dead)
		return;
	connection->dead = true;
	onefd_watch_stop(&connection->watch);
	onefd_timer_stop(&connection->timer);
	close(connection->watch.fd);
	unlink_connection(connection);
	link_connection(&dead, connection);
	connection_count--;
	drop_kept(connection);
	while ((out = connection->outs)) {
		connection->outs = out->next;
		out->sent(out);
	}
	drop_later(connection);
	if (connection->payload)
		end_payload(connection, ECONNRESET);
	accept_on();
	released = true;
	post_turn();
}

/* Its client has said, or is held to have said, that it wants no more. */
static void end_connection(struct connection *connection)
{
	connection->ending = true;
	if (connection->payload)
		end_payload(connection, ESHUTDOWN);
	drop_kept(connection);
	end_if_done(connection);
	if (!connection->dead)
		watch_connection(connection);
}

static void end_if_done(struct connection *connection)
{
	if (connection->dead)
		post_turn();
	else if (connection->ending && !connection->requests && !connection->outs)
		kill_connection(connection);
}

static bool is_waited_for(const struct connection *connection)
{
	return !connection->ending && !connection->waiting &&
	       (connection->payload || connection->skip || connection->kept);
}

/* When the client will have had enough time; 0: nothing is expected of it. */
static uint64_t deadline_of(const struct connection *connection)
{
	if (connection->phase != PHASE_REQUESTS)
		return connection->taken_at + handshake_s * NSEC_PER_SEC;
	if (connection->full)
		return connection->sent_at + stall_s * NSEC_PER_SEC;
	if (is_waited_for(connection))
		return connection->taken_at + stall_s * NSEC_PER_SEC;
	if (idle_s && !connection->requests && !connection->outs)
		return connection->taken_at + idle_s * NSEC_PER_SEC;
	return 0;
}

static void watch_time(struct connection *connection)
{
	uint64_t deadline = deadline_of(connection);

	if (!deadline || (connection->timed && connection->timer.deadline <= deadline))
		return;
	connection->timed = true;
	onefd_timer_start(loop, &connection->timer, deadline);
}

/* It is not moved whenever a client gets further: it looks when it is due. */
static void time_is_up(struct onefd_timer *timer)
{
	struct connection *connection = onefd_container(timer, struct connection, timer);

	connection->timed = false;
	if (deadline_of(connection) && deadline_of(connection) <= onefd_now(loop))
		kill_connection(connection);
	else
		watch_time(connection);
}

/* Nothing that is not waited for is watched: a client that has gone would be told of
 * again and again. */
static void watch_connection(struct connection *connection)
{
	uint32_t events = connection->full ? EPOLLOUT : 0;
	int r = 0;

	if (!connection->ending && !connection->waiting)
		events |= EPOLLIN;
	if (events == connection->events)
		return;
	if (!events)
		onefd_watch_stop(&connection->watch);
	else if (!connection->events)
		r = onefd_watch_start(loop, &connection->watch, events);
	else
		r = onefd_watch_update(&connection->watch, events);
	connection->events = events;
	if (r < 0)
		kill_connection(connection);
}

static void free_dead(void)
{
	for (struct connection *connection = dead, *next; connection; connection = next) {
		next = connection->next;
		if (connection->requests || connection->sending || connection->waiting)
			continue;
		unlink_connection(connection);
		free(connection);
	}
}

/* ---- sending ------------------------------------------------------------------- */

/* At the turn's end, or at the next one's. */
static void send_later(struct connection *connection)
{
	if (connection->sending)
		return;
	connection->sending = true;
	connection->send_next = NULL;
	*senders_end = connection;
	senders_end = &connection->send_next;
	post_turn();
}

static void push_out(struct connection *connection, struct out *out, const void *bytes,
		     size_t length, void (*sent)(struct out *))
{
	*out = (struct out){ .bytes = bytes, .length = length, .sent = sent };
	if (connection->outs)
		connection->outs_last->next = out;
	else
		connection->outs = out;
	connection->outs_last = out;
	if (!connection->full)
		send_later(connection);
}

static size_t gather(const struct connection *connection, struct iovec *iov, size_t *bytes)
{
	size_t count = 0, skip = connection->sent;

	*bytes = 0;
	for (struct out *out = connection->outs; out && count < VECTORS && *bytes < SHARE;
	     out = out->next) {
		iov[count++] = (struct iovec){ (char *)out->bytes + skip, out->length - skip };
		*bytes += out->length - skip;
		skip = 0;
	}
	return count;
}

/* What was sent is let go. */
static void consume(struct connection *connection, size_t n)
{
	struct out *out;

	connection->sent += n;
	while ((out = connection->outs) && connection->sent >= out->length) {
		connection->sent -= out->length;
		connection->outs = out->next;
		connection->sent_at = onefd_now(loop);
		out->sent(out);
	}
}

static void send_outs(struct connection *connection)
{
	struct iovec iov[VECTORS];
	struct msghdr message = { .msg_iov = iov };
	bool was_full = connection->full;
	size_t bytes;
	ssize_t n;

	connection->full = false;
	if (connection->outs) {
		message.msg_iovlen = gather(connection, iov, &bytes);
		n = sendmsg(connection->watch.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			kill_connection(connection);
			return;
		}
		connection->full = n < (ssize_t)bytes;
		if (n > 0)
			consume(connection, (size_t)n);
		if (connection->dead)
			return;
	}
	if (connection->outs && !connection->full)
		send_later(connection);
	if (connection->full && !was_full)
		connection->sent_at = onefd_now(loop);
	watch_connection(connection);
	if (connection->dead)
		return;
	watch_time(connection);
	end_if_done(connection);
}

/* ---- answers ------------------------------------------------------------------- */

static void head_sent(struct out *out)
{
	struct request *request = onefd_container(out, struct request, head);

	request->outs--;
	put_request(request);
}

/* Nobody may speak within the data of another: that is waited for. */
static void push_head(struct request *request, const char *end)
{
	struct connection *connection = request->connection;

	request->outs++;
	request->answered = true;
	request->head.length = (size_t)(end - request->head_bytes);
	if (!connection->speaking) {
		push_out(connection, &request->head, request->head_bytes, request->head.length,
			 head_sent);
		return;
	}
	request->next = NULL;
	if (connection->later)
		connection->later_last->next = request;
	else
		connection->later = request;
	connection->later_last = request;
}

static char *put_simple(struct request *request, char *at, int error)
{
	at = put32(at, SIMPLE_MAGIC);
	at = put32(at, wire_error(error));
	return put64(at, request->cookie);
}

static char *put_chunk(struct request *request, char *at, unsigned flags, unsigned type,
		       size_t length)
{
	at = put32(at, CHUNK_MAGIC);
	at = put16(at, (uint16_t)flags);
	at = put16(at, (uint16_t)type);
	at = put64(at, request->cookie);
	return put32(at, (uint32_t)length);
}

/* The last chunk of an answer: how it ended. */
static char *put_end(struct request *request, char *at, int error)
{
	if (!error)
		return put_chunk(request, at, CHUNK_DONE, CHUNK_NONE, 0);
	at = put_chunk(request, at, CHUNK_DONE, CHUNK_ERROR, 6);
	at = put32(at, wire_error(error));
	return put16(at, 0);
}

/* The whole answer to what has no data to give. */
static void answer(struct request *request, int error)
{
	char *at = request->head_bytes;
	bool chunk = request->type == READ || request->type == STATUS;

	if (request->connection->dead)
		put_request(request);
	else if (chunk && request->connection->structured)
		push_head(request, put_end(request, at, error));
	else
		push_head(request, put_simple(request, at, error));
}

/* ---- reading -------------------------------------------------------------------
 *
 * A read has a window of pieces, mostly one that is all of it. When those of the first
 * window are there, its header goes, then piece after piece in order; one that is sent
 * reads what comes next. A read of more than the window may so fail after its header: a
 * structured answer then gives zeroes for the rest and tells of it in a chunk of its
 * own, a simple one ends with the connection.
 */

static void read_piece(struct onefd_req *io);

static void submit_read(struct piece *piece)
{
	struct export *export = piece->request->connection->export;

	piece->request->io++;
	onefd_prep_pread(&piece->io, &export->file, piece->buffer + piece->filled,
			 piece->length - piece->filled, (off_t)(piece->offset + piece->filled));
	submit(&piece->io, read_piece);
}

/* After its I/O. What was short goes on: the next tells why, an error or a file's end. */
static bool is_over(struct piece *piece)
{
	struct request *request = piece->request;
	ssize_t n = piece->io.res;

	request->io--;
	if (n > 0)
		piece->filled += (size_t)n;
	else if (!request->error)
		request->error = n < 0 ? (int)-n : EIO;
	return n <= 0 || piece->filled == piece->length;
}

static void take_range(struct piece *piece)
{
	struct request *request = piece->request;
	size_t left = request->length - request->begun;

	piece->length = left < piece->size ? left : piece->size;
	piece->filled = 0;
	piece->offset = request->offset + request->begun;
	request->begun += (uint32_t)piece->length;
}

/* What has failed is read no further; zeroes are given for it. */
static void read_next(struct piece *piece)
{
	struct request *request = piece->request;

	take_range(piece);
	piece->next = NULL;
	if (request->pieces)
		request->last->next = piece;
	else
		request->pieces = piece;
	request->last = piece;
	piece->ready = request->error;
	if (!piece->ready)
		submit_read(piece);
}

static void push_read_head(struct request *request)
{
	bool whole = request->begun == request->length;
	char *at = request->head_bytes;

	request->data = true;
	if (!request->connection->structured) {
		push_head(request, put_simple(request, at, 0));
		return;
	}
	request->trailed = !whole;
	at = put_chunk(request, at, whole ? CHUNK_DONE : 0, CHUNK_DATA, (size_t)request->length + 8);
	push_head(request, put64(at, request->offset));
}

static void send_read(struct request *request);

static void piece_sent(struct out *out)
{
	struct piece *piece = onefd_container(out, struct piece, out);
	struct request *request = piece->request;

	request->outs--;
	if (!request->connection->dead && request->begun < request->length) {
		read_next(piece);
		send_read(request);
		return;
	}
	free_piece(piece);
	put_request(request);
}

/* Until one speaks who has not yet all of its data. */
static void push_later(struct connection *connection)
{
	struct request *request;

	while (!connection->speaking && (request = connection->later)) {
		connection->later = request->next;
		push_out(connection, &request->head, request->head_bytes, request->head.length,
			 head_sent);
		if (request->data)
			send_read(request);
	}
}

/* Sends what is next in order, as far as it has been read, if it is its turn. */
static void send_read(struct request *request)
{
	struct connection *connection = request->connection;
	struct piece *piece;

	if (connection->speaking && connection->speaking != request)
		return;
	while ((piece = request->pieces) && piece->ready) {
		if (request->error && !connection->structured) {
			request->io++;	/* for its answers are dropped */
			kill_connection(connection);
			request->io--;
			put_request(request);
			return;
		}
		if (request->error)
			memset(piece->buffer, 0, piece->length);
		request->pieces = piece->next;
		request->outs++;
		push_out(connection, &piece->out, piece->buffer, piece->length, piece_sent);
	}
	if (piece || request->begun < request->length) {
		connection->speaking = request;
		return;
	}
	if (connection->speaking != request)
		return;
	connection->speaking = NULL;
	/* Its header has been sent: what was not in the first window came after that. */
	if (request->trailed)
		push_head(request, put_end(request, request->head_bytes, request->error));
	push_later(connection);
}

static void read_piece(struct onefd_req *io)
{
	struct piece *piece = onefd_container(io, struct piece, io);
	struct request *request = piece->request;

	if (!is_over(piece)) {
		submit_read(piece);
		return;
	}
	piece->ready = true;
	if (request->connection->dead)
		put_request(request);
	else if (request->answered)
		send_read(request);
	else if (!request->io && request->error)
		answer(request, request->error);
	else if (!request->io) {
		push_read_head(request);
		send_read(request);
	}
}

/* More pieces are had where there is plenty of memory. */
static void start_read(struct request *request, size_t size)
{
	struct piece *piece = &request->first;

	if (!take_buffer(piece, size)) {
		answer(request, ENOMEM);
		return;
	}
	read_next(piece);
	for (unsigned i = 1; i < WINDOW && request->begun < request->length; i++) {
		if (!may_hold(request->connection, size))
			return;
		piece = new_piece(request, size);
		if (!piece)
			return;
		read_next(piece);
	}
}

/* ---- writing, and the rest ------------------------------------------------------
 *
 * A request of another kind is a chain of steps: the last one answers. A write has all
 * its pieces under way at once, each as soon as it is received.
 */

static void export_synced(struct onefd_req *io)
{
	struct request *request = onefd_container(io, struct request, first.io);
	struct connection *connection = request->connection;
	struct export *export = connection->export;

	request->io--;
	if (io->res < 0)
		export->failures++;
	/* The kernel tells of a failure once. What was lost may be anybody's. */
	if (connection->failures != export->failures && !request->error)
		request->error = io->res < 0 ? (int)-io->res : EIO;
	connection->failures = export->failures;
	answer(request, request->error);
}

static void sync_export(struct request *request)
{
	request->io++;
	onefd_prep_fsync(&request->first.io, &request->connection->export->file, 1);
	submit(&request->first.io, export_synced);
}

/* All is done but, where that was asked for, to be on the disk. */
static void finish(struct request *request, bool synced)
{
	if (request->flags & FLAG_FUA && !request->error && !synced)
		sync_export(request);
	else
		answer(request, request->error);
}

static void put_write(struct request *request)
{
	if (--request->io == 0)
		finish(request, request->length <= request->first.length);
}

static void write_piece(struct onefd_req *io);

static void submit_write(struct piece *piece)
{
	struct request *request = piece->request;
	struct export *export = request->connection->export;

	request->io++;
	export->written = true;
	onefd_prep_pwrite(&piece->io, &export->file, piece->buffer + piece->filled,
			  piece->length - piece->filled, (off_t)(piece->offset + piece->filled));
	/* Of many, one sync at the end is less. */
	if (request->flags & FLAG_FUA && piece->length == request->length)
		piece->io.rw_flags = RWF_DSYNC;
	submit(&piece->io, write_piece);
}

static void write_piece(struct onefd_req *io)
{
	struct piece *piece = onefd_container(io, struct piece, io);
	struct request *request = piece->request;

	if (!is_over(piece)) {
		submit_write(piece);
		return;
	}
	if (io->res < 0 && io->rw_flags & RWF_DSYNC)
		request->connection->export->failures++;
	request->io++;
	free_piece(piece);
	put_write(request);
}

static void zero_written(struct onefd_req *io);

/* The file system cannot: zeroes are written, some MiB at a time. */
static void write_zeroes(struct request *request)
{
	struct onefd_req *io = &request->first.io;
	struct onefd_file *file = &request->connection->export->file;
	size_t left = request->length - request->begun, count = left / PIECE;
	off_t offset = (off_t)(request->offset + request->begun);

	request->io++;
	if (count)
		onefd_prep_pwritev(io, file, zero_iov, count < ZERO_VECTORS ? count : ZERO_VECTORS,
				   offset);
	else
		onefd_prep_pwrite(io, file, zeroes, left, offset);
	submit(io, zero_written);
}

static void zero_written(struct onefd_req *io)
{
	struct request *request = onefd_container(io, struct request, first.io);

	request->io--;
	if (io->res > 0)
		request->begun += (uint32_t)io->res;
	else
		request->error = io->res < 0 ? (int)-io->res : EIO;
	if (request->error || request->connection->dead || request->begun == request->length)
		finish(request, false);
	else
		write_zeroes(request);
}

static void range_zeroed(struct onefd_req *io)
{
	struct request *request = onefd_container(io, struct request, first.io);
	bool cannot = io->res == -EOPNOTSUPP || io->res == -EINVAL || io->res == -ENOSYS;

	request->io--;
	if (cannot && !(request->flags & FLAG_FAST_ZERO)) {
		write_zeroes(request);
		return;
	}
	if (io->res < 0)
		request->error = cannot ? EOPNOTSUPP : (int)-io->res;
	finish(request, false);
}

/* It was advice: who cannot take it has done no harm. */
static void range_trimmed(struct onefd_req *io)
{
	struct request *request = onefd_container(io, struct request, first.io);

	request->io--;
	if (io->res < 0 && io->res != -EOPNOTSUPP && io->res != -EINVAL && io->res != -ENOSYS)
		request->error = (int)-io->res;
	finish(request, false);
}

static void allocate(struct request *request, int mode, onefd_req_fn *fn)
{
	struct export *export = request->connection->export;

	export->written = true;
	request->io++;
	onefd_prep_fallocate(&request->first.io, &export->file, mode | FALLOC_FL_KEEP_SIZE,
			     (off_t)request->offset, (off_t)request->length);
	submit(&request->first.io, fn);
}

static void range_cached(struct onefd_req *io)
{
	struct request *request = onefd_container(io, struct request, first.io);

	request->io--;
	answer(request, io->res < 0 && io->res != -EOPNOTSUPP ? (int)-io->res : 0);
}

static void cache_range(struct request *request)
{
	size_t length = request->length < CACHE_MOST ? request->length : CACHE_MOST;

	request->io++;
	onefd_prep_prefetch(&request->first.io, &request->connection->export->file,
			    (off_t)request->offset, length);
	submit(&request->first.io, range_cached);
}

/* ---- what is allocated ----------------------------------------------------------- */

/* The extent at @at: up to where it goes, and whether it is data. */
static uint64_t find_extent(int fd, uint64_t at, uint64_t end, bool *data)
{
	off_t next = lseek(fd, (off_t)at, SEEK_DATA);

	*data = next == (off_t)at || (next < 0 && errno != ENXIO);
	if (*data)
		next = lseek(fd, (off_t)at, SEEK_HOLE);
	return next > (off_t)at && (uint64_t)next < end ? (uint64_t)next : end;
}

/* On a worker. Fills the buffer; how many bytes. */
static ssize_t find_extents(void *arg)
{
	struct request *request = arg;
	uint64_t at = request->offset, end = at + request->length, next;
	char *put = put32(request->first.buffer, ALLOCATION_ID);
	char *most = request->first.buffer + SMALL - 8;
	bool data;

	do {
		next = find_extent(request->connection->export->file.fd, at, end, &data);
		put = put32(put, (uint32_t)(next - at));
		put = put32(put, data ? EXTENT_DATA : EXTENT_HOLE);
		at = next;
	} while (at < end && put <= most && !(request->flags & FLAG_REQ_ONE));
	return put - request->first.buffer;
}

static void extents_found(struct onefd_req *io)
{
	struct request *request = onefd_container(io, struct request, first.io);
	struct connection *connection = request->connection;

	request->io--;
	if (connection->dead) {
		put_request(request);
		return;
	}
	request->first.length = (size_t)io->res;
	request->first.ready = true;
	request->first.next = NULL;
	request->pieces = &request->first;
	request->begun = request->length;
	request->data = true;
	push_head(request, put_chunk(request, request->head_bytes, CHUNK_DONE, CHUNK_STATUS,
				     (size_t)io->res));
	send_read(request);
}

static void tell_extents(struct request *request)
{
	if (!take_buffer(&request->first, SMALL)) {
		answer(request, ENOMEM);
		return;
	}
	request->io++;
	onefd_prep_call(&request->first.io, find_extents, request);
	submit(&request->first.io, extents_found);
}

/* ---- requests -------------------------------------------------------------------- */

/* Which flags each takes; FUA is for all. */
static unsigned known_flags(unsigned type)
{
	return FLAG_FUA | (type == READ ? FLAG_DF : 0) | (type == STATUS ? FLAG_REQ_ONE : 0) |
	       (type == ZERO ? FLAG_NO_HOLE | FLAG_FAST_ZERO : 0);
}

static bool writes(unsigned type)
{
	return type == WRITE || type == TRIM || type == ZERO;
}

/* Why it cannot be done: an errno, or 0. */
static int check_request(const struct connection *connection, const struct request *request)
{
	const struct export *export = connection->export;
	bool beyond = request->offset > export->size ||
		      request->length > export->size - request->offset;
	unsigned type = request->type;

	if (type > STATUS || request->flags & ~known_flags(type))
		return EINVAL;
	if (writes(type) && read_only)
		return EPERM;
	if (type == FLUSH)
		return request->offset || request->length ? EINVAL : 0;
	if (beyond)
		return writes(type) && type != TRIM ? ENOSPC : EINVAL;
	if (type == READ && request->length > PAYLOAD_MOST)
		return connection->structured ? EOVERFLOW : EINVAL;
	if (type == CACHE && direct)
		return EINVAL;
	if (type == STATUS)
		return request->length && connection->meta == export ? 0 : EINVAL;
	return 0;
}

/* @size: of the buffer that it was granted. */
static void start_request(struct request *request, size_t size)
{
	int error = check_request(request->connection, request);

	if (error || (!request->length && request->type != FLUSH))
		answer(request, error);
	else if (request->type == READ)
		start_read(request, size);
	else if (request->type == FLUSH)
		sync_export(request);
	else if (request->type == TRIM)
		allocate(request, FALLOC_FL_PUNCH_HOLE, range_trimmed);
	else if (request->type == CACHE)
		cache_range(request);
	else if (request->type == ZERO)
		allocate(request, request->flags & FLAG_NO_HOLE ? FALLOC_FL_ZERO_RANGE :
								  FALLOC_FL_PUNCH_HOLE, range_zeroed);
	else
		tell_extents(request);
}

/* ---- receiving --------------------------------------------------------------------
 *
 * take() is given what came, and takes as much of it as it can, in three states: bytes
 * that nobody wants are skipped (skip), a write's payload goes to its piece (payload),
 * and else there is a header, of a request or of an option, whole or not at all. What it
 * leaves is kept. It leaves by three ways: the input is used up, more must come first;
 * there is no room (waiting), and it goes on with what was kept when there is; or the
 * connection is ending or dead.
 */

/* There is no room for it now: in the list, first come first served. */
static void wait_for_room(struct connection *connection, size_t need)
{
	connection->need = need;
	if (connection->waiting)
		return;
	connection->waiting = true;
	connection->wait_next = NULL;
	*waiters_end = connection;
	waiters_end = &connection->wait_next;
}

static bool has_room(const struct connection *connection)
{
	if (connection->phase != PHASE_REQUESTS)
		return !connection->outs;
	return connection->requests < REQUESTS_MOST &&
	       (connection->held <= sizeof(struct request) || may_hold(connection, connection->need));
}

static void end_payload(struct connection *connection, int error)
{
	struct request *request = connection->payload;

	if (error)
		request->error = error;
	if (connection->piece)
		free_piece(connection->piece);
	connection->piece = NULL;
	connection->payload = NULL;
	put_write(request);
}

/* Whether there is a piece for what comes next of the payload. */
static bool has_piece(struct connection *connection)
{
	struct request *request = connection->payload;
	size_t want = request->length - request->begun, size;

	if (connection->piece)
		return true;
	want = want < PIECE ? want : PIECE;
	size = grant(connection, want);
	if (!size) {
		wait_for_room(connection, want);
		return false;
	}
	connection->piece = &request->first;
	if (request->begun)
		connection->piece = new_piece(request, size);
	else if (!take_buffer(connection->piece, size))
		connection->piece = NULL;
	if (!connection->piece) {
		kill_connection(connection);
		return false;
	}
	take_range(connection->piece);
	return true;
}

/* @n more bytes are in the piece. */
static void fill_piece(struct connection *connection, size_t n)
{
	struct piece *piece = connection->piece;

	piece->filled += n;
	if (piece->filled < piece->length)
		return;
	connection->taken_at = onefd_now(loop);
	connection->piece = NULL;
	piece->filled = 0;
	submit_write(piece);
	if (connection->payload->begun == connection->payload->length)
		end_payload(connection, 0);
}

static size_t take_payload(struct connection *connection, const char *bytes, size_t length)
{
	struct piece *piece;
	size_t n;

	if (!has_piece(connection))
		return 0;
	piece = connection->piece;
	n = piece->length - piece->filled;
	n = n < length ? n : length;
	memcpy(piece->buffer + piece->filled, bytes, n);
	fill_piece(connection, n);
	return n;
}

static void start_write(struct request *request)
{
	struct connection *connection = request->connection;
	int error = check_request(connection, request);

	if (error || !request->length) {
		connection->skip = request->length;
		answer(request, error);
		return;
	}
	request->io = 1;
	connection->payload = request;
}

/* A whole header: it is taken, or there is no room. */
static size_t take_request(struct connection *connection, const char *bytes)
{
	uint16_t type = get16(bytes + 6);
	uint32_t length = get32(bytes + 24);
	size_t want = type == READ ? length : type == STATUS ? SMALL : 0, size = 0;
	struct request *request;

	if (get32(bytes) != REQUEST_MAGIC || (type == WRITE && length > PAYLOAD_MOST)) {
		kill_connection(connection);
		return 0;
	}
	if (type == DISC) {
		end_connection(connection);
		return 0;
	}
	want = want < PIECE ? want : PIECE;
	size = want ? grant(connection, want) : 0;
	if (connection->requests == REQUESTS_MOST || (want && !size) ||
	    (connection->requests && !may_hold(connection, size + sizeof *request))) {
		wait_for_room(connection, want + sizeof *request);
		return 0;
	}
	request = new_request(connection);
	if (!request) {
		kill_connection(connection);
		return 0;
	}
	request->flags = get16(bytes + 4);
	request->type = type;
	request->cookie = get64(bytes + 8);
	request->offset = get64(bytes + 16);
	request->length = length;
	connection->taken_at = onefd_now(loop);
	connection->bulky = type == WRITE && length >= BULKY;
	if (type == WRITE)
		start_write(request);
	else
		start_request(request, size);
	return REQUEST_HEADER;
}

static size_t take_hello(struct connection *connection, const char *bytes, size_t length);
static size_t take_options(struct connection *connection, const char *bytes, size_t length);

/* How much of it was taken; 0: no more can be now. */
static size_t take_step(struct connection *connection, const char *bytes, size_t length)
{
	size_t n;

	if (connection->skip) {
		n = length < connection->skip ? length : connection->skip;
		connection->skip -= n;
		/* No handshake is prolonged; else it holds nothing, and comes to an end. */
		if (connection->phase == PHASE_REQUESTS)
			connection->taken_at = onefd_now(loop);
		return n;
	}
	if (connection->payload)
		return take_payload(connection, bytes, length);
	if (connection->phase == PHASE_HELLO)
		return take_hello(connection, bytes, length);
	if (connection->phase == PHASE_OPTIONS)
		return take_options(connection, bytes, length);
	return length < REQUEST_HEADER ? 0 : take_request(connection, bytes);
}

static size_t take(struct connection *connection, const char *bytes, size_t length)
{
	size_t taken = 0, n;

	while (taken < length && !connection->ending && !connection->dead) {
		n = take_step(connection, bytes + taken, length - taken);
		if (!n)
			break;
		taken += n;
	}
	return taken;
}

static void keep(struct connection *connection, const char *bytes, size_t length)
{
	connection->kept = malloc(length);
	if (!connection->kept) {
		kill_connection(connection);
		return;
	}
	memcpy(connection->kept, bytes, length);
	connection->kept_at = 0;
	connection->kept_length = length;
	used += length;
}

/* After each take: what follows from it. */
static void settle(struct connection *connection)
{
	if (connection->dead)
		return;
	watch_connection(connection);
	if (!connection->dead)
		watch_time(connection);
}

/* There is room: goes on with what was kept. */
static void resume(struct connection *connection)
{
	size_t taken;

	if (connection->dead || connection->ending)
		return;
	if (connection->phase == PHASE_REQUESTS)
		connection->taken_at = onefd_now(loop);
	if (connection->kept) {
		taken = take(connection, connection->kept + connection->kept_at,
			     connection->kept_length - connection->kept_at);
		connection->kept_at += connection->kept ? taken : 0;
		if (connection->kept_at == connection->kept_length)
			drop_kept(connection);
	}
	settle(connection);
}

/* How much may come at once: what cannot be taken has to be kept. Of large writes that
 * follow each other, headers come so, and the payload where it belongs. */
static size_t receive_most(const struct connection *connection)
{
	size_t room = used < MEMORY ? (MEMORY - used) / 2 : 0;

	if (connection->phase != PHASE_REQUESTS)
		return OPTION_MOST;
	if (connection->bulky)
		return RECEIVE_BULKY;
	room = room > connection->held + SMALL ? room - connection->held : SMALL;
	return room < RECEIVE ? room : RECEIVE;
}

/* The rest of a piece goes where it belongs, and what follows comes by the same call;
 * unless that is payload too, which would have to be copied. *@more: there may be. */
static ssize_t receive(struct connection *connection, char *rest, bool *more)
{
	struct piece *piece = connection->piece;
	struct request *payload = connection->payload;
	struct iovec iov[2] = { { 0 }, { rest, receive_most(connection) } };
	bool with_rest = !piece || payload->begun == payload->length;
	ssize_t n;

	if (piece) {
		iov[0].iov_base = piece->buffer + piece->filled;
		iov[0].iov_len = piece->length - piece->filled;
	}
	n = readv(connection->watch.fd, piece ? iov : iov + 1, piece && with_rest ? 2 : 1);
	*more = n == (ssize_t)(iov[0].iov_len + (with_rest ? iov[1].iov_len : 0));
	return n < 0 ? -errno : n;
}

/* @n bytes came, what of them was no payload to @rest. */
static void take_received(struct connection *connection, char *rest, size_t n)
{
	struct piece *piece = connection->piece;
	size_t left = connection->kept_length - connection->kept_at, taken;

	if (piece) {
		taken = piece->length - piece->filled;
		taken = taken < n ? taken : n;
		fill_piece(connection, taken);
		n -= taken;
	}
	/* What was kept is less than a header or an option: it stands in front. */
	rest -= left;
	if (left)
		memcpy(rest, connection->kept + connection->kept_at, left);
	drop_kept(connection);
	left += n;
	taken = take(connection, rest, left);
	if (taken < left && !connection->ending && !connection->dead)
		keep(connection, rest + taken, left - taken);
}

/* Whether more is to be had at once. */
static bool input(struct connection *connection)
{
	char *rest = received + OPTION_HEADER + OPTION_MOST;
	ssize_t n = -EAGAIN;
	bool more = false;

	if (!connection->payload || has_piece(connection)) {
		if (!is_waited_for(connection) && connection->phase == PHASE_REQUESTS)
			connection->taken_at = onefd_now(loop);
		n = receive(connection, rest, &more);
	}
	if (n > 0)
		take_received(connection, rest, (size_t)n);
	else if (n == 0)
		end_connection(connection);
	else if (n != -EAGAIN && n != -EINTR)
		kill_connection(connection);
	settle(connection);
	return more && !connection->dead && !connection->ending && !connection->waiting;
}

/* ---- the handshake ------------------------------------------------------------- */

/* An answer of the handshake: one at a time to a connection. */
struct reply {
	struct out out;
	char bytes[];
};

static void reply_sent(struct out *out)
{
	free(onefd_container(out, struct reply, out));
	released = true;
	if (waiters)
		post_turn();
}

/* Where @length bytes go that will be sent, or NULL. */
static char *push_reply(struct connection *connection, size_t length)
{
	struct reply *reply = connection->dead ? NULL : malloc(sizeof *reply + length);

	if (reply)
		push_out(connection, &reply->out, reply->bytes, length, reply_sent);
	else
		kill_connection(connection);
	return reply ? reply->bytes : NULL;
}

/* Where @length bytes of data go, or NULL. */
static char *say(struct connection *connection, uint32_t option, uint32_t type, size_t length)
{
	char *at = push_reply(connection, OPTION_REPLY_HEADER + length);

	if (!at)
		return NULL;
	at = put64(at, OPTION_REPLY_MAGIC);
	at = put32(at, option);
	at = put32(at, type);
	return put32(at, (uint32_t)length);
}

static void greet(struct connection *connection)
{
	char *at = push_reply(connection, 18);

	if (!at)
		return;
	at = put64(at, GREETING_MAGIC);
	at = put64(at, OPTION_MAGIC);
	put16(at, HELLO_FIXED | HELLO_NO_ZEROES);
}

static size_t take_hello(struct connection *connection, const char *bytes, size_t length)
{
	uint32_t flags;

	if (length < 4)
		return 0;
	flags = get32(bytes);
	if (flags & ~(uint32_t)(HELLO_FIXED | HELLO_NO_ZEROES)) {
		kill_connection(connection);
		return 0;
	}
	connection->no_zeroes = flags & HELLO_NO_ZEROES;
	connection->phase = PHASE_OPTIONS;
	return 4;
}

static struct export *find_export(const char *name, size_t length)
{
	if (!length)
		return &exports[0];
	for (size_t i = 0; i < export_count; i++)
		if (strlen(exports[i].name) == length && !memcmp(exports[i].name, name, length))
			return &exports[i];
	return NULL;
}

static uint16_t transmission_flags(const struct connection *connection)
{
	unsigned flags = HAS_FLAGS | HAS_FLUSH | HAS_FUA | HAS_MULTI_CONN;

	flags |= read_only ? HAS_READ_ONLY : HAS_TRIM | HAS_ZEROES | HAS_FAST_ZERO;
	flags |= direct ? 0 : HAS_CACHE;
	flags |= connection->structured ? HAS_DF : 0;
	return (uint16_t)flags;
}

static void begin_requests(struct connection *connection, struct export *export)
{
	connection->export = export;
	connection->failures = export->failures;
	connection->taken_at = onefd_now(loop);
	connection->phase = PHASE_REQUESTS;
}

/* The option that cannot be refused: a name that is not there ends the connection. */
static void choose_export(struct connection *connection, const char *name, size_t length)
{
	struct export *export = find_export(name, length);
	size_t zero_count = connection->no_zeroes ? 0 : ZEROES;
	char *at = export ? push_reply(connection, 10 + zero_count) : NULL;

	if (!at) {
		kill_connection(connection);
		return;
	}
	at = put64(at, export->size);
	at = put16(at, transmission_flags(connection));
	memset(at, 0, zero_count);
	begin_requests(connection, export);
}

static void list_exports(struct connection *connection)
{
	for (size_t i = 0; i < export_count; i++) {
		size_t length = strlen(exports[i].name);
		char *at = say(connection, OPTION_LIST, REP_SERVER, 4 + length);

		if (at)
			memcpy(put32(at, (uint32_t)length), exports[i].name, length);
	}
	say(connection, OPTION_LIST, REP_ACK, 0);
}

static void tell_name(struct connection *connection, uint32_t option, const struct export *export)
{
	size_t length = strlen(export->name);
	char *at = say(connection, option, REP_INFO, 2 + length);

	if (at)
		memcpy(put16(at, INFO_NAME), export->name, length);
}

static void tell_sizes(struct connection *connection, uint32_t option, const struct export *export)
{
	char *at = say(connection, option, REP_INFO, 14);

	if (!at)
		return;
	at = put16(at, INFO_BLOCK_SIZE);
	at = put32(at, 1);
	at = put32(at, export->file.off_align > SMALL ? export->file.off_align : SMALL);
	put32(at, PAYLOAD_MOST);
}

static void tell_export(struct connection *connection, uint32_t option, const struct export *export)
{
	char *at = say(connection, option, REP_INFO, 12);

	if (!at)
		return;
	at = put16(at, INFO_EXPORT);
	at = put64(at, export->size);
	put16(at, transmission_flags(connection));
}

/* OPTION_INFO and OPTION_GO: a name, and what is to be told of it. */
static void inform(struct connection *connection, uint32_t option, const char *data, size_t length)
{
	size_t name = length < 6 ? 0 : get32(data), count;
	bool asked[INFO_BLOCK_SIZE + 1] = { false };
	struct export *export;

	if (length < 6 || name > length - 6 ||
	    length - 6 - name != 2 * (size_t)get16(data + 4 + name)) {
		say(connection, option, REP_INVALID, 0);
		return;
	}
	export = find_export(data + 4, name);
	if (!export) {
		say(connection, option, REP_UNKNOWN, 0);
		return;
	}
	count = get16(data + 4 + name);
	for (size_t i = 0; i < count; i++) {
		uint16_t info = get16(data + 6 + name + 2 * i);

		if (info <= INFO_BLOCK_SIZE)
			asked[info] = true;
	}
	tell_export(connection, option, export);
	if (asked[INFO_NAME])
		tell_name(connection, option, export);
	if (asked[INFO_BLOCK_SIZE])
		tell_sizes(connection, option, export);
	say(connection, option, REP_ACK, 0);
	if (option == OPTION_GO && !connection->dead)
		begin_requests(connection, export);
}

/* Whether the queries are whole; *@ret: whether one of them, or none at all where that
 * means any, is for what we have. */
static bool scan_queries(const char *data, size_t length, bool list, bool *ret)
{
	size_t count = get32(data), at = 4, n;

	*ret = list && !count;
	for (size_t i = 0; i < count; i++) {
		if (length - at < 4 || get32(data + at) > length - at - 4)
			return false;
		n = get32(data + at);
		at += 4;
		if (n == strlen(ALLOCATION) && !memcmp(data + at, ALLOCATION, n))
			*ret = true;
		if (list && n == strlen("base:") && !memcmp(data + at, "base:", n))
			*ret = true;
		at += n;
	}
	return at == length;
}

/* OPTION_LIST_META and OPTION_SET_META: a name, and which of its maps. */
static void choose_meta(struct connection *connection, uint32_t option, const char *data,
			size_t length)
{
	size_t name = length < 8 ? 0 : get32(data);
	bool list = option == OPTION_LIST_META, found;
	struct export *export;
	char *at;

	if (!list)
		connection->meta = NULL;
	if (!connection->structured || length < 8 || name > length - 8 ||
	    !scan_queries(data + 4 + name, length - 4 - name, list, &found)) {
		say(connection, option, REP_INVALID, 0);
		return;
	}
	export = find_export(data + 4, name);
	if (!export) {
		say(connection, option, REP_UNKNOWN, 0);
		return;
	}
	if (found) {
		at = say(connection, option, REP_META, 4 + strlen(ALLOCATION));
		if (at)
			memcpy(put32(at, list ? 0 : ALLOCATION_ID), ALLOCATION, strlen(ALLOCATION));
		if (!list)
			connection->meta = export;
	}
	say(connection, option, REP_ACK, 0);
}

/* Those that bring no data. */
static void take_bare(struct connection *connection, uint32_t option, size_t length)
{
	if (length && option != OPTION_ABORT) {
		say(connection, option, REP_INVALID, 0);
	} else if (option == OPTION_LIST) {
		list_exports(connection);
	} else if (option == OPTION_STARTTLS) {
		say(connection, option, REP_POLICY, 0);
	} else {
		say(connection, option, REP_ACK, 0);
		connection->structured |= option == OPTION_STRUCTURED;
		if (option == OPTION_ABORT)
			end_connection(connection);
	}
}

static void take_option(struct connection *connection, uint32_t option, const char *data,
			size_t length)
{
	switch (option) {
	case OPTION_EXPORT_NAME:
		choose_export(connection, data, length);
		break;
	case OPTION_ABORT:
	case OPTION_LIST:
	case OPTION_STARTTLS:
	case OPTION_STRUCTURED:
		take_bare(connection, option, length);
		break;
	case OPTION_INFO:
	case OPTION_GO:
		inform(connection, option, data, length);
		break;
	case OPTION_LIST_META:
	case OPTION_SET_META:
		choose_meta(connection, option, data, length);
		break;
	default:
		say(connection, option, REP_UNSUPPORTED, 0);
	}
}

/* One option at a time: the next is not looked at before its answer is sent. */
static size_t take_options(struct connection *connection, const char *bytes, size_t length)
{
	uint32_t option, data;

	if (connection->outs) {
		wait_for_room(connection, 0);
		return 0;
	}
	if (length < OPTION_HEADER)
		return 0;
	option = get32(bytes + 8);
	data = get32(bytes + 12);
	if (get64(bytes) != OPTION_MAGIC || data > PAYLOAD_MOST ||
	    (data > OPTION_MOST && option == OPTION_EXPORT_NAME)) {
		kill_connection(connection);
		return 0;
	}
	if (data > OPTION_MOST) {
		say(connection, option, REP_TOO_BIG, 0);
		connection->skip = data;
		return OPTION_HEADER;
	}
	if (data > length - OPTION_HEADER)
		return 0;
	take_option(connection, option, bytes + OPTION_HEADER, data);
	return OPTION_HEADER + data;
}

/* ---- the turn's end -------------------------------------------------------------- */

static void send_all(void)
{
	struct connection *connection = senders, *next;

	senders = NULL;
	senders_end = &senders;
	for (; connection; connection = next) {
		next = connection->send_next;
		connection->sending = false;
		if (!connection->dead)
			send_outs(connection);
	}
}

/* Those for which there still is none keep their order. */
static void resume_all(void)
{
	struct connection *connection = waiters, *next;

	released = false;
	waiters = NULL;
	waiters_end = &waiters;
	for (; connection; connection = next) {
		next = connection->wait_next;
		connection->waiting = false;
		if (connection->dead || connection->ending || has_room(connection))
			resume(connection);
		else
			wait_for_room(connection, connection->need);
	}
}

static void end_turn(struct onefd_task *task)
{
	(void)task;
	send_all();
	if (released)
		resume_all();
	free_dead();
	if (stopping && !connections && !request_count)
		onefd_stop(loop);
}

/* ---- clients come ---------------------------------------------------------------- */

static bool listening;

/* More of them than we have room for wait in the queue. */
static void accept_on(void)
{
	int r;

	if (listening || stopping || connection_count >= connection_most)
		return;
	r = onefd_watch_start(loop, &listener, EPOLLIN);
	if (r < 0)
		die("cannot listen", -r);
	listening = true;
}

static void accept_off(void)
{
	onefd_watch_stop(&listener);
	listening = false;
}

static void retry(struct onefd_timer *timer)
{
	(void)timer;
	accept_on();
}

/* A lone client's requests need not wait for others: what is answered at once is then
 * answered in this turn. */
static void send_early(void)
{
	static uint64_t turn;
	static unsigned count, last_count;

	if (turn != onefd_now(loop)) {
		turn = onefd_now(loop);
		last_count = count;
		count = 0;
	}
	if (++count == 1 && last_count <= 1)
		(void)onefd_flush(loop);
}

static void connection_ready(struct onefd_watch *watch, uint32_t events)
{
	struct connection *connection = onefd_container(watch, struct connection, watch);

	if (connection->full && events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		send_outs(connection);
	if (!connection->dead && !connection->ending && !connection->waiting &&
	    events & ~(uint32_t)EPOLLOUT)
		for (int i = 0; i < RECEIVES && input(connection); i++)
			;
	send_early();
}

static void add_connection(int fd)
{
	struct connection *connection = calloc(1, sizeof *connection);
	int yes = 1, unsent = UNSENT;

	if (!connection) {
		close(fd);
		return;
	}
	/* A TCP socket's buffer grows by itself; a UNIX one's takes not two large answers. */
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &unsent, sizeof unsent);
	/* One that is idle may stay, but not when its machine has gone. */
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
	onefd_watch_init(&connection->watch, fd, connection_ready);
	onefd_timer_init(&connection->timer, time_is_up);
	connection->taken_at = onefd_now(loop);
	link_connection(&connections, connection);
	connection_count++;
	greet(connection);
	settle(connection);
}

/* Out of descriptors or memory: one that goes may help, or time. */
static void clients_came(struct onefd_watch *watch, uint32_t events)
{
	(void)events;
	for (int i = 0; i < ACCEPTS && connection_count < connection_most; i++) {
		int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			add_connection(fd);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			accept_off();
			onefd_timer_start(loop, &retry_timer, onefd_now(loop) + NSEC_PER_SEC);
			return;
		} else if (errno == EAGAIN) {
			return;
		}
	}
	if (connection_count >= connection_most)
		accept_off();
}

/* ---- the program ------------------------------------------------------------------ */

static void end_all(struct onefd_timer *timer)
{
	(void)timer;
	while (connections)
		kill_connection(connections);
}

/* What is in hand is done and answered, for some seconds. */
static void stop(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	(void)info;
	if (stopping)
		return;
	stopping = true;
	accept_off();
	close(listener.fd);
	for (struct connection *connection = connections, *next; connection; connection = next) {
		next = connection->next;
		if (connection->phase == PHASE_REQUESTS)
			end_connection(connection);
		else
			kill_connection(connection);
	}
	onefd_timer_start(loop, &ending_timer, onefd_now(loop) + FINISH_S * NSEC_PER_SEC);
	post_turn();
}

static void report(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	(void)info;
	fprintf(stderr, "connections=%u requests=%u pending=%zu bytes=%zu\n", connection_count,
		request_count, onefd_pending(loop), used);
}

static void open_export(struct export *export, const char *path)
{
	int flags = (read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0) | O_CLOEXEC | O_NONBLOCK;
	int fd = open(path, flags), r;
	struct stat st;
	off_t size;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(path, errno);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		die(path, S_ISDIR(st.st_mode) ? EISDIR : ENOTBLK);
	size = lseek(fd, 0, SEEK_END);
	if (size < 0)
		die(path, errno);
	r = onefd_file_init(loop, &export->file, fd);
	if (r < 0)
		die(path, -r);
	export->path = path;
	export->name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	export->size = (uint64_t)size;
	if (find_export(export->name, strlen(export->name)))
		die(path, EEXIST);	/* it would be served under the same name */
}

static void open_exports(char **paths, size_t count)
{
	exports = calloc(count, sizeof *exports);
	received = malloc(OPTION_HEADER + OPTION_MOST + RECEIVE);
	if (!exports || !received || posix_memalign((void **)&zeroes, SMALL, PIECE) != 0)
		die("cannot start", ENOMEM);
	memset(zeroes, 0, PIECE);
	for (size_t i = 0; i < ZERO_VECTORS; i++)
		zero_iov[i] = (struct iovec){ zeroes, PIECE };
	for (; export_count < count; export_count++)
		open_export(&exports[export_count], paths[export_count]);
}

static void synced(struct onefd_req *io)
{
	struct export *export = io->data;

	if (io->res < 0)
		die(export->path, (int)-io->res);
}

/* What was acknowledged is to be on the disk. */
static void close_exports(void)
{
	struct onefd_req *syncs = calloc(export_count, sizeof *syncs);
	int r;

	if (!syncs)
		die("cannot sync", ENOMEM);
	for (size_t i = 0; i < export_count; i++) {
		onefd_prep_fsync(&syncs[i], &exports[i].file, 1);
		syncs[i].data = &exports[i];
		if (exports[i].written)
			submit(&syncs[i], synced);
	}
	r = onefd_drain(loop, -1);
	if (r < 0)
		die("cannot sync", -r);
	for (size_t i = 0; i < export_count; i++)
		close(exports[i].file.fd);
	free(syncs);
	free(exports);
}

static void watch_socket(int fd)
{
	if (listen(fd, SOMAXCONN) < 0)
		die("cannot listen", errno);
	onefd_watch_init(&listener, fd, clients_came);
	accept_on();
}

static void listen_unix(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof address.sun_path)
		die(path, ENAMETOOLONG);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		die(path, errno);
	watch_socket(fd);
	printf("listening on %s\n", path);
}

static void usage(FILE *out);
static unsigned number(const char *text, unsigned least, unsigned most);

/* "127.0.0.1:10809" or "[::1]:10809", numbers only: no name is looked up. */
static struct addrinfo *parse_address(const char *text)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
				  .ai_socktype = SOCK_STREAM }, *found;
	char host[128];
	const char *port = strrchr(text, ':');
	size_t length = port ? (size_t)(port - text) : 0;

	if (length && length < sizeof host) {
		bool bracketed = text[0] == '[' && text[length - 1] == ']';

		(void)number(port + 1, 0, UINT16_MAX);	/* getaddrinfo() takes it modulo that */
		memcpy(host, text + bracketed, length);
		host[length - 2 * bracketed] = '\0';
		if (getaddrinfo(host, port + 1, &hints, &found) == 0)
			return found;
	}
	usage(stderr);
	exit(STATUS_USAGE);
}

static void listen_inet(const char *text)
{
	struct addrinfo *to = parse_address(text);
	struct sockaddr_storage address;
	socklen_t length = sizeof address;
	char host[INET6_ADDRSTRLEN], port[8];
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
	    bind(fd, to->ai_addr, to->ai_addrlen) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		die(text, errno);
	watch_socket(fd);
	getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
		    NI_NUMERICHOST | NI_NUMERICSERV);
	printf(to->ai_family == AF_INET6 ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host,
	       port);
	freeaddrinfo(to);
}

/* Each client is a descriptor; the loop and the files have some, too. */
static void raise_limit(void)
{
	struct rlimit limit;
	size_t ours = export_count + 32;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		die("cannot learn the limit of descriptors", errno);
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		die("cannot raise the limit of descriptors", errno);
	if (!connection_most)
		connection_most = limit.rlim_cur > ours ? (unsigned)(limit.rlim_cur - ours) : 1;
}

static void start_signals(struct onefd_signal *signals)
{
	static const int signos[] = { SIGTERM, SIGINT, SIGUSR1 };
	int r;

	for (size_t i = 0; i < 3; i++) {
		onefd_signal_init(&signals[i], signos[i], signos[i] == SIGUSR1 ? report : stop);
		r = onefd_signal_start(loop, &signals[i], ONEFD_SIGNAL_BLOCK);
		if (r < 0)
			die("cannot watch signals", -r);
	}
}

static void serve(const char *unix_path, const char *address, char **paths, size_t count)
{
	const struct onefd_config config = { .budget = 256, .spin_us = SPIN_US };
	struct onefd_signal signals[3];
	int r = onefd_new(&loop, &config);

	if (r < 0)
		die("cannot make a loop", -r);
	onefd_task_init(&turn_task, end_turn);
	onefd_timer_init(&ending_timer, end_all);
	onefd_timer_init(&retry_timer, retry);
	open_exports(paths, count);
	raise_limit();
	start_signals(signals);
	if (unix_path)
		listen_unix(unix_path);
	else
		listen_inet(address);
	fflush(stdout);
	r = onefd_run(loop);
	if (r < 0)
		die("cannot wait", -r);
	if (unix_path)
		(void)unlink(unix_path);
	onefd_timer_stop(&ending_timer);
	close_exports();
	r = onefd_free(loop);
	if (r < 0)
		die("cannot end the loop", -r);
	free_memory();
}

static void usage(FILE *out)
{
	fputs("usage: onefd-nbd [OPTION]... FILE...\n"
	      "Serves regular files and block devices as network block devices, each under the last\n"
	      "component of its path; the first also without a name.\n\n"
	      "  --listen=ADDR:PORT       there (127.0.0.1:10809; port 0: any, it is printed)\n"
	      "  --unix=PATH              on a socket of that name instead\n"
	      "  --direct                 past the page cache (O_DIRECT)\n"
	      "  --read-only              refuse to write\n"
	      "  --connections=N          so many at once, others wait (what the descriptors permit)\n"
	      "  --handshake-timeout=S    seconds to choose a file in (10)\n"
	      "  --idle-timeout=S         ... without a request (0: no limit)\n"
	      "  --stall-timeout=S        ... for the rest of a request, or to take an answer (30)\n"
	      "  --help                   this text\n\n"
	      "Exit status: 0 stopped by SIGINT or SIGTERM, 1 failed, 2 wrong usage.\n", out);
}

static unsigned number(const char *text, unsigned least, unsigned most)
{
	char *rest;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &rest, 10);
	if (errno || rest == text || *rest || *text == '-' || value < least || value > most) {
		usage(stderr);
		exit(STATUS_USAGE);
	}
	return (unsigned)value;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "unix", required_argument, NULL, 'u' },
		{ "direct", no_argument, NULL, 'd' },
		{ "read-only", no_argument, NULL, 'r' },
		{ "connections", required_argument, NULL, 'c' },
		{ "handshake-timeout", required_argument, NULL, 't' },
		{ "idle-timeout", required_argument, NULL, 'i' },
		{ "stall-timeout", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const char *address = NULL, *unix_path = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'l') {
			address = optarg;
		} else if (option == 'u') {
			unix_path = optarg;
		} else if (option == 'd') {
			direct = true;
		} else if (option == 'r') {
			read_only = true;
		} else if (option == 'c') {
			connection_most = number(optarg, 1, INT_MAX);
		} else if (option == 't') {
			handshake_s = number(optarg, 1, TIMEOUT_MOST);
		} else if (option == 'i') {
			idle_s = number(optarg, 0, TIMEOUT_MOST);
		} else if (option == 's') {
			stall_s = number(optarg, 1, TIMEOUT_MOST);
		} else {
			usage(option == 'h' ? stdout : stderr);
			return option == 'h' ? EXIT_SUCCESS : STATUS_USAGE;
		}
	}
	if (optind == argc || (address && unix_path) || (unix_path && !*unix_path)) {
		usage(stderr);
		return STATUS_USAGE;
	}
	serve(unix_path, address ? address : "127.0.0.1:10809", argv + optind,
	      (size_t)(argc - optind));
	return EXIT_SUCCESS;
}
