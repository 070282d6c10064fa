/* inode.c - what the kernel knows of: see inode.h. */
#include "inode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUCKETS_FIRST	1024u
#define HELD_MOST	32768u
#define RELIEF		8u		/* given back at once where there is none left */
#define LASTING		32u		/* what the process has open in any case, at most */
#define IDLE		1000000000u	/* nanoseconds between two looks at the mounts */

/* ---- mounts ----------------------------------------------------------------- */

static void give_back(struct inodes *inodes, struct inode *inode);

struct mount *inodes_mount(struct inodes *inodes, int number)
{
	return mounts_get(inodes->mounts, number);
}

static void mount_let_go(struct inodes *inodes, struct mount *mount)
{
	struct onefd_link *link = inodes->recent.next, *next;

	for (; link != &inodes->recent; link = next) {
		struct inode *inode = onefd_container(link, struct inode, recent);

		next = link->next;
		if (inode->mount == mount)
			give_back(inodes, inode);
	}
	closer_add(&inodes->closer, mount->met.fd);
	mount->met.fd = -1;
}

/* The root is pinned: its mount is in use for ever. */
static bool may_go(const struct mount *mount)
{
	return mount->met.fd >= 0 && !mount->calls;
}

static void idle(struct onefd_timer *timer)
{
	struct inodes *inodes = onefd_container(timer, struct inodes, idle);
	bool more = false;

	for (struct mount *mount = inodes->mounts; mount; mount = mount->next) {
		if (may_go(mount) && !mount->used)
			mount_let_go(inodes, mount);
		mount->used = false;
		more |= mount->met.fd >= 0 && mount != inodes->kept;
	}
	inodes->idle_on = more;
	if (more)
		onefd_timer_start(inodes->loop, timer, onefd_now(inodes->loop) + IDLE);
}

static void mount_is_held(struct inodes *inodes, struct mount *mount)
{
	if (!inodes->kept)
		inodes->kept = mount;
	mount->used = true;
	if (mount == inodes->kept || inodes->idle_on || mount->met.fd < 0)
		return;
	inodes->idle_on = true;
	onefd_timer_start(inodes->loop, &inodes->idle, onefd_now(inodes->loop) + IDLE);
}

int inodes_add_mount(struct inodes *inodes, const struct met *met)
{
	struct mount *mount = mounts_add(&inodes->mounts, met, &inodes->closer);

	if (!mount)
		return -ENOMEM;
	mount_is_held(inodes, mount);
	/* UNTESTED: it was let go, and what was met opens no handles any more, on a broken disk say. */
	return inodes_mount(inodes, met->number) ? 0 : -ESTALE;
}

void inodes_mount_found_again(struct inodes *inodes, struct mount *mount, const struct met *met)
{
	mount_found_again(mount, met, &inodes->closer);
	mount_is_held(inodes, mount);
}

/* ---- descriptors ------------------------------------------------------------ */

static size_t held_allowed(const struct inodes *inodes)
{
	size_t others = inodes->files + inodes->reserved + inodes->others;
	size_t left = inodes->limit > others ? inodes->limit - others : 0;

	return left < inodes->held_most ? left : inodes->held_most;
}

static void give_back(struct inodes *inodes, struct inode *inode)
{
	list_remove(&inode->recent);
	closer_add(&inodes->closer, inode->fd);
	inode->fd = -1;
	inodes->held--;
}

static bool reopens(const struct inode *inode)
{
	return inode->mount->met.handles && inode->id.type != OBJECT_NO_HANDLE && !inode->removed;
}

static void evict(struct inodes *inodes)
{
	give_back(inodes, onefd_container(inodes->recent.next, struct inode, recent));
	inodes->evicted++;
}

static void trim(struct inodes *inodes)
{
	while (inodes->held > held_allowed(inodes) && !list_empty(&inodes->recent))
		evict(inodes);
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
	inode->mount->calls++;
	inode->mount->used = true;
	list_remove(&inode->recent);
	return inode->fd;
}

static void inode_free(struct inodes *inodes, struct inode *inode);

void inode_unpin(struct inodes *inodes, struct inode *inode)
{
	inode->mount->calls--;
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
		closer_add(&inodes->closer, fd);
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
	closer_add(&inodes->closer, fd);
}

size_t inodes_reserve(struct inodes *inodes, size_t want)
{
	size_t most = held_allowed(inodes), used = inodes->held + closer_backlog(&inodes->closer);
	size_t count = most > used ? most - used : 0;

	if (count > want)
		count = want;
	inodes->reserved += count;
	return count;
}

