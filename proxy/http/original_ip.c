/* SPDX-License-Identifier: Apache-2.0 */
/* Two ways to find a client's address: x-forwarded-for, by a number of trusted hops or by the
 * ranges of trusted proxies, and a header that holds nothing else (Envoy's OriginalIPDetection
 * extensions). */
#include "proxy/http/original_ip.h"

#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/extensions/http/original_ip_detection/custom_header/v3/custom_header.pb-c.h"
#include "envoy/extensions/http/original_ip_detection/xff/v3/xff.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"

typedef Envoy__Extensions__Http__OriginalIpDetection__Xff__V3__XffConfig XffConfig;
typedef Envoy__Extensions__Http__OriginalIpDetection__CustomHeader__V3__CustomHeaderConfig
    CustomHeaderConfig;

struct kb_original_ip {
    struct kb_str header; /* lower case; empty: x-forwarded-for */
    const struct kb_cidr *trusted_cidrs;
    size_t trusted_cidr_count;
    uint32_t hops;
    bool append_xff;
    bool trusted;           /* the header's address may be internal */
    unsigned reject_status; /* without the header, or with no address in it; 0: go on */
};

/* ---- configuration ---- */

static void cidrs_read(struct kb_original_ip *item, const XffConfig *message,
                       struct kb_arena *arena, struct kb_diag *diag)
{
    size_t n = message->xff_trusted_cidrs != NULL ? message->xff_trusted_cidrs->n_cidrs : 0;
    struct kb_cidr *cidrs = kb_arena_calloc(arena, (n + 1) * sizeof(*cidrs));

    if (n > 0 && message->xff_num_trusted_hops > 0) {
        kb_diag_error(diag, "Cannot set both xff_num_trusted_hops and xff_trusted_cidrs");
    }
    kb_diag_push(diag, "xff_trusted_cidrs");
    for (size_t i = 0; i < n; i++) {
        const Envoy__Config__Core__V3__CidrRange *range = message->xff_trusted_cidrs->cidrs[i];

        kb_diag_push_index(diag, "cidrs", i);
        if (kb_cidr_init(&cidrs[i], kb_wkt_str(range->address_prefix),
                         kb_wkt_u32(range->prefix_len, 0)) != 0) {
            kb_diag_error(diag, "malformed IP address: %s", range->address_prefix);
        }
        kb_diag_pop(diag);
    }
    kb_diag_pop(diag);
    item->trusted_cidrs = cidrs;
    item->trusted_cidr_count = n;
}

static void header_read(struct kb_original_ip *item, const CustomHeaderConfig *message,
                        struct kb_arena *arena)
{
    struct kb_str name = kb_wkt_str(message->header_name);
    char *lower = kb_arena_alloc(arena, name.len + 1, 1);

    for (size_t i = 0; i < name.len; i++) {
        lower[i] = kb_ascii_lower(name.p[i]);
    }
    item->header = kb_str_make(lower, name.len);
    item->trusted = message->allow_extension_to_set_address_as_trusted;
    if (message->reject_with_status != NULL) {
        unsigned code = (unsigned)message->reject_with_status->code;

        item->reject_status = code >= 400 ? code : 403;
    }
}

static void item_read(struct kb_original_ip *item,
                      const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                      struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str type = message->typed_config != NULL
                             ? kb_any_inner_name(message->typed_config, arena)
                             : KB_STR("");

    if (kb_str_eq(type, KB_STR("envoy.extensions.http.original_ip_detection.xff.v3.XffConfig"))) {
        XffConfig *xff =
            KB_ANY_UNPACK(message->typed_config,
                          envoy__extensions__http__original_ip_detection__xff__v3__xff_config,
                          XffConfig, arena, diag);

        if (xff != NULL) {
            item->hops = xff->xff_num_trusted_hops;
            item->append_xff = !kb_wkt_bool(xff->skip_xff_append, true);
            cidrs_read(item, xff, arena, diag);
        }
        return;
    }
    if (kb_str_eq(type, KB_STR("envoy.extensions.http.original_ip_detection.custom_header.v3."
                               "CustomHeaderConfig"))) {
        CustomHeaderConfig *header = KB_ANY_UNPACK(
            message->typed_config,
            envoy__extensions__http__original_ip_detection__custom_header__v3__custom_header_config,
            CustomHeaderConfig, arena, diag);

        if (header != NULL) {
            header_read(item, header, arena);
        }
        return;
    }
    kb_diag_error(diag, "Original IP detection extension not found: '%s'", message->name);
}

