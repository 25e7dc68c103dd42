# SPDX-License-Identifier: Apache-2.0
"""Partial file descriptors: cutting them down to what the build looks at, and merging them into whole ones."""
from google.protobuf import descriptor_pb2

from envoy.annotations import deprecation_pb2
from udpa.annotations import sensitive_pb2
from validate import validate_pb2


def kept_field_options(field):
    """The options that tools/proto/rules.py and protobuf-c look at."""
    kept = descriptor_pb2.FieldOptions()
    if field.options.HasField('packed'):
        kept.packed = field.options.packed
    if field.options.deprecated:
        kept.deprecated = True
    if field.options.HasExtension(validate_pb2.rules):
        kept.Extensions[validate_pb2.rules].CopyFrom(field.options.Extensions[validate_pb2.rules])
    if field.options.Extensions[sensitive_pb2.sensitive]:
        kept.Extensions[sensitive_pb2.sensitive] = True
    if field.options.Extensions[deprecation_pb2.disallowed_by_default]:
        kept.Extensions[deprecation_pb2.disallowed_by_default] = True
    return kept


def kept_oneof_options(oneof):
    kept = descriptor_pb2.OneofOptions()
    if oneof.options.Extensions[validate_pb2.required]:
        kept.Extensions[validate_pb2.required] = True
    return kept


def oneof_index(message, oneof):
    """The place of the oneof of that name in the message, made when it is not there."""
    for at, known in enumerate(message.oneof_decl):
        if known.name == oneof.name:
            return at
    added = message.oneof_decl.add(name=oneof.name)
    options = kept_oneof_options(oneof)
    if options.ByteSize():
        added.options.CopyFrom(options)
    return len(message.oneof_decl) - 1


def add_field(message, source, field):
    """Puts a field of `source` into `message`, in the place of one with the same number."""
    for at, known in enumerate(message.field):
        if known.number == field.number:
            del message.field[at]
            break
    new = message.field.add()
    new.CopyFrom(field)
    new.ClearField('json_name')
    new.ClearField('options')
    options = kept_field_options(field)
    if options.ByteSize():
        new.options.CopyFrom(options)
    if field.HasField('oneof_index'):
        new.oneof_index = oneof_index(message, source.oneof_decl[field.oneof_index])


def kept_message(message):
    """A whole message with only the options that matter."""
    kept = descriptor_pb2.DescriptorProto(name=message.name)
    if message.options.map_entry:
        kept.options.map_entry = True
    for field in message.field:
        add_field(kept, message, field)
    for nested in message.nested_type:
        kept.nested_type.append(kept_message(nested))
    for enum in message.enum_type:
        added = kept.enum_type.add(name=enum.name)
        for value in enum.value:
            added.value.add(name=value.name, number=value.number)
    return kept


def merge_enums(into, part):
    known = {e.name: e for e in into.enum_type}
    for enum in part.enum_type:
        if enum.name in known:
            known[enum.name].value.extend(enum.value)
        else:
            into.enum_type.append(enum)


def merge_messages(into, part):
    """Merges the nested or top-level messages of `part`: both are lists of DescriptorProto."""
    known = {m.name: m for m in into}
    for message in part:
        if message.name not in known:
            into.append(message)
            continue
        target = known[message.name]
        for field in message.field:
            add_field(target, message, field)
        merge_messages(target.nested_type, message.nested_type)
        merge_enums(target, message)


def merge_file(into, part):
    """Merges a partial FileDescriptorProto into a whole one of the same name."""
    merge_messages(into.message_type, part.message_type)
    merge_enums(into, part)
