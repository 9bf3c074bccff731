"""Make the pages that follow from the code, then the site: they cannot say what it does not.

python docs/build.py             # docs/methods/*.md and docs/api.md, then site/
python docs/build.py --readme    # the tables of README.md, and what they have of benchmarks, too
python docs/build.py --stubs     # what editors and type checkers read, too
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import measured
from measured import RESULTS, budget, paper

from selftaught import config, kinds, methods, roles, start
from selftaught.cli import needs_of
from selftaught.signature import OBJECTS, Parameter, describe

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SOURCE = ROOT / "src" / "selftaught"
MADE = "made by `python docs/build.py --readme` -->"
MARKS = {part: (f"<!-- {part}: {MADE}", f"<!-- end of {part} -->") for part in ("start", "methods")}
"""What is around the tables of README.md."""

FAMILIES = {
    "contrastive": "Two views of an image are alike, and unlike views of other images.",
    "distillation": "A student predicts what a teacher sees in another view: its slow copy (EMA), "
    "or a trained network.",
    "correlation": "Views agree, dimensions do not repeat each other; no negatives, no teacher.",
    "clustering": "Images are sorted into groups, and the groups are the labels.",
    "masked": "Most of the image is hidden and reconstructed.",
    "predictive": "The features of hidden regions are predicted, not their pixels.",
    "pretext": "A puzzle whose answer is known: the classics.",
    "dense": "Cells of the feature map are compared, for tasks that need places.",
    "supervised": "Labels are learned, to see what an encoder is worth as a start.",
}
"""Order and one sentence for each family."""

API = {
    "selftaught": (
        "engine/pretrain.py",
        "engine/classify.py",
        "engine/settings.py",
        "engine/run.py",
        "backbones/image/encoder.py",
        "data/opening.py",
        "feed/check.py",
        "data/settings.py",
        "index/index.py",
        "index/commands.py",
        "curate/pool.py",
        "curate/settings.py",
        "curate/fetch/settings.py",
    ),
    "selftaught.evaluate": (
        "evaluate/comparing.py",
        "evaluate/settings.py",
        "evaluate/features.py",
        "evaluate/scores.py",
        "evaluate/classifiers.py",
        "evaluate/attention.py",
        "evaluate/few_labels.py",
        "evaluate/mislabeled.py",
        "evaluate/grouped.py",
        "evaluate/finding.py",
        "evaluate/clusters.py",
        "evaluate/image/corrupted.py",
        "evaluate/image/places.py",
        "evaluate/floors.py",
        "evaluate/curve.py",
    ),
    "selftaught.classifier": ("classifier/model.py", "classifier/settings.py"),
    "selftaught.export": ("export/conversion.py", "export/encoder.py", "export/timm.py"),
    "selftaught.augment": (
        "augment/image/presets.py",
        "augment/image/view.py",
        "augment/image/views.py",
        "augment/image/changes.py",
        "augment/image/alike.py",
        "augment/custom.py",
        "augment/image/cells.py",
        "augment/image/colored.py",
        "augment/pipeline.py",
        "augment/image/photometric.py",
        "augment/image/device.py",
    ),
    "selftaught.method": ("method.py",),
    "selftaught.parts": (
        "parts/buffers.py",
        "parts/heads.py",
        "parts/memory.py",
        "parts/predictor.py",
        "parts/queue.py",
        "parts/target.py",
        "parts/teacher.py",
        "parts/standardize.py",
        "parts/multicrop.py",
        "parts/norm.py",
        "parts/shuffle.py",
    ),
    "selftaught.objectives": (
        "objectives/contrastive.py",
        "objectives/assignment.py",
        "objectives/masked.py",
    ),
    "selftaught.masks": ("masks/blocks.py", "masks/clips.py", "masks/text.py"),
    "selftaught.schedule": ("schedule.py",),
    "selftaught.vectors": ("vectors.py",),
    "selftaught.dist": ("dist.py",),
    "selftaught.errors": ("errors.py",),
    "selftaught.roles": ("roles.py",),
}
"""Module -> files whose public names are shown under it."""


def main() -> None:
    """Write what is generated, then build the site; warnings are errors."""
    pages = {"methods/index.md": overview(), "api.md": api(), "yaml.md": settings()}
    pages |= {f"methods/{family}.md": family_page(family) for family in FAMILIES}
    pages |= {
        "methods/side-by-side.md": measured.side_by_side(),
        "methods/dense-results.md": measured.densely(),
    }
    (DOCS / "methods").mkdir(exist_ok=True)
    for name, text in pages.items():
        (DOCS / name).write_text(text, encoding="utf-8")
    if "--readme" in sys.argv:
        start.MEASURED.write_text(measurements(), encoding="utf-8")
        readme = ROOT / "README.md"
        readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")
    if "--stubs" in sys.argv:
        for path, text in stubs().items():
            path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    sys.exit(subprocess.run(command, cwd=ROOT).returncode)


# stubs -------------------------------------------------------------------------------------------


def stubs() -> dict[Path, str]:
    """What is only known once code runs, as type checkers and editors want it: written out."""
    made = "# Made by `python docs/build.py --stubs`.\n"
    classes = [
        f"from selftaught.methods.{file.parent.name}.{name} import {label} as {label}\n"
        for name, file in sorted(methods.files().items(), key=lambda item: item[1])
        for label in [methods.signature(name).name]
    ]
    path, engine = Path(methods.__file__), SOURCE / "engine"
    functions = [
        n for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.FunctionDef)
    ]
    heads = [_head(n) for n in functions if not n.name.startswith("_")]
    every = "".join(
        [
            "from pathlib import Path\nfrom typing import Any\n\n",
            *classes,
            "from selftaught.signature import Signature\n\n",
            "GROUP: str\nUSUAL: str\n\n",
            *heads,
        ]
    )
    (pretrain,) = (
        n
        for n in ast.parse((engine / "pretrain.py").read_text("utf-8")).body
        if isinstance(n, ast.FunctionDef) and n.name == "pretrain"
    )
    pretrain.decorator_list.clear()
    (fields,) = _fields(engine / "settings.py").values()
    for field in fields[1:]:  # `out` has its place
        kind = ast.Name(_given(field))
        pretrain.args.kwonlyargs.append(ast.arg(ast.unparse(field.target), kind))
        pretrain.args.kw_defaults.append(field.value)
    imports = (
        "from collections.abc import Callable, Sequence\nfrom pathlib import Path\n"
        "from typing import Any, Literal\n\n"
        "from selftaught.engine.run import Run\nfrom selftaught.method import Method\n"
        f"from selftaught.roles import {_roles(fields)}\n\n"
    )
    texts = {
        path.with_suffix(".pyi"): made + every,
        engine / "pretrain.pyi": made + imports + _head(pretrain),
        SOURCE / "options.pyi": made + _options(),
    }
    return {path: _formatted(text) for path, text in texts.items()}


def _options() -> str:
    """What `**options` may hold, of functions that take the fields of a dataclass."""
    files = [SOURCE / room / "settings.py" for room in ("data", "evaluate", "classifier", "curate")]
    files.append(SOURCE / "curate" / "fetch" / "settings.py")
    found = {name: fields for file in files for name, fields in _fields(file).items()}
    bases = {name: base for file in files for name, base in _bases(file).items()}
    text = (
        "from collections.abc import Sequence\nfrom pathlib import Path\n"
        "from typing import Literal, TypedDict\n\n"
        f"from selftaught.roles import {_roles([f for each in found.values() for f in each])}\n"
    )
    for name, fields in found.items():
        text += f"\nclass {name}Options({bases[name]}, total=False):\n"
        text += "".join(
            f"    {ast.unparse(f.target)}: {_given(f)}\n"
            for f in fields
            if ast.unparse(f.target) not in OBJECTS  # they have their place
        )
    return text


def _fields(file: Path) -> dict[str, list[ast.AnnAssign]]:
    """The classes in `file`, and their fields."""
    return {
        node.name: [n for n in node.body if isinstance(n, ast.AnnAssign)]
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
    }


def _bases(file: Path) -> dict[str, str]:
    """The classes in `file`, and what the types of their options derive from."""
    found = {}
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            (base,) = (ast.unparse(b) for b in node.bases)
            found[node.name] = "TypedDict" if base == "Options" else f"{base}Options"
    return found


def _given(field: ast.AnnAssign) -> str:
    """The type of what Python may give for a field, where the field's own is what it becomes."""
    kind = ast.unparse(field.annotation).replace("Path", "str | Path")
    if ast.unparse(field.target) in OBJECTS:
        return f"Callable[..., Any] | {kind}" if kind.startswith("Literal") else "Any"
    return re.sub(r"^tuple\[(.*), \.\.\.\]$", r"Sequence[\1]", kind)


