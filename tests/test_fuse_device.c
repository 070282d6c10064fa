/*
 * test_fuse_device.c - a FUSE session whose device the test plays: in what order
 * requests come, and what a read answers. Needs no mount and no privilege.
 */
#define FUSE_USE_VERSION 35

#include "harness.h"

#include <errno.h>
#include <linux/fuse.h>
#include <onefd/fuse.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "reactor.h"

static struct fuse_session *session;
static struct onefd_fuse *fuse;
static int kernel = -1;				  /* the other end of the device */
static int answers[8], next_answer, answer_count; /* errnos that reads give first */
static int ended, reason;
static int looked_up; /* the handler was called */
static void (*handler)(fuse_req_t req);
static uint32_t sender; /* of requests: no process that we can see */

/* ---- the device ----------------------------------------------------------- */

static ssize_t device_read(int fd, void *buf, size_t size, void *data)
{
	(void)data;
	if (next_answer < answer_count) {
		errno = answers[next_answer++];
		return -1;
	}
	return read(fd, buf, size);
}

static ssize_t device_write(int fd, struct iovec *iov, int count, void *data)
{
	(void)data;
	return writev(fd, iov, count);
}

static void send_request(uint32_t opcode, uint64_t unique, const void *body, size_t size)
{
	struct fuse_in_header in = { .len = (uint32_t)(sizeof in + size),
				     .opcode = opcode,
				     .unique = unique,
				     .nodeid = FUSE_ROOT_ID,
				     .pid = sender };
	struct iovec parts[] = { { &in, sizeof in }, { (void *)(uintptr_t)body, size } };

	ck_assert_int_eq(writev(kernel, parts, 2), (ssize_t)in.len);
}

static void send_init(void)
{
	struct fuse_init_in init = { .major = FUSE_KERNEL_VERSION,
				     .minor = 31,
				     .flags = FUSE_MAX_PAGES };

	send_request(FUSE_INIT, 1, &init, sizeof init);
}

static void send_lookup(uint64_t unique)
{
	send_request(FUSE_LOOKUP, unique, "name", 5);
}

static void send_interrupt(uint64_t unique)
{
	struct fuse_interrupt_in interrupt = { .unique = unique };

	send_request(FUSE_INTERRUPT, unique | 1ull << 63, &interrupt, sizeof interrupt);
}

/* Of the next reply: whose it is, and its error. */
static uint64_t take_reply(int *error)
{
	union {
		struct fuse_out_header out;
		char bytes[1024];
	} reply;

	ck_assert_int_ge(must_libc(recv(kernel, &reply, sizeof reply, MSG_DONTWAIT)),
			 sizeof reply.out);
	*error = reply.out.error;
	return reply.out.unique;
}

static void expect_reply(uint64_t unique, int error)
{
	int said;

	ck_assert_uint_eq(take_reply(&said), unique);
	ck_assert_int_eq(said, error);
}

/* ---- the file system ----------------------------------------------------------- */

static void fs_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	onefd_fuse_init(fuse, conn);
}

static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	ck_assert_str_eq(name, "name");
	looked_up++;
	if (handler)
		handler(req);
	else
		(void)fuse_reply_err(req, ENOENT);
}

static const struct fuse_lowlevel_ops ops = { .init = fs_init, .lookup = fs_lookup };

static void note_end(struct onefd_fuse *of, void *data, int why)
{
	ck_assert_ptr_eq(of, fuse);
	ck_assert_ptr_eq(data, &ended);
	ended++;
	reason = why;
}

