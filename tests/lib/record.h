// SPDX-License-Identifier: Apache-2.0
/*
 * The log that recorder writes and replay reads: records in the order in which
 * things happened, each this header (of this host's byte order), then the name, then the data.
 */
#ifndef TESTS_LIB_RECORD_H
#define TESTS_LIB_RECORD_H

#include <stdint.h>

#define RECORD_MAGIC 0x43455242u

enum record_kind {
	RECORD_CREATE = 1, /* name; file */
	RECORD_WRITE,      /* file, offset; data */
	RECORD_RESIZE,     /* file, offset: the new size */
	RECORD_SYNC,       /* file */
	RECORD_UNLINK,     /* name; of a file or a directory */
	RECORD_RENAME,     /* name; data: the new name */
	RECORD_MKDIR,      /* name */
	RECORD_SYNC_DIR,   /* name of the directory; empty: the root */
	RECORD_MARK,       /* data: a test's own words */
};

struct record {
	uint32_t magic;
	uint32_t kind;
	uint64_t file; /* number of the file, from 1; never used again */
	uint64_t offset;
	uint32_t name_bytes; /* without a NUL, relative to the root, no leading '/' */
	uint32_t data_bytes;
};

#endif
