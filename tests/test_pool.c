/* test_pool.c - workers for what blocks by nature. */
#include "files.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

#include "../lib/sys.h"

#define BLOCK 4096

static struct onefd *loop;
static struct sys_calls real;
static sem_t gate;
static atomic_int inside, most_inside, threads;

static int count_thread(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	threads++;
	return real.thread(ret, fn, arg);
}

static void set_up(void)
{
	struct onefd_config config = *test_config();

	real = sys;
	sys.thread = count_thread;
	sem_init(&gate, 0, 0);
	config.threads = 3;
	must(onefd_new(&loop, &config));
}

static void tear_down(void)
{
	must(onefd_free(loop));
}

static ssize_t wait_at_gate(void *arg)
{
	int now = ++inside;

	(void)arg;
	for (int most = most_inside; now > most;)
		if (atomic_compare_exchange_weak(&most_inside, &most, now))
			break;
	while (sem_wait(&gate) < 0)
		;
	inside--;
	return 1;
}

START_TEST(no_thread_before_the_first_call)
{
	must(onefd_dispatch(loop, 0));
	ck_assert_int_eq(threads, 0);
}
END_TEST

START_TEST(threads_are_as_many_as_allowed)
{
	struct job *jobs = make_jobs(20, 0);

	for (int i = 0; i < 20; i++) {
		onefd_prep_call(&jobs[i].req, wait_at_gate, NULL);
		job_submit(loop, &jobs[i]);
	}
	must(onefd_flush(loop));
	while (inside < 3)
		usleep(100);
	for (int i = 0; i < 20; i++)
		sem_post(&gate);
	drain_jobs(loop, jobs, 20);
	ck_assert_int_eq(most_inside, 3);
	ck_assert_int_eq(threads, 3);
	free_jobs(jobs, 20);
}
END_TEST

/* One after another there is always an idle one: no second is made. */
START_TEST(idle_worker_is_used_again)
{
	struct job job = { 0 };

	for (int i = 0; i < 20; i++) {
		sem_post(&gate);
		onefd_prep_call(&job.req, wait_at_gate, NULL);
		ck_assert_int_eq(job_run(loop, &job), 1);
	}
	ck_assert_int_le(threads, 3);
	ck_assert_int_eq(most_inside, 1);
}
END_TEST

/* All that calls may have are stuck, as in a dead mount: reads go on. */
START_TEST(stuck_calls_delay_no_read)
{
	struct job *stuck = make_jobs(8, 0), *read = make_jobs(1, BLOCK);
	int fd = make_file(0, BLOCK, O_RDWR);
	struct onefd_file file;

	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < 8; i++) {
		onefd_prep_call(&stuck[i].req, wait_at_gate, NULL);
		job_submit(loop, &stuck[i]);
	}
	onefd_prep_pread(&read->req, &file, read->buf, BLOCK, 0);
	ck_assert_int_eq(job_run(loop, read), BLOCK);
	onefd_prep_fsync(&read->req, &file, 0);
	ck_assert_int_eq(job_run(loop, read), 0);
	ck_assert_int_eq(stuck[0].calls, 0);
	for (int i = 0; i < 8; i++)
		sem_post(&gate);
	drain_jobs(loop, stuck, 8);
	free_jobs(stuck, 8);
	free_jobs(read, 1);
	close(fd);
}
END_TEST

static ssize_t blocked_signals(void *arg)
{
	sigset_t set;
	int count = 0;

	(void)arg;
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	for (int signo = 1; signo < 32; signo++)
		count += sigismember(&set, signo) == 1;
	return count;
}

/* All but SIGKILL and SIGSTOP, which cannot be. */
START_TEST(workers_take_no_signal)
{
	struct job job = { 0 };

	onefd_prep_call(&job.req, blocked_signals, NULL);
	ck_assert_int_eq(job_run(loop, &job), 29);
}
END_TEST

static ssize_t answer(void *arg)
{
	return (ssize_t)(intptr_t)arg;
}

START_TEST(answers_are_each_calls_own)
{
	enum { COUNT = 1000 };
	struct job *jobs = make_jobs(COUNT, 0);

	for (int i = 0; i < COUNT; i++) {
		onefd_prep_call(&jobs[i].req, answer, (void *)(intptr_t)(i - 100));
		job_submit(loop, &jobs[i]);
	}
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++)
		ck_assert_int_eq(jobs[i].res, i - 100);
	free_jobs(jobs, COUNT);
}
END_TEST

static pthread_t looping;
static atomic_bool stands;
static atomic_int readings;	/* by workers, of the clock while it stands */

static uint64_t standing_now(void)
{
	if (!stands)
		return real.now();
	readings += !pthread_equal(pthread_self(), looping);
	return 1;
}

static void set_up_to_look(uint32_t most)
{
	struct onefd_config config = *test_config();

	must(onefd_free(loop));
	sys.now = standing_now;
	config.threads = most;
	config.spin_us = 50;
	must(onefd_new(&loop, &config));
}

/* The clock stands, and so who looks does until he is called. */
START_TEST(a_worker_looks_for_more_where_calls_come_one_by_one)
{
	struct job job = { 0 };

	set_up_to_look(1);
	looping = pthread_self();
	stands = true;
	for (int i = 0; i < 1000 && readings < 10000; i++) {
		onefd_prep_call(&job.req, answer, (void *)1);
		ck_assert_int_eq(job_run(loop, &job), 1);
	}
	ck_assert_int_ge(readings, 10000);
	onefd_prep_call(&job.req, answer, (void *)1);
	ck_assert_int_eq(job_run(loop, &job), 1);
	stands = false;
}
END_TEST

START_TEST(no_call_is_lost_on_who_looks)
{
	struct job *jobs = make_jobs(4, 0);

	set_up_to_look(3);
	for (int i = 0; i < 5000; i++) {
		int count = i % 50 ? 1 : 4;

		for (int j = 0; j < count; j++) {
			onefd_prep_call(&jobs[j].req, answer, (void *)(intptr_t)i);
			job_submit(loop, &jobs[j]);
		}
		drain_jobs(loop, jobs, count);
		for (int j = 0; j < count; j++)
			ck_assert_int_eq(jobs[j].res, i);
	}
	free_jobs(jobs, 4);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pool");
	TCase *tcase = add_case(suite, "pool", set_up, tear_down);

	tcase_add_test(tcase, no_thread_before_the_first_call);
	tcase_add_test(tcase, threads_are_as_many_as_allowed);
	tcase_add_test(tcase, idle_worker_is_used_again);
	tcase_add_test(tcase, stuck_calls_delay_no_read);
	tcase_add_test(tcase, workers_take_no_signal);
	tcase_add_test(tcase, answers_are_each_calls_own);
	tcase_add_test(tcase, a_worker_looks_for_more_where_calls_come_one_by_one);
	tcase_add_test(tcase, no_call_is_lost_on_who_looks);
	return run_suite(suite);
}
