/*
 * onefd-info - what a loop finds on this machine, and what it would do with a
 * file, and why.
 *
 *	cc -O2 -D_GNU_SOURCE -o onefd-info onefd-info.c $(pkg-config --cflags --libs onefd)
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <onefd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char *what, int error)
{
	fprintf(stderr, "onefd-info: %s: %s\n", what, strerror(error));
	exit(1);
}

/* O_DIRECT where the file takes it. O_NONBLOCK, for a FIFO would wait for a
 * writer before we could say that it is no file. */
static int open_file(const char *path)
{
	int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	int fd = open(path, flags | O_DIRECT);

	return fd < 0 && errno == EINVAL ? open(path, flags) : fd;
}

static void describe_file(struct onefd *loop, const char *path)
{
	struct onefd_file file;
	int fd = open_file(path);
	int r;

	if (fd < 0)
		die(path, errno);
	r = onefd_file_init(loop, &file, fd);
	if (r == -ESPIPE) {
		fprintf(stderr, "onefd-info: %s: no file to read at an offset, but one to watch\n",
			path);
		exit(1);
	}
	if (r < 0)
		die(path, -r);
	printf("\n%s\n", path);
	r = onefd_file_describe(&file, stdout);
	if (r < 0)
		die("standard output", -r);
	close(fd);
}

static void parse(int argc, char **argv)
{
	const struct option options[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
	int c = getopt_long(argc, argv, "h", options, NULL);

	if (c == 'h') {
		printf("Usage: onefd-info [PATH]\n"
		       "Says what a loop finds on this machine, and what it would do with PATH.\n");
		exit(0);
	}
	if (c == -1 && argc - optind > 1)
		fprintf(stderr, "onefd-info: one PATH at most; --help says more\n");
	if (c != -1 || argc - optind > 1)
		exit(1);
}

int main(int argc, char **argv)
{
	struct onefd *loop;
	int r;

	parse(argc, argv);
	r = onefd_new(&loop, NULL);
	if (r < 0)
		die("onefd_new", -r);
	r = onefd_describe(loop, stdout);
	if (r < 0)
		die("standard output", -r);
	if (optind < argc)
		describe_file(loop, argv[optind]);
	onefd_free(loop);
	if (fflush(stdout) == EOF)
		die("standard output", errno);
	return 0;
}
