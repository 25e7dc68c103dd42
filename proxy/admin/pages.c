/* SPDX-License-Identifier: Apache-2.0 */
/* The pages and their help texts, which are Envoy's. */
#include "proxy/admin/admin_internal.h"

const struct kb_admin_page kb_admin_pages[] = {
    {"/", "Admin home page", "", false, kb_admin_home},
    {"/allocprofiler", "enable/disable the allocation profiler (if supported)",
     "      enable: enable/disable the allocation profiler; One of (y, n)"
     "\n",
     true, kb_admin_allocprofiler},
    {"/certs", "print certs on machine", "", false, kb_admin_certs},
    {"/clusters", "upstream cluster status",
     "      filter: Regular expression (Google re2) for filtering clusters by name"
     "\n",
     false, kb_admin_clusters},
    {"/config_dump", "dump current Envoy configs",
     "      resource: The resource to dump"
     "\n"
     "      mask: The mask to apply. When both resource and mask are specified, the mask is "
     "applied to every element in the desired repeated field so that only a subset of fields "
     "are returned. The mask is parsed as a Protobuf::FieldMask"
     "\n"
     "      name_regex: Dump only the currently loaded configurations whose names match the "
     "specified regex. Can be used with both resource and mask query parameters."
     "\n"
     "      include_eds: Dump currently loaded configuration including EDS. See the response "
     "definition for more information"
     "\n",
     false, kb_admin_config_dump},
    {"/contention", "dump current Envoy mutex contention stats (if enabled)", "", false,
     kb_admin_contention},
    {"/cpuprofiler", "enable/disable the CPU profiler",
     "      enable: enables the CPU profiler; One of (y, n)"
     "\n",
     true, kb_admin_cpuprofiler},
    {"/drain_listeners", "drain listeners",
     "      graceful: When draining listeners, enter a graceful drain period prior to closing "
     "listeners. This behaviour and duration is configurable via server options or CLI"
     "\n"
     "      skip_exit: When draining listeners, drain the connections but never stop the "
     "listeners. The graceful parameter has no effect when this is set, since the drain "
     "period only delays stopping the listeners"
     "\n"
     "      inboundonly: Drains all inbound listeners. traffic_direction field in "
     "envoy_v3_api_msg_config.listener.v3.Listener is used to determine whether a listener is "
     "inbound or outbound."
     "\n",
     true, kb_admin_drain_listeners},
    {"/healthcheck/fail", "cause the server to fail health checks", "", true,
     kb_admin_healthcheck_fail},
    {"/healthcheck/ok", "cause the server to pass health checks", "", true,
     kb_admin_healthcheck_ok},
    {"/heap_dump", "dump current Envoy heap (if supported)", "", false, kb_admin_heap_dump},
    {"/heapprofiler", "enable/disable the heap profiler",
     "      enable: enable/disable the heap profiler; One of (y, n)"
     "\n",
     true, kb_admin_heapprofiler},
    {"/help", "print out list of admin commands", "", false, kb_admin_help},
    {"/hot_restart_version", "print the hot restart compatibility version", "", false,
     kb_admin_hot_restart_version},
    {"/init_dump", "dump current Envoy init manager information (experimental)",
     "      mask: The desired component to dump unready targets. The mask is parsed as a "
     "Protobuf::FieldMask. For example, get the unready targets of all listeners with "
     "/init_dump?mask=listener`"
     "\n",
     false, kb_admin_init_dump},
    {"/kobune/live", "print totals of listeners, connection managers and clusters", "", false,
     kb_admin_live},
    {"/kobune/pushes", "list the last responses of control planes, and what they changed",
     "      format: File format to use; One of (text, json)"
     "\n",
     false, kb_admin_pushes},
    {"/kobune/unsupported", "list the configuration fields that are set and not implemented",
     "      format: File format to use; One of (text, json)"
     "\n",
     false, kb_admin_unsupported},
    {"/listeners", "print listener info",
     "      format: File format to use; One of (text, json)"
     "\n",
     false, kb_admin_listeners},
    {"/logging", "query/change logging levels",
     "      paths: Change multiple logging levels by setting to "
     "<logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>. If fine grain logging "
     "is enabled, use __FILE__ or a glob experision as the logger name. For example, "
     "source/common*:warning"
     "\n"
     "      group: Change given logger group to desired level, set to "
     "<logger_group_name>:<desired_level>. logger_group_name must be a logger name."
     "\n"
     "      level: desired logging level, this will change all loggers's level; One of (, "
     "trace, debug, info, warning, error, critical, off)"
     "\n",
     true, kb_admin_logging},
    {"/memory", "print current allocation/heap usage", "", false, kb_admin_memory},
    {"/memory/tcmalloc", "print TCMalloc stats", "", false, kb_admin_memory_tcmalloc},
    {"/peak_heap_dump", "dump peak Envoy heap (if supported)", "", false, kb_admin_heap_dump},
    {"/quitquitquit", "exit the server", "", true, kb_admin_quitquitquit},
    {"/ready", "print server state, return 200 if LIVE, otherwise return 503", "", false,
     kb_admin_ready},
    {"/reopen_logs", "reopen access logs", "", true, kb_admin_reopen_logs},
    {"/reset_counters", "reset all counters to zero", "", true, kb_admin_reset_counters},
    {"/runtime", "print runtime values", "", false, kb_admin_runtime},
    {"/runtime_modify",
     "Adds or modifies runtime values as passed in query parameters. To delete a previously "
     "added key, use an empty string as the value. Note that deletion only applies to "
     "overrides added via this endpoint; values loaded from disk can be modified via override "
     "but not deleted. E.g. ?key1=value1&key2=value2...",
     "", true, kb_admin_runtime_modify},
    {"/server_info", "print server version/status information", "", false, kb_admin_server_info},
    {"/stats", "print server stats",
     "      usedonly: Only include stats that have been written by system since restart"
     "\n"
     "      filter: Regular expression (Google re2) for filtering stats"
     "\n"
     "      invert_filter: Invert the filter regex"
     "\n"
     "      format: Format to use; One of (html, active-html, text, json)"
     "\n"
     "      type: Stat types to include.; One of (All, Counters, Histograms, Gauges, "
     "TextReadouts)"
     "\n"
     "      histogram_buckets: Histogram bucket display mode; One of (cumulative, disjoint, "
     "detailed, summary)"
     "\n",
     false, kb_admin_stats},
    {"/stats/prometheus", "print server stats in prometheus format",
     "      usedonly: Only include stats that have been written by system since restart"
     "\n"
     "      text_readouts: Render text_readouts as new gaugues with value 0 (increases "
     "Prometheus data size)"
     "\n"
     "      filter: Regular expression (Google re2) for filtering stats"
     "\n"
     "      invert_filter: Invert the filter regex"
     "\n"
     "      histogram_buckets: Histogram bucket display mode; One of (cumulative, summary)"
     "\n",
     false, kb_admin_stats_prometheus},
    {"/stats/recentlookups", "Show recent stat-name lookups", "", false, kb_admin_recentlookups},
    {"/stats/recentlookups/clear", "clear list of stat-name lookups and counter", "", true,
     kb_admin_recentlookups_clear},
    {"/stats/recentlookups/disable", "disable recording of reset stat-name lookup names", "", true,
     kb_admin_recentlookups_disable},
    {"/stats/recentlookups/enable", "enable recording of reset stat-name lookup names", "", true,
     kb_admin_recentlookups_enable},
};

const size_t kb_admin_page_count = KB_ARRAY_LEN(kb_admin_pages);
