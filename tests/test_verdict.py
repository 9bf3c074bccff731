"""One verdict a run: of the same files everywhere the same word."""

import pytest

from selftaught.verdict import by_scores, judge

HEALTHY = {"verdict": "healthy", "evidence": ["the loss went from 5 to 2"]}
DOUBTFUL = {"verdict": "doubtful", "evidence": ["the rank is low"]}
FAILED = {"verdict": "failed", "evidence": ["the features are constant", "the loss is 0"]}


def scored(*kinds: str, n: int = 40, **more: str) -> dict:
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
