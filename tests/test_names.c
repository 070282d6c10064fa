/* test_names.c - names answered from the dentry cache, without a thread. */
#include "files.h"

#include <errno.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "../lib/sys.h"

#define SIZE 5000

static struct onefd *loop;
static struct sys_calls real;
static struct place place;
static int asked;		/* calls of what a test has replaced */

static void set_up(void)
{
	asked = 0;
	real = sys;
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
	/* What tests replace; a thread that destroys a context reads others. */
	sys.openat2 = real.openat2;
	sys.statx = real.statx;
	sys.read_text = real.read_text;
	sys.now = real.now;
}

static uint64_t answered(void)
{
	struct onefd_stats stats;

	must(onefd_stats(loop, &stats, sizeof stats));
	return stats.names;
}

/* Whether names can be answered here at all: a file system that is known to be
 * local, a kernel that has what it takes, and no filter in the way. */
static bool is_local(const char *fs)
{
	struct statx st;
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_CACHED };
	int fd = sys.openat2(AT_FDCWD, "/", &how);

	if (fd < 0)
		return false;
	close(fd);
	if (statx(AT_FDCWD, "/", 0, 0x4000 /* STATX_MNT_ID_UNIQUE */, &st) < 0 ||
	    !(st.stx_mask & 0x4000))
		return false;
	return !strcmp(fs, "ext4") || !strcmp(fs, "xfs") || !strcmp(fs, "btrfs") ||
	       !strcmp(fs, "tmpfs");
}

static void path_of(char *path, const char *name)
{
	snprintf(path, PATH_MAX, "%.4000s/onefd-names.%d.%s", place.path, getpid(), name);
}

static void make_named(int index, char *path)
{
	char bytes[SIZE];
	int fd;

	place = place_of(index);
	path_of(path, "file");
	fd = (int)must_libc(open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
	fill(bytes, SIZE, 0);
	ck_assert_int_eq(pwrite(fd, bytes, SIZE, 0), SIZE);
	must_libc(close(fd));
}

static int open_by(const char *path, int flags)
{
	struct job job = { 0 };

	onefd_prep_openat(&job.req, AT_FDCWD, path, flags, 0600);
	return (int)job_run(loop, &job);
}

/* The loop knows the mount once a worker has opened a file there. */
static void learn(const char *path)
{
	must_libc(close(open_by(path, O_RDONLY | O_CLOEXEC)));
}

START_TEST(cached_name_opens_without_a_thread)
{
	char path[PATH_MAX];
	uint64_t before;
	int fd;

	make_named(_i, path);
	learn(path);
	before = answered();
	fd = open_by(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	if (is_local(place.fs))
		ck_assert_uint_eq(answered() - before, 1);
	check_file(fd, SIZE);
	close(fd);
	unlink(path);
}
END_TEST

/* As the caller asked, and no O_NONBLOCK, which was ours. */
START_TEST(descriptor_is_as_if_opened_by_open)
{
	static const int flags[] = { O_RDONLY, O_RDONLY | O_CLOEXEC, O_RDONLY | O_NONBLOCK,
				     O_RDONLY | O_APPEND | O_NOATIME, O_RDONLY | O_NOFOLLOW };
	char path[PATH_MAX];

	make_named(_i, path);
	learn(path);
	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
		int ours = open_by(path, flags[i]);
		int plain = (int)must_libc(open(path, flags[i]));

		ck_assert_int_ge(ours, 0);
		ck_assert_int_eq(fcntl(ours, F_GETFL), fcntl(plain, F_GETFL));
		ck_assert_int_eq(fcntl(ours, F_GETFD), fcntl(plain, F_GETFD));
		close(ours);
		close(plain);
	}
	unlink(path);
}
END_TEST

static void compare(int dirfd, const char *path, int flags)
{
	struct job job = { 0 };
	struct statx ours = { 0 }, plain = { 0 };
	ssize_t expected;

	onefd_prep_statx(&job.req, dirfd, path, flags, STATX_BASIC_STATS, &ours);
	job_run(loop, &job);
	expected = statx(dirfd, path, flags, STATX_BASIC_STATS, &plain) < 0 ? -errno : 0;
	ck_assert_int_eq(job.res, expected);
	ck_assert_mem_eq(&ours, &plain, sizeof ours);
}

START_TEST(statx_is_the_kernels_own)
{
	static const int flags[] = { 0, AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT,
				     AT_STATX_DONT_SYNC, AT_STATX_FORCE_SYNC, AT_EMPTY_PATH, 1 };
	char path[PATH_MAX], link[PATH_MAX];
	uint64_t before;
	int fd;

	make_named(_i, path);
	path_of(link, "link");
	must_libc(symlink(path, link));
	fd = (int)must_libc(open(path, O_RDONLY | O_CLOEXEC));
	for (int pass = 0; pass < 2; pass++) {
		before = answered();
		for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
			compare(AT_FDCWD, path, flags[i]);
			compare(AT_FDCWD, link, flags[i]);
			compare(fd, "", flags[i]);
		}
	}
	/* All but the forced, the nonsense, and "" without AT_EMPTY_PATH where no
	 * negative dentry is kept. */
	if (is_local(place.fs))
		ck_assert_uint_ge(answered() - before, 11);
	close(fd);
	unlink(link);
	unlink(path);
}
END_TEST

