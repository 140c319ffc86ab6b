// SPDX-License-Identifier: Apache-2.0
/*
 * Is the far side what it was when we left it? Not for other folders.
 *
 *	SETTLED ─(opening, auto)→ ASKED ─all samples equal→ SETTLED
 *	                            └────one differs──────→ CHANGED
 *
 * SETTLED: what the cache has is believed. ASKED: samples of the far side are under way; nothing is
 * sent to it and no fetch is answered. CHANGED, once the cache is open: fenced, for good.
 */
#ifndef CACHE_TRUST_H
#define CACHE_TRUST_H

#include "cache/scan.h"

struct fetch;

enum trust_state { TRUST_SETTLED, TRUST_ASKED, TRUST_CHANGED };

/*
 * While opening, with the map filled: compare samples with the far side and do what conf->trust
 * says. 0, also where nobody answers: then the verdict comes later. -EMEDIUMTYPE with @err:
 * changed, and there is unsent data. The opening thread; no lock.
 */
int trust_check(struct recovery *rec, struct err *err);
/* May @f's bytes be used? 0; -ESTALE: no; -EINPROGRESS: kept until it is known, then
 * fetch_answered() is called. No lock. */
int trust_admit(struct cache *c, struct fetch *f);
/* Note samples of what is cached in the identity; nothing is dirty. Stop only. */
void trust_note(struct cache *c);
/* No timer or answer comes any more. Stop only. */
void trust_halt(struct cache *c);
/* Safe where none was made. */
void trust_fini(struct cache *c);

#endif
