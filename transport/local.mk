libnearblk_a_SOURCES += \
	transport/leaf.h \
	transport/url.h
