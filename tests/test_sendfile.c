/* test_sendfile.c - a file into a socket, and nobody waits for either. */
#include "files.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "../lib/sys.h"

#define PAGE 4096
#define LARGE (4 << 20)

static struct onefd *loop;
static struct sys_calls real;
static struct onefd_file file;
static struct job *job;
static int fd, ends[2];
static off_t received;		/* the offset in the file of what comes next */
static char buffer[256 * 1024];

static void set_up(void)
{
	real = sys;
	must(onefd_new(&loop, test_config()));
	job = make_jobs(1, 0);
}

static void tear_down(void)
{
	free_jobs(job, 1);
	must(onefd_free(loop));
	/* No more than was replaced: a context may still be on its way out. */
	sys.preadv2 = real.preadv2;
	sys.send = real.send;
	sys.sendfile = real.sendfile;
}

static void open_file(int index, size_t size)
{
	fd = make_file(index, size, O_RDWR);
	must(onefd_file_init(loop, &file, fd));
	ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static void open_socket(int flags)
{
	must_libc(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0, ends));
}

static void close_all(void)
{
	close(fd);
	close(ends[0]);
	if (ends[1] >= 0)
		close(ends[1]);
}

/* What has come by now is what stands in the file there. */
static size_t receive(size_t most)
{
	ssize_t n = recv(ends[1], buffer, most < sizeof buffer ? most : sizeof buffer, MSG_DONTWAIT);

	if (n < 0) {
		ck_assert_int_eq(errno, EAGAIN);
		return 0;
	}
	check_bytes(buffer, (size_t)n, received);
	received += n;
	return (size_t)n;
}

static void start(off_t offset, size_t len)
{
	received = offset;
	onefd_prep_sendfile(&job->req, ends[0], &file, offset, len);
	job_submit(loop, job);
}

static ssize_t finish(void)
{
	while (!job->calls) {
		must(onefd_dispatch(loop, 1));
		(void)receive(sizeof buffer);
	}
	while (receive(sizeof buffer))
		;
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(job->calls, 1);
	return job->res;
}

static ssize_t send_all(off_t offset, size_t len)
{
	start(offset, len);
	return finish();
}

START_TEST(all_of_it_arrives)
{
	for (int flags = 0; flags <= SOCK_NONBLOCK; flags += SOCK_NONBLOCK) {
		open_file(_i, LARGE + 77);
		open_socket(flags);
		for (int warm = 0; warm < 2; warm++) {
			ck_assert_int_eq(send_all(123, LARGE - 1000), LARGE - 1000);
			ck_assert_int_eq(received, 123 + LARGE - 1000);
			ck_assert_int_eq(job->req.offset, received);
		}
		close_all();
	}
}
END_TEST

static _Atomic int spliced;
static ssize_t refusal;

static ssize_t counting_sendfile(int sockfd, int from, off_t offset, size_t len)
{
	spliced++;
	return real.sendfile(sockfd, from, offset, len);
}

static ssize_t refusing_sendfile(int sockfd, int from, off_t offset, size_t len)
{
	/* First it goes well. */
	return spliced++ < 2 ? real.sendfile(sockfd, from, offset, len) : refusal;
}

/* A socket that waits would hold a worker for as long as its reader likes. */
START_TEST(only_where_nobody_waits_long_ones_are_not_copied)
{
	static const size_t sizes[] = { 1000, LARGE };

	sys.sendfile = counting_sendfile;
	for (int i = 0; i < 4; i++) {
		open_file(_i, LARGE);
		open_socket(i & 1 ? SOCK_NONBLOCK : 0);
		spliced = 0;
		ck_assert_int_eq(send_all(0, sizes[i / 2]), (ssize_t)sizes[i / 2]);
		ck_assert_int_eq(spliced > 0, i == 3);
		close_all();
	}
}
END_TEST

