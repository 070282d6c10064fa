/*
 * test_truncated.c - files that are cut while reads of them wait: each calls back
 * once, with the bytes that are left, or 0. faulty.sh runs it.
 */
#include "faulty.h"

#include <pthread.h>

#define COUNT 16
#define APART (128 * PAGE)
#define LEN (4 * PAGE)

struct cut {
	pthread_t thread;
	int fd;
	off_t size;
};

static void *cut(void *arg)
{
	struct cut *it = arg;

	must_libc(ftruncate(it->fd, it->size));
	return NULL;
}

/* On xfs a cut comes when all reads that wait have ended. */
static bool cut_waits(int index)
{
	return strcmp(place_of(index).fs, "xfs") == 0;
}

/* Elsewhere the kernel first sets the size, then waits for pages that are being
 * read: that wait is not the loop's. */
static void start_cut(int index, struct cut *it, int fd, off_t size)
{
	struct stat st;

	*it = (struct cut){ .fd = fd, .size = size };
	ck_assert_int_eq(pthread_create(&it->thread, NULL, cut, it), 0);
	do {
		must(onefd_dispatch(loop, 1));
		must_libc(fstat(fd, &st));
	} while (st.st_size != size && !cut_waits(index));
}

static ssize_t left_of(off_t size, off_t offset)
{
	ssize_t left = size > offset ? size - offset : 0;

	return left < LEN ? left : LEN;
}

/*
 * It has what was left, or all where the cut came later: on xfs, and on FUSE, which
 * says the new size before it uses it. There what was cut off may read as zeros.
 */
static void check_cut(int index, const struct job *job, ssize_t left)
{
	ck_assert_int_eq(job->calls, 1);
	if (job->res != LEN || !(cut_waits(index) || on_fuse(index)))
		ck_assert_int_eq(job->res, left);
	check_bytes(job->buf, (size_t)(on_fuse(index) ? left : job->res), job->req.offset);
}

/* Each waits for its first page; the cut goes through the middle of one, before
 * one, and leaves but the first. */
START_TEST(waiting_reads_end_where_the_file_does)
{
	static const off_t sizes[] = { 8 * APART + 2 * PAGE, 5 * APART, PAGE };
	struct job *jobs = make_jobs(COUNT, LEN);
	struct onefd_file file;
	struct cut it;

	for (int pass = 0; pass < 3; pass++) {
		int fd = open_file(_i, &file);

		for (int i = 0; i < COUNT; i++)
			spoil(_i, fd, i * APART, "hold", 0);
		for (int i = 0; i < COUNT; i++)
			submit_read(&jobs[i], &file, LEN, i * APART);
		wait_held(held + 1);
		start_cut(_i, &it, fd, sizes[pass]);
		order("release");
		drain_jobs(loop, jobs, COUNT);
		pthread_join(it.thread, NULL);
		for (int i = 0; i < COUNT; i++)
			check_cut(_i, &jobs[i], left_of(sizes[pass], i * APART));
		close(fd);
	}
	free_jobs(jobs, COUNT);
}
END_TEST

/* Part of the range is in memory, and may have been copied: the cut goes below
 * it, or behind it. What was copied may be said or not; what is said is right. */
START_TEST(what_was_copied_may_be_cut_off)
{
	static const off_t sizes[] = { MEBI - 3 * PAGE, MEBI + PAGE, MEBI + 3 * PAGE };
	struct job *job = make_jobs(1, LEN);
	struct onefd_file file;
	struct cut it;

	for (int pass = 0; pass < 3; pass++) {
		int fd = open_file(_i, &file);

		spoil(_i, fd, MEBI + 2 * PAGE, "hold", 0);
		warm(fd, MEBI, 2 * PAGE);
		submit_read(job, &file, LEN, MEBI);
		wait_held(held + 1);
		start_cut(_i, &it, fd, sizes[pass]);
		order("release");
		drain_jobs(loop, job, 1);
		pthread_join(it.thread, NULL);
		if (job->res == 2 * PAGE)
			check_read(job, 2 * PAGE);
		else
			check_cut(_i, job, left_of(sizes[pass], MEBI));
		close(fd);
	}
	free_jobs(job, 1);
}
END_TEST

/* On FUSE, the first place: the file ends elsewhere than the kernel believes. It is
 * told, or finds out by an answer that is too short. */
START_TEST(server_cuts_the_file)
{
	struct job *jobs = make_jobs(COUNT, LEN);
	off_t size = 8 * APART + 2 * PAGE;
	struct onefd_file file;

	for (int told = 0; told < 2; told++) {
		int fd = open_file(0, &file);

		for (int i = 0; i < COUNT; i++)
			spoil(_i, fd, i * APART, "hold", 0);
		for (int i = 0; i < COUNT; i++)
			submit_read(&jobs[i], &file, LEN, i * APART);
		wait_held(held + 1);
		order("size a %lld", (long long)size);
		if (told)
			order("tell a %lld", (long long)size);
		order("release");
		drain_jobs(loop, jobs, COUNT);
		for (int i = 0; i < COUNT; i++)
			check_cut(0, &jobs[i], left_of(size, i * APART));
		close(fd);
	}
	free_jobs(jobs, COUNT);
}
END_TEST

int main(void)
{
	const TTest *tests[] = {
		waiting_reads_end_where_the_file_does,
		what_was_copied_may_be_cut_off,
		NULL,
	};

	return run_faulty("truncated", tests, server_cuts_the_file);
}
