#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Dependencies point one way (docs/ARCHITECTURE.md): a folder includes only what is below it, and each
# third-party library has one place. Checks itself on small trees with one violation each first.
set -eu

root=$(cd "${srcdir:-$(dirname "$0")/../..}" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Print "file:line: what is wrong" for the tree in $1.
offenders() {
	(cd "$1" && find core policy transport cache mount control cmd -name '*.[ch]' 2>/dev/null |
		LC_ALL=C sort | xargs -r awk '
	BEGIN {
		allowed["core"] = " core "
		allowed["policy"] = " core policy "
		allowed["transport"] = " core policy transport "
		allowed["cache"] = " core policy cache "
		allowed["mount"] = " core mount "
		allowed["control"] = " core control "
		allowed["cmd"] = " core policy transport cache mount control cmd "
	}
	# Third-party header → the files that may include it, as an expression.
	function home(header) {
		if (header ~ /^iscsi\//) return "^transport/iscsi_"
		if (header ~ /^rocksdb\//) return "^cache/index_rocksdb\\.c$"
		if (header ~ /^fuse/) return "^mount/"
		if (header ~ /^curl\//) return "^(transport/http|control/client)"
		if (header ~ /^microhttpd/) return "^control/server"
		if (header ~ /^liburing/) return "^cache/"
		if (header ~ /^(isa-l|crc\.h)/) return "^core/crc32c\\.c$"
		return ""
	}
	function report(why) { printf "%s:%d: %s\n", FILENAME, FNR, why }
	/^[ \t]*#[ \t]*include/ {
		folder = FILENAME
		sub(/\/.*/, "", folder)
		header = $0
		sub(/^[ \t]*#[ \t]*include[ \t]*/, "", header)
		ours = header ~ /^"/
		sub(/^["<]/, "", header)
		sub(/[">].*/, "", header)
		to = header
		sub(/\/.*/, "", to)
		if (home(header) != "") {
			if (FILENAME !~ home(header))
				report(header " belongs into files that match " home(header))
		} else if (to != header && (to in allowed)) {
			if (index(allowed[folder], " " to " ") == 0)
				report(folder " must not know " to ": " header)
		} else if (ours && header != "config.h") {
			report("say the folder: " header)
		}
	}')
}

# $1: a file to make; $2: its include line; $3: how many offences that is
try() {
	rm -rf "$tmp/tree"
	mkdir -p "$tmp/tree/$(dirname "$1")"
	printf '#include <stdint.h>\n%s\n' "$2" >"$tmp/tree/$1"
	found=$(offenders "$tmp/tree" | wc -l)
	if [ "$found" -ne "$3" ]; then
		echo "self-test: $1 with '$2' gives $found offences, not $3" >&2
		exit 1
	fi
}

try core/a.c '#include "policy/backoff.h"' 1
try core/a.h '#include "core/block.h"' 0
try policy/a.c '#include "cache/cache.h"' 1
try policy/a.c '#include "core/clock.h"' 0
try transport/a.c '#include "cache/cache.h"' 1
try transport/a.c '#include "policy/window.h"' 0
try cache/a.c '#  include "transport/url.h"' 1
try cache/sub/a.c '#include "transport/url.h"' 1
try cache/a.c '#include <transport/url.h>' 1
try mount/a.c '#include "policy/readahead.h"' 1
try control/a.h '#include "cache/cache.h"' 1
try cmd/a.c '#include "cache/cache.h"' 0
try cache/a.c '#include "cache.h"' 1
try cache/a.c '#include "../transport/url.h"' 1
try transport/iscsi_pdu.c '#include <iscsi/iscsi.h>' 0
try transport/url.c '#include <iscsi/iscsi.h>' 1
try cmd/discover.c '#include <iscsi/iscsi.h>' 1
try cache/index_rocksdb.c '#include <rocksdb/c.h>' 0
try cache/index.h '#include <rocksdb/c.h>' 1
try mount/io.c '#include <fuse_lowlevel.h>' 0
try cmd/mount.c '#include <fuse3/fuse.h>' 1
try transport/http_range.c '#include <curl/curl.h>' 0
try control/client.c '#include <curl/curl.h>' 0
try control/server.c '#include <curl/curl.h>' 1
try control/server.c '#include <microhttpd.h>' 0
try cmd/status.c '#include <microhttpd.h>' 1
try mount/io.c '#include <liburing.h>' 1
try cache/crc.c '#include <isa-l/crc.h>' 1

offenders "$root" >"$tmp/found"
if [ -s "$tmp/found" ]; then
	cat "$tmp/found"
	exit 1
fi
