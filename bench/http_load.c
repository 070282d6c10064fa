/*
 * http_load.c - asks an HTTP server for small files at a steady rate, beside
 * downloads that take all they get. bench/http measures with it, and the tests do.
 *
 * Usage: http_load [OPTION]... PORT (of 127.0.0.1; what there is stands below, and in usage())
 *
 * A hot request is due at its time, whatever became of those before (an open loop):
 * its latency runs from there to the last byte of its answer, on one of
 * --hot-connections, which is kept alive; where all are busy, it waits for one, and
 * that time is its own, too. Each answer must be 200, of the length that --hot-size
 * says, and the bytes those of the first answer to the same path.
 * A thread beside drains the cold ones: each of --cold-connections takes the next path
 * of its list when one is done, --cold-once or not; their bytes are counted and dropped.
 * With --cold-once, all ends when they do. A list is a file, a path a line; behind a
 * space a range may follow ("0-99"), and then 206 is as good an answer.
 *
 * One line of JSON: times are in microseconds. Status 1 where anything failed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000ull
#define GRACE_NS (10 * NS) /* for answers that are still out at the end */
#define HEAD 4096
#define BODY (1u << 20)
#define DRAIN (1u << 20) /* of a cold one, before the next has its turn */
#define CONNECTIONS 1024

struct paths {
	char **path;
	uint64_t *sum; /* of the first answer; 0: none yet */
	size_t count;
};

struct connection {
	int fd;
	size_t path;  /* of its list */
	uint64_t due; /* of what is asked, or 0: nothing is */
	char head[HEAD];
	size_t head_length;
	bool in_body;
	uint64_t left, sum;	 /* of the body */
	struct connection *next; /* among the free */
};

static struct sockaddr_in server = { .sin_family = AF_INET };
static struct paths hot, cold;
static size_t hot_size;
static unsigned hot_connections = 32, cold_connections = 8;
static double rate = 1000, seconds = 3;
static bool cold_once, copies;

static struct connection hots[CONNECTIONS], colds[CONNECTIONS], *free_hots;
static uint32_t *samples;
static size_t sample_count;
static uint64_t errors;
static atomic_uint_least64_t cold_bytes, cold_done, cold_errors, cold_ended;
static atomic_bool over;

static void __attribute__((noreturn)) fail(const char *what)
{
	fprintf(stderr, "http_load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec;
}

/* ---- one connection --------------------------------------------------------------- */

static void watch(int epoll, int op, struct connection *c, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = c };

	if (epoll_ctl(epoll, op, c->fd, &event) < 0)
		fail("epoll_ctl");
}

static void join(int epoll, struct connection *c)
{
	int yes = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0)
		fail("connect");
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
	watch(epoll, EPOLL_CTL_ADD, c, EPOLLIN);
}

/* A request fits in any socket's buffer. */
static void ask(struct connection *c, const struct paths *paths, size_t path, uint64_t due)
{
	const char *name = paths->path[path], *range = strchr(name, ' ');
	int name_length = range ? (int)(range - name) : (int)strlen(name), length;
	char text[HEAD];

	length = snprintf(text, sizeof text, "GET %.*s HTTP/1.1\r\nHost: localhost\r\n%s%s%s\r\n",
			  name_length, name, range ? "Range: bytes=" : "", range ? range + 1 : "",
			  range ? "\r\n" : "");
	c->path = path;
	c->due = due;
	c->head_length = 0;
	c->in_body = false;
	c->sum = 14695981039346656037u;
	/* A connection that is closed shows where it is read. */
	(void)!send(c->fd, text, (size_t)length, MSG_NOSIGNAL);
}

/* FNV-1a: the same in whatever pieces the bytes come. */
static uint64_t sum_up(uint64_t sum, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		sum = (sum ^ (unsigned char)bytes[i]) * 1099511628211u;
	return sum;
}

