"""The house: what is written about the code is true, and what is shipped is whole."""

import ast
import json
import re
import runpy
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftaught import cli, methods
from selftaught.method import Epoch, Insight, Method, Needs
from selftaught.start import MEASURED, STARTS, starts

ROOT = Path(__file__).parent.parent
SOURCE = sorted((ROOT / "src").rglob("*.py"))
GENERATED = {"api.md"}
PAGES = [f for f in sorted((ROOT / "docs").glob("*.md")) if f.name not in GENERATED]
PAGES += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
sys.path.insert(0, str(ROOT / "docs"))  # where the pages' parts are
BUILD: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "build.py"))
README = (ROOT / "README.md").read_text("utf-8")
CI = (ROOT / ".ci" / "run").read_text("utf-8")


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


# code ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SOURCE, ids=relative)
def test_library_code_does_not_print(file):
    calls = [
        n.func for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Call)
    ]
    assert not [f.lineno for f in calls if isinstance(f, ast.Name) and f.id == "print"]


@pytest.mark.parametrize("file", [f for f in SOURCE if f.stat().st_size], ids=relative)
def test_what_is_public_is_documented(file):
    tree = ast.parse(file.read_text("utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    bare = [node.name for node in public if not ast.get_docstring(node)]
    assert ast.get_docstring(tree), "the module has no docstring"
    assert not bare


MOST = 12
"""Parameters of a function, at most: more belong together in a dataclass of options."""


def long_signatures(text: str) -> list[str]:
    """Functions of more than `MOST` parameters, but for constructors that the command line reads.

    Those are of methods and of what else checks its parameters: each is an option there.
    """
    tree = ast.parse(text)
    built = [
        n
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef)
        and {"Method", "Checked"} & {ast.unparse(b).rpartition(".")[2] for b in kind.bases}
        for n in kind.body
    ]
    functions = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        and not (n in built and getattr(n, "name", "") == "__init__")
    ]
    return [
        getattr(n, "name", "lambda")
        for n in functions
        if len(n.args.posonlyargs + n.args.args + n.args.kwonlyargs) > MOST
    ]


@pytest.mark.parametrize("file", SOURCE, ids=relative)
def test_functions_take_few_parameters(file):
    assert not long_signatures(file.read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f({}): ...", ["f"]),
        ("def f(a, *, {}): ...", ["f"]),
        ("def f(): return lambda {}: 1", ["lambda"]),
        ("async def f({}): ...", ["f"]),
        ("class A:\n    def __init__({}): ...", ["__init__"]),
        ("class A(Checked):\n    def f({}): ...", ["f"]),
        ("class A(base.Method):\n    def __init__({}): ...", []),
        ("@dataclass\nclass A:\n    " + "\n    ".join(f"a{n}: int" for n in range(20)), []),
    ],
)
def test_long_signatures_are_found(text, found):
    many, few = (", ".join(f"p{n}" for n in range(count)) for count in (MOST + 1, MOST - 1))
    assert long_signatures(text.format(many)) == found
    assert not long_signatures(text.format(few))


