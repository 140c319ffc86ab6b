// SPDX-License-Identifier: Apache-2.0
#include "transport/leaf.h"

#include <errno.h>

#include "transport/file.h"
#include "transport/http.h"
#include "transport/mem.h"

static int create_mem(const struct leaf_config *conf, struct blk_dev **ret, struct err *err)
{
	struct blk_dev *dev = mem_create(
		conf->url.size_bytes, 512,
		conf->read_only ? BLK_INFO_READ_ONLY : BLK_INFO_CAN_DISCARD | BLK_INFO_FAST_ZERO);

	if (!dev)
		return err_set(err, -ENOMEM, "%s: out of memory", conf->url.text);
	*ret = dev;
	return 0;
}

int leaf_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err)
{
	switch (conf->url.scheme) {
	case URL_FILE:
		return file_create(conf, ret, err);
	case URL_HTTP:
	case URL_HTTPS:
		return http_create(conf, ret, err);
	case URL_MEM:
		return create_mem(conf, ret, err);
	default:
		return err_set(err, -EINVAL, "%s: no such kind of volume", conf->url.text);
	}
}
