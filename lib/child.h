/* child.h - children: the part the loop calls. */
#ifndef ONEFD_LIB_CHILD_H
#define ONEFD_LIB_CHILD_H

#include "list.h"

struct children {
	struct onefd_link started;	/* by their watch's link */
};

void children_open(struct children *children);
void children_close(struct children *children);	/* marks them all stopped */

#endif
