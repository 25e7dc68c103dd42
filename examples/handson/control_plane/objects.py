# SPDX-License-Identifier: Apache-2.0
"""Reads Kubernetes and Istio objects from YAML files; every error knows its file and line.

A file is a row of documents. Each document is read by the schema of its kind (schemas.py); what comes out are
plain values, except that mappings and lists remember on which line each of their entries stands, so that a check
which comes later (checks.py) can point there as well."""

import re
from dataclasses import dataclass, field

import yaml


class Invalid(Exception):
    """Something in the YAML that cannot be served. `line` counts from 1; `name` and `kind` where they are known."""

    def __init__(self, line, message, file="", kind="", name=""):
        super().__init__(message)
        self.line, self.message, self.file, self.kind, self.name = line, message, file, kind, name

    def __str__(self):
        what = f"{self.kind} {self.name}: " if self.kind else ""
        return f"{self.file}:{self.line}: {what}{self.message}"


class Fields(dict):
    """A mapping; `lines` has the line of each key."""

    def __init__(self, line):
        super().__init__()
        self.line, self.lines = line, {}

    def line_of(self, key):
        return self.lines.get(key, self.line)


class Items(list):
    """A list; `lines` has the line of each item."""

    def __init__(self, line):
        super().__init__()
        self.line, self.lines = line, []


@dataclass
class Object:
    kind: str
    namespace: str  # "" for a Namespace
    name: str
    labels: dict
    annotations: dict
    spec: Fields
    file: str
    line: int
    text: str = field(repr=False, default="")

    @property
    def key(self):
        return (self.kind, self.namespace, self.name)

    @property
    def title(self):
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def invalid(self, line, message):
        """An error in this object."""
        return Invalid(line, message, self.file, self.kind, self.title)


# --- what a schema is made of; `at` is the path of the field, for messages ---

def _line(node):
    return node.start_mark.line + 1


def _tag(node):
    return node.tag.rpartition(":")[2]


def _shown(node):
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if _tag(node) == "null" else repr(node.value)
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


class Scalar:
    """A value of one of the YAML types `tags`, that `make` turns into what is wanted (ValueError: it cannot)."""

    def __init__(self, what, tags, make=str):
        self.what, self.tags, self.make = what, tags, make

    def read(self, node, at):
        hint = ""
        if isinstance(node, yaml.ScalarNode) and _tag(node) in self.tags:
            try:
                return self.make(node.value)
            except ValueError as error:
                hint = f" ({error})" if str(error) else ""
        elif self.tags == ("str",) and isinstance(node, yaml.ScalarNode) and _tag(node) != "null":
            hint = " (put it in quotes)"
        raise Invalid(_line(node), f"{at} wants {self.what}, not {_shown(node)}{hint}")


def one_of(*words):
    def make(text):
        if text not in words:
            raise ValueError
        return text
    return Scalar("one of " + ", ".join(words), ("str",), make)


def integer(low, high, what=None):
    def make(text):
        value = int(text, 0)
        if not low <= value <= high:
            raise ValueError
        return value
    return Scalar(what or f"an integer from {low} to {high}", ("int",), make)


def _number(text):
    value = float(text)
    if value != value or value < 0:
        raise ValueError
    return value


_DURATION = re.compile(r"((\d+(?:\.\d+)?)(ms|s|m|h))+")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def _seconds(text):
    """"1m30s" as 90.0; at least a millisecond, as Istio wants it."""
    if not _DURATION.fullmatch(text):
        raise ValueError
    total = sum(float(n) * _SECONDS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text))
    if total and total < 0.001:
        raise ValueError
    return total


STRING = Scalar("a string", ("str",))
BOOL = Scalar("true or false", ("bool",), lambda text: text.lower() in ("true", "yes", "on"))
NUMBER = Scalar("a number", ("int", "float"), _number)
DURATION = Scalar('a duration such as "1.5s" or "200ms"', ("str",), _seconds)
PORT = integer(1, 65535, "a port from 1 to 65535")


class ListOf:
    def __init__(self, item, filled=False):
        self.item, self.filled = item, filled

    def read(self, node, at):
        if not isinstance(node, yaml.SequenceNode):
            raise Invalid(_line(node), f"{at} wants a list, not {_shown(node)}")
        if self.filled and not node.value:
            raise Invalid(_line(node), f"{at} wants at least one item")
        items = Items(_line(node))
        for i, child in enumerate(node.value):
            items.append(self.item.read(child, f"{at}[{i}]"))
            items.lines.append(_line(child))
        return items


def _pairs(node, at):
    if not isinstance(node, yaml.MappingNode):
        raise Invalid(_line(node), f"{at} wants a mapping, not {_shown(node)}")
    seen = set()
    for key, value in node.value:
        if key.value in seen:
            raise Invalid(_line(key), f"{at} has {key.value!r} twice")
        seen.add(key.value)
        yield key, value


