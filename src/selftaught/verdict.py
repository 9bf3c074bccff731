"""One verdict a run, of what the doctor found and of what the scores say.

It is made of the contents of diagnosis.json, scores.json, evaluated.json and kept.json, so that
terminal, report, model card and `compare` say the same of the same files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Word = Literal["learned", "unclear", "did not learn", "failed"]
Kind = Literal["above", "unclear", "below"]
Beside = Literal["better", "within the noise", "worse", "better and worse"]

START = "as it began"
"""What scores call the encoder with the weights that a run began with, where no fresh draw."""

RECALIBRATED = "as it began, recalibrated"
"""The same with statistics of norms of crops of the images at hand, which training took as well:
what that gives is no learning."""

KEPT_START = "start"
"""What kept.json calls it."""

GENTLER = (
    "The weights it began with can be used as they are; to gain from training, continue from them "
    "more gently: a lower learning rate (--lr), fewer epochs, early layers frozen (--freeze), low "
    "rank (--lora), or an anchor to the start (--anchor)."
)

RANKED = "86 % of 2,141 pairs"
"""How often, of two runs on the same images, that with a RankMe a tenth higher had the higher k-NN
(benchmarks/results/ranks.md)."""

CLEAR = 1.1
"""Times by which RankMe must differ for that."""

_TOLD = 3
"""Scores that a headline names."""

_NUMBERS = {2: ("two", "both"), 3: ("three", "all three")}


@dataclass(frozen=True)
class Verdict:
    """Whether a run learned.

    word: `failed` where the doctor says that training did; else by the scores beside their floors,
    and `unclear` without any. because: a sentence, without the word. reasons: sentences with what
    the scores and the doctor's findings add. start: how the encoder is beside the weights that the
    run began with; None where it began with none, or nobody scored both.
    """

    word: Word
    because: str
    reasons: tuple[str, ...] = ()
    start: Beside | None = None

    def __str__(self) -> str:
        return f"{self.word}: {self.because}"


def by_scores(kinds: Sequence[Kind]) -> tuple[Word, str]:
    """What margins above the highest floors say: the word, and how many of them say so.

    Args:
        kinds: of each score, where the 95 % interval of its margin lies beside zero; one at least.
    """
    count, above = len(kinds), kinds.count("above")
    some, all_of = _NUMBERS.get(count, (str(count), f"all {count}"))
    if above == count:
        one = "its score clears its floor"
        return "learned", one if count == 1 else f"{all_of} scores clear their floors"
    if kinds.count("below") == count:
        return "did not learn", "raw pixels or the untrained network do better"
    if not above:
        return "unclear", "no score clears its floor"
    clear = "one" if above == 1 else str(above)
    verb = "clears its floor" if above == 1 else "clear their floors"
    word: Word = "unclear" if "below" in kinds else "learned"
    return word, f"{clear} of {some} scores {verb}"


def by_margins(
    margins: Sequence[Mapping[str, Any]], gains: Sequence[Mapping[str, Any]] = ()
) -> tuple[Word, str]:
    """What scores say beside their floors: the word, and why, without a full stop.

    Whether an encoder is better than the weights it began with is asked before anything else.

    Args:
        margins: above the highest floors, as `Comparison.as_dict` has them; one at least.
        gains: above the encoder as it began, where it began with weights.
    """
    word, clause = by_scores([m["verdict"] for m in margins])
    if word == "did not learn" and all("CCA" in str(m.get("floor")) for m in margins):
        clause = "canonical correlations do better"  # of pairs, which no pixels alone can find
    beside = beside_start(gains)
    above, below = (_listed(gains, kind) for kind in ("above", "below"))
    match beside:
        case None:
            return word, clause
        case "worse":
            return "did not learn", f"worse than the weights it began with by {below}"
        case "better and worse":
            return "unclear", f"better than its start by {above}, and worse by {below}"
        case "within the noise":
            told = _listed(gains, "unclear") if len(gains) <= _TOLD else f"all {len(gains)} scores"
            return "unclear", f"within the noise of its start ({told})"
        case _:
            better = f"better than its start by {above}"
            return word, better if word == "learned" else f"{better}, but {clause}"


def beside_start(gains: Sequence[Mapping[str, Any]]) -> Beside | None:
    """How an encoder is beside the weights it began with; None without `gains`."""
    found = {g["verdict"] for g in gains}
    if not found:
        return None
    if {"above", "below"} <= found:
        return "better and worse"
    return "better" if "above" in found else "worse" if "below" in found else "within the noise"


def _listed(gains: Sequence[Mapping[str, Any]], kind: Kind) -> str:
    """Points of the scores that say so, the largest difference first."""
    mine = [g for g in gains if g["verdict"] == kind]
    mine.sort(key=lambda g: -abs(g["points"]))
    sign = "+" if kind == "unclear" else ""
    words = []
    for g in mine[:_TOLD]:
        points = g["points"] if sign else abs(g["points"])
        low, high = g["interval"]
        interval = f"95 % interval {low:+.1f} to {high:+.1f}"
        words.append(f"{points:{sign}.1f} points of {g['score']} ({interval})")
    if len(mine) > _TOLD:
        words.append(f"those of {len(mine) - _TOLD} more scores")
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def advice(gains: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What to do where the encoder is worse than the weights it began with."""
    return (GENTLER,) if beside_start(gains) == "worse" else ()


