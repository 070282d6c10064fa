#!/bin/sh
# faulty.sh - runs a command over file systems whose reads can be delayed, failed
# and held by offset: faulty_fs itself, and ext4, xfs and btrfs on disks in it.
#
# Usage: faulty.sh FAULTY_FS COMMAND [ARGUMENT...]
#
# FAULTY_FS is the program faulty_fs.c. The command finds the directories in
# ONEFD_TEST_DIRS as "fuse:DIR:ext4:DIR:...", see mounts.sh, and the socket for
# orders in ONEFD_FAULTY_SOCKET. The disk of ext4 is the file "ext4" of faulty_fs,
# and so on. A file system whose tools are missing is left out and named.

skip() {
	echo "1..0 # SKIP $1"
	exit 0
}

# The order matters: each stands on the next. Nothing waits any more, for with
# the command its connection has ended.
clean_up() {
	trap '' INT TERM HUP
	for fs in btrfs xfs ext4; do
		mountpoint -q "$scratch/$fs" &&
			{ umount "$scratch/$fs" || umount -l "$scratch/$fs"; }
	done
	for loop in $loops; do
		losetup -d "$loop"
	done
	if [ -n "$server" ]; then
		umount "$scratch/fuse" || umount -l "$scratch/fuse"
		kill "$server" 2>/dev/null
	fi
	rm -rf --one-file-system "$scratch"
}

# Made while it is a plain file, as faulty_fs is not there yet.
make_image() {
	fs=$1
	shift
	if ! command -v "mkfs.$fs" >/dev/null; then
		echo "# $fs left out: mkfs.$fs is not installed"
		return
	fi
	truncate -s 400M "$scratch/images/$fs"
	if "mkfs.$fs" "$@" "$scratch/images/$fs" >"$scratch/log" 2>&1; then
		images="$images $scratch/images/$fs"
	else
		echo "# $fs left out: $(tail -n 1 "$scratch/log")"
		rm "$scratch/images/$fs"
	fi
}

# Direct, or what a read means to the loop device would be its own page cache's.
mount_image() {
	fs=${1##*/}
	mkdir "$scratch/$fs"
	if loop=$(losetup --direct-io=on -f --show "$scratch/fuse/$fs" 2>"$scratch/log"); then
		loops="$loop $loops"
		if mount -t "$fs" -o noatime "$loop" "$scratch/$fs" 2>"$scratch/log"; then
			dirs=$dirs:$fs:$scratch/$fs
			return
		fi
	fi
	echo "# $fs left out: $(tail -n 1 "$scratch/log")"
}

[ $# -ge 2 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
faulty_fs=$1
shift
[ "$(id -u)" -eq 0 ] || skip "mounting file systems needs root"
[ -c /dev/fuse ] || skip "/dev/fuse is not there"

images=
loops=
server=
scratch=$(mktemp -d "${TMPDIR:-/tmp}/onefd-faulty.XXXXXX") || exit 1
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

mkdir "$scratch/images" "$scratch/fuse"
make_image ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0
make_image xfs -q -f
make_image btrfs -q -f -d single -m single
# shellcheck disable=SC2086 # a list of words
server=$("$faulty_fs" "$scratch/socket" "$scratch/fuse" $images 2>"$scratch/log") || {
	server=
	skip "no FUSE here: $(tail -n 1 "$scratch/log")"
}
dirs=fuse:$scratch/fuse
for image in $images; do
	mount_image "$image"
done

ONEFD_TEST_DIRS=$dirs ONEFD_FAULTY_SOCKET=$scratch/socket "$@"
