#!/bin/bash
# The manual says what the header says: every function has its page, prototypes
# and errnos agree, and what is printed as code compiles.
. "$(dirname "$0")/header.sh"
man=$SOURCE/man

# What is wanted in SYNOPSIS, DESCRIPTION, EXAMPLES and so on: section @1 of
# the pages that follow.
section() {
	local name=$1

	shift
	awk -v name="$name" '
		/^\.Sh /	{ inside = $0 == ".Sh " name; next }
		inside' "$@"
}

# Prototypes from the .Ft, .Fn, .Fo, .Fa and .Fc of a SYNOPSIS on stdin.
synopsis() {
	awk '
	function word(  w) {		# takes the next argument off line
		sub(/^ */, "", line)
		if (line ~ /^"/) {
			w = substr(line, 2, index(substr(line, 2), "\"") - 1)
			line = substr(line, length(w) + 3)
		} else {
			w = line
			sub(/ .*/, "", w)
			line = substr(line, length(w) + 1)
		}
		return w
	}
	function add(argument) { list = list (list == "" ? "" : ",") argument }
	/^\.Ft /	{ type = substr($0, 5) }
	/^\.Fo /	{ fn = $2; list = "" }
	/^\.Fa /	{ line = substr($0, 5); add(word()) }
	/^\.Fc/		{ print type " " fn "(" list ")" }
	/^\.Fn /	{
		line = substr($0, 5); list = ""; fn = word()
		while (line ~ /[^ ]/)
			add(word())
		print type " " fn "(" list ")"
	}' | normalise
}

# Of "function errno" lines, those of functions that can fail or, as the preps,
# lead to a result that can.
{ prototypes; adapter_prototypes; } | grep -e '^int ' -e ' onefd_prep_' | sed 's/(.*//; s/.* //' >"$scratch/failing"
only_failing() {
	awk 'NR == FNR { fails[$1] = 1; next } fails[$1]' "$scratch/failing" - | sort -u
}

# "function errno" as the comments of the header have it. "with -EX" speaks of
# a result and not of the call; "as onefd_x()" takes over the errnos of x.
header_errnos() {
	awk '
	/^$/		{ comment = "" }
	/^(\/\*| \*)/	{ inside = 1 }
	inside		{ line = $0; sub(/^ \*/, "", line); comment = comment " " line }
	/\*\//		{ inside = 0; next }
	!inside && /^[a-z].*onefd_[a-z_]*\(/ && !/^typedef/ {
		fn = $0
		sub(/\(.*/, "", fn)
		sub(/.*[ *]/, "", fn)
		rest = comment
		gsub(/ +/, " ", rest)
		gsub(/with -E[A-Z0-9]+/, "", rest)
		while (match(rest, /-E[A-Z0-9]+/)) {
			print fn, substr(rest, RSTART + 1, RLENGTH - 1)
			rest = substr(rest, RSTART + RLENGTH)
		}
		rest = comment
		gsub(/ +/, " ", rest)
		while (match(rest, /as onefd_[a-z_]+\(\)/)) {
			print fn, "as", substr(rest, RSTART + 3, RLENGTH - 5)
			rest = substr(rest, RSTART + RLENGTH)
		}
	}' "$HEADER" "${ADAPTERS[@]}" | awk '
	{ line[NR] = $0 }
	$2 != "as"	{ of[$1] = of[$1] " " $2; print }
	END {
		for (i = 1; i <= NR; i++) {
			split(line[i], w, " ")
			n = w[2] == "as" ? split(of[w[3]], e, " ") : 0
			for (j = 1; j <= n; j++)
				print w[1], e[j]
		}
	}' | only_failing
}

# "function errno" as the ERRORS of page @1 have it: a list of errnos belongs to
# the functions named before it, or to all functions of the page.
page_errnos() {
	all=$(section NAME "$1" | awk '$1 == ".Nm" { printf "%s ", $2 }')
	section ERRORS "$1" | awk -v all="$all" '
	/^\.Bl/			{ list = 1 }
	/^\.El/			{ list = 0; named = "" }
	!list && /^\.Fn /	{ named = named " " $2 }
	list && /^\.It Bq Er /	{
		n = split(named == "" ? all : named, fn, " ")
		for (i = 1; i <= n; i++)
			print fn[i], $4
	}' | only_failing
}

# Writes the literal blocks on stdin to @1.1.c, @1.2.c and so on, as C.
blocks() {
	awk -v stem="$1" '
	/^\.Bd -literal/	{ file = stem "." ++n ".c"; next }
	/^\.Ed/			{ close(file); file = ""; next }
	file			{ sub(/^\\&/, ""); gsub(/\\e/, "\\"); print >file }'
}

prelude='#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <onefd.h>
#line 1'

# Without the header of a host that is not installed nothing is said of the rest.
compile() {
	local said adapter flags=''

	for adapter in $(sed -n 's|^#include <onefd/\(.*\)\.h>.*|\1|p' "$1"); do
		flags+=" $(host_flags "$adapter")"
	done
	# shellcheck disable=SC2086
	said=$($CC -x c -std=gnu11 -D_GNU_SOURCE -Wall -Werror -Wno-unused-function $flags \
		-fsyntax-only -I"$SOURCE/include" "$1" 2>&1) && return
	missing_header <<<"$said" && return 77
	echo "$said"
	return 1
}

# "page function" from the NAME sections
names() {
	local page

	for page in "$man"/*.3; do
		section NAME "$page" | awk -v page="${page##*/}" '$1 == ".Nm" { print page, $2 }'
	done
}

# Whether the manual of this machine has the pages of others is not ours to say.
lint_is_silent() {
	command -v mandoc >/dev/null || { echo "no mandoc"; return 77; }
	mandoc -T lint -W style "$man/$1" 2>/dev/null | grep -v 'referenced manual not found' |
		nothing
}

every_function_is_named_by_one_page() {
	diff <({ functions; adapter_functions; } | sort) <(names | sed 's/.* //' | sort)
}

every_page_is_installed() {
	local page

	for page in "$man"/*.[1-9]; do
		grep -q "^  '${page##*/}',$" "$man/meson.build" || echo "${page##*/}"
	done | nothing
}