def judge(
    diagnosis: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]],
    kept: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on a run.

    Of several evaluations the one with the most test images decides, the newest of those; where
    another says otherwise, the reasons name it.

    Args:
        diagnosis: content of diagnosis.json, empty where there is none.
        evaluations: what `Comparison.as_dict` gives of each, the newest last.
        kept: content of kept.json, which encoder was exported; None or empty where nobody chose.
    """
    found = tuple(map(_sentence, _texts(diagnosis, "evidence")))
    if diagnosis.get("verdict") == "failed":
        return Verdict("failed", found[0] if found else "the doctor says so.", found[1:])
    kept = kept or {}
    choice = [t for t in (kept.get("why"),) if isinstance(t, str) and t]
    if kept.get("kept") == KEPT_START:
        because = (
            "nothing that training made is better than the weights it began with, which are kept."
        )
        reasons = (*choice, GENTLER, *found)
        return Verdict("did not learn", because, reasons, "within the noise")
    scored = [
        (e, by_margins(margins, _differences(e, "gains")))
        for e in evaluations
        if (margins := _differences(e, "margins"))
    ]
    if not scored:
        because = {
            "doubtful": "there are no scores, and the doctor has doubts.",
            "healthy": "nothing was found wrong, and there are no scores; a falling loss alone is "
            "no evidence. A few hundred labeled images are enough to tell.",
        }.get(
            str(diagnosis.get("verdict")),
            "there are no scores. A few hundred labeled images are enough to tell.",
        )
        hint = _by_dimensions(diagnosis.get("label_free"))
        return Verdict("unclear", because, (*hint, *choice, *found))
    chosen, (word, clause) = max(enumerate(scored), key=lambda at: (_tested(at[1][0]), at[0]))[1]
    others = [
        f"{_place(e, chosen)} it was {other} ({why}; {_tested(e)} test images against "
        f"{_tested(chosen)})."
        for e, (other, why) in scored
        if e is not chosen and other != word
    ]
    reasons = (*_texts(chosen, "details"), *choice, *others, *found)
    return Verdict(word, f"{clause}.", reasons, beside_start(_differences(chosen, "gains")))


def _by_dimensions(seen: Any) -> tuple[str, ...]:
    """What RankMe at first and at the end says where no score does, and how sure that is."""
    if not isinstance(seen, list | tuple) or len(seen) != 2:
        return ()
    first, last = map(_real, seen)
    if min(first, last) <= 0:
        return ()
    went = f"RankMe of held-out images went from {first:.1f} to {last:.1f}"
    if max(first, last) < CLEAR * min(first, last):
        return (f"{went}, which tells nothing: it must differ by a tenth.",)
    sense = "for" if last > first else "against"
    return (
        f"{went}, which speaks {sense} it: in {RANKED} of runs, the one with the higher had the "
        "higher k-NN. That is a hint and no proof.",
    )


def _differences(evaluation: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Those of the `margins` or `gains` of a file that are whole."""
    rows = evaluation.get(name)
    found = []
    for m in rows if isinstance(rows, list) else []:
        if isinstance(m, dict) and m.get("verdict") in ("above", "unclear", "below"):
            given = m.get("interval")
            low, high = given if isinstance(given, list) and len(given) == 2 else (0, 0)
            told = {
                "floor": str(m.get("floor")),
                "points": _real(m.get("points")),
                "interval": (_real(low), _real(high)),
            }
            found.append({"score": str(m.get("score")), "verdict": m["verdict"]} | told)
    return found


def _real(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _tested(evaluation: Mapping[str, Any]) -> int:
    """The most test images that a score of it is of."""
    rows = evaluation.get("scores")
    counts = [r.get("n") for r in rows if isinstance(r, dict)] if isinstance(rows, list) else []
    return max((n for n in counts if isinstance(n, int)), default=0)


def _place(evaluation: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    where = evaluation.get("test") or evaluation.get("data")
    if where:
        return f"On {Path(str(where)).name}"
    return "At the end of training" if chosen.get("data") else "Before"


def _texts(node: Mapping[str, Any], name: str) -> list[str]:
    found = node.get(name)
    return [t for t in found if isinstance(t, str) and t] if isinstance(found, list | tuple) else []


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")