void inodes_unreserve(struct inodes *inodes, size_t count)
{
	inodes->reserved -= count;
}

bool inodes_relieve(struct inodes *inodes, struct closer_wait *wait)
{
	for (unsigned i = 0; i < RELIEF && !list_empty(&inodes->recent); i++)
		evict(inodes);
	return closer_wait(&inodes->closer, wait);
}

bool inodes_have_room(const struct inodes *inodes)
{
	return inodes->files + inodes->held + LASTING < inodes->limit;
}

/* ---- the table -------------------------------------------------------------- */

static size_t hash(const struct identity *id)
{
	uint64_t h = 0xcbf29ce484222325u;	/* FNV-1a */

	for (uint32_t i = 0; i < id->length; i++)
		h = (h ^ id->handle[i]) * 0x100000001b3u;
	return h ^ h >> 32;
}

/* The mount by what it is: its number may be another's by now. */
static bool is(const struct inode *inode, const struct mount *mount, const struct identity *id)
{
	return inode->mount == mount && inode->id.type == id->type &&
	       inode->id.length == id->length && !memcmp(inode->id.handle, id->handle, id->length);
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
	list_init(&inode->transfers);
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
	if (!--inode->mount->inodes)
		mounts_remove(&inodes->mounts, inode->mount, &inodes->closer);
	free(inode);
}

/* Takes the found descriptor, if the inode is in want of one. */
static void take_fd(struct inodes *inodes, struct inode *inode, struct found *found)
{
	if (found->fd < 0)
		return;
	if (inode->fd >= 0) {
		closer_add(&inodes->closer, found->fd);
	} else {
		inode->fd = found->fd;
		inodes->held++;
		now_recent(inodes, inode);
	}
	found->fd = -1;
}

static struct inode *find(struct inodes *inodes, struct found *found, struct mount *mount)
{
	struct inode *inode;

	if (!mount->met.handles || found->id.type == OBJECT_NO_HANDLE)
		object_identify_by_number(found);
	for (inode = *bucket(inodes, &found->id); inode && !is(inode, mount, &found->id);)
		inode = inode->next;
	return inode;
}

struct inode *inode_get(struct inodes *inodes, struct found *found)
{
	struct mount *mount = inodes_mount(inodes, found->id.mount);
	struct inode *inode = mount ? find(inodes, found, mount) : NULL;

	/* No mount: it could not be met, for want of memory. */
	if (!inode && mount)
		inode = inode_new(inodes, found, mount);
	if (!inode) {
		if (found->fd >= 0)
			closer_add(&inodes->closer, found->fd);
		found->fd = -1;
		return NULL;
	}
	mount->used = true;
	inode->lookups++;
	if (!list_empty(&inode->recent)) {
		list_remove(&inode->recent);
		now_recent(inodes, inode);
	}
	take_fd(inodes, inode, found);
	trim(inodes);
	return inode;
}

void inode_removed(struct inodes *inodes, struct found *found)
{
	struct mount *mount = inodes_mount(inodes, found->id.mount);
	struct inode *inode = mount ? find(inodes, found, mount) : NULL;

	if (inode) {
		inode->removed = true;
		list_remove(&inode->recent);
		take_fd(inodes, inode, found);
	} else {
		closer_add(&inodes->closer, found->fd);
		found->fd = -1;
	}
}

void inode_forget(struct inodes *inodes, struct inode *inode, uint64_t lookups)
{
	inode->lookups -= lookups < inode->lookups ? lookups : inode->lookups;
	if (!inode->lookups && !inode->pins)
		inode_free(inodes, inode);
}

int inodes_init(struct inodes *inodes, struct onefd *loop, size_t limit, size_t others)
{
	*inodes = (struct inodes){
		.loop = loop, .limit = limit, .others = others, .bucket_count = BUCKETS_FIRST,
		.held_most = limit / 2 < HELD_MOST ? limit / 2 : HELD_MOST,
	};
	list_init(&inodes->recent);
	onefd_timer_init(&inodes->idle, idle);
	inodes->buckets = calloc(inodes->bucket_count, sizeof *inodes->buckets);
	return inodes->buckets ? closer_init(&inodes->closer, loop, limit) : -ENOMEM;
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
		if (mount->met.fd >= 0)
			(void)close(mount->met.fd);
		free(mount);
	}
	free(inodes->buckets);
	closer_free(&inodes->closer);
}
