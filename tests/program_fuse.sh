#!/bin/bash
# What onefd-fuse promises: a mount that real programs can use, in TAP, over each
# file system of ONEFD_TEST_DIRS.
# Usage: program_fuse.sh ONEFD_FUSE FUSE_OPS SOURCE_TREE
set -u
daemon=$1 checker=$(realpath "$2") tree=$(realpath "$3")
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-fuse.XXXXXX") || exit 1
chmod 755 "$top"
trap 'cd / && rm -rf --one-file-system "$top"' EXIT
. "$(dirname "$0")/fuse.sh"
needs_fuse
find_places

# ---- how it starts and ends ------------------------------------------------------------

mounts_in_the_background() {
	begin "$@"
	echo below >"$source/file"
	"$daemon" -o "source=$source" "$mount" >said 2>&1 </dev/null || { cat said; return 1; }
	same content "$(cat "$mount/file")" below && same said "$(cat said)" "" &&
	pid=$(pgrep -f -- "source=$source $mount") && umount "$mount" &&
	timeout 10 tail --pid="$pid" -s 0.1 -f /dev/null
}

takes_its_source_as_an_argument() {
	begin "$@"
	needs_ours
	echo below >"$source/file"
	"$daemon" "$source" "$mount" && same content "$(cat "$mount/file")" below || return
	pid=$(pgrep -f -- "$source $mount") && kill "$pid" &&
	timeout 10 tail --pid="$pid" -s 0.1 -f /dev/null && ! is_mounted
}

umount_ends_it() {
	begin "$@"
	serve && stop
}

# A process that reads and writes, for as long as it can.
keep_busy() {
	(while cat "$mount/file" >"$mount/copy"; do :; done) 2>/dev/null &
	busy=$!
	until [ -s "$source/copy" ]; do
		kill -0 "$busy" || return
	done
}

signals_unmount_it() {
	local signal

	begin "$@"
	for signal in INT TERM; do
		serve && kill -"$signal" "$server" && ended 0 || return
		head -c 1M /dev/urandom >"$source/file"
		serve && keep_busy && exec 7<"$mount" && kill -"$signal" "$server" && ended 0 || return
		wait "$busy"
		exec 7<&-
		rm "$source/copy"
	done
}

# fails PATTERN ARGUMENT...: status 1 and one line.
fails() {
	local said status pattern=$1

	shift
	said=$(timeout 10 "$daemon" "$@" 2>&1 </dev/null)
	status=$?
	same "status of $* ($said)" "$status" 1 && same "lines of $*: $said" "$(wc -l <<<"$said")" 1 || return
	[[ $said == $pattern ]] || { echo "$* said: $said"; return 1; }
}

bad_input_is_one_line_and_status_1() {
	local option

	begin "$@"
	needs_ours
	echo >file && chmod 755 .
	fails "*missing*: No such file or directory" -f -o source=missing "$mount" &&
	fails "*file*: Not a directory" -f -o source="$scratch/file" "$mount" &&
	fails "*missing*: No such file or directory" -f -o "source=$source" missing &&
	fails "*file*: Not a directory" -f -o "source=$source" file &&
	fails "*--nonsense*" -f --nonsense -o "source=$source" "$mount" &&
	fails "*nonsense*" -f -o "source=$source,nonsense" "$mount" &&
	fails "*more*" -f "$source" "$mount" more && fails "*" && fails "*" "$source" &&
	fails "*" -o "source=$source" || return
	for option in timeout={1x,-1,nan,} max_read={-5,4k,+1,99999999999999,}; do
		fails "*${option%=*}*wanted*" -f -o "source=$source,$option" "$mount" || return
	done
	! is_mounted || { echo "it was mounted all the same"; return 1; }
}

help_is_for_standard_output() {
	needs_ours
	"$daemon" --help 2>/dev/null | grep -q '^usage: '
}

reports_on_sigusr1() {
	begin "$@"
	needs_ours
	echo below >"$source/file"
	serve --stats && cat "$mount/file" >/dev/null && kill -USR1 "$server" || return
	until [ -s "$here/said" ]; do
		kill -0 "$server" || return
	done
	stat "$mount" >/dev/null && umount "$mount" && wait "$server"
	same status $? 0 && grep -q read "$here/said"
	server=
}

# ---- what is in it ------------------------------------------------------------------------

# Of a seed each, four at a time.
check_seeds() {
	local seed pids=() pid status=0 first=$1 last=$2

	shift 2
	for ((seed = first; seed <= last; seed++)); do
		"$checker" --seed "$seed" --backing "$source" "$@" "$mount" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || status=1
	done
	return $status
}

# What passthrough_ll cannot do is not asked of it.
find_limits() {
	limits=
	is_ours || limits=--no-append
}

random_operations_match_the_model() {
	begin "$@"
	serve && check_seeds 1 4 --ops 3000 $limits && stop
}

random_operations_with_o_direct_match_the_model() {
	begin "$@"
	needs_ours
	serve && check_seeds 5 8 --ops 3000 --direct && stop
}

