/* mount.c - the mounts that the objects of the source are on: see mount.h. */
#include "mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

/* ---- on a worker ------------------------------------------------------------ */

#define F2FS_MAGIC	0xf2f52010u
#define BCACHEFS_MAGIC	0xca451a4eu
#define ZFS_MAGIC	0x2fc12fc1u

/* Those whose fstat(2), and open(2) of what is in memory, ask nobody. */
static bool is_local(unsigned long type)
{
	switch (type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case F2FS_MAGIC:
		return true;
	default:
		return false;
	}
}

/* Those whose handles are good for as long as the object is. Others, FAT and FUSE say, open
 * them while they happen to have it in memory. */
static bool has_lasting_handles(unsigned long type)
{
	switch (type) {
	case BCACHEFS_MAGIC:
	case EROFS_SUPER_MAGIC_V1:
	case ISOFS_SUPER_MAGIC:
	case NFS_SUPER_MAGIC:
	case OVERLAYFS_SUPER_MAGIC:
	case SQUASHFS_MAGIC:
	case ZFS_MAGIC:
		return true;
	default:
		return is_local(type);
	}
}

static bool is_short_of(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

/* A device is not opened: that may do anything. */
static int try_handles(const struct found *found, struct met *ret)
{
	char path[40];
	int fd;

	if (!S_ISDIR(found->st.st_mode) && !S_ISREG(found->st.st_mode))
		return 0;
	if (found->id.type == OBJECT_NO_HANDLE)
		return 0;
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", found->fd);
	ret->fd = insist(open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
	if (ret->fd < 0)
		return is_short_of(ret->fd) ? ret->fd : 0;
	fd = object_open(ret->fd, &found->id);
	ret->handles = fd >= 0;
	(void)close(ret->handles ? fd : ret->fd);
	if (!ret->handles)
		ret->fd = -1;
	return is_short_of(fd) ? fd : 0;
}

int mount_meet(const struct found *found, struct met *ret)
{
	struct statfs fs;
	int r;

	*ret = (struct met){ .fd = -1, .number = found->id.mount, .dev = found->st.st_dev };
	r = insist(fstatfs(found->fd, &fs));
	if (r < 0)
		return r;
	ret->local = is_local((unsigned long)fs.f_type);
	memcpy(&ret->fsid, &fs.f_fsid, sizeof ret->fsid);
	return has_lasting_handles((unsigned long)fs.f_type) ? try_handles(found, ret) : 0;
}

/* "\040" and the like, in place. */
static void unescape(char *path)
{
	char *to = path;

	for (char *from = path; *from; to++) {
		if (*from == '\\' && from[1] && from[2] && from[3]) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = 0;
}

/* Calls fn with each mount, until it says that it has what it wants. */
static void for_each_mount(bool (*fn)(int number, const char *place, void *data), void *data)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *place;
	bool has = false;
	size_t room = 0;
	int number;

	while (file && !has && getline(&line, &room, file) > 0) {
		if (sscanf(line, "%d %*d %*s %*s %ms", &number, &place) != 2)
			continue;
		unescape(place);
		has = fn(number, place, data);
		free(place);
	}
	if (file)
		(void)fclose(file);
	free(line);
}

struct wanted {
	int number;
	const char *place;
	char *found;
};

static bool is_number(int number, const char *place, void *data)
{
	struct wanted *wanted = data;

	if (number == wanted->number)
		wanted->found = strdup(place);
	return wanted->found;
}

/* The last one stands above the others. */
static bool is_place(int number, const char *place, void *data)
{
	struct wanted *wanted = data;

	if (!strcmp(place, wanted->place))
		wanted->number = number;
	return false;
}

int mount_number(const char *place)
{
	struct wanted wanted = { .number = -1, .place = place };

	for_each_mount(is_place, &wanted);
	return wanted.number;
}

/* Numbers are given anew: only the same file system is the same mount. */
static bool is_same(const struct met *a, const struct met *b)
{
	return a->number == b->number && a->dev == b->dev && a->fsid == b->fsid;
}

int mount_find_again(const struct met *known, struct met *ret)
{
	struct wanted wanted = { .number = known->number };
	struct found found;
	int r;

	for_each_mount(is_number, &wanted);
	if (!wanted.found)
		return -ESTALE;
	r = object_find(AT_FDCWD, wanted.found, &found);
	free(wanted.found);
	if (r < 0)
		return r;
	ret->fd = -1;
	r = found.id.mount == known->number ? mount_meet(&found, ret) : -ESTALE;
	(void)close(found.fd);
	if (r >= 0 && ret->fd >= 0 && is_same(known, ret))
		return 0;
	if (r >= 0 && ret->fd >= 0)
		(void)close(ret->fd);
	ret->fd = -1;
	return r < 0 ? r : -ESTALE;
}

/* ---- on the loop ------------------------------------------------------------ */

static bool is_held(const struct mount *mount)
{
	return mount->met.fd >= 0 || !mount->met.handles;
}

/* One that was let go may be another by now. */
struct mount *mounts_get(struct mount *first, int number)
{
	for (struct mount *mount = first; mount; mount = mount->next)
		if (mount->met.number == number && is_held(mount))
			return mount;
	return NULL;
}

void mount_found_again(struct mount *mount, const struct met *met, struct closer *closer)
{
	if (mount->met.fd < 0)
		mount->met.fd = met->fd;
	else if (met->fd >= 0)
		closer_add(closer, met->fd);
}

struct mount *mounts_add(struct mount **first, const struct met *met, struct closer *closer)
{
	struct mount *mount = *first;

	while (mount && !is_same(&mount->met, met))
		mount = mount->next;
	if (mount) {
		mount_found_again(mount, met, closer);
		return mount;
	}
	mount = calloc(1, sizeof *mount);
	if (!mount) {
		if (met->fd >= 0)
			closer_add(closer, met->fd);
		return NULL;
	}
	mount->met = *met;
	mount->next = *first;
	*first = mount;
	return mount;
}

void mounts_remove(struct mount **first, struct mount *mount, struct closer *closer)
{
	while (*first != mount)
		first = &(*first)->next;
	*first = mount->next;
	if (mount->met.fd >= 0)
		closer_add(closer, mount->met.fd);
	free(mount);
}
