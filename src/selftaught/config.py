"""run.yaml: what a run was given, as a file that repeats it. Read and written without torch.

method: simclr
data: photos/
sample: {kind: sound}                   # and options of the kind; images without it
backbone: {name: resnet50, size: 64}    # or a plain name
second_sample: {kind: text}             # of a second modality that is of another kind
second_backbone: {name: bert_tiny}      # that encodes it
options: {temperature: 0.2}             # of the method
training: {epochs: 100, batch: 256}     # of `pretrain`
initial: {weights: sha256 12ab}         # of weights made in Python; see `repeatable`
chosen: {lr: [0.0001, 0.3]}             # by the recipe `auto`, and the paper's; not read
made_by: {selftaught: 0.1.0}            # for the reader; not read
"""

import difflib
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from selftaught import kinds, methods
from selftaught.errors import UserError
from selftaught.signature import OBJECTS, Parameter, Signature, current, read_class, read_object

HERE = Path(__file__).parent
WORDS = ("method", "data")
IGNORED = "made_by"
SECTIONS = {
    "sample": "what a sample is, and how it is read",
    "backbone": "parameters of the encoder",
    "second_sample": "what a sample of the second modality is",
    "second_backbone": "parameters of its encoder",
    "options": "parameters of the method",
    "training": "parameters of pretrain",
    "initial": "weights that were made in Python, which this file does not hold",
    "chosen": "by the recipe `auto`, each beside the paper's; not read",
    "paper": "row of a table that these settings are of; not read",
    IGNORED: "not read",
}
SECOND = "second_"
"""What the words of a second modality begin with."""
SIDES = ("sample", "backbone")
VIEWS = (
    "crop_scale",
    "flips",
    "quarter_turns",
    "color_jitter",
    "grayscale",
    "gaussian_blur",
    "random_erasing",
    "augmentation",
)
"""Parameters of pretrain that change the views of methods which want these alike."""
START = "start.safetensors"
"""Beside the settings of a run that began with weights: those of its encoder."""
RESERVED = ("config", "data", "debug", "dry_run", "help", "method")
"""Words of the command line that are no parameters."""


def signatures(
    method: str | None, kind: str = "image", second: str | None = None
) -> dict[str, Signature]:
    """What each section of a configuration may hold; no options without a method.

    Args:
        method: its name.
        kind: of the samples, which tells the encoder.
        second: kind of a second modality, where that has sections of its own; see `apart`.
    """
    found = dict(zip(SIDES, _side(kind)))
    if second is not None:
        found |= zip((SECOND + side for side in SIDES), _side(second))
    found["training"] = read_class(HERE / "engine" / "settings.py", name="Settings")
    if method is not None:
        found["options"] = methods.signature(method)
        _apart(found)
    return found


def _side(kind: str) -> tuple[Signature, Signature]:
    """What samples of a kind, and their encoder, may be given."""
    module, _, label = kinds.find(kind).encoder.partition(":")
    encoder = HERE.joinpath("backbones", *module.split(".")).with_suffix(".py")
    return read_object(kinds.find(kind)), read_class(encoder, name=label)


def second_kind(method: Signature, kind: str, data: Any, asked: str | None) -> str | None:
    """The kind of a second modality that has an encoder of its own; None where both are images,
    whose second network is like the first.

    Args:
        method: that is to learn from both.
        kind: of the first.
        data: of the second.
        asked: what it is, where somebody says it.

    Raises:
        UserError: the method compares two images alone.
    """
    if "pair" not in method:  # which is told where the data is paired
        return None
    word = kinds.find(asked or kinds.guess(data, tuple(kinds.files()), beside=True)).word
    if kind == word == "image":
        return None
    if "other" not in method:
        raise UserError(
            f"{method.name} compares two images of a thing, and the data is taken for {kind} and "
            f"{word}: take infonce, vicreg, dcca or ace, or say what it is with --second-kind image"
        )
    return word


def _apart(every: dict[str, Signature]) -> None:
    """Refuse a method whose parameters are called as settings are, which could mean either."""
    for parameter in every["options"].parameters:
        if parameter.name in every["training"] or parameter.name in RESERVED:
            raise UserError(
                f"{every['options'].name} has a parameter called {parameter.name}, and so has "
                "pretrain: give the method's another name, or train an instance of the method"
            )


