/*
 * onefd-fuse - a directory, mounted a second time: a pass-through file system on one thread.
 *
 *   cc -D_GNU_SOURCE -o onefd-fuse *.c $(pkg-config --cflags --libs onefd-fuse)
 *
 * One loop holds /dev/fuse, the signals and all file I/O. What the kernel has in memory is
 * answered in the turn that asks; a read from the disk waits without a thread, and
 * what blocks by nature goes to the loop's workers. So one slow disk request delays none
 * but the one who asked.
 *
 * main.c: options, and the life of the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/securebits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "call.h"
#include "locks.h"

#define DEPTH	256u
#define WORKERS	8u
/* Of a turn: a reply wakes a client, which takes the processor for a moment, and what others
 * asked for meanwhile is not yet on its way to the disk. */
#define BATCH	8u
#define DESCRIPTORS_MOST 1048576u

struct options {
	char *source;
	int direct, stats, no_xattr;
	char *timeout, *max_read;
	char *place[2];			/* what stands without an option */
	int places;
};

static const struct fuse_opt known[] = {
	{ "source=%s", offsetof(struct options, source), 0 },
	{ "timeout=%s", offsetof(struct options, timeout), 0 },
	{ "max_read=%s", offsetof(struct options, max_read), 0 },
	{ "no_xattr", offsetof(struct options, no_xattr), 1 },
	{ "--direct", offsetof(struct options, direct), 1 },
	{ "--stats", offsetof(struct options, stats), 1 },
	FUSE_OPT_END
};

static struct fs fs;
static struct options options;
static unsigned max_read;	/* 0: what libfuse asks for */
static struct onefd_signal on_signal[4];
static int source = -1;		/* open since before the mount, which may be above it */
static int status;

static int fail(const char *what, int error)
{
	fprintf(stderr, "onefd-fuse: %s: %s\n", what, strerror(error));
	return 1;
}

static void usage(void)
{
	printf("usage: onefd-fuse [options] DIR MOUNTPOINT\n"
	       "       onefd-fuse [options] -o source=DIR MOUNTPOINT\n"
	       "    --direct               open the files of DIR with O_DIRECT\n"
	       "    --stats                report on SIGUSR1 and at the end\n"
	       "    -o timeout=SECONDS     for which names and attributes are believed (1)\n"
	       "    -o max_read=BYTES      the most of one read (1048576)\n"
	       "    -o no_xattr            no extended attributes, and no ACLs\n");
}

/* ---- while it runs ----------------------------------------------------------- */

static void init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	onefd_fuse_init(fs.fuse, conn);
	/* The first version of it would have root, too, lose set-id bits by writing. */
	conn->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
	/* The source's file system applies the umask, or its default ACL instead. */
	conn->want |= conn->capable & (FUSE_CAP_DONT_MASK | FUSE_CAP_CACHE_SYMLINKS);
	if (!options.no_xattr)
		conn->want |= conn->capable & FUSE_CAP_POSIX_ACL;
	/* The kernel would drop a file's pages after each change, the mount's own, too, and lose
	 * what is being written: see data.c. But it would see at once what others change. */
	if (fs.timeout > 0)
		conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	/* libfuse insists on being told twice. */
	conn->max_read = max_read;
}

static void ended(struct onefd_fuse *fuse, void *data, int reason)
{
	(void)fuse;
	(void)data;
	if (reason < 0 && reason != -ENODEV)
		status = fail("/dev/fuse", -reason);
	locks_end(&fs);
	onefd_stop(fs.loop);
}

