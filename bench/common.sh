# shellcheck shell=bash disable=SC2034,SC2154 # what they set is for who sources it, and the reverse
# common.sh - what bench/nbd, bench/http and bench/fuse share: options, processor time, results.
# Sourced by them, with the defaults of their options set.
hertz=$(getconf CLK_TCK)

fail() {
	echo "bench/${0##*/}: $*" >&2
	exit 1
}

usage() {
	sed -n '/^# usage: /,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
	exit 2
}

# Each "--NAME VALUE" sets $NAME; those that the comment at the head tells of, and no others.
take_options() {
	while [ $# -gt 0 ]; do
		[[ $# -gt 1 && $1 =~ ^--[a-z]+$ ]] && grep -q -e "^#   $1 " "$0" || usage
		declare -g "${1#--}=$2"
		shift 2
	done
}

# cpu_us PID: microseconds of processor time that it has used, all its threads.
cpu_us() {
	local stat ticks

	stat=$(<"/proc/$1/stat")
	# Behind the name, which may have spaces: utime is the 12th, stime the 13th.
	read -ra ticks <<<"${stat##*) }"
	echo $(((ticks[11] + ticks[12]) * 1000000 / hertz))
}

# read_fio BLOCK_KIB: $operations of that size and $took_us, from its terse output in $scratch/fio.
read_fio() {
	local fields

	IFS=';' read -ra fields <<<"$(grep '^3;' "$scratch/fio")"
	# KiB, and milliseconds; of reads, or of writes.
	if [ "${fields[5]}" -gt 0 ]; then
		operations=$((fields[5] / $1)) took_us=$((fields[8] * 1000))
	else
		operations=$((fields[46] / $1)) took_us=$((fields[49] * 1000))
	fi
}

# per A B: 0 where there is no B.
per() {
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.6g", b ? a / b : 0 }'
}

# rotate N WORD...: the words, from the one behind the first N on, and round.
rotate() {
	local first=$(($1 % ($# - 1)))

	shift
	echo "${@:first + 1}" "${@:1:first}"
}

# record CASE[:DEPTH] CONTENDER ROUND NAME=VALUE...: for the report, and a line of JSON.
record() {
	local work=$1 who=$2 round=$3 value line

	shift 3
	for value; do
		echo "$work $who $round ${value%%=*} ${value#*=}"
	done >>"$results"
	line="{\"bench\": \"${0##*/}\", \"work\": \"${work%:*}\""
	[[ $work != *:* ]] || line+=", \"depth\": ${work#*:}"
	line+=", \"contender\": \"$who\", \"round\": $round"
	for value; do
		line+=", \"${value%%=*}\": ${value#*=}"
	done
	echo "$line}" >>"$json"
}

# record_failure CASE[:DEPTH] CONTENDER ROUND
record_failure() {
	echo "$* failed" >>"$results"
}

# report: of the first contender beside the others.
report() {
	"$tree/bench/report" "${contenders[0]}" "$results"
}
