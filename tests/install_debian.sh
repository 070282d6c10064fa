#!/bin/bash
# The Debian packages, in TAP: built from a copy of the tree, looked at, and used as
# if they were installed, with nothing installed.
# Usage: install_debian.sh SOURCE_ROOT BUILD_ROOT
set -u
source=$1 build=$2
. "$source/tests/tap.sh"

skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}

command -v dh >/dev/null && command -v dpkg-buildpackage >/dev/null || skip_all "no debhelper"
missing=$(cd "$source" && dpkg-checkbuilddeps 2>&1) || skip_all "${missing#*: }"

top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-debian.XXXXXX") || exit 1
trap 'rm -rf "$top"' EXIT
mkdir "$top/onefd" "$top/root"
tar -C "$source" -cf - --exclude=./.git --exclude='./build*' --exclude='./obj-*' \
	--exclude="./${build#"$source"/}" . | tar -C "$top/onefd" -xf - || exit 1
cd "$top/onefd" || exit 1

packages_are_built() {
	DEB_BUILD_OPTIONS='nocheck noautodbgsym parallel=2' dpkg-buildpackage -b -us -uc \
		>"$top/log" 2>&1 || { tail -n 30 "$top/log"; return 1; }
	cd "$top" && ls ./*.deb | sed 's/_.*//; s|./||' |
		diff - <(printf '%s\n' libonefd-dev libonefd-fuse-dev libonefd-fuse0 libonefd0 onefd-tools)
}

# What cannot be helped is in an override. That no bug asks for the package is a
# warning.
lintian_finds_no_errors() {
	command -v lintian >/dev/null || { echo "no lintian"; return 77; }
	lintian --fail-on error --allow-root --tag-display-limit 0 "$top"/*.changes
}

# Of what is new or gone dpkg-gensymbols speaks when it builds: here, of versions.
symbols_are_those_of_the_map() {
	sed -n 's/^ \(onefd_.*\) [0-9.]*$/\1/p' "debian/$1.symbols" | sort |
		diff <(awk '/{$/ { version = $1 }
			/^\tonefd_/ { sub(/;/, ""); print $1 "@" version }' "$2" | sort) -
}

# Files and links of package @1, compressed pages and documents without .gz.
contents() {
	dpkg-deb -c "$top/$1"_*.deb | awk '$1 !~ /^d/ { print $6 }' | sed 's/\.gz$//; s|^\./||'
}

field() {
	dpkg-deb -f "$top/$1"_*.deb "$2"
}

upstream() {
	field libonefd0 Version | sed 's/-[^-]*$//'
}

version_is_that_of_the_tree() {
	same version "$(upstream)" "$(sed -n "s/^ *version: '\(.*\)',/\1/p" meson.build)"
}

library_package_has_the_library_alone() {
	contents "${1}0" | grep -v ^usr/share/doc/ | sed 's|/[^/]*-linux-[^/]*/|/|' |
		diff - <(printf 'usr/lib/%s\n' "$1.so.$(upstream)" "$1.so.0")
}

