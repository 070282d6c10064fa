# shellcheck shell=bash
# fuse.sh - what the tests of a pass-through FUSE file system share. Sourced, with
# $daemon and $top, a directory of one's own; sources tap.sh.
#
# A test serves a directory, $source, at $mount, in the foreground:
#
#	a_rule_that_holds() { serve --direct && same a "$(cat "$mount/a")" b && stop; }
#	in_places a_rule_that_holds
#
# FUSE_DAEMON=PROGRAM names another one that is used as "PROGRAM [-f] -o source=DIR
# MOUNTPOINT", libfuse's passthrough_ll say: what that lacks is skipped.
. "$(dirname "$0")/tap.sh"
PATH=$PATH:/usr/sbin:/sbin
daemon=$(realpath "${FUSE_DAEMON:-$daemon}")
deadline=${FUSE_DEADLINE:-120}		# seconds that a daemon may live: bounds failure
options=				# of every mount

skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}

needs_fuse() {
	[ "$(id -u)" -eq 0 ] || skip_all "mounting needs root"
	[ -c /dev/fuse ] || skip_all "/dev/fuse is not there"
	command -v fusermount3 >/dev/null || skip_all "fusermount3 is not installed"
}

needs() {
	local tool

	for tool; do
		command -v "$tool" >/dev/null || { echo "$tool is not installed"; exit 77; }
	done
}

# passthrough_ll has to be asked for attributes.
find_options() {
	is_ours || options="-o xattr"
}

is_ours() {
	[ "${daemon##*/}" = onefd-fuse ]
}

needs_ours() {
	is_ours || { echo "not for ${daemon##*/}"; exit 77; }
}

# ---- places and mounts -------------------------------------------------------------

# in_places TEST [ARGUMENT]...: runs it on each file system, whose name is its last argument.
in_places() {
	local place

	for place in "${places[@]}"; do
		run "$@" "${place%%:*}"
	done
}

# Sets $source, $mount and $scratch, on the file system of that name.
go_to() {
	local place

	for place in "${places[@]}"; do
		[ "${place%%:*}" != "$1" ] || here=${place#*:}/onefd-fuse
	done
	rm -rf "${here:?}"
	mkdir -p "$here/source" "$here/mount" "$here/scratch" || exit
	chmod 755 "$here"
	source=$here/source mount=$here/mount scratch=$here/scratch
	cd "$scratch" || exit
}

# The last argument of a test in_places is its place.
begin() {
	server=
	go_to "${!#}"
	trap end EXIT
}

end() {
	trap - EXIT
	cd /
	if [ -n "$server" ]; then
		kill -KILL "$server"
		wait "$server"
	fi 2>/dev/null
	while is_mounted; do
		umount -l "$mount" || break
	done
	umount "$here/control" 2>/dev/null
	rm -rf --one-file-system "${here:?}"
}

# Nothing that hangs may keep the tests: without its daemon every call returns.
guard() {
	(cd / && timeout "$deadline" tail --pid="$1" -f /dev/null || kill -KILL "$1") >/dev/null 2>&1 &
}

# Waits until there is a mount, or the daemon has failed.
until_mounted() {
	until mountpoint -q "$mount"; do
		kill -0 "$1" 2>/dev/null || { cat "$here/said"; return 1; }
	done
}

# serve [OPTION]...: as $server.
serve() {
	# What a shell starts in the background ignores SIGINT.
	# shellcheck disable=SC2086 # a list of words
	env --default-signal=INT "$daemon" -f $options "$@" -o "source=$source" "$mount" >"$here/said" 2>&1 </dev/null &
	server=$!
	guard "$server"
	until_mounted "$server"
}

# Unmounted from outside, the daemon ends, and says nothing.
stop() {
	cd "$scratch" && umount "$mount" && ended 0
}

# A mount that lost its daemon is no mountpoint to mountpoint(1), but is mounted.
is_mounted() {
	grep -q " $mount " /proc/self/mountinfo
}

# ended STATUS: the daemon, by itself.
ended() {
	local status

	wait "$server"
	status=$?
	same "status of the daemon ($(cat "$here/said"))" "$status" "$1" || return
	server=
	! is_mounted || { echo "it is still mounted"; return 1; }
	# libfuse remarks on its own that a request was on its way when the device went.
	! is_ours || same "what the daemon said" "$(grep -v '^fuse: reading device: ' "$here/said")" ""
}

# The number of the mount's connection, by its device's.
connection() {
	local device

	device=$(stat -c %d "$mount")
	echo $((device & 0xff | (device >> 12) & 0xfff00))
}

# ---- trees ------------------------------------------------------------------------------

# make_tree DIRECTORY: files of every kind.
make_tree() {
	local i size

	mkdir -p "$1/directory/deep/deeper" "$1/empty" && cd "$1" || return
	for size in 0 1 511 4095 4096 4097 65537 1048577 3000001; do
		head -c "$size" /dev/urandom >"size$size"
	done
	for i in {1..300}; do
		echo "file $i" >"directory/a file of a name with spaces and a number $i"
	done
	truncate -s 50M sparse && echo data | dd of=sparse conv=notrunc bs=1 seek=20M status=none
	ln size4097 directory/hard && ln size4097 directory/deep/harder
	ln -s size1 link && ln -s ../nowhere directory/dangling && ln -s . round
	mkfifo fifo && mknod null c 1 3
	python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
	if setfattr -n user.colour -v blue size1 2>/dev/null; then
		setfattr -n user.empty directory
		setfattr -n trusted.number -v 42 size511
	fi
	chmod 4751 size511 && chmod 1777 empty && chmod 0 size0 && chown 1000:2000 size4095
	touch -d '2001-02-03 04:05:06.789012345' size4096 directory/deep
	touch -h -d '2002-03-04 05:06:07.8' link
	cd "$OLDPWD" || return
}

# Modes, owners, times, links, attributes, bytes.
same_trees() {
	rsync -ncaHAXi --delete "$1/" "$2/" | nothing || { echo "$1 differs from $2"; return 1; }
}
