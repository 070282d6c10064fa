#!/bin/bash
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
	struct onefd_chunk chunk;
	struct onefd_stream stream;
	struct onefd_stats stats;
};
struct all *owner(struct onefd_timer *timer);
struct all *owner(struct onefd_timer *timer)
{
	return onefd_container(timer, struct all, timer);
}
END
{ echo '#include <aio.h>'; cat "$scratch/alone.c"; } >"$scratch/after_aio.c"

# compiles COMPILER LANGUAGE STANDARD, all four ways
compiles() {
	local file bits

	command -v "$1" || { echo "no $1"; return 77; }
	for file in alone after_aio; do
		for bits in -U_FILE_OFFSET_BITS -D_FILE_OFFSET_BITS=64; do
			echo "$file.c $bits"
			"$1" -x "$2" -std="$3" $bits -Wall -Wextra -Wpedantic -Werror \
				-fsyntax-only -I"$SOURCE/include" "$scratch/$file.c" || return 1
		done
	done
}

for compiler in gcc clang; do
	for standard in c99 c11 c17 c2x gnu11; do
		run compiles $compiler c $standard
	done
done
for compiler in g++ clang++; do
	for standard in c++17 c++20; do
		run compiles $compiler c++ $standard
	done
done

# As glibc has it on a 32-bit machine without _FILE_OFFSET_BITS.
off_t_of_32_bits_is_refused() {
	printf '#include <sys/types.h>\n#define off_t int\n#include <onefd.h>\n' >"$scratch/narrow.c"
	$CC -fsyntax-only -I"$SOURCE/include" "$scratch/narrow.c" 2>&1 |
		grep "onefd_off_t_has_64_bits.*negative"
}
run off_t_of_32_bits_is_refused

# host_compiles COMPILER STANDARD HEADER...: in one file, in this order, twice
host_compiles() {
	local compiler=$1 standard=$2 language=c flags='' header said

	shift 2
	command -v "$compiler" >/dev/null || { echo "no $compiler"; return 77; }
	[[ $standard != *++* ]] || language=c++
	for header in "$@" "$@"; do
		echo "#include <onefd/$header>"
		flags+=" $(host_flags "${header%.h}")"
	done >"$scratch/host.c"
	# shellcheck disable=SC2086
	said=$("$compiler" -x $language $flags -D_GNU_SOURCE -std="$standard" -Wall -Wextra \
		-Werror -Wno-unused-function -fsyntax-only -I"$SOURCE/include" \
		"$scratch/host.c" 2>&1) && return
	missing_header <<<"$said" && return 77
	echo "$said"
	return 1
}

for header in "${ADAPTERS[@]}"; do
	run host_compiles gcc c99 "${header##*/}"
	run host_compiles g++ c++11 "${header##*/}"
done
hosts=(libev libevent libuv glib sd-event)	# libev first: see libevent.h
run host_compiles gcc c11 "${hosts[@]/%/.h}"
run host_compiles clang gnu17 "${hosts[@]/%/.h}"
run host_compiles g++ c++20 "${hosts[@]/%/.h}"
run host_compiles clang++ c++17 "${hosts[@]/%/.h}"

libev_after_libevent_is_refused_with_a_reason() {
	local said

	printf '#include <onefd/%s.h>\n' libevent libev >"$scratch/host.c"
	said=$($CC -D_GNU_SOURCE -fsyntax-only -I"$SOURCE/include" "$scratch/host.c" 2>&1) &&
		return 1
	missing_header <<<"$said" && return 77
	grep -q '#error.*comes before' <<<"$said" || { echo "$said"; return 1; }
}

run libev_after_libevent_is_refused_with_a_reason
plan
