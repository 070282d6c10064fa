#!/bin/sh
# shellcheck disable=SC2046,SC2048,SC2086 # lists of names are meant to split
# run_sanitizers.sh - the tests under ASan with UBSan, TSan, and valgrind.
#
# Usage: run_sanitizers.sh [asan] [tsan] [valgrind]	(default: all three)
#
# Each has a build directory of its own, build-asan and so on, which stays for
# the next time. Not a part of ./test: it takes some minutes. TSan looks at what
# has threads. valgrind does not see the kernel write to the completion ring, so
# it goes without, and leaves out tests that fork, that count, or that hold the
# kernel to its answers.
set -u
cd "$(dirname "$0")/.." || exit 1

quick='child embed faults heap histogram loop rules signal task timer watch'
requests='context direct file found names pool prefetch sendfile stream window writes'
fuse='fuse fuse_splice fuse_device'
mounts='program_fuse program_fuse_data program_fuse_names program_fuse_faults program_fuse_faulty program_slowfs'
servers='program_nbd program_nbd_hostile program_nbd_load program_httpd program_httpd_hostile program_httpd_load'
hosts='host_ends host_ways hosts'
faulty='closed eio held truncated'
status=0

# Those of the names that this build has.
present() {
	build=$1
	shift
	for name; do
		meson test -C "$build" --list 2>/dev/null |
			sed 's/.* //' | grep -x "$name"
	done
}

set_up() {
	[ -d "$1" ] || meson setup "$@" -Dman=false >/dev/null || exit 1
	ninja -C "$1" >/dev/null || exit 1
}

run() {
	build=$1
	shift
	echo "== $build: $*"
	meson test -C "$build" --no-rebuild --print-errorlogs "$@" || status=1
}

for tool in ${*:-asan tsan valgrind}; do
	case $tool in
	asan)
		set_up build-asan -Db_sanitize=address,undefined -Db_lundef=false
		run build-asan --setup asan $(present build-asan $quick $requests $hosts $fuse $mounts $servers sys \
			$faulty large pages random counts counts_mounted faults_mounted rules_mounted \
			slow_ext4 slow_xfs slow_btrfs)
		;;
	tsan)
		set_up build-tsan -Db_sanitize=thread -Db_lundef=false
		run build-tsan --setup tsan $(present build-tsan $faulty $fuse $mounts hosts random embed faults loop \
			names pages pool prefetch rules sendfile stream task writes)
		;;
	valgrind)
		command -v valgrind >/dev/null || { echo "no valgrind"; exit 1; }
		set_up build-valgrind -Dexamples=false
		run build-valgrind --setup valgrind $(present build-valgrind $quick $requests $hosts fuse_device)
		;;
	*)
		sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	esac
done
exit $status
