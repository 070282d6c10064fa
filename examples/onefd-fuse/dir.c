/*
 * dir.c - onefd-fuse: handlers that speak of open directories.
 *
 * A worker reads entries and, for readdirplus, looks at as many as one answer has room
 * for; the loop makes inodes of what was found. What did not fit stays in the open
 * directory for the next request, as long as that goes on where this one ended.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "call.h"

#define ENTRIES		32768u		/* bytes of them read ahead */
#define ENTRY_MOST	280u		/* bytes of the largest */
#define ANSWER_MOST	65536u		/* bytes of an answer; behind it stands what was found */

/* The kernel asks for one thing at a time of an open directory. */
struct dir {
	struct onefd_link link;		/* in fs->dirs */
	int fd;
	off_t at;			/* where the entries below begin */
	bool end;			/* nothing follows them */
	size_t next, length;
	uint64_t device_bits;
	char entries[ENTRIES];
};

/* An entry that was looked at. */
struct looked {
	const struct dirent64 *entry;
	struct found found;		/* found.fd: -1, or kept */
	bool there;
	bool bare;			/* it has no extended attributes */
	struct inode *inode;		/* made of it */
};

static struct dir *dir_of(const struct fuse_file_info *fi)
{
	return (struct dir *)(uintptr_t)fi->fh;
}

/* ---- on a worker ---------------------------------------------------------------- */

/* As much as there is room for: the end of most directories is met at once. */
static int fill(struct dir *dir)
{
	dir->next = dir->length = 0;
	while (!dir->end && ENTRIES - dir->length > ENTRY_MOST) {
		char *to = dir->entries + dir->length;
		int n = insist(getdents64(dir->fd, to, ENTRIES - dir->length));

		/* Those before an error are there. */
		if (n < 0)
			return dir->length ? 0 : n;
		dir->length += (size_t)n;
		dir->end = n == 0;
	}
	return 0;
}

static int have_entries(struct dir *dir, off_t at)
{
	if (at != dir->at) {
		if (lseek(dir->fd, at, SEEK_SET) < 0)
			return -errno;
		dir->at = at;
		dir->next = dir->length = 0;
		dir->end = false;
	}
	return dir->next == dir->length ? fill(dir) : 0;
}

static const struct dirent64 *entry_at(const struct dir *dir)
{
	return dir->next < dir->length ? (const void *)(dir->entries + dir->next) : NULL;
}

static void step(struct dir *dir, const struct dirent64 *entry)
{
	dir->next += entry->d_reclen;
	dir->at = entry->d_off;
}

static struct stat plain(const struct dir *dir, const struct dirent64 *entry)
{
	return (struct stat){
		.st_ino = fs_ino(dir->device_bits, entry->d_ino),
		.st_mode = (mode_t)entry->d_type << 12,
	};
}

static int do_readdir(struct call *call)
{
	struct dir *dir = call->dir;
	const struct dirent64 *entry;
	size_t used = 0;
	int r = have_entries(dir, call->offset);

	while (r >= 0 && (entry = entry_at(dir))) {
		struct stat st = plain(dir, entry);
		size_t left = call->size - used;
		size_t size = fuse_add_direntry(call->op->fuse, (char *)call->op->memory + used, left,
						entry->d_name, &st, entry->d_off);

		if (size > left)
			break;
		used += size;
		step(dir, entry);
	}
	return r < 0 ? r : (int)used;
}

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* What cannot be found is shown without its attributes: who asks for them is told why. */
static void look_at(struct call *call, struct looked *looked, size_t *keep)
{
	const char *name = looked->entry->d_name;
	struct found *found = &looked->found;

	looked->there = !is_dots(name) && object_find(call->dir->fd, name, found) >= 0;
	if (!looked->there)
		return;
	looked->bare = call->asked && listxattr(proc_path(found->fd).path, NULL, 0) == 0;
	if (*keep) {
		--*keep;
	} else {
		(void)close(found->fd);
		found->fd = -1;
	}
}

static struct looked *looked_of(const struct call *call)
{
	return (void *)((char *)call->op->memory + ANSWER_MOST);
}

static size_t looked_most(const struct call *call)
{
	size_t room = (call->op->size - ANSWER_MOST) / sizeof(struct looked);
	size_t smallest = fuse_add_direntry_plus(call->op->fuse, NULL, 0, "", NULL, 0);

	return room < call->size / smallest ? room : call->size / smallest;
}

/* Answers how many were looked at. */
static int do_readdirplus(struct call *call)
{
	struct looked *looked = looked_of(call);
	struct dir *dir = call->dir;
	size_t used = 0, count = 0, keep = call->kept;
	int r = have_entries(dir, call->offset);
	const struct dirent64 *entry;

	while (r >= 0 && (entry = entry_at(dir)) && count < looked_most(call)) {
		used += fuse_add_direntry_plus(call->op->fuse, NULL, 0, entry->d_name, NULL, 0);
		if (used > call->size)
			break;
		looked[count].entry = entry;
		look_at(call, &looked[count++], &keep);
		step(dir, entry);
	}
	return r < 0 ? r : (int)count;
}

/* ---- on the loop ------------------------------------------------------------------ */

static void reply_readdir(struct call *call)
{
	fuse_reply_buf(call->op->fuse, call->op->memory, (size_t)call->res);
}

/* An inode costs no descriptor where handles are opened, and only there; a mount that is not
 * known is met when the name is looked up. */
