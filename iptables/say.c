/* SPDX-License-Identifier: Apache-2.0 */
/* Levels, and the two forms of a message. */
#include "iptables/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *const level_words[] = {"debug", "info", "warning", "error"};
static enum kb_say_level lowest = KB_SAY_INFO;
static bool as_json;

void kb_say_setup(enum kb_say_level level, bool json)
{
    lowest = level;
    as_json = json;
}

static void put_json_text(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        switch (*at) {
        case '"':
        case '\\':
            fprintf(stderr, "\\%c", *at);
            break;
        case '\n':
            fputs("\\n", stderr);
            break;
        case '\t':
            fputs("\\t", stderr);
            break;
        default:
            if (*at < 0x20) {
                fprintf(stderr, "\\u%04x", *at);
            } else {
                fputc(*at, stderr);
            }
        }
    }
}

void kb_say(enum kb_say_level level, const char *format, ...)
{
    char *text;
    va_list args;

    if (level < lowest || level >= KB_SAY_NONE) {
        return;
    }
    va_start(args, format);
    int len = vasprintf(&text, format, args);
    va_end(args);
    if (len < 0) {
        kb_say_no_memory();
    }
    if (as_json) {
        char when[32] = "";
        time_t now = time(NULL);
        struct tm parts;
        if (gmtime_r(&now, &parts)) {
            strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &parts);
        }
        fprintf(stderr, "{\"level\":\"%s\",\"time\":\"%s\",\"msg\":\"", level_words[level], when);
        put_json_text(text);
        fputs("\"}\n", stderr);
    } else {
        fprintf(stderr, "kobune-iptables: %s: %s\n", level_words[level], text);
    }
    free(text);
}

_Noreturn void kb_say_no_memory(void)
{
    fputs("kobune-iptables: error: no memory\n", stderr);
    exit(KB_EXIT_FAILED);
}
