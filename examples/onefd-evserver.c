/*
 * onefd-evserver - a libev server of files that does not stall on a cold one.
 *
 *   cc -D_GNU_SOURCE -o onefd-evserver onefd-evserver.c $(pkg-config --cflags --libs onefd) -lev
 *
 * It is written as libev programs are: an ev_io and an ev_timer to each client, a line
 * "GET path" from it, then "OK size" and the file to it, a block at a time. What makes
 * the difference stands under "onefd" and in main(): a loop hung into libev's, through
 * which files are opened and read. --blocking leaves it out: then the server calls
 * open() and pread() itself, and while one client's file comes from the disk, all wait.
 *
 * A client that does not read has one block in memory and no read under way. One that
 * goes while its file is read is let go when the read has ended: until then the memory
 * is lent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <onefd/libev.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STATUS_FAILED	1
#define STATUS_USAGE	2
#define BLOCK		(64u << 10)
#define LINE		(PATH_MAX + 8)
#define TIMEOUT_MOST	86400u
#define CLIENTS_MOST	10000u

struct client;

typedef void file_fn(struct client *client, ssize_t res);

struct client {
	ev_io io;
	ev_timer idle;			/* runs while the client is waited for */
	struct client *next, **at;	/* in the list of all */
	char line[LINE];
	size_t line_length, taken;	/* what came, further lines too; the first of them */
	const char *path;		/* in line */
	int fd;				/* of the file, or -1 */
	off_t size, offset;		/* of the file: all, and read so far */
	char buffer[BLOCK];
	size_t length, sent;		/* of the buffer */

	struct onefd_req req;
	struct onefd_file file;
	file_fn *then;			/* what follows the request that is out, or NULL */
	bool gone;
};

static struct ev_loop *host;
static struct onefd *loop;		/* NULL: --blocking */
static struct onefd_libev adapter;
static ev_io listener;
static struct client *clients;
static unsigned client_count, client_most = 1000;
static double timeout = 30;
static int root;

static void die(const char *what, int error)
{
	fprintf(stderr, "onefd-evserver: %s: %s\n", what, strerror(error));
	exit(STATUS_FAILED);
}

/* ---- onefd: what a libev server needs to open and read files beside ---------- */

static void file_done(struct onefd_req *req)
{
	struct client *client = onefd_container(req, struct client, req);
	file_fn *then = client->then;

	client->then = NULL;
	then(client, req->res);
}

static void submit(struct client *client, file_fn *then)
{
	int r;

	client->then = then;
	r = onefd_submit(loop, &client->req, file_done);
	if (r < 0)
		die("cannot submit", -r);
}

static ssize_t open_path(void *arg);
static file_fn file_opened, block_read;

static void open_file(struct client *client)
{
	if (loop) {
		onefd_prep_call(&client->req, open_path, client);
		submit(client, file_opened);
	} else {
		file_opened(client, open_path(client));
	}
}

static void read_block(struct client *client)
{
	size_t length = BLOCK;

	if (client->size - client->offset < (off_t)length)
		length = (size_t)(client->size - client->offset);
	if (loop) {
		onefd_prep_pread(&client->req, &client->file, client->buffer, length, client->offset);
		submit(client, block_read);
	} else {
		block_read(client, pread(client->fd, client->buffer, length, client->offset));
	}
}

/* ---- clients ----------------------------------------------------------------- */

/* A place or a descriptor is free again: whoever waits in the queue may want it. */
static void accept_on(void)
{
	if (client_count < client_most)
		ev_io_start(host, &listener);
}

static void close_file(struct client *client)
{
	if (client->fd < 0)
		return;
	close(client->fd);
	client->fd = -1;
	accept_on();
}

static void free_client(struct client *client)
{
	close_file(client);
	*client->at = client->next;
	if (client->next)
		client->next->at = client->at;
	free(client);
	client_count--;
	accept_on();
}

static void close_client(struct client *client)
{
	ev_io_stop(host, &client->io);
	ev_timer_stop(host, &client->idle);
	close(client->io.fd);
	client->gone = true;
	if (client->then)
		(void)onefd_cancel(&client->req);	/* it calls back in any case */
	else
		free_client(client);
}

static void client_ready(struct ev_loop *base, ev_io *io, int events);

/* The client's turn: to send (EV_READ) or to receive. */
static void wait_for(struct client *client, int events)
{
	ev_io_stop(host, &client->io);
	ev_io_set(&client->io, client->io.fd, events);
	ev_io_start(host, &client->io);
	ev_timer_again(host, &client->idle);
}

