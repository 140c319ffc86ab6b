// SPDX-License-Identifier: Apache-2.0
/*
 * State: the rules and how often each matched, both guarded by `lock`. A request
 * that passes gets no frame of ours. One that fails late carries its result as
 * the context of its frame, so rules may change while it is in flight.
 */
#include "core/filter_fault.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/range.h"

struct fault {
	struct blk_dev dev;
	pthread_mutex_t lock;
	struct filter_fault_rule rule[FILTER_FAULT_RULES]; /* guarded by lock */
	uint64_t matched[FILTER_FAULT_RULES];              /* guarded by lock */
	unsigned count;                                    /* guarded by lock */
	uint64_t fired;                                    /* guarded by lock */
};

static bool matches(const struct filter_fault_rule *rule, const struct blk_req *req)
{
	if (!(rule->ops & (1u << req->op)))
		return false;
	if (!rule->length || req->op == BLK_FLUSH)
		return true;
	return range_overlap(rule->offset, rule->length, req->offset, req->length);
}

/* 0: let it pass. Else the rule's result, and whether the work is done first. */
static int judge(struct fault *f, const struct blk_req *req, bool *ret_after)
{
	int result = 0;

	guard(&f->lock);
	for (unsigned i = 0; i < f->count; i++) {
		const struct filter_fault_rule *rule = &f->rule[i];
		uint64_t n;

		if (!matches(rule, req))
			continue;
		n = ++f->matched[i];
		if (result == 0 && (n == rule->nth || (rule->always && n > rule->nth))) {
			result = rule->result;
			*ret_after = rule->after;
		}
	}
	if (result)
		f->fired++;
	return result;
}

static void fail_late(struct blk_req *req, void *ctx, int result)
{
	(void)result;
	blk_complete(req, (int)(intptr_t)ctx);
}

static void fault_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct fault *f = container_of(dev, struct fault, dev);
	bool after = false;
	int result = judge(f, req, &after);

	if (result == 0)
		dev->inner->ops->submit(dev->inner, req);
	else if (after)
		blk_submit(dev->inner, req, fail_late, (void *)(intptr_t)result);
	else
		blk_complete(req, result);
}

static void fault_destroy(struct blk_dev *dev)
{
	struct fault *f = container_of(dev, struct fault, dev);

	pthread_mutex_destroy(&f->lock);
	free(f);
}

static const struct blk_ops fault_ops = {
	.name = "fault",
	.submit = fault_submit,
	.destroy = fault_destroy,
};

struct blk_dev *filter_fault_create(struct blk_dev *inner, const struct filter_fault_rule *rules,
				    unsigned count)
{
	struct fault *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->dev.ops = &fault_ops;
	f->dev.inner = inner;
	pthread_mutex_init(&f->lock, NULL);
	filter_fault_set(&f->dev, rules, count);
	return &f->dev;
}

void filter_fault_set(struct blk_dev *dev, const struct filter_fault_rule *rules, unsigned count)
{
	struct fault *f = container_of(dev, struct fault, dev);

	assert(dev->ops == &fault_ops);
	assert(count <= FILTER_FAULT_RULES);
	for (unsigned i = 0; i < count; i++)
		assert(rules[i].result < 0 && rules[i].nth >= 1);
	guard(&f->lock);
	for (unsigned i = 0; i < count; i++)
		f->rule[i] = rules[i];
	memset(f->matched, 0, sizeof(f->matched));
	f->count = count;
}

uint64_t filter_fault_matched(struct blk_dev *dev, unsigned index)
{
	struct fault *f = container_of(dev, struct fault, dev);

	assert(dev->ops == &fault_ops);
	guard(&f->lock);
	assert(index < f->count);
	return f->matched[index];
}

uint64_t filter_fault_fired(struct blk_dev *dev)
{
	struct fault *f = container_of(dev, struct fault, dev);

	assert(dev->ops == &fault_ops);
	guard(&f->lock);
	return f->fired;
}
