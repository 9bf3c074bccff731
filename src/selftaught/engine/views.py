"""The views that a training makes: those of its method, as they are or as the user changes them."""

from dataclasses import replace
from typing import Any

from selftaught import augment, code, config, kinds
from selftaught.augment.pairs import Modalities
from selftaught.backbones import Encoder
from selftaught.engine.build import image_of, method_name
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from selftaught.method import Method, Pipeline, encoders
from selftaught.sides import Size


def views_of(method: Method, size: Size, settings: Settings) -> Pipeline:
    """What samples are turned into for `method`, at `size`.

    Raises:
        UserError: what was asked for makes no sense for the method or its images, or the function
            that was named is not found.
    """
    declared = _declared(method, size, settings)
    first, *others = map(kinds.of, encoders(method))
    if not others or all(kind.photos for kind in (first, *others)):
        return first.views(declared)
    if not isinstance(declared, Modalities):
        raise UserError(f"the views of {method_name(method)} are not those of two modalities")
    (second,) = others
    _, encoder = encoders(method)
    sized = replace(
        declared.second,
        views=tuple(replace(view, size=encoder.size) for view in declared.second.views),
    )  # the declared size is that of the first
    sides = {"first": first.single(declared.first), "second": second.single(sized)}
    return replace(declared, **sides, normalized=False)


def _declared(method: Method, size: Any, settings: Settings) -> Pipeline:
    """Views as the method, and the user, have them."""
    pipeline = method.views(size)
    usual = Settings()
    asked = [n for n in config.VIEWS if getattr(settings, n) != getattr(usual, n)]
    if not asked:
        return pipeline
    if method.needs.views == "own":
        raise UserError(
            f"{method_name(method)} asks about what is in its views, which {_flag(asked[0])} would "
            "change: drop it, or take a method that wants views of an image alike, such as simclr, "
            "byol or dino"
        )
    if settings.augmentation is None:
        make: Any = _changes(settings, asked, image_of(method))
    else:
        if len(asked) > 1:
            raise UserError(
                f"a function of your own makes the whole view, which {_flag(asked[0])} is to "
                "change: do that in the function, or drop --augmentation"
            )
        function = custom(settings.augmentation)

        def make(declared: augment.Views) -> augment.Pipeline:
            return replace(function, sizes=tuple(view.size for view in declared.views))

    try:
        if not isinstance(pipeline, augment.Pipeline):
            raise UserError("its views are not declared")
        return pipeline.replaced(make)
    except UserError as error:
        raise UserError(
            f"{', '.join(map(_flag, asked))} cannot change the views of this "
            f"{method_name(method)}: {error}"
        ) from error


def custom(given: Any) -> augment.Custom:
    """The function of a user, called as it is or by `file.py:function`, as a pipeline.

    Raises:
        UserError: there is none, or its file cannot be imported.
    """
    if isinstance(given, str):
        if not code.names(given):
            raise UserError(
                f"augmentation={given!r} names no function: give file.py:function or "
                "package.module:function; what was an object in Python is to be given there again"
            )
        given = code.found(given, "augmentation", "makes a view of an image", "augment")
    return given if isinstance(given, augment.Custom) else augment.Custom(given)


def _changes(settings: Settings, asked: list[str], image: Encoder) -> augment.Changes:
    if settings.grayscale and image.channels != 3:
        raise UserError(
            f"--grayscale drops the colors of three channels, and these images have "
            f"{image.channels}: drop it"
        )
    fill = tuple(min(255, max(0, round(255 * mean))) for mean in image.mean)
    return augment.Changes(**{name: getattr(settings, name) for name in asked}, fill=fill)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
