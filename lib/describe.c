/*
 * describe.c - what was chosen, and why, in words.
 *
 * For people: its lines may change, and nothing in the library reads them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core.h"
#include "direct.h"
#include "file.h"
#include "sys.h"

static void sysctl_value(const struct onefd *loop, const char *name, char *text, size_t size)
{
	char path[64];
	int n = -ENOENT;

	snprintf(path, sizeof path, "/proc/sys/fs/%s", name);
	if (!(loop->requests.flags & ONEFD_NO_PROC))
		n = sys.read_text(path, text, size);
	if (n <= 0)
		snprintf(text, size, "unknown");
	text[strcspn(text, "\n")] = '\0';
}

static void describe_limits(const struct onefd *loop, FILE *out)
{
	char most[32], used[32];

	sysctl_value(loop, "aio-max-nr", most, sizeof most);
	sysctl_value(loop, "aio-nr", used, sizeof used);
	fprintf(out, "  fs.aio-max-nr is %s, of which fs.aio-nr = %s are in use by all processes\n",
		most, used);
}

static void describe_no_kaio(const struct onefd *loop, FILE *out)
{
	int error = loop->requests.kaio_error;

	fprintf(out, "kernel AIO: none, so workers do all file I/O: ");
	if (loop->requests.flags & ONEFD_NO_KAIO) {
		fprintf(out, "switched off (ONEFD_NO_KAIO)\n");
	} else if (error == -EAGAIN) {
		fprintf(out, "fs.aio-max-nr is spent; raise it with sysctl\n");
		describe_limits(loop, out);
	} else {
		fprintf(out, "io_setup: %s\n", strerror(-error));
	}
}

static void describe_kaio(const struct onefd *loop, FILE *out)
{
	const struct engine_kaio *kaio = &loop->requests.kaio_engine;
	const struct context *context = &kaio->context;

	fprintf(out, "kernel AIO: yes, up to %u requests in the kernel\n", kaio->cap);
	if (context->refused)
		fprintf(out, "  fewer than asked for: fs.aio-max-nr is nearly spent; "
			     "raise it with sysctl\n");
	describe_limits(loop, out);
	if (context->ring)
		fprintf(out, "completions: from the ring at %p, without a system call\n",
			(void *)context->ring);
	else
		fprintf(out, "completions: by io_getevents: %s\n", context->ring_why);
	if (context->moved_why)
		fprintf(out, "  not at the address asked for: %s\n", context->moved_why);
	fprintf(out, "RWF_NOWAIT: %s\n", loop->requests.flags & ONEFD_NO_NOWAIT ?
		"switched off (ONEFD_NO_NOWAIT): workers submit" :
		"tried on direct transfers, of which a worker submits what would block, and "
		"on buffered reads");
}

static void describe_pool(const struct onefd *loop, FILE *out)
{
	static const char *const names[LANES] = { "data", "sync", "call" };
	const struct engine_pool *pool = &loop->requests.pool_engine;
	unsigned threads[LANES] = { 0 };

	for (const struct onefd_link *at = pool->all.next; at != &pool->all; at = at->next) {
		const struct pool_lane *lane = list_entry(at, const struct pool_lane, link);

		threads[lane->kind] += lane->threads;
	}
	fprintf(out, "workers: up to %u of each kind, of data for each device, now", pool->most);
	for (int i = 0; i < LANES; i++)
		fprintf(out, " %s %u", names[i], threads[i]);
	fprintf(out, "\n");
	if (pool->alone)
		fprintf(out, "  threads could not be made: some calls ran, and blocked, on the "
			     "loop's thread\n");
}

static void describe_pages(const struct onefd *loop, FILE *out)
{
	const struct engine_pages *pages = &loop->requests.pages_engine;
	unsigned devices = 0;

	for (const struct onefd_link *at = pages->queues.next; at != &pages->queues; at = at->next)
		devices++;
	fprintf(out, "page waiters: for %u devices, those with buffered reads to wait for\n",
		devices);
	if (pages->error)
		fprintf(out, "  the last could not be made: %s; workers read instead\n",
			strerror(-pages->error));
	if (loop->requests.no_cachestat)
		fprintf(out, "  the kernel has no cachestat: waiters look at what may not be "
			     "tried by the loop\n");
}

static void describe_names(const struct onefd *loop, FILE *out)
{
	const struct names *names = &loop->names;

	if (!names->error)
		fprintf(out, "names: from the dentry cache where the file system is local; "
			     "others by workers\n");
	else if (loop->requests.flags & ONEFD_NO_PROC)
		fprintf(out, "names: by workers, for without /proc no mount is known "
			     "(ONEFD_NO_PROC)\n");
	else if (names->error == -EPERM)
		fprintf(out, "names: by workers, for openat2 is forbidden here\n");
	else
		fprintf(out, "names: by workers, for openat2 with RESOLVE_CACHED, or statx "
			     "with STATX_MNT_ID_UNIQUE (Linux 6.8), is not to be had here\n");
}

static void describe_device(const struct onefd_device *device, FILE *out)
{
	fprintf(out, "device %u:%u%s%s: ", device->major, device->minor,
		device->name[0] ? ", " : "", device->name);
	if (device->queue != device) {
		fprintf(out, "shares the window of %u:%u\n", device->queue->major,
			device->queue->minor);
		return;
	}
	fprintf(out, "window %u block requests of up to %llu KiB, %u in use; ", device->limit,
		(unsigned long long)device->chunk / 1024, device->used);
	if (device->nr_requests)
		fprintf(out, "its queue holds %u (nr_requests)\n", device->nr_requests);
	else
		fprintf(out, "its queue is unknown: a default\n");
	if (engine_pages_reads_ahead(device->pages))
		fprintf(out, "  a read that misses the page cache starts no readahead here: "
			     "the waiter asks for it\n");
	if (device->limit < device->most)
		fprintf(out, "  narrowed from %u after slow submissions\n", device->most);
}

static void describe_counts(const struct onefd_stats *stats, FILE *out)
{
	fprintf(out, "requests: %llu submitted, %llu completed, %llu cancelled; "
		     "most in the kernel at once %llu\n",
		(unsigned long long)stats->submitted, (unsigned long long)stats->completed,
		(unsigned long long)stats->cancelled,
		(unsigned long long)stats->in_flight_most);
	fprintf(out, "sent: %llu to kernel AIO in %llu calls, %llu to workers, %llu to page "
		     "waiters; from the page cache at once %llu\n",
		(unsigned long long)stats->kaio, (unsigned long long)stats->submit_calls,
		(unsigned long long)stats->pool, (unsigned long long)stats->pages,
		(unsigned long long)stats->hits);
	fprintf(out, "would have blocked %llu, waited for a window %llu\n",
		(unsigned long long)stats->nowait_again, (unsigned long long)stats->held);
	fprintf(out, "names: %llu answered without a worker\n",
		(unsigned long long)stats->names);
	fprintf(out, "longest: io_submit %.3f ms, turn %.3f ms\n",
		(double)stats->submit_ns.max / 1e6, (double)stats->turn_ns.max / 1e6);
}

int onefd_describe(const struct onefd *loop, FILE *out)
{
	if (!loop || !out)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	fprintf(out, "onefd %s\n", onefd_version());
	if (loop->requests.kaio)
		describe_kaio(loop, out);
	else
		describe_no_kaio(loop, out);
	describe_pool(loop, out);
	describe_pages(loop, out);
	describe_names(loop, out);
	for (const struct onefd_link *at = loop->windows.devices.next;
	     at != &loop->windows.devices; at = at->next)
		describe_device(list_entry(at, const struct onefd_device, link), out);
	describe_counts(&loop->stats, out);
	return ferror(out) ? -EIO : 0;
}

static const char *direct_way(const struct onefd_file *file)
{
	if (!file->loop->requests.kaio)
		return "by a worker: there is no kernel AIO";
	switch (file_trust(file)) {
	case TRUST_NOWAIT:
		return "kernel AIO, submitted by the loop: RWF_NOWAIT is honest here; "
		       "a worker submits what would block";
	case TRUST_WARM:
		if (file->warm == WARM_DONE)
			return "kernel AIO, submitted by the loop: its extents are in memory; "
			       "a worker submits what would block";
		return "kernel AIO, at first submitted by a worker, until that has read the "
		       "file's extents in";
	default:
		return "kernel AIO, submitted by a worker: io_submit may block on this file "
		       "system whatever it is told";
	}
}

static const char *read_way(const struct onefd_file *file)
{
	if (file->loop->requests.flags & ONEFD_NO_NOWAIT)
		return "by a worker: RWF_NOWAIT is switched off";
	if (file->refused & 1u << 0)
		return "by a worker: the file system refuses RWF_NOWAIT";
	if (file_trust(file) == TRUST_NEVER)
		return "from the page cache where cachestat finds them resident, else a thread "
		       "asks for the pages and waits for them";
	if (file->warm != WARM_DONE && !(file->flags & ONEFD_FILE_BLOCKDEV))
		return "at first by a thread, which reads the file's extents in";
	return "from the page cache; a thread waits for what is not there, while its readahead "
	       "is running";
}

static const char *write_way(const struct onefd_file *file)
{
	if (file->flags & ONEFD_FILE_APPEND)
		return "by a worker: an append stopped half-way would be torn";
	if (file->flags & ONEFD_FILE_BLOCKDEV || file_trust(file) != TRUST_NOWAIT)
		return "by a worker: RWF_NOWAIT is refused here, or waits all the same";
	if (file->loop->requests.flags & ONEFD_NO_NOWAIT)
		return "by a worker: RWF_NOWAIT is switched off (ONEFD_NO_NOWAIT)";
	if (file->refused & 1u << 1)
		return "by a worker: the file is written synchronously, or RLIMIT_FSIZE is set";
	return "into the page cache by the loop, where that need not wait; else by a worker";
}

static void describe_verdict(const struct onefd_file *file, int way, FILE *out)
{
	static const char *const names[] = { "reads", "writes" };

	if (file->flags & ONEFD_FILE_DIRECT && file->refused & 1u << way)
		fprintf(out, "%s: RWF_NOWAIT is refused, a worker submits them\n", names[way]);
	if (file->detour[way])
		fprintf(out, "%s: the next %u go to a worker at once, for earlier ones would "
			     "have blocked\n", names[way], file->detour[way]);
}

int onefd_file_describe(const struct onefd_file *file, FILE *out)
{
	if (!file || !out || !file->loop)
		return -EINVAL;
	if (!loop_is_ours(file->loop))
		return -ECHILD;
	fprintf(out, "kind: %s%s%s\n",
		file->flags & ONEFD_FILE_BLOCKDEV ? "block device" : "regular file",
		file->flags & ONEFD_FILE_DIRECT ? ", O_DIRECT" : ", buffered",
		file->flags & ONEFD_FILE_APPEND ? ", O_APPEND" : "");
	if (file->flags & ONEFD_FILE_DIRECT) {
		fprintf(out, "alignment: addresses %u bytes, offsets and lengths %u; others pass "
			     "through aligned memory\n", file->mem_align, file->off_align);
		fprintf(out, "transfers: %s\n", direct_way(file));
		if (file->extent)
			fprintf(out, "extents: %llu KiB each on average\n",
				(unsigned long long)file->extent / 1024);
	} else {
		fprintf(out, "reads: %s\n", read_way(file));
		fprintf(out, "writes: %s\n", write_way(file));
	}
	describe_verdict(file, 0, out);
	describe_verdict(file, 1, out);
	describe_device(file->device, out);
	return ferror(out) ? -EIO : 0;
}
