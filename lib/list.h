/*
 * list.h - rings of struct onefd_link, the head a link like any other.
 *
 * Not a container: it owns nothing, and a link that stands in no ring points
 * at itself, so that taking it out twice is harmless.
 */
#ifndef ONEFD_LIST_H
#define ONEFD_LIST_H

#include <onefd.h>
#include <stdbool.h>

#define list_entry(link, type, member) onefd_container(link, type, member)

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

static inline void list_push_front(struct onefd_link *head, struct onefd_link *link)
{
	list_push(head->next, link);
}

static inline void list_remove(struct onefd_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

/* The first link, taken out, or NULL. */
static inline struct onefd_link *list_pop(struct onefd_link *head)
{
	struct onefd_link *first = head->next;

	if (first == head)
		return NULL;
	list_remove(first);
	return first;
}

/* Moves all of @from to the end of @head. */
static inline void list_splice(struct onefd_link *head, struct onefd_link *from)
{
	if (list_empty(from))
		return;
	from->next->prev = head->prev;
	head->prev->next = from->next;
	from->prev->next = head;
	head->prev = from->prev;
	list_init(from);
}

#endif
