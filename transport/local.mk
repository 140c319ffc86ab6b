libnearblk_a_SOURCES += \
	transport/credentials.c transport/credentials.h \
	transport/file.c transport/file.h \
	transport/file_open.c transport/file_open.h \
	transport/http.c transport/http.h \
	transport/http_answer.c transport/http_answer.h \
	transport/http_conn.c transport/http_conn.h \
	transport/lanes.h \
	transport/leaf.c transport/leaf.h \
	transport/mem.c transport/mem.h \
	transport/url.c transport/url.h \
	transport/url_part.c transport/url_part.h