/* Ours: nothing is expected of the client while its file is opened or read. */
static void wait_for_file(struct client *client)
{
	ev_io_stop(host, &client->io);
	ev_timer_stop(host, &client->idle);
}

static void answer(struct client *client, const char *word, const char *text)
{
	client->length = (size_t)snprintf(client->buffer, BLOCK, "%s %s\n", word, text);
	client->sent = 0;
	wait_for(client, EV_WRITE);
}

/* ---- the files --------------------------------------------------------------- */

/* On a worker, or not. Nothing outside of the root can be named, not by a link either. */
static ssize_t open_path(void *arg)
{
	struct client *client = arg;
	struct open_how how = {
		.flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	struct stat st;

	client->fd = (int)syscall(SYS_openat2, root, client->path, &how, sizeof how);
	if (client->fd < 0 || fstat(client->fd, &st) < 0)
		return -errno;
	client->size = st.st_size;
	client->offset = 0;
	return S_ISREG(st.st_mode) ? 0 : S_ISDIR(st.st_mode) ? -EISDIR : -EPERM;
}

static void file_opened(struct client *client, ssize_t res)
{
	char size[32];

	if (client->gone) {
		free_client(client);
		return;
	}
	if (res == 0 && loop)
		res = onefd_file_init(loop, &client->file, client->fd);
	if (res < 0) {
		close_file(client);
		answer(client, "ERROR", strerror((int)-res));
		return;
	}
	snprintf(size, sizeof size, "%lld", (long long)client->size);
	answer(client, "OK", size);
}

/* It was promised whole: of a file that fails or shrinks, the end tells. */
static void block_read(struct client *client, ssize_t res)
{
	if (client->gone) {
		free_client(client);
	} else if (res <= 0) {
		close_client(client);
	} else {
		client->offset += res;
		client->length = (size_t)res;
		client->sent = 0;
		wait_for(client, EV_WRITE);
	}
}

/* ---- the protocol ------------------------------------------------------------ */

/* Whether a whole line is there: then it is answered. */
static bool take_line(struct client *client)
{
	char *end = memchr(client->line, '\n', client->line_length);

	if (!end)
		return false;
	client->taken = (size_t)(end + 1 - client->line);
	if (end > client->line && end[-1] == '\r')
		end--;
	*end = '\0';
	/* A path that has a zero byte in it would be another's. */
	if (strncmp(client->line, "GET ", 4) != 0 || strlen(client->line) < (size_t)(end - client->line)) {
		answer(client, "ERROR", "not understood");
		return true;
	}
	client->path = client->line + 4 + strspn(client->line + 4, "/");
	wait_for_file(client);
	open_file(client);
	return true;
}

/* What was answered goes; the next line may have come already. */
static void next_line(struct client *client)
{
	client->line_length -= client->taken;
	memmove(client->line, client->line + client->taken, client->line_length);
	close_file(client);
	if (!take_line(client))
		wait_for(client, EV_READ);
}

static void receive(struct client *client)
{
	ssize_t n = recv(client->io.fd, client->line + client->line_length,
			 LINE - client->line_length, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		client->line_length += (size_t)n;
	if (n <= 0 || (!take_line(client) && client->line_length == LINE))
		close_client(client);
}

static void send_block(struct client *client)
{
	ssize_t n = send(client->io.fd, client->buffer + client->sent,
			 client->length - client->sent, MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		close_client(client);
		return;
	}
	client->sent += (size_t)n;
	ev_timer_again(host, &client->idle);
	if (client->sent < client->length)
		return;
	if (client->fd < 0 || client->offset == client->size) {
		next_line(client);
		return;
	}
	wait_for_file(client);
	read_block(client);
}

static void client_ready(struct ev_loop *base, ev_io *io, int events)
{
	struct client *client = onefd_container(io, struct client, io);

	(void)base;
	if (events & EV_WRITE)
		send_block(client);
	else
		receive(client);
}

static void client_idle(struct ev_loop *base, ev_timer *idle, int events)
{
	(void)base;
	(void)events;
	close_client(onefd_container(idle, struct client, idle));
}

static void add_client(int fd)
{
	struct client *client = calloc(1, sizeof *client);

	if (!client) {
		close(fd);
		return;
	}
	client->fd = -1;
	client->next = clients;
	client->at = &clients;
	if (clients)
		clients->at = &client->next;
	clients = client;
	client_count++;
	ev_io_init(&client->io, client_ready, fd, EV_READ);
	ev_timer_init(&client->idle, client_idle, 0., timeout);
	wait_for(client, EV_READ);
}

/* More clients than we have room for wait in the queue: see accept_on(). */
static void client_came(struct ev_loop *base, ev_io *io, int events)
{
	int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd >= 0)
		add_client(fd);
	else if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
		return;
	else if (!client_count)
		die("cannot accept", errno);
	if (fd < 0 || client_count == client_most)
		ev_io_stop(base, io);
}

/* ---- the program ------------------------------------------------------------- */

static void stopped(struct ev_loop *base, ev_signal *signal, int events)
{
	(void)signal;
	(void)events;
	ev_break(base, EVBREAK_ALL);
}

/* On this machine alone. */
static void start_listening(unsigned port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
	    bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, SOMAXCONN) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		die("cannot listen", errno);
	ev_io_init(&listener, client_came, fd, EV_READ);
	ev_io_start(host, &listener);
	printf("listening on 127.0.0.1:%u\n", ntohs(address.sin_port));
	fflush(stdout);
}

