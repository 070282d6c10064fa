#!/bin/bash
# How onefd-fuse bears what goes wrong around it: that it is killed or aborted, and
# that its source is full, fails or goes away. Applications get errors, nothing
# hangs, and a second mount works. In TAP, over each file system of ONEFD_TEST_DIRS.
# Usage: program_fuse_faults.sh ONEFD_FUSE
set -u
daemon=$1
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-fuse.XXXXXX") || exit 1
chmod 755 "$top"
trap 'cd / && rm -rf --one-file-system "$top"' EXIT
. "$(dirname "$0")/fuse.sh"
needs_fuse
needs_python() { command -v python3 >/dev/null || skip_all "python3 is not installed"; }
needs_python
find_places
find_options

# A second mount of the same source, used.
works_again() {
	serve && echo again >"$mount/again" && same content "$(cat "$source/again")" again && stop
}

# fails_with ERRNO_NAME CALL: a line of python on the mount.
fails_with() {
	python3 - "$mount" "$@" <<-'END'
	import errno, os, sys
	mount, name, call = sys.argv[1:4]
	try:
	    exec(call)
	except OSError as e:
	    if errno.errorcode[e.errno] in name.split("|"):
	        sys.exit(0)
	    sys.exit(f"{call}: {errno.errorcode[e.errno]}, not {name}")
	sys.exit(f"{call}: no error, where {name} should be")
	END
}

# Readers and writers at work; each ends when its calls fail. As $users.
start_users() {
	local i

	users=()
	for i in 1 2 3 4; do
		python3 - "$mount" "$i" <<-'END' &
		import os, sys
		f = os.open(f"{sys.argv[1]}/user{sys.argv[2]}", os.O_RDWR | os.O_CREAT)
		try:
		    for n in range(10**9):
		        os.pwrite(f, b"x" * 100000, n % 100 * 100000)
		        os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
		        os.pread(f, 100000, n % 100 * 100000)
		except OSError:
		    sys.exit(3)
		END
		users+=($!)
	done
	for i in 1 2 3 4; do
		until [ -s "$source/user$i" ]; do
			kill -0 "${users[i - 1]}" || return
		done
	done
}

users_got_errors() {
	local pid

	for pid in "${users[@]}"; do
		wait "$pid"
		same "status of who used it" $? 3 || return
	done
}

killed_leaves_errors_and_a_second_mount_works() {
	begin "$@"
	echo below >"$source/file"
	serve && start_users && exec 7<"$mount/file" && kill -KILL "$server" || return
	wait "$server" 2>/dev/null
	server=
	users_got_errors && fails_with ENOTCONN 'os.listdir(mount)' &&
	fails_with ENOTCONN 'open(mount + "/file")' || return
	python3 -c 'import os; os.posix_fadvise(7, 0, 0, os.POSIX_FADV_DONTNEED); os.read(7, 10)' 2>&1 |
		grep -q -e 'not connected' || { echo "an open file can still be read"; return 1; }
	exec 7<&-
	umount "$mount" && works_again
}

aborted_ends_and_a_second_mount_works() {
	begin "$@"
	serve && start_users && mkdir "$here/control" && mount -t fusectl none "$here/control" &&
	echo 1 >"$here/control/$(connection)/abort" && umount "$here/control" &&
	users_got_errors && aborted_end && works_again
}

# By itself, at once, and whether it may say so or not. libfuse's unmount leaves
# what is no more connected, or it is gone.
aborted_end() {
	local status

	wait "$server"
	status=$?
	server=
	! is_ours || same "status of the daemon ($(cat "$here/said"))" $status 0 || return
	! is_mounted || umount "$mount"
}

# Who uses it goes on until it is done; then the daemon ends.
unmounted_lazily_while_busy_serves_to_the_end() {
	begin "$@"
	echo below >"$source/file"
	serve && exec 7<>"$mount/file" && same busy "$(umount "$mount" 2>&1 | grep -c busy)" 1 &&
	! fusermount3 -u "$mount" 2>/dev/null && umount -l "$mount" && ! is_mounted &&
	same "what it reads" "$(cat <&7)" below && echo more >&7 && exec 7<&- &&
	ended 0 && same "what it wrote" "$(tail -n 1 "$source/file")" more && works_again
}

fusermount_ends_it() {
	begin "$@"
	serve && fusermount3 -u "$mount" && ended 0 && serve && exec 7<"$mount" &&
	fusermount3 -uz "$mount" && exec 7<&- && ended 0 && works_again
}

two_mounts_of_one_source() {
	local first

	begin "$@"
	serve && first=$server && mkdir "$here/second" || return
	# Without its mount the first daemon ends, too.
	trap 'umount -l "$here/mount" 2>/dev/null; end' EXIT
	mount=$here/second
	serve && echo one >"$here/mount/file" && same content "$(cat "$mount/file")" one &&
	mv "$mount/file" "$mount/other" && same content "$(cat "$here/mount/other")" one && stop || return
	server=$first mount=$here/mount
	stop
}

