#!/bin/sh
# The manual says what the header says: every function has its page, prototypes
# and errnos agree, and what is printed as code compiles.
. "$(dirname "$0")/header.sh"
man=$SOURCE/man
command -v mandoc >/dev/null || skip_all "no mandoc"

# What is wanted in SYNOPSIS, DESCRIPTION, EXAMPLES and so on: section @1 of
# the pages that follow.
section()
{
	name=$1
	shift
	awk -v name="$name" '
		/^\.Sh /	{ inside = $0 == ".Sh " name; next }
		inside' "$@"
}

# Prototypes from the .Ft, .Fn, .Fo, .Fa and .Fc of a SYNOPSIS on stdin.
synopsis()
{
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
prototypes | grep -e '^int ' -e ' onefd_prep_' | sed 's/(.*//; s/.* //' >"$scratch/failing"
only_failing()
{
	awk 'NR == FNR { fails[$1] = 1; next } fails[$1]' "$scratch/failing" - | sort -u
}

# "function errno" as the comments of the header have it. "with -EX" speaks of
# a result and not of the call; "as onefd_x()" takes over the errnos of x.
header_errnos()
{
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
	}' "$HEADER" | awk '
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
page_errnos()
{
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
blocks()
{
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

compile()
{
	$CC -x c -std=gnu11 -D_GNU_SOURCE -Wall -Werror -Wno-unused-function \
		-fsyntax-only -I"$SOURCE/include" "$1"
}

for page in "$man"/*.[1-9]; do
	# Whether the manual of this machine has the pages of others is not ours.
	mandoc -T lint -W style "$page" 2>/dev/null |
		grep -v 'referenced manual not found' >"$scratch/why"
	tap_quiet "lint_is_silent: ${page##*/}"
done

functions >"$scratch/functions"
for page in "$man"/*.3; do
	section NAME "$page" | awk '$1 == ".Nm" { print $2 }'
done | sort >"$scratch/names"
diff "$scratch/functions" "$scratch/names" >"$scratch/why"
tap_quiet "every_function_is_named_by_one_page"

for page in "$man"/*.[1-9]; do
	grep -q "^  '${page##*/}',$" "$man/meson.build" || echo "${page##*/} is not installed"
done >"$scratch/why"
tap_quiet "every_page_is_installed"

{ prototypes; callbacks; } | sort >"$scratch/header"
section SYNOPSIS "$man"/*.3 | synopsis | sort >"$scratch/pages"
diff "$scratch/header" "$scratch/pages" >"$scratch/why"
tap_quiet "every_synopsis_agrees_with_the_header"

for page in "$man"/*.3; do
	section NAME "$page" | awk '$1 == ".Nm" { print $2 }' | sort >"$scratch/names"
	section SYNOPSIS "$page" | synopsis | grep -v '^typedef' |
		sed 's/(.*//; s/.*[ *]//' | sort >"$scratch/pages"
	diff "$scratch/names" "$scratch/pages"
done >"$scratch/why"
tap_quiet "name_and_synopsis_name_the_same_functions"

for page in "$man"/*.3; do
	{
		echo "#include <onefd.h>"
		section SYNOPSIS "$page" | synopsis | sed 's/$/;/'
	} >"$scratch/synopsis.c"
	compile "$scratch/synopsis.c" 2>&1
done >"$scratch/why"
tap_quiet "every_synopsis_compiles"

# Of the two errnos common to all, a free of NULL is fine, and a forked child
# makes a loop of its own.
{
	header_errnos
	prototypes | grep '^int ' | sed 's/(.*//; s/.* //' |
		awk '$1 != "onefd_free" { print $1, "EINVAL" }
		     $1 != "onefd_new" { print $1, "ECHILD" }'
} | sort -u >"$scratch/header"
for page in "$man"/*.3; do
	page_errnos "$page"
done | sort -u >"$scratch/pages"
comm -23 "$scratch/header" "$scratch/pages" | sed 's/$/: not in ERRORS/' >"$scratch/why"
tap_quiet "every_errno_of_the_header_is_in_the_page"
# The results of requests are the kernel's, and the pages list more of them.
comm -13 "$scratch/header" "$scratch/pages" | grep -v '^onefd_prep_' |
	sed 's/$/: not in the header/' >"$scratch/why"
tap_quiet "no_page_has_an_errno_that_the_header_has_not"

# The excerpts of structures: white space and comments aside, they are lines of
# the header.
statements "$HEADER" | grep '^struct onefd_[a-z]* {' | sed 's/[;{]/&\n/g' | normalise |
	sort -u >"$scratch/header"
for page in "$man"/*.3; do
	section DESCRIPTION "$page" | blocks "$scratch/struct"
	for file in "$scratch"/struct.*.c; do
		[ -f "$file" ] || continue
		statements "$file" | sed 's/[;{]/&\n/g' | normalise | grep -v '^}*$' |
			sort -u | comm -13 "$scratch/header" - | sed "s/^/${page##*/}: /"
		rm -f "$file"
	done