/* The head is whole: what it says of the body. */
static bool understand(struct connection *c, const char *end)
{
	static const char name[] = "\r\nContent-Length:";
	const char *at;

	if (strncmp(c->head, "HTTP/1.1 200 ", 13) != 0 &&
	    strncmp(c->head, "HTTP/1.1 206 ", 13) != 0)
		return false;
	for (at = c->head; at < end && strncasecmp(at, name, sizeof name - 1) != 0;)
		at++;
	if (at == end)
		return false;
	c->left = strtoull(at + sizeof name - 1, NULL, 10);
	c->in_body = true;
	return true;
}

/* How many bytes of the body came with the head: < 0 where there is no head, or a wrong one. */
static ssize_t take_head(struct connection *c, const char **body)
{
	ssize_t n = recv(c->fd, c->head + c->head_length, HEAD - 1 - c->head_length, MSG_DONTWAIT);
	const char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	c->head_length += (size_t)n;
	c->head[c->head_length] = '\0';
	end = strstr(c->head, "\r\n\r\n");
	if (!end)
		return c->head_length == HEAD - 1 ? -1 : 0;
	if (!understand(c, end))
		return -1;
	*body = end + 4;
	n = c->head + c->head_length - *body;
	return (uint64_t)n > c->left ? -1 : n;
}

/* ---- the hot ones --------------------------------------------------------------- */

static void set_free(struct connection *c)
{
	c->due = 0;
	c->next = free_hots;
	free_hots = c;
}

static void start_hot(int epoll)
{
	for (unsigned i = 0; i < hot_connections; i++) {
		join(epoll, &hots[i]);
		set_free(&hots[i]);
	}
}

/* Another connection takes the place of one that went wrong. */
static void lose_hot(int epoll, struct connection *c)
{
	bool asked = c->due != 0;

	close(c->fd);
	join(epoll, c);
	errors++;
	if (asked)
		set_free(c);
}

static void finish_hot(int epoll, struct connection *c)
{
	uint64_t *sum = &hot.sum[c->path], took = (now_ns() - c->due) / 1000;

	if (*sum == 0)
		*sum = c->sum;
	if (*sum != c->sum) {
		lose_hot(epoll, c);
		return;
	}
	samples[sample_count++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
	set_free(c);
}

static void read_hot(int epoll, struct connection *c)
{
	static char bytes[BODY];
	const char *body = bytes;
	ssize_t n;

	if (!c->due) {
		lose_hot(epoll, c); /* nobody asked */
		return;
	}
	n = c->in_body ? recv(c->fd, bytes, c->left < BODY ? c->left : BODY, MSG_DONTWAIT)
		       : take_head(c, &body);
	if (n < 0 && c->in_body && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0 || (n == 0 && c->in_body && c->left && body == bytes) ||
	    (hot_size && c->in_body && body != bytes && c->left != hot_size)) {
		lose_hot(epoll, c);
		return;
	}
	c->sum = sum_up(c->sum, body, (size_t)n);
	c->left -= c->in_body ? (uint64_t)n : 0;
	if (c->in_body && c->left == 0)
		finish_hot(epoll, c);
}

static uint64_t due_at(uint64_t start, uint64_t number)
{
	return start + (uint64_t)((double)number * (double)NS / rate);
}

/* Those that are due, as far as there are connections; the number of the next. */
static uint64_t ask_due(uint64_t start, uint64_t next, uint64_t count)
{
	while (free_hots && next < count && due_at(start, next) <= now_ns()) {
		struct connection *c = free_hots;

		free_hots = c->next;
		ask(c, &hot, next % hot.count, due_at(start, next));
		next++;
	}
	return next;
}

static void set_timer(int timer, uint64_t at)
{
	struct itimerspec when = { .it_value = { .tv_sec = (time_t)(at / NS),
						 .tv_nsec = (long)(at % NS) } };

	if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL) < 0)
		fail("timerfd_settime");
}

static bool none_out(void)
{
	for (unsigned i = 0; i < hot_connections; i++)
		if (hots[i].due)
			return false;
	return true;
}

static bool cold_is_done(void)
{
	return cold_once && cold.count && cold_done == cold.count;
}

