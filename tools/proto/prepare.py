# SPDX-License-Identifier: Apache-2.0
"""Makes the C of the xDS messages from the official descriptors.

Run by meson when it configures: prepare.py --roots FILE --additions FILE --own FILE... --out DIR --chunks N. Takes the
descriptors of the installed xds-protos and protobuf packages and of the .proto files of our own, merges the additions in,
prunes them to the roots and what they hold, and leaves in DIR
  descriptors.pb   the pruned FileDescriptorSet
  c/...            what protoc's C generator makes of it
  chunk_N.c        translation units that include the generated sources (base names repeat, chunks do not)
  registry.inc     the messages, sorted by name
  rules.inc        their validate rules as tables
  fields.txt       every field, in order of its ordinal
  messages.txt     every message, also those without fields
and on stdout the paths of the translation units. Does nothing when roots, packages and tools are unchanged.
"""
import argparse
import fnmatch
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, text_format

    import merge
    import rules
except ImportError as missing:
    sys.exit(f'prepare.py: {missing}: the build needs the packages of requirements.txt; run ./dev setup')

MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
ENUM = descriptor_pb2.FieldDescriptorProto.TYPE_ENUM
GROUP = descriptor_pb2.FieldDescriptorProto.TYPE_GROUP

# protobuf-c calls the first member of every message `base`; a field of this name needs another name for it.
BASE_FIELD_NAME = 'pb_base'
# Fields of one message that the reader of the wire format has room for (FIELDS_SEEN_MAX).
FIELDS_MAX = 256
EXT_PB_C_MSG = 1019
EXT_PB_C_MSG_BASE_FIELD_NAME = 3


def fail(text):
    sys.exit('prepare.py: ' + text)


def read_roots(path):
    patterns = []
    for line in path.read_text(encoding='utf-8').splitlines():
        line = line.split('#')[0].strip()
        if line:
            patterns.append(line)
    return patterns


def literal_package(pattern):
    """The directory that holds every message a pattern can match."""
    parts = []
    for part in pattern.split('.'):
        if '*' in part or part[:1].isupper():
            break
        parts.append(part)
    return '/'.join(parts)


def import_descriptors(patterns, own_packages):
    """Imports the generated modules under the packages of the patterns; returns the names of their files."""
    spec = importlib.util.find_spec('envoy')
    roots = {pathlib.Path(p).parent for p in spec.submodule_search_locations}
    roots.add(pathlib.Path(descriptor_pb2.__file__).parents[2])
    roots.add(pathlib.Path(importlib.util.find_spec('xds').submodule_search_locations[0]).parent)
    names = set()
    for package in sorted({literal_package(p.lstrip('!')) for p in patterns}):
        found = False
        for root in roots:
            base = root / package
            # "a.b.grpc_*" has the package a.b; the pattern picks among its messages
            for module in sorted(base.rglob('*_pb2.py')) if base.is_dir() else []:
                rel = module.relative_to(root)
                if 'protobuf' in rel.parts and len(rel.parts) > 3:
                    continue
                name = str(rel)[:-len('_pb2.py')] + '.proto'
                if name not in names:
                    importlib.import_module('.'.join(rel.with_suffix('').parts))
                    names.add(name)
                found = True
        if not found and package not in own_packages:
            fail(f'no descriptors for package {package}: is the xds-protos package complete?')
    return names


def read_additions(path):
    """Partial files by name."""
    if path is None:
        return {}
    result = text_format.Parse(path.read_text(encoding='utf-8'), descriptor_pb2.FileDescriptorSet())
    return {f.name: f for f in result.file}


def well_known():
    """The files of google.protobuf that messages of our own import; protoc comes without them."""
    result = descriptor_pb2.FileDescriptorSet()
    for name in ('duration', 'wrappers'):
        module = importlib.import_module(f'google.protobuf.{name}_pb2')
        module.DESCRIPTOR.CopyToProto(result.file.add())
    return result


