/* inode.c - what the kernel knows of: see inode.h. */
#include "inode.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BUCKETS_FIRST	1024u
#define HELD_MOST	32768u
#define RESERVE		256u	/* descriptors of everything else: loop, workers, calls */

static void list_init(struct onefd_link *link)
{
	link->next = link->prev = link;
}

static void list_push(struct onefd_link *head, struct onefd_link *link)
{
	link->next = head;
	link->prev = head->prev;
	head->prev->next = link;
	head->prev = link;
}

static void list_remove(struct onefd_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

/* ---- closing ---------------------------------------------------------------- */

static ssize_t close_all(void *arg)	/* on a worker */
{
	struct closer *closer = arg;

	for (size_t i = 0; i < closer->busy; i++)
		(void)close(closer->closing[i]);
	return 0;
}

static void close_more(struct closer *closer);

static void closed(struct onefd_req *req)
{
	struct closer *closer = req->data;

	closer->busy = 0;
	close_more(closer);
}

static void close_more(struct closer *closer)
{
	int *fds = closer->closing;

	if (closer->busy || !closer->count)
		return;
	closer->closing = closer->fds;
	closer->fds = fds;
	closer->busy = closer->count;
	closer->count = 0;
	onefd_prep_call(&closer->req, close_all, closer);
	closer->req.data = closer;
	if (onefd_submit(closer->loop, &closer->req, closed) < 0) {
		(void)close_all(closer);
		closer->busy = 0;
	}
}

/* Both arrays have room for all that can be waiting: growth is by the loop's thread
 * while neither is in a worker's hand. */
static void close_later(struct closer *closer, int fd)
{
	if (closer->count == closer->room) {
		(void)close(fd);	/* as many wait as one round takes: do not fall behind */
		return;
	}
	closer->fds[closer->count++] = fd;
	close_more(closer);
}

static int closer_init(struct closer *closer, struct onefd *loop)
{
	closer->loop = loop;
	closer->room = 65536;
	closer->fds = malloc(closer->room * sizeof *closer->fds);
	closer->closing = malloc(closer->room * sizeof *closer->closing);
	return closer->fds && closer->closing ? 0 : -ENOMEM;
}

/* ---- mounts ----------------------------------------------------------------- */

struct mount *inodes_mount(struct inodes *inodes, int number)
{
	for (struct mount *mount = inodes->mounts; mount; mount = mount->next)
		if (mount->number == number)
			return mount;
	return NULL;
}

/* Those whose fstat(2) and open(2) of what is in memory ask nobody. */
static bool is_local(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	switch ((unsigned long)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case F2FS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

void mount_meet(const struct found *found, struct met *ret)
{
	char path[40];
	int fd;

	*ret = (struct met){ .fd = -1, .local = is_local(found->fd) };
	if (found->id.type == OBJECT_NO_HANDLE || !(S_ISDIR(found->st.st_mode) || S_ISREG(found->st.st_mode)))
		return;
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", found->fd);
	ret->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (ret->fd < 0)
		return;
	fd = object_open(ret->fd, &found->id);
	ret->handles = fd >= 0;
	if (fd >= 0)
		(void)close(fd);
}

int inodes_add_mount(struct inodes *inodes, int number, const struct met *met)
{
	struct mount *mount;

	if (inodes_mount(inodes, number)) {
		if (met->fd >= 0)
			(void)close(met->fd);
		return 0;
	}
	mount = calloc(1, sizeof *mount);
	if (!mount) {
		if (met->fd >= 0)
			(void)close(met->fd);
		return -ENOMEM;
	}
	mount->number = number;
	mount->fd = met->fd;
	mount->handles = met->handles;
	mount->local = met->local;
	mount->next = inodes->mounts;
	inodes->mounts = mount;
	return 0;
}

/* A mount that is held cannot be unmounted: one with no inode left is let go. */
static void mount_release(struct inodes *inodes, struct mount *mount)
{
	struct mount **at = &inodes->mounts;

	if (--mount->inodes)
		return;
	while (*at != mount)
		at = &(*at)->next;
	*at = mount->next;
	if (mount->fd >= 0)
		close_later(&inodes->closer, mount->fd);
	free(mount);
}

/* ---- descriptors ------------------------------------------------------------ */

static size_t held_allowed(const struct inodes *inodes)
{
	size_t others = inodes->files + RESERVE;
	size_t left = inodes->limit > others ? inodes->limit - others : 0;

	return left < inodes->held_most ? left : inodes->held_most;
}

static void give_back(struct inodes *inodes, struct inode *inode)
{
	list_remove(&inode->recent);
	close_later(&inodes->closer, inode->fd);
	inode->fd = -1;
	inodes->held--;
}

static bool reopens(const struct inode *inode)
{
	return inode->mount->handles && inode->id.type != OBJECT_NO_HANDLE;
}

static void trim(struct inodes *inodes)
{
	while (inodes->held > held_allowed(inodes) && inodes->recent.next != &inodes->recent) {
		give_back(inodes, onefd_container(inodes->recent.next, struct inode, recent));
		inodes->evicted++;
	}
}

/* Those that cannot be reopened stand in no list. */
static void now_recent(struct inodes *inodes, struct inode *inode)
{
	if (inode->fd >= 0 && !inode->pins && reopens(inode))
		list_push(&inodes->recent, &inode->recent);
}

int inode_pin(struct inodes *inodes, struct inode *inode)
{
	(void)inodes;
	inode->pins++;
	list_remove(&inode->recent);
	return inode->fd;
}

static void inode_free(struct inodes *inodes, struct inode *inode);

void inode_unpin(struct inodes *inodes, struct inode *inode)
{
	if (--inode->pins)
		return;
	if (!inode->lookups) {
		inode_free(inodes, inode);
		return;
	}
	now_recent(inodes, inode);
	trim(inodes);
}

void inode_reopened(struct inodes *inodes, struct inode *inode, int fd)
{
	inodes->reopened++;
	if (inode->fd >= 0) {
		close_later(&inodes->closer, fd);
		return;
	}
	inode->fd = fd;
	inodes->held++;
}

void inodes_file_opened(struct inodes *inodes)
{
	inodes->files++;
	trim(inodes);
}

void inodes_file_closed(struct inodes *inodes, int fd)
{
	inodes->files--;
	close_later(&inodes->closer, fd);
}

/* ---- the table -------------------------------------------------------------- */

static size_t hash(const struct identity *id)
{
	uint64_t h = 0xcbf29ce484222325u ^ (unsigned)id->mount;	/* FNV-1a */

	for (uint32_t i = 0; i < id->length; i++)
		h = (h ^ id->handle[i]) * 0x100000001b3u;
	return h ^ h >> 32;
}

static bool equal(const struct identity *a, const struct identity *b)
{
	return a->mount == b->mount && a->type == b->type && a->length == b->length &&
	       !memcmp(a->handle, b->handle, a->length);
}

static struct inode **bucket(const struct inodes *inodes, const struct identity *id)
{
	return &inodes->buckets[hash(id) & (inodes->bucket_count - 1)];
}

/* Without memory for it the chains are longer, no more. */
static void grow(struct inodes *inodes)
{
	size_t count = inodes->bucket_count * 2;
	struct inode **old = inodes->buckets, **fresh = calloc(count, sizeof *fresh);

	if (!fresh)
		return;
	inodes->buckets = fresh;
	inodes->bucket_count = count;
	for (size_t i = 0; i < count / 2; i++)
		for (struct inode *inode = old[i], *next; inode; inode = next) {
			struct inode **at = bucket(inodes, &inode->id);

			next = inode->next;
			inode->next = *at;
			*at = inode;
		}
	free(old);
}

static struct inode *inode_new(struct inodes *inodes, struct found *found, struct mount *mount)
{
	struct inode *inode = calloc(1, offsetof(struct inode, id.handle) + found->id.length), **at;

	if (!inode)
		return NULL;
	if (inodes->count >= inodes->bucket_count)
		grow(inodes);
	memcpy(&inode->id, &found->id, offsetof(struct identity, handle) + found->id.length);
	inode->generation = ++inodes->generation;
	inode->mount = mount;
	inode->fd = -1;
	list_init(&inode->recent);
	list_init(&inode->files);
	mount->inodes++;
	at = bucket(inodes, &inode->id);
	inode->next = *at;
	*at = inode;
	inodes->count++;
	return inode;
}

static void inode_free(struct inodes *inodes, struct inode *inode)
{
	struct inode **at = bucket(inodes, &inode->id);

	while (*at != inode)
		at = &(*at)->next;
	*at = inode->next;
	inodes->count--;
	if (inode->fd >= 0)
		give_back(inodes, inode);
	mount_release(inodes, inode->mount);
	free(inode);
}

/* Takes the found descriptor, if the inode is in want of one. */
static void take_fd(struct inodes *inodes, struct inode *inode, struct found *found)
{
	if (found->fd < 0)
		return;
	if (inode->fd >= 0) {
		close_later(&inodes->closer, found->fd);
	} else {
		inode->fd = found->fd;
		inodes->held++;
		now_recent(inodes, inode);
	}
	found->fd = -1;
}

struct inode *inode_get(struct inodes *inodes, struct found *found)
{
	struct mount *mount = inodes_mount(inodes, found->id.mount);
	struct inode *inode;

	if (!mount->handles)
		object_identify_by_number(found);
	for (inode = *bucket(inodes, &found->id); inode && !equal(&inode->id, &found->id);)
		inode = inode->next;
	if (!inode)
		inode = inode_new(inodes, found, mount);
	if (!inode) {
		if (found->fd >= 0)
			close_later(&inodes->closer, found->fd);
		return NULL;
	}
	inode->lookups++;
	take_fd(inodes, inode, found);
	trim(inodes);
	return inode;
}

void inode_forget(struct inodes *inodes, struct inode *inode, uint64_t lookups)
{
	inode->lookups -= lookups < inode->lookups ? lookups : inode->lookups;
	if (!inode->lookups && !inode->pins)
		inode_free(inodes, inode);
}

int inodes_init(struct inodes *inodes, struct onefd *loop)
{
	struct rlimit limit;

	*inodes = (struct inodes){ .loop = loop, .bucket_count = BUCKETS_FIRST, .held_most = HELD_MOST };
	list_init(&inodes->recent);
	inodes->limit = 1024;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
		if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
			inodes->limit = limit.rlim_cur;
	}
	if (inodes->held_most > inodes->limit / 2)
		inodes->held_most = inodes->limit / 2;
	inodes->buckets = calloc(inodes->bucket_count, sizeof *inodes->buckets);
	return inodes->buckets ? closer_init(&inodes->closer, loop) : -ENOMEM;
}

void inodes_free(struct inodes *inodes)
{
	for (size_t i = 0; inodes->buckets && i < inodes->bucket_count; i++)
		for (struct inode *inode = inodes->buckets[i], *next; inode; inode = next) {
			next = inode->next;
			if (inode->fd >= 0)
				(void)close(inode->fd);
			free(inode);
		}
	for (struct mount *mount = inodes->mounts, *next; mount; mount = next) {
		next = mount->next;
		if (mount->fd >= 0)
			(void)close(mount->fd);
		free(mount);
	}
	free(inodes->buckets);
	free(inodes->closer.fds);
	free(inodes->closer.closing);
}
