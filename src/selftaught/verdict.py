"""One verdict a run, of what the doctor found and of what the scores say.

It is made of the contents of diagnosis.json, scores.json and evaluated.json, so that terminal,
report, model card and `compare` say the same of the same files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Word = Literal["learned", "unclear", "did not learn", "failed"]
Kind = Literal["above", "unclear", "below"]

_NUMBERS = {2: ("two", "both"), 3: ("three", "all three")}


@dataclass(frozen=True)
class Verdict:
    """Whether a run learned.

    word: `failed` where the doctor says that training did; else by the scores beside their floors,
    and `unclear` without any. because: a sentence, without the word. reasons: sentences with what
    the scores and the doctor's findings add.
    """

    word: Word
    because: str
    reasons: tuple[str, ...] = ()

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


def judge(diagnosis: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> Verdict:
    """The verdict on a run.

    Of several evaluations the one with the most test images decides, the newest of those; where
    another says otherwise, the reasons name it.

    Args:
        diagnosis: content of diagnosis.json, empty where there is none.
        evaluations: what `Comparison.as_dict` gives of each, the newest last.
    """
    found = tuple(map(_sentence, _texts(diagnosis, "evidence")))
    if diagnosis.get("verdict") == "failed":
        return Verdict("failed", found[0] if found else "the doctor says so.", found[1:])
    scored = [(e, kinds) for e in evaluations if (kinds := _kinds(e))]
    if not scored:
        doubts = diagnosis.get("verdict") == "doubtful"
        because = (
            "there are no scores, and the doctor has doubts."
            if doubts
            else "there are no scores; a falling loss alone is no evidence. A few hundred labeled "
            "images are enough to tell."
        )
        return Verdict("unclear", because, found)
    chosen, kinds = max(enumerate(scored), key=lambda at: (_tested(at[1][0]), at[0]))[1]
    word, clause = by_scores(kinds)
    others = [
        f"{_place(e, chosen)} it was {by_scores(k)[0]} ({by_scores(k)[1]}; {_tested(e)} test images"
        f" against {_tested(chosen)})."
        for e, k in scored
        if e is not chosen and by_scores(k)[0] != word
    ]
    return Verdict(word, f"{clause}.", (*_texts(chosen, "details"), *others, *found))


def _kinds(evaluation: Mapping[str, Any]) -> list[Kind]:
    margins = evaluation.get("margins")
    found = [m for m in margins if isinstance(m, dict)] if isinstance(margins, list) else []
    return [m["verdict"] for m in found if m.get("verdict") in ("above", "unclear", "below")]


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
