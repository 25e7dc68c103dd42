/* SPDX-License-Identifier: Apache-2.0 */
/* The table of resource types. */
#include "xds/xds_type.h"

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/config/endpoint/v3/endpoint.pb-c.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "envoy/config/route/v3/route.pb-c.h"
#include "envoy/extensions/transport_sockets/tls/v3/secret.pb-c.h"
#include "proto/reflect.h"

#define TYPE_URL(name) "type.googleapis.com/" name
#define METHODS(service, type, verbs)                   \
    "/envoy.service." service "." type "/Stream" verbs, \
        "/envoy.service." service "." type "/Delta" verbs

const struct kb_xds_type_info kb_xds_types[KB_XDS_TYPE_COUNT] = {
    [KB_XDS_CLUSTER] = {"CDS", TYPE_URL("envoy.config.cluster.v3.Cluster"),
                        &envoy__config__cluster__v3__cluster__descriptor, "name",
                        METHODS("cluster.v3", "ClusterDiscoveryService", "Clusters")},
    [KB_XDS_CLUSTER_LOAD_ASSIGNMENT] =
        {"EDS", TYPE_URL("envoy.config.endpoint.v3.ClusterLoadAssignment"),
         &envoy__config__endpoint__v3__cluster_load_assignment__descriptor, "cluster_name",
         METHODS("endpoint.v3", "EndpointDiscoveryService", "Endpoints")},
    [KB_XDS_LISTENER] = {"LDS", TYPE_URL("envoy.config.listener.v3.Listener"),
                         &envoy__config__listener__v3__listener__descriptor, "name",
                         METHODS("listener.v3", "ListenerDiscoveryService", "Listeners")},
    [KB_XDS_ROUTE_CONFIGURATION] = {"RDS", TYPE_URL("envoy.config.route.v3.RouteConfiguration"),
                                    &envoy__config__route__v3__route_configuration__descriptor,
                                    "name", METHODS("route.v3", "RouteDiscoveryService", "Routes")},
    [KB_XDS_SECRET] = {"SDS", TYPE_URL("envoy.extensions.transport_sockets.tls.v3.Secret"),
                       &envoy__extensions__transport_sockets__tls__v3__secret__descriptor, "name",
                       METHODS("secret.v3", "SecretDiscoveryService", "Secrets")},
    [KB_XDS_EXTENSION_CONFIG] = {"ECDS", TYPE_URL("envoy.config.core.v3.TypedExtensionConfig"),
                                 &envoy__config__core__v3__typed_extension_config__descriptor,
                                 "name",
                                 METHODS("extension.v3", "ExtensionConfigDiscoveryService",
                                         "ExtensionConfigs")},
};

enum kb_xds_type kb_xds_type_by_url(const char *url)
{
    unsigned type = 0;

    while (type < KB_XDS_TYPE_COUNT && strcmp(kb_xds_types[type].url, url) != 0) {
        type++;
    }
    return (enum kb_xds_type)type;
}

struct kb_str kb_xds_resource_name(enum kb_xds_type type, const ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *field =
        kb_pb_field_find(message->descriptor, kb_str_from_cstr(kb_xds_types[type].name_field));

    return kb_str_from_cstr(*(char *const *)kb_reflect_member(message, field));
}
