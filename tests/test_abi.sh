#!/bin/bash
# What compiled programs rely on: the names the library exports, and the sizes,
# offsets and constants of the header, beside those stored in abi.txt, and for
# libonefd-fuse in abi-fuse.txt.
#
# What a library itself says of its types, by its debug information, stands in
# abi.xml and abi-fuse.xml: to be read by abidiff, which tells a change from a break.
#
# tests/test_abi.sh --update stores them anew (LIBRARY, FUSE_LIBRARY: of which). Do that
# when a structure or a prototype changed on purpose, and look at the difference
# before committing it.
. "$(dirname "$0")/header.sh"

# about NAME: of which library all that follows speaks; false where it is not built.
about() {
	case $1 in
	libonefd)
		HEADERS=("$SOURCE/include/onefd.h") library=$LIBRARY
		map=$SOURCE/lib/onefd.map stored=$SOURCE/tests/abi flags=
		;;
	libonefd-fuse)
		HEADERS=("$SOURCE/include/onefd/fuse.h") library=$FUSE_LIBRARY
		map=$SOURCE/lib/fuse/onefd-fuse.map stored=$SOURCE/tests/abi-fuse
		flags=$(host_flags fuse)
		;;
	esac
	[ -f "$library" ]
}

# A program that prints every size, offset and constant.
program() {
	echo "#include <${HEADERS[0]#"$SOURCE/include/"}>"
	cat <<'END'
#include <stdio.h>
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
	# shellcheck disable=SC2086
	$CC $flags -I"$SOURCE/include" -o "$scratch/abi" "$scratch/abi.c" && "$scratch/abi" &&
		callbacks && prototypes
}

# Of the types, those that our headers show.
public_types() {
	abidw --headers-dir "$SOURCE/include" --drop-private-types --drop-undefined-syms \
		--exported-interfaces-only --no-corpus-path --no-comp-dir-path --no-elf-needed \
		--no-show-locs --type-id-style hash "$library"
}

if [ "${1:-}" = --update ]; then
	for name in libonefd libonefd-fuse; do
		about $name || { echo "$name is not built"; continue; }
		abi >"$scratch/new" && cp "$scratch/new" "$stored.txt" &&
			public_types >"$scratch/new" && cp "$scratch/new" "$stored.xml"
	done
	exit
fi

types_are_the_stored_ones() {
	[ "$(uname -m)" = x86_64 ] || { echo "abi.xml speaks of x86_64"; return 77; }
	command -v abidiff || { echo "no abidiff"; return 77; }
	readelf -SW "$library" | grep -q '\.debug_info' || { echo "no debug information"; return 77; }
	nm -D "$library" | grep -q -e __asan_ -e __tsan_ && { echo "a sanitizer's library"; return 77; }
	public_types >"$scratch/now.xml" && abidiff --harmless "$stored.xml" "$scratch/now.xml" && return
	echo "If that is meant: tests/test_abi.sh --update, and commit ${stored##*/}.xml."
	return 1
}

layout_is_the_stored_one() {
	[ "$(uname -m)" = x86_64 ] || { echo "abi.txt speaks of x86_64"; return 77; }
	abi >"$scratch/now" && diff "$stored.txt" "$scratch/now" && return
	echo "If that is meant: tests/test_abi.sh --update, and commit ${stored##*/}.txt."
	return 1
}

# Names that begin with an underscore are the linker's and the sanitizers'.
exported() {
	nm -D --defined-only "$library" |
		awk '$2 ~ /[TBDRVWi]/ && $3 !~ /^_/ { print $3 }' | sort
}

exported_names_are_those_of_the_header() {
	diff <(functions) <(exported | sed 's/@.*//' | sort)
}

# "name@@VERSION" for each line of the map.
mapped() {
	awk '/{$/ { version = $1 } /^\tonefd_.*;$/ { sub(/;/, ""); print $1 "@@" version }' \
		"$map" | sort
}

map_lists_each_name_in_its_version() {
	diff <(mapped) <(exported)
}

map_has_no_patterns() {
	sed 's/^\t\*;$//' "$map" | grep '[*?[]' | nothing
}

every_exported_name_has_a_version() {
	exported | grep -v '@@ONEFD_\(FUSE_\)\?[0-9.]*$' | nothing
}

soname_carries_the_abi_number() {
	readelf -d "$library" | grep "SONAME.*\[$1\.so\.[0-9]*\]"
}

# of_library NAME RULE: a rule, told with the name of the library that keeps it.
of_library() {
	about "$1" || { echo "$1 is not built"; return 77; }
	"$2" "$1"
}

for name in libonefd libonefd-fuse; do
	run of_library $name layout_is_the_stored_one
	run of_library $name types_are_the_stored_ones
	run of_library $name exported_names_are_those_of_the_header
	run of_library $name map_lists_each_name_in_its_version
	run of_library $name map_has_no_patterns
	run of_library $name every_exported_name_has_a_version
	run of_library $name soname_carries_the_abi_number
done
plan
