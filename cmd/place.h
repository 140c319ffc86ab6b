// SPDX-License-Identifier: Apache-2.0
/* Where things of this user and host are kept. One thread, before others start. */
#ifndef CMD_PLACE_H
#define CMD_PLACE_H

#include <limits.h>

#include "core/err.h"

/*
 * The directory that holds the default cache directories: $NEARBLK_STATE_DIR, /var/lib/nearblk for
 * root, $XDG_STATE_HOME/nearblk or ~/.local/state/nearblk for others. Made by nobody yet. 0, or
 * -ENOENT with @err when no home is known, -ENAMETOOLONG.
 */
int place_state_dir(char ret[PATH_MAX], struct err *err);

/*
 * Where control sockets go for a user without a runtime directory: ".run" in the state directory.
 * @buf, or NULL when that is not known. Makes nothing.
 */
const char *place_run_dir(char buf[PATH_MAX]);

/* Make @path (absolute) and what is missing above it, mode 0700. 0, or -errno with @err. */
int place_make_dirs(const char *path, struct err *err);

/* @path made absolute with the working directory, not otherwise changed. 0, -ENAMETOOLONG, … */
int place_absolute(const char *path, char ret[PATH_MAX], struct err *err);

/*
 * Remember that @cache_dir is in use outside of the state directory, so that `nearblk status` finds
 * it while it is not mounted; nothing to do for one inside. Best effort.
 */
void place_remember(const char *cache_dir);
/* Undo it: nothing dirty is left there. */
void place_forget(const char *cache_dir);

/*
 * Call @each with every cache directory that is known: those inside the state directory and the
 * remembered ones. Non-zero from @each ends the walk and is returned.
 */
int place_each(int (*each)(void *ctx, const char *cache_dir), void *ctx);

#endif
