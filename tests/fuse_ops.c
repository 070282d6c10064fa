/*
 * fuse_ops.c - random operations on files of a directory, held against a model of
 * them in memory. It shows that a file system is right, whichever it is.
 *
 * Usage: fuse_ops [OPTION]... DIR
 *
 *	--seed N	other operations (1)
 *	--ops N		how many (10000)
 *	--direct	now and then a file is opened with O_DIRECT
 *	--no-append	never with O_APPEND: for a file system that writes the pages of a
 *			mapping by any descriptor, though its bytes then go to the end
 *	--backing DIR	the same directory past the file system: now and then, and at
 *			the end, files are compared there too, after a sync
 *	--spoil N	changes one byte behind the model's back at operation N: shows
 *			that a wrong byte is found
 *
 * It works in a directory of its own in DIR, which it removes at the end. What a file
 * system refuses (EOPNOTSUPP, EINVAL for flags) is counted and is no mistake. The
 * first mistake is one line with seed, operation and offset, and status 1; the files
 * then stay as they are.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define MOST (1 << 20)		/* bytes of a file */
#define NAMES 10
#define HANDLES 12
#define AROUND 100		/* bytes looked at on both sides of a change */

struct inode {
	off_t size;
	int links, handles;
	bool mapped;			/* written by mmap(), not synced since */
	unsigned char bytes[MOST];	/* beyond size: zeros */
};

struct handle {
	int fd;				/* -1: closed */
	int flags;
	struct inode *inode;
};

struct range {
	off_t at;
	size_t len;
};

static uint64_t seed = 1, state;
static long operations = 10000, spoil = -1, operation, refused;
static const char *verb = "start";
static bool direct, no_append;
static int dir = -1, backing = -1;
static struct inode *names[NAMES];
static struct handle handles[HANDLES];
static unsigned char *buffer;	/* MOST bytes and a page, on a page */

static const char *name_of(int i)
{
	static const char *const texts[NAMES] = {
		"a", "b", "c", "d", "e", "f", "g", "h", "i", "j",
	};

	return texts[i];
}

/* ---- chance ------------------------------------------------------------------ */

static uint64_t below(uint64_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % limit;
}

static bool one_in(uint64_t n)
{
	return below(n) == 0;
}

static off_t least(off_t a, off_t b)
{
	return a < b ? a : b;
}

/* Where mistakes are: at the file's end, beside a page's edge; and anywhere. */
static off_t pick_offset(const struct inode *inode)
{
	off_t at;

	switch (below(4)) {
	case 0:
		at = inode->size - 20 + (off_t)below(40);
		break;
	case 1:
		at = (off_t)below(MOST / PAGE) * PAGE - 3 + (off_t)below(7);
		break;
	case 2:
		at = (off_t)below((uint64_t)inode->size + 1);
		break;
	default:
		at = (off_t)below(MOST);
	}
	return at < 0 ? 0 : least(at, MOST - 1);
}

static size_t pick_length(void)
{
	static const size_t most[] = { 16, 600, PAGE, 3 * PAGE, 20000, 140000, 400000, MOST };

	return 1 + below(most[below(sizeof most / sizeof *most)]);
}

/* Within a file of MOST bytes; in whole pages if the handle wants that. */
static struct range pick_range(const struct handle *handle)
{
	struct range range = { pick_offset(handle->inode), pick_length() };

	if (handle->flags & O_DIRECT) {
		range.at &= -(off_t)PAGE;
		range.len = (range.len + PAGE - 1) & -(size_t)PAGE;
	}
	range.len = (size_t)least((off_t)range.len, MOST - range.at);
	return range;
}

/* A handle for what is to be done with it: O_RDONLY, O_WRONLY or both. */
static bool fits(const struct handle *handle, int access)
{
	int mode = handle->flags & O_ACCMODE;

	return handle->fd >= 0 && (mode == O_RDWR || mode == access);
}

static struct handle *pick_handle(int access)
{
	uint64_t first = below(HANDLES);

