// SPDX-License-Identifier: Apache-2.0
/*
 * A request goes QUEUED → (reaches the store) → ACTED → (done). Waiting for the
 * link or a hold it is QUEUED with no task pending. A cut turns every request back to
 * QUEUED, leaving a ghost where it was a change.
 *
 * Invariants: ops holds every request taken and not done; of any two that overlap
 * none changes; ghosts are of this store, not of the device, and outlive it.
 */
#include "tests/lib/simfar.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/range.h"

#define MAX_PENDING 8192

enum stage { QUEUED, ACTED };

struct far {
	struct blk_dev dev;
	struct simfar_store *store;
	bool stopped;
};

struct simfar_store {
	struct sim_part part;
	struct sim *sim;
	struct simfar_config config;
	struct simimage image;
	struct far *far;         /* NULL: no device */
	struct list_node ops;    /* struct op.link */
	struct list_node ghosts; /* struct ghost.link */
	uint64_t in_flight;
	uint64_t count[BLK_OP_COUNT];
	uint64_t generation;
	uint64_t fence_flushes; /* FLUSHes submitted before this count do not end ghosts */
	bool foreign_ghosts; /* they are of a killed process: the next one's first change ends them
			      */
	uint64_t landed;     /* ghosts that came late */
	bool down;
	bool act_inline;
	uint64_t shown_bytes; /* the size that the device claims */
	unsigned hold;
	struct sim_fault fault;
	void (*changed)(void *ctx, uint64_t offset, uint64_t length);
	void *changed_ctx;
	struct blk_stats stats;
};

struct op {
	struct list_node link;
	struct sched_timer timer; /* its task is the next step */
	struct simfar_store *store;
	struct blk_req *req;
	enum stage stage;
	bool waiting; /* for the link or a hold: no step is pending */
	bool cancelled;
	int result;
	uint64_t number; /* of its op */
	uint64_t mark;   /* FLUSH: what it covers */
	uint64_t change; /* of the image; 0: none */
};

struct ghost {
	struct list_node link;
	struct sched_timer timer;
	struct simfar_store *store;
	uint64_t offset;
	uint64_t length;
	uint8_t *data; /* NULL: zeroes */
};

static struct simfar_store *store_of(struct blk_dev *dev)
{
	return container_of(dev, struct far, dev)->store;
}

static bool changes(const struct blk_req *req)
{
	return req->op == BLK_WRITE || req->op == BLK_ZERO || req->op == BLK_DISCARD;
}

static const char *const op_names[BLK_OP_COUNT] = { "READ", "WRITE", "FLUSH", "DISCARD", "ZERO" };

static void trace(struct simfar_store *s, const char *what, const struct blk_req *req)
{
	sim_trace(s->sim, "far: %s %s%s %llu+%llu", what, op_names[req->op],
		  req->flags & BLK_FUA ? " FUA" : "", (unsigned long long)req->offset,
		  (unsigned long long)req->length);
}

static void tell_change(struct simfar_store *s, uint64_t offset, uint64_t length)
{
	if (s->changed)
		s->changed(s->changed_ctx, offset, length);
}

static uint64_t change(struct simfar_store *s, uint64_t offset, uint64_t length, const void *data)
{
	uint64_t id = simimage_change(&s->image, offset, length, data);

	simimage_bound(&s->image, MAX_PENDING);
	tell_change(s, offset, length);
	return id;
}

static uint8_t *flatten(const struct blk_req *req)
{
	uint8_t *flat;

	if (req->op != BLK_WRITE)
		return NULL;
	flat = sim_alloc(req->length);
	iov_copy_from(req->iov, req->iovcnt, 0, flat, req->length);
	return flat;
}

static void ghost_end(struct ghost *g)
{
	struct sched *sched = sim_sched(g->store->sim);

	if (!sched_disarm(sched, &g->timer))
		sim_cancel(g->store->sim, &g->timer.task);
	list_del(&g->link);
	free(g->data);
	free(g);
}

static void ghost_land(struct ghost *g)
{
	struct simfar_store *s = g->store;

	sim_trace(s->sim, "far: a ghost changes %llu+%llu", (unsigned long long)g->offset,
		  (unsigned long long)g->length);
	s->landed++;
	simimage_complete(&s->image, change(s, g->offset, g->length, g->data));
}

static void ghost_run(struct task *task)
{
	struct ghost *g = container_of(task, struct ghost, timer.task);

	ghost_land(g);
	ghost_end(g);
}

/* Let it come at a random time, near or far. */
static void ghost_arm(struct ghost *g)
{
	static const uint64_t late_ns[] = { 1, NSEC_PER_MSEC, 100 * NSEC_PER_MSEC };
	struct sim *sim = g->store->sim;
	struct sched *sched = sim_sched(sim);

	sched_arm(sched, &g->timer,
		  sched_now(sched) + sim_below(sim, late_ns[sim_below(sim, ARRAY_SIZE(late_ns))]));
}

