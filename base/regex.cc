/* SPDX-License-Identifier: Apache-2.0 */
/* The C face of RE2; no exception passes it, because RE2 throws
 * none and memory that is not there aborts. */
#include <re2/re2.h>

#include <stdbool.h>
#include <string.h>

#include <string>

extern "C" {
#include "base/str.h"
}

#include "base/regex.h"

/* Bytes, not UTF-8: as Envoy 1.40, so that '.' matches any byte of a header, and program sizes are
 * Envoy's. */
static RE2::Options options()
{
    RE2::Options latin1(RE2::Quiet);

    latin1.set_encoding(RE2::Options::EncodingLatin1);
    return latin1;
}

struct kb_regex {
    explicit kb_regex(const re2::StringPiece &pattern) : re(pattern, options())
    {
    }
    RE2 re;
};

namespace
{

re2::StringPiece piece(struct kb_str s)
{
    return re2::StringPiece(s.p != nullptr ? s.p : "", s.len);
}

struct kb_str in_arena(struct kb_arena *arena, const std::string &text)
{
    return kb_str_dup(arena, kb_str_make(text.data(), text.size()));
}

} // namespace

struct kb_regex *kb_regex_create(struct kb_str pattern, struct kb_arena *arena,
                                 struct kb_str *error)
{
    struct kb_regex *regex = new kb_regex(piece(pattern));

    if (regex->re.ok()) {
        return regex;
    }
    *error = in_arena(arena, regex->re.error());
    delete regex;
    return nullptr;
}

void kb_regex_destroy(struct kb_regex *regex)
{
    delete regex;
}

int kb_regex_program_size(const struct kb_regex *regex)
{
    return regex->re.ProgramSize();
}

int kb_regex_group_count(const struct kb_regex *regex)
{
    return regex->re.NumberOfCapturingGroups();
}

int kb_regex_group_index(const struct kb_regex *regex, struct kb_str name)
{
    const auto &groups = regex->re.NamedCapturingGroups();
    const auto found = groups.find(std::string(name.p, name.len));

    return found != groups.end() ? found->second : -1;
}

bool kb_regex_full_match(const struct kb_regex *regex, struct kb_str text)
{
    return RE2::FullMatch(piece(text), regex->re);
}

bool kb_regex_partial_match(const struct kb_regex *regex, struct kb_str text)
{
    return RE2::PartialMatch(piece(text), regex->re);
}

static bool match_groups(const struct kb_regex *regex, struct kb_str text, RE2::Anchor anchor,
                         struct kb_str *groups, int count)
{
    re2::StringPiece found[KB_REGEX_GROUPS_MAX];

    if (count > KB_REGEX_GROUPS_MAX || count > kb_regex_group_count(regex) + 1 ||
        !regex->re.Match(piece(text), 0, text.len, anchor, found, count)) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        groups[i] = kb_str_make(found[i].data(), found[i].size());
    }
    return true;
}

bool kb_regex_full_match_groups(const struct kb_regex *regex, struct kb_str text,
                                struct kb_str *groups, int count)
{
    return match_groups(regex, text, RE2::ANCHOR_BOTH, groups, count);
}

bool kb_regex_partial_match_groups(const struct kb_regex *regex, struct kb_str text,
                                   struct kb_str *groups, int count)
{
    return match_groups(regex, text, RE2::UNANCHORED, groups, count);
}

struct kb_str kb_regex_replace_all(const struct kb_regex *regex, struct kb_str text,
                                   struct kb_str substitution, struct kb_arena *arena)
{
    std::string changed(text.p != nullptr ? text.p : "", text.len);

    if (RE2::GlobalReplace(&changed, regex->re, piece(substitution)) == 0) {
        return text;
    }
    return in_arena(arena, changed);
}