every_synopsis_agrees_with_the_header() {
	diff <({ prototypes; adapter_prototypes; callbacks; } | sort) <(section SYNOPSIS "$man"/*.3 | synopsis | sort)
}

name_and_synopsis_name_the_same_functions() {
	local page

	for page in "$man"/*.3; do
		section SYNOPSIS "$page" | synopsis | grep -v '^typedef' |
			sed "s/(.*//; s/.*[ *]/${page##*/} /"
	done | sort | diff <(names | sort) -
}

synopsis_compiles() {
	{
		section SYNOPSIS "$man/$1" | sed -n 's/^\.Fd //p; s/^\.In \(.*\)/#include <\1>/p'
		section SYNOPSIS "$man/$1" | synopsis | sed 's/$/;/'
	} >"$scratch/synopsis.c"
	compile "$scratch/synopsis.c"
}

# What an overview tells to include. <onefd/x.h> wants its host's headers too: that
# they compile is for another test.
includes_of_the_synopsis_are_ours() {
	local header

	for header in $(section SYNOPSIS "$man/$1" | sed -n 's/^\.In \(onefd[^ ]*\).*/\1/p'); do
		[ -f "$SOURCE/include/$header" ] || echo "no $header"
	done | nothing
}

# Of the two errnos common to all, a free of NULL is fine, and a forked child
# makes a loop of its own.
common_errnos() {
	{ prototypes; adapter_prototypes; } | grep '^int ' | sed 's/(.*//; s/.* //' |
		awk '$1 !~ /^onefd(_fuse)?_free$/ { print $1, "EINVAL" }
		     $1 != "onefd_new" { print $1, "ECHILD" }'
}

all_page_errnos() {
	local page

	for page in "$man"/*.3; do
		page_errnos "$page"
	done | sort -u
}

every_errno_of_the_header_is_in_its_page() {
	comm -23 <({ header_errnos; common_errnos; } | sort -u) <(all_page_errnos) | nothing
}

# The results of requests are the kernel's, and the pages list more of them.
no_page_has_an_errno_that_the_header_has_not() {
	comm -13 <({ header_errnos; common_errnos; } | sort -u) <(all_page_errnos) |
		grep -v '^onefd_prep_' | nothing
}

# Declarations of the structures in headers, one a line.
pieces() {
	statements "$@" | grep '^struct onefd_[a-z_]* {' | sed 's/[;{]/&\n/g' | normalise |
		grep -v '^}*$' | sort -u
}

# White space and comments aside, every line is one of the header.
excerpts_are_in_the_header() {
	local file

	section DESCRIPTION "$man/$1" | blocks "$scratch/struct"
	for file in "$scratch"/struct.*.c; do
		[ ! -f "$file" ] || comm -13 <(pieces "${HEADERS[@]}") <(pieces "$file")
		rm -f "$file"
	done | nothing
}

every_constant_is_explained() {
	local word

	for word in $(constants); do
		grep -qw "$word" "$man"/*.3 || echo "$word is in no page"
	done | nothing
}

every_constant_of_a_page_exists() {
	grep -hoE 'ONEFD_[A-Z_]*[A-Z]\>' "$man"/*.[37] | grep -v _VERSION_ |
		grep '_.*_' | sort -u | comm -23 - <(constants | sort) | nothing
}

every_counter_is_explained() {
	local struct word

	members | grep '_stats ' | while read -r struct word; do
		grep -q "^\.It Fa.* $word\( \|$\)" "$man/${struct%_stats}"{,_stats}.3 2>/dev/null ||
			echo "$struct.$word"
	done | nothing
}

# Pages and aliases, as "name.section"
known() {
	local page

	awk -f "$man/names.awk" "$man"/*.[1-9] | sed 's/ .*//'
	for page in "$man"/*.[1-9]; do
		echo "${page##*/}"
	done
}

references_to_pages_of_ours_lead_somewhere() {
	sed -n 's/^\.Xr \(onefd[^ ]*\) \([1-9]\).*/\1.\2/p' "$man/$1" |
		grep -v -x -F -f <(known) | nothing
}

# Literal blocks are excerpts of the header, examples in C, or else for a shell.
other_blocks_are_shell() {
	local file

	awk -v examples="$([ "${1##*.}" != 1 ] && echo EXAMPLES)" \
		-v excerpts="$([ "${1##*.}" = 3 ] && echo DESCRIPTION)" '
		/^\.Sh /	{ name = substr($0, 5) }
		name != examples && name != excerpts' "$man/$1" | blocks "$scratch/other"
	for file in "$scratch"/other.*.c; do
		[ ! -f "$file" ] || sh -n "$file" || echo "$1"
		rm -f "$file"
	done 2>&1 | nothing
}

every_function_page_has_an_example() {
	local page

	for page in "$man"/*.3; do
		ls "$scratch/${page##*/}".*.c >/dev/null
	done 2>&1 | nothing
}

example_compiles() {
	compile "$scratch/$1.c"
}

# Under sanitizers the library wants more than a plain link gives: that is not
# the example's fault.
example_links() {
	$CC -D_GNU_SOURCE -I"$SOURCE/include" -o "$scratch/$1" "$scratch/$1.c" "$LIBRARY" \
		-Wl,--allow-shlib-undefined
}

program_of_the_overview_counts_lines() {
	local page

	if nm -D "$LIBRARY" | grep -q -e __asan_ -e __tsan_; then
		echo "a sanitizer's library does not run in a program without"
		return 77
	fi
	for page in "$man"/*.[1-9]; do
		diff <(LD_LIBRARY_PATH=${LIBRARY%/*} "$scratch/onefd.7.1" "$page") - \
			<<<"$(wc -l <"$page") lines in $(wc -c <"$page") bytes" || return 1
	done
}

# Long options, from --help and from the page
options_agree() {
	local program=$PROGRAMS/${1%.1}

	[ -x "$program" ] || { echo "$program is not built"; return 77; }
	diff <({ echo --help; "$program" --help; } | grep -o -e '--[a-z][-a-z]*' | sort -u) \
		<(sed -n 's/^\.It \(Fl [a-zA-Z] , \)\?Fl Fl \([a-z][-a-z]*\).*/--\2/p' "$man/$1" |
			sort -u)
}

for page in "$man"/*.[1-9]; do
	run lint_is_silent "${page##*/}"
	run references_to_pages_of_ours_lead_somewhere "${page##*/}"
	run other_blocks_are_shell "${page##*/}"
