/* SPDX-License-Identifier: Apache-2.0 */
/* Real workers use clusters while the main thread adds, replaces, changes and removes them. What is
 * shown is shown by the sanitizers and by the counts at the end. */
#include "tests/unit/upstream/upstream_fixture.h"

#include "proxy/upstream/cluster_type.h"

#define CLUSTERS 8
#define ROUNDS   300
#define PICKS    500 /* of each worker, at least */

struct user {
    struct kb_worker *worker;
    struct kb_cluster_local *held; /* as a stream would */
    struct kb_host_local *host;
    uint64_t picks;
    uint32_t held_for;
    bool stop;
    bool stopped;
};

static struct user users[WORKERS];

static void user_release(struct user *user)
{
    if (user->held == NULL) {
        return;
    }
    if (user->host != NULL) {
        kb_host_stat_add(user->host, KB_HOST_RQ_ACTIVE, -1);
        kb_host_local_unref(user->host);
    }
    kb_resource_give(user->held, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
    kb_cluster_local_unref(user->held);
    user->held = NULL;
    user->host = NULL;
}

static void user_take(struct user *user)
{
    char name[16];
    struct kb_host *host;

    snprintf(name, sizeof(name), "c%u", (unsigned)(kb_rand_u64(&user->worker->rand) % CLUSTERS));
    user->held = kb_cluster_local_find(user->worker, kb_str_from_cstr(name));
    if (user->held == NULL) {
        return;
    }
    if (!kb_resource_take(user->held, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS)) {
        user->held = NULL;
        return;
    }
    kb_cluster_local_ref(user->held);
    host = kb_cluster_local_choose_host(user->held, NULL);
    if (host != NULL) {
        user->host = kb_host_local_get(host, user->worker->index);
        kb_host_local_ref(user->host);
        kb_host_stat_add(user->host, KB_HOST_RQ_ACTIVE, 1);
        __atomic_fetch_add(&user->picks, 1, __ATOMIC_RELAXED);
    }
}

static void user_turn(void *arg)
{
    struct user *user = arg;

    if (__atomic_load_n(&user->stop, __ATOMIC_ACQUIRE)) {
        user_release(user);
        kb_cluster_manager_worker_drain(user->worker);
        __atomic_store_n(&user->stopped, true, __ATOMIC_RELEASE);
        return;
    }
    if (user->held_for-- == 0) {
        user_release(user);
        user->held_for = (uint32_t)(kb_rand_u64(&user->worker->rand) % 4);
    }
    if (user->held == NULL) {
        user_take(user);
    }
    kb_loop_post(&user->worker->loop, user_turn, user);
}

static void cluster_replace(struct upstream *up, unsigned number)
{
    static const char *const policies[] = {"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"};
    struct kb_str json =
        kb_str_printf(&up->arena,
                      "{'name':'c%u','lb_policy':'%s','circuit_breakers':{'thresholds':[{'max_"
                      "requests':%u,'track_remaining':true}]},"
                      "'load_assignment':{'cluster_name':'c','endpoints':[{'lb_endpoints':[{'load_"
                      "balancing_weight':2,'endpoint':{"
                      "'address':{'socket_address':{'address':'127.0.0.1','port_value':1}}}},{'"
                      "endpoint':{'address':{"
                      "'socket_address':{'address':'127.0.0.1','port_value':2}}}}]}]}}",
                      number, policies[kb_rand_u64(&up->main.rand) % 3],
                      (unsigned)(kb_rand_u64(&up->main.rand) % 3 + 1));

    assert_true(kb_cluster_manager_add(up->manager, cluster_parse(up, json.p), true, &up->diag) >=
                0);
}

static void hosts_replace(struct upstream *up, struct kb_str name)
{
    struct kb_cluster_entry *entry =
        (struct kb_cluster_entry *)(uintptr_t)kb_cluster_manager_find(up->manager, name);
    struct kb_host *hosts[4];
    uint32_t count = (uint32_t)(kb_rand_u64(&up->main.rand) % 5);

    if (entry == NULL) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct kb_host_params params = {.weight = i + 1};

        assert_int_equal(kb_addr_from_ip(&params.addr, KB_STR("10.0.0.1"), (uint16_t)i), 0);
        hosts[i] = kb_host_create(entry->cluster, &params, WORKERS);
    }
    kb_cluster_entry_set_hosts(entry, &(struct kb_host_group){.hosts = hosts, .count = count}, 1);
    for (uint32_t i = 0; i < count; i++) {
        kb_host_unref(hosts[i]);
    }
}

static void sum_statistics(void *arg, const struct kb_cluster_entry *entry)
{
    uint64_t *sum = arg;

    for (uint32_t i = 0; i < entry->set->sets[0].all.count; i++) {
        *sum += kb_host_stat_sum(entry->set->sets[0].all.hosts[i], KB_HOST_RQ_ACTIVE);
    }
}

static void main_turn(struct upstream *up)
{
    unsigned number = (unsigned)(kb_rand_u64(&up->main.rand) % CLUSTERS);
    struct kb_str name = kb_str_printf(&up->arena, "c%u", number);
    uint64_t sum = 0;

    switch (kb_rand_u64(&up->main.rand) % 4) {
    case 0:
        (void)!kb_cluster_manager_remove(up->manager, name);
        break;
    case 1:
        cluster_replace(up, number);
        break;
    default:
        hosts_replace(up, name);
        break;
    }
    kb_cluster_manager_visit(up->manager, false, sum_statistics, &sum);
    kb_loop_post(&up->main.loop, nothing_posted, NULL);
    kb_loop_run_once(&up->main.loop, false);
}

static bool users_done(void)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        if (__atomic_load_n(&users[i].picks, __ATOMIC_RELAXED) < PICKS) {
            return false;
        }
    }
    return true;
}

static void workers_use_what_main_changes(void **state)
{
    struct upstream *up = *state;

    kb_cluster_manager_start(up->manager, on_initialized, up);
    for (unsigned i = 0; i < WORKERS; i++) {
        users[i] = (struct user){.worker = &up->workers[i]};
        kb_loop_post(&up->workers[i].loop, user_turn, &users[i]);
        assert_int_equal(kb_worker_start(&up->workers[i]), 0);
    }
    for (unsigned i = 0; i < CLUSTERS; i++) {
        cluster_replace(up, i);
    }
    for (unsigned round = 0; round < ROUNDS || !users_done(); round++) {
        main_turn(up);
        kb_arena_dispose(&up->arena);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        __atomic_store_n(&users[i].stop, true, __ATOMIC_RELEASE);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        while (!__atomic_load_n(&users[i].stopped, __ATOMIC_ACQUIRE)) {
            kb_loop_run_once(&up->main.loop, false);
        }
        kb_worker_join(&up->workers[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(workers_use_what_main_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