random_operations_on_direct_backing_files_match_the_model() {
	begin "$@"
	needs_ours
	serve --direct && check_seeds 9 10 --ops 3000 && check_seeds 11 12 --ops 3000 --direct && stop
}

the_checker_finds_one_wrong_byte() {
	local said

	begin "$@"
	serve && said=$("$checker" --seed 1 --ops 3000 --spoil 3000 $limits "$mount")
	same status $? 1 && same "lines" "$(wc -l <<<"$said")" 1 && [[ $said == *"is 0x"*", not 0x"* ]] || {
		echo "the checker said: $said"
		return 1
	}
	stop
}

nothing_is_refused_where_the_file_system_takes_it() {
	begin "$@"
	needs_ours
	mkdir plain
	# What is refused there is refused here: the same operations.
	serve && same refused "$("$checker" --seed 3 --ops 4000 "$mount")" "$("$checker" --seed 3 --ops 4000 plain)" && stop
}

git_clones_and_checks() {
	begin "$@"
	needs git
	export HOME=$scratch GIT_CONFIG_NOSYSTEM=1
	git config --global user.name me && git config --global user.email me@here
	make_tree "$scratch/tree" && rm tree/fifo tree/null tree/socket &&
	rmdir tree/empty tree/directory/deep/deeper && chmod 644 tree/size0 || return
	cd tree && git init -q -b main && git add -A && git commit -qm first && git rm -qr directory/deep &&
	git mv size1 size-1 && git commit -qam second && cd .. || return
	serve && git clone -q tree "$mount/clone" && cd "$mount/clone" && git fsck --strict 2>&1 &&
	same status "$(git status --porcelain)" "" && git checkout -q HEAD^ && git checkout -q main &&
	git gc -q && git fsck 2>&1 && same status "$(git status --porcelain)" "" &&
	diff -r --no-dereference -x .git . "$scratch/tree" && stop
}

# This library and its programs.
a_project_is_configured_and_built() {
	begin "$@"
	needs meson ninja
	serve && mkdir "$mount/tree" && cp -r "$tree"/{meson.build,meson_options.txt,lib,include,examples,man} \
		"$mount/tree" && cd "$mount/tree" &&
	meson setup -Dtests=false -Dexamples=true -Dman=false -Ddefault_library=static \
		-Dbuildtype=plain build >"$scratch/log" 2>&1 &&
	ninja -j2 -C build >>"$scratch/log" 2>&1 || { tail -n 20 "$scratch/log"; return 1; }
	same "left to do" "$(ninja -C build | tail -n 1)" "ninja: no work to do." &&
	build/examples/onefd-cp meson.build copy && cmp meson.build copy &&
	diff -r --no-dereference "$mount/tree" "$source/tree" && stop
}

tar_both_ways() {
	begin "$@"
	make_tree tree && rm tree/socket || return
	serve && tar --xattrs --xattrs-include='*' -S -cf "$mount/in.tar" tree && mkdir "$mount/out" &&
	tar --xattrs --xattrs-include='*' -xpf "$mount/in.tar" -C "$mount/out" &&
	same_trees tree "$mount/out/tree" && tar --xattrs --xattrs-include='*' -S -cf out.tar -C "$mount/out" tree &&
	mkdir back && tar --xattrs --xattrs-include='*' -xpf out.tar -C back && same_trees tree back/tree &&
	same_trees tree "$source/out/tree" && stop
}

blocks_of() {
	stat -c %b "$1"
}

cp_keeps_everything() {
	begin "$@"
	make_tree tree || return
	serve && cp -a tree "$mount/in" && same_trees tree "$mount/in" && cp -a "$mount/in" out &&
	same_trees tree out && same_trees tree "$source/in" || return
	[ "$(blocks_of "$mount/in/sparse")" -lt 1000 ] && [ "$(blocks_of out/sparse)" -lt 1000 ] ||
		{ echo "sparse: $(blocks_of "$mount/in/sparse"), $(blocks_of out/sparse) blocks"; return 1; }
	same links "$(stat -c %h "$mount/in/size4097")" 3 && rm -r "$mount/in" && same left "$(ls "$source")" "" &&
	stop
}

rsync_finds_all_equal() {
	begin "$@"
	needs rsync
	make_tree tree || return
	serve && rsync -caHAXS tree/ "$mount/in/" && same_trees tree "$mount/in" &&
	echo more >>tree/size4096 && rm tree/size511 && rsync -caHAX --inplace --delete tree/ "$mount/in/" &&
	same_trees tree "$mount/in" && rsync -caHAX "$mount/in/" out/ && same_trees tree out && stop
}

sqlite_with_wal_under_load() {
	local writer pids=() pid

	begin "$@"
	needs sqlite3
	serve && cd "$mount" || return
	sqlite3 base 'pragma journal_mode=wal; create table t(writer, n, text);
		create index i on t(n)' >/dev/null || return
	for writer in 1 2 3 4; do
		for n in {1..60}; do
			echo "insert into t values($writer, $n, hex(randomblob($n)));"
			echo "update t set text = text || 'x' where n = $n and writer = $writer;"
			[ $((n % 20)) -ne 0 ] || echo "pragma wal_checkpoint;"
		done | sqlite3 -cmd '.timeout 60000' base >/dev/null &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || return
	done
	same rows "$(sqlite3 base 'select count(*), count(distinct n), sum(length(text)) from t')" "240|60|14880" &&
	same integrity "$(sqlite3 base 'pragma integrity_check')" ok && cd "$scratch" && stop &&
	same "integrity below" "$(sqlite3 "$source/base" 'pragma integrity_check')" ok
}

