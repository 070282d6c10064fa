/*
 * test_counts.c - what the hot path costs, counted and not timed: allocations
 * and system calls.
 *
 * malloc and its kin are wrapped by the linker; system calls go through the
 * table of sys.h, whose every entry is replaced by one that counts.
 */
#include "files.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "../lib/sys.h"

#define BLOCK 4096
#define DEPTH 32
#define REQUESTS 10000

static struct onefd *loop;
static struct sys_calls real;
static atomic_ullong allocations, calls, submits, waits, wakes, arms, readings;
static atomic_bool counting;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *ptr, size_t size);
int __real_posix_memalign(void **ret, size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *ptr, size_t size);
int __wrap_posix_memalign(void **ret, size_t align, size_t size);

void *__wrap_malloc(size_t size)
{
	allocations += counting;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	allocations += counting;
	return __real_calloc(count, size);
}

void *__wrap_realloc(void *ptr, size_t size)
{
	allocations += counting;
	return __real_realloc(ptr, size);
}

int __wrap_posix_memalign(void **ret, size_t align, size_t size)
{
	allocations += counting;
	return __real_posix_memalign(ret, align, size);
}

/* A table entry that counts, whatever its arguments; some have a count of their
 * own beside. sys.now() is the vDSO's, which is no system call; sys.alloc() and its
 * kin are counted above. */
#define COUNTED_TWICE(name, result, parameters, arguments, own)		\
	static result count_##name parameters				\
	{								\
		calls += counting;					\
		own += counting;					\
		return real.name arguments;				\
	}
#define COUNTED(name, result, parameters, arguments)			\
	static result count_##name parameters				\
	{								\
		calls += counting;					\
		return real.name arguments;				\
	}

COUNTED_TWICE(epoll_wait, int, (int e, struct epoll_event *ev, int n, int ms), (e, ev, n, ms), waits)
COUNTED_TWICE(eventfd_signal, int, (int fd), (fd), wakes)
COUNTED_TWICE(timerfd_arm, int, (int fd, uint64_t deadline), (fd, deadline), arms)
COUNTED_TWICE(io_submit, int, (io_context_t ctx, long count, struct iocb **batch),
	      (ctx, count, batch), submits)

COUNTED(epoll_ctl, int, (int e, int op, int fd, struct epoll_event *event), (e, op, fd, event))
COUNTED(epoll_pwait2, int, (int e, struct epoll_event *ev, int n, uint64_t ns), (e, ev, n, ns))
COUNTED(read, ssize_t, (int fd, void *buf, size_t len), (fd, buf, len))
COUNTED(io_getevents, int, (io_context_t c, long n, struct io_event *ev), (c, n, ev))
COUNTED(io_cancel, int, (io_context_t c, struct iocb *iocb), (c, iocb))
COUNTED(preadv2, ssize_t, (int fd, const struct iovec *v, size_t n, off_t at, int f),
	(fd, v, n, at, f))
COUNTED(pwritev2, ssize_t, (int fd, const struct iovec *v, size_t n, off_t at, int f),
	(fd, v, n, at, f))
COUNTED(ftruncate, int, (int fd, off_t size), (fd, size))
COUNTED(statx, int, (int d, const char *p, int f, unsigned m, struct statx *b), (d, p, f, m, b))
COUNTED(getfl, int, (int fd), (fd))
COUNTED(ioctl, int, (int fd, unsigned long request, void *arg), (fd, request, arg))
COUNTED(read_text, int, (const char *path, char *buf, size_t size), (path, buf, size))
COUNTED(madvise, int, (void *at, size_t size, int advice), (at, size, advice))
COUNTED(map, void *, (void *at, size_t size), (at, size))
COUNTED(thread, int, (pthread_t *ret, void *(*fn)(void *), void *arg), (ret, fn, arg))

static uint64_t count_now(void)
{
	readings += counting;
	return real.now();
}

static void count_all(void)
{
	sys.epoll_ctl = count_epoll_ctl;
	sys.epoll_wait = count_epoll_wait;
	sys.epoll_pwait2 = count_epoll_pwait2;
	sys.eventfd_signal = count_eventfd_signal;
	sys.timerfd_arm = count_timerfd_arm;
	sys.read = count_read;
	sys.io_submit = count_io_submit;
	sys.io_getevents = count_io_getevents;
	sys.io_cancel = count_io_cancel;
	sys.preadv2 = count_preadv2;
	sys.pwritev2 = count_pwritev2;
	sys.ftruncate = count_ftruncate;
	sys.statx = count_statx;
	sys.getfl = count_getfl;
	sys.ioctl = count_ioctl;
	sys.read_text = count_read_text;
	sys.madvise = count_madvise;
	sys.map = count_map;
	sys.thread = count_thread;
	sys.now = count_now;
}

