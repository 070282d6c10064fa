# shellcheck shell=bash
# header.sh - what the tests of the headers, the manual and the ABI share: reading
# <onefd.h> and the adapters as text. Sourced, with $0 the test; brings tap.sh along.
#
# Meson sets SOURCE, CC, LIBRARY, FUSE_LIBRARY and PROGRAMS; by hand they have defaults.
set -u
SOURCE=${SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
CC=${CC:-cc}
LIBRARY=${LIBRARY:-$SOURCE/build/lib/libonefd.so}
FUSE_LIBRARY=${FUSE_LIBRARY-$SOURCE/build/lib/fuse/libonefd-fuse.so}
PROGRAMS=${PROGRAMS:-$SOURCE/build/examples}
HEADER=$SOURCE/include/onefd.h
HEADERS=("$HEADER" "$SOURCE/include/onefd/fuse.h")	# of libraries, ours
ADAPTERS=("$SOURCE"/include/onefd/*.h)			# beside somebody else's header
. "$SOURCE/tests/tap.sh"

scratch=$(mktemp -d "${TMPDIR:-/tmp}/onefd-header.XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT

# One spelling for declarations that differ in white space only.
normalise() {
	awk '{
		gsub(/[ \t]+/, " ")
		gsub(/ ?\* ?/, "*")
		gsub(/ ?\( ?/, "(")
		gsub(/ ?\) ?/, ")")
		gsub(/ ?, ?/, ",")
		gsub(/\*/, " *")
		gsub(/\* \*/, "**")
		gsub(/\( \*/, "(*")
		gsub(/^ | $/, "")
		print
	}'
}

# The text of headers without comments and preprocessor lines, a statement a line.
statements() {
	cat "$@" | awk '
	/^#ifdef __cplusplus/	{ skip = 1 }
	!skip && !/^#/ && !more	{ text = text $0 "\n" }
	{ more = /^#/ && /\\$/ || more && /\\$/ }
	/^#endif/		{ skip = 0 }
	END {
		while ((at = index(text, "/*")) > 0) {
			rest = substr(text, at + 2)
			text = substr(text, 1, at - 1) " " substr(rest, index(rest, "*/") + 2)
		}
		gsub(/[ \t\n]+/, " ", text)
		n = split(text, part, ";")
		for (i = 1; i <= n; i++) {
			whole = whole part[i]
			opened = gsub(/{/, "{", whole)
			if (opened == gsub(/}/, "}", whole)) {
				if (whole !~ /^ *$/)
					print whole
				whole = ""
			} else {
				whole = whole ";"
			}
		}
	}' | normalise
}

# Prototypes of the exported functions, and of the callbacks.
prototypes() {
	statements "${HEADERS[@]}" | grep -v '{' | grep -v '^typedef ' | grep '(.*)$'
}

callbacks() {
	statements "${HEADERS[@]}" | grep -v '{' | grep '^typedef .*(.*)$'
}

# Of the functions that adapters define, those that are for others.
adapter_prototypes() {
	local header

	for header in "${ADAPTERS[@]}"; do
		statements "$header" | grep -oE 'static inline [^;{}]*_(attach|detach)\([^;{}]*\) ?\{'
	done | sed 's/^static inline //; s/ *{$//' | normalise
}

adapter_functions() {
	adapter_prototypes | sed 's/(.*//; s/.*[ *]//'
}

# The flags that adapter @1 needs for its host.
host_flags() {
	local package=$1

	case $1 in
	fuse) package=fuse3; echo -DFUSE_USE_VERSION=35 ;;
	glib) package=glib-2.0 ;;
	libevent) package=libevent_core ;;
	sd-event) package=libsystemd ;;
	esac
	pkg-config --cflags "$package" 2>/dev/null
}

# A compiler's word that somebody else's header is not here.
missing_header() {
	grep -o "fatal error: .*[Nn]o such file.*\|'[^ ]*' file not found" | grep -v onefd
}

functions() {
	prototypes | sed 's/(.*//; s/.*[ *]//' | sort
}

# "struct member" for each member of the public structures.
members() {
	statements "${HEADERS[@]}" | grep '^struct onefd_[a-z_]* {' | awk '{
		name = $2
		sub(/^[^{]*{/, "")
		sub(/}[^}]*$/, "")
		n = split($0, line, ";")
		for (i = 1; i <= n; i++) {
			m = split(line[i], declarator, ",")
			for (j = 1; j <= m; j++) {
				word = declarator[j]
				sub(/\[.*/, "", word)
				sub(/ *$/, "", word)
				sub(/.*[ *]/, "", word)
				if (word != "")
					print name, word
			}
		}
	}'
}

# The constants, versions left out.
constants() {
	sed -n 's/^#define[ \t]\(ONEFD_[A-Z_]*\)[ \t].*/\1/p' "${HEADERS[@]}" | grep -v _VERSION_
}
