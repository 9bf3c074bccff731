"""The second modality of a training that is to be built: what its data tells of its encoder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftaught import choose, config, kinds
from selftaught.choose import Facts
from selftaught.chosen import Chosen, of
from selftaught.data import Samples, open_data
from selftaught.data.labels import without_labels
from selftaught.engine import choosing
from selftaught.engine.build import Second, fitting_size
from selftaught.engine.restore import NOT_ITS
from selftaught.engine.settings import Settings
from selftaught.export.facts import SECOND, SETTINGS
from selftaught.method import Needs
from selftaught.nouns import going_on
from selftaught.sides import short


def opened(settings: Settings, sample: dict[str, Any], backbone: dict[str, Any]) -> Second:
    """The second modality of a training, as it was asked for.

    Args:
        settings: which name its data.
        sample: its kind, and options of that.
        backbone: parameters of its encoder.
    """
    kind = kinds.made(sample)
    channels = backbone.get("channels") or 3
    return Second(samples_of(settings, kind, channels), kind, backbone)


def samples_of(settings: Settings, kind: kinds.Kind, channels: int) -> Samples:
    """The data of a second modality."""
    how = {n: getattr(settings, n) for n in ("truncated", "max_pixels", "layout", "nodata")}
    with going_on(), without_labels():
        found = open_data(
            settings.second,
            column=settings.second_column,
            channels=channels,
            value_range=settings.value_range,
            kind=kind,
            **how,
        )
    plain = kind.photos or found.kind == kind  # what was open may be read otherwise yet
    return found if plain else found.seen_as(kind, channels)


def filled(
    options: Mapping[str, Any], settings: Settings, out: Path, needs: Needs, facts: Facts
) -> tuple[Second, list[Chosen]]:
    """A second modality with all that its data gives, and what was chosen for it.

    Args:
        options: of the method: the second modality as it was asked for; second_net and
            second_channels are parameters of its encoder.
        settings: of the training.
        out: run folder, of which a run goes on.
        needs: of the method.
        facts: of the training.
    """
    second: Second = options["other"]
    assert second.samples is not None
    named = {"name": options.get("second_net"), "channels": options.get("second_channels")}
    given = {k: v for k, v in named.items() if v} | dict(second.given)
    start = out if settings.resume else settings.start
    kind = second.kind
    if start is not None:
        given = said(Path(start)) | given
        kind = kind.beside(Path(start) / SECOND)
    kind, given = kind.fill(given, second.samples)
    picked = [] if "name" in given else _network(kind, second.samples, needs, facts, given)
    given = given | {PARAMETERS[c.name]: c.value for c in picked}
    given = {"name": kind.backbone or needs.backbone} | given
    if given.get("size") is None:
        given["size"] = fitting_size(second.samples)
    told = [c._replace(name=config.SECOND + c.name) for c in picked]
    if settings.resume:
        told = [c for c in of(choosing.recorded(settings, out)) if c.name.startswith(config.SECOND)]
    return replace(second, kind=kind, given=given), told


PARAMETERS = {"backbone": "name", "size": "size", "patch_size": "patch_size"}


def _network(
    kind: kinds.Kind, samples: Samples, needs: Needs, facts: Facts, given: Mapping[str, Any]
) -> list[Chosen]:
    """The network of a second modality, by the rules of the first."""
    if not kind.native:
        return choosing.standin(kind, kind.backbone or needs.backbone, facts)
    side = short(given["size"]) if given.get("size") else fitting_size(samples)
    own = replace(facts, images=len(samples), side=side, begins=False)
    return choose.network(needs, own, given)


def said(start: Path) -> dict[str, Any]:
    """Parameters of the encoder of a second modality that a run says it has."""
    if not (start / SETTINGS).is_file():
        return {}
    known = config.load(start / SETTINGS).get("second_backbone") or {}
    kept = {k: v for k, v in known.items() if k not in NOT_ITS and v is not None}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