static void run_hot(int epoll, int timer)
{
	uint64_t count = (uint64_t)(rate * seconds), next = 0, start = now_ns(), end, expirations;
	struct epoll_event events[64];

	end = due_at(start, count) + GRACE_NS;
	samples = calloc(count + 1, sizeof *samples);
	if (!samples)
		fail("calloc");
	while (now_ns() < end) {
		int n;

		if (cold_is_done())
			count = next;
		if (next == count && none_out())
			break;
		next = ask_due(start, next, count);
		set_timer(timer, next < count && free_hots ? due_at(start, next) : end);
		n = epoll_wait(epoll, events, 64, -1);
		if (n < 0 && errno != EINTR)
			fail("epoll_wait");
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				read_hot(epoll, events[i].data.ptr);
			else
				(void)!read(timer, &expirations, sizeof expirations);
		}
	}
	for (unsigned i = 0; i < hot_connections; i++)
		errors += hots[i].due != 0;
	errors += count - next;
}

/* ---- the cold ones -------------------------------------------------------------- */

static void ask_cold(int epoll, struct connection *c)
{
	static size_t next;

	if (cold_once && next == cold.count) {
		watch(epoll, EPOLL_CTL_DEL, c, 0);
		return;
	}
	ask(c, &cold, next % cold.count, 1);
	next++;
}

static void lose_cold(int epoll, struct connection *c)
{
	cold_errors++;
	watch(epoll, EPOLL_CTL_DEL, c, 0);
}

/* With MSG_TRUNC what was received goes without a copy, as if the client were elsewhere. */
static ssize_t take_cold(struct connection *c)
{
	static char bytes[DRAIN];
	size_t most = c->left < DRAIN ? c->left : DRAIN;

	return recv(c->fd, bytes, most, MSG_DONTWAIT | (copies ? 0 : MSG_TRUNC));
}

static void read_cold(int epoll, struct connection *c)
{
	const char *body;
	ssize_t n = c->in_body ? take_cold(c) : take_head(c, &body);

	if (n < 0 && c->in_body && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0 || (n == 0 && c->in_body && c->head_length == 0)) {
		lose_cold(epoll, c);
		return;
	}
	if (!c->in_body)
		return;
	c->head_length = 0;
	c->left -= (uint64_t)n;
	cold_bytes += (uint64_t)n;
	if (c->left == 0) {
		cold_done++;
		cold_ended = now_ns();
		ask_cold(epoll, c);
	}
}

static void *run_cold(void *arg)
{
	struct epoll_event events[64];
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	(void)arg;
	if (epoll < 0)
		fail("epoll_create1");
	for (unsigned i = 0; i < cold_connections; i++) {
		join(epoll, &colds[i]);
		ask_cold(epoll, &colds[i]);
	}
	while (!over) {
		int n = epoll_wait(epoll, events, 64, 50);

		for (int i = 0; i < n; i++)
			read_cold(epoll, events[i].data.ptr);
	}
	close(epoll);
	return NULL;
}

/* ---- the program ---------------------------------------------------------------- */

