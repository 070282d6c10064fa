#!/bin/bash
# What compiled programs rely on: the names the library exports, and the sizes,
# offsets and constants of the header, beside those stored in abi.txt.
#
# What the library itself says of its types, by its debug information, stands in
# abi.xml: to be read by abidiff, which tells a change from a break.
#
# tests/test_abi.sh --update stores them anew (LIBRARY: of which library). Do that
# when a structure or a prototype changed on purpose, and look at the difference
# before committing it.
. "$(dirname "$0")/header.sh"
stored=$SOURCE/tests/abi.txt
types=$SOURCE/tests/abi.xml

# A program that prints every size, offset and constant.
program() {
	cat <<'END'
#include <onefd.h>
#define M(s, m) printf("  %-16s %5zu %5zu\n", #m, offsetof(struct s, m), \
	sizeof(((struct s *)0)->m))
int main(void)
{
END
	members | awk '
		$1 != last	{ printf "printf(\"struct %s %%zu\\n\", sizeof(struct %s));\n", $1, $1 }
				{ printf "M(%s, %s);\n", $1, $2; last = $1 }'
	constants | sed 's/.*/printf("& %#llx\\n", (unsigned long long)(&));/'
	echo 'return 0;'
	echo '}'
}

abi() {
	program >"$scratch/abi.c"
	$CC -I"$SOURCE/include" -o "$scratch/abi" "$scratch/abi.c" && "$scratch/abi" &&
		callbacks && prototypes
}

# Of the types, those that <onefd.h> shows.
public_types() {
	abidw --headers-dir "$SOURCE/include" --drop-private-types --drop-undefined-syms \
		--exported-interfaces-only --no-corpus-path --no-comp-dir-path --no-elf-needed \
		--no-show-locs --type-id-style hash "$LIBRARY"
}

if [ "${1:-}" = --update ]; then
	abi >"$scratch/new" && cp "$scratch/new" "$stored" &&
		public_types >"$scratch/new" && cp "$scratch/new" "$types"
	exit
fi

types_are_the_stored_ones() {
	[ "$(uname -m)" = x86_64 ] || { echo "abi.xml speaks of x86_64"; return 77; }
	command -v abidiff || { echo "no abidiff"; return 77; }
	readelf -SW "$LIBRARY" | grep -q '\.debug_info' || { echo "no debug information"; return 77; }
	nm -D "$LIBRARY" | grep -q -e __asan_ -e __tsan_ && { echo "a sanitizer's library"; return 77; }
	public_types >"$scratch/now.xml" && abidiff --harmless "$types" "$scratch/now.xml" && return
	echo "If that is meant: tests/test_abi.sh --update, and commit tests/abi.xml."
	return 1
}

layout_is_the_stored_one() {
	[ "$(uname -m)" = x86_64 ] || { echo "abi.txt speaks of x86_64"; return 77; }
	abi >"$scratch/now" && diff "$stored" "$scratch/now" && return
	echo "If that is meant: tests/test_abi.sh --update, and commit tests/abi.txt."
	return 1
}

# Names that begin with an underscore are the linker's and the sanitizers'.
exported() {
	nm -D --defined-only "$LIBRARY" |
		awk '$2 ~ /[TBDRVWi]/ && $3 !~ /^_/ { print $3 }' | sort
}

exported_names_are_those_of_the_header() {
	diff <(functions) <(exported | sed 's/@.*//')
}

# "name@@VERSION" for each line of the map.
mapped() {
	awk '/{$/ { version = $1 } /^\tonefd_.*;$/ { sub(/;/, ""); print $1 "@@" version }' \
		"$SOURCE/lib/onefd.map" | sort
}

map_lists_each_name_in_its_version() {
	diff <(mapped) <(exported)
}

map_has_no_patterns() {
	sed 's/^\t\*;$//' "$SOURCE/lib/onefd.map" | grep '[*?[]' | nothing
}

every_exported_name_has_a_version() {
	exported | grep -v '@@ONEFD_[0-9.]*$' | nothing
}

soname_carries_the_abi_number() {
	readelf -d "$LIBRARY" | grep 'SONAME.*\[libonefd\.so\.[0-9]*\]'
}

run layout_is_the_stored_one
run types_are_the_stored_ones
run exported_names_are_those_of_the_header
run map_lists_each_name_in_its_version
run map_has_no_patterns
run every_exported_name_has_a_version
run soname_carries_the_abi_number
plan
