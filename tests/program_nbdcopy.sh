#!/bin/bash
# What onefd-nbdcopy promises, against nbdkit, in TAP.
# Usage: program_nbdcopy.sh ONEFD_NBDCOPY
set -u
nbdcopy=$(realpath "$1")
PATH=$PATH:/usr/sbin:/sbin
command -v nbdkit >/dev/null || { echo "1..0 # SKIP no nbdkit here"; exit 0; }
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-nbdcopy.XXXXXX") || exit 1
trap clean_up EXIT
. "$(dirname "$0")/tap.sh"
cd "$top" || exit 1
# From here, for a name of a directory may have what no URI has.
uri=nbd+unix:///?socket=socket

clean_up() {
	cd / && mountpoint -q "$top/mount" && umount "$top/mount"
	rm -rf "$top"
}

# serve [OPTION]... PLUGIN [ARGUMENT]...: as $server, until its shell ends.
serve() {
	rm -f socket log pid
	nbdkit --exit-with-parent -f -P pid -U socket --filter=log "$@" logfile=log 2>server.said &
	server=$!
	trap 'kill -KILL "$server" 2>/dev/null' EXIT
	until [ -s pid ]; do
		kill -0 "$server" 2>/dev/null || { cat server.said; return 1; }
	done
}

stop_server() {
	kill "$server" && wait "$server"
	trap - EXIT
}

# fails STATUS PATTERN ARGUMENT...: exit status, one line that matches, and no file.
fails() {
	local said status expected=$1 pattern=$2

	shift 2
	said=$("$nbdcopy" "$@" 2>&1)
	status=$?
	same "status of $* ($said)" "$status" "$expected" &&
	same "lines of $* ($said)" "$(wc -l <<<"$said")" 1 || return
	[[ $said == $pattern ]] || { echo "$* said: $said"; return 1; }
	[ ! -e copy ] || { echo "$* left a file"; return 1; }
}

copies_what_is_served_to_the_byte() {
	local size depth

	for size in 0 1 511 262144 262145 5000001; do
		head -c "$size" /dev/urandom >source
		serve file source || return
		for depth in 1 3 64; do
			rm -f copy
			"$nbdcopy" --depth="$depth" "$uri" copy && cmp source copy || return
		done
		stop_server
	done
}

copies_memory_and_patterns() {
	serve memory 3M && "$nbdcopy" "$uri" copy && stop_server || return
	truncate -s 3M zeros
	cmp copy zeros && rm copy || return
	# Every eight bytes of it are their offset.
	serve pattern 64M && "$nbdcopy" "$uri" copy && stop_server || return
	same size "$(stat -c %s copy)" 67108864 &&
	same "bytes in the midst" "$(od -An -tx8 --endian=big -j 33554432 -N 16 copy | xargs)" \
		"0000000002000000 0000000002000008"
}

keeps_many_reads_in_flight() {
	serve --filter=delay pattern 4M rdelay=100ms && "$nbdcopy" --depth=16 "$uri" copy || return
	stop_server
	# Sixteen had come before the first was answered.
	same "reads before an answer" \
		"$(grep -o -e ' Read ' -e '\.\.\.Read' log | sed '/\.\.\./,$d' | wc -l)" 16
}

keeps_to_the_block_sizes_of_the_server() {
	serve --filter=blocksize-policy pattern 10M blocksize-minimum=4096 \
		blocksize-maximum=65536 blocksize-error-policy=error || return
	"$nbdcopy" "$uri" copy && same size "$(stat -c %s copy)" 10485760
}

copies_by_tcp() {
	[ "$(id -u)" -eq 0 ] || { echo "needs root"; exit 77; }
	command -v ip >/dev/null && unshare --net true || { echo "no network of our own"; exit 77; }
	export nbdcopy
	rm -f pid
	unshare --net sh -ec 'ip link set lo up
		nbdkit --exit-with-parent -f -P pid -i 127.0.0.1 pattern 10M &
		until [ -s pid ]; do kill -0 $!; done
		"$nbdcopy" nbd://localhost copy || exit
		kill $! && wait' && same size "$(stat -c %s copy)" 10485760
}

an_error_of_the_server_is_one_line() {
	serve --filter=error pattern 64M error-pread=EIO error-pread-rate=50% &&
	fails 1 "onefd-nbdcopy: cannot read '$uri': Input/output error" "$uri" copy
}

