/*
 * faulty_fs.c - a FUSE file system that delays, fails, cuts and holds reads by
 * offset. It is a program of its own: faulty.sh mounts it, faulty.h talks to it.
 *
 * Usage: faulty_fs [-d] SOCKET MOUNTPOINT [IMAGE...]
 *
 * "a" and "b" in it are files of 64 MiB, the bytes of pattern.h. Each IMAGE
 * appears under its last name, its bytes those of the file named: with a loop
 * device on it any file system stands on a faulty disk. The page cache is used and
 * kept; -d opens "a" and "b" with direct_io. The program mounts, prints the pid
 * of the process that serves, and ends.
 *
 * Commands come as packets by SOCKET; each has one answer, "ok N" or "no -1".
 *
 *	hold FILE LOW HIGH	reads that touch [LOW, HIGH) wait for a release;
 *				"held OFFSET" is sent for each as it begins to wait
 *	delay FILE LOW HIGH MS	... are answered after MS milliseconds
 *	fail FILE LOW HIGH N	... answer errno N
 *	cut FILE LOW HIGH N	... answer N bytes at most
 *	release			forgets all these, answers what waits, and says how
 *				many had waited for too long
 *	size FILE BYTES		sets a size; the kernel is not told
 *	tell FILE OFFSET	the kernel forgets attributes, and pages from OFFSET on
 *				(-1: none), as soon as those being read are there
 *	find FILE OFFSET	where the latest of the last reads began that found there
 *				what pattern.h has at OFFSET
 *	reads			how many there were, of all files
 *
 * A connection that ends is a release, a reader that is killed is let go, and after
 * 40 seconds all are: a test that fails must be able to end. All happens on one
 * thread, for nothing in it waits; but the kernel may keep who tells it until
 * pages are read, so that is another's.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "pattern.h"

#define SIZE (64 << 20)
#define MOST_READ (1 << 20)
#define MOST_FILES 8
#define MOST_RULES 64
#define MOST_TRACED 64
#define SAME 256		/* bytes that tell one page from all others */
#define NEVER UINT64_MAX
#define SECOND UINT64_C(1000000000)
#define MOST_HELD (40 * SECOND)

struct file {			/* its inode is its index + 2 */
	const char *name;
	int fd;			/* -1: its bytes are the pattern */
	off_t size;
	off_t traced[MOST_TRACED];	/* the last reads, a ring */
	unsigned count;
};

enum action { HOLD, DELAY, FAIL, CUT, ACTIONS };
static const char *const action_names[ACTIONS] = { "hold", "delay", "fail", "cut" };

struct rule {
	enum action action;
	struct file *file;
	off_t low, high;
	long argument;
};

struct waiting {		/* a read that is answered later */
	struct waiting *next;
	fuse_req_t req;
	struct file *file;
	size_t size;
	off_t offset;
	uint64_t due;
	bool held, interrupted;
};

static struct file files[MOST_FILES];
static int file_count;
static struct rule rules[MOST_RULES];
static int rule_count;
static struct waiting *waiting;
static struct fuse_session *session;
static int client = -1;
static unsigned long reads, expired;
static bool direct_io;
static char buffer[MOST_READ];

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static struct file *file_of(fuse_ino_t ino)
{
	return ino >= 2 && ino < 2 + (fuse_ino_t)file_count ? &files[ino - 2] : NULL;
}

static struct file *file_named(const char *name)
{
	for (int i = 0; i < file_count; i++)
		if (strcmp(files[i].name, name) == 0)
			return &files[i];
	return NULL;
}

static const struct rule *find_rule(enum action action, const struct file *file, off_t low,
				    off_t high)
{
	for (int i = 0; i < rule_count; i++)
		if (rules[i].action == action && rules[i].file == file &&
		    low < rules[i].high && high > rules[i].low)
			return &rules[i];
	return NULL;
}

