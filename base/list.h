/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list. A head is a link that points to itself when the list is empty; an
 * unlinked link has NULL pointers, so that unlinking twice is harmless. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct kb_list {
    struct kb_list *next;
    struct kb_list *prev;
};

KB_INLINE void kb_list_init(struct kb_list *head)
{
    head->next = head;
    head->prev = head;
}

KB_INLINE bool kb_list_empty(const struct kb_list *head)
{
    return head->next == head;
}

KB_INLINE bool kb_list_linked(const struct kb_list *link)
{
    return link->next != NULL;
}

KB_INLINE void kb_list_insert_between(struct kb_list *link, struct kb_list *prev,
                                      struct kb_list *next)
{
    link->prev = prev;
    link->next = next;
    prev->next = link;
    next->prev = link;
}

KB_INLINE void kb_list_push_front(struct kb_list *head, struct kb_list *link)
{
    kb_list_insert_between(link, head, head->next);
}

KB_INLINE void kb_list_push_back(struct kb_list *head, struct kb_list *link)
{
    kb_list_insert_between(link, head->prev, head);
}

KB_INLINE void kb_list_unlink(struct kb_list *link)
{
    if (link->next != NULL) {
        link->prev->next = link->next;
        link->next->prev = link->prev;
        link->next = NULL;
        link->prev = NULL;
    }
}

/* Unlinks and returns the first link, or NULL. */
KB_INLINE struct kb_list *kb_list_pop_front(struct kb_list *head)
{
    struct kb_list *link = head->next;

    if (link == head) {
        return NULL;
    }
    kb_list_unlink(link);
    return link;
}

#define KB_LIST_ENTRY(link, type, member) KB_CONTAINER_OF(link, type, member)

/* The body may unlink `link` itself, nothing else. */
#define KB_LIST_FOREACH(link, head)                                                       \
    for (struct kb_list *link = (head)->next, *link##_next_ = link->next; link != (head); \
         link = link##_next_, link##_next_ = link->next)
