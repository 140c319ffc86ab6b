// SPDX-License-Identifier: Apache-2.0
/*
 * Everything that can be refused without the far side is refused here, in the caller's process,
 * with the caller's directory and terminal. Then the daemon is forked off, before there is any
 * thread, and the caller waits for its one message.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/choose.h"
#include "cmd/cmd.h"
#include "cmd/daemon.h"
#include "cmd/place.h"
#include "cmd/progress.h"
#include "core/cleanup.h"
#include "core/parse.h"
#include "mount/attach.h"

/* Where the directory for the cache is not chosen: NAME under the state directory. */
static int choose_cache_dir(const struct option_value *given, const struct url *url,
			    char ret[PATH_MAX], struct err *err)
{
	cleanup_free char *real = NULL;
	char state[PATH_MAX], name[256];
	int r;

	if (given->given) {
		r = place_absolute(given->text, ret, err);
		if (r < 0)
			return r;
		/* One directory has one name: it is what its control socket is found by. */
		real = realpath(ret, NULL);
		if (real)
			snprintf(ret, PATH_MAX, "%s", real);
		return 0;
	}
	r = place_state_dir(state, err);
	if (r < 0)
		return r;
	url_cache_name(url, name);
	if (snprintf(ret, PATH_MAX, "%s/%s", state, name) >= PATH_MAX)
		return err_set(err, -ENAMETOOLONG, "%s: the path is too long", state);
	return 0;
}

static int choose_log(const char *text, char ret[PATH_MAX], struct err *err)
{
	if (!text)
		return 0;
	if (strcmp(text, "stderr") == 0 || strcmp(text, "syslog") == 0 ||
	    strcmp(text, "journal") == 0) {
		strcpy(ret, text);
		return 0;
	}
	return place_absolute(text, ret, err);
}

static int choose_faults(const struct option_value *v, struct stack_config *stack, struct err *err)
{
	if (v->count > FILTER_FAULT_RULES)
		return err_set(err, -EINVAL, "--debug-fault: at most %d of them",
			       FILTER_FAULT_RULES);
	for (size_t i = 0; i < v->count; i++) {
		int r = stack_parse_fault(v->list[i], &stack->fault[stack->faults++], err);

		if (r < 0)
			return r;
	}
	return 0;
}

/* The commands and the daemon name volumes to each other as JSON, which is UTF-8. */
static int check_name(const char *name, struct err *err)
{
	json_t *text = json_string(name);

	if (!text)
		return err_set(err, -EILSEQ, "%s: the name is not valid UTF-8; choose another",
			       name);
	json_decref(text);
	return 0;
}

/* -EINVAL: the command line is wrong; another -errno: something it names is. */
static int configure(struct option_set *set, struct daemon_config *conf, struct err *err)
{
	const struct option_value *v = set->value;
	struct stack_config *stack = &conf->stack;
	cleanup_free char *mountpoint = NULL;
	int r = choose_leaf(v, set->operand[0], &stack->leaf, err);

	if (r == 0)
		r = choose_cache_dir(&v[OPT_CACHE_DIR], &stack->leaf.url, stack->cache_dir, err);
	if (r == 0)
		r = choose_log(v[OPT_LOG].text, conf->log, err);
	if (r == 0)
		r = choose_outage(v[OPT_ON_OUTAGE].text, &stack->leaf, err);
	if (r == 0)
		r = choose_faults(&v[OPT_DEBUG_FAULT], stack, err);
	if (r < 0)
		return r;
	stack->cache_size_bytes = v[OPT_CACHE_SIZE].number;
	stack->max_dirty_bytes = v[OPT_MAX_DIRTY].number;
	stack->max_dirty_age_ns = v[OPT_MAX_DIRTY_AGE].number;
	stack->read_only = v[OPT_READ_ONLY].number;
	stack->no_readahead = v[OPT_NO_READAHEAD].number;
	stack->trust = (enum cache_trust)v[OPT_TRUST_CACHE].number;
	stack->force_push = v[OPT_FORCE_PUSH].number;
	stack->may_be_offline = true;
	stack->delay_ns = v[OPT_DEBUG_DELAY].number;
	stack->count = v[OPT_DEBUG_COUNT].number;
	if (strcmp(conf->log, "stderr") == 0 && !v[OPT_FOREGROUND].number)
		return err_set(err, -EINVAL,
			       "--log stderr needs --foreground: a daemon leaves the terminal");
	if (v[OPT_CACHE_SIZE].given && v[OPT_MAX_DIRTY].given &&
	    stack->max_dirty_bytes > stack->cache_size_bytes)
		return err_set(err, -EINVAL, "--max-dirty %s is more than --cache-size %s",
			       v[OPT_MAX_DIRTY].text, v[OPT_CACHE_SIZE].text);
	conf->uid = v[OPT_UID].given ? (uid_t)v[OPT_UID].number : getuid();
	conf->gid = v[OPT_GID].given ? (gid_t)v[OPT_GID].number : getgid();
	conf->mode = (mode_t)v[OPT_MODE].number;
	conf->allow_other = v[OPT_ALLOW_OTHER].number;
	conf->foreground = v[OPT_FOREGROUND].number;
	conf->log_level = (enum log_level)v[OPT_LOG_LEVEL].number;
	conf->stop_timeout_ns = v[OPT_STOP_TIMEOUT].number;
	conf->ready_fd = -1;
	r = attach_resolve(set->operand[1], &mountpoint, err);
	if (r < 0)
		return r == -EINVAL ? -ENOENT : r;
	if (snprintf(conf->mountpoint, sizeof(conf->mountpoint), "%s", mountpoint) >=
	    (int)sizeof(conf->mountpoint))
		return err_set(err, -ENAMETOOLONG, "%s: the path is too long", set->operand[1]);
	r = check_name(set->operand[0], err);
	if (r == 0)
		r = check_name(conf->mountpoint, err);
	if (r == 0)
		r = check_name(stack->cache_dir, err);
	if (r == 0)
		r = stack_prepare_dir(stack->cache_dir, err);
	return r == -EINVAL ? -EIO : r;
}