/* Somebody has looked before: the kernel remembers that there is nothing. */
START_TEST(missing_name_is_known_to_be_missing)
{
	char path[PATH_MAX];
	uint64_t before;

	place = place_of(_i);
	path_of(path, "missing");
	ck_assert_int_eq(open_by(path, O_RDONLY), -ENOENT);
	before = answered();
	ck_assert_int_eq(open_by(path, O_RDONLY), -ENOENT);
	/* tmpfs keeps none: there, to look is as cheap. */
	if (is_local(place.fs) && strcmp(place.fs, "tmpfs"))
		ck_assert_uint_eq(answered() - before, 1);
	make_named(_i, path);
	ck_assert_int_ge(open_by(path, O_RDONLY), 0);
	unlink(path);
}
END_TEST

/* Whatever may make, cut, write or wait is a worker's. */
START_TEST(others_go_to_a_worker)
{
	static const int flags[] = { O_RDWR, O_WRONLY, O_RDONLY | O_CREAT, O_RDONLY | O_TRUNC };
	char path[PATH_MAX];
	uint64_t before;
	int fd;

	make_named(_i, path);
	learn(path);
	before = answered();
	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
		fd = open_by(path, flags[i]);
		ck_assert_int_ge(fd, 0);
		close(fd);
	}
	/* btrfs reads in what a directory needs when it is opened. */
	fd = open_by(place.path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	close(fd);
	fd = open_by("/dev/null", O_RDONLY);
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_uint_eq(answered(), before);
	unlink(path);
}
END_TEST

/* ---- descriptors that stand for a place ------------------------------------- */

/* What openat(2) makes of it, by a request: flags of the descriptor, or -errno. */
static int how_opened(int dirfd, const char *path, int flags)
{
	struct job job = { 0 };
	int fd, r;

	onefd_prep_openat(&job.req, dirfd, path, flags, 0600);
	fd = (int)job_run(loop, &job);
	if (fd < 0)
		return fd;
	r = (int)must_libc(fcntl(fd, F_GETFL));
	ck_assert_int_eq(must_libc(fcntl(fd, F_GETFD)), flags & O_CLOEXEC ? FD_CLOEXEC : 0);
	close(fd);
	return r;
}

static int how_plainly_opened(int dirfd, const char *path, int flags)
{
	int fd = openat(dirfd, path, flags, 0600), r = fd < 0 ? -errno : fcntl(fd, F_GETFL);

	if (fd >= 0)
		close(fd);
	return r;
}

