/*
 * test_held.c - a page that does not come, while others do: who waits for it waits
 * alone, can be cancelled at once, and keeps nobody from ending. faulty.sh runs it.
 *
 * FUSE answers no RWF_NOWAIT, so there a read is a worker's from beginning to end
 * and a cancel may be too late (-EBUSY); everywhere else it never is.
 */
#include "faulty.h"

#include <pthread.h>

#define COUNT 24
#define APART (128 * PAGE)	/* no readahead goes from one read to the next */
#define SPOILT 0xa5

/* The read waits for a page that is held. */
static void submit_held(struct job *job, struct onefd_file *file, size_t len, off_t offset)
{
	submit_read(job, file, len, offset);
	wait_held(held + 1);
	ck_assert_int_eq(job->calls, 0);
}

/* One that waits is cancelled: true when it has called back and the buffer is ours. */
static bool cancel_held(int index, struct job *job)
{
	int r = job_cancel(job);

	if (r == -EBUSY && on_fuse(index))
		return false;
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(job->calls, 0);
	while (!job->calls)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(job->calls, 1);
	ck_assert_int_eq(job->res, -ECANCELED);
	return true;
}

static void check_spoilt(const struct job *job, size_t len)
{
	for (size_t i = 0; i < len; i++)
		ck_assert_uint_eq(((unsigned char *)job->buf)[i], SPOILT);
}

START_TEST(others_overtake_it)
{
	struct job *jobs = make_jobs(2 * COUNT + 1, PAGE), *held_one = &jobs[2 * COUNT];
	struct onefd_file file, other_file;
	int fd = open_file(_i, &file), other = open_file((_i + 1) % place_count(), &other_file);

	spoil(_i, fd, 0, "hold", 0);
	submit_held(held_one, &file, PAGE, 0);
	for (int i = 0; i < 2 * COUNT; i++)
		submit_read(&jobs[i], i % 2 ? &other_file : &file, PAGE, MEBI + i / 2 * APART);
	wait_for(jobs, 2 * COUNT, 2 * COUNT);
	ck_assert_int_eq(held_one->calls, 0);
	ck_assert_uint_eq(onefd_pending(loop), 1);
	order("release");
	drain_jobs(loop, jobs, 2 * COUNT + 1);
	for (int i = 0; i < 2 * COUNT + 1; i++)
		check_read(&jobs[i], PAGE);
	free_jobs(jobs, 2 * COUNT + 1);
	close(fd);
	close(other);
}
END_TEST

/* As soon as it calls back the buffer is the caller's: what was on its way to it
 * goes nowhere. Some of it had been read by then. */
START_TEST(cancelled_it_leaves_the_buffer_alone)
{
	struct job *jobs = make_jobs(2, 16 * PAGE);
	struct onefd_file file;
	int fd = open_file(_i, &file);

	spoil(_i, fd, 8 * PAGE, "hold", 0);
	warm(fd, 0, 4 * PAGE);
	submit_held(&jobs[0], &file, 16 * PAGE, 0);
	if (!cancel_held(_i, &jobs[0])) {
		order("release");
		drain_jobs(loop, jobs, 1);
		check_read(&jobs[0], 16 * PAGE);
	}
	memset(jobs[0].buf, SPOILT, 16 * PAGE);
	order("release");
	submit_read(&jobs[1], &file, 16 * PAGE, 0);
	drain_jobs(loop, jobs, 2);
	check_read(&jobs[1], 16 * PAGE);
	check_spoilt(&jobs[0], 16 * PAGE);
	free_jobs(jobs, 2);
	close(fd);
}
END_TEST

/* Oldest, newest and some between: who stays has its data. */
START_TEST(some_of_many_are_cancelled)
{
	struct job *jobs = make_jobs(COUNT, PAGE);
	struct onefd_file file;
	int fd = open_file(_i, &file), cancelled = 0;

	for (int i = 0; i < COUNT; i++)
		spoil(_i, fd, i * APART, "hold", 0);
	for (int i = 0; i < COUNT; i++)
		submit_read(&jobs[i], &file, PAGE, i * APART);
	wait_held(held + 1);
	for (int i = 0; i < COUNT; i += 3)
		if (cancel_held(_i, &jobs[i])) {
			memset(jobs[i].buf, SPOILT, PAGE);
			cancelled++;
		}
	ck_assert_uint_eq(onefd_pending(loop), (size_t)(COUNT - cancelled));
	order("release");
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++) {
		if (jobs[i].res == -ECANCELED)
			check_spoilt(&jobs[i], PAGE);
		else
			check_read(&jobs[i], PAGE);
	}
	free_jobs(jobs, COUNT);
	close(fd);
}
END_TEST

/* Nothing is out, so the loop goes, though a thread of its may still wait; and
 * memory, file and process go, too. */
