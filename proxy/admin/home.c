/* SPDX-License-Identifier: Apache-2.0 */
/* The home page: links to the pages that only show, buttons for those that change something. */
#include "proxy/admin/admin_internal.h"

static void escaped_add(struct kb_admin_response *response, const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        struct kb_str entity = *p == '<'    ? KB_STR("&lt;")
                               : *p == '>'  ? KB_STR("&gt;")
                               : *p == '&'  ? KB_STR("&amp;")
                               : *p == '"'  ? KB_STR("&quot;")
                               : *p == '\'' ? KB_STR("&#39;")
                                            : kb_str_make(p, 1);

        kb_admin_add(response, entity);
    }
}

KB_ADMIN_HANDLER(home)
{
    (void)request;
    kb_admin_set_content_type(response, "text/html; charset=UTF-8");
    kb_admin_add(response,
                 KB_STR("<!DOCTYPE html>\n<html lang='en'>\n<head>\n  <title>Envoy Admin</title>\n"
                        "  <style>table { font-family: sans-serif; border-collapse: collapse; }\n"
                        "  td { padding: 4px; } form { margin: 0; }</style>\n</head>\n<body>\n"
                        "<table class='home-table'>\n"
                        "<tr><th>Command</th><th>Description</th></tr>\n"));
    for (size_t i = 0; i < kb_admin_page_count; i++) {
        const struct kb_admin_page *page = &kb_admin_pages[i];
        const char *link = page->path + 1; /* relative, so that it works behind a proxy */

        if (page->handler == kb_admin_home) {
            continue;
        }
        if (page->mutates) {
            kb_admin_printf(
                response,
                "<tr><td><form action='%s' method='post'><button>%s</button></form></td><td>", link,
                link);
        } else {
            kb_admin_printf(response, "<tr><td><a href='%s'>%s</a></td><td>", link, link);
        }
        escaped_add(response, page->help);
        kb_admin_add(response, KB_STR("</td></tr>\n"));
    }
    kb_admin_add(response, KB_STR("</table>\n</body>\n</html>\n"));
}
