#!/bin/sh
# The public headers compile alone, twice, after <aio.h>, in every dialect, with
# and without _FILE_OFFSET_BITS. Those of the adapters need their host's headers
# and are left out where these are missing.
. "$(dirname "$0")/header.sh"

# A user of every type and macro, in the words that C and C++ share.
cat >"$scratch/alone.c" <<'END'
#include <onefd.h>
#include <onefd.h>
struct all {
	struct onefd_config config;
	struct onefd_watch watch;
	struct onefd_timer timer;
	struct onefd_signal signal;
	struct onefd_child child;
	struct onefd_task task;
	struct onefd_file file;
	struct onefd_req req;
	struct onefd_stats stats;
};
struct all *owner(struct onefd_timer *timer);
struct all *owner(struct onefd_timer *timer)
{
	return onefd_container(timer, struct all, timer);
}
END
{ echo '#include <aio.h>'; cat "$scratch/alone.c"; } >"$scratch/after_aio.c"

# try COMPILER LANGUAGE STANDARD: all four ways, one line of the report.
try()
{
	: >"$scratch/why"
	for file in alone after_aio; do
		for bits in '' -D_FILE_OFFSET_BITS=64; do
			"$1" -x "$2" -std="$3" $bits -Wall -Wextra -Wpedantic -Werror \
				-fsyntax-only -I"$SOURCE/include" "$scratch/$file.c" \
				>>"$scratch/why" 2>&1 || echo "$file $bits" >>"$scratch/why"
		done
	done
	tap_quiet "onefd.h is $3 for $1"
}

for compiler in gcc clang; do
	for standard in c99 c11 c17 c2x gnu11; do
		if command -v $compiler >/dev/null; then
			try $compiler c $standard
		else
			tap_skip "onefd.h is $standard for $compiler" "no $compiler"
		fi
	done
done
for compiler in g++ clang++; do
	for standard in c++17 c++20; do
		if command -v $compiler >/dev/null; then
			try $compiler c++ $standard
		else
			tap_skip "onefd.h is $standard for $compiler" "no $compiler"
		fi
	done
done

# The flags that @1.h of include/onefd needs for its host.
host_flags()
{
	case $1 in
	glib) package=glib-2.0 ;;
	sd-event) package=libsystemd ;;
	fuse) package=fuse3 ;;
	*) package=$1 ;;
	esac
	pkg-config --cflags "$package" 2>/dev/null
}

for header in "$SOURCE"/include/onefd/*.h; do
	[ -f "$header" ] || continue
	name=$(basename "$header" .h)
	printf '#include <onefd/%s.h>\n#include <onefd/%s.h>\n' "$name" "$name" >"$scratch/host.c"
	if $CC $(host_flags "$name") -D_GNU_SOURCE -std=c11 -Wall -Wextra -Werror -Wno-unused-function \
		-fsyntax-only -I"$SOURCE/include" "$scratch/host.c" >"$scratch/why" 2>&1; then
		tap 0 "onefd/$name.h stands alone"
	elif missing=$(grep -o 'fatal error: [^ ]*: No such file' "$scratch/why" | grep -v onefd); then
		tap_skip "onefd/$name.h stands alone" "$missing"
	else
		tap 1 "onefd/$name.h stands alone"
	fi
done

tap_end