/* Of any kind, in any file system, from the first time on. */
START_TEST(path_alone_opens_without_a_thread)
{
	static const int flags[] = { 0, O_CLOEXEC, O_NOFOLLOW | O_CLOEXEC, O_DIRECTORY,
				     O_DIRECTORY | O_NOFOLLOW, O_RDWR | O_CREAT | O_TRUNC };
	char path[PATH_MAX], link[PATH_MAX];
	const char *names[] = { path, link, place.path, "/dev/null" };
	uint64_t before = answered();

	make_named(_i, path);
	path_of(link, "link");
	must_libc(symlink(path, link));
	(void)how_plainly_opened(AT_FDCWD, link, O_PATH);
	for (int i = 0; i < 4 * 6; i++)
		ck_assert_int_eq(how_opened(AT_FDCWD, names[i % 4], O_PATH | flags[i / 4]),
				 how_plainly_opened(AT_FDCWD, names[i % 4], O_PATH | flags[i / 4]));
	/* XFS leaves to a worker the four that follow the link. */
	if (is_local(place.fs))
		ck_assert_uint_ge(answered() - before, 4 * 5);
	unlink(link);
	unlink(path);
}
END_TEST

/* What openat2(2) makes of it, and by a request: flags of the descriptor, or -errno. */
static int how_opened2(int dirfd, const char *path, const struct open_how *how, bool plainly)
{
	struct job job = { 0 };
	int fd, r;

	onefd_prep_openat2(&job.req, dirfd, path, how);
	fd = plainly ? real.openat2(dirfd, path, how) : (int)job_run(loop, &job);
	if (fd < 0)
		return fd;
	r = (int)must_libc(fcntl(fd, F_GETFL));
	close(fd);
	return r;
}

/* Below the place: file, link (to it), up (..), and what is not there. */
START_TEST(openat2_keeps_the_path_where_it_is_told)
{
	static const char *const names[] = { "file", "link", "up/file", "./file", "../etc", "/etc",
					     "none", "", "file/none", "." };
	static const uint64_t ways[] = { 0, RESOLVE_BENEATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
					 RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT, UINT64_C(1) << 40 };
	static const uint64_t flags[] = { O_RDONLY | O_CLOEXEC, O_RDONLY | O_NONBLOCK, O_PATH, O_RDWR,
					  O_PATH | O_DIRECTORY, O_RDONLY | UINT64_C(1) << 40,
					  O_PATH | O_TRUNC };
	char dir[PATH_MAX], path[PATH_MAX + 8];
	int root;

	make_named(_i, path);
	learn(path);
	unlink(path);
	path_of(dir, "dir");
	must_libc(mkdir(dir, 0700));
	root = (int)must_libc(open(dir, O_PATH | O_CLOEXEC));
	close((int)must_libc(openat(root, "file", O_CREAT | O_RDWR | O_CLOEXEC, 0600)));
	must_libc(symlinkat("file", root, "link"));
	must_libc(symlinkat("..", root, "up"));
	for (int i = 0; i < 10 * 6 * 7; i++) {
		struct open_how how = { .flags = flags[i / 60], .resolve = ways[i / 10 % 6] };

		ck_assert_int_eq(how_opened2(root, names[i % 10], &how, false),
				 how_opened2(root, names[i % 10], &how, true));
	}
	for (size_t i = 0; i < 3; i++)
		must_libc(unlinkat(root, ((const char *[]){ "file", "link", "up" })[i], 0));
	close(root);
	must_libc(rmdir(dir));
}
END_TEST

START_TEST(openat2_of_a_cached_name_takes_no_thread)
{
	const struct open_how how = { .flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };
	const struct open_how wrong = { .resolve = UINT64_C(1) << 40 };
	char path[PATH_MAX];
	uint64_t before;

	make_named(_i, path);
	learn(path);
	/* What the kernel says of this one says nothing about the kernel. */
	ck_assert_int_eq(how_opened2(AT_FDCWD, path, &wrong, false), -EINVAL);
	before = answered();
	ck_assert_int_eq(how_opened2(AT_FDCWD, path, &how, false),
			 how_opened2(AT_FDCWD, path, &how, true));
	if (is_local(place.fs))
		ck_assert_uint_eq(answered() - before, 1);
	unlink(path);
}
END_TEST

