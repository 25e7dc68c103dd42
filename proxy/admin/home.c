/* SPDX-License-Identifier: Apache-2.0 */
/* The home page: home.html, and in it a row for each endpoint: links to those that only show, forms
 * for those that take parameters or change something. */
#include "proxy/admin/admin_internal.h"
#include "proxy/admin/home_page.h"

#define INDENT KB_STR("      ")
#define ONE_OF KB_STR("One of (")

static void escaped_add(struct kb_admin_response *response, struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.p[i];
        struct kb_str entity = c == '<'    ? KB_STR("&lt;")
                               : c == '>'  ? KB_STR("&gt;")
                               : c == '&'  ? KB_STR("&amp;")
                               : c == '"'  ? KB_STR("&quot;")
                               : c == '\'' ? KB_STR("&#39;")
                                           : kb_str_make(&text.p[i], 1);

        kb_admin_add(response, entity);
    }
}

/* Those whose presence says yes. */
static bool is_flag(struct kb_str name)
{
    static const char *const flags[] = {"usedonly", "invert_filter", "text_readouts", "include_eds",
                                        "graceful", "skip_exit",     "inboundonly"};

    for (size_t i = 0; i < KB_ARRAY_LEN(flags); i++) {
        if (kb_str_eq(name, kb_str_from_cstr(flags[i]))) {
            return true;
        }
    }
    return false;
}

/* "a, b)" as choices, and none of them first. */
static void choices_add(struct kb_admin_response *response, struct kb_str choices)
{
    ptrdiff_t end = kb_str_find_char(choices, ')');
    struct kb_str rest = kb_str_first(choices, end < 0 ? choices.len : (size_t)end);

    kb_admin_add(response, KB_STR("<option value=''></option>"));
    while (rest.len > 0) {
        ptrdiff_t comma = kb_str_find(rest, KB_STR(", "));
        struct kb_str choice = kb_str_first(rest, comma < 0 ? rest.len : (size_t)comma);

        rest = comma < 0 ? KB_STR_NULL : kb_str_from(rest, (size_t)comma + 2);
        if (choice.len > 0) {
            kb_admin_add(response, KB_STR("<option>"));
            escaped_add(response, choice);
            kb_admin_add(response, KB_STR("</option>"));
        }
    }
}

/* One line of parameters_help: "name: what it is; One of (a, b)". */
static void parameter_add(struct kb_admin_response *response, struct kb_str line)
{
    ptrdiff_t colon = kb_str_find_char(line, ':');
    ptrdiff_t choices = kb_str_find(line, ONE_OF);
    struct kb_str name = kb_str_first(line, colon < 0 ? line.len : (size_t)colon);

    kb_admin_add(response, KB_STR("<label title=\""));
    escaped_add(response, kb_str_from(line, KB_MIN(line.len, name.len + 2)));
    kb_admin_add(response, KB_STR("\">"));
    escaped_add(response, name);
    kb_admin_add(response, choices >= 0    ? KB_STR(" <select name=\"")
                           : is_flag(name) ? KB_STR(" <input type=\"checkbox\" name=\"")
                                           : KB_STR(" <input type=\"text\" name=\""));
    escaped_add(response, name);
    kb_admin_add(response, KB_STR("\">"));
    if (choices >= 0) {
        choices_add(response, kb_str_from(line, (size_t)choices + ONE_OF.len));
        kb_admin_add(response, KB_STR("</select>"));
    }
    kb_admin_add(response, KB_STR("</label>\n"));
}

static void form_add(struct kb_admin_response *response, const struct kb_admin_page *page)
{
    struct kb_str rest = kb_str_from_cstr(page->parameters_help);

    kb_admin_printf(response, "<form action='%s' method='%s'><button%s>%s</button>\n",
                    page->path + 1, page->mutates ? "post" : "get",
                    page->mutates ? "" : " class='dim'", page->mutates ? page->path + 1 : "show");
    while (rest.len > 0) {
        ptrdiff_t end = kb_str_find_char(rest, '\n');
        struct kb_str line = kb_str_first(rest, end < 0 ? rest.len : (size_t)end);

        rest = end < 0 ? KB_STR_NULL : kb_str_from(rest, (size_t)end + 1);
        if (kb_str_starts_with(line, INDENT)) {
            parameter_add(response, kb_str_from(line, INDENT.len));
        }
    }
    kb_admin_add(response, KB_STR("</form>"));
}

KB_ADMIN_HANDLER(home)
{
    (void)request;
    kb_admin_set_content_type(response, "text/html; charset=UTF-8");
    kb_admin_header_add(response, "content-security-policy", kb_home_page_policy);
    kb_admin_add(response, kb_home_page_head);
    for (size_t i = 0; i < kb_admin_page_count; i++) {
        const struct kb_admin_page *page = &kb_admin_pages[i];
        const char *link = page->path + 1; /* relative, so that it works behind a proxy */
        bool parameters = page->parameters_help[0] != '\0';

        if (page->handler == kb_admin_home) {
            continue;
        }
        kb_admin_add(response, KB_STR("<tr><td>"));
        if (page->mutates) {
            kb_admin_printf(response, "%s</td><td>", link);
        } else {
            kb_admin_printf(response, "<a href='%s'>%s</a></td><td>", link, link);
        }
        if (page->mutates || parameters) {
            form_add(response, page);
        }
        kb_admin_add(response, KB_STR("</td><td>"));
        escaped_add(response, kb_str_from_cstr(page->help));
        kb_admin_add(response, KB_STR("</td></tr>\n"));
    }
    kb_admin_add(response, kb_home_page_tail);
}
