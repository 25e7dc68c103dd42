/* SPDX-License-Identifier: Apache-2.0 */
/* The application log. A line is composed on the stack and leaves in one write, so that lines of
 * several threads do not mix. */
#include "base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define LINE_MAX_BYTES 8192
#define FORMAT_DEFAULT "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v"

uint8_t kb_log_levels[KB_LOG_COMPONENT_COUNT];

static const char *const component_names[] = {
#define X(id, name) name,
#include "base/log.def"
#undef X
};
static const char *const level_names[] = {"trace", "debug",    "info", "warning",
                                          "error", "critical", "off"};

static char *format;
static bool format_escape;
static char *log_path;
static int log_fd = STDERR_FILENO;

int kb_log_level_parse(struct kb_str text, enum kb_log_level *level)
{
    for (unsigned i = 0; i < KB_ARRAY_LEN(level_names); i++) {
        if (kb_str_eq(text, kb_str_from_cstr(level_names[i]))) {
            *level = (enum kb_log_level)i;
            return 0;
        }
    }
    if (kb_str_eq(text, KB_STR("warn"))) {
        *level = KB_LOG_WARNING;
        return 0;
    }
    return KB_EINVALID;
}

const char *kb_log_level_name(enum kb_log_level level)
{
    return level_names[level];
}

int kb_log_component_parse(struct kb_str name, enum kb_log_component *component)
{
    for (unsigned i = 0; i < KB_LOG_COMPONENT_COUNT; i++) {
        if (kb_str_eq(name, kb_str_from_cstr(component_names[i]))) {
            *component = (enum kb_log_component)i;
            return 0;
        }
    }
    return KB_ENOTFOUND;
}

const char *kb_log_component_name(enum kb_log_component component)
{
    return component_names[component];
}

void kb_log_set_level(enum kb_log_level level)
{
    memset(kb_log_levels, (int)level, sizeof(kb_log_levels));
}

void kb_log_set_format(const char *pattern, bool escape)
{
    free(format);
    format = kb_strdup(pattern);
    format_escape = escape;
}

int kb_log_set_path(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

    if (fd < 0) {
        return KB_EIO;
    }
    free(log_path);
    log_path = kb_strdup(path);
    log_fd = fd;
    return 0;
}

void kb_log_reopen(void)
{
    int fd;

    if (log_path == NULL) {
        return;
    }
    fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd >= 0) {
        /* dup2 keeps the descriptor valid for threads that write right now. */
        dup2(fd, log_fd);
        close(fd);
    }
}

struct line {
    char bytes[LINE_MAX_BYTES];
    size_t len;
};

static void line_add(struct line *line, const char *text, size_t len)
{
    len = KB_MIN(len, sizeof(line->bytes) - 1 - line->len);
    memcpy(line->bytes + line->len, text, len);
    line->len += len;
}

static void line_addf(struct line *line, const char *fmt, ...) KB_PRINTF(2, 3);
static void line_addf(struct line *line, const char *fmt, ...)
{
    char text[256];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (n > 0) {
        line_add(line, text, KB_MIN((size_t)n, sizeof(text) - 1));
    }
}

static void line_add_escaped(struct line *line, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        switch (text[i]) {
        case '\n':
            line_add(line, "\\n", 2);
            break;
        case '\r':
            line_add(line, "\\r", 2);
            break;
        case '\t':
            line_add(line, "\\t", 2);
            break;
        case '\\':
            line_add(line, "\\\\", 2);
            break;
        case '"':
            line_add(line, "\\\"", 2);
            break;
        default:
            line_add(line, &text[i], 1);
        }
    }
}

/* The inside of a JSON string (RFC 8259 section 7); Envoy's %j. */
static void line_add_json(struct line *line, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 && strchr("\n\r\t", text[i]) == NULL) {
            line_addf(line, "\\u%04x", (unsigned)text[i]);
        } else {
            line_add_escaped(line, &text[i], 1);
        }
    }
}

struct record {
    enum kb_log_component component;
    enum kb_log_level level;
    const char *file;
    int line;
    struct kb_str text;
    struct tm tm;
    uint64_t wall_ns;
};

static void flag_add(struct line *out, char flag, const struct record *record)
{
    char strftime_fmt[] = {'%', flag, '\0'};
    char text[64];

    switch (flag) {
    case 'j':
        line_add_json(out, record->text.p, record->text.len);
        break;
    case 'v':
    case '_':
        if (format_escape || flag == '_') {
            line_add_escaped(out, record->text.p, record->text.len);
        } else {
            line_add(out, record->text.p, record->text.len);
        }
        break;
    case 't':
        line_addf(out, "%ld", (long)syscall(SYS_gettid));
        break;
    case 'P':
        line_addf(out, "%ld", (long)getpid());
        break;
    case 'n':
        line_addf(out, "%s", component_names[record->component]);
        break;
    case 'l':
        line_addf(out, "%s", level_names[record->level]);
        break;
    case 'L':
        line_addf(out, "%c", level_names[record->level][0] - 32);
        break;
    case 'g':
    case 's':
        line_addf(out, "%s", record->file);
        break;
    case '#':
        line_addf(out, "%d", record->line);
        break;
    case 'e':
        line_addf(out, "%03u", (unsigned)(record->wall_ns / 1000000 % 1000));
        break;
    case 'f':
        line_addf(out, "%06u", (unsigned)(record->wall_ns / 1000 % 1000000));
        break;
    case 'F':
        line_addf(out, "%09u", (unsigned)(record->wall_ns % 1000000000));
        break;
    case 'E':
        line_addf(out, "%llu", (unsigned long long)(record->wall_ns / 1000000000));
        break;
    case '%':
        line_add(out, "%", 1);
        break;
    default:
        line_add(out, text, strftime(text, sizeof(text), strftime_fmt, &record->tm));
    }
}

void kb_log_write(enum kb_log_component component, enum kb_log_level level, const char *file,
                  int line, const char *fmt, ...)
{
    char text[LINE_MAX_BYTES / 2];
    struct record record = {component, level, file, line, KB_STR_NULL, {0}, kb_clock_wall_ns()};
    struct line out = {.len = 0};
    const char *pattern = format != NULL ? format : FORMAT_DEFAULT;
    time_t seconds = (time_t)(record.wall_ns / 1000000000);
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    record.text = kb_str_make(text, n < 0 ? 0 : KB_MIN((size_t)n, sizeof(text) - 1));
    localtime_r(&seconds, &record.tm);
    for (const char *at = pattern; *at != '\0'; at++) {
        if (at[0] == '%' && at[1] != '\0') {
            at++;
            flag_add(&out, *at, &record);
        } else {
            line_add(&out, at, 1);
        }
    }
    line_add(&out, "\n", 1);
    out.bytes[out.len - 1] = '\n';
    /* A log that cannot be written must not stop the proxy. */
    if (write(log_fd, out.bytes, out.len) < 0) {
        return;
    }
}