def imports(node: ast.AST, package: list[str]) -> set[str]:
    """Names that a module imports anywhere, but for those that a type checker alone needs."""
    found: set[str] = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            found |= imports(ast.Module(child.orelse, []), package)
        elif isinstance(child, ast.Import):
            found |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            base = package[: len(package) + 1 - child.level] if child.level else []
            base = ".".join([*base, *filter(None, [child.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in child.names)}
        else:
            found |= imports(child, package)
    return found


def circles(texts: dict[str, str]) -> list[list[str]]:
    """Modules that import each other, directly or by others: one list a circle.

    Args:
        texts: name of a module, `__init__` written out -> its source.
    """
    plain = {name.removesuffix(".__init__"): name for name in texts}
    needs = {
        name: {plain[n] for n in imports(ast.parse(text), name.split(".")[:-1]) if n in plain}
        for name, text in texts.items()
    }
    reached = {}
    for name in needs:
        seen, todo = set(), [name]
        while todo:
            new = needs[todo.pop()] - seen
            seen |= new
            todo += new
        reached[name] = seen
    found = {
        tuple(sorted(m for m in reached[name] if name in reached[m]))
        for name in needs
        if name in reached[name]
    }
    return sorted(map(list, found))


def test_modules_do_not_import_in_circles():
    texts = {}
    for file in SOURCE:
        name = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
        texts[name] = file.read_text("utf-8")
    assert not circles(texts)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ({"a.b": "from a import c", "a.c": "from a.d import x", "a.d": "import a.b"}, ["bcd"]),
        ({"a.b": "def f():\n    from a.c import x", "a.c": "import a.b as y"}, ["bc"]),
        ({"a.b": "from .c import x", "a.c": "from . import b"}, ["bc"]),
        ({"a.__init__": "from a.b import x", "a.b": "from a import x"}, [["__init__", "b"]]),
        (
            {
                "a.b": "if TYPE_CHECKING:\n    import a.c\nelse:\n    import a.d",
                "a.c": "import a.b",
                "a.d": "import a.b",
            },
            ["bd"],
        ),
        ({"a.b": "if TYPE_CHECKING:\n    import a.c", "a.c": "import a.b"}, []),
        ({"a.b": "import a.c\nimport a.d", "a.c": "import a.d", "a.d": "import numpy"}, []),
        (
            {"a.b": "import a.c", "a.c": "import a.b", "a.d": "import a.e", "a.e": "import a.d"},
            ["bc", "de"],
        ),
    ],
)
def test_circles_are_found_and_nothing_else(texts, found):
    assert circles(texts) == [[f"a.{m}" for m in circle] for circle in found]


def test_families_are_folders():
    assert set(BUILD["FAMILIES"]) == {file.parent.name for file in methods.files().values()}


# pages -----------------------------------------------------------------------------------------


