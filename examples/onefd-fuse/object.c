/* object.c - what an object of the source is: see object.h. */
#include "object.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TRIES_MOST	1000u
#ifndef STATX_MNT_ID
#define STATX_MNT_ID	0x1000u
#endif

union handle {
	struct file_handle head;
	char room[sizeof(struct file_handle) + HANDLE_MOST];
};

bool object_again(unsigned *tries)
{
	static const struct timespec pause = { .tv_nsec = 1000000 };

	bool waits = errno == EAGAIN;

	if (!waits && errno != EINTR)
		return false;
	if (++*tries > TRIES_MOST) {
		errno = EIO;
		return false;
	}
	if (waits)
		(void)nanosleep(&pause, NULL);
	return true;
}

int object_stat(struct found *found)
{
	return insist(fstatat(found->fd, "", &found->st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
}

/* Asks the file system nothing. */
static int mount_of(int fd)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &stx) < 0 ||
	    !(stx.stx_mask & STATX_MNT_ID))
		return -1;
	return (int)stx.stx_mnt_id;
}

void object_identify(struct found *found)
{
	union handle handle = { .head.handle_bytes = HANDLE_MOST };
	struct identity *id = &found->id;

	id->mount = -1;
	id->type = OBJECT_NO_HANDLE;
	id->length = 0;
	if (name_to_handle_at(found->fd, "", &handle.head, &id->mount, AT_EMPTY_PATH) < 0) {
		id->mount = mount_of(found->fd);
		return;
	}
	id->type = handle.head.handle_type;
	id->length = handle.head.handle_bytes;
	memcpy(id->handle, handle.head.f_handle, id->length);
}

void object_identify_by_number(struct found *found)
{
	struct identity *id = &found->id;

	id->type = OBJECT_NO_HANDLE;
	id->length = sizeof found->st.st_dev + sizeof found->st.st_ino;
	memcpy(id->handle, &found->st.st_dev, sizeof found->st.st_dev);
	memcpy(id->handle + sizeof found->st.st_dev, &found->st.st_ino, sizeof found->st.st_ino);
}

int object_find(int dir, const char *name, struct found *ret)
{
	int r;

	ret->fd = insist(openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
	if (ret->fd < 0)
		return ret->fd;
	object_identify(ret);
	r = object_stat(ret);
	if (r < 0) {
		(void)close(ret->fd);
		ret->fd = -1;
	}
	return r;
}

int object_open(int mount_fd, const struct identity *id)
{
	union handle handle = { .head.handle_bytes = id->length, .head.handle_type = id->type };

	if (id->type == OBJECT_NO_HANDLE)
		return -ESTALE;
	memcpy(handle.head.f_handle, id->handle, id->length);
	return insist(open_by_handle_at(mount_fd, &handle.head, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}