	for (uint64_t i = 0; i < HANDLES; i++) {
		struct handle *handle = &handles[(first + i) % HANDLES];

		if (fits(handle, access))
			return handle;
	}
	return NULL;
}

/* A handle of this one that needs no alignment. */
static struct handle *pick_reader(const struct inode *inode)
{
	uint64_t first = below(HANDLES);

	for (uint64_t i = 0; i < HANDLES; i++) {
		struct handle *handle = &handles[(first + i) % HANDLES];

		if (fits(handle, O_RDONLY) && handle->inode == inode && !(handle->flags & O_DIRECT))
			return handle;
	}
	return NULL;
}

/* An index in names that is taken, or free; -1: none. */
static int pick_name(bool taken)
{
	int first = (int)below(NAMES);

	for (int i = 0; i < NAMES; i++)
		if (!names[(first + i) % NAMES] == !taken)
			return (first + i) % NAMES;
	return -1;
}

static int name_of_inode(const struct inode *inode)
{
	for (int i = 0; i < NAMES; i++)
		if (names[i] == inode)
			return i;
	return -1;
}

/* ---- what is said -------------------------------------------------------------- */

static void __attribute__((noreturn, format(printf, 1, 2))) mistake(const char *format, ...)
{
	va_list ap;

	printf("fuse_ops: seed %llu, operation %ld (%s): ", (unsigned long long)seed, operation,
	       verb);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
	exit(1);
}

static const char *text_of(const struct inode *inode)
{
	int i = name_of_inode(inode);

	return i < 0 ? "an unlinked file" : name_of(i);
}

/* What must not fail did not. */
static long must(long result, const char *call)
{
	if (result < 0)
		mistake("%s: %s", call, strerror(errno));
	return result;
}

/* Whether the file system took it; it may say that it knows no such thing. */
static bool took(long result, const char *call)
{
	if (result >= 0)
		return true;
	if (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS)
		mistake("%s: %s", call, strerror(errno));
	refused++;
	return false;
}

static void same_bytes(const struct inode *inode, const unsigned char *bytes, off_t at, size_t len,
		       const char *how)
{
	if (memcmp(bytes, inode->bytes + at, len) == 0)
		return;
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != inode->bytes[at + (off_t)i])
			mistake("%s of %s, size %lld, %lld+%zu: at offset %lld is 0x%02x, not 0x%02x",
				how, text_of(inode), (long long)inode->size, (long long)at, len,
				(long long)at + (long long)i, bytes[i],
				inode->bytes[at + (off_t)i]);
}

/* ---- the model ------------------------------------------------------------------- */

static void release_inode(struct inode *inode)
{
	if (inode && !inode->links && !inode->handles)
		free(inode);
}

static void model_resize(struct inode *inode, off_t size)
{
	if (size < inode->size)
		memset(inode->bytes + size, 0, (size_t)(inode->size - size));
	inode->size = size;
}

/* No two operations write the same, and none writes zeros: those are of holes. */
static void fill_buffer(size_t len)
{
	uint32_t x = (uint32_t)operation * 2654435761u;

	for (size_t i = 0; i < len; i++) {
		buffer[i] = (unsigned char)(1 + (x >> 24) % 255);
		x = x * 1664525 + 1013904223;
	}
}

static void model_write(struct inode *inode, off_t at, const void *bytes, size_t len)
{
	memcpy(inode->bytes + at, bytes, len);
	if (at + (off_t)len > inode->size)
		inode->size = at + (off_t)len;
}

/* ---- looking ---------------------------------------------------------------------- */

static void check_size(int fd, const struct inode *inode)
{
	struct stat st;

	must(fstat(fd, &st), "fstat");
	if (st.st_size != inode->size)
		mistake("size of %s is %lld, not %lld", text_of(inode), (long long)st.st_size,
			(long long)inode->size);
	if ((int)st.st_nlink != inode->links)
		mistake("%s has %d links, not %d", text_of(inode), (int)st.st_nlink, inode->links);
}

