#!/bin/sh
# own_mounts.sh - runs a command in a mount namespace of its own.
#
# Usage: own_mounts.sh COMMAND [ARGUMENT...]
#
# What it mounts goes with its last process, even where all are killed. Left behind,
# a mount that lost its daemon spoils what comes after: over such a loop device's
# file mkfs.btrfs refuses to make any file system. Who may not have a namespace
# mounts nothing either: the command runs as it is.

[ $# -gt 0 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
unshare --mount true 2>/dev/null && exec unshare --mount -- "$@"
exec "$@"
