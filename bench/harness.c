/*
 * harness.c - options, forked runs in turns, medians, tables and JSON lines.
 *
 * Not a statistics package: a median, its spread, and the ratio to one peer
 * taken round by round, for the two of a round met the same machine.
 */
#include "harness.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NSEC 1e9
#define ROUNDS_MOST 1000

/* One run, in the units of the report; < 0 where it has no meaning. */
struct outcome {
	bool there;
	double ops_per_s, cpu_us, p50_us, p99_us, p999_us, submit_share, longest_us;
	double hit_p99_us, miss_p50_us, late_p999_us;
	double hit_share;		/* of a miss that a hit takes */
	double ns;			/* of an operation */
};

/* ---- histograms --------------------------------------------------------- */

static unsigned bucket_of(uint64_t ns)
{
	unsigned power;

	if (ns < 64)
		return (unsigned)ns;
	power = 63 - (unsigned)__builtin_clzll(ns);
	return (power - 5) * 64 + (unsigned)(ns >> (power - 6) & 63);
}

static uint64_t upper_edge(unsigned bucket)
{
	unsigned power = bucket / 64 + 5;

	if (bucket < 64)
		return bucket;
	return ((UINT64_C(65) + bucket % 64) << (power - 6)) - 1;
}

void bench_histogram_add(struct bench_histogram *histogram, uint64_t ns)
{
	histogram->count++;
	histogram->bucket[bucket_of(ns)]++;
	if (ns > histogram->max)
		histogram->max = ns;
}

uint64_t bench_histogram_quantile(const struct bench_histogram *histogram, double q)
{
	uint64_t edge, want = (uint64_t)(q * (double)histogram->count), seen = 0;

	for (unsigned i = 0; i < BENCH_BUCKETS; i++) {
		seen += histogram->bucket[i];
		edge = upper_edge(i);
		if (seen > want)
			return edge < histogram->max ? edge : histogram->max;
	}
	return histogram->max;
}

/* ---- options ------------------------------------------------------------ */

static const struct option long_options[] = {
	{ "rounds", required_argument, NULL, 'r' },
	{ "seconds", required_argument, NULL, 's' },
	{ "file", required_argument, NULL, 'f' },
	{ "size", required_argument, NULL, 'n' },
	{ "depth", required_argument, NULL, 'd' },
	{ "block", required_argument, NULL, 'b' },
	{ "work", required_argument, NULL, 'w' },
	{ "only", required_argument, NULL, 'o' },
	{ "json", optional_argument, NULL, 'j' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static void usage(const struct bench_program *program, FILE *out)
{
	fprintf(out,
		"usage: %s [options]\n"
		"  --rounds N       runs of each contender, in turns\n"
		"  --seconds S      of each run\n"
		"%s"
		"  --only A,B       these contenders alone, of:",
		program->name, program->help);
	for (unsigned i = 0; i < program->count; i++)
		fprintf(out, " %s", program->contenders[i].name);
	if (program->works)
		fprintf(out, "\n  --work A,B       these works alone, of:");
	for (const char *const *work = program->works; work && *work; work++)
		fprintf(out, " %s", *work);
	fprintf(out, "\n"
		     "  --json[=FILE]    one object a line instead of the table;\n"
		     "                   with FILE: appended there, beside the table\n"
		     "  -v, --verbose    what a contender has to say of itself, on stderr\n");
}

__attribute__((noreturn)) static void refuse(const struct bench_program *program, const char *what,
					     const char *value)
{
	fprintf(stderr, "%s: %s: %s\n", program->name, what, value);
	usage(program, stderr);
	exit(2);
}

/* "4096", "4K", "2G"; false when it is none of these. */
static bool parse_size(const char *text, uint64_t *ret, const char **end)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *rest;

	if (*text < '0' || *text > '9')
		return false;
	*ret = strtoull(text, &rest, 10);
	unit = *rest ? strchr(units, *rest) : NULL;
	if (unit) {
		*ret <<= 10 * (unit - units + 1);
		rest++;
	}
	*end = rest;
	return *rest == '\0' || *rest == ',';
}

static void parse_list(const struct bench_program *program, const char *name, const char *text,
		       struct bench_list *list)
{
	const char *rest = text;

	list->count = 0;
	for (;;) {
		if (list->count == BENCH_LIST ||
		    !parse_size(rest, &list->value[list->count], &rest) ||
		    list->value[list->count] == 0)
			refuse(program, name, text);
		list->count++;
		if (*rest++ == '\0')
			return;
	}
}

static uint64_t parse_one(const struct bench_program *program, const char *name, const char *text)
{
	struct bench_list list;

	parse_list(program, name, text, &list);
	if (list.count != 1)
		refuse(program, name, text);
	return list.value[0];
}

static double parse_seconds(const struct bench_program *program, const char *text)
{
	char *end;
	double seconds = strtod(text, &end);

	if (*end || !(seconds > 0) || seconds > 86400)
		refuse(program, "--seconds", text);
	return seconds;
}

static bool named(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = list; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (!strncmp(at, name, length) && (at[length] == ',' || at[length] == '\0'))
			return true;
	}
	return false;
}

