# Files of bench/
noinst_PROGRAMS += bench/wan
bench_wan_SOURCES = bench/wan.c bench/wan_link.c bench/wan_link.h bench/wan_opt.c bench/wan_opt.h \
	bench/wan_tun.c bench/wan_tun.h
bench_wan_LDADD =
