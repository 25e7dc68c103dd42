/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the HTTP filters of a stream: decoding first to last, stopping and going on as filters say
 * (Envoy FilterManager). */
#include "proxy/http/hcm_internal.h"
#include "proxy/http/http_filter_discovery.h"
#include "proxy/http/local_reply.h"

static const struct kb_route_upgrade *route_upgrade_find(const struct kb_route *route,
                                                         struct kb_str name)
{
    const struct kb_route_upgrade *at = route != NULL ? route->upgrades : NULL;

    for (; at != NULL && at->name.len > 0; at++) {
        if (kb_str_ieq(at->name, name)) {
            return at;
        }
    }
    return NULL;
}

static const struct kb_hcm_upgrade *hcm_upgrade_find(const struct kb_hcm_config *config,
                                                     struct kb_str name)
{
    for (size_t i = 0; i < config->upgrade_count; i++) {
        if (kb_str_ieq(config->upgrades[i].name, name)) {
            return &config->upgrades[i];
        }
    }
    return NULL;
}

/* The filters of an upgrade, or NULL when it is not enabled: what the route says of that counts
 * before what the connection manager says. CONNECT is an upgrade without the header. */
static const struct kb_hcm_filter_chain *upgrade_chain(struct kb_stream *stream, struct kb_str name)
{
    const struct kb_route_upgrade *by_route = route_upgrade_find(stream->route, name);
    struct kb_hcm *hcm = stream->hcm;
    const struct kb_hcm_upgrade *by_hcm = hcm_upgrade_find(hcm->config, name);
    bool enabled = by_route != NULL ? by_route->enabled : by_hcm != NULL && by_hcm->enabled;

    if (!enabled) {
        return NULL;
    }
    stream->upgrade_asked = true;
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_UPGRADES_TOTAL);
    kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_UPGRADES_ACTIVE, 1);
    return by_hcm != NULL && by_hcm->chain.count > 0 ? &by_hcm->chain : &hcm->config->chain;
}

/* The weighted cluster that the router will choose, for what it says of filters. */
static const void *route_choice(struct kb_stream *stream)
{
    const struct kb_route *route = stream->route;
    const void *choice = NULL;
    struct kb_str name;
    uint32_t slot;

    if (route->choice_filter_configs &&
        kb_route_choose_cluster(
            route, &stream->request,
            kb_route_cluster_random(route, &stream->request, &stream->info, stream->route_random),
            &slot, &name, &choice) != 0) {
        return NULL;
    }
    return choice;
}

/* What the route says of a filter counts before how it stands in the chain. Without any filter a
 * request waits for its timeout, as in Envoy. */
bool kb_stream_filter_off(struct kb_stream *stream, const struct kb_hcm_filter *filter)
{
    int off = stream->route != NULL && stream->route->filter_configs
                  ? kb_route_filter_disabled(stream->route, route_choice(stream), filter->name_id)
                  : -1;

    return off >= 0 ? off != 0 : filter->disabled;
}

size_t kb_stream_route_configs(struct kb_stream *stream, const void *self,
                               const void *configs[KB_ROUTE_CONFIG_LEVELS])
{
    const struct kb_route *route = kb_stream_route(stream);
    uint32_t name_id;

    if (route == NULL || !route->filter_configs) {
        return 0;
    }
    for (size_t i = 0; i < stream->filter_count; i++) {
        if (stream->filters[i].self == self) {
            return kb_route_filter_configs(route, route_choice(stream), stream->filters[i].name_id,
                                           configs);
        }
    }
    name_id = kb_upstream_http_filter_name_id(stream->upstream_filters, self);
    return name_id != 0 ? kb_route_filter_configs(route, route_choice(stream), name_id, configs)
                        : 0;
}

const void *kb_stream_route_config(struct kb_stream *stream, const void *self)
{
    const void *configs[KB_ROUTE_CONFIG_LEVELS];

    return kb_stream_route_configs(stream, self, configs) > 0 ? configs[0] : NULL;
}

