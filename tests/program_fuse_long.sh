#!/bin/bash
# What onefd-fuse promises, at length: see program_fuse.sh. In TAP, over each file
# system of ONEFD_TEST_DIRS.
# Usage: program_fuse_long.sh ONEFD_FUSE FUSE_OPS
#
# PJDFSTEST names the directory of a built pjdfstest: without it that is skipped.
# FUSE_LONG is how much of it all is done, in percent (100).
set -u
daemon=$1 checker=$(realpath "$2")
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-fuse.XXXXXX") || exit 1
chmod 755 "$top"
trap 'cd / && rm -rf --one-file-system "$top"' EXIT
FUSE_DEADLINE=${FUSE_DEADLINE:-7200}
. "$(dirname "$0")/fuse.sh"
needs_fuse
find_places
find_options
share=${FUSE_LONG:-100}

part_of() {
	echo $(($1 * share / 100))
}

# verify FIO_OPTION...: what sixteen jobs have written is read, and right.
verify() {
	fio --name=verify --directory="$mount" --numjobs=16 --size="$(part_of 16384)k" --verify=crc32c \
		--verify_fatal=1 --group_reporting --fallocate=none --output-format=terse \
		"$@" >"$scratch/fio" 2>&1 || { echo "fio $*"; tail -n 5 "$scratch/fio"; return 1; }
	rm "$mount"/verify.*
}

