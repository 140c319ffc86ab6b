// SPDX-License-Identifier: Apache-2.0
/* The command line's side of control/server.h. */
#ifndef CONTROL_CLIENT_H
#define CONTROL_CLIENT_H

#include <jansson.h>
#include <stdint.h>

#include "core/err.h"

struct control_client;

/*
 * A client for the socket at @path; does not connect yet. Each call gives up after @timeout_ns.
 * One thread at a time. NULL: out of memory.
 */
struct control_client *control_client_create(const char *path, uint64_t timeout_ns);

/* NULL is fine. */
void control_client_destroy(struct control_client *client);

/*
 * One request: @method, @path ("/v1/…"), @body (NULL: none; lent). 0: the answer was 2xx, and
 * *@ret_reply (may be NULL) is a new reference to its JSON. Otherwise @err holds the server's text
 * or the reason, and the result is: -ECONNREFUSED, no daemon listens there; -ECONNRESET, it went
 * away during the call; -ETIMEDOUT; -EACCES (403 or the socket's mode), -EINVAL (400, 405, 413),
 * -ENOENT (404), -EBUSY (409), -EAGAIN (503), -EIO (500), -EPROTO (not understood).
 */
int control_call(struct control_client *client, const char *method, const char *path,
		 const json_t *body, json_t **ret_reply, struct err *err);

#endif
