/* test_fuse.c - a FUSE session on a loop: requests in hand, and how it ends. */
#include "fuse_mount.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/xattr.h>

/* ---- requests ------------------------------------------------------------- */

START_TEST(handler_may_answer_at_once)
{
	struct client client;

	serve(NULL);
	start_client(&client, read_page, 3);
	end_client(&client, 0);
	ck_assert_uint_eq(stats()->begun, 0);
	ck_assert_uint_ge(stats()->received, 4);
	finish();
}
END_TEST

static ssize_t answer(void *arg)
{
	struct held *one = arg;

	fill(one->op->memory, one->size, one->offset);
	return (ssize_t)one->size;
}

static void answered(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);

	ck_assert_int_gt(req->res, 0);
	(void)fuse_reply_buf(op->fuse, op->memory, (size_t)req->res);
	onefd_fuse_end(op);
}

static void read_by_a_worker(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	struct held *one;

	hold_read(req, ino, size, offset);
	one = &held[held_count - 1];
	onefd_prep_call(&one->op->req, answer, one);
	must(onefd_fuse_submit(one->op, answered));
}

START_TEST(completion_may_answer)
{
	struct client clients[20];

	on_read = read_by_a_worker;
	serve(NULL);
	for (int i = 0; i < 20; i++)
		start_client(&clients[i], read_page, i);
	for (int i = 0; i < 20; i++)
		end_client(&clients[i], 0);
	ck_assert_uint_eq(stats()->begun, 20);
	ck_assert_uint_eq(stats()->in_hand, 0);
	finish();
}
END_TEST

#define WRITERS 64
#define WRITTEN (128 << 10)

static int write_own_bytes(const char *path, int number)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	char *bytes = malloc(WRITTEN);
	ssize_t n;

	fill(bytes, WRITTEN, number * 7919l);
	n = fd < 0 ? -1 : pwrite(fd, bytes, WRITTEN, 0);
	free(bytes);
	return n < 0 ? errno : n != WRITTEN;
}

static void hold_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset)
{
	hold_read(req, ino, size, offset);
	held[held_count - 1].bytes = bytes;
}

START_TEST(bytes_of_a_write_are_aligned_and_stay_until_its_end)
{
	struct client clients[WRITERS];
	char *bytes = malloc(WRITTEN);

	on_write = hold_write;
	serve(NULL);
	for (int i = 0; i < WRITERS; i++)
		start_client(&clients[i], write_own_bytes, i);
	run_until(held_count == WRITERS);
	for (int i = 0; i < WRITERS; i++) {
		ck_assert_uint_eq((uintptr_t)held[i].bytes % 4096, 0);
		ck_assert_uint_eq(held[i].size, WRITTEN);
		fill(bytes, WRITTEN, (off_t)(held[i].ino - 2) * 7919);
		ck_assert_mem_eq(held[i].bytes, bytes, WRITTEN);
		(void)fuse_reply_write(held[i].op->fuse, WRITTEN);
		onefd_fuse_end(held[i].op);
	}
	for (int i = 0; i < WRITERS; i++)
		end_client(&clients[i], 0);
	free(bytes);
	finish();
}
END_TEST

/* The longest that there are: a name, and a value of an attribute. */
static char longest[256], value[65536];

static void answer_into_memory(struct onefd_fuse_op *op)
{
	ck_assert_uint_eq((uintptr_t)op->memory % 4096, 0);
	ck_assert_uint_eq(op->size, 1 << 20);
	memset(op->memory, 'x', op->size);
}

static void check_lookup(fuse_req_t req, const char *name)
{
	struct onefd_fuse_op *op = hold(req)->op;

	answer_into_memory(op);
	ck_assert_str_eq(name, longest);
	reply_entry(req, name);
	onefd_fuse_end(op);
}

static void check_setxattr(fuse_req_t req, const char *name, const char *bytes, size_t size)
{
	struct onefd_fuse_op *op = hold(req)->op;

	answer_into_memory(op);
	ck_assert_str_eq(name, longest);
	ck_assert_mem_eq(bytes, value, size);
	ck_assert_uint_eq(size, sizeof value);
	(void)fuse_reply_err(req, 0);
	onefd_fuse_end(op);
}

static int set_attribute(const char *path, int number)
{
	(void)number;
	return setxattr(path, longest, value, sizeof value, 0) < 0 ? errno : 0;
}

START_TEST(memory_for_the_answer_is_aligned_and_no_part_of_the_request)
{
	struct client client;
	char path[PATH_MAX];

	memset(longest, 'u', 255);
	memcpy(longest, "user.", 5);
	memset(value, 'v', sizeof value);
	on_lookup = check_lookup;
	on_setxattr = check_setxattr;
	serve(NULL);
	snprintf(path, sizeof path, "%s/%s", here.path, longest);
	start_client_at(&client, set_attribute, path, 0);
	end_client(&client, 0);
	ck_assert_int_eq(held_count, 2);
	finish();
}
END_TEST

