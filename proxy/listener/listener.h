/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners. Three things with three lives: a struct kb_listener is one version of a configuration,
 * immutable, shared by the workers; a struct kb_active_listener is what the workers run, which an
 * update of filter chains leaves in place; its listening sockets outlive even that, when a changed
 * listener keeps its address. For this room and the server. */
#pragma once

#include "base/init_manager.h"
#include "base/list.h"
#include "base/slot.h"
#include "base/vec.h"
#include "proxy/api/access_logger.h"
#include "proxy/api/drain.h"
#include "proxy/api/listener_filter.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/stats.h"
#include "proxy/api/transport_socket.h"

struct Envoy__Config__Listener__V3__Listener;
struct Envoy__Config__Listener__V3__FilterChain;
struct Envoy__Config__Listener__V3__ListenerFilter;
struct Envoy__Config__Listener__V3__ListenerFilterChainMatchPredicate;

/* ---- filter chains: filter_chain.c ---- */

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
    struct kb_str *server_names; /* in lower case; "*.example.com" as ".example.com" */
    size_t server_name_count;
    struct kb_str transport_protocol;
    struct kb_str *application_protocols;
    size_t application_protocol_count;
    struct kb_cidr *direct_source_ranges;
    size_t direct_source_range_count;
    uint8_t source_type; /* 0 any, 1 same ip or loopback, 2 external */
    struct kb_cidr *source_ranges;
    size_t source_range_count;
    uint32_t *source_ports;
    size_t source_port_count;
};

/* Held by the listeners that have it (on the main thread) and by connections (on their worker). */
struct kb_filter_chain {
    struct kb_shared shared;
    struct kb_server_context *server;
    struct kb_arena arena;
    struct kb_str name;
    struct kb_filter_chain_match match;
    struct kb_network_filter_entry *filters; /* the last is terminal */
    size_t filter_count;
    struct kb_transport_socket_factory transport_socket;
    uint64_t transport_socket_connect_timeout_ms; /* 0: none */
    struct kb_drain_state drain;
    uint64_t hash; /* of its message: chains with the same are the same */
    bool purge;    /* its connections have to go; atomic */
};

/* What a chain takes from its listener while it is built. */
struct kb_filter_chain_build {
    struct kb_server_context *server;
    struct kb_init_manager *init;
    struct kb_str stat_prefix; /* "listener.127.0.0.1_80." */
    struct kb_str listener_name;
    struct kb_str address; /* as text, for errors */
    bool inbound, outbound;
    bool drain_modify_only;
    bool bypass_overload;
    struct kb_diag *diag;
};

/* Never NULL; what is wrong is in build->diag. The main thread holds it once. */
struct kb_filter_chain *
kb_filter_chain_create(const struct kb_filter_chain_build *build,
                       const struct Envoy__Config__Listener__V3__FilterChain *message);
/* An empty one, for kb_listener_create_admin. */
struct kb_filter_chain *kb_filter_chain_new(struct kb_server_context *server);
/* From now on its connections are asked to close; main thread. Harmless when it drains already. */
void kb_filter_chain_drain(struct kb_filter_chain *chain);

/* ---- listener filters: listener_filters.c ---- */

struct kb_listener_filter_predicate;

struct kb_listener_filter_entry {
    const struct kb_listener_filter_ops *ops;
    void *config;
    const struct kb_listener_filter_predicate *disabled; /* NULL: never */
    size_t state_at;                                     /* in the memory of a connection */
};

/* Downstream connections that are open, without those of the admin port. Any thread; what was true
 * a moment ago. */
uint64_t kb_listener_connections_total(const struct kb_server_context *server);

/* ---- one version of a listener: listener.c ---- */

struct kb_listener_address {
    struct kb_addr addr;
    uint32_t unix_mode;
    bool ipv4_compat;
};

enum kb_sock_state { KB_SOCK_PREBIND, KB_SOCK_BOUND, KB_SOCK_LISTENING };

/* One of socket_options. */
struct kb_listener_sock_option {
    int level;
    int name;
    struct kb_str value;      /* as setsockopt takes it */
    enum kb_sock_state state; /* when it is set */
};

