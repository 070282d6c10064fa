/*
 * fuse_mount.h - what tests of a FUSE session share: a small file system on a
 * mount of its own, served by the test's own loop, and client processes that use it.
 *
 * Mounts are in a name space of the test's process, so that they go with it. A test
 * never touches its mount itself: clients do, and the loop waits for them.
 *
 * Any name in the root is a file of FILE_SIZE foretold bytes, whose number stands
 * behind the one letter of its name. What a test does not handle itself is
 * answered at once. Reads and writes come as they were asked for, not through
 * the page cache.
 */
#ifndef ONEFD_TESTS_FUSE_MOUNT_H
#define ONEFD_TESTS_FUSE_MOUNT_H

#define FUSE_USE_VERSION 35

#include "harness.h"
#include "pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <onefd/fuse.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_SIZE (4 << 20)
#define MANY 256

static struct onefd *loop;
static char top[64]; /* a directory made by main() */

/* ---- what a test may handle itself --------------------------------------- */

static bool through_pages;	/* reads, by way of the page cache: in the background */
static unsigned too_much;	/* wanted of the kernel */
static void (*on_lookup)(fuse_req_t req, const char *name);
static void (*on_read)(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset);
static void (*on_write)(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size,
			off_t offset);
static void (*on_setxattr)(fuse_req_t req, const char *name, const char *value, size_t size);

/* ---- a session ------------------------------------------------------------ */

struct mounted {
	struct fuse_session *session;
	struct onefd_fuse *fuse;
	struct onefd_fuse_stats stats;
	char path[80];
	int ended, reason;
};

static struct mounted here;

static void fs_init(void *data, struct fuse_conn_info *conn)
{
	struct mounted *mounted = data;

	onefd_fuse_init(mounted->fuse, conn);
	conn->want |= too_much;
}

static void describe_node(fuse_ino_t ino, struct stat *st)
{
	*st = (struct stat){
		.st_ino = ino, .st_nlink = 1, .st_mode = S_IFREG | 0666, .st_size = FILE_SIZE
	};
	if (ino == FUSE_ROOT_ID)
		st->st_mode = S_IFDIR | 0777;
}

static void reply_entry(fuse_req_t req, const char *name)
{
	struct fuse_entry_param entry = { .ino = 2 + strtoul(name + 1, NULL, 10),
					  .entry_timeout = 1000,
					  .attr_timeout = 1000 };

	describe_node(entry.ino, &entry.attr);
	(void)fuse_reply_entry(req, &entry);
}

static void reply_bytes(fuse_req_t req, size_t size, off_t offset)
{
	char *bytes = malloc(size);

	fill(bytes, size, offset);
	(void)fuse_reply_buf(req, bytes, size);
	free(bytes);
}

static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	if (on_lookup)
		on_lookup(req, name);
	else
		reply_entry(req, name);
}

static void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	describe_node(ino, &st);
	(void)fuse_reply_attr(req, &st, 1000);
}

static void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = !through_pages;
	(void)fuse_reply_open(req, fi);
}

static void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	(void)fi;
	if (on_read)
		on_read(req, ino, size, offset);
	else
		reply_bytes(req, size, offset);
}

static void fs_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	(void)fi;
	if (on_write)
		on_write(req, ino, bytes, size, offset);
	else
		(void)fuse_reply_write(req, size);
}

