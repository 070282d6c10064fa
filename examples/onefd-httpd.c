/*
 * onefd-httpd - an HTTP server of files, one thread, that no disk can stall.
 *
 *   cc -D_GNU_SOURCE -o onefd-httpd onefd-httpd.c $(pkg-config --cflags --libs onefd libmicrohttpd)
 *
 * libmicrohttpd (MHD) speaks HTTP: it parses and sends. onefd accepts, opens and reads the
 * files, and waits for all there is to wait for; MHD's epoll descriptor is a watch in its loop.
 *
 * A request travels so:
 *
 *	start --open--> opened --> judge --read--> settle --> queue_answer
 *
 * Of what is in memory, each of these steps is done when submit() returns, and all of
 * them within the handler. Else MHD calls the handler anew in each of its runs until there
 * is an answer; a connection whose file takes longer is suspended in a run that follows a
 * turn in which nothing came: from then on it costs nothing, and settle() resumes it.
 *
 * A large file is sent by onefd: MHD would have it copied twice. Once the head is sent the
 * connection is taken from MHD, and given to it anew behind the body: see take_over().
 *
 * A request is shared: by MHD from its first line to its last byte, by the loop while one
 * of its requests is out, by the response that sends its body. The last one frees it; so a
 * client may go at any time.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/openat2.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <onefd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STATUS_FAILED	1
#define STATUS_USAGE	2
#define SMALL		(64u << 10)	/* files up to here are read whole */
#define BLOCK		(64u << 10)	/* others by so much */
#define LARGE		(256u << 10)	/* and from here on without MHD */
#define SENDERS_MOST	256u		/* so many at once: each may be a poll for long */
#define LOG_MOST	(1u << 20)	/* of lines that are not written yet */
#define LINE_MOST	(16u << 10)
#define MEMORY		(8u << 10)	/* MHD's of a connection: bounds what a client sends */
#define RUNS_MOST	64u		/* of MHD's, before a connection is suspended anyway */
#define SPARE_FILES	64		/* descriptors that are neither clients nor files */
#define FINISH_NS	UINT64_C(5000000000)
#define RESTART_NS	UINT64_C(1000000000)
#define PAUSE_NS	UINT64_C(100000000)
#define ACCEPT_MOST	64u		/* clients in a turn */
#define NSEC_PER_MSEC	UINT64_C(1000000)
#define TIMEOUT_MOST	86400u
#define CONNECTIONS_MOST 1000000u
#define WORKERS_MOST	256u
#define DATE_SIZE	32
#define ETAG_SIZE	72

struct type {
	const char *extension, *name;
};

/* What SIGHUP makes anew. Shared by those who began with it. */
struct setup {
	unsigned users;
	int root, log;			/* -1: no log */
	char *text;			/* of the types file, which the list points into */
	struct type *types;
	size_t type_count;
};

/* From HOST on: those of which two, that differ, would mean two requests. */
enum header {
	RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED, IF_UNMODIFIED, CONNECTION,
	HOST, CONTENT_LENGTH, TRANSFER_ENCODING, HEADERS
};

static const char *const header_names[HEADERS] = {
	MHD_HTTP_HEADER_RANGE, MHD_HTTP_HEADER_IF_RANGE, MHD_HTTP_HEADER_IF_MATCH,
	MHD_HTTP_HEADER_IF_NONE_MATCH, MHD_HTTP_HEADER_IF_MODIFIED_SINCE,
	MHD_HTTP_HEADER_IF_UNMODIFIED_SINCE, MHD_HTTP_HEADER_CONNECTION, MHD_HTTP_HEADER_HOST,
	MHD_HTTP_HEADER_CONTENT_LENGTH, MHD_HTTP_HEADER_TRANSFER_ENCODING,
};

/* Which file it is, and which of its contents. */
struct version {
	uint64_t inode;
	off_t size;
	struct statx_timestamp changed;
};

struct request {
	struct request *next, **at;	/* in the list of those in hand */
	struct request *behind;		/* in a queue */
	struct MHD_Connection *connection;	/* NULL: it is gone */
	struct setup *setup;
	unsigned users;
	const char *method, *protocol;	/* MHD's, while the connection is there */
	const char *headers[HEADERS];	/* likewise */
	bool head, directory, checking;	/* HEAD; the path ends in a slash; is there one at all? */
	bool unclear;			/* where it ends: nothing after it is one */

	unsigned verdict, status;	/* what is to be answered, and can be; 0: not yet */
	off_t from, length;		/* of the body in the file */
	struct version version;

	bool asked, suspended;		/* MHD waits for it: in each run, or until it is resumed */
	unsigned runs;			/* of MHD's, since it asked first */
	bool out, failed;		/* there is a request to the loop; it came to nothing */
	bool lingers;			/* its file is open for longer than a moment */
	bool file_held, large_held;	/* a place among the files, and among the large ones */
	int fd;
	struct onefd_req req;
	struct onefd_file file;
	char *body;			/* a small file whole */
	struct MHD_Response *large;	/* or what sends a large one, and has its next block: */
	size_t room, landed;		/* bytes of the body; of that block, 0: to be read */
	off_t taken;			/* of the body, by MHD or by the socket */
	struct client *sender;		/* or its connection, taken from MHD, */
	char *record[2];		/* and what the log says before and behind the bytes */

	char *path;			/* behind uri */
	char uri[];			/* as it came */
};

static const char *root_path, *log_path, *types_path, *index_name = "index.html";
static bool follow;
static unsigned timeout = 60, connection_most, worker_count = 1;

static struct onefd *loop;
static struct MHD_Daemon *server;
static struct setup *setup;
static struct request *requests;
static unsigned request_count;
static uint64_t bytes_held;
static bool stopping;

static void die(const char *what, int error)
{
	fprintf(stderr, "onefd-httpd: %s: %s\n", what, strerror(error));
	exit(STATUS_FAILED);
}

/* ---- dates, entity tags, ranges: as RFC 9110 has them ------------------------ */

/* Most ask for what was asked for before. */
static const char *format_date(time_t at)
{
	static char text[DATE_SIZE];
	static time_t before;
	struct tm tm;

	if (*text && at == before)
		return text;
	if (!gmtime_r(&at, &tm) ||
	    !strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
		*text = '\0';
	before = at;
	return text;
}

/* In one of the three forms of old, to the letter: what is printed again must be the same. */
static bool parse_date(const char *text, time_t *ret)
{
	static const char *const forms[] = {
		"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y",
	};

	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		struct tm tm = { 0 };
		char again[64];
		const char *end = strptime(text, forms[i], &tm);

		if (!end || *end)
			continue;
		*ret = timegm(&tm);
		if (strftime(again, sizeof again, forms[i], &tm) && strcmp(again, text) == 0)
			return true;
	}
	return false;
}

/* A strong one: a file that is written to or put in place of another has another. */
static void format_etag(char text[ETAG_SIZE], const struct version *version)
{
	const uint64_t parts[] = { version->inode, (uint64_t)version->size,
				   (uint64_t)version->changed.tv_sec, version->changed.tv_nsec };

	*text++ = '"';
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		int digits = 1;

		while (digits < 16 && parts[i] >> 4 * digits)
			digits++;
		while (digits--)
			*text++ = "0123456789abcdef"[parts[i] >> 4 * digits & 15];
		*text++ = i + 1 < sizeof parts / sizeof parts[0] ? '-' : '"';
	}
	*text = '\0';
}

/* Whether @list, of If-Match and its like, has @etag. */
static bool etag_listed(const char *list, const char *etag, bool strong)
{
	size_t length = strlen(etag);

	if (strcmp(list, "*") == 0)
		return true;
	for (;;) {
		bool weak;
		const char *end;

		list += strspn(list, " \t,");
		weak = strncmp(list, "W/", 2) == 0;
		list += weak ? 2 : 0;
		end = *list == '"' ? strchr(list + 1, '"') : NULL;
		if (!end)
			return false;
		end++;
		if (!(weak && strong) && (size_t)(end - list) == length &&
		    memcmp(list, etag, length) == 0)
			return true;
		list = end;
	}
}

/* A number of digits alone; one that no file can have is the largest. */
static bool parse_offset(const char **at, off_t *ret)
{
	const char *digit = *at;
	off_t value = 0;

	for (; *digit >= '0' && *digit <= '9'; digit++)
		value = value > (INT64_MAX - 9) / 10 ? INT64_MAX : value * 10 + (*digit - '0');
	if (digit == *at)
		return false;
	*at = digit;
	*ret = value;
	return true;
}

/*
 * MHD_HTTP_OK: @text is no range, or several, and the whole is sent; 206 with the
 * range in @from and @length; 416: it has nothing of the file.
 */
