libnearblk_a_SOURCES += \
	transport/leaf.h \
	transport/mem.c transport/mem.h \
	transport/url.h
