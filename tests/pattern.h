/* pattern.h - bytes that can be foretold: of the tests' files, and of the file
 * system that faulty_fs.c makes. */
#ifndef ONEFD_TESTS_PATTERN_H
#define ONEFD_TESTS_PATTERN_H

#include <stdint.h>
#include <sys/types.h>

/* What stands at @offset in every file made here: no period that a block has. */
static inline unsigned char pattern(off_t offset)
{
	return (unsigned char)((uint64_t)offset * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static inline void fill(void *buf, size_t len, off_t offset)
{
	for (size_t i = 0; i < len; i++)
		((unsigned char *)buf)[i] = pattern(offset + (off_t)i);
}

#endif
