/*
 * file.c - what a descriptor is: kind, alignment, device, verdicts.
 *
 * Learns only from what answers without a disk and without a server: statx()
 * that does not sync, mountinfo, sysfs. It sends no request of its own.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core.h"
#include "probe.h"
#include "sys.h"

#define DEFAULT_ALIGN 4096
/* An ext4 inode holds four extents itself: a file of so many blocks has no tree. */
#define INLINE_EXTENTS 4
#define MOUNTINFO_SIZE (256 * 1024)

/* A streak of requests that would block sends the next ones straight to a
 * worker, then twice as many, and so on: the tries stay a small share. */
#define STREAK 8
#define DETOUR 64
#define PENALTY_MOST 6

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000u
#endif

/* From the kernel's xfs_fs.h, which needs xfslibs-dev. */
struct xfs_dioattr {
	uint32_t mem, min, max;
};
#define XFS_IOC_DIOINFO _IOR('X', 30, struct xfs_dioattr)

static const struct {
	const char *name;
	enum trust trust;
	/* Regular files open, and all are asked, in memory: seen to, on a device
	 * that had stopped. Not so overlay, which passes on to any other. */
	bool local_names;
} file_systems[] = {
	{ "xfs", TRUST_NOWAIT, true },
	{ "ext4", TRUST_WARM, true },
	{ "ext3", TRUST_WARM, true },
	{ "ext2", TRUST_WARM, true },
	{ "overlay", TRUST_WARM, false },
	{ "fuseblk", TRUST_NEVER, false },	/* a block device's number, a daemon's answer */
	{ "btrfs", TRUST_NEVER, true },	/* checksums are read in io_submit() */
	{ "tmpfs", TRUST_NEVER, true },
};

/* The type of the mount with that id: the field after " - ". */
static void find_mount(const char *mounts, uint64_t id, char *name, size_t size)
{
	for (const char *line = mounts; line && *line; line = strchr(line, '\n')) {
		const char *type;

		line += *line == '\n';
		if (strtoull(line, NULL, 10) != id)
			continue;
		type = strstr(line, " - ");
		if (type)
			snprintf(name, size, "%.*s", (int)strcspn(type + 3, " \n"), type + 3);
		return;
	}
}

/* st_dev does not say which mount: btrfs gives each subvolume a number. */
static void learn_name(uint64_t mount, char *name, size_t size)
{
	char *mounts = sys.alloc(MOUNTINFO_SIZE);

	if (!mounts)
		return;
	if (sys.read_text("/proc/self/mountinfo", mounts, MOUNTINFO_SIZE) > 0)
		find_mount(mounts, mount, name, size);
	sys.free(mounts);
}

bool file_names_are_local(uint64_t mount)
{
	char name[sizeof((struct onefd_device *)0)->name] = "";

	learn_name(mount, name, sizeof name);
	for (size_t i = 0; i < sizeof file_systems / sizeof file_systems[0]; i++)
		if (!strcmp(name, file_systems[i].name))
			return file_systems[i].local_names;
	return false;
}

static enum trust trust_of(const struct onefd_device *device)
{
	for (size_t i = 0; i < sizeof file_systems / sizeof file_systems[0]; i++)
		if (!strcmp(device->name, file_systems[i].name))
			return file_systems[i].trust;
	/* One that sits on a block device looks its blocks up as ext4 does, or
	 * is found out by its slowness; behind the others is a network, a
	 * daemon, or nothing that kernel AIO makes faster. */
	return device->major ? TRUST_WARM : TRUST_NEVER;
}

static int learn_kind(struct onefd_file *file, const struct statx *st)
{
	switch (st->stx_mode & S_IFMT) {
	case S_IFREG:
		return 0;
	case S_IFBLK:
		file->flags |= ONEFD_FILE_BLOCKDEV;
		return 0;
	case S_IFDIR:
		return -EISDIR;
	default:
		return -ESPIPE;
	}
}

/* A caller who asked for STATX_MNT_ID_UNIQUE, or for less, was not told the number.
 * What is learned here is for all files of the device: so it is asked for. */
static bool know_mount(int fd, const struct statx *st, uint64_t *ret)
{
	struct statx asked = *st;

	if (!(asked.stx_mask & STATX_MNT_ID))
		(void)sys.statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &asked);
	if (!(asked.stx_mask & STATX_MNT_ID))
		return false;
	*ret = asked.stx_mnt_id;
	return true;
}

static int learn_device(struct onefd_file *file, const struct statx *st)
{
	bool block = file->flags & ONEFD_FILE_BLOCKDEV;
	uint32_t flags = file->loop->requests.flags;
	uint64_t mount;
	struct onefd_device *device = windows_device(
		&file->loop->windows, block ? st->stx_rdev_major : st->stx_dev_major,
		block ? st->stx_rdev_minor : st->stx_dev_minor, !(flags & ONEFD_NO_SYSFS));

	if (!device)
		return -ENOMEM;
	file->device = device;
	if (block || device->trust != TRUST_UNKNOWN)
		return 0;
	if (!(flags & ONEFD_NO_PROC) && know_mount(file->fd, st, &mount))
		learn_name(mount, device->name, sizeof device->name);
	device->trust = trust_of(device);
	return 0;
}

