// SPDX-License-Identifier: Apache-2.0
/*
 * A read-only leaf device over one file of a web server: http://… and https://…, read with range
 * requests over several connections (RFC 9110 14).
 */
#ifndef TRANSPORT_HTTP_H
#define TRANSPORT_HTTP_H

#include "core/block.h"
#include "transport/leaf.h"

/*
 * Make the device for conf->url, with conf->sessions connections and conf->credentials (username,
 * password) for Basic authentication. 0 with *@ret owned by the caller, or -ENOMEM with @err. Does
 * not connect. Any thread.
 *
 * blk_start() asks for one byte to learn the size and the version (ETag, else Last-Modified); it
 * fails with -ENOTSUP (no byte ranges, or empty), -EACCES, -ENOENT, -ETIMEDOUT after
 * conf->connect_timeout_ns, or -EIO where the server cannot be reached or used.
 *
 * A READ ends with 0 only when every byte is proven to belong to the range and version asked for.
 * It waits, trying again with a growing pause, while the server is out of reach or overloaded;
 * advisory reads end with -ECANCELED then. Once the server shows another version, every READ ends
 * with -EIO until the device is destroyed. The sector size is 512, or 1 where the file's size is no
 * multiple of that. blk_stop() interrupts all transfers.
 */
int http_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err);

#endif
