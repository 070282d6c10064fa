/*
 * test_slow.c - a loop beside a disk that takes 100 ms for each request, or
 * has stopped: a 1 ms heartbeat in the same loop is never more than 5 ms late,
 * and nothing is lost. slow_device.sh runs it, once for each file system.
 */
#include "files.h"
#include "heart.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define BLOCK 4096
#define COUNT 16
#define DATA_BLOCKS 256
#define EXTENTS 3000
#define LARGE (2 << 20)
#define LARGE_COUNT 8

static const char *dir;

/* ---- files, made while the device is fast --------------------------------- */

static int open_there(const char *name, int flags)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return (int)must_libc(open(path, flags | O_CLOEXEC, 0600));
}

static void write_blocks(const char *name, int count, int stride)
{
	int fd = open_there(name, O_WRONLY | O_CREAT);
	char block[BLOCK];

	for (int i = 0; i < count; i++) {
		off_t at = (off_t)i * stride * BLOCK;

		fill(block, BLOCK, at);
		must_libc(pwrite(fd, block, BLOCK, at));
	}
	must_libc(fsync(fd));
	close(fd);
}

/* Runs outside of any test. */
static int prepare(void)
{
	write_blocks("data", DATA_BLOCKS, 1);
	write_blocks("cold", DATA_BLOCKS, 1);
	write_blocks("large", LARGE / BLOCK * LARGE_COUNT, 1);
	write_blocks("append", 0, 1);
	write_blocks("fragmented", EXTENTS, 2);
	return EXIT_SUCCESS;
}

/* ---- one job of 16 requests beside the heart ---------------------------------- */

static void set_up(void)
{
	dir = getenv("ONEFD_SLOW_DIR");
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
}

static void forget_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "3", 1) != 1)
		printf("# caches are kept here, metadata may be warm\n");
	if (fd >= 0)
		close(fd);
}

static bool all_done(const struct job *jobs, int count)
{
	for (int i = 0; i < count; i++)
		if (!jobs[i].calls)
			return false;
	return true;
}

/* Prepares the @i-th of the jobs. */
typedef void prep_fn(struct job *job, struct onefd_file *file, int i);

static void prep_read(struct job *job, struct onefd_file *file, int i)
{
	onefd_prep_pread(&job->req, file, job->buf, BLOCK, i * BLOCK);
}

/* Over the whole file, so that each stands under a metadata block of its own. */
static void prep_scattered_read(struct job *job, struct onefd_file *file, int i)
{
	off_t at = (off_t)i * (EXTENTS / COUNT) * 2 * BLOCK;

	onefd_prep_pread(&job->req, file, job->buf, BLOCK, at);
}

static void prep_write(struct job *job, struct onefd_file *file, int i)
{
	fill(job->buf, BLOCK, i * BLOCK);
	onefd_prep_pwrite(&job->req, file, job->buf, BLOCK, i * BLOCK);
}

static void check_job(const struct job *job)
{
	ck_assert_int_eq(job->calls, 1);
	ck_assert_int_eq(job->res, BLOCK);
	check_bytes(job->buf, BLOCK, job->req.offset);
}

static void beat_beside(const char *what, const char *name, int flags, prep_fn *prep)
{
	int fd = open_there(name, flags);
	struct job *jobs = make_jobs(COUNT, BLOCK);
	struct onefd_file file;
	struct heart heart;

	heart_start(&heart);
	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < COUNT; i++) {
		prep(&jobs[i], &file, i);
		job_submit(loop, &jobs[i]);
	}
	while (!all_done(jobs, COUNT))
		must(onefd_dispatch(loop, -1));
	heart_stop(&heart, getenv("ONEFD_SLOW_FS"), what);
	for (int i = 0; i < COUNT; i++)
		check_job(&jobs[i]);
	free_jobs(jobs, COUNT);
	close(fd);
}

START_TEST(direct_reads_of_cold_metadata)
{
	forget_caches();
	beat_beside("direct reads", "fragmented", O_RDONLY | O_DIRECT, prep_scattered_read);
}
END_TEST

START_TEST(buffered_reads_of_cold_metadata)
{
	forget_caches();
	beat_beside("buffered reads", "cold", O_RDONLY, prep_read);
}
END_TEST

/* Each is many requests to the disk: its windows follow one another. */
START_TEST(large_buffered_reads)
{
	struct job *jobs = make_jobs(LARGE_COUNT, LARGE);
	int fd = open_there("large", O_RDONLY);
	struct onefd_file file;
	struct heart heart;

	forget_caches();
	heart_start(&heart);
	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < LARGE_COUNT; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, LARGE, i * LARGE);
		job_submit(loop, &jobs[i]);
	}
	while (!all_done(jobs, LARGE_COUNT))
		must(onefd_dispatch(loop, -1));
	heart_stop(&heart, getenv("ONEFD_SLOW_FS"), "large buffered reads");
	for (int i = 0; i < LARGE_COUNT; i++) {
		ck_assert_int_eq(jobs[i].res, LARGE);
		check_bytes(jobs[i].buf, LARGE, i * LARGE);
	}
	free_jobs(jobs, LARGE_COUNT);
	close(fd);
}
END_TEST

