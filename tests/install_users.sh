#!/bin/bash
# How others build with an installed copy, in TAP: what pkg-config says, programs in
# C and C++, shared and static, the adapters, meson and CMake as the README has it.
# Usage: install_users.sh SOURCE_ROOT BUILD_ROOT
. "$(dirname "$0")/installed.sh"
strict='-Wall -Wextra -Wpedantic -Werror'

# COMPILER is here, or the test is skipped.
have() {
	command -v "$1" >/dev/null || { echo "no $1"; return 77; }
}

prints_a_file() {
	"$1" "$source/tests/outside.c" | cmp - "$source/tests/outside.c"
}

# ---- pkg-config ----

pkg_config_file_is_valid() {
	pkg-config --validate onefd
}

fuse_pkg_config_file_is_valid() {
	fuse_is_installed && pkg-config --validate onefd-fuse
}

pkg_config_names_the_version_of_the_library() {
	# shellcheck disable=SC2046
	cc -o version "$source/tests/outside.c" $(pkg-config --cflags --libs onefd) &&
		same version "$(./version --version)" "$(pkg-config --modversion onefd)"
}

# What is behind the library is the linker's business in a static program alone.
pkg_config_names_what_is_behind_for_static_programs_only() {
	local with

	shared_is_installed || return
	same --libs "$(pkg-config --libs-only-l onefd | xargs)" -lonefd || return
	with=$(pkg-config --static --libs-only-l onefd | xargs)
	same '--static --libs' "$with" '-lonefd -laio -lpthread' || return
	same --cflags "$(pkg-config --cflags onefd | xargs)" "-I$prefix/include"
}

a_copy_may_be_moved() {
	local flags

	cp -a "$installed" moved &&
		flags=$(PKG_CONFIG_PATH=${PKG_CONFIG_PATH/#$installed/$top/moved} \
			PKG_CONFIG_SYSROOT_DIR=$top/moved pkg-config --cflags --libs onefd) || return
	same flags "$(xargs <<<"$flags")" "$(pkg-config --cflags --libs onefd |
		xargs | sed "s|$installed/|$top/moved/|g")" &&
		cc -o moved/version "$source/tests/outside.c" $flags && prints_a_file moved/version
}

# ---- programs ----

# outside_program COMPILER LANGUAGE STANDARD
outside_program() {
	have "$1" || return
	# shellcheck disable=SC2046,SC2086
	"$1" -x "$2" -std="$3" $strict -o shared "$source/tests/outside.c" -x none \
		$(pkg-config --cflags --libs onefd) && prints_a_file ./shared || return
	[ -n "$archive" ] || return 0
	# shellcheck disable=SC2046,SC2086
	"$1" -x "$2" -std="$3" $strict -static -o static "$source/tests/outside.c" -x none \
		$(pkg-config --cflags --static --libs onefd) && prints_a_file ./static
}

# outside_fuse_program COMPILER LANGUAGE STANDARD
outside_fuse_program() {
	have "$1" && fuse_is_installed || return
	# shellcheck disable=SC2046,SC2086
	"$1" -x "$2" -std="$3" $strict -o shared "$source/tests/outside_fuse.c" -x none \
		$(pkg-config --cflags --libs onefd-fuse) && ./shared || return
	[ -n "$archive" ] || return 0
	# shellcheck disable=SC2046,SC2086
	"$1" -x "$2" -std="$3" $strict -static -o static "$source/tests/outside_fuse.c" -x none \
		$(pkg-config --cflags --static --libs onefd-fuse) && ./static
}

a_shared_program_needs_one_library_of_ours() {
	shared_is_installed || return
	readelf -d version | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' |
		diff <(printf 'libonefd.so.0\nlibc.so.6\n') -
}

an_optimized_program_takes_the_archive() {
	static_is_installed || return
	# shellcheck disable=SC2046
	cc -O2 -flto=auto -static -o optimized "$source/tests/outside.c" \
		$(pkg-config --cflags --static --libs onefd) && prints_a_file ./optimized
}

# ---- adapters ----

# The package of adapter @1's host.
host_package() {
	case $1 in
	glib) echo glib-2.0 ;;
	libevent) echo libevent_core ;;
	sd-event) echo libsystemd ;;
	*) echo "$1" ;;
	esac
}

