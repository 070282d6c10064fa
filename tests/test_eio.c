/*
 * test_eio.c - pages that the disk cannot read, in the middle of ranges that it
 * can: the answer is pread(2)'s, and nobody beside is harmed. faulty.sh runs it.
 */
#include "faulty.h"

#define LEN (16 * PAGE)
#define COUNT 32

/* What pread(2) says to that range, its first @warm_pages pages being in memory. */
static ssize_t plain_answer(int fd, size_t len, off_t offset, int warm_pages)
{
	int again = open_again(fd, POSIX_FADV_NORMAL);
	char *bytes = aligned(len);
	ssize_t n;

	evict(fd);
	warm(fd, offset, (size_t)warm_pages * PAGE);
	n = pread(again, bytes, len, offset);
	if (n < 0)
		n = -errno;
	free(bytes);
	close(again);
	return n;
}

/* The same request of ours, in the same state. */
static ssize_t our_answer(struct job *job, struct onefd_file *file, size_t len, off_t offset,
			  int warm_pages)
{
	evict(file->fd);
	warm(file->fd, offset, (size_t)warm_pages * PAGE);
	onefd_prep_pread(&job->req, file, job->buf, len, offset);
	return job_run(loop, job);
}

/* The bad page is the 8th of 16; some before it are in memory already. */
START_TEST(good_pages_before_it_are_the_answer)
{
	static const int warm_pages[] = { 0, 1, 4, 8 };
	struct job *job = make_jobs(1, LEN);
	struct onefd_file file;
	int fd = open_file(_i, &file);

	spoil(_i, fd, MEBI + 8 * PAGE, "fail", EIO);
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(plain_answer(fd, LEN, MEBI, warm_pages[i]), 8 * PAGE);
		ck_assert_int_eq(our_answer(job, &file, LEN, MEBI, warm_pages[i]), 8 * PAGE);
		check_read(job, 8 * PAGE);
	}
	free_jobs(job, 1);
	close(fd);
}
END_TEST

/* Also from within it, to within it, and after the good ones were fetched. */
START_TEST(it_is_eio_at_the_start)
{
	static const struct { off_t offset; size_t len; } ranges[] = {
		{ MEBI, PAGE }, { MEBI, LEN }, { MEBI + 100, 1 }, { MEBI + 4095, LEN },
	};
	struct job *job = make_jobs(1, LEN);
	struct onefd_file file;
	int fd = open_file(_i, &file);

	spoil(_i, fd, MEBI, "fail", EIO);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(our_answer(job, &file, ranges[i].len, ranges[i].offset, 0), -EIO);
	ck_assert_int_eq(our_answer(job, &file, 200, MEBI - 100, 0), 100);
	check_read(job, 100);
	free_jobs(job, 1);
	close(fd);
}
END_TEST

/*
 * Past the first window of readahead, and past what is fetched at once. A folio
 * is good or bad as a whole, and may have 2 MiB: so the end may come sooner,
 * and then going on from there is an error.
 */
START_TEST(it_ends_a_large_read)
{
	ssize_t bad = 5 * MEBI + 3 * PAGE, at = 0, n;
	struct job *job = make_jobs(1, 8 * MEBI);
	struct onefd_file file;
	int fd = open_file(_i, &file);

	spoil(_i, fd, bad, "fail", EIO);
	evict(fd);
	warm(fd, 0, 64 * PAGE);
	do {
		onefd_prep_pread(&job->req, &file, job->buf, 8 * MEBI, at);
		n = job_run(loop, job);
		if (n > 0)
			check_read(job, n);
		at += n > 0 ? n : 0;
	} while (n > 0);
	ck_assert_int_eq(n, -EIO);
	ck_assert_int_le(at, bad);
	ck_assert_int_gt(at, bad - 2 * MEBI);
	free_jobs(job, 1);
	close(fd);
}
END_TEST

/*
 * A third of the reads meet a bad page, two good ones being in memory before it;
 * the others are of good pages, of the same file and of another. The two must
 * stay there: fetched with the bad one, they may be of one folio with it.
 */
START_TEST(others_beside_it_have_their_data)
{
	struct job *jobs = make_jobs(3 * COUNT, 4 * PAGE);
	struct onefd_file file, other_file;
	int fd = open_file(_i, &file), other = open_file((_i + 1) % place_count(), &other_file);
	char *map = map_data(fd);

	for (int i = 0; i < COUNT; i++)
		spoil(_i, fd, (4 * i + 2) * PAGE, "fail", EIO);
	for (int i = 0; i < COUNT; i++)
		keep_warm(map, 4 * i * PAGE, 2 * PAGE);
	for (int i = 0; i < COUNT; i++) {
		submit_read(&jobs[3 * i], &file, 4 * PAGE, i * 4 * PAGE);
		submit_read(&jobs[3 * i + 1], &file, 4 * PAGE, 8 * MEBI + i * 32 * PAGE);
		submit_read(&jobs[3 * i + 2], &other_file, 4 * PAGE, i * 32 * PAGE);
	}
	drain_jobs(loop, jobs, 3 * COUNT);
	for (int i = 0; i < 3 * COUNT; i++)
		check_read(&jobs[i], i % 3 ? 4 * PAGE : 2 * PAGE);
	free_jobs(jobs, 3 * COUNT);
	munmap(map, DATA_SIZE);
	close(fd);
	close(other);
}
END_TEST

/* One failure is no verdict. */
START_TEST(what_has_healed_is_read)
{
	struct job *jobs = make_jobs(COUNT, PAGE);
	struct onefd_file file;
	int fd = open_file(_i, &file);

	for (int i = 0; i < COUNT; i++)
		spoil(_i, fd, i * PAGE, "fail", EIO);
	for (int pass = 0; pass < 2; pass++) {
		evict(fd);
		for (int i = 0; i < COUNT; i++)
			submit_read(&jobs[i], &file, PAGE, i * PAGE);
		drain_jobs(loop, jobs, COUNT);
		for (int i = 0; i < COUNT; i++)
			ck_assert_int_eq(jobs[i].res, pass == 0 ? -EIO : PAGE);
		order("release");
	}
	for (int i = 0; i < COUNT; i++)
		check_read(&jobs[i], PAGE);
	free_jobs(jobs, COUNT);
	close(fd);
}
END_TEST

/* It waits with others for a page that comes late, and turns out to be bad. */
START_TEST(it_comes_after_a_wait)
{
	struct job *jobs = make_jobs(3, LEN);
	struct onefd_file file;
	int fd = open_file(_i, &file);

	spoil(_i, fd, MEBI + 8 * PAGE, "delay", 50);
	spoil(_i, fd, MEBI + 8 * PAGE, "fail", EIO);
	submit_read(&jobs[0], &file, LEN, MEBI);
	submit_read(&jobs[1], &file, LEN, MEBI + 8 * PAGE);
	submit_read(&jobs[2], &file, LEN, MEBI + 9 * PAGE);
	drain_jobs(loop, jobs, 3);
	check_read(&jobs[0], 8 * PAGE);
	ck_assert_int_eq(jobs[1].res, -EIO);
	check_read(&jobs[2], LEN);
	free_jobs(jobs, 3);
	close(fd);
}
END_TEST

int main(void)
{
	const TTest *tests[] = {
		good_pages_before_it_are_the_answer,
		it_is_eio_at_the_start,
		it_ends_a_large_read,
		others_beside_it_have_their_data,
		what_has_healed_is_read,
		it_comes_after_a_wait,
		NULL,
	};

	return run_faulty("eio", tests, NULL);
}