START_TEST(direct_writes)
{
	forget_caches();
	beat_beside("direct writes", "data", O_RDWR | O_DIRECT, prep_write);
}
END_TEST

START_TEST(direct_appends)
{
	beat_beside("direct appends", "append", O_RDWR | O_DIRECT, prep_write);
}
END_TEST

START_TEST(buffered_writes)
{
	forget_caches();
	beat_beside("buffered writes", "cold", O_RDWR, prep_write);
}
END_TEST

/* ---- opening, asking, syncing ---------------------------------------------------- */

START_TEST(names_and_syncs)
{
	char path[PATH_MAX];
	struct job *jobs = make_jobs(3, sizeof(struct statx));
	struct onefd_file file;
	struct heart heart;
	int fd = open_there("data", O_RDWR);

	forget_caches();
	snprintf(path, sizeof path, "%s/fragmented", dir);
	heart_start(&heart);
	must(onefd_file_init(loop, &file, fd));
	onefd_prep_openat(&jobs[0].req, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	onefd_prep_statx(&jobs[1].req, AT_FDCWD, path, 0, STATX_SIZE, jobs[1].buf);
	onefd_prep_fsync(&jobs[2].req, &file, 0);
	for (int i = 0; i < 3; i++)
		job_submit(loop, &jobs[i]);
	while (!all_done(jobs, 3))
		must(onefd_dispatch(loop, -1));
	heart_stop(&heart, getenv("ONEFD_SLOW_FS"), "open, statx, fsync");
	must_libc(close((int)jobs[0].res));
	ck_assert_int_eq(jobs[1].res, 0);
	ck_assert_int_eq(jobs[2].res, 0);
	free_jobs(jobs, 3);
	close(fd);
}
END_TEST

/* ---- a device that stops ---------------------------------------------------------- */

/* Starts it again in two seconds, whatever becomes of the test: a process with
 * requests in a stopped device could not even be killed. */
static pid_t stop_device(void)
{
	pid_t device = (pid_t)strtol(getenv("ONEFD_SLOW_PID"), NULL, 10);
	pid_t pid;

	must_libc(kill(device, SIGSTOP));
	pid = fork();
	if (pid == 0) {
		sleep(2);
		_exit(kill(device, SIGCONT) < 0);
	}
	if (pid < 0)
		kill(device, SIGCONT);
	return pid;
}

static void device_goes_on(struct onefd_child *child, int code, int status)
{
	ck_assert_int_eq(code, CLD_EXITED);
	ck_assert_int_eq(status, 0);
	*(bool *)child->data = true;
}

START_TEST(stopped_device)
{
	int fds[2] = { open_there("data", O_RDWR | O_DIRECT), open_there("cold", O_RDONLY) };
	struct job *jobs = make_jobs(3 * COUNT, BLOCK);
	struct onefd_file files[2];
	struct onefd_child child;
	struct heart heart;
	bool goes_on = false;

	must_libc(posix_fadvise(fds[1], 0, 0, POSIX_FADV_DONTNEED));
	onefd_child_init(&child, stop_device(), device_goes_on);
	child.data = &goes_on;
	must(onefd_child_start(loop, &child));
	heart_start(&heart);
	for (int i = 0; i < 2; i++)
		must(onefd_file_init(loop, &files[i], fds[i]));
	for (int i = 0; i < 3 * COUNT; i++) {
		if (i < COUNT)
			prep_write(&jobs[i], &files[0], i);
		else
			prep_read(&jobs[i], &files[i >= 2 * COUNT], i);
		job_submit(loop, &jobs[i]);
	}
	while (!goes_on)
		must(onefd_dispatch(loop, -1));
	ck_assert_uint_gt(heart.beats, 100);
	while (!all_done(jobs, 3 * COUNT))
		must(onefd_dispatch(loop, -1));
	heart_stop(&heart, getenv("ONEFD_SLOW_FS"), "stopped for 2 s");
	for (int i = 0; i < 3 * COUNT; i++)
		check_job(&jobs[i]);
	check_file(fds[0], DATA_BLOCKS * BLOCK);
	free_jobs(jobs, 3 * COUNT);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

/* What the kernel has in memory is opened and asked without the device. */
START_TEST(names_beside_a_stopped_device)
{
	char path[PATH_MAX];
	struct job *jobs = make_jobs(2, sizeof(struct statx));
	struct onefd_child child;
	struct heart heart;
	bool goes_on = false;
	uint64_t beats;

	snprintf(path, sizeof path, "%s/data", dir);
	for (int i = 0; i < 2; i++) {
		onefd_prep_openat(&jobs[0].req, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
		must_libc(close((int)job_run(loop, &jobs[0])));
	}
	onefd_child_init(&child, stop_device(), device_goes_on);
	child.data = &goes_on;
	must(onefd_child_start(loop, &child));
	heart_start(&heart);
	onefd_prep_openat(&jobs[0].req, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	onefd_prep_statx(&jobs[1].req, AT_FDCWD, path, 0, STATX_BASIC_STATS, jobs[1].buf);
	for (int i = 0; i < 2; i++)
		job_submit(loop, &jobs[i]);
	while (!all_done(jobs, 2))
		must(onefd_dispatch(loop, -1));
	ck_assert(!goes_on);
	ck_assert_int_eq(jobs[1].res, 0);
	must_libc(close((int)jobs[0].res));
	beats = heart.beats;
	while (!goes_on)
		must(onefd_dispatch(loop, -1));
	ck_assert_uint_gt(heart.beats - beats, 100);
	heart_stop(&heart, getenv("ONEFD_SLOW_FS"), "names");
	free_jobs(jobs, 2);
}
END_TEST

/* Pages in memory are written again and again, as often as that is done: on the
 * loop's thread where the file system takes it, else by workers, which may wait. */
START_TEST(writes_beside_a_stopped_device)
{
	int fd = open_there("data", O_RDWR);
	struct job *jobs = make_jobs(COUNT, BLOCK);
	struct onefd_stats stats;
	struct onefd_file file;
	struct onefd_child child;
	struct heart heart;
	bool goes_on = false;

	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < COUNT; i++) {
		prep_write(&jobs[i], &file, i);
		ck_assert_int_eq(job_run(loop, &jobs[i]), BLOCK);
	}
	onefd_child_init(&child, stop_device(), device_goes_on);
	child.data = &goes_on;
	must(onefd_child_start(loop, &child));
	heart_start(&heart);
	while (!goes_on) {
		for (int i = 0; i < COUNT; i++)
			if (jobs[i].calls)
				job_submit(loop, &jobs[i]);
		must(onefd_dispatch(loop, -1));
	}
	ck_assert_uint_gt(heart.beats, 100);
	while (!all_done(jobs, COUNT))
		must(onefd_dispatch(loop, -1));
	heart_stop(&heart, getenv("ONEFD_SLOW_FS"), "writes, stopped for 2 s");
	must(onefd_stats(loop, &stats, sizeof stats));
	printf("# %" PRIu64 " writes, %" PRIu64 " by the loop\n", stats.writes, stats.hits);
	if (strcmp(getenv("ONEFD_SLOW_FS"), "xfs") == 0)
		ck_assert_uint_gt(stats.hits, 0);
	for (int i = 0; i < COUNT; i++)
		check_job(&jobs[i]);
	free_jobs(jobs, COUNT);
	close(fd);
}
END_TEST

/* ---- a device that fails ------------------------------------------------------------ */

/* Reads only: a file system that cannot write its journal shuts itself down. */
START_TEST(failing_device)
{
	int fd = open_there("data", O_RDONLY | O_DIRECT);
	int marker = open(getenv("ONEFD_SLOW_ERROR"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	struct job *jobs = make_jobs(COUNT, BLOCK);
	struct onefd_file file;

	ck_assert_int_ge(marker, 0);
	close(marker);
	must(onefd_file_init(loop, &file, fd));
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < COUNT; i++) {
			prep_read(&jobs[i], &file, DATA_BLOCKS - COUNT + i);
			job_submit(loop, &jobs[i]);
		}
		drain_jobs(loop, jobs, COUNT);
		for (int i = 0; i < COUNT; i++)
			ck_assert_int_eq(jobs[i].res, pass == 0 ? -EIO : BLOCK);
		if (pass == 0)
			must_libc(unlink(getenv("ONEFD_SLOW_ERROR")));
	}
	for (int i = 0; i < COUNT; i++)
		check_job(&jobs[i]);
	free_jobs(jobs, COUNT);
	close(fd);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *suite;
	TCase *tcase;

	if (argc == 3 && strcmp(argv[1], "prepare") == 0) {
		dir = argv[2];
		return prepare();
	}
	if (!getenv("ONEFD_SLOW_DIR"))
		return skip_all("it is for slow_device.sh to run");
	suite = suite_create("slow");
	tcase = add_case(suite, "slow", set_up, tear_down);
	tcase_add_test(tcase, direct_reads_of_cold_metadata);
	tcase_add_test(tcase, buffered_reads_of_cold_metadata);
	tcase_add_test(tcase, large_buffered_reads);
	tcase_add_test(tcase, direct_writes);
	tcase_add_test(tcase, direct_appends);
	tcase_add_test(tcase, buffered_writes);
	tcase_add_test(tcase, names_and_syncs);
	tcase_add_test(tcase, stopped_device);
	tcase_add_test(tcase, names_beside_a_stopped_device);
	tcase_add_test(tcase, writes_beside_a_stopped_device);
	tcase_add_test(tcase, failing_device);
	return run_suite(suite);
}
