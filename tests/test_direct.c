/* test_direct.c - unaligned O_DIRECT: any offset, length and address, and
 * nothing ever sent misaligned. */
#include "files.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "../lib/sys.h"

#define BLOCK 4096

static struct onefd *loop;
static struct sys_calls real;
static struct onefd_file file;
static struct job job;
static int fd;
static atomic_int misaligned;

static void look(const void *buf, size_t len, off_t offset)
{
	misaligned += (uintptr_t)buf % file.mem_align || len % file.off_align ||
		      offset % (off_t)file.off_align;
}

static int submit_and_look(io_context_t ctx, long count, struct iocb **batch)
{
	for (long i = 0; i < count; i++)
		if (batch[i]->aio_fildes == fd)
			look(batch[i]->u.c.buf, batch[i]->u.c.nbytes, batch[i]->u.c.offset);
	return real.io_submit(ctx, count, batch);
}

static ssize_t read_and_look(int from, const struct iovec *iov, size_t count, off_t offset,
			     int flags)
{
	for (size_t i = 0; from == fd && i < count; i++)
		look(iov[i].iov_base, iov[i].iov_len, offset);
	return real.preadv2(from, iov, count, offset, flags);
}

static ssize_t write_and_look(int to, const struct iovec *iov, size_t count, off_t offset,
			      int flags)
{
	for (size_t i = 0; to == fd && i < count; i++)
		look(iov[i].iov_base, iov[i].iov_len, offset);
	return real.pwritev2(to, iov, count, offset, flags);
}

static void set_up(void)
{
	real = sys;
	sys.io_submit = submit_and_look;
	sys.preadv2 = read_and_look;
	sys.pwritev2 = write_and_look;
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
	ck_assert_int_eq(misaligned, 0);
}

static void open_direct(int index, size_t size, int flags)
{
	fd = make_file(index, size, O_DIRECT | flags);
	must(onefd_file_init(loop, &file, fd));
}

START_TEST(reads_of_any_shape)
{
	static const off_t offsets[] = { 0, 1, 511, 4095, 4097, 9999 };
	static const size_t lengths[] = { 1, 2, 512, 4095, 4096, 4097, 8191 };
	char *buf = aligned(4 * BLOCK);

	open_direct(_i, 3 * BLOCK + 77, O_RDONLY);
	for (int i = 0; i < 6 * 7 * 2; i++) {
		off_t offset = offsets[i % 6];
		size_t length = lengths[i / 6 % 7];
		ssize_t there = 3 * BLOCK + 77 - offset;
		char *at = buf + i / 42;	/* an odd address in the second half */

		onefd_prep_pread(&job.req, &file, at, length, offset);
		ck_assert_int_eq(job_run(loop, &job), there < (ssize_t)length ? there
									  : (ssize_t)length);
		check_bytes(at, (size_t)job.res, offset);
	}
	free(buf);
	close(fd);
}
END_TEST

/* Longer than a bounce is: it goes in pieces. */
START_TEST(long_unaligned_read)
{
	enum { SIZE = 3 * 1024 * 1024 + 5 };
	char *buf = aligned(SIZE + BLOCK);

	open_direct(_i, SIZE, O_RDONLY);
	onefd_prep_pread(&job.req, &file, buf + 1, SIZE, 3);
	ck_assert_int_eq(job_run(loop, &job), SIZE - 3);
	check_bytes(buf + 1, SIZE - 3, 3);
	free(buf);
	close(fd);
}
END_TEST

START_TEST(long_unaligned_write)
{
	enum { SIZE = 3 * 1024 * 1024 + 5 };
	char *buf = aligned(SIZE + BLOCK);

	open_direct(_i, 3, O_RDWR);
	fill(buf + 1, SIZE - 3, 3);
	onefd_prep_pwrite(&job.req, &file, buf + 1, SIZE - 3, 3);
	ck_assert_int_eq(job_run(loop, &job), SIZE - 3);
	check_file(fd, SIZE);
	free(buf);
	close(fd);
}
END_TEST

