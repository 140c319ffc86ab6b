// SPDX-License-Identifier: Apache-2.0
/* disk.img under the programs it is for: fio, dd, cp, loop devices, ordinary users. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "tests/mount/fixture.h"
#include "tests/lib/run.h"

#define MIB (1u << 20)
#define NOBODY 65534

static struct fixture f;

static void fio(const char *options)
{
	ck_assert_int_eq(sh("fio --name=t --filename=%s --size=16M --bsrange=4k-256k --rw=randrw "
			    "--verify=crc32c --verify_fatal=1 --randseed=7 --fsync=16 "
			    "--thread --output-format=terse %s >/dev/null",
			    f.file, options),
			 0);
}

START_TEST(fio_verifies)
{
	static const char *const options[] = {
		"--ioengine=libaio --iodepth=32 --direct=1",
		"--ioengine=io_uring --iodepth=32 --direct=1",
		"--ioengine=io_uring --iodepth=8 --direct=0",
		"--ioengine=psync --direct=0",
		"--ioengine=mmap",
	};

	if (!have("fio"))
		return;
	fixture_up(&f, 32 * MIB, TESTDEV_THREAD);
	fio(options[_i]);
	fixture_down(&f);
}
END_TEST

START_TEST(dd_and_cp)
{
	char source[128];
	struct stat st;
	int r;

	fixture_up(&f, 8 * MIB, TESTDEV_THREAD | TESTDEV_DISCARD);
	/* The random bytes differ in each run: what is compared is the source itself. */
	snprintf(source, sizeof(source), "%s.source", f.dir);
	ck_assert_int_eq(sh("head -c 8M /dev/urandom >%s", source), 0);
	r = sh("dd if=%s of=%s bs=1M status=none && cmp %s %s", source, f.file, source, f.file);
	r = r ? r
	      : sh("head -c 3000000 %s >%s.2 && dd if=%s.2 of=%s bs=7777 status=none", source,
		   source, source, f.file);
	r = r ? r : sh("cmp %s %s", source, f.file);
	r = r ? r
	      : sh("tac %s >%s.2; head -c 8M %s.2 >%s.3; cp %s.3 %s && cmp %s.3 %s", source, source,
		   source, source, source, f.file, source, f.file);
	/* Larger than the volume: what fits is written, then there is no space. */
	r = r ? r
	      : !sh("cat %s %s >%s.2; cp %s.2 %s 2>/dev/null", source, source, source, source,
		    f.file);
	r = r ? r : sh("cmp %s %s", source, f.file);
	r = r ? r : sh("cp --sparse=always %s %s.4 && cmp %s %s.4", f.file, source, f.file, source);
	sh("rm -f %s %s.2 %s.3 %s.4", source, source, source, source);
	ck_assert_int_eq(r, 0);
	ck_ok(stat(f.file, &st));
	ck_assert_int_eq(st.st_size, 8 * MIB);
	fixture_down(&f);
}
END_TEST

/* A file system on a loop device, which asks for discards and flushes of its own. */
START_TEST(loop_device)
{
	char mnt[128];
	char text[256];
	int r;

	if (!have("mkfs.ext4") || !have("losetup"))
		return;
	fixture_up(&f, 64 * MIB, TESTDEV_THREAD | TESTDEV_DISCARD);
	snprintf(mnt, sizeof(mnt), "%s.mnt", f.dir);
	ck_ok(mkdir(mnt, 0700));
	ck_assert_int_eq(sh("mkfs.ext4 -q -F %s", f.file), 0);
	/* mount -o loop lets go of the device by itself, whatever happens to this test. */
	ck_assert_int_eq(sh("mount -o loop,discard %s %s", f.file, mnt), 0);
	r = sh("cp -a /usr/include/linux %s/tree && sync -f %s && rm -r %s/tree/netfilter* && "
	       "fstrim %s",
	       mnt, mnt, mnt, mnt);
	ck_assert_int_eq(mount_holders(f.dir, text, sizeof(text)), 1);
	ck_assert_msg(!strncmp(text, "/dev/loop", 9), "%s", text);
	r = r ? r : sh("umount %s && mount -o loop,ro %s %s", mnt, f.file, mnt);
	r = r ? r : sh("diff -r -x 'netfilter*' /usr/include/linux %s/tree", mnt);
	sh("umount %s", mnt);
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(sh("e2fsck -fn %s >/dev/null 2>&1", f.file), 0);
	ck_assert_uint_gt(atomic_load(&testdev_counts(f.dev)->op[BLK_FLUSH]), 0);
	ck_assert_uint_gt(atomic_load(&testdev_counts(f.dev)->op[BLK_DISCARD]), 0);
	ck_ok(rmdir(mnt));
	/* The kernel lets go of the file a moment after the loop device is gone. */
	mount_detach(f.mount);
	ck_assert_int_eq(fixture_wait_unmounted(&f), 0);
	fixture_drop(&f);
}
END_TEST