appends_of_many_are_whole() {
	local writer pids=() n

	begin "$@"
	serve || return
	for writer in 1 2 3 4; do
		(for n in {1..500}; do echo "line $n of writer $writer"; done >>"$mount/log") &
		pids+=($!)
	done
	wait "${pids[@]}"
	same "different lines" "$(sort -u "$mount/log" | wc -l)" 2000 &&
	same lines "$(wc -l <"$mount/log")" 2000 && stop
}

locks_exclude() {
	begin "$@"
	needs flock python3
	serve && echo >"$mount/file" && python3 - "$mount/file" <<-'END' && stop
	import fcntl, os, subprocess, sys
	ask = """import fcntl, os, sys
	f = open(sys.argv[1], 'r+')
	try: fcntl.%s(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
	except BlockingIOError: sys.exit(1)"""
	for call in "flock", "lockf":
	    f = open(sys.argv[1], "r+")
	    getattr(fcntl, call)(f, fcntl.LOCK_EX)
	    child = [sys.executable, "-c", ask.replace("\t", "") % call, sys.argv[1]]
	    assert subprocess.call(child) == 1, call
	    getattr(fcntl, call)(f, fcntl.LOCK_UN)
	    assert subprocess.call(child) == 0, call
	END
}

# Whoever makes a file owns it, and needs to be allowed.
new_files_belong_to_who_makes_them() {
	local nobody="setpriv --reuid=65534 --regid=65533 --clear-groups"

	begin "$@"
	needs_ours
	mkdir -m 777 "$source/open" && mkdir -m 755 "$source/closed" && mkdir -m 3777 "$source/group" &&
	chgrp 1234 "$source/group" && serve -o allow_other,default_permissions || return
	$nobody sh -c 'cd "$1/open" && umask 027 && echo new >file && mkdir directory && mkfifo fifo &&
		ln -s file link && touch ../group/file && cat file' sh "$mount" >/dev/null || return
	$nobody touch "$mount/closed/file" 2>/dev/null && { echo "it was allowed"; return 1; }
	same owners "$(cd "$source/open" && stat -c %u:%g:%a file directory fifo | xargs)" \
		"65534:65533:640 65534:65533:750 65534:65533:640" &&
	same "owner of a link" "$(stat -c %u:%g "$source/open/link")" 65534:65533 &&
	same "group of a directory's" "$(stat -c %u:%g "$mount/group/file")" 65534:1234 && stop
}

# walk FILES DESCRIPTORS: all are looked up, and known to the kernel at once.
walk_needs_no_descriptor_for_each_file() {
	begin "$@"
	mkdir "$source/many" && (cd "$source/many" && seq -f %08.0f "$1" | xargs touch) || return
	ulimit -n "$2"
	serve || return
	same found "$(find "$mount" -type f -size 0 2>"$here/missed" | wc -l)" "$1" &&
	same missed "$(cat "$here/missed")" "" && ls -l "$mount/many" >/dev/null && echo >"$mount/new" &&
	rm -r "$mount/many" && stop
}

a_directory_is_read_to_its_end_while_it_is_emptied() {
	begin "$@"
	mkdir "$source/many" && (cd "$source/many" && seq -f "a name of some length %.0f" 5000 | tr '\n' '\0' | xargs -0 touch)
	serve && same names "$(ls "$mount/many" | wc -l)" 5000 && rm -r "$mount/many" &&
	same left "$(ls -A "$source")" "" && stop
}

# ---- all of them --------------------------------------------------------------------------

main() {
	find_limits
	find_options
	in_places mounts_in_the_background
	in_places takes_its_source_as_an_argument
	in_places umount_ends_it
	in_places signals_unmount_it
	in_places bad_input_is_one_line_and_status_1
	run help_is_for_standard_output
	in_places reports_on_sigusr1
	in_places random_operations_match_the_model
	in_places random_operations_with_o_direct_match_the_model
	in_places random_operations_on_direct_backing_files_match_the_model
	in_places the_checker_finds_one_wrong_byte
	in_places nothing_is_refused_where_the_file_system_takes_it
	in_places git_clones_and_checks
	in_places a_project_is_configured_and_built
	in_places tar_both_ways
	in_places cp_keeps_everything
	in_places rsync_finds_all_equal
	in_places sqlite_with_wal_under_load
	in_places appends_of_many_are_whole
	in_places locks_exclude
	in_places new_files_belong_to_who_makes_them
	in_places walk_needs_no_descriptor_for_each_file 4000 500
	in_places a_directory_is_read_to_its_end_while_it_is_emptied
	plan
}

main
