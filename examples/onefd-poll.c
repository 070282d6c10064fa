/*
 * onefd-poll - a loop as a guest of poll(2): beside a descriptor of the host's own,
 * which is standard input, it reads a file and has a timer.
 *
 *	cc -O2 -D_GNU_SOURCE -o onefd-poll onefd-poll.c $(pkg-config --cflags --libs onefd)
 */
#include <errno.h>
#include <fcntl.h>
#include <onefd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_NS UINT64_C(100000000)

static struct onefd *loop;
static const char *path;
static bool file_ended;

static void check(const char *what, long long r)
{
	if (r >= 0)
		return;
	fprintf(stderr, "onefd-poll: %s: %s\n", what, strerror((int)-r));
	exit(1);
}

static void read_on(struct onefd_req *req)
{
	check(path, req->res);
	file_ended = req->res == 0;
	if (file_ended) {
		printf("%s: %lld bytes\n", path, (long long)req->offset);
		return;
	}
	onefd_prep_pread(req, req->file, req->data, req->one.iov_len, req->offset + req->res);
	check(path, onefd_submit(loop, req, read_on));
}

static void tick(struct onefd_timer *timer)
{
	puts("tick");
	onefd_timer_start(loop, timer, timer->deadline + TICK_NS);
}

/* The host's own business: false at the end of its input. */
static bool take_input(int fd)
{
	char line[4096];
	ssize_t n = read(fd, line, sizeof line);

	check("standard input", n < 0 ? -errno : 0);
	printf("input: %zd bytes\n", n);
	return n > 0;
}

static void run_host(void)
{
	struct pollfd fds[] = {
		{ .fd = onefd_fd(loop), .events = POLLIN },	/* all of the guest */
		{ .fd = STDIN_FILENO, .events = POLLIN },
	};

	while (!file_ended || fds[1].fd >= 0) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			check("poll", -errno);
		if (fds[0].revents)
			check("onefd_dispatch", onefd_dispatch(loop, 0));
		if (fds[1].revents && !take_input(fds[1].fd))
			fds[1].fd = -1;
	}
}

int main(int argc, char **argv)
{
	static char buf[65536];
	struct onefd_file file;
	struct onefd_timer timer;
	struct onefd_req req = { .data = buf };
	bool help = argc == 2 && !strcmp(argv[1], "--help");
	int fd;

	if (argc != 2 || help) {
		fputs("Usage: onefd-poll FILE\n", help ? stdout : stderr);
		return !help;
	}
	path = argv[1];
	setlinebuf(stdout);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	check(path, fd < 0 ? -errno : 0);
	check("onefd_new", onefd_new(&loop, NULL));
	check(path, onefd_file_init(loop, &file, fd));
	onefd_prep_pread(&req, &file, buf, sizeof buf, 0);
	check(path, onefd_submit(loop, &req, read_on));
	onefd_timer_init(&timer, tick);
	onefd_timer_start(loop, &timer, onefd_now(loop) + TICK_NS);
	run_host();
	check("onefd_free", onefd_free(loop));
	close(fd);
	return 0;
}