struct kb_listener {
    struct kb_shared shared; /* held by the manager and by the workers that run it */
    struct kb_server_context *server;
    struct kb_arena arena;
    struct kb_str name;
    struct kb_str metadata; /* packed; may be empty */
    struct kb_str version;  /* of the control plane's resource; empty: static */
    struct kb_listener_address *addrs;
    size_t addr_count;
    struct kb_str stat_prefix; /* "listener.127.0.0.1_80." */
    struct kb_stat_group *stats;
    struct kb_stat_group **worker_stats; /* per worker */
    struct kb_filter_chain **chains;     /* by destination port; see filter_chain_match.c */
    size_t chain_count;
    struct kb_filter_chain *default_chain;
    struct kb_listener_filter_entry *filters;
    size_t filter_count;
    size_t filter_state_size;
    size_t filter_max_bytes;
    uint64_t filters_timeout_ms;           /* 0: none */
    struct kb_access_log_list *access_log; /* NULL: none */
    struct kb_str connection_limit_key;    /* of the runtime */
    struct kb_init_manager init;           /* what it waits for before it is used */
    struct kb_init_target startup;         /* in the server's init manager */
    uint64_t hash;                         /* of its message */
    uint64_t hash_without_chains;
    uint64_t hash_of_sockets; /* of what is set on the listening sockets */
    uint32_t buffer_limit;
    uint32_t accepts_per_event;
    uint32_t fast_open_queue_length;
    int backlog;
    struct kb_listener_sock_option *socket_options;
    size_t socket_option_count;
    struct {
        bool set;
        uint32_t probes, time_s, interval_s;
    } keepalive;
    bool continue_on_filters_timeout;
    bool reuse_port;
    bool transparent;
    bool freebind;
    bool bind_to_port;
    bool use_original_dst;
    bool exact_balance;
    bool ignore_global_limit;
    bool bypass_overload; /* bypass_overload_manager */
    bool inbound;         /* traffic_direction INBOUND */
    bool outbound;
    bool drain_modify_only; /* drain_type MODIFY_ONLY */
    bool admin;             /* on the main thread only */
    bool dynamic;           /* a control plane's: may be updated and removed */
    uint64_t updated_wall_ns;
    struct kb_str message; /* packed, for /config_dump; empty for the admin listener */
};

/* Builds from the message; NULL only after an error was reported. The main thread holds it once.
 * `chains_of` (may be NULL) is the present version: chains that are the same are taken from it. */
struct kb_listener *kb_listener_create(struct kb_server_context *server,
                                       const struct Envoy__Config__Listener__V3__Listener *message,
                                       const struct kb_listener *chains_of, struct kb_diag *diag);
/* A listener of the main thread with one chain of one filter whose configuration it takes over (the
 * admin port). */
struct kb_listener *kb_listener_create_admin(struct kb_server_context *server,
                                             const struct kb_addr *addr,
                                             const struct kb_network_filter_ops *ops, void *config);
/* Two versions with the same differ in filter chains only. */
uint64_t
kb_listener_hash_without_chains(const struct Envoy__Config__Listener__V3__Listener *message);
/* Builds the listener filters into `listener`; errors go to diag. */
void kb_listener_filters_create(struct kb_listener *listener,
                                const struct Envoy__Config__Listener__V3__Listener *message,
                                struct kb_diag *diag);
void kb_listener_filters_destroy(struct kb_listener *listener);
/* Whether a filter is out of use for this connection (filter_disabled). */
bool kb_listener_filter_disabled(const struct kb_listener_filter_entry *entry,
                                 const struct kb_connection_info *info);
/* Gives up the main thread's hold. NULL is allowed. */
void kb_listener_unref(struct kb_listener *listener);
/* The same for one that was never used: what it asked for is given up at once. Not from what it
 * asked for. */
void kb_listener_discard(struct kb_listener *listener);
/* Listeners and chains whose memory is not given back yet; for the end of the process. */
uint32_t kb_listener_objects_alive(void);

/* ---- filter_chain_match.c ---- */

