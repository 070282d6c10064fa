/*
 * onefd-tour - reads every regular file below a directory through one loop.
 *
 *	cc -O2 -D_GNU_SOURCE -o onefd-tour onefd-tour.c $(pkg-config --cflags --libs onefd)
 *
 * Beside the files the same loop carries a 1 ms heartbeat, a TCP echo (both
 * ends), a child process, SIGINT and SIGTERM. How late the heartbeat comes is
 * how long the loop stood still: that is what the tour is for.
 *
 * Nothing here waits for a disk on the loop's thread. Directories are read,
 * files opened, closed and checked on workers; the loop gets whole lists back
 * and reads blocks into a fixed pool of aligned buffers.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <onefd.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u			/* what the digest and the buffers are cut by */
#define MSEC UINT64_C(1000000)
#define BEAT MSEC
#define OPEN_MOST 256u			/* files open at a time */
#define FDS_ELSEWHERE 32u		/* descriptors left to everything else */
#define LISTINGS 2u			/* directories read at a time ... */
#define LIST_AHEAD 4096u		/* ... while fewer files than this wait */
#define CHECKS 4u			/* files verified at a time */
#define BUDGET 16u			/* each completion hashes a block: keep turns short */

enum mode { MODE_AUTO, MODE_DIRECT, MODE_BUFFERED };

struct entry {				/* a file or directory that was found */
	struct entry *next;
	uint64_t size, digest;
	struct timespec ctime;
	int error;			/* what reading it through the loop gave */
	char path[];			/* from DIR, where the program stands */
};

struct queue {
	struct entry *first, *last;
	size_t count;
};

struct histogram {			/* eight buckets to each power of two */
	uint64_t count, max, bucket[64 * 8];
};

struct block {				/* a buffer and the read into it */
	struct block *next;
	struct onefd_req req;
	struct slot *slot;
	unsigned char *buf;
	uint64_t offset, since;
	size_t asked, done;
};

struct slot {				/* a file while it is open */
	struct slot *next;
	struct onefd_req req;		/* opens it, and closes it */
	struct onefd_file file;
	struct entry *entry;
	uint64_t sent;			/* reads exist up to here */
	uint64_t end;			/* ... and are wanted up to here */
	unsigned out;			/* reads in flight */
	bool waiting;			/* in tour.waiting */
	bool direct;
	int fd;				/* -1 while it is being opened */
	int error;
};

struct listing {			/* a directory while it is read */
	struct onefd_req req;
	struct entry *folder;
	struct queue files, folders;
	uint64_t others;
	bool busy;
};

struct check {				/* a file while read(2) reads it again */
	struct onefd_req req;
	struct entry *entry;
	unsigned char *buf;
	uint64_t digest;
	bool changed;
};

struct echo {
	struct onefd_watch listener, server, client;
	struct histogram trip;
	uint64_t sent, since;
	const char *trouble;
	bool waiting;
};

static struct tour {
	/* what was asked for */
	const char *dir;
	enum mode mode;
	unsigned depth;
	size_t block_size;
	int verify, json, stats, verbose;

	struct onefd *loop;
	_Atomic int interrupted;	/* the signal; workers look at it too */
	struct onefd_signal sigint, sigterm;

	/* the walk, in the order that things travel */
	struct queue folders, files;
	struct listing listings[LISTINGS];
	struct slot slots[OPEN_MOST], *free_slots;
	struct slot *waiting, **waiting_end;	/* open, with reads yet to send */
	struct block *blocks, *free_blocks;
	struct queue read, unreadable;

	/* the company */
	struct onefd_timer heart;
	struct echo echo;
	struct onefd_child child;
	int child_pipe;
	int child_error, child_code, child_status;
	bool child_running;

	/* the progress line */
	struct onefd_timer progress;
	struct onefd_req progress_req;
	char progress_line[128];
	int progress_length;

	/* what came of it */
	uint64_t started, ended;
	uint64_t n_files, n_folders, n_others, n_unreadable, n_direct, n_buffered, bytes, digest;
	unsigned listing, open, open_most, out, out_most;
	struct histogram latency, lateness;

	struct check checks[CHECKS];
	unsigned checking;
	uint64_t n_equal, n_changed, n_different;
	struct entry *first_different;
	const char *difference;
} tour = { .depth = 64, .block_size = 128 << 10, .child_pipe = -1 };

/* ---- small things ------------------------------------------------------ */

static void die(const char *what, int error)
{
	fprintf(stderr, "onefd-tour: %s: %s\n", what, strerror(error));
	exit(1);
}

/* For what fails only on a machine out of means: @r is >= 0 or -errno. */
static void must(const char *what, int r)
{
	if (r < 0)
		die(what, -r);
}

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 * MSEC + (uint64_t)ts.tv_nsec;
}

static void queue_push(struct queue *queue, struct entry *entry)
{
	entry->next = NULL;
	if (queue->last)
		queue->last->next = entry;
	else
		queue->first = entry;
	queue->last = entry;
	queue->count++;
}

/* Puts all of @from in front: the walk goes down before it goes on, so that
 * few directories wait. */
static void queue_push_front(struct queue *queue, struct queue *from)
{
	if (!from->first)
		return;
	from->last->next = queue->first;
	if (!queue->last)
		queue->last = from->last;
	queue->first = from->first;
	queue->count += from->count;
	*from = (struct queue){ 0 };
}

