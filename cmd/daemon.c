// SPDX-License-Identifier: Apache-2.0
/*
 * Threads: the main thread builds, then waits in serve() for something to change, and takes down;
 * one thread takes all signals; the control server, the mount, the cache and the leaf have
 * their own. What those want from the main thread they note under `lock` and signal `changed`.
 */
#include "cmd/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/background.h"
#include "cmd/cmd.h"
#include "cmd/notify.h"
#include "cmd/place.h"
#include "control/socket.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/parse.h"

/* How long a client of `nearblk umount` has to fetch the last word before the process ends. */
#define LAST_WORD_NS (2 * NSEC_PER_SEC)
#define WAKE_UP_NS (5 * NSEC_PER_SEC)
/* How often to look whether the volume has grown, and what to tell systemd. */
#define LOOK_NS (2 * NSEC_PER_SEC)

/* Ends the signal thread; from outside it means nothing. */
#define QUIT_SIGNAL SIGUSR2

/* ---- signals ---- */

static void handle_signal(struct daemon *d, int sig)
{
	struct err err;

	switch (sig) {
	case SIGUSR1:
		/* For the main thread, which alone knows whether there is a cache. */
		pthread_mutex_lock(&d->lock);
		d->kick = true;
		pthread_cond_signal(&d->changed);
		pthread_mutex_unlock(&d->lock);
		break;
	case SIGHUP:
		if (log_reopen(&err) < 0)
			log_warning("%s", err.text);
		break;
	case SIGTERM:
	case SIGINT:
		pthread_mutex_lock(&d->lock);
		if (d->phase == PHASE_STARTING) {
			/* Nothing is mounted and nothing was acknowledged: as good as kill -9. */
			pthread_mutex_unlock(&d->lock);
			_exit(EXIT_FAILED);
		}
		d->stop_signals++;
		pthread_cond_signal(&d->changed);
		pthread_mutex_unlock(&d->lock);
		break;
	}
}

static void *take_signals(void *arg)
{
	struct daemon *d = arg;
	sigset_t set;
	int sig;

	pthread_setname_np(pthread_self(), "nb-signals");
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	for (;;) {
		if (sigwait(&set, &sig) != 0)
			continue;
		if (sig == QUIT_SIGNAL) {
			guard(&d->lock);
			if (d->quit_signals)
				return NULL;
			continue;
		}
		handle_signal(d, sig);
	}
}

/* Block what we handle in this and every later thread, and start the one that waits for it. */
static int start_signals(struct daemon *d, struct err *err)
{
	static const int ours[] = { SIGTERM, SIGINT, SIGUSR1, SIGHUP, QUIT_SIGNAL };
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		sigaddset(&set, ours[i]);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	if (pthread_create(&d->signals, NULL, take_signals, d))
		return err_set(err, -EAGAIN, "cannot start a thread");
	return 0;
}

static void stop_signals(struct daemon *d)
{
	pthread_mutex_lock(&d->lock);
	d->quit_signals = true;
	pthread_mutex_unlock(&d->lock);
	pthread_kill(d->signals, QUIT_SIGNAL);
	pthread_join(d->signals, NULL);
}

/* ---- start ---- */

/* A log that is there on this host, for a daemon nobody told where to write. */
static int open_log(const struct daemon_config *conf, struct err *err)
{
	char file[PATH_MAX + 8];

	if (conf->log[0])
		return log_open(conf->log, conf->log_level, err);
	if (conf->foreground)
		return log_open("stderr", conf->log_level, err);
	if (log_open("journal", conf->log_level, err) == 0)
		return 0;
	if (access("/dev/log", W_OK) == 0 && log_open("syslog", conf->log_level, err) == 0)
		return 0;
	snprintf(file, sizeof(file), "%s/log", conf->stack.cache_dir);
	return log_open(file, conf->log_level, err);
}

/* Called by a thread of the mount. */
static void on_unmounted(void *ctx, int reason)
{
	struct daemon *d = ctx;

	if (reason < 0 && reason != -ECONNABORTED)
		log_error("reading from the kernel failed: %s", strerror(-reason));
	guard(&d->lock);
	d->unmounted = true;
	pthread_cond_signal(&d->changed);
}

static int mount_volume(struct daemon *d, struct err *err)
{
	struct mount_config mc = {
		.dev = d->stack.cache,
		.mountpoint = d->conf->mountpoint,
		.fsname = d->conf->stack.leaf.url.text,
		.uid = d->conf->uid,
		.gid = d->conf->gid,
		.mode = d->conf->mode,
		.read_only = d->read_only,
		.allow_other = d->conf->allow_other,
		.on_unmounted = on_unmounted,
		.ctx = d,
	};
	int r;

	/* From here on a signal has to take the mount down again. */
	pthread_mutex_lock(&d->lock);
	d->phase = PHASE_MOUNTED;
	pthread_mutex_unlock(&d->lock);
	r = mount_create(&mc, &d->mount, err);
	if (r == 0)
		r = mount_start(d->mount, err);
	if (r < 0 && d->mount)
		mount_detach(d->mount);
	return r;
}

