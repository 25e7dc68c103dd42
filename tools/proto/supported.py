# SPDX-License-Identifier: Apache-2.0
"""Turns proto/supported.txt into a bit for every field: supported.py LIST FIELDS OUTPUT.

FIELDS is the file that prepare.py left, one field a line in order of the ordinals that the descriptors carry;
messages.txt stands beside it.
"""
import difflib
import pathlib
import sys


def read_fields(path):
    ordinals = {}
    messages = {name: [] for name in path.with_name('messages.txt').read_text(encoding='utf-8').split()}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines()):
        message, field = line.split()
        ordinals[message, field] = number
        messages[message].append(field)
    return ordinals, messages


def main():
    listed, fields, output = (pathlib.Path(a) for a in sys.argv[1:])
    ordinals, messages = read_fields(fields)
    bits = bytearray((len(ordinals) + 7) // 8)
    errors = []

    def mark(message, field):
        bits[ordinals[message, field] // 8] |= 1 << ordinals[message, field] % 8

    for message, names in messages.items():
        if message.startswith('google.protobuf.') or message.endswith('Entry'):
            for name in names:
                mark(message, name)
    for number, line in enumerate(listed.read_text(encoding='utf-8').splitlines(), 1):
        line = line.split('#')[0].strip()
        if not line:
            continue
        message, colon, names = line.partition(':')
        if not colon:
            errors.append(f'{listed}:{number}: expected "message: field field ..."')
        elif message not in messages:
            near = difflib.get_close_matches(message, messages, 1)
            errors.append(f'{listed}:{number}: no message {message}' + (f', did you mean {near[0]}?' if near else ''))
        else:
            for name in messages[message] if names.split() == ['*'] else names.split():
                if (message, name) in ordinals:
                    mark(message, name)
                else:
                    near = difflib.get_close_matches(name, messages[message], 1)
                    errors.append(f'{listed}:{number}: {message} has no field {name}' +
                                  (f', did you mean {near[0]}?' if near else ''))
    if errors:
        sys.exit('\n'.join(errors))
    rows = [', '.join(map(str, bits[i:i + 20])) for i in range(0, len(bits), 20)]
    output.write_text('static const uint8_t supported_bits[] = {\n' + ',\n'.join(rows) + '};\n', encoding='utf-8')


if __name__ == '__main__':
    main()