/* Never waits: who does not listen must not keep this file system from others. */
static void say(const char *what, long long number)
{
	char text[64];
	int n = snprintf(text, sizeof text, "%s %lld", what, number);

	(void)send(client, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- reads ------------------------------------------------------------------ */

/* What the file says now: the rules that hold and delay have been obeyed. */
static void answer(fuse_req_t req, const struct file *file, size_t size, off_t offset)
{
	off_t left = file->size > offset ? file->size - offset : 0;
	const struct rule *rule = find_rule(FAIL, file, offset, offset + (off_t)size);
	ssize_t n = (off_t)size < left ? (ssize_t)size : (ssize_t)left;

	if (rule) {
		fuse_reply_err(req, (int)rule->argument);
		return;
	}
	rule = find_rule(CUT, file, offset, offset + (off_t)size);
	if (rule && n > rule->argument)
		n = rule->argument;
	if (file->fd < 0)
		fill(buffer, (size_t)n, offset);
	else
		n = pread(file->fd, buffer, (size_t)n, offset);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buffer, (size_t)n);
}

/* Answers those that are due by @now; when the next one is. */
static uint64_t answer_due(uint64_t now)
{
	struct waiting **at = &waiting;
	uint64_t next = NEVER;

	while (*at) {
		struct waiting *one = *at;

		if (one->due > now && !one->interrupted) {
			next = one->due < next ? one->due : next;
			at = &one->next;
			continue;
		}
		*at = one->next;
		expired += one->held && one->due && !one->interrupted;
		fuse_req_interrupt_func(one->req, NULL, NULL);
		if (one->interrupted)
			fuse_reply_err(one->req, EINTR);
		else
			answer(one->req, one->file, one->size, one->offset);
		free(one);
	}
	return next;
}

/* Whoever is killed must not wait for a release: nobody else may be left to say it. */
static void interrupted(fuse_req_t req, void *data)
{
	(void)req;
	((struct waiting *)data)->interrupted = true;
}

static void wait_for(uint64_t ns, bool hold, fuse_req_t req, struct file *file, size_t size,
		     off_t offset)
{
	struct waiting *one = malloc(sizeof *one);

	*one = (struct waiting){ waiting, req, file, size, offset, now_ns() + ns, hold, false };
	waiting = one;
	fuse_req_interrupt_func(req, interrupted, one);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct file *file = file_of(ino);
	const struct rule *rule;

	(void)fi;
	if (size > MOST_READ)
		size = MOST_READ;
	reads++;
	file->traced[file->count++ % MOST_TRACED] = offset;
	if (find_rule(HOLD, file, offset, offset + (off_t)size)) {
		wait_for(MOST_HELD, true, req, file, size, offset);
		say("held", offset);
		return;
	}
	rule = find_rule(DELAY, file, offset, offset + (off_t)size);
	if (rule)
		wait_for((uint64_t)rule->argument * 1000000, false, req, file, size, offset);
	else
		answer(req, file, size, offset);
}

/* ---- the rest of a file system ------------------------------------------------ */

static struct stat attributes(fuse_ino_t ino)
{
	const struct file *file = file_of(ino);
	struct stat st = { .st_ino = ino, .st_nlink = 1, .st_mode = S_IFDIR | 0755 };

	if (file) {
		st.st_mode = S_IFREG | 0644;
		st.st_size = file->size;
	}
	return st;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct file *file = parent == FUSE_ROOT_ID ? file_named(name) : NULL;
	struct fuse_entry_param entry = { .attr_timeout = 1e6, .entry_timeout = 1e6 };

	if (!file) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	entry.ino = (fuse_ino_t)(file - files) + 2;
	entry.attr = attributes(entry.ino);
	fuse_reply_entry(req, &entry);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = attributes(ino);

	(void)fi;
	fuse_reply_attr(req, &st, 1e6);
}

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
		       struct fuse_file_info *fi)
{
	struct file *file = file_of(ino);

	if (file && file->fd < 0 && to_set & FUSE_SET_ATTR_SIZE)
		file->size = st->st_size;
	do_getattr(req, ino, fi);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file *file = file_of(ino);

	if (!file) {
		fuse_reply_err(req, EISDIR);
		return;
	}
	fi->keep_cache = 1;
	fi->direct_io = direct_io && file->fd < 0;
	fuse_reply_open(req, fi);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size,
		     off_t offset, struct fuse_file_info *fi)
{
	const struct file *file = file_of(ino);
	ssize_t n = file->fd < 0 ? -1 : pwrite(file->fd, bytes, size, offset);

	(void)fi;
	if (n < 0)
		fuse_reply_err(req, file->fd < 0 ? EROFS : errno);
	else
		fuse_reply_write(req, (size_t)n);
}

/* Nothing here is to outlive a crash. */
static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino, (void)datasync, (void)fi;
	fuse_reply_err(req, 0);
}

static void do_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	conn->max_background = 1024;	/* one that waits holds up no other */
	conn->congestion_threshold = 1024;
}

static const struct fuse_lowlevel_ops ops = {
	.init = do_init, .lookup = do_lookup, .getattr = do_getattr, .setattr = do_setattr,
	.open = do_open, .read = do_read, .write = do_write, .fsync = do_fsync,
};

/* ---- commands -------------------------------------------------------------------- */

static long long release(void)
{
	long long late = (long long)expired;

	expired = 0;
	rule_count = 0;
	for (struct waiting *one = waiting; one; one = one->next)
		one->due = 0;
	return late;
}

struct news {
	fuse_ino_t ino;
	off_t offset;
};

static void *tell_kernel(void *arg)
{
	struct news *news = arg;

	fuse_lowlevel_notify_inval_inode(session, news->ino, news->offset, 0);
	free(news);
	return NULL;
}

static bool tell(const struct file *file, off_t offset)
{
	struct news *news = malloc(sizeof *news);
	pthread_t thread;

	*news = (struct news){ (fuse_ino_t)(file - files) + 2, offset };
	return pthread_create(&thread, NULL, tell_kernel, news) == 0 &&
	       pthread_detach(thread) == 0;
}

