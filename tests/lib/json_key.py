#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""json_key.py KEY: prints one value of the JSON on stdin. KEY is names and indices joined by
points; a last `#' is the length. Strings are printed bare, all else as JSON."""
import json
import sys

value = json.load(sys.stdin)
for step in sys.argv[1].split("."):
    if step == "#":
        value = len(value)
    elif isinstance(value, list):
        value = value[int(step)]
    else:
        value = value[step]
print(value if isinstance(value, str) else json.dumps(value))
