/* test_child.c - children. Every test forks. */
#include "reactor.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int last_code, last_status;

static void note(struct onefd_child *child, int code, int status)
{
	/* It is stopped by now, and may be freed. */
	memset(child, 0xA5, sizeof *child);
	calls++;
	last_code = code;
	last_status = status;
}

/* A child that exits with @status, or sleeps until it is killed. */
static pid_t spawn(int status)
{
	pid_t pid = (pid_t)must_libc(fork());

	if (pid)
		return pid;
	if (status >= 0)
		_exit(status);
	for (;;)
		pause();
}

START_TEST(child_exit_and_kill_statuses)
{
	struct onefd_child child;
	pid_t pid = spawn(7);

	onefd_child_init(&child, pid, note);
	must(onefd_child_start(loop, &child));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(last_code, CLD_EXITED);
	ck_assert_int_eq(last_status, 7);

	pid = spawn(-1);
	onefd_child_init(&child, pid, note);
	must(onefd_child_start(loop, &child));
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	kill(pid, SIGKILL);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(last_code, CLD_KILLED);
	ck_assert_int_eq(last_status, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), -1);
}
END_TEST

START_TEST(child_reaped_elsewhere_has_code_zero)
{
	struct onefd_child child;
	pid_t pid = spawn(-1);

	onefd_child_init(&child, pid, note);
	must(onefd_child_start(loop, &child));
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	last_code = last_status = -1;
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(last_code, 0);
	ck_assert_int_eq(last_status, 0);
}
END_TEST

/* A process that traces @pid, and lets go of it when it ends; 0: it may not. */
static pid_t trace(pid_t pid)
{
	int ready[2];
	char ok = 0;
	pid_t tracer;

	must_libc(pipe(ready));
	tracer = (pid_t)must_libc(fork());
	if (tracer == 0) {
		ok = ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0;
		if (write(ready[1], &ok, 1) == 1 && ok)
			pause();
		_exit(0);
	}
	ck_assert_int_eq(read(ready[0], &ok, 1), 1);
	close(ready[0]);
	close(ready[1]);
	if (ok)
		return tracer;
	must_libc(waitpid(tracer, NULL, 0));
	return 0;
}

/* Until then it is dead and not ours to reap: the loop span on it. */
START_TEST(child_that_a_tracer_holds_is_waited_for)
{
	struct onefd_child child;
	pid_t pid = spawn(-1), tracer = trace(pid);
	int fd = onefd_fd(loop);

	onefd_child_init(&child, pid, note);
	must(onefd_child_start(loop, &child));
	kill(pid, SIGKILL);
	if (tracer) {
		wait_readable(child.watch.fd);
		ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
		ck_assert(!readable(fd));
		kill(tracer, SIGKILL);
		must_libc(waitpid(tracer, NULL, 0));
	}
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(last_code, CLD_KILLED);
	if (!tracer)
		skip("ptrace is not allowed");
}
END_TEST

/* A child that exits at once, and has that number. */
static pid_t spawn_as(pid_t pid)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1,
	};
	pid_t born = (pid_t)syscall(SYS_clone3, &args, sizeof args);

	if (born == 0)
		_exit(42);
	return born;
}

/* The number is another child's by the time the loop looks: that one must not be
 * reaped in its place. */
START_TEST(child_of_the_same_number_is_left_alone)
{
	struct onefd_child child;
	pid_t pid = spawn(7);
	siginfo_t info;

	onefd_child_init(&child, pid, note);
	must(onefd_child_start(loop, &child));
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	if (spawn_as(pid) != pid) {
		onefd_child_stop(&child);
		skip("a process cannot choose its number here");
	}
	must_libc(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(last_code, 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

START_TEST(zombie_can_be_started)
{
	struct onefd_child child;
	pid_t pid = spawn(3);
	siginfo_t info;

	must_libc(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	onefd_child_init(&child, pid, note);
	must(onefd_child_start(loop, &child));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(last_status, 3);
}
END_TEST

START_TEST(stopped_child_is_the_callers_to_reap)
{
	struct onefd_child child;
	pid_t pid = spawn(0);
	siginfo_t info;

	onefd_child_init(&child, pid, note);
	must(onefd_child_start(loop, &child));
	ck_assert_int_eq(onefd_child_start(loop, &child), -EBUSY);
	must_libc(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	onefd_child_stop(&child);
	onefd_child_stop(&child);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(calls, 0);
}
END_TEST

static struct onefd_child *twins[2];

static void drop_both(struct onefd_child *child, int code, int status)
{
	(void)child;
	(void)code;
	(void)status;
	calls++;
	for (int i = 0; i < 2; i++) {
		onefd_child_stop(twins[i]);
		memset(twins[i], 0xA5, sizeof *twins[i]);
		free(twins[i]);
	}
}

START_TEST(stop_in_same_batch_suppresses_callback)
{
	pid_t pids[2];
	siginfo_t info;

	for (int i = 0; i < 2; i++) {
		pids[i] = spawn(0);
		must_libc(waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOWAIT));
		twins[i] = malloc(sizeof *twins[i]);
		onefd_child_init(twins[i], pids[i], drop_both);
		must(onefd_child_start(loop, twins[i]));
	}
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(calls, 1);
	/* One was reaped by the loop; the other was left to us. */
	ck_assert_int_eq((waitpid(pids[0], NULL, 0) == pids[0]) +
			 (waitpid(pids[1], NULL, 0) == pids[1]), 1);
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
	struct onefd_child child = { 0 };
	pid_t pid = spawn(0);

	onefd_child_init(NULL, 1, note);
	onefd_child_stop(NULL);
	onefd_child_stop(&child);
	ck_assert_int_eq(onefd_child_start(loop, &child), -EINVAL);
	ck_assert_int_eq(onefd_child_start(loop, NULL), -EINVAL);
	onefd_child_init(&child, 0, note);
	ck_assert_int_eq(onefd_child_start(loop, &child), -EINVAL);
	onefd_child_init(&child, pid, note);
	ck_assert_int_eq(onefd_child_start(NULL, &child), -EINVAL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(onefd_child_start(loop, &child), -ESRCH);
}
END_TEST

START_TEST(free_leaves_children_stopped)
{
	struct onefd_child child;
	pid_t pid = spawn(5);

	onefd_child_init(&child, pid, note);
	must(onefd_child_start(loop, &child));
	must(onefd_free(loop));
	onefd_child_stop(&child);
	must(onefd_new(&loop, NULL));
	must(onefd_child_start(loop, &child));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(last_status, 5);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("child");
	TCase *tcase = add_case(suite, "child", make_loop, free_loop);

	tcase_set_tags(tcase, "fork");
	tcase_add_test(tcase, child_exit_and_kill_statuses);
	tcase_add_test(tcase, child_reaped_elsewhere_has_code_zero);
	tcase_add_test(tcase, child_that_a_tracer_holds_is_waited_for);
	tcase_add_test(tcase, child_of_the_same_number_is_left_alone);
	tcase_add_test(tcase, zombie_can_be_started);
	tcase_add_test(tcase, stopped_child_is_the_callers_to_reap);
	tcase_add_test(tcase, stop_in_same_batch_suppresses_callback);
	tcase_add_test(tcase, bad_arguments_are_refused);
	tcase_add_test(tcase, free_leaves_children_stopped);
	return run_suite(suite);
}