# What compiler and linker are told of the host of adapter @1. libev has no .pc.
host_flags() {
	if [ "$1" = libev ]; then
		cc -E -include ev.h -x c /dev/null >/dev/null 2>&1 && echo -lev
	else
		PKG_CONFIG_SYSROOT_DIR='' pkg-config --cflags --libs "$(host_package "$1")" 2>/dev/null
	fi
}

# Every function of the header is compiled, called or not, and linked.
adapter_is_linked() {
	local flags

	have "$2" || return
	flags=$(host_flags "$1") || { echo "no $(host_package "$1")"; return 77; }
	printf '#include <onefd/%s.h>\nint main(void) { return 0; }\n' "$1" >adapter.c
	# shellcheck disable=SC2046,SC2086
	"$2" -x "$3" -std="$4" -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-function \
		-Wno-strict-aliasing -fkeep-inline-functions -fkeep-static-functions -o adapter adapter.c \
		-x none $(pkg-config --cflags --libs onefd) $flags && ./adapter
}

# ---- other builders, with the program and the files of the README ----

project() {
	mkdir "$1" && printed c >"$1/first.c"
}

prints_passwd() {
	"$1" | cmp - /etc/passwd
}

meson_finds_it() {
	project by-meson && printed meson >by-meson/meson.build &&
		meson setup by-meson/build by-meson && ninja -C by-meson/build &&
		prints_passwd by-meson/build/first
}

cmake_finds_it() {
	have cmake || return
	project by-cmake && printed cmake >by-cmake/CMakeLists.txt &&
		cmake -S by-cmake -B by-cmake/build && cmake --build by-cmake/build &&
		prints_passwd by-cmake/build/first
}

# meson_builds_it_as_a_subproject NAME [OPTION]...
meson_builds_it_as_a_subproject() {
	local name=$1

	shift
	project "$name" && printed meson >"$name/meson.build" && mkdir "$name/subprojects" &&
		ln -s "$source" "$name/subprojects/onefd" || return
	env -u PKG_CONFIG_PATH -u PKG_CONFIG_SYSROOT_DIR -u LD_LIBRARY_PATH \
		meson setup "$name/build" "$name" --wrap-mode=forcefallback "$@" &&
		ninja -C "$name/build" && env -u LD_LIBRARY_PATH "$name/build/first" | cmp - /etc/passwd
}

a_static_subproject_goes_into_the_program() {
	readelf -d subproject-static/build/first | grep NEEDED.*libonefd | nothing
}

nothing_of_fuse_is_built_without_libfuse() {
	meson setup without "$source" -Dfuse=disabled &&
		meson introspect without --installed | tr , '\n' | grep fuse | nothing
}

a_subproject_builds_the_library_alone() {
	meson introspect subproject/build --targets |
		grep -oE '"name": "[^"]*"' | sort | diff - <(printf '"name": "%s"\n' \
			first libonefd.a onefd onefd-private | sort) || return
	DESTDIR=$top/outer meson install -C subproject/build --quiet &&
		find outer \( -path '*/bin/*' -o -path '*/man/*' \) | nothing
}

run pkg_config_file_is_valid
run fuse_pkg_config_file_is_valid
run pkg_config_names_the_version_of_the_library
run pkg_config_names_what_is_behind_for_static_programs_only
run a_copy_may_be_moved
for standard in c99 c11 c17 c2x; do
	run outside_program cc c $standard
done
for standard in c++11 c++14 c++17 c++20; do
	run outside_program c++ c++ $standard
done
for standard in c99 c17; do
	run outside_fuse_program cc c $standard
done
for standard in c++11 c++20; do
	run outside_fuse_program c++ c++ $standard
done
run outside_program clang c c99
run outside_program clang++ c++ c++11
run a_shared_program_needs_one_library_of_ours
run an_optimized_program_takes_the_archive
for header in "$source"/include/onefd/*.h; do
	name=$(basename "$header" .h)
	[ "$name" != fuse ] || continue		# has a library, and a program above
	run adapter_is_linked "$name" gcc c c99
	run adapter_is_linked "$name" g++ c++ c++11
	run adapter_is_linked "$name" g++ c++ c++20
done
run meson_finds_it
run cmake_finds_it
run nothing_of_fuse_is_built_without_libfuse
run meson_builds_it_as_a_subproject subproject
run a_subproject_builds_the_library_alone
run meson_builds_it_as_a_subproject subproject-static -Donefd:default_library=static
run a_static_subproject_goes_into_the_program
plan
