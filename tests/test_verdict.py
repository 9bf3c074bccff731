"""One verdict a run: of the same files everywhere the same word."""

import pytest

from selftaught.verdict import GENTLER, by_margins, by_scores, judge

HEALTHY = {"verdict": "healthy", "evidence": ["the loss went from 5 to 2"]}
DOUBTFUL = {"verdict": "doubtful", "evidence": ["the rank is low"]}
FAILED = {"verdict": "failed", "evidence": ["the features are constant", "the loss is 0"]}


def scored(*kinds: str, n: int = 40, **more) -> dict:
    return {
        "verdict": "Word: clause. By k-NN: 50.0 %, and more.",
        "details": ["By k-NN: 50.0 %, and more."],
        "margins": [{"score": str(i), "verdict": kind} for i, kind in enumerate(kinds)],
        "scores": [{"score": str(i), "n": n} for i, _ in enumerate(kinds)],
        **more,
    }


@pytest.mark.parametrize(
    ("kinds", "word", "clause"),
    [
        (["above"], "learned", "its score clears its floor"),
        (["above", "above"], "learned", "both scores clear their floors"),
        (["above"] * 4, "learned", "all 4 scores clear their floors"),
        (["above", "unclear"], "learned", "one of two scores clears its floor"),
        (["above", "above", "unclear"], "learned", "2 of three scores clear their floors"),
        (["above", "below"], "unclear", "one of two scores clears its floor"),
        (["unclear", "unclear"], "unclear", "no score clears its floor"),
        (["unclear", "below"], "unclear", "no score clears its floor"),
        (["below", "below"], "did not learn", "raw pixels or the untrained network do better"),
    ],
)
def test_scores_have_a_word(kinds, word, clause):
    assert by_scores(kinds) == (word, clause)


def test_a_failed_training_is_failed_whatever_its_scores():
    said = judge(FAILED, [scored("above", "above")])
    assert str(said) == "failed: The features are constant."
    assert said.reasons == ("The loss is 0.",)


def test_scores_come_first_and_findings_below():
    said = judge(DOUBTFUL, [scored("above", "above")])
    assert str(said) == "learned: both scores clear their floors."
    assert said.reasons == ("By k-NN: 50.0 %, and more.", "The rank is low.")


def test_without_scores_it_is_unclear_however_healthy():
    assert judge(HEALTHY, []).word == "unclear"
    assert "no evidence" in judge(HEALTHY, []).because
    assert judge(DOUBTFUL, []).because == "there are no scores, and the doctor has doubts."
    assert judge({}, []).word == "unclear"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ([10.0, 20.0], "from 10.0 to 20.0, which speaks for it"),
        ([20.0, 10.0], "from 20.0 to 10.0, which speaks against it"),
        ([20.0, 21.9], "which tells nothing"),
        ([20.0, 18.5], "which tells nothing"),
    ],
)
def test_without_scores_the_figure_that_ranks_runs_best_is_a_hint(seen, words):
    said = judge(HEALTHY | {"label_free": seen}, [])
    assert said.word == "unclear"
    assert words in said.reasons[0]
    assert (
        judge(HEALTHY | {"label_free": seen}, [scored("above")]).reasons
        == judge(HEALTHY, [scored("above")]).reasons
    )


@pytest.mark.parametrize("seen", [None, [], [1.0], ["a", 2.0], [0.0, 3.0], 7, {"a": 1}])
def test_no_hint_of_what_is_no_pair_of_figures(seen):
    assert judge(HEALTHY | {"label_free": seen}, []).reasons == judge(HEALTHY, []).reasons


def test_the_evaluation_of_the_most_images_decides_and_the_other_is_named():
    at_the_end = scored("above", "above", n=40)
    later = scored("below", "below", n=400, data="labeled", test="held/")
    for evaluations in ([at_the_end, later], [later, at_the_end]):
        said = judge(HEALTHY, evaluations)
        assert said.word == "did not learn"
        (difference,) = [r for r in said.reasons if "it was" in r]
        assert difference == (
            "At the end of training it was learned (both scores clear their floors; 40 test images "
            "against 400)."
        )


def test_of_as_many_images_the_newest_decides():
    said = judge({}, [scored("above"), scored("unclear", data="labeled")])
    assert said.word == "unclear"


