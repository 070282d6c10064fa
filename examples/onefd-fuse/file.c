/* file.c - an open file of the source: see file.h. */
#include "file.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int file_new(struct inodes *inodes, struct inode *inode, int fd, int flags, struct file **ret)
{
	struct file *file = malloc(sizeof *file);
	int r = file ? onefd_file_init(inodes->loop, &file->of, fd) : -ENOMEM;

	if (r < 0) {
		free(file);
		closer_add(&inodes->closer, fd);
		return r;
	}
	file->inode = inode;
	file->flags = flags;
	file->pins = 1;
	file->locker = NULL;
	file->flock = 0;
	list_push(&inode->files, &file->link);
	if (!inode->writer && file_writes(file))
		inode->writer = file;
	/* As the kernel's own references: a pin would hold its descriptor, too. */
	inode->lookups++;
	inodes_file_opened(inodes);
	*ret = file;
	return 0;
}

static struct file *first_writer(const struct inode *inode)
{
	const struct onefd_link *files = &inode->files;

	for (struct onefd_link *at = files->next; at != files; at = at->next) {
		struct file *file = onefd_container(at, struct file, link);

		if (file_writes(file))
			return file;
	}
	return NULL;
}

void file_close(struct inodes *inodes, struct file *file)
{
	list_remove(&file->link);
	if (file == file->inode->writer)
		file->inode->writer = first_writer(file->inode);
	file_unpin(inodes, file);
}

void file_unpin(struct inodes *inodes, struct file *file)
{
	if (--file->pins)
		return;
	inodes_file_closed(inodes, file->of.fd);
	inode_forget(inodes, file->inode, 1);
	free(file);
}

struct file *file_of_inode(const struct inode *inode)
{
	return list_empty(&inode->files) ? NULL :
					   onefd_container(inode->files.next, struct file, link);
}

int file_flush(int fd)
{
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static void free_those_of(struct inode *inode)
{
	struct onefd_link *files = &inode->files;

	for (struct onefd_link *at = files->next, *next; at != files; at = next) {
		struct file *file = onefd_container(at, struct file, link);

		next = at->next;
		(void)close(file->of.fd);
		free(file);
	}
}

void files_free(struct inodes *inodes)
{
	for (size_t i = 0; inodes->buckets && i < inodes->bucket_count; i++)
		for (struct inode *inode = inodes->buckets[i]; inode; inode = inode->next)
			free_those_of(inode);
}