static struct entry *queue_pop(struct queue *queue)
{
	struct entry *entry = queue->first;

	if (!entry)
		return NULL;
	queue->first = entry->next;
	if (!queue->first)
		queue->last = NULL;
	queue->count--;
	return entry;
}

static void histogram_add(struct histogram *histogram, uint64_t ns)
{
	uint64_t value = ns | 8;	/* all below 16 ns is one to us */
	unsigned power = 63 - (unsigned)__builtin_clzll(value);

	histogram->bucket[power * 8 + (value >> (power - 3) & 7)]++;
	histogram->count++;
	if (ns > histogram->max)
		histogram->max = ns;
}

/* The upper edge of the bucket in which a share @q of the values ends. */
static uint64_t quantile(const struct histogram *histogram, double q)
{
	uint64_t left = (uint64_t)(q * (double)histogram->count);
	uint64_t edge = 0;

	for (unsigned i = 0; i < 64 * 8; i++) {
		if (histogram->bucket[i])
			edge = (UINT64_C(9) + i % 8) << (i / 8 - 3);
		if (histogram->bucket[i] > left)
			break;
		left -= histogram->bucket[i];
	}
	return edge < histogram->max ? edge : histogram->max;
}

/* ---- the digest: XXH64 of each page, seeded with its offset, summed ----- */

#define PRIME1 UINT64_C(0x9E3779B185EBCA87)
#define PRIME2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define PRIME3 UINT64_C(0x165667B19E3779F9)
#define PRIME4 UINT64_C(0x85EBCA77C2B2AE63)
#define PRIME5 UINT64_C(0x27D4EB2F165667C5)

static inline uint64_t rotate(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static inline uint64_t load64(const unsigned char *p)
{
	uint64_t x;

	memcpy(&x, p, sizeof x);
	return x;
}

static inline uint32_t load32(const unsigned char *p)
{
	uint32_t x;

	memcpy(&x, p, sizeof x);
	return x;
}

static inline uint64_t xxh_round(uint64_t lane, uint64_t input)
{
	return rotate(lane + input * PRIME2, 31) * PRIME1;
}

static inline uint64_t xxh_merge(uint64_t hash, uint64_t lane)
{
	return (hash ^ xxh_round(0, lane)) * PRIME1 + PRIME4;
}

/* The fewer than 32 bytes that the lanes left over. */
static uint64_t xxh_tail(uint64_t hash, const unsigned char *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8)
		hash = rotate(hash ^ xxh_round(0, load64(p)), 27) * PRIME1 + PRIME4;
	for (; len >= 4; p += 4, len -= 4)
		hash = rotate(hash ^ load32(p) * PRIME1, 23) * PRIME2 + PRIME3;
	for (; len; p++, len--)
		hash = rotate(hash ^ *p * PRIME5, 11) * PRIME1;
	hash = (hash ^ hash >> 33) * PRIME2;
	hash = (hash ^ hash >> 29) * PRIME3;
	return hash ^ hash >> 32;
}

static uint64_t xxh64(const void *data, size_t len, uint64_t seed)
{
	const unsigned char *p = data;
	size_t left = len;
	uint64_t hash = seed + PRIME5;

	if (len >= 32) {
		uint64_t a = seed + PRIME1 + PRIME2, b = seed + PRIME2;
		uint64_t c = seed, d = seed - PRIME1;

		for (; left >= 32; p += 32, left -= 32) {
			a = xxh_round(a, load64(p));
			b = xxh_round(b, load64(p + 8));
			c = xxh_round(c, load64(p + 16));
			d = xxh_round(d, load64(p + 24));
		}
		hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
		hash = xxh_merge(xxh_merge(xxh_merge(xxh_merge(hash, a), b), c), d);
	}
	return xxh_tail(hash + len, p, left);
}

/* Sums over pages come out the same in any order and for any block size. */
static uint64_t digest_pages(const unsigned char *buf, size_t len, uint64_t offset)
{
	uint64_t sum = 0;

	for (size_t at = 0; at < len; at += PAGE)
		sum += xxh64(buf + at, len - at < PAGE ? len - at : PAGE, offset + at);
	return sum;
}

/* ---- on workers: what blocks by nature --------------------------------- */

static struct entry *entry_new(const char *folder, const char *name)
{
	bool top = !strcmp(folder, ".");
	size_t size = sizeof(struct entry) + strlen(folder) + strlen(name) + 2;
	struct entry *entry = calloc(1, size);

	if (entry)
		sprintf(entry->path, "%s%s%s", top ? "" : folder, top ? "" : "/", name);
	return entry;
}

/* One name of a directory. One that vanished stands as an empty file, and its
 * open will say so. */
