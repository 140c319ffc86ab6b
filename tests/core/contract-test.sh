#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every function that a header declares has a contract: a comment right above it, above the group it
# stands in (no blank line in between), or behind it on its line. Static inline functions show
# theirs. Checks itself on small headers first.
set -eu

root=$(cd "${srcdir:-$(dirname "$0")/../..}" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Print "file:line: declaration" for each offender in the tree in $1.
offenders() {
	(cd "$1" && find core policy transport cache mount control cmd -name '*.h' 2>/dev/null |
		LC_ALL=C sort | xargs -r awk '
	FNR == 1 { comment = macro = depth = covered = 0; text = "" }
	{
		line = $0
		here = 0 # a comment touches this line
		if (macro) {
			macro = line ~ /\\$/
			next
		}
		if (!comment && line ~ /^[ \t]*#/) {
			macro = line ~ /\\$/
			covered = 0
			next
		}
		# Take comments out, which may begin and end anywhere.
		code = ""
		while (line != "") {
			if (comment) {
				here = 1
				at = index(line, "*/")
				if (!at)
					break
				line = substr(line, at + 2)
				comment = 0
				continue
			}
			at = index(line, "/*")
			if (!at) {
				code = code line
				break
			}
			here = 1
			code = code substr(line, 1, at - 1)
			line = substr(line, at + 2)
			comment = 1
		}
		sub(/\/\/.*/, "", code)
		gsub(/[ \t]+/, " ", code)
		if (code ~ /^ ?$/) {
			if (depth == 0 && text == "")
				covered = here
			next
		}
		# Statements of the file itself; bodies in braces are left out.
		n = length(code)
		for (i = 1; i <= n; i++) {
			c = substr(code, i, 1)
			if (c == "{") {
				depth++
			} else if (c == "}") {
				depth--
				# The end of a function; behind a struct a ; follows.
				if (depth == 0 && text ~ /\)[^)]*$/)
					text = ""
			} else if (depth == 0) {
				if (text == "") {
					if (c == " ")
						continue
					start = FNR
				}
				text = text c
				if (c != ";")
					continue
				if (text ~ /\(.*\)/ && text !~ /^(typedef|static|_Static_assert) ?/ &&
				    text !~ /^[^()]*\(\*/ && !covered && !here)
					printf "%s:%d: no contract: %s\n", FILENAME, start, text
				text = ""
			}
		}
		if (text != "")
			text = text " "
	}')
}

# $1: how many offenders; stdin: a header
try() {
	rm -rf "$tmp/tree"
	mkdir -p "$tmp/tree/core"
	cat >"$tmp/tree/core/a.h"
	found=$(offenders "$tmp/tree" | wc -l)
	if [ "$found" -ne "$1" ]; then
		echo "self-test: $found offenders, not $1, in:" >&2
		cat "$tmp/tree/core/a.h" >&2
		exit 1
	fi
}

try 1 <<'END'
/* What this header is for. */
#include <stdint.h>

int naked(void);
END
try 1 <<'END'
/* Says something. */
int said(void);

int naked(int a,
	  int b);
END
try 0 <<'END'
/*
 * Says something,
 * of both.
 */
int said(void);
__attribute__((format(printf, 1, 2))) int said_too(const char *fmt,
						   ...);
END
try 1 <<'END'
/* A struct. */
struct x {
	int (*member)(void); /* not a function of ours */

	int other;
};

struct x *naked(const struct x *from);
END
try 0 <<'END'
typedef void done_fn(int result);

static inline int two(void)
{
	return 2;
}

struct later;
extern int (*hook)(int);

int behind(void); /* Says something. */

#define CALL(a)                                                                                    \
	int naked(void);
END
try 1 <<'END'
static inline int two(void)
{
	return 2;
}

int naked(void);
END

offenders "$root" >"$tmp/found"
if [ -s "$tmp/found" ]; then
	cat "$tmp/found"
	exit 1
fi