static void check_range(int fd, const struct inode *inode, struct range range, const char *how)
{
	off_t left = range.at < inode->size ? inode->size - range.at : 0;
	ssize_t expected = least((off_t)range.len, left);
	ssize_t n = must(pread(fd, buffer, range.len, range.at), how);

	same_bytes(inode, buffer, range.at, (size_t)least(n, expected), how);
	if (n != expected)
		mistake("%s of %s, size %lld, %lld+%zu: %zd bytes, not %zd", how, text_of(inode),
			(long long)inode->size, (long long)range.at, range.len, n, expected);
}

/* Half of what changes is looked at by another handle at once, half later. */
static void look_around(const struct inode *inode, struct range range)
{
	const struct handle *reader = pick_reader(inode);
	off_t end = least(range.at + (off_t)range.len + AROUND, MOST);

	if (!reader || one_in(2))
		return;
	range.at = range.at > AROUND ? range.at - AROUND : 0;
	range.len = (size_t)(end - range.at);
	check_range(reader->fd, inode, range, "read back");
	check_size(reader->fd, inode);
}

static void check_whole(int where, int i, const char *how)
{
	int fd = (int)must(openat(where, name_of(i), O_RDONLY | O_CLOEXEC), "open to compare");

	check_range(fd, names[i], (struct range){ 0, MOST }, how);
	check_size(fd, names[i]);
	close(fd);
}

/* ---- reading ----------------------------------------------------------------------- */

static void do_read(void)
{
	struct handle *handle = pick_handle(O_RDONLY);

	if (!handle)
		return;
	check_range(handle->fd, handle->inode, pick_range(handle), "read");
}

/* The rest of the last page is zeros. */
static void do_map_read(void)
{
	struct handle *handle = pick_handle(O_RDONLY);
	struct range range;
	unsigned char *map;

	if (!handle || handle->inode->size == 0)
		return;
	range.at = pick_offset(handle->inode) % handle->inode->size & -(off_t)PAGE;
	range.len = (size_t)least(handle->inode->size - range.at, (off_t)pick_length());
	map = mmap(NULL, range.len, PROT_READ, one_in(2) ? MAP_SHARED : MAP_PRIVATE, handle->fd,
		   range.at);
	if (map == MAP_FAILED)
		mistake("mmap: %s", strerror(errno));
	same_bytes(handle->inode, map, range.at, (range.len + PAGE - 1) & -(size_t)PAGE, "mmap");
	munmap(map, range.len);
}

static void do_stat(void)
{
	struct handle *handle = pick_handle(O_RDWR);
	struct stat st;
	int i = pick_name(true);

	if (handle)
		check_size(handle->fd, handle->inode);
	if (i < 0)
		return;
	must(fstatat(dir, name_of(i), &st, 0), "stat");
	if (st.st_size != names[i]->size)
		mistake("size of %s by name is %lld, not %lld", name_of(i), (long long)st.st_size,
			(long long)names[i]->size);
}

static bool all_zero(const struct inode *inode, off_t from, off_t to)
{
	for (; from < to; from++)
		if (inode->bytes[from])
			return false;
	return true;
}

/* A file system may know no holes; but there is no data where it says hole. */
static void do_seek(void)
{
	struct handle *handle = pick_handle(O_RDONLY);
	const struct inode *inode;
	off_t at, data, hole;

	if (!handle || handle->inode->mapped || !handle->inode->size)
		return;
	inode = handle->inode;
	at = pick_offset(inode) % inode->size;
	data = lseek(handle->fd, at, SEEK_DATA);
	if (data < 0 && errno != ENXIO && !took(data, "SEEK_DATA"))
		return;
	if (data < 0)
		data = inode->size;
	if (data < at || data > inode->size || !all_zero(inode, at, data))
		mistake("SEEK_DATA in %s from %lld, size %lld: %lld, but there is data before",
			text_of(inode), (long long)at, (long long)inode->size, (long long)data);
	hole = must(lseek(handle->fd, at, SEEK_HOLE), "SEEK_HOLE");
	if (hole < at || hole > inode->size)
		mistake("SEEK_HOLE in %s from %lld, size %lld: %lld", text_of(inode), (long long)at,
			(long long)inode->size, (long long)hole);
}