/* Whole, or the first sectors of it, of a change whose sender is gone. */
static void ghost_add(struct op *o)
{
	struct simfar_store *s = o->store;
	struct ghost *g;
	uint64_t dice = sim_below(s->sim, 4);

	if (!changes(o->req) || o->stage == ACTED || dice == 0)
		return;
	g = sim_alloc(sizeof(*g));
	sched_timer_init(&g->timer, ghost_run);
	g->store = s;
	g->offset = o->req->offset;
	g->length = o->req->length;
	g->data = flatten(o->req);
	if (dice == 1)
		g->length = (1 + sim_below(s->sim, g->length / s->config.info.sector_bytes)) *
			    s->config.info.sector_bytes;
	list_add_tail(&s->ghosts, &g->link);
	if (dice == 2) { /* reached it just before */
		simimage_complete(&s->image, change(s, g->offset, g->length, g->data));
		ghost_end(g);
		return;
	}
	ghost_arm(g);
}

/* The fence: what did not arrive so far may do so now, and then never. */
static void ghosts_fence(struct simfar_store *s)
{
	while (!list_empty(&s->ghosts)) {
		struct ghost *g = list_first(&s->ghosts, struct ghost, link);

		if (sim_once_in(s->sim, 2))
			ghost_land(g);
		ghost_end(g);
	}
	s->foreign_ghosts = false;
}

static void check_overlap(struct simfar_store *s, const struct blk_req *req)
{
	struct list_node *n;

	list_for_each(n, &s->ops) {
		const struct blk_req *other = list_entry(n, struct op, link)->req;

		if (other->op == BLK_FLUSH || (!changes(req) && !changes(other)))
			continue;
		if (range_overlap(req->offset, req->length, other->offset, other->length))
			sim_die(s->sim,
				"op %d of %llu+%llu sent while op %d of %llu+%llu is in flight",
				req->op, (unsigned long long)req->offset,
				(unsigned long long)req->length, other->op,
				(unsigned long long)other->offset,
				(unsigned long long)other->length);
	}
}

static void act(struct op *o)
{
	struct simfar_store *s = o->store;
	struct blk_req *req = o->req;
	cleanup_free uint8_t *flat = flatten(req);
	uint64_t length = req->length;
	int fault = sim_fault_check(&s->fault, 1u << req->op);

	o->stage = ACTED;
	o->result = fault;
	trace(s, fault ? "fails" : "does", req);
	if (req->op == BLK_FLUSH) {
		if (o->number >= s->fence_flushes)
			ghosts_fence(s);
		if (!fault)
			simimage_commit(&s->image, o->mark);
	} else if (req->op == BLK_READ) {
		if (o->cancelled)
			o->result = -EINTR;
		else if (!fault)
			iov_copy_to(req->iov, req->iovcnt, 0, s->image.now + req->offset, length);
	} else {
		if (s->foreign_ghosts)
			ghosts_fence(s);
		if (fault)
			length = sim_below(s->sim, length / s->config.info.sector_bytes + 1) *
				 s->config.info.sector_bytes;
		if (length)
			o->change = change(s, req->offset, length, flat);
	}
}

static void finish(struct op *o)
{
	struct simfar_store *s = o->store;
	struct blk_req *req = o->req;
	int result = o->result;

	trace(s, "ends", req);
	if (o->change) {
		simimage_complete(&s->image, o->change);
		if ((req->flags & BLK_FUA) && result == 0)
			simimage_commit_one(&s->image, o->change);
	}
	if (result == 0 && changes(req))
		s->stats.write_bytes += req->length;
	if (result == 0 && req->op == BLK_READ)
		s->stats.read_bytes += req->length;
	list_del(&o->link);
	s->in_flight--;
	free(o);
	blk_complete(req, result);
}

/* Let its next step come: at a random turn, or after a random time. */
static void go_on(struct op *o)
{
	struct simfar_store *s = o->store;
	struct sched *sched = sim_sched(s->sim);

	o->waiting = false;
	if (s->config.latency_ns && o->stage == QUEUED)
		sched_arm(sched, &o->timer,
			  sched_now(sched) + sim_below(s->sim, s->config.latency_ns));
	else
		sched_post(sched, &o->timer.task);
}

static void run_op(struct task *task)
{
	struct op *o = container_of(task, struct op, timer.task);

	if (o->stage == ACTED) {
		finish(o);
		return;
	}
	act(o);
	go_on(o);
}

