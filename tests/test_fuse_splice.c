/* test_fuse_splice.c - writes whose bytes come through a pipe: none is lost, cut or mixed up. */
#include "fuse_mount.h"

#include <sys/resource.h>
#include <sys/xattr.h>

#ifndef RWF_APPEND
#define RWF_APPEND 0x10
#endif

/* Of those that come one after the other, the first is read: nothing says that it will come. */
#define PIECE (512 << 10)
#define PIECES 8

/* With pipes that anybody may have. */
static const struct onefd_fuse_config spliced = { .transfer = PIECE,
						  .flags = ONEFD_FUSE_SPLICE_WRITES };

/* ---- where they go --------------------------------------------------------- */

static struct onefd_file target;
static int rw_flags, target_flags;
static char target_path[PATH_MAX];

static void open_target(const char *directory, int flags)
{
	int fd;

	snprintf(target_path, sizeof target_path, "%s/target", directory);
	fd = (int)must_libc(open(target_path, O_CREAT | O_RDWR | O_CLOEXEC | flags, 0600));
	must(onefd_file_init(loop, &target, fd));
	target.flags |= (unsigned)target_flags;
}

/* All of it is as foretold, from @offset; @size is where it ends. */
static void check_target(off_t offset, off_t size)
{
	unsigned char *bytes = malloc((size_t)size), *foretold = malloc((size_t)size);
	int fd = (int)must_libc(open(target_path, O_RDONLY | O_CLOEXEC));

	ck_assert_int_eq(lseek(fd, 0, SEEK_END), size);
	ck_assert_int_eq(pread(fd, bytes, (size_t)(size - offset), offset), size - offset);
	fill(foretold, (size_t)(size - offset), offset);
	ck_assert_mem_eq(bytes, foretold, (size_t)(size - offset));
	free(bytes);
	free(foretold);
	close(fd);
}

static void written(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);

	if (req->res < 0)
		(void)fuse_reply_err(op->fuse, (int)-req->res);
	else
		(void)fuse_reply_write(op->fuse, (size_t)req->res);
	onefd_fuse_end(op);
}

static void write_held(struct held *one)
{
	/* Who appends need not know where that is. */
	off_t offset = rw_flags & RWF_APPEND ? 0 : one->offset;

	onefd_fuse_prep_pwrite(one->op, &target, one->bytes, one->size, offset, rw_flags);
	must(onefd_fuse_submit(one->op, written));
}

static void hold_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset)
{
	hold_read(req, ino, size, offset);
	held[held_count - 1].bytes = bytes;
}

static void write_to_target(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size,
			    off_t offset)
{
	held_count = 0;
	hold_write(req, ino, bytes, size, offset);
	write_held(&held[0]);
}

/* ---- who writes -------------------------------------------------------------- */

/* The piece of that number, in one request, for it is aligned: how much of it. */
static ssize_t write_piece(int fd, int number)
{
	char *bytes = aligned_alloc(4096, PIECE);
	ssize_t n;

	fill(bytes, PIECE, (off_t)number * PIECE);
	n = pwrite(fd, bytes, PIECE, (off_t)number * PIECE);
	free(bytes);
	return n;
}

static int write_pieces(const char *path, int first)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	for (int i = first; i < PIECES; i++)
		if (fd < 0 || write_piece(fd, i) != PIECE)
			return EIO;
	return 0;
}

static int write_one(const char *path, int number)
{
	return write_piece(open(path, O_WRONLY | O_CLOEXEC), number) == PIECE ? 0 : EIO;
}

/* All that @writer writes is there, @through writes by pipes. */
static void writes_arrive(int (*writer)(const char *path, int number), uint64_t through)
{
	struct client client;

	serve(&spliced);
	start_client(&client, writer, 0);
	end_client(&client, 0);
	check_target(0, (off_t)PIECES * PIECE);
	ck_assert_uint_eq(stats()->spliced, through);
	finish();
	close(target.fd);
}

/* ---- what arrives --------------------------------------------------------------- */

/* Of the page cache's pages, or copied from the writer's own memory. */
START_TEST(large_writes_go_through_a_pipe)
{
	through_pages = _i;
	on_write = write_to_target;
	open_target(top, 0);
	writes_arrive(write_pieces, PIECES - 1);
}
END_TEST

static size_t longest;

static void note_longest(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size,
			 off_t offset)
{
	if (size > longest)
		longest = size;
	write_to_target(req, ino, bytes, size, offset);
}