static void set_up(void)
{
	real = sys;
	count_all();
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
	sys = real;
}

static struct job *jobs;
static struct onefd_file file;
static int fd, fd_place;

static void open_jobs(int index, int flags)
{
	fd_place = index;
	fd = make_file(index, DEPTH * BLOCK, O_RDWR | flags);
	must(onefd_file_init(loop, &file, fd));
	jobs = make_jobs(DEPTH, BLOCK);
}

static void close_jobs(void)
{
	free_jobs(jobs, DEPTH);
	close(fd);
}

/* A batch of 32 reads, all in one turn. No assertion that holds may stand in
 * what is counted, for Check's own allocate. */
static void batch(void)
{
	for (int i = 0; i < DEPTH; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		job_submit(loop, &jobs[i]);
	}
	must(onefd_drain(loop, -1));
	for (int i = 0; i < DEPTH; i++)
		if (jobs[i].res != BLOCK)
			ck_abort_msg("request %d: %zd", i, jobs[i].res);
}

static void count_batches(void)
{
	allocations = calls = submits = waits = wakes = arms = readings = 0;
	counting = true;
	for (int done = 0; done < REQUESTS; done += DEPTH)
		batch();
	counting = false;
}

/* The first may make threads and learn about the file. What else is made once, workers for a
 * disk that was slow, may be made at any time: what is made each time is made again. */
static void run_batches(void)
{
	batch();
	count_batches();
	if (allocations)
		count_batches();
}

START_TEST(direct_reads_allocate_nothing)
{
	if (!has_direct(_i))
		skip("no O_DIRECT here");
	open_jobs(_i, O_DIRECT);
	run_batches();
	ck_assert_uint_eq(allocations, 0);
	close_jobs();
}
END_TEST

START_TEST(buffered_reads_allocate_nothing)
{
	open_jobs(_i, 0);
	run_batches();
	ck_assert_uint_eq(allocations, 0);
	close_jobs();
}
END_TEST

static void read_again(struct onefd_req *req)
{
	int *left = req->data;

	if (req->res != BLOCK)
		ck_abort_msg("%zd", req->res);
	if (--*left >= DEPTH)
		must(onefd_submit(loop, req, read_again));
}

/* The same with each submitted again from its callback: depth 32 kept up. */
START_TEST(reads_sent_again_from_callbacks_allocate_nothing)
{
	int left = REQUESTS + DEPTH;

	open_jobs(_i, has_direct(_i) ? O_DIRECT : 0);
	batch();
	counting = true;
	for (int i = 0; i < DEPTH; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		jobs[i].req.data = &left;
		must(onefd_submit(loop, &jobs[i].req, read_again));
	}
	must(onefd_drain(loop, -1));
	counting = false;
	ck_assert_int_eq(left, 0);
	ck_assert_uint_eq(allocations, 0);
	close_jobs();
}
END_TEST

static struct onefd_chunk chunks[4];
static int wanted;

static void read_on(struct onefd_stream *stream, struct onefd_chunk *chunk)
{
	if (chunk) {
		wanted--;
		onefd_stream_release(chunk);
		return;
	}
	if (stream->res || stream->offset != DEPTH * BLOCK)
		ck_abort_msg("%d at %lld", stream->res, (long long)stream->offset);
	if (wanted > 0)
		must(onefd_stream_start(loop, stream, &file, 0, DEPTH * BLOCK));
}

static void read_stream(struct onefd_stream *stream, int count)
{
	wanted = count;
	must(onefd_stream_start(loop, stream, &file, 0, DEPTH * BLOCK));
	must(onefd_drain(loop, -1));
}

START_TEST(streams_allocate_nothing)
{
	struct onefd_stream stream;
	void *memory = aligned(4 * BLOCK);

	open_jobs(_i, has_direct(_i) ? O_DIRECT : 0);
	onefd_stream_init(&stream, read_on, chunks, 4, memory, BLOCK);
	read_stream(&stream, 4 * DEPTH);
	counting = true;
	read_stream(&stream, REQUESTS);
	counting = false;
	ck_assert_int_le(wanted, 0);
	ck_assert_uint_eq(allocations, 0);
	free(memory);
	close_jobs();
}
END_TEST

