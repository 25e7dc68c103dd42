# SPDX-License-Identifier: Apache-2.0
"""The aggregated discovery service of one pod, incremental and state of the world.

A change is told in an order in which no request can fail: new clusters, their endpoints, listeners, routes, and only
then what clusters are gone; each step waits a little for the proxy's answer to the one before."""

import asyncio
from hashlib import sha256

from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from .resources import CDS, EDS, LDS, ORDER, RDS, SHORT

WILDCARD = (CDS, LDS)
PATIENCE = 3.0  # seconds for an answer, before the next step is told all the same


class Watch:
    """What a stream wants of one type, and what it was sent."""

    def __init__(self):
        self.wildcard = False
        self.names = set()
        self.sent = {}  # name: version
        self.nonce = ""
        self.answered = True

    def wanted(self, state):
        return state if self.wildcard else {name: state[name] for name in self.names if name in state}


class Stream:
    """One stream of a proxy. `service` has the snapshot, and hears of refusals."""

    def __init__(self, service, order=ORDER):
        self.service, self.order = service, order
        self.state = {kind: dict(service.snapshot.get(kind, {})) for kind in order}
        self.sent, self.told = 0, None  # generations: all of it is sent, all of it is answered
        self.watches = {}
        self.out = asyncio.Queue()
        self.wake, self.heard = asyncio.Event(), asyncio.Event()
        self.nonces = 0
        if service.snapshot:
            self.wake.set()

    async def run(self, requests):
        """The responses, until the proxy ends the stream or `out` gets None."""
        if not self.service.snapshot:  # nothing known yet is not the same as nothing there
            await self.service.begun.wait()
            self.state = {kind: dict(self.service.snapshot.get(kind, {})) for kind in self.order}
            self.wake.set()
        tasks = [asyncio.create_task(self._read(requests)), asyncio.create_task(self._follow())]
        self.service.streams.add(self)
        self.service.changed()
        try:
            while (response := await self.out.get()) is not None:
                yield response
        finally:
            self.service.streams.discard(self)
            self.service.changed()
            for task in tasks:
                task.cancel()

    async def _read(self, requests):
        try:
            async for request in requests:
                if request.type_url in self.order:
                    self._hear(request)
                    self._settle()
                self.heard.set()
        finally:
            self.out.put_nowait(None)

    def _answer(self, watch, request):
        """True when the request answers the last response of its type."""
        if not request.response_nonce or request.response_nonce != watch.nonce:
            return False
        watch.answered = True
        if request.HasField("error_detail"):
            self.service.refused(request.type_url, request.error_detail.message)
        return True

    def _nonce(self, watch):
        self.nonces += 1
        watch.nonce, watch.answered = f"{self.service.generation}/{self.nonces}", False
        return watch.nonce

    # --- telling of a change ---

    async def _follow(self):
        while True:
            await self.wake.wait()
            self.wake.clear()
            generation, snapshot = self.service.generation, self.service.snapshot
            await self._change(snapshot)
            self.sent = generation
            self._settle()

    def _settle(self):
        """A proxy that has asked for the last type of all that stand alone, and has answered everything, is told."""
        if self.told != self.sent and (LDS in self.watches or LDS not in self.order) \
                and all(watch.answered for watch in self.watches.values()):
            self.told = self.sent
            self.service.changed()

    async def _change(self, new):
        old = self.state
        if CDS not in self.order:  # secrets stand alone
            self.state = new
            await self._tell(*self.order)
            return
        union = {kind: {**old.get(kind, {}), **new[kind]} for kind in self.order}
        self.state = {**union, LDS: old.get(LDS, {}), RDS: old.get(RDS, {})}
        # A proxy answers for clusters when they are warm, and for that it waits for their endpoints.
        await self._tell(CDS, EDS)
        self.state = {**union, LDS: new[LDS]}
        await self._tell(LDS)
        await self._tell(RDS)
        self.state = {kind: dict(new[kind]) for kind in self.order}
        await self._tell(CDS)
        for kind in (EDS, RDS):  # their parents are gone, the proxy drops them by itself
            watch = self.watches.get(kind)
            for name in [n for n in watch.sent if n not in self.state[kind]] if watch else []:
                del watch.sent[name]

    def _forget(self, names):
        """Of clusters that are told anew: their endpoints are told again then, though they are the same. A changed
        cluster waits for them."""
        watch = self.watches.get(EDS)
        for name in names if watch else ():
            watch.sent.pop(name, None)

    async def _tell(self, *kinds):
        """Sends what changed, then waits for the answers."""
        watches = [self.watches[kind] for kind in kinds if kind in self.watches]
        await self._until(lambda: all(watch.answered for watch in watches), PATIENCE)
        for kind in kinds:
            if kind in self.watches:
                self._send(kind, self.watches[kind])
        await self._until(lambda: all(watch.answered for watch in watches), PATIENCE)

    async def _until(self, test, seconds):
        end = asyncio.get_running_loop().time() + seconds
        while not test():
            self.heard.clear()
            left = end - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self.heard.wait(), left)
            except asyncio.TimeoutError:
                return


