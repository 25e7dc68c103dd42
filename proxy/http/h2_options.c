/* SPDX-License-Identifier: Apache-2.0 */
/* Reads Http2ProtocolOptions of a connection manager or a cluster. */
#include "proxy/http/h2_options.h"

#include "envoy/config/core/v3/protocol.pb-c.h"
#include "proto/wkt.h"

#define HPACK_TABLE_DEFAULT             4096
#define MAX_CONCURRENT_STREAMS_DEFAULT  1024
#define STREAM_WINDOW_DEFAULT           (16u * 1024 * 1024)
#define CONNECTION_WINDOW_DEFAULT       (24u * 1024 * 1024)
#define MAX_OUTBOUND_FRAMES_DEFAULT     10000
#define MAX_OUTBOUND_CONTROL_DEFAULT    1000
#define EMPTY_FRAMES_DEFAULT            1
#define PRIORITY_PER_STREAM_DEFAULT     100
#define WINDOW_UPDATES_PER_DATA_DEFAULT 10
#define MAX_METADATA_DEFAULT            (1024u * 1024)
/* Ours alone: what no honest client sends in ten seconds. */
#define CONTROL_IN_PERIOD_MAX           10000
#define CONTINUATIONS_MAX               64
#define KEEPALIVE_JITTER_PERCENT        15

static void keepalive_read(struct kb_h2_options *options,
                           const Envoy__Config__Core__V3__KeepaliveSettings *keepalive)
{
    if (keepalive == NULL) {
        return;
    }
    options->keepalive_interval_ms = kb_wkt_duration_ms(keepalive->interval, 0);
    options->keepalive_timeout_ms = kb_wkt_duration_ms(keepalive->timeout, 0);
    options->keepalive_jitter_percent = keepalive->interval_jitter != NULL
                                            ? (uint32_t)keepalive->interval_jitter->value
                                            : KEEPALIVE_JITTER_PERCENT;
}

/* ---- custom_settings_parameters ---- */

#define SETTING_HEADER_TABLE_SIZE       1 /* RFC 9113 section 6.5.2 */
#define SETTING_ENABLE_PUSH             2
#define SETTING_MAX_CONCURRENT_STREAMS  3
#define SETTING_INITIAL_WINDOW_SIZE     4
#define SETTING_MAX_FRAME_SIZE          5
#define SETTING_ENABLE_CONNECT_PROTOCOL 8 /* RFC 8441 section 3 */
#define WINDOW_MAX                      0x7fffffffu
#define FRAME_MIN                       16384u
#define FRAME_MAX                       16777215u

static const struct kb_h2_setting *setting_find(const struct kb_h2_setting *settings, size_t count,
                                                uint32_t identifier)
{
    for (size_t i = 0; i < count; i++) {
        if (settings[i].identifier == identifier) {
            return &settings[i];
        }
    }
    return NULL;
}

/* What fields of the message set already. */
static void named_twice_check(const Envoy__Config__Core__V3__Http2ProtocolOptions *m,
                              const struct kb_h2_options *options, struct kb_diag *diag)
{
    const struct {
        bool set;
        uint32_t identifier;
        const char *name;
    } named[] = {
        {m->hpack_table_size != NULL, SETTING_HEADER_TABLE_SIZE, "hpack_table_size"},
        {m->max_concurrent_streams != NULL, SETTING_MAX_CONCURRENT_STREAMS,
         "max_concurrent_streams"},
        {m->initial_stream_window_size != NULL, SETTING_INITIAL_WINDOW_SIZE,
         "initial_stream_window_size"},
    };
    const char *names[KB_ARRAY_LEN(named)];
    size_t count = 0;

    for (size_t i = 0; i < KB_ARRAY_LEN(named); i++) {
        if (named[i].set &&
            setting_find(options->custom, options->custom_count, named[i].identifier) != NULL) {
            names[count++] = named[i].name;
        }
    }
    if (count > 0) {
        kb_diag_error(diag,
                      "the {%s%s%s%s%s} HTTP/2 SETTINGS parameter(s) can not be configured through "
                      "both named and custom parameters",
                      names[0], count > 1 ? "," : "", count > 1 ? names[1] : "",
                      count > 2 ? "," : "", count > 2 ? names[2] : "");
    }
}

static void setting_check(const struct kb_h2_setting *setting, const struct kb_h2_setting *earlier,
                          struct kb_diag *diag)
{
    uint32_t value = setting->value;