static int list_name(struct listing *listing, int dirfd, const struct dirent *found)
{
	bool regular = found->d_type == DT_REG, folder = found->d_type == DT_DIR;
	struct stat st = { 0 };
	struct entry *entry;

	if (!strcmp(found->d_name, ".") || !strcmp(found->d_name, ".."))
		return 0;
	if (regular || found->d_type == DT_UNKNOWN) {
		bool there = fstatat(dirfd, found->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0;

		regular = !there || S_ISREG(st.st_mode);
		folder = there && S_ISDIR(st.st_mode);
	}
	if (!regular && !folder) {
		listing->others++;
		return 0;
	}
	entry = entry_new(listing->folder->path, found->d_name);
	if (!entry)
		return -ENOMEM;
	entry->size = (uint64_t)st.st_size;
	entry->ctime = st.st_ctim;
	queue_push(folder ? &listing->folders : &listing->files, entry);
	return 0;
}

static ssize_t list_folder(void *arg)
{
	struct listing *listing = arg;
	int fd = open(listing->folder->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *found;
	int r = 0;

	if (!dir) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, found = readdir(dir)))
		r = list_name(listing, fd, found);
	if (r == 0)
		r = -errno;
	closedir(dir);
	return r;
}

static ssize_t close_slot(void *arg)
{
	const struct slot *slot = arg;

	return close(slot->fd) < 0 ? -errno : 0;
}

/* Blocks are filled up before they are hashed, as they are in the loop. */
static ssize_t read_full(int fd, unsigned char *buf, size_t size)
{
	size_t done = 0;
	ssize_t n = 0;

	while (done < size && (n = read(fd, buf + done, size - done)) > 0)
		done += (size_t)n;
	return n < 0 ? -errno : (ssize_t)done;
}

static ssize_t check_open(struct check *check, int fd)
{
	const struct entry *entry = check->entry;
	uint64_t offset = 0;
	struct stat st;
	ssize_t n;

	do {
		n = read_full(fd, check->buf, tour.block_size);
		if (n < 0)
			return n;
		check->digest += digest_pages(check->buf, (size_t)n, offset);
		offset += (uint64_t)n;
	} while (n == (ssize_t)tour.block_size && !tour.interrupted);
	if (fstat(fd, &st) < 0)
		return -errno;
	check->changed = (uint64_t)st.st_size != entry->size ||
			 st.st_ctim.tv_sec != entry->ctime.tv_sec ||
			 st.st_ctim.tv_nsec != entry->ctime.tv_nsec;
	return 0;
}