/* All of the file each time, by a socket that is full again and again. */
static void send_file(const int ends[2], int count)
{
	static char bytes[DEPTH * BLOCK];
	struct onefd_req *req = &jobs[0].req;

	while (count--) {
		onefd_prep_sendfile(req, ends[0], &file, 0, DEPTH * BLOCK);
		job_submit(loop, &jobs[0]);
		for (ssize_t got = 0; !jobs[0].calls || got < DEPTH * BLOCK;) {
			ssize_t n = recv(ends[1], bytes, sizeof bytes, MSG_DONTWAIT);

			got += n > 0 ? n : 0;
			must(onefd_dispatch(loop, jobs[0].calls || n > 0 ? 0 : 1));
		}
		if (jobs[0].res != DEPTH * BLOCK)
			ck_abort_msg("%zd", jobs[0].res);
	}
}

START_TEST(sendfiles_allocate_nothing)
{
	int ends[2], small = BLOCK;

	open_jobs(_i, 0);
	must_libc(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
	must_libc(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small));
	send_file(ends, 10);
	counting = true;
	send_file(ends, 100);
	counting = false;
	ck_assert_uint_eq(allocations, 0);
	close(ends[0]);
	close(ends[1]);
	close_jobs();
}
END_TEST

/* Whether reads of the file have come to go by kernel AIO from the loop's own
 * thread; ext4 needs its extents read in first. */
static bool goes_by_kaio(void)
{
	struct onefd_stats stats = { 0 };

	for (int i = 0; i < 100 && !stats.kaio; i++) {
		batch();
		must(onefd_stats(loop, &stats, sizeof stats));
	}
	return stats.kaio > 0;
}

/* The head of the kernel's ring, as far as it is needed here. */
struct ring {
	uint32_t id, count;
	_Atomic uint32_t head, tail;
};

/*
 * A device so fast that all of a batch is there when the loop looks: how often
 * it wakes up for 32 completions that trickle in is the device's affair, and
 * a clock's. The batch is what was found in flight when it was empty before.
 */
static int submit_and_complete(io_context_t ctx, long count, struct iocb **iocbs)
{
	struct ring *ring = (struct ring *)ctx;
	uint32_t before = ring->tail;
	int r = count_io_submit(ctx, count, iocbs);

	while (r > 0 && (ring->tail + ring->count - before) % ring->count < (uint32_t)r)
		usleep(10);
	return r;
}

static double calls_a_request(void)
{
	double requests = (REQUESTS + DEPTH - 1) / DEPTH * DEPTH;

	calls = submits = 0;
	run_batches();
	printf("# %s: %.4f system calls a request, %.4f of them io_submit\n",
	       place_of(fd_place).fs, calls / requests, submits / requests);
	fflush(stdout);
	return calls / requests;
}

/* Or the library finds that submissions take long, and leaves them to workers:
 * a thread may lose its processor in io_submit(), and the stand-in waits there. */
static uint64_t stopped_now(void)
{
	return 1;
}

START_TEST(direct_batches_of_32_cost_under_a_tenth_of_a_call_each)
{
	if (!has_direct(_i))
		skip("no O_DIRECT here");
	sys.now = stopped_now;
	open_jobs(_i, O_DIRECT);
	if (!goes_by_kaio()) {
		close_jobs();
		skip("direct reads are submitted by workers here");
	}
	(void)calls_a_request();	/* with the device as it is */
	sys.io_submit = submit_and_complete;
	ck_assert_double_lt(calls_a_request(), 0.1);
	close_jobs();
}
END_TEST

/* ---- as a guest: what a host's wakes cost beside the host's own wait ------------ */

#define EVENTS 64
#define WAKES 100

static int fds[EVENTS];
static struct onefd_watch watches[EVENTS];
static struct onefd_timer timers[2];

static void take(struct onefd_watch *watch, uint32_t events)
{
	eventfd_t value;

	(void)events;
	must_libc(eventfd_read(watch->fd, &value));
}

static void no_timer(struct onefd_timer *timer)
{
	(void)timer;
}

/* A timer far off, for there is always one. */
static void embed(void)
{
	must(onefd_fd(loop));
	onefd_timer_init(&timers[0], no_timer);
	onefd_timer_init(&timers[1], no_timer);
	onefd_timer_start(loop, &timers[0], UINT64_MAX / 2);
	for (int i = 0; i < EVENTS; i++) {
		fds[i] = (int)must_libc(eventfd(0, EFD_CLOEXEC));
		onefd_watch_init(&watches[i], fds[i], take);
		must(onefd_watch_start(loop, &watches[i], EPOLLIN));
	}
}

