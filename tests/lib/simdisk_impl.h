// SPDX-License-Identifier: Apache-2.0
/*
 * Inside the simulated disk: what simdisk.c (the lio) and simdisk_crash.c (what a test does
 * to it) share.
 */
#ifndef TESTS_LIB_SIMDISK_IMPL_H
#define TESTS_LIB_SIMDISK_IMPL_H

#include "tests/lib/simdisk.h"
#include "tests/lib/simimage.h"

#define MAX_NAMES 4096

struct inode {
	struct simimage image;
	uint8_t *allocated; /* a byte per page */
	uint64_t pages;     /* of `allocated` */
	unsigned names;     /* now + durable + open files */
};

struct name {
	char *text;
	struct inode *now;
	struct inode *durable;
	unsigned group; /* names tied by renames since the last sync_dir share it */
};

struct lio_file {
	struct list_node link;
	struct inode *inode;
	unsigned in_flight;
};

struct simdisk {
	struct sim_part part;
	struct sim *sim;
	uint32_t sector_bytes;
	struct name name[MAX_NAMES];
	size_t names;
	unsigned last_group;
	uint64_t limit_bytes;
	uint64_t used_bytes;
	bool same_boot;
	_Atomic uint64_t words[LIO_WORDS];
	struct sim_fault fault;
	unsigned hold;
	void (*seen)(void *ctx, const struct simdisk_event *event);
	void *seen_ctx;
	struct list_node files; /* struct lio_file.link of the open lio */
	struct list_node ops;   /* struct op.link */
	uint64_t in_flight;
	struct simlio *lio; /* NULL: not open */
};

struct simlio {
	struct lio lio;
	struct simdisk *disk;
};

enum stage { QUEUED, ACTED };

struct op {
	struct list_node link;
	struct task task;
	struct simdisk *disk;
	struct lio_op *op;
	enum stage stage;
	bool held;
	int result;
	uint64_t mark;   /* SYNC: what it covers */
	uint64_t change; /* WRITE: of the image; 0: none */
};

extern const struct lio_ops simdisk_ops;

struct name *simdisk_find_name(struct simdisk *d, const char *text);
/* Point a name's slot at another inode (or NULL); the old one goes with its last name. */
void simdisk_set_name(struct simdisk *d, struct inode **slot, struct inode *to);
void simdisk_inode_put(struct simdisk *d, struct inode *i);
/* Take the pages of a range; false: no room. */
bool simdisk_allocate(struct simdisk *d, struct inode *i, uint64_t offset, uint64_t length);
void simdisk_release_tail(struct simdisk *d, struct inode *i, uint64_t bytes);
/* How much a write that was cut or failed has done: whole pages from the front, perhaps none. */
uint64_t simdisk_part_of(struct simdisk *d, uint64_t offset, uint64_t length);
/* Change the image; returns the id of the change, 0 for none. */
uint64_t simdisk_write(struct simdisk *d, struct inode *i, const struct iovec *iov, int iovcnt,
		       uint64_t offset, uint64_t length);

#endif
