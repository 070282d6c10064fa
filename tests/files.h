/*
 * files.h - what tests that move bytes share: directories to test in, files
 * whose contents can be foretold, and requests that count their callbacks.
 *
 * ONEFD_TEST_DIRS names the directories, "ext4:DIR:xfs:DIR:..."; see mounts.sh.
 * Without it there is one, where the test was started. A test runs in each of
 * them as a loop test:
 *
 *	tcase_add_loop_test(tcase, a_rule, 0, place_count());
 */
#ifndef ONEFD_TESTS_FILES_H
#define ONEFD_TESTS_FILES_H

#include "harness.h"
#include "pattern.h"

#include <fcntl.h>
#include <limits.h>
#include <onefd.h>
#include <stdbool.h>
#include <unistd.h>

struct place {
	char fs[16];
	char path[PATH_MAX];
};

/* The @index-th directory; false past the last. */
static inline bool find_place(int index, struct place *ret)
{
	const char *at = getenv("ONEFD_TEST_DIRS");
	int used = 0;

	if (!at || !*at)
		at = "here:.";
	for (; sscanf(at, "%15[^:]:%4095[^:]%n", ret->fs, ret->path, &used) == 2; index--) {
		if (index == 0)
			return true;
		at += used;
		at += *at == ':';
	}
	return false;
}

static inline int place_count(void)
{
	struct place place;
	int count = 0;

	while (find_place(count, &place))
		count++;
	return count;
}

static inline struct place place_of(int index)
{
	struct place place;

	if (!find_place(index, &place))
		ck_abort_msg("no directory %d", index);
	return place;
}

static inline void check_bytes(const void *buf, size_t len, off_t offset)
{
	for (size_t i = 0; i < len; i++)
		if (((const unsigned char *)buf)[i] != pattern(offset + (off_t)i))
			ck_abort_msg("byte %lld is wrong", (long long)offset + (long long)i);
}

static inline void *aligned(size_t size)
{
	void *buf = NULL;

	ck_assert_int_eq(posix_memalign(&buf, 4096, size), 0);
	memset(buf, 0, size);
	return buf;
}

/* A file of @size bytes that has no name, opened with @flags; its bytes are on
 * the disk. */
static inline int make_file_at(const char *dir, size_t size, int flags)
{
	char name[PATH_MAX + 32], *bytes = malloc(size + 1);
	int fd, opened;

	snprintf(name, sizeof name, "%s/onefd-test.XXXXXX", dir);
	fd = (int)must_libc(mkstemp(name));
	fill(bytes, size, 0);
	ck_assert_int_eq(pwrite(fd, bytes, size, 0), (ssize_t)size);
	must_libc(fsync(fd));
	free(bytes);
	opened = open(name, flags | O_CLOEXEC);
	must_libc(unlink(name));
	must_libc(close(fd));
	ck_assert_msg(opened >= 0, "open in %s: %m", dir);
	return opened;
}

static inline int make_file(int index, size_t size, int flags)
{
	struct place place = place_of(index);

	return make_file_at(place.path, size, flags);
}

/* Whether a file there can be opened O_DIRECT. */
static inline bool has_direct(int index)
{
	struct place place = place_of(index);
	int fd = open(place.path, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* The bytes [0, @size) of a file, read with no library between. */
static inline void check_file(int fd, size_t size)
{
	char *bytes = malloc(size + 1), path[64];
	int plain;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	plain = (int)must_libc(open(path, O_RDONLY | O_CLOEXEC));
	ck_assert_int_eq(pread(plain, bytes, size + 1, 0), (ssize_t)size);
	check_bytes(bytes, size, 0);
	close(plain);
	free(bytes);
}

/* A request that counts how often it called back, and what with. */
struct job {
	struct onefd_req req;
	void *buf;
	ssize_t res;
	int calls;
};

static bool in_library;		/* a call that may not call back is under way */

static inline void job_done(struct onefd_req *req)
{
	struct job *job = onefd_container(req, struct job, req);

	if (in_library)
		ck_abort_msg("called back from inside submit or cancel");
	job->calls++;
	job->res = req->res;
}

static inline void job_submit(struct onefd *loop, struct job *job)
{
	int r;

	job->calls = 0;
	in_library = true;
	r = onefd_submit(loop, &job->req, job_done);
	in_library = false;
	must(r);
}

static inline int job_cancel(struct job *job)
{
	int r;

	in_library = true;
	r = onefd_cancel(&job->req);
	in_library = false;
	return r;
}

static inline struct job *make_jobs(size_t count, size_t len)
{
	struct job *jobs = calloc(count, sizeof *jobs);

	ck_assert_ptr_nonnull(jobs);
	for (size_t i = 0; len && i < count; i++)
		jobs[i].buf = aligned(len);
	return jobs;
}

static inline void free_jobs(struct job *jobs, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(jobs[i].buf);
	free(jobs);
}

/* Submits one request and dispatches until it called back: its res. */
static inline ssize_t job_run(struct onefd *loop, struct job *job)
{
	job_submit(loop, job);
	while (!job->calls)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(job->calls, 1);
	return job->res;
}

/* Drains, and every one of @jobs has called back once. */
static inline void drain_jobs(struct onefd *loop, const struct job *jobs, size_t count)
{
	must(onefd_drain(loop, -1));
	ck_assert_uint_eq(onefd_pending(loop), 0);
	for (size_t i = 0; i < count; i++)
		if (jobs[i].calls != 1)
			ck_abort_msg("request %zu called back %d times", i, jobs[i].calls);
}

/* What onefd_describe() says; the caller's to free. */
static inline char *describe(const struct onefd *loop)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	ck_assert_ptr_nonnull(out);
	must(onefd_describe(loop, out));
	fclose(out);
	return text;
}

#endif