START_TEST(what_sendfile_refuses_is_copied)
{
	static const ssize_t refusals[] = { -EINVAL, -EAGAIN, -EIO, -ENOSYS, 0 };

	sys.sendfile = refusing_sendfile;
	for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
		refusal = refusals[i];
		open_file(_i, LARGE);
		open_socket(SOCK_NONBLOCK);
		spliced = 0;
		ck_assert_int_eq(send_all(0, LARGE), LARGE);
		close_all();
	}
}
END_TEST

START_TEST(it_is_short_at_the_end_of_the_file)
{
	open_file(_i, PAGE + 77);
	open_socket(0);
	ck_assert_int_eq(send_all(1000, LARGE), PAGE + 77 - 1000);
	ck_assert_int_eq(received, PAGE + 77);
	ck_assert_int_eq(send_all(PAGE + 77, 1), 0);
	ck_assert_int_eq(send_all(LARGE, 1), 0);
	ck_assert_int_eq(send_all(0, 0), 0);
	close_all();
}
END_TEST

/* Submitted as it is, it goes on behind what it has sent. */
START_TEST(submitted_anew_it_sends_what_follows)
{
	open_file(_i, 5 * PAGE);
	open_socket(0);
	ck_assert_int_eq(send_all(0, 2 * PAGE), 2 * PAGE);
	for (int i = 0; i < 2; i++) {
		job_submit(loop, job);
		ck_assert_int_eq(finish(), i ? PAGE : 2 * PAGE);
	}
	ck_assert_int_eq(received, 5 * PAGE);
	close_all();
}
END_TEST

/* Until nothing moves any more; the loop is not held up by it. */
static off_t fill_up(void)
{
	off_t before = -1;

	while (before != job->req.offset || !before) {
		before = job->req.offset;
		for (int i = 0; i < 20; i++)
			must(onefd_dispatch(loop, 1));
		ck_assert_int_eq(job->calls, 0);
	}
	return before;
}

START_TEST(full_socket_holds_up_nobody_and_is_no_end)
{
	for (int flags = 0; flags <= SOCK_NONBLOCK; flags += SOCK_NONBLOCK) {
		open_file(_i, LARGE);
		open_socket(flags);
		start(0, LARGE);
		ck_assert_int_lt(fill_up(), LARGE);
		ck_assert_int_eq(finish(), LARGE);
		ck_assert_int_eq(received, LARGE);
		close_all();
	}
}
END_TEST

static _Atomic int asked;	/* how often the socket was */

static ssize_t asking_send(int to, const void *buf, size_t len)
{
	asked++;
	return real.send(to, buf, len);
}

static ssize_t asking_sendfile(int to, int from, off_t offset, size_t len)
{
	asked++;
	return real.sendfile(to, from, offset, len);
}

static int asked_in_some_turns(void)
{
	asked = 0;
	for (int i = 0; i < 20; i++)
		must(onefd_dispatch(loop, 1));
	return asked;
}

/* A worker may be on its way still, but not for ever. */
START_TEST(full_socket_is_not_asked_again_and_again)
{
	sys.send = asking_send;
	sys.sendfile = asking_sendfile;
	for (int flags = 0; flags <= SOCK_NONBLOCK; flags += SOCK_NONBLOCK) {
		int rounds = 0;

		open_file(_i, LARGE);
		open_socket(flags);
		start(0, LARGE);
		(void)fill_up();
		while (asked_in_some_turns())
			ck_assert_int_lt(++rounds, 100);
		ck_assert_int_eq(finish(), LARGE);
		close_all();
	}
}
END_TEST

START_TEST(cancelled_it_says_how_far_it_came)
{
	for (int turns = 0; turns < 30; turns++) {
		open_file(_i, LARGE);
		open_socket(SOCK_NONBLOCK);
		start(0, LARGE);
		for (int i = 0; i < turns; i++)
			must(onefd_dispatch(loop, turns < 20 ? 0 : 1));
		ck_assert_int_eq(job->calls, 0);
		ck_assert_int_eq(job_cancel(job), 0);
		ck_assert_int_eq(job_cancel(job), -EBUSY);
		ck_assert_int_eq(finish(), -ECANCELED);
		ck_assert_int_eq(received, job->req.offset);
		close_all();
	}
}
END_TEST