static void report_inodes(FILE *out)
{
	const struct inodes *inodes = &fs.inodes;

	fprintf(out, "inodes %zu, descriptors for them %zu (at most %zu), reopened %llu, given back %llu\n",
		inodes->count, inodes->held, inodes->held_most,
		(unsigned long long)inodes->reopened, (unsigned long long)inodes->evicted);
	fprintf(out, "open files %zu, descriptors that may be open %zu\n", inodes->files, inodes->limit);
	for (const struct mount *mount = inodes->mounts; mount; mount = mount->next)
		if (!mount->met.handles)
			fprintf(out, "mount %d: no file handles%s, a descriptor for each of %zu inodes\n",
				mount->met.number, fs.privileged ? "" : " without privilege", mount->inodes);
}

static void report(FILE *out)
{
	struct onefd_fuse_stats stats;

	(void)onefd_fuse_stats(fs.fuse, &stats, sizeof stats);
	fprintf(out, "requests %llu, in hand %llu (at most %llu), reading stopped %llu times\n"
		     "interrupted %llu, cancelled %llu, writes spliced %llu\n",
		(unsigned long long)stats.received, (unsigned long long)stats.in_hand,
		(unsigned long long)stats.in_hand_most, (unsigned long long)stats.full,
		(unsigned long long)stats.interrupted, (unsigned long long)stats.cancelled,
		(unsigned long long)stats.spliced);
	report_inodes(out);
	data_report(&fs, out);
	(void)onefd_describe(fs.loop, out);
	(void)fflush(out);
}

static void signalled(struct onefd_signal *arrived, const struct signalfd_siginfo *info)
{
	(void)arrived;
	if (info->ssi_signo == SIGUSR1) {
		report(stderr);
		return;
	}
	fuse_session_exit(fs.session);
	onefd_fuse_stop(fs.fuse);
}

static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1 };

/* From before the mount: one that dies then leaves it behind. */
static void hold_signals(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	for (int i = 0; i < 3 + options.stats; i++)
		(void)sigaddset(&set, signals[i]);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}

static int catch_signals(bool stats)
{
	int r = 0;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);	/* a file of the source's is too large for us: EFBIG */
	for (int i = 0; r >= 0 && i < 4 - !stats; i++) {
		onefd_signal_init(&on_signal[i], signals[i], signalled);
		r = onefd_signal_start(fs.loop, &on_signal[i], ONEFD_SIGNAL_BLOCK);
	}
	return r;
}

/* ---- in the background ------------------------------------------------------- */

static int waiting = -1;		/* the parent, at the other end of a pipe */

/* Forks before there is anything that a fork would break; the parent stays until it can say
 * how the start went. */
static int go_to_background(void)
{
	int ends[2], state;
	char ready;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		(void)close(ends[0]);
		(void)setsid();
		waiting = ends[1];
		return 0;
	}
	(void)close(ends[1]);
	if (read(ends[0], &ready, 1) == 1)
		_exit(0);
	_exit(waitpid(pid, &state, 0) == pid && WIFEXITED(state) && WEXITSTATUS(state) ?
	      WEXITSTATUS(state) : 1);
}

/* Who asked for reports still reads them. */
static void say_ready(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (waiting < 0)
		return;
	if (chdir("/") < 0)
		return;		/* UNTESTED: the parent says 1 */
	for (int fd = 0; null >= 0 && fd < 3 - options.stats; fd++)
		(void)dup2(null, fd);
	if (null > 2)
		(void)close(null);
	if (write(waiting, "", 1) < 0)
		return;		/* UNTESTED: there is no parent any more */
	(void)close(waiting);
}

/* ---- its life ---------------------------------------------------------------- */

static int make_root(void)
{
	struct found found = { .fd = source };
	struct met met;
	int r;

	object_identify(&found);
	r = object_stat(&found);
	if (r >= 0)
		r = mount_meet(&found, &met);
	if (r >= 0)
		r = inodes_add_mount(&fs.inodes, &met);
	if (r < 0)
		return r;
	(void)fs_device_bits(&fs, found.st.st_dev);	/* none: it is the first */
	fs.root = inode_get(&fs.inodes, &found);
	if (!fs.root)
		return -ENOMEM;
	(void)inode_pin(&fs.inodes, fs.root);
	return 0;
}

