libnearblk_a_SOURCES += \
	transport/credentials.c transport/credentials.h \
	transport/leaf.h \
	transport/mem.c transport/mem.h \
	transport/url.c transport/url.h \
	transport/url_part.c transport/url_part.h
