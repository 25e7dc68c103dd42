# SPDX-License-Identifier: Apache-2.0
"""The accepted objects: what the YAML says, and for an object that is wrong what it said before.

They are kept in a file too, as a cluster keeps them in its database: a control plane that is started again while some
object is wrong serves the same as before."""

import json
import os
from pathlib import Path

from .checks import check
from .model import Mesh
from .objects import Invalid, parse
from .schemas import KINDS


class Store:
    """`load` reads the folder anew; `objects` and `errors` are what came of it."""

    def __init__(self, folder, memory):
        self.folder, self.memory = Path(folder), Path(memory)
        self.objects, self.errors = {}, []
        self._remember()

    def files(self):
        """The YAML files, also in folders below, in the order of their names."""
        return sorted(path for pattern in ("*.yaml", "*.yml") for path in self.folder.rglob(pattern)
                      if not path.name.startswith("."))

    def load(self):
        errors, said, kept = [], {}, set()
        for path in self.files():
            name = str(path)
            try:
                found, wrong, complete = parse(path.read_text("utf-8"), name, KINDS)
            except (OSError, UnicodeDecodeError) as error:
                found, complete = [], False
                wrong = [Invalid(1, f"cannot be read: {error}", name)]
            for one in found:
                if one.key in said:
                    first = said[one.key]
                    wrong.append(one.invalid(one.line, f"is in {first.file}:{first.line} already"))
                else:
                    said[one.key] = one
            errors += wrong
            kept.update(self._named(wrong))
            if not complete:  # what stood behind the error is not known to be gone
                kept.update(key for key, one in self.objects.items() if one.file == name)
        for key in kept:
            if key not in said and key in self.objects:
                said[key] = self.objects[key]
        self.errors = errors + self._refuse(said)
        self.objects = said
        self._write()

    def _named(self, errors):
        """The keys of the objects that errors are about."""
        for error in errors:
            namespace, _, name = error.name.rpartition("/")
            yield (error.kind, namespace, name)

    def _refuse(self, said):
        """Takes out of `said` what does not fit the rest, puts what was accepted before in its place; the errors.

        An object that was accepted as it is stays, though what it names is gone: its requests fail, and it is said."""
        errors, settled = [], set()
        while True:
            mesh = Mesh(said.values(), [])
            wrong = []
            for one in mesh.objects:
                try:
                    check(one, mesh)
                except Invalid as error:
                    wrong.append((one, error))
            wrong = [(one, error) for one, error in wrong if one.key not in settled]
            if not wrong:
                return errors
            for one, error in wrong:
                errors.append(error)
                settled.add(one.key)
                before = self.objects.get(one.key)
                if before is None:
                    del said[one.key]
                else:
                    said[one.key] = before

    def _remember(self):
        try:
            documents = json.loads(self.memory.read_text("utf-8"))
        except (OSError, ValueError):
            return
        for document in documents:
            found, _, _ = parse("\n" * (document["line"] - 1) + document["text"], document["file"], KINDS)
            self.objects.update({one.key: one for one in found})

    def _write(self):
        documents = [{"file": one.file, "line": one.line, "text": one.text} for one in self.objects.values()]
        write_atomically(self.memory, json.dumps(documents, indent=1))


def write_atomically(path, text):
    """A reader sees the old content or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)