static unsigned count_names(const char *list)
{
	unsigned names = 1;

	while ((list = strchr(list, ','))) {
		list++;
		names++;
	}
	return names;
}

/* A misspelt name must not pass for a contender that had nothing to say. */
static void check_only(const struct bench_program *program, const char *only)
{
	unsigned found = 0;

	for (unsigned i = 0; i < program->count; i++)
		found += named(only, program->contenders[i].name);
	if (found != count_names(only))
		refuse(program, "--only", only);
}

static void check_work(const struct bench_program *program, const char *list)
{
	unsigned found = 0;

	for (const char *const *work = program->works; work && *work; work++)
		found += named(list, *work);
	if (found != count_names(list))
		refuse(program, "--work", list);
}

bool bench_wanted(const struct bench_options *options, const char *work)
{
	return !options->work || named(options->work, work);
}

static void open_json(struct bench_options *options, const struct bench_program *program,
		      const char *path)
{
	options->json = path ? fopen(path, "ae") : stdout;
	if (!options->json)
		refuse(program, path, strerror(errno));
	options->table = path;
}

static void take_option(struct bench_options *options, const struct bench_program *program, int c)
{
	switch (c) {
	case 'r':
		options->rounds = (unsigned)parse_one(program, "--rounds", optarg);
		if (options->rounds > ROUNDS_MOST)
			refuse(program, "--rounds", optarg);
		break;
	case 's':
		options->seconds = parse_seconds(program, optarg);
		break;
	case 'f':
		options->file = optarg;
		break;
	case 'n':
		parse_list(program, "--size", optarg, &options->size);
		break;
	case 'd':
		parse_list(program, "--depth", optarg, &options->depth);
		break;
	case 'b':
		options->block = parse_one(program, "--block", optarg);
		break;
	case 'w':
		check_work(program, optarg);
		options->work = optarg;
		break;
	case 'o':
		check_only(program, optarg);
		options->only = optarg;
		break;
	case 'j':
		open_json(options, program, optarg);
		break;
	case 'v':
		options->verbose = true;
		break;
	case 'h':
		usage(program, stdout);
		exit(0);
	default:
		usage(program, stderr);
		exit(2);
	}
}

void bench_options(struct bench_options *options, const struct bench_program *program, int argc,
		   char **argv)
{
	int c;

	options->table = true;
	while ((c = getopt_long(argc, argv, "hv", long_options, NULL)) != -1)
		take_option(options, program, c);
	if (optind < argc)
		refuse(program, "not an option", argv[optind]);
}

/* ---- one run, in a child of its own -------------------------------------- */

