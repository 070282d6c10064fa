# shellcheck shell=bash
# tap.sh - what the tests of programs share: a runner speaking TAP. Sourced.
#
#	a_rule_that_holds() { same status "$(program)" 0; }
#	run a_rule_that_holds
#	plan
count=0
failed=0

# run NAME [ARG]...: the function of that name is the test, in a shell of its own;
# 77 skips it, and its output is the reason.
run() {
	local said status

	said=$("$@" 2>&1)
	status=$?
	count=$((count + 1))
	case $status in
	0) echo "ok $count - $*" ;;
	77) echo "ok $count - $* # SKIP $said" ;;
	*)
		failed=$((failed + 1))
		echo "not ok $count - $*"
		sed 's/^/# /' <<<"$said"
		;;
	esac
}

plan() {
	echo "1..$count"
	[ "$failed" -eq 0 ]
}

# same WHAT LEFT RIGHT
same() {
	[ "$2" = "$3" ] || { echo "$1: $2 is not $3"; return 1; }
}

# Passes on what it reads and fails if that is anything: a list of what is wrong.
nothing() {
	! grep .
}

# places: the file systems to stand on, each NAME:DIRECTORY; see mounts.sh. Without it, $top.
find_places() {
	local name directory rest=${ONEFD_TEST_DIRS:-here:$top}:

	places=()
	while [ -n "$rest" ]; do
		name=${rest%%:*} rest=${rest#*:}
		directory=${rest%%:*} rest=${rest#*:}
		places+=("$name:$directory")
	done
}
