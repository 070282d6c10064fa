#!/bin/bash
# What the README and the first comments print holds of an installed copy, in TAP.
# Usage: program_install.sh SOURCE_ROOT BUILD_ROOT
. "$(dirname "$0")/installed.sh"

# The compile lines that a text shows.
compile_line() {
	sed -nE 's/^( \*)?[[:space:]]+(cc .*)/\2/p' "$1"
}

# Of those that want a library more than onefd, what was not built lacks it.
left_out() {
	[ ! -x "$build/examples/$(basename "$1" .c)" ] && [[ $(compile_line "$1") != *"--libs onefd)" ]]
}

printed c >first.c
compile_line "$source/README.md" >lines

# readme_program_compiles_and_runs_as_printed WORD: by the one line that has it.
readme_program_compiles_and_runs_as_printed() {
	local line

	line=$(grep -e "$1" lines) && same lines "$(grep -c -e "$1" lines)" 1 || return
	rm -f first
	sh -ec "$line" && ./first | cmp - /etc/passwd
}

statically() {
	static_is_installed && "$@"
}

readme_program_has_25_lines() {
	[ "$(wc -l <first.c)" -le 25 ]
}

examples_compile_with_the_line_in_their_comment() {
	local program name line

	cp "$source"/examples/*.h .
	for program in "$source"/examples/*.c; do
		left_out "$program" && continue
		name=$(basename "$program" .c)
		line=$(compile_line "$program")
		[ -n "$line" ] || { echo "$name: no compile line"; return 1; }
		cp "$program" .
		sh -ec "$line -Wall -Wextra -Werror" && [ -x "$name" ] || { echo "$name: $line"; return 1; }
	done
}

examples_are_installed_and_run() {
	local program

	for program in "$source"/examples/*.c; do
		left_out "$program" && continue
		program=$(find installed -type f -name "$(basename "$program" .c)")
		"$program" --help | grep -qi '^usage:' || { echo "$program"; return 1; }
	done
}

# The commands that the EXAMPLES of page @1 show, with folders of ours for those named, and any port.
shown() {
	sed -n '/^\.Sh EXAMPLES/,/^\.Sh SEE/s/^\.Dl \$ //p' "$1" |
		sed "s|/srv/backup/|$top/backup/|; s|/usr/lib|$source/lib|; s|:8080 |:0 |"
}

# A server says where it is, and ends when it is told to.
serves() {
	rm -f said
	sh -c "exec $1" >said &
	until [ -s said ]; do
		kill -0 $! || return
	done
	kill $! && wait $!
}

examples_of_a_page_run() {
	local page=$source/man/$1 line

	[ -x "$prefix/bin/${1%.1}" ] || { echo "${1%.1} is not installed"; return 77; }
	[ "$(shown "$page" | wc -l)" -ge 1 ] || { echo "no example"; return 1; }
	! shown "$page" | grep -q /run/ || { echo "it wants a server"; return 77; }
	! shown "$page" | grep -q ' ~/' || { echo "it wants somebody's files"; return 77; }
	! shown "$page" | grep -q fusermount3 || [ -w /dev/fuse ] || { echo "no /dev/fuse"; return 77; }
	mkdir -p backup && head -c 1M /dev/urandom >disk.img || return
	while read -r line; do
		case $line in *' &')
			PATH=$prefix/bin:$PATH serves "${line% &}" || { echo "$line"; return 1; }
			continue ;;
		esac
		PATH=$prefix/bin:$PATH sh -c "$line" >said 2>&1 || { cat said; echo "$line"; return 1; }
	done < <(shown "$page")
}

run readme_program_compiles_and_runs_as_printed '--cflags --libs'
run statically readme_program_compiles_and_runs_as_printed ' -static '
run readme_program_has_25_lines
run examples_compile_with_the_line_in_their_comment
run examples_are_installed_and_run
for page in "$source"/man/*.1; do
	run examples_of_a_page_run "${page##*/}"
done
plan
