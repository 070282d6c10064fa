/*
 * lineage.h - whether this process made the loop, or is a forked child of the
 * one that did.
 *
 * The answer must cost a load, not a getpid(): a page that the kernel wipes on
 * fork (MADV_WIPEONFORK) holds the generation that every loop remembers.
 */
#ifndef ONEFD_LINEAGE_H
#define ONEFD_LINEAGE_H

#include <stdbool.h>
#include <stdint.h>

/* The generation of this process, never 0; -ENOMEM. */
int lineage_join(uint32_t *ret);
bool lineage_holds(uint32_t generation);

#endif
