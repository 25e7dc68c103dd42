/* SPDX-License-Identifier: Apache-2.0 */
/* Who wants which resources of one type, and what is known of each name: the ground on which the
 * state-of-the-world and the incremental machine stand (Envoy WatchMap). Pure; main thread. */
#pragma once

#include "base/diag.h"
#include "base/list.h"
#include "base/map.h"
#include "xds/xds_push.h"

/* One resource of a response; borrowed for the call. */
struct kb_xds_resource {
    struct kb_str name; /* by which it was asked for */
    struct kb_str version;
    const ProtobufCMessage *message; /* of the type's message, its constraints checked; NULL: a
                                        heartbeat among others, it is as it was (only for watches
                                        of all) */
    uint64_t ttl_ms;                 /* 0: it stays */
};

/* One response, as one watch sees it. */
struct kb_xds_update {
    const struct kb_xds_resource *resources; /* added or changed; state of the world: all */
    size_t resource_count;
    const struct kb_str *removed; /* incremental, and those whose time to live is over */
    size_t removed_count;
    struct kb_str version; /* of the response */
    bool state_of_the_world;
};

/* What a response has of one name. */
struct kb_xds_part {
    struct kb_str name;
    struct kb_str bytes; /* p NULL: it is gone */
    uint64_t content;    /* the hash of `bytes`; kb_xds_watches_compare fills it in */
};

enum kb_xds_failure {
    KB_XDS_FAILURE_CONNECTION, /* the stream ended or could not be opened; it is tried again */
    KB_XDS_FAILURE_REJECTED,   /* a response of the type was refused, by whomever */
    KB_XDS_FAILURE_UNREADABLE, /* a file cannot be read, or is no response */
};

struct kb_xds_watch_callbacks {
    /* Takes what is good and reports what is not to diag: any error makes a NACK with its text. May
     * add and destroy watches, this one too. */
    void (*on_update)(void *arg, const struct kb_xds_update *update, struct kb_diag *diag);
    void (*on_failure)(void *arg, enum kb_xds_failure failure);
};

/* One name that is asked for or held. */
struct kb_xds_name {
    struct kb_str name; /* behind the struct */
    struct kb_list watches;
    struct kb_list change; /* in kb_xds_watches.changes: asked for or given up since the last
                              request */
    char *version;         /* accepted, shared; NULL: waiting for the server, or given up */
    uint64_t expires_ms;   /* 0: never */
    uint64_t content;      /* hash of what was accepted last; 0: nothing */
    uint32_t mark;
    bool requested; /* there is a watch */
};

struct kb_xds_watches {
    KB_OBJ;
    enum kb_xds_type type;
    struct kb_map names;
    struct kb_list watches;   /* newest first */
    struct kb_list wildcards; /* those without a name */
    struct kb_list changes;
    bool track_changes;  /* a request was sent on this stream: later ones say what changed */
    uint64_t expires_ms; /* the next of all names; UINT64_MAX: none */
    uint32_t mark;
    char *version; /* the latest that a name was given; NULL: none yet */
};
KB_OBJ_MAGIC(kb_xds_watches, 0x58575354);

struct kb_xds_watch {
    KB_OBJ;
    struct kb_list link;
    struct kb_list name_link;       /* in its name, or in wildcards */
    struct kb_xds_watches *watches; /* NULL: destroyed while an update is under way */
    struct kb_xds_name *name;       /* NULL: all of the type */
    const struct kb_xds_watch_callbacks *callbacks;
    void *arg;
    uint32_t holds; /* deliveries under way that know it */
};
KB_OBJ_MAGIC(kb_xds_watch, 0x58574154);

/* Nobody wants anything; on caller's storage. */
void kb_xds_watches_init(struct kb_xds_watches *watches, enum kb_xds_type type);
/* Every watch must have been removed. */
void kb_xds_watches_dispose(struct kb_xds_watches *watches);

/* Adds a watch of one name (copied), or of all with an empty name. Says nothing to anybody. */
struct kb_xds_watch *kb_xds_watches_add(struct kb_xds_watches *watches, struct kb_str name,
                                        const struct kb_xds_watch_callbacks *callbacks, void *arg);
/* No callback comes any more. */
void kb_xds_watches_remove(struct kb_xds_watch *watch);

/* The entry of a name, or NULL. */
struct kb_xds_name *kb_xds_watches_find(const struct kb_xds_watches *watches, struct kb_str name);
/* Notes the version that was accepted, and when it expires (0: never). A name that nobody asked for
 * is kept when there is a watch of all. */
void kb_xds_watches_hold(struct kb_xds_watches *watches, const struct kb_xds_resource *resource,
                         uint64_t now_ms);
/* The server said that it is gone. */
void kb_xds_watches_forget(struct kb_xds_watches *watches, struct kb_str name);
/* What the parts of a response do, for the log of pushes; NULL when `log` is. `all`: a name that is
 * not among them is gone. Before the response is delivered. */
struct kb_xds_push *kb_xds_watches_compare(struct kb_xds_watches *watches,
                                           const struct kb_xds_push_log *log, const char *way,
                                           struct kb_xds_part *parts, size_t count, bool all);
/* The same parts were accepted: the next response is compared with them. */
void kb_xds_watches_accept(struct kb_xds_watches *watches, const struct kb_xds_part *parts,
                           size_t count, bool all);
/* Empties `changes`, after they were said. */
void kb_xds_watches_changes_clear(struct kb_xds_watches *watches);

/* Hands an update to those who want it, and collects in diag what they refuse. */
void kb_xds_watches_deliver(struct kb_xds_watches *watches, const struct kb_xds_update *update,
                            struct kb_diag *diag);
/* Tells every watch. */
void kb_xds_watches_fail(struct kb_xds_watches *watches, enum kb_xds_failure failure);
/* Removes what is expired at `now_ms`, and delivers its removal. */
void kb_xds_watches_expire(struct kb_xds_watches *watches, uint64_t now_ms);
