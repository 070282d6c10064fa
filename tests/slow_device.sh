#!/bin/sh
# slow_device.sh - runs a command over a file system on a block device that is
# slow, and can be stopped or made to fail.
#
# Usage: slow_device.sh FS DELAY_MS COMMAND [ARGUMENT...]
#
# The command runs twice. First as "COMMAND ARGUMENT... prepare DIR", to make its
# files while the file system FS lies on a plain image; then as it stands, with
# the same file system on a device that takes DELAY_MS for each request:
#
#   ONEFD_SLOW_FS     FS
#   ONEFD_SLOW_DIR    where it is mounted
#   ONEFD_SLOW_MS     DELAY_MS
#   ONEFD_SLOW_PID    SIGSTOP to this process stalls the device, SIGCONT frees it
#   ONEFD_SLOW_ERROR  while a file of this name exists, every request fails (EIO)
#
# Each instance has a directory of its own: several may run side by side. The
# device takes 12 requests at a time, which is what FUSE allows in background.

skip() {
	echo "1..0 # SKIP $1"
	exit 0
}

fail() {
	echo "$1 failed: $(cat "$scratch/log" 2>/dev/null)" >&2
	exit 1
}

# The order matters: each stands on the next. A stopped or failing device would
# keep umount for ever.
clean_up() {
	trap '' INT TERM HUP
	rm -f "$scratch/error"
	[ -n "$nbdkit" ] && kill -CONT "$nbdkit"
	mountpoint -q "$scratch/fs" && umount "$scratch/fs"
	[ -n "$loop" ] && losetup -d "$loop"
	mountpoint -q "$scratch/nbd" && umount -l "$scratch/nbd"
	[ -n "$nbdkit" ] && kill "$nbdkit"
	rm -rf --one-file-system "$scratch"
}

make_image() {
	truncate -s 400M "$scratch/image" && mkdir "$scratch/fs" || return
	case $fs in
	ext4)	mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$scratch/image" ;;
	*)	"mkfs.$fs" -q -f "$scratch/image" ;;
	esac
}

# Both daemons go to the background before they are ready: nbdkit may not have
# written its pid yet, nbdfuse shows its file with size 0 first.
wait_for_size() {
	tries=0
	until [ "$(stat -c %s "$1" 2>/dev/null || echo 0)" -gt 0 ]; do
		tries=$((tries + 1))
		[ $tries -lt 1000 ] || return
		sleep 0.01
	done
}

start_device() {
	nbdkit -P "$scratch/pid" -U "$scratch/socket" \
		--filter=error --filter=delay file "$scratch/image" \
		delay-read="${delay}ms" delay-write="${delay}ms" \
		error=EIO error-rate=100% error-file="$scratch/error" || return
	wait_for_size "$scratch/pid" || return
	nbdkit=$(cat "$scratch/pid")
	touch "$scratch/nbd" || return
	setsid nbdfuse "$scratch/nbd" --unix "$scratch/socket" \
		</dev/null >/dev/null 2>&1 &
	wait_for_size "$scratch/nbd" &&
	loop=$(losetup --direct-io=on -f --show "$scratch/nbd") &&
	mount -t "$fs" -o noatime "$loop" "$scratch/fs"
}

[ $# -ge 3 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
fs=$1
delay=$2
shift 2
[ "$(id -u)" -eq 0 ] || skip "a slow device needs root"
for tool in "mkfs.$fs" nbdkit nbdfuse losetup; do
	command -v "$tool" >/dev/null || skip "$tool is not installed"
done
[ -c /dev/fuse ] || skip "/dev/fuse is not there"

nbdkit=
loop=
scratch=$(mktemp -d "${TMPDIR:-/tmp}/onefd-slow.XXXXXX") || exit 1
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

make_image >"$scratch/log" 2>&1 || fail "mkfs.$fs"
mount -t "$fs" -o loop,noatime "$scratch/image" "$scratch/fs" 2>"$scratch/log" ||
	skip "no $fs here: $(cat "$scratch/log")"
"$@" prepare "$scratch/fs" || fail "to prepare"
umount "$scratch/fs" || fail "umount"
start_device >"$scratch/log" 2>&1 || fail "slow device"

export ONEFD_SLOW_FS=$fs ONEFD_SLOW_DIR=$scratch/fs ONEFD_SLOW_MS=$delay
export ONEFD_SLOW_PID=$nbdkit ONEFD_SLOW_ERROR=$scratch/error
# A loop that waits for this device is late by its delay every time; a machine
# that others slow down is not. So a failure must happen three times in a row.
for attempt in 1 2 3; do
	"$@" >"$scratch/tap"
	status=$?
	[ $status -eq 0 ] && break
	sed 's/^/# /' "$scratch/tap" >&2
done
cat "$scratch/tap"
exit $status
