"""The main job on photos that are shipped with the package: pretrain, score, report."""

from pathlib import Path

from selftaught.roles import Count, Number

PHOTOS = Path(__file__).parent
"""train.parquet and test.parquet: 1,403 photos of clothes in ten classes, CC0; see README.md."""


def demo(out: Path | None = None, *, epochs: Count = 200, seed: Number = 0) -> Path:
    """Pretrain on about 1,000 shipped photos, a few minutes on two cores, and say what it learned.

    Args:
        out: run folder; by default runs/demo, numbered where that exists.
        epochs: passes over the photos.
        seed: of everything random.

    Returns:
        The run folder.
    """
    from selftaught.engine.folder import default_out
    from selftaught.engine.pretrain import pretrain

    run = pretrain(
        "simclr",
        str(PHOTOS / "train.parquet"),
        out or default_out("demo", resume=False),
        test=str(PHOTOS / "test.parquet"),
        recipe="paper",  # every setting that matters is here
        # 0.4 million weights: in a few minutes on 1,000 photos more steps are worth more than more
        # size
        backbone="test_resnet",
        size=64,
        hidden=256,
        layers=2,
        temperature=0.1,
        epochs=epochs,
        batch=64,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.05,
        seed=seed,
    )
    return run.folder
