// SPDX-License-Identifier: Apache-2.0
/* Names, attributes, and the life of a mount: coming, being refused, going, dying. */
#include "mount/mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mount/attach.h"
#include "tests/mount/fixture.h"
#include "tests/lib/run.h"

static struct fixture f;

static const char *in_dir(const char *name)
{
	static char path[4][256];
	static unsigned turn;
	char *p = path[turn++ % 4];

	snprintf(p, 256, "%s/%s", f.dir, name);
	return p;
}

#define ck_refused(expr)                                                                           \
	do {                                                                                       \
		ck_assert_int_eq(expr, -1);                                                        \
		ck_assert_int_eq(errno, EPERM);                                                    \
	} while (0)

START_TEST(names)
{
	struct dirent *e;
	unsigned seen = 0;
	struct stat st;
	DIR *d;

	fixture_up(&f, SIZE_BYTES, 0);
	d = opendir(f.dir);
	ck_assert_ptr_nonnull(d);
	while ((e = readdir(d))) {
		seen++;
		ck_assert(e->d_name[0] == '.' || !strcmp(e->d_name, "disk.img"));
	}
	closedir(d);
	ck_assert_uint_eq(seen, 3);
	ck_assert_int_eq(stat(in_dir("other"), &st), -1);
	ck_assert_int_eq(errno, ENOENT);
	ck_refused(open(in_dir("other"), O_CREAT | O_WRONLY, 0600));
	ck_refused(mkdir(in_dir("other"), 0700));
	ck_refused(mknod(in_dir("other"), S_IFIFO | 0600, 0));
	ck_refused(symlink("x", in_dir("other")));
	ck_refused(link(f.file, in_dir("other")));
	ck_refused(rename(f.file, in_dir("other")));
	ck_refused(unlink(f.file));
	ck_refused(chmod(f.dir, 0700));
	ck_assert_int_eq(rmdir(f.file), -1);
	ck_ok(stat(f.file, &st));
	fixture_down(&f);
}
END_TEST

START_TEST(attributes)
{
	struct timespec times[2] = { { .tv_sec = 1234567, .tv_nsec = 89 },
				     { .tv_nsec = UTIME_OMIT } };
	struct mount_config conf = fixture_prepare(&f, SIZE_BYTES, 0);
	struct timespec mtime;
	struct statfs fs;
	struct stat st;
	int fd;

	conf.uid = 1234;
	conf.gid = 4321;
	conf.mode = 0640;
	fixture_mount(&f, &conf);
	ck_ok(stat(f.file, &st));
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0640);
	ck_assert_uint_eq(st.st_uid, 1234);
	ck_assert_uint_eq(st.st_gid, 4321);
	ck_assert_int_eq(st.st_size, SIZE_BYTES);
	ck_assert_int_eq(st.st_blocks, SIZE_BYTES / 512);
	mtime = st.st_mtim;
	ck_ok(chmod(f.file, 06664));
	ck_ok(chown(f.file, 77, 88));
	ck_ok(utimensat(AT_FDCWD, f.file, times, 0));
	fd = open(f.file, O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(write(fd, "x", 1), 1);
	close(fd);
	ck_ok(stat(f.file, &st));
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0664);
	ck_assert_uint_eq(st.st_uid, 77);
	ck_assert_uint_eq(st.st_gid, 88);
	ck_assert_int_eq(st.st_atim.tv_sec, 1234567);
	ck_assert_int_eq(st.st_atim.tv_nsec, 89);
	ck_assert_int_eq(st.st_mtim.tv_sec, mtime.tv_sec);
	ck_assert_int_eq(st.st_mtim.tv_nsec, mtime.tv_nsec);
	ck_ok(statfs(f.dir, &fs));
	ck_assert_uint_eq(fs.f_blocks * (uint64_t)fs.f_bsize, SIZE_BYTES);
	ck_assert_uint_eq(fs.f_bavail, 0);
	fixture_down(&f);
}
END_TEST

