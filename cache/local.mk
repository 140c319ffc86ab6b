libnearblk_a_SOURCES += \
	cache/append.c \
	cache/cache.c cache/cache.h \
	cache/destage.c \
	cache/empty.c \
	cache/epoch.c \
	cache/extent_map.c cache/extent_map.h \
	cache/fetch.c \
	cache/format.c cache/format.h \
	cache/identity.c cache/identity.h \
	cache/index.h cache/index_mem.c cache/index_rocksdb.c \
	cache/indexq.c \
	cache/internal.h \
	cache/janitor.c cache/janitor.h \
	cache/lio.h cache/lio_posix.c cache/lio_uring.c cache/lio_uring.h \
	cache/map.c cache/map.h \
	cache/plan.c cache/plan.h \
	cache/prepare.c \
	cache/read.c \
	cache/recover.c \
	cache/scan.c cache/scan.h \
	cache/segment.c \
	cache/status.c \
	cache/sync.c \
	cache/table.c \
	cache/verify.c cache/verify.h \
	cache/write.c
