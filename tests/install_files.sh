#!/bin/bash
# What an installed copy consists of, in TAP: libraries and programs as hardened as
# they were compiled to be, an archive that keeps its own names to itself, the
# headers, every page of the manual under every name.
# Usage: install_files.sh SOURCE_ROOT BUILD_ROOT [FLAG]...
# FLAGs are those that every object was compiled with.
. "$(dirname "$0")/installed.sh"
shift 2

# Shared objects that are ours: the library and the programs.
objects() {
	find "$installed" -type f -name 'libonefd*.so.*'
	find "$prefix/bin" -type f -exec sh -c 'readelf -h "$1" >/dev/null 2>&1' - {} \; -print
}

# object_has WHAT OBJECT PATTERN, in what readelf says of its headers
object_has() {
	readelf -dlhW "$2" 2>/dev/null | grep -q -e "$3" || echo "$1: ${2##*/}"
}

objects_are_relocated_once_and_read_only_then() {
	local object

	for object in $(objects); do
		object_has 'no relro' "$object" GNU_RELRO
		object_has 'lazy binding' "$object" 'FLAGS_1.* NOW'
	done | nothing
}

objects_have_no_executable_stack() {
	local object

	for object in $(objects); do
		object_has 'executable stack' "$object" 'GNU_STACK.* RW  *0x'
	done | nothing
}

# Neither a path of the machine it was built on nor relocations in its code.
objects_depend_on_no_place() {
	local object

	for object in $(objects); do
		object_has 'not DYN' "$object" 'Type:.*DYN'
		readelf -dW "$object" | grep -e RPATH -e RUNPATH -e TEXTREL
	done | nothing
}

programs_are_position_independent() {
	local program

	for program in "$installed"/usr/local/bin/*; do
		object_has 'not a PIE' "$program" 'FLAGS_1.* PIE'
	done | nothing
}

# A callback of the kernel context's destruction may be running when it is closed.
library_is_never_unloaded() {
	shared_is_installed || return
	object_has 'may be unloaded' "$library" 'FLAGS_1.* NODELETE' | nothing
}

# What gcc was told is in the debug information, a line for each file.
every_file_is_compiled_with() {
	local from=${archive:-$library}

	readelf --debug-dump=info "$from" 2>/dev/null | grep 'DW_AT_producer.*GNU C' >producers ||
		{ echo "no debug information of gcc"; return 77; }
	grep -v -e "$1" producers | nothing
}

# Stack protector and fortified calls leave names of the C library's behind.
library_calls_the_checking_functions() {
	local name

	shared_is_installed || return
	for name; do
		nm -D "$library" | grep -q " U $name" || echo "$name"
	done | nothing
}

# The base of SystemTap's notes belongs to no library: the linker keeps one of all.
archive_names() {
	nm -g --defined-only "$archive" | awk '$3 && $3 != "_.stapsdt.base" { print $3 }' | sort -u
}

archive_has_the_names_of_the_header_alone() {
	static_is_installed || return
	archive_names | diff <(sed -n 's/^\t\(onefd_.*\);$/\1/p' "$source/lib/onefd.map" | sort) -
}

fuse_archive_has_the_names_of_its_header_alone() {
	fuse_is_installed && static_is_installed || return
	nm -g --defined-only "${archive%.a}-fuse.a" | awk 'NF == 3 { print $3 }' | sort -u |
		diff <(sed -n 's/^\t\(onefd_.*\);$/\1/p' "$source/lib/fuse/onefd-fuse.map" | sort) -
}

archive_has_nothing_for_a_second_optimization() {
	static_is_installed || return
	readelf -SW "$archive" | grep -F .gnu.lto_ | nothing
}

# A program with every name that our files have for each other, and a loop.
usurper() {
	cat <<-'END'
		#include <onefd.h>
		static int answer = 1;
		static void ring(struct onefd_timer *timer) { (void)timer; answer = 0; }
		int main(void)
		{
			struct onefd_timer timer;
			struct onefd *loop;
			if (onefd_new(&loop, NULL) < 0)
				return 2;
			onefd_timer_init(&timer, ring);
			onefd_timer_start(loop, &timer, 0);
			return onefd_run(loop) < 0 || onefd_free(loop) < 0 || answer;
		}
	END
	sed 's/.*/int &(void); int &(void) { abort(); }/' private_names
}

