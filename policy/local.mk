# Files of policy/
libnearblk_a_SOURCES += \
	policy/backoff.c policy/backoff.h \
	policy/evict.c policy/evict.h \
	policy/ratio.h \
	policy/readahead.c policy/readahead.h policy/readahead_fill.c policy/readahead_stream.h \
	policy/window.c policy/window.h \
	policy/writeback.c policy/writeback.h