static void hold_lookup(fuse_req_t req, const char *name)
{
	(void)name;
	(void)hold(req);
}

/* libfuse 3.14 forgets to ask for it. */
START_TEST(names_of_a_directory_are_looked_up_side_by_side)
{
	struct client clients[2];

	serve(NULL);
	/* Who comes before the kernel was answered takes the directory's lock, and waits with it.
	 */
	run_until(stats()->received);
	on_lookup = hold_lookup;
	for (int i = 0; i < 2; i++)
		start_client(&clients[i], read_page, i);
	run_until(held_count == 2);
	on_lookup = NULL;
	for (int i = 0; i < 2; i++) {
		reply_entry(held[i].op->fuse, "f0");
		onefd_fuse_end(held[i].op);
	}
	for (int i = 0; i < 2; i++)
		end_client(&clients[i], 0);
	finish();
}
END_TEST

static void begin_twice(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	hold_read(req, ino, size, offset);
	ck_assert_ptr_null(onefd_fuse_begin(here.fuse, req));
	answer_read(&held[0]);
	ck_assert_ptr_null(onefd_fuse_begin(here.fuse, req));
}

START_TEST(begin_is_once_and_in_a_handler)
{
	struct client client;

	on_read = begin_twice;
	serve(NULL);
	ck_assert_ptr_null(onefd_fuse_begin(here.fuse, NULL));
	ck_assert_ptr_null(onefd_fuse_begin(NULL, NULL));
	start_client(&client, read_page, 0);
	end_client(&client, 0);
	/* Ended already: no other request's room is given back for it. */
	onefd_fuse_end(held[0].op);
	onefd_fuse_end(NULL);
	ck_assert_uint_eq(stats()->in_hand, 0);
	ck_assert_int_eq(onefd_fuse_submit(held[0].op, answered), -EINVAL);
	finish();
}
END_TEST

static void keep_data(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	uint64_t *data;

	hold_read(req, ino, size, offset);
	data = held[held_count - 1].op->data;
	ck_assert_uint_eq((uintptr_t)data % 16, 0);
	ck_assert_uint_eq(data[0], (uint64_t)held_count - 1);
	data[0]++;
	data[12]++;
	/* An answer may be as long as an attribute's value, whatever a read may be. */
	ck_assert_uint_eq(held[held_count - 1].op->size, 65536);
	answer_read(&held[held_count - 1]);
}

START_TEST(data_is_as_the_last_user_left_it)
{
	struct client client;

	on_read = keep_data;
	serve(&(struct onefd_fuse_config){
		.depth = 1, .transfer = 4096, .extra = 13 * sizeof(uint64_t) });
	for (int i = 0; i < 3; i++) {
		start_client(&client, read_page, i);
		end_client(&client, 0);
	}
	finish();
}
END_TEST

/* ---- back-pressure ------------------------------------------------------------ */

#define DEPTH 4

static const struct onefd_fuse_config small = { .depth = DEPTH };
static struct client crowd[2 * DEPTH];

/* As many in hand as may be, and as many more in the kernel. */
static void crowd_in(void)
{
	on_read = hold_read;
	serve(&small);
	for (int i = 0; i < 2 * DEPTH; i++)
		start_client(&crowd[i], read_page, i);
	run_until(held_count == DEPTH);
	while (must(onefd_dispatch(loop, 0)) > 0)
		;
}

static void answer_crowd(int first)
{
	for (int i = first; i < 2 * DEPTH; i++) {
		run_until(held_count > i);
		answer_read(&held[i]);
	}
	for (int i = 0; i < 2 * DEPTH; i++)
		end_client(&crowd[i], 0);
}

START_TEST(with_depth_in_hand_no_more_is_received)
{
	uint64_t received;

	crowd_in();
	ck_assert_uint_eq(stats()->in_hand, DEPTH);
	ck_assert_uint_eq(stats()->full, 1);
	received = stats()->received;
	ck_assert_int_eq(onefd_dispatch(loop, 50), 0);
	ck_assert_uint_eq(stats()->received, received);
	ck_assert_int_eq(held_count, DEPTH);
	answer_read(&held[0]);
	run_until(held_count == DEPTH + 1);
	ck_assert_uint_eq(stats()->full, 2);
	answer_crowd(1);
	ck_assert_uint_eq(stats()->in_hand_most, DEPTH);
	finish();
}
END_TEST

START_TEST(full_session_leaves_the_loop_asleep)
{
	int fd = onefd_fd(loop);

	crowd_in();
	ck_assert(!readable(fd));
	answer_read(&held[0]);
	wait_readable(fd);
	run_until(held_count == DEPTH + 1);
	answer_crowd(1);
	finish();
}
END_TEST

