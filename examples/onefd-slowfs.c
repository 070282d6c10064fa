/*
 * onefd-slowfs - a file system whose files come from a slow source: a template. Who
 * opens a file waits a second for its text, and nobody else waits with him.
 *
 *	cc -D_GNU_SOURCE -o onefd-slowfs onefd-slowfs.c $(pkg-config --cflags --libs onefd-fuse)
 */
#define FUSE_USE_VERSION 35

#include <err.h>
#include <errno.h>
#include <onefd/fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FILES 10 /* named "0" to "9"; their inodes are 10 to 19 */

/* In op->data: what the handler was given is gone when the text has come. */
struct opening {
	struct fuse_file_info fi;
	fuse_ino_t ino;
	char *text;
};

static struct fuse_session *session;
static struct onefd_fuse *fuse;

/* The source: put yours here. On a worker, so it may block; it touches only its own. */
static ssize_t fetch(void *arg)
{
	struct opening *opening = arg;

	sleep(1);
	if (asprintf(&opening->text, "file %d at %ld\n", (int)opening->ino - FILES, time(NULL)) < 0)
		return -ENOMEM;
	return 0;
}

static void fetched(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);
	struct opening *opening = op->data;

	opening->fi.fh = (uintptr_t)opening->text;
	opening->fi.direct_io = 1;	/* attributes do not know how long it is */
	if (req->res < 0)
		(void)fuse_reply_err(op->fuse, req->res == -ECANCELED ? EINTR : (int)-req->res);
	else if (fuse_reply_open(op->fuse, &opening->fi) == -ENOENT)
		free(opening->text);	/* nobody waits any more, nor will release it */
	onefd_fuse_end(op);
}

static void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct onefd_fuse_op *op = onefd_fuse_begin(fuse, req);
	struct opening *opening = op->data;
	int r;

	*opening = (struct opening){ .fi = *fi, .ino = ino };
	op->interruptible = true;
	onefd_prep_call(&op->req, fetch, opening);
	r = onefd_fuse_submit(op, fetched);
	if (r < 0) {
		(void)fuse_reply_err(req, -r);
		onefd_fuse_end(op);
	}
}

/* All else is answered at once. */
static void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	const char *text = (void *)(uintptr_t)fi->fh;
	size_t len = strlen(text), at = (size_t)offset < len ? (size_t)offset : len;

	(void)ino;
	(void)fuse_reply_buf(req, text + at, size < len - at ? size : len - at);
}

static void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	free((void *)(uintptr_t)fi->fh);
	(void)fuse_reply_err(req, 0);
}

static void describe(fuse_ino_t ino, struct stat *st)
{
	*st = (struct stat){ .st_ino = ino, .st_nlink = 1,
			     .st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0555 : S_IFREG | 0444 };
}

static void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	describe(ino, &st);
	(void)fuse_reply_attr(req, &st, 60);
}

static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .attr_timeout = 60, .entry_timeout = 60 };

	(void)parent;
	if (*name < '0' || *name > '9' || name[1]) {
		(void)fuse_reply_err(req, ENOENT);
		return;
	}
	entry.ino = FILES + (fuse_ino_t)(*name - '0');
	describe(entry.ino, &entry.attr);
	(void)fuse_reply_entry(req, &entry);
}

static void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	char buf[FILES * 32];
	size_t used = 0, room = size < sizeof buf ? size : sizeof buf, len;
	struct stat st;

	(void)ino, (void)fi;
	for (; offset < FILES; offset++, used += len) {
		describe(FILES + (fuse_ino_t)offset, &st);
		len = fuse_add_direntry(req, buf + used, room - used,
					(char[]){ (char)('0' + offset), 0 }, &st, offset + 1);
		if (len > room - used)
			break;
	}
	(void)fuse_reply_buf(req, buf, used);
}

static void fs_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	onefd_fuse_init(fuse, conn);
}

static const struct fuse_lowlevel_ops ops = {
	.init = fs_init, .lookup = fs_lookup, .getattr = fs_getattr, .readdir = fs_readdir,
	.open = fs_open, .read = fs_read, .release = fs_release,
};

static void check(int r, const char *what)
{
	if (r < 0)
		errx(EXIT_FAILURE, "%s: %s", what, strerror(-r));
}

static void stop(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal, (void)info;
	onefd_fuse_stop(fuse);
}

static void ended(struct onefd_fuse *of, void *loop, int reason)
{
	(void)of;
	if (reason != -ENODEV)		/* unmounted by another hand: as good an end */
		check(reason, "/dev/fuse");
	onefd_stop(loop);
}

static void serve(void)
{
	/* A worker for each file: no open waits for another's. */
	static const struct onefd_config config = { .threads = FILES };
	static const struct onefd_fuse_config fuse_config = { .extra = sizeof(struct opening) };
	static const int signals[2] = { SIGINT, SIGTERM };
	struct onefd_signal watches[2];
	struct onefd *loop;

	check(onefd_new(&loop, &config), "loop");
	check(onefd_fuse_new(&fuse, loop, session, &fuse_config), "session");
	for (int i = 0; i < 2; i++) {
		onefd_signal_init(&watches[i], signals[i], stop);
		check(onefd_signal_start(loop, &watches[i], ONEFD_SIGNAL_BLOCK), "signal");
	}
	check(onefd_fuse_start(fuse, ended, loop), "start");
	check(onefd_run(loop), "run");
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	check(onefd_fuse_free(fuse), "session");
	check(onefd_free(loop), "loop");
}

static int mount_and_serve(struct fuse_args *args, const struct fuse_cmdline_opts *options)
{
	if (options->show_help) {
		puts("Usage: onefd-slowfs [-fh] [-o option[,...]] mountpoint\n"
		     "  -f          stay in the foreground\n"
		     "  -h, --help  this text");
		return EXIT_SUCCESS;
	}
	if (!options->mountpoint) {
		fputs("onefd-slowfs: a mountpoint is wanted, see --help\n", stderr);
		return EXIT_FAILURE;
	}
	session = fuse_session_new(args, &ops, sizeof ops, NULL);
	if (!session || fuse_session_mount(session, options->mountpoint) != 0)
		return EXIT_FAILURE;
	/* A loop does not survive a fork: first the daemon, then its loop. */
	if (fuse_daemonize(options->foreground) != 0)
		return EXIT_FAILURE;
	serve();
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts options = { 0 };
	int status = EXIT_FAILURE;

	if (fuse_parse_cmdline(&args, &options) == 0)
		status = mount_and_serve(&args, &options);
	free(options.mountpoint);
	fuse_opt_free_args(&args);
	return status;
}