static unsigned parse_range(const char *text, off_t size, off_t *from, off_t *length)
{
	off_t first = 0, last = INT64_MAX;
	bool suffix;

	if (strncasecmp(text, "bytes=", 6) != 0)
		return MHD_HTTP_OK;
	text += 6;
	suffix = *text == '-';
	if (!suffix && !parse_offset(&text, &first))
		return MHD_HTTP_OK;
	if (*text++ != '-' || (*text && !parse_offset(&text, &last)) || *text || last < first)
		return MHD_HTTP_OK;
	if (suffix) {
		if (text[-1] == '-')
			return MHD_HTTP_OK;
		first = last < size ? size - last : 0;
		if (!last)
			return MHD_HTTP_RANGE_NOT_SATISFIABLE;
		last = INT64_MAX;
	}
	if (first >= size)
		return MHD_HTTP_RANGE_NOT_SATISFIABLE;
	*from = first;
	*length = (last < size ? last + 1 : size) - first;
	return MHD_HTTP_PARTIAL_CONTENT;
}

/* ---- paths ------------------------------------------------------------------- */

static int hex(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	digit |= 0x20;
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* The path of an absolute URI, as proxies ask for it, or of any other. */
static const char *path_of(const char *uri)
{
	if (strncasecmp(uri, "http://", 7) != 0)
		return uri;
	uri += 7 + strcspn(uri + 7, "/?");
	return *uri == '/' ? uri : "/";
}

/* Once and not again. A zero byte would make it the path of another. */
static bool decode(char *path, const char *uri)
{
	for (; *uri && *uri != '?'; uri++) {
		int high, low;

		if (*uri != '%') {
			*path++ = *uri;
			continue;
		}
		high = hex(uri[1]);
		low = high < 0 ? -1 : hex(uri[2]);
		if (low < 0 || high + low == 0)
			return false;
		*path++ = (char)(high << 4 | low);
		uri += 2;
	}
	*path = '\0';
	return true;
}

/*
 * Takes the dot segments and the empty ones out of @path, which begins with a slash,
 * and that slash. One that ends in a slash then was a directory's: "" is the root's. false: it
 * leads out of the root.
 */
static bool clean(char *path)
{
	const char *in = path;
	char *out = path;
	bool directory = true;

	for (;;) {
		size_t length;

		in += strspn(in, "/");
		length = strcspn(in, "/");
		if (!length)
			break;
		directory = in[length] == '/';
		if (length == 2 && in[0] == '.' && in[1] == '.') {
			if (out == path)
				return false;
			for (out--; out > path && out[-1] != '/'; out--)
				;
			directory = true;
		} else if (length == 1 && in[0] == '.') {
			directory = true;
		} else {
			memmove(out, in, length);
			out += length;
			*out++ = '/';
		}
		in += length;
	}
	if (out > path && !directory)
		out--;
	*out = '\0';
	return true;
}

/* As a URI has it, with a slash before and after. */
static char *encode_directory(const char *path, const char *query)
{
	static const char digits[] = "0123456789ABCDEF";
	char *uri = malloc(strlen(path) * 3 + strlen(query) + 3), *out = uri;

	if (!uri)
		return NULL;
	*out++ = '/';
	for (; *path; path++) {
		unsigned char c = (unsigned char)*path;

		if (c < 0x80 && (isalnum(c) || strchr("/-._~!$&'()*+,;=:@", c))) {
			*out++ = (char)c;
		} else {
			*out++ = '%';
			*out++ = digits[c >> 4];
			*out++ = digits[c & 15];
		}
	}
	*out++ = '/';
	strcpy(out, query);
	return uri;
}

/* ---- types ------------------------------------------------------------------- */

static const char built_in_types[] =
	"application/javascript js mjs\napplication/json json map\napplication/pdf pdf\n"
	"application/wasm wasm\napplication/xml xml xsl\napplication/zip zip\n"
	"application/gzip gz tgz\napplication/x-tar tar\napplication/x-xz xz\n"
	"audio/mpeg mp3\naudio/ogg ogg oga\naudio/flac flac\nfont/woff woff\nfont/woff2 woff2\n"
	"font/ttf ttf\nimage/gif gif\nimage/jpeg jpg jpeg\nimage/png png\nimage/svg+xml svg svgz\n"
	"image/webp webp\nimage/avif avif\nimage/vnd.microsoft.icon ico\ntext/css css\n"
	"text/csv csv\ntext/html html htm\ntext/markdown md\ntext/plain txt text log conf\n"
	"video/mp4 mp4\nvideo/webm webm\nvideo/x-matroska mkv\n";

static int by_extension(const void *a, const void *b)
{
	return strcasecmp(((const struct type *)a)->extension, ((const struct type *)b)->extension);
}

/* Of the same, the one that stands before in the text. */
static int by_extension_and_place(const void *a, const void *b)
{
	const struct type *left = a, *right = b;
	int order = by_extension(a, b);

	if (order)
		return order;
	return (left->extension > right->extension) - (left->extension < right->extension);
}

static const char *type_of(const struct setup *s, const char *path)
{
	const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
	const struct type key = { .extension = dot ? dot + 1 : "" }, *found = NULL;

	if (dot && (!slash || dot > slash))
		found = bsearch(&key, s->types, s->type_count, sizeof key, by_extension);
	return found ? found->name : "application/octet-stream";
}

static bool add_type(struct setup *s, const struct type *type)
{
	/* As many again each time that the count is a power of two. */
	if (!(s->type_count & (s->type_count - 1))) {
		size_t room = s->type_count ? s->type_count * 2 : 1;
		struct type *types = realloc(s->types, room * sizeof *types);

		if (!types)
			return false;
		s->types = types;
	}
	s->types[s->type_count++] = *type;
	return true;
}

/* Lines of a type and its extensions. */
static bool parse_types(struct setup *s, char *text)
{
	char *line_rest, *word_rest;

	for (char *line = strtok_r(text, "\n", &line_rest); line;
	     line = strtok_r(NULL, "\n", &line_rest)) {
		struct type type = { .name = strtok_r(line, " \t\r", &word_rest) };

		if (!type.name || *type.name == '#')
			continue;
		while ((type.extension = strtok_r(NULL, " \t\r", &word_rest)))
			if (!add_type(s, &type))
				return false;
	}
	return true;
}

/* The first of each extension counts. */
static void sort_types(struct setup *s)
{
	size_t kept = 0;

	qsort(s->types, s->type_count, sizeof s->types[0], by_extension_and_place);
	for (size_t i = 0; i < s->type_count; i++)
		if (!kept || by_extension(&s->types[kept - 1], &s->types[i]) != 0)
			s->types[kept++] = s->types[i];
	s->type_count = kept;
}

/* The file's text, and behind it what is built in. */
static int read_types(struct setup *s, const char *path)
{
	FILE *file = path ? fopen(path, "re") : NULL;
	long size = 0;

	if (path && !file)
		return -errno;
	if (file && (fseek(file, 0, SEEK_END) < 0 || (size = ftell(file)) < 0 ||
		     fseek(file, 0, SEEK_SET) < 0)) {
		size = -errno;
		fclose(file);
		return (int)size;
	}
	s->text = malloc((size_t)size + sizeof built_in_types + 1);
	if (s->text && file)
		size = (long)fread(s->text, 1, (size_t)size, file);
	if (file)
		fclose(file);
	if (!s->text)
		return -ENOMEM;
	s->text[size] = '\n';
	memcpy(s->text + size + 1, built_in_types, sizeof built_in_types);
	if (!parse_types(s, s->text))
		return -ENOMEM;
	sort_types(s);
	return 0;
}

/* ---- the setup: root, types, log --------------------------------------------- */

static void setup_release(struct setup *s)
{
	if (--s->users)
		return;
	if (s->root >= 0)
		close(s->root);
	if (s->log >= 0)
		close(s->log);
	free(s->types);
	free(s->text);
	free(s);
}

static int setup_open(struct setup *s, const char **what)
{
	static const char usual[] = "/etc/mime.types";
	int r;

	*what = root_path;
	s->root = open(root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->root < 0)
		return -errno;
	*what = types_path ? types_path : usual;
	r = read_types(s, types_path ? types_path : access(usual, R_OK) == 0 ? usual : NULL);
	if (r < 0 || !log_path)
		return r;
	*what = log_path;
	if (strcmp(log_path, "-") == 0)
		s->log = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
	else
		s->log = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
	return s->log < 0 ? -errno : 0;
}

/* Blocks: at the start, and on a worker. */
static int setup_new(struct setup **ret, const char **what)
{
	struct setup *s = calloc(1, sizeof *s);
	int r;

	*what = "cannot set up";
	if (!s)
		return -ENOMEM;
	s->users = 1;
	s->root = s->log = -1;
	r = setup_open(s, what);
	if (r < 0)
		setup_release(s);
	else
		*ret = s;
	return r;
}

/* ---- the log: lines gather in memory while others are written ---------------- */

static struct {
	struct onefd_req req;
	struct onefd_file file;
	struct setup *setup;		/* whose file is written to */
	bool seekable, out;
	int error;			/* of the last write */
	char *lines, *going;		/* LOG_MOST each */
	size_t length, going_length, written;
	uint64_t lost;
} history;

static void write_lines(void);

static void lines_written(struct onefd_req *req)
{
	history.out = false;
	if (req->res < 0 && history.error != (int)-req->res)
		fprintf(stderr, "onefd-httpd: cannot write the log: %s\n",
			strerror((int)-req->res));
	history.error = req->res < 0 ? (int)-req->res : 0;
	history.written += req->res > 0 ? (size_t)req->res : 0;
	if (req->res <= 0)
		history.written = history.going_length;
	if (history.written == history.going_length && history.lost) {
		fprintf(stderr, "onefd-httpd: lines of the log lost: %llu\n",
			(unsigned long long)history.lost);
		history.lost = 0;
	}
	write_lines();
}

/* On a worker: a pipe or a terminal takes what it takes, when it takes it. */
static ssize_t write_stream(void *arg)
{
	ssize_t n;

	(void)arg;
	do
		n = write(history.setup->log, history.going + history.written,
			  history.going_length - history.written);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* The log may have been opened anew since. */
static void follow_setup(void)
{
	if (history.setup == setup)
		return;
	if (history.setup)
		setup_release(history.setup);
	history.setup = setup;
	setup->users++;
	history.seekable = onefd_file_init(loop, &history.file, setup->log) == 0;
}

/* One write at a time. */
static void write_lines(void)
{
	int r;

	if (history.out)
		return;
	if (history.written == history.going_length) {
		char *empty = history.going;

		history.going = history.lines;
		history.going_length = history.length;
		history.lines = empty;
		history.length = history.written = 0;
		if (history.going_length)
			follow_setup();
	}
	if (!history.going_length)
		return;
	if (history.seekable)
		onefd_prep_pwrite(&history.req, &history.file, history.going + history.written,
				  history.going_length - history.written, 0);
	else
		onefd_prep_call(&history.req, write_stream, NULL);
	r = onefd_submit(loop, &history.req, lines_written);
	if (r < 0)
		die("cannot submit", -r);
	history.out = true;
}

static void open_history(void)
{
	history.lines = malloc(LOG_MOST);
	history.going = malloc(LOG_MOST);
	if (!history.lines || !history.going)
		die("cannot make room for the log", ENOMEM);
}

static void close_history(void)
{
	if (history.setup)
		setup_release(history.setup);
	free(history.lines);
	free(history.going);
}

/* What a client sent stays within its quotes and its line. */
static size_t quote(char *out, size_t room, const char *text)
{
	size_t length = 0;

	for (; *text && length + 4 < room; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
			length += (size_t)snprintf(out + length, room - length, "\\x%02X", c);
		else
			out[length++] = (char)c;
	}
	out[length] = '\0';
	return length;
}

static void format_client(char *text, size_t size, struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	if (!info || getnameinfo(info->client_addr, info->client_addr->sa_family == AF_INET6 ?
				 sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in),
				 text, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0)
		snprintf(text, size, "-");
}

static size_t quote_header(char *out, size_t room, struct MHD_Connection *connection,
			   const char *name)
{
	const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);

	return quote(out, room, value ? value : "-");
}

/* The combined format, up to the bytes. */
static void format_record(const struct request *request, char line[LINE_MOST])
{
	char client[64], date[40];
	time_t now = time(NULL);
	struct tm tm;
	size_t n;

	format_client(client, sizeof client, request->connection);
	strftime(date, sizeof date, "%d/%b/%Y:%H:%M:%S +0000", gmtime_r(&now, &tm));
	n = (size_t)snprintf(line, LINE_MOST, "%s - - [%s] \"", client, date);
	n += quote(line + n, LINE_MOST / 16, request->method);
	line[n++] = ' ';
	n += quote(line + n, LINE_MOST / 2, request->uri);
	line[n++] = ' ';
	n += quote(line + n, LINE_MOST / 16, request->protocol);
	snprintf(line + n, LINE_MOST - n, "\" %u ", request->status);
}

/* And behind them. */
static void format_origin(const struct request *request, char line[LINE_MOST])
{
	size_t n = (size_t)snprintf(line, LINE_MOST, " \"");

	n += quote_header(line + n, LINE_MOST / 8, request->connection, MHD_HTTP_HEADER_REFERER);
	n += (size_t)snprintf(line + n, LINE_MOST - n, "\" \"");
	n += quote_header(line + n, LINE_MOST / 8, request->connection, MHD_HTTP_HEADER_USER_AGENT);
	snprintf(line + n, LINE_MOST - n, "\"\n");
}

static void add_line(const char *record, off_t bytes, const char *origin)
{
	size_t room = LOG_MOST - history.length;
	int n = snprintf(history.lines + history.length, room, "%s%lld%s", record, (long long)bytes,
			 origin);

	if ((size_t)n < room)
		history.length += (size_t)n;
	else
		history.lost++;
}

static void log_request(const struct request *request)
{
	static char record[LINE_MOST], origin[LINE_MOST];

	if (!log_path)
		return;
	if (!request->sender) {
		format_record(request, record);
		format_origin(request, origin);
		add_line(record, request->taken, origin);
	} else if (request->record[0] && request->record[1]) {
		add_line(request->record[0], request->taken, request->record[1]);
	} else {
		history.lost++;
	}
}

/* What the connection tells of it, while that is MHD's. */
static void note_record(struct request *request)
{
	char line[LINE_MOST];

	if (!log_path)
		return;
	format_record(request, line);
	request->record[0] = strdup(line);
	format_origin(request, line);
	request->record[1] = strdup(line);
}

/* ---- MHD in the loop --------------------------------------------------------- */

static struct onefd_watch server_watch;
static struct onefd_timer server_timer;
static struct onefd_task server_task;
static uint64_t server_deadline;	/* 0: the timer is not started */
static uint64_t steps;			/* callbacks of requests */
static unsigned asked_count, settled_count;	/* MHD will ask for so many; so many have come */
static bool may_suspend;

static void run_soon(void)
{
	(void)onefd_post(loop, &server_task);	/* or it is posted already */
}

/* MHD's own timeouts. Early is no harm: it is asked again. */
static void arm_timer(void)
{
	MHD_UNSIGNED_LONG_LONG ms;
	uint64_t deadline;

	if (MHD_get_timeout(server, &ms) != MHD_YES)
		return;
	if (ms == 0) {
		run_soon();
		return;
	}
	deadline = onefd_now(loop) + ms * NSEC_PER_MSEC;
	if (!server_deadline || deadline < server_deadline) {
		onefd_timer_start(loop, &server_timer, deadline);
		server_deadline = deadline;
	}
}

/* At its end: what was asked behind an answer shows in the run that follows it. */
static void end_when_idle(void)
{
	static bool idle;
	bool was_idle = idle;

	idle = stopping && !requests;
	if (idle && was_idle)
		onefd_stop(loop);
	else if (idle)
		run_soon();
}

/* While most of what MHD would ask for is on its way, and moves, it is let come. */
static void run_server(struct onefd_task *task)
{
	static uint64_t steps_before;
	bool moving = steps != steps_before;

	(void)task;
	if (!server)
		return;
	steps_before = steps;
	if (moving && asked_count > settled_count) {
		run_soon();
		return;
	}
	may_suspend = !moving;
	settled_count = 0;
	if (MHD_run(server) != MHD_YES)
		die("cannot run the server", EIO);
	arm_timer();
	if (history.length)
		write_lines();
	end_when_idle();
}

static void server_ready(struct onefd_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
	run_soon();
}

static void server_due(struct onefd_timer *timer)
{
	(void)timer;
	server_deadline = 0;
	run_soon();
}

/* ---- clients: how many, and how long each is waited for ------------------------ */

struct client {
	struct client *next, *prev;	/* while it is waited for, the oldest first */
	struct request *request;	/* MHD tells of the end of most, but not of all */
	uint64_t deadline;
	struct onefd_watch end;
	int fd;
	bool ended;			/* it sends no more */
	bool unclear;			/* where its last request ended */
	uint64_t heads;			/* bytes of its requests */
	uint64_t acked;			/* bytes of an answer, when that was looked at last */
};

static struct client waited_for = { .next = &waited_for, .prev = &waited_for };
static struct client *arriving;		/* while MHD is given it */
static unsigned client_count, sender_count;
static struct onefd_timer client_timer, pause_timer;
static struct onefd_watch listener_watch;

static void request_release(struct request *request);

static struct client *client_of(struct MHD_Connection *connection)
{
	return MHD_get_connection_info(connection,
				       MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void forget(struct client *client)
{
	client->next->prev = client->prev;
	client->prev->next = client->next;
	client->next = client->prev = client;
}

/*
 * MHD, on an edge for its bytes and its end together, reads the bytes alone, and no other
 * edge follows: this makes one. Not both ways: MHD may have requests in its buffer still.
 */
static void show_end(struct client *client)
{
	(void)shutdown(client->fd, SHUT_RD);
}

/* MHD's timeout begins anew with each byte: this one is of a request that is not whole. */
static void wait_for_client(struct client *client)
{
	forget(client);
	client->deadline = onefd_now(loop) + timeout * 1000 * NSEC_PER_MSEC;
	client->prev = waited_for.prev;
	client->next = &waited_for;
	client->prev->next = waited_for.prev = client;
	if (client->prev == &waited_for)
		onefd_timer_start(loop, &client_timer, client->deadline);
	if (client->ended)
		show_end(client);
}

static void client_ended(struct onefd_watch *watch, uint32_t events)
{
	struct client *client = onefd_container(watch, struct client, end);

	(void)events;
	onefd_watch_stop(watch);
	client->ended = true;
	if (client->next != client)
		show_end(client);
}

static struct client *client_new(int fd)
{
	struct client *client = calloc(1, sizeof *client);

	if (!client)
		return NULL;
	client_count++;
	client->next = client->prev = client;
	client->fd = fd;
	onefd_watch_init(&client->end, fd, client_ended);
	/* Where it cannot be watched, the timeout ends it. */
	(void)onefd_watch_start(loop, &client->end, EPOLLRDHUP | EPOLLET);
	return client;
}

static void listen_on(void)
{
	int r;

	if (stopping || client_count >= connection_most)
		return;
	r = onefd_watch_start(loop, &listener_watch, EPOLLIN);
	if (r < 0 && r != -EBUSY)
		die("cannot watch the listener", -r);
}

static void client_free(struct client *client)
{
	forget(client);
	onefd_watch_stop(&client->end);
	free(client);
	client_count--;
	listen_on();
}

/* Whether it took some of its answer since, or has all that the disk gave. */
static bool has_read(struct client *client)
{
	struct tcp_info info;
	socklen_t size = sizeof info;
	uint64_t acked = client->acked;
	int unsent;

	if (ioctl(client->fd, SIOCOUTQ, &unsent) < 0 ||
	    getsockopt(client->fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
		return false;
	client->acked = info.tcpi_bytes_acked;
	return unsent == 0 || client->acked != acked;
}

/* Who has it, MHD or a sendfile, sees the end of the connection, and ends it. */
static void clients_due(struct onefd_timer *timer)
{
	struct client *oldest;

	while ((oldest = waited_for.next) != &waited_for && oldest->deadline <= onefd_now(loop)) {
		forget(oldest);
		if (oldest->request && oldest->request->sender == oldest && has_read(oldest))
			wait_for_client(oldest);
		else
			(void)shutdown(oldest->fd, SHUT_RDWR);
	}
	if (oldest != &waited_for)
		onefd_timer_start(loop, timer, oldest->deadline);
}

/* The socket is MHD's, whatever becomes of it. */
static void give_to_server(struct client *client, const struct sockaddr_storage *address,
			   socklen_t length)
{
	arriving = client;
	(void)MHD_add_connection(server, client->fd, (const struct sockaddr *)address, length);
	if (arriving)
		client_free(client);
	arriving = NULL;
	run_soon();
}

static void client_came(struct onefd_watch *watch, uint32_t events)
{
	(void)events;
	for (unsigned i = 0; i < ACCEPT_MOST && client_count < connection_most; i++) {
		struct sockaddr_storage address;
		socklen_t length = sizeof address;
		int fd = accept4(watch->fd, (struct sockaddr *)&address, &length,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct client *client = fd < 0 ? NULL : client_new(fd);

		if (client) {
			give_to_server(client, &address, length);
		} else if (fd >= 0) {
			close(fd);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			onefd_watch_stop(watch);
			onefd_timer_start(loop, &pause_timer, onefd_now(loop) + PAUSE_NS);
			return;
		} else {
			return;
		}
	}
	/* The rest waits in the kernel. */
	if (client_count >= connection_most)
		onefd_watch_stop(watch);
}

static void pause_over(struct onefd_timer *timer)
{
	(void)timer;
	listen_on();
}

static void client_notified(void *cls, struct MHD_Connection *connection, void **context,
			    enum MHD_ConnectionNotificationCode code)
{
	struct client *client = *context;

	(void)cls;
	(void)connection;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		*context = arriving;
		wait_for_client(arriving);
		arriving = NULL;
	} else {
		if (client->request)
			request_release(client->request);
		client_free(client);
	}
}

/* ---- requests: who holds them ------------------------------------------------ */

static bool take_memory(struct request *request, size_t size)
{
	request->body = malloc(size);
	if (!request->body)
		return false;
	request->room = size;
	bytes_held += size;
	return true;
}

static void give_memory(struct request *request)
{
	if (!request->body)
		return;
	free(request->body);
	request->body = NULL;
	bytes_held -= request->room;
}

static void request_release(struct request *request)
{
	if (--request->users)
		return;
	give_memory(request);
	setup_release(request->setup);
	free(request->record[0]);
	free(request->record[1]);
	free(request);
}

/* MHD has the first line: the rest of the request's life has its memory. */
static void *request_came(void *cls, const char *uri, struct MHD_Connection *connection)
{
	size_t length = strlen(uri);
	struct request *request = calloc(1, sizeof *request + length + 1 + length + 1 +
					    strlen(index_name) + 1);

	(void)cls;
	if (!request)
		return NULL;
	memcpy(request->uri, uri, length + 1);
	request->path = request->uri + length + 1;
	request->connection = connection;
	request->users = 1;
	request->fd = -1;
	request->setup = setup;
	setup->users++;
	client_of(connection)->request = request;
	return request;
}

static void request_listed(struct request *request)
{
	request->next = requests;
	request->at = &requests;
	if (requests)
		requests->at = &request->next;
	requests = request;
	request_count++;
}

static void request_unlisted(struct request *request)
{
	*request->at = request->next;
	if (request->next)
		request->next->at = request->at;
	request_count--;
}

/* What is in memory is answered at once, before this returns. */
static void submit(struct request *request, onefd_req_fn *fn)
{
	int r = onefd_try(loop, &request->req);
	bool done = r > 0;

	request->lingers |= !done;
	if (r == 0)
		r = onefd_submit(loop, &request->req, fn);
	if (r < 0)
		die("cannot submit", -r);
	request->out = true;
	request->users++;
	if (done)
		fn(&request->req);
}

/* At the head of each callback, which ends with request_release(). */
static struct request *returned(struct onefd_req *req)
{
	struct request *request = onefd_container(req, struct request, req);

	request->out = false;
	steps++;
	return request;
}

/* MHD asked, and there is nothing yet. For long it must not, lest its timeout comes. */
static void wait_for_loop(struct request *request)
{
	if (!request->asked) {
		request->asked = true;
		request->runs = 0;
		asked_count++;
	} else if (may_suspend || ++request->runs == RUNS_MOST) {
		request->asked = false;
		asked_count--;
		request->suspended = true;
		MHD_suspend_connection(request->connection);
	}
}

/* What MHD asked for, or will, is there. */
static void settle(struct request *request)
{
	if (!request->asked && !request->suspended)
		return;
	asked_count -= request->asked;
	settled_count++;
	if (request->suspended)
		MHD_resume_connection(request->connection);
	request->asked = request->suspended = false;
	run_soon();
}

static void answer(struct request *request, unsigned status)
{
	request->status = status;
	settle(request);
}

/* ---- files: so many at once -------------------------------------------------- */

/*
 * A large file is held for as long as its client likes: those have a part of the places
 * alone, so that no client makes a small one wait. How large it is, its open tells: one that
 * has no such place is closed again, and opened when it has.
 */
struct queue {
	struct request *head, **tail;
};

static struct queue files_wanted = { .tail = &files_wanted.head };
static struct queue large_wanted = { .tail = &large_wanted.head };
static unsigned files_held, files_most, large_held, large_most;

static void open_path(struct request *request);

static void queue_push(struct queue *queue, struct request *request)
{
	request->users++;
	request->behind = NULL;
	*queue->tail = request;
	queue->tail = &request->behind;
}

static struct request *queue_pop(struct queue *queue)
{
	struct request *request = queue->head;

	queue->head = request->behind;
	if (!queue->head)
		queue->tail = &queue->head;
	return request;
}

/* A place is free: whoever waits gets it. */
static void place_given_back(bool of_large)
{
	static bool giving;

	files_held--;
	large_held -= of_large;
	/* Who has his answer at once gives his own back: to the loop below, not to one within. */
	if (giving)
		return;
	giving = true;
	for (;;) {
		bool large = large_wanted.head && large_held < large_most;
		struct request *next;

		if (files_held >= files_most || (!large && !files_wanted.head))
			break;
		next = queue_pop(large ? &large_wanted : &files_wanted);
		if (next->connection) {
			next->large_held = large;
			large_held += large;
			open_path(next);
		}
		request_release(next);
	}
	giving = false;
}

static void take_file(struct request *request)
{
	if (files_held < files_most && !files_wanted.head)
		open_path(request);
	else
		queue_push(&files_wanted, request);
}

struct closing {
	struct onefd_req req;
	int fd;
	bool large;
};

static ssize_t close_call(void *arg)
{
	return close(((struct closing *)arg)->fd) < 0 ? -errno : 0;
}

static void closed(struct onefd_req *req)
{
	struct closing *closing = onefd_container(req, struct closing, req);
	bool large = closing->large;

	free(closing);
	place_given_back(large);
}

/* Of what was deleted while it was sent, the last close frees the blocks. */
static bool close_elsewhere(int fd, bool large)
{
	struct closing *closing = malloc(sizeof *closing);
	int r;

	if (!closing)
		return false;
	closing->fd = fd;
	closing->large = large;
	onefd_prep_call(&closing->req, close_call, closing);
	r = onefd_submit(loop, &closing->req, closed);
	if (r < 0)
		die("cannot submit", -r);
	return true;
}

/* What was opened and read at once, for microseconds, was not deleted in that time. */
static void close_file(struct request *request)
{
	int fd = request->fd;
	bool held = request->file_held, large = request->large_held;

	request->fd = -1;
	request->file_held = request->large_held = false;
	if (fd >= 0 && request->lingers && close_elsewhere(fd, large))
		return;
	if (fd >= 0)
		close(fd);
	if (held)
		place_given_back(large);
}

/* ---- bodies ------------------------------------------------------------------ */

/* A large file has been sent, or will not be. */
static void end_large_body(struct request *request)
{
	if (request->large) {
		bytes_held -= BLOCK;
		MHD_destroy_response(request->large);
	}
	request->large = NULL;
	close_file(request);
}

/* It was promised whole: of a file that fails or shrinks, the end tells. */
static void block_read(struct onefd_req *req)
{
	struct request *request = returned(req);

	if (req->res < 0 || (size_t)req->res < req->one.iov_len)
		request->failed = true;
	else
		request->landed = (size_t)req->res;
	settle(request);
	if (!request->connection)
		end_large_body(request);
	request_release(request);
}

static void body_sent(struct onefd_req *req)
{
	struct request *request = returned(req);
	struct client *sender = request->sender;
	struct sockaddr_storage address;
	socklen_t length = sizeof address;
	int fd = sender->fd;

	/* Also of one that was given up. */
	request->taken = req->offset - request->from;
	log_request(request);
	request_unlisted(request);
	request->sender = NULL;
	sender_count--;
	sender->request = NULL;
	forget(sender);
	/* At our end too: closed on a request that nobody read, it would take back the body. */
	if (request->taken == request->length && server &&
	    getpeername(fd, (struct sockaddr *)&address, &length) == 0) {
		give_to_server(sender, &address, length);
	} else {
		client_free(sender);
		close(fd);
	}
	end_large_body(request);
	request_release(request);
	run_soon();
}

/* Bytes that MHD has read; more, where some came just now or the end has. */
static uint64_t bytes_read(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof info;
	int unread;

	if (ioctl(fd, SIOCINQ, &unread) < 0 ||
	    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
		return UINT64_MAX;
	return info.tcpi_bytes_received - (uint64_t)unread;
}

/*
 * Whether MHD has no byte of a next request, and nothing to say behind the body; and the
 * loop a poll for it: else those whose clients do not read would keep all others waiting.
 */
static bool may_take_over(const struct request *request, const struct client *client)
{
	const char *const *headers = request->headers;

	return request->length >= (off_t)LARGE && !stopping && sender_count < SENDERS_MOST &&
	       (!headers[CONNECTION] || strcasecmp(headers[CONNECTION], "keep-alive") == 0) &&
	       strcmp(request->protocol, MHD_HTTP_VERSION_1_1) == 0 && !client->unclear &&
	       bytes_read(client->fd) == client->heads;
}

/*
 * MHD has sent the head, and asks for the first of the body: told that there is none, it
 * closes its descriptor, and with MHD_USE_TURBO does nothing else to the connection, which
 * lives on by another. It would close it when it next looks at it, which may be when its
 * timeout is over; at those with a timeout of their own it looks in each run.
 */
static bool take_over(struct request *request)
{
	struct client *client = client_of(request->connection);
	int fd = may_take_over(request, client) ? fcntl(client->fd, F_DUPFD_CLOEXEC, 0) : -1;

	if (fd < 0)
		return false;
	request->sender = client_new(fd);
	if (!request->sender) {
		close(fd);
		return false;
	}
	(void)MHD_set_connection_option(request->connection, MHD_CONNECTION_OPTION_TIMEOUT,
					timeout + 1);
	sender_count++;
	request->sender->heads = client->heads;
	request->sender->request = request;
	note_record(request);
	return true;
}

static void send_body(struct request *request)
{
	onefd_prep_sendfile(&request->req, request->sender->fd, &request->file, request->from,
			    (size_t)request->length);
	submit(request, body_sent);
	wait_for_client(request->sender);
}

/*
 * MHD asks for the next bytes, and asks again. They are read into its own buffer: that is
 * the response's, which we hold until the read has ended.
 */
static ssize_t take_body(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct request *request = cls;
	size_t n = request->landed;

	if (pos == 0 && !request->out && !n && take_over(request))
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (!n && !request->failed && !request->out) {
		onefd_prep_pread(&request->req, &request->file, buf, max,
				 request->from + (off_t)pos);
		submit(request, block_read);
		n = request->landed;
	}
	if (request->failed)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (!n) {
		wait_for_loop(request);
		return 0;
	}
	if (buf != request->req.one.iov_base)
		memmove(buf, request->req.one.iov_base, n);
	request->landed = 0;
	request->taken += (off_t)n;
	return (ssize_t)n;
}

static void small_body_gone(void *cls)
{
	struct request *request = cls;

	give_memory(request);
	request_release(request);
}

/* Answered, or the client is gone. */
static void request_completed(void *cls, struct MHD_Connection *connection, void **context,
			      enum MHD_RequestTerminationCode code)
{
	struct request *request = *context;

	(void)cls;
	(void)code;
	if (!request)
		return;
	if (request->status && !request->sender)
		log_request(request);
	if (request->method && !request->sender)
		request_unlisted(request);
	client_of(connection)->request = NULL;
	if (!request->sender)
		wait_for_client(client_of(connection));
	asked_count -= request->asked;
	request->asked = false;
	request->connection = NULL;
	if (request->sender)
		send_body(request);
	else if (!request->out)
		end_large_body(request);
	request_release(request);
}

/* ---- answers ----------------------------------------------------------------- */

static struct MHD_Response *text_response(struct request *request)
{
	static const struct {
		unsigned status;
		const char *text;
	} texts[] = {
		{ MHD_HTTP_MOVED_PERMANENTLY, "301 Moved Permanently\n" },
		{ MHD_HTTP_BAD_REQUEST, "400 Bad Request\n" },
		{ MHD_HTTP_FORBIDDEN, "403 Forbidden\n" },
		{ MHD_HTTP_NOT_FOUND, "404 Not Found\n" },
		{ MHD_HTTP_METHOD_NOT_ALLOWED, "405 Method Not Allowed\n" },
		{ MHD_HTTP_PRECONDITION_FAILED, "412 Precondition Failed\n" },
		{ MHD_HTTP_RANGE_NOT_SATISFIABLE, "416 Range Not Satisfiable\n" },
		{ MHD_HTTP_INTERNAL_SERVER_ERROR, "500 Internal Server Error\n" },
		{ MHD_HTTP_SERVICE_UNAVAILABLE, "503 Service Unavailable\n" },
	};
	const char *text = "";

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		if (texts[i].status == request->status)
			text = texts[i].text;
	if (!request->head)
		request->taken = (off_t)strlen(text);
	return MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text,
					       MHD_RESPMEM_PERSISTENT);
}

static ssize_t no_body(void *cls, uint64_t pos, char *buf, size_t max)
{
	(void)cls;
	(void)pos;
	(void)buf;
	(void)max;
	return MHD_CONTENT_READER_END_WITH_ERROR;
}

static bool has_body(const struct request *request)
{
	return request->status == MHD_HTTP_OK || request->status == MHD_HTTP_PARTIAL_CONTENT;
}

static struct MHD_Response *file_response(struct request *request)
{
	struct MHD_Response *response;

	if (!request->length)
		return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	if (request->head || request->status == MHD_HTTP_NOT_MODIFIED)
		return MHD_create_response_from_callback((uint64_t)request->length, 1, no_body,
							 NULL, NULL);
	if (request->body) {
		response = MHD_create_response_from_buffer_with_free_callback_cls(
			(size_t)request->length, request->body, small_body_gone, request);
		request->users += !!response;
		return response;
	}
	request->large = MHD_create_response_from_callback((uint64_t)request->length, BLOCK,
							   take_body, request, NULL);
	bytes_held += request->large ? BLOCK : 0;
	return request->large;
}

static bool add(struct MHD_Response *response, const char *name, const char *value)
{
	return MHD_add_response_header(response, name, value) == MHD_YES;
}

static bool add_location(struct MHD_Response *response, const struct request *request)
{
	char *uri = encode_directory(request->path, request->uri + strcspn(request->uri, "?"));
	bool done = uri && add(response, MHD_HTTP_HEADER_LOCATION, uri);

	free(uri);
	return done;
}

static bool add_range(struct MHD_Response *response, const struct request *request)
{
	long long size = (long long)request->version.size;
	char text[80];

	if (request->status == MHD_HTTP_RANGE_NOT_SATISFIABLE)
		snprintf(text, sizeof text, "bytes */%lld", size);
	else
		snprintf(text, sizeof text, "bytes %lld-%lld/%lld", (long long)request->from,
			 (long long)(request->from + request->length - 1), size);
	return add(response, MHD_HTTP_HEADER_CONTENT_RANGE, text);
}

/* What tells this file from what it was. None was changed later than now. */
static bool add_validators(struct MHD_Response *response, const struct request *request)
{
	time_t now = time(NULL), changed = request->version.changed.tv_sec;
	const char *date = format_date(changed < now ? changed : now);
	char etag[ETAG_SIZE];

	format_etag(etag, &request->version);
	return add(response, MHD_HTTP_HEADER_LAST_MODIFIED, date) &&
	       add(response, MHD_HTTP_HEADER_ETAG, etag);
}

static bool add_headers(struct MHD_Response *response, const struct request *request)
{
	bool file = has_body(request);

	if ((stopping || request->unclear) &&
	    !add(response, MHD_HTTP_HEADER_CONNECTION, "close"))
		return false;
	if (request->status == MHD_HTTP_METHOD_NOT_ALLOWED)
		return add(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	if (request->status == MHD_HTTP_MOVED_PERMANENTLY)
		return add_location(response, request);
	if (request->status == MHD_HTTP_NOT_MODIFIED)
		return add_validators(response, request);
	if ((request->status == MHD_HTTP_PARTIAL_CONTENT ||
	     request->status == MHD_HTTP_RANGE_NOT_SATISFIABLE) && !add_range(response, request))
		return false;
	if (file && (!add_validators(response, request) ||
		     !add(response, MHD_HTTP_HEADER_ACCEPT_RANGES, "bytes")))
		return false;
	return add(response, MHD_HTTP_HEADER_CONTENT_TYPE,
		   file ? type_of(request->setup, request->path) : "text/plain");
}

static enum MHD_Result queue_answer(struct request *request)
{
	struct MHD_Response *response =
		has_body(request) || request->status == MHD_HTTP_NOT_MODIFIED ?
			file_response(request) : text_response(request);
	enum MHD_Result queued = MHD_NO;

	if (!response)
		return MHD_NO;
	if (add_headers(response, request))
		queued = MHD_queue_response(request->connection, request->status, response);
	if (response != request->large)
		MHD_destroy_response(response);
	return queued;
}

/* ---- a request's way --------------------------------------------------------- */

static unsigned status_of(int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ENAMETOOLONG:
		return MHD_HTTP_NOT_FOUND;
	case ELOOP:
	case EACCES:
	case EPERM:
	case EXDEV:
	case ENXIO:
	case ENODEV:
		return MHD_HTTP_FORBIDDEN;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
	case EAGAIN:
		return MHD_HTTP_SERVICE_UNAVAILABLE;
	default:
		return MHD_HTTP_INTERNAL_SERVER_ERROR;
	}
}

static void fail(struct request *request, unsigned status)
{
	close_file(request);
	answer(request, status);
}

/* If-Range: only the very file, or one whose date is the same, and of a second that is over. */
static bool range_holds(const struct request *request, const char *etag)
{
	const char *value = request->headers[IF_RANGE];
	time_t date;

	if (!value)
		return true;
	if (*value == '"' || strncmp(value, "W/", 2) == 0)
		return strcmp(value, etag) == 0;
	return parse_date(value, &date) && date == request->version.changed.tv_sec &&
	       date < time(NULL);
}

/* The status that the conditions lead to, and the range. */
static unsigned judge(struct request *request)
{
	const char *const *headers = request->headers;
	time_t date, mtime = request->version.changed.tv_sec;
	char etag[ETAG_SIZE];

	request->from = 0;
	request->length = request->version.size;
	format_etag(etag, &request->version);
	if (headers[IF_MATCH] ? !etag_listed(headers[IF_MATCH], etag, true) :
	    headers[IF_UNMODIFIED] && parse_date(headers[IF_UNMODIFIED], &date) && mtime > date)
		return MHD_HTTP_PRECONDITION_FAILED;
	if (headers[IF_NONE_MATCH] ? etag_listed(headers[IF_NONE_MATCH], etag, false) :
	    headers[IF_MODIFIED] && parse_date(headers[IF_MODIFIED], &date) && mtime <= date)
		return MHD_HTTP_NOT_MODIFIED;
	if (headers[RANGE] && !request->head && range_holds(request, etag))
		return parse_range(headers[RANGE], request->length, &request->from,
				   &request->length);
	return MHD_HTTP_OK;
}

/* Whole, before a word is said of it: what cannot be read has an honest answer. */
static void small_file_read(struct onefd_req *req)
{
	struct request *request = returned(req);

	close_file(request);
	if (req->res < (ssize_t)request->length) {
		give_memory(request);
		answer(request, MHD_HTTP_INTERNAL_SERVER_ERROR);
	} else {
		request->taken = request->length;
		answer(request, request->verdict);
	}
	request_release(request);
}

static void read_small_file(struct request *request)
{
	if (!take_memory(request, (size_t)request->length)) {
		fail(request, MHD_HTTP_SERVICE_UNAVAILABLE);
		return;
	}
	onefd_prep_pread(&request->req, &request->file, request->body, (size_t)request->length,
			 request->from);
	submit(request, small_file_read);
}

/* A regular file is open. */
static void serve_file(struct request *request)
{
	request->verdict = judge(request);
	if ((request->verdict != MHD_HTTP_OK && request->verdict != MHD_HTTP_PARTIAL_CONTENT) ||
	    request->head || !request->length) {
		fail(request, request->verdict);
		return;
	}
	if (request->length <= (off_t)SMALL) {
		read_small_file(request);
	} else if (request->large_held || large_held < large_most) {
		large_held += !request->large_held;
		request->large_held = request->lingers = true;
		(void)posix_fadvise(request->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
		answer(request, request->verdict);
	} else {
		queue_push(&large_wanted, request);
		close_file(request);
	}
}

/* Nothing was found in a directory: is there one? */
static bool check_directory(struct request *request, int error)
{
	if (error != ENOENT || !request->directory || request->checking)
		return false;
	request->checking = true;
	request->path[strlen(request->path) - strlen(index_name)] = '\0';
	open_path(request);
	return true;
}

/* The file is open: its attributes are asked for without a disk or a server. */
static int look_at(struct request *request, mode_t *mode)
{
	struct statx st;

	if (statx(request->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
		  ONEFD_STATX_FILE | STATX_INO | STATX_MTIME, &st) < 0)
		return errno;
	*mode = st.stx_mode;
	request->version = (struct version){ st.stx_ino, (off_t)st.stx_size, st.stx_mtime };
	return S_ISREG(st.stx_mode) ? -onefd_file_init_statx(loop, &request->file, request->fd,
							     O_RDONLY, &st) : 0;
}

static void opened(struct onefd_req *req)
{
	struct request *request = returned(req);
	int error = req->res < 0 ? (int)-req->res : 0;
	mode_t mode = 0;

	request->fd = error ? -1 : (int)req->res;
	if (!error)
		error = look_at(request, &mode);
	if (!request->connection)
		close_file(request);
	else if (error && !check_directory(request, error))
		fail(request, status_of(error));
	else if (!error && S_ISREG(mode) && !request->checking)
		serve_file(request);
	else if (!error)
		fail(request, S_ISDIR(mode) && !request->directory ? MHD_HTTP_MOVED_PERMANENTLY :
								     MHD_HTTP_FORBIDDEN);
	request_release(request);
}

/* A device too, whose open may do something: to see first what it is, with O_PATH, cost a fifth. */
static void open_path(struct request *request)
{
	static const struct open_how beneath = {
		.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
	}, anywhere = {
		.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY,
		.resolve = RESOLVE_NO_MAGICLINKS,
	};

	if (!request->file_held) {
		request->file_held = true;
		files_held++;
	}
	onefd_prep_openat2(&request->req, request->setup->root,
			   *request->path ? request->path : ".", follow ? &anywhere : &beneath);
	submit(request, opened);
}

static enum MHD_Result note_header(void *cls, enum MHD_ValueKind kind, const char *name,
				   const char *value)
{
	struct request *request = cls;
	size_t length = strlen(name);

	(void)kind;
	/* Another in the way may have read it as if there were no space. */
	if (length && (name[length - 1] == ' ' || name[length - 1] == '\t'))
		request->unclear = true;
	if (!strchr("cChHiIrRtT", *name))
		return MHD_YES;
	for (size_t i = 0; i < HEADERS; i++) {
		if (!value || strcasecmp(name, header_names[i]) != 0)
			continue;
		if (i >= HOST && request->headers[i])
			request->unclear = true;
		/* One of two may say close. */
		request->headers[i] = i == CONNECTION && request->headers[i] ? "" : value;
	}
	return MHD_YES;
}

/* MHD takes what is said in two ways in one of them: who is in the way may take the other. */
static void note_headers(struct request *request)
{
	const char *const *headers = request->headers;

	(void)MHD_get_connection_values(request->connection, MHD_HEADER_KIND, note_header, request);
	if (headers[TRANSFER_ENCODING] && (headers[CONTENT_LENGTH] ||
					   strcasecmp(headers[TRANSFER_ENCODING], "chunked") != 0))
		request->unclear = true;
}

/* Of a body nobody says how many bytes it took. */
static void count_head(struct request *request)
{
	struct client *client = client_of(request->connection);
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		request->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

	if (info)
		client->heads += info->header_size;
	client->unclear |= !info || request->headers[CONTENT_LENGTH] ||
			   request->headers[TRANSFER_ENCODING];
}

static bool refuse(struct request *request, unsigned status)
{
	request->status = status;
	return false;
}

/* false: it is no request for a file. */
static bool start(struct request *request, const char *url)
{
	note_headers(request);
	count_head(request);
	if (request->unclear)
		return refuse(request, MHD_HTTP_BAD_REQUEST);
	request->head = strcmp(request->method, MHD_HTTP_METHOD_HEAD) == 0;
	if (!request->head && strcmp(request->method, MHD_HTTP_METHOD_GET) != 0)
		return refuse(request, MHD_HTTP_METHOD_NOT_ALLOWED);
	url = path_of(url);
	if (*url != '/' || !decode(request->path, url) || !clean(request->path))
		return refuse(request, MHD_HTTP_BAD_REQUEST);
	request->directory = !*request->path || request->path[strlen(request->path) - 1] == '/';
	if (request->directory)
		strcat(request->path, index_name);
	take_file(request);
	return true;
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *protocol, const char *upload,
			      size_t *upload_size, void **context)
{
	struct request *request = *context;

	(void)cls;
	(void)upload;
	if (!request || request->failed)
		return MHD_NO;
	if (!request->method) {
		request->method = method;
		request->protocol = protocol;
		request_listed(request);
		/* An answer now would be the connection's last: MHD asks again at once. */
		if (start(request, url))
			return MHD_YES;
	} else if (*upload_size) {
		/* A body that means nothing. */
		*upload_size = 0;
		return MHD_YES;
	}
	forget(client_of(connection));
	if (request->status)
		return queue_answer(request);
	wait_for_loop(request);
	return MHD_YES;
}

/* decode() does it, once. */
static size_t leave_as_it_is(void *cls, struct MHD_Connection *connection, char *text)
{
	(void)cls;
	(void)connection;
	return strlen(text);
}

/* ---- the server -------------------------------------------------------------- */

static struct onefd_timer finish_timer;

/* The hard limit is what we may have: so many connections, and files beside. */
static unsigned raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		die("cannot ask for the limit of descriptors", errno);
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		die("cannot raise the limit of descriptors", errno);
	return limit.rlim_cur > CONNECTIONS_MOST ? CONNECTIONS_MOST : (unsigned)limit.rlim_cur;
}

static void share_descriptors(void)
{
	unsigned limit = raise_limit();
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 4 /
			  worker_count;

	if (limit < 2 * SPARE_FILES)
		die("too few descriptors", EMFILE);
	limit -= SPARE_FILES;
	files_most = limit / 4;
	/* Each has a block besides: of the memory they have no more than a quarter. */
	large_most = files_most * 3 / 4;
	if (large_most > memory / BLOCK)
		large_most = (unsigned)(memory / BLOCK) + 1;
	/* A connection that is taken over has two for a moment. */
	if (!connection_most || connection_most > limit - files_most)
		connection_most = limit - files_most;
}

static void start_server(void)
{
	server = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_TURBO,
		0, NULL, NULL, handle, NULL,
		MHD_OPTION_CONNECTION_LIMIT, connection_most + SPARE_FILES,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY,
		MHD_OPTION_CONNECTION_TIMEOUT, timeout,
		MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_NOTIFY_CONNECTION, client_notified, NULL,
		MHD_OPTION_URI_LOG_CALLBACK, request_came, NULL,
		MHD_OPTION_NOTIFY_COMPLETED, request_completed, NULL,
		MHD_OPTION_UNESCAPE_CALLBACK, leave_as_it_is, NULL, MHD_OPTION_END);
	if (!server)
		die("cannot start the server", errno ? errno : EINVAL);
}

static void watch_server(int listener)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(server, MHD_DAEMON_INFO_EPOLL_FD);
	int r;

	onefd_task_init(&server_task, run_server);
	onefd_timer_init(&server_timer, server_due);
	onefd_timer_init(&client_timer, clients_due);
	onefd_timer_init(&pause_timer, pause_over);
	onefd_watch_init(&listener_watch, listener, client_came);
	onefd_watch_init(&server_watch, info->epoll_fd, server_ready);
	r = onefd_watch_start(loop, &server_watch, EPOLLIN);
	if (r < 0)
		die("cannot watch the server", -r);
	listen_on();
}

/* Reading the root and the types blocks: a worker does it. One at a time. */
static struct {
	struct onefd_req req;
	struct setup *made;
	const char *what;
	bool out, again;
} renewal;

static ssize_t renew_call(void *arg)
{
	(void)arg;
	return setup_new(&renewal.made, &renewal.what);
}

static void renew(void);

static void renewed(struct onefd_req *req)
{
	renewal.out = false;
	if (req->res < 0) {
		fprintf(stderr, "onefd-httpd: %s: %s\n", renewal.what, strerror((int)-req->res));
	} else {
		setup_release(setup);
		setup = renewal.made;
	}
	if (renewal.again)
		renew();
}

static void renew(void)
{
	int r;

	renewal.again = renewal.out;
	if (renewal.out)
		return;
	onefd_prep_call(&renewal.req, renew_call, NULL);
	r = onefd_submit(loop, &renewal.req, renewed);
	if (r < 0)
		die("cannot submit", -r);
	renewal.out = true;
}

static void hung_up(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	(void)info;
	renew();
}

static void asked_for_counts(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	(void)info;
	fprintf(stderr, "connections=%u requests=%u pending=%zu bytes=%llu\n", client_count,
		request_count, onefd_pending(loop), (unsigned long long)bytes_held);
}

static void too_late(struct onefd_timer *timer)
{
	(void)timer;
	onefd_stop(loop);
}

/* No more connections; what is in hand is finished, for some time. */
static void told_to_end(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	(void)info;
	if (stopping)
		return;
	stopping = true;
	onefd_watch_stop(&listener_watch);
	close(listener_watch.fd);
	onefd_timer_init(&finish_timer, too_late);
	onefd_timer_start(loop, &finish_timer, onefd_now(loop) + FINISH_NS);
	run_soon();
}

static void watch_signal(int signo, onefd_signal_fn *fn)
{
	static struct onefd_signal signals[8];
	static size_t count;
	int r;

	onefd_signal_init(&signals[count], signo, fn);
	r = onefd_signal_start(loop, &signals[count++], ONEFD_SIGNAL_BLOCK);
	if (r < 0)
		die("cannot watch signals", -r);
}

/* Who reads that we listen may send one: it waits until it is watched, in a worker too. */
static void hold_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		die("cannot block signals", errno);
}

static void watch_signals(void)
{
	watch_signal(SIGTERM, told_to_end);
	watch_signal(SIGINT, told_to_end);
	watch_signal(SIGHUP, hung_up);
	watch_signal(SIGUSR1, asked_for_counts);
}

/* What is still in hand has had its time: MHD closes those connections. */
static void give_up_requests(void)
{
	for (struct request *request = requests; request; request = request->next) {
		request->failed = true;
		if (request->sender)
			(void)shutdown(request->sender->fd, SHUT_RDWR);
		if (request->out)
			(void)onefd_cancel(&request->req);
		settle(request);
	}
}

/* Whether all memory is ours again: a disk that does not answer keeps its part. */
static bool drain(uint64_t deadline)
{
	uint64_t now = onefd_now(loop);
	int r;

	r = onefd_drain(loop, now < deadline ? (int)((deadline - now) / NSEC_PER_MSEC) : 0);
	if (r < 0 && r != -ETIMEDOUT)
		die("cannot end", -r);
	return r == 0;
}

static void end_server(void)
{
	uint64_t deadline = onefd_now(loop) + FINISH_NS / 5;
	bool done;

	onefd_watch_stop(&server_watch);
	give_up_requests();
	(void)drain(deadline);
	MHD_stop_daemon(server);
	server = NULL;
	if (history.length)
		write_lines();
	done = drain(deadline);
	if (!done || onefd_free(loop) < 0)
		_exit(EXIT_SUCCESS);
	close_history();
	setup_release(setup);
}

static void serve(int listener)
{
	static const struct onefd_config config = { .depth = SENDERS_MOST, .budget = 1024 };
	int r = onefd_new(&loop, &config);

	if (r < 0)
		die("cannot make a loop", -r);
	if (log_path)
		open_history();
	start_server();
	watch_server(listener);
	watch_signals();
	r = onefd_run(loop);
	if (r < 0)
		die("cannot run the loop", -r);
	end_server();
}

/* ---- workers: processes, each with a loop and a listening socket of its own ---- */

struct worker {
	struct onefd_child child;
	struct onefd_timer pause;
	int listener;			/* held by the first process too */
	bool runs;
};

static struct worker *workers;
static unsigned workers_run;

static void worker_ended(struct onefd_child *child, int code, int status);

/* In the child: of the parent's loop nothing is touched, which answers -ECHILD anyway. */
static void be_worker(struct worker *worker, pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
		die("cannot follow the first process", errno);
	if (getppid() == parent) {
		for (unsigned i = 0; i < worker_count; i++)
			if (&workers[i] != worker)
				close(workers[i].listener);
		loop = NULL;
		serve(worker->listener);
	}
	exit(EXIT_SUCCESS);
}

static void start_worker(struct worker *worker)
{
	pid_t parent = getpid(), pid = fork();
	int r;

	if (pid == 0)
		be_worker(worker, parent);
	if (pid < 0) {
		fprintf(stderr, "onefd-httpd: cannot fork: %s\n", strerror(errno));
		onefd_timer_start(loop, &worker->pause, onefd_now(loop) + RESTART_NS);
		return;
	}
	onefd_child_init(&worker->child, pid, worker_ended);
	r = onefd_child_start(loop, &worker->child);
	if (r < 0)
		die("cannot watch a worker", -r);
	worker->runs = true;
	workers_run++;
}

static void pause_ended(struct onefd_timer *pause)
{
	start_worker(onefd_container(pause, struct worker, pause));
}

/* Started again after a while: one that dies at its start must not make us spin. */
static void worker_ended(struct onefd_child *child, int code, int status)
{
	struct worker *worker = onefd_container(child, struct worker, child);

	worker->runs = false;
	workers_run--;
	if (!stopping) {
		fprintf(stderr, "onefd-httpd: worker %d ended by %s %d, it is started again\n",
			(int)child->pid, code == CLD_EXITED ? "status" : "signal", status);
		onefd_timer_start(loop, &worker->pause, onefd_now(loop) + RESTART_NS);
	} else if (!workers_run) {
		onefd_stop(loop);
	}
}

static void pass_on(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)info;
	stopping |= signal->signo == SIGTERM || signal->signo == SIGINT;
	for (unsigned i = 0; i < worker_count; i++) {
		if (stopping)
			onefd_timer_stop(&workers[i].pause);
		/* It is ours to reap: its number is nobody else's. */
		if (workers[i].runs && kill(workers[i].child.pid, signal->signo) < 0)
			fprintf(stderr, "onefd-httpd: kill: %s\n", strerror(errno));
	}
	if (stopping && !workers_run)
		onefd_stop(loop);
}

static void supervise(void)
{
	static const int passed_on[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
	int r = onefd_new(&loop, NULL);

	if (r < 0)
		die("cannot make a loop", -r);
	for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++)
		watch_signal(passed_on[i], pass_on);
	for (unsigned i = 0; i < worker_count; i++) {
		onefd_timer_init(&workers[i].pause, pause_ended);
		start_worker(&workers[i]);
	}
	r = onefd_run(loop);
	if (r == 0)
		r = onefd_free(loop);
	if (r < 0)
		die("cannot run the loop", -r);
	for (unsigned i = 0; i < worker_count; i++)
		close(workers[i].listener);
	setup_release(setup);
}

/* ---- the program ------------------------------------------------------------- */

/* "ADDR:PORT" or "[ADDR]:PORT", in numbers. */
static bool parse_address(const char *where, struct sockaddr_storage *address, socklen_t *length)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	const char *colon = strrchr(where, ':');
	char host[INET6_ADDRSTRLEN + 2];
	struct addrinfo *found;
	bool bracket = *where == '[';
	int n = colon ? (int)(colon - where) - 2 * bracket : -1;

	if (n <= 0 || n >= (int)sizeof host || (bracket && colon[-1] != ']') || !colon[1] ||
	    strspn(colon + 1, "0123456789") > 5 || atoi(colon + 1) > UINT16_MAX)
		return false;
	snprintf(host, sizeof host, "%.*s", n, where + bracket);
	if (bracket != !!strchr(host, ':') || getaddrinfo(host, colon + 1, &hints, &found) != 0)
		return false;
	memcpy(address, found->ai_addr, found->ai_addrlen);
	*length = found->ai_addrlen;
	freeaddrinfo(found);
	return true;
}

