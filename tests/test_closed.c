/*
 * test_closed.c - the file's descriptor is closed while requests wait, which is a
 * mistake: each calls back once all the same, with -EBADF or with right data. When
 * its number stands for another file by then, what has not been read yet may be
 * read from that one: a whole page, never a part. faulty.sh runs it.
 */
#include "faulty.h"

#define COUNT 24
#define APART (128 * PAGE)
#define LEN (4 * PAGE)
#define SHIFT 0x5a0		/* where in the pattern the other file begins */

/* Each page has the bytes of this file, or, @other_too, of the other. */
static void check_pages(const struct job *job, bool other_too)
{
	char others[16];

	for (ssize_t at = 0; at < job->res; at += PAGE) {
		const char *page = (const char *)job->buf + at;
		off_t offset = job->req.offset + at;
		size_t len = job->res - at < PAGE ? (size_t)(job->res - at) : PAGE;

		fill(others, sizeof others, offset + SHIFT);
		if (other_too && memcmp(page, others, sizeof others) == 0)
			offset += SHIFT;
		check_bytes(page, len, offset);
	}
}

static void check_closed(const struct job *job, bool other_too)
{
	ck_assert_int_eq(job->calls, 1);
	if (job->res == -EBADF)
		return;
	ck_assert_int_gt(job->res, 0);
	ck_assert_int_le(job->res, LEN);
	check_pages(job, other_too);
}

/* A file of DATA_SIZE with other bytes, and not in memory: its descriptor. */
static int open_other(int index)
{
	struct place place = place_of(on_fuse(index) && place_count() > 1 ? 1 : index);
	char path[PATH_MAX + 8], *bytes;
	int fd;

	snprintf(path, sizeof path, "%s/b", place.path);
	fd = (int)must_libc(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	if (lseek(fd, 0, SEEK_END) < DATA_SIZE) {
		bytes = malloc(DATA_SIZE);
		fill(bytes, DATA_SIZE, SHIFT);
		ck_assert_int_eq(pwrite(fd, bytes, DATA_SIZE, 0), DATA_SIZE);
		must_libc(fsync(fd));
		free(bytes);
	}
	evict(fd);
	return fd;
}

START_TEST(before_anything_was_sent)
{
	struct job *jobs = make_jobs(COUNT, LEN);
	struct onefd_file file;
	int fd = open_file(_i, &file);

	for (int i = 0; i < COUNT; i++)
		submit_read(&jobs[i], &file, LEN, i * APART);
	close(fd);
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++)
		ck_assert_int_eq(jobs[i].res, -EBADF);
	free_jobs(jobs, COUNT);
}
END_TEST

/* All wait for their second page; the first has been in memory. */
static void submit_held(struct job *jobs, struct onefd_file *file, int index)
{
	for (int i = 0; i < COUNT; i++)
		spoil(index, file->fd, i * APART + PAGE, "hold", 0);
	for (int i = 0; i < COUNT; i++)
		warm(file->fd, i * APART, PAGE);
	for (int i = 0; i < COUNT; i++)
		submit_read(&jobs[i], file, LEN, i * APART);
	wait_held(held + 1);
}

START_TEST(while_they_wait)
{
	struct job *jobs = make_jobs(COUNT, LEN);
	struct onefd_file file;
	int fd = open_file(_i, &file);

	submit_held(jobs, &file, _i);
	close(fd);
	order("release");
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++)
		check_closed(&jobs[i], false);
	free_jobs(jobs, COUNT);
}
END_TEST

START_TEST(and_the_number_is_another_files)
{
	struct job *jobs = make_jobs(COUNT, LEN);
	struct onefd_file file;
	int fd = open_file(_i, &file), other = open_other(_i);

	submit_held(jobs, &file, _i);
	must_libc(dup2(other, fd));
	order("release");
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++)
		check_closed(&jobs[i], true);
	free_jobs(jobs, COUNT);
	close(other);
	close(fd);
}
END_TEST

/* The number is a pipe's, then: no offset there. */
START_TEST(and_the_number_is_a_pipes)
{
	struct job *jobs = make_jobs(COUNT, LEN);
	struct onefd_file file;
	int fd = open_file(_i, &file), pipes[2];

	must_libc(pipe2(pipes, O_CLOEXEC));
	submit_held(jobs, &file, _i);
	must_libc(dup2(pipes[0], fd));
	order("release");
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++) {
		if (jobs[i].res == -ESPIPE)
			continue;
		check_closed(&jobs[i], false);
	}
	free_jobs(jobs, COUNT);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}
END_TEST

/* One was cancelled before; a wait of its own may go on for a file that is gone. */
START_TEST(after_a_cancel)
{
	struct job *jobs = make_jobs(2, LEN);
	struct onefd_file file, file_again;
	int fd = open_file(_i, &file), again;

	spoil(_i, fd, 0, "hold", 0);
	submit_read(&jobs[0], &file, LEN, 0);
	wait_held(held + 1);
	job_cancel(&jobs[0]);
	again = open_again(fd, POSIX_FADV_NORMAL);
	close(fd);
	must(onefd_file_init(loop, &file_again, again));
	submit_read(&jobs[1], &file_again, LEN, APART);
	order("release");
	drain_jobs(loop, jobs, 2);
	if (jobs[0].res != -ECANCELED)
		check_closed(&jobs[0], false);
	check_read(&jobs[1], LEN);
	free_jobs(jobs, 2);
	close(again);
}
END_TEST

int main(void)
{
	const TTest *tests[] = {
		before_anything_was_sent,
		while_they_wait,
		and_the_number_is_another_files,
		and_the_number_is_a_pipes,
		after_a_cancel,
		NULL,
	};

	return run_faulty("closed", tests, NULL);
}
