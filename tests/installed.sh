# shellcheck shell=bash
# installed.sh - what the tests of an installed copy share. Sourced, with the source
# and the build directory as arguments: installs to a directory of its own, leads
# pkg-config and the dynamic linker there, and brings tap.sh along.
set -u
source=$1 build=$2
top=$(mktemp -d "${TMPDIR:-/tmp}/onefd-install.XXXXXX") || exit 1
trap 'rm -rf "$top"' EXIT
. "$source/tests/tap.sh"

meson install -C "$build" --no-rebuild --quiet --destdir "$top/installed" || exit 1
installed=$top/installed
pc=$(find "$installed" -name onefd.pc)
library=$(find "$installed" -name libonefd.so)
archive=$(find "$installed" -name libonefd.a)
fuse_pc=$(find "$installed" -name onefd-fuse.pc)
export PKG_CONFIG_PATH="${pc%/*}" PKG_CONFIG_SYSROOT_DIR="$installed" LD_LIBRARY_PATH="${library%/*}"
prefix=$installed$(PKG_CONFIG_SYSROOT_DIR= pkg-config --variable=prefix onefd)
# Where pkg-config then tells to look for the headers of libfuse.
mkdir -p "$installed/usr/include" && ln -s /usr/include/fuse3 "$installed/usr/include/"
cd "$top" || exit 1

# The text between ```@1 and ``` of the README: its only block of that language.
printed() {
	awk -v fence="\`\`\`$1" '/^```$/ { inside = 0 } inside; $0 == fence { inside = 1 }' \
		"$source/README.md" | grep ''
}

# Skips, by its status, what wants the static library, where only the other is built.
static_is_installed() {
	[ -n "$archive" ] || { echo "default_library is shared"; return 77; }
}

# What needs libfuse.
fuse_is_installed() {
	[ -n "$fuse_pc" ] || { echo "libonefd-fuse is not built"; return 77; }
}

shared_is_installed() {
	[ -n "$library" ] || { echo "default_library is static"; return 77; }
}