/* Threads inherit it: a worker that acts as its caller keeps its capabilities. */
static void become_able(void)
{
	(void)umask(0);
	fs.privileged = geteuid() == 0 && prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) == 0;
}

/* As many as we may have. */
static size_t descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	return limit.rlim_cur < DESCRIPTORS_MOST ? limit.rlim_cur : DESCRIPTORS_MOST;
}

/* Each request in hand may have a few descriptors open. */
static unsigned depth_for(size_t limit)
{
	size_t depth = limit / 8;

	return depth > DEPTH ? DEPTH : depth < 8 ? 8 : (unsigned)depth;
}

static int start(void)
{
	size_t limit = descriptors();
	unsigned depth = depth_for(limit);
	struct onefd_fuse_config config = { .depth = depth, .budget = BATCH,
					    .extra = sizeof(struct call),
					    .flags = ONEFD_FUSE_HANDLE_KILLPRIV_V2 };
	struct onefd_config loop = { .threads = WORKERS, .depth = DEPTH, .budget = BATCH };
	int r;

	/* What is direct is aligned where it is read to. */
	if (!fs.direct)
		config.flags |= ONEFD_FUSE_SPLICE_WRITES;
	become_able();
	r = onefd_new(&fs.loop, &loop);
	if (r < 0)
		return fail("cannot make a loop", -r);
	r = inodes_init(&fs.inodes, fs.loop, limit, 48 + 3 * depth);
	if (r >= 0)
		r = make_root();
	if (r < 0)
		return fail(fs.source, -r);
	r = catch_signals(options.stats);
	if (r >= 0)
		r = onefd_fuse_new(&fs.fuse, fs.loop, fs.session, &config);
	if (r >= 0)
		r = onefd_fuse_start(fs.fuse, ended, NULL);
	return r < 0 ? fail("cannot serve", -r) : 0;
}

static int serve(void)
{
	int r = start();

	if (r)
		return r;
	say_ready();
	r = onefd_run(fs.loop);
	if (r < 0)
		return fail("cannot serve", -r);
	if (options.stats)
		report(stderr);
	return status;
}

static void tidy(void)
{
	(void)onefd_drain(fs.loop, -1);
	locks_free(&fs);
	(void)onefd_drain(fs.loop, -1);
	(void)onefd_fuse_free(fs.fuse);
	dirs_free(&fs);
	files_free(&fs.inodes);
	inodes_free(&fs.inodes);
	free(fs.devices);
	(void)onefd_free(fs.loop);
}

static int mount_and_serve(struct fuse_args *args, const char *mountpoint)
{
	struct fuse_lowlevel_ops ops = { .init = init };
	int r = 1;

	names_handlers(&ops);
	attr_handlers(&ops);
	if (!options.no_xattr)
		xattr_handlers(&ops);
	dir_handlers(&ops);
	data_handlers(&ops);
	locks_handlers(&ops);
	locks_init(&fs);
	list_init(&fs.dirs);
	fs.session = fuse_session_new(args, &ops, sizeof ops, &fs);
	if (!fs.session)
		return 1;	/* libfuse has said why */
	hold_signals();
	if (fuse_session_mount(fs.session, mountpoint) == 0) {
		fs.own_mount = mount_number(mountpoint);
		r = serve();
		fuse_session_unmount(fs.session);
		if (fs.loop)
			tidy();
	}
	fuse_session_destroy(fs.session);
	return r;
}

/* ---- options ----------------------------------------------------------------- */

static int keep(void *data, const char *arg, int key, struct fuse_args *args)
{
	(void)data;
	(void)args;
	if (key != FUSE_OPT_KEY_NONOPT)
		return 1;
	if (options.places == 2 || (options.places && options.source)) {
		fprintf(stderr, "onefd-fuse: %s: one argument too many\n", arg);
		return -1;
	}
	options.place[options.places++] = strdup(arg);
	return 0;
}

