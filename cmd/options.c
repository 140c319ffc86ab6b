// SPDX-License-Identifier: Apache-2.0
#include "cmd/options.h"

#include "cache/cache.h"
#include "core/cleanup.h"
#include "core/clock.h"

#define DAY_NS (24 * 3600 * NSEC_PER_SEC)

static const struct option_def defs[OPT_COUNT] = {
	[OPT_CACHE_DIR] = {
		.name = "cache-dir", .type = OPTION_TEXT, .arg = "DIR",
		.help = "this volume's own directory; holds the only copy of writes not yet sent",
		.initial_help = "made from the URL, see nearblk(1)",
		.commands = CMD_MOUNT | CMD_CHECK | CMD_FLUSH,
	},
	[OPT_CACHE_SIZE] = {
		.name = "cache-size", .type = OPTION_SIZE, .arg = "SIZE", .min = CACHE_LIMIT_MIN,
		.help = "local space to use at most",
		.initial_help = "half the free space at the first mount, at most the volume",
		.commands = CMD_MOUNT,
	},
	[OPT_MAX_DIRTY] = {
		.name = "max-dirty", .type = OPTION_SIZE, .arg = "SIZE", .min = 1 << 20,
		.help = "slow writers down when this much is not yet at the target",
		.initial_help = "half the cache", .commands = CMD_MOUNT,
	},
	[OPT_MAX_DIRTY_AGE] = {
		.name = "max-dirty-age", .type = OPTION_DURATION, .arg = "TIME", .initial = "5s",
		.min = 10 * NSEC_PER_MSEC, .max = DAY_NS,
		.help = "send a write after this time even if nobody flushes",
		.commands = CMD_MOUNT,
	},
	[OPT_SESSIONS] = {
		.name = "sessions", .type = OPTION_NUMBER, .arg = "N", .initial = "4", .min = 1,
		.max = 64, .help = "parallel connections to the far side",
		.commands = CMD_MOUNT | CMD_FLUSH,
	},
	[OPT_CONNECT_TIMEOUT] = {
		.name = "connect-timeout", .type = OPTION_DURATION, .arg = "TIME",
		.initial = "30s", .min = 100 * NSEC_PER_MSEC, .max = DAY_NS,
		.help = "give up the first connection after this time",
		.commands = CMD_MOUNT | CMD_DISCOVER | CMD_FLUSH,
	},
	[OPT_STOP_TIMEOUT] = {
		.name = "stop-timeout", .type = OPTION_DURATION, .arg = "TIME", .initial = "60s",
		.max = DAY_NS,
		.help = "when told to stop, send what is dirty for at most this time",
		.commands = CMD_MOUNT,
	},
	[OPT_READ_ONLY] = {
		.name = "read-only", .short_name = 'r', .type = OPTION_FLAG,
		.help = "take no writes", .commands = CMD_MOUNT,
	},
	[OPT_FOREGROUND] = {
		.name = "foreground", .short_name = 'f', .type = OPTION_FLAG,
		.help = "stay in the foreground and log to the terminal", .commands = CMD_MOUNT,
	},
	[OPT_CREDENTIALS] = {
		.name = "credentials", .type = OPTION_TEXT, .arg = "FILE",
		.help = "CHAP names and passwords; refused if others can read it",
		.commands = CMD_MOUNT | CMD_DISCOVER | CMD_FLUSH,
	},
	[OPT_INITIATOR_NAME] = {
		.name = "initiator-name", .type = OPTION_TEXT, .arg = "NAME",
		.help = "iSCSI name of this host",
		.initial_help = "from /etc/iscsi/initiatorname.iscsi, else made once and kept",
		.commands = CMD_MOUNT | CMD_DISCOVER | CMD_FLUSH,
	},
	[OPT_HEADER_DIGEST] = {
		.name = "header-digest", .type = OPTION_FLAG,
		.help = "offer CRC32C checksums of iSCSI headers",
		.commands = CMD_MOUNT | CMD_FLUSH,
	},
	[OPT_ALLOW_OTHER] = {
		.name = "allow-other", .type = OPTION_FLAG,
		.help = "let other users reach the mount, as far as the file's mode allows",
		.commands = CMD_MOUNT,
	},
	[OPT_UID] = {
		.name = "uid", .type = OPTION_NUMBER, .arg = "ID", .max = UINT32_MAX - 1,
		.help = "owner of disk.img", .initial_help = "the mounting user",
		.commands = CMD_MOUNT,
	},
	[OPT_GID] = {
		.name = "gid", .type = OPTION_NUMBER, .arg = "ID", .max = UINT32_MAX - 1,
		.help = "group of disk.img", .initial_help = "that of the mounting user",
		.commands = CMD_MOUNT,
	},
	[OPT_MODE] = {
		.name = "mode", .type = OPTION_MODE, .arg = "MODE", .initial = "0600", .max = 0777,
		.help = "permissions of disk.img", .commands = CMD_MOUNT,
	},
	[OPT_LOG] = {
		.name = "log", .type = OPTION_TEXT, .arg = "WHERE",
		.help = "stderr (with --foreground), syslog, journal or a file",
		.initial_help = "journal, else syslog, else the file log in the cache directory; "
				"stderr with --foreground",
		.commands = CMD_MOUNT,
	},
	[OPT_LOG_LEVEL] = {
		.name = "log-level", .type = OPTION_CHOICE,
		.choices = "error|warning|info|debug", .arg = "LEVEL", .initial = "info",
		.help = "how much to log: error, warning, info, debug", .commands = CMD_MOUNT,
	},
	[OPT_NO_READAHEAD] = {
		.name = "no-readahead", .type = OPTION_FLAG,
		.help = "fetch only what is asked for", .commands = CMD_MOUNT,
	},
	[OPT_ON_OUTAGE] = {
		.name = "on-outage", .type = OPTION_TEXT, .arg = "wait|timeout:TIME|eio",
		.initial = "wait",
		.help = "what becomes of reads that need the far side while it cannot be reached",
		.commands = CMD_MOUNT,
	},
	[OPT_TRUST_CACHE] = {
		.name = "trust-cache", .type = OPTION_CHOICE, .choices = "auto|always|never",
		.arg = "WHEN", .initial = "auto",
		.help = "is what was cached before still right: auto compares samples, always, never",
		.commands = CMD_MOUNT,
	},
	[OPT_FORCE_PUSH] = {
		.name = "force-push", .type = OPTION_FLAG,
		.help = "send what is dirty also to a volume that was changed elsewhere meanwhile",
		.commands = CMD_MOUNT | CMD_FLUSH,
	},
	[OPT_OPTIONS] = {
		.name = "options", .short_name = 'o', .type = OPTION_MOUNT,
		.arg = "KEY[=VALUE],...",
		.help = "any option above without its dashes, and those of mount(8)",
		.commands = CMD_MOUNT,
	},
	[OPT_DEBUG_DELAY] = {
		.name = "debug-delay", .type = OPTION_DURATION, .arg = "TIME", .max = 60 * NSEC_PER_SEC,
		.help = "for tests: pass on every answer of the far side this much later",
		.commands = CMD_MOUNT, .hidden = true,
	},
	[OPT_DEBUG_FAULT] = {
		.name = "debug-fault", .type = OPTION_LIST, .arg = "OP[:NTH][:always][:after]",
		.help = "for tests: let a request to the far side fail",
		.commands = CMD_MOUNT, .hidden = true,
	},
	[OPT_DEBUG_COUNT] = {
		.name = "debug-count", .type = OPTION_FLAG,
		.help = "for tests: log at the end how many requests went to the far side",
		.commands = CMD_MOUNT, .hidden = true,
	},
	[OPT_NO_FLUSH] = {
		.name = "no-flush", .type = OPTION_FLAG,
		.help = "leave what is dirty in the cache for the next mount",
		.commands = CMD_UMOUNT,
	},
	[OPT_TIMEOUT] = {
		.name = "timeout", .type = OPTION_DURATION, .arg = "TIME", .max = 365 * DAY_NS,
		.help = "stop waiting after this time (exit status 3)",
		.initial_help = "wait as long as it takes", .commands = CMD_UMOUNT | CMD_FLUSH,
	},
	[OPT_URL] = {
		.name = "url", .type = OPTION_TEXT, .arg = "URL",
		.help = "with --cache-dir: where the volume is now",
		.initial_help = "as at the last mount", .commands = CMD_FLUSH,
	},
	[OPT_ALL] = {
		.name = "all", .type = OPTION_FLAG,
		.help = "the whole volume; the default without --range", .commands = CMD_WARM,
	},
	[OPT_RANGE] = {
		.name = "range", .type = OPTION_LIST, .arg = "OFFSET+LENGTH",
		.help = "these bytes, as in 8M+64M; may be given several times",
		.commands = CMD_WARM,
	},
	[OPT_JSON] = {
		.name = "json", .type = OPTION_FLAG, .help = "JSON instead of a table",
		.commands = CMD_STATUS,
	},
	[OPT_REBUILD_INDEX] = {
		.name = "rebuild-index", .type = OPTION_FLAG,
		.help = "throw the index away; the next mount makes it anew from the segments",
		.commands = CMD_CHECK,
	},
	[OPT_HELP] = {
		.name = "help", .short_name = 'h', .type = OPTION_ACTION, .help = "show this text",
		.commands = CMD_ALL,
	},
	[OPT_VERSION] = {
		.name = "version", .short_name = 'V', .type = OPTION_ACTION,
		.help = "show the version", .commands = CMD_ALL,
	},
};

