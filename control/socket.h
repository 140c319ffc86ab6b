// SPDX-License-Identifier: Apache-2.0
/*
 * Where control sockets live. What lives in this folder: the HTTP server of a daemon, the
 * client of the command line, and how they find each other. What may not: anything about
 * caches, mounts or the command line itself; those come in as a table of functions.
 *
 * There is one socket per cache directory, named after it, in a directory that only its owner
 * can enter: $NEARBLK_RUNTIME_DIR, else /run/nearblk for root and $XDG_RUNTIME_DIR/nearblk or
 * /run/user/UID/nearblk for others, where these are the user's own; else the fallback that the
 * caller names (su, cron: no session, no runtime directory). The holder of the cache directory's
 * lock is the one that may bind its socket; so a socket that is in its way was left by a dead
 * daemon.
 */
#ifndef CONTROL_SOCKET_H
#define CONTROL_SOCKET_H

#include <limits.h>
#include <stdbool.h>
#include <sys/un.h>

#include "core/err.h"

#define CONTROL_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path))

/*
 * Write the path of the socket that belongs to @cache_dir (absolute); makes the directory (0700)
 * if it is missing, not its parents. @fallback (NULL: none) is an absolute path. 0, or -errno with
 * @err: no runtime directory is known (-ENOENT), it belongs to somebody else or is open to others
 * (-EPERM), the path is too long for a socket (-ENAMETOOLONG). Any thread.
 */
int control_socket_path(const char *cache_dir, const char *fallback, char ret[CONTROL_PATH_MAX],
			struct err *err);

/*
 * True if somebody listens on the socket of @cache_dir, as control_socket_path() would name it: its
 * daemon is up. Makes nothing, waits for nothing. Any thread.
 */
bool control_socket_answers(const char *cache_dir, const char *fallback);

/*
 * Call @each with the path of every socket that this user may speak to: the own ones, those in
 * @fallback (NULL: none), and for root those in all users' /run/user. A non-zero return of @each
 * ends the walk and is returned; 0 otherwise. A directory that is not there counts as empty. Any
 * thread.
 */
int control_socket_each(const char *fallback, int (*each)(void *ctx, const char *path), void *ctx);

#endif