/* A new file is a worker's, mode and all. */
START_TEST(openat2_creates_and_wants_a_how)
{
	const struct open_how how = { .flags = O_CREAT | O_EXCL | O_RDWR, .mode = 0640 };
	struct job job = { 0 };
	char path[PATH_MAX];
	struct stat st;

	place = place_of(_i);
	path_of(path, "new");
	ck_assert_int_eq(how_opened2(AT_FDCWD, path, &how, false) & O_ACCMODE, O_RDWR);
	must_libc(stat(path, &st));
	ck_assert_uint_eq(st.st_mode & 0777, 0640);
	ck_assert_int_eq(how_opened2(AT_FDCWD, path, &how, false), -EEXIST);
	onefd_prep_openat2(&job.req, AT_FDCWD, path, NULL);
	ck_assert_int_eq(onefd_submit(loop, &job.req, job_done), -EINVAL);
	unlink(path);
}
END_TEST

static int forbidden(int dirfd, const char *path, const struct open_how *how)
{
	(void)dirfd;
	(void)path;
	(void)how;
	asked++;
	return -EPERM;
}

static int cold(int dirfd, const char *path, const struct open_how *how)
{
	(void)forbidden(dirfd, path, how);
	return -EAGAIN;
}

START_TEST(cold_path_is_looked_up_by_a_worker)
{
	char path[PATH_MAX];

	make_named(_i, path);
	sys.openat2 = cold;
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(how_opened(AT_FDCWD, path, O_PATH),
				 how_plainly_opened(AT_FDCWD, path, O_PATH));
	ck_assert_int_eq(asked, 3);
	ck_assert_uint_eq(answered(), 0);
	unlink(path);
}
END_TEST

/* For reading, without a thread; by a worker otherwise. O_NOFOLLOW is of the path,
 * and there is none. */
START_TEST(empty_path_opens_the_file_anew)
{
	static const int flags[] = { O_RDONLY | O_CLOEXEC, O_RDONLY | O_NONBLOCK, O_RDONLY | O_NOFOLLOW,
				     O_RDWR, O_WRONLY | O_APPEND, O_PATH };
	char path[PATH_MAX];
	uint64_t before;
	int place_fd;

	make_named(_i, path);
	learn(path);
	place_fd = (int)must_libc(open(path, O_PATH | O_CLOEXEC));
	before = answered();
	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
		ck_assert_int_eq(how_opened(place_fd, "", flags[i]),
				 how_plainly_opened(AT_FDCWD, path, flags[i] & ~O_NOFOLLOW));
	if (is_local(place.fs))
		ck_assert_uint_eq(answered() - before, 3);
	/* The file, whatever has become of its name. */
	must_libc(unlink(path));
	ck_assert_int_eq(how_opened(place_fd, "", O_RDONLY) & O_ACCMODE, O_RDONLY);
	close(place_fd);
}
END_TEST

START_TEST(empty_path_is_refused_as_its_file_would_be)
{
	char path[PATH_MAX], link[PATH_MAX];
	int file, dir, symbolic;

	make_named(_i, path);
	path_of(link, "link");
	must_libc(symlink(path, link));
	file = (int)must_libc(open(path, O_PATH | O_CLOEXEC));
	dir = (int)must_libc(open(place.path, O_PATH | O_CLOEXEC));
	symbolic = (int)must_libc(open(link, O_PATH | O_NOFOLLOW | O_CLOEXEC));
	ck_assert_int_eq(how_opened(file, "", O_RDONLY | O_DIRECTORY), -ENOTDIR);
	ck_assert_int_eq(how_opened(dir, "", O_RDWR), -EISDIR);
	ck_assert_int_ge(how_opened(dir, "", O_RDONLY | O_DIRECTORY), 0);
	ck_assert_int_eq(how_opened(symbolic, "", O_RDONLY), -ELOOP);
	ck_assert_int_eq(how_opened(AT_FDCWD, "", O_RDONLY), -ENOENT);
	close(symbolic);
	close(dir);
	ck_assert_int_eq(how_opened(dir, "", O_RDONLY), -ENOENT);
	close(file);
	unlink(link);
	unlink(path);
}
END_TEST

