#!/bin/bash
# What onefd-tour and onefd-info promise, in TAP.
# Usage: program_tour.sh ONEFD_TOUR ONEFD_INFO
set -u
tour=$1 info=$2
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-tour.XXXXXX") || exit 1
trap 'chmod -R u+rwx "$top"; rm -rf "$top"' EXIT
tree=$top/tree
. "$(dirname "$0")/tap.sh"

# value KEY: of the JSON object on standard input.
value() {
	sed -E "s/.*\"$1\": \"?([^,\"}]*).*/\1/"
}

make_tree() {
	local i size

	mkdir -p "$tree/small" "$tree/a/b/c" "$tree/odd"
	for size in 0 1 511 4095 4096 4097 131071 131072 131073 262144; do
		head -c "$size" /dev/urandom >"$tree/a/b/$size"
	done
	head -c 64M /dev/urandom >"$tree/a/big"
	for ((i = 0; i < 2000; i++)); do
		echo "$i of many" >"$tree/small/$i"
	done
	echo quote >"$tree/odd/\"quote\\\""
	echo newline >"$tree/odd/new"$'\n'"line"
	echo bytes >"$tree/odd/"$'\xff\xfe'
	ln -s .. "$tree/a/loop"
	ln -s big "$tree/a/link"
	ln "$tree/a/big" "$tree/a/b/c/hard"
	mkfifo "$tree/a/fifo"
}

reads_every_byte_as_read_does() {
	local json

	json=$("$tour" --verify --json "$tree") || { echo "status $?: $json"; return 1; }
	same files "$(value files <<<"$json")" "$(find "$tree" -type f -printf x | wc -c)" &&
	same bytes "$(value bytes <<<"$json")" \
		"$(find "$tree" -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%d", n }')" &&
	same directories "$(value directories <<<"$json")" "$(find "$tree" -type d -printf x | wc -c)" &&
	same verify "$(value verify <<<"$json")" equal &&
	same equal "$(value equal <<<"$json")" "$(value files <<<"$json")"
}

links_and_fifos_are_not_followed() {
	same "not regular" "$("$tour" --json "$tree" | value not_regular)" 3
}

digest_depends_on_the_bytes_alone() {
	local first options

	first=$("$tour" --json "$tree" | value digest)
	for options in --buffered '--depth 1' '--depth 3 --block 4096' '--buffered --block 1048576'; do
		# shellcheck disable=SC2086 # options are words
		same "$options" "$("$tour" $options --json "$tree" | value digest)" "$first" || return 1
	done
}

# The sum of XXH64(page, seed: offset) seeds XXH64 of the path: computed apart.
digest_is_the_known_answer() {
	mkdir -p "$top/known"
	seq 1 2000 >"$top/known/abc"
	same digest "$("$tour" --json "$top/known" | value digest)" c136b2e21ea1a210
}

# With no size known beforehand, as in /proc, reading goes on until the end.
length_is_found_by_reading() {
	local known found size paths=()

	strace -o /dev/null true 2>/dev/null || { echo "strace does not work here"; return 77; }
	for size in 0 4096 4097 131072 262144; do
		paths+=(-P "$size")
	done
	known=$("$tour" --json "$tree/a/b" | value digest)
	found=$(strace -f -qq -o "$top/sizes" "${paths[@]}" -e trace=newfstatat \
		-e inject=newfstatat:error=ENOENT "$tour" --json "$tree/a/b" 2>/dev/null | value digest)
	grep -q INJECTED "$top/sizes" || { echo "sizes come by another call here"; return 77; }
	same digest "$found" "$known"
}

digest_sees_one_byte_changed() {
	local before after

	before=$("$tour" --json "$tree/a" | value digest)
	printf x | dd of="$tree/a/big" bs=1 seek=33333333 conv=notrunc status=none
	after=$("$tour" --json "$tree/a" | value digest)
	[ "$before" != "$after" ]
}

direct_opens_all_or_says_so() {
	local json

	json=$("$tour" --direct --json "$tree") || return 1
	same buffered "$(value buffered <<<"$json")" 0 &&
	same "direct and unreadable" \
		$(($(value direct <<<"$json") + $(value unreadable <<<"$json"))) \
		"$(find "$tree" -type f -printf x | wc -c)"
}

buffered_opens_none_direct() {
	same direct "$("$tour" --buffered --json "$tree" | value direct)" 0
}

# Root reads all until it gives up the capability to.
unreadable_is_counted_and_named_not_fatal() {
	local drop=() said

	if [ "$(id -u)" -eq 0 ]; then
		drop=(setpriv --inh-caps=-all --bounding-set=-all)
		"${drop[@]}" "$info" >/dev/null || { echo "cannot run without capabilities"; return 77; }
	fi
	mkdir -p "$top/closed/folder"
	echo secret >"$top/closed/file"
	echo open >"$top/closed/open"
	chmod 0 "$top/closed/file" "$top/closed/folder"
	said=$("${drop[@]}" "$tour" -v --verify "$top/closed" 2>&1) || { echo "status $?: $said"; return 1; }
	grep -q " 2 unreadable" <<<"$said" &&
		grep -q "closed/file: Permission denied" <<<"$said" &&
		grep -q "closed/folder: Permission denied" <<<"$said" &&
		grep -q "^verify     equal" <<<"$said" || { echo "$said"; return 1; }
}