class MapOf:
    """Any keys, one kind of value; `key` may turn the key into something else."""

    def __init__(self, value, key=str, keys="strings"):
        self.value, self.key, self.keys = value, key, keys

    def read(self, node, at):
        fields = Fields(_line(node))
        for key, value in _pairs(node, at):
            try:
                name = self.key(key.value)
            except ValueError:
                raise Invalid(_line(key), f"{at} wants {self.keys} as keys, not {key.value!r}") from None
            fields[name] = self.value.read(value, f"{at}.{name}")
            fields.lines[name] = _line(key)
        return fields


class Record:
    """Named fields. `required` ones must be there; of `exactly_one` there must be one, of `at_most_one` not two."""

    def __init__(self, fields, required=(), exactly_one=(), at_most_one=()):
        self.fields, self.required = fields, required
        self.exactly_one, self.at_most_one = exactly_one, at_most_one or exactly_one

    def read(self, node, at):
        fields = Fields(_line(node))
        for key, value in _pairs(node, at):
            schema = self.fields.get(key.value)
            if schema is None:
                known = ", ".join(sorted(self.fields))
                raise Invalid(_line(key), f"{at} has no field {key.value!r} here; known are {known}")
            fields[key.value] = schema.read(value, f"{at}.{key.value}")
            fields.lines[key.value] = _line(key)
        for name in self.required:
            if name not in fields:
                raise Invalid(_line(node), f"{at}.{name} is missing")
        given = [name for name in self.at_most_one if name in fields]
        if len(given) > 1:
            raise Invalid(fields.lines[given[1]], f"{at} has {given[0]} and {given[1]}: only one of them can be")
        if self.exactly_one and not given:
            raise Invalid(_line(node), f"{at} wants one of {', '.join(self.exactly_one)}")
        return fields


class Anything:
    """What this control plane has no use for, such as the image of a container."""

    def read(self, node, at, depth=0):
        if depth > 50:
            raise Invalid(_line(node), f"{at} is nested too deeply")
        if isinstance(node, yaml.ScalarNode):
            return node.value
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, at, depth + 1) for child in node.value]
        return {key.value: self.read(value, at, depth + 1) for key, value in node.value}


ANY = Anything()


# --- files ---

def _plain(node, *path):
    """The text at a path of keys, or ""."""
    for key in path:
        if not isinstance(node, yaml.MappingNode):
            return ""
        node = next((value for name, value in node.value if name.value == key), None)
    return node.value if isinstance(node, yaml.ScalarNode) else ""


def _document(node, file, text, kinds):
    """An Object of one document, or Invalid."""
    kind, name = _plain(node, "kind"), _plain(node, "metadata", "name")
    namespace = _plain(node, "metadata", "namespace") or "default"
    schema = kinds.get(kind)
    title = f"{namespace}/{name}"
    try:
        if schema is None:
            raise Invalid(_line(node), f"kind {kind!r} is not known here; known are {', '.join(sorted(kinds))}")
        if not schema.namespaced:
            namespace, title = "", name
        fields = schema.record.read(node, kind)
        version = fields["apiVersion"]
        if version not in schema.versions:
            raise Invalid(fields.lines["apiVersion"],
                          f"apiVersion {version!r} is not one of {', '.join(schema.versions)}")
    except Invalid as error:
        error.file, error.kind, error.name = file, kind, title
        raise
    metadata = fields["metadata"]
    spec = fields.get("spec") or Fields(fields.line)
    return Object(kind, namespace, name, metadata.get("labels", {}), metadata.get("annotations", {}), spec, file,
                  fields.line, text)


def parse(text, file, kinds):
    """(objects, errors, complete) of the text of a file. After an error of syntax the rest of the file is not known:
    `complete` is false then. An error's `key` is the object it is about."""
    objects, errors = [], []
    lines = text.splitlines(keepends=True)
    documents = yaml.compose_all(text, Loader=yaml.SafeLoader)
    while True:
        try:
            node = next(documents, None)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            errors.append(Invalid(mark.line + 1 if mark else 1, f"YAML: {error.problem or error.context}", file))
            return objects, errors, False
        except yaml.YAMLError as error:  # a character that YAML does not have
            line = text.count("\n", 0, getattr(error, "position", 0)) + 1
            errors.append(Invalid(line, f"YAML: {getattr(error, 'reason', error)}", file))
            return objects, errors, False
        if node is None:
            return objects, errors, True
        if isinstance(node, yaml.ScalarNode) and _tag(node) == "null":
            continue  # an empty document
        try:
            start, end = node.start_mark.line, node.end_mark.line
            source = "".join(lines[start:end + 1 if node.end_mark.column else end])
            objects.append(_document(node, file, source, kinds))
        except Invalid as error:
            errors.append(error)