# What there is for developers. All that is about FUSE is of that library.
for_development() {
	(cd include && find . -name '*.h' -printf 'usr/include/%P\n')
	(cd man && find . -name '*.[37]' -printf '%P\n' && awk -f names.awk ./*.[37] |
		sed 's/ .*//') | sed 's|.*\.\([37]\)$|usr/share/man/man\1/&|'
	printf "/%s\n" libonefd{,-fuse}.{a,so} pkgconfig/onefd{,-fuse}.pc
}

# development_package_has_its_own_alone PACKAGE GREP_OPTION, for what is about FUSE
development_package_has_its_own_alone() {
	local name

	contents "$1" | grep -v ^usr/share/doc/ >"$top/dev"
	for_development | grep "$2" fuse | while read -r name; do
		grep -q -x -e ".*$name" "$top/dev" || echo "no $name"
	done | nothing && grep "$2" fuse "$top/dev" | diff "$top/dev" -
}

tools_package_has_the_programs_and_their_pages() {
	local page

	contents onefd-tools >"$top/tools"
	for page in man/*.1; do
		page=$(basename "$page" .1)
		grep -qx "usr/bin/$page" "$top/tools" && grep -qx "usr/share/man/man1/$page.1" "$top/tools" ||
			echo "no $page"
		field onefd-tools Description | grep -qw -e "$page" || echo "$page not described"
	done | nothing
}

# An adapter's header is of use to those who have its host, and they have it.
hosts_are_suggested_and_not_depended_on() {
	local host

	for host in libev libevent libglib2.0 libsystemd libuv1; do
		field libonefd-dev Suggests | grep -qw -e "$host-dev" || echo "$host not suggested"
		field libonefd-dev Depends | grep -w -e "$host-dev"
		field libonefd0 Depends | grep -w -e "$host"
	done | nothing
}

packages_depend_on_one_another() {
	field libonefd-dev Depends | grep -qF "libonefd0 (= $(field libonefd0 Version))" &&
		field libonefd-dev Depends | grep -qw libaio-dev &&
		field libonefd-fuse-dev Depends | grep -qF "libonefd-fuse0 (= $(field libonefd0 Version))" &&
		field libonefd-fuse-dev Depends | grep -qw libfuse3-dev &&
		field libonefd-fuse0 Depends | grep -qF 'libonefd0 (>= ' &&
		field onefd-tools Depends | grep -qF 'libonefd0 (>= '
}

unpacked_packages_compile_and_run_a_program() {
	local package libraries

	for package in "$top"/*.deb; do
		dpkg-deb -x "$package" "$top/root" || return
	done
	libraries=$(dirname "$top"/root/usr/lib/*/libonefd.so)
	# shellcheck disable=SC2046
	cc -o "$top/outside" tests/outside.c $(PKG_CONFIG_SYSROOT_DIR=$top/root \
		PKG_CONFIG_PATH=$libraries/pkgconfig pkg-config --cflags --libs onefd) &&
		LD_LIBRARY_PATH=$libraries "$top/outside" README.md | cmp - README.md
}

unpacked_links_lead_somewhere() {
	find "$top/root" -xtype l | nothing
}

# As on a machine where the packages are: a /usr of ours above the machine's, for
# this one command.
installed() {
	local namespaces=-rm

	[ "$(id -u)" -ne 0 ] || namespaces=-m
	unshare $namespaces sh -ec 'mount -t overlay -o "lowerdir=$0/usr:/usr" overlay /usr; exec "$@"' \
		"$top/root" "$@"
}

autopkgtest_passes() {
	installed true 2>/dev/null || { echo "no mount namespaces here"; return 77; }
	mkdir "$top/autopkgtest" &&
		AUTOPKGTEST_TMP=$top/autopkgtest installed "debian/tests/$1" || return
	rm -r "$top/autopkgtest"
}

run packages_are_built
[ "$failed" -eq 0 ] || { plan; exit; }
run lintian_finds_no_errors
run symbols_are_those_of_the_map libonefd0 lib/onefd.map
run symbols_are_those_of_the_map libonefd-fuse0 lib/fuse/onefd-fuse.map
run version_is_that_of_the_tree
run library_package_has_the_library_alone libonefd
run library_package_has_the_library_alone libonefd-fuse
run development_package_has_its_own_alone libonefd-dev -v
run development_package_has_its_own_alone libonefd-fuse-dev -e
run tools_package_has_the_programs_and_their_pages
run hosts_are_suggested_and_not_depended_on
run packages_depend_on_one_another
run unpacked_packages_compile_and_run_a_program
run unpacked_links_lead_somewhere
for script in $(sed -n 's/^Tests: //p' debian/tests/control); do
	run autopkgtest_passes "$script"
done
plan