/* Puts the chains in order for kb_filter_chain_find. Chains that no connection could tell apart are
 * reported with Envoy's text. */
void kb_filter_chains_index(struct kb_listener *listener,
                            const struct Envoy__Config__Listener__V3__Listener *message,
                            struct kb_diag *diag);
/* The chain for a connection, the default one, or NULL. `sniffed` may be NULL. */
struct kb_filter_chain *kb_filter_chain_find(const struct kb_listener *listener,
                                             const struct kb_connection_info *info,
                                             const struct kb_sniffed *sniffed);

/* ---- listening sockets: listen_sockets.c ---- */

struct kb_listener_worker;

/* One socket of one worker. */
struct kb_listen_socket {
    KB_OBJ;
    struct kb_io io;
    struct kb_listen_sockets *set;
    struct kb_listener_worker *lw; /* who gets what is accepted; NULL: not watched */
    struct kb_addr bound;
    struct kb_timer pause; /* after running out of descriptors */
    bool paused;           /* since then nothing could be accepted */
    int fd;                /* made by the main thread, not yet watched; -1: watched or closed */
};
KB_OBJ_MAGIC(kb_listen_socket, 0x4c534f43);

/* All sockets of a listener, address by address, worker by worker. */
struct kb_listen_sockets {
    struct kb_server_context *server;
    uint32_t refs;    /* main thread: active listeners */
    uint32_t holders; /* atomic: workers that have not closed theirs, and the main thread */
    uint32_t worker_count;
    size_t addr_count;
    struct kb_addr *bound; /* with the ports that the system chose */
    struct kb_listener_address *addrs;
    uint64_t *inodes; /* of the paths of unix addresses; 0: none */
    int *kept;        /* by address: one more descriptor of the socket that all workers share, for
                         a listener that comes while they close theirs; -1: each has its own */
    struct kb_list closing; /* in the list of those that nobody uses any more */
    uint64_t hash_of_options;
    bool listening;
    bool served;                       /* workers were told to watch them */
    struct kb_listen_socket sockets[]; /* [address * worker_count + worker] */
};

/* Binds for every address and worker; NULL with errno, *what naming the call that failed and *addr
 * where. */
struct kb_listen_sockets *kb_listen_sockets_create(const struct kb_listener *listener,
                                                   const char **what, const struct kb_addr **addr);
/* From now on the kernel takes connections; KB_EADDRINUSE: errno and *what say why not. Harmless
 * when repeated. */
int kb_listen_sockets_listen(struct kb_listen_sockets *sockets, const struct kb_listener *listener,
                             const char **what) KB_MUST_USE;
/* Whether a listener can go on with them. */
bool kb_listen_sockets_fit(const struct kb_listen_sockets *sockets,
                           const struct kb_listener *listener);
struct kb_listen_sockets *kb_listen_sockets_ref(struct kb_listen_sockets *sockets);
/* The last one closes; on the workers, when those are `running` and have them. */
void kb_listen_sockets_unref(struct kb_listen_sockets *sockets, bool running);
/* On the worker: from now on this part of the listener gets the connections. */
void kb_listen_sockets_serve(struct kb_listen_sockets *sockets, struct kb_listener_worker *lw);
/* On the worker: nobody gets them; closes those of this worker. */
void kb_listen_sockets_close_worker(struct kb_listen_sockets *sockets, uint32_t index);

/* ---- what runs: active_listener.c ---- */

/* One worker's part. Written by its worker only. */
struct kb_listener_worker {
    KB_OBJ;
    struct kb_active_listener *active;
    struct kb_listener *listener; /* the present version; held; NULL: not begun, or let go */
    struct kb_worker *worker;
    struct kb_stat_block *stats;
    struct kb_stat_block *worker_stats;
    struct kb_list connections;
    struct kb_list sockets;    /* whose listener filters still run */
    uint32_t connection_count; /* both; other workers read it when they balance */
    uint32_t balanced_count;   /* atomic: picked for this worker, and not counted yet */
    bool accepting;
    bool ending; /* lets go when the last connection has */
};
KB_OBJ_MAGIC(kb_listener_worker, 0x4c575252);