/*
 * Words of mount(8) and fstab(5). Those that say who may mount, when, and what set-uid files mean
 * are dealt with before nearblk runs, or say nothing about a single file that is a disk.
 */
static const struct option_word words[] = {
	{ "ro", "read-only", false },   { "rw", "read-only", true },
	{ "defaults", NULL, false },    { "_netdev", NULL, false },
	{ "auto", NULL, false },        { "noauto", NULL, false },
	{ "nofail", NULL, false },      { "user", NULL, false },
	{ "user=*", NULL, false },      { "users", NULL, false },
	{ "nouser", NULL, false },      { "group", NULL, false },
	{ "owner", NULL, false },       { "suid", NULL, false },
	{ "nosuid", NULL, false },      { "dev", NULL, false },
	{ "nodev", NULL, false },       { "exec", NULL, false },
	{ "noexec", NULL, false },      { "async", NULL, false },
	{ "atime", NULL, false },       { "noatime", NULL, false },
	{ "diratime", NULL, false },    { "nodiratime", NULL, false },
	{ "relatime", NULL, false },    { "norelatime", NULL, false },
	{ "strictatime", NULL, false }, { "default_permissions", NULL, false },
	{ "comment=*", NULL, false },   { "x-*", NULL, false },
	{ "X-*", NULL, false },
};

const struct option_table options_table = { defs, ARRAY_SIZE(defs), words, ARRAY_SIZE(words) };