def _roles(fields: list[ast.AnnAssign]) -> str:
    """Names of the roles that fields have, as one imports them."""
    words = {n.id for f in fields for n in ast.walk(f) if isinstance(n, ast.Name)}
    return ", ".join(sorted(word for word in words if hasattr(roles, word)))


def _head(node: ast.FunctionDef) -> str:
    returns = ast.unparse(node.returns) if node.returns else "None"
    return f"def {node.name}({ast.unparse(node.args)}) -> {returns}: ...\n"


def _formatted(text: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "made.pyi", "-"]
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=True)
    return done.stdout


# where to start ----------------------------------------------------------------------------------


def beginnings() -> str:
    """What to type for which data, as Markdown."""
    lines = [
        "| your data | your command | per cent right (its floor) | CPU s / 1,000 |",
        "| --- | --- | --- | ---: |",
    ]
    for s in start.starts():
        where = f"[{s['images']}]({Path(s['result']).with_suffix('.md')})"
        cells = (s["data"], f"`{s['command']}`", f"{start.told(s)}: {where}", start.pace(s))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measurements() -> str:
    """What `selftaught.start` has of the results of benchmarks."""
    rows = [row for s in start.STARTS for row in (s.row, s.other) if row]
    return json.dumps({start.key(row): measurement(*row) for row in rows}, indent=1) + "\n"


