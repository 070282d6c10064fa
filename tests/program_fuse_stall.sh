#!/bin/bash
# Opening, asking and reading what is in memory beside 24 readers of a slow disk: run
# by slow_device.sh. In TAP; the same figures for PASSTHROUGH_LL=PROGRAM, as a comment.
# Usage: program_fuse_stall.sh ONEFD_FUSE FUSE_STALL [prepare DIR]
set -u
daemon=$1 stall=$(realpath "$2")
[ "${3-}" != prepare ] || exec "$stall" prepare "$4"
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-fuse.XXXXXX") || exit 1
trap 'cd / && rm -rf --one-file-system "$top"' EXIT
. "$(dirname "$0")/fuse.sh"
needs_fuse
find_places
seconds=${FUSE_STALL_SECONDS:-8}

drop_caches() {
	echo 3 >/proc/sys/vm/drop_caches
}

# measure: the figures, in $top/figures.
measure() {
	go_to here
	source=$ONEFD_SLOW_DIR
	drop_caches 2>/dev/null
	serve "$@" && "$stall" "$mount" "$source" "$seconds" >"$top/figures" && stop
}

# For the one who reads this: in ms.
show() {
	awk -v who="$1" '$1 == "cold" { print "# " who ": " $2 " cold reads"; next }
		{ printf "# %s: %s %d times, median %.2f, p99 %.2f, most %.2f ms\n", who, $1, $2, $3/1e3, $4/1e3, $5/1e3 }' \
		"$top/figures"
}

# p99 at most 5 ms, and none over 50; the disk was at work all the time.
what_is_in_memory_does_not_wait_for_the_disk() {
	begin here
	measure "$@" || return
	show "${daemon##*/}" >"$top/said"
	awk '$1 == "cold" { exit $2 < 24 } $4 > 5000 || $5 > 50000 { exit 1 }' "$top/figures"
}

beside() {
	daemon=$1
	begin here
	! measure || show "${daemon##*/}"
}

run what_is_in_memory_does_not_wait_for_the_disk
cat "$top/said"
[ ! -x "${PASSTHROUGH_LL-}" ] || (beside "$PASSTHROUGH_LL") 2>&1
plan