static void learn_alignment(struct onefd_file *file, const struct statx *st)
{
	struct xfs_dioattr xfs;
	int sector;

	file->mem_align = file->off_align = DEFAULT_ALIGN;
	if (st->stx_mask & STATX_DIOALIGN && st->stx_dio_offset_align) {
		file->mem_align = st->stx_dio_mem_align;
		file->off_align = st->stx_dio_offset_align;
	} else if (file->flags & ONEFD_FILE_BLOCKDEV) {
		if (sys.ioctl(file->fd, BLKSSZGET, &sector) == 0 && sector > 0)
			file->mem_align = file->off_align = (uint32_t)sector;
	} else if (!strcmp(file->device->name, "xfs")) {
		/* Others are not asked: a FUSE server would be sent the ioctl. */
		if (sys.ioctl(file->fd, XFS_IOC_DIOINFO, &xfs) == 0 && xfs.mem && xfs.min) {
			file->mem_align = xfs.mem;
			file->off_align = xfs.min;
		}
	}
}

static int init(struct onefd *loop, struct onefd_file *file, int fd, int flags,
		const struct statx *st);

int onefd_file_init(struct onefd *loop, struct onefd_file *file, int fd)
{
	struct statx st;
	int flags, r;

	if (!loop || !file)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	flags = sys.getfl(fd);
	if (flags < 0)
		return flags;
	r = sys.statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, ONEFD_STATX_FILE, &st);
	if (r < 0)
		return r;
	/* A server may have left out the size: it is asked again where it matters. */
	return init(loop, file, fd, flags, &st);
}

int onefd_file_init_statx(struct onefd *loop, struct onefd_file *file, int fd, int flags,
			  const struct statx *st)
{
	if (!loop || !file || !st || ~st->stx_mask & (STATX_TYPE | STATX_SIZE))
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	return init(loop, file, fd, flags, st);
}

static int init(struct onefd *loop, struct onefd_file *file, int fd, int flags,
		const struct statx *st)
{
	struct onefd_file fresh = { .fd = fd, .loop = loop };
	int r;

	if (flags & O_PATH)
		return -EBADF;
	r = learn_kind(&fresh, st);
	if (r < 0)
		return r;
	r = learn_device(&fresh, st);
	if (r < 0)
		return r;
	learn_alignment(&fresh, st);
	fresh.flags |= flags & O_DIRECT ? ONEFD_FILE_DIRECT : 0;
	fresh.flags |= flags & O_APPEND ? ONEFD_FILE_APPEND : 0;
	fresh.refused = flags & O_DSYNC ? FILE_SYNC : 0;
	fresh.size = st->stx_size;
	fresh.warm = st->stx_size <= INLINE_EXTENTS * (uint64_t)st->stx_blksize ? WARM_DONE :
										  WARM_COLD;
	fresh.data = file->data;
	*file = fresh;
	list_init(&file->writes);
	return 0;
}

enum trust file_trust(const struct onefd_file *file)
{
	return file->flags & ONEFD_FILE_BLOCKDEV ? TRUST_NOWAIT : file->device->trust;
}

uint64_t file_learn_size(struct onefd_file *file)
{
	struct statx st;

	if (sys.statx(file->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &st) == 0)
		file->size = st.stx_size;
	return file->size;
}

bool file_is_write_only(const struct onefd_file *file)
{
	int flags = sys.getfl(file->fd);

	return flags >= 0 && (flags & O_ACCMODE) == O_WRONLY;
}

bool file_detour(struct onefd_file *file, int way)
{
	if (!file->detour[way])
		return false;
	file->detour[way]--;
	return true;
}

bool file_blocked(struct onefd_file *file, int way, bool slow)
{
	if (!slow && ++file->streak[way] < STREAK)
		return false;
	file->streak[way] = 0;
	file->detour[way] = DETOUR << file->penalty[way];
	if (file->penalty[way] < PENALTY_MOST)
		file->penalty[way]++;
	PROBE(demoted, file->loop, file->fd, way, file->detour[way]);
	return true;
}

void file_flowed(struct onefd_file *file, int way)
{
	file->streak[way] = 0;
	if (file->penalty[way])
		file->penalty[way]--;
}

/* A worker read the extents in and counted them. */
static void warmed(struct onefd_file *file, uint32_t extents)
{
	file->warm = WARM_DONE;
	file->extent = extents ? file->size / extents + 1 : 0;
}

void file_learn_from(struct onefd_req *req)
{
	struct onefd_file *file = req->file;
	uint64_t end = (uint64_t)req->offset + (uint64_t)req->res;

	if (flight(req)->flags & FLIGHT_WARM) {
		/* Cancelled, or the worker could not even begin. */
		if (req->res < 0)
			file->warm = WARM_COLD;
		else
			warmed(file, flight(req)->extents);
	}
	if (req->op == OP_WRITE && req->res > 0 && end > file->size)
		file->size = end;
}
