#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A short soak. MINUTES=10 SEED=5 soak.sh: so long, these choices.
exec "$(dirname "$0")/../soak" --minutes "${MINUTES:-1.2}" ${SEED:+--seed "$SEED"}