def read_own(protoc, paths):
    """Files of messages that no package has, by name: what protoc makes of them."""
    if not paths:
        return {}
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as known:
        roots = sorted({str(p.parent.parent) for p in paths})
        pathlib.Path(known.name).write_bytes(well_known().SerializeToString())
        command = [protoc, *(f'-I{r}' for r in roots), f'--descriptor_set_in={known.name}', f'--descriptor_set_out={out.name}',
                   *map(str, paths)]
        if subprocess.run(command, check=False).returncode != 0:
            fail('protoc could not read the files named above')
        result = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    for file in result.file:
        for message in file.message_type:
            strip_json_names(message)
    return {f.name: f for f in result.file}


def strip_json_names(message):
    for field in message.field:
        field.ClearField('json_name')
    for nested in message.nested_type:
        strip_json_names(nested)


class Index:
    """Every message and enum of the loaded files by full name."""

    def __init__(self, file_names, additions, own):
        pool = descriptor_pool.Default()
        parts = {**read_additions(additions), **own}
        self.files = {}
        self.messages = {}  # full name -> (file name, DescriptorProto, parent full name or '')
        self.enums = {}     # full name -> (file name, parent full name or '')
        todo = sorted(file_names | set(parts))
        while todo:
            name = todo.pop()
            if name in self.files:
                continue
            proto = descriptor_pb2.FileDescriptorProto()
            try:
                proto.ParseFromString(pool.FindFileByName(name).serialized_pb)
            except KeyError:
                proto.CopyFrom(parts.pop(name))
            if name in parts:
                merge.merge_file(proto, parts[name])
            self.files[name] = proto
            todo.extend(proto.dependency)
            for enum in proto.enum_type:
                self.enums[f'{proto.package}.{enum.name}'] = (name, '')
            for message in proto.message_type:
                self._add(name, proto.package, message, '')

    def _add(self, file_name, scope, message, parent):
        full = f'{scope}.{message.name}'
        self.messages[full] = (file_name, message, parent)
        for enum in message.enum_type:
            self.enums[f'{full}.{enum.name}'] = (file_name, full)
        for nested in message.nested_type:
            self._add(file_name, full, nested, full)


def select(index, patterns):
    """Full names of the messages that the patterns name."""
    chosen = set()
    for pattern in patterns:
        if pattern.startswith('!'):
            chosen = {n for n in chosen if not fnmatch.fnmatchcase(n, pattern[1:])}
            continue
        hits = [n for n in index.messages if fnmatch.fnmatchcase(n, pattern)
                and not index.messages[n][1].options.map_entry]
        if not hits:
            fail(f'the root {pattern} matches no message')
        chosen.update(hits)
    return chosen


def closure(index, roots):
    """The roots and every message and enum that they hold."""
    messages, enums = set(), set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name in messages:
            continue
        messages.add(name)
        for field in index.messages[name][1].field:
            if field.type == MESSAGE:
                todo.append(field.type_name[1:])
            elif field.type == ENUM:
                enums.add(field.type_name[1:])
            elif field.type == GROUP:
                fail(f'{name}.{field.name} is a group, which is not supported')
    return messages, enums


def grouped(fields):
    """The fields with those of one oneof side by side, as protoc wants them."""
    first = {}
    for at, field in enumerate(fields):
        if field.HasField('oneof_index'):
            first.setdefault(field.oneof_index, at)
    keyed = [(first[f.oneof_index] if f.HasField('oneof_index') else at, at, f) for at, f in enumerate(fields)]
    return [f for _, _, f in sorted(keyed, key=lambda k: k[:2])]


