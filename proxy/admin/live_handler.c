/* SPDX-License-Identifier: Apache-2.0 */
/* /kobune/live: totals of listeners, connection managers and clusters that had work, for the home
 * page, which shows differences between two answers. */
#include "base/clock.h"
#include "proxy/admin/admin_internal.h"
#include "proxy/stats/live.h"

struct live_write {
    struct kb_admin_response *response;
    bool any;
};

/* [lower bound, width, count] of each bin. */
static void times_write(struct kb_admin_response *response, const struct kb_histogram_total *total)
{
    bool any = false;

    kb_admin_add(response, KB_STR(", \"times_ms\": ["));
    for (unsigned i = 0; total != NULL && i < total->bin_count; i++) {
        const struct kb_histogram_bin *bin = &total->bins[i];
        uint64_t count = kb_histogram_bin_count(bin, KB_HISTOGRAM_CUMULATIVE);

        if (count > 0) {
            kb_admin_printf(response, "%s[%g, %g, %llu]", any ? ", " : "",
                            kb_histogram_bin_bound(bin), kb_histogram_bin_width(bin),
                            (unsigned long long)count);
            any = true;
        }
    }
    kb_admin_add(response, KB_STR("]"));
}

static void live_write(void *arg, const struct kb_stat_live *live)
{
    static const char *const kinds[] = {
        [KB_STAT_LIVE_LISTENER] = "listener",
        [KB_STAT_LIVE_ROUTE] = "listener_http",
        [KB_STAT_LIVE_HTTP] = "http",
        [KB_STAT_LIVE_CLUSTER] = "cluster",
    };
    struct live_write *write = arg;

    kb_admin_add(write->response, write->any ? KB_STR(",\n  ") : KB_STR("\n  "));
    kb_admin_printf(write->response, "{\"kind\": \"%s\", \"name\": ", kinds[live->kind]);
    kb_json_out_add_quoted(&write->response->body, live->name);
    kb_admin_printf(write->response,
                    ", \"connections\": %llu, \"connections_active\": %llu, \"requests\": %llu,"
                    " \"requests_active\": %llu, \"errors\": %llu",
                    (unsigned long long)live->connections,
                    (unsigned long long)live->connections_active,
                    (unsigned long long)live->requests, (unsigned long long)live->requests_active,
                    (unsigned long long)live->errors);
    times_write(write->response, live->times_ms);
    kb_admin_add(write->response, KB_STR("}"));
    write->any = true;
}

KB_ADMIN_HANDLER(live)
{
    struct live_write write = {.response = response};

    kb_admin_set_content_type(response, KB_ADMIN_JSON);
    kb_admin_printf(response, "{\n \"time_ms\": %llu,\n \"live\": [",
                    (unsigned long long)(kb_clock_mono_ns() / 1000000));
    kb_stat_live_visit(request->admin->stats, live_write, &write);
    kb_admin_add(response, write.any ? KB_STR("\n ]\n}\n") : KB_STR("]\n}\n"));
}
