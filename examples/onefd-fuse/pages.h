/*
 * pages.h - the pages that the kernel has of a file.
 *
 * They are dropped when the file was changed behind our back, and for no other change. The
 * kernel copies what is written into the page, lets go of it, and sends the write: if the
 * page is dropped in between, and a mapping has it read anew before the write comes, the
 * mapping has the old bytes, and puts them back over the new.
 *
 * The loop's thread only.
 */
#ifndef PAGES_H
#define PAGES_H

#include "fs.h"

/*
 * What is answered to who opens it, and has no struct file yet; @st is what it is now. False:
 * the kernel drops its pages, but in its own time, when others have their answer and
 * write already. So where it may be done here, it is.
 */
bool pages_keep(struct fs *fs, struct inode *inode, const struct stat *st);

/* The kernel did not come to drop them: the next to open it will. */
void pages_forget(struct inode *inode);

/* The mount has changed its data or its times: notes when. */
void pages_wrote(struct inode *inode);

/* There may be some up to @end. */
void pages_reach(struct inode *inode, off_t end);

#endif