START_TEST(empty_path_needs_proc)
{
	char path[PATH_MAX];
	int file;

	make_named(0, path);
	file = (int)must_libc(open(path, O_PATH | O_CLOEXEC));
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0)
		skip("mounting needs root");
	must_libc(mount("onefd-tests", "/proc", "tmpfs", 0, NULL));
	ck_assert_int_eq(how_opened(file, "", O_RDONLY), -ENOENT);
	ck_assert_int_ge(how_opened(AT_FDCWD, path, O_PATH), 0);
	must_libc(umount("/proc"));
	close(file);
	unlink(path);
}
END_TEST

/* ---- what waits for somebody else ------------------------------------------- */

static void note_time(struct onefd_timer *timer)
{
	*(bool *)timer->data = true;
}

/* The loop turns: a timer that is due runs. */
static void check_that_it_turns(void)
{
	struct onefd_timer timer;
	bool ran = false;

	onefd_timer_init(&timer, note_time);
	timer.data = &ran;
	onefd_timer_start(loop, &timer, onefd_now(loop) + 1000000);
	while (!ran)
		must(onefd_dispatch(loop, -1));
}

START_TEST(fifo_waits_for_its_peer_in_a_worker)
{
	char path[PATH_MAX], fifo[PATH_MAX];
	struct job job = { 0 };
	int peer;

	make_named(_i, path);
	learn(path);
	path_of(fifo, "fifo");
	must_libc(mkfifo(fifo, 0600));
	onefd_prep_openat(&job.req, AT_FDCWD, fifo, O_RDONLY | O_CLOEXEC, 0);
	job_submit(loop, &job);
	check_that_it_turns();
	ck_assert_int_eq(job.calls, 0);
	/* Waits in turn until the worker has it open. */
	peer = (int)must_libc(open(fifo, O_WRONLY | O_CLOEXEC));
	drain_jobs(loop, &job, 1);
	ck_assert_int_ge(job.res, 0);
	close((int)job.res);
	close(peer);
	unlink(fifo);
	unlink(path);
}
END_TEST

/* An open breaks the lease and waits until its holder has given way. */
START_TEST(lease_is_waited_for_in_a_worker)
{
	char path[PATH_MAX];
	struct job job = { 0 };
	sigset_t set;
	int fd, signo;

	make_named(_i, path);
	learn(path);
	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = (int)must_libc(open(path, O_RDWR | O_CLOEXEC));
	if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0) {
		close(fd);
		unlink(path);
		skip("no leases here");
	}
	onefd_prep_openat(&job.req, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	job_submit(loop, &job);
	check_that_it_turns();
	sigwait(&set, &signo);
	ck_assert_int_eq(job.calls, 0);
	must_libc(fcntl(fd, F_SETLEASE, F_UNLCK));
	drain_jobs(loop, &job, 1);
	ck_assert_int_ge(job.res, 0);
	close((int)job.res);
	close(fd);
	unlink(path);
}
END_TEST

/* ---- what is not known --------------------------------------------------------- */

static int count_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *buf)
{
	ck_assert(flags & AT_STATX_DONT_SYNC);
	ck_assert_uint_eq(mask & STATX_BASIC_STATS & ~STATX_TYPE, 0);
	asked++;
	return real.statx(dirfd, path, flags, mask, buf);
}

static int text_of_nothing(const char *path, char *buf, size_t size)
{
	(void)path;
	(void)buf;
	(void)size;
	return -ENOENT;
}

/* A mount that nobody can name, as a network's is none of ours: of an object
 * there no more is asked than its kind and its mount, and no server for that. */
START_TEST(unknown_mount_is_left_to_workers)
{
	char path[PATH_MAX];

	make_named(_i, path);
	sys.read_text = text_of_nothing;
	learn(path);
	sys.statx = count_statx;
	for (int i = 0; i < 3; i++)
		learn(path);
	ck_assert_uint_eq(answered(), 0);
	if (is_local(place.fs))
		ck_assert_int_eq(asked, 3);
	unlink(path);
}
END_TEST