def measurement(file: str, *keys: str) -> dict[str, object]:
    """A row of a result, whichever benchmark made it."""
    path = RESULTS / f"{file}.json"
    row = json.loads(path.read_text(encoding="utf-8"))
    for name in keys:
        row = row[name]
    scores, names = row["scores"], ("k-NN", "probe")
    if isinstance(scores, list):
        own, floors = dict(zip(names, scores)), [dict(zip(names, row["floor"]))]
    else:
        own, *floors = (v if isinstance(v, dict) else dict(zip(names, v)) for v in scores.values())
    usual = f"python benchmarks/{file}.py --data $DATA --sets {keys[0]} --only {keys[-1]}"
    command = row.get("command", usual)
    return {
        "scores": {n: [v, max(f[n] for f in floors)] for n, v in own.items()},
        "seen": row.get("samples") or (budget(row) if "command" in row else 0),
        "cpu_seconds": row.get("cpu_seconds", 0),
        "measured": command,
        "result": str(path.relative_to(ROOT)),
    }


# methods -----------------------------------------------------------------------------------------


def table() -> str:
    """The methods by family, as Markdown."""
    rows = ["| method | family | idea | paper |", "| --- | --- | --- | --- |"]
    for family in FAMILIES:
        for name in members(family):
            summary = methods.signature(name).summary
            rows.append(f"| `{name}` | {family} | {summary} | {paper(name)} |")
    return "\n".join(rows)


def with_tables(text: str) -> str:
    """`text` with what is between its marks made anew."""
    for part, made in (("start", beginnings()), ("methods", table())):
        first, last = MARKS[part]
        before, _, rest = text.partition(first)
        _, _, after = rest.partition(last)
        text = f"{before}{first}\n{made}\n{last}{after}"
    return text


def members(family: str) -> list[str]:
    """Names of the methods in a family."""
    return sorted(n for n, file in methods.files().items() if file.parent.name == family)


def overview() -> str:
    lines = ["# Methods", "", "Each is one file, and reads like the paper's algorithm box.", ""]
    return "\n".join([*lines, table(), ""])


def family_page(family: str) -> str:
    """All that a user can set about the methods of one family."""
    lines = [f"# {family.capitalize()}", "", FAMILIES[family], ""]
    for name in members(family):
        file = methods.files()[name]
        node = next(
            n
            for n in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(n, ast.ClassDef) and n.name == methods.signature(name).name
        )
        before_args = (ast.get_docstring(node) or "").partition("\nArgs:")[0].strip()
        recipe = next(
            ast.unparse(n.value)
            for n in node.body
            if isinstance(n, ast.Assign | ast.AnnAssign)
            and "recipe" in ast.unparse(n).partition("=")[0]
            and n.value is not None
        )
        lines += [
            f"## {name}",
            "",
            f"{paper(name)}. In Python `selftaught.methods.{node.name}`, built around "
            f"`{needs_of(name)['backbone']}` unless another is named.",
            "",
            before_args,
            "",
            f"Optimized as in the paper: `{recipe}`.",
            "",
            *options(config.settable(methods.signature(name)), command=True),
            "",
        ]
    return "\n".join(lines)


def options(parameters: Iterable[Parameter], command: bool = False) -> Iterator[str]:
    """What can be set, as a table: as options of the command line, or as words of a file."""
    yield "| option | default | meaning | type |"
    yield "| --- | --- | --- | --- |"
    for p in parameters:
        name = "--" + p.name.replace("_", "-") if command else p.name
        yield f"| `{name}` | {value(p.default)} | {p.doc} | {describe(p.kind or p.type)} |"


