"""API entries, read from the exported cells themselves: names, types and defaults as they are written there."""
import ast
import importlib
import io
import tokenize
from dataclasses import dataclass, field

from .book import Chapter, read_settings


@dataclass
class Parameter:
    name: str
    type: str
    default: str | None
    note: str            # the comment beside it
    bare: bool = False   # the first one after a bare `*`


@dataclass
class Entry:
    "One exported name, or a method of an exported class."
    name: str
    kind: str                      # 'class', 'function', 'method', 'property', 'command' or 'value'
    text: str                      # the docstring, the value as it is written, or what a command's --help prints
    module: str
    chapter: Chapter
    cell: str                      # anchor of the defining cell in its chapter
    bases: str = ""
    fields: bool = False           # the parameters are the fields of a data class or named tuple
    parameters: list[Parameter] = field(default_factory=list)
    returns: Parameter | None = None
    methods: list["Entry"] = field(default_factory=list)

    @property
    def noted(self) -> bool:
        return any(p.note for p in (*self.parameters, *([self.returns] if self.returns else [])))

    @property
    def call(self) -> str:
        "The signature; with types where no table tells them."
        if self.kind in ("property", "value", "command") or (self.kind == "class" and not self.parameters):
            return ""
        shown = []
        for p in self.parameters:
            typed = p.type and not self.noted
            default = "" if p.default is None else f"{' = ' if typed else '='}{p.default}"
            shown += ["*"]*p.bare + [p.name + f": {p.type}"*bool(typed) + default]
        returned = f" -> {self.returns.type}" if self.returns and not self.noted else ""
        return f"{self.name.rpartition('.')[2]}({', '.join(shown)}){returned}"


def notes_of(source: str) -> dict[int, tuple[str, bool]]:
    "Comments by line: their text, and whether they stand alone on it."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: (t.string.lstrip("# ").strip(), not t.line[:t.start[1]].strip()) for t in tokens
            if t.type == tokenize.COMMENT}


def note_for(first: int, last: int, notes: dict) -> str:
    "A docment: the comment at the end of the line, or the lines of comment right above."
    if last in notes and not notes[last][1]:
        return notes[last][0]
    above = []
    while first - 1 in notes and notes[first - 1][1]:
        first -= 1
        above.append(notes[first][0])
    return " ".join(reversed(above))


def as_written(node: ast.AST | None) -> str | None:
    return None if node is None else ast.unparse(node)


def read_arguments(function: ast.FunctionDef, notes: dict,
                   method: bool = False) -> tuple[list[Parameter], Parameter | None]:
    "Parameters and what is returned, each with its docment."
    a = function.args
    positional = a.posonlyargs + a.args
    listed = list(zip(positional, [""]*len(positional), [None]*(len(positional) - len(a.defaults)) + a.defaults))
    if method and not any(getattr(d, "id", "") == "staticmethod" for d in function.decorator_list):
        listed = listed[1:]
    if a.vararg:
        listed.append((a.vararg, "*", None))
    keyword = list(zip(a.kwonlyargs, [""]*len(a.kwonlyargs), a.kw_defaults))
    bare = keyword[0][0].arg if keyword and not a.vararg else None
    listed += keyword + ([(a.kwarg, "**", None)] if a.kwarg else [])
    body, last = function.body[0].lineno, function.returns.end_lineno if function.returns else 0
    owner = {(d or x).end_lineno: x.arg for x, _, d in listed}  # a comment belongs to the last parameter of its line
    rows = []
    for x, stars, default in listed:
        end = (default or x).end_lineno
        note = note_for(x.lineno, end, notes) if owner[end] == x.arg and end != last and end < body else ""
        rows.append(Parameter(stars + x.arg, as_written(x.annotation) or "", as_written(default), note, x.arg == bare))
    if not function.returns:
        return rows, None
    note = note_for(last, last, notes) if last < body else ""
    returned = Parameter("returns", as_written(function.returns), None, note)
    return rows, returned if note or returned.type != "None" else None


def read_class(node: ast.ClassDef, notes: dict, entry: Entry) -> None:
    "Parameters (or fields) and documented methods of a class."
    inner = [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and not getattr(n.target, "id", "_").startswith("_")]
    for n in inner:
        if n.name == "__init__":
            entry.parameters, _ = read_arguments(n, notes, True)
    if fields and not entry.parameters:
        entry.fields = True
        entry.parameters = [Parameter(n.target.id, as_written(n.annotation), as_written(n.value),
                                      note_for(n.lineno, n.end_lineno, notes)) for n in fields]
    for n in inner:
        said = ast.get_docstring(n)
        if not said or (n.name.startswith("_") and n.name != "__call__"):
            continue
        kind = "property" if any("property" in ast.unparse(d) for d in n.decorator_list) else "method"
        rows, returned = read_arguments(n, notes, True)
        entry.methods.append(Entry(f"{node.name}.{n.name}", kind, said, entry.module, entry.chapter, entry.cell,
                                   parameters=rows, returns=returned))


def read_entries(source: str, module: str, chapter: Chapter, cell: str, commands: set[str]) -> list[Entry]:
    "The exported names that one cell defines."
    tree, notes, found = ast.parse(source), notes_of(source), []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            entry = Entry(node.name, "function", ast.get_docstring(node) or "", module, chapter, cell)
            if node.name in commands:
                entry.kind, entry.text = "command", command_help(module, node.name)
            elif isinstance(node, ast.ClassDef):
                entry.kind, entry.bases = "class", ", ".join(map(ast.unparse, node.bases))
                read_class(node, notes, entry)
            else:
                entry.parameters, entry.returns = read_arguments(node, notes)
            found.append(entry)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)
                     and isinstance(n.ctx, ast.Store) and not n.id.startswith("_")]
            found += [Entry(name, "value", ast.get_source_segment(source, node), module, chapter, cell)
                      for name in names]
    return found


def command_help(module: str, name: str) -> str:
    "What `name --help` prints."
    import click
    command = getattr(importlib.import_module(f"{read_settings()['lib_name']}.{module}"), name)
    return command.get_help(click.Context(command, info_name=name, max_content_width=88, terminal_width=88))