START_TEST(nobody_listens_and_nobody_dies)
{
	must_libc(signal(SIGPIPE, SIG_DFL) == SIG_ERR ? -1 : 0);
	open_file(_i, LARGE);
	open_socket(SOCK_NONBLOCK);
	start(0, LARGE);
	ck_assert_int_gt(fill_up(), 0);
	/* First what was sent, then why no more. */
	close(ends[1]);
	ends[1] = -1;
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(job->calls, 1);
	ck_assert_int_gt(job->res, 0);
	ck_assert_int_eq(job->res, job->req.offset);
	ck_assert_int_eq(job_run(loop, job), -EPIPE);
	close_all();
}
END_TEST

START_TEST(bad_arguments_are_answered)
{
	open_file(0, PAGE);
	open_socket(0);
	onefd_prep_sendfile(&job->req, fd, &file, 0, 1);
	ck_assert_int_eq(job_run(loop, job), -ENOTSOCK);
	onefd_prep_sendfile(&job->req, -1, &file, 0, 1);
	ck_assert_int_eq(job_run(loop, job), -EBADF);
	onefd_prep_sendfile(NULL, ends[0], &file, 0, 1);
	onefd_prep_sendfile(&job->req, ends[0], NULL, 0, 1);
	ck_assert_int_eq(onefd_submit(loop, &job->req, job_done), -EINVAL);
	onefd_prep_sendfile(&job->req, ends[0], &file, -1, 1);
	ck_assert_int_eq(onefd_submit(loop, &job->req, job_done), -EINVAL);
	onefd_prep_sendfile(&job->req, ends[0], &file, 0, SIZE_MAX);
	ck_assert_int_eq(onefd_submit(loop, &job->req, job_done), -EINVAL);
	close_all();
}
END_TEST

START_TEST(direct_files_are_not_sent)
{
	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, PAGE, O_RDONLY | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	open_socket(0);
	ck_assert_int_eq(send_all(0, PAGE), -EOPNOTSUPP);
	close_all();
}
END_TEST

/* Each as if the machine did not have it. */
START_TEST(poorer_loops_send_it_all_the_same)
{
	static const uint32_t without[] = { ONEFD_NO_KAIO, ONEFD_NO_NOWAIT,
					    ONEFD_NO_KAIO | ONEFD_NO_NOWAIT | ONEFD_NO_PROC };
	struct onefd *usual = loop;

	for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
		struct onefd_config config = { .flags = without[i] };

		must(onefd_new(&loop, &config));
		open_file(_i, LARGE);
		open_socket(SOCK_NONBLOCK);
		ck_assert_int_eq(send_all(1, LARGE), LARGE - 1);
		start(0, LARGE);
		(void)fill_up();
		ck_assert_int_eq(job_cancel(job), 0);
		ck_assert_int_eq(job_cancel(job), -EBUSY);
		ck_assert_int_eq(finish(), -ECANCELED);
		close_all();
		must(onefd_free(loop));
	}
	loop = usual;
}
END_TEST

/* Pages that are gone again each time: memory is short. */
static ssize_t read_never_there(int of, const struct iovec *iov, size_t count, off_t offset,
				int flags)
{
	if (flags & RWF_NOWAIT && iov->iov_len == 64 * 1024)
		return -EAGAIN;
	return real.preadv2(of, iov, count, offset, flags);
}

START_TEST(pages_that_never_stay_are_sent_too)
{
	open_file(_i, LARGE);
	open_socket(SOCK_NONBLOCK);
	sys.preadv2 = read_never_there;
	ck_assert_int_eq(send_all(0, LARGE), LARGE);
	close_all();
}
END_TEST

