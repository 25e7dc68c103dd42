# SPDX-License-Identifier: Apache-2.0
"""The secrets of one pod, state of the world, as the agent of a sidecar serves them at its socket."""

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.secret.v3 import sds_pb2_grpc
from google.protobuf import any_pb2

from .ads import Service, SotwStream
from .resources import Resource
from .shapes import PREFIX

SECRET = PREFIX + secret_pb2.Secret.DESCRIPTOR.full_name


def snapshot(certificate, root):
    """The secrets `default` and `ROOTCA`."""
    own = secret_pb2.Secret(name="default", tls_certificate={
        "certificate_chain": {"inline_bytes": certificate.chain}, "private_key": {"inline_bytes": certificate.key}})
    trusted = secret_pb2.Secret(name="ROOTCA", validation_context={"trusted_ca": {"inline_bytes": root}})
    made = {}
    for secret, version in ((own, certificate.serial), (trusted, "root")):
        body = any_pb2.Any()
        body.Pack(secret)
        made[secret.name] = Resource(secret.name, version, body)
    return {SECRET: made}


class Sds(Service, sds_pb2_grpc.SecretDiscoveryServiceServicer):
    async def StreamSecrets(self, requests, context):  # noqa: N802 (gRPC's name)
        async for response in SotwStream(self, order=(SECRET,)).run(requests):
            yield response