/* A filter whose configuration comes over xDS: what it is at this moment, kept with the stream. */
static KB_NOINLINE struct kb_hcm_filter filter_discovered(struct kb_stream *stream,
                                                          const struct kb_hcm_filter *filter)
{
    struct kb_filter_config *config = kb_filter_provider_get(filter->provider, stream->hcm->worker);
    struct kb_hcm_filter found = *filter;
    struct kb_filter_hold *hold;

    if (config == NULL) {
        found.ops = &kb_http_filter_missing;
        return found;
    }
    found.ops = config->ops;
    found.config = config->config;
    kb_shared_ref(&config->shared, stream->hcm->worker);
    hold = KB_ARENA_NEW(&stream->arena, struct kb_filter_hold);
    hold->shared = &config->shared;
    hold->next = stream->filter_holds;
    stream->filter_holds = hold;
    return found;
}

static void filters_make(struct kb_stream *stream, const struct kb_hcm_filter_chain *chain)
{
    size_t count = 0;
    bool encodes;
    struct kb_hcm_filter discovered;

    stream->filters =
        kb_arena_alloc(&stream->arena, chain->count * sizeof(*stream->filters), sizeof(void *));
    encodes = chain->encodes;
    for (size_t i = 0; i < chain->count; i++) {
        const struct kb_hcm_filter *filter = &chain->filters[i];

        if (KB_UNLIKELY(kb_stream_filter_off(stream, filter))) {
            continue;
        }
        if (KB_UNLIKELY(filter->provider != NULL)) {
            discovered = filter_discovered(stream, filter);
            filter = &discovered;
            encodes |= kb_http_filter_encodes(filter->ops);
        }
        stream->filters[count] =
            (struct kb_stream_filter){.ops = filter->ops, .name_id = filter->name_id};
        stream->filters[count].self = filter->ops->create(filter->config, stream);
        count++;
    }
    stream->filter_count = count;
    if (KB_UNLIKELY(encodes)) {
        kb_stream_encoding_create(stream);
    }
    if (KB_UNLIKELY(count == 0)) {
        kb_stream_cluster_refresh(stream);
    }
}

bool kb_stream_filters_create(struct kb_stream *stream)
{
    const struct kb_hcm_filter_chain *chain = &stream->hcm->config->chain;
    struct kb_str upgrade = kb_header_map_value_id(&stream->request, KB_HDR_UPGRADE);

    if (KB_UNLIKELY(upgrade.p != NULL || stream->connect_request)) {
        chain = upgrade_chain(stream, upgrade.p != NULL ? upgrade : KB_STR("CONNECT"));
        if (chain == NULL) {
            /* A request to upgrade has no end that could have come. */
            stream->remote_complete = false;
            if (stream->route != NULL) {
                return false;
            }
            /* The filters will say that there is no route. */
            chain = &stream->hcm->config->chain;
        }
    }
    filters_make(stream, chain);
    return true;
}

void kb_stream_filters_create_for_answer(struct kb_stream *stream)
{
    filters_make(stream, &stream->hcm->config->chain);
}

/* The request goes no further: it was answered here, or the answer is over. One that an upstream
 * began goes on both ways. */
static bool stopped(const struct kb_stream *stream)
{
    return stream->ended || stream->local_complete || stream->replied_here;
}

/* Headers to the filters from index `from` on. */
static void headers_from(struct kb_stream *stream, size_t from, bool end_stream)
{
    for (size_t i = from; i < stream->filter_count && !stopped(stream); i++) {
        struct kb_stream_filter *filter = &stream->filters[i];
        enum kb_filter_headers_status status = KB_FILTER_HEADERS_CONTINUE;

        if (filter->ops->decode_headers != NULL) {
            status = filter->ops->decode_headers(filter->self, &stream->request, end_stream);
        }
        if (status != KB_FILTER_HEADERS_CONTINUE) {
            filter->headers_stopped = !filter->ops->terminal;
            filter->stop_all = status != KB_FILTER_HEADERS_STOP_ITERATION;
            filter->hold_waits = status == KB_FILTER_HEADERS_STOP_ALL_AND_WATERMARK;
            return;
        }
    }
}

void kb_stream_filters_decode_headers(struct kb_stream *stream, bool end_stream)
{
    headers_from(stream, 0, end_stream);
}

