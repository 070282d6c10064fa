#!/bin/sh
# mounts.sh - runs a command over fresh file systems: ext4, xfs and btrfs on
# loop-mounted sparse images, and tmpfs.
#
# Usage: mounts.sh COMMAND [ARGUMENT...]
#
# The command finds them in ONEFD_TEST_DIRS as "ext4:DIR:xfs:DIR:...". When that
# is set already, somebody else has mounted and the command runs as it is. A file
# system whose tools are missing is left out and named; without any, the test is
# skipped. ONEFD_TEST_IMAGE_SIZE is the size of each image (512M; xfs refuses
# less than 300M). The exit status is the command's.

skip() {
	echo "1..0 # SKIP $1"
	exit 0
}

# Everything is undone whichever way this ends, in reverse order.
clean_up() {
	trap '' INT TERM HUP
	for fs in tmpfs btrfs xfs ext4; do
		if mountpoint -q "$scratch/$fs"; then
			umount "$scratch/$fs" || umount -l "$scratch/$fs"
		fi
	done
	rm -rf --one-file-system "$scratch"
}

# The loop device goes with its umount: mount sets it to clear itself.
mount_image() {
	fs=$1
	shift
	if ! command -v "mkfs.$fs" >/dev/null; then
		echo "# $fs left out: mkfs.$fs is not installed"
		return
	fi
	truncate -s "$size" "$scratch/$fs.img" && mkdir "$scratch/$fs" &&
	if "mkfs.$fs" "$@" "$scratch/$fs.img" >"$scratch/log" 2>&1 &&
	   mount -t "$fs" -o loop,noatime "$scratch/$fs.img" "$scratch/$fs" 2>>"$scratch/log"
	then
		dirs=$dirs:$fs:$scratch/$fs
	else
		echo "# $fs left out: $(tail -n 1 "$scratch/log")"
	fi
}

[ $# -gt 0 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ -n "$ONEFD_TEST_DIRS" ] && exec "$@"
[ "$(id -u)" -eq 0 ] || skip "mounting file systems needs root"

size=${ONEFD_TEST_IMAGE_SIZE:-512M}
dirs=
scratch=$(mktemp -d "${TMPDIR:-/tmp}/onefd-mounts.XXXXXX") || exit 1
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
# Some tests act as another user.
chmod 755 "$scratch"

mount_image ext4 -q -F
mount_image xfs -q -f
mount_image btrfs -q -f
mkdir "$scratch/tmpfs"
if mount -t tmpfs -o "size=$size" onefd-tests "$scratch/tmpfs"; then
	dirs=$dirs:tmpfs:$scratch/tmpfs
fi
[ -n "$dirs" ] || skip "no file system could be mounted"

ONEFD_TEST_DIRS=${dirs#:} "$@"