START_TEST(in_the_tree)
{
	struct attach_entry e;

	fixture_up(&f, SIZE_BYTES, 0);
	ck_assert_int_eq(attach_find(f.dir, &e), 0);
	ck_assert_str_eq(e.type, MOUNT_FS_TYPE);
	ck_assert_str_eq(e.source, "mem://test,with a comma");
	ck_assert_int_eq(sh("grep -q '%s fuse.nearblk rw,nosuid,nodev' /proc/mounts", f.dir), 0);
	fixture_down(&f);
}
END_TEST

START_TEST(read_only)
{
	struct mount_config conf = fixture_prepare(&f, SIZE_BYTES, _i ? TESTDEV_READ_ONLY : 0);
	char byte;
	int fd;

	conf.read_only = !_i;
	fixture_mount(&f, &conf);
	ck_assert_int_eq(open(f.file, O_RDWR), -1);
	ck_assert_int_eq(errno, EROFS);
	ck_assert_int_eq(chmod(f.file, 0666), -1);
	ck_assert_int_eq(errno, EROFS);
	fd = open(f.file, O_RDONLY | O_CLOEXEC);
	ck_ok(fd);
	ck_assert_int_eq(read(fd, &byte, 1), 1);
	close(fd);
	fixture_down(&f);
}
END_TEST

static void expect_refusal(const struct mount_config *conf, int code, const char *words)
{
	struct mount *m = NULL;
	struct err err = { "" };

	ck_assert_int_eq(mount_create(conf, &m, &err), code);
	ck_assert_ptr_null(m);
	ck_assert_msg(strstr(err.text, words) != NULL, "\"%s\" lacks \"%s\"", err.text, words);
}

START_TEST(refusals)
{
	struct mount_config conf = fixture_prepare(&f, SIZE_BYTES, 0);
	struct blk_dev *coarse = testdev_create(SIZE_BYTES, TESTDEV_SECTOR_512);
	struct mount_config wrong = conf;

	wrong.mountpoint = in_dir("missing");
	expect_refusal(&wrong, -ENOENT, "mkdir -p");
	wrong.mountpoint = "/proc/self/mountinfo";
	expect_refusal(&wrong, -ENOTDIR, "not a directory");
	wrong.mountpoint = "/proc/self/mountinfo/x";
	expect_refusal(&wrong, -ENOTDIR, "Not a directory");
	wrong.mountpoint = f.dir;
	wrong.dev = coarse;
	expect_refusal(&wrong, -EINVAL, "sectors of 512");
	blk_destroy(coarse);
	fixture_mount(&f, &conf);
	expect_refusal(&conf, -EBUSY, "already mounted");
	fixture_down(&f);
}
END_TEST

START_TEST(no_device)
{
	struct mount_config conf = fixture_prepare(&f, SIZE_BYTES, 0);
	char empty[] = "/tmp/nearblk-mount-XXXXXX";

	/* An empty directory in the place of /dev, in a namespace of this test's own. */
	ck_assert_ptr_nonnull(mkdtemp(empty));
	ck_ok(unshare(CLONE_NEWNS));
	ck_ok(mount(empty, "/dev", NULL, MS_BIND, NULL));
	expect_refusal(&conf, -ENODEV, "modprobe fuse");
	ck_ok(umount2("/dev", MNT_DETACH));
	ck_ok(rmdir(empty));
	fixture_drop(&f);
}
END_TEST

/* Fork a process that keeps disk.img open; it ends when *@ret_fd is closed. */
static pid_t holder(int *ret_fd)
{
	int ready[2], go[2];
	char byte;
	pid_t pid;

	ck_ok(pipe(ready));
	ck_ok(pipe(go));
	pid = fork();
	if (pid == 0) {
		ready[1] = fcntl(ready[1], F_DUPFD, 100);
		go[0] = fcntl(go[0], F_DUPFD, 100);
		close_range(3, 99, 0);
		if (open(f.file, O_RDONLY) < 0 || write(ready[1], "r", 1) != 1)
			_exit(1);
		_exit(read(go[0], &byte, 1) != 0);
	}
	close(go[0]);
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	*ret_fd = go[1];
	return pid;
}