def blocks(page: str, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_both_commands_of_the_readme_are_lines_and_ci_runs_the_second():
    first, second = blocks(README)[0].splitlines()
    assert first.endswith(" selftaught demo")
    assert " pytest" in second
    assert f"\n{second}\n" in CI


def test_the_tables_of_the_readme_are_those_of_the_code_and_of_the_results():
    assert BUILD["measurements"]() == MEASURED.read_text("utf-8"), "python docs/build.py --readme"
    assert BUILD["with_tables"](README) == README, "run: python docs/build.py --readme"


@pytest.mark.parametrize("begin", STARTS, ids=lambda s: s.data)
def test_where_to_start_is_told_with_numbers_of_the_results(begin):
    file, *keys = begin.row
    row: Any = json.loads((ROOT / "benchmarks" / "results" / f"{file}.json").read_text("utf-8"))
    for name in keys:
        row = row[name]
    (line,) = (s for s in README.splitlines() if f"`{begin.command}`" in s and s[0] == "|")
    assert f"{begin.method}" in methods.files()
    scores = row["scores"]
    if isinstance(scores, dict):
        own, *floors = (v.values() if isinstance(v, dict) else v for v in scores.values())
        pairs = [*zip(own, map(max, zip(*floors)))]
    else:
        pairs = [*zip(scores, row["floor"])]
    for value, floor in pairs:
        assert f" {value} ({floor})" in line
    assert f"(benchmarks/results/{file}.md)" in line
    (told,) = (s for s in starts() if s["command"] == begin.command)
    assert told["cpu_seconds"] == row["cpu_seconds"]
    assert keys[-1] in told["measured"]
    if not told["before"]:
        assert begin.method in (*keys, "distill_features")


def test_all_methods_stand_side_by_side_with_numbers_of_the_results():
    measured: Any = import_module("measured")
    page = measured.side_by_side()
    rest = page[page.index("## CIFAR") :]
    for name in methods.files():
        named = re.findall(rf"^\| `{name}` \||(?<=[:,] )`{name}`(?=[,.]| \(\[)", rest, re.MULTILINE)
        assert len(named) == len(measured.LEARNED), name
    lines = [s for s in page.splitlines() if s.startswith("| `rotation` | pretext | test_resnet")]
    for data, line in zip(measured.LEARNED, lines, strict=True):
        file = ROOT / "benchmarks" / "results" / f"learn-{data}.json"
        row = json.loads(file.read_text("utf-8"))["rotation"]
        shown = row["scores"]["this encoder"]
        assert f"**{shown[0]:.1f}**" in line
        assert f"| {shown[1]:.1f} |" in line
        assert f"| {row['cpu_seconds']} |" in line
        assert row["command"] in page


def test_the_loop_in_the_readme_is_the_one_that_runs():
    example = (ROOT / "examples" / "plain_loop.py").read_text("utf-8")
    loops = [b for b in blocks(README, "python") if "DataLoader(" in b or "optimizer.step()" in b]
    assert len(loops) == 2
    assert all(loop in example for loop in loops)


def test_the_method_on_one_screen_is_the_one_that_runs():
    page = (ROOT / "docs" / "add-a-method.md").read_text("utf-8")
    assert blocks(page, "python") == ['--8<-- "examples/own_method.py"\n']
    assert len((ROOT / "examples" / "own_method.py").read_text("utf-8").splitlines()) < 70


def test_python_in_the_pages_is_python():
    for page in PAGES:
        for block in blocks(page.read_text("utf-8").replace("--8<--", "#"), "python"):
            ast.parse("if True:\n" + block if block.startswith(" ") else block, page.name)


def commands() -> list[str]:
    """Lines of the pages that call us, but for those with a word in capitals for a reader's own."""
    code = "".join(block for page in PAGES for block in blocks(page.read_text("utf-8")))
    lines = {line.split("#")[0].strip() for line in code.splitlines()}
    cells = (re.findall(r"\| `(selftaught [^`]+)` \|", page.read_text("utf-8")) for page in PAGES)
    lines |= {cell for found in cells for cell in found}
    own = re.compile(r"\b[A-Z]{2,}\b")
    return sorted(w for w in lines if w.startswith("selftaught ") and not own.search(w))


DATA = ("photos/", "labeled/", "frames/", "clips/", "sounds/", "scans/", "corpus.txt", "pool/")
DATA += ("s3://bucket/photos/",)
"""What commands in the pages are given."""


@pytest.mark.parametrize("command", commands())
def test_commands_in_the_pages_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [f"runs/{name}-photos" for name in ("simclr", "byol", "dino")]
    for folder in ("photos", "moved/photos", "labeled", "clips", "pool", *runs):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "clips" / "a.mp4").write_bytes(b"")
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(b"")  # by whose ending it is told what they are
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.bin").write_bytes(b"")
    (tmp_path / "captions.csv").write_text("file,caption\na.jpg,A text.\n")
    np.savez(tmp_path / "sensors.npz", x=np.zeros((3, 2, 30), np.float32))
    for file in ("settings.yaml", "runs/simclr-photos/run.yaml"):
        (tmp_path / file).write_text("method: simclr\ndata: photos/\n")
    (tmp_path / "corpus.txt").write_text("A text.\n")
    _, name, *words = shlex.split(command)
    if name == "curate":
        name, *words = f"curate {words[0]}", *words[1:]
    if name == "pretrain":
        assert cli.request(words).data in DATA
    else:  # raises what the user would be told
        assert bool(cli.arguments(name, words)) == bool(words)


def test_settings_in_the_pages_are_understood(tmp_path):
    yaml = blocks((ROOT / "docs" / "training.md").read_text("utf-8"), "yaml")
    (tmp_path / "settings.yaml").write_text(yaml[0])
    asked = cli.request(["--config", str(tmp_path / "settings.yaml")])
    assert asked.method == "simclr"
    assert asked.training["epochs"] == 200