struct kb_original_ip_list
kb_original_ip_read(Envoy__Config__Core__V3__TypedExtensionConfig *const *messages, size_t n,
                    struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_original_ip *items = kb_arena_calloc(arena, (n + 1) * sizeof(*items));

    for (size_t i = 0; i < n; i++) {
        kb_diag_push_index(diag, "original_ip_detection_extensions", i);
        item_read(&items[i], messages[i], arena, diag);
        kb_diag_pop(diag);
    }
    return (struct kb_original_ip_list){items, n};
}

/* ---- a request ---- */

/* Takes the last entry off a list. */
static struct kb_str last_entry(struct kb_str *list)
{
    ptrdiff_t comma = kb_str_rfind_char(*list, ',');
    struct kb_str entry = kb_str_from(*list, comma < 0 ? 0 : (size_t)comma + 1);

    *list = comma < 0 ? KB_STR_NULL : kb_str_first(*list, (size_t)comma);
    return kb_str_trim(entry);
}

bool kb_original_ip_xff(struct kb_str xff, uint32_t skip, struct kb_addr *addr, bool *single)
{
    struct kb_str entry = KB_STR_NULL;

    *single = kb_str_find_char(xff, ',') < 0;
    for (uint32_t i = 0; i <= skip; i++) {
        if (xff.p == NULL) {
            return false;
        }
        entry = last_entry(&xff);
    }
    return kb_addr_from_ip(addr, entry, 0) == 0;
}

static bool cidr_listed(const struct kb_original_ip *item, const struct kb_addr *addr)
{
    for (size_t i = 0; i < item->trusted_cidr_count; i++) {
        if (kb_cidr_contains(&item->trusted_cidrs[i], addr)) {
            return true;
        }
    }
    return false;
}

/* The last address that no trusted proxy has; if all are trusted, the first. None when an entry
 * that has to be looked at is no address. */
static void beyond_trusted(const struct kb_original_ip *item, struct kb_str xff,
                           struct kb_original_ip_result *result)
{
    bool only = kb_str_find_char(xff, ',') < 0;

    while (xff.p != NULL) {
        result->found = kb_addr_from_ip(&result->addr, last_entry(&xff), 0) == 0;
        if (!result->found) {
            return;
        }
        if (!cidr_listed(item, &result->addr)) {
            result->trusted = only;
            return;
        }
    }
}

static void item_detect(const struct kb_original_ip *item, const struct kb_header_map *request,
                        const struct kb_addr *peer, struct kb_original_ip_result *result)
{
    struct kb_str xff = kb_header_map_value_id(request, KB_HDR_X_FORWARDED_FOR);
    bool single;

    if (item->header.len > 0) {
        struct kb_str value = kb_header_map_value(request, item->header);

        result->found = value.p != NULL && kb_addr_from_ip(&result->addr, value, 0) == 0;
        result->trusted = result->found && item->trusted;
        result->reject_status = result->found ? 0 : item->reject_status;
        return;
    }
    result->append_xff = item->append_xff;
    if (item->trusted_cidr_count > 0) {
        if (cidr_listed(item, peer)) {
            beyond_trusted(item, xff, result);
        } else {
            result->append_xff = true;
        }
        return;
    }
    result->found = kb_original_ip_xff(xff, item->hops, &result->addr, &single);
    result->trusted = result->found && single;
}

void kb_original_ip_detect(const struct kb_original_ip_list *list,
                           const struct kb_header_map *request, const struct kb_addr *peer,
                           struct kb_original_ip_result *result)
{
    bool append = false;

    memset(result, 0, sizeof(*result));
    for (size_t i = 0; i < list->count && !result->found && result->reject_status == 0; i++) {
        item_detect(&list->items[i], request, peer, result);
        append = append || result->append_xff;
    }
    result->append_xff = append;
}