static int start(struct daemon *d, struct err *err)
{
	char path[CONTROL_PATH_MAX], state[PATH_MAX], run[PATH_MAX];
	struct blk_info info;
	int r;

	/* Where the sockets may have to go. */
	if (place_state_dir(state, NULL) == 0)
		place_make_dirs(state, NULL);
	r = control_socket_path(d->conf->stack.cache_dir, place_run_dir(run), path, err);
	if (r == 0)
		r = stack_open(&d->conf->stack, &d->stack, err);
	if (r < 0)
		return r;
	blk_info(d->stack.cache, &info);
	d->read_only = d->conf->stack.read_only || (info.flags & BLK_INFO_READ_ONLY);
	d->aux = sched_threads_create(1, "command");
	if (!d->aux)
		return err_set(err, -ENOMEM, "cannot start threads");
	/* The lock on the directory is ours, so a socket that is in the way is a dead one's. */
	r = control_server_start(path, &daemon_control_ops, d, &d->control, err);
	if (r == 0)
		r = mount_volume(d, err);
	if (r == 0)
		place_remember(d->conf->stack.cache_dir);
	return r;
}

/* ---- serve ---- */

static void on_drained(struct cache_drain *drain, int result)
{
	struct daemon *d = container_of(drain, struct daemon, drain);

	if (result == -EIO) {
		char text[DAMAGE_TEXT_MAX];

		damage_text(d->stack.cache, d->conf->stack.cache_dir, text);
		log_error("%s", text);
	} else if (result == -ESTALE) {
		log_error("%s", blk_fenced(d->stack.cache));
	}
	guard(&d->lock);
	d->drained = true;
	pthread_cond_signal(&d->changed);
}

static void start_drain(struct daemon *d)
{
	d->drain = (struct cache_drain){ .done = on_drained };
	list_init(&d->drain.link);
	d->drained = false;
	d->draining = true;
	cache_drain(d->stack.cache, &d->drain);
}

