/*
 * faulty.h - what tests over faulty_fs share: files with pages that wait, fail or
 * come late. faulty.sh mounts it, and file systems on disks in it; a page of a
 * file there is held by the place that it has on the disk.
 */
#ifndef ONEFD_TESTS_FAULTY_H
#define ONEFD_TESTS_FAULTY_H

#include "files.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define PAGE 4096
#define MEBI (1 << 20)
#define DATA_SIZE (16 * MEBI)	/* of files made here; faulty_fs has larger ones */

static struct onefd *loop;
static int orders = -1;		/* to faulty_fs */
static int held;		/* reads that it has begun to keep */

static inline bool on_fuse(int index)
{
	return strcmp(place_of(index).fs, "fuse") == 0;
}

/* One packet: false when it is news, true when it is an answer. */
static inline bool hear(long long *ret)
{
	char text[64], word[8] = "";
	ssize_t n = must_libc(recv(orders, text, sizeof text - 1, 0));

	text[n] = '\0';
	ck_assert_int_eq(sscanf(text, "%7s %lld", word, ret), 2);
	ck_assert_str_ne(word, "no");
	held += strcmp(word, "held") == 0;
	return strcmp(word, "ok") == 0;
}

static inline long long __attribute__((format(printf, 1, 2))) order(const char *format, ...)
{
	long long result;
	va_list ap;

	va_start(ap, format);
	ck_assert_int_gt(vdprintf(orders, format, ap), 0);
	va_end(ap);
	while (!hear(&result))
		;
	return result;
}

static inline void connect_orders(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strncpy(address.sun_path, getenv("ONEFD_FAULTY_SOCKET"), sizeof address.sun_path - 1);
	orders = (int)must_libc(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	must_libc(connect(orders, (struct sockaddr *)&address, sizeof address));
}

static inline void set_up(void)
{
	connect_orders();
	must(onefd_new(&loop, test_config()));
}

/* Nobody may have waited until faulty_fs lost its patience. */
static inline void tear_down(void)
{
	must(onefd_free(loop));
	ck_assert_int_eq(order("release"), 0);
	close(orders);
}

static inline void heard(struct onefd_watch *watch, uint32_t events)
{
	long long where;

	(void)watch, (void)events;
	ck_assert(!hear(&where));
}

/* Dispatches until @count reads in all have been held. */
static inline void wait_held(int count)
{
	struct onefd_watch watch;

	onefd_watch_init(&watch, orders, heard);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	while (held < count)
		must(onefd_dispatch(loop, -1));
	onefd_watch_stop(&watch);
}

/* ---- files ------------------------------------------------------------------ */

/* The same file opened anew: with a readahead of its own. */
static inline int open_again(int fd, int advice)
{
	char path[64];
	int again;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	again = (int)must_libc(open(path, O_RDONLY | O_CLOEXEC));
	ck_assert_int_eq(posix_fadvise(again, 0, 0, advice), 0);
	return again;
}

static inline void evict(int fd)
{
	ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

/*
 * DATA_SIZE foretold bytes, none of them in memory. The file has a name and stays
 * for the next test: to be rid of one its held pages would have to come first, and
 * a test that fails could not end.
 */
static inline int open_data(int index)
{
	char path[PATH_MAX + 8], *bytes = NULL;
	int fd;

	snprintf(path, sizeof path, "%s/a", place_of(index).path);
	fd = (int)must_libc(open(path, O_RDWR | O_CLOEXEC | (on_fuse(index) ? 0 : O_CREAT), 0600));
	if (on_fuse(index)) {
		must_libc(ftruncate(fd, DATA_SIZE));
	} else if (lseek(fd, 0, SEEK_END) < DATA_SIZE) {
		bytes = malloc(DATA_SIZE);
		fill(bytes, DATA_SIZE, 0);
		ck_assert_int_eq(pwrite(fd, bytes, DATA_SIZE, 0), DATA_SIZE);
		must_libc(fsync(fd));
		free(bytes);
	}
	evict(fd);
	return fd;
}

/* The same, of which the loop knows. */
static inline int open_file(int index, struct onefd_file *file)
{
	int fd = open_data(index);

	must(onefd_file_init(loop, file, fd));
	return fd;
}

/* Reads that range into memory, and no page more. */
static inline void warm(int fd, off_t offset, size_t len)
{
	int again = open_again(fd, POSIX_FADV_RANDOM);
	char page[PAGE];

	for (off_t at = offset; at < offset + (off_t)len; at += PAGE)
		ck_assert_int_eq(pread(again, page, PAGE, at), PAGE);
	close(again);
}

/* The file, to keep pages of it in memory until munmap(). */
static inline char *map_data(int fd)
{
	void *map = mmap(NULL, DATA_SIZE, PROT_READ, MAP_SHARED, fd, 0);

	ck_assert_ptr_ne(map, MAP_FAILED);
	must_libc(madvise(map, DATA_SIZE, MADV_RANDOM));
	return map;
}

/* Like warm(), of such a map; but there they stay, whoever on this machine empties
 * the page cache meanwhile. */
static inline void keep_warm(const char *map, off_t offset, size_t len)
{
	must_libc(mlock(map + offset, len));
}

/* Where a page that is in no memory stands: in "a", or in the image it is on. */
static inline off_t disk_offset(int index, int fd, off_t offset)
{
	if (on_fuse(index))
		return offset;
	warm(fd, offset, PAGE);
	return order("find %s %lld", place_of(index).fs, (long long)offset);
}

/* One page: "hold", "delay" by @argument ms, or "fail" with it. It leaves memory. */
static inline void spoil(int index, int fd, off_t offset, const char *how, int argument)
{
	off_t at = disk_offset(index, fd, offset);

	evict(fd);
	order("%s %s %lld %lld %d", how, on_fuse(index) ? "a" : place_of(index).fs,
	      (long long)at, (long long)at + PAGE, argument);
}

/* ---- requests ------------------------------------------------------------------ */

static inline void submit_read(struct job *job, struct onefd_file *file, size_t len, off_t offset)
{
	onefd_prep_pread(&job->req, file, job->buf, len, offset);
	job_submit(loop, job);
}

/* Dispatches until @count of the jobs have called back. */
static inline void wait_for(const struct job *jobs, size_t total, size_t count)
{
	for (;;) {
		size_t done = 0;

		for (size_t i = 0; i < total; i++)
			done += jobs[i].calls > 0;
		if (done >= count)
			return;
		must(onefd_dispatch(loop, -1));
	}
}

static inline void check_read(const struct job *job, ssize_t len)
{
	ck_assert_int_eq(job->calls, 1);
	ck_assert_int_eq(job->res, len);
	check_bytes(job->buf, (size_t)len, job->req.offset);
}

/* ---- main() --------------------------------------------------------------------- */

/* Runs each test, up to a NULL, on every file system, and @once, if any, once. */
static inline int run_faulty(const char *name, const TTest **tests, const TTest *once)
{
	Suite *suite;
	TCase *tcase;

	if (!getenv("ONEFD_FAULTY_SOCKET"))
		return skip_all("it is for faulty.sh to run");
	suite = suite_create(name);
	tcase = add_case(suite, name, set_up, tear_down);
	for (; *tests; tests++)
		tcase_add_loop_test(tcase, *tests, 0, place_count());
	if (once)
		tcase_add_test(tcase, once);
	return run_suite(suite);
}

#endif
