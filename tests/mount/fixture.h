// SPDX-License-Identifier: Apache-2.0
/*
 * What the tests of mount/ share: a private mount namespace (whatever a failed test leaves goes
 * with it), a directory each, a served mount over a testdev.
 */
#ifndef TESTS_MOUNT_FIXTURE_H
#define TESTS_MOUNT_FIXTURE_H

#include <check.h>
#include <stdbool.h>

#include "mount/mount.h"
#include "tests/mount/testdev.h"

#define SIZE_BYTES (16u << 20)

struct fixture {
	struct blk_dev *dev;
	struct mount *mount;
	char dir[64];   /* the mountpoint */
	char file[128]; /* disk.img */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int unmounted; /* how often on_unmounted() ran; guarded by lock */
	int reason;    /* guarded by lock */
};

/* In main(): 0, or 77 when this machine cannot run the tests (said on stderr). */
int fixture_enter(void);

/* Device, directory and configuration, nothing mounted yet. */
struct mount_config fixture_prepare(struct fixture *f, uint64_t size_bytes, unsigned flags);
/* Mount and serve. */
void fixture_mount(struct fixture *f, const struct mount_config *conf);
/* Both of the above. */
void fixture_up(struct fixture *f, uint64_t size_bytes, unsigned flags);
/* Unmount, which must succeed, and free all. */
void fixture_down(struct fixture *f);
/* Free all, mounted or not. */
void fixture_drop(struct fixture *f);
/* Wait for on_unmounted() and return its reason. */
int fixture_wait_unmounted(struct fixture *f);
/* How often it has run. */
int fixture_unmounted(struct fixture *f);

/* Fill with bytes that depend on @seed and on the position; never zero, never 0xff. */
void fill(void *buf, size_t length, uint64_t seed);
/* Run a shell command; its exit code. */
__attribute__((format(printf, 1, 2))) int sh(const char *fmt, ...);
/* The program is installed. */
bool have(const char *program);
bool path_is_mounted(const char *path);

#define ck_ok(expr) ck_assert_msg((expr) >= 0, "%s: %s", #expr, strerror(errno))

#endif
