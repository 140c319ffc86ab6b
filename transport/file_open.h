// SPDX-License-Identifier: Apache-2.0
/* Opening the file or block device behind a file leaf, and what can be learnt from it. */
#ifndef TRANSPORT_FILE_OPEN_H
#define TRANSPORT_FILE_OPEN_H

#include <stdbool.h>

#include "core/block.h"
#include "core/err.h"

struct file_fds {
	int fd; /* locked; -1: not open */
	/*
	 * A second open file for FUA writes. Each open file is told of a failed write-out once
	 * (errseq_t in the kernel): a FUA write must not swallow what a FLUSH has to hear.
	 */
	int fua_fd;
	bool block_device;
	bool can_punch; /* FALLOC_FL_PUNCH_HOLE works, and what it punched reads as zeroes */
};

/*
 * Open and lock @path and fill in *@ret_info. 0 with both descriptors owned by the caller, or
 * -errno with @err. May wait a second for a lock that udev holds for a moment. Any thread.
 */
int file_open(const char *path, bool read_only, struct file_fds *ret, struct blk_info *ret_info,
	      struct err *err);

#endif