/* Of 8, what reads ahead has 6. */
START_TEST(look_up_finds_room_beside_reads_in_the_background)
{
	struct client readers[16], client;

	through_pages = true;
	on_read = hold_read;
	serve(&(struct onefd_fuse_config){ .depth = 8 });
	for (int i = 0; i < 16; i++)
		start_client(&readers[i], look, i);
	for (int i = 0; i < 16; i++)
		end_client(&readers[i], 0);
	for (int i = 0; i < 16; i++)
		start_client(&readers[i], read_page, i);
	run_until(held_count >= 6);
	start_client(&client, look, 100);
	end_client(&client, 0);
	on_read = NULL;
	for (int i = 0; i < held_count; i++)
		answer_read(&held[i]);
	for (int i = 0; i < 16; i++)
		end_client(&readers[i], 0);
	finish();
}
END_TEST

/* ---- what the kernel is asked for -------------------------------------------- */

/* The number of the connection: that of the mount's device. */
static int connection(const struct mounted *mounted)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char line[1024], path[256];
	int minor = -1, major;

	ck_assert_ptr_nonnull(mounts);
	while (fgets(line, sizeof line, mounts)) {
		int number;

		if (sscanf(line, "%*d %*d %d:%d %*s %255s", &major, &number, path) == 3 &&
		    !strcmp(path, mounted->path))
			minor = number;
	}
	(void)fclose(mounts);
	ck_assert_int_ge(minor, 0);
	return minor;
}

/* The file of that name that controls the connection. */
static int open_control(const struct mounted *mounted, const char *name, int flags)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/control", top);
	if (mkdir(path, 0700) == 0)
		must_libc(mount("none", path, "fusectl", 0, NULL));
	snprintf(path, sizeof path, "%s/control/%d/%s", top, connection(mounted), name);
	return (int)must_libc(open(path, flags | O_CLOEXEC));
}

static int controlled(const char *name)
{
	char text[32] = "";
	int fd = open_control(&here, name, O_RDONLY);

	must_libc(read(fd, text, sizeof text - 1));
	close(fd);
	return atoi(text);
}

static void abort_connection(const struct mounted *mounted)
{
	int fd = open_control(mounted, "abort", O_WRONLY);

	ck_assert_int_eq(write(fd, "1", 1), 1);
	close(fd);
}

static size_t most_read, most_written;

static void note_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	(void)ino;
	if (size > most_read)
		most_read = size;
	reply_bytes(req, size, offset);
}

static void note_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset)
{
	(void)ino;
	(void)bytes;
	(void)offset;
	if (size > most_written)
		most_written = size;
	(void)fuse_reply_write(req, size);
}

static int move_much(const char *path, int number)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char *bytes = aligned_alloc(4096, FILE_SIZE);
	ssize_t n = pread(fd, bytes, FILE_SIZE, 0);

	(void)number;
	if (n == FILE_SIZE)
		n = pwrite(fd, bytes, FILE_SIZE, 0);
	free(bytes);
	return n < 0 ? errno : n != FILE_SIZE;
}

START_TEST(kernel_is_asked_for_depth_and_transfer)
{
	static const uint32_t transfers[] = { 4096, 131072, 0 };
	uint32_t transfer = transfers[_i] ? transfers[_i] : 1 << 20;
	struct onefd_fuse_config config = { .depth = 50, .transfer = transfers[_i] };
	struct client client;

	on_read = note_read;
	on_write = note_write;
	serve(&config);
	start_client(&client, move_much, 0);
	end_client(&client, 0);
	ck_assert_int_eq(controlled("max_background"), 38);
	ck_assert_int_eq(controlled("congestion_threshold"), 29);
	ck_assert_uint_eq(most_read, transfer);
	ck_assert_uint_eq(most_written, transfer);
	finish();
}
END_TEST

/* ---- interrupts ---------------------------------------------------------------- */

static int never[2]; /* a pipe that nothing is in, until somebody writes */
static bool interruptible;

static void never_came(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);
	struct held *one = &held[0];

	while (one->op != op)
		one++;
	if (req->res == -ECANCELED) {
		(void)fuse_reply_err(op->fuse, EINTR);
		onefd_fuse_end(op);
	} else {
		answer_read(one);
	}
}

static void wait_for_ever(struct onefd_fuse_op *op)
{
	op->interruptible = interruptible;
	onefd_prep_poll(&op->req, never[0], EPOLLIN);
	must(onefd_fuse_submit(op, never_came));
}

static void read_waits(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	hold_read(req, ino, size, offset);
	wait_for_ever(held[held_count - 1].op);
}

static void nothing(int signo)
{
	(void)signo;
}

static int read_with_a_handler(const char *path, int number)
{
	struct sigaction action = { .sa_handler = nothing };

	sigaction(SIGUSR1, &action, NULL);
	return read_page(path, number);
}

/* One client that waits for what never comes. */
static void begin_waiting(struct client *client)
{
	must_libc(pipe2(never, O_CLOEXEC));
	serve(NULL);
	start_client(client, read_with_a_handler, 1);
	run_until(held_count == 1);
	(void)onefd_flush(loop);
}