/* The daemon said nothing before it ended. */
static int ended_early(pid_t pid)
{
	int status;

	if (interrupted())
		return cmd_fail("interrupted; nothing is mounted");
	if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		return cmd_fail("the daemon was killed by signal %d (%s) while it started",
				WTERMSIG(status), strsignal(WTERMSIG(status)));
	return cmd_fail("the daemon ended while it started; its log may say why");
}

/* Interrupted when it was mounted already: it is unmounted, and that may take its time. */
static int ended_again(pid_t pid, bool told)
{
	if (!told)
		kill(pid, SIGTERM);
	/* Once more means what a second SIGTERM means to a daemon: now. */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		kill(pid, SIGTERM);
	return cmd_fail("interrupted; unmounted again");
}

/* Wait until the daemon is ready or failed. Ctrl-C ends it: it is not of our terminal's group. */
static int wait_ready(pid_t pid, int fd)
{
	char message[sizeof(struct err) + 2];
	bool told = false;
	size_t n = 0;

	interrupt_catch();
	while (n < sizeof(message) - 1) {
		ssize_t got = read(fd, message + n, sizeof(message) - 1 - n);

		if (got < 0 && errno == EINTR) {
			if (interrupted() && !told)
				kill(pid, SIGTERM);
			told = interrupted();
			continue;
		}
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	message[n] = '\0';
	if (n && message[0] == 'E')
		return cmd_fail("%s", message + 1);
	if (n == 0)
		return ended_early(pid);
	if (message[1])
		cmd_fail("warning: %s", message + 1);
	return interrupted() ? ended_again(pid, told) : EXIT_DONE;
}

static int in_background(struct daemon_config *conf)
{
	int fds[2], status;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return cmd_fail("pipe: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		close(fds[0]);
		close(fds[1]);
		return cmd_fail("fork: %s", strerror(errno));
	}
	if (pid == 0) {
		close(fds[0]);
		conf->ready_fd = fds[1];
		_exit(daemon_run(conf));
	}
	close(fds[1]);
	status = wait_ready(pid, fds[0]);
	close(fds[0]);
	return status;
}

int cmd_mount(struct option_set *set)
{
	cleanup_free struct daemon_config *conf = calloc(1, sizeof(*conf));
	struct err err = { .text = "" };
	int r;

	if (!conf)
		return cmd_fail("out of memory");
	r = configure(set, conf, &err);
	if (r == 0)
		r = conf->foreground ? daemon_run(conf) : in_background(conf);
	else
		r = r == -EINVAL ? cmd_usage(set, "%s", err.text) : cmd_fail("%s", err.text);
	explicit_bzero(&conf->stack.leaf.credentials, sizeof(conf->stack.leaf.credentials));
	return r;
}