/* Afterwards on_drained() will not run. */
static void end_drain(struct daemon *d)
{
	if (!d->draining)
		return;
	d->draining = false;
	if (cache_drain_cancel(d->stack.cache, &d->drain))
		return;
	pthread_mutex_lock(&d->lock);
	while (!d->drained)
		pthread_cond_wait(&d->changed, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

static uint64_t after(uint64_t ns)
{
	uint64_t now = clock_monotonic_ns();

	return ns > UINT64_MAX - now ? UINT64_MAX : now + ns;
}

/* SIGTERM: send, let nobody new in, and serve who is in. */
static void begin_stop(struct daemon *d)
{
	char span[24];

	log_info("told to stop; sending what is dirty and serving open files for at most %s",
		 format_duration(d->conf->stop_timeout_ns, span));
	notify_systemd("STOPPING=1");
	start_drain(d);
	mount_detach(d->mount);
	pthread_mutex_lock(&d->lock);
	d->phase = PHASE_DETACHED;
	d->deadline_ns = after(d->conf->stop_timeout_ns);
	pthread_mutex_unlock(&d->lock);
}

/* The kernel side is gone, by whatever way: nothing can be written any more. */
static void begin_drain(struct daemon *d)
{
	bool flush = true;

	/* Removes the dead name where the connection was cut; nothing to do otherwise. */
	mount_detach(d->mount);
	end_drain(d);
	pthread_mutex_lock(&d->lock);
	if (d->umount == UMOUNT_DRAINING) {
		flush = d->umount_flush;
		d->deadline_ns = d->umount_deadline_ns;
	} else if (d->phase != PHASE_DETACHED) {
		d->deadline_ns = after(d->conf->stop_timeout_ns);
	}
	d->phase = PHASE_DRAINING;
	d->drained = !flush;
	pthread_mutex_unlock(&d->lock);
	if (flush)
		start_drain(d);
}

/* What `nearblk umount` asked for; the volume stays as it is where that fails. */
static void try_umount(struct daemon *d)
{
	struct err err = { .text = "" };
	int r = mount_unmount(d->mount, &err);

	guard(&d->lock);
	if (r < 0 && r != -ENOENT) {
		d->umount_busy = r == -EBUSY;
		memcpy(d->umount_error, err.text, sizeof(d->umount_error) - 1);
		d->umount = UMOUNT_FAILED;
		return;
	}
	d->umount = UMOUNT_DRAINING;
	d->umount_polled_ns = clock_monotonic_ns();
	/*
	 * The kernel tells within moments that its side is gone, unless another mount namespace has
	 * a copy of the mount: that one is served like a handle left open, and not for ever.
	 */
	d->phase = PHASE_DETACHED;
	d->deadline_ns = MIN(d->umount_deadline_ns, after(d->conf->stop_timeout_ns));
}

bool daemon_umount_attended(const struct daemon *d)
{
	return d->umount_job && clock_monotonic_ns() - d->umount_polled_ns < CLIENT_GONE_NS;
}

/* Nobody waits for this umount any more: it ends like a plain one. The lock is held. */
static void check_client(struct daemon *d)
{
	if (d->umount != UMOUNT_DRAINING || d->phase != PHASE_DRAINING)
		return;
	if (daemon_umount_attended(d))
		return;
	d->deadline_ns = MIN(d->deadline_ns, after(d->conf->stop_timeout_ns));
	d->umount = UMOUNT_NONE;
}

/* Wait for a change, the deadline, or a moment. The lock is held. */
static void wait_change(struct daemon *d, uint64_t deadline_ns)
{
	uint64_t until = MIN(deadline_ns, after(WAKE_UP_NS));
	struct timespec ts = { .tv_sec = (time_t)(until / NSEC_PER_SEC),
			       .tv_nsec = (long)(until % NSEC_PER_SEC) };

	pthread_cond_timedwait(&d->changed, &d->lock, &ts);
}

enum action { ACT_LOOK, ACT_KICK, ACT_STOP, ACT_UMOUNT, ACT_DRAIN, ACT_END };

/* What is to be done next; waits until there is something. */
static enum action next_action(struct daemon *d)
{
	guard(&d->lock);
	for (;;) {
		bool going = d->phase == PHASE_DETACHED || d->phase == PHASE_DRAINING;

		check_client(d);
		if (d->stop_signals > 1 || (d->phase == PHASE_DRAINING && d->drained) ||
		    (going && clock_monotonic_ns() >= d->deadline_ns))
			return ACT_END;
		if (d->kick) {
			d->kick = false;
			return ACT_KICK;
		}
		if (d->unmounted && d->phase != PHASE_DRAINING)
			return ACT_DRAIN;
		if (d->stop_signals && d->phase == PHASE_MOUNTED)
			return ACT_STOP;
		if (d->stop_signals && d->phase == PHASE_DRAINING && d->deadline_ns == UINT64_MAX)
			d->deadline_ns = after(d->conf->stop_timeout_ns);
		if (d->umount == UMOUNT_WANTED && d->phase == PHASE_MOUNTED)
			return ACT_UMOUNT;
		if (clock_monotonic_ns() >= d->look_ns) {
			d->look_ns = after(LOOK_NS);
			return ACT_LOOK;
		}
		wait_change(d, going ? MIN(d->deadline_ns, d->look_ns) : d->look_ns);
	}
}

/* What changes without telling us. */
static void look(struct daemon *d)
{
	int r = cache_grow(d->stack.cache);
	struct blk_info info;
	char size[16];

	notify_status(d->stack.cache, d->notified);
	if (r < 0)
		log_warning("the volume has grown, which cannot be written down: %s", strerror(-r));
	if (r <= 0)
		return;
	blk_info(d->stack.cache, &info);
	log_info("the volume has grown to %s (%" PRIu64 " bytes)",
		 format_size(info.size_bytes, size), info.size_bytes);
	/* Asks the kernel, which may ask us: not once its side is gone. */
	if (!d->draining)
		mount_size_changed(d->mount);
}

static void serve(struct daemon *d)
{
	for (;;) {
		switch (next_action(d)) {
		case ACT_LOOK:
			look(d);
			break;
		case ACT_KICK:
			blk_kick(d->stack.cache);
			break;
		case ACT_STOP:
			begin_stop(d);
			break;
		case ACT_UMOUNT:
			try_umount(d);
			break;
		case ACT_DRAIN:
			begin_drain(d);
			break;
		case ACT_END:
			return;
		}
	}
}

/* ---- end ---- */

/* Let the client of a `nearblk umount` fetch what is left. */
static void say_last_word(struct daemon *d)
{
	uint64_t end = after(LAST_WORD_NS);

	guard(&d->lock);
	if (d->umount != UMOUNT_DRAINING)
		return;
	d->umount = UMOUNT_DONE;
	while (d->umount_job && clock_monotonic_ns() < end)
		wait_change(d, end);
}

/* An exit status. @why: what keeps it from being sent or safe; empty: nothing. */
static int log_end(struct daemon *d, uint64_t left, bool unsafe, const char *why)
{
	const char *dir = d->conf->stack.cache_dir;
	char size[16];

	if (left == 0) {
		log_info("stopped: everything is at the target");
		place_forget(dir);
		return EXIT_DONE;
	}
	if (*why)
		log_error("stopped: %s (%" PRIu64
			  " bytes) not yet at the target, kept in %s, but %s",
			  format_size(left, size), left, dir, why);
	else
		log_warning("stopped: %s (%" PRIu64 " bytes) not yet at the target, kept in %s; "
			    "mount it again to send it",
			    format_size(left, size), left, dir);
	return unsafe ? EXIT_FAILED : EXIT_LEFT;
}

static int stop(struct daemon *d, bool was_up)
{
	struct cache_status st = { .dirty_bytes = 0 };
	char why[DAMAGE_TEXT_MAX] = "";
	bool unsafe = false;

	if (was_up) {
		end_drain(d);
		pthread_mutex_lock(&d->lock);
		d->phase = PHASE_STOPPING;
		pthread_mutex_unlock(&d->lock);
	}
	/* The data is made safe before anybody is told that the volume has ended. */
	if (d->mount && was_up)
		mount_detach(d->mount);
	mount_stop(d->mount);
	stack_stop(&d->stack);
	if (was_up) {
		/* Counted when nothing can be written any more. */
		cache_status(d->stack.cache, &st);
		unsafe = st.dirty_bytes && st.log_unsafe;
		if (unsafe)
			snprintf(why, sizeof(why),
				 "its log could not be made durable: mount it again before this "
				 "host restarts");
		else if (st.dirty_bytes && st.state == CACHE_DAMAGED)
			damage_text(d->stack.cache, d->conf->stack.cache_dir, why);
		else if (st.dirty_bytes && st.state == CACHE_FENCED)
			snprintf(why, sizeof(why), "%s", blk_fenced(d->stack.cache));
		pthread_mutex_lock(&d->lock);
		d->final_bytes = st.dirty_bytes;
		d->final_unsafe = unsafe;
		if (*why)
			memcpy(d->umount_error, why, sizeof(why));
		pthread_mutex_unlock(&d->lock);
		say_last_word(d);
	}
	control_server_stop(steal_ptr(d->control));
	mount_destroy(steal_ptr(d->mount));
	sched_destroy(steal_ptr(d->aux));
	stack_close(&d->stack);
	return was_up ? log_end(d, st.dirty_bytes, unsafe, why) : EXIT_FAILED;
}

/* What the one who mounts should know before it relies on the volume; empty: nothing. */
static const char *warning(struct daemon *d, char text[DAMAGE_TEXT_MAX])
{
	struct cache_status st;

	size_t n = 0;

	cache_status(d->stack.cache, &st);
	text[0] = '\0';
	if (st.state == CACHE_DAMAGED)
		damage_text(d->stack.cache, d->conf->stack.cache_dir, text);
	n = strlen(text);
	if (*d->stack.offline.text)
		snprintf(text + n, DAMAGE_TEXT_MAX - n,
			 "%smounted offline: %.240s; what is cached can be read, writes are kept "
			 "until "
			 "it answers",
			 n ? "; " : "", d->stack.offline.text);
	return text;
}

static void init(struct daemon *d, const struct daemon_config *conf)
{
	pthread_condattr_t attr;

	*d = (struct daemon){
		.conf = conf,
		.started_ns = clock_monotonic_ns(),
		.deadline_ns = UINT64_MAX,
		.final_bytes = UINT64_MAX,
	};
	pthread_mutex_init(&d->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&d->changed, &attr);
	pthread_condattr_destroy(&attr);
}

int daemon_run(const struct daemon_config *conf)
{
	struct err err = { .text = "" };
	int ready_fd = conf->ready_fd, status, r;
	struct daemon daemon, *d = &daemon;
	char text[DAMAGE_TEXT_MAX];
	bool up;

	init(d, conf);
	umask(077);
	if (!conf->foreground)
		background_leave_caller(&ready_fd);
	r = open_log(conf, &err);
	if (r < 0) {
		background_tell(&ready_fd, 'E', err.text);
		return EXIT_FAILED;
	}
	mount_protect_process();
	r = start_signals(d, &err);
	if (r < 0) {
		background_tell(&ready_fd, 'E', err.text);
		return EXIT_FAILED;
	}
	r = start(d, &err);
	up = r == 0;
	if (up) {
		if (!conf->foreground)
			background_leave_terminal();
		log_info("%s is mounted on %s, cache in %s", d->conf->stack.leaf.url.text,
			 conf->mountpoint, conf->stack.cache_dir);
		notify_systemd("READY=1");
		notify_status(d->stack.cache, d->notified);
		if (!background_tell(&ready_fd, 'R', warning(d, text))) {
			log_warning("whoever asked for the mount is gone; unmounting");
			handle_signal(d, SIGTERM);
		}
		serve(d);
	}
	status = stop(d, up);
	stop_signals(d);
	if (!up)
		background_tell(&ready_fd, 'E', err.text);
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->lock);
	log_close();
	return up ? status : EXIT_FAILED;
}