static void finish_waiting(void)
{
	finish();
	close(never[0]);
	close(never[1]);
}

START_TEST(signal_interrupts_what_is_interruptible)
{
	struct client client;

	on_read = read_waits;
	interruptible = true;
	begin_waiting(&client);
	must_libc(kill(client.child.pid, SIGUSR1));
	end_client(&client, EINTR);
	ck_assert_uint_eq(stats()->interrupted, 1);
	ck_assert_uint_eq(stats()->cancelled, 1);
	finish_waiting();
}
END_TEST

START_TEST(signal_leaves_the_rest_alone)
{
	struct client client;

	on_read = read_waits;
	begin_waiting(&client);
	must_libc(kill(client.child.pid, SIGUSR1));
	run_until(stats()->interrupted == 1);
	ck_assert_uint_eq(stats()->cancelled, 0);
	ck_assert_int_eq(write(never[1], "x", 1), 1);
	end_client(&client, 0);
	finish_waiting();
}
END_TEST

/* So it is where /proc, which tells who is dying, is not there. */
START_TEST(nobody_is_taken_for_dying_without_proc)
{
	struct client client;

	must_libc(mount("onefd-tests", "/proc", "tmpfs", 0, NULL));
	on_read = read_waits;
	begin_waiting(&client);
	must_libc(kill(client.child.pid, SIGUSR1));
	run_until(stats()->interrupted == 1);
	ck_assert_uint_eq(stats()->cancelled, 0);
	ck_assert_int_eq(write(never[1], "x", 1), 1);
	end_client(&client, 0);
	finish_waiting();
	must_libc(umount("/proc"));
}
END_TEST

/* By SIGKILL, and by one that it has no handler for. */
START_TEST(dying_process_is_let_go)
{
	static const int signals[] = { SIGKILL, SIGTERM };
	struct client client;

	on_read = read_waits;
	begin_waiting(&client);
	must_libc(kill(client.child.pid, signals[_i]));
	run_until(client.gone);
	ck_assert_int_eq(client.code, CLD_KILLED);
	ck_assert_int_eq(client.status, signals[_i]);
	ck_assert_uint_eq(stats()->cancelled, 1);
	finish_waiting();
}
END_TEST

START_TEST(interrupt_before_submit_cancels_at_submit)
{
	struct client client;
	uint64_t received;

	on_read = hold_read;
	interruptible = true;
	begin_waiting(&client);
	received = stats()->received;
	must_libc(kill(client.child.pid, SIGUSR1));
	run_until(stats()->received > received);
	ck_assert_uint_eq(stats()->interrupted, 0);
	wait_for_ever(held[0].op);
	ck_assert_uint_eq(stats()->interrupted, 1);
	ck_assert_uint_eq(stats()->in_hand, 1);
	end_client(&client, EINTR);
	finish_waiting();
}
END_TEST

/* ---- the end -------------------------------------------------------------------- */

/* After a stop nobody answers a client's close: clients end when the mount does. */

START_TEST(stop_waits_for_what_is_in_hand)
{
	struct client client;

	on_read = hold_read;
	serve(NULL);
	start_client(&client, read_page, 1);
	run_until(held_count == 1);
	onefd_fuse_stop(here.fuse);
	ck_assert_int_eq(onefd_fuse_free(here.fuse), -EBUSY);
	ck_assert_int_eq(onefd_fuse_start(here.fuse, note_end, &here), -EBUSY);
	ck_assert_int_eq(onefd_dispatch(loop, 50), 0);
	answer_read(&held[0]);
	ck_assert_int_eq(here.ended, 0);
	ck_assert_int_eq(onefd_fuse_free(here.fuse), -EBUSY);
	finish();
	end_client(&client, 0);
}
END_TEST

START_TEST(stop_is_once)
{
	serve(NULL);
	onefd_fuse_stop(here.fuse);
	onefd_fuse_stop(here.fuse);
	ck_assert_int_eq(here.ended, 0);
	run_until(here.ended);
	onefd_fuse_stop(here.fuse);
	onefd_fuse_stop(NULL);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	finish();
}
END_TEST

START_TEST(what_was_never_started_is_not_stopped)
{
	mount_one(&here, "here", NULL);
	onefd_fuse_stop(here.fuse);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	unmount_one(&here);
	ck_assert_int_eq(here.ended, 0);
}
END_TEST

static void stop_then_begin(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	onefd_fuse_stop(here.fuse);
	hold_read(req, ino, size, offset);
}

static void begin_then_stop(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	hold_read(req, ino, size, offset);
	onefd_fuse_stop(here.fuse);
}

START_TEST(stop_in_a_handler_waits_for_its_request)
{
	struct client client;

	on_read = _i ? stop_then_begin : begin_then_stop;
	serve(&small);
	start_client(&client, read_page, 1);
	run_until(held_count == 1);
	while (must(onefd_dispatch(loop, 0)) > 0)
		;
	ck_assert_int_eq(here.ended, 0);
	answer_read(&held[0]);
	finish();
	end_client(&client, 0);
}
END_TEST

