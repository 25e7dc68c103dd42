# SPDX-License-Identifier: Apache-2.0
"""The constraints and marks of the fields, as the descriptors' options carry them, for the generated C.

protobuf-c drops options. This turns validate.rules into rows of struct kb_pb_check (proto/pb_validate.c), and
sensitive, deprecated and map fields into the bits of enum kb_pb_mark (proto/pb.h).
"""
from google.protobuf import descriptor_pb2

# The options are extensions; importing the modules makes them known.
from envoy.annotations import deprecation_pb2
from udpa.annotations import sensitive_pb2
from validate import validate_pb2

MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED

MARK_MAP, MARK_SENSITIVE, MARK_DEPRECATED, MARK_DISALLOWED = 1, 2, 4, 8

WHERE = {'': 'KB_PB_AT_FIELD', 'items': 'KB_PB_AT_ITEM', 'keys': 'KB_PB_AT_KEY', 'values': 'KB_PB_AT_VALUE'}

NUMBER_OPS = {'gt': 'GT', 'gte': 'GTE', 'lt': 'LT', 'lte': 'LTE', 'const': 'EQUAL'}
COUNT_OPS = {
    ('string', 'min_len'): 'MIN_LEN', ('string', 'max_len'): 'MAX_LEN', ('string', 'len'): 'MIN_LEN MAX_LEN',
    ('string', 'min_bytes'): 'MIN_BYTES', ('string', 'max_bytes'): 'MAX_BYTES',
    ('bytes', 'min_len'): 'MIN_BYTES', ('bytes', 'max_len'): 'MAX_BYTES',
    ('repeated', 'min_items'): 'MIN_ITEMS', ('repeated', 'max_items'): 'MAX_ITEMS',
    ('map', 'min_pairs'): 'MIN_PAIRS', ('map', 'max_pairs'): 'MAX_PAIRS',
    ('string', 'well_known_regex'): 'WELL_KNOWN',
}
FLAG_OPS = {
    ('any', 'required'): 'REQUIRED', ('duration', 'required'): 'REQUIRED', ('message', 'required'): 'REQUIRED',
    ('timestamp', 'required'): 'REQUIRED', ('message', 'skip'): 'SKIP', ('enum', 'defined_only'): 'DEFINED_ONLY',
    ('repeated', 'unique'): 'UNIQUE',
}
TEXT_OPS = {'prefix': 'PREFIX', 'suffix': 'SUFFIX', 'contains': 'CONTAINS', 'pattern': 'PATTERN'}
NUMBERS = {'float', 'double', 'int32', 'int64', 'uint32', 'uint64', 'sint32', 'sint64', 'fixed32', 'fixed64'}


def marks_of(index, field):
    options = field.options
    marks = 0
    if field.type == MESSAGE and index.messages[field.type_name[1:]][1].options.map_entry:
        marks |= MARK_MAP
    if options.Extensions[sensitive_pb2.sensitive]:
        marks |= MARK_SENSITIVE
    if options.deprecated:
        marks |= MARK_DEPRECATED
    if options.Extensions[deprecation_pb2.disallowed_by_default]:
        marks |= MARK_DISALLOWED
    return marks


