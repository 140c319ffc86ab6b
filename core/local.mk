libnearblk_a_SOURCES += \
	core/block.c core/block.h \
	core/cleanup.h \
	core/clock.h \
	core/crc32c.c core/crc32c.h \
	core/err.c core/err.h \
	core/failpoint.c core/failpoint.h \
	core/filter_count.c core/filter_count.h \
	core/filter_delay.c core/filter_delay.h \
	core/filter_fault.c core/filter_fault.h \
	core/hash.h \
	core/le.h \
	core/list.h \
	core/log.c core/log.h \
	core/option.c core/option.h \
	core/parse.c core/parse.h \
	core/range.h \
	core/sched.h core/sched_threads.c
