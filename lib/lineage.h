/*
 * lineage.h - whether this process made the loop, or is a forked child of the
 * one that did.
 *
 * The answer must cost a load, not a getpid(): a page that the kernel wipes on
 * fork (MADV_WIPEONFORK) holds the generation that every loop remembers.
 */
#ifndef ONEFD_LINEAGE_H
#define ONEFD_LINEAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* This process's generation: 0 before the first join, and again after a fork.
 * NULL until some process of the line joined. */
extern _Atomic(_Atomic uint32_t *) lineage_word;

/* The generation of this process, never 0. Any thread. -ENOMEM. */
int lineage_join(uint32_t *ret);

/* @generation came from lineage_join(), so the word is there. */
static inline bool lineage_holds(uint32_t generation)
{
	_Atomic uint32_t *word =
		atomic_load_explicit(&lineage_word, memory_order_relaxed);

	return atomic_load_explicit(word, memory_order_relaxed) == generation;
}

#endif
