#!/bin/bash
# What the README and the first comments print holds of an installed copy, in TAP.
# Usage: program_install.sh SOURCE_ROOT BUILD_ROOT
set -u
source=$1 build=$2
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-install.XXXXXX") || exit 1
trap 'rm -rf "$top"' EXIT
. "$(dirname "$0")/tap.sh"

meson install -C "$build" --no-rebuild --quiet --destdir "$top/installed" || exit 1
pc=$(find "$top/installed" -name onefd.pc)
library=$(find "$top/installed" -name libonefd.so)
export PKG_CONFIG_PATH="${pc%/*}" PKG_CONFIG_SYSROOT_DIR="$top/installed" LD_LIBRARY_PATH="${library%/*}"
cd "$top" || exit 1

# The compile line that a text shows.
compile_line() {
	sed -nE 's/^( \*)?[[:space:]]+(cc .*)/\2/p' "$1"
}

readme_program_compiles_and_runs_as_printed() {
	awk '/^```$/ { inside = 0 } inside; /^```c$/ { inside = 1 }' "$source/README.md" >first.c
	sh -ec "$(compile_line "$source/README.md")" && ./first | cmp - /etc/passwd
}

readme_program_has_25_lines() {
	[ "$(wc -l <first.c)" -le 25 ]
}

examples_compile_with_the_line_in_their_comment() {
	local program name line

	cp "$source"/examples/*.h .
	for program in "$source"/examples/*.c; do
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
		program=$(find installed -type f -name "$(basename "$program" .c)")
		"$program" --help | grep -qi '^usage:' || { echo "$program"; return 1; }
	done
}

run readme_program_compiles_and_runs_as_printed
run readme_program_has_25_lines
run examples_compile_with_the_line_in_their_comment
run examples_are_installed_and_run
plan
