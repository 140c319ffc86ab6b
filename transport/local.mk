libnearblk_a_SOURCES += \
	transport/credentials.c transport/credentials.h \
	transport/file.c transport/file.h \
	transport/file_open.c transport/file_open.h \
	transport/http.c transport/http.h \
	transport/http_answer.c transport/http_answer.h \
	transport/http_conn.c transport/http_conn.h \
	transport/iscsi_conn.c transport/iscsi_conn.h \
	transport/iscsi_cut.c \
	transport/iscsi_discover.c transport/iscsi_discover.h \
	transport/iscsi_fence.c \
	transport/iscsi_impl.h \
	transport/iscsi_io.c \
	transport/iscsi_outage.c \
	transport/iscsi_pool.c transport/iscsi_pool.h \
	transport/iscsi_probe.c transport/iscsi_probe.h \
	transport/iscsi_resolve.c transport/iscsi_resolve.h \
	transport/iscsi_scsi.c transport/iscsi_scsi.h \
	transport/iscsi_serve.c \
	transport/iscsi_session.c \
	transport/lanes.h \
	transport/leaf.c transport/leaf.h \
	transport/mem.c transport/mem.h \
	transport/url.c transport/url.h \
	transport/url_part.c transport/url_part.h