struct kb_active_listener {
    KB_OBJ;
    struct kb_server_context *server;
    struct kb_listener *listener;      /* what the main thread thinks of; held */
    struct kb_listen_sockets *sockets; /* NULL: bind_to_port is false, or closed */
    struct kb_addr *bound;
    size_t bound_count;
    struct kb_str *keys; /* of the addresses, for the workers' tables */
    struct kb_arena arena;
    struct kb_str name; /* connections show it; lives as long as this */
    struct kb_str metadata;
    pthread_mutex_t balance;  /* exact_balance: whoever picks a worker */
    uint32_t workers_holding; /* atomic: workers that have not let go */
    void (*released)(void *arg, struct kb_active_listener *active); /* main thread; may be NULL */
    void *arg;
    struct kb_list link; /* the manager's */
    struct kb_timer drain_timer;
    bool started; /* workers were told */
    bool stopped; /* accepts no more */
    bool draining;
    uint32_t worker_count;
    struct kb_listener_worker workers[];
};
KB_OBJ_MAGIC(kb_active_listener, 0x41434c53);

/* Takes over the holds of `listener` and `sockets` (NULL: none). Main thread. */
struct kb_active_listener *kb_active_listener_create(struct kb_listener *listener,
                                                     struct kb_listen_sockets *sockets);
/* When no worker has anything of it. */
void kb_active_listener_destroy(struct kb_active_listener *active);
/* The workers begin to accept. Main thread; posts. */
void kb_active_listener_start(struct kb_active_listener *active);
/* Another version with other filter chains goes on where this one is. Takes over the hold. Main
 * thread; posts. */
void kb_active_listener_replace(struct kb_active_listener *active, struct kb_listener *listener);
/* Accepts no more; `keep_sockets`: another listener goes on with them. Main thread; posts. */
void kb_active_listener_stop(struct kb_active_listener *active, bool keep_sockets);
/* Closes what is open; `released` is called when all workers have let go. Main thread; posts. */
void kb_active_listener_end(struct kb_active_listener *active,
                            void (*released)(void *arg, struct kb_active_listener *active),
                            void *arg);
/* Closes the connections of chains that are marked `purge`, then calls done(arg) on the main
 * thread, once for each worker. Main thread; posts. */
void kb_active_listener_purge(struct kb_active_listener *active, void (*done)(void *arg),
                              void *arg);
/* On the worker, when its loop ends: closes everything. */
void kb_listener_worker_close(struct kb_listener_worker *lw);
/* The listener of this worker that has the address: exactly, or by its port; NULL: none. On the
 * worker. */
struct kb_listener_worker *kb_listener_worker_find(struct kb_worker *worker,
                                                   const struct kb_addr *addr);

/* ---- on the worker: active_tcp_listener.c, active_tcp_socket.c, active_tcp_connection.c ---- */

/* A connection was accepted: limits, balance, then listener filters. Owns fd. */
void kb_listener_accepted(struct kb_listener_worker *lw, int fd, const struct kb_addr *remote,
                          const struct kb_addr *bound);
/* Runs the listener filters of an accepted connection, then makes the connection. */
void kb_active_socket_begin(struct kb_listener_worker *lw, struct kb_conn *conn, bool hand_off);
void kb_active_sockets_close(struct kb_listener_worker *lw);
/* Chooses the filter chain and begins. */
void kb_active_connection_begin(struct kb_listener_worker *lw, struct kb_conn *conn);
/* Closes the connections of this part: all, or those of purged chains. */
void kb_active_connections_close(struct kb_listener_worker *lw, bool purged_only);
/* Writes the listener's access log for a connection that has no chain, or that has ended; `details`
 * p NULL: none; `flags`: 1 << KB_RF_... */
void kb_listener_log(struct kb_listener_worker *lw, const struct kb_conn *conn, uint32_t flags,
                     struct kb_str details);
/* A connection or socket of it is gone: lets go when it was the last and it ends. */
void kb_listener_worker_forget(struct kb_listener_worker *lw);
