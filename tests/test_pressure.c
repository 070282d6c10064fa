/*
 * test_pressure.c - reads in a memory cgroup far smaller than what they read: pages
 * that were read ahead are gone before they are copied. All data is right, and
 * nothing hangs. mounts.sh runs it; as root, for it makes the cgroup.
 * Usage: test_pressure [MEBIBYTES]
 */
#include "files.h"

#include <errno.h>
#include <sys/stat.h>

#define MEBI (1 << 20)
#define LIMIT (48 * MEBI)
#define COUNT 64

static const struct {
	const char *root, *limit;
} versions[] = {
	{ "/sys/fs/cgroup/memory", "memory.limit_in_bytes" },
	{ "/sys/fs/cgroup", "memory.max" },
};

static int mebis = 128;		/* of the file */
static char group[96];
static const char *root;

/* False: there is no such file, or it does not take that. */
static bool put(const char *dir, const char *name, long long number)
{
	char path[160], text[24];
	int fd, n = snprintf(text, sizeof text, "%lld", number);
	bool taken;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	taken = write(fd, text, (size_t)n) == n;
	close(fd);
	return taken;
}

static bool make_group(void)
{
	for (int i = 0; i < 2; i++) {
		root = versions[i].root;
		snprintf(group, sizeof group, "%s/onefd-test-%d", root, (int)getpid());
		if (mkdir(group, 0755) < 0)
			continue;
		if (put(group, versions[i].limit, LIMIT))
			return true;
		rmdir(group);
	}
	return false;
}

/* Written through and forgotten, a piece at a time. */
static int make_large(int index)
{
	struct place place = place_of(index);
	char *piece = malloc(8 * MEBI);
	int fd = (int)must_libc(open(place.path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));

	for (off_t at = 0; at < (off_t)mebis * MEBI; at += 8 * MEBI) {
		fill(piece, 8 * MEBI, at);
		ck_assert_int_eq(pwrite(fd, piece, 8 * MEBI, at), 8 * MEBI);
	}
	must_libc(fdatasync(fd));
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	free(piece);
	return fd;
}

/* Reads the file once, a mebibyte each, 64 out at any time, in steps of @step. */
static void read_all(struct onefd *loop, struct onefd_file *file, struct job *jobs, off_t step)
{
	int total = mebis, next = 0, done = 0;

	for (; done < total; must(done < total ? onefd_dispatch(loop, -1) : 0))
		for (int i = 0; i < COUNT; i++) {
			struct job *job = &jobs[i];

			if (next >= COUNT && !job->calls)
				continue;
			if (job->calls) {
				ck_assert_int_eq(job->calls, 1);
				ck_assert_int_eq(job->res, MEBI);
				check_bytes(job->buf, MEBI, job->req.offset);
				job->calls = 0;
				done++;
			}
			if (next == total)
				continue;
			onefd_prep_pread(&job->req, file, job->buf, MEBI,
					 next++ * step % total * MEBI);
			job_submit(loop, job);
		}
}

START_TEST(pages_vanish_before_they_are_read)
{
	struct job *jobs = make_jobs(COUNT, MEBI);
	int fd = make_large(_i);
	struct onefd_stats stats;
	struct onefd_file file;
	struct onefd *loop;

	/* What was touched before is another group's. */
	ck_assert(put(group, "cgroup.procs", getpid()));
	must(onefd_new(&loop, test_config()));
	must(onefd_file_init(loop, &file, fd));
	read_all(loop, &file, jobs, 1);
	read_all(loop, &file, jobs, 37);
	must(onefd_stats(loop, &stats, sizeof stats));
	printf("# %s: %llu hits, %llu sent to waiters, %llu to workers\n", place_of(_i).fs,
	       (unsigned long long)stats.hits, (unsigned long long)stats.pages,
	       (unsigned long long)stats.pool);
	fflush(stdout);
	must(onefd_free(loop));
	ck_assert(put(root, "cgroup.procs", getpid()));
	free_jobs(jobs, COUNT);
	close(fd);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *suite;
	TCase *tcase;
	int failed;

	if (argc > 1)
		mebis = atoi(argv[1]);
	if (!make_group())
		return skip_all("no memory cgroup can be made here");
	suite = suite_create("pressure");
	tcase = add_case(suite, "pressure", NULL, NULL);
	for (int i = 0; i < place_count(); i++)
		if (strcmp(place_of(i).fs, "tmpfs") != 0)
			tcase_add_loop_test(tcase, pages_vanish_before_they_are_read, i, i + 1);
	failed = run_suite(suite);
	/* A test that failed may still be leaving it. */
	for (int tries = 0; rmdir(group) < 0 && errno == EBUSY && tries < 1000; tries++)
		usleep(1000);
	return failed;
}