static bool becomes_inode(struct call *call, const struct looked *looked)
{
	struct mount *mount = looked->there && looked->found.id.type != OBJECT_NO_HANDLE ?
			      inodes_mount(&call->fs->inodes, looked->found.id.mount) : NULL;

	return mount && mount->met.handles;
}

static size_t add(struct call *call, struct looked *looked, size_t used)
{
	struct fuse_entry_param entry = { 0 };

	looked->inode = NULL;
	if (becomes_inode(call, looked) && fs_entry(call->fs, &looked->found, &entry) >= 0)
		looked->inode = (struct inode *)(uintptr_t)entry.ino;
	else
		entry = (struct fuse_entry_param){ .attr = plain(call->dir, looked->entry) };
	if (looked->inode && looked->bare)
		fs_saw_none(call->fs, looked->inode, call->changes, true);
	if (looked->there && looked->found.fd >= 0)
		closer_add(&call->fs->inodes.closer, looked->found.fd);
	return used + fuse_add_direntry_plus(call->op->fuse, (char *)call->op->memory + used,
					     call->size - used, looked->entry->d_name, &entry,
					     looked->entry->d_off);
}

static void reply_readdirplus(struct call *call)
{
	struct inodes *inodes = &call->fs->inodes;
	struct looked *looked = looked_of(call);
	size_t used = 0;

	inodes_unreserve(inodes, call->kept);
	if (call->res < 0) {
		fuse_reply_err(call->op->fuse, -call->res);
		return;
	}
	for (int i = 0; i < call->res; i++)
		used = add(call, &looked[i], used);
	if (fuse_reply_buf(call->op->fuse, call->op->memory, used) != -ENOENT)
		return;
	for (int i = 0; i < call->res; i++)
		if (looked[i].inode)
			inode_forget(inodes, looked[i].inode, 1);
}

/* Whether that was all: said once, for who asks again may find more. */
static bool ends(fuse_req_t req, struct dir *dir, off_t at)
{
	if (!dir->end || at != dir->at || dir->next < dir->length)
		return false;
	dir->end = false;
	fuse_reply_buf(req, NULL, 0);
	return true;
}

static struct call *begin(fuse_req_t req, size_t size, off_t at, struct dir *dir)
{
	struct call *call = call_begin(req, 0, 0);

	call->dir = dir;
	call->size = size < ANSWER_MOST ? size : ANSWER_MOST;
	call->offset = at;
	return call;
}

static void ll_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t at,
		       struct fuse_file_info *fi)
{
	(void)ino;
	if (!ends(req, dir_of(fi), at))
		call_go(begin(req, size, at, dir_of(fi)), do_readdir, reply_readdir);
}

static void ll_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t at,
			   struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct call *call;

	(void)ino;
	if (ends(req, dir_of(fi), at))
		return;
	call = begin(req, size, at, dir_of(fi));
	call->kept = inodes_reserve(&fs->inodes, looked_most(call));
	call->changes = fs->xattr_changes;
	call->asked = fs->xattr_asked && fs->xattr_asked--;
	call->fails = true;
	call_go(call, do_readdirplus, reply_readdirplus);
}

/* ---- opening and closing ------------------------------------------------------------ */

static int do_opendir(struct call *call)
{
	int fd = insist(openat(call->at[0].fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

	if (fd >= 0)
		(void)fstat(fd, &call->attr);
	return fd;
}

static void dir_close(struct fs *fs, struct dir *dir)
{
	list_remove(&dir->link);
	inodes_file_closed(&fs->inodes, dir->fd);
	free(dir);
}

static void reply_opendir(struct call *call)
{
	struct fs *fs = call->fs;
	struct fuse_file_info fi = { .fh = (uintptr_t)call->dir };

	if (call->res < 0) {
		fuse_reply_err(call->op->fuse, -call->res);
		free(call->dir);
		return;
	}
	call->dir->fd = call->res;
	call->dir->device_bits = fs_device_bits(fs, call->attr.st_dev);
	list_push(&fs->dirs, &call->dir->link);
	inodes_file_opened(&fs->inodes);
	if (fuse_reply_open(call->op->fuse, &fi) == -ENOENT)
		dir_close(fs, call->dir);
}

static void ll_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct dir *dir = malloc(sizeof *dir);
	struct call *call;

	(void)fi;
	if (!dir) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	memset(dir, 0, offsetof(struct dir, entries));
	call = call_begin(req, ino, 0);
	call->dir = dir;
	call->fails = true;
	call_go(call, do_opendir, reply_opendir);
}

static void ll_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_close(fs_of(req), dir_of(fi));
	fuse_reply_err(req, 0);
}

static int do_fsyncdir(struct call *call)
{
	return call->flags ? insist(fdatasync(call->dir->fd)) : insist(fsync(call->dir->fd));
}

static void ll_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct call *call = call_begin(req, ino, 0);

	call->dir = dir_of(fi);
	call->flags = datasync;
	call_go(call, do_fsyncdir, reply_done);
}

void dirs_free(struct fs *fs)
{
	for (struct onefd_link *at = fs->dirs.next, *next; at != &fs->dirs; at = next) {
		struct dir *dir = onefd_container(at, struct dir, link);

		next = at->next;
		(void)close(dir->fd);
		free(dir);
	}
}

void dir_handlers(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = ll_opendir;
	ops->readdir = ll_readdir;
	ops->readdirplus = ll_readdirplus;
	ops->releasedir = ll_releasedir;
	ops->fsyncdir = ll_fsyncdir;
}
