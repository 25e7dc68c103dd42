/* SPDX-License-Identifier: Apache-2.0 */
/* What --help, --version and a wrong command line print, in the layout that users of Envoy know: 75
 * columns, broken at spaces, later lines of a usage further in. */
#include <string.h>

#include "proxy/server/commit.h"
#include "proxy/server/options.h"
#include "proxy/server/options_internal.h"
#include "proxy/server/version.h"

#define COLUMNS   75
#define USAGE_MAX 4096

const struct kb_option_def kb_option_defs[KB_OPTION_COUNT] = {
#define X(ID, name, letter, kind, help) {name, letter, KB_OPTION_##kind, help},
#include "proxy/server/options.def"
#undef X
};

/* How much of `text` goes to a line of `room` columns: up to the last space or comma, or the first
 * line break. */
static size_t line_take(struct kb_str text, size_t room)
{
    size_t take = KB_MIN(text.len, room);
    ptrdiff_t newline;

    if (take < text.len) {
        while (take > 0 && text.p[take] != ' ' && text.p[take] != ',' && text.p[take] != '|') {
            take--;
        }
        if (take == 0) {
            take = KB_MIN(text.len, room);
        }
    }
    newline = kb_str_find_char(kb_str_first(text, take), '\n');
    return newline >= 0 ? (size_t)newline : take;
}

/* Prints `text` `indent` columns in, lines after the first `further` columns more. */
static void print_wrapped(FILE *out, struct kb_str text, size_t indent, size_t further)
{
    while (text.len > 0) {
        size_t take = line_take(text, COLUMNS - indent);

        if (take > 0) {
            fprintf(out, "%*s%.*s\n", (int)indent, "", (int)take, text.p);
        } else {
            fputc('\n', out);
        }
        text = kb_str_from(text, take);
        while (text.len > 0 && (text.p[0] == ' ' || text.p[0] == '\n')) {
            bool newline = text.p[0] == '\n';

            text = kb_str_from(text, 1);
            if (newline) {
                break;
            }
        }
        indent += further;
        further = 0;
    }
}

static const char *value_type(enum kb_option_kind kind)
{
    switch (kind) {
    case KB_OPTION_SWITCH:
        return "";
    case KB_OPTION_UINT32:
        return " <uint32_t>";
    case KB_OPTION_STRING:
    case KB_OPTION_MULTI:
        return " <string>";
    }
    return "";
}

static void print_short_usage(FILE *out, const char *program)
{
    char text[USAGE_MAX];
    size_t len = (size_t)snprintf(text, sizeof(text), "%s ", program);
    size_t further = KB_MIN(strlen(program) + 2, (size_t)COLUMNS / 2);

    for (size_t i = 0; i < KB_OPTION_COUNT && len < sizeof(text); i++) {
        const struct kb_option_def *def = &kb_option_defs[i];
        const char *more = def->kind == KB_OPTION_MULTI ? " ..." : "";

        if (def->letter != 0) {
            len += (size_t)snprintf(text + len, sizeof(text) - len, " [-%c%s]", def->letter,
                                    value_type(def->kind));
        } else {
            len += (size_t)snprintf(text + len, sizeof(text) - len, " [--%s%s]%s", def->name,
                                    value_type(def->kind), more);
        }
    }
    print_wrapped(out, kb_str_make(text, KB_MIN(len, sizeof(text) - 1)), 3, further);
}

void kb_options_print_usage(FILE *out, const char *program)
{
    fputs("\nUSAGE: \n\n", out);
    print_short_usage(out, program);
    fputs("\n\nWhere: \n\n", out);
    for (size_t i = 0; i < KB_OPTION_COUNT; i++) {
        const struct kb_option_def *def = &kb_option_defs[i];
        const char *type = value_type(def->kind);

        if (def->letter != 0) {
            fprintf(out, "   -%c%s,  --%s%s\n", def->letter, type, def->name, type);
        } else {
            fprintf(out, "   --%s%s%s\n", def->name, type,
                    def->kind == KB_OPTION_MULTI ? "  (accepted multiple times)" : "");
        }
        print_wrapped(out, kb_str_from_cstr(def->help), 5, 0);
        fputc('\n', out);
    }
    fputs("\n   kobune: an L7 proxy that takes Envoy's configuration\n\n", out);
}

void kb_options_print_brief_usage(FILE *out, const char *program)
{
    fputs("Brief USAGE: \n", out);
    print_short_usage(out, program);
    fprintf(out, "\nFor complete USAGE and HELP type: \n   %s --help\n\n", program);
}

const char *kb_version_text(void)
{
    static char text[128];
    struct kb_str commit = kb_str_from_cstr(KB_VERSION_COMMIT);
    bool modified = kb_str_ends_with(commit, KB_STR("-dirty"));

    if (modified) {
        commit.len -= KB_STR("-dirty").len;
    }
#ifdef KB_DEBUG
    const char *build = "DEBUG";
#else
    const char *build = "RELEASE";
#endif
    snprintf(text, sizeof(text), "%.*s/%s/%s/%s/OpenSSL", KB_STR_ARG(commit), KB_VERSION,
             modified ? "Modified" : "Clean", build);
    return text;
}