static void expect(const char *path, uint64_t count)
{
	uint64_t before = answered();

	learn(path);
	ck_assert_uint_eq(answered() - before, count);
}

/* The same directory, device number and type: but another mount. Its first open
 * may write to a journal, so to have been asked is not enough. */
START_TEST(next_mount_is_another)
{
	char dir[PATH_MAX], path[PATH_MAX + 16];

	place = place_of(0);
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0)
		skip("mounting needs root");
	if (!is_local("tmpfs"))
		skip("names are not answered on this kernel");
	path_of(dir, "mount");
	must_libc(mkdir(dir, 0700));
	snprintf(path, sizeof path, "%s/file", dir);
	for (int i = 0; i < 2; i++) {
		must_libc(mount("onefd-tests", dir, "tmpfs", 0, NULL));
		must_libc(close(open(path, O_CREAT | O_WRONLY, 0600)));
		compare(AT_FDCWD, path, 0);
		expect(path, 0);
		expect(path, 1);
		must_libc(umount(dir));
	}
	rmdir(dir);
}
END_TEST

static uint64_t millisecond_later(void)
{
	static uint64_t now;

	return now += 1000000;
}

/* The time that a turn gives to names is not for those that none is spent on. */
START_TEST(workers_get_all_names_in_one_turn)
{
	struct onefd_config config = { .flags = ONEFD_NO_PROC };
	struct onefd *usual = loop;
	struct job *jobs = make_jobs(3, sizeof(struct statx));

	must(onefd_new(&loop, &config));
	for (int i = 0; i < 3; i++) {
		onefd_prep_statx(&jobs[i].req, AT_FDCWD, "/", 0, STATX_TYPE, jobs[i].buf);
		job_submit(loop, &jobs[i]);
	}
	sys.now = millisecond_later;
	ck_assert_int_eq(onefd_flush(loop), 3);
	sys.now = real.now;
	drain_jobs(loop, jobs, 3);
	free_jobs(jobs, 3);
	must(onefd_free(loop));
	loop = usual;
}
END_TEST

/* Docker's and systemd's filters can say so on any kernel. */
static int unknown(int dirfd, const char *path, const struct open_how *how)
{
	(void)forbidden(dirfd, path, how);
	return -ENOSYS;
}

START_TEST(filter_is_asked_once)
{
	char path[PATH_MAX], *text;

	make_named(0, path);
	sys.openat2 = _i ? unknown : forbidden;
	for (int i = 0; i < 3; i++)
		learn(path);
	ck_assert_int_eq(asked, 1);
	ck_assert_uint_eq(answered(), 0);
	text = describe(loop);
	ck_assert_ptr_nonnull(strstr(text, "names: by workers, for openat2"));
	free(text);
	unlink(path);
}
END_TEST

static int no_descriptor(int dirfd, const char *path, const struct open_how *how)
{
	return how->flags & O_PATH ? -EMFILE : real.openat2(dirfd, path, how);
}

/* The look-up takes a descriptor more than the caller asked for. */
START_TEST(last_descriptor_is_the_callers)
{
	char path[PATH_MAX];

	make_named(0, path);
	learn(path);
	sys.openat2 = no_descriptor;
	learn(path);
	unlink(path);
}
END_TEST

/* ---- many -------------------------------------------------------------------------- */

#define TICK 50000

static uint64_t ticks;

static uint64_t slow_clock(void)
{
	return ticks += TICK;
}