static void answer_and_stop(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	hold_read(req, ino, size, offset);
	answer_read(&held[held_count - 1]);
	onefd_fuse_stop(here.fuse);
}

/* Also where all the room there is was used in the handler that stopped it. */
START_TEST(session_serves_again_after_a_stop)
{
	struct client client;

	on_read = answer_and_stop;
	serve(&(struct onefd_fuse_config){ .depth = 1 });
	for (int i = 0; i < 3; i++) {
		start_client(&client, read_page, i);
		run_until(here.ended == i + 1);
		ck_assert_int_eq(here.reason, 0);
		must(onefd_fuse_start(here.fuse, note_end, &here));
		end_client(&client, 0);
	}
	here.ended = 0;
	finish();
}
END_TEST

/* The mount stays, and who uses it waits meanwhile; on another loop, too. */
START_TEST(session_is_handed_on)
{
	struct onefd *first = loop;
	struct client client;

	serve(NULL);
	start_client(&client, read_page, 1);
	end_client(&client, 0);
	onefd_fuse_stop(here.fuse);
	run_until(here.ended);
	must(onefd_fuse_free(here.fuse));
	must(onefd_free(first));
	here.ended = 0;
	must(onefd_new(&loop, test_config()));
	must(onefd_fuse_new(&here.fuse, loop, here.session, &small));
	must(onefd_fuse_start(here.fuse, note_end, &here));
	on_write = hold_write;
	start_client(&client, write_own_bytes, 2);
	run_until(held_count == 1);
	ck_assert_uint_eq((uintptr_t)held[0].bytes % 4096, 0);
	(void)fuse_reply_write(held[0].op->fuse, held[0].size);
	onefd_fuse_end(held[0].op);
	end_client(&client, 0);
	finish();
}
END_TEST

START_TEST(end_interrupts_what_is_interruptible)
{
	struct client client;

	on_read = read_waits;
	interruptible = true;
	begin_waiting(&client);
	onefd_fuse_stop(here.fuse);
	run_until(here.ended);
	ck_assert_uint_eq(stats()->cancelled, 1);
	finish_waiting();
	end_client(&client, EINTR);
}
END_TEST

START_TEST(what_is_submitted_at_the_end_is_interrupted)
{
	struct client client;

	on_read = hold_read;
	interruptible = true;
	begin_waiting(&client);
	onefd_fuse_stop(here.fuse);
	wait_for_ever(held[0].op);
	finish_waiting();
	end_client(&client, EINTR);
}
END_TEST

/* Until a read has been answered. */
static void serve_a_read(void)
{
	struct client client;

	serve(NULL);
	start_client(&client, read_page, 0);
	end_client(&client, 0);
}

/* As a stop, but that libfuse is to be told that it is over. */
START_TEST(session_exit_ends_it_at_the_next_request)
{
	struct client client;

	serve_a_read();
	fuse_session_exit(here.session);
	start_client(&client, look, 1);
	run_until(here.ended);
	finish();
	end_client(&client, ECONNABORTED);
}
END_TEST

START_TEST(session_whose_wants_are_refused_ends)
{
	too_much = 1u << 31;
	serve(NULL);
	run_until(here.ended);
	finish();
}
END_TEST

START_TEST(aborted_session_ends_with_enodev)
{
	serve_a_read();
	abort_connection(&here);
	run_until(here.ended);
	ck_assert_int_eq(here.reason, -ENODEV);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	unmount_one(&here);
}
END_TEST

/* Full or not: replies are in vain, and the loop does not spin meanwhile. */
START_TEST(aborted_session_ends_after_what_is_in_hand)
{
	struct client client;

	on_read = hold_read;
	serve(_i ? &(struct onefd_fuse_config){ .depth = 1 } : NULL);
	start_client(&client, read_page, 0);
	run_until(held_count == 1);
	ck_assert_uint_eq(stats()->full, (uint64_t)_i);
	abort_connection(&here);
	end_client(&client, ECONNABORTED);
	while (must(onefd_dispatch(loop, 0)) > 0)
		;
	ck_assert(!readable(onefd_fd(loop)));
	ck_assert_int_eq(here.ended, 0);
	ck_assert_int_eq(fuse_reply_err(held[0].op->fuse, EIO), -ENOENT);
	onefd_fuse_end(held[0].op);
	run_until(here.ended);
	ck_assert_int_eq(here.reason, -ENODEV);
	unmount_one(&here);
}
END_TEST

static int unmount_lazily(const char *path, int number)
{
	(void)number;
	return umount2(path, MNT_DETACH) < 0 ? errno : 0;
}

START_TEST(unmounted_session_ends_with_enodev)
{
	struct client client;

	serve_a_read();
	start_client_at(&client, unmount_lazily, here.path, 0);
	end_client(&client, 0);
	run_until(here.ended);
	ck_assert_int_eq(here.reason, -ENODEV);
	unmount_one(&here);
}
END_TEST