static void do_list(void)
{
	int found = 0, there = 0;
	DIR *stream;
	int fd = (int)must(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open .");

	stream = fdopendir(fd);
	for (struct dirent *entry; stream && (entry = readdir(stream));) {
		int i = entry->d_name[0] - 'a';

		if (entry->d_name[0] == '.')
			continue;
		if (entry->d_name[1] || i < 0 || i >= NAMES || !names[i])
			mistake("there is a file '%s'", entry->d_name);
		found++;
	}
	closedir(stream);
	for (int i = 0; i < NAMES; i++)
		there += names[i] != NULL;
	if (found != there)
		mistake("%d files in the directory, not %d", found, there);
}

static void do_compare(void)
{
	int i = pick_name(true);

	if (i >= 0)
		check_whole(dir, i, "second descriptor");
}

static void sync_file(int fd, struct inode *inode)
{
	must(fsync(fd), "fsync");
	inode->mapped = false;
}

static void do_compare_backing(void)
{
	int i = pick_name(true);
	int fd;

	if (backing < 0 || i < 0)
		return;
	fd = (int)must(openat(dir, name_of(i), O_RDONLY | O_CLOEXEC), "open to sync");
	sync_file(fd, names[i]);
	close(fd);
	check_whole(backing, i, "read of the backing file");
}

/* ---- writing ------------------------------------------------------------------------- */

static void do_write(void)
{
	struct handle *handle = pick_handle(O_WRONLY);
	struct range range;
	ssize_t n;

	if (!handle)
		return;
	range = pick_range(handle);
	if (handle->flags & O_APPEND)
		range.at = handle->inode->size;
	range.len = (size_t)least((off_t)range.len, MOST - range.at);
	if (!range.len)
		return;
	fill_buffer(range.len);
	n = must(handle->flags & O_APPEND ? write(handle->fd, buffer, range.len) :
					    pwrite(handle->fd, buffer, range.len, range.at), "write");
	if (n != (ssize_t)range.len)
		mistake("write to %s, %lld+%zu: %zd bytes", text_of(handle->inode),
			(long long)range.at, range.len, n);
	model_write(handle->inode, range.at, buffer, range.len);
	look_around(handle->inode, range);
}

static void do_map_write(void)
{
	struct handle *handle = pick_handle(O_RDWR);
	struct range range;
	unsigned char *map;
	size_t skip;

	if (!handle || !handle->inode->size)
		return;
	range.at = pick_offset(handle->inode) % handle->inode->size;
	range.len = (size_t)least(handle->inode->size - range.at, (off_t)pick_length());
	skip = (size_t)range.at % PAGE;
	map = mmap(NULL, skip + range.len, PROT_READ | PROT_WRITE, MAP_SHARED, handle->fd,
		   range.at - (off_t)skip);
	if (map == MAP_FAILED)
		mistake("mmap: %s", strerror(errno));
	fill_buffer(range.len);
	memcpy(map + skip, buffer, range.len);
	handle->inode->mapped = true;
	if (!one_in(4)) {
		must(msync(map, skip + range.len, MS_SYNC), "msync");
		handle->inode->mapped = false;
	}
	munmap(map, skip + range.len);
	model_write(handle->inode, range.at, buffer, range.len);
	look_around(handle->inode, range);
}

static void do_truncate(void)
{
	struct handle *handle = pick_handle(O_WRONLY);
	off_t size, old;

	if (!handle)
		return;
	size = pick_offset(handle->inode);
	old = handle->inode->size;
	must(ftruncate(handle->fd, size), "ftruncate");
	model_resize(handle->inode, size);
	look_around(handle->inode, (struct range){ least(size, old), AROUND });
}

static void do_truncate_name(void)
{
	char path[PATH_MAX];
	int i = pick_name(true);

	if (i < 0)
		return;
	snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dir, name_of(i));
	model_resize(names[i], pick_offset(names[i]));
	must(truncate(path, names[i]->size), "truncate");
	look_around(names[i], (struct range){ names[i]->size, AROUND });
}

