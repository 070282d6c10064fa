/*
 * object.h - what an object of the source is, apart from its names.
 *
 * A file handle (name_to_handle_at(2)) names an object for as long as it exists and no other ever
 * after, and costs no descriptor. All of it is for any thread.
 */
#ifndef OBJECT_H
#define OBJECT_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define HANDLE_MOST 128		/* bytes: the kernel's MAX_HANDLE_SZ */

/* Equal for the same object, and only then. */
struct identity {
	int mount;		/* its number in mountinfo */
	int type;		/* of the handle; OBJECT_NO_HANDLE: dev and ino stand there */
	uint32_t length;
	unsigned char handle[HANDLE_MOST];
};

#define OBJECT_NO_HANDLE (-1)

/* What was found under a name. */
struct found {
	int fd;			/* O_PATH, the finder's; -1: closed */
	struct identity id;
	struct stat st;
};

/*
 * What a system call answers, or -errno; asked again while it was merely interrupted or told to
 * try again: no application expects that of a directory. For workers: it may sleep.
 */
#define insist(call) ({					\
	unsigned tries_ = 0;				\
	long answer_;					\
							\
	do						\
		answer_ = (call);			\
	while (answer_ < 0 && object_again(&tries_));	\
	answer_ < 0 ? -errno : (int)answer_; })

/* Whether errno says to try again; for longer than about a second it never does. */
bool object_again(unsigned *tries);

/* Looks at the object behind @found->fd; fills in the rest. The one call that may ask the
 * file system is fstat(2). */
int object_stat(struct found *found);
void object_identify(struct found *found);

/* Where handles are of no use: holds while somebody holds a descriptor of it. */
void object_identify_by_number(struct found *found);

/* Opens @name of @dir and looks: 0, or -errno and no descriptor. */
int object_find(int dir, const char *name, struct found *ret);

/* An O_PATH descriptor of @id, by way of any descriptor on its mount. */
int object_open(int mount_fd, const struct identity *id);

#endif