few_descriptors_suffice() {
	local json fd limit

	# The second time most are taken already, unknown to the tour.
	for limit in 24 50; do
		json=$(
			for ((fd = 10; limit == 50 && fd < 40; fd++)); do
				eval "exec $fd</dev/null"
			done
			ulimit -n "$limit" && "$tour" --verify --json "$tree"
		) || return 1
		same "unreadable of $limit" "$(value unreadable <<<"$json")" 0 &&
			same "verify of $limit" "$(value verify <<<"$json")" equal || return 1
	done
}

verify_names_the_file_that_differs() {
	local said status

	strace -o /dev/null true 2>/dev/null || { echo "strace does not work here"; return 77; }
	# read(2) is what the comparison uses, and nothing else on this file.
	said=$(strace -f -o /dev/null -P "$tree/a/b/4097" -e trace=read -e inject=read:error=EIO \
		"$tour" --verify "$tree/a/b")
	status=$?
	same status "$status" 1 &&
		grep -q "the first: .*/a/b/4097: read(2) cannot read it" <<<"$said" || { echo "$said"; return 1; }
}

json_is_json() {
	command -v python3 >/dev/null || { echo "no python3"; return 77; }
	"$tour" --json --verify --stats "$tree" 2>/dev/null | python3 -m json.tool >/dev/null &&
		"$tour" --json "$tree/a" | python3 -m json.tool >/dev/null
}

stats_and_company_are_reported() {
	local said

	said=$("$tour" --stats "$tree") || return 1
	grep -q "^heartbeat  worst [0-9.]* ms late" <<<"$said" &&
		grep -q "^echo       [1-9][0-9]* served" <<<"$said" &&
		grep -q "^child      exited with status 0$" <<<"$said" &&
		grep -q "^submit_ns: p50" <<<"$said" &&
		grep -q "^turn_ns: p50" <<<"$said" || { echo "$said"; return 1; }
}

# signalled SIGNAL STATUS: a file too long to be read through, and a signal
# once it is open.
signalled() {
	local pid status try=0

	mkdir -p "$top/endless"
	truncate -s 4T "$top/endless/file" || { echo "no sparse files here"; return 77; }
	"$tour" --verify "$top/endless" >"$top/partial" &
	pid=$!
	until [ -n "$(find "/proc/$pid/fd" -lname '*/endless/file' 2>/dev/null)" ]; do
		[ $((try += 1)) -lt 1000 ] || { kill -9 "$pid"; echo "never opened"; return 1; }
		sleep 0.01
	done
	kill -s "$1" "$pid"
	wait "$pid"
	status=$?
	same status "$status" "$2" &&
		grep -q "(interrupted)" "$top/partial" &&
		grep -q "^child      exited with status 0" "$top/partial" || { cat "$top/partial"; return 1; }
}

interrupt_gives_the_partial_report() {
	signalled INT 130
}

terminate_gives_the_partial_report() {
	signalled TERM 143
}

# complains COMMAND...: status 1 and one line.
complains() {
	local said

	said=$("$@" 2>&1 >/dev/null)
	same "status of $*" $? 1 && same "lines of $*" "$(wc -l <<<"$said")" 1 && [ -n "$said" ]
}

errors_are_one_clear_line() {
	complains "$tour" "$top/missing" &&
		complains "$tour" "$tree/a/big" &&
		complains "$tour" &&
		complains "$tour" "$tree" "$tree" &&
		complains "$tour" --unknown "$tree" &&
		complains "$tour" --depth 0 "$tree" &&
		complains "$tour" --depth x "$tree" &&
		complains "$tour" --block 4097 "$tree"
}

full_output_is_an_error() {
	"$tour" "$tree/odd" >/dev/full 2>/dev/null
	same status $? 1
}

info_describes_machine_and_file() {
	local alone

	alone=$("$info") || return 1
	[ -n "$alone" ] && [ "$("$info" "$tree/a/big" | wc -l)" -gt "$(wc -l <<<"$alone")" ]
}

info_errors_are_one_clear_line() {
	complains "$info" "$top/missing" &&
		complains "$info" "$tree" &&
		complains "$info" "$tree/a/fifo" &&
		complains "$info" one two &&
		complains "$info" --unknown
}

make_tree
run reads_every_byte_as_read_does
run links_and_fifos_are_not_followed
run digest_depends_on_the_bytes_alone
run digest_is_the_known_answer
run length_is_found_by_reading
run digest_sees_one_byte_changed
run direct_opens_all_or_says_so
run buffered_opens_none_direct
run unreadable_is_counted_and_named_not_fatal
run few_descriptors_suffice
run verify_names_the_file_that_differs
run json_is_json
run stats_and_company_are_reported
run interrupt_gives_the_partial_report
run terminate_gives_the_partial_report
run errors_are_one_clear_line
run full_output_is_an_error
run info_describes_machine_and_file
run info_errors_are_one_clear_line
plan
