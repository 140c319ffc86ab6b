// SPDX-License-Identifier: Apache-2.0
/*
 * Secrets from files: never from the command line, never into a message. A credentials file has
 * lines KEY=VALUE with the keys username, password, username_in and password_in, each at most once,
 * empty lines, and comments that begin with '#'. The value is everything behind the '='.
 */
#ifndef TRANSPORT_CREDENTIALS_H
#define TRANSPORT_CREDENTIALS_H

#include "core/err.h"
#include "transport/leaf.h"

/*
 * Read @path: a regular file (symbolic links are followed), owned by the caller or root, with no
 * permission beyond 0600. 0; -EINVAL (content; @err names the line), -EPERM (owner, mode), or the
 * errno of opening it. Values are 1 to 255 bytes without control characters or blanks at their
 * ends. Whether they go together is credentials_join()'s business. Any thread.
 */
int credentials_load(const char *path, struct leaf_credentials *ret, struct err *err);

/*
 * What the environment offers when no file is named: the file that $NEARBLK_CREDENTIALS names, else
 * $CREDENTIALS_DIRECTORY/nearblk where systemd put one there (LoadCredential=nearblk:…). All empty
 * and 0 where there is neither. Errors as above. Any thread, while nobody changes the environment.
 */
int credentials_default(struct leaf_credentials *ret, struct err *err);

/*
 * Join what a URL and a file say: @user (may be empty) becomes the username where the file has
 * none. 0, or -EINVAL with @err: two different names, half of a pair, a target that shall prove
 * itself without us doing so, or one secret for both directions (RFC 7143 9.2.1). @credentials is
 * untouched then. Any thread.
 */
int credentials_join(struct leaf_credentials *credentials, const char *user, struct err *err);

/* CHAP secrets shorter than 96 bits are weak (RFC 7143 9.2.1): say so in the log. */
void credentials_warn_chap(const struct leaf_credentials *credentials);

#endif
