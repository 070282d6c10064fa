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
#include <linux/securebits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "call.h"

#define DEPTH	256u
#define WORKERS	8u

struct options {
	char *source;
	int direct, stats, help, version;
	char *place[2];			/* what stands without an option */
	int places;
};

static const struct fuse_opt known[] = {
	{ "source=%s", offsetof(struct options, source), 0 },
	{ "--direct", offsetof(struct options, direct), 1 },
	{ "--stats", offsetof(struct options, stats), 1 },
	FUSE_OPT_END
};

static struct fs fs = { .timeout = 1 };
static struct onefd_signal on_signal[4];
static int status;

static int fail(const char *what, int error)
{
	fprintf(stderr, "onefd-fuse: %s: %s\n", what, strerror(error));
	return 1;
}

static void usage(FILE *out)
{
	fprintf(out, "usage: onefd-fuse [options] DIR MOUNTPOINT\n"
		     "       onefd-fuse [options] -o source=DIR MOUNTPOINT\n"
		     "  --direct   open the files of DIR with O_DIRECT\n"
		     "  --stats    report on SIGUSR1 and at the end\n");
}

/* ---- while it runs ------------------------------------------------------------------- */

static void init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	onefd_fuse_init(fs.fuse, conn);
	/* Who writes loses setuid: the kernel shall ask for that itself. */
	conn->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
}

static void ended(struct onefd_fuse *fuse, void *data, int reason)
{
	(void)fuse;
	(void)data;
	if (reason < 0 && reason != -ENODEV)
		status = fail("/dev/fuse", -reason);
	onefd_stop(fs.loop);
}

static void report(FILE *out)
{
	struct onefd_fuse_stats stats;

	(void)onefd_fuse_stats(fs.fuse, &stats, sizeof stats);
	fprintf(out, "requests %llu, in hand %llu (at most %llu), reading stopped %llu times\n"
		     "interrupted %llu, cancelled %llu\n"
		     "inodes %zu, descriptors for them %zu (at most %zu), reopened %llu, given back %llu, open files %zu\n",
		(unsigned long long)stats.received, (unsigned long long)stats.in_hand,
		(unsigned long long)stats.in_hand_most, (unsigned long long)stats.full,
		(unsigned long long)stats.interrupted, (unsigned long long)stats.cancelled,
		fs.inodes.count, fs.inodes.held, fs.inodes.held_most,
		(unsigned long long)fs.inodes.reopened, (unsigned long long)fs.inodes.evicted, fs.inodes.files);
	data_report(&fs, out);
	(void)onefd_describe(fs.loop, out);
	(void)fflush(out);
}

static void signalled(struct onefd_signal *arrived, const struct signalfd_siginfo *info)
{
	(void)arrived;
	if (info->ssi_signo == SIGUSR1)
		report(stderr);
	else
		onefd_fuse_stop(fs.fuse);
}

static int catch_signals(bool stats)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1 };
	int r = 0;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);	/* a file of the source's is too large for us: EFBIG */
	for (int i = 0; r >= 0 && i < 4 - !stats; i++) {
		onefd_signal_init(&on_signal[i], signals[i], signalled);
		r = onefd_signal_start(fs.loop, &on_signal[i], ONEFD_SIGNAL_BLOCK);
	}
	return r;
}

/* ---- its life -------------------------------------------------------------------------- */

static int make_root(void)
{
	struct found found = { .fd = open(fs.source, O_PATH | O_DIRECTORY | O_CLOEXEC) };
	struct met met;
	int r;

	if (found.fd < 0)
		return -errno;
	object_identify(&found);
	r = object_stat(&found);
	if (r < 0)
		return r;
	mount_meet(&found, &met);
	r = inodes_add_mount(&fs.inodes, found.id.mount, &met);
	if (r < 0)
		return r;
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

static int serve(const struct options *options)
{
	struct onefd_fuse_config config = { .depth = DEPTH, .extra = sizeof(struct call) };
	struct onefd_config loop = { .threads = WORKERS, .depth = DEPTH };
	int r = onefd_new(&fs.loop, &loop);

	if (r < 0)
		return fail("cannot make a loop", -r);
	become_able();
	r = inodes_init(&fs.inodes, fs.loop);
	if (r >= 0)
		r = make_root();
	if (r < 0)
		return fail(fs.source, -r);
	r = catch_signals(options->stats);
	if (r >= 0)
		r = onefd_fuse_new(&fs.fuse, fs.loop, fs.session, &config);
	if (r >= 0)
		r = onefd_fuse_start(fs.fuse, ended, NULL);
	if (r >= 0)
		r = onefd_run(fs.loop);
	if (r < 0)
		return fail("cannot serve", -r);
	if (options->stats)
		report(stderr);
	return status;
}

static void tidy(void)
{
	(void)onefd_drain(fs.loop, -1);
	(void)onefd_fuse_free(fs.fuse);
	files_free(&fs.inodes);
	inodes_free(&fs.inodes);
	(void)onefd_free(fs.loop);
}

static int mount_and_serve(struct fuse_args *args, const struct fuse_cmdline_opts *cmdline,
			   const struct options *options)
{
	struct fuse_lowlevel_ops ops = { .init = init };
	int r = 1;

	names_handlers(&ops);
	data_handlers(&ops);
	fs.session = fuse_session_new(args, &ops, sizeof ops, &fs);
	if (!fs.session)
		return 1;	/* libfuse has said why */
	if (fuse_session_mount(fs.session, cmdline->mountpoint) == 0) {
		/* A loop does not survive a fork. */
		if (fuse_daemonize(cmdline->foreground) == 0)
			r = serve(options);
		fuse_session_unmount(fs.session);
		if (fs.loop)
			tidy();
	}
	fuse_session_destroy(fs.session);
	return r;
}

static int keep(void *data, const char *arg, int key, struct fuse_args *args)
{
	struct options *options = data;

	(void)args;
	if (key != FUSE_OPT_KEY_NONOPT)
		return 1;
	if (options->places == 2) {
		fprintf(stderr, "onefd-fuse: %s: one argument too many\n", arg);
		return -1;
	}
	options->place[options->places++] = strdup(arg);
	return 0;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts cmdline;
	struct options options = { 0 };
	struct stat st;
	char *name;

	if (fuse_opt_parse(&args, &options, known, keep) < 0)
		return 1;
	if (options.places == 2)
		options.source = options.place[0];
	if (options.places)
		fuse_opt_add_arg(&args, options.place[options.places - 1]);
	if (fuse_parse_cmdline(&args, &cmdline) < 0)
		return 1;
	if (cmdline.show_help) {
		usage(stdout);
		fuse_cmdline_help();
		fuse_lowlevel_help();
		return 0;
	}
	if (cmdline.show_version) {
		printf("onefd-fuse %s, libfuse %s\n", onefd_version(), fuse_pkgversion());
		return 0;
	}
	if (!options.source || !cmdline.mountpoint) {
		usage(stderr);
		return 1;
	}
	fs.source = realpath(options.source, NULL);
	if (!fs.source)
		return fail(options.source, errno);
	if (stat(fs.source, &st) < 0 || !S_ISDIR(st.st_mode))
		return fail(fs.source, ENOTDIR);
	if (asprintf(&name, "-odefault_permissions,fsname=%s,subtype=onefd-fuse", fs.source) < 0)
		return 1;
	fuse_opt_add_arg(&args, name);
	fs.direct = options.direct;
	return mount_and_serve(&args, &cmdline, &options);
}
