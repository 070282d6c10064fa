/*
 * lineage.c - whether this process made the loop, or is a forked child of the
 * one that did.
 *
 * No locks: a fork may happen while another thread is in here.
 */
#include "lineage.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#include "sys.h"

#define PAGE 4096	/* the kernel rounds up where pages are larger */

_Atomic(_Atomic uint32_t *) lineage_word;

/* Handed out last, in this process or before the fork that made it: a child's
 * generation differs from those of all loops it inherited. */
static _Atomic uint32_t last;

static void forget(void)
{
	atomic_store(atomic_load(&lineage_word), 0);
}

/* A word that reads 0 in a forked child. */
static int make_word(_Atomic uint32_t **ret)
{
	void *page = sys.map(NULL, PAGE);

	if (!page)
		return -ENOMEM;
	/* Before Linux 4.14, and under valgrind, the advice is refused. */
	if (sys.madvise(page, PAGE, MADV_WIPEONFORK) < 0 &&
	    pthread_atfork(NULL, NULL, forget)) {
		sys.unmap(page, PAGE);
		return -ENOMEM;
	}
	*ret = page;
	return 0;
}

int lineage_join(uint32_t *ret)
{
	_Atomic uint32_t *word = atomic_load(&lineage_word), *other = NULL;
	uint32_t generation = 0;

	if (!word) {
		int r = make_word(&word);
		if (r < 0)
			return r;
		if (!atomic_compare_exchange_strong(&lineage_word, &other, word)) {
			sys.unmap(word, PAGE);
			word = other;
		}
	}
	if (!atomic_load(word))
		atomic_compare_exchange_strong(word, &generation,
					       atomic_fetch_add(&last, 1) + 1);
	*ret = atomic_load(word);
	return 0;
}