def prune_message(index, full, message, keep, enums):
    """A copy of the message with only what is kept, or None."""
    copy = descriptor_pb2.DescriptorProto(name=message.name)
    wanted = full in keep
    for nested in message.nested_type:
        pruned = prune_message(index, f'{full}.{nested.name}', nested, keep, enums)
        if pruned is not None:
            copy.nested_type.append(pruned)
    for enum in message.enum_type:
        if f'{full}.{enum.name}' in enums:
            copy.enum_type.append(strip_enum(enum))
    if not wanted and not copy.nested_type and not copy.enum_type:
        return None
    if wanted:
        if message.options.map_entry:
            copy.options.map_entry = True
        copy.oneof_decl.extend(descriptor_pb2.OneofDescriptorProto(name=o.name) for o in message.oneof_decl)
        for field in grouped(message.field):
            new = copy.field.add()
            new.CopyFrom(field)
            packed = field.options.packed if field.options.HasField('packed') else None
            new.ClearField('options')
            # a field with presence is a oneof of its own: protobuf-c then keeps the presence
            new.ClearField('proto3_optional')
            if packed is not None:
                new.options.packed = packed
        if any(f.name == 'base' for f in message.field):
            payload = bytes([EXT_PB_C_MSG_BASE_FIELD_NAME << 3 | 2, len(BASE_FIELD_NAME)]) + BASE_FIELD_NAME.encode()
            tag = EXT_PB_C_MSG << 3 | 2
            raw = bytes([tag & 0x7f | 0x80, tag >> 7, len(payload)]) + payload
            copy.options.MergeFromString(raw)
    return copy


def strip_enum(enum):
    copy = descriptor_pb2.EnumDescriptorProto(name=enum.name)
    for value in enum.value:
        copy.value.add(name=value.name, number=value.number)
    if enum.options.allow_alias:
        copy.options.allow_alias = True
    return copy


def prune(index, keep, enums):
    """FileDescriptorSet of what is kept, dependencies first."""
    files = {}
    for name, proto in index.files.items():
        copy = descriptor_pb2.FileDescriptorProto(name=name, package=proto.package, syntax=proto.syntax)
        for message in proto.message_type:
            pruned = prune_message(index, f'{proto.package}.{message.name}', message, keep, enums)
            if pruned is not None:
                copy.message_type.append(pruned)
        for enum in proto.enum_type:
            if f'{proto.package}.{enum.name}' in enums:
                copy.enum_type.append(strip_enum(enum))
        if copy.message_type or copy.enum_type:
            files[name] = copy
    for name, copy in files.items():
        needed = set()
        collect_dependencies(index, copy.message_type, needed)
        needed.discard(name)
        copy.dependency.extend(sorted(needed))
    result = descriptor_pb2.FileDescriptorSet()
    done = set()

    def emit(name):
        if name not in done:
            done.add(name)
            for dependency in files[name].dependency:
                emit(dependency)
            result.file.append(files[name])

    for name in sorted(files):
        emit(name)
    return result


def collect_dependencies(index, messages, needed):
    for message in messages:
        for field in message.field:
            if field.type == MESSAGE:
                needed.add(index.messages[field.type_name[1:]][0])
            elif field.type == ENUM:
                needed.add(index.enums[field.type_name[1:]][0])
        collect_dependencies(index, message.nested_type, needed)


def write_chunks(out, files, count):
    """Translation units of about equal size that include the generated sources."""
    sized = sorted(((out / 'c' / f).stat().st_size, f) for f in files)
    chunks = [[0, []] for _ in range(count)]
    for size, name in reversed(sized):
        chunk = min(chunks, key=lambda c: c[0])
        chunk[0] += size
        chunk[1].append(name)
    for number, (_, names) in enumerate(chunks):
        text = ''.join(f'#include "{n}"\n' for n in sorted(names))
        (out / f'chunk_{number}.c').write_text(text, encoding='utf-8')


