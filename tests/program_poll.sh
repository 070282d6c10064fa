#!/bin/bash
# What onefd-poll promises, in TAP: file, timer and the host's own descriptor each
# have their turn. Usage: program_poll.sh ONEFD_POLL
set -u
poll=$(realpath "$1")
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-poll.XXXXXX") || exit 1
trap 'rm -rf "$top"' EXIT
. "$(dirname "$0")/tap.sh"
cd "$top" || exit 1
head -c 1000001 /dev/urandom >file

reads_the_file_beside_its_input() {
	same said "$(printf hello | "$poll" file | grep -v tick | sort)" \
		"$(printf '%s\n' 'file: 1000001 bytes' 'input: 0 bytes' 'input: 5 bytes')"
}

ticks_while_its_input_is_quiet() {
	local line ticks=0 end=0

	mkfifo input output
	"$poll" file <input >output &
	exec 3>input 4<output
	while [ "$ticks" -lt 3 ] && read -r -t 60 line <&4; do
		[ "$line" != tick ] || ticks=$((ticks + 1))
	done
	exec 3>&-
	while read -r -t 60 line <&4; do
		[ "$line" != 'input: 0 bytes' ] || end=1
	done
	wait $! && same ticks "$ticks" 3 && same end "$end" 1
}

says_what_it_cannot_read() {
	local said

	said=$("$poll" none 2>&1 </dev/null) && return 1
	same said "$said" 'onefd-poll: none: No such file or directory'
}

wants_one_file() {
	! "$poll" 2>said && same usage "$(cat said)" 'Usage: onefd-poll FILE' &&
		same help "$("$poll" --help)" 'Usage: onefd-poll FILE'
}

run reads_the_file_beside_its_input
run ticks_while_its_input_is_quiet
run says_what_it_cannot_read
run wants_one_file
plan
