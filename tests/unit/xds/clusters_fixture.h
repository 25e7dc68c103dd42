/* SPDX-License-Identifier: Apache-2.0 */
/* Somebody who wants all clusters, and three who may want endpoints. */
#pragma once

#include "tests/unit/xds/xds_fixture.h"

static struct listener clusters, endpoints[3];

static int clusters_setup(bool delta)
{
    plane_init(delta, 0);
    memset(&clusters, 0, sizeof(clusters));
    memset(endpoints, 0, sizeof(endpoints));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    listener_end(&clusters);
    for (size_t i = 0; i < KB_ARRAY_LEN(endpoints); i++) {
        listener_end(&endpoints[i]);
    }
    plane_dispose();
    return 0;
}

static void clusters_begin(void)
{
    kb_xds_mux_start(plane.mux);
    listen_for(&clusters, KB_XDS_CLUSTER, "");
    assert_said("CDS node\n");
}

/* As the cluster manager does it: endpoints are asked for while EDS is paused. */
static void want_c1(struct listener *listener)
{
    (void)listener;
    kb_xds_mux_pause(plane.mux, KB_XDS_CLUSTER_LOAD_ASSIGNMENT);
    listen_for(&endpoints[0], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    assert_said("");
    kb_xds_mux_resume(plane.mux, KB_XDS_CLUSTER_LOAD_ASSIGNMENT);
}