static int open_places(const char *mountpoint)
{
	struct stat st;

	/* libfuse would mount over a file, too. */
	if (stat(mountpoint, &st) == 0 && !S_ISDIR(st.st_mode))
		return fail(mountpoint, ENOTDIR);
	fs.source = realpath(options.source, NULL);
	if (fs.source)
		source = open(fs.source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return source < 0 ? fail(options.source, errno) : 0;
}

/* Before those that were given, which may say otherwise. */
static int add_options(struct fuse_args *args)
{
	char name[PATH_MAX + 16], most[40], *list = NULL, *arg = NULL;
	int r = -ENOMEM;

	(void)snprintf(name, sizeof name, "fsname=%s", fs.source);
	(void)snprintf(most, sizeof most, "max_read=%u", max_read);
	if (fuse_opt_add_opt(&list, "default_permissions,subtype=onefd-fuse") == 0 &&
	    fuse_opt_add_opt_escaped(&list, name) == 0 &&
	    (!max_read || fuse_opt_add_opt(&list, most) == 0) &&
	    asprintf(&arg, "-o%s", list) >= 0 && fuse_opt_insert_arg(args, 1, arg) == 0)
		r = 0;
	free(arg);
	free(list);
	return r;
}

/* What -h and -V ask for. */
static bool only_says(const struct fuse_cmdline_opts *cmdline)
{
	if (cmdline->show_help) {
		usage();
		fuse_cmdline_help();
		fuse_lowlevel_help();
	} else if (cmdline->show_version) {
		printf("onefd-fuse %s, libfuse %s\n", onefd_version(), fuse_pkgversion());
	}
	return cmdline->show_help || cmdline->show_version;
}

static int wanted(const char *what)
{
	fprintf(stderr, "onefd-fuse: %s\n", what);
	return 1;
}

static int read_numbers(void)
{
	const char *seconds = options.timeout ? options.timeout : "1";
	const char *bytes = options.max_read ? options.max_read : "0";
	unsigned long long most;
	char *end;

	fs.timeout = strtod(seconds, &end);
	if (end == seconds || *end || !(fs.timeout >= 0))
		return wanted("timeout: seconds are wanted, 0 or more");
	most = strtoull(bytes, &end, 10);
	/* It would take a sign. */
	if (*bytes < '0' || *bytes > '9' || *end || most > UINT_MAX)
		return wanted("max_read: a number of bytes is wanted");
	max_read = (unsigned)most;
	return 0;
}

static int mount_as_asked(struct fuse_args *args, const struct fuse_cmdline_opts *cmdline)
{
	int r;

	if (only_says(cmdline))
		return 0;
	if (!options.source || !cmdline->mountpoint)
		return wanted("a directory and a mountpoint are wanted: see --help");
	r = read_numbers();
	if (!r)
		r = open_places(cmdline->mountpoint);
	if (r)
		return r;
	fs.direct = options.direct;
	r = add_options(args);
	if (r >= 0 && !cmdline->foreground)
		r = go_to_background();
	if (r < 0)
		return fail("cannot start", -r);
	return mount_and_serve(args, cmdline->mountpoint);
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts cmdline = { 0 };
	int r = 1;

	if (fuse_opt_parse(&args, &options, known, keep) == 0) {
		if (options.places == 2 && !options.source)
			options.source = strdup(options.place[0]);
		if (options.places)
			(void)fuse_opt_add_arg(&args, options.place[options.places - 1]);
		if (fuse_parse_cmdline(&args, &cmdline) == 0)
			r = mount_as_asked(&args, &cmdline);
	}
	free(cmdline.mountpoint);
	free(options.place[0]);
	free(options.place[1]);
	free(options.source);
	free(options.timeout);
	free(options.max_read);
	free(fs.source);
	fuse_opt_free_args(&args);
	return r;
}
