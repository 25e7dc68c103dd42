/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing: text in, text out; nothing of YAML is understood here. */
#include "tests/events/events_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "tests/events/peer.h"

#define RESOURCE_MARK "\n- \"@type\""

static struct sim_bytes file_read(const char *folder, const char *name)
{
    struct sim_bytes text = {0};
    char path[4096];
    char piece[4096];
    size_t n;
    FILE *file;

    KB_ASSERT(snprintf(path, sizeof(path), "%s/%s", folder, name) < (int)sizeof(path));
    file = fopen(path, "re");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    while ((n = fread(piece, 1, sizeof(piece), file)) > 0) {
        sim_bytes_add(&text, piece, n);
    }
    fclose(file);
    sim_bytes_add(&text, "", 1);
    return text;
}

/* "a|b|c>>": one of them, and where it goes on. */
static const char *alternative_add(struct sim_bytes *out, const char *at)
{
    const char *end = strstr(at, ">>");
    size_t count = 1;
    size_t chosen;

    KB_ASSERT(end != NULL);
    for (const char *p = at; p < end; p++) {
        count += *p == '|';
    }
    chosen = peer_roll(count);
    for (; chosen > 0; at++) {
        chosen -= *at == '|';
    }
    sim_bytes_add(out, at, strcspn(at, "|>"));
    return end + 2;
}

static void resource_add(struct sim_bytes *out, const char *at, const char *end, bool all)
{
    const char *maybe = strstr(at, "#maybe");

    if (!all && maybe != NULL && maybe < end && peer_chance(35)) {
        return;
    }
    while (at < end) {
        const char *next = strstr(at, "<<");

        if (next == NULL || next >= end) {
            next = end;
        }
        sim_bytes_add(out, at, (size_t)(next - at));
        at = next < end ? alternative_add(out, next + 2) : end;
    }
}

void events_config_draw(const char *folder, const char *name, bool all)
{
    struct sim_bytes text = file_read(folder, name);
    struct sim_bytes out = {0};
    const char *at = text.p;
    FILE *file;

    while (*at != '\0') {
        const char *end = strstr(at + 1, RESOURCE_MARK);

        if (end == NULL) {
            end = text.p + text.len - 1;
        }
        resource_add(&out, at, end, all);
        at = end;
    }
    file = fopen("drawn", "we");
    KB_ASSERT(file != NULL);
    KB_ASSERT(fwrite(out.p, 1, out.len, file) == out.len);
    KB_ASSERT(fclose(file) == 0);
    KB_ASSERT(rename("drawn", name) == 0);
    sim_bytes_dispose(&text);
    sim_bytes_dispose(&out);
}
