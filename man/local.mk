dist_man_MANS += man/nearblk.1