static void disembed(void)
{
	for (int i = 0; i < EVENTS; i++)
		close(fds[i]);
}

/* So many of the descriptors are readable, and the host sees it. */
static void host_wakes(int ready)
{
	for (int i = 0; i < ready; i++)
		must_libc(eventfd_write(fds[i], 1));
	if (!readable(onefd_fd(loop)))
		ck_abort_msg("not readable");
	counting = true;
	if (onefd_dispatch(loop, 0) != ready)
		ck_abort_msg("not %d callbacks", ready);
	counting = false;
}

START_TEST(host_wake_costs_one_wait_and_no_other_call)
{
	embed();
	for (int i = 0; i < WAKES; i++)
		host_wakes(_i);
	ck_assert_uint_eq(waits, WAKES);
	ck_assert_uint_eq(calls, WAKES);
	ck_assert_uint_eq(allocations, 0);
	/* At the beginning and at the end of what the callbacks took. */
	ck_assert_uint_eq(readings, 2 * WAKES);
	disembed();
}
END_TEST

START_TEST(timer_is_armed_only_when_the_earliest_changed)
{
	uint64_t far = UINT64_MAX / 2;

	embed();
	counting = true;
	for (uint64_t i = 1; i <= WAKES; i++)
		onefd_timer_start(loop, &timers[1], far + i);
	onefd_timer_stop(&timers[1]);
	ck_assert_uint_eq(arms, 0);
	onefd_timer_start(loop, &timers[1], far - 1);
	onefd_timer_start(loop, &timers[1], far - 1);
	ck_assert_uint_eq(arms, 1);
	onefd_timer_stop(&timers[1]);
	counting = false;
	ck_assert_uint_eq(arms, 2);
	ck_assert_uint_eq(calls, 2);
	disembed();
}
END_TEST

/* Inside a turn the timer is armed once, at its end, for what is the earliest then. */
static void move_about(struct onefd_watch *watch, uint32_t events)
{
	take(watch, events);
	for (uint64_t i = 0; i < WAKES; i++)
		onefd_timer_start(loop, &timers[1], UINT64_MAX / 2 - WAKES + i);
}

START_TEST(timers_moved_in_a_turn_are_armed_once)
{
	embed();
	watches[0].fn = move_about;
	host_wakes(1);
	ck_assert_uint_eq(arms, 1);
	host_wakes(1);
	ck_assert_uint_eq(arms, 1);
	disembed();
}
END_TEST

static void no_task(struct onefd_task *task)
{
	(void)task;
}

START_TEST(tasks_posted_between_turns_are_one_wake)
{
	struct onefd_task tasks[EVENTS];

	embed();
	counting = true;
	for (int i = 0; i < EVENTS; i++) {
		onefd_task_init(&tasks[i], no_task);
		must(onefd_post(loop, &tasks[i]));
	}
	counting = false;
	ck_assert_uint_eq(wakes, 1);
	ck_assert_uint_eq(calls, 1);
	must(onefd_drain(loop, -1));
	disembed();
}
END_TEST

/* One for those submitted; and one for those cancelled, which are done by then. */
START_TEST(requests_between_turns_are_one_wake_and_cancelling_them_one)
{
	embed();
	open_jobs(_i, 0);
	counting = true;
	for (int i = 0; i < DEPTH; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		job_submit(loop, &jobs[i]);
	}
	counting = false;
	ck_assert_uint_eq(calls, 1);
	counting = true;
	for (int i = 0; i < DEPTH; i++)
		must(onefd_cancel(&jobs[i].req));
	counting = false;
	ck_assert_uint_eq(wakes, 2);
	ck_assert_uint_eq(calls, 2);
	ck_assert(readable(onefd_fd(loop)));
	must(onefd_drain(loop, -1));
	ck_assert(!readable(onefd_fd(loop)));
	close_jobs();
	disembed();
}
END_TEST

/* One reader that asks for the next block when it has one. */
static void start_chain(struct onefd_req *req, void *buf, size_t len, onefd_req_fn *fn)
{
	onefd_prep_pread(req, &file, buf, len, 0);
	must(onefd_submit(loop, req, fn));
}

static bool has_hits(void)
{
	struct onefd_stats stats;

	must(onefd_stats(loop, &stats, sizeof stats));
	return stats.hits >= DEPTH;
}

