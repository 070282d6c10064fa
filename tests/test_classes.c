/*
 * test_classes.c - what hangs on a device that has stopped delays nothing of
 * another class elsewhere, nor reads and writes of another device. slow_device.sh runs it; elsewhere is the directory it
 * was started in.
 *
 * Each test runs with kernel AIO and with workers alone.
 */
#include "files.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define BLOCK 4096
#define HUNG 8			/* more than a class has workers */

static struct onefd *loop;
static const char *dir;
static struct onefd_child child;
static bool goes_on;

static int open_there(int index, int flags)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/file%d", dir, index);
	return (int)must_libc(open(path, flags | O_CLOEXEC, 0600));
}

/* Runs outside of any test. */
static int prepare(void)
{
	for (int i = 0; i < HUNG; i++)
		close(open_there(i, O_WRONLY | O_CREAT));
	return EXIT_SUCCESS;
}

static void set_up(void)
{
	dir = getenv("ONEFD_SLOW_DIR");
	goes_on = false;
}

static void make(int index)
{
	struct onefd_config config = *test_config();

	config.flags |= index ? ONEFD_NO_KAIO | ONEFD_NO_NOWAIT : 0;
	must(onefd_new(&loop, &config));
}

static void device_goes_on(struct onefd_child *ended, int code, int status)
{
	ck_assert_int_eq(code, CLD_EXITED);
	ck_assert_int_eq(status, 0);
	(void)ended;
	goes_on = true;
}

/* It goes on in two seconds, whatever becomes of the test: a process that waits
 * for a stopped device could not even be killed. */
static void stop_device(void)
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
	onefd_child_init(&child, pid, device_goes_on);
	must(onefd_child_start(loop, &child));
}

static bool forget_names(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, "3", 1) == 1;

	if (fd >= 0)
		close(fd);
	return done;
}

/* ---- elsewhere ------------------------------------------------------------- */

struct elsewhere {
	struct onefd_file file;
	struct job *job;
	int fd;
};

static void elsewhere_begin(struct elsewhere *at)
{
	at->fd = make_file_at(".", BLOCK, O_RDWR);
	at->job = make_jobs(1, BLOCK);
	must(onefd_file_init(loop, &at->file, at->fd));
}

static void elsewhere_end(struct elsewhere *at)
{
	free_jobs(at->job, 1);
	close(at->fd);
}

static void transfers_go_on(struct elsewhere *at)
{
	fill(at->job->buf, BLOCK, 0);
	onefd_prep_pwrite(&at->job->req, &at->file, at->job->buf, BLOCK, 0);
	ck_assert_int_eq(job_run(loop, at->job), BLOCK);
	onefd_prep_pread(&at->job->req, &at->file, at->job->buf, BLOCK, 0);
	ck_assert_int_eq(job_run(loop, at->job), BLOCK);
	ck_assert(!goes_on);
}

static void fsync_goes_on(struct elsewhere *at)
{
	onefd_prep_fsync(&at->job->req, &at->file, 0);
	ck_assert_int_eq(job_run(loop, at->job), 0);
	ck_assert(!goes_on);
}

/* One that makes a file, so that no dentry cache answers it. */
static void open_goes_on(struct elsewhere *at)
{
	char path[] = "onefd-test.open";

	onefd_prep_openat(&at->job->req, AT_FDCWD, path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_ge(job_run(loop, at->job), 0);
	must_libc(close((int)at->job->res));
	unlink(path);
	ck_assert(!goes_on);
}

/* ---- the hung ---------------------------------------------------------------- */

static void check_hung(struct job *jobs)
{
	for (int i = 0; i < HUNG; i++)
		ck_assert_int_eq(jobs[i].calls, 0);
	ck_assert(!goes_on);
	while (!goes_on)
		must(onefd_dispatch(loop, -1));
	drain_jobs(loop, jobs, HUNG);
	must(onefd_free(loop));
}

START_TEST(hung_opens_delay_no_transfer_and_no_fsync)
{
	struct job *jobs = make_jobs(HUNG, 0);
	char paths[HUNG][PATH_MAX];
	struct elsewhere at;

	make(_i);
	elsewhere_begin(&at);
	if (!forget_names())
		ck_abort_msg("caches are kept here");
	/* What is needed elsewhere is there before anything hangs. */
	fsync_goes_on(&at);
	stop_device();
	for (int i = 0; i < HUNG; i++) {
		snprintf(paths[i], PATH_MAX, "%s/file%d", dir, i);
		onefd_prep_openat(&jobs[i].req, AT_FDCWD, paths[i], O_RDONLY | O_CLOEXEC, 0);
		job_submit(loop, &jobs[i]);
	}
	transfers_go_on(&at);
	fsync_goes_on(&at);
	check_hung(jobs);
	for (int i = 0; i < HUNG; i++)
		must_libc(close((int)jobs[i].res));
	free_jobs(jobs, HUNG);
	elsewhere_end(&at);
}
END_TEST

START_TEST(hung_fsyncs_delay_no_transfer_and_no_open)
{
	struct job *jobs = make_jobs(HUNG, 0);
	struct onefd_file files[HUNG];
	struct elsewhere at;
	int fds[HUNG];

	make(_i);
	elsewhere_begin(&at);
	for (int i = 0; i < HUNG; i++) {
		fds[i] = open_there(i, O_WRONLY);
		must(onefd_file_init(loop, &files[i], fds[i]));
		ck_assert_int_eq(pwrite(fds[i], "dirty", 5, 0), 5);
	}
	stop_device();
	for (int i = 0; i < HUNG; i++) {
		onefd_prep_fsync(&jobs[i].req, &files[i], 0);
		job_submit(loop, &jobs[i]);
	}
	transfers_go_on(&at);
	open_goes_on(&at);
	check_hung(jobs);
	for (int i = 0; i < HUNG; i++)
		close(fds[i]);
	free_jobs(jobs, HUNG);
	elsewhere_end(&at);
}
END_TEST

START_TEST(hung_reads_delay_nothing_elsewhere)
{
	struct job *jobs = make_jobs(HUNG, BLOCK);
	struct onefd_file files[HUNG];
	struct elsewhere at;
	int fds[HUNG];

	make(_i);
	elsewhere_begin(&at);
	for (int i = 0; i < HUNG; i++) {
		fds[i] = open_there(i, O_RDWR);
		must(onefd_file_init(loop, &files[i], fds[i]));
		ck_assert_int_eq(pwrite(fds[i], jobs[i].buf, BLOCK, 0), BLOCK);
		must_libc(fsync(fds[i]));
		must_libc(posix_fadvise(fds[i], 0, 0, POSIX_FADV_DONTNEED));
	}
	stop_device();
	for (int i = 0; i < HUNG; i++) {
		onefd_prep_pread(&jobs[i].req, &files[i], jobs[i].buf, BLOCK, 0);
		job_submit(loop, &jobs[i]);
	}
	transfers_go_on(&at);
	open_goes_on(&at);
	fsync_goes_on(&at);
	check_hung(jobs);
	for (int i = 0; i < HUNG; i++)
		close(fds[i]);
	free_jobs(jobs, HUNG);
	elsewhere_end(&at);
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
	suite = suite_create("classes");
	tcase = add_case(suite, "classes", set_up, NULL);
	tcase_add_loop_test(tcase, hung_opens_delay_no_transfer_and_no_fsync, 0, 2);
	tcase_add_loop_test(tcase, hung_fsyncs_delay_no_transfer_and_no_open, 0, 2);
	tcase_add_loop_test(tcase, hung_reads_delay_nothing_elsewhere, 0, 2);
	return run_suite(suite);
}
