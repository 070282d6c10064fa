/*
 * nbd_stall.c - how long reading the head of an NBD export takes beside readers of
 * the rest.
 *
 * Usage: nbd_stall prepare DIR | nbd_stall SOCKET READERS
 *
 * The export is the file "disk" that was prepared in DIR, on a slow disk; its first
 * MiB is in the server's memory. READERS threads, a connection each, read blocks
 * anywhere else; this one reads one of the head every 5 ms. "ready" is printed when
 * all have asked. At the end of its input it prints "head", how many, and microseconds
 * at the median, p99 and most; then, when the last reader has its answer, "cold" and
 * how many they had. Every block tells its place.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MOST_READERS 1024
#define BLOCK 4096
#define HEAD (1 << 20)
#define DISK (160 << 20)
#define EVERY_NS 5000000
#define MOST_SAMPLES (1 << 20)

static const char *server;
static atomic_bool over;
static atomic_ulong asked, cold_reads;
static uint32_t samples[MOST_SAMPLES];
static size_t sample_count;

static void __attribute__((noreturn)) fail(const char *what)
{
	fprintf(stderr, "nbd_stall: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int prepare(const char *dir)
{
	static uint64_t block[BLOCK / sizeof(uint64_t)];
	char path[PATH_MAX];
	FILE *file;

	snprintf(path, sizeof path, "%s/disk", dir);
	file = fopen(path, "we");
	if (!file)
		fail(path);
	for (uint64_t at = 0; at < DISK; at += BLOCK) {
		block[0] = at;
		if (fwrite(block, BLOCK, 1, file) != 1)
			fail(path);
	}
	if (fflush(file) || fsync(fileno(file)) < 0 || fclose(file))
		fail(path);
	return 0;
}

/* ---- the protocol, as little of it as does --------------------------------------- */

struct __attribute__((packed)) request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t handle, offset;
	uint32_t length;
};

struct __attribute__((packed)) answer {
	uint32_t magic, error;
	uint64_t handle;
	uint64_t block[BLOCK / sizeof(uint64_t)];
};

static void send_all(int fd, const void *bytes, size_t length)
{
	if (send(fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
		fail("send");
}

static void receive_all(int fd, void *bytes, size_t length)
{
	if (recv(fd, bytes, length, MSG_WAITALL) != (ssize_t)length)
		fail("receive");
}

/* EXPORT_NAME without a name, and no zeroes: ten bytes are the answer. */
static int join_server(void)
{
	static const char options[] = "\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\0";
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char bytes[18];

	snprintf(address.sun_path, sizeof address.sun_path, "%s", server);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail(server);
	receive_all(fd, bytes, 18);
	send_all(fd, options, sizeof options - 1);
	receive_all(fd, bytes, 10);
	return fd;
}

static void ask(int fd, uint64_t offset)
{
	struct request request = {
		.magic = htobe32(0x25609513),
		.handle = offset,
		.offset = htobe64(offset),
		.length = htobe32(BLOCK),
	};

	send_all(fd, &request, sizeof request);
}

static void take(int fd, uint64_t offset)
{
	struct answer answer;

	receive_all(fd, &answer, sizeof answer);
	errno = EBADMSG;
	if (answer.magic != htobe32(0x67446698) || answer.error || answer.handle != offset ||
	    answer.block[0] != offset)
		fail("not what was asked for");
}

/* ---- those beside ------------------------------------------------------------------ */

static void *read_cold(void *arg)
{
	unsigned state = (unsigned)(uintptr_t)arg * 2654435761u + (unsigned)now_ns();
	int fd = join_server();

	do {
		uint64_t at = HEAD + (uint64_t)(rand_r(&state) % ((DISK - HEAD) / BLOCK)) * BLOCK;

		ask(fd, at);
		asked++;
		take(fd, at);
		cold_reads++;
	} while (!over);
	close(fd);
	return NULL;
}

/* ---- what is measured ---------------------------------------------------------------- */

/* Whether the input is at its end before that. */
static bool ends_before(uint64_t deadline)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	uint64_t now = now_ns(), left = deadline > now ? deadline - now : 0;
	struct timespec timeout = { .tv_nsec = (long)left };

	return ppoll(&input, 1, &timeout, NULL) > 0;
}

static void read_head(void)
{
	int fd = join_server();
	unsigned state = 1;

	for (uint64_t due = now_ns(); !ends_before(due); due += EVERY_NS) {
		uint64_t at = (uint64_t)(rand_r(&state) % (HEAD / BLOCK)) * BLOCK, start = now_ns();

		ask(fd, at);
		take(fd, at);
		if (sample_count < MOST_SAMPLES)
			samples[sample_count++] = (uint32_t)((now_ns() - start) / 1000);
		/* The time that was lost is not made up for. */
		if (due + EVERY_NS < now_ns())
			due = now_ns();
	}
	close(fd);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void report(void)
{
	errno = ENODATA;
	if (!sample_count)
		fail("head");
	qsort(samples, sample_count, sizeof *samples, by_size);
	printf("head %zu %" PRIu32 " %" PRIu32 " %" PRIu32 "\n", sample_count,
	       samples[sample_count / 2], samples[sample_count * 99 / 100],
	       samples[sample_count - 1]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	pthread_t readers[MOST_READERS];
	unsigned long count;

	if (argc == 3 && strcmp(argv[1], "prepare") == 0)
		return prepare(argv[2]);
	count = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	if (!count || count > MOST_READERS) {
		fprintf(stderr, "usage: nbd_stall prepare DIR | nbd_stall SOCKET READERS\n");
		return 2;
	}
	server = argv[1];
	for (unsigned long i = 0; i < count; i++)
		if ((errno = pthread_create(&readers[i], NULL, read_cold, (void *)i)))
			fail("pthread_create");
	while (asked < count)
		(void)poll(NULL, 0, 1);
	printf("ready\n");
	fflush(stdout);
	read_head();
	report();
	over = true;
	for (unsigned long i = 0; i < count; i++)
		pthread_join(readers[i], NULL);
	printf("cold %lu\n", cold_reads);
	return 0;
}
