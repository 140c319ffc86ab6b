// SPDX-License-Identifier: Apache-2.0
/*
 * A scratch directory for a test program: made once in main() and removed there, so that a test
 * that fails or is killed leaves nothing behind. Under $TMPDIR, else /tmp.
 */
#ifndef TESTS_LIB_SCRATCH_H
#define TESTS_LIB_SCRATCH_H

/* Make it (mode 0700) and return its path, which stays valid. Aborts if that fails. */
const char *scratch_create(void);

/* Remove what is in it, not crossing into other file systems. */
void scratch_clear(void);

/* Remove it with what is in it. */
void scratch_remove(void);

#endif