def sort_out(
    given: dict[str, Any],
    method: Signature,
    built: bool = False,
    kind: str = "image",
    second: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Words of one call by the section that they belong to, each of its parameter's type.

    A method's parameter comes before one of the backbone of that name, as on the command line: MAE
    says how its ViT pools.

    Args:
        given: of `pretrain`, such as {"epochs": 3, "backbone": "resnet18", "temperature": 0.2}.
        method: what the method takes.
        built: whether it is an instance already, whose parameters nobody gives any more.
        kind: of the samples.
        second: of those of a second modality; see `signatures`.

    Raises:
        UserError: a word is none of them, or a value is of another type.
    """
    every = signatures(None, kind, second) | {"options": method}
    if not built:
        _apart(every)
    known = {"backbone": ("backbone", every["backbone"]["name"])}
    for section in ("training", "options", "backbone", "sample"):
        for parameter in every[section].parameters:
            if parameter.name not in ("name", "backbone"):
                known.setdefault(parameter.name, (section, parameter))
    for section in (SECOND + side for side in SIDES if SECOND + side in every):
        for parameter in every[section].parameters:
            word = "second_backbone" if parameter.name == "name" else SECOND + parameter.name
            known.setdefault(word, (section, parameter))
    found: dict[str, dict[str, Any]] = {section: {} for section in every}
    for word, value in current(given, known).items():
        if word not in known:
            hint = near(word, known, f"; {method.name} takes {', '.join(map(str, known))}")
            raise UserError(f"neither pretrain nor {method.name} has a parameter {word!r}{hint}")
        section, parameter = known[word]
        if section == "training":  # which looks at its values itself: some may be objects
            found[section][word] = value
        elif parameter.type is None or (parameter.name == "name" and not isinstance(value, str)):
            raise UserError(
                f"{word} is an object, which run.yaml cannot hold: name it where it has a name "
                f'(backbone="resnet18"), or build the method, {method.name}(...), and train that'
            )
        else:
            found[section][parameter.name] = convert(parameter, value, word)
    return found


def repeatable(content: dict[str, Any], where: str | Path) -> None:
    """Refuse the file of a run that began with weights which settings cannot make again."""
    initial = content.get("initial")
    if initial:
        weights = initial.get("weights", "unknown") if isinstance(initial, dict) else initial
        raise UserError(
            f"{where}: this run began with weights that were made in Python ({weights}), which a "
            "file of settings does not hold: repeat it in Python, begin with the weights of a run "
            "(--start), or take `initial` out of the file to begin with fresh ones"
        )


def settable(signature: Signature) -> list[Parameter]:
    """The parameters that a file or a command line can give."""
    return [p for p in signature.parameters if p.type is not None and not p.from_data]


def load(path: str | Path) -> dict[str, Any]:
    """The content of a configuration file, as it stands there; see `validate`.

    Raises:
        UserError: it cannot be read, is not YAML, or holds anything but plain values.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except OSError as error:
        raise UserError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the configuration {path} is not UTF-8 text") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the configuration {path} is not plain YAML: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"the configuration {path} must hold settings such as `method: simclr`, "
            f"got {type(content).__name__ if content is not None else 'nothing'}"
        )
    return content


