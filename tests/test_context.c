/* test_context.c - one kernel AIO context: what is granted, how its ring is
 * reaped. Pipes and IOCB_CMD_POLL complete when the test says so. */
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "../lib/context.h"
#include "../lib/sys.h"

#define COUNT 100

static struct sys_calls real;
static struct context context;
static int granted;		/* more than that is -EAGAIN */
static int asked[32], calls;

static void set_up(void)
{
	real = sys;
}

static int setup_up_to(int depth, io_context_t *ctx)
{
	asked[calls++] = depth;
	return depth > granted ? -EAGAIN : real.io_setup(depth, ctx);
}

START_TEST(depth_is_halved_until_it_is_granted)
{
	sys.io_setup = setup_up_to;
	granted = 20;
	must(context_open(&context, 128, NULL, true));
	ck_assert_uint_eq(context.depth, 16);
	ck_assert_int_eq(context.refused, -EAGAIN);
	ck_assert_int_eq(calls, 4);
	ck_assert_int_eq(asked[0], 128);
	context_close(&context);
}
END_TEST

START_TEST(nothing_granted_is_told)
{
	sys.io_setup = setup_up_to;
	granted = 0;
	ck_assert_int_eq(context_open(&context, 128, NULL, true), -EAGAIN);
	ck_assert_int_eq(asked[calls - 1], 1);
}
END_TEST

/* Completions of @count polls, by way of a pipe that is writable already. */
static void complete(struct iocb *iocbs, int fd, int count)
{
	struct iocb *batch[COUNT];

	for (int i = 0; i < count; i++) {
		io_prep_poll(&iocbs[i], fd, POLLOUT);
		iocbs[i].data = &iocbs[i];
		batch[i] = &iocbs[i];
	}
	ck_assert_int_eq(sys.io_submit(context.id, count, batch), count);
}

/* Rounds enough to go past the end of the ring, in lots that are not its size. */
static void reap_around(bool use_ring)
{
	struct iocb iocbs[COUNT];
	struct io_event events[7];
	int fds[2];

	must_libc(pipe(fds));
	must(context_open(&context, COUNT, NULL, use_ring));
	ck_assert_int_eq(context.ring != NULL, use_ring);
	for (int round = 0; round < 30; round++) {
		uint32_t n, sum = 0;

		ck_assert_uint_eq(context_reap(&context, events, 7), 0);
		ck_assert(!context_ready(&context));
		complete(iocbs, fds[1], COUNT);
		ck_assert(!use_ring || context_ready(&context));
		while ((n = context_reap(&context, events, 7)) > 0) {
			for (uint32_t i = 0; i < n; i++) {
				struct iocb *iocb = events[i].data;

				ck_assert_ptr_nonnull(iocb->data);
				iocb->data = NULL;	/* once each */
				ck_assert_int_eq((long)events[i].res, POLLOUT);
			}
			sum += n;
		}
		ck_assert_uint_eq(sum, COUNT);
	}
	context_close(&context);
	close(fds[0]);
	close(fds[1]);
}

START_TEST(ring_is_reaped_past_its_end)
{
	reap_around(true);
}
END_TEST

START_TEST(getevents_reap_the_same)
{
	reap_around(false);
	ck_assert_ptr_nonnull(context.ring_why);
}
END_TEST

START_TEST(ring_lies_where_it_is_wanted)
{
	size_t room = 1 << 20;
	void *address = sys.map(NULL, room);
	struct iocb iocb;
	struct io_event event;
	int fds[2];

	sys.unmap(address, room);
	must_libc(pipe(fds));
	must(context_open(&context, 8, address, true));
	ck_assert_ptr_eq(context.id, address);
	ck_assert_ptr_null(context.moved_why);
	complete(&iocb, fds[1], 1);
	ck_assert_uint_eq(context_reap(&context, &event, 1), 1);
	context_close(&context);
}
END_TEST

START_TEST(taken_address_is_no_failure)
{
	size_t room = 1 << 20;
	void *address = sys.map(NULL, room);

	memset(address, 0x5a, room);
	must(context_open(&context, 8, address, true));
	ck_assert_ptr_ne(context.id, address);
	ck_assert_ptr_nonnull(context.moved_why);
	for (size_t i = 0; i < room; i++)
		if (((unsigned char *)address)[i] != 0x5a)
			ck_abort_msg("what was there has been overwritten");
	context_close(&context);
	sys.unmap(address, room);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("context");
	TCase *tcase = add_case(suite, "context", set_up, NULL);

	tcase_add_test(tcase, depth_is_halved_until_it_is_granted);
	tcase_add_test(tcase, nothing_granted_is_told);
	tcase_add_test(tcase, getevents_reap_the_same);
	/* A case of its own: valgrind does not see the kernel write to the ring,
	 * nor does it know MAP_FIXED_NOREPLACE. */
	tcase = add_case(suite, "ring", set_up, NULL);
	tcase_add_test(tcase, ring_is_reaped_past_its_end);
	tcase_add_test(tcase, ring_lies_where_it_is_wanted);
	tcase_add_test(tcase, taken_address_is_no_failure);
	tcase_set_tags(tcase, "ring");
	return run_suite(suite);
}