START_TEST(mountpoint_takes_the_next_session)
{
	struct client client;

	for (int i = 0; i < 3; i++) {
		serve(NULL);
		start_client(&client, read_page, i);
		end_client(&client, 0);
		finish();
	}
}
END_TEST

static void free_all(struct onefd_fuse *fuse, void *data, int reason)
{
	(void)data;
	here.ended++;
	here.reason = reason;
	fuse_session_unmount(here.session);
	fuse_session_destroy(here.session);
	must(onefd_fuse_free(fuse));
}

/* And the run, which has nothing to do but this, comes to its end. */
START_TEST(fn_may_free_all_of_it)
{
	mount_one(&here, "here", NULL);
	must(onefd_fuse_start(here.fuse, free_all, NULL));
	onefd_fuse_stop(here.fuse);
	must(onefd_run(loop));
	ck_assert_int_eq(here.ended, 1);
}
END_TEST

/* ---- whatever clients do ------------------------------------------------------------- */

/* In op->data. */
struct later {
	struct onefd_timer timer;
	size_t size;
	off_t offset;
};

static unsigned seed;

static void reply_later(struct onefd_fuse_op *op)
{
	const struct later *later = op->data;

	fill(op->memory, later->size, later->offset);
	(void)fuse_reply_buf(op->fuse, op->memory, later->size);
	onefd_fuse_end(op);
}

static void rung(struct onefd_timer *timer)
{
	reply_later(timer->data);
}

static ssize_t nothing_much(void *arg)
{
	(void)arg;
	return 0;
}

static void worked(struct onefd_req *req)
{
	reply_later(onefd_container(req, struct onefd_fuse_op, req));
}

/* At once, by a timer, by a worker. */
static void read_at_random(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	struct onefd_fuse_op *op = onefd_fuse_begin(here.fuse, req);
	struct later *later = op->data;
	int how = rand_r(&seed) % 3;

	(void)ino;
	later->size = size;
	later->offset = offset;
	op->interruptible = rand_r(&seed) % 2;
	if (how == 0) {
		reply_later(op);
	} else if (how == 1) {
		onefd_timer_init(&later->timer, rung);
		later->timer.data = op;
		onefd_timer_start(loop, &later->timer,
				  onefd_now(loop) + (uint64_t)rand_r(&seed) % 1000000);
	} else {
		onefd_prep_call(&op->req, nothing_much, NULL);
		must(onefd_fuse_submit(op, worked));
	}
}

static int read_on(const char *path, int number)
{
	struct sigaction action = { .sa_handler = nothing };
	int r = 0;

	sigaction(SIGUSR1, &action, NULL);
	for (int i = 0; i < 20 && r == 0; i++)
		r = read_page(path, (number + i) % 1000);
	return r;
}

/* Signalled and killed at any time, more of them than requests may be in hand. */
START_TEST(clients_that_are_killed_leave_nothing_behind)
{
	struct client clients[20];

	seed = (unsigned)_i + 1;
	on_read = read_at_random;
	serve(&(struct onefd_fuse_config){
		.depth = 5, .budget = 3, .extra = sizeof(struct later) });
	for (int i = 0; i < 20; i++)
		start_client(&clients[i], read_on, i);
	/* Until as many as may be were in hand at once, however slow the machine is. */
	for (int i = 0; i < 200 || stats()->in_hand_most < 5; i++) {
		struct client *client = &clients[rand_r(&seed) % 20];

		must(onefd_dispatch(loop, 1));
		if (!client->gone)
			(void)kill(client->child.pid, i % 4 ? SIGUSR1 : SIGKILL);
		else
			start_client(client, read_on, i);
	}
	for (int i = 0; i < 20; i++) {
		run_until(clients[i].gone);
		if (clients[i].code == CLD_EXITED)
			ck_assert(clients[i].status == 0 || clients[i].status == EINTR);
	}
	run_until(stats()->in_hand == 0);
	ck_assert_uint_eq(stats()->in_hand_most, 5);
	finish();
}
END_TEST

/* ---- beside others ----------------------------------------------------------------- */

START_TEST(sessions_share_a_loop)
{
	struct mounted other;
	struct client clients[16];
	char path[PATH_MAX];

	serve(NULL);
	mount_one(&other, "other", NULL);
	must(onefd_fuse_start(other.fuse, note_end, &other));
	for (int i = 0; i < 16; i++) {
		snprintf(path, sizeof path, "%s/f%d", i % 2 ? here.path : other.path, i);
		start_client_at(&clients[i], read_page, path, i);
	}
	for (int i = 0; i < 16; i++)
		end_client(&clients[i], 0);
	abort_connection(&other);
	run_until(other.ended);
	ck_assert_int_eq(other.reason, -ENODEV);
	unmount_one(&other);
	start_client(&clients[0], read_page, 1);
	end_client(&clients[0], 0);
	finish();
}
END_TEST