static int check(const struct blk_info *info, const struct blk_req *req)
{
	int r = blk_check(info, req);

	if (r < 0 || (req->op != BLK_DISCARD && req->op != BLK_ZERO))
		return r;
	if (req->length > info->max_discard_bytes)
		return -EINVAL;
	if (req->op == BLK_DISCARD && (req->offset | req->length) % info->discard_align_bytes)
		return -EINVAL;
	return 0;
}

static void far_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct simfar_store *s = store_of(dev);
	int r = s->far->stopped ? -ESHUTDOWN : check(&s->config.info, req);
	struct op *o;

	if (r < 0) {
		blk_complete(req, r);
		return;
	}
	if (req->op != BLK_FLUSH)
		check_overlap(s, req);
	trace(s, "takes", req);
	o = sim_alloc(sizeof(*o));
	sched_timer_init(&o->timer, run_op);
	o->store = s;
	o->req = req;
	o->number = s->count[req->op]++;
	if (req->op == BLK_FLUSH)
		o->mark = simimage_mark(&s->image);
	list_add_tail(&s->ops, &o->link);
	s->in_flight++;
	if (s->act_inline) {
		act(o);
		finish(o);
		return;
	}
	if ((req->flags & BLK_ADVISORY) && s->config.drop_once_in &&
	    sim_once_in(s->sim, s->config.drop_once_in)) {
		o->stage = ACTED;
		o->result = -ECANCELED;
		go_on(o);
		return;
	}
	o->waiting = s->down || (s->hold & (1u << req->op));
	if (!o->waiting)
		go_on(o);
}

static void take_back(struct op *o)
{
	struct sched *sched = sim_sched(o->store->sim);

	if (!sched_disarm(sched, &o->timer))
		sim_cancel(o->store->sim, &o->timer.task);
}

static void far_stop(struct blk_dev *dev)
{
	struct simfar_store *s = store_of(dev);

	s->far->stopped = true;
	while (!list_empty(&s->ops)) {
		struct op *o = list_first(&s->ops, struct op, link);

		take_back(o);
		if (o->stage == QUEUED && (s->down || sim_once_in(s->sim, 2)))
			o->result = -ESHUTDOWN;
		else if (o->stage == QUEUED)
			act(o);
		finish(o);
	}
}

static void far_destroy(struct blk_dev *dev)
{
	struct simfar_store *s = store_of(dev);

	free(s->far);
	s->far = NULL;
}

static void far_info(struct blk_dev *dev, struct blk_info *ret_info)
{
	*ret_info = store_of(dev)->config.info;
	ret_info->size_bytes = store_of(dev)->shown_bytes;
}

static uint64_t far_generation(struct blk_dev *dev)
{
	return store_of(dev)->generation;
}

static void far_cancel(struct blk_dev *dev, struct blk_req *req)
{
	struct simfar_store *s = store_of(dev);
	struct list_node *n;

	list_for_each(n, &s->ops) {
		struct op *o = list_entry(n, struct op, link);

		if (o->req != req || req->op != BLK_READ)
			continue;
		o->cancelled = true;
		if (o->waiting) {
			o->stage = ACTED;
			o->result = -EINTR;
			go_on(o);
		}
		return;
	}
}

static void far_stats(struct blk_dev *dev, struct blk_stats *ret_stats)
{
	struct simfar_store *s = store_of(dev);

	*ret_stats = s->stats;
	ret_stats->online = !s->down;
}

static const struct blk_ops far_ops = {
	.name = "simfar",
	.submit = far_submit,
	.stop = far_stop,
	.destroy = far_destroy,
	.info = far_info,
	.generation = far_generation,
	.cancel = far_cancel,
	.stats = far_stats,
};

static void far_reset(struct sim_part *part)
{
	struct simfar_store *s = container_of(part, struct simfar_store, part);

	/* sim_reset() drops all timers; the ghosts, which are the network's, start again with the
	 * next device. */
	simfar_kill(s);
}

struct simfar_store *simfar_store_create(struct sim *sim, const struct simfar_config *config)
{
	struct simfar_store *s = sim_alloc(sizeof(*s));
	struct blk_info *info = &s->config.info;

	s->config = *config;
	if (!info->size_bytes)
		info->size_bytes = 1 << 20;
	if (!info->sector_bytes)
		info->sector_bytes = 512;
	if (!info->max_read_bytes)
		info->max_read_bytes = 1 << 20;
	if (!info->max_write_bytes)
		info->max_write_bytes = 1 << 20;
	if (!info->max_discard_bytes)
		info->max_discard_bytes = info->size_bytes;
	if ((info->flags & BLK_INFO_CAN_DISCARD) && !info->discard_align_bytes)
		info->discard_align_bytes = info->sector_bytes;
	if (!info->identity[0])
		strcpy(info->identity, "sim");
	info->flags |= BLK_INFO_VOLATILE;
	s->shown_bytes = info->size_bytes;
	s->sim = sim;
	s->generation = 1 + sim_below(sim, 100);
	list_init(&s->ops);
	list_init(&s->ghosts);
	simimage_init(&s->image, info->size_bytes);
	s->part.reset = far_reset;
	sim_join(sim, &s->part);
	return s;
}

