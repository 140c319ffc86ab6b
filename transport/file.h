// SPDX-License-Identifier: Apache-2.0
/*
 * A leaf device over a raw file or a block device of this host: file:///absolute/path. Read and
 * written through the page cache by a small pool of threads.
 */
#ifndef TRANSPORT_FILE_H
#define TRANSPORT_FILE_H

#include "core/block.h"
#include "transport/leaf.h"

/*
 * Make the device for conf->url.path; blk_start() opens it. 0 with *@ret owned by the caller, or
 * -ENOMEM with @err. Any thread.
 *
 * blk_start() fails with -EISDIR, -EINVAL (no file or block device, empty, not a whole number of
 * sectors), -EBUSY (locked by another program, or mounted), or the errno of opening it. It holds
 * flock(2) until destroyed: exclusive, or shared where read-only.
 *
 * DISCARD: files punch a hole; block devices take it only where the kernel zeroes in hardware
 * (never a plain discard, behind which anything may read). A failed write-out moves
 * blk_generation(): the kernel forgets what it could not write (fsync(2)). blk_stop() ends queued
 * requests with -ESHUTDOWN and waits for the system calls under way.
 */
int file_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err);

#endif