static int write_longest(const char *path, int number)
{
	size_t size = (size_t)PIECES * PIECE;
	char *bytes = aligned_alloc(4096, size);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	(void)number;
	fill(bytes, size, 0);
	n = pwrite(fd, bytes, 100, 0);
	/* Not from the beginning of a page: such a one has more of them. */
	n += pwrite(fd, bytes + 100, size - 100, 100);
	return n != (ssize_t)size;
}

/* Whatever pipes may be had, a request of the default size and its header fit. */
START_TEST(longest_write_fits_a_pipe)
{
	struct client client;

	through_pages = _i;
	on_write = note_longest;
	open_target(top, 0);
	serve(&(struct onefd_fuse_config){ .flags = ONEFD_FUSE_SPLICE_WRITES });
	start_client(&client, write_longest, 0);
	end_client(&client, 0);
	check_target(0, (off_t)PIECES * PIECE);
	ck_assert_uint_ge(longest, (1 << 20) - 3 * 4096);
	ck_assert_uint_ge(stats()->spliced, 2);
	finish();
	close(target.fd);
}
END_TEST

START_TEST(without_the_flag_all_is_read)
{
	struct client client;

	on_write = write_to_target;
	open_target(top, 0);
	serve(NULL);
	start_client(&client, write_pieces, 0);
	end_client(&client, 0);
	check_target(0, (off_t)PIECES * PIECE);
	ck_assert_uint_eq(stats()->spliced, 0);
	finish();
	close(target.fd);
}
END_TEST

/* Nor do they fail where there is no descriptor left. */
START_TEST(without_pipes_all_is_read)
{
	struct rlimit usual, tight;
	struct client client;

	on_write = write_to_target;
	open_target(top, 0);
	serve(&spliced);
	must_libc(getrlimit(RLIMIT_NOFILE, &usual));
	start_client(&client, write_pieces, 0);
	tight = (struct rlimit){ 3, usual.rlim_max };
	must_libc(setrlimit(RLIMIT_NOFILE, &tight));
	end_client(&client, 0);
	must_libc(setrlimit(RLIMIT_NOFILE, &usual));
	check_target(0, (off_t)PIECES * PIECE);
	ck_assert_uint_eq(stats()->spliced, 0);
	finish();
	close(target.fd);
}
END_TEST

static const struct {
	int open_flags, rw_flags, file_flags;
} not_for_pipes[] = {
	{ .open_flags = O_APPEND },
	{ .rw_flags = RWF_APPEND },
	{ .rw_flags = RWF_DSYNC },
	{ .file_flags = ONEFD_FILE_DIRECT },
};

START_TEST(what_no_pipe_can_do_is_written_from_memory)
{
	rw_flags = not_for_pipes[_i].rw_flags;
	target_flags = not_for_pipes[_i].file_flags;
	on_write = write_to_target;
	open_target(top, not_for_pipes[_i].open_flags);
	writes_arrive(write_pieces, PIECES - 1);
}
END_TEST

static int write_more_than_fits(const char *path, int number)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	(void)number;
	if (write_piece(fd, 0) != PIECE || write_piece(fd, 1) != PIECE)
		return EIO;
	if (write_piece(fd, 2) != PIECE / 2)
		return ERANGE;
	return write_piece(fd, 3) < 0 ? errno : 0;
}

/* The rest of the payload is not what the next write finds. */
START_TEST(full_disk_takes_what_fits)
{
	struct client client;
	char full[PATH_MAX];

	through_pages = _i;
	snprintf(full, sizeof full, "%s/full", top);
	must_libc(mkdir(full, 0700));
	must_libc(mount("onefd-tests", full, "tmpfs", 0, "size=1280k"));
	on_write = write_to_target;
	open_target(full, 0);
	serve(&spliced);
	start_client(&client, write_more_than_fits, 0);
	end_client(&client, ENOSPC);
	check_target(0, PIECE * 5 / 2);
	ck_assert_uint_eq(stats()->spliced, 3);
	close(target.fd);
	open_target(top, 0);
	start_client(&client, write_pieces, 4);
	end_client(&client, 0);
	check_target((off_t)4 * PIECE, (off_t)PIECES * PIECE);
	ck_assert_uint_eq(stats()->spliced, 3 + 4);
	finish();
	close(target.fd);
}
END_TEST

static void refuse_or_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size,
			    off_t offset)
{
	static int count;

	if (count++ % 3)
		(void)fuse_reply_err(req, EPERM);
	else
		write_to_target(req, ino, bytes, size, offset);
}