class DeltaStream(Stream):
    def _hear(self, request):
        first = request.type_url not in self.watches
        watch = self.watches.setdefault(request.type_url, Watch())
        if first:
            # A cluster that changed meanwhile waits for its endpoints: those are told in any case.
            watch.sent = {name: "" if request.type_url == EDS else version
                          for name, version in request.initial_resource_versions.items()}
            # Nothing named in the first request means everything.
            watch.wildcard = request.type_url in WILDCARD and not request.resource_names_subscribe
        self._answer(watch, request)
        added = set(request.resource_names_subscribe)
        if "*" in added:
            added.discard("*")
            watch.wildcard, first = True, True
        watch.names |= added
        for name in request.resource_names_unsubscribe:
            if name == "*":
                watch.wildcard = False
            watch.names.discard(name)
            if not watch.wildcard:
                watch.sent.pop(name, None)
        if first:
            self._send(request.type_url, watch, missing=added, always=True)
        elif added:  # asked again, told again
            for name in added:
                watch.sent.pop(name, None)
            self._send(request.type_url, watch, missing=added, only=added, always=True)

    def _send(self, kind, watch, missing=(), only=None, always=False):
        """Tells what changed since it was last told; `missing`: names that are asked for just now."""
        state = self.state[kind]
        wanted = watch.wanted(state)
        rows = [row for name, row in wanted.items()
                if watch.sent.get(name) != row.version and (only is None or name in only)]
        gone = {name for name in missing if name not in state}
        if only is None and (kind in WILDCARD or always):
            gone |= {name for name in watch.sent if name not in wanted}
        if not (rows or gone or always):
            return False
        for name in gone:
            watch.sent.pop(name, None)
        if kind == CDS:
            self._forget([row.name for row in rows if row.name in watch.sent])
        response = discovery_pb2.DeltaDiscoveryResponse(
            type_url=kind, system_version_info=str(self.service.generation), nonce=self._nonce(watch),
            removed_resources=sorted(gone))
        for row in rows:
            watch.sent[row.name] = row.version
            response.resources.add(name=row.name, version=row.version, resource=row.body)
        self.out.put_nowait(response)
        return True


class SotwStream(Stream):
    def _hear(self, request):
        first = request.type_url not in self.watches
        watch = self.watches.setdefault(request.type_url, Watch())
        if not first and not self._answer(watch, request):
            return  # about a response that is out of date
        names = set(request.resource_names)
        if first:
            watch.wildcard = request.type_url in WILDCARD and not names - {"*"}
        grown = names - watch.names
        watch.names = names
        if first or (grown and not watch.wildcard):
            self._send(request.type_url, watch, always=True)

    def _send(self, kind, watch, always=False):
        """Tells everything, if something of it changed."""
        wanted = watch.wanted(self.state[kind])
        versions = {name: row.version for name, row in wanted.items()}
        # A type that is asked for by name is not told that something is gone, as the protocol has it.
        same = versions == watch.sent if kind in WILDCARD else versions.items() <= watch.sent.items()
        if same and not always:
            return False
        if kind == CDS:
            self._forget([name for name, version in versions.items() if watch.sent.get(name, version) != version])
        watch.sent = versions
        self.out.put_nowait(discovery_pb2.DiscoveryResponse(
            type_url=kind, version_info=_version(versions), nonce=self._nonce(watch),
            resources=[wanted[name].body for name in sorted(wanted)]))
        return True


def _version(versions):
    """Short, and the same for the same content."""
    return sha256(repr(sorted(versions.items())).encode()).hexdigest()[:16]


class Service:
    """What the streams of a pod share: the present snapshot and who hears of refusals."""

    def __init__(self, on_refused=lambda kind, message: None, on_change=lambda: None):
        self.snapshot, self.generation, self.streams, self.begun = {}, 0, set(), asyncio.Event()
        self.on_refused, self.changed = on_refused, on_change

    def refused(self, kind, message):
        self.on_refused(SHORT.get(kind, "SDS"), message)

    def update(self, snapshot, generation):
        self.snapshot, self.generation = snapshot, generation
        self.begun.set()
        for stream in self.streams:
            stream.wake.set()

    def told(self):
        """The generation that every stream has answered; None without a stream."""
        return min((stream.told or 0 for stream in self.streams), default=None)


class Ads(Service, ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    async def DeltaAggregatedResources(self, requests, context):  # noqa: N802 (gRPC's name)
        async for response in DeltaStream(self).run(requests):
            yield response

    async def StreamAggregatedResources(self, requests, context):  # noqa: N802
        async for response in SotwStream(self).run(requests):
            yield response
