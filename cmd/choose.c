// SPDX-License-Identifier: Apache-2.0
#include "cmd/choose.h"

#include <errno.h>
#include <string.h>

#include "cmd/initiator.h"
#include "cmd/options.h"
#include "core/parse.h"
#include "transport/credentials.h"

int choose_leaf(const struct option_value *v, const char *url, struct leaf_config *leaf,
		struct err *err)
{
	int r = url_parse(url, false, &leaf->url, err);

	if (r < 0)
		return r;
	if (v[OPT_CREDENTIALS].given)
		r = credentials_load(v[OPT_CREDENTIALS].text, &leaf->credentials, err);
	else
		r = credentials_default(&leaf->credentials, err);
	if (r < 0)
		return r == -EINVAL ? -EBADMSG : r; /* a wrong file is not a wrong command line */
	leaf->sessions = (unsigned)v[OPT_SESSIONS].number;
	leaf->connect_timeout_ns = v[OPT_CONNECT_TIMEOUT].number;
	leaf->header_digest = v[OPT_HEADER_DIGEST].number;
	leaf->read_only = v[OPT_READ_ONLY].number;
	if (leaf->url.scheme != URL_ISCSI && leaf->url.scheme != URL_ISER)
		return 0;
	return initiator_name(v[OPT_INITIATOR_NAME].text, leaf->initiator_name, err);
}

int choose_outage(const char *text, struct leaf_config *leaf, struct err *err)
{
	static const char timeout[] = "timeout:";

	leaf->reads_fail = strcmp(text, "wait") != 0;
	leaf->reads_fail_ns = 0;
	if (!leaf->reads_fail || strcmp(text, "eio") == 0)
		return 0;
	if (strncmp(text, timeout, strlen(timeout)) != 0 ||
	    parse_duration(text + strlen(timeout), &leaf->reads_fail_ns) < 0)
		return err_set(err, -EINVAL,
			       "--on-outage %s: not wait, eio or timeout:TIME, as in timeout:30s",
			       text);
	return 0;
}