static int write_until_done(const char *path, int number)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	(void)number;
	for (int i = 0; i < PIECES; i++)
		while (write_piece(fd, i) != PIECE)
			if (errno != EPERM)
				return errno;
	return 0;
}

START_TEST(what_is_refused_at_once_is_no_part_of_the_next)
{
	on_write = refuse_or_write;
	open_target(top, 0);
	writes_arrive(write_until_done, 3 * (PIECES - 1));
}
END_TEST

static unsigned char value[65536];

static void compare_value(fuse_req_t req, const char *name, const char *bytes, size_t size)
{
	ck_assert_str_eq(name, "user.long");
	ck_assert_uint_eq(size, sizeof value);
	ck_assert_mem_eq(bytes, value, size);
	(void)fuse_reply_err(req, 0);
}

static int write_and_set(const char *path, int number)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	(void)number;
	for (int i = 0; i < PIECES; i++) {
		if (write_piece(fd, i) != PIECE ||
		    fsetxattr(fd, "user.long", value, sizeof value, 0) < 0 ||
		    pwrite(fd, value, 100, 0) != 100)
			return EIO;
	}
	return 0;
}

/* The rest comes out of the pipe as it would have been read. */
START_TEST(other_requests_may_come_between)
{
	fill(value, sizeof value, 0);
	on_write = write_to_target;
	on_setxattr = compare_value;
	open_target(top, 0);
	writes_arrive(write_and_set, PIECES - 1);
}
END_TEST

#define CROWD 20

/* Those for whom there is no pipe are read. */
START_TEST(pipes_may_run_out)
{
	struct client clients[CROWD];

	on_write = hold_write;
	open_target(top, 0);
	serve(&spliced);
	for (int i = 0; i < CROWD; i++)
		start_client(&clients[i], write_one, i);
	run_until(held_count == CROWD);
	ck_assert_uint_gt(stats()->spliced, 2);
	ck_assert_uint_lt(stats()->spliced, CROWD - 2);
	for (int i = CROWD - 1; i >= 0; i--)
		write_held(&held[i]);
	for (int i = 0; i < CROWD; i++)
		end_client(&clients[i], 0);
	check_target(0, (off_t)CROWD * PIECE);
	finish();
	close(target.fd);
}
END_TEST

/* Unread, it goes with its op. */
START_TEST(session_may_end_and_go_on_with_bytes_in_its_pipes)
{
	struct client clients[CROWD];

	on_write = hold_write;
	open_target(top, 0);
	serve(&spliced);
	for (int i = 0; i < CROWD; i++)
		start_client(&clients[i], write_one, i);
	run_until(held_count == CROWD);
	onefd_fuse_stop(here.fuse);
	for (int i = 0; i < CROWD; i++) {
		(void)fuse_reply_err(held[i].op->fuse, ENOSPC);
		onefd_fuse_end(held[i].op);
	}
	run_until(here.ended);
	here.ended = 0;
	must(onefd_fuse_start(here.fuse, note_end, &here));
	for (int i = 0; i < CROWD; i++)
		end_client(&clients[i], EIO);
	on_write = write_to_target;
	start_client(&clients[0], write_pieces, 0);
	end_client(&clients[0], 0);
	check_target(0, (off_t)PIECES * PIECE);
	finish();
	close(target.fd);
}
END_TEST

int main(void)
{
	const char *reason = prepare();
	Suite *suite;
	TCase *tcase;

	if (reason)
		return skip_all(reason);
	suite = suite_create("fuse_splice");
	tcase = add_case(suite, "spliced", set_up, tear_down);
	tcase_add_loop_test(tcase, large_writes_go_through_a_pipe, 0, 2);
	tcase_add_loop_test(tcase, longest_write_fits_a_pipe, 0, 2);
	tcase_add_loop_test(tcase, full_disk_takes_what_fits, 0, 2);
	tcase_add_test(tcase, what_is_refused_at_once_is_no_part_of_the_next);
	tcase_add_test(tcase, other_requests_may_come_between);
	tcase_add_test(tcase, pipes_may_run_out);
	tcase_add_test(tcase, session_may_end_and_go_on_with_bytes_in_its_pipes);
	tcase = add_case(suite, "read", set_up, tear_down);
	tcase_add_test(tcase, without_the_flag_all_is_read);
	tcase_add_test(tcase, without_pipes_all_is_read);
	tcase_add_loop_test(tcase, what_no_pipe_can_do_is_written_from_memory, 0,
			    sizeof not_for_pipes / sizeof not_for_pipes[0]);
	return run_and_clean_up(suite);
}
