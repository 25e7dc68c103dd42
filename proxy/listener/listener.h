/* SPDX-License-Identifier: Apache-2.0 */
/* A listener: address, filter chains and options, built once on the main thread; its sockets and
 * connections belong to the workers. For this room and the server. */
#pragma once

#include "base/list.h"
#include "base/vec.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/stats.h"

struct kb_network_filter_entry {
    const struct kb_network_filter_ops *ops;
    void *config;
    struct kb_str name;
};

/* What a connection must be like for a chain (Envoy FilterChainMatch); empty arrays match anything.
 */
struct kb_filter_chain_match {
    bool has_destination_port;
    uint16_t destination_port;
    struct kb_cidr *prefix_ranges;
    size_t prefix_range_count;
    struct kb_cidr *direct_source_ranges;
    size_t direct_source_range_count;
    struct kb_cidr *source_ranges;
    size_t source_range_count;
    uint32_t *source_ports;
    size_t source_port_count;
    uint8_t source_type;             /* 0 any, 1 same ip or loopback, 2 external */
    bool wants_server_name;          /* server_names: no plain connection has one */
    bool wants_application_protocol; /* likewise */
    struct kb_str transport_protocol;
};

struct kb_filter_chain {
    struct kb_str name;
    struct kb_filter_chain_match match;
    struct kb_network_filter_entry *filters; /* the last is terminal */
    size_t filter_count;
};

/* One worker's part. */
struct kb_listener_worker {
    KB_OBJ;
    struct kb_listener *listener;
    struct kb_worker *worker;
    struct kb_io io;              /* fd -1 when closed */
    int fd;                       /* made by the main thread, not yet watched */
    struct kb_timer accept_timer; /* pause after running out of descriptors */
    struct kb_stat_block *stats;
    struct kb_stat_block *worker_stats;
    struct kb_list connections;
    uint32_t connection_count;
    bool open;
};
KB_OBJ_MAGIC(kb_listener_worker, 0x4c575252);

struct kb_listener {
    KB_OBJ;
    struct kb_server_context *server;
    struct kb_arena arena;
    struct kb_str name;
    struct kb_str metadata;    /* packed; may be empty */
    struct kb_addr addr;       /* as configured */
    struct kb_addr bound;      /* with the port that the system chose */
    struct kb_str stat_prefix; /* "listener.127.0.0.1_80." */
    struct kb_stat_group *stats;
    struct kb_stat_group **worker_stats; /* per worker */
    struct kb_filter_chain *chains;
    size_t chain_count;
    struct kb_filter_chain *default_chain;
    uint32_t buffer_limit;
    uint32_t accepts_per_event;
    int backlog;
    uint32_t unix_mode;
    bool reuse_port;
    bool transparent;
    bool freebind;
    bool ipv4_compat;
    bool bind_to_port;
    bool inbound;           /* traffic_direction INBOUND */
    bool drain_modify_only; /* drain_type MODIFY_ONLY */
    bool admin;             /* on the main thread only */
    bool stopped;           /* accepts no more */
    uint64_t added_wall_ns;
    struct kb_str message; /* packed, for /config_dump; empty for the admin listener */
    struct kb_listener_worker *workers;
    uint32_t worker_count;
};
KB_OBJ_MAGIC(kb_listener, 0x4c535452);

struct Envoy__Config__Listener__V3__Listener;

/* Builds from the message; NULL only after an error was reported. */
struct kb_listener *kb_listener_create(struct kb_server_context *server,
                                       const struct Envoy__Config__Listener__V3__Listener *message,
                                       struct kb_diag *diag);
/* A listener of the main thread with one chain of one filter whose configuration it takes over (the
 * admin port). */
struct kb_listener *kb_listener_create_admin(struct kb_server_context *server,
                                             const struct kb_addr *addr,
                                             const struct kb_network_filter_ops *ops, void *config);
/* Makes the sockets; KB_EADDRINUSE and others, with *what naming the call that failed. */
int kb_listener_bind(struct kb_listener *listener, const char **what) KB_MUST_USE;
/* From now on the kernel takes connections; errno says why not. */
int kb_listener_listen(struct kb_listener *listener) KB_MUST_USE;
/* When no worker has a connection of it. */
void kb_listener_destroy(struct kb_listener *listener);

/* ---- active_tcp_listener.c; on the worker ---- */

/* Starts to accept. */
void kb_listener_worker_start(struct kb_listener_worker *lw);
/* Accepts no more; connections go on. */
void kb_listener_worker_stop(struct kb_listener_worker *lw);
/* Closes every connection now. */
void kb_listener_worker_close_all(struct kb_listener_worker *lw);
/* Tells the filters of every connection that the listener drains. */
void kb_listener_worker_drain(struct kb_listener_worker *lw);

/* ---- filter_chain_match.c ---- */

struct kb_filter_chain *kb_filter_chain_find(const struct kb_listener *listener,
                                             const struct kb_connection_info *info);