    if (earlier != NULL && earlier->value != value) {
        kb_diag_error(
            diag,
            "inconsistent HTTP/2 custom SETTINGS parameter(s) detected; identifiers = {0x%02x}",
            setting->identifier);
    }
    switch (setting->identifier) {
    case SETTING_ENABLE_PUSH:
        if (value != 0) {
            kb_diag_error(diag, "server push is not supported by Envoy and can not be enabled via "
                                "a SETTINGS parameter.");
        }
        break;
    case SETTING_ENABLE_CONNECT_PROTOCOL:
        kb_diag_error(diag, "the \"allow_connect\" SETTINGS parameter must only be configured "
                            "through the named field");
        break;
    case SETTING_INITIAL_WINDOW_SIZE:
        if (value > WINDOW_MAX) {
            kb_diag_error(diag, "an initial window is at most %u (RFC 9113 section 6.5.2)",
                          WINDOW_MAX);
        }
        break;
    case SETTING_MAX_FRAME_SIZE:
        if (value < FRAME_MIN || value > FRAME_MAX) {
            kb_diag_error(diag, "a frame size is between %u and %u (RFC 9113 section 6.5.2)",
                          FRAME_MIN, FRAME_MAX);
        }
        break;
    default:
        break;
    }
}

static void custom_read(struct kb_h2_options *options,
                        const Envoy__Config__Core__V3__Http2ProtocolOptions *m,
                        struct kb_arena *arena, struct kb_diag *diag)
{
    size_t n = m->n_custom_settings_parameters;
    struct kb_h2_setting *settings;
    size_t count = 0;

    if (n == 0) {
        return;
    }
    if (n > KB_H2_CUSTOM_SETTINGS_MAX) {
        kb_diag_push(diag, "custom_settings_parameters");
        kb_diag_error(diag, "more than %u parameters, which peers refuse",
                      KB_H2_CUSTOM_SETTINGS_MAX);
        kb_diag_pop(diag);
        n = 0;
    }
    settings = kb_arena_alloc(arena, (n + 1) * sizeof(*settings), sizeof(uint32_t));
    for (size_t i = 0; i < n; i++) {
        const Envoy__Config__Core__V3__Http2ProtocolOptions__SettingsParameter *given =
            m->custom_settings_parameters[i];
        struct kb_h2_setting setting = {.identifier = (uint16_t)kb_wkt_u32(given->identifier, 0),
                                        .value = kb_wkt_u32(given->value, 0)};
        const struct kb_h2_setting *earlier = setting_find(settings, count, setting.identifier);

        kb_diag_push_index(diag, "custom_settings_parameters", i);
        setting_check(&setting, earlier, diag);
        kb_diag_pop(diag);
        if (earlier == NULL) {
            settings[count++] = setting;
        }
    }
    options->custom = settings;
    options->custom_count = count;
    named_twice_check(m, options, diag);
}

void kb_h2_options_read(struct kb_h2_options *options,
                        const Envoy__Config__Core__V3__Http2ProtocolOptions *m,
                        struct kb_arena *arena, struct kb_diag *diag)
{
    static const Envoy__Config__Core__V3__Http2ProtocolOptions none =
        ENVOY__CONFIG__CORE__V3__HTTP2_PROTOCOL_OPTIONS__INIT;

    if (m == NULL) {
        m = &none;
    }
    *options = (struct kb_h2_options){
        .hpack_table_bytes = kb_wkt_u32(m->hpack_table_size, HPACK_TABLE_DEFAULT),
        .max_concurrent_streams =
            kb_wkt_u32(m->max_concurrent_streams, MAX_CONCURRENT_STREAMS_DEFAULT),
        .stream_window_bytes = kb_wkt_u32(m->initial_stream_window_size, STREAM_WINDOW_DEFAULT),
        .connection_window_bytes =
            kb_wkt_u32(m->initial_connection_window_size, CONNECTION_WINDOW_DEFAULT),
        .max_outbound_frames = kb_wkt_u32(m->max_outbound_frames, MAX_OUTBOUND_FRAMES_DEFAULT),
        .max_outbound_control_frames =
            kb_wkt_u32(m->max_outbound_control_frames, MAX_OUTBOUND_CONTROL_DEFAULT),
        .guard = {.empty_frames = kb_wkt_u32(m->max_consecutive_inbound_frames_with_empty_payload,
                                             EMPTY_FRAMES_DEFAULT),
                  .priority_per_stream = kb_wkt_u32(m->max_inbound_priority_frames_per_stream,
                                                    PRIORITY_PER_STREAM_DEFAULT),
                  .window_updates_per_data =
                      kb_wkt_u32(m->max_inbound_window_update_frames_per_data_frame_sent,
                                 WINDOW_UPDATES_PER_DATA_DEFAULT),
                  .control_frames_in_period = CONTROL_IN_PERIOD_MAX,
                  .continuations = CONTINUATIONS_MAX,
                  .metadata = m->allow_metadata != 0},
        .allow_connect = m->allow_connect,
        .allow_metadata = m->allow_metadata,
        .max_metadata_bytes =
            m->max_metadata_size != NULL ? m->max_metadata_size->value : MAX_METADATA_DEFAULT,
        .stream_error_on_invalid_message =
            m->override_stream_error_on_invalid_http_message != NULL
                ? m->override_stream_error_on_invalid_http_message->value != 0
                : m->stream_error_on_invalid_http_messaging,
    };
    keepalive_read(options, m->connection_keepalive);
    custom_read(options, m, arena, diag);
}
