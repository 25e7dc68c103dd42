/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: Envoy's flags, with its rules for reading them and its words for what is wrong
 * with them. Flags are "--name value" or "-c value", never "--name=value". */
#pragma once

#include <stdio.h>

#include "base/log.h"
#include "base/str.h"

#define KB_OPTIONS_STATS_TAGS_MAX 64
#define KB_LOG_FORMAT_DEFAULT     "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v"

enum kb_mode { KB_MODE_SERVE, KB_MODE_VALIDATE, KB_MODE_INIT_ONLY };

struct kb_stats_tag {
    struct kb_str name;
    struct kb_str value;
};

/* Texts are borrowed from argv. Empty text: not given. */
struct kb_options {
    struct kb_str config_path;
    struct kb_str config_yaml;
    struct kb_str config_cache; /* a directory */
    struct kb_str service_node;
    struct kb_str service_cluster;
    struct kb_str service_zone;
    struct kb_str log_path;
    struct kb_str log_format; /* KB_LOG_FORMAT_DEFAULT */
    struct kb_str component_log_level;
    struct kb_str admin_address_path;
    struct kb_str base_id_path;
    struct kb_str disable_extensions;
    struct kb_str socket_path; /* "@envoy_domain_socket" */
    enum kb_mode mode;
    enum kb_log_level log_level;
    struct kb_str max_memory; /* --max-memory, was checked */
    uint32_t concurrency;     /* 1 to KB_WORKERS_MAX */
    uint32_t base_id;
    uint32_t restart_epoch;
    uint32_t socket_mode;
    uint32_t drain_time_s;
    uint32_t parent_shutdown_time_s;
    uint32_t file_flush_interval_ms;
    uint32_t file_flush_min_size_kb;
    bool log_format_given;
    bool log_format_escaped;
    bool log_level_given;
    bool drain_immediate;
    bool local_address_v6;
    bool allow_unknown_static_fields;
    bool allow_unknown_fields; /* the deprecated flag was given */
    bool reject_unknown_dynamic_fields;
    bool ignore_unknown_dynamic_fields;
    bool skip_deprecated_logs;
    bool enable_core_dump;
    bool disable_hot_restart;
    bool use_dynamic_base_id;
    bool skip_hot_restart_on_no_parent;
    bool skip_hot_restart_parent_stats;
    bool cpuset_threads;
    bool enable_mutex_tracing;
    bool enable_fine_grain_logging;
    bool log_stacktrace_single_entry;
    struct kb_stats_tag stats_tags[KB_OPTIONS_STATS_TAGS_MAX];
    size_t stats_tag_count;
};

enum kb_options_outcome {
    KB_OPTIONS_RUN,  /* go on */
    KB_OPTIONS_DONE, /* --help, --version: printed to `out` or `err`; exit code 0 */
    KB_OPTIONS_BAD,  /* the reason was printed to `err`; exit code 1 */
};

/* Reads argv (argv[0] is the program) into *options. Everything is checked; nothing is applied. */
enum kb_options_outcome kb_options_parse(struct kb_options *options, int argc, char *const *argv,
                                         FILE *out, FILE *err);

/* Sets levels, format and escaping of the application log. Call once, before threads start. */
void kb_options_apply_log(const struct kb_options *options);

/* The whole --help text, and the short usage of an error message. */
void kb_options_print_usage(FILE *out, const char *program);
void kb_options_print_brief_usage(FILE *out, const char *program);

/* "SHA/VERSION/Clean/RELEASE/OpenSSL": commit, version, state of the checkout, build type, TLS
 * library. */
const char *kb_version_text(void);

/* The ceiling in bytes; 0: there is none. */
uint64_t kb_options_max_memory(const struct kb_options *options);

/* The memory limit of this process's cgroup (v1 or v2), or of one above it, with the files under
 * `root` ("" for the real ones); 0: none. `used` (may be NULL): what is taken of it. */
uint64_t kb_memory_cgroup_limit(const char *root, uint64_t *used);

/* How many workers suit this process: CPUs of the machine, of its affinity mask, and of the CPU
 * limit of its cgroup (v1 or v2, whole CPUs), whichever is least, at least 1.
 * ENVOY_CGROUP_CPU_DETECTION=false in the environment leaves the cgroup out. */
uint32_t kb_cpu_count(void);
/* The cgroup part, with the files under `root` ("" for the real ones); UINT32_MAX: no limit. */
uint32_t kb_cpu_cgroup_limit(const char *root);