/* Keeps body for a stopped filter; at the limit the request is refused, or waits. */
static void data_hold(struct kb_stream *stream, size_t by, struct kb_buf *data, bool waits)
{
    struct kb_buf *held = &stream->decode_buffer;

    stream->held_by = (uint32_t)by;
    kb_buf_move(held, data);
    if (!kb_buf_above_high(held)) {
        return;
    }
    if (!waits) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TOO_LARGE);
        kb_stream_send_filter_reply(stream, 413, KB_STR("Payload Too Large"),
                                    KB_STR("request_payload_too_large"), NULL, NULL);
    } else if (!stream->decode_paused) {
        stream->decode_paused = true;
        kb_stream_read_disable(stream, true);
    }
}

static void held_from(struct kb_stream *stream, size_t from, bool end_stream);

/* Body to the filters from index `from` on. */
static void data_from(struct kb_stream *stream, size_t from, struct kb_buf *data, bool end_stream)
{
    for (size_t i = from; i < stream->filter_count && !stopped(stream); i++) {
        struct kb_stream_filter *filter = &stream->filters[i];
        enum kb_filter_data_status status = KB_FILTER_DATA_CONTINUE;

        if (filter->stop_all && filter->headers_stopped) {
            data_hold(stream, i, data, filter->hold_waits);
            return;
        }
        if (filter->ops->decode_data != NULL) {
            status = filter->ops->decode_data(filter->self, data, end_stream);
        }
        if (filter->ops->terminal) {
            return;
        }
        switch (status) {
        case KB_FILTER_DATA_CONTINUE:
            if (filter->headers_stopped) {
                filter->headers_stopped = false;
                headers_from(stream, i + 1, false);
                kb_stream_metadata_release(stream);
            }
            if (stream->decode_buffer.len > 0 && stream->held_by == i && !stopped(stream)) {
                kb_buf_move(&stream->decode_buffer, data);
                held_from(stream, i + 1, end_stream);
                return;
            }
            break;
        case KB_FILTER_DATA_STOP_AND_BUFFER:
        case KB_FILTER_DATA_STOP_AND_WATERMARK:
            data_hold(stream, i, data, status == KB_FILTER_DATA_STOP_AND_WATERMARK);
            return;
        case KB_FILTER_DATA_STOP_NO_BUFFER:
            kb_buf_consume(data, data->len);
            return;
        }
    }
}

void kb_stream_filters_decode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream)
{
    size_t last = stream->filter_count - 1;

    if (KB_LIKELY(last == 0)) {
        if (!stream->response_started || !stream->local_complete) {
            stream->filters[0].ops->decode_data(stream->filters[0].self, data, end_stream);
        }
        return;
    }
    data_from(stream, 0, data, end_stream);
}

/* What is held goes on behind filter `from` - 1. */
static void held_from(struct kb_stream *stream, size_t from, bool end_stream)
{
    struct kb_buf body;

    kb_buf_init(&body, stream->decode_buffer.source, 0);
    kb_buf_move(&body, &stream->decode_buffer);
    if (stream->decode_paused) {
        stream->decode_paused = false;
        kb_stream_read_disable(stream, false);
    }
    data_from(stream, from, &body, end_stream);
    kb_buf_dispose(&body);
}

static void trailers_from(struct kb_stream *stream, size_t from)
{
    for (size_t i = from; i < stream->filter_count && !stopped(stream); i++) {
        struct kb_stream_filter *filter = &stream->filters[i];

        if (filter->headers_stopped && filter->stop_all) {
            return;
        }
        if (filter->ops->decode_trailers != NULL &&
            filter->ops->decode_trailers(filter->self, stream->request_trailers) ==
                KB_FILTER_TRAILERS_STOP) {
            filter->trailers_stopped = true;
            return;
        }
        if (KB_UNLIKELY(filter->headers_stopped)) {
            filter->headers_stopped = false;
            headers_from(stream, i + 1, false);
            kb_stream_metadata_release(stream);
        }
        if (KB_UNLIKELY(stream->decode_buffer.len > 0 && stream->held_by == i &&
                        !stopped(stream))) {
            held_from(stream, i + 1, false);
        }
    }
}

void kb_stream_filters_decode_trailers(struct kb_stream *stream)
{
    trailers_from(stream, 0);
}

static size_t index_of(const struct kb_stream *stream, const void *self)
{
    size_t at = 0;

    while (at < stream->filter_count && stream->filters[at].self != self) {
        at++;
    }
    return at;
}

/* The end of the request was given to all filters up to this one, and none keeps a part back. */
static bool end_passed(const struct kb_stream *stream, size_t at)
{
    for (size_t i = 0; i <= at; i++) {
        if (stream->filters[i].withholds) {
            return false;
        }
    }
    return stream->decode_ended;
}