static atomic_int waiting;	/* reads that may wait for a disk */

static ssize_t read_noting(int of, const struct iovec *iov, size_t count, off_t offset, int flags)
{
	waiting += !(flags & RWF_NOWAIT);
	return real.preadv2(of, iov, count, offset, flags);
}

START_TEST(without_waiting_it_sends_what_is_there)
{
	open_file(_i, LARGE);
	open_socket(0);
	sys.preadv2 = read_noting;
	onefd_prep_sendfile(&job->req, ends[0], &file, 0, PAGE);
	job->req.rw_flags = RWF_NOWAIT;
	job_submit(loop, job);
	if (finish() < 0)
		ck_assert(job->res == -EAGAIN || job->res == -EOPNOTSUPP);
	ck_assert_int_eq(waiting, 0);
	close_all();
}
END_TEST

/* A worker's errors are the caller's, also those that mean something in a try. */
static ssize_t send_refused(int to, const void *buf, size_t len)
{
	(void)to, (void)buf, (void)len;
	return -EOPNOTSUPP;
}

static ssize_t read_again(int of, const struct iovec *iov, size_t count, off_t offset, int flags)
{
	(void)of, (void)iov, (void)count, (void)offset, (void)flags;
	return -EAGAIN;
}

START_TEST(errors_of_workers_are_told)
{
	struct onefd_config config = { .flags = ONEFD_NO_NOWAIT };
	struct onefd *usual = loop;

	must(onefd_new(&loop, &config));
	open_file(0, PAGE);
	open_socket(0);
	sys.send = send_refused;
	ck_assert_int_eq(send_all(0, PAGE), -EOPNOTSUPP);
	sys.send = real.send;
	sys.preadv2 = read_again;
	ck_assert_int_eq(send_all(0, PAGE), -EAGAIN);
	close_all();
	must(onefd_free(loop));
	loop = usual;
}
END_TEST

START_TEST(submitted_anew_its_range_is_looked_at_anew)
{
	open_file(_i, PAGE);
	open_socket(0);
	ck_assert_int_eq(send_all(0, SSIZE_MAX), PAGE);
	ck_assert_int_eq(onefd_submit(loop, &job->req, job_done), -EINVAL);
	close_all();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sendfile");
	TCase *tcase = add_case(suite, "sendfile", set_up, tear_down);
	int count = place_count();

	tcase_add_loop_test(tcase, all_of_it_arrives, 0, count);
	tcase_add_loop_test(tcase, only_where_nobody_waits_long_ones_are_not_copied, 0, place_count());
	tcase_add_loop_test(tcase, what_sendfile_refuses_is_copied, 0, place_count());
	tcase_add_loop_test(tcase, it_is_short_at_the_end_of_the_file, 0, count);
	tcase_add_loop_test(tcase, submitted_anew_it_sends_what_follows, 0, count);
	tcase_add_loop_test(tcase, full_socket_holds_up_nobody_and_is_no_end, 0, count);
	tcase_add_loop_test(tcase, full_socket_is_not_asked_again_and_again, 0, count);
	tcase_add_loop_test(tcase, cancelled_it_says_how_far_it_came, 0, count);
	tcase_add_loop_test(tcase, nobody_listens_and_nobody_dies, 0, count);
	tcase_add_test(tcase, bad_arguments_are_answered);
	tcase_add_loop_test(tcase, direct_files_are_not_sent, 0, count);
	tcase_add_loop_test(tcase, poorer_loops_send_it_all_the_same, 0, count);
	tcase_add_loop_test(tcase, pages_that_never_stay_are_sent_too, 0, count);
	tcase_add_loop_test(tcase, without_waiting_it_sends_what_is_there, 0, count);
	tcase_add_test(tcase, errors_of_workers_are_told);
	tcase_add_loop_test(tcase, submitted_anew_its_range_is_looked_at_anew, 0, count);
	return run_suite(suite);
}