void simfar_store_destroy(struct simfar_store *s)
{
	if (!s)
		return;
	simfar_kill(s);
	while (!list_empty(&s->ghosts))
		ghost_end(list_first(&s->ghosts, struct ghost, link));
	simimage_free(&s->image);
	sim_leave(&s->part);
	free(s);
}

struct blk_dev *simfar_create(struct sim *sim, struct simfar_store *s)
{
	struct list_node *n;

	if (s->far || sim != s->sim)
		sim_die(s->sim, "a far store got two devices, or one of another sim");
	s->far = sim_alloc(sizeof(*s->far));
	s->far->dev.ops = &far_ops;
	s->far->store = s;
	s->down = false;
	s->hold = 0;
	s->generation++;
	list_for_each(n, &s->ghosts) {
		struct ghost *g = list_entry(n, struct ghost, link);

		if (list_empty(&g->timer.task.link))
			ghost_arm(g);
	}
	return &s->far->dev;
}

void simfar_kill(struct simfar_store *s)
{
	if (!s->far)
		return;
	while (!list_empty(&s->ops)) {
		struct op *o = list_first(&s->ops, struct op, link);

		take_back(o);
		if (o->change)
			simimage_complete(&s->image, o->change);
		ghost_add(o);
		list_del(&o->link);
		free(o);
	}
	s->in_flight = 0;
	s->foreign_ghosts = !list_empty(&s->ghosts);
	free(s->far);
	s->far = NULL;
}

void simfar_cut(struct simfar_store *s, bool forgets)
{
	struct list_node *n;

	sim_trace(s->sim, "far: the link is cut%s", forgets ? ", and the target forgets" : "");
	s->generation++;
	s->down = true;
	list_for_each(n, &s->ops) {
		struct op *o = list_entry(n, struct op, link);

		take_back(o);
		if (o->change)
			simimage_complete(&s->image, o->change);
		ghost_add(o);
		o->change = 0;
		o->stage = QUEUED;
		o->waiting = true;
	}
	s->fence_flushes = s->count[BLK_FLUSH];
	if (forgets) {
		simimage_cut(&s->image, s->sim, s->config.info.sector_bytes);
		tell_change(s, 0, s->config.info.size_bytes);
	}
}

static void wake_waiting(struct simfar_store *s)
{
	struct list_node *n;

	list_for_each(n, &s->ops) {
		struct op *o = list_entry(n, struct op, link);

		if (o->waiting && !s->down && !(s->hold & (1u << o->req->op)))
			go_on(o);
	}
}

void simfar_restore(struct simfar_store *s)
{
	sim_trace(s->sim, "far: the link is back");
	s->down = false;
	wake_waiting(s);
}

bool simfar_is_down(const struct simfar_store *s)
{
	return s->down;
}

void simfar_hold(struct simfar_store *s, unsigned ops)
{
	s->hold = ops;
	wake_waiting(s);
}

void simfar_set_inline(struct simfar_store *s, bool on)
{
	s->act_inline = on;
}

void simfar_fail(struct simfar_store *s, unsigned mask, uint64_t nth, int error, bool always)
{
	assert(!nth || error < 0);
	s->fault = (struct sim_fault){
		.mask = mask,
		.nth = nth,
		.error = error,
		.always = always,
	};
}

uint64_t simfar_fault_hits(const struct simfar_store *s)
{
	return s->fault.hits;
}

uint64_t simfar_in_flight(const struct simfar_store *s)
{
	return s->in_flight;
}

uint64_t simfar_count(const struct simfar_store *s, enum blk_op op)
{
	return s->count[op];
}

uint64_t simfar_ghosts(const struct simfar_store *s)
{
	return s->landed;
}

void simfar_on_change(struct simfar_store *s,
		      void (*changed)(void *ctx, uint64_t offset, uint64_t length), void *ctx)
{
	s->changed = changed;
	s->changed_ctx = ctx;
}

const struct simimage *simfar_image(const struct simfar_store *s)
{
	return &s->image;
}

uint8_t *simfar_cut_copy(struct simfar_store *s)
{
	uint64_t bytes;

	return simimage_cut_copy(&s->image, s->sim, s->config.info.sector_bytes, &bytes);
}

void simfar_meddle(struct simfar_store *s, uint64_t offset, const void *data, uint64_t length)
{
	uint64_t id = change(s, offset, length, data);

	simimage_complete(&s->image, id);
	simimage_commit_one(&s->image, id);
}

void simfar_show_size(struct simfar_store *s, uint64_t size_bytes)
{
	s->shown_bytes = size_bytes;
}