done >"$scratch/why"
tap_quiet "every_excerpt_is_in_the_header"

constants | sort >"$scratch/header"
sed -n 's/.*\(ONEFD_[A-Z_]*\).*/\1/p' "$man"/*.[1-9] | grep -v -e _VERSION_ -e '_$' |
	grep -v -x -f "$scratch/header" >"$scratch/why"
for word in $(cat "$scratch/header"); do
	grep -q "$word" "$man"/*.3 || echo "$word: in no page"
done >>"$scratch/why"
for word in $(members | awk '$1 == "onefd_stats" { print $2 }'); do
	grep -q "^\.It Fa.* $word\( \|$\)" "$man/onefd_stats.3" || echo "$word: not in onefd_stats.3"
done >>"$scratch/why"
grep -v '^ONEFD_[A-Z]*$' "$scratch/why" >"$scratch/rest"; mv "$scratch/rest" "$scratch/why"
tap_quiet "every_constant_and_counter_is_explained"

awk -f "$man/names.awk" "$man"/*.[1-9] | sed 's/ .*//' >"$scratch/known"
for page in "$man"/*.[1-9]; do
	echo "${page##*/}" >>"$scratch/known"
done
for page in "$man"/*.[1-9]; do
	sed -n 's/^\.Xr \(onefd[^ ]*\) \([1-9]\).*/\1.\2/p' "$page" |
		grep -v -x -F -f "$scratch/known" | sed "s/^/${page##*/}: /"
done >"$scratch/why"
tap_quiet "every_reference_to_a_page_of_ours_leads_somewhere"

# An example without #include is given the usual ones.
for page in "$man"/*.[37]; do
	base=${page##*/}
	section EXAMPLES "$page" | blocks "$scratch/$base"
done
for file in "$scratch"/onefd*.c; do
	base=${file##*/}
	grep -q '^#include' "$file" || {
		{ printf '%s "%s"\n' "$prelude" "$base"; cat "$file"; } >"$scratch/whole"
		mv "$scratch/whole" "$file"
	}
	compile "$file" >"$scratch/why" 2>&1
	tap $? "example_compiles: ${base%.c}"
done

# Whole programs are linked too. Under sanitizers the library wants more than a
# plain link gives: that is not the example's fault.
for file in $(grep -l '^int main(' "$scratch"/onefd*.c); do
	base=${file##*/}
	if [ ! -e "$LIBRARY" ]; then
		tap_skip "example_links: ${base%.c}" "no library at $LIBRARY"
		continue
	fi
	$CC -D_GNU_SOURCE -I"$SOURCE/include" -o "$scratch/program" "$file" "$LIBRARY" \
		-Wl,--allow-shlib-undefined >"$scratch/why" 2>&1
	tap $? "example_links: ${base%.c}"
	[ "$base" = onefd.7.1.c ] && mv "$scratch/program" "$scratch/lines"
done

# The program of the overview does what its page says. A library with a
# sanitizer in it does not run in a program without.
if [ ! -x "$scratch/lines" ] || nm -D "$LIBRARY" | grep -q -e __asan_ -e __tsan_; then
	tap_skip "program_of_the_overview_counts_lines" "no plain library"
else
	for page in "$man"/*; do
		LD_LIBRARY_PATH=${LIBRARY%/*} "$scratch/lines" "$page"
		echo "$(wc -l <"$page") lines in $(wc -c <"$page") bytes"
	done 2>&1 | uniq -u >"$scratch/why"
	tap_quiet "program_of_the_overview_counts_lines"
fi

# Long options, from --help and from the page.
for page in "$man"/*.1; do
	[ -f "$page" ] || continue
	base=${page##*/}
	program=$PROGRAMS/${base%.1}
	if [ ! -x "$program" ]; then
		tap_skip "options_agree: $base" "$program is not built"
		continue
	fi
	{ echo --help; "$program" --help 2>&1; } | grep -o -e '--[a-z][-a-z]*' |
		sort -u >"$scratch/help"
	sed -n 's/^\.It Fl Fl \([a-z][-a-z]*\).*/--\1/p
		s/^\.It Fl [a-zA-Z] , Fl Fl \([a-z][-a-z]*\).*/--\1/p' "$page" | sort -u >"$scratch/pages"
	diff "$scratch/help" "$scratch/pages" >"$scratch/why"
	tap_quiet "options_agree: $base"
done

tap_end
