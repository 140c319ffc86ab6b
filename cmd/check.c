// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cache/identity.h"
#include "cache/lio.h"
#include "cmd/cmd.h"
#include "cmd/place.h"
#include "core/parse.h"

int cmd_check(struct option_set *set)
{
	return cmd_usage(set, "not yet");
}
