libnearblk_a_SOURCES += \
	control/client.c control/client.h \
	control/server.c control/server.h \
	control/socket.c control/socket.h
