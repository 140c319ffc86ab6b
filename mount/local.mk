libnearblk_a_SOURCES += \
	mount/attach.c mount/attach.h \
	mount/fusermount.c mount/fusermount.h \
	mount/holders.c \
	mount/io.c \
	mount/mount.c mount/mount.h \
	mount/names.c \
	mount/pool.c mount/pool.h \
	mount/protect.c \
	mount/session.h