/* A namespace where everybody may open /dev/fuse, and /etc/fuse.conf says @conf; then drop root. */
static void become_nobody(const char *conf)
{
	char dir[] = "/tmp/nearblk-mount-XXXXXX";
	char path[64];

	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_ok(unshare(CLONE_NEWNS));
	ck_ok(mount("none", dir, "tmpfs", 0, NULL));
	snprintf(path, sizeof(path), "%s/fuse", dir);
	ck_ok(mknod(path, S_IFCHR, makedev(10, 229)));
	ck_ok(chmod(path, 0666));
	ck_ok(mount(path, "/dev/fuse", NULL, MS_BIND, NULL));
	ck_assert_int_eq(sh("echo '%s' >%s/fuse.conf", conf, dir), 0);
	snprintf(path, sizeof(path), "%s/fuse.conf", dir);
	ck_ok(mount(path, "/etc/fuse.conf", NULL, MS_BIND, NULL));
	ck_ok(umount2(dir, MNT_DETACH));
	ck_ok(rmdir(dir));
	ck_ok(setgroups(0, NULL));
	ck_ok(setgid(NOBODY));
	ck_ok(setuid(NOBODY));
	ck_ok(prctl(PR_SET_DUMPABLE, 1));
}

START_TEST(ordinary_user)
{
	struct mount_config conf;
	struct err err;
	struct stat st;
	char buf[6];
	int fd;

	if (!have("fusermount3"))
		return;
	become_nobody("user_allow_other");
	conf = fixture_prepare(&f, 8 * MIB, TESTDEV_THREAD);
	conf.allow_other = _i;
	fixture_mount(&f, &conf);
	ck_assert_int_eq(sh("grep -qF '%s fuse.nearblk rw,nosuid,nodev' /proc/mounts", f.dir), 0);
	ck_assert_int_eq(sh("grep -qF 'mem://test,with\\040a\\040comma' /proc/mounts"), 0);
	ck_ok(stat(f.file, &st));
	ck_assert_uint_eq(st.st_uid, NOBODY);
	fd = open(f.file, O_RDWR | O_CLOEXEC);
	ck_ok(fd);
	ck_assert_int_eq(pwrite(fd, "nobody", 6, 12345), 6);
	ck_assert_mem_eq(testdev_bytes(f.dev) + 12345, "nobody", 6);
	ck_assert_int_eq(mount_unmount(f.mount, &err), -EBUSY);
	mount_detach(f.mount);
	ck_assert(!path_is_mounted(f.dir));
	ck_assert_int_eq(pread(fd, buf, 6, 12345), 6);
	close(fd);
	ck_assert_int_eq(fixture_wait_unmounted(&f), 0);
	mount_stop(f.mount);
	mount_destroy(f.mount);
	fixture_mount(&f, &conf);
	ck_assert_int_eq(sh("fusermount3 -u %s", f.dir), 0);
	fixture_drop(&f);
}
END_TEST

START_TEST(user_refusals)
{
	struct mount_config conf;
	struct mount *m = NULL;
	struct err err = { "" };

	if (!have("fusermount3"))
		return;
	become_nobody("# nothing");
	conf = fixture_prepare(&f, 8 * MIB, 0);
	conf.allow_other = true;
	ck_assert_int_eq(mount_create(&conf, &m, &err), -EPERM);
	ck_assert_msg(strstr(err.text, "user_allow_other") != NULL, "%s", err.text);
	conf.allow_other = false;
	conf.mountpoint = "/usr";
	ck_assert_int_eq(mount_create(&conf, &m, &err), -EACCES);
	ck_assert_msg(strstr(err.text, "directory of your own") != NULL, "%s", err.text);
	conf.mountpoint = f.dir;
	ck_ok(setenv("PATH", "/nowhere", 1));
	fixture_mount(&f, &conf);
	fixture_down(&f);
	ck_assert_ptr_null(m);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("mount-consumers");
	TCase *tc = tcase_create("consumers");
	int r = fixture_enter();

	if (r)
		return r;
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, fio_verifies, 0, 5);
	tcase_add_test(tc, dd_and_cp);
	tcase_add_test(tc, loop_device);
	tcase_add_loop_test(tc, ordinary_user, 0, 2);
	tcase_add_test(tc, user_refusals);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