static void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			size_t size, int flags)
{
	(void)ino;
	(void)flags;
	if (on_setxattr)
		on_setxattr(req, name, value, size);
	else
		(void)fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops fs_ops = {
	.init = fs_init,
	.lookup = fs_lookup,
	.getattr = fs_getattr,
	.open = fs_open,
	.read = fs_read,
	.write = fs_write,
	.setxattr = fs_setxattr,
};

static struct fuse_session *new_session(void *data)
{
	char *words[] = { (char *)"test_fuse", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, words);
	struct fuse_session *session = fuse_session_new(&args, &fs_ops, sizeof fs_ops, data);

	ck_assert_ptr_nonnull(session);
	fuse_opt_free_args(&args);
	return session;
}

static void note_end(struct onefd_fuse *fuse, void *data, int reason)
{
	struct mounted *mounted = data;

	ck_assert_ptr_eq(fuse, mounted->fuse);
	mounted->ended++;
	mounted->reason = reason;
}

/* Mounts a file system, not yet served: whoever uses it waits. */
static void mount_one(struct mounted *mounted, const char *name,
		      const struct onefd_fuse_config *config)
{
	*mounted = (struct mounted){ 0 };
	snprintf(mounted->path, sizeof mounted->path, "%s/%s", top, name);
	(void)mkdir(mounted->path, 0700);
	mounted->session = new_session(mounted);
	ck_assert_int_eq(fuse_session_mount(mounted->session, mounted->path), 0);
	must(onefd_fuse_new(&mounted->fuse, loop, mounted->session, config));
}

static void serve(const struct onefd_fuse_config *config)
{
	mount_one(&here, "here", config);
	must(onefd_fuse_start(here.fuse, note_end, &here));
}

static void unmount_one(struct mounted *mounted)
{
	fuse_session_unmount(mounted->session);
	fuse_session_destroy(mounted->session);
	must(onefd_fuse_free(mounted->fuse));
}

#define run_until(condition)                                                                       \
	while (!(condition))                                                                       \
	must(onefd_dispatch(loop, -1))

static const struct onefd_fuse_stats *stats(void)
{
	must(onefd_fuse_stats(here.fuse, &here.stats, sizeof here.stats));
	return &here.stats;
}

static void finish(void)
{
	onefd_fuse_stop(here.fuse);
	run_until(here.ended);
	ck_assert_int_eq(here.ended, 1);
	ck_assert_int_eq(here.reason, 0);
	unmount_one(&here);
}

/* ---- requests in hand ------------------------------------------------------- */

/* What a handler has begun, in the order in which it came. */
struct held {
	struct onefd_fuse_op *op;
	fuse_ino_t ino;
	const char *bytes; /* of a write */
	size_t size;
	off_t offset;
};

static struct held held[MANY];
static int held_count;

static struct held *hold(fuse_req_t req)
{
	struct held *one = &held[held_count++];

	ck_assert_int_le(held_count, MANY);
	*one = (struct held){ .op = onefd_fuse_begin(here.fuse, req) };
	ck_assert_ptr_nonnull(one->op);
	return one;
}

static void hold_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	struct held *one = hold(req);

	one->ino = ino;
	one->size = size;
	one->offset = offset;
}

static inline void answer_read(struct held *one)
{
	fill(one->op->memory, one->size, one->offset);
	(void)fuse_reply_buf(one->op->fuse, one->op->memory, one->size);
	onefd_fuse_end(one->op);
}

/* ---- clients ----------------------------------------------------------------- */

typedef int client_fn(const char *path, int number);

struct client {
	struct onefd_child child;
	int code, status;
	bool gone;
};

static void note_client(struct onefd_child *child, int code, int status)
{
	struct client *client = onefd_container(child, struct client, child);

	client->code = code;
	client->status = status;
	client->gone = true;
}

/* A process with nothing open: the device's descriptor too is the test's alone. */
static pid_t fork_client(client_fn *fn, const char *path, int number)
{
	pid_t pid = (pid_t)must_libc(fork());

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)signal(SIGTERM, SIG_DFL); /* Check has a handler */
	close_range(3, ~0u, 0);
	_exit(fn(path, number));
}

/* fn's answer, an errno or 0, is what it exits with. */
static void start_client_at(struct client *client, client_fn *fn, const char *path, int number)
{
	*client = (struct client){ 0 };
	onefd_child_init(&client->child, fork_client(fn, path, number), note_client);
	must(onefd_child_start(loop, &client->child));
}

static void start_client(struct client *client, client_fn *fn, int number)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/f%d", here.path, number);
	start_client_at(client, fn, path, number);
}

static void end_client(struct client *client, int status)
{
	run_until(client->gone);
	ck_assert_int_eq(client->code, CLD_EXITED);
	ck_assert_int_eq(client->status, status);
}

static inline int look(const char *path, int number)
{
	struct stat st;

	(void)number;
	return stat(path, &st) < 0 ? errno : 0;
}

/* A page at the file's own place, compared. */
static inline int read_page(const char *path, int number)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), wrong = 0;
	off_t offset = number * 4096l;
	unsigned char bytes[4096];
	ssize_t n;

	if (fd < 0)
		return errno;
	n = pread(fd, bytes, sizeof bytes, offset);
	if (n < 0)
		return errno;
	for (int i = 0; i < 4096; i++)
		wrong |= bytes[i] != pattern(offset + i);
	return n != 4096 || wrong ? EILSEQ : 0;
}

/* ---- main() -------------------------------------------------------------------- */

static void set_up(void)
{
	must_libc(unshare(CLONE_NEWNS));
	must_libc(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL));
	must_libc(mount("onefd-tests", top, "tmpfs", 0, "mode=700"));
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
}

static bool can_mount(void)
{
	pid_t pid = fork();
	int status = 1;

	if (pid == 0)
		_exit(unshare(CLONE_NEWNS) < 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* The suite of these tests, or NULL with a reason why there can be none. */
static inline const char *prepare(void)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return "no /dev/fuse here";
	close(fd);
	if (!can_mount())
		return "mounting needs root";
	snprintf(top, sizeof top, "/tmp/onefd-fuse.XXXXXX");
	return mkdtemp(top) ? NULL : "no directory to mount in";
}

static inline int run_and_clean_up(Suite *suite)
{
	int status = run_suite(suite);

	(void)rmdir(top);
	return status;
}

#endif
