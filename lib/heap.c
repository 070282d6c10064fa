/*
 * heap.c - a pairing heap of timers, intrusive, ordered by due.
 *
 * A plain pairing heap hangs every insert below the root and leaves the work
 * to the next removal of the root: a million timers started in one go would
 * then stall one turn. So inserts merge what was inserted before them as a
 * binary counter carries, and the root never has many children to pair.
 */
#include "heap.h"

#include <stdbool.h>
#include <stddef.h>

static void link_child(struct onefd_timer *parent, struct onefd_timer *timer)
{
	timer->prev = parent;
	timer->next = parent->child;
	if (timer->next)
		timer->next->prev = timer;
	parent->child = timer;
}

/* Makes the later of two trees the first child of the earlier, which it
 * returns; the place of that one is left to the caller. */
static struct onefd_timer *meld(struct onefd_timer *a, struct onefd_timer *b)
{
	if (b->due < a->due) {
		link_child(b, a);
		return b;
	}
	link_child(a, b);
	return a;
}

/* One tree of a list of siblings, or NULL: pairs from the front, then one by
 * one from the back. Both passes are needed for the logarithmic bound. */
static struct onefd_timer *pair_up(struct onefd_timer *first)
{
	struct onefd_timer *pairs = NULL, *tree, *rest;

	for (; first; first = rest) {
		tree = first;
		rest = tree->next;
		if (rest) {
			struct onefd_timer *second = rest;

			rest = second->next;
			tree = meld(tree, second);
		}
		tree->next = pairs;
		pairs = tree;
	}
	tree = pairs;
	for (pairs = tree ? tree->next : NULL; pairs; pairs = rest) {
		rest = pairs->next;
		tree = meld(tree, pairs);
	}
	return tree;
}

static void set_root(struct heap *heap, struct onefd_timer *root)
{
	heap->root = root;
	heap->inserted = 0;
	if (!root)
		return;
	root->next = NULL;
	root->prev = root;
}

/* Melds the root's first two children; false when there is but one. */
static bool carry(struct onefd_timer *root)
{
	struct onefd_timer *first = root->child, *second = first->next, *rest;

	if (!second)
		return false;
	rest = second->next;
	root->child = rest;
	link_child(root, meld(first, second));
	return true;
}

void heap_insert(struct heap *heap, struct onefd_timer *timer)
{
	struct onefd_timer *root = heap->root;
	uint64_t count;

	timer->child = NULL;
	if (!root || timer->due < root->due) {
		if (root)
			link_child(timer, root);
		set_root(heap, timer);
		return;
	}
	link_child(root, timer);
	/* The count is a hint: what was removed since makes trees lighter than
	 * it says, which costs balance and nothing else. */
	for (count = ++heap->inserted; !(count & 1) && carry(root); count >>= 1)
		;
}

void heap_remove(struct heap *heap, struct onefd_timer *timer)
{
	struct onefd_timer *tree = pair_up(timer->child);
	struct onefd_timer *prev = timer->prev, *next = timer->next;

	timer->prev = NULL;
	if (timer == heap->root) {
		set_root(heap, tree);
		return;
	}
	/* Below its parent's due all that hung below it stays in order, so the
	 * tree takes its place with no look at the root. */
	if (tree) {
		tree->next = next;
		if (next)
			next->prev = tree;
		next = tree;
	}
	if (next)
		next->prev = prev;
	if (prev->child == timer)
		prev->child = next;
	else
		prev->next = next;
}
