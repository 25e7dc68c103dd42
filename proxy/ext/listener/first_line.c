/* SPDX-License-Identifier: Apache-2.0 */
/* First lines as Envoy's HTTP/1 parser takes them: words are parted by any bytes up to a blank,
 * targets are origin form, "*" or absolute, versions are HTTP/d.d. */
#include "proxy/ext/listener/first_line.h"

#include <string.h>

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#define PREFACE_LEN (sizeof(preface) - 1)

static bool is_alnum(char c)
{
    return kb_ascii_is_alpha(c) || kb_ascii_is_digit(c);
}

/* RFC 9110 section 5.6.2. */
static bool is_token(char c)
{
    return is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_blank(char c)
{
    return (unsigned char)c <= ' ';
}

static bool is_path_char(char c)
{
    return c == '\t' || c == '\f' || ((unsigned char)c > ' ' && (unsigned char)c < 0x7f);
}

static bool is_host_char(char c)
{
    return is_alnum(c) || (c != '\0' && strchr("!$%&'()*+,-.:;=@[]_~", c) != NULL);
}

static bool path_valid(struct kb_str path)
{
    for (size_t i = 0; i < path.len; i++) {
        if (!is_path_char(path.p[i])) {
            return false;
        }
    }
    return true;
}

/* "scheme://" taken off; false: there is none. */
static bool scheme_skip(struct kb_str *target)
{
    size_t i = 0;

    while (i < target->len && (is_alnum(target->p[i]) || (i > 0 && target->p[i] != '\0' &&
                                                          strchr("+-.", target->p[i]) != NULL))) {
        i++;
    }
    if (i == 0 || !kb_ascii_is_alpha(target->p[0]) || target->len - i < 3 ||
        memcmp(target->p + i, "://", 3) != 0) {
        return false;
    }
    *target = kb_str_from(*target, i + 3);
    return true;
}

static bool target_valid(struct kb_str target, bool connect)
{
    size_t i = 0;

    if (target.len == 0) {
        return false;
    }
    if (target.p[0] == '/' || target.p[0] == '*') {
        return path_valid(target);
    }
    if (!connect && !scheme_skip(&target)) {
        return false;
    }
    for (; i < target.len && target.p[i] != '/' && target.p[i] != '?'; i++) {
        if (!is_host_char(target.p[i]) ||
            (target.p[i] == '@' && i + 1 < target.len && target.p[i + 1] == '@')) {
            return false;
        }
    }
    return path_valid(kb_str_from(target, i));
}

/* The next word of the line. */
static struct kb_str word_take(struct kb_str *line)
{
    size_t len = 0;
    struct kb_str word;

    while (len < line->len && !is_blank(line->p[len])) {
        len++;
    }
    word = kb_str_first(*line, len);
    while (len < line->len && is_blank(line->p[len])) {
        len++;
    }
    *line = kb_str_from(*line, len);
    return word;
}

static enum kb_first_line version_verdict(struct kb_str version)
{
    if (version.len == 0) {
        return KB_FIRST_LINE_HTTP10;
    }
    if (version.len != 8 || memcmp(version.p, "HTTP/", 5) != 0 ||
        !kb_ascii_is_digit(version.p[5]) || version.p[6] != '.' ||
        !kb_ascii_is_digit(version.p[7])) {
        return KB_FIRST_LINE_OTHER;
    }
    return version.p[5] == '1' && version.p[7] == '1' ? KB_FIRST_LINE_HTTP11 : KB_FIRST_LINE_HTTP10;
}

static enum kb_first_line line_verdict(struct kb_str line)
{
    struct kb_str method, target;

    while (line.len > 0 && is_blank(line.p[line.len - 1])) {
        line.len--;
    }
    method = word_take(&line);
    for (size_t i = 0; i < method.len; i++) {
        if (!is_token(method.p[i])) {
            return KB_FIRST_LINE_OTHER;
        }
    }
    target = word_take(&line);
    if (method.len == 0 || !target_valid(target, kb_str_eq(method, KB_STR("CONNECT")))) {
        return KB_FIRST_LINE_OTHER;
    }
    return version_verdict(line);
}

enum kb_first_line kb_first_line_parse(struct kb_str bytes, size_t line_len)
{
    size_t seen = KB_MIN(bytes.len, PREFACE_LEN);

    if (bytes.len == 0) {
        return KB_FIRST_LINE_MORE;
    }
    if (memcmp(bytes.p, preface, seen) == 0) {
        return seen == PREFACE_LEN ? KB_FIRST_LINE_HTTP2 : KB_FIRST_LINE_MORE;
    }
    if (line_len > 0) {
        return line_verdict(kb_str_first(bytes, line_len));
    }
    for (size_t i = 0; i < bytes.len && (i == 0 || (bytes.p[i] != ' ' && bytes.p[i] != '\t'));
         i++) {
        if (!is_token(bytes.p[i])) {
            return KB_FIRST_LINE_OTHER;
        }
    }
    return KB_FIRST_LINE_MORE;
}
