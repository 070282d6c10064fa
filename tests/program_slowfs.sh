#!/bin/bash
# What onefd-slowfs promises, in TAP: who opens a file waits for its text, and nobody
# else waits with him. Usage: program_slowfs.sh ONEFD_SLOWFS
set -u
slowfs=$(realpath "$1")
. "$(dirname "$0")/tap.sh"

skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}

[ -c /dev/fuse ] || skip_all "no /dev/fuse here"
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-slowfs.XXXXXX") || exit 1
mnt=$top/mnt
mkdir "$mnt"
trap 'umount -l "$mnt" 2>/dev/null || fusermount3 -uzq "$mnt"; rm -rf --one-file-system "$top"' EXIT
cd "$top" || exit 1
"$slowfs" -f "$mnt" 2>said &
server=$!
until mountpoint -q "$mnt"; do
	kill -0 $server 2>/dev/null && continue
	[ "$(id -u)" -eq 0 ] || skip_all "no mounting here: $(cat said)"
	echo "Bail out! $(cat said)"
	exit 1
done

now_ms() {
	local now=$EPOCHREALTIME

	echo $((${now/[.,]/} / 1000))
}

lists_ten_files() {
	same files "$(cd "$mnt" && echo *)" '0 1 2 3 4 5 6 7 8 9' || return
	! stat "$mnt/10" 2>/dev/null
}

text_takes_a_second() {
	local began took

	began=$(now_ms)
	grep -qx 'file 7 at [0-9]*' "$mnt/7" || return
	took=$(($(now_ms) - began))
	[ $took -ge 1000 ] || { echo "$took ms"; return 1; }
}

# Ten one after the other would take ten seconds: a machine may be slow.
ten_at_once_take_about_as_long_as_one() {
	local began took

	began=$(now_ms)
	for i in 0 1 2 3 4 5 6 7 8 9; do
		cat "$mnt/$i" >"text.$i" &
	done
	wait
	took=$(($(now_ms) - began))
	for i in 0 1 2 3 4 5 6 7 8 9; do
		grep -qx "file $i at [0-9]*" "text.$i" || return
	done
	[ $took -lt 5000 ] || { echo "$took ms"; return 1; }
}

# A hundred of them, without a process each, while a text is being fetched: it
# comes last.
others_are_answered_at_once_meanwhile() {
	cat "$mnt/3" >fetched &
	for ((i = 0; i < 100; i++)); do
		[ -e "$mnt/$((i % 10))" ] && [ ! -e "$mnt/none$i" ] || return
	done
	[ ! -s fetched ] || { echo "the text came before"; return 1; }
	wait $! && [ -s fetched ]
}

ends_and_unmounts_by_a_signal() {
	cat "$mnt/5" >fetched 2>/dev/null &
	kill -TERM $server
	while kill -0 $server 2>/dev/null; do :; done
	! mountpoint -q "$mnt" && same said "$(cat said)" ''
}

comes_again_as_a_daemon_and_ends_with_its_mount() {
	"$slowfs" "$mnt" && grep -q 'file 0' "$mnt/0" || return
	umount "$mnt" 2>/dev/null || fusermount3 -u "$mnt" || return
	! mountpoint -q "$mnt"
}

wants_a_mountpoint() {
	! "$slowfs" >said 2>err && [ ! -s said ] && [ "$(wc -l <err)" = 1 ] && "$slowfs" --help | grep -q ^Usage
}

run lists_ten_files
run text_takes_a_second
run ten_at_once_take_about_as_long_as_one
run others_are_answered_at_once_meanwhile
run ends_and_unmounts_by_a_signal
run comes_again_as_a_daemon_and_ends_with_its_mount
run wants_a_mountpoint
plan