@pytest.mark.parametrize(
    "damaged", [{}, {"margins": 3}, {"margins": [3, {}, {"verdict": "<i>"}]}, {"scores": 4}]
)
def test_damaged_files_are_no_scores(damaged):
    assert judge({"verdict": "<i>", "evidence": 3}, [damaged]).word == "unclear"


# beside the weights that a run began with --------------------------------------------------------


def gain(points: float, noise: float = 1.0, score: str = "k-NN") -> dict:
    verdict = "above" if points > noise else "below" if points < -noise else "unclear"
    interval = [points - noise, points + noise]
    return {"score": score, "points": points, "interval": interval, "verdict": verdict}


CLEAR, LOST = {"verdict": "above"}, {"verdict": "below"}


@pytest.mark.parametrize(
    ("margins", "gains", "word", "clause", "beside"),
    [
        (
            [CLEAR],
            [gain(3.2)],
            "learned",
            "better than its start by 3.2 points of k-NN (95 % interval +2.2 to +4.2)",
            "better",
        ),
        (
            [CLEAR, CLEAR],
            [gain(3.0), gain(5.0, score="probe")],
            "learned",
            "better than its start by 5.0 points of probe (95 % interval +4.0 to +6.0) and 3.0 "
            "points of k-NN (95 % interval +2.0 to +4.0)",
            "better",
        ),
        (
            [CLEAR, CLEAR],
            [gain(0.5), gain(5.0, score="probe")],
            "learned",
            "better than its start by 5.0 points of probe (95 % interval +4.0 to +6.0)",
            "better",
        ),
        (
            [CLEAR],
            [gain(-0.5)],
            "unclear",
            "within the noise of its start (-0.5 points of k-NN (95 % interval -1.5 to +0.5))",
            "within the noise",
        ),
        (
            [CLEAR, CLEAR],
            [gain(0.5), gain(-5.0, score="probe")],
            "did not learn",
            "worse than the weights it began with by 5.0 points of probe (95 % interval -6.0 to "
            "-4.0)",
            "worse",
        ),
        (
            [CLEAR, CLEAR],
            [gain(2.0), gain(-5.0, score="probe")],
            "unclear",
            "better than its start by 2.0 points of k-NN (95 % interval +1.0 to +3.0), and worse "
            "by 5.0 points of probe (95 % interval -6.0 to -4.0)",
            "better and worse",
        ),
        (
            [LOST],
            [gain(2.0)],
            "did not learn",
            "better than its start by 2.0 points of k-NN (95 % interval +1.0 to +3.0), but raw "
            "pixels or the untrained network do better",
            "better",
        ),
        ([CLEAR], [], "learned", "its score clears its floor", None),
    ],
)
def test_the_start_is_asked_for_first(margins, gains, word, clause, beside):
    assert by_margins(margins, gains) == (word, clause)
    said = judge({}, [scored(*(m["verdict"] for m in margins), gains=gains)])
    assert (said.word, said.because, said.start) == (word, f"{clause}.", beside)


def test_of_many_scores_the_headline_names_a_few():
    many = [gain(p, score=str(p)) for p in (2.0, 3.0, 4.0, 5.0, 6.0)]
    clause = by_margins([CLEAR] * 5, many)[1]
    assert "6.0 points of 6.0" in clause
    assert "points of 3.0" not in clause
    assert clause.endswith("and those of 2 more scores")
    none = [gain(0.1, score=str(i)) for i in range(5)]
    assert by_margins([CLEAR] * 5, none)[1] == "within the noise of its start (all 5 scores)"


def test_a_start_that_is_kept_is_nothing_learned():
    kept = {"kept": "start", "why": "Kept: start; 90 % where the end has 80 %."}
    said = judge(HEALTHY, [scored("above", gains=[gain(0.0)])], kept)
    assert said.word == "did not learn"
    assert "nothing that training made is better than the weights it began with" in said.because
    assert said.reasons[:2] == (kept["why"], GENTLER)
    assert judge(FAILED, [], kept).word == "failed"
    other = {"kept": "end", "why": "Kept: end; 90 % where the start has 80 %."}
    said = judge(HEALTHY, [scored("above", gains=[gain(3.0)])], other)
    assert said.word == "learned"
    assert other["why"] in said.reasons


@pytest.mark.parametrize(
    "gains", [3, [3, {}], [{"verdict": "<i>"}], [{"verdict": "above", "interval": "x"}]]
)
def test_damaged_gains_and_choices_cost_no_verdict(gains):
    assert judge({}, [scored("above", gains=gains)], {"kept": 3, "why": []}).word == "learned"
