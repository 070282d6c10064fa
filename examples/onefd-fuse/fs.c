/* fs.c - what the mount shows of an object: see fs.h. */
#include "fs.h"

#include <errno.h>
#include <stdlib.h>

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

struct stat fs_attr(struct fs *fs, const struct stat *st)
{
	struct stat attr = *st;

	attr.st_ino = fs_ino(fs_device_bits(fs, st->st_dev), st->st_ino);
	return attr;
}

int fs_entry(struct fs *fs, struct found *found, struct fuse_entry_param *ret)
{
	struct inode *inode;

	*ret = (struct fuse_entry_param){
		.attr = fs_attr(fs, &found->st),
		.attr_timeout = fs->timeout,
		.entry_timeout = fs->timeout,
	};
	inode = inode_get(&fs->inodes, found);
	if (!inode)
		return -ENOMEM;
	ret->ino = (uintptr_t)inode;
	ret->generation = inode->generation;
	return 0;
}