START_TEST(chain_of_hits_costs_a_host_one_wake)
{
	int left = DEPTH + 31;
	bool hits;

	embed();
	open_jobs(_i, 0);
	batch();
	batch();
	jobs[0].req.data = &left;
	start_chain(&jobs[0].req, jobs[0].buf, BLOCK, read_again);
	counting = true;
	must(onefd_dispatch(loop, 0));
	counting = false;
	must(onefd_drain(loop, -1));
	hits = has_hits();
	close_jobs();
	disembed();
	if (!hits)
		skip("the page cache is not asked here");
	ck_assert_int_eq(left, DEPTH - 1);
	ck_assert_uint_eq(wakes, 0);
	ck_assert_uint_eq(waits, 1);
}
END_TEST

static int links;	/* of a chain */

static void read_for_ever(struct onefd_req *req)
{
	links++;
	must(onefd_submit(loop, req, read_for_ever));
}

static void stop_and_read(struct onefd_req *req)
{
	onefd_stop(loop);
	read_for_ever(req);
}

static void read_no_more(struct onefd_req *req)
{
	(void)req;
}

START_TEST(stop_ends_a_chain_of_hits)
{
	links = 0;
	open_jobs(_i, 0);
	batch();
	batch();
	start_chain(&jobs[0].req, jobs[0].buf, BLOCK, stop_and_read);
	must(onefd_run(loop));
	ck_assert_int_eq(links, 1);
	jobs[0].req.fn = read_no_more;
	must(onefd_drain(loop, -1));
	close_jobs();
}
END_TEST

/* However long the chain, a turn copies what is good for the other events. */
START_TEST(chain_of_hits_copies_so_much_in_a_turn)
{
	const int most = 2 + (2 << 20) / (DEPTH * BLOCK);
	void *buf = aligned(DEPTH * BLOCK);
	struct onefd_req req;

	open_jobs(_i, 0);
	batch();
	batch();
	start_chain(&req, buf, DEPTH * BLOCK, read_for_ever);
	for (int before = links = 0; links < 100; before = links) {
		must(onefd_dispatch(loop, -1));
		ck_assert_int_le(links - before, most);
	}
	req.fn = read_no_more;
	must(onefd_drain(loop, -1));
	free(buf);
	close_jobs();
}
END_TEST

/* The counters themselves: a test that counts nothing would pass for ever. */
START_TEST(what_is_done_is_counted)
{
	void *volatile ptr;	/* or the compiler knows that it is not needed */

	counting = true;
	ptr = malloc(1);
	must(onefd_dispatch(loop, 0));
	counting = false;
	free(ptr);
	ck_assert_uint_ge(allocations, 1);
	ck_assert_uint_ge(calls, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("counts");
	TCase *tcase = add_case(suite, "counts", set_up, tear_down);
	int places = place_count();

	tcase_add_test(tcase, what_is_done_is_counted);
	tcase_add_loop_test(tcase, direct_reads_allocate_nothing, 0, places);
	tcase_add_loop_test(tcase, buffered_reads_allocate_nothing, 0, places);
	tcase_add_loop_test(tcase, reads_sent_again_from_callbacks_allocate_nothing, 0, places);
	tcase_add_loop_test(tcase, streams_allocate_nothing, 0, places);
	tcase_add_loop_test(tcase, sendfiles_allocate_nothing, 0, places);
	tcase_add_loop_test(tcase, direct_batches_of_32_cost_under_a_tenth_of_a_call_each, 0, places);
	tcase = add_case(suite, "guest", set_up, tear_down);
	tcase_add_loop_test(tcase, host_wake_costs_one_wait_and_no_other_call, 1, 2);
	tcase_add_loop_test(tcase, host_wake_costs_one_wait_and_no_other_call, EVENTS, EVENTS + 1);
	tcase_add_test(tcase, timer_is_armed_only_when_the_earliest_changed);
	tcase_add_test(tcase, timers_moved_in_a_turn_are_armed_once);
	tcase_add_test(tcase, tasks_posted_between_turns_are_one_wake);
	tcase_add_loop_test(tcase, chain_of_hits_costs_a_host_one_wake, 0, places);
	tcase_add_loop_test(tcase, stop_ends_a_chain_of_hits, 0, places);
	tcase_add_loop_test(tcase, chain_of_hits_copies_so_much_in_a_turn, 0, places);
	tcase_add_loop_test(tcase, requests_between_turns_are_one_wake_and_cancelling_them_one, 0,
			    places);
	return run_suite(suite);
}
