#!/bin/bash
# onefd-latency.bt beside what the traced programs say of themselves, in TAP.
# Usage: program_traced.sh SCRIPT LIBRARY ONEFD_STRESS ONEFD_CP
set -u
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-traced.XXXXXX") || exit 1
trap 'rm -rf "$top"' EXIT
. "$(dirname "$0")/tap.sh"

# A probe belongs to a file, and other tests run programs with that library just
# now: these programs are given a copy, whatever path meson has set.
mkdir "$top/lib" "$top/files"
cp "$2" "$top/lib/libonefd.so.0"
stress=$(realpath "$3") cp=$(realpath "$4")
sed "s|@LIBRARY@|$top/lib/libonefd.so.0|" "$1" >"$top/script.bt"

needs_a_tracer() {
	command -v bpftrace >/dev/null || { echo "no bpftrace"; return 77; }
	[ "$(id -u)" -eq 0 ] || { echo "only root can trace"; return 77; }
	timeout 60 bpftrace -e "BEGIN { exit(); } uprobe:$top/lib/libonefd.so.0:onefd_new { }" \
		>"$top/tried" 2>&1 && return
	echo "no uprobes here: $(head -n 1 "$top/tried")"
	return 77
}

# traced COMMAND...: it runs, its output in said, and what was counted in seen. The
# first line is printed when all probes are attached.
traced() {
	local tracer line status

	exec 3< <(exec timeout -s INT 120 bpftrace -B line "$top/script.bt" 2>"$top/errors")
	tracer=$!
	until read -r line <&3 && [[ $line == Tracing* ]]; do
		kill -0 $tracer || { cat "$top/errors"; return 1; }
	done
	LD_LIBRARY_PATH=$top/lib "$@" >"$top/said" 2>&1
	status=$?
	kill -INT $tracer
	cat <&3 >"$top/seen"
	exec 3<&-
	return $status
}

# counted MAP [KEY]: the sum over those of its keys that match.
counted() {
	sed -n "s/^@$1\(\[${2-.*}\]\)\?: //p" "$top/seen" | awk '{ n += $1 } END { print n + 0 }'
}

# The same of a histogram's bars.
bars() {
	awk -v map="@$1" 'index($0, "@") == 1 { inside = index($0, map) == 1 }
		inside && sub(/^[[(][^])]*[])] +/, "") { n += $1 }
		END { print n + 0 }' "$top/seen"
}

of_the_program() {
	grep -o "\<$1=[0-9]*" "$top/said" | sed 's/.*=//'
}

counts_are_those_of_the_program() {
	needs_a_tracer || return
	traced "$stress" --dir="$top/files" --ops=3000 --cancel=25 --verbose "$@" || return
	same submitted "$(counted submitted)" "$(of_the_program submitted)" &&
	same completed "$(counted completed)" "$(of_the_program completed)" &&
	same measured "$(bars request_us)" "$(of_the_program completed)" &&
	same cancelled "$(counted errors '[a-z]*, 125')" "$(of_the_program cancelled)" &&
	same tasks "$(counted tasks)" "$(of_the_program tasks)" &&
	same turns "$(counted turns)" "$(bars turn_us)"
}

with_kernel_aio_it_is_a_route() {
	needs_a_tracer || return
	traced "$stress" --dir="$top/files" --ops=3000 || return
	[ "$(counted completed '[a-z]*, kernel AIO')" -gt 0 ] && [ "$(counted io_submits)" -gt 0 ] &&
		same submissions "$(counted io_submits)" "$(bars io_submit_us)"
}

without_kernel_aio_it_is_no_route() {
	needs_a_tracer || return
	traced "$stress" --dir="$top/files" --ops=3000 --no-kaio || return
	same "by kernel AIO" "$(counted completed '[a-z]*, kernel AIO.*')" 0 &&
	same submissions "$(counted io_submits)" 0 &&
	[ "$(counted completed '[a-z]*, worker')" -gt 0 ]
}

# 40 blocks, which no request is too short for.
copy_is_as_many_reads_and_writes_as_blocks() {
	needs_a_tracer || return
	head -c 2621440 /dev/urandom >"$top/files/from"
	traced "$cp" --block=64k "$top/files/from" "$top/files/to" || return
	same reads "$(counted completed 'read, .*')" 40 &&
	same writes "$(counted completed 'write, .*')" 40
}

run counts_are_those_of_the_program
run counts_are_those_of_the_program --direct
run with_kernel_aio_it_is_a_route
run without_kernel_aio_it_is_no_route
run copy_is_as_many_reads_and_writes_as_blocks
plan