def settings() -> str:
    """All that a file of settings may hold."""
    lines = [
        "# Settings in a file",
        "",
        "`selftaught pretrain --config settings.yaml` takes the words of this page, what the "
        "command line says wins, and each run leaves its own `run.yaml`, which repeats it "
        "([training](training.md)). What is left out is chosen, or has the default below; a word "
        "that is not known is refused, with the nearest that is. The same words are options of the "
        "command line, with dashes: `training: {weight_decay: 0.1}` is `--weight-decay 0.1`.",
        "",
        "| word | what it holds |",
        "| --- | --- |",
        "| `method` | name of a [method](methods/index.md) |",
        "| `data` | folder, list file, Parquet, tar shards or array |",
        *(f"| `{name}` | {what} |" for name, what in config.SECTIONS.items()),
        "",
        "## options",
        "",
        "Those of the method: [Methods](methods/index.md) has a page for each family.",
        "",
    ]
    training = config.settable(config.signatures(None)["training"])
    lines += ["## training", "", *options(training), ""]
    for word in sorted(kinds.files()):
        found = config.signatures(None, word)
        for section in config.SIDES:
            lines += [f"## {section}, of kind {word}", ""]
            lines += [*options(config.settable(found[section])), ""]
    return "\n".join(lines)


def value(default: object) -> str:
    """A default as the command line takes it."""
    if isinstance(default, tuple):
        return "`" + ",".join(map(str, default)) + "`"
    return "–" if default is None else f"`{default}`"


# API ---------------------------------------------------------------------------------------------


def api() -> str:
    """The public functions and classes, from their source."""
    lines = ["# Python", "", "What is not listed here may change without notice.", ""]
    for module, files in API.items():
        lines += [f"## {module}", ""]
        for file in files:
            for node in ast.parse((SOURCE / file).read_text(encoding="utf-8")).body:
                lines += entry(node)
    return "\n".join(lines)


def entry(node: ast.stmt) -> Iterator[str]:
    """Signature and documentation of a public function or class."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return
    yield f"### {node.name}"
    yield ""
    if isinstance(node, ast.FunctionDef):
        yield from code(call(node.name, node.args, node.returns))
        yield from prose(ast.get_docstring(node) or "")
        return
    made = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"]
    if made:
        yield from code(call(node.name, made[0].args))
    elif fields := [ast.unparse(m) for m in node.body if isinstance(m, ast.AnnAssign)]:
        yield from code(laid_out(node.name, fields))
    yield from prose(ast.get_docstring(node) or "")
    for member in node.body:
        if not isinstance(member, ast.FunctionDef) or member.name.startswith("_"):
            continue
        if documentation := ast.get_docstring(member):
            yield from (f"#### {node.name}.{member.name}", "")
            if not any(ast.unparse(d) == "property" for d in member.decorator_list):
                yield from code(call(member.name, member.args, member.returns))
            yield from prose(documentation)


def call(name: str, arguments: ast.arguments, returns: ast.expr | None = None) -> str:
    """How it is called."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    given = [_parameter(a, d) for a, d in zip(positional, defaults) if a.arg != "self"]
    if arguments.vararg:
        given.append(f"*{_parameter(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        given.append("*")
    given += [_parameter(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults)]
    if arguments.kwarg:
        given.append(f"**{_parameter(arguments.kwarg, None)}")
    return laid_out(name, given, f" -> {ast.unparse(returns)}" if returns else "")


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


def laid_out(name: str, given: list[str], end: str = "") -> str:
    """A call on one line, or one parameter a line where they are many."""
    text = f"{name}({', '.join(given)}){end}"
    if len(text) <= 80:
        return text
    return f"{name}(\n" + "".join(f"    {part},\n" for part in given) + f"){end}"


def code(text: str) -> Iterator[str]:
    """A block of Python."""
    yield from ("```python", text, "```", "")


def prose(doc: str) -> Iterator[str]:
    """A docstring as Markdown: sections as lists, indented examples as code."""
    inside: str | None = None
    example = False
    for line in doc.split("\n"):
        if example and line.strip() and not line.startswith("    "):
            yield from ("```", "")
            example = False
        if re.fullmatch(r"((Other )?Args|Returns|Raises|Attributes|Yields):", line):
            inside = line[:-1]
            names = {"Args": "Parameters", "Other Args": "Other parameters"}
            yield from (f"**{names.get(inside, inside)}**", "")
        elif inside and line.startswith("    ") and not line.startswith("     "):
            head, colon, text = line.strip().partition(": ")
            listed = colon and inside != "Returns" and re.fullmatch(r"[\w*, ]+", head)
            yield f"- `{head}`: {text}" if listed else line.strip()
        elif inside and line.startswith("     "):
            yield f"  {line.strip()}"
        elif not inside and line.startswith("    "):
            if not example:
                yield from ("```python", line[4:])
                example = True
            else:
                yield line[4:]
        else:
            inside = None if line.strip() else inside
            yield line
    if example:
        yield "```"
    yield ""


if __name__ == "__main__":
    main()
