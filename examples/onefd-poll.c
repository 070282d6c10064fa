/*
 * onefd-poll - a loop as a guest of poll(2): beside a descriptor of the host's own,
 * which is standard input, it reads a file and has a timer.
 *
 *	cc -D_GNU_SOURCE -o onefd-poll onefd-poll.c $(pkg-config --cflags --libs onefd)
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <onefd.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define TICK_NS UINT64_C(100000000)

static struct onefd *loop;
static const char *path;
static char buf[65536];
static bool file_ended;

static int check(const char *what, ssize_t r)
{
	if (r < 0)
		errx(1, "%s: %s", what, strerror((int)-r));
	return (int)r;
}

static void read_on(struct onefd_req *req)
{
	file_ended = check(path, req->res) == 0;
	if (file_ended) {
		printf("%s: %lld bytes\n", path, (long long)req->offset);
		return;
	}
	onefd_prep_pread(req, req->file, buf, sizeof buf, req->offset + req->res);
	check(path, onefd_submit(loop, req, read_on));
}

static void tick(struct onefd_timer *timer)
{
	puts("tick");
	onefd_timer_start(loop, timer, timer->deadline + TICK_NS);
}

/* The host: it knows its own descriptor, and one that stands for all of the guest. */
static void serve(int own)
{
	struct pollfd fds[] = { { onefd_fd(loop), POLLIN, 0 }, { own, POLLIN, 0 } };
	char input[4096];

	while (!file_ended || fds[1].fd >= 0) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			err(1, "poll");
		if (fds[0].revents)
			check("onefd_dispatch", onefd_dispatch(loop, 0));
		if (fds[1].revents) {
			ssize_t n = read(own, input, sizeof input);

			if (n < 0)
				err(1, "standard input");
			printf("input: %zd bytes\n", n);
			fds[1].fd = n > 0 ? own : -1;
		}
	}
}

int main(int argc, char **argv)
{
	bool help = argc == 2 && !strcmp(argv[1], "--help");
	struct onefd_timer timer;
	struct onefd_file file;
	struct onefd_req req;
	int fd;

	if (argc != 2 || help) {
		fputs("Usage: onefd-poll FILE\n", help ? stdout : stderr);
		return !help;
	}
	path = argv[1];
	setlinebuf(stdout);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", path);
	check("onefd_new", onefd_new(&loop, NULL));
	check(path, onefd_file_init(loop, &file, fd));
	onefd_prep_pread(&req, &file, buf, sizeof buf, 0);
	check(path, onefd_submit(loop, &req, read_on));
	onefd_timer_init(&timer, tick);
	onefd_timer_start(loop, &timer, onefd_now(loop) + TICK_NS);
	serve(STDIN_FILENO);
	return check("onefd_free", onefd_free(loop));
}