fio_verifies_what_it_wrote() {
	local rw option=$1

	begin "$@"
	needs fio
	[ "$option" = --buffered ] || needs_ours
	serve ${option#--buffered} || return
	for rw in write randwrite; do
		verify --rw=$rw --bs=64k --direct=0 --ioengine=psync &&
		verify --rw=$rw --bsrange=512-100000 --bs_unaligned --direct=0 --ioengine=psync --norandommap &&
		verify --rw=$rw --bs=4k --direct=0 --ioengine=mmap || return
		# passthrough_ll hands O_DIRECT on, but not aligned buffers.
		is_ours || continue
		verify --rw=$rw --bs=4k --direct=1 --ioengine=libaio --iodepth=8 &&
		verify --rw=$rw --bsrange=4k-512k --direct=1 --ioengine=psync --norandommap || return
	done
	stop
}

# Two at a time, of a hundred thousand operations each.
random_operations_match_the_model() {
	local option=$1 seed limits=

	begin "$@"
	if is_ours; then
		limits=--direct
	else
		limits=--no-append
		[ "$option" = --buffered ] || needs_ours
	fi
	serve ${option#--buffered} || return
	for seed in 101 103 105; do
		"$checker" --seed $seed --ops "$(part_of 100000)" --backing "$source" $limits "$mount" &
		"$checker" --seed $((seed + 1)) --ops "$(part_of 100000)" --backing "$source" "${limits/direct/no-append}" "$mount" &&
		wait $! || return
	done
	stop
}

# More than there are descriptors, all known to the kernel.
walk_of_many_files() {
	local files i

	begin "$@"
	files=$(part_of 100000)
	mkdir "$source/many" || return
	for ((i = 0; i < files; i += 1000)); do
		mkdir "$source/many/$i" && (cd "$source/many/$i" && seq -f %08.0f 1000 | xargs touch) ||
			{ echo "no room for $files files"; exit 77; }
	done
	ulimit -n $((files / 5))
	serve || return
	same found "$(find "$mount" -type f -size 0 2>"$here/missed" | wc -l)" "$files" &&
	same missed "$(cat "$here/missed")" "" && same listed "$(ls -lR "$mount" | grep -c '^-')" "$files" &&
	same read "$(find "$mount/many" -type f -print0 | xargs -0 cat | wc -c)" 0 &&
	echo >"$mount/new" && rm -r "$mount/many" && same left "$(ls "$source")" new && stop
}

as_postgres() {
	"${postgres_user[@]}" "$@"
}

# As $postgres: who is its parent reaps it, whoever reaps orphans.
start_postgres() {
	"${postgres_user[@]}" postgres -D "$mount/data" -c listen_addresses= -k "$here/sockets" \
		>>"$here/sockets/log" 2>&1 &
	postgres=$!
	until as_postgres pg_isready -q -h "$here/sockets"; do
		kill -0 $postgres || { tail -n 5 "$here/sockets/log"; return 1; }
	done
}

ask_postgres() {
	as_postgres psql -h "$here/sockets" -Atqc "$1" postgres
}

# The server and all its processes, at once.
kill_postgres() {
	local pid processes

	processes=$(pgrep -P $postgres)
	# shellcheck disable=SC2086 # a list of words
	kill -KILL $postgres $processes
	wait $postgres
	for pid in $processes; do
		while grep -q '^State:.[^Z]' "/proc/$pid/status" 2>/dev/null; do
			:
		done
	done
}

# What pgbench does keeps four sums the same.
sums_of_pgbench() {
	ask_postgres "select (select sum(abalance) from pgbench_accounts) - (select sum(delta) from pgbench_history),
		(select sum(bbalance) from pgbench_branches) - (select sum(delta) from pgbench_history),
		(select sum(tbalance) from pgbench_tellers) - (select sum(delta) from pgbench_history)"
}

postgresql_recovers_from_a_crash() {
	local bench

	begin "$@"
	needs_ours
	binaries=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -n 1)")
	[ -x "$binaries/initdb" ] || { echo "postgresql is not installed"; exit 77; }
	postgres_user=(setpriv --reuid=postgres --regid=postgres --init-groups
		env --default-signal=INT -C "$here" PATH="$binaries:$PATH")
	mkdir "$here/sockets" && touch "$here/sockets/log" && chown -R postgres "$here/sockets" "$source" &&
	serve -o allow_other,default_permissions && as_postgres initdb -D "$mount/data" >"$here/said.initdb" 2>&1 ||
		{ tail -n 5 "$here/said.initdb"; return 1; }
	start_postgres && as_postgres pgbench -h "$here/sockets" -iq -s 2 postgres >/dev/null 2>&1 || return
	for round in 1 2; do
		as_postgres pgbench -h "$here/sockets" -c 4 -j 2 -T 60 postgres >/dev/null 2>&1 &
		bench=$!
		until [ "$(ask_postgres 'select count(*) > 500 from pgbench_history')" = t ]; do
			kill -0 $bench || return
		done
		kill_postgres || return
		wait $bench
		start_postgres && grep -q "redo done" "$here/sockets/log" || { echo "no recovery"; return 1; }
		same sums "$(sums_of_pgbench)" "0|0|0" &&
		ask_postgres "vacuum full; reindex database postgres; truncate pgbench_history;
			update pgbench_accounts set abalance = 0; update pgbench_branches set bbalance = 0;
			update pgbench_tellers set tbalance = 0" >/dev/null 2>&1
		: >"$here/sockets/log"
	done
	kill -INT $postgres && wait $postgres && stop
}

pjdfstest_passes() {
	begin "$@"
	needs prove
	[ -x "${PJDFSTEST-}/pjdfstest" ] || { echo "PJDFSTEST names no pjdfstest"; exit 77; }
	PJDFSTEST=$(realpath "$PJDFSTEST")
	serve -o allow_other,default_permissions && mkdir -m 755 "$mount/tests" && cd "$mount/tests" || return
	prove -r "$PJDFSTEST/tests" >"$scratch/log" 2>&1
	same "status of prove" $? 0 || { grep -A3 -e '^/.*Wstat' -e '^Result' -e '^Files' "$scratch/log"; return 1; }
	# All of it, or it shows nothing.
	[[ $(tail -n 2 "$scratch/log") =~ Tests=([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -gt 8000 ] ||
		{ tail -n 2 "$scratch/log"; return 1; }
	stop
}

in_places fio_verifies_what_it_wrote --buffered
in_places fio_verifies_what_it_wrote --direct
in_places random_operations_match_the_model --buffered
in_places random_operations_match_the_model --direct
in_places walk_of_many_files
in_places postgresql_recovers_from_a_crash
in_places pjdfstest_passes
plan