START_TEST(busy)
{
	char text[512];
	char expected[64];
	struct err err;
	int status;
	int fd;
	pid_t pid;

	fixture_up(&f, SIZE_BYTES, 0);
	ck_assert_int_eq(mount_holders(f.dir, text, sizeof(text)), 0);
	ck_assert_str_eq(text, "");
	ck_assert_uint_eq(mount_open_handles(f.mount), 0);
	pid = holder(&fd);
	ck_assert_uint_eq(mount_open_handles(f.mount), 1);
	ck_assert_int_eq(mount_unmount(f.mount, &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "in use"));
	ck_assert_int_eq(mount_holders(f.dir, text, sizeof(text)), 1);
	snprintf(expected, sizeof(expected), "(pid %d)", pid);
	ck_assert_msg(strstr(text, expected) != NULL, "%s", text);
	ck_assert_int_eq(mount_holders(f.dir, text, 5), 1);
	ck_assert_uint_eq(strlen(text), 4);
	close(fd);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	fixture_down(&f);
}
END_TEST

START_TEST(plain_umount)
{
	struct err err;

	fixture_up(&f, SIZE_BYTES, 0);
	ck_assert_int_eq(sh("umount %s", f.dir), 0);
	ck_assert_int_eq(fixture_wait_unmounted(&f), 0);
	ck_assert_int_eq(mount_unmount(f.mount, &err), -ENOENT);
	/* What others mount there now is theirs. */
	ck_ok(mount("none", f.dir, "tmpfs", 0, NULL));
	ck_assert_int_eq(mount_unmount(f.mount, &err), -ENOENT);
	mount_detach(f.mount);
	ck_assert(path_is_mounted(f.dir));
	ck_ok(umount(f.dir));
	ck_assert_int_eq(fixture_unmounted(&f), 1);
	fixture_drop(&f);
}
END_TEST

START_TEST(detach_serves_open_handles)
{
	char buf[8];
	int fd;

	fixture_up(&f, SIZE_BYTES, TESTDEV_THREAD);
	fd = open(f.file, O_RDWR | O_CLOEXEC);
	ck_ok(fd);
	mount_detach(f.mount);
	ck_assert(!path_is_mounted(f.dir));
	ck_assert_int_eq(pwrite(fd, "still on", 8, 4096 * 3), 8);
	ck_ok(fsync(fd));
	ck_assert_mem_eq(testdev_bytes(f.dev) + 4096 * 3, "still on", 8);
	ck_assert_int_eq(pread(fd, buf, 8, 4096 * 3), 8);
	ck_assert_uint_eq(mount_open_handles(f.mount), 1);
	ck_assert_int_eq(fixture_unmounted(&f), 0);
	close(fd);
	ck_assert_int_eq(fixture_wait_unmounted(&f), 0);
	fixture_drop(&f);
}
END_TEST

START_TEST(connection_cut)
{
	struct attach_entry e;

	fixture_up(&f, SIZE_BYTES, 0);
	ck_assert_int_eq(attach_find(f.dir, &e), 0);
	ck_ok(unshare(CLONE_NEWNS));
	ck_assert_int_eq(sh("mount -t fusectl none /sys/fs/fuse/connections"), 0);
	ck_assert_int_eq(
		sh("echo 1 > /sys/fs/fuse/connections/%s/abort", strchr(e.device, ':') + 1), 0);
	ck_assert_int_eq(fixture_wait_unmounted(&f), -ECONNABORTED);
	ck_assert(path_is_mounted(f.dir));
	mount_detach(f.mount);
	ck_assert(!path_is_mounted(f.dir));
	fixture_drop(&f);
}
END_TEST

