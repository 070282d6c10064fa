#!/bin/bash
# What onefd-cp promises, in TAP, on each file system of ONEFD_TEST_DIRS.
# Usage: program_cp.sh ONEFD_CP [slow]
set -u
cp=$(realpath "$1") slow=${2-}
# What mount and setpriv need may not be in a plain user's path.
PATH=$PATH:/usr/sbin:/sbin
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-cp.XXXXXX") || exit 1
chmod 755 "$top"
trap clean_up EXIT
. "$(dirname "$0")/tap.sh"

clean_up() {
	cd / && mountpoint -q "$top/mount" && umount "$top/mount"
	for place in "${places[@]}"; do
		rm -rf "${place#*:}/onefd-cp"
	done
	rm -rf "$top"
}

# A directory in a place, as $here.
fresh() {
	here=${1#*:}/onefd-cp
	rm -rf "$here"
	mkdir "$here" && cd "$here" || exit
}

# fails STATUS PATTERN ARGUMENT...: exit status, and one line that matches.
fails() {
	local said status expected=$1 pattern=$2

	shift 2
	said=$("$cp" "$@" 2>&1)
	status=$?
	same "status of $* ($said)" "$status" "$expected" || return
	same "lines of $*" "$(wc -l <<<"$said")" 1 || return
	[[ $said == $pattern ]] || { echo "$* said: $said"; return 1; }
}

# What is in the directory, temporary names too.
contents() {
	find "$here" -mindepth 1 -printf '%P\n' | sort | xargs
}

needs_root() {
	[ "$(id -u)" -eq 0 ] || { echo "needs root"; exit 77; }
}

copies_every_size_to_the_byte() {
	local size option sizes="0 1 511 512 4095 4096 4097 1048577"

	[ -n "$slow" ] && sizes=1073741825
	for place in "${places[@]}"; do
		fresh "$place"
		for size in $sizes; do
			head -c "$size" /dev/urandom >source
			for option in --depth=32 --direct; do
				"$cp" $option source target && cmp source target &&
				same "contents" "$(contents)" "source target" || {
					echo "$place $size $option"
					return 1
				}
				rm target
			done
		done
		fresh "$place"
	done
}

copies_in_blocks_of_any_size() {
	local options

	for place in "${places[@]}"; do
		fresh "$place"
		head -c 300001 /dev/urandom >source
		for options in "-b 1000" "-b 511 -n 3" "-b 4097 -n 1" "-b 4k -n 100" "-b 1M"; do
			"$cp" $options source target && cmp source target || return
			"$cp" --direct $options source target && cmp source target || return
		done
	done
}

# The loops that are built in, native first.
find_hosts() {
	read -ra hosts <<<"$("$cp" --loop=none a b 2>&1 | sed 's/.*: //')"
}

copies_the_same_in_every_host() {
	local host option

	same "first of ${hosts[*]}" "${hosts[0]}" native || return
	for place in "${places[@]}"; do
		fresh "$place"
		head -c 1048577 /dev/urandom >source
		for host in "${hosts[@]}"; do
			for option in --block=4k --direct; do
				"$cp" --loop="$host" $option source target && cmp source target &&
				same contents "$(contents)" "source target" &&
				fails 1 "*'missing': No such file*" --loop="$host" missing target || {
					echo "$place in $host"
					return 1
				}
				rm target
			done
		done
	done
}

copies_into_a_directory() {
	fresh "${places[0]}"
	mkdir into && echo new >source && echo old >into/source
	"$cp" source into && cmp source into/source &&
	"$cp" "$here/source" into/ && cmp source into/source &&
	rm into/source && mkdir into/source &&
	fails 1 "*'into/source': Is a directory" source into
}

new_file_has_the_mode_of_its_source() {
	fresh "${places[0]}"
	umask 027
	echo new >source && chmod 4757 source && "$cp" source target &&
	same mode "$(stat -c %a target)" 750
}

old_file_keeps_mode_and_owner() {
	fresh "${places[0]}"
	echo new >source && echo old >target && chmod 604 target
	[ "$(id -u)" -eq 0 ] && chown 65534:65534 target
	local owner
	owner=$(stat -c %u:%g target)
	"$cp" source target && same content "$(cat target)" new &&
	same mode "$(stat -c %a target)" 604 && same owner "$(stat -c %u:%g target)" "$owner"
}

writes_to_where_a_link_points() {
	fresh "${places[0]}"
	mkdir elsewhere && echo new >source && echo old >elsewhere/real
	ln -s elsewhere/real link && ln -s nowhere dangling
	"$cp" source link && [ -L link ] && same content "$(cat elsewhere/real)" new &&
	fails 1 "*'dangling'*" source dangling && [ ! -e nowhere ]
}

wrong_names_are_told_apart() {
	fresh "${places[0]}"
	echo new >source && mkdir folder && mkfifo fifo && ln source hard
	fails 1 "*'missing': No such file or directory" missing target &&
	fails 1 "*'folder' is a directory" folder target &&
	fails 1 "*'fifo' is not a regular file" fifo target &&
	fails 1 "*'fifo' is not a regular file" source fifo &&
	fails 1 "*'source' and 'hard' are the same file" source hard &&
	fails 1 "*are the same file" source . &&
	fails 1 "*'none/target': No such file or directory" source none/target &&
	fails 1 "*'none/': Not a directory" source none/ &&
	fails 1 "*'source/x': Not a directory" source source/x &&
	fails 1 "*: File name too long" source "$(printf 'x%.0s' {1..300})" &&
	fails 1 "*: No such file or directory" source "" &&
	same contents "$(contents)" "fifo folder hard source"
}

wrong_usage_is_status_2() {
	local arguments

	for arguments in "" "one" "one two three" "--depth=0 a b" "--block=x a b" "--block=-1 a b" \
		"--block=1kk a b" "--depth=4097 a b" "--block=1G --depth=2 a b" "--nonsense a b"; do
		"$cp" $arguments >/dev/null 2>&1
		same "status of '$arguments'" $? 2 || return
	done
	fails 2 "*no loop 'other' is built in, but these are: native*" --loop=other a b &&
	"$cp" --help | grep -q '^usage: '
}

no_permission_leaves_the_target() {
	local nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"

	needs_root
	fresh "${places[0]}"
	$nobody test -x "$cp" -a -x "$here" || { echo "nobody cannot run it"; exit 77; }
	echo new >secret && chmod 600 secret && echo new >source
	mkdir closed && echo old >closed/target && chmod 777 .
	echo old >readonly && chmod 444 readonly && chown 65534 readonly
	cp="$nobody $cp"
	fails_as_nobody 'secret' secret target &&
	fails_as_nobody 'closed/new' source closed/new &&
	fails_as_nobody 'closed/target' source closed/target &&
	fails_as_nobody 'readonly' source readonly &&
	same content "$(cat closed/target readonly | xargs)" "old old"
}

fails_as_nobody() {
	local said status name=$1

	shift
	said=$($cp "$@" 2>&1)
	status=$?
	same "status of $*" "$status" 1 || return
	[[ $said == *"'$name': Permission denied" ]] || { echo "$* said: $said"; return 1; }
}

# until_under_way PID: its target is open, under whatever name.
until_under_way() {
	local fd

	while kill -0 "$1" 2>/dev/null; do
		for fd in "/proc/$1/fd"/*; do
			case $(readlink "$fd") in
			"$here"/*deleted* | "$here"/.onefd-cp.*) return 0 ;;
			esac
		done
	done
	echo "it ended too early"
	return 1
}

# start_long_copy [OPTION]...: one that takes its time, many small blocks, one
# after the other.
start_long_copy() {
	fresh "${places[0]}"
	truncate -s 256M source && echo old >target
	"$cp" "$@" --block=512 --depth=1 source target 2>said &
	pid=$!
	until_under_way "$pid"
}

source_that_shrinks_is_an_error() {
	start_long_copy && truncate -s 100000 source || return
	wait "$pid"
	same status $? 1 && same said "$(cat said)" "onefd-cp: 'source' shrank while it was copied" &&
	same content "$(cat target)" old && same contents "$(contents)" "said source target"
}

source_that_grows_is_copied_as_it_was() {
	fresh "${places[0]}"
	truncate -s 16M source
	"$cp" --block=512 --depth=1 source target &
	until_under_way $! || return
	echo more >>source
	wait $! && cmp -n 16777216 source target && same size "$(stat -c %s target)" 16777216
}

stopped_leaves_nothing_behind() {
	local host signal

	for host in "${hosts[@]}"; do
		for signal in INT TERM; do
			start_long_copy --loop="$host" && kill -"$signal" "$pid" || return
			wait "$pid"
			same "status in $host after $signal" $? $((128 + $(kill -l "$signal"))) &&
			same lines "$(wc -l <said)" 1 && same content "$(cat target)" old &&
			same contents "$(contents)" "said source target" || return
		done
	done
}

killed_leaves_nothing_behind() {
	start_long_copy && ls "$here"/.onefd-cp.* 2>/dev/null && { echo "no O_TMPFILE"; exit 77; }
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
	same content "$(cat target)" old && same contents "$(contents)" "said source target"
}

# As on a file system that knows no O_TMPFILE.
without_o_tmpfile_a_name_is_used_and_removed() {
	local trace

	command -v strace >/dev/null || { echo "needs strace"; exit 77; }
	export ASAN_OPTIONS=detect_leaks=0	# leaks are looked for by ptrace too
	trace="strace -f -qq -o /dev/null -P . -e trace=openat
		-e inject=openat:error=EOPNOTSUPP:when=1"
	fresh "${places[0]}"
	head -c 100001 /dev/urandom >source
	$trace true || { echo "strace cannot trace"; exit 77; }
	$trace "$cp" source target && cmp source target &&
	same contents "$(contents)" "source target" &&
	fails_named_copy
}

fails_named_copy() {
	local name

	echo old >target
	truncate -s 256M source
	$trace "$cp" --block=512 --depth=1 source target 2>../said &
	while name=$(contents) && [ "$name" = "source target" ] && kill -0 $! 2>/dev/null; do
		:
	done
	[[ $name == .onefd-cp.*source\ target ]] || { echo "there is: $name"; return 1; }
	truncate -s 0 source
	wait $!
	same status $? 1 && same contents "$(contents)" "source target" && same content "$(cat target)" old
}

mount_small() {
	mkdir -p "$top/mount"
	truncate -s "$2" "$top/image"
	"mkfs.$1" -q -F "$top/image" 2>/dev/null && mount -o loop "$top/image" "$top/mount"
}

# ext2 knows no fallocate(): there it is a write that finds no space.
no_space_leaves_the_target() {
	local fs option

	needs_root
	for fs in ext4 ext2; do
		mount_small "$fs" 16M || { echo "no $fs here"; exit 77; }
		fresh "small:$top/mount"
		truncate -s 64M "$top/source"
		echo old >target
		for option in --depth=32 --direct; do
			fails 1 "*'target': No space left on device" $option "$top/source" target &&
			same contents "$(contents)" target && same content "$(cat target)" old || return
		done
		cd "$top" && umount "$top/mount"
	done
}

# A disk that ends before its file system does.
read_error_leaves_the_target() {
	needs_root
	mount_small ext4 64M || { echo "no ext4 here"; exit 77; }
	fresh "small:$top/mount"
	head -c 40M /dev/urandom >source && sync -f source
	truncate -s 20M "$top/image"
	echo old >"$top/target"
	fails 1 "*'source': Input/output error" --direct source "$top/target" || return
	same content "$(cat "$top/target")" old
	cd "$top" && umount "$top/mount"
}

find_places
find_hosts
run copies_every_size_to_the_byte
if [ -n "$slow" ]; then
	plan
	exit
fi
run copies_in_blocks_of_any_size
run copies_the_same_in_every_host
run copies_into_a_directory
run new_file_has_the_mode_of_its_source
run old_file_keeps_mode_and_owner
run writes_to_where_a_link_points
run wrong_names_are_told_apart
run wrong_usage_is_status_2
run no_permission_leaves_the_target
run source_that_shrinks_is_an_error
run source_that_grows_is_copied_as_it_was
run stopped_leaves_nothing_behind
run killed_leaves_nothing_behind
run without_o_tmpfile_a_name_is_used_and_removed
run no_space_leaves_the_target
run read_error_leaves_the_target
plan
