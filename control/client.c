// SPDX-License-Identifier: Apache-2.0
#include "control/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "core/cleanup.h"
#include "core/clock.h"

/* A status with all its sessions has a few KiB; more than this is not one of ours. */
#define REPLY_MAX (1u << 20)

struct control_client {
	CURL *curl;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *reply;
	size_t length;
};

static size_t take(char *data, size_t size, size_t n, void *ctx)
{
	struct control_client *c = ctx;
	size_t bytes = size * n;
	char *grown;

	if (bytes > REPLY_MAX - c->length)
		return 0;
	grown = realloc(c->reply, c->length + bytes + 1);
	if (!grown)
		return 0;
	memcpy(grown + c->length, data, bytes);
	c->reply = grown;
	c->length += bytes;
	return bytes;
}

struct control_client *control_client_create(const char *path, uint64_t timeout_ns)
{
	struct control_client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	snprintf(c->path, sizeof(c->path), "%s", path);
	c->curl = curl_easy_init();
	if (!c->curl) {
		free(c);
		return NULL;
	}
	curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, c->path);
	curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
	curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS, (long)(timeout_ns / NSEC_PER_MSEC));
	curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
	return c;
}

void control_client_destroy(struct control_client *c)
{
	if (!c)
		return;
	curl_easy_cleanup(c->curl);
	free(c->reply);
	free(c);
}

static int transfer_failed(struct control_client *c, CURLcode code, struct err *err)
{
	long sys = 0;

	curl_easy_getinfo(c->curl, CURLINFO_OS_ERRNO, &sys);
	switch (code) {
	case CURLE_COULDNT_CONNECT:
		if (sys == EACCES || sys == EPERM)
			return err_set(err, -EACCES, "%s: this user may not speak to the daemon",
				       c->path);
		return err_set(err, -ECONNREFUSED, "no daemon listens at %s", c->path);
	case CURLE_OPERATION_TIMEDOUT:
		return err_set(err, -ETIMEDOUT, "the daemon at %s does not answer", c->path);
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
		return err_set(err, -ECONNRESET, "the daemon went away during the call");
	case CURLE_OUT_OF_MEMORY:
		return err_set(err, -ENOMEM, "out of memory");
	default:
		return err_set(err, -EPROTO, "%s: %s", c->path, curl_easy_strerror(code));
	}
}

static int status_result(long status)
{
	switch (status) {
	case 400:
	case 405:
	case 413:
		return -EINVAL;
	case 403:
		return -EACCES;
	case 404:
		return -ENOENT;
	case 409:
		return -EBUSY;
	case 503:
		return -EAGAIN;
	case 500:
		return -EIO;
	default:
		return status >= 200 && status < 300 ? 0 : -EPROTO;
	}
}

int control_call(struct control_client *c, const char *method, const char *path, const json_t *body,
		 json_t **ret_reply, struct err *err)
{
	cleanup_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	struct curl_slist *headers;
	char url[256];
	json_t *reply;
	CURLcode code;
	long status = 0;
	int r;

	if (body && !text)
		return err_set(err, -ENOMEM, "out of memory");
	/* "Expect:" is emptied: no second round trip before a body is sent. */
	headers = curl_slist_append(NULL, "Expect:");
	snprintf(url, sizeof(url), "http://nearblk%s", path);
	c->length = 0;
	curl_easy_setopt(c->curl, CURLOPT_URL, url);
	curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
	if (text) {
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE, (long)strlen(text));
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, text);
	} else {
		curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
	}
	curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
	code = curl_easy_perform(c->curl);
	curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(headers);
	if (code != CURLE_OK)
		return transfer_failed(c, code, err);
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
	reply = json_loadb(c->reply ? c->reply : "", c->length, 0, NULL);
	r = status_result(status);
	if (r < 0) {
		const char *why = json_string_value(json_object_get(reply, "error"));

		if (why)
			err_set(err, r, "%s", why);
		else
			err_set(err, r, "the daemon answered with HTTP status %ld", status);
	} else if (!reply) {
		r = err_set(err, -EPROTO, "the daemon's answer is not JSON");
	} else if (ret_reply) {
		*ret_reply = json_incref(reply);
	}
	json_decref(reply);
	return r;
}
