/* test_file.c - what a descriptor is, and what its file system answered. */
#include "files.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "../lib/file.h"
#include "../lib/sys.h"

static struct onefd *loop;
static struct sys_calls real;
static struct onefd_file file;

static void set_up(void)
{
	real = sys;
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
}

START_TEST(only_files_are_files)
{
	int fds[2], null = (int)must_libc(open("/dev/null", O_RDWR | O_CLOEXEC));
	int dir = (int)must_libc(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	int path = (int)must_libc(open(".", O_PATH | O_CLOEXEC));

	ck_assert_int_eq(onefd_file_init(loop, &file, -1), -EBADF);
	ck_assert_int_eq(onefd_file_init(loop, &file, dir), -EISDIR);
	ck_assert_int_eq(onefd_file_init(loop, &file, path), -EBADF);
	ck_assert_int_eq(onefd_file_init(loop, &file, null), -ESPIPE);
	must_libc(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	ck_assert_int_eq(onefd_file_init(loop, &file, fds[0]), -ESPIPE);
	ck_assert_int_eq(onefd_file_init(loop, NULL, dir), -EINVAL);
	ck_assert_int_eq(onefd_file_init(NULL, &file, dir), -EINVAL);
	for (int i = 0; i < 2; i++)
		close(fds[i]);
	close(null);
	close(dir);
	close(path);
}
END_TEST

START_TEST(flags_are_the_descriptors)
{
	int fd = make_file(_i, 100, O_RDWR | O_APPEND);

	file.data = &loop;
	must(onefd_file_init(loop, &file, fd));
	ck_assert_uint_eq(file.flags, ONEFD_FILE_APPEND);
	ck_assert_ptr_eq(file.data, &loop);
	ck_assert_int_eq(file.fd, fd);
	close(fd);
	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 100, O_RDWR | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	ck_assert_uint_eq(file.flags, ONEFD_FILE_DIRECT);
	close(fd);
}
END_TEST

/* What is said to suffice does, and its half is never sent: see direct.c. */
START_TEST(alignment_is_what_the_device_takes)
{
	char *buf = aligned(65536);
	int fd;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 65536, O_RDWR | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	ck_assert_uint_gt(file.off_align, 0);
	ck_assert_uint_gt(file.mem_align, 0);
	ck_assert_uint_eq(file.off_align & (file.off_align - 1), 0);
	ck_assert_int_eq(pread(fd, buf + file.mem_align, file.off_align, file.off_align),
			 (ssize_t)file.off_align);
	check_bytes(buf + file.mem_align, file.off_align, file.off_align);
	free(buf);
	close(fd);
}
END_TEST

/* A kernel before 6.1 knows no STATX_DIOALIGN. */
static int statx_of_old(int dirfd, const char *path, int flags, unsigned mask,
			struct statx *buf)
{
	int r = real.statx(dirfd, path, flags, mask & STATX_BASIC_STATS, buf);

	buf->stx_mask &= STATX_BASIC_STATS;
	return r;
}

START_TEST(alignment_of_an_old_kernel_is_safe)
{
	int fd = make_file(_i, 65536, O_RDWR);
	uint32_t off_align, mem_align;

	must(onefd_file_init(loop, &file, fd));
	off_align = file.off_align;
	mem_align = file.mem_align;
	sys.statx = statx_of_old;
	must(onefd_file_init(loop, &file, fd));
	ck_assert_uint_ge(file.off_align, off_align);
	ck_assert_uint_ge(file.mem_align, mem_align);
	close(fd);
}
END_TEST

/* Neither a disk nor a server may be asked on the loop's thread. */
static int statx_that_asks_nobody(int dirfd, const char *path, int flags, unsigned mask,
				  struct statx *buf)
{
	ck_assert(flags & AT_STATX_DONT_SYNC);
	return real.statx(dirfd, path, flags, mask, buf);
}

START_TEST(init_asks_no_server)
{
	int fd = make_file(_i, 100, O_RDWR);

	sys.statx = statx_that_asks_nobody;
	must(onefd_file_init(loop, &file, fd));
	close(fd);
}
END_TEST

/* Of what the caller knows, none is asked again: the two agree to the byte. */
START_TEST(known_attributes_are_not_asked_for)
{
	int flags = O_RDWR | O_APPEND | (has_direct(_i) ? O_DIRECT : 0);
	int fd = make_file(_i, 5000, flags);
	struct onefd_file asked = { 0 }, told = { 0 };
	struct statx st;

	must_libc(statx(fd, "", AT_EMPTY_PATH, ONEFD_STATX_FILE, &st));
	must(onefd_file_init(loop, &asked, fd));
	sys.statx = NULL;
	sys.getfl = NULL;
	must(onefd_file_init_statx(loop, &told, fd, flags, &st));
	asked.writes = told.writes;
	ck_assert_mem_eq(&asked, &told, sizeof told);
	ck_assert_int_eq(onefd_file_init_statx(loop, &told, fd, O_PATH, &st), -EBADF);
	ck_assert_int_eq(onefd_file_init_statx(loop, &told, fd, flags, NULL), -EINVAL);
	ck_assert_int_eq(onefd_file_init_statx(loop, NULL, fd, flags, &st), -EINVAL);
	ck_assert_int_eq(onefd_file_init_statx(NULL, &told, fd, flags, &st), -EINVAL);
	st.stx_mask &= ~STATX_SIZE;
	ck_assert_int_eq(onefd_file_init_statx(loop, &told, fd, flags, &st), -EINVAL);
	st.stx_mask |= STATX_SIZE;
	st.stx_mode = S_IFIFO;
	ck_assert_int_eq(onefd_file_init_statx(loop, &told, fd, flags, &st), -ESPIPE);
	st.stx_mode = S_IFDIR;
	ck_assert_int_eq(onefd_file_init_statx(loop, &told, fd, flags, &st), -EISDIR);
	close(fd);
}
END_TEST

/* The first of a device's files speaks for all: it is not what was asked for them. */
START_TEST(mount_is_asked_for_if_it_is_not_told)
{
	int fd = make_file(_i, 5000, O_RDWR);
	struct onefd_file asked, told;
	struct onefd *other;
	struct statx st;

	must_libc(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st));
	st.stx_mask &= ~STATX_MNT_ID;
	must(onefd_new(&other, test_config()));
	must(onefd_file_init(other, &asked, fd));
	must(onefd_file_init_statx(loop, &told, fd, O_RDWR, &st));
	ck_assert_str_eq(told.device->name, asked.device->name);
	must(onefd_free(other));
	close(fd);
}
END_TEST

/* NFS leaves out what it would have to ask its server for. */
static int statx_without_size(int dirfd, const char *path, int flags, unsigned mask,
			      struct statx *buf)
{
	int r = real.statx(dirfd, path, flags, mask, buf);

	buf->stx_mask &= ~STATX_SIZE;
	return r;
}

START_TEST(size_that_is_not_known_is_no_error)
{
	int fd = make_file(0, 5000, O_RDWR);

	sys.statx = statx_without_size;
	must(onefd_file_init(loop, &file, fd));
	close(fd);
}
END_TEST

/* A streak of tries that would have blocked is a detour by workers; each further
 * streak twice as long a one; what flows makes it shorter again. */
START_TEST(verdicts_are_for_a_while)
{
	int fd = make_file(0, 100, O_RDWR), detours[2] = { 0 }, tries = 0;

	must(onefd_file_init(loop, &file, fd));
	ck_assert(!file_detour(&file, 0));
	for (int round = 0; round < 2; round++) {
		while (!file_blocked(&file, 0, false))
			ck_assert_int_lt(++tries, 100);
		while (file_detour(&file, 0))
			ck_assert_int_lt(++detours[round], 100000);
	}
	ck_assert_int_gt(detours[0], 0);
	ck_assert_int_eq(detours[1], 2 * detours[0]);
	ck_assert(!file_detour(&file, 1));
	ck_assert(file_blocked(&file, 1, true));
	file_flowed(&file, 0);
	close(fd);
}
END_TEST

START_TEST(description_says_kind_and_alignment)
{
	int fd = make_file(_i, 100, O_RDWR | (has_direct(_i) ? O_DIRECT : 0));
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	must(onefd_file_init(loop, &file, fd));
	must(onefd_file_describe(&file, out));
	fclose(out);
	ck_assert_ptr_nonnull(strstr(text, "regular file"));
	if (has_direct(_i))
		ck_assert_ptr_nonnull(strstr(text, "alignment: "));
	free(text);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("file");
	TCase *tcase = add_case(suite, "file", set_up, tear_down);
	int places = place_count();

	tcase_add_test(tcase, only_files_are_files);
	tcase_add_loop_test(tcase, flags_are_the_descriptors, 0, places);
	tcase_add_loop_test(tcase, alignment_is_what_the_device_takes, 0, places);
	tcase_add_loop_test(tcase, alignment_of_an_old_kernel_is_safe, 0, places);
	tcase_add_loop_test(tcase, known_attributes_are_not_asked_for, 0, places);
	tcase_add_loop_test(tcase, mount_is_asked_for_if_it_is_not_told, 0, places);
	tcase_add_test(tcase, size_that_is_not_known_is_no_error);
	tcase_add_loop_test(tcase, init_asks_no_server, 0, places);
	tcase_add_test(tcase, verdicts_are_for_a_while);
	tcase_add_loop_test(tcase, description_says_kind_and_alignment, 0, places);
	return run_suite(suite);
}