# with_source FS SIZE: a small file system of its own is the source.
with_source() {
	needs "mkfs.$1"
	truncate -s "$2" "$here/image" && "mkfs.$1" -q "$here/image" && mount -o loop "$here/image" "$source" || exit 1
	trap 'end_source; end' EXIT
}

end_source() {
	local mounted=$mount

	if [ -n "$server" ]; then
		kill -KILL "$server"
		wait "$server"
		server=
	fi 2>/dev/null
	while is_mounted; do
		umount -l "$mount" || break
	done
	mount=$source
	while is_mounted; do
		umount "$source" 2>/dev/null || umount -l "$source" || break
	done
	mount=$mounted
}

full_disk_is_enospc() {
	local option

	begin "$@"
	with_source ext4 16M
	for option in "" --direct; do
		[ -z "$option" ] || is_ours || continue
		# shellcheck disable=SC2086 # an option or none
		serve $option && fails_with ENOSPC 'open(mount + "/large", "wb").write(bytes(64 << 20))' &&
		fails_with ENOSPC 'os.posix_fallocate(os.open(mount + "/more", os.O_RDWR | os.O_CREAT), 0, 64 << 20)' &&
		echo little >"$mount/little" 2>/dev/null
		! mkdir "$mount"/directory{1..4000} 2>/dev/null || { echo "there is room for directories"; return 1; }
		rm -r "${mount:?}"/* && head -c 1M /dev/urandom >data && cp data "$mount/data" && cmp data "$mount/data" &&
		rm "$mount/data" && stop || return
	done
}

unplugged() {
	python3 - "$source" <<-'END'
	import fcntl, os, struct, sys
	f = os.open(sys.argv[1], os.O_RDONLY)
	fcntl.ioctl(f, 0x8004587d, struct.pack("I", 2))	# FS_IOC_SHUTDOWN, without the log
	END
}

# Its file system is shut down, as after a disk was pulled out.
shut_down_source_is_eio() {
	begin "$@"
	with_source ext4 64M
	head -c 3M /dev/urandom >"$source/file" && sync -f "$source/file" && mkdir "$source/directory"
	serve && start_users && unplugged && users_got_errors &&
	fails_with "EIO|EROFS" 'open(mount + "/new", "wb")' &&
	fails_with "EIO|EROFS|ENODEV" 'f = os.open(mount + "/file", os.O_RDWR); os.pwrite(f, b"x", 0); os.fsync(f)' &&
	kill -0 "$server" && stop && umount "$source" && works_again
}

# The disk ends before its file system does.
disk_cut_short_is_eio() {
	local loop

	begin "$@"
	with_source ext4 64M
	loop=$(findmnt -no SOURCE "$source")
	head -c 40M /dev/urandom >"$source/file" && umount "$source" && until_free "$loop" || return
	mount -o loop,ro "$here/image" "$source" && truncate -s 12M "$here/image" &&
	serve && fails_with EIO 'f = open(mount + "/file", "rb")
while f.read(1 << 20): pass' && stat "$mount/file" >/dev/null && kill -0 "$server" && stop
}

source_unmounted_lazily_goes_on() {
	local loop

	begin "$@"
	with_source ext4 64M
	echo below >"$source/file"
	serve && loop=$(findmnt -no SOURCE "$source") && umount -l "$source" &&
	same content "$(cat "$mount/file")" below && echo new >"$mount/new" &&
	same content "$(cat "$mount/new")" new && stop && until_free "$loop" && works_again
}

# The last descriptor of its file system is the daemon's.
until_free() {
	local tries=0

	while losetup "$1" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 500 ] || { echo "$1 is still in use"; return 1; }
		sleep 0.01
	done
}

detached_loop_device_goes_on_until_the_end() {
	local loop

	begin "$@"
	with_source ext4 64M
	head -c 3M /dev/urandom >"$source/file"
	loop=$(findmnt -no SOURCE "$source") && serve && losetup -d "$loop" &&
	cmp "$mount/file" "$source/file" && stop && umount "$source" && until_free "$loop"
}

in_places killed_leaves_errors_and_a_second_mount_works
in_places aborted_ends_and_a_second_mount_works
in_places unmounted_lazily_while_busy_serves_to_the_end
in_places fusermount_ends_it
in_places two_mounts_of_one_source
in_places full_disk_is_enospc
in_places shut_down_source_is_eio
in_places disk_cut_short_is_eio
in_places source_unmounted_lazily_goes_on
in_places detached_loop_device_goes_on_until_the_end
plan