static void begin(const struct onefd_fuse_config *config)
{
	static const struct fuse_custom_io io = { .read = device_read, .writev = device_write };
	char *words[] = { (char *)"test_fuse_device", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, words);
	int fds[2];

	next_answer = answer_count = ended = looked_up = 0;
	must_libc(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
	kernel = fds[1];
	session = fuse_session_new(&args, &ops, sizeof ops, NULL);
	ck_assert_ptr_nonnull(session);
	fuse_opt_free_args(&args);
	ck_assert_int_eq(fuse_session_custom_io(session, &io, fds[0]), 0);
	must(onefd_fuse_new(&fuse, loop, session, config));
	must(onefd_fuse_start(fuse, note_end, &ended));
	send_init();
	must(onefd_dispatch(loop, -1));
	expect_reply(1, 0);
}

static void leave(void)
{
	onefd_fuse_stop(fuse);
	while (!ended)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(ended, 1);
	fuse_session_destroy(session);
	must(onefd_fuse_free(fuse));
	close(kernel);
}

static struct onefd_fuse_stats stats(void)
{
	struct onefd_fuse_stats now;

	must(onefd_fuse_stats(fuse, &now, sizeof now));
	return now;
}

/* ---- what a read answers --------------------------------------------------------- */

START_TEST(again_and_interrupted_are_no_end)
{
	static const int errnos[] = { EAGAIN, EINTR, EINTR, ENOENT, EAGAIN };

	begin(NULL);
	memcpy(answers, errnos, sizeof errnos);
	answer_count = 5;
	send_lookup(2);
	while (!looked_up)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(next_answer, 5);
	expect_reply(2, -ENOENT);
	leave();
	ck_assert_int_eq(reason, 0);
}
END_TEST

START_TEST(other_errors_are_the_reason_of_the_end)
{
	static const struct {
		int error, reason;
	} ends[] = {
		{ EIO, -EIO },
		{ ENOMEM, -ENOMEM },
		{ ENODEV, -ENODEV },
		{ ECONNABORTED, -ENODEV },
	};

	begin(NULL);
	answers[0] = ends[_i].error;
	answer_count = 1;
	send_lookup(2);
	while (!ended)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(reason, ends[_i].reason);
	ck_assert_int_eq(looked_up, 0);
	leave();
}
END_TEST

/* ---- turns -------------------------------------------------------------------------- */

static void count_turn(struct onefd_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
	calls++;
}

START_TEST(budget_lets_others_have_their_turn)
{
	struct onefd_watch watch;
	int fd = (int)must_libc(eventfd(1, EFD_CLOEXEC));

	begin(&(struct onefd_fuse_config){ .budget = 2 });
	onefd_watch_init(&watch, fd, count_turn);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	for (uint64_t i = 0; i < 10; i++)
		send_lookup(2 + i);
	for (int turn = 1; turn <= 5; turn++) {
		must(onefd_dispatch(loop, -1));
		ck_assert_int_eq(looked_up, 2 * turn);
		ck_assert_int_eq(calls, turn);
	}
	onefd_watch_stop(&watch);
	close(fd);
	leave();
}
END_TEST

static struct onefd_fuse_op *op;

static void keep(fuse_req_t req)
{
	op = onefd_fuse_begin(fuse, req);
	ck_assert_ptr_nonnull(op);
}

/* The last room is taken with the last of the budget: nothing is received in vain. */
START_TEST(full_is_seen_at_once)
{
	handler = keep;
	begin(&(struct onefd_fuse_config){ .depth = 1, .budget = 1 });
	send_lookup(2);
	send_lookup(3);
	must(onefd_dispatch(loop, -1));
	ck_assert_uint_eq(stats().full, 1);
	ck_assert(!readable(onefd_fd(loop)));
	(void)fuse_reply_err(op->fuse, EIO);
	onefd_fuse_end(op);
	must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(looked_up, 2);
	(void)fuse_reply_err(op->fuse, EIO);
	onefd_fuse_end(op);
	handler = NULL;
	leave();
}
END_TEST

/* Who takes the descriptor away has taken the device. */
START_TEST(lost_descriptor_ends_a_full_session)
{
	int fd;

	handler = keep;
	begin(&(struct onefd_fuse_config){ .depth = 1 });
	send_lookup(2);
	must(onefd_dispatch(loop, -1));
	(void)fuse_reply_err(op->fuse, EIO);
	fd = dup(fuse_session_fd(session));
	close(fuse_session_fd(session));
	onefd_fuse_end(op);
	while (!ended)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(reason, -EBADF);
	ck_assert_int_eq(dup2(fd, fuse_session_fd(session)), fuse_session_fd(session));
	close(fd);
	handler = NULL;
	leave();
}
END_TEST

/* ---- interrupts ------------------------------------------------------------------------ */

static int never = -1;

static void let_go(struct onefd_req *req)
{
	ck_assert_int_eq(req->res, -ECANCELED);
	(void)fuse_reply_err(op->fuse, EINTR);
	onefd_fuse_end(op);
}

static void wait_for_ever(fuse_req_t req)
{
	keep(req);
	op->interruptible = true;
	onefd_prep_poll(&op->req, never, EPOLLIN);
	must(onefd_fuse_submit(op, let_go));
}

START_TEST(interrupt_may_come_before_its_request)
{
	never = (int)must_libc(eventfd(0, EFD_CLOEXEC));
	begin(NULL);
	send_interrupt(2);
	handler = wait_for_ever;
	send_lookup(2);
	while (stats().cancelled == 0 || stats().in_hand)
		must(onefd_dispatch(loop, -1));
	expect_reply(2, -EINTR);
	ck_assert_uint_eq(stats().interrupted, 1);
	handler = NULL;
	close(never);
	leave();
}
END_TEST

static void came(struct onefd_req *req)
{
	ck_assert_int_eq(req->res, EPOLLIN);
	(void)fuse_reply_err(op->fuse, EIO);
	onefd_fuse_end(op);
}

static void wait_for_event(fuse_req_t req)
{
	keep(req);
	onefd_prep_poll(&op->req, never, EPOLLIN);
	must(onefd_fuse_submit(op, came));
}

/* Of a process in another name space nobody knows whether it is dying. */
START_TEST(unknown_sender_is_not_dying)
{
	uint64_t one = 1;

	never = (int)must_libc(eventfd(0, EFD_CLOEXEC));
	begin(NULL);
	handler = wait_for_event;
	send_lookup(2);
	send_interrupt(2);
	while (stats().interrupted == 0)
		must(onefd_dispatch(loop, -1));
	ck_assert_uint_eq(stats().cancelled, 0);
	ck_assert_int_eq(write(never, &one, sizeof one), sizeof one);
	while (stats().in_hand)
		must(onefd_dispatch(loop, -1));
	expect_reply(2, -EIO);
	handler = NULL;
	close(never);
	leave();
}
END_TEST

/* The request stays in hand, to be replied to. */
START_TEST(request_that_the_loop_refuses_is_in_hand_still)
{
	begin(NULL);
	handler = keep;
	send_lookup(2);
	must(onefd_dispatch(loop, -1));
	onefd_prep_call(&op->req, NULL, NULL);
	ck_assert_int_eq(onefd_fuse_submit(op, came), -EINVAL);
	ck_assert_uint_eq(stats().in_hand, 1);
	(void)fuse_reply_err(op->fuse, EIO);
	onefd_fuse_end(op);
	handler = NULL;
	leave();
}
END_TEST

static void unused(struct onefd_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
}

START_TEST(start_that_fails_may_be_tried_again)
{
	struct onefd_watch watch;
	int fd, device;

	begin(NULL);
	onefd_fuse_stop(fuse);
	while (!ended)
		must(onefd_dispatch(loop, -1));
	ended = 0;
	device = fuse_session_fd(session);
	onefd_watch_init(&watch, device, unused);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	ck_assert_int_eq(onefd_fuse_start(fuse, note_end, &ended), -EEXIST);
	onefd_watch_stop(&watch);
	fd = dup(device);
	close(device);
	ck_assert_int_eq(onefd_fuse_start(fuse, note_end, &ended), -EBADF);
	ck_assert_int_eq(dup2(fd, device), device);
	close(fd);
	must(onefd_fuse_start(fuse, note_end, &ended));
	leave();
}
END_TEST

/* libfuse has the kernel send it again, and it is gone with what it was for. */
START_TEST(interrupt_of_what_is_answered_harms_nobody)
{
	begin(NULL);
	send_lookup(2);
	send_interrupt(2);
	send_lookup(3);
	while (looked_up < 2)
		must(onefd_dispatch(loop, -1));
	expect_reply(2, -ENOENT);
	expect_reply(2 | 1ull << 63, -EAGAIN);
	expect_reply(3, -ENOENT);
	ck_assert_uint_eq(stats().interrupted, 0);
	leave();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fuse_device");
	TCase *tcase = add_case(suite, "device", make_loop, free_loop);

	tcase_add_test(tcase, again_and_interrupted_are_no_end);
	tcase_add_loop_test(tcase, other_errors_are_the_reason_of_the_end, 0, 4);
	tcase_add_test(tcase, budget_lets_others_have_their_turn);
	tcase_add_test(tcase, full_is_seen_at_once);
	tcase_add_test(tcase, lost_descriptor_ends_a_full_session);
	tcase_add_test(tcase, interrupt_may_come_before_its_request);
	tcase_add_test(tcase, unknown_sender_is_not_dying);
	tcase_add_test(tcase, request_that_the_loop_refuses_is_in_hand_still);
	tcase_add_test(tcase, start_that_fails_may_be_tried_again);
	tcase_add_test(tcase, interrupt_of_what_is_answered_harms_nobody);
	return run_suite(suite);
}