static uint64_t cpu_ns(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * UINT64_C(1000000000) +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

void bench_start(struct bench_run *run)
{
	run->cpu_ns = cpu_ns();
	run->stopped = 0;
	run->started = bench_now();
}

void bench_stop(struct bench_run *run)
{
	run->stopped = bench_now();
	run->cpu_ns = cpu_ns() - run->cpu_ns;
}

bool bench_over(struct bench_run *run)
{
	return bench_now() >= run->deadline;
}

static int run_once(const struct bench_program *program, const struct bench_contender *contender,
		    struct bench_run *run, double seconds)
{
	int r = program->prepare ? program->prepare(run) : 0;

	if (r < 0)
		return r;
	run->ops = run->failed = 0;
	run->submit_ns = run->longest_ns = BENCH_NONE;
	run->left = 1;
	memset(&run->latency, 0, sizeof run->latency);
	memset(&run->hit, 0, sizeof run->hit);
	memset(&run->miss, 0, sizeof run->miss);
	memset(&run->late, 0, sizeof run->late);
	run->deadline = bench_now() + (uint64_t)(seconds * NSEC);
	bench_start(run);
	r = contender->run(run);
	if (!run->stopped)
		bench_stop(run);
	return r;
}

static int run_all(const struct bench_program *program, const struct bench_contender *contender,
		   struct bench_run *run)
{
	double seconds = run->options->seconds;
	int r = contender->setup(run);

	if (r < 0)
		return r;
	run->warmup = true;
	r = run_once(program, contender, run, seconds / 5);
	run->warmup = false;
	if (r == 0)
		r = run_once(program, contender, run, seconds);
	if (contender->teardown)
		contender->teardown(run);
	return r;
}

__attribute__((noreturn)) static void child(const struct bench_program *program,
					    const struct bench_contender *contender,
					    struct bench_run *run, pid_t parent)
{
	static const int fatal[] = { SIGHUP, SIGINT, SIGTERM };

	/* The parent's handlers remove its file; a child just dies. */
	for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++)
		signal(fatal[i], SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	run->error = run_all(program, contender, run);
	_exit(0);
}

static double quantile_us(const struct bench_histogram *histogram, double q)
{
	return histogram->count ? (double)bench_histogram_quantile(histogram, q) / 1e3 : -1;
}

static struct outcome outcome_of(const struct bench_run *run)
{
	double ns = (double)(run->stopped - run->started), ops = (double)run->ops;
	struct outcome outcome = {
		.there = true,
		.ops_per_s = ops / ns * NSEC,
		.cpu_us = (double)run->cpu_ns / ops / 1e3,
		.p50_us = quantile_us(&run->latency, 0.5),
		.p99_us = quantile_us(&run->latency, 0.99),
		.p999_us = quantile_us(&run->latency, 0.999),
		.submit_share = -1,
		.longest_us = -1,
		.hit_p99_us = quantile_us(&run->hit, 0.99),
		.miss_p50_us = quantile_us(&run->miss, 0.5),
		.late_p999_us = quantile_us(&run->late, 0.999),
	};

	outcome.hit_share = outcome.hit_p99_us / outcome.miss_p50_us;
	outcome.ns = ns / ops;
	if (run->submit_ns != BENCH_NONE)
		outcome.submit_share = (double)run->submit_ns / ns;
	if (run->longest_ns != BENCH_NONE)
		outcome.longest_us = (double)run->longest_ns / 1e3;
	return outcome;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

static int run_forked(const struct bench_program *program, const struct bench_contender *contender,
		      struct bench_run *run)
{
	pid_t parent = getpid(), pid;
	int r;

	fflush(NULL);	/* or the child prints it again */
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		child(program, contender, run, parent);
	r = wait_for(pid);
	if (r == 0)
		r = run->error;
	if (r == 0 && (run->failed || !run->ops))
		r = -EIO;
	return r;
}

/* ---- what came of it ------------------------------------------------------ */

static void json_number(FILE *out, const char *key, double value, int digits)
{
	if (value < 0)
		fprintf(out, ",\"%s\":null", key);
	else
		fprintf(out, ",\"%s\":%.*f", key, digits, value);
}

static void print_json(FILE *out, const struct bench_case *work, const char *contender,
		       unsigned round, const struct outcome *outcome)
{
	fprintf(out, "{\"work\":\"%s\",\"contender\":\"%s\",\"size\":%llu,\"depth\":", work->work,
		contender, (unsigned long long)work->size);
	if (work->depth)
		fprintf(out, "%llu", (unsigned long long)work->depth);
	else
		fprintf(out, "null");
	json_number(out, "ops_per_s", outcome->ops_per_s, 1);
	json_number(out, "cpu_us", outcome->cpu_us, 4);
	json_number(out, "p50_us", outcome->p50_us, 3);
	json_number(out, "p99_us", outcome->p99_us, 3);
	json_number(out, "p999_us", outcome->p999_us, 3);
	json_number(out, "submit_share", outcome->submit_share, 4);
	json_number(out, "longest_us", outcome->longest_us, 3);
	json_number(out, "hit_p99_us", outcome->hit_p99_us, 3);
	json_number(out, "miss_p50_us", outcome->miss_p50_us, 3);
	json_number(out, "late_p999_us", outcome->late_p999_us, 3);
	fprintf(out, ",\"round\":%u}\n", round);
	fflush(out);
}

struct spread {
	double low, median, high;
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct spread spread_of(double *values, unsigned count)
{
	if (count == 0)
		return (struct spread){ -1, -1, -1 };
	qsort(values, count, sizeof *values, by_value);
	return (struct spread){
		.low = values[0],
		.median = (values[(count - 1) / 2] + values[count / 2]) / 2,
		.high = values[count - 1],
	};
}

static double field(const struct outcome *outcome, size_t offset)
{
	return *(const double *)((const char *)outcome + offset);
}

static struct spread spread_field(const struct outcome *rounds, unsigned count, size_t offset)
{
	double values[ROUNDS_MOST];
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		if (rounds[i].there && field(&rounds[i], offset) >= 0)
			values[n++] = field(&rounds[i], offset);
	return spread_of(values, n);
}

/* Pair by pair, this and the next: both of a pair ran in the same round. */
static struct spread spread_difference(const struct outcome *rounds, const struct outcome *peer,
				       unsigned count, size_t offset)
{
	double values[ROUNDS_MOST];
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		if (rounds[i].there && peer[i].there && field(&peer[i], offset) > 0)
			values[n++] = field(&rounds[i], offset) - field(&peer[i], offset);
	return spread_of(values, n);
}

static struct spread spread_ratio(const struct outcome *rounds, const struct outcome *peer,
				  unsigned count, size_t offset)
{
	double values[ROUNDS_MOST];
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		if (rounds[i].there && peer[i].there && field(&peer[i], offset) > 0)
			values[n++] = field(&rounds[i], offset) / field(&peer[i], offset);
	return spread_of(values, n);
}

static void print_cell(double value, int width, int digits)
{
	if (value < 0)
		printf(" %*s", width, "-");
	else
		printf(" %*.*f", width, digits, value);
}

static void print_ratio(struct spread ratio)
{
	if (ratio.median < 0)
		printf("  %-19s", "-");
	else
		printf("  %.3f (%.3f..%.3f)", ratio.median, ratio.low, ratio.high);
}

#define SPREAD(member) spread_field(rounds, count, offsetof(struct outcome, member))
#define MEDIAN(member) SPREAD(member).median

static void print_row(const char *name, const struct outcome *rounds, const struct outcome *peer,
		      unsigned count)
{
	struct spread ops = SPREAD(ops_per_s);
	double share = MEDIAN(submit_share);

	printf("%-14s %10.0f %10.0f %10.0f %9.1f", name, ops.median, ops.low, ops.high,
	       NSEC / ops.median);
	print_cell(MEDIAN(cpu_us), 8, 3);
	print_cell(MEDIAN(p50_us), 8, 1);
	print_cell(MEDIAN(p99_us), 8, 1);
	print_cell(MEDIAN(p999_us), 8, 1);
	print_cell(MEDIAN(longest_us), 9, 1);
	print_cell(share < 0 ? -1 : share * 100, 6, 1);
	if (peer && peer != rounds) {
		print_ratio(spread_ratio(rounds, peer, count, offsetof(struct outcome, ops_per_s)));
		print_ratio(spread_ratio(rounds, peer, count, offsetof(struct outcome, cpu_us)));
	}
	printf("\n");
}

static void print_head(const struct bench_program *program, const struct bench_options *options,
		       const struct bench_case *work)
{
	printf("\n%s, size %llu", work->work, (unsigned long long)work->size);
	if (work->depth)
		printf(", depth %llu", (unsigned long long)work->depth);
	printf(": %u rounds", options->rounds);
	if (!work->counted)
		printf(" of %g s", options->seconds);
	printf("%s%s\n", work->note ? "; " : "", work->note ? work->note : "");
	printf("%-14s %10s %10s %10s %9s %8s %8s %8s %8s %9s %6s  ops/s : %-11s  cpu : %s\n", "",
	       "ops/s", "min", "max", "ns/op", "cpu us", "p50 us", "p99", "p99.9", "longest",
	       "sub %", program->peer, program->peer);
}

static bool took_part(const struct outcome *rounds, unsigned count)
{
	return MEDIAN(ops_per_s) > 0;
}

/* What only some works have: lines of their own, below. */
static void print_more(const char *name, const struct outcome *rounds, unsigned count)
{
	struct spread late = SPREAD(late_p999_us);

	if (MEDIAN(hit_p99_us) >= 0) {
		printf("%-14s hit p99 %.1f us, miss p50 %.1f us; hit p99 : miss p50", name,
		       MEDIAN(hit_p99_us), MEDIAN(miss_p50_us));
		print_ratio(SPREAD(hit_share));
		printf("\n");
	}
	if (late.median >= 0)
		printf("%-14s heartbeat late by p99.9 %.1f us (%.1f..%.1f)\n", name, late.median,
		       late.low, late.high);
}

#define RATIO(member) \
	print_ratio(spread_ratio(ours, rounds, options->rounds, offsetof(struct outcome, member)))

static void print_against(const struct bench_program *program, const struct bench_options *options,
			  const struct outcome *outcomes, unsigned ours_at)
{
	const struct outcome *ours = outcomes + ours_at * options->rounds, *rounds;

	if (!took_part(ours, options->rounds))
		return;
	printf("%s against     %-19s  %-19s  %-19s  %-19s\n", program->ours, "ops/s", "cpu", "p50", "p99");
	for (unsigned i = 0; i < program->count; i++) {
		rounds = outcomes + i * options->rounds;
		if (i == ours_at || !took_part(rounds, options->rounds))
			continue;
		printf("%-14s", program->contenders[i].name);
		RATIO(ops_per_s);
		RATIO(cpu_us);
		RATIO(p50_us);
		RATIO(p99_us);
		printf("\n");
	}
}

/* program->count when there is none. */
static unsigned find(const struct bench_program *program, const char *name)
{
	unsigned at = 0;

	while (at < program->count && (!name || strcmp(program->contenders[at].name, name)))
		at++;
	return at;
}

/* In nanoseconds, of a member that counts @unit of them. */
static void print_difference(const struct outcome *rounds, const struct outcome *peer,
			     unsigned count, size_t offset, double unit)
{
	struct spread spread = spread_difference(rounds, peer, count, offset);
	char cell[64] = "-";

	if (took_part(peer, count))
		snprintf(cell, sizeof cell, "%+.0f (%+.0f..%+.0f)", spread.median * unit,
			 spread.low * unit, spread.high * unit);
	printf("  %-24s", cell);
}

/* Where latencies were taken, they are the time that counts. */
static void print_more_than(const struct outcome *rounds, const struct outcome *peer, unsigned count)
{
	if (MEDIAN(p50_us) >= 0)
		print_difference(rounds, peer, count, offsetof(struct outcome, p50_us), 1e3);
	else
		print_difference(rounds, peer, count, offsetof(struct outcome, ns), 1);
	print_difference(rounds, peer, count, offsetof(struct outcome, cpu_us), 1e3);
}

static void print_differences(const struct bench_program *program,
			      const struct bench_options *options, const struct outcome *outcomes,
			      const struct outcome *peer)
{
	printf("%-14s  more ns than %-11s  %-24s  %-24s  %-24sthan\n", "", program->peer, "cpu",
	       "more ns", "cpu");
	for (unsigned i = 0; i < program->count; i++) {
		const struct outcome *rounds = outcomes + i * options->rounds;
		unsigned beside = find(program, program->contenders[i].beside);

		if (!took_part(rounds, options->rounds) || rounds == peer)
			continue;
		printf("%-14s", program->contenders[i].name);
		print_more_than(rounds, peer, options->rounds);
		if (beside < program->count &&
		    took_part(outcomes + beside * options->rounds, options->rounds)) {
			print_more_than(rounds, outcomes + beside * options->rounds,
					options->rounds);
			printf("%s", program->contenders[i].beside);
		}
		printf("\n");
	}
}

static void print_table(const struct bench_program *program, const struct bench_options *options,
			const struct bench_case *work, const struct outcome *outcomes)
{
	unsigned peer_at = find(program, program->peer), ours_at = find(program, program->ours);
	const struct outcome *peer = NULL, *rounds;

	if (peer_at < program->count)
		peer = outcomes + peer_at * options->rounds;
	print_head(program, options, work);
	for (unsigned i = 0; i < program->count; i++) {
		rounds = outcomes + i * options->rounds;
		if (took_part(rounds, options->rounds))
			print_row(program->contenders[i].name, rounds, peer, options->rounds);
	}
	for (unsigned i = 0; i < program->count; i++)
		print_more(program->contenders[i].name, outcomes + i * options->rounds,
			   options->rounds);
	if (ours_at < program->count)
		print_against(program, options, outcomes, ours_at);
	if (program->differences && peer)
		print_differences(program, options, outcomes, peer);
	fflush(stdout);
}

static int one_run(const struct bench_program *program, const struct bench_options *options,
		   const struct bench_contender *contender, struct bench_run *run,
		   struct outcome *ret)
{
	int r;

	if (options->only && !named(options->only, contender->name))
		return 0;
	if (contender->fits && !contender->fits(run->work))
		return 0;
	r = run_forked(program, contender, run);
	if (r < 0) {
		fprintf(stderr, "%s: %s, size %llu, depth %llu: %s: %s\n", program->name,
			run->work->work, (unsigned long long)run->work->size,
			(unsigned long long)run->work->depth, contender->name, strerror(-r));
		return 1;
	}
	*ret = outcome_of(run);
	if (options->json)
		print_json(options->json, run->work, contender->name, run->round, ret);
	return 0;
}

static int one_round(const struct bench_program *program, const struct bench_options *options,
		     const struct bench_case *work, unsigned round, struct bench_run *run,
		     struct outcome *outcomes)
{
	int failures = 0;

	for (unsigned i = 0; i < program->count; i++) {
		unsigned turn = (i + round) % program->count;

		*run = (struct bench_run){ .work = work, .options = options, .round = round,
					   .data = program->contenders[turn].data };
		failures += one_run(program, options, &program->contenders[turn], run,
				    &outcomes[turn * options->rounds + round]);
	}
	return failures;
}

int bench_case(const struct bench_program *program, const struct bench_options *options,
	       const struct bench_case *work)
{
	struct outcome *outcomes = calloc(program->count * options->rounds, sizeof *outcomes);
	struct bench_run *run = mmap(NULL, sizeof *run, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int failures = 0;

	if (!outcomes || run == MAP_FAILED) {
		fprintf(stderr, "%s: no memory\n", program->name);
		exit(1);
	}
	for (unsigned round = 0; round < options->rounds; round++)
		failures += one_round(program, options, work, round, run, outcomes);
	if (options->table)
		print_table(program, options, work, outcomes);
	munmap(run, sizeof *run);
	free(outcomes);
	return failures;
}