static ssize_t check_file(void *arg)
{
	struct check *check = arg;
	int fd = open(check->entry->path,
		      O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	ssize_t r;

	check->digest = 0;
	check->changed = fd < 0 && errno == ENOENT;
	if (fd < 0)
		return -errno;
	r = check_open(check, fd);
	close(fd);
	return r;
}

static ssize_t write_progress(void *arg)
{
	(void)arg;
	return write(STDERR_FILENO, tour.progress_line, (size_t)tour.progress_length);
}

/* ---- the walk ---------------------------------------------------------- */

static void pump(void);

static void submit(struct onefd_req *req, onefd_req_fn *fn)
{
	must("submit", onefd_submit(tour.loop, req, fn));
}

static void fail(struct entry *entry, int error)
{
	if (error == -ECANCELED) {	/* our own doing: Ctrl-C */
		free(entry);
		return;
	}
	entry->error = error;
	queue_push(&tour.unreadable, entry);
}

/* Out of descriptors, while @open files of ours will give theirs back: it is
 * worth another try, and fewer are opened from now on. */
static bool descriptors_return(ssize_t error, unsigned open)
{
	if ((error != -EMFILE && error != -ENFILE) || !open)
		return false;
	tour.open_most = open > 1 ? open - 1 : 1;
	return true;
}

static void put_back(struct queue *queue, struct entry *entry)
{
	struct queue one = { 0 };

	queue_push(&one, entry);
	queue_push_front(queue, &one);
}

static void listed(struct onefd_req *req)
{
	struct listing *listing = req->data;

	listing->busy = false;
	tour.listing--;
	tour.n_others += listing->others;
	queue_push_front(&tour.folders, &listing->folders);
	queue_push_front(&tour.files, &listing->files);
	if (!tour.interrupted && descriptors_return(req->res, tour.open)) {
		put_back(&tour.folders, listing->folder);
	} else if (req->res < 0) {
		fail(listing->folder, (int)req->res);
	} else {
		tour.n_folders++;
		free(listing->folder);
	}
	pump();
}

static void list_next(void)
{
	struct listing *listing = tour.listings;

	while (listing->busy)
		listing++;
	*listing = (struct listing){ .folder = queue_pop(&tour.folders), .busy = true };
	listing->req.data = listing;
	tour.listing++;
	onefd_prep_call(&listing->req, list_folder, listing);
	submit(&listing->req, listed);
}

/* Memory of the slot is free again; what becomes of its entry is decided. */
static void slot_release(struct slot *slot)
{
	tour.open--;
	slot->entry = NULL;
	slot->next = tour.free_slots;
	tour.free_slots = slot;
}

static void closed(struct onefd_req *req)
{
	struct slot *slot = req->data;
	struct entry *entry = slot->entry;

	if (!slot->error && req->res < 0)
		slot->error = (int)req->res;
	if (slot->error) {
		fail(entry, slot->error);
	} else {
		tour.n_files++;
		*(slot->direct ? &tour.n_direct : &tour.n_buffered) += 1;
		tour.digest += xxh64(entry->path, strlen(entry->path), entry->digest);
		if (tour.verify)
			queue_push(&tour.read, entry);
		else
			free(entry);
	}
	slot_release(slot);
	pump();
}

static void slot_wait(struct slot *slot)
{
	if (slot->waiting)
		return;
	slot->waiting = true;
	slot->next = NULL;
	*tour.waiting_end = slot;
	tour.waiting_end = &slot->next;
}

static struct slot *slot_unwait(void)
{
	struct slot *slot = tour.waiting;

	tour.waiting = slot->next;
	if (!tour.waiting)
		tour.waiting_end = &tour.waiting;
	slot->waiting = false;
	return slot;
}

static void slot_close_if_done(struct slot *slot)
{
	if (slot->out || slot->waiting)
		return;
	onefd_prep_call(&slot->req, close_slot, slot);
	submit(&slot->req, closed);
}

static void block_submit(struct block *block);

/* A read came back. Short is not yet the end: only nothing, or the size that
 * the directory gave, is. */
static void block_done(struct onefd_req *req)
{
	struct block *block = req->data;
	struct slot *slot = block->slot;
	uint64_t at;

	histogram_add(&tour.latency, clock_ns() - block->since);
	if (req->res > 0) {
		block->done += (size_t)req->res;
		tour.bytes += (uint64_t)req->res;
	}
	at = block->offset + block->done;
	if (req->res > 0 && block->done < block->asked && at < slot->entry->size) {
		block_submit(block);
		return;
	}
	slot->entry->digest += digest_pages(block->buf, block->done, block->offset);
	slot->out--;
	tour.out--;
	if (req->res < 0) {
		slot->error = (int)req->res;
	} else if (block->done < block->asked) {
		slot->end = at < slot->end ? at : slot->end;
	} else if (at >= slot->end) {
		slot->end = at + 1;	/* longer than its directory said */
		slot_wait(slot);
	}
	block->slot = NULL;
	block->next = tour.free_blocks;
	tour.free_blocks = block;
	slot_close_if_done(slot);
	pump();
}

static void block_submit(struct block *block)
{
	onefd_prep_pread(&block->req, &block->slot->file, block->buf + block->done,
			 block->asked - block->done,
			 (off_t)(block->offset + block->done));
	block->since = clock_ns();
	submit(&block->req, block_done);
}

/* Sends one block of the file that has waited longest. */
static void read_next(void)
{
	struct slot *slot = tour.waiting;
	struct block *block = tour.free_blocks;
	uint64_t wanted;

	if (tour.interrupted && !slot->error)
		slot->error = -ECANCELED;
	if (slot->error || slot->sent >= slot->end) {
		slot_unwait();
		slot_close_if_done(slot);
		return;
	}
	wanted = (slot->end - slot->sent + PAGE - 1) / PAGE * PAGE;
	tour.free_blocks = block->next;
	block->slot = slot;
	block->offset = slot->sent;
	block->asked = wanted < tour.block_size ? wanted : tour.block_size;
	block->done = 0;
	slot->sent += block->asked;
	slot->out++;
	if (slot->sent >= slot->end)
		slot_unwait();
	if (++tour.out > tour.out_most)
		tour.out_most = tour.out;
	block_submit(block);
}

static void slot_open(struct slot *slot);

/* Whether the open is tried again, or later. */
static bool open_again(struct slot *slot, int error)
{
	if (error == -EINVAL && slot->direct && tour.mode == MODE_AUTO) {
		slot->direct = false;
		slot_open(slot);
		return true;
	}
	if (descriptors_return(error, tour.open - 1)) {
		put_back(&tour.files, slot->entry);
		slot_release(slot);
		return true;
	}
	return false;
}

static void opened(struct onefd_req *req)
{
	struct slot *slot = req->data;

	if (req->res < 0) {
		if (tour.interrupted || !open_again(slot, (int)req->res)) {
			fail(slot->entry, (int)req->res);
			slot_release(slot);
		}
		pump();
		return;
	}
	slot->fd = (int)req->res;
	slot->error = onefd_file_init(tour.loop, &slot->file, slot->fd);
	slot->sent = 0;
	/* A byte more than it has: the read that covers it finds the end. */
	slot->end = slot->entry->size + 1;
	slot_wait(slot);
	pump();
}

static void slot_open(struct slot *slot)
{
	/* Should it have become a FIFO, O_NONBLOCK keeps the worker from waiting
	 * for a writer. */
	int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

	slot->fd = -1;
	onefd_prep_openat(&slot->req, AT_FDCWD, slot->entry->path,
			  slot->direct ? flags | O_DIRECT : flags, 0);
	submit(&slot->req, opened);
}

static void open_next(void)
{
	struct slot *slot = tour.free_slots;

	tour.free_slots = slot->next;
	tour.open++;
	slot->entry = queue_pop(&tour.files);
	slot->direct = tour.mode != MODE_BUFFERED;
	slot->out = 0;
	slot->error = 0;
	slot_open(slot);
}

/* Starts whatever may start; ends the run when nothing can come any more. */
static void pump(void)
{
	while (tour.waiting && tour.free_blocks)
		read_next();
	while (!tour.interrupted && tour.files.first && tour.open < tour.open_most)
		open_next();
	while (!tour.interrupted && tour.folders.first && tour.listing < LISTINGS &&
	       tour.files.count < LIST_AHEAD)
		list_next();
	if (!tour.open && !tour.listing)
		onefd_stop(tour.loop);
}

static void walk_open(void)
{
	struct rlimit limit;
	unsigned char *pool;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		die("getrlimit", errno);
	tour.open_most = limit.rlim_cur > FDS_ELSEWHERE + OPEN_MOST ? OPEN_MOST :
			 limit.rlim_cur > FDS_ELSEWHERE ? (unsigned)limit.rlim_cur - FDS_ELSEWHERE : 1;
	/* Populated, so that no page fault falls into a submission. */
	pool = mmap(NULL, tour.depth * tour.block_size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	tour.blocks = calloc(tour.depth, sizeof *tour.blocks);
	if (pool == MAP_FAILED || !tour.blocks)
		die("buffers", ENOMEM);
	for (unsigned i = 0; i < tour.depth; i++) {
		tour.blocks[i].buf = pool + i * tour.block_size;
		tour.blocks[i].req.data = &tour.blocks[i];
		tour.blocks[i].next = tour.free_blocks;
		tour.free_blocks = &tour.blocks[i];
	}
	for (unsigned i = 0; i < OPEN_MOST; i++) {
		tour.slots[i].req.data = &tour.slots[i];
		tour.slots[i].next = tour.free_slots;
		tour.free_slots = &tour.slots[i];
	}
	tour.waiting_end = &tour.waiting;
}

static void walk(void)
{
	struct entry *entry = entry_new(".", ".");

	if (!entry)
		die(tour.dir, ENOMEM);
	queue_push(&tour.folders, entry);
	tour.started = clock_ns();
	pump();
	must("run", onefd_run(tour.loop));
	tour.ended = clock_ns();
	tour.n_unreadable = tour.unreadable.count;
	for (entry = tour.verbose ? tour.unreadable.first : NULL; entry; entry = entry->next)
		fprintf(stderr, "onefd-tour: %s/%s: %s\n", tour.dir, entry->path,
			strerror(-entry->error));
}

/* ---- the company: what else a program waits for ------------------------- */

static void echo_trouble(const char *what)
{
	onefd_watch_stop(&tour.echo.listener);
	onefd_watch_stop(&tour.echo.server);
	onefd_watch_stop(&tour.echo.client);
	tour.echo.trouble = what;
	tour.echo.waiting = true;	/* for ever: nothing is sent any more */
}

static void echo_send(void)
{
	struct echo *echo = &tour.echo;

	if (echo->waiting)
		return;
	echo->waiting = true;
	echo->since = clock_ns();
	echo->sent++;
	if (send(echo->client.fd, &echo->sent, sizeof echo->sent,
		 MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof echo->sent)
		echo_trouble("one could not be sent");
}

static void client_ready(struct onefd_watch *watch, uint32_t events)
{
	struct echo *echo = watch->data;
	uint64_t answer;

	(void)events;
	if (recv(watch->fd, &answer, sizeof answer, MSG_DONTWAIT) != sizeof answer ||
	    answer != echo->sent) {
		echo_trouble("one came back wrong");
		return;
	}
	histogram_add(&echo->trip, clock_ns() - echo->since);
	echo->waiting = false;
}

static void server_ready(struct onefd_watch *watch, uint32_t events)
{
	char buf[64];
	ssize_t n = recv(watch->fd, buf, sizeof buf, MSG_DONTWAIT);

	(void)events;
	if (n <= 0 || send(watch->fd, buf, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
		echo_trouble("one was not served");
}

static void listener_ready(struct onefd_watch *watch, uint32_t events)
{
	struct echo *echo = watch->data;
	int on = 1;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0) {
		if (errno != EAGAIN)
			echo_trouble("one was not accepted");
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	onefd_watch_init(&echo->server, fd, server_ready);
	must("echo", onefd_watch_start(tour.loop, &echo->server, EPOLLIN));
	onefd_watch_stop(watch);
	close(watch->fd);
}

/* A listening socket on the loopback and one connected to it; the kernel
 * finishes the connection without us. */
static int echo_connect(int *listener, int *client)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	int on = 1;

	*listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	*client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*listener < 0 || *client < 0)
		return -errno;
	if (bind(*listener, (struct sockaddr *)&address, sizeof address) < 0 ||
	    listen(*listener, 1) < 0 ||
	    getsockname(*listener, (struct sockaddr *)&address, &size) < 0 ||
	    setsockopt(*client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
	    connect(*client, (struct sockaddr *)&address, sizeof address) < 0)
		return -errno;
	return 0;
}

/* A sandbox may have no network at all: the tour goes on without an echo. */
static void echo_start(void)
{
	struct echo *echo = &tour.echo;
	int listener, client;
	int r = echo_connect(&listener, &client);

	if (r < 0) {
		echo_trouble(strerror(-r));
		return;
	}
	onefd_watch_init(&echo->listener, listener, listener_ready);
	onefd_watch_init(&echo->client, client, client_ready);
	echo->listener.data = echo->client.data = echo;
	must("echo", onefd_watch_start(tour.loop, &echo->listener, EPOLLIN));
	must("echo", onefd_watch_start(tour.loop, &echo->client, EPOLLIN));
}

/* Measured by the clock, not by onefd_now(): a long turn shows. Beats that
 * fell into one stall are all counted as late as they are. */
static void beat(struct onefd_timer *timer)
{
	uint64_t now = clock_ns(), deadline = timer->deadline;

	for (; deadline <= now; deadline += BEAT)
		histogram_add(&tour.lateness, now - deadline);
	echo_send();
	onefd_timer_start(tour.loop, timer, deadline);
}

static void child_ended(struct onefd_child *child, int code, int status)
{
	(void)child;
	tour.child_running = false;
	tour.child_code = code;
	tour.child_status = status;
	if (tour.child_pipe < 0)
		onefd_stop(tour.loop);
}

/* A cat that lives until its pipe closes. It gets a group of its own, so that
 * Ctrl-C is ours alone, and signals as they were before we blocked them. */
static int child_spawn(pid_t *pid, int input)
{
	char *argv[] = { "cat", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int r;

	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	r = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	if (r == 0)
		r = posix_spawnattr_setsigmask(&attr, &none);
	if (r == 0)
		r = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
	if (r == 0)
		r = posix_spawnp(pid, argv[0], &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static void child_start(void)
{
	int fds[2], r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		die("pipe", errno);
	tour.child_pipe = fds[1];
	r = child_spawn(&pid, fds[0]);
	close(fds[0]);
	if (r == 0) {
		onefd_child_init(&tour.child, pid, child_ended);
		r = onefd_child_start(tour.loop, &tour.child);
	}
	tour.child_error = r;
	tour.child_running = r == 0;
}

/* Closes the child's input and waits, in the loop, for it to end. */
static void child_finish(void)
{
	close(tour.child_pipe);
	tour.child_pipe = -1;
	if (tour.child_running)
		must("run", onefd_run(tour.loop));
}

/* Opens and reads not yet with the kernel come back at once; closes do not
 * stand in the way and are left alone. */
static void cancel_reads(void)
{
	for (unsigned i = 0; i < tour.depth; i++)
		if (tour.blocks[i].slot)
			(void)onefd_cancel(&tour.blocks[i].req);
	for (unsigned i = 0; i < OPEN_MOST; i++)
		if (tour.slots[i].entry && tour.slots[i].fd < 0)
			(void)onefd_cancel(&tour.slots[i].req);
	pump();
}

static void interrupt(struct onefd_signal *watched, const struct signalfd_siginfo *info)
{
	(void)info;
	/* The second time someone does not want to wait for a device. */
	if (tour.interrupted)
		_exit(128 + watched->signo);
	tour.interrupted = watched->signo;
	if (!tour.ended)
		cancel_reads();
}

static void progress_written(struct onefd_req *req)
{
	(void)req;
	tour.progress_length = 0;
}

static double seconds_since(uint64_t then)
{
	return (double)(clock_ns() - then) / 1e9;
}

/* A stopped terminal blocks who writes to it, so a worker does. */
static void progress(struct onefd_timer *timer)
{
	onefd_timer_start(tour.loop, timer, timer->deadline + 200 * MSEC);
	if (tour.progress_length)
		return;
	tour.progress_length = snprintf(tour.progress_line, sizeof tour.progress_line,
		"\r%" PRIu64 " files, %.0f MiB, %.0f MiB/s, heartbeat at worst %.3f ms late\033[K",
		tour.n_files, (double)tour.bytes / 0x1p20,
		(double)tour.bytes / 0x1p20 / seconds_since(tour.started),
		(double)tour.lateness.max / 1e6);
	onefd_prep_call(&tour.progress_req, write_progress, NULL);
	submit(&tour.progress_req, progress_written);
}

static void company_start(void)
{
	uint64_t now;

	onefd_signal_init(&tour.sigint, SIGINT, interrupt);
	onefd_signal_init(&tour.sigterm, SIGTERM, interrupt);
	must("SIGINT", onefd_signal_start(tour.loop, &tour.sigint, ONEFD_SIGNAL_BLOCK));
	must("SIGTERM", onefd_signal_start(tour.loop, &tour.sigterm, ONEFD_SIGNAL_BLOCK));
	child_start();
	echo_start();
	now = clock_ns();
	onefd_timer_init(&tour.heart, beat);
	onefd_timer_start(tour.loop, &tour.heart, now + BEAT);
	onefd_timer_init(&tour.progress, progress);
	if (isatty(STDERR_FILENO))
		onefd_timer_start(tour.loop, &tour.progress, now + 200 * MSEC);
}

static void company_stop(void)
{
	onefd_timer_stop(&tour.heart);
	onefd_timer_stop(&tour.progress);
	onefd_watch_stop(&tour.echo.server);
	onefd_watch_stop(&tour.echo.client);
	must("drain", onefd_drain(tour.loop, -1));
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

/* ---- --verify ----------------------------------------------------------- */

static void check_next(struct check *check);

static void check_judge(const struct check *check, ssize_t res)
{
	struct entry *entry = check->entry;

	if (tour.interrupted || (entry->error && res < 0))
		return;
	if (!entry->error && res == 0 && check->digest == entry->digest) {
		tour.n_equal++;
	} else if (check->changed) {
		tour.n_changed++;
		if (tour.verbose)
			fprintf(stderr, "onefd-tour: %s/%s: changed meanwhile\n", tour.dir, entry->path);
	} else if (tour.n_different++ == 0) {
		tour.first_different = entry;
		tour.difference = entry->error ? "only read(2) can read it" :
				  res < 0 ? "read(2) cannot read it" : "the bytes differ";
	}
}

static void checked(struct onefd_req *req)
{
	struct check *check = req->data;

	check_judge(check, req->res);
	if (check->entry != tour.first_different)
		free(check->entry);
	tour.checking--;
	check_next(check);
}

static void check_next(struct check *check)
{
	struct entry *entry = tour.interrupted ? NULL : queue_pop(&tour.read);

	if (!entry) {
		if (!tour.checking)
			onefd_stop(tour.loop);
		return;
	}
	check->entry = entry;
	check->req.data = check;
	tour.checking++;
	onefd_prep_call(&check->req, check_file, check);
	submit(&check->req, checked);
}

/* Those that could not be read are tried too: read(2) may not do better. */
static void verify(void)
{
	queue_push_front(&tour.read, &tour.unreadable);
	for (unsigned i = 0; i < CHECKS; i++) {
		tour.checks[i].buf = malloc(tour.block_size);
		if (!tour.checks[i].buf)
			die("verify", ENOMEM);
		check_next(&tour.checks[i]);
	}
	must("run", onefd_run(tour.loop));
}

/* ---- the report --------------------------------------------------------- */

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static const char *child_report(void)
{
	static char text[64];

	if (tour.child_error)
		snprintf(text, sizeof text, "not started: %s", strerror(-tour.child_error));
	else if (tour.child_running)
		snprintf(text, sizeof text, "still running");
	else if (tour.child_code == CLD_EXITED)
		snprintf(text, sizeof text, "exited with status %d", tour.child_status);
	else
		snprintf(text, sizeof text, "killed by signal %d", tour.child_status);
	return text;
}

static const char *verify_report(void)
{
	return tour.n_different ? "different" : tour.interrupted ? "interrupted" : "equal";
}

static void print_verify(void)
{
	printf("verify     %s: read(2) gave the same for %" PRIu64 " files, %" PRIu64
	       " changed meanwhile, %" PRIu64 " differ\n",
	       verify_report(), tour.n_equal, tour.n_changed, tour.n_different);
	if (tour.first_different)
		printf("           the first: %s/%s: %s\n", tour.dir,
		       tour.first_different->path, tour.difference);
}

static void print_text(const struct onefd_stats *stats)
{
	double seconds = (double)(tour.ended - tour.started) / 1e9;

	printf("%s%s: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " bytes in %.3f s: "
	       "%.1f MiB/s, %.0f files/s\n", tour.dir, tour.interrupted ? " (interrupted)" : "",
	       tour.n_files, tour.n_folders, tour.bytes, seconds,
	       (double)tour.bytes / 0x1p20 / seconds, (double)tour.n_files / seconds);
	printf("opened     %" PRIu64 " direct, %" PRIu64 " buffered, %" PRIu64 " unreadable, %"
	       PRIu64 " not regular\n",
	       tour.n_direct, tour.n_buffered, tour.n_unreadable, tour.n_others);
	printf("depth      %u reads out at most, %" PRIu64 " requests in the kernel\n",
	       tour.out_most, stats->in_flight_most);
	printf("read       p50 %.3f, p99 %.3f, p99.9 %.3f, max %.3f ms over %" PRIu64 " requests\n",
	       ms(quantile(&tour.latency, .5)), ms(quantile(&tour.latency, .99)),
	       ms(quantile(&tour.latency, .999)), ms(tour.latency.max), tour.latency.count);
	printf("heartbeat  worst %.3f ms late, p99.9 %.3f ms over %" PRIu64 " beats\n",
	       ms(tour.lateness.max), ms(quantile(&tour.lateness, .999)), tour.lateness.count);
	printf("echo       %" PRIu64 " served, p50 %.3f, p99 %.3f ms%s%s\n", tour.echo.trip.count,
	       ms(quantile(&tour.echo.trip, .5)), ms(quantile(&tour.echo.trip, .99)),
	       tour.echo.trouble ? "; " : "", tour.echo.trouble ? tour.echo.trouble : "");
	printf("child      %s\n", child_report());
	printf("digest     %016" PRIx64 "\n", tour.digest);
	if (tour.verify)
		print_verify();
}

static void print_json(const struct onefd_stats *stats)
{
	double seconds = (double)(tour.ended - tour.started) / 1e9;

	printf("{\"files\": %" PRIu64 ", \"directories\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"seconds\": %.6f, \"bytes_per_s\": %.0f, ",
	       tour.n_files, tour.n_folders, tour.bytes, seconds, (double)tour.bytes / seconds);
	printf("\"direct\": %" PRIu64 ", \"buffered\": %" PRIu64 ", \"unreadable\": %" PRIu64
	       ", \"not_regular\": %" PRIu64 ", ",
	       tour.n_direct, tour.n_buffered, tour.n_unreadable, tour.n_others);
	printf("\"depth\": %u, \"in_kernel\": %" PRIu64 ", \"reads\": %" PRIu64
	       ", \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"longest_us\": %.1f, ",
	       tour.out_most, stats->in_flight_most, tour.latency.count,
	       ms(quantile(&tour.latency, .5)) * 1e3, ms(quantile(&tour.latency, .99)) * 1e3,
	       ms(quantile(&tour.latency, .999)) * 1e3, ms(tour.latency.max) * 1e3);
	printf("\"beats\": %" PRIu64 ", \"late_p999_us\": %.1f, \"late_worst_us\": %.1f, ",
	       tour.lateness.count, ms(quantile(&tour.lateness, .999)) * 1e3,
	       ms(tour.lateness.max) * 1e3);
	printf("\"echoes\": %" PRIu64 ", \"echo_p99_us\": %.1f, \"child\": \"%s\", ",
	       tour.echo.trip.count, ms(quantile(&tour.echo.trip, .99)) * 1e3, child_report());
	printf("\"digest\": \"%016" PRIx64 "\", \"verify\": ", tour.digest);
	if (tour.verify)
		printf("\"%s\", \"equal\": %" PRIu64 ", \"changed\": %" PRIu64
		       ", \"different\": %" PRIu64, verify_report(), tour.n_equal,
		       tour.n_changed, tour.n_different);
	else
		printf("null");
	printf(", \"interrupted\": %s}\n", tour.interrupted ? "true" : "false");
}

static void print_histogram(FILE *out, const char *name, const struct onefd_histogram *histogram)
{
	fprintf(out, "%s: p50 %" PRIu64 ", p99 %" PRIu64 ", p99.9 %" PRIu64 ", max %" PRIu64
		" over %" PRIu64 "\n", name, onefd_histogram_quantile(histogram, .5),
		onefd_histogram_quantile(histogram, .99),
		onefd_histogram_quantile(histogram, .999), histogram->max, histogram->count);
}

static void report(void)
{
	FILE *out = tour.json ? stderr : stdout;	/* JSON stands alone */
	struct onefd_stats stats;

	must("stats", onefd_stats(tour.loop, &stats, sizeof stats));
	(tour.json ? print_json : print_text)(&stats);
	if (tour.stats) {
		must("describe", onefd_describe(tour.loop, out));
		print_histogram(out, "submit_ns", &stats.submit_ns);
		print_histogram(out, "turn_ns", &stats.turn_ns);
	}
	if (fflush(stdout) == EOF || ferror(stdout))
		die("standard output", errno);
}

/* ---- the command line --------------------------------------------------- */

static const char usage[] =
	"Usage: onefd-tour [OPTION]... DIR\n"
	"Reads every regular file below DIR through one event loop.\n\n"
	"      --direct        only O_DIRECT; files that refuse it are unreadable\n"
	"      --buffered      only through the page cache (default: direct, else buffered)\n"
	"      --depth N       reads in flight (64)\n"
	"      --block BYTES   bytes per read, a multiple of 4096 (131072)\n"
	"      --verify        then compare every file with read(2)\n"
	"      --json          one JSON object instead of the report\n"
	"      --stats         how the loop worked\n"
	"  -v, --verbose       name the files that cannot be read\n"
	"  -h, --help\n";

static size_t number(const char *option, const char *text, size_t least, size_t most)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || value < least || value > most ||
	    value % least) {
		fprintf(stderr, "onefd-tour: %s takes %zu to %zu%s, not %s\n", option, least,
			most, least > 1 ? " in steps of the first" : "", text);
		exit(1);
	}
	return (size_t)value;
}

static void parse(int argc, char **argv)
{
	const struct option options[] = {
		{ "direct", no_argument, NULL, 'd' },
		{ "buffered", no_argument, NULL, 'b' },
		{ "depth", required_argument, NULL, 'n' },
		{ "block", required_argument, NULL, 's' },
		{ "verify", no_argument, &tour.verify, 1 },
		{ "json", no_argument, &tour.json, 1 },
		{ "stats", no_argument, &tour.stats, 1 },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "vh", options, NULL)) != -1) {
		switch (c) {
		case 0: break;
		case 'd': tour.mode = MODE_DIRECT; break;
		case 'b': tour.mode = MODE_BUFFERED; break;
		case 'n': tour.depth = (unsigned)number("--depth", optarg, 1, 65536); break;
		case 's': tour.block_size = number("--block", optarg, PAGE, 16 << 20); break;
		case 'v': tour.verbose = 1; break;
		case 'h': fputs(usage, stdout); exit(0);
		default: exit(1);
		}
	}
	if (argc - optind != 1) {
		fprintf(stderr, "onefd-tour: one DIR, please; --help says more\n");
		exit(1);
	}
	tour.dir = argv[optind];
}

/* All paths are relative to DIR: the digest does not depend on where it is. */
static void enter(void)
{
	int fd = open(tour.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fchdir(fd) < 0)
		die(tour.dir, errno);
	close(fd);
}

int main(int argc, char **argv)
{
	struct onefd_config config = { .budget = BUDGET };

	parse(argc, argv);
	enter();
	config.depth = tour.depth;
	must("onefd_new", onefd_new(&tour.loop, &config));
	walk_open();
	company_start();
	walk();
	company_stop();
	if (tour.verify && !tour.interrupted)
		verify();
	child_finish();
	report();
	must("onefd_free", onefd_free(tour.loop));
	return tour.interrupted ? 128 + tour.interrupted : tour.n_different ? 1 : 0;
}