class Rules:
    """Rows of checks of all fields; a field refers to its first row, rows end with KB_PB_CHECK_END."""

    def __init__(self):
        self.rows = ['{KB_PB_CHECK_END, 0, 0, {0}}']
        self.known = {}
        self.oneof_rows = ['{0, 0}']
        self.text = b''

    def _text(self, value):
        raw = value.encode() + b'\0'
        at = self.text.find(raw)
        if at < 0:
            at = len(self.text)
            self.text += raw
        return at

    def add_field(self, full, field):
        """Index of the field's first row, or 0 when it has no rules."""
        if not field.options.HasExtension(validate_pb2.rules):
            return 0
        rows = []
        self._rules(rows, '', field.options.Extensions[validate_pb2.rules], f'{full}.{field.name}')
        if not rows:
            return 0
        if tuple(rows) not in self.known:
            self.known[tuple(rows)] = len(self.rows)
            self.rows += rows + ['{KB_PB_CHECK_END, 0, 0, {0}}']
        return self.known[tuple(rows)]

    def add_message(self, message):
        """Index of the message's first required oneof, or 0."""
        numbers = sorted(f.number for f in message.field)
        rows = []
        for at, oneof in enumerate(message.oneof_decl):
            if oneof.options.Extensions[validate_pb2.required]:
                members = [f.number for f in message.field if f.HasField('oneof_index') and f.oneof_index == at]
                rows.append('{%d, %d}' % (numbers.index(members[0]) + 1, self._text(oneof.name)))
        if not rows:
            return 0
        first = len(self.oneof_rows)
        self.oneof_rows += rows + ['{0, 0}']
        return first

    def _rules(self, rows, where, rules, what):
        for kind, value in rules.ListFields():
            for name, item in value.ListFields():
                key = (kind.name, name.name)
                if name.name in ('items', 'keys', 'values') and kind.name in ('repeated', 'map'):
                    self._rules(rows, name.name, item, what)
                elif not self._row(rows, WHERE[where], key, item):
                    raise SystemExit(f'prepare.py: {what}: the rule {kind.name}.{name.name} is not known')

    def _row(self, rows, where, key, item):
        kind, name = key
        if kind in NUMBERS and name in NUMBER_OPS:
            number = f'.real = {item!r}' if kind in ('float', 'double') else f'.number = {int(item)}'
            rows.append(f'{{KB_PB_CHECK_{NUMBER_OPS[name]}, {where}, 0, {{{number}}}}}')
        elif kind == 'bool' and name == 'const':
            rows.append(f'{{KB_PB_CHECK_EQUAL, {where}, 0, {{.number = {int(item)}}}}}')
        elif kind == 'duration' and name in NUMBER_OPS:
            nanos = item.seconds * 10**9 + item.nanos
            rows.append(f'{{KB_PB_CHECK_{NUMBER_OPS[name]}, {where}, 0, {{.number = {min(nanos, 2**63 - 1)}}}}}')
        elif key in COUNT_OPS:
            for op in COUNT_OPS[key].split():
                rows.append(f'{{KB_PB_CHECK_{op}, {where}, 0, {{.number = {int(item)}}}}}')
        elif key in FLAG_OPS or name == 'ignore_empty':
            if item:
                op = FLAG_OPS.get(key, 'IGNORE_EMPTY')
                rows.append(f'{{KB_PB_CHECK_{op}, {where}, 0, {{0}}}}')
        elif key == ('string', 'strict'):
            if not item:
                rows.append(f'{{KB_PB_CHECK_LENIENT, {where}, 0, {{0}}}}')
        elif kind == 'string' and name in TEXT_OPS:
            rows.append(f'{{KB_PB_CHECK_{TEXT_OPS[name]}, {where}, {self._text(item)}, {{0}}}}')
        elif kind == 'string' and name in ('in', 'not_in'):
            op = 'TEXT_IN' if name == 'in' else 'TEXT_NOT_IN'
            joined = self._text('\0'.join(item))
            rows.append(f'{{KB_PB_CHECK_{op}, {where}, {joined}, {{.number = {len(item)}}}}}')
        elif name in ('in', 'not_in') and kind in NUMBERS | {'enum'}:
            op = 'IN' if name == 'in' else 'NOT_IN'
            rows += [f'{{KB_PB_CHECK_{op}, {where}, 0, {{.number = {int(v)}}}}}' for v in item]
        else:
            return False
        return True

    def write(self, path):
        text = ''.join('\\%03o' % b for b in self.text)
        lines = [text[i:i + 96] for i in range(0, len(text), 96)] or ['']
        path.write_text(
            'static const struct kb_pb_check checks[] = {\n' + ',\n'.join(self.rows) + '};\n'
            'static const struct kb_pb_required required_oneofs[] = {\n' + ',\n'.join(self.oneof_rows) + '};\n'
            'static const char check_text[] =\n' + '\n'.join(f'"{line}"' for line in lines) + ';\n',
            encoding='utf-8')
