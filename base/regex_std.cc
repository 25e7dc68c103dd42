/* SPDX-License-Identifier: Apache-2.0 */
/* The C face of std::regex; no exception passes it. */
#if defined(__GNUC__) && !defined(__clang__)
/* gcc 12 with sanitizers takes a union's other member in the standard library for uninitialised. */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <regex>

extern "C" {
#include "base/str.h"
}

#include "base/regex_std.h"

struct kb_regex_std {
    explicit kb_regex_std(struct kb_str pattern)
        : re(pattern.p, pattern.len, std::regex::ECMAScript | std::regex::optimize)
    {
    }
    std::regex re;
};

struct kb_regex_std *kb_regex_std_create(struct kb_str pattern)
{
    try {
        return new kb_regex_std(pattern.p != nullptr ? pattern : kb_str_make("", 0));
    } catch (const std::exception &) {
        return nullptr;
    }
}

void kb_regex_std_destroy(struct kb_regex_std *regex)
{
    delete regex;
}

int kb_regex_std_group_count(const struct kb_regex_std *regex)
{
    return static_cast<int>(regex->re.mark_count());
}

bool kb_regex_std_search(const struct kb_regex_std *regex, struct kb_str text,
                         struct kb_str *groups, int count)
{
    std::cmatch match;

    if (text.p == nullptr || text.len > KB_REGEX_STD_TEXT_MAX) {
        return false;
    }
    try {
        if (!std::regex_search(text.p, text.p + text.len, match, regex->re)) {
            return false;
        }
    } catch (const std::exception &) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        const auto at = static_cast<size_t>(i);

        groups[i] = at < match.size() && match[at].matched
                        ? kb_str_make(match[at].first, static_cast<size_t>(match.length(at)))
                        : kb_str_make(nullptr, 0);
    }
    return true;
}