def validate(
    content: dict[str, Any], where: str | Path, method: str | None = None
) -> dict[str, Any]:
    """`content` with each value of its parameter's type; what is not given stays absent.

    Args:
        content: as `load` returns it.
        where: name of the file, for messages.
        method: instead of the one in `content`.

    Returns:
        method and data, None where absent; sample, backbone, options and training as dictionaries,
        and where there is one those of a second modality.
    """
    kind = str((content.get("sample") or {"kind": "image"}).get("kind", "image"))
    second = content.get("second_sample")
    second = str(second.get("kind", "image")) if isinstance(second, dict) else None
    every = signatures(None, kind, second)
    for key in content:
        if key not in (*WORDS, *SECTIONS):
            home = next((s for s, signature in every.items() if key in signature), None)
            hint = f": it belongs under `{home}:`" if home else near(key, [*WORDS, *SECTIONS])
            raise UserError(f"{where}: {key!r} is not a setting{hint}")
    found: dict[str, Any] = {}
    for key in WORDS:
        value = found[key] = content.get(key)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{where}: {key} must be text, got {value!r}")
    found["method"] = method = method or found["method"]
    if method is not None:
        try:
            every = signatures(method, kind, second)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    beside = [SECOND + side for side in SIDES if second is not None or SECOND + side in content]
    for section in (*SIDES, *beside, "options", "training"):
        given = content.get(section)
        if section.endswith("backbone") and isinstance(given, str):
            given = {"name": given}
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise UserError(f"{where}: {section} must hold the {SECTIONS[section]}, got {given!r}")
        if section not in every:
            if given:
                need = "a method" if section == "options" else "a second_sample"
                raise UserError(f"{where}: {section} need {need} that they belong to")
            found[section] = {}
            continue
        known = {p.name: p for p in settable(every[section])}
        found[section] = {}
        for key, value in current(given, known).items():
            if key in every[section] and every[section][key].from_data:
                continue
            if section.endswith("sample") and key == "kind":
                found[section][key] = kind if section == "sample" else second
                continue
            if key in OBJECTS and str(value).startswith("<"):  # which training says it cannot have
                found[section][key] = value
                continue
            if key not in known:
                of = method if section == "options" else section
                hint = near(key, known, f"; see selftaught pretrain {method or 'METHOD'} --help")
                raise UserError(f"{where}: {of} has no setting {key!r}{hint}")
            found[section][key] = convert(known[key], value, f"{where}: {section}.{key}")
    return found


def at_hand(image: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Parameters of the backbone of a run that is repeated, which may outlive its weights' file.

    Args:
        image: as the settings at `path` have them; where their file or folder of weights has gone,
            the copy that the run kept takes its place.
        path: of the run's settings.
    """
    weights, kept = image.get("weights"), Path(path).parent / START
    place = Path(str(weights).removeprefix("local-dir:"))
    named = weights is None or str(weights).startswith("hf-hub:")
    if named or place.exists() or not kept.is_file():
        return image
    return image | {"weights": kept}


def convert(parameter: Parameter, value: Any, called: str) -> Any:
    """`value` as the parameter's type; an error names it as the user `called` it."""
    try:
        return parameter.parse(value)
    except UserError as error:
        raise UserError(called + str(error).removeprefix(parameter.name)) from error


def near(word: Any, known: Iterable[str], otherwise: str = "") -> str:
    """`: did you mean X?`, or `otherwise` where nothing known is near."""
    known, word = list(known), str(word)
    found = [k for k in known if len(word) > 3 and k.startswith(word)]
    found += difflib.get_close_matches(word, known, 1, 0.6)
    return f": did you mean {found[0]}?" if found else otherwise


def dump(content: dict[str, Any]) -> str:
    """A configuration as YAML in a stable order, each parameter beside what it means."""
    method = content.get("method")
    kind = (content.get("sample") or {}).get("kind", "image")
    second = (content.get("second_sample") or {}).get("kind")
    try:
        every = signatures(method, kind, second)
    except UserError:  # a method whose source is not at hand: nothing is said of its parameters
        every = signatures(None, kind, second)
    lines = ["# To repeat this run: selftaught pretrain --config THIS_FILE"]
    if content.get("initial"):
        lines = ["# This run began with weights that no file holds: see `initial`."]
    lines += [f"{key}: {_inline(content[key])}" for key in WORDS if content.get(key) is not None]
    for section, meaning in SECTIONS.items():
        given = content.get(section)
        if isinstance(given, str):
            given = {"name": given}
        if not given:
            continue
        docs = {p.name: p.doc for p in every[section].parameters} if section in every else {}
        lines += ["", f"{section}:  # {meaning}"]
        for key, value in given.items():
            comment = f"  # {docs[key]}" if docs.get(key) else ""
            lines.append(f"  {_inline(key)}: {_inline(value)}{comment}")
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    """A plain value on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    value = str(value) if isinstance(value, Path) else value
    # in a list, so that what means something there is quoted; breaks of lines only fit in quotes
    quoted = '"' if isinstance(value, str) and not value.isprintable() else None
    text = yaml.safe_dump(
        [value], default_flow_style=True, default_style=quoted, allow_unicode=True, width=10**9
    )
    return text.removeprefix("[").removesuffix("]\n")


class _Loader(yaml.SafeLoader):
    """Plain values alone, no aliases (a few lines of them grow without bound), each key once."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases are not allowed: write the value", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [k.value for k, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)