/* What is over a flush's time waits for the next, and gets there. */
START_TEST(flush_takes_no_more_than_its_time)
{
	enum { COUNT = 100 };
	struct job *jobs = make_jobs(COUNT, sizeof(struct statx));
	char path[PATH_MAX];
	uint64_t before, began;

	make_named(0, path);
	learn(path);
	learn(path);
	before = answered();
	if (!before)
		skip("names are not answered here");
	ticks = real.now();
	sys.now = slow_clock;
	for (int i = 0; i < COUNT; i++) {
		onefd_prep_statx(&jobs[i].req, AT_FDCWD, path, 0, STATX_SIZE, jobs[i].buf);
		job_submit(loop, &jobs[i]);
	}
	began = ticks;
	must(onefd_flush(loop));
	ck_assert_uint_ge(answered() - before, 1);
	ck_assert_uint_le(answered() - before, 8);
	/* The clock is not read for each of those that wait. */
	ck_assert_uint_le((ticks - began) / TICK, COUNT / 4);
	sys.now = real.now;
	drain_jobs(loop, jobs, COUNT);
	ck_assert_uint_eq(answered() - before, COUNT);
	for (int i = 0; i < COUNT; i++)
		ck_assert_uint_eq(((struct statx *)jobs[i].buf)->stx_size, SIZE);
	free_jobs(jobs, COUNT);
	unlink(path);
}
END_TEST

/* A host's loop is told of those that wait for the next flush. */
START_TEST(names_that_wait_keep_the_descriptor_readable)
{
	enum { COUNT = 100 };
	struct job *jobs = make_jobs(COUNT, sizeof(struct statx));
	struct pollfd host = { .fd = (int)must(onefd_fd(loop)), .events = POLLIN };
	char path[PATH_MAX];

	make_named(0, path);
	learn(path);
	learn(path);
	if (!answered())
		skip("names are not answered here");
	ticks = real.now();
	sys.now = slow_clock;
	for (int i = 0; i < COUNT; i++) {
		onefd_prep_statx(&jobs[i].req, AT_FDCWD, path, 0, STATX_SIZE, jobs[i].buf);
		job_submit(loop, &jobs[i]);
	}
	while (onefd_pending(loop)) {
		ck_assert_int_eq(poll(&host, 1, 2000), 1);
		must(onefd_dispatch(loop, 0));
	}
	for (int i = 0; i < COUNT; i++)
		ck_assert_int_eq(jobs[i].calls, 1);
	sys.now = real.now;
	free_jobs(jobs, COUNT);
	unlink(path);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("names");
	TCase *tcase = add_case(suite, "names", set_up, tear_down);
	int places = place_count();

	tcase_add_loop_test(tcase, cached_name_opens_without_a_thread, 0, places);
	tcase_add_loop_test(tcase, descriptor_is_as_if_opened_by_open, 0, places);
	tcase_add_loop_test(tcase, statx_is_the_kernels_own, 0, places);
	tcase_add_loop_test(tcase, missing_name_is_known_to_be_missing, 0, places);
	tcase_add_loop_test(tcase, others_go_to_a_worker, 0, places);
	tcase_add_loop_test(tcase, path_alone_opens_without_a_thread, 0, places);
	tcase_add_loop_test(tcase, openat2_keeps_the_path_where_it_is_told, 0, places);
	tcase_add_loop_test(tcase, openat2_of_a_cached_name_takes_no_thread, 0, places);
	tcase_add_loop_test(tcase, openat2_creates_and_wants_a_how, 0, places);
	tcase_add_loop_test(tcase, cold_path_is_looked_up_by_a_worker, 0, places);
	tcase_add_loop_test(tcase, empty_path_opens_the_file_anew, 0, places);
	tcase_add_loop_test(tcase, empty_path_is_refused_as_its_file_would_be, 0, places);
	tcase_add_test(tcase, empty_path_needs_proc);
	tcase_add_loop_test(tcase, fifo_waits_for_its_peer_in_a_worker, 0, places);
	tcase_add_loop_test(tcase, lease_is_waited_for_in_a_worker, 0, places);
	tcase_add_loop_test(tcase, unknown_mount_is_left_to_workers, 0, places);
	tcase_add_test(tcase, next_mount_is_another);
	tcase_add_test(tcase, workers_get_all_names_in_one_turn);
	tcase_add_loop_test(tcase, filter_is_asked_once, 0, 2);
	tcase_add_test(tcase, names_that_wait_keep_the_descriptor_readable);
	tcase_add_test(tcase, last_descriptor_is_the_callers);
	tcase_add_test(tcase, flush_takes_no_more_than_its_time);
	return run_suite(suite);
}
