/* SPDX-License-Identifier: Apache-2.0 */
/* Finding an extension in the table that the build makes from meson.build. */
#include "proxy/api/extension.h"

const struct kb_extension *kb_extension_find(enum kb_extension_category category, struct kb_str type_url,
                                             struct kb_str name)
{
    for (size_t i = 0; type_url.len > 0 && i < kb_extension_count; i++) {
        if (kb_extensions[i].category == category &&
            kb_str_eq(kb_str_from_cstr(kb_extensions[i].type_url), type_url)) {
            return &kb_extensions[i];
        }
    }
    for (size_t i = 0; name.len > 0 && i < kb_extension_count; i++) {
        if (kb_extensions[i].category == category && kb_str_eq(kb_str_from_cstr(kb_extensions[i].name), name)) {
            return &kb_extensions[i];
        }
    }
    return NULL;
}