class Notes:
    """What the generated descriptors carry in protobuf-c's reserved words, from the options of the originals:
    message: reserved1 place in the registry from 1, reserved2 first row of required_oneofs;
    field: reserved_flags enum kb_pb_mark, reserved2 ordinal among all fields from 1, reserved3 first row of checks."""

    def __init__(self, index, keep, registry):
        self.rules = rules.Rules()
        self.fields = []  # (message, field name), in order of their ordinals
        self.message = {}
        self.field = {}
        number_of = {name: number + 1 for number, name in enumerate(registry)}
        for full in sorted(keep):
            message = index.messages[full][1]
            if len(message.field) > FIELDS_MAX:
                fail(f'{full} has more than {FIELDS_MAX} fields, which proto/wire.c does not expect')
            self.message[full] = (number_of.get(full, 0), self.rules.add_message(message))
            for field in sorted(message.field, key=lambda f: f.number):
                self.fields.append((full, field.name))
                self.field[full, field.name] = (
                    rules.marks_of(index, field), len(self.fields), self.rules.add_field(full, field))


def lean(out, names, notes):
    """Makes the descriptors small (no initialisers, each of which keeps a copy of its message; no C names) and puts
    the notes into their reserved words."""
    block = re.compile(
        r'(?:static const ProtobufCFieldDescriptor (?P<symbol>\w+)__field_descriptors\[\d+\] =\n(?P<fields>.*?)\n\};\n'
        r'(?P<middle>(?:(?!static const ProtobufCFieldDescriptor ).)*?))?'
        r'(?P<head>const ProtobufCMessageDescriptor \w+__descriptor =\n\{\n  PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,\n)'
        r'  "(?P<name>[^"]+)",\n  "[^"]*",\n  "[^"]*",\n  "[^"]*",(?P<rest>.*?)'
        r'\(ProtobufCMessageInit\) \w+,\n  NULL,NULL,NULL ', re.DOTALL)
    one_field = re.compile(r'(?P<head>\n  \{\n    "(?P<name>[^"]+)",.*?)0,NULL,NULL    /\* reserved1', re.DOTALL)
    enum = re.compile(r'(PROTOBUF_C__ENUM_DESCRIPTOR_MAGIC,\n  "[^"]+",\n)  "[^"]*",\n  "[^"]*",\n  "[^"]*",')
    value = re.compile(r'^(  \{ "[^"]+", )"[A-Z0-9_]+"', re.MULTILINE)
    done = set()

    def block_text(match):
        full = match['name']

        def field_text(field):
            marks, ordinal, rule = notes.field[full, field['name']]
            done.add((full, field['name']))
            return f'{field["head"]}{marks}, (void *) {ordinal}, (void *) {rule}    /* reserved1'

        number, oneofs = notes.message.get(full, (0, 0))
        text = ''
        if match['symbol']:
            fields = one_field.sub(field_text, match['fields'])
            text = (f'static const ProtobufCFieldDescriptor {match["symbol"]}__field_descriptors[] =\n{fields}\n}};\n'
                    f'{match["middle"]}')
        return (f'{text}{match["head"]}  "{full}",\n  NULL,\n  NULL,\n  NULL,{match["rest"]}'
                f'NULL,\n  (void *) {number}, (void *) {oneofs}, NULL ')

    for name in names:
        path = out / 'c' / name
        text = path.read_text(encoding='utf-8')
        text, count = block.subn(block_text, text)
        if count != text.count('PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC'):
            fail(f'{name}: the output of the C generator has an unknown form')
        text = enum.sub(r'\1  NULL,\n  NULL,\n  NULL,', text)
        path.write_text(value.sub(r'\1NULL', text), encoding='utf-8')
    if done != set(notes.field):
        fail(f'fields without a descriptor in the generated C: {sorted(set(notes.field) - done)[:3]}')


def write_registry(out, index, registry):
    """The messages that can stand in an Any, as one X macro a line, in memcmp order of their names."""
    lines = []
    for name in registry:
        lines.append(f'X({c_symbol(name)}__descriptor)\n')
    (out / 'registry.inc').write_text(''.join(lines), encoding='utf-8')
    includes = sorted({index.messages[name][0][:-len('.proto')] for name in registry})
    (out / 'registry_headers.inc').write_text(
        ''.join(f'#include "{n}.pb-c.h"\n' for n in includes), encoding='utf-8')


