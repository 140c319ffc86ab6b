// SPDX-License-Identifier: Apache-2.0
/*
 * What start-up functions tell a person when they fail: fixed text that says
 * what failed, why, and what to do. The code that travels with it is a negative
 * errno, returned as usual.
 */
#ifndef CORE_ERR_H
#define CORE_ERR_H

struct err {
	char text[768];
};

/*
 * Write the message and return @code, so that a failing function ends with
 * `return err_set(err, -EINVAL, "…", …);`. @err may be NULL. Longer texts are
 * cut. The arguments may point into err->text. Any thread; @err is the caller's.
 */
__attribute__((format(printf, 3, 4))) int err_set(struct err *err, int code, const char *fmt, ...);

/*
 * Put "context: " in front of what is there and return @code. For a caller that
 * knows more than the callee did (which file, which option).
 */
__attribute__((format(printf, 3, 4))) int err_prefix(struct err *err, int code, const char *fmt,
						     ...);

#endif