done
run every_page_is_installed
run every_function_is_named_by_one_page
run every_synopsis_agrees_with_the_header
run name_and_synopsis_name_the_same_functions
run every_errno_of_the_header_is_in_its_page
run no_page_has_an_errno_that_the_header_has_not
run every_constant_is_explained
run every_constant_of_a_page_exists
run every_counter_is_explained

for page in "$man"/*.[37]; do
	run includes_of_the_synopsis_are_ours "${page##*/}"
done
for page in "$man"/*.3; do
	run synopsis_compiles "${page##*/}"
	run excerpts_are_in_the_header "${page##*/}"
done

# An example without #include is given the usual ones.
for page in "$man"/*.[37]; do
	section EXAMPLES "$page" | blocks "$scratch/${page##*/}"
done
for file in "$scratch"/onefd*.c; do
	name=$(basename "$file" .c)
	grep -q '^#include' "$file" || {
		printf '%s "%s"\n' "$prelude" "$name" | cat - "$file" >"$scratch/whole"
		mv "$scratch/whole" "$file"
	}
	run example_compiles "$name"
done
for file in $(grep -l '^int main(' "$scratch"/onefd*.c); do
	run example_links "$(basename "$file" .c)"
done
run every_function_page_has_an_example
run program_of_the_overview_counts_lines

for page in "$man"/*.1; do
	run options_agree "${page##*/}"
done
plan
