#!/bin/sh
# What compiled programs rely on: the names the library exports, and the sizes,
# offsets and constants of the header, beside those stored in abi.txt.
#
# tests/test_abi.sh --update stores them anew. Do that when a structure or a
# prototype changed on purpose, and look at the difference before committing it.
. "$(dirname "$0")/header.sh"
stored=$SOURCE/tests/abi.txt

# A program that prints every size, offset and constant.
program()
{
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

abi()
{
	program >"$scratch/abi.c"
	$CC -I"$SOURCE/include" -o "$scratch/abi" "$scratch/abi.c" && "$scratch/abi" &&
		callbacks && prototypes
}

if [ "${1:-}" = --update ]; then
	abi >"$scratch/new" && cp "$scratch/new" "$stored"
	exit
fi

if [ "$(uname -m)" != x86_64 ]; then
	tap_skip "layout_is_the_stored_one" "abi.txt speaks of x86_64, this is $(uname -m)"
elif ! abi >"$scratch/now" 2>"$scratch/why"; then
	tap 1 "layout_is_the_stored_one"
else
	diff "$stored" "$scratch/now" >"$scratch/why" ||
		echo "If that is meant: tests/test_abi.sh --update, and commit tests/abi.txt." \
			>>"$scratch/why"
	tap_quiet "layout_is_the_stored_one"
fi

if [ ! -e "$LIBRARY" ]; then
	tap_skip "exported_names_are_those_of_the_header" "no library at $LIBRARY"
else
	functions >"$scratch/header"
	# Names that begin with an underscore are the linker's and sanitizers'.
	nm -D --defined-only "$LIBRARY" | awk '$2 ~ /[TBDRVWi]/ && $3 !~ /^_/ { print $3 }' |
		grep -v '^ONEFD_' | sort >"$scratch/library"
	sed 's/@.*//' "$scratch/library" | diff "$scratch/header" - >"$scratch/why"
	tap_quiet "exported_names_are_those_of_the_header"

	grep -v '@@ONEFD_[0-9.]*$' "$scratch/library" >"$scratch/why"
	tap_quiet "every_exported_name_has_a_version"

	readelf -d "$LIBRARY" >"$scratch/why"
	grep -q 'SONAME.*\[libonefd\.so\.[0-9]*\]' "$scratch/why"
	tap $? "soname_carries_the_abi_number"
fi

tap_end
