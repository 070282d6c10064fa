#!/bin/bash
# The probes of the sources are in both libraries, and the manual has them all with
# their arguments.
. "$(dirname "$0")/header.sh"
STATIC_LIBRARY=${STATIC_LIBRARY:-${LIBRARY%.so*}.a}
USDT=${USDT:-yes}
page=$SOURCE/man/onefd-probes.7
script=$SOURCE/examples/onefd-latency.bt.in

# "probe arguments" of a library's notes
notes() {
	readelf -n "$1" 2>/dev/null | awk '
		/Provider:/	{ provider = $2 }
		/Name:/		{ name = $2 }
		/Arguments:/ && provider == "onefd" { print name, gsub(/@/, "&") }' | sort -u
}

# The same of the sources and of the manual.
sources() {
	tr '\n\t' '  ' <<<"$(cat "$SOURCE"/lib/*.c)" | grep -o '\<PROBE([^;]*);' |
		sed 's/^PROBE(\([a-z_]*\)/\1 /' | awk '{ print $1, gsub(/,/, "&") }' | sort -u
}

manual() {
	sed -n 's/^\.It Fn \([a-z_]*\) /\1 /p' "$page" | awk '{ print $1, gsub(/"/, "&") / 2 }' |
		sort -u
}

# An enum's values as the manual has them: "2 worker_kaio"
numbers() {
	tr -d '\n' <"$SOURCE/lib/$1" | grep -o "enum $2 {[^}]*}" | sed 's/.*{//; s/ = /=/' |
		tr -d '}\t ' | tr ',' '\n' | awk -F= -v prefix="$3" '
		{ sub(prefix, ""); if ($2 != "") n = $2 }
		$1 != "" && n > 0	{ print n, tolower($1) }
		{ n++ }'
}

library_without_them_has_none() {
	notes "$LIBRARY" | nothing && notes "$STATIC_LIBRARY" | nothing
}

shared_library_has_the_probes_of_the_sources() {
	diff <(sources) <(notes "$LIBRARY")
}

static_library_has_the_probes_of_the_sources() {
	diff <(sources) <(notes "$STATIC_LIBRARY")
}

manual_has_the_probes_of_the_sources() {
	[ "$(sources | wc -l)" -gt 10 ] && diff <(sources) <(manual)
}

manual_numbers_operations_and_routes_as_they_are() {
	diff <(numbers engine.h op OP_; numbers probe.h route ROUTE_) \
		<(sed -n 's/^\.It \([0-9]*\) Ta \([a-z_]*\).*/\1 \2/p' "$page")
}

probes_ask_no_semaphore() {
	readelf -n "$LIBRARY" | grep Semaphore: | grep -v 'Semaphore: 0x0*$' | nothing
}

script_names_operations_as_the_manual_does() {
	diff <(grep -o '@op\[[0-9]*\] = "[a-z]*"' "$script" | tr -c 'a-z0-9\n' ' ' |
		awk '{ print $2, $3 }') <(numbers engine.h op OP_)
}

if [ "$USDT" = no ]; then
	run library_without_them_has_none
	plan
	exit
fi
run shared_library_has_the_probes_of_the_sources
run static_library_has_the_probes_of_the_sources
run manual_has_the_probes_of_the_sources
run manual_numbers_operations_and_routes_as_they_are
run probes_ask_no_semaphore
run script_names_operations_as_the_manual_does
plan
