/* list.h - rings of struct onefd_link: a link on its own is in no ring. */
#ifndef LIST_H
#define LIST_H

#include <onefd.h>
#include <stdbool.h>

static inline void list_init(struct onefd_link *link)
{
	link->next = link->prev = link;
}

static inline bool list_empty(const struct onefd_link *head)
{
	return head->next == head;
}

static inline void list_push(struct onefd_link *head, struct onefd_link *link)
{
	link->next = head;
	link->prev = head->prev;
	head->prev->next = link;
	head->prev = link;
}

static inline void list_remove(struct onefd_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

/* All of @from to @to, which may hold anything before. */
static inline void list_move(struct onefd_link *from, struct onefd_link *to)
{
	list_init(to);
	if (list_empty(from))
		return;
	*to = *from;
	to->next->prev = to->prev->next = to;
	list_init(from);
}

#endif
