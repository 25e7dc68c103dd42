/* SPDX-License-Identifier: Apache-2.0 */
/* Responses of a control plane, as bytes, into a stream that wants everything. Input: a byte of
 * which the lowest bit says incremental, then messages, each behind two bytes of length; a length
 * of 0 cuts the stream, 1 lets time pass. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "tests/fuzz/fuzz.h"
#include "xds/xds_mux.h"

static struct kb_loop loop;
static struct kb_rand rand_state;
static const struct kb_xds_stream_events *events;
static void *events_arg;

static struct kb_xds_stream *stream_open(struct kb_xds_transport *transport, struct kb_str method,
                                         const struct kb_xds_stream_events *given, void *arg)
{
    (void)transport;
    (void)method;
    events = given;
    events_arg = arg;
    return (struct kb_xds_stream *)&loop;
}

static int stream_send(struct kb_xds_stream *stream, struct kb_str message)
{
    (void)stream;
    return message.len % 7 == 3 ? KB_EAGAIN : 0;
}

static void stream_close(struct kb_xds_stream *stream)
{
    (void)stream;
    events = NULL;
}

static struct kb_xds_transport transport = {stream_open, stream_send, stream_close};

static void connected(void *arg, bool is)
{
    (void)arg;
    (void)is;
}

static void identified(void *arg, struct kb_str identifier)
{
    (void)arg;
    (void)identifier;
}

static void pending(void *arg, size_t count)
{
    (void)arg;
    (void)count;
}

static void limited(void *arg)
{
    (void)arg;
}

static void warned(void *arg, struct kb_diag *diag)
{
    (void)arg;
    (void)diag;
}

static const struct kb_xds_mux_observer observer = {connected, identified, pending, limited,
                                                    warned};

static void on_update(void *arg, const struct kb_xds_update *update, struct kb_diag *diag)
{
    (void)arg;
    for (size_t i = 0; i < update->resource_count; i++) {
        if (update->resources[i].name.len % 5 == 4) {
            kb_diag_error(diag, "%.*s is not wanted", KB_STR_ARG(update->resources[i].name));
        }
    }
}

static void on_failure(void *arg, enum kb_xds_failure failure)
{
    (void)arg;
    (void)failure;
}

static const struct kb_xds_watch_callbacks callbacks = {on_update, on_failure};

static void pass_ms(uint64_t ms)
{
    kb_clock_advance(ms * 1000000);
    loop.now_ns = kb_clock_mono_ns();
    kb_timer_wheel_advance(&loop.wheel, kb_loop_now_ms(&loop));
}

static void messages_feed(const uint8_t *data, size_t size)
{
    while (size >= 2) {
        size_t len = ((size_t)data[0] << 8) | data[1];

        data += 2;
        size -= 2;
        if (len < 2) {
            if (len == 0 && events != NULL) {
                events->closed(events_arg, 14, KB_STR("cut"));
            }
            pass_ms(40000);
            continue;
        }
        len = KB_MIN(len, size);
        if (events != NULL) {
            events->message(events_arg, kb_str_make((const char *)data, len));
        }
        if (events != NULL) {
            events->writable(events_arg);
        }
        data += len;
        size -= len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Envoy__Config__Core__V3__Node node = ENVOY__CONFIG__CORE__V3__NODE__INIT;
    struct kb_xds_watch *watches[KB_XDS_TYPE_COUNT * 2];
    struct kb_xds_mux_options options;
    struct kb_xds_push_log pushes;
    struct kb_xds_mux *mux;
    size_t count = 0;

    if (size == 0) {
        return 0;
    }
    kb_log_set_level(KB_LOG_OFF);
    kb_clock_simulate(1000000000, 1700000000000000000);
    if (loop.kb_magic == 0 && kb_loop_init(&loop) != 0) {
        abort();
    }
    pass_ms(0);
    kb_rand_init(&rand_state, 1);
    memset(&options, 0, sizeof(options));
    options.loop = &loop;
    options.rand = &rand_state;
    options.transport = &transport;
    options.method = KB_STR("/fuzz");
    options.delta = (data[0] & 1) != 0;
    options.unknown_fields_refused = (data[0] & 2) != 0;
    options.node = &node;
    options.pushes = &pushes;
    kb_xds_push_log_init(&pushes);
    options.observer = &observer;
    mux = kb_xds_mux_create(&options);
    kb_xds_mux_start(mux);
    for (int type = 0; type < KB_XDS_TYPE_COUNT; type++) {
        bool all = type == KB_XDS_CLUSTER || type == KB_XDS_LISTENER;

        watches[count++] = kb_xds_mux_watch(mux, (enum kb_xds_type)type,
                                            all ? KB_STR("") : KB_STR("a"), &callbacks, NULL);
        watches[count++] =
            kb_xds_mux_watch(mux, (enum kb_xds_type)type, KB_STR("b"), &callbacks, NULL);
    }
    messages_feed(data + 1, size - 1);
    for (size_t i = 0; i < count; i++) {
        kb_xds_mux_unwatch(mux, watches[i]);
    }
    kb_xds_mux_destroy(mux);
    kb_xds_push_log_dispose(&pushes);
    return 0;
}
