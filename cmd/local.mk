bin_PROGRAMS += nearblk
nearblk_SOURCES = \
	cmd/background.c cmd/background.h \
	cmd/check.c \
	cmd/choose.c cmd/choose.h \
	cmd/cmd.h \
	cmd/daemon.c cmd/daemon.h \
	cmd/damage.c cmd/damage.h \
	cmd/deliver.c cmd/deliver.h \
	cmd/discover.c \
	cmd/drop.c \
	cmd/flush.c \
	cmd/initiator.c cmd/initiator.h \
	cmd/main.c \
	cmd/mount.c \
	cmd/notify.c cmd/notify.h \
	cmd/offline.c cmd/offline.h \
	cmd/options.c cmd/options.h \
	cmd/place.c cmd/place.h \
	cmd/progress.c cmd/progress.h \
	cmd/report.c cmd/report.h \
	cmd/serve.c \
	cmd/stack.c cmd/stack.h \
	cmd/status.c \
	cmd/umount.c \
	cmd/volume.c cmd/volume.h \
	cmd/warm.c \
	cmd/warm_job.c cmd/warm_job.h
nearblk_LDADD = $(NB_LIBS)
