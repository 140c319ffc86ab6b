// SPDX-License-Identifier: Apache-2.0
#include "core/failpoint.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "core/parse.h"

struct failpoint_trap {
	enum failpoint point;
	_Atomic uint64_t left; /* passes until it springs */
};

struct failpoint_trap *failpoint_armed;

static const char *const names[FAILPOINT_COUNT] = {
#define FAILPOINT_NAME(id, name) [FAILPOINT_##id] = name,
	FAILPOINTS(FAILPOINT_NAME)
#undef FAILPOINT_NAME
};

#define FAILPOINT_WORD(id, name) " " name

int failpoint_arm(const char *text, struct err *err)
{
	static struct failpoint_trap trap;
	size_t length = strcspn(text, ":");
	uint64_t nth = 1;

	for (unsigned i = 0; i < FAILPOINT_COUNT; i++) {
		if (strlen(names[i]) != length || strncmp(names[i], text, length) != 0)
			continue;
		if (text[length] && (parse_u64(text + length + 1, &nth) < 0 || !nth))
			break;
		trap.point = i;
		atomic_store(&trap.left, nth);
		failpoint_armed = &trap;
		return 0;
	}
	return err_set(
		err, -EINVAL,
		"--debug-kill %s: not POINT[:NTH] with POINT one of" FAILPOINTS(FAILPOINT_WORD),
		text);
}

void failpoint_count(enum failpoint point)
{
	struct failpoint_trap *trap = failpoint_armed;

	if (trap->point == point && atomic_fetch_sub(&trap->left, 1) == 1)
		kill(getpid(), SIGKILL);
}
