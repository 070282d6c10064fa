/* test_heap.c - the pairing heap by itself. */
#include "harness.h"

#include <stdint.h>

#include "../lib/heap.h"

#define COUNT 1000

static struct onefd_timer timers[COUNT];

static void insert(struct heap *heap, struct onefd_timer *timer, uint64_t due)
{
	timer->due = due;
	heap_insert(heap, timer);
}

START_TEST(removing_the_root_yields_ascending_order)
{
	struct heap heap = { 0 };
	uint64_t before = 0;

	srand(1);
	for (int i = 0; i < COUNT; i++)
		insert(&heap, &timers[i], (uint64_t)rand() % 100);
	for (int i = 0; i < COUNT; i++) {
		ck_assert_uint_ge(heap.root->due, before);
		before = heap.root->due;
		heap_remove(&heap, heap.root);
	}
	ck_assert_ptr_null(heap.root);
}
END_TEST

START_TEST(any_timer_can_leave)
{
	struct heap heap = { 0 };
	uint64_t before = 0;
	int left = 0;

	srand(2);
	for (int i = 0; i < COUNT; i++)
		insert(&heap, &timers[i], (uint64_t)rand());
	for (int i = 0; i < 10; i++)	/* gives the tree some depth */
		heap_remove(&heap, heap.root);
	for (int i = 0; i < COUNT; i += 2)
		if (timers[i].prev)
			heap_remove(&heap, &timers[i]);
	for (; heap.root; left++) {
		ck_assert_int_eq((heap.root - timers) % 2, 1);
		ck_assert_uint_ge(heap.root->due, before);
		before = heap.root->due;
		heap_remove(&heap, heap.root);
	}
	ck_assert_int_ge(left, COUNT / 2 - 10);
}
END_TEST

START_TEST(prev_says_whether_a_timer_stands_in_a_heap)
{
	struct heap heap = { 0 };

	for (int i = 0; i < 3; i++)
		insert(&heap, &timers[i], 3 - (uint64_t)i);
	ck_assert_ptr_eq(heap.root, &timers[2]);
	for (int i = 0; i < 3; i++) {
		ck_assert_ptr_nonnull(timers[i].prev);
		heap_remove(&heap, &timers[i]);
		ck_assert_ptr_null(timers[i].prev);
	}
	ck_assert_ptr_null(heap.root);
}
END_TEST

/* Else the first removal after a million starts would stall one turn. */
START_TEST(root_has_few_children_after_many_inserts)
{
	enum { MANY = 100000 };
	struct onefd_timer *many = calloc(MANY, sizeof *many), *child;
	struct heap heap = { 0 };
	int children = 0;

	for (int i = 0; i < MANY; i++)
		insert(&heap, &many[i], (uint64_t)i);
	for (child = heap.root->child; child; child = child->next)
		children++;
	ck_assert_int_le(children, 20);
	free(many);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("heap");
	TCase *tcase = add_case(suite, "heap", NULL, NULL);

	tcase_add_test(tcase, removing_the_root_yields_ascending_order);
	tcase_add_test(tcase, any_timer_can_leave);
	tcase_add_test(tcase, prev_says_whether_a_timer_stands_in_a_heap);
	tcase_add_test(tcase, root_has_few_children_after_many_inserts);
	return run_suite(suite);
}