START_TEST(host_waits_on_the_descriptor)
{
	struct epoll_event event = { .events = EPOLLIN };
	int host = (int)must_libc(epoll_create1(EPOLL_CLOEXEC));
	struct client client;

	on_read = read_by_a_worker;
	must_libc(epoll_ctl(host, EPOLL_CTL_ADD, onefd_fd(loop), &event));
	serve(NULL);
	start_client(&client, read_page, 1);
	while (!client.gone) {
		ck_assert_int_eq(epoll_wait(host, &event, 1, CASE_TIMEOUT_S * 1000), 1);
		must(onefd_dispatch(loop, 0));
	}
	ck_assert_int_eq(client.status, 0);
	onefd_fuse_stop(here.fuse);
	ck_assert_int_eq(epoll_wait(host, &event, 1, CASE_TIMEOUT_S * 1000), 1);
	finish();
	close(host);
}
END_TEST

/* ---- what is refused ------------------------------------------------------------------ */

START_TEST(bad_config_is_refused)
{
	static const struct onefd_fuse_config bad[] = {
		{ .depth = 65537 },	    { .transfer = 4095 },  { .transfer = 2 << 20 },
		{ .extra = (1 << 20) + 1 }, { .reserved = { 1 } }, { .reserved = { 0, 0, 1 } }, { .flags = 1 << 2 },
	};
	struct onefd_fuse *fuse = NULL;

	mount_one(&here, "here", NULL);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert_int_eq(onefd_fuse_new(&fuse, loop, here.session, &bad[i]), -EINVAL);
	ck_assert_int_eq(onefd_fuse_new(NULL, loop, here.session, NULL), -EINVAL);
	ck_assert_int_eq(onefd_fuse_new(&fuse, NULL, here.session, NULL), -EINVAL);
	ck_assert_int_eq(onefd_fuse_new(&fuse, loop, NULL, NULL), -EINVAL);
	ck_assert_ptr_null(fuse);
	unmount_one(&here);
}
END_TEST

START_TEST(no_address_space_is_no_memory)
{
	struct onefd_fuse_config config = { .depth = 65536 };
	struct rlimit usual, tight;
	struct onefd_fuse *fuse;
	unsigned long pages;
	FILE *statm = fopen("/proc/self/statm", "re");
	int r;

	ck_assert_int_eq(fscanf(statm, "%lu", &pages), 1);
	(void)fclose(statm);
	mount_one(&here, "here", NULL);
	must_libc(getrlimit(RLIMIT_AS, &usual));
	tight = (struct rlimit){ pages * 4096 + (1 << 30), usual.rlim_max };
	must_libc(setrlimit(RLIMIT_AS, &tight));
	r = onefd_fuse_new(&fuse, loop, here.session, &config);
	must_libc(setrlimit(RLIMIT_AS, &usual));
	ck_assert_int_eq(r, -ENOMEM);
	unmount_one(&here);
}
END_TEST

START_TEST(session_that_is_not_mounted_is_refused)
{
	struct fuse_session *session = new_session(NULL);
	struct onefd_fuse *fuse;

	ck_assert_int_eq(onefd_fuse_new(&fuse, loop, session, NULL), -EINVAL);
	fuse_session_destroy(session);
}
END_TEST

START_TEST(null_is_refused_or_ignored)
{
	struct onefd_fuse_stats none;

	mount_one(&here, "here", NULL);
	ck_assert_int_eq(onefd_fuse_free(NULL), 0);
	ck_assert_int_eq(onefd_fuse_start(NULL, note_end, NULL), -EINVAL);
	ck_assert_int_eq(onefd_fuse_start(here.fuse, NULL, NULL), -EINVAL);
	ck_assert_int_eq(onefd_fuse_submit(NULL, answered), -EINVAL);
	ck_assert_int_eq(onefd_fuse_stats(NULL, &none, sizeof none), -EINVAL);
	ck_assert_int_eq(onefd_fuse_stats(here.fuse, NULL, 0), -EINVAL);
	onefd_fuse_init(NULL, NULL);
	onefd_fuse_init(here.fuse, NULL);
	unmount_one(&here);
}
END_TEST

START_TEST(what_a_newer_header_counts_is_0)
{
	struct {
		struct onefd_fuse_stats known;
		uint64_t more[2];
	} counts;

	mount_one(&here, "here", NULL);
	memset(&counts, 0xff, sizeof counts);
	must(onefd_fuse_stats(here.fuse, &counts.known, sizeof counts));
	ck_assert_uint_eq(counts.more[1], 0);
	memset(&counts, 0xff, sizeof counts);
	must(onefd_fuse_stats(here.fuse, &counts.known, sizeof(uint64_t)));
	ck_assert_uint_eq(counts.known.received, 0);
	ck_assert_uint_eq(counts.known.begun, UINT64_MAX);
	unmount_one(&here);
}
END_TEST