/* By its bytes: the file system reads things of its own beside. */
static off_t find_page(const struct file *file, off_t offset)
{
	char wanted[SAME], bytes[SAME];

	fill(wanted, SAME, offset);
	for (unsigned i = 1; i <= MOST_TRACED && i <= file->count; i++) {
		off_t at = file->traced[(file->count - i) % MOST_TRACED];

		if (pread(file->fd, bytes, SAME, at) == SAME && memcmp(bytes, wanted, SAME) == 0)
			return at;
	}
	return -1;
}

static bool add_rule(const char *verb, struct file *file, off_t low, off_t high, long argument)
{
	for (int action = 0; action < ACTIONS && rule_count < MOST_RULES; action++)
		if (strcmp(verb, action_names[action]) == 0) {
			rules[rule_count++] = (struct rule){ action, file, low, high, argument };
			return true;
		}
	return false;
}

/* The answer to a command, or -1. */
static long long obey(const char *command)
{
	char verb[16] = "", name[32] = "";
	long long first = 0, second = 0;
	struct file *file;
	long third = 0;

	sscanf(command, "%15s %31s %lld %lld %ld", verb, name, &first, &second, &third);
	file = file_named(name);
	if (strcmp(verb, "release") == 0)
		return release();
	if (strcmp(verb, "reads") == 0)
		return (long long)reads;
	if (!file)
		return -1;
	if (strcmp(verb, "find") == 0)
		return find_page(file, first);
	else if (strcmp(verb, "size") == 0)
		file->size = first;
	else if (strcmp(verb, "tell") == 0)
		return tell(file, first) ? 0 : -1;
	else
		return add_rule(verb, file, first, second, third) ? 0 : -1;
	return 0;
}

static void client_ready(void)
{
	char command[128];
	ssize_t n = recv(client, command, sizeof command - 1, 0);
	long long result;

	if (n <= 0) {
		release();
		close(client);
		client = -1;
		return;
	}
	command[n] = '\0';
	result = obey(command);
	say(result < 0 ? "no" : "ok", result);
}

/* ---- the process ------------------------------------------------------------------ */

static void session_ready(void)
{
	static struct fuse_buf buf;
	int n = fuse_session_receive_buf(session, &buf);

	if (n > 0)
		fuse_session_process_buf(session, &buf);
	else if (n != -EINTR && n != -EAGAIN)
		fuse_session_exit(session);
}

/* One client at a time: the next is accepted when the last has gone. */
static void serve(int listener)
{
	while (!fuse_session_exited(session)) {
		uint64_t now = now_ns(), next = answer_due(now);
		struct pollfd fds[2] = {
			{ .fd = fuse_session_fd(session), .events = POLLIN },
			{ .fd = client < 0 ? listener : client, .events = POLLIN },
		};

		if (poll(fds, 2, next == NEVER ? -1 : (int)((next - now) / 1000000 + 1)) < 0)
			continue;
		if (fds[0].revents)
			session_ready();
		if (fds[1].revents && client < 0)
			client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		else if (fds[1].revents)
			client_ready();
	}
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
	    listen(fd, 8) < 0)
		return -1;
	return fd;
}

static void add_file(const char *name, int fd, off_t size)
{
	if (file_count < MOST_FILES)
		files[file_count++] = (struct file){ .name = name, .fd = fd, .size = size };
}

static void add_image(const char *path)
{
	const char *slash = strrchr(path, '/');
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		perror(path);
		exit(1);
	}
	add_file(slash ? slash + 1 : path, fd, lseek(fd, 0, SEEK_END));
}

int main(int argc, char **argv)
{
	char *mount_argv[] = { argv[0], "-ofsname=onefd-faulty,default_permissions", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, mount_argv);
	int listener;
	pid_t pid;

	direct_io = argc > 1 && strcmp(argv[1], "-d") == 0;
	argv += direct_io;
	if (argc - direct_io < 3) {
		fprintf(stderr, "usage: faulty_fs [-d] SOCKET MOUNTPOINT [IMAGE...]\n");
		return 2;
	}
	add_file("a", -1, SIZE);
	add_file("b", -1, SIZE);
	for (int i = 3; argv[i]; i++)
		add_image(argv[i]);
	listener = listen_at(argv[1]);
	session = fuse_session_new(&args, &ops, sizeof ops, NULL);
	if (listener < 0 || !session || fuse_session_mount(session, argv[2]) < 0) {
		perror("faulty_fs");
		return 1;
	}
	pid = fork();
	if (pid != 0) {
		printf("%d\n", (int)pid);
		return pid < 0;
	}
	setsid();
	if (!freopen("/dev/null", "r+", stdin) || !freopen("/dev/null", "w", stdout))
		return 1;
	fcntl(fuse_session_fd(session), F_SETFL, O_NONBLOCK);
	fuse_set_signal_handlers(session);
	serve(listener);
	release();
	answer_due(NEVER - 1);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return 0;
}