/* A port of 0 in @address becomes the one that it got. */
static int listen_at(struct sockaddr_storage *address, socklen_t length)
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int yes = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
	    (worker_count > 1 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes) < 0) ||
	    bind(fd, (struct sockaddr *)address, length) < 0 || listen(fd, SOMAXCONN) < 0 ||
	    getsockname(fd, (struct sockaddr *)address, &length) < 0)
		die("cannot listen", errno);
	return fd;
}

static void say_where(const struct sockaddr_storage *address, socklen_t length)
{
	char host[INET6_ADDRSTRLEN], port[8];

	if (getnameinfo((const struct sockaddr *)address, length, host, sizeof host, port,
			sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		die("cannot tell the port", EINVAL);
	printf(address->ss_family == AF_INET6 ? "listening on [%s]:%s\n" : "listening on %s:%s\n",
	       host, port);
	if (fflush(stdout) != 0)
		die("cannot write", errno);
}

static void start_listening(struct sockaddr_storage *address, socklen_t length)
{
	workers = calloc(worker_count, sizeof *workers);
	if (!workers)
		die("cannot make workers", ENOMEM);
	for (unsigned i = 0; i < worker_count; i++)
		workers[i].listener = listen_at(address, length);
	say_where(address, length);
}

static void usage(FILE *out)
{
	fputs("usage: onefd-httpd --listen=ADDR:PORT --root=DIR [OPTION]...\n"
	      "Serves the files below DIR by HTTP. PORT 0: any, it is printed.\n\n"
	      "  --follow         follow symbolic links, out of DIR too (else they are refused)\n"
	      "  --index=NAME     what a directory's name stands for (index.html)\n"
	      "  --types=FILE     extensions and their types (/etc/mime.types if it is there)\n"
	      "  --log=FILE       a line for each request (-: standard output)\n"
	      "  --connections=N  so many at once, others wait (what the descriptors permit)\n"
	      "  --timeout=S      close after S seconds in which a client does nothing (60)\n"
	      "  --workers=N      so many processes (1)\n"
	      "  --help           this text\n\n"
	      "SIGHUP opens DIR, types and log anew. SIGTERM finishes what is in hand, for five\n"
	      "seconds at most. Exit status: 0 stopped, 1 failed, 2 wrong usage.\n", out);
}

static void misused(void)
{
	usage(stderr);
	exit(STATUS_USAGE);
}

static unsigned number(const char *text, unsigned least, unsigned most)
{
	char *rest;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &rest, 10);
	if (errno || rest == text || *rest || *text == '-' || value < least || value > most)
		misused();
	return (unsigned)value;
}

static const char *listen_to;

static void take_option(int option, const char *value)
{
	switch (option) {
	case 'l':
		listen_to = value;
		break;
	case 'r':
		root_path = value;
		break;
	case 'f':
		follow = true;
		break;
	case 'i':
		index_name = value;
		break;
	case 'y':
		types_path = value;
		break;
	case 'o':
		log_path = value;
		break;
	case 'c':
		connection_most = number(value, 1, CONNECTIONS_MOST);
		break;
	case 't':
		timeout = number(value, 1, TIMEOUT_MOST);
		break;
	case 'w':
		worker_count = number(value, 1, WORKERS_MOST);
		break;
	case 'h':
		usage(stdout);
		exit(EXIT_SUCCESS);
	default:
		misused();
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "root", required_argument, NULL, 'r' },
		{ "follow", no_argument, NULL, 'f' },
		{ "index", required_argument, NULL, 'i' },
		{ "types", required_argument, NULL, 'y' },
		{ "log", required_argument, NULL, 'o' },
		{ "connections", required_argument, NULL, 'c' },
		{ "timeout", required_argument, NULL, 't' },
		{ "workers", required_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct sockaddr_storage address;
	socklen_t length;
	const char *what;
	int option, r;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		take_option(option, optarg);
	if (optind < argc || !listen_to || !root_path || strchr(index_name, '/') || !*index_name ||
	    !parse_address(listen_to, &address, &length))
		misused();
	(void)signal(SIGPIPE, SIG_IGN);
	hold_signals();
	share_descriptors();
	r = setup_new(&setup, &what);
	if (r < 0)
		die(what, -r);
	start_listening(&address, length);
	if (worker_count > 1)
		supervise();
	else
		serve(workers[0].listener);
	free(workers);
	return EXIT_SUCCESS;
}