def c_symbol(full):
    """The name that protobuf-c gives a message in lower case."""
    return '__'.join(camel_to_lower(p) for p in full.split('.'))


def camel_to_lower(name):
    out, was_upper = '', True
    for char in name:
        if char.isupper():
            out += ('' if was_upper else '_') + char.lower()
        else:
            out += char
        was_upper = char.isupper()
    return out


def replace_tree(new, old):
    """Moves the files of `new` to `old`; what did not change keeps its time, so that nothing is recompiled for it."""
    fresh = {p.relative_to(new) for p in new.rglob('*') if p.is_file()}
    for path in [p for p in old.rglob('*') if p.is_file()]:
        if path.relative_to(old) not in fresh:
            path.unlink()
    for rel in sorted(fresh):
        target = old / rel
        if target.is_file() and target.read_bytes() == (new / rel).read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new / rel, target)
    shutil.rmtree(new)


def generate(args, patterns):
    own = read_own(args.protoc, args.own)
    packages = {f.package.replace('.', '/') for f in own.values()}
    index = Index(import_descriptors(patterns, packages), args.additions, own)
    keep, enums = closure(index, select(index, patterns))
    pruned = prune(index, keep, enums)
    out = args.out.with_name(args.out.name + '.new')
    shutil.rmtree(out, ignore_errors=True)
    (out / 'c').mkdir(parents=True)
    descriptors = out / 'descriptors.pb'
    descriptors.write_bytes(pruned.SerializeToString(deterministic=True))
    names = [f.name for f in pruned.file]
    command = [args.protoc, f'--descriptor_set_in={descriptors}', f'--c_out={out / "c"}', *names]
    if subprocess.run(command, check=False).returncode != 0:
        fail(f'{args.protoc} could not make C of {descriptors}: the reason is above')
    sources = [n[:-len('.proto')] + '.pb-c.c' for n in names]
    registry = sorted(n for n in keep if not index.messages[n][1].options.map_entry)
    notes = Notes(index, keep, registry)
    lean(out, sources, notes)
    notes.rules.write(out / 'rules.inc')
    (out / 'fields.txt').write_text(''.join(f'{m} {f}\n' for m, f in notes.fields), encoding='utf-8')
    (out / 'messages.txt').write_text(''.join(f'{name}\n' for name in sorted(keep)), encoding='utf-8')
    write_registry(out, index, registry)
    write_chunks(out, sources, args.chunks)
    replace_tree(out, args.out)


def stamp_of(args):
    digest = hashlib.sha256()
    for path in [args.roots, args.additions, *args.own, *sorted(pathlib.Path(__file__).parent.glob('*.py'))]:
        digest.update(path.read_bytes())
    for package in ('xds-protos', 'protobuf'):
        digest.update(importlib.metadata.version(package).encode())
    digest.update(f'{args.chunks} {args.protoc}'.encode())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--roots', type=pathlib.Path, required=True)
    parser.add_argument('--out', type=pathlib.Path, required=True)
    parser.add_argument('--additions', type=pathlib.Path, required=True)
    parser.add_argument('--own', type=pathlib.Path, nargs='*', default=[])
    parser.add_argument('--chunks', type=int, default=8)
    parser.add_argument('--protoc', default='protoc')
    parser.add_argument('--also', nargs='*', help='files of this tool: meson configures again when they change')
    args = parser.parse_args()
    for program, package in ((args.protoc, 'protobuf-compiler'), ('protoc-gen-c', 'protobuf-c-compiler')):
        if shutil.which(program) is None:
            fail(f'{program} is not installed (Debian package {package}); run ./dev setup')
    stamp = args.out / 'stamp'
    want = stamp_of(args)
    if not stamp.is_file() or stamp.read_text(encoding='utf-8') != want:
        generate(args, read_roots(args.roots))
        stamp.write_text(want, encoding='utf-8')
    print('\n'.join(str(args.out / f'chunk_{n}.c') for n in range(args.chunks)))


if __name__ == '__main__':
    main()
