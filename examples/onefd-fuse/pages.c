/* pages.c - the pages that the kernel has of a file: see pages.h. */
#include "pages.h"

#include <time.h>

/* Where the last page ends of those that the loop's thread has the time to drop. */
#define DROP_MOST	(1 << 20)

static bool is_same(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool is_after(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

/* Whether a change after this look is sure to change the times. Most file systems
 * take them from the clock's last tick, some count whole seconds. */
static bool is_settled(const struct stat *st)
{
	int64_t grain = st->st_ctim.tv_nsec ? 20000000 : 2000000000;
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (now.tv_sec - st->st_ctim.tv_sec) * INT64_C(1000000000) + now.tv_nsec -
		       st->st_ctim.tv_nsec > grain;
}

/* Whether it is as it was when the kernel last had its pages. */
static bool is_unchanged(const struct inode *inode, const struct stat *st)
{
	return is_same(inode->mtime, st->st_mtim) && is_same(inode->ctime, st->st_ctim) &&
	       inode->size == st->st_size;
}

/* Whether it may be the mount that changed it: not if that was after its last write. */
static bool may_be_ours(const struct inode *inode, const struct stat *st)
{
	struct timespec last = inode->wrote;

	/* It may be asked for any time, the first of all as well. */
	if (!last.tv_sec)
		return !list_empty(&inode->transfers);
	/* A server's clock may be ahead of ours. */
	if (!inode->mount->met.local)
		last.tv_sec++;
	return !list_empty(&inode->transfers) || !is_after(st->st_mtim, last);
}

static void remember(struct inode *inode, const struct stat *st)
{
	inode->opened = true;
	inode->mtime = st->st_mtim;
	inode->ctime = st->st_ctim;
	inode->size = st->st_size;
	if (!is_settled(st))
		inode->ctime = (struct timespec){ 0 };
}

void pages_wrote(struct inode *inode)
{
	(void)clock_gettime(CLOCK_REALTIME, &inode->wrote);
}

void pages_reach(struct inode *inode, off_t end)
{
	if (inode->paged < end)
		inode->paged = end;
}

void pages_forget(struct inode *inode)
{
	inode->ctime = (struct timespec){ 0 };
}

/* With its attributes. A page that is being read or written waits for us: there is none while
 * nobody has it open. There may be more of them than the file has by now. */
static void drop_pages(const struct fs *fs, const struct inode *inode)
{
	(void)fuse_lowlevel_notify_inval_inode(fs->session, (uintptr_t)inode, 0, 0);
}

bool pages_keep(struct fs *fs, struct inode *inode, const struct stat *st)
{
	bool opened = inode->opened;

	if (is_unchanged(inode, st)) {
		fs->data.kept++;
		return true;
	}
	if (inode->writer && may_be_ours(inode, st)) {
		/* Who opens it when nobody writes any more sees what else there was. */
		fs->data.kept++;
		fs_forget_attr(fs, inode);
		return true;
	}
	remember(inode, st);
	if (!opened)
		return true;
	if (list_empty(&inode->files)) {
		off_t paged = inode->paged;

		inode->paged = 0;
		if (paged <= DROP_MOST) {
			drop_pages(fs, inode);
			return true;
		}
	}
	fs_forget_attr(fs, inode);
	return false;
}