START_TEST(loop_is_freed_before_it_comes)
{
	struct job *jobs = make_jobs(COUNT, PAGE);
	struct onefd_file file;
	int fd = open_file(_i, &file), cancelled = 0;

	for (int i = 0; i < COUNT; i++)
		spoil(_i, fd, i * APART, "hold", 0);
	for (int i = 0; i < COUNT; i++)
		submit_read(&jobs[i], &file, PAGE, i * APART);
	wait_held(held + 1);
	for (int i = 0; i < COUNT; i++)
		cancelled += cancel_held(_i, &jobs[i]);
	if (cancelled < COUNT) {
		order("release");
		drain_jobs(loop, jobs, COUNT);
	}
	must(onefd_free(loop));
	loop = NULL;
	free_jobs(jobs, COUNT);
	close(fd);
	if (_i % 2)
		order("release");
	must(onefd_new(&loop, test_config()));
}
END_TEST

/* Three files, three disks, each with one that waits: a fourth is not kept. */
START_TEST(each_disk_waits_for_itself)
{
	int places = place_count();
	struct job *jobs = make_jobs((size_t)places, PAGE);
	struct onefd_file files[8];
	int fds[8];

	for (int i = 0; i < places; i++) {
		fds[i] = open_file(i, &files[i]);
		if (i != _i) {
			spoil(i, fds[i], 0, "hold", 0);
			submit_held(&jobs[i], &files[i], PAGE, 0);
		}
	}
	evict(fds[_i]);
	submit_read(&jobs[_i], &files[_i], PAGE, 0);
	while (!jobs[_i].calls)
		must(onefd_dispatch(loop, -1));
	ck_assert_uint_eq(onefd_pending(loop), (size_t)places - 1);
	order("release");
	drain_jobs(loop, jobs, (size_t)places);
	for (int i = 0; i < places; i++) {
		check_read(&jobs[i], PAGE);
		close(fds[i]);
	}
	free_jobs(jobs, (size_t)places);
}
END_TEST

/* The first three come last: the others need not wait for that. */
START_TEST(who_comes_late_is_overtaken)
{
	enum { LATE = 3 };		/* fewer than workers */
	struct job *jobs = make_jobs(COUNT, PAGE);
	struct onefd_file file;
	int fd = open_file(_i, &file);

	for (int i = 0; i < COUNT; i++)
		spoil(_i, fd, i * APART, "delay", i < LATE ? 2000 : 20);
	for (int i = 0; i < COUNT; i++)
		submit_read(&jobs[i], &file, PAGE, i * APART);
	wait_for(jobs + LATE, COUNT - LATE, COUNT - LATE);
	for (int i = 0; i < LATE; i++)
		ck_assert_int_eq(jobs[i].calls, 0);
	order("release");
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++)
		check_read(&jobs[i], PAGE);
	free_jobs(jobs, COUNT);
	close(fd);
}
END_TEST

/* Half of the pages are in memory: those reads call back in this dispatch or the
 * next, whoever waits beside them. */
START_TEST(hits_pass_by_what_waits)
{
	struct job *jobs = make_jobs(2 * COUNT, PAGE);
	struct onefd_file file;
	int fd = open_file(_i, &file);
	char *map;

	if (on_fuse(_i)) {
		free_jobs(jobs, 2 * COUNT);
		close(fd);
		skip("FUSE does not say what is in memory");
	}
	map = map_data(fd);
	for (int i = 0; i < COUNT; i++)
		spoil(_i, fd, i * APART, "hold", 0);
	for (int i = 0; i < COUNT; i++)
		keep_warm(map, i * APART + APART / 2, PAGE);
	for (int i = 0; i < 2 * COUNT; i++)
		submit_read(&jobs[i], &file, PAGE, i * (APART / 2));
	must(onefd_dispatch(loop, 0));
	must(onefd_dispatch(loop, 0));
	for (int i = 0; i < 2 * COUNT; i++)
		ck_assert_int_eq(jobs[i].calls, i % 2);
	wait_held(held + 1);
	/* And once more, when it is known that the file is cold. */
	for (int i = 1; i < 2 * COUNT; i += 2) {
		check_read(&jobs[i], PAGE);
		submit_read(&jobs[i], &file, PAGE, i * (APART / 2));
	}
	must(onefd_dispatch(loop, 0));
	must(onefd_dispatch(loop, 0));
	for (int i = 0; i < 2 * COUNT; i++)
		ck_assert_int_eq(jobs[i].calls, i % 2);
	order("release");
	drain_jobs(loop, jobs, 2 * COUNT);
	for (int i = 0; i < 2 * COUNT; i++)
		check_read(&jobs[i], PAGE);
	free_jobs(jobs, 2 * COUNT);
	munmap(map, DATA_SIZE);
	close(fd);
}
END_TEST

int main(void)
{
	const TTest *tests[] = {
		others_overtake_it,
		cancelled_it_leaves_the_buffer_alone,
		some_of_many_are_cancelled,
		loop_is_freed_before_it_comes,
		each_disk_waits_for_itself,
		who_comes_late_is_overtaken,
		hits_pass_by_what_waits,
		NULL,
	};

	return run_faulty("held", tests, NULL);
}