static void do_allocate(void)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	struct handle *handle = pick_handle(O_WRONLY);
	int mode = modes[below(sizeof modes / sizeof *modes)];
	struct inode *inode;
	struct range range;
	off_t end;

	if (!handle)
		return;
	inode = handle->inode;
	range = pick_range(handle);
	end = range.at + (off_t)range.len;
	if (!took(fallocate(handle->fd, mode, range.at, (off_t)range.len), "fallocate"))
		return;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && range.at < inode->size)
		memset(inode->bytes + range.at, 0, (size_t)(least(end, inode->size) - range.at));
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > inode->size)
		inode->size = end;
	look_around(inode, range);
}

/* Within one file the ranges must not touch. */
static void do_copy(void)
{
	struct handle *from = pick_handle(O_RDONLY), *to = pick_handle(O_WRONLY);
	struct range range;
	off_t in, out;
	ssize_t n;

	if (!from || !to || (from->flags | to->flags) & O_DIRECT || to->flags & O_APPEND)
		return;
	range = pick_range(from);
	in = range.at;
	out = pick_offset(to->inode);
	range.len = (size_t)least((off_t)range.len, MOST - out);
	if (from->inode == to->inode && out < in + (off_t)range.len && in < out + (off_t)range.len)
		return;
	range.at = out;
	n = copy_file_range(from->fd, &in, to->fd, &out, range.len, 0);
	if (!took(n, "copy_file_range"))
		return;
	in -= n;
	if (n ? in + n > from->inode->size : in < from->inode->size)
		mistake("copy_file_range from %s, size %lld, %lld+%zu: %zd bytes",
			text_of(from->inode), (long long)from->inode->size, (long long)in,
			range.len, n);
	if (n > 0)
		model_write(to->inode, range.at, from->inode->bytes + in, (size_t)n);
	look_around(to->inode, range);
}

static void do_sync(void)
{
	struct handle *handle = pick_handle(O_RDWR);

	if (!handle)
		return;
	if (one_in(2))
		sync_file(handle->fd, handle->inode);
	else
		must(fdatasync(handle->fd), "fdatasync");
}

/* ---- names and handles ------------------------------------------------------------------ */

static void close_handle(struct handle *handle)
{
	must(close(handle->fd), "close");
	handle->fd = -1;
	handle->inode->handles--;
	release_inode(handle->inode);
}

static int pick_flags(void)
{
	int flags = O_RDWR;

	if (one_in(6))
		flags = one_in(2) ? O_RDONLY : O_WRONLY;
	if (!no_append && one_in(5))
		flags |= O_APPEND;
	else if (direct && one_in(3))
		flags |= O_DIRECT;
	if (one_in(10))
		flags |= O_TRUNC;
	/* What O_TRUNC does to a file that is only read is not defined. */
	return (flags & O_ACCMODE) == O_RDONLY ? flags & ~O_TRUNC : flags;
}

static void do_open(void)
{
	struct handle *handle = &handles[below(HANDLES)];
	int i = pick_name(one_in(8) ? false : true), flags = pick_flags(), fd;

	if (i < 0)
		return;
	if (handle->fd >= 0)
		close_handle(handle);
	if (!names[i])
		flags |= O_CREAT | O_EXCL;
	fd = openat(dir, name_of(i), flags | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EINVAL && flags & O_DIRECT) {
		refused++;
		flags &= ~O_DIRECT;
		fd = openat(dir, name_of(i), flags & ~O_EXCL, 0600);
	}
	must(fd, "open");
	if (!names[i]) {
		names[i] = calloc(1, sizeof *names[i]);
		names[i]->links = 1;
	} else if (flags & O_TRUNC) {
		model_resize(names[i], 0);
	}
	names[i]->handles++;
	*handle = (struct handle){ fd, flags, names[i] };
	check_size(fd, names[i]);
}