void kb_stream_continue_decoding(struct kb_stream *stream, void *self)
{
    size_t at = index_of(stream, self);
    bool held, ended;

    if (at == stream->filter_count || stopped(stream)) {
        return;
    }
    ended = end_passed(stream, at);
    held = stream->decode_buffer.len > 0 && stream->held_by == at;
    stream->filters[at].stop_all = false;
    if (stream->filters[at].headers_stopped) {
        stream->filters[at].headers_stopped = false;
        headers_from(stream, at + 1, ended && !held && stream->request_trailers == NULL);
        kb_stream_metadata_release(stream);
    }
    if (held && !stopped(stream)) {
        held_from(stream, at + 1, ended && stream->request_trailers == NULL);
    }
    if (stream->request_trailers != NULL && ended && !stream->ended) {
        stream->filters[at].trailers_stopped = false;
        trailers_from(stream, at + 1);
    }
}

void kb_stream_inject_decoded_data(struct kb_stream *stream, void *self, struct kb_buf *data,
                                   bool end_stream)
{
    size_t at = index_of(stream, self);

    if (at < stream->filter_count && !stopped(stream)) {
        data_from(stream, at + 1, data, end_stream);
    }
    if (data->len > 0) {
        kb_buf_consume(data, data->len);
    }
}

void kb_stream_withhold_decoded(struct kb_stream *stream, const void *self, bool withholds)
{
    size_t at = index_of(stream, self);

    if (at < stream->filter_count) {
        stream->filters[at].withholds = withholds;
    }
}

struct kb_header_map *kb_stream_add_decoded_trailers(struct kb_stream *stream)
{
    if (stream->request_trailers == NULL) {
        stream->request_trailers = KB_ARENA_NEW(&stream->arena, struct kb_header_map);
        kb_header_map_init_trailers(stream->request_trailers, &stream->arena, false);
    }
    return stream->request_trailers;
}

bool kb_stream_decodes(const struct kb_stream *stream)
{
    return !stopped(stream);
}

void kb_stream_stop_decoded(struct kb_stream *stream, const void *self, bool stop)
{
    size_t at = index_of(stream, self);

    if (at < stream->filter_count && stream->filters[at].stops != stop) {
        stream->filters[at].stops = stop;
        kb_stream_read_disable(stream, stop);
    }
}

bool kb_stream_takes_decoded(const struct kb_stream *stream, const void *self)
{
    size_t at = index_of(stream, self);
    unsigned before = 0;

    for (size_t i = 0; i < stream->filter_count && i <= at; i++) {
        before += stream->filters[i].stops;
    }
    return stream->read_disables <= before;
}

void kb_stream_filters_resumed(struct kb_stream *stream)
{
    for (size_t i = 0; i < stream->filter_count; i++) {
        if (stream->filters[i].ops->on_resumed != NULL) {
            stream->filters[i].ops->on_resumed(stream->filters[i].self);
        }
    }
}

void kb_stream_filters_complete(struct kb_stream *stream)
{
    for (size_t i = 0; i < stream->filter_count; i++) {
        if (stream->filters[i].ops->on_stream_complete != NULL) {
            stream->filters[i].ops->on_stream_complete(stream->filters[i].self);
        }
    }
}

void kb_stream_filters_destroy(struct kb_stream *stream)
{
    for (size_t i = 0; i < stream->filter_count; i++) {
        if (stream->filters[i].ops->on_destroy != NULL) {
            stream->filters[i].ops->on_destroy(stream->filters[i].self);
        }
    }
    stream->filter_count = 0;
    kb_stream_metadata_dispose(stream);
}

void kb_stream_filters_watermark(struct kb_stream *stream, bool above)
{
    for (size_t i = 0; i < stream->filter_count; i++) {
        const struct kb_http_filter_ops *ops = stream->filters[i].ops;
        void (*told)(void *) = above ? ops->on_above_high : ops->on_below_low;

        if (told != NULL && (!ops->terminal || stream->encoding == NULL)) {
            told(stream->filters[i].self);
        }
    }
    if (KB_UNLIKELY(stream->encoding != NULL)) {
        kb_stream_encoding_watermark(stream, above);
    }
}