# until_reads N: the server has seen that many.
until_reads() {
	until [ "$(grep -c ' Read ' log)" -ge "$1" ]; do
		kill -0 "$pid" 2>/dev/null || { echo "it ended too early"; return 1; }
	done
}

# A copy that takes its time, with the server and the file both under way.
start_long_copy() {
	serve --filter=delay pattern 1G rdelay=10ms || return
	"$nbdcopy" "$uri" copy 2>said &
	pid=$!
	until_reads 40 && [ -f copy ]
}

server_that_dies_midway_is_one_line() {
	start_long_copy || return
	kill -KILL "$server"
	wait "$pid"
	same status $? 1 && same lines "$(wc -l <said)" 1 &&
	grep -q "^onefd-nbdcopy: cannot read '$uri': " said && [ ! -e copy ]
}

server_that_hangs_up_at_once_is_one_line() {
	command -v python3 >/dev/null || { echo "needs python3"; exit 77; }
	rm -f socket pid
	python3 -c 'import socket
s = socket.socket(socket.AF_UNIX)
s.bind("socket")
s.listen()
open("pid", "w").write("x")
s.accept()[0].close()
s.accept()[0].send(b"HTTP/1.1 200 OK\r\n" * 9)' &
	server=$!
	# A client that never comes is waited for, and so would the runner be.
	trap 'kill -KILL "$server" 2>/dev/null' EXIT
	until [ -s pid ]; do
		kill -0 "$server" || return
	done
	fails 1 "onefd-nbdcopy: cannot read '$uri': *disconnected*" "$uri" copy &&
	fails 1 "onefd-nbdcopy: cannot read '$uri': *magic*" "$uri" copy
}

# stopped_by SIGNAL
stopped_by() {
	kill -"$1" "$pid"
	wait "$pid"
	same "status after $1" $? $((128 + $(kill -l "$1"))) && same lines "$(wc -l <said)" 1 &&
	grep -q '^onefd-nbdcopy: stopped' said && [ ! -e copy ]
}

stopped_leaves_no_file() {
	start_long_copy && stopped_by INT && stop_server &&
	start_long_copy && stopped_by TERM && stop_server
}

# Nothing comes any more, and nothing goes.
stopped_while_the_server_hangs_leaves_no_file() {
	start_long_copy && kill -STOP "$server" && stopped_by INT
}

wrong_names_are_told_apart() {
	rm -f socket
	fails 1 "onefd-nbdcopy: cannot read '$uri': *No such file or directory" "$uri" copy &&
	fails 1 "onefd-nbdcopy: cannot read 'words': *" words copy &&
	serve memory 1M && echo old >there || return
	fails 1 "onefd-nbdcopy: cannot create 'there': File exists" "$uri" there &&
	same content "$(cat there)" old &&
	fails 1 "onefd-nbdcopy: cannot create 'none/copy': No such file or directory" "$uri" none/copy
}

no_space_leaves_no_file() {
	[ "$(id -u)" -eq 0 ] || { echo "needs root"; exit 77; }
	mkdir mount && mount -t tmpfs -o size=1M none mount || { echo "no tmpfs"; exit 77; }
	serve memory 16M &&
	fails 1 "onefd-nbdcopy: cannot write 'mount/copy': No space left on device" "$uri" mount/copy &&
	same left "$(ls mount)" ""
}

wrong_usage_is_status_2() {
	local arguments

	for arguments in "" "one" "one two three" "--depth=0 a b" "--depth=1025 a b" \
		"--depth=x a b" "--nonsense a b"; do
		"$nbdcopy" $arguments >/dev/null 2>&1
		same "status of '$arguments'" $? 2 || return
	done
	"$nbdcopy" --help | grep -q '^usage: '
}

for test in copies_what_is_served_to_the_byte copies_memory_and_patterns \
	keeps_many_reads_in_flight keeps_to_the_block_sizes_of_the_server \
	copies_by_tcp an_error_of_the_server_is_one_line \
	server_that_dies_midway_is_one_line server_that_hangs_up_at_once_is_one_line \
	stopped_leaves_no_file stopped_while_the_server_hangs_leaves_no_file \
	wrong_names_are_told_apart no_space_leaves_no_file wrong_usage_is_status_2; do
	rm -f copy
	run "$test"
done
plan
