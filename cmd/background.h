// SPDX-License-Identifier: Apache-2.0
/* How a daemon parts from who started it. One thread, the main one. */
#ifndef CMD_BACKGROUND_H
#define CMD_BACKGROUND_H

#include <stdbool.h>

/*
 * Tell whoever waits at *@fd: 'E' why it failed, 'R' that it is ready and perhaps a warning; then
 * *@fd is closed and -1. With -1 there is a terminal instead, and it goes there. False: nobody
 * listens any more.
 */
bool background_tell(int *fd, char kind, const char *text);

/*
 * No descriptor, terminal, directory or mask of the caller stays with us; but what it hears from
 * us: *@ready_fd gets another number.
 */
void background_leave_caller(int *ready_fd);

/*
 * Helpers may still have spoken on the terminal while we started; from now on nobody does. The last
 * words of a failed assertion go where the log goes.
 */
void background_leave_terminal(void);

#endif
