/* SPDX-License-Identifier: Apache-2.0 */
/* The types of resources that a control plane sends: URL, message, where the name stands, and the
 * methods of their own services. https://www.envoyproxy.io/docs/envoy/v1.40/api-docs/xds_protocol
 */
#pragma once

#include "proto/pb.h"

/* In the order of dependence: what comes first is asked for first when all else is equal. */
enum kb_xds_type {
    KB_XDS_CLUSTER,
    KB_XDS_CLUSTER_LOAD_ASSIGNMENT,
    KB_XDS_LISTENER,
    KB_XDS_ROUTE_CONFIGURATION,
    KB_XDS_SECRET,
    KB_XDS_EXTENSION_CONFIG,
    KB_XDS_TYPE_COUNT
};

struct kb_xds_type_info {
    const char *short_name; /* "CDS" */
    const char *url;        /* "type.googleapis.com/envoy.config.cluster.v3.Cluster" */
    const ProtobufCMessageDescriptor *message;
    const char *name_field; /* "name" */
    const char
        *sotw_method; /* "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters" */
    const char *delta_method;
};

extern const struct kb_xds_type_info kb_xds_types[KB_XDS_TYPE_COUNT];

#define KB_XDS_ADS_SOTW_METHOD \
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
#define KB_XDS_ADS_DELTA_METHOD \
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

/* KB_XDS_TYPE_COUNT when it is none of these. */
enum kb_xds_type kb_xds_type_by_url(const char *url);

/* The resource's own name (borrowed); empty when it has none. */
struct kb_str kb_xds_resource_name(enum kb_xds_type type, const ProtobufCMessage *message);