program_may_have_every_private_name_itself() {
	static_is_installed || return
	nm -g --defined-only "$build/lib/libonefd-private.a" |
		awk 'NF == 3 && $3 !~ /^(onefd_|_)/ { print $3 }' | sort -u >private_names
	grep -qx sys private_names && grep -qx heap_insert private_names || return
	{ echo '#include <stdlib.h>'; usurper; } >usurper.c
	# shellcheck disable=SC2046
	cc -static -o usurper usurper.c $(pkg-config --cflags --static --libs onefd) && ./usurper
}

# Both have notes, and the linker keeps the base of one of them.
program_may_have_probes_of_its_own() {
	static_is_installed || return
	{ echo '#include <sys/sdt.h>'; cat "$source/tests/outside.c"; } |
		sed 's/^\tif (argc != 2)/\tDTRACE_PROBE(outside, begin);\n&/' >probed.c
	cc -E -include sys/sdt.h -x c /dev/null >/dev/null 2>&1 || { echo "no sys/sdt.h"; return 77; }
	# shellcheck disable=SC2046
	cc -static -o probed probed.c $(pkg-config --cflags --static --libs onefd) &&
		readelf -n probed | grep -q 'Provider: outside' && ./probed probed.c | cmp - probed.c
}

# Names of files, but for those that are about FUSE where that is not built.
built() {
	if [ -n "$fuse_pc" ]; then cat; else grep -v fuse; fi
}

every_header_is_installed() {
	diff <(cd "$source/include" && find . -name '*.h' | built | sort) \
		<(cd "$prefix/include" && find . -name '*.h' | sort)
}

# "file leads to" for each page: pages to themselves, aliases to their page. That of
# a program which is not here has nothing to tell.
pages_wanted() {
	local page

	for page in "$source"/man/*.[2-9] "$prefix"/bin/*; do
		[ "${page%/bin/*}" = "$page" ] || page=$page.1
		echo "${page##*/} ${page##*/}"
	done
	awk -f "$source/man/names.awk" "$source"/man/*.[1-9]
}

every_page_is_installed_under_each_of_its_names() {
	local name page at

	[ -d "$prefix/share/man" ] || { echo "no manual here"; return 77; }
	while read -r name page; do
		at=$prefix/share/man/man${name##*.}
		cmp "$at/$name" "$source/man/$page"
	done < <(pages_wanted | built) 2>&1 | nothing
}

no_page_is_installed_without_its_program() {
	local page

	for page in "$prefix"/share/man/man1/*; do
		[ -x "$prefix/bin/$(basename "$page" .1)" ] || echo "$page"
	done | nothing
}

every_function_has_a_page_of_its_name() {
	local name

	[ -d "$prefix/share/man" ] || { echo "no manual here"; return 77; }
	for name in $(sed -n 's/^\t\(onefd_.*\);$/\1/p' "$source/lib/onefd.map" "$source"/lib/fuse/*.map |
		built); do
		[ -s "$prefix/share/man/man3/$name.3" ] || echo "$name"
	done | nothing
}

run objects_are_relocated_once_and_read_only_then
run objects_have_no_executable_stack
run objects_depend_on_no_place
run programs_are_position_independent
run library_is_never_unloaded
checking=
for flag; do
	case $flag in
	-D_FORTIFY_SOURCE=*) checking="$checking __fprintf_chk" ;;
	-U*) ;;
	*) run every_file_is_compiled_with "$flag" ;;
	esac
done
run library_calls_the_checking_functions __stack_chk_fail $checking
run archive_has_the_names_of_the_header_alone
run fuse_archive_has_the_names_of_its_header_alone
run archive_has_nothing_for_a_second_optimization
run program_may_have_every_private_name_itself
run program_may_have_probes_of_its_own
run every_header_is_installed
run every_page_is_installed_under_each_of_its_names
run no_page_is_installed_without_its_program
run every_function_has_a_page_of_its_name
plan