static void read_paths(const char *name, struct paths *ret)
{
	FILE *file = fopen(name, "re");
	char *line = NULL;
	size_t size = 0;
	ssize_t length;

	if (!file)
		fail(name);
	while ((length = getline(&line, &size, file)) > 0) {
		line[strcspn(line, "\n")] = '\0';
		ret->path = reallocarray(ret->path, ret->count + 1, sizeof *ret->path);
		if (!ret->path || length > HEAD / 2 || !(ret->path[ret->count++] = strdup(line)))
			fail(name);
	}
	free(line);
	fclose(file);
	ret->sum = calloc(ret->count + 1, sizeof *ret->sum);
	if (!ret->sum || !ret->count) {
		errno = ret->sum ? ENODATA : ENOMEM;
		fail(name);
	}
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static uint32_t quantile(double part)
{
	return sample_count ? samples[(size_t)(part * (double)(sample_count - 1))] : 0;
}

static double seconds_between(uint64_t start, uint64_t end)
{
	return (double)(end - start) / (double)NS;
}

static void report(uint64_t start, uint64_t end, uint64_t bytes)
{
	double took = seconds_between(start, end);
	double cold_took = cold_is_done() ? seconds_between(start, cold_ended) : took;

	qsort(samples, sample_count, sizeof *samples, by_size);
	printf("{\"hot\": %zu, \"errors\": %" PRIu64 ", \"p50_us\": %" PRIu32
	       ", \"p99_us\": %" PRIu32 ", \"p999_us\": %" PRIu32 ", \"max_us\": %" PRIu32
	       ", \"cold_done\": %" PRIu64 ", \"cold_errors\": %" PRIu64
	       ", \"cold_bytes\": %" PRIu64 ", \"cold_mb_s\": %.4g, \"seconds\": %.4g}\n",
	       sample_count, errors, quantile(.5), quantile(.99), quantile(.999), quantile(1),
	       (uint64_t)cold_done, (uint64_t)cold_errors, bytes, (double)bytes / 1e6 / cold_took,
	       took);
}

static void wait_for_the_end(void)
{
	uint64_t end = now_ns() + (uint64_t)(seconds * (double)NS);
	struct timespec pause = { .tv_nsec = 1000000 };

	while (now_ns() < end && !cold_is_done())
		nanosleep(&pause, NULL);
}

static void usage(FILE *out)
{
	fputs("usage: http_load [OPTION]... PORT\n"
	      "  --hot=FILE            paths that are asked for in turn, a path a line\n"
	      "  --rate=N              so many of them a second (1000)\n"
	      "  --hot-connections=N   over so many connections (32)\n"
	      "  --hot-size=N          each answer has so many bytes\n"
	      "  --cold=FILE           paths that are downloaded beside\n"
	      "  --cold-connections=N  so many at a time (8)\n"
	      "  --cold-once           each of them once\n"
	      "  --copy                take their bytes, as a client on the same machine would\n"
	      "  --seconds=N           so long (3)\n",
	      out);
}

static double number(const char *text, double least, double most)
{
	char *rest;
	double value = strtod(text, &rest);

	if (rest == text || *rest || !(value >= least && value <= most)) {
		usage(stderr);
		exit(2);
	}
	return value;
}

static void read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "hot", required_argument, NULL, 'h' },
		{ "rate", required_argument, NULL, 'r' },
		{ "hot-connections", required_argument, NULL, 'n' },
		{ "hot-size", required_argument, NULL, 'z' },
		{ "cold", required_argument, NULL, 'c' },
		{ "cold-connections", required_argument, NULL, 'm' },
		{ "cold-once", no_argument, NULL, 'o' },
		{ "copy", no_argument, NULL, 'y' },
		{ "seconds", required_argument, NULL, 's' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'h':
			read_paths(optarg, &hot);
			break;
		case 'r':
			rate = number(optarg, 1, 1e6);
			break;
		case 'n':
			hot_connections = (unsigned)number(optarg, 1, CONNECTIONS);
			break;
		case 'z':
			hot_size = (size_t)number(optarg, 1, 1e9);
			break;
		case 'c':
			read_paths(optarg, &cold);
			break;
		case 'm':
			cold_connections = (unsigned)number(optarg, 1, CONNECTIONS);
			break;
		case 'o':
			cold_once = true;
			break;
		case 'y':
			copies = true;
			break;
		case 's':
			seconds = number(optarg, 0.001, 1e6);
			break;
		default:
			usage(stderr);
			exit(2);
		}
	}
	if (argc - optind != 1 || (!hot.count && !cold.count)) {
		usage(stderr);
		exit(2);
	}
	server.sin_port = htons((uint16_t)number(argv[optind], 1, UINT16_MAX));
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

int main(int argc, char **argv)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC),
	    timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };
	uint64_t start, end, bytes;
	pthread_t thread;

	read_options(argc, argv);
	(void)prctl(PR_SET_TIMERSLACK, 1ul);
	if (epoll < 0 || timer < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event) < 0)
		fail("epoll");
	start = now_ns();
	if (cold.count && (errno = pthread_create(&thread, NULL, run_cold, NULL)))
		fail("pthread_create");
	if (hot.count) {
		start_hot(epoll);
		run_hot(epoll, timer);
	} else {
		wait_for_the_end();
	}
	end = now_ns();
	bytes = cold_bytes;
	over = true;
	if (cold.count)
		pthread_join(thread, NULL);
	report(start, end, bytes);
	return errors || cold_errors;
}
