libnearblk_a_SOURCES += \
	cache/cache.h cache/cache_check.h \
	cache/extent_map.c cache/extent_map.h \
	cache/identity.c cache/identity.h \
	cache/index.h cache/index_mem.c \
	cache/lio.h cache/lio_posix.c \
	cache/lio_uring.c cache/lio_uring.h