/* Leaving at once: holders see the end, late answers of the device go nowhere. */
START_TEST(stop_while_in_use)
{
	pid_t pid;
	char byte;
	int status;
	int fd;

	fixture_up(&f, SIZE_BYTES, TESTDEV_THREAD);
	fd = open(f.file, O_RDWR | O_CLOEXEC);
	testdev_hold(f.dev, BLK_FLUSH);
	pid = fork();
	if (pid == 0) {
		close_range(3, ~0u, 0);
		fd = open(f.file, O_RDWR);
		_exit(fsync(fd) < 0 ? errno : 0);
	}
	testdev_wait_held(f.dev, 1);
	mount_detach(f.mount);
	mount_stop(f.mount);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), ECONNABORTED);
	ck_assert_int_eq(pread(fd, &byte, 1, 0), -1);
	ck_assert_int_eq(errno, ENOTCONN);
	close(fd);
	ck_assert_int_eq(fixture_unmounted(&f), 0);
	fixture_drop(&f);
}
END_TEST

START_TEST(half_built)
{
	struct mount_config conf = fixture_prepare(&f, SIZE_BYTES, 0);
	struct err err;

	mount_stop(NULL);
	mount_destroy(NULL);
	ck_assert_int_eq(mount_create(&conf, &f.mount, &err), 0);
	ck_assert(path_is_mounted(f.dir));
	mount_destroy(f.mount);
	ck_assert(!path_is_mounted(f.dir));
	conf.threads = 1;
	fixture_mount(&f, &conf);
	mount_stop(f.mount);
	mount_stop(f.mount);
	fixture_drop(&f);
}
END_TEST

/* A daemon of its own that is killed while it serves. */
static void leave_dead_mount(const struct mount_config *conf)
{
	struct mount *m;
	struct err err;
	int ready[2];
	int status;
	char byte;
	pid_t pid;

	ck_ok(pipe(ready));
	pid = fork();
	if (pid == 0) {
		if (mount_create(conf, &m, &err) < 0 || mount_start(m, &err) < 0 ||
		    write(ready[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	/* Let the kernel remember attributes, so that stat(2) alone would not see that it is dead.
	 */
	ck_assert_int_eq(sh("ls -l %s >/dev/null", f.dir), 0);
	ck_ok(kill(pid, SIGKILL));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_ne(sh("ls %s >/dev/null 2>&1", f.dir), 0);
	ck_assert(path_is_mounted(f.dir));
}

START_TEST(dead_mount)
{
	struct mount_config conf = fixture_prepare(&f, SIZE_BYTES, 0);
	int fd;

	leave_dead_mount(&conf);
	/* A trailing slash is what a person types. */
	conf.mountpoint = in_dir("");
	fixture_mount(&f, &conf);
	fd = open(f.file, O_RDONLY | O_CLOEXEC);
	ck_ok(fd);
	close(fd);
	fixture_down(&f);
	ck_assert(!path_is_mounted(f.dir));
}
END_TEST

START_TEST(protect)
{
	char score[16] = "";
	FILE *file;

	if (!mount_protect_process()) {
		/* CAP_SYS_RESOURCE is bit 24. */
		ck_assert_int_eq(
			sh("test $((0x$(sed -n 's/CapEff:.//p' /proc/self/status) >> 24 & 1)) = 0"),
			0);
		return;
	}
	file = fopen("/proc/self/oom_score_adj", "re");
	ck_assert_ptr_nonnull(fgets(score, sizeof(score), file));
	fclose(file);
	ck_assert_int_eq(atoi(score), -800);
	ck_assert_int_eq(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0), 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("mount");
	TCase *tc = tcase_create("mount");
	int r = fixture_enter();

	if (r)
		return r;
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, names);
	tcase_add_test(tc, attributes);
	tcase_add_test(tc, in_the_tree);
	tcase_add_loop_test(tc, read_only, 0, 2);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, no_device);
	tcase_add_test(tc, busy);
	tcase_add_test(tc, plain_umount);
	tcase_add_test(tc, detach_serves_open_handles);
	tcase_add_test(tc, connection_cut);
	tcase_add_test(tc, stop_while_in_use);
	tcase_add_test(tc, half_built);
	tcase_add_test(tc, dead_mount);
	tcase_add_test(tc, protect);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