static void do_close(void)
{
	struct handle *handle = &handles[below(HANDLES)];

	if (handle->fd >= 0)
		close_handle(handle);
}

static void forget_name(int i)
{
	struct inode *inode = names[i];

	names[i] = NULL;
	if (inode)
		inode->links--;
	release_inode(inode);
}

static void do_unlink(void)
{
	int i = pick_name(true);

	if (i < 0)
		return;
	must(unlinkat(dir, name_of(i), 0), "unlink");
	forget_name(i);
	if (faccessat(dir, name_of(i), F_OK, 0) == 0 || errno != ENOENT)
		mistake("%s is still there", name_of(i));
}

static void do_link(void)
{
	int from = pick_name(true), to = pick_name(false);

	if (from < 0 || to < 0)
		return;
	must(linkat(dir, name_of(from), dir, name_of(to), 0), "link");
	names[to] = names[from];
	names[to]->links++;
}

/* Of two names of one file, neither goes. */
static void do_rename(void)
{
	int from = pick_name(true), to = (int)below(NAMES);

	if (from < 0)
		return;
	must(renameat(dir, name_of(from), dir, name_of(to)), "rename");
	if (names[from] == names[to])
		return;
	forget_name(to);
	names[to] = names[from];
	names[from] = NULL;
}

static void do_exchange(void)
{
	int from = pick_name(true), to = pick_name(true);
	struct inode *inode;

	if (from < 0 || !took(renameat2(dir, name_of(from), dir, name_of(to), RENAME_EXCHANGE),
			      "rename, to exchange"))
		return;
	inode = names[from];
	names[from] = names[to];
	names[to] = inode;
}

static void do_rename_beside(void)
{
	int from = pick_name(true), to = (int)below(NAMES), r;

	if (from < 0)
		return;
	r = renameat2(dir, name_of(from), dir, name_of(to), RENAME_NOREPLACE);
	if (r < 0 && errno == EEXIST && names[to])
		return;
	if (!took(r, "rename, not to replace"))
		return;
	if (names[to])
		mistake("rename replaced %s", name_of(to));
	names[to] = names[from];
	names[from] = NULL;
}

/* ---- the run ------------------------------------------------------------------------------ */

static const struct {
	const char *verb;
	void (*fn)(void);
	unsigned weight;
} verbs[] = {
	{ "read", do_read, 100 },
	{ "read by mmap", do_map_read, 40 },
	{ "stat", do_stat, 20 },
	{ "seek", do_seek, 20 },
	{ "list", do_list, 4 },
	{ "compare", do_compare, 6 },
	{ "compare beneath", do_compare_backing, 4 },
	{ "write", do_write, 100 },
	{ "write by mmap", do_map_write, 40 },
	{ "ftruncate", do_truncate, 16 },
	{ "truncate", do_truncate_name, 8 },
	{ "fallocate", do_allocate, 20 },
	{ "copy", do_copy, 20 },
	{ "sync", do_sync, 10 },
	{ "open", do_open, 40 },
	{ "close", do_close, 10 },
	{ "unlink", do_unlink, 6 },
	{ "link", do_link, 6 },
	{ "rename", do_rename, 8 },
	{ "rename to exchange", do_exchange, 3 },
	{ "rename not to replace", do_rename_beside, 3 },
};

static void do_any(void)
{
	uint64_t sum = 0, at;
	size_t i = 0;

	for (size_t k = 0; k < sizeof verbs / sizeof *verbs; k++)
		sum += verbs[k].weight;
	for (at = below(sum); at >= verbs[i].weight; i++)
		at -= verbs[i].weight;
	verb = verbs[i].verb;
	verbs[i].fn();
}

static void spoil_one(void)
{
	int i = pick_name(true), fd;
	unsigned char byte;
	off_t at;

	while (i < 0 || !names[i]->size) {
		do_any();
		i = pick_name(true);
	}
	at = (off_t)below((uint64_t)names[i]->size);
	byte = names[i]->bytes[at] ^ 1;
	fd = (int)must(openat(dir, name_of(i), O_WRONLY | O_CLOEXEC), "open to spoil");
	must(pwrite(fd, &byte, 1, at), "spoil");
	close(fd);
}

