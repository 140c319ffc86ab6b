// SPDX-License-Identifier: Apache-2.0
#include "transport/leaf.h"

#include <errno.h>
#include <string.h>

#include "transport/credentials.h"
#include "transport/file.h"
#include "transport/http.h"
#include "transport/iscsi_pool.h"
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

/* The user may stand in the URL and the password in a file. */
static int create_joined(const struct leaf_config *conf,
			 int (*create)(const struct leaf_config *, struct blk_dev **, struct err *),
			 struct blk_dev **ret, struct err *err)
{
	struct leaf_config joined = *conf;
	int r = credentials_join(&joined.credentials, conf->url.user, err);

	if (r == 0)
		r = create(&joined, ret, err);
	explicit_bzero(&joined.credentials, sizeof(joined.credentials));
	return r;
}

int leaf_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err)
{
	switch (conf->url.scheme) {
	case URL_ISCSI:
	case URL_ISER:
		credentials_warn_chap(&conf->credentials);
		return create_joined(conf, iscsi_pool_create, ret, err);
	case URL_FILE:
		return file_create(conf, ret, err);
	case URL_HTTP:
	case URL_HTTPS:
		return create_joined(conf, http_create, ret, err);
	case URL_MEM:
		return create_mem(conf, ret, err);
	}
	return err_set(err, -EINVAL, "%s: no such kind of volume", conf->url.text);
}