static void start_loop(void)
{
	int r = onefd_new(&loop, NULL);

	if (r == 0)
		r = onefd_libev_attach(&adapter, host, loop);
	if (r < 0)
		die("cannot make a loop", -r);
}

/* Reads that are out are waited for: the disk may still write to their memory. */
static void end_loop(void)
{
	int r = onefd_drain(loop, -1);

	onefd_libev_detach(&adapter);
	if (r == 0)
		r = onefd_free(loop);
	if (r < 0)
		die("cannot end the loop", -r);
}

static void close_all(void)
{
	for (struct client *client = clients, *next; client; client = next) {
		next = client->next;
		if (!client->gone)
			close_client(client);
	}
	if (loop)
		end_loop();
	ev_io_stop(host, &listener);
	close(listener.fd);
	close(root);
}

static void serve(unsigned port, bool blocking)
{
	static ev_signal signals[2];

	host = ev_default_loop(EVFLAG_AUTO);
	if (!host)
		die("cannot make libev's loop", errno);
	if (!blocking)
		start_loop();
	ev_signal_init(&signals[0], stopped, SIGTERM);
	ev_signal_init(&signals[1], stopped, SIGINT);
	for (size_t i = 0; i < 2; i++)
		ev_signal_start(host, &signals[i]);
	start_listening(port);
	ev_run(host, 0);
	close_all();
	for (size_t i = 0; i < 2; i++)
		ev_signal_stop(host, &signals[i]);
	ev_loop_destroy(host);
}

static void usage(FILE *out)
{
	fputs("usage: onefd-evserver [OPTION]... ROOT\n"
	      "Serves the files below ROOT on 127.0.0.1: a line \"GET path\" is answered by\n"
	      "\"OK size\" and the file, or by \"ERROR reason\".\n\n"
	      "  --port=N      there (0: any, it is printed)\n"
	      "  --clients=N   so many at once, others wait (1000)\n"
	      "  --timeout=S   close after S seconds without a line from the client, or a byte to it (30)\n"
	      "  --blocking    open and read in libev's loop, as without onefd\n"
	      "  --help        this text\n\n"
	      "Exit status: 0 stopped by SIGINT or SIGTERM, 1 failed, 2 wrong usage.\n", out);
}

static unsigned number(const char *text, unsigned least, unsigned most)
{
	char *rest;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &rest, 10);
	if (errno || rest == text || *rest || *text == '-' || value < least || value > most) {
		usage(stderr);
		exit(STATUS_USAGE);
	}
	return (unsigned)value;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "clients", required_argument, NULL, 'c' },
		{ "timeout", required_argument, NULL, 't' },
		{ "blocking", no_argument, NULL, 'b' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	unsigned port = 0;
	bool blocking = false;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'p') {
			port = number(optarg, 0, UINT16_MAX);
		} else if (option == 'c') {
			client_most = number(optarg, 1, CLIENTS_MOST);
		} else if (option == 't') {
			timeout = number(optarg, 1, TIMEOUT_MOST);
		} else if (option == 'b') {
			blocking = true;
		} else {
			usage(option == 'h' ? stdout : stderr);
			return option == 'h' ? EXIT_SUCCESS : STATUS_USAGE;
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		return STATUS_USAGE;
	}
	root = open(argv[optind], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		die(argv[optind], errno);
	serve(port, blocking);
	return EXIT_SUCCESS;
}