@pytest.mark.parametrize("module", BUILD["API"])
def test_the_python_page_has_every_public_name(module):
    shown = set(re.findall(r"^### (\w+)$", BUILD["api"](), re.MULTILINE))
    names = getattr(import_module(module), "__all__", [])
    rooms = {"backbones", "data", "methods", "report"}
    rooms |= {page.removeprefix("selftaught.") for page in BUILD["API"]}
    rest = {"Pipeline", "simsiam", "embed_command", "atomic"}
    assert set(names) - rooms - rest <= shown


ROOMS = [
    file.parent for file in SOURCE if file.name == "__init__.py" and "__all__" in file.read_text()
]


@pytest.mark.parametrize("room", ROOMS, ids=relative)
def test_every_public_name_is_there(room):
    module = import_module(".".join(room.relative_to(ROOT / "src").parts))
    assert all(getattr(module, name) is not None for name in module.__all__)


# package ---------------------------------------------------------------------------------------


def test_the_changelog_and_the_citation_have_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert re.search(
        rf"^## .*\b{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


LINKED = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", LINKED, ids=relative)
def test_links_lead_somewhere_in_the_checkout(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            plain = (re.sub(r"[^\w\- ]", "", head).strip().lower() for head in heads)
            assert anchor in {head.replace(" ", "-") for head in plain}, link


def test_the_wheel_is_whole_and_small(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"hatch_build.py", "pyproject.toml", "LICENSE", "README.md", "tests/cases.py"} <= inside
    assert any(name.endswith(".cpp") for name in inside)  # a wheel is made of it anywhere
    assert {name for name in inside if name.startswith(".")} <= {".gitignore"}
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        photos = {f"selftaught/demo/{part}.parquet" for part in ("train", "test")}
        sizes = {i.filename: i.compress_size for i in archive.infolist()}
    assert sum(size for name, size in sizes.items() if name in photos) < 4.8e6
    assert (
        wheel.stat().st_size - sum(sizes[name] for name in photos) < 1.6e6
    )  # sources, of 70 methods
    package = ROOT / "src"
    files = [f for f in package.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    files = [f for f in files if f.suffix not in (".cpp", ".h")]  # their library goes instead
    assert {f.relative_to(package).as_posix() for f in files} <= names
    assert photos <= names
    assert not [n for n in names if n.startswith("tests")]


def test_no_file_names_a_machine_or_a_registry():
    folders = (".ci", "benchmarks", "docs", "examples", "src", "tests")
    files = [f for folder in folders for f in (ROOT / folder).rglob("*")]
    files += ROOT.glob("*")
    texts = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".css", ".txt", ".csv", ""}
    machine = re.compile(r"/(?:work|root|home|opt)/\w|/tmp/\w|bash_jobs")
    registry = re.compile(r"pypi\.[a-z]+|pythonhosted|download\.pytorch|index-url", re.IGNORECASE)
    for file in files:
        if not file.is_file() or file.suffix not in texts or file == Path(__file__):
            continue
        text = file.read_text("utf-8", errors="replace")
        assert not machine.search(text), f"{file.name}: {machine.search(text)}"
        assert not registry.search(text), f"{file.name}: {registry.search(text)}"


def test_the_lock_takes_everything_from_the_public_index():
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    sources = {json.dumps(p["source"]) for p in lock["package"] if p["name"] != "selftaught"}
    assert sources == {'{"registry": "https://pypi.org/simple"}'}


def test_the_contract_of_a_method_is_what_the_docs_say():
    own = {n for n in (*vars(Method), *Method.__annotations__) if not n.startswith("_")}
    asked = {"recipe", "backbone", "views", "loss"}
    given = {"needs", "insight", "encoder", "progress", "before_step", "after_step"}
    given |= {"on_start", "on_epoch", "few"}
    assert own == asked | given | {"reference_losses", "show", "assign"}
    page = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    for name in own:
        assert f"`{name}`" in page or f"`{name}(" in page, name
    for record in (Needs, Insight, Epoch):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{record.__name__}`"))
        for field in record.__annotations__:
            assert f"`{field}`" in row or f"`{field}=" in row, field