static int try_as_a_child(void)
{
	struct onefd_fuse_stats none;
	struct onefd_fuse *fuse;

	onefd_fuse_stop(here.fuse);
	if (onefd_fuse_new(&fuse, loop, here.session, NULL) != -ECHILD)
		return 1;
	if (onefd_fuse_start(here.fuse, note_end, &here) != -ECHILD)
		return 2;
	if (onefd_fuse_stats(here.fuse, &none, sizeof none) != -ECHILD)
		return 3;
	if (onefd_fuse_submit(held[0].op, answered) != -ECHILD)
		return 4;
	onefd_fuse_end(held[0].op);
	if (onefd_fuse_begin(here.fuse, held[0].op->fuse))
		return 5;
	return onefd_fuse_free(here.fuse) != -ECHILD;
}

START_TEST(forked_child_is_refused)
{
	struct client client;
	int status;
	pid_t pid;

	on_read = hold_read;
	serve(NULL);
	start_client(&client, read_page, 0);
	run_until(held_count == 1);
	onefd_prep_call(&held[0].op->req, answer, &held[0]);
	pid = (pid_t)must_libc(fork());
	if (pid == 0)
		_exit(try_as_a_child());
	must_libc(waitpid(pid, &status, 0));
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	answer_read(&held[0]);
	end_client(&client, 0);
	finish();
}
END_TEST

int main(void)
{
	const char *reason = prepare();
	Suite *suite;
	TCase *tcase;

	if (reason)
		return skip_all(reason);
	suite = suite_create("fuse");
	tcase = add_case(suite, "requests", set_up, tear_down);
	tcase_add_test(tcase, handler_may_answer_at_once);
	tcase_add_test(tcase, completion_may_answer);
	tcase_add_test(tcase, bytes_of_a_write_are_aligned_and_stay_until_its_end);
	tcase_add_test(tcase, memory_for_the_answer_is_aligned_and_no_part_of_the_request);
	tcase_add_test(tcase, names_of_a_directory_are_looked_up_side_by_side);
	tcase_add_test(tcase, begin_is_once_and_in_a_handler);
	tcase_add_test(tcase, data_is_as_the_last_user_left_it);
	tcase_add_test(tcase, with_depth_in_hand_no_more_is_received);
	tcase_add_test(tcase, full_session_leaves_the_loop_asleep);
	tcase_add_test(tcase, look_up_finds_room_beside_reads_in_the_background);
	tcase_add_loop_test(tcase, kernel_is_asked_for_depth_and_transfer, 0, 3);
	tcase = add_case(suite, "interrupts", set_up, tear_down);
	tcase_add_test(tcase, signal_interrupts_what_is_interruptible);
	tcase_add_test(tcase, signal_leaves_the_rest_alone);
	tcase_add_test(tcase, nobody_is_taken_for_dying_without_proc);
	tcase_add_loop_test(tcase, dying_process_is_let_go, 0, 2);
	tcase_add_test(tcase, interrupt_before_submit_cancels_at_submit);
	tcase = add_case(suite, "end", set_up, tear_down);
	tcase_add_test(tcase, stop_waits_for_what_is_in_hand);
	tcase_add_test(tcase, stop_is_once);
	tcase_add_test(tcase, what_was_never_started_is_not_stopped);
	tcase_add_loop_test(tcase, stop_in_a_handler_waits_for_its_request, 0, 2);
	tcase_add_test(tcase, session_serves_again_after_a_stop);
	tcase_add_test(tcase, session_is_handed_on);
	tcase_add_test(tcase, end_interrupts_what_is_interruptible);
	tcase_add_test(tcase, what_is_submitted_at_the_end_is_interrupted);
	tcase_add_test(tcase, session_exit_ends_it_at_the_next_request);
	tcase_add_test(tcase, session_whose_wants_are_refused_ends);
	tcase_add_test(tcase, aborted_session_ends_with_enodev);
	tcase_add_loop_test(tcase, aborted_session_ends_after_what_is_in_hand, 0, 2);
	tcase_add_test(tcase, unmounted_session_ends_with_enodev);
	tcase_add_test(tcase, mountpoint_takes_the_next_session);
	tcase_add_test(tcase, fn_may_free_all_of_it);
	tcase = add_case(suite, "others", set_up, tear_down);
	tcase_add_loop_test(tcase, clients_that_are_killed_leave_nothing_behind, 0, 5);
	tcase_add_test(tcase, no_address_space_is_no_memory);
	tcase_add_test(tcase, sessions_share_a_loop);
	tcase_add_test(tcase, host_waits_on_the_descriptor);
	tcase_add_test(tcase, bad_config_is_refused);
	tcase_add_test(tcase, session_that_is_not_mounted_is_refused);
	tcase_add_test(tcase, null_is_refused_or_ignored);
	tcase_add_test(tcase, what_a_newer_header_counts_is_0);
	tcase_add_test(tcase, forked_child_is_refused);
	return run_and_clean_up(suite);
}