/* Pieces of 1 to 97 bytes, gathered and scattered. */
START_TEST(vectors_of_odd_pieces)
{
	struct iovec iov[97];
	char *buf = aligned(2 * BLOCK);
	size_t sum = 0;

	for (size_t i = 0; i < 97; sum += ++i)
		iov[i] = (struct iovec){ buf + sum, i + 1 };
	open_direct(_i, 2 * BLOCK, O_RDWR);
	fill(buf, sum, 1000);
	onefd_prep_pwritev(&job.req, &file, iov, 97, 1000);
	ck_assert_int_eq(job_run(loop, &job), (ssize_t)sum);
	check_file(fd, 2 * BLOCK);
	memset(buf, 0, sum);
	onefd_prep_preadv(&job.req, &file, iov, 97, 1000);
	ck_assert_int_eq(job_run(loop, &job), (ssize_t)sum);
	check_bytes(buf, sum, 1000);
	free(buf);
	close(fd);
}
END_TEST

/* It cannot be read back, so the blocks' other bytes come by the page cache. */
START_TEST(write_only_descriptors)
{
	char *buf = aligned(BLOCK);

	open_direct(_i, 3 * BLOCK, O_WRONLY);
	fill(buf, 1000, 3600);
	onefd_prep_pwrite(&job.req, &file, buf, 1000, 3600);
	ck_assert_int_eq(job_run(loop, &job), 1000);
	check_file(fd, 3 * BLOCK);
	free(buf);
	close(fd);
}
END_TEST

START_TEST(appends_of_any_length)
{
	static const size_t lengths[] = { 4096, 1, 4095, 1000, 8192, 77 };
	char *buf = aligned(2 * BLOCK);
	size_t size = 100;

	open_direct(_i, size, O_RDWR | O_APPEND);
	for (int i = 0; i < 6; i++) {
		fill(buf, lengths[i], (off_t)size);
		onefd_prep_pwrite(&job.req, &file, buf, lengths[i], 0);
		ck_assert_int_eq(job_run(loop, &job), (ssize_t)lengths[i]);
		size += lengths[i];
	}
	check_file(fd, size);
	free(buf);
	close(fd);
}
END_TEST

/* As of before somebody else appended. */
static int statx_of_before(int dirfd, const char *path, int flags, unsigned mask,
			   struct statx *buf)
{
	int r = real.statx(dirfd, path, flags, mask, buf);

	buf->stx_size -= buf->stx_size % BLOCK;
	return r;
}

/* The end seemed to be a block's, and the kernel finds that it is not. */
START_TEST(append_behind_somebody_elses)
{
	char *buf = aligned(BLOCK);

	sys.statx = statx_of_before;
	open_direct(_i, BLOCK + 100, O_RDWR | O_APPEND);
	fill(buf, BLOCK, BLOCK + 100);
	onefd_prep_pwrite(&job.req, &file, buf, BLOCK, 0);
	ck_assert_int_eq(job_run(loop, &job), BLOCK);
	check_file(fd, 2 * BLOCK + 100);
	free(buf);
	close(fd);
}
END_TEST

/* The file ends where the last byte was put, and not with the padding. */
START_TEST(write_past_the_end_leaves_a_hole)
{
	struct stat st;
	char byte = 'x', zeros[BLOCK];

	open_direct(_i, 10, O_RDWR);
	onefd_prep_pwrite(&job.req, &file, &byte, 1, 3 * BLOCK + 5);
	ck_assert_int_eq(job_run(loop, &job), 1);
	must_libc(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, 3 * BLOCK + 6);
	onefd_prep_pread(&job.req, &file, zeros, 100, BLOCK + 1);
	ck_assert_int_eq(job_run(loop, &job), 100);
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(zeros[i], 0);
	close(fd);
}
END_TEST

int main(void)
{
	static const TTest **const tests[] = {
		&reads_of_any_shape, &long_unaligned_read, &long_unaligned_write,
		&vectors_of_odd_pieces, &write_only_descriptors, &appends_of_any_length,
		&append_behind_somebody_elses,
		&write_past_the_end_leaves_a_hole,
	};
	Suite *suite = suite_create("direct");
	TCase *tcase = add_case(suite, "direct", set_up, tear_down);
	int places = place_count();

	for (int i = 0; i < places; i++)
		for (size_t k = 0; k < sizeof tests / sizeof tests[0]; k++)
			if (has_direct(i))
				tcase_add_loop_test(tcase, *tests[k], i, i + 1);
	return run_suite(suite);
}
