#!/bin/bash
# What onefd-stress promises, and that it finds nothing, in TAP, on each file
# system of ONEFD_TEST_DIRS.
# Usage: program_stress.sh ONEFD_STRESS [slow]
set -u
stress=$(realpath "$1") slow=${2-}
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-stress-test.XXXXXX") || exit 1
trap 'rm -rf "$top"' EXIT
. "$(dirname "$0")/tap.sh"

IFS=: read -ra places <<<"${ONEFD_TEST_DIRS:-here:$top}"

# seeds FROM TO OPTION...: to the first that fails, the directories in turn.
seeds() {
	local seed from=$1 to=$2 place

	shift 2
	for ((seed = from; seed <= to; seed++)); do
		place=$((seed * 2 % ${#places[@]}))
		"$stress" --seed="$seed" --dir="${places[place + 1]}" "$@" >"$top/said" 2>&1 && continue
		cat "$top/said"
		echo "on ${places[place]}: --seed=$seed $*"
		return 1
	done
	rm "$top/said"
}

loses_nothing() {
	seeds 1 20 --ops=5000 --cancel=25
}

loses_nothing_direct() {
	seeds 21 40 --ops=5000 --cancel=25 --direct
}

loses_nothing_without_kernel_aio() {
	seeds 41 44 --ops=5000 --cancel=25 --direct --no-kaio
}

loses_nothing_without_the_ring() {
	seeds 45 48 --ops=5000 --cancel=25 --direct --no-ring
}

loses_nothing_without_nowait() {
	seeds 49 52 --ops=5000 --cancel=25 --direct --no-nowait
}

loses_nothing_without_sysfs_and_proc() {
	seeds 53 56 --ops=5000 --cancel=25 --direct --no-sysfs --no-proc
}

loses_nothing_one_at_a_time() {
	seeds 57 58 --ops=5000 --cancel=25 --direct --depth=1 &&
	seeds 59 60 --ops=5000 --cancel=25 --direct --threads=1 &&
	seeds 61 62 --ops=5000 --cancel=25 --direct --budget=1
}

loses_nothing_when_most_is_cancelled() {
	seeds 63 66 --ops=5000 --cancel=100 --direct
}

# The loops that are built in, native first.
find_hosts() {
	read -ra hosts <<<"$("$stress" --loop=none 2>&1 | sed 's/.*: //')"
}

loses_nothing_in_every_host() {
	local host

	same "first of ${hosts[*]}" "${hosts[0]}" native || return
	for host in "${hosts[@]}"; do
		seeds 67 68 --ops=5000 --cancel=25 --direct --loop="$host" &&
		seeds 69 69 --ops=5000 --cancel=25 --budget=1 --loop="$host" || return
	done
}

hash_of() {
	"$stress" --ops=2000 --dir="$top" "$@" | sed 's/.*hash=//'
}

same_seed_makes_the_same_choices() {
	local hash

	hash=$(hash_of --seed=7)
	[[ $hash =~ ^[0-9a-f]{16}$ ]] &&
	same "hash again" "$(hash_of --seed=7)" "$hash" &&
	same "hash without kernel AIO" "$(hash_of --seed=7 --no-kaio --depth=1)" "$hash" &&
	same "hash in a host" "$(hash_of --seed=7 --loop="${hosts[-1]}")" "$hash" || return
	[ "$(hash_of --seed=8)" != "$hash" ] || { echo "seed 8 hashes as seed 7"; return 1; }
}

prints_every_count() {
	local said

	said=$("$stress" --ops=500 --dir="$top") || return
	[[ $said =~ ^submitted=[0-9]+\ completed=[0-9]+\ cancelled=[0-9]+\ lost=0\ double=0\  ]] ||
	{ echo "$said"; return 1; }
}

# stopped_by SIGNAL HOST: settles what it has begun, and tidies up.
stopped_by() {
	"$stress" --ops=1000000000 --dir="$top/files" --loop="$2" >"$top/said" &
	until compgen -G "$top/files/onefd-stress.*/f5" >/dev/null; do
		kill -0 $! || return
	done
	kill -"$1" $!
	wait $!
	same "status in $2" $? $((128 + $(kill -l "$1"))) && same left "$(ls "$top/files")" "" &&
	grep -q 'lost=0 double=0 inside=0 corrupt=0 wrong=0' "$top/said"
}

directory_is_removed_after_a_signal_too() {
	local host

	mkdir "$top/files"
	"$stress" --ops=100 --dir="$top/files" >/dev/null && same left "$(ls "$top/files")" "" || return
	for host in "${hosts[@]}"; do
		stopped_by TERM "$host" && stopped_by INT "$host" || return
	done
}

wrong_usage_is_status_2() {
	local arguments

	mkdir "$top/usage"
	for arguments in "--cancel=101" "--ops=x" "--seed=-1" "--nonsense" "operand" \
		"--dir=/nonexistent" "--depth=65537" "--loop=other"; do
		TMPDIR=$top/usage "$stress" --ops=1 $arguments >/dev/null 2>&1
		same "status of $arguments" $? 2 || return
	done
	same left "$(ls "$top/usage")" "" &&
	same lines "$("$stress" --loop=other 2>&1 | grep -c "no loop 'other' is built in")" 1 || return
	"$stress" --help | grep -q '^usage: '
}

two_hundred_seeds_lose_nothing() {
	seeds 1 200 --ops=100000 --cancel=25 ${option-}
}

two_hundred_seeds_lose_nothing_direct() {
	option=--direct
	two_hundred_seeds_lose_nothing
}

twenty_seeds_lose_nothing_in_every_host() {
	local host

	for host in "${hosts[@]}"; do
		seeds 1 20 --ops=100000 --cancel=25 --direct --loop="$host" || return
	done
}

find_hosts
if [ -n "$slow" ]; then
	run two_hundred_seeds_lose_nothing
	run two_hundred_seeds_lose_nothing_direct
	run twenty_seeds_lose_nothing_in_every_host
	plan
	exit
fi
run loses_nothing
run loses_nothing_direct
run loses_nothing_without_kernel_aio
run loses_nothing_without_the_ring
run loses_nothing_without_nowait
run loses_nothing_without_sysfs_and_proc
run loses_nothing_one_at_a_time
run loses_nothing_when_most_is_cancelled
run loses_nothing_in_every_host
run same_seed_makes_the_same_choices
run prints_every_count
run directory_is_removed_after_a_signal_too
run wrong_usage_is_status_2
plan
