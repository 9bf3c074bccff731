"""The command line. Help, listings and usage errors never wait for torch: what a command takes is
read from the source of its function, which is imported once everything that was typed is right.
"""

import difflib
import io
import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TextIO, get_origin

from selftaught import (
    __version__,
    code,
    config,
    kinds,
    methods,
    recipes,
    start,
    timm_names,
    voice,
)
from selftaught.arguments import Group, Option, Parser, Positional, options, wrap
from selftaught.asked import check, training
from selftaught.data.absent import missing
from selftaught.data.image.formats import POOL
from selftaught.errors import (
    DataError,
    Interrupted,
    Lost,
    SelftaughtError,
    TrainingError,
    UserError,
    of_system,
    out_of_memory,
)
from selftaught.nouns import folder, speak_of, worded
from selftaught.printable import lines
from selftaught.signature import (
    Parameter,
    Signature,
    describe,
    module_doc,
    read_call,
    read_class,
    read_function,
)

HERE = Path(__file__).parent
DATA = "folder, list file, Parquet, tar shards (s3://, https:// and hf:// too), or array of images"
CONFIG = Parameter(
    "config",
    Path,
    False,
    None,
    "YAML file of settings, such as the run.yaml of a run to repeat, or a row of a paper's table "
    "(selftaught methods --recipes); what is given here wins",
)
KIND = Option(
    Parameter(
        "kind",
        str,
        False,
        None,
        f"what a sample is ({', '.join(kinds.files())}), where the data does not show it",
    ),
    "sample",
    "kind",
)
SECOND_KIND = Option(
    replace(KIND.parameter, doc="the same of the second modality, which --second names"),
    "second_sample",
    "second_kind",
)
PAIRS = "infonce"
"""What is trained on two modalities where nobody names a method."""
NAMES = (
    "demo",
    "check",
    "frames",
    "index",
    "curate",
    "pretrain",
    "evaluate",
    "embed",
    "search",
    "classify",
    "predict",
    "reconstruct",
    "segment",
    "weights",
    "report",
    "compare",
    "export",
    "methods",
)
DRY = Option(
    Parameter("dry_run", bool, False, False, "say what would be done, and how long; do nothing"),
    "",
    "dry_run",
)
FOR = Option(
    Parameter(
        "for_",
        str,
        False,
        None,
        "with --dry-run: on other machines, such as 64xH100-80G",
        main=False,
    ),
    "",
    "for",
)
CURATE = "From a heap of images to a data set: scan, filter, deduplicate, retrieve, balance."
CURATING = (
    "selftaught curate scan photos/ --out pool/",
    "selftaught curate embed pool/ --model runs/simclr-photos",
    "selftaught curate dedup pool/",
    "selftaught curate balance pool/ --keep 10000",
    "selftaught pretrain simclr pool/",
)
LISTING = "List the methods by family, or show what one of them takes."
JSON = Parameter("json", bool, False, False, "as JSON, for programs")
ROWS = Parameter("recipes", bool, False, False, "list rows of papers' tables, for --config")
START = Parameter(
    "start", bool, False, False, "tell which command is for which data, and what it has given"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    0 done, 1 failed, 2 bad arguments or input, 3 bad data, 75 stopped by a signal and resumable,
    or when memory ran out, 129 by the end of its terminal, 130 by Ctrl-C, 141 when nobody reads on.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not (sys.stdout and sys.stderr):  # closed by whoever started us
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no error
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            _run(words)
        finally:
            sys.stdout.flush()
    except SelftaughtError as error:
        if "--debug" in words:
            traceback.print_exc()
        agreed = isinstance(error, DataError | Interrupted | TrainingError)
        if agreed and not isinstance(error, Lost) and not voice.first():
            return 0  # the first process tells what all have agreed on
        _say(f"{'' if isinstance(error, Interrupted) else 'error: '}{error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    except BrokenPipeError:  # whoever read our output has had enough
        _drop(sys.stdout)
        return 141
    except Exception as error:
        said = _in_words(error)
        if said is None:
            raise
        if "--debug" in words:
            traceback.print_exc()
        _drop(sys.stdout)  # which may be what is full
        _say(f"error: {said}")
        return 1
    return 0


def _in_words(error: Exception) -> str | None:
    """What the machine could not give; None for a fault of ours, which shows where it is."""
    if out_of_memory(error):
        return (
            f"memory ran out ({error or type(error).__name__}): use a smaller --batch or --size, "
            "fewer --workers, or a machine with more of it"
        )
    return of_system(error, "standard output", writing=False)


def _say(text: str) -> None:
    try:
        sys.stderr.write(f"{lines(worded(text))}\n")
        sys.stderr.flush()
    except OSError:  # nobody can read it
        _drop(sys.stderr)


def _drop(stream: TextIO) -> None:
    """Let what is left in `stream` go nowhere: Python would fail on it once more at its end."""
    with suppress(OSError, ValueError):  # it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help", "--help-all", "help"):
        sys.stdout.write(overview())
    elif argv[0] in ("-V", "--version"):
        sys.stdout.write(f"selftaught {__version__}\n")
    elif argv[0] == "pretrain":
        words = [word for word in argv[1:] if word.replace("_", "-") != DRY.flag]
        dry = len(words) < len(argv) - 1
        words, machines = _apart(words, FOR.flag)
        _pretrain(request(words), dry, machines)
    elif argv[0] == "methods":
        _methods(argv[1:])
    elif argv[0] == "curate":
        _curate(argv[1:])
    elif argv[0] == "search" and _is_pool(argv[1:]):
        _command("search pool", argv[1:])
    elif argv[0] in NAMES:
        _command(argv[0], argv[1:])
    else:
        hint = config.near(argv[0], NAMES, f"; known: {', '.join(NAMES)}")
        raise UserError(f"selftaught has no command {argv[0]!r}{hint}")


def _command(name: str, argv: Sequence[str]) -> None:
    """Run a command that is one function."""
    command = (COMMANDS | VERBS)[name]
    values = arguments(name, argv)
    check(name, values)
    if name == "check":  # from Python nothing is written unasked
        stem = Path(values["data"]).resolve().stem or "data"
        values.setdefault("out", Path("runs") / f"check-{stem}")
    voice.command_speaks()
    with voice.told_if_slow("loading PyTorch"):
        function = command.load()
    command.show(values, function(**values))


def _is_pool(argv: Sequence[str]) -> bool:
    """Whether a pool stands alone, which brings its encoder and data."""
    alone = len(argv) == 1 or (argv[1:2] and argv[1].startswith("-"))
    return bool(argv and alone) and (Path(argv[0]) / POOL).is_file()


def _curate(argv: Sequence[str]) -> None:
    """A verb of a pool, or what verbs there are."""
    verbs = [name.partition(" ")[2] for name in VERBS if name.startswith("curate ")]
    if not argv or argv[0] in ("-h", "--help", "--help-all", "help"):
        summaries = {verb: VERBS[f"curate {verb}"].signature.summary for verb in verbs}
        told = [wrap(text, f"  {verb:<12}", " " * 14) for verb, text in summaries.items()]
        parser = Parser(
            "selftaught curate VERB",
            CURATE,
            examples=CURATING,
            notes="\n".join(["verbs (each has --help), in their order:", *told, "", ""]),
        )
        parser.read([*argv, "--help"])
    elif argv[0] in verbs:
        _command(f"curate {argv[0]}", argv[1:])
    else:
        hint = config.near(argv[0], verbs, f"; known: {', '.join(verbs)}")
        raise UserError(f"selftaught curate has no verb {argv[0]!r}{hint}")


def overview() -> str:
    """What `selftaught --help` shows."""
    lines = [wrap(_summary(name), f"  {name:<12}", " " * 14) for name in NAMES]
    return Parser(
        "selftaught COMMAND",
        "Self-supervised learning: from a folder of unlabeled images to an encoder that can be "
        "trusted.",
        examples=(
            "selftaught demo",
            "selftaught methods --start",
            "selftaught check photos/",
            "selftaught pretrain photos/ --time 20m",
            "selftaught evaluate runs/simclr-photos labeled/",
            "selftaught compare runs/simclr-photos runs/dino-photos",
        ),
        notes="\n".join(["commands (each has --help):", *lines, "", ""]),
    ).format_help()


def _summary(name: str) -> str:
    if name == "methods":
        return LISTING
    if name == "curate":
        return CURATE
    if name == "pretrain":
        return config.signatures(None)["training"].summary
    return COMMANDS[name].signature.summary


# pretrain --------------------------------------------------------------------------------------


class Request(NamedTuple):
    """A training as it was asked for: what is absent keeps its default.

    named: whether the method was asked for by its name. second_sample, second_backbone: of a second
    modality that is of another kind.
    """

    method: str
    data: str
    backbone: dict[str, Any]
    options: dict[str, Any]
    training: dict[str, Any]
    named: bool
    sample: dict[str, Any]
    second_sample: dict[str, Any]
    second_backbone: dict[str, Any]


def request(argv: Sequence[str]) -> Request:
    """What `selftaught pretrain` was asked to do, by its words and the file of `--config`.

    Raises:
        UserError: what does not fit the signatures of the method, the backbone or `pretrain`.
    """
    named = not (argv and _is_data(argv))
    if not named:
        if not (os.path.exists(argv[0]) or "://" in argv[0]):
            raise UserError(f"{missing(Path(argv[0]))}, and no method is called {argv[0]}")
        kind = _asked(argv) or kinds.guess(argv[0], tuple(kinds.files()))
        argv = [PAIRS if _value(argv, "--second") else kinds.find(kind).method, *argv]
    by_word = bool(argv) and not argv[0].startswith("-")
    method = argv[0] if by_word else None
    if method is not None:
        methods.signature(method)
    if helps := {"-h", "--help", "--help-all", "--help_all"}.intersection(argv):
        everything = not helps <= {"-h", "--help"}
        kind = _kind(method, argv, by_word, {}) if method else "image"
        second = _second(method, argv, kind, {}) if method else None
        shown = _pretrain_parser(method, kind=kind, second=second)
        sys.stdout.write(shown.format_help(everything))
        raise SystemExit(0)
    file: dict[str, Any] = {"method": None, "data": None}
    path = _config_path(argv)
    content: dict[str, Any] = {}
    if path is not None:
        path = recipes.path_of(path)
        content = config.load(path)
        if method is None:
            _not_beside(path, str(content.get("method")), str(content.get("method")))
        file = config.validate(content, path, method)
    method = method or file["method"]
    if method is None:
        raise UserError(
            "selftaught pretrain needs DATA, or METHOD and then DATA, such as: "
            "selftaught pretrain simclr photos/"
        )
    kind = _kind(method, argv, by_word, file)
    second = _second(method, argv, kind, file)
    parser = _pretrain_parser(method, kind=kind, second=second)
    (data,), given = parser.read(argv[by_word:])
    if kind != "image":
        given["sample"]["kind"] = kind
    said = given["second_sample"].pop("kind", None)
    if said and not (_value(argv, "--second") or file.get("training", {}).get("second")):
        raise UserError(
            f"{SECOND_KIND.flag} {said} says what the second modality is, and none is named: name "
            "its data with --second"
        )
    if second is not None:
        given["second_sample"]["kind"] = second
    data = data or file["data"]
    if data is None:
        raise UserError(f"{parser.prog} needs DATA, such as: {parser.prog} photos/")
    if name := given["backbone"].get("name") or file.get("backbone", {}).get("name"):
        if not code.names(name):
            if kinds.find(kind).encoder == kinds.find("image").encoder:
                timm_names.check(name)
        elif path is not None and not given["backbone"].get("name"):
            _not_beside(path, name, f"--backbone {name}")
    mine = file.get("training", {}).get("augmentation")
    if path is not None and mine and not given["training"].get("augmentation"):
        _not_beside(path, mine, f"{method} --augmentation {mine}")
    if "training" in file:
        file["training"] = _as_long(file["training"], given["training"])
    backbone, own, training, *sides = (
        file.get(s, {}) | given[s]
        for s in ("backbone", "options", "training", "sample", "second_sample", "second_backbone")
    )
    if path is not None and not given["training"].keys() & {"start", "resume"}:
        config.repeatable(content, path)
        backbone = backbone if "weights" in given["backbone"] else config.at_hand(backbone, path)
    return Request(method, data, backbone, own, training, named, *sides)


def _asked(argv: Sequence[str]) -> str | None:
    """What --kind says."""
    return _value(argv, KIND.flag)


def _apart(argv: list[str], flag: str) -> tuple[list[str], str | None]:
    """The other words, and the value of an option that is no setting."""
    value = _value(argv, flag)
    if value is None:
        return argv, None
    at = next(i for i, word in enumerate(argv) if word.partition("=")[0] == flag)
    return argv[:at] + argv[at + (1 if "=" in argv[at] else 2) :], value


def _value(argv: Sequence[str], flag: str) -> str | None:
    """What an option says that other options depend on."""
    for word, after in zip(argv, [*argv[1:], ""]):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag and (equals or after):
            return value if equals else after
    return None


def _second(method: str, argv: Sequence[str], kind: str, file: dict[str, Any]) -> str | None:
    """What samples of a second modality are: as --second-kind or the file says, or as its data
    looks; None where there is none, or none of another kind."""
    data = _value(argv, "--second") or file.get("training", {}).get("second")
    if data is None:
        return None
    word = _value(argv, SECOND_KIND.flag) or (file.get("second_sample") or {}).get("kind")
    return config.second_kind(methods.signature(method), kind, data, word)


def _kind(method: str, argv: Sequence[str], first: int, file: dict[str, Any]) -> str:
    """What samples are: as --kind or the file says, or as the data looks."""
    if name := _asked(argv):
        return kinds.find(name).word
    if file.get("sample"):
        return str(file["sample"]["kind"])
    words = argv[first : first + 1]
    data = words[0] if words and not words[0].startswith("-") else file.get("data")
    paired = "other" in methods.signature(method) and _value(argv, "--second")
    return kinds.guess(data, tuple(kinds.files()) if paired else needs_of(method)["kinds"])


def _as_long(file: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A file's settings without what says how long, where the command line says it."""
    said = {n for n in ("epochs", "time", "max_steps") if given.get(n) is not None}
    if not said:
        return file
    gone = {"time", "max_steps"}
    if "time" in said or file.get("max_steps") is not None:  # of which a run's epochs are made
        gone.add("epochs")
    return {n: v for n, v in file.items() if n not in gone}


def _is_data(argv: Sequence[str]) -> bool:
    """Whether the first word is DATA, and no method: something that is there, or a path, or a word
    that stands alone and is near to no method's name."""
    word, known = argv[0], [*methods.files(), *methods.plugins()]
    if word in known or code.names(word) or word.startswith("-"):
        return False
    alone = len(argv) == 1 or argv[1].startswith("-")
    mistyped = difflib.get_close_matches(word, known, 1, 0.6)
    return os.path.exists(word) or "/" in word or os.sep in word or (alone and not mistyped)


def _not_beside(settings: str, name: str, word: str) -> None:
    """Refuse to run code of a run folder that nobody has named, and so perhaps not looked at."""
    place, file = Path(code.split(name)[0]), Path(settings).resolve()
    inside = place.suffix == ".py" and place.resolve().is_relative_to(file.parent)
    if inside and file.name == "run.yaml":
        raise UserError(
            f"{settings} is to run {place}, which lies beside it: read it, then name it, as in "
            f"selftaught pretrain {word} --config {settings}"
        )


def _config_path(argv: Sequence[str]) -> str | None:
    """The file of `--config`, on which depends what other options there are."""
    for word, after in zip(argv, [*argv[1:], ""]):
        if word == "--config" and after and not after.startswith("-"):
            return after
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


def _pretrain_parser(
    method: str | None, alone: bool = False, kind: str = "image", second: str | None = None
) -> Parser:
    """The options of a method; without one, those that all have; `alone`, its own and no others.

    kind, second: of the samples, and of those of a second modality, each of which has options and
    an encoder of its own.
    """
    every, samples_of = config.signatures(method, kind, second), kinds.find(kind)
    speak_of(samples_of.one, samples_of.many, samples_of.blank_words)
    training = every["training"]
    needs = needs_of(method) if method else {"kinds": "any", "backbone": None}
    own_backbone = kinds.find(kind).backbone if needs["kinds"] == "any" else None
    own_backbone = own_backbone or needs["backbone"]
    shown = {
        "name": ("backbone", own_backbone or "the method's"),
        "size": ("size", "fits the images"),
    }
    own = options(config.settable(every["options"]), "options") if method else []
    taken = {o.word for o in own}  # MAE says how a ViT pools: its backbone is not asked again
    backbone = [
        Option(p, "backbone", *shown.get(p.name, (p.name,)))
        for p in config.settable(every["backbone"])
        if p.name not in taken
    ]
    taken |= {o.word for o in backbone}
    samples = [o for o in options(every["sample"].parameters, "sample") if o.word not in taken]
    settings = options(config.settable(training), "training")
    views = [o for o in settings if o.word in config.VIEWS]
    title, about = "views, instead of the method's", ", ".join(o.flag for o in views)
    if method and needs_of(method)["views"] == "own":
        title, about = f"views, which {method} keeps: it refuses these", ""
    groups = [
        Group("training", [o for o in settings if o.word not in config.VIEWS]),
        Group(title, views, about),
        Group("samples", [KIND, *samples]),
        Group("backbone", backbone),
        *_of_second(every, taken, second),
        Group("the command", [*options([CONFIG]), DRY, FOR]),
    ]
    data = Positional("data", DATA)
    if method is None:
        names = wrap(", ".join([*methods.files(), *methods.plugins()]), "  ", "  ")
        return Parser(
            "selftaught pretrain",
            training.summary,
            [Positional("method", "what to train, with options of its own; see below"), data],
            groups,
            EXAMPLES,
            f"methods (selftaught pretrain METHOD --help shows what each takes):\n{names}\n\n",
        )
    ours = method in methods.files()
    title = (
        f"{method}, fitted to the data; its paper's in brackets" if ours else methods.short(method)
    )
    others = f"training and the backbone have options too: selftaught pretrain {method} --help\n\n"
    return Parser(
        f"selftaught pretrain {method}",
        f"{every['options'].name}: {every['options'].summary}\n"
        f"{module_doc(methods.file_of(method))}",
        [data],
        [Group(title, own), *([] if alone else groups)],
        _examples(method, own_backbone or "", samples_of),
        others if alone else "",
    )


def _of_second(every: dict[str, Signature], taken: set[str], kind: str | None) -> list[Group]:
    """The options of a second modality, each behind `second_`."""
    known = replace(SECOND_KIND.parameter, main=kind is not None)
    found = [SECOND_KIND._replace(parameter=known)]
    for side in config.SIDES:
        section = config.SECOND + side
        for p in config.settable(every[section]) if section in every else ():
            word = "second_backbone" if p.name == "name" else config.SECOND + p.name
            shown = {"name": kind and kinds.find(kind).backbone, "size": "fits the data"}
            if word not in taken | {o.word for o in found}:
                found.append(Option(p, section, word, shown.get(p.name)))
    return [Group("second modality", found)]


def _examples(method: str, backbone: str, kind: type[kinds.Kind]) -> list[str]:
    """`EXAMPLES` of a method for samples of a kind, which may need labels or another run."""
    needs = needs_of(method)
    data = "labeled/" if needs["labels"] else folder()
    more = " --start runs/simclr-photos" if needs["learned"] else ""
    more += f" --teacher {needs['teacher']}" if needs["teacher"] else ""
    usual = EXAMPLES if kind.photos else [e.replace(" --size 96", "") for e in EXAMPLES]
    own = [e.replace("simclr", method).replace("resnet18", backbone) for e in usual]
    return [e.replace(" photos/", f" {data}{more}") for e in own]


def needs_of(method: str) -> dict[str, Any]:
    """The `Needs` of a method, by name, read from its source."""
    usual = read_class(HERE / "method.py", name="Needs").parameters
    own = read_call(methods.file_of(method), methods.signature(method).name, "needs")
    return {p.name: p.default for p in usual} | own


def _pretrain(asked: Request, dry: bool, machines: str | None) -> None:
    voice.command_speaks()
    if machines is not None and not dry:
        raise UserError(f"--for {machines} tells what a training would need there: add --dry-run")
    from selftaught.engine.restarts import settled
    from selftaught.engine.settings import Settings

    settings = settled(Settings(**asked.training))
    if voice.first():  # it may have begun to write when the others get here
        training(settings, asked.backbone.get("weights"))
    # wrong data is told before torch is imported
    with voice.told_if_slow("opening %s", asked.data):
        kind = kinds.made(asked.sample)
        samples = settings.open(asked.data, asked.backbone.get("channels", 3), kind)
    options = asked.options
    if asked.second_sample:
        from selftaught.engine.second import opened

        second = opened(settings, asked.second_sample, asked.second_backbone)
        options = options | {"other": second}

    with voice.told_if_slow("loading PyTorch"):
        from selftaught.engine import tries
        from selftaught.engine.elsewhere import Machines
        from selftaught.engine.run import Run

    on = None if machines is None else Machines.of(machines)
    method = asked.method if asked.named or settings.second is not None else None
    given = (method, asked.data, settings, asked.backbone, options, samples)
    with voice.told_if_slow("building %s", asked.method):
        if dry and settings.try_:
            _show({}, tries.preview(*given))
            return
        plan = tries.decided(*given)
    if dry:
        _show({}, Run(plan).preview(on))
        return
    done = Run(plan).complete()
    if voice.first():
        run, data = shlex.quote(str(done.folder)), shlex.quote(asked.data)
        # what can its scores be made on?
        unlike = samples.labels is None or done.method.needs.labels
        labeled = f"LABELED_{kind.many.upper()}" if unlike else data
        if settings.second is not None:
            others = f"--second {shlex.quote(settings.second)} --test OTHERS --second-test OTHERS"
            labeled = f"{data} {others}"
        sys.stdout.write(
            f"The encoder is in {run}; {run}/report.html shows what it learned. Next:\n"
            f"  selftaught evaluate {run} {labeled}\n"
            f"  selftaught embed {run} {data}\n"
            f"  in Python: encoder = selftaught.load({str(done.folder)!r})\n"
            + (f"The encoder of the second modality is in {run}/second.\n" * bool(settings.second))
        )


EXAMPLES = (
    "selftaught pretrain simclr photos/",
    "selftaught pretrain simclr photos/ --time 20m",
    "selftaught pretrain simclr photos/ --backbone resnet18 --size 96 --epochs 200 --batch 128",
    "selftaught pretrain simclr photos/ --out runs/first --resume",
    "selftaught pretrain --config runs/first/run.yaml --seed 1",
)


# commands that are one function ----------------------------------------------------------------


class Command(NamedTuple):
    """A command that is one function.

    file, function: what runs. show: prints its result, given what it was called with.
    examples: end of the help.
    """

    file: str
    function: str
    show: Callable[[dict[str, Any], Any], None]
    examples: tuple[str, ...]

    @property
    def signature(self) -> Signature:
        return read_function(HERE / self.file, self.function)

    def load(self) -> Callable[..., Any]:
        module = "selftaught." + self.file.removesuffix(".py").replace("/", ".")
        return getattr(import_module(module.removesuffix(".__init__")), self.function)


def arguments(name: str, argv: Sequence[str]) -> dict[str, Any]:
    """What the function of a command is to be called with.

    Raises:
        UserError: what does not fit its signature.
    """
    command = (COMMANDS | VERBS)[name]
    needed = [p for p in command.signature.parameters if p.required]
    optional = [p for p in command.signature.parameters if not p.required and p.type is not None]
    parser = Parser(
        f"selftaught {name}",
        command.signature.summary,
        [Positional(p.name, p.doc, get_origin(p.type) is tuple) for p in needed],
        [Group("settings", options(optional))],
        command.examples,
    )
    words, given = parser.read(argv)
    for parameter, word in zip(needed, words, strict=True):
        if not word:
            raise UserError(f"{parser.prog} needs {parameter.name.upper()}: {parameter.doc}")
    return dict(zip([p.name for p in needed], words, strict=True)) | given[""]


def _show(_: dict[str, Any], result: Any) -> None:
    from selftaught.terminal import Terminal

    Terminal().print(result)


def _show_plain(_: dict[str, Any], result: Any) -> None:
    sys.stdout.write(f"{lines(str(result))}\n")


def _show_check(values: dict[str, Any], report: Any) -> None:
    _show(values, report.render())
    if report.bad:
        data, listed = shlex.quote(values["data"]), shlex.quote(str(report.quarantine))
        asked = f" --kind {values['kind']}" if values.get("kind") else ""
        sys.stdout.write(
            "Training skips unreadable files as it meets them; to leave these out from the start:\n"
            f"  selftaught pretrain {report.kind.method} {data}{asked} --quarantine {listed}\n"
        )


def _show_pool(_: dict[str, Any], pool: Any) -> None:
    sys.stdout.write(f"{pool}\n" if pool is not None else "")


def _show_frames(_: dict[str, Any], made: Any) -> None:
    sys.stdout.write(f"{made}\nNext:\n  selftaught pretrain motion {shlex.quote(str(made.out))}\n")


def _show_index(values: dict[str, Any], listed: Any) -> None:
    named = values["data"] if listed.beside else str(listed.folder)
    sys.stdout.write(
        f"{listed}\nNext (the index is {'found beside the shards' if listed.beside else 'DATA'}):\n"
        f"  selftaught pretrain {listed.kind.method} {shlex.quote(named)}\n"
    )


def _show_classify(values: dict[str, Any], made: Any) -> None:
    if values.get("json"):
        found = {"folder": str(made.folder), **made.classifier.plain()}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    _show(values, made)
    sys.stdout.write(f"Next:\n  selftaught predict {shlex.quote(str(made.folder))} {folder()}\n")


def _show_embed(_: dict[str, Any], found: Any) -> None:
    if found.shape is None:
        sys.stdout.write(f"{found.out} is there already: remove it to make it anew\n")
        return
    rows, *shape = found.shape
    sys.stdout.write(f"{rows:,} x {' x '.join(map(str, shape))} features are in {found.out}\n")


def _show_report(_: dict[str, Any], page: Path) -> None:
    sys.stdout.write(f"{page}\n")


def _show_reconstruct(_: dict[str, Any], pages: list[Path]) -> None:
    sys.stdout.write("".join(f"{page}\n" for page in pages))


def _show_export(_: dict[str, Any], done: Any) -> None:
    folder = shlex.quote(str(done.folder))
    sys.stdout.write(f"{done.check()}\n{folder}/README.md says how to load it\n")


def _show_demo(_: dict[str, Any], out: Path) -> None:
    if voice.first():
        run = shlex.quote(str(out))
        sys.stdout.write(
            f"{run}/report.html shows what it learned. Next, with images of your own:\n"
            "  selftaught check photos/\n"
            "  selftaught pretrain simclr photos/\n"
        )


COMMANDS = {
    "demo": Command(
        "demo/__init__.py",
        "demo",
        _show_demo,
        ("selftaught demo", "selftaught demo --epochs 10 --out runs/short"),
    ),
    "check": Command(
        "feed/check.py",
        "check",
        _show_check,
        ("selftaught check photos/", "selftaught check photos/ --out checked/ --no-full"),
    ),
    "frames": Command(
        "data/video/frames.py",
        "frames",
        _show_frames,
        (
            "selftaught frames clips/ frames/",
            "selftaught frames clips/ frames/ --every 10 --side 160",
        ),
    ),
    "index": Command(
        "feed/indexing.py",
        "index",
        _show_index,
        (
            "selftaught index shards/",
            "selftaught index shards/ --out idx/",
        ),
    ),
    "evaluate": Command(
        "engine/score.py",
        "evaluate_command",
        _show,
        (
            "selftaught evaluate runs/simclr-photos labeled/",
            "selftaught evaluate resnet18 train/ --test test/ --k 5",
            "selftaught evaluate resnet18 train/ --probes knn linear lowshot cluster",
            "selftaught evaluate resnet18 streets/ --probes segment --masks masks/ --ignore 0,255",
        ),
    ),
    "embed": Command(
        "evaluate/commands.py",
        "embed_command",
        _show_embed,
        (
            "selftaught embed runs/simclr-photos photos/",
            "selftaught embed runs/simclr-photos photos/ --out features.parquet",
            "selftaught embed runs/simclr-photos photos/ --local --out places.npy",
        ),
    ),
    "search": Command(
        "index/commands.py",
        "search_command",
        _show,
        (
            "selftaught search runs/simclr-photos photos/ --query a.jpg b.jpg",
            "selftaught search runs/simclr-photos photos/ --duplicates --out same.html same.csv",
            "selftaught search runs/simclr-photos photos/ --outliers",
        ),
    ),
    "classify": Command(
        "engine/classify.py",
        "classify_command",
        _show_classify,
        (
            "selftaught classify runs/simclr-photos labeled/",
            "selftaught classify resnet50 labeled/ --test test/ --finetune",
        ),
    ),
    "predict": Command(
        "classifier/predicting.py",
        "predict_command",
        _show_plain,
        (
            "selftaught predict runs/simclr-photos photos/",
            "selftaught predict classifier-labeled photos/ --out predictions.parquet --min 0.9",
        ),
    ),
    "weights": Command(
        "backbones/weights/told.py",
        "weights_command",
        _show_plain,
        (
            "selftaught weights dinov2_vits14_pretrain.pth",
            "selftaught weights facebook-dinov2-small/",
        ),
    ),
    "report": Command(
        "report/commands.py",
        "report_command",
        _show_report,
        (
            "selftaught report runs/simclr-photos",
            "selftaught report runs/simclr-photos --data moved/photos/ --images 5000",
        ),
    ),
    "compare": Command(
        "report/commands.py",
        "compare_command",
        _show,
        ("selftaught compare runs/simclr-photos runs/dino-photos --out both.html",),
    ),
    "reconstruct": Command(
        "engine/reconstruct.py",
        "reconstruct",
        _show_reconstruct,
        (
            "selftaught reconstruct runs/mae-photos photos/a.jpg photos/b.jpg",
            "selftaught reconstruct runs/mae-photos photos/a.jpg --out masked/ --seed 1",
        ),
    ),
    "segment": Command(
        "engine/segment.py",
        "segment",
        _show_reconstruct,
        (
            "selftaught segment runs/stego-photos photos/a.jpg photos/b.jpg",
            "selftaught segment runs/stego-photos photos/a.jpg --out masks/ --no-crf",
        ),
    ),
    "export": Command(
        "classifier/graph.py",
        "export_command",
        _show_export,
        (
            "selftaught export runs/simclr-photos --to timm --license mit",
            "selftaught export runs/simclr-photos --to onnx --fp16 --out deployed/",
            "selftaught export runs/simclr-photos/model --to onnx",
        ),
    ),
}

VERBS = {
    "curate scan": Command(
        "curate/commands.py",
        "scan",
        _show_pool,
        (
            "selftaught curate scan photos/ --out pool/",
            "selftaught curate scan photos/ more/ shards/ --out pool/ --part 0/8",
        ),
    ),
    "curate fetch": Command(
        "curate/commands.py",
        "fetch_command",
        _show_pool,
        (
            "selftaught curate fetch urls.txt --out pool/ --contact https://lab.example/crawl",
            "selftaught curate fetch pages.warc.gz --out pool/",
        ),
    ),
    "curate filter": Command(
        "curate/commands.py",
        "filter_command",
        _show_pool,
        ("selftaught curate filter pool/", "selftaught curate filter pool/ --min-side 128"),
    ),
    "curate embed": Command(
        "curate/commands.py",
        "embed_command",
        _show_pool,
        (
            "selftaught curate embed pool/ --model runs/simclr-photos",
            "selftaught curate embed pool/ --model resnet50 --part 3/16",
        ),
    ),
    "curate dedup": Command(
        "curate/commands.py",
        "dedup_command",
        _show_pool,
        (
            "selftaught curate dedup pool/",
            "selftaught curate dedup pool/ --threshold 0.6 --k 64 --against test/",
        ),
    ),
    "curate retrieve": Command(
        "curate/commands.py",
        "retrieve_command",
        _show_pool,
        (
            "selftaught curate retrieve pool/ --query labeled/",
            "selftaught curate retrieve pool/ --query labeled/ --clusters 1000 --per-cluster 100",
        ),
    ),
    "curate balance": Command(
        "curate/commands.py",
        "balance_command",
        _show_pool,
        (
            "selftaught curate balance pool/ --keep 10000",
            "selftaught curate balance pool/ --keep 10000 --clusters 2000 200 20",
        ),
    ),
    "curate report": Command(
        "curate/commands.py",
        "report",
        _show_report,
        ("selftaught curate report pool/", "selftaught curate report pool/ --shown 50"),
    ),
    "curate restore": Command(
        "curate/commands.py",
        "restore",
        _show_pool,
        ("selftaught curate restore pool/ balance",),
    ),
    "curate run": Command(
        "curate/commands.py",
        "run",
        _show_report,
        ("selftaught curate run curate.yaml",),
    ),
    "search pool": Command(
        "curate/commands.py",
        "search_command",
        _show,
        ("selftaught search pool/ --query a.jpg b.jpg",),
    ),
}
"""Those of two words: of a pool."""


# methods ---------------------------------------------------------------------------------------


def _methods(argv: Sequence[str]) -> None:
    parser = Parser(
        "selftaught methods",
        LISTING,
        [Positional("method", "one of them, to see its parameters")],
        [Group("settings", options([START, JSON, ROWS]))],
        (
            "selftaught methods",
            "selftaught methods --start",
            "selftaught methods simclr",
            "selftaught methods byol --recipes",
        ),
    )
    (name,), given = parser.read(argv)
    if given[""].get("recipes"):
        if name is not None:
            methods.signature(name)
        _recipes(name, given[""].get("json", False))
        return
    if given[""].get("start"):
        if name is not None:
            methods.signature(name)
        _starts(name, given[""].get("json", False))
        return
    names = [*methods.files(), *methods.plugins()] if name is None else [name]
    about = [_about(n) for n in names if n == name or _can_be_read(n)]
    if given[""].get("json"):
        text = json.dumps(about if name is None else about[0], indent=2, default=str)
        sys.stdout.write(text + "\n")
    elif name is not None:
        sys.stdout.write(_pretrain_parser(name, alone=True).format_help(everything=True))
    else:
        _table(about)


def _starts(method: str | None, as_json: bool) -> None:
    """What to type for which data, of one method or of all, with what was measured."""
    found = [s for s in start.starts() if method in (None, s["method"])]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for s in found:
        given = f"{start.told(s)}, on {s['images']}"
        cost = f"{start.pace(s)} CPU seconds for 1,000 images seen, {s['seen']:,} of them"
        head = f"{s['data']}: {s['method']}, {s['what']}"
        about = [wrap(text, "  ", "    ") for text in (given, cost, f"{s['result']}, by")]
        lines = [wrap(head, "", "  "), f"    {s['command']}", *about, f"    {s['measured']}"]
        sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.write(
        wrap(start.ABOUT) + "\n"
        if found
        else f"{method} is not among those to start with: selftaught methods --start\n"
    )


def _recipes(method: str | None, as_json: bool) -> None:
    """Rows of papers' tables, of one method or of all, with what was published."""
    every = [recipes.about(name) for name in recipes.files()]
    found = [r for r in every if method in (None, r["method"])]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for r in found:
        told = ", ".join(f"{what} {figure}" for what, figure in r["published"].items())
        title = r["title"].partition(", http")[0]
        sys.stdout.write(f"{r['name']}\n  {title}; {r['row']}\n  published: {told}\n")
    if not found:
        sys.stdout.write(f"there is no recipe of {method}: its defaults are its paper's\n")


def _can_be_read(name: str) -> bool:
    """Whether a method that a package has announced is there; a broken one ends no listing."""
    try:
        methods.signature(name)
    except UserError as error:
        sys.stderr.write(f"warning: {error}\n")
        return False
    return True


def _about(name: str) -> dict[str, Any]:
    signature = methods.signature(name)
    file = methods.file_of(name)
    return {
        "name": name,
        "family": file.parent.name if name in methods.files() else "from elsewhere",
        "class": signature.name,
        "summary": signature.summary,
        "paper": module_doc(file).rstrip("."),
        "backbone": needs_of(name)["backbone"],
        "parameters": [
            {"name": p.name, "type": describe(p.type), "default": p.default, "doc": p.doc}
            for p in config.settable(signature)
        ],
    }


def _table(about: list[dict[str, Any]]) -> None:
    """The methods by family; whole lines where a program reads them."""
    from rich.table import Table
    from rich.text import Text

    from selftaught.terminal import Terminal

    console = Terminal(width=None if sys.stdout.isatty() else 1000)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for family in sorted({m["family"] for m in about}):
        table.add_row(Text(family, "bold"))
        for m in (m for m in about if m["family"] == family):
            table.add_row(f"  {m['name']}", m["summary"], Text(m["paper"], "dim"))
    console.print(table)
