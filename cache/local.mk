libnearblk_a_SOURCES += \
	cache/cache.h
