/* SPDX-License-Identifier: Apache-2.0 */
/* The application log on stderr (or --log-path), with Envoy's components, levels and line format.
 * Any thread. */
#pragma once

#include <stdbool.h>

#include "base/str.h"

enum kb_log_level {
    KB_LOG_TRACE,
    KB_LOG_DEBUG,
    KB_LOG_INFO,
    KB_LOG_WARNING,
    KB_LOG_ERROR,
    KB_LOG_CRITICAL,
    KB_LOG_OFF,
};

enum kb_log_component {
#define X(id, name) KB_LOG_##id,
#include "base/log.def"
#undef X
    KB_LOG_COMPONENT_COUNT
};

/* Level of each component; read without a lock. */
extern uint8_t kb_log_levels[KB_LOG_COMPONENT_COUNT];

/* KB_LOG(HTTP, DEBUG, "[C%u] closed", id): nothing is evaluated when the level is off. */
#define KB_LOG(component, level, ...)                                                          \
    do {                                                                                       \
        if (KB_UNLIKELY(kb_log_levels[KB_LOG_##component] <= KB_LOG_##level)) {                \
            kb_log_write(KB_LOG_##component, KB_LOG_##level, __FILE__, __LINE__, __VA_ARGS__); \
        }                                                                                      \
    } while (0)

/* Writes one line whatever the level; use KB_LOG. */
void kb_log_write(enum kb_log_component component, enum kb_log_level level, const char *file,
                  int line, const char *fmt, ...) KB_PRINTF(5, 6) KB_COLD;

/* "trace" … "off", "warn" too; KB_EINVALID otherwise. */
int kb_log_level_parse(struct kb_str text, enum kb_log_level *level) KB_MUST_USE;
const char *kb_log_level_name(enum kb_log_level level);

/* KB_ENOTFOUND when there is no such component. */
int kb_log_component_parse(struct kb_str name, enum kb_log_component *component) KB_MUST_USE;
const char *kb_log_component_name(enum kb_log_component component);

/* All components. */
void kb_log_set_level(enum kb_log_level level);

/* spdlog's pattern letters as Envoy documents them for --log-format; NULL restores the default
 * "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v". `escape`: C-escape the message (--log-format-escaped).
 */
void kb_log_set_format(const char *pattern, bool escape);

/* Appends to a file instead of stderr; KB_EIO when it cannot be opened. */
int kb_log_set_path(const char *path) KB_MUST_USE;
/* Opens the file of kb_log_set_path again (SIGUSR1). */
void kb_log_reopen(void);
