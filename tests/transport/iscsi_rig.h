// SPDX-License-Identifier: Apache-2.0
/*
 * What the tests of the iscsi device on a private tgtd share. Each test gets a fresh tgtd with one
 * target and no LUN, and a configuration that points to it; all functions abort the test when
 * something is not as it must be.
 */
#ifndef TESTS_ISCSI_RIG_H
#define TESTS_ISCSI_RIG_H

#include <check.h>
#include <pthread.h>
#include <stdint.h>

#include "core/block.h"
#include "tests/transport/tgt.h"
#include "transport/leaf.h"

#define MIB (1u << 20)
#define SIZE (64ull * MIB)

extern struct tgt tgt;
extern struct leaf_config conf;
extern unsigned slots_noted; /* what the high-water callback was told last */

struct rig_test {
	const char *name; /* a case of its own: CK_RUN_CASE=name runs just that one */
	const TTest *const *test;
};

/* Run them; the exit code. NB_TEST_VERBOSE=1 shows the device's log. */
int rig_main(const char *name, const struct rig_test *tests, size_t count);

void use_portal(unsigned n, const char *host, unsigned port);
/* InitialR2T=No and large bursts, for sessions that come after this. */
void tune_target(void);

/* Bytes that tell place and generation; never zero. */
void fill(uint8_t *buf, uint64_t offset, size_t length, unsigned generation);
void expect(const uint8_t *buf, uint64_t offset, size_t length, unsigned generation);
void expect_zero(const uint8_t *buf, size_t length);
/* The same of the backing file tgt.dir/@name. */
void expect_file(const char *name, uint64_t offset, size_t length, unsigned generation);

/* Create and start the device of @conf. */
struct blk_dev *start(void);
/* It must not start, with this error and this word in the message. */
void expect_start_fails(int error, const char *word);
void await_up(struct blk_dev *dev, unsigned count);
/* Of all sessions together. */
uint64_t reconnects(struct blk_dev *dev);

/* Many requests at once, and a way to wait for them. */
struct many {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned left;
	int worst;
	struct blk_req *reqs;
	struct iovec *iovs;
	uint8_t *buf;
	unsigned count;
	size_t length;
};

/* @count requests of @length bytes each from @offset on; WRITEs carry fill(). */
void many_init(struct many *m, enum blk_op op, enum blk_lane lane, uint64_t offset, size_t length,
	       unsigned count, unsigned generation);
void many_submit(struct many *m, struct blk_dev *dev);
/* Wait for all; 0 or the last error. */
int many_wait(struct many *m);
void many_free(struct many *m);
/* The whole of it, successfully; read_all() compares. */
void write_all(struct blk_dev *dev, uint64_t offset, size_t length, unsigned count,
	       unsigned generation);
void read_all(struct blk_dev *dev, uint64_t offset, size_t length, unsigned count,
	      unsigned generation);

#endif
