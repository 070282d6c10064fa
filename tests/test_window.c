/* test_window.c - how much may be in flight per device: a queue's depth as sysfs
 * tells it, here made up, and what slow submissions do to it. */
#include "harness.h"

#include <errno.h>

#include "../lib/sys.h"
#include "../lib/window.h"

static struct windows windows;
static const char *const (*sysfs)[2];	/* path and text, the last one NULL */

static int read_made_up(const char *path, char *buf, size_t size)
{
	for (int i = 0; sysfs && sysfs[i][0]; i++)
		if (strcmp(path, sysfs[i][0]) == 0)
			return snprintf(buf, size, "%s", sysfs[i][1]);
	return -ENOENT;
}

static void set_up(void)
{
	sys.read_text = read_made_up;
	windows_open(&windows);
}

static void tear_down(void)
{
	windows_close(&windows);
}

static const char *const a_disk[][2] = {
	{ "/sys/dev/block/8:0/queue/nr_requests", "256\n" },
	{ "/sys/dev/block/8:0/queue/max_sectors_kb", "1280\n" },
	{ "/sys/dev/block/8:0/queue/max_segments", "64\n" },
	{ "/sys/dev/block/8:1/partition", "1\n" },
	{ "/sys/dev/block/8:1/../dev", "8:0\n" },
	{ "/sys/dev/block/8:1/../queue/nr_requests", "256\n" },
	{ NULL, NULL },
};

START_TEST(window_stays_below_the_queue)
{
	struct onefd_device *device;

	sysfs = a_disk;
	device = windows_device(&windows, 8, 0, true);
	ck_assert_uint_eq(device->nr_requests, 256);
	ck_assert_uint_lt(device->most, 256);
	ck_assert_uint_ge(device->most, 128);
	/* 64 segments, and a page in each at worst */
	ck_assert_uint_eq(device->chunk, 64 * 4096);
	ck_assert_ptr_eq(windows_device(&windows, 8, 0, true), device);
}
END_TEST

START_TEST(partition_shares_its_disks_window)
{
	struct onefd_device *partition;

	sysfs = a_disk;
	partition = windows_device(&windows, 8, 1, true);
	ck_assert_ptr_eq(partition->queue, windows_device(&windows, 8, 0, true));
	ck_assert_ptr_ne(partition->queue, partition);
}
END_TEST

START_TEST(window_without_sysfs_is_a_default)
{
	struct onefd_device *unasked, *anonymous;

	sysfs = a_disk;
	unasked = windows_device(&windows, 8, 0, false);
	anonymous = windows_device(&windows, 0, 40, true);
	ck_assert_uint_eq(unasked->nr_requests, 0);
	ck_assert_uint_gt(unasked->most, 0);
	ck_assert_uint_eq(anonymous->most, unasked->most);
	ck_assert_ptr_eq(anonymous->queue, anonymous);
}
END_TEST

START_TEST(cost_counts_pieces)
{
	struct onefd_device *device = windows_device(&windows, 0, 1, true);

	ck_assert_uint_eq(window_cost(device, 1, 0), 1);
	ck_assert_uint_eq(window_cost(device, device->chunk, 0), 1);
	ck_assert_uint_eq(window_cost(device, device->chunk + 1, 0), 2);
	ck_assert_uint_eq(window_cost(device, 64 * 1024, 4096), 16);
	ck_assert_uint_ge(window_cost(device, UINT64_MAX / 2, 1), UINT32_MAX);
}
END_TEST

START_TEST(idle_device_has_room_for_anything)
{
	struct onefd_device *device = windows_device(&windows, 0, 1, true);
	uint32_t large = device->most * 10;

	ck_assert(window_admit(device, large));
	ck_assert(!window_admit(device, 1));
	window_release(device, large);
	for (uint32_t i = 0; i < device->most; i++)
		ck_assert(window_admit(device, 1));
	ck_assert(!window_admit(device, 1));
	window_release(device, 1);
	ck_assert(window_admit(device, 1));
}
END_TEST

/* Halved while it is in use, never to nothing; calm brings it back. */
START_TEST(slow_submissions_narrow_and_calm_widens)
{
	struct onefd_device *device = windows_device(&windows, 0, 1, true);
	uint32_t before, rounds = 0;

	ck_assert(!window_narrow(device));	/* idle: it was not the queue */
	while (window_admit(device, 1))
		;
	before = device->limit;
	ck_assert(window_narrow(device));
	ck_assert_uint_le(device->limit, before / 2 + 1);
	while (window_narrow(device))
		ck_assert_uint_lt(++rounds, 32);
	ck_assert_uint_gt(device->limit, 0);
	while (device->used)
		window_release(device, 1);
	for (rounds = 0; device->limit < device->most; rounds++) {
		ck_assert_uint_lt(rounds, 1000 * 1000);
		ck_assert(window_admit(device, 1));
		window_release(device, 1);
	}
	ck_assert_uint_eq(device->limit, device->most);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("window");
	TCase *tcase = add_case(suite, "window", set_up, tear_down);

	tcase_add_test(tcase, window_stays_below_the_queue);
	tcase_add_test(tcase, partition_shares_its_disks_window);
	tcase_add_test(tcase, window_without_sysfs_is_a_default);
	tcase_add_test(tcase, cost_counts_pieces);
	tcase_add_test(tcase, idle_device_has_room_for_anything);
	tcase_add_test(tcase, slow_submissions_narrow_and_calm_widens);
	return run_suite(suite);
}
