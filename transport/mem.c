// SPDX-License-Identifier: Apache-2.0
/*
 * State: one private mapping, untouched pages of which are zero and cost nothing. There is no lock:
 * requests on disjoint ranges are independent, and overlapping ones in flight have no order anyway.
 */
#include "transport/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/cleanup.h"
#include "core/range.h"

struct mem {
	struct blk_dev dev;
	struct blk_info info;
	uint8_t *data;
	_Atomic uint64_t read_bytes;
	_Atomic uint64_t write_bytes;
	atomic_bool stopped;
};

/* Zero a range; whole pages are given back, so that a sparse device stays sparse. */
static void clear(struct mem *m, uint64_t offset, uint64_t length)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t start = round_up(offset, page);
	uint64_t end = round_down(offset + length, page);

	if (start >= end || madvise(m->data + start, end - start, MADV_DONTNEED) < 0) {
		memset(m->data + offset, 0, length);
		return;
	}
	memset(m->data + offset, 0, start - offset);
	memset(m->data + end, 0, offset + length - end);
}

static void mem_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct mem *m = container_of(dev, struct mem, dev);
	int r = atomic_load(&m->stopped) ? -ESHUTDOWN : blk_check(&m->info, req);

	if (r == 0) {
		switch (req->op) {
		case BLK_READ:
			iov_copy_to(req->iov, req->iovcnt, 0, m->data + req->offset, req->length);
			atomic_fetch_add(&m->read_bytes, req->length);
			break;
		case BLK_WRITE:
			iov_copy_from(req->iov, req->iovcnt, 0, m->data + req->offset, req->length);
			atomic_fetch_add(&m->write_bytes, req->length);
			break;
		case BLK_DISCARD:
		case BLK_ZERO:
			clear(m, req->offset, req->length);
			break;
		case BLK_FLUSH:
			break;
		}
	}
	blk_complete(req, r);
}

static void mem_stop(struct blk_dev *dev)
{
	struct mem *m = container_of(dev, struct mem, dev);

	atomic_store(&m->stopped, true);
}

static void mem_destroy(struct blk_dev *dev)
{
	struct mem *m = container_of(dev, struct mem, dev);

	munmap(m->data, m->info.size_bytes);
	free(m);
}

static void mem_info(struct blk_dev *dev, struct blk_info *ret_info)
{
	*ret_info = container_of(dev, struct mem, dev)->info;
}

static void mem_stats(struct blk_dev *dev, struct blk_stats *ret_stats)
{
	struct mem *m = container_of(dev, struct mem, dev);

	ret_stats->read_bytes = atomic_load(&m->read_bytes);
	ret_stats->write_bytes = atomic_load(&m->write_bytes);
	ret_stats->online = true;
}

static const struct blk_ops mem_ops = {
	.name = "mem",
	.submit = mem_submit,
	.stop = mem_stop,
	.destroy = mem_destroy,
	.info = mem_info,
	.stats = mem_stats,
};

struct blk_dev *mem_create(uint64_t size_bytes, uint32_t sector_bytes, unsigned info_flags)
{
	cleanup_free struct mem *m = calloc(1, sizeof(*m));

	assert(is_pow2(sector_bytes) && sector_bytes <= 4096);
	assert(size_bytes > 0 && size_bytes % sector_bytes == 0);
	if (!m)
		return NULL;
	m->data = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->data == MAP_FAILED)
		return NULL;
	m->dev.ops = &mem_ops;
	m->info = (struct blk_info){
		.size_bytes = size_bytes,
		.sector_bytes = sector_bytes,
		.max_read_bytes = 1 << 20,
		.max_write_bytes = 1 << 20,
		.discard_align_bytes = info_flags & BLK_INFO_CAN_DISCARD ? sector_bytes : 0,
		.max_discard_bytes = size_bytes,
		.flags = info_flags,
		.identity = "mem",
	};
	return &steal_ptr(m)->dev;
}

uint8_t *mem_data(struct blk_dev *dev)
{
	assert(dev->ops == &mem_ops);
	return container_of(dev, struct mem, dev)->data;
}
