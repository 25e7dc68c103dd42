/* SPDX-License-Identifier: Apache-2.0 */
/* proxy/api/subscription.h without a control plane: the test gives the answers. One executable's.
 */
#pragma once

#include "base/mem.h"
#include "proxy/api/subscription.h"

#define FAKE_SUBSCRIPTIONS_MAX 8

struct kb_subscription {
    struct kb_subscription_options options;
    char name[64];
    char stat_prefix[128];
    bool started;
};

static struct kb_subscription *fake_subscriptions[FAKE_SUBSCRIPTIONS_MAX];
static unsigned fake_subscription_count;
static bool fake_subscription_refused;

struct kb_subscription *kb_subscription_create(struct kb_server_context *server,
                                               const struct kb_subscription_options *options,
                                               struct kb_diag *diag)
{
    struct kb_subscription *subscription;

    (void)server;
    if (fake_subscription_refused) {
        kb_diag_error(diag, "no such source");
        return NULL;
    }
    assert_true(fake_subscription_count < FAKE_SUBSCRIPTIONS_MAX);
    subscription = kb_calloc(1, sizeof(*subscription));
    subscription->options = *options;
    (void)snprintf(subscription->name, sizeof(subscription->name), "%.*s",
                   KB_STR_ARG(options->name));
    (void)snprintf(subscription->stat_prefix, sizeof(subscription->stat_prefix), "%s",
                   options->stat_prefix);
    fake_subscriptions[fake_subscription_count++] = subscription;
    return subscription;
}

struct kb_str kb_subscription_name(const struct kb_subscription *subscription)
{
    return kb_str_from_cstr(subscription->name);
}

void kb_subscription_start(struct kb_subscription *subscription)
{
    assert_false(subscription->started);
    subscription->started = true;
}

void kb_subscription_destroy(struct kb_subscription *subscription)
{
    for (unsigned i = 0; i < fake_subscription_count; i++) {
        if (fake_subscriptions[i] == subscription) {
            fake_subscriptions[i] = fake_subscriptions[--fake_subscription_count];
        }
    }
    free(subscription);
}

void kb_subscriptions_pause(struct kb_server_context *server, enum kb_resource_type type)
{
    (void)server;
    (void)type;
}

void kb_subscriptions_resume(struct kb_server_context *server, enum kb_resource_type type)
{
    (void)server;
    (void)type;
}

/* State of the world with one resource, or none. */
static inline void fake_answer(struct kb_subscription *subscription, const char *name,
                               const char *version, const void *message, struct kb_diag *diag)
{
    const struct kb_resource resource = {
        .name = kb_str_from_cstr(name), .version = kb_str_from_cstr(version), .message = message};
    const struct kb_resource_update update = {.resources = &resource,
                                              .resource_count = message != NULL ? 1 : 0,
                                              .version = resource.version,
                                              .state_of_the_world = true};

    subscription->options.callbacks->on_update(subscription->options.arg, &update, diag);
}

/* A delta that takes a resource away. */
static inline void fake_removal(struct kb_subscription *subscription, const char *name,
                                struct kb_diag *diag)
{
    const struct kb_str removed = kb_str_from_cstr(name);
    const struct kb_resource_update update = {.removed = &removed, .removed_count = 1};

    subscription->options.callbacks->on_update(subscription->options.arg, &update, diag);
}

static inline void fake_failure(struct kb_subscription *subscription,
                                enum kb_subscription_failure failure)
{
    subscription->options.callbacks->on_failure(subscription->options.arg, failure);
}
