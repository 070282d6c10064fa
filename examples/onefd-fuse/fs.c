/* fs.c - what the mount shows of an object: see fs.h. */
#include "fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES_MOST	65536u

uint64_t fs_device_bits(struct fs *fs, dev_t dev)
{
	size_t i = 0, count = fs->device_count;
	dev_t *more;

	while (i < count && fs->devices[i] != dev)
		i++;
	if (i == count && count < DEVICES_MOST) {
		more = realloc(fs->devices, (count + 1) * sizeof *more);
		if (!more)
			return 0;
		more[count] = dev;
		fs->devices = more;
		fs->device_count++;
	}
	return (uint64_t)(i % DEVICES_MOST) << 48;
}

struct stat fs_attr(struct fs *fs, struct inode *inode, const struct stat *st)
{
	struct stat attr = *st;

	inode->told_mode = st->st_mode;
	attr.st_ino = fs_ino(fs_device_bits(fs, st->st_dev), st->st_ino);
	return attr;
}

void fs_forget_attr(const struct fs *fs, const struct inode *inode)
{
	(void)fuse_lowlevel_notify_inval_inode(fs->session, (uintptr_t)inode, -1, 0);
}

int fs_entry(struct fs *fs, struct found *found, struct fuse_entry_param *ret)
{
	struct inode *inode = inode_get(&fs->inodes, found);

	if (!inode)
		return -ENOMEM;
	*ret = (struct fuse_entry_param){
		.ino = (uintptr_t)inode,
		.generation = inode->generation,
		.attr = fs_attr(fs, inode, &found->st),
		.attr_timeout = fs->timeout,
		.entry_timeout = fs->timeout,
	};
	return 0;
}

static uint64_t until(const struct fs *fs)
{
	double most = fs->timeout < 3600 ? fs->timeout : 3600;

	return onefd_now(fs->loop) + (uint64_t)(most * 1e9);
}

void fs_saw_none(struct fs *fs, struct inode *inode, uint64_t changes, bool all)
{
	/* Others make some up for who asks. */
	if (!inode->mount->met.local || changes != fs->xattr_changes)
		return;
	inode->plain_until = until(fs);
	if (all)
		inode->bare_until = inode->plain_until;
}

bool fs_has_none(struct fs *fs, const struct inode *inode, const char *name)
{
	uint64_t now = onefd_now(fs->loop);

	if (inode->bare_until > now)
		return !strncmp(name, "user.", 5) || !strncmp(name, "security.", 9) ||
		       !strncmp(name, "trusted.", 8) || !strncmp(name, "system.posix_acl_", 17);
	return inode->plain_until > now && !strcmp(name, FS_CAPABILITIES);
}
