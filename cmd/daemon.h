// SPDX-License-Identifier: Apache-2.0
/*
 * The life of a volume's daemon, from the first descriptor to the last log line. One volume, one
 * process.
 */
#ifndef CMD_DAEMON_H
#define CMD_DAEMON_H

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/cache.h"
#include "cmd/damage.h"
#include "cmd/notify.h"
#include "cmd/stack.h"
#include "control/server.h"
#include "core/clock.h"
#include "core/log.h"
#include "mount/mount.h"

struct daemon_config {
	struct stack_config stack;
	char mountpoint[PATH_MAX]; /* absolute */
	uid_t uid;                 /* of disk.img */
	gid_t gid;
	mode_t mode;
	bool allow_other;
	bool foreground;
	char log[PATH_MAX]; /* for log_open(); empty: journal, syslog or a file, what is there */
	enum log_level log_level;
	uint64_t stop_timeout_ns;
	int ready_fd; /* -1, or where the parent waits: see daemon_run() */
};

/*
 *	STARTING ─mounted→ MOUNTED ─────────connection gone──────→ DRAINING ─drained→ STOPPING
 *	                      │                                        ↑
 *	                      └─SIGTERM, umount→ DETACHED ─last handle─┘
 *
 *	A deadline of DETACHED or DRAINING, and a second signal in any phase, lead to STOPPING.
 *
 * In every phase what was acknowledged is in the log of the cache; STOPPING makes it durable.
 */
enum phase {
	PHASE_STARTING, /* nothing is mounted: a signal ends the process */
	PHASE_MOUNTED,
	PHASE_DETACHED, /* the name is gone, open handles are served */
	PHASE_DRAINING, /* nobody can write any more */
	PHASE_STOPPING,
};

/* A `nearblk umount` in progress; there is one at most. */
enum umount_step {
	UMOUNT_NONE,
	UMOUNT_WANTED,   /* for the main thread to try */
	UMOUNT_DRAINING, /* unmounted */
	UMOUNT_DONE,
	UMOUNT_FAILED, /* still mounted */
};

/* A client that has not asked for this long is gone. */
#define CLIENT_GONE_NS (15 * NSEC_PER_SEC)

struct daemon {
	const struct daemon_config *conf;
	struct stack stack;
	struct mount *mount;
	struct control_server *control;
	struct sched *aux; /* one thread for commands that block */
	uint64_t started_ns;
	bool read_only;
	pthread_t signals;

	/* lock is a leaf: never held over a call into another module. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum phase phase;      /* guarded by lock, as is all below */
	unsigned stop_signals; /* SIGTERM and SIGINT so far */
	bool kick;             /* SIGUSR1 came */
	bool quit_signals;     /* the signal thread may end */
	bool unmounted;        /* the kernel side is gone */
	uint64_t deadline_ns;  /* of DETACHED and DRAINING; UINT64_MAX: none */
	uint64_t final_bytes;  /* what is left, once STOPPING; UINT64_MAX before */
	bool final_unsafe;     /* and that is not durable on this host */
	bool drained;          /* the drain ended */
	enum umount_step umount;
	bool umount_flush;
	bool umount_busy;            /* FAILED because somebody uses it */
	const void *umount_job;      /* what the client holds; NULL: it gave it back */
	uint64_t umount_deadline_ns; /* when the client's patience ends; UINT64_MAX */
	uint64_t umount_polled_ns;
	char umount_error[DAMAGE_TEXT_MAX];

	struct cache_drain drain; /* the main thread's */
	bool draining;            /* main thread only: drain was submitted */
	uint64_t look_ns;         /* main thread only, like all below: when to look() next */
	char notified[NOTIFY_STATUS_MAX];
};

/*
 * Be the daemon: build the stack, mount, serve until told to stop, take down. Returns an exit
 * status: EXIT_LEFT where dirty data is left. To ready_fd goes one message and then it is closed:
 * "R" and perhaps a warning when disk.img can be opened, or "E" and the text of the error. Called
 * in a process with one thread.
 */
int daemon_run(const struct daemon_config *conf);

/* The functions behind the control socket; ctx is the daemon. cmd/serve.c. */
extern const struct control_ops daemon_control_ops;

/* Somebody still wants to hear how the umount goes. With d->lock held. */
bool daemon_umount_attended(const struct daemon *d);

#endif
