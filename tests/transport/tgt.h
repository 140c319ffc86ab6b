// SPDX-License-Identifier: Apache-2.0
/*
 * For tests: a private tgtd on the loopback interface, and a TCP proxy to stand between it and the
 * initiator. Both abort the test (Check's ck_assert) when they cannot do what is asked. The daemon
 * dies with the process that started it.
 */
#ifndef TESTS_TGT_H
#define TESTS_TGT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct tgt {
	char dir[128]; /* files of this target; the caller's to remove */
	unsigned port;
	int control;
	pid_t pid;
	char *setup[64]; /* tgtadm commands so far, to be repeated by tgt_restart() */
	unsigned setups;
	bool v6;
};

#define TGT_NAME "iqn.2026-01.io.example:vol"

/* Create and remove the directory that all tests of this program put their files into. */
void tgt_root_create(void);
void tgt_root_remove(void);

/* Start tgtd on 127.0.0.1 (and [::1]) at a free port, with target 1 = TGT_NAME, open to all. */
void tgt_start(struct tgt *t);
/* Run tgtadm with these arguments, separated by blanks; remembered for tgt_restart(). */
__attribute__((format(printf, 2, 3))) void tgt_adm(struct tgt *t, const char *fmt, ...);
/*
 * Make a sparse file DIR/NAME of @bytes and export it as @lun with a serial of its own. @params
 * (may be NULL) is for --params of "update", @block_bytes 0 or 4096.
 */
void tgt_lun(struct tgt *t, unsigned lun, const char *name, uint64_t bytes, unsigned block_bytes,
	     const char *params);
/* SIGKILL; the port is free afterwards. */
void tgt_kill(struct tgt *t);
/* The same port, targets and files again. */
void tgt_restart(struct tgt *t);
void tgt_stop(struct tgt *t);

struct proxy;
/* Forward a new loopback port, *ret_port, to @port. */
struct proxy *proxy_start(unsigned port, unsigned *ret_port);
/* Reset all connections now. */
void proxy_cut(struct proxy *p);
/* Reset each connection once it carried this many more bytes towards the target; 0 = never. */
void proxy_cut_after(struct proxy *p, uint64_t bytes);
/* Refuse (reset at once) new connections, or take them again. */
void proxy_refuse(struct proxy *p, bool refuse);
/* Connections that ever carried more than @bytes towards the target. */
unsigned proxy_used(struct proxy *p, uint64_t bytes);
void proxy_stop(struct proxy *p);

#endif