static void check_all(void)
{
	verb = "end";
	do_list();
	for (int i = 0; i < NAMES; i++) {
		int fd;

		if (!names[i])
			continue;
		check_whole(dir, i, "second descriptor");
		if (backing < 0)
			continue;
		fd = (int)must(openat(dir, name_of(i), O_RDONLY | O_CLOEXEC), "open to sync");
		sync_file(fd, names[i]);
		close(fd);
		check_whole(backing, i, "read of the backing file");
	}
	for (int i = 0; i < HANDLES; i++)
		if (fits(&handles[i], O_RDONLY))
			check_range(handles[i].fd, handles[i].inode, (struct range){ 0, MOST },
				    "open descriptor");
}

static int open_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		fprintf(stderr, "fuse_ops: cannot open '%s': %s\n", path, strerror(errno));
		exit(2);
	}
	return fd;
}

static void set_up(const char *path, const char *backing_path)
{
	char own[PATH_MAX];

	snprintf(own, sizeof own, "%s/fuse_ops.%llu", path, (unsigned long long)seed);
	if (mkdir(own, 0700) < 0) {
		fprintf(stderr, "fuse_ops: cannot make '%s': %s\n", own, strerror(errno));
		exit(2);
	}
	dir = open_directory(own);
	if (backing_path) {
		snprintf(own, sizeof own, "%s/fuse_ops.%llu", backing_path, (unsigned long long)seed);
		backing = open_directory(own);
	}
	buffer = aligned_alloc(PAGE, MOST + PAGE);
	for (int i = 0; i < HANDLES; i++)
		handles[i].fd = -1;
	state = seed * 0x9e3779b97f4a7c15 + 88172645463325252;
	for (int i = 0; i < 20; i++)
		(void)below(1);
}

static void tear_down(const char *path)
{
	char own[PATH_MAX];

	for (int i = 0; i < HANDLES; i++)
		if (handles[i].fd >= 0)
			close_handle(&handles[i]);
	for (int i = 0; i < NAMES; i++) {
		if (!names[i])
			continue;
		must(unlinkat(dir, name_of(i), 0), "unlink");
		forget_name(i);
	}
	snprintf(own, sizeof own, "%s/fuse_ops.%llu", path, (unsigned long long)seed);
	must(rmdir(own), "rmdir");
	free(buffer);
}

static void __attribute__((noreturn)) usage(void)
{
	fprintf(stderr, "usage: fuse_ops [--seed N] [--ops N] [--direct] [--no-append] "
			"[--backing DIR] [--spoil N] DIR\n");
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "ops", required_argument, NULL, 'o' },
		{ "direct", no_argument, NULL, 'd' },
		{ "no-append", no_argument, NULL, 'a' },
		{ "backing", required_argument, NULL, 'b' },
		{ "spoil", required_argument, NULL, 'x' },
		{ NULL },
	};
	const char *backing_path = NULL;

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (c) {
		case 's':
			seed = strtoull(optarg, NULL, 10);
			break;
		case 'o':
			operations = strtol(optarg, NULL, 10);
			break;
		case 'd':
			direct = true;
			break;
		case 'a':
			no_append = true;
			break;
		case 'b':
			backing_path = optarg;
			break;
		case 'x':
			spoil = strtol(optarg, NULL, 10);
			break;
		default:
			usage();
		}
	}
	if (optind != argc - 1)
		usage();
	set_up(argv[optind], backing_path);
	for (operation = 1; operation <= operations; operation++) {
		if (operation == spoil)
			spoil_one();
		do_any();
	}
	check_all();
	tear_down(argv[optind]);
	printf("fuse_ops: seed %llu: %ld operations, %ld refused\n", (unsigned long long)seed,
	       operations, refused);
	return 0;
}
