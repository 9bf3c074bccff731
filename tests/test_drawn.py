"""Patients that the doctor's bench draws: the same each time, of two halves, with a name each."""

import sys
from itertools import islice, product
from pathlib import Path

import pytest

from selftaught.diagnose.before import BEFORE, REFUSED
from selftaught.diagnose.doctor import STOPPED
from selftaught.diagnose.during import DURING

COUNT = 150


@pytest.fixture(scope="module")
def bench():
    folder = str(Path(__file__).parent.parent / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import doctor
    finally:
        sys.path.remove(folder)
    return doctor


@pytest.fixture(scope="module")
def halves(bench):
    return {half: list(islice(bench.patients(half, 3), COUNT)) for half in bench.HALVES}


def test_draws_are_the_same_each_time_and_for_another_seed_others(bench, halves):
    keys = [case.key for case in halves["build"][:60]]
    assert [case.key for case in islice(bench.patients("build", 3), 60)] == keys
    assert [case.key for case in islice(bench.patients("build", 4), 60)] != keys
    well = [case.key for case in islice(bench.healthy("build", 3), 60)]
    assert [case.key for case in islice(bench.healthy("build", 3), 60)] == well


def test_halves_share_no_kind_method_and_set(halves):
    of = {
        half: {(case.kind.name, case.method, case.data) for case in cases}
        for half, cases in halves.items()
    }
    assert not of["build"] & of["published"]
    assert min(len(each) for each in of.values()) > COUNT / 2


def test_each_kind_and_each_method_is_drawn(bench, halves):
    cases = halves["build"] + halves["published"]
    assert {case.kind.name for case in cases} == set(bench.KINDS)
    assert {case.method for case in cases} == set(bench.METHODS)
    for half in bench.HALVES:
        assert len({case.method for case in halves[half]}) >= 40
    count = len(bench.METHODS)
    assert {case.method for case in islice(bench.healthy("build", 0), count)} == set(bench.METHODS)


def test_each_kind_is_named_by_a_rule_that_exists(bench):
    rules = {rule.name for table in (BEFORE, REFUSED, DURING) for rule in table} | {STOPPED}
    for kind in bench.KINDS.values():
        assert {entry.partition("/")[0] for entry in kind.expected} <= rules, kind.name


def test_only_the_first_finding_in_time_counts_and_notes_do_not(bench):
    kind = bench.KINDS["rate too high"]

    def found(name, progress=0.05, severity="warning", cause=""):
        return {"name": name, "progress": progress, "severity": severity, "causes": [cause]}

    right, other = found("rate for optimizer", 0.0), found("pushed apart")
    for findings, expected in (
        ([right, other], "right"),
        ([other, right], "wrong"),
        ([found("small images", severity="note"), right], "right"),
        ([found("steps too long", 0.5)], "late"),
        ([found("collapse", 0.5)], "missed"),
        ([found("worse than guessing", cause="the learning rate is too high")], "right"),
        ([found("worse than guessing", cause="labels are wrong")], "wrong"),
        ([], "missed"),
    ):
        assert bench.outcome(kind, {"findings": findings}, "") == expected, findings
    assert bench.outcome(kind, {}, "the peak learning rate 9 is") == "right"
    assert bench.outcome(kind, {}, "the batch is too small") == "wrong"
    assert bench.outcome(None, {"findings": [other]}, "") == "alarm"
    assert (
        bench.outcome(None, {"findings": [found("small images", severity="note")]}, "") == "quiet"
    )


def test_what_is_decided_early_is_what_the_whole_run_comes_to(bench):
    """All courses of four findings, each named, another, or a note of either kind."""
    kind = bench.KINDS["momentum of a million steps"]  # which a note names, too
    kinds = product(("slow target", "slow target of the paper", "collapse"), ("note", "warning"))
    ends = set()
    for course in product([*kinds, None], repeat=4):
        findings = [
            {"name": each[0], "severity": each[1], "progress": progress, "causes": []}
            for each, progress in zip(course, (0.0, 0.1, 0.2, 0.9))
            if each
        ]
        whole = bench.outcome(kind, {"findings": findings}, "")
        for now in (0.05, 0.11, 0.5, 1.0):
            seen = [f for f in findings if f["progress"] <= now]
            if bench.decided(kind, seen, now):
                assert now > 0.1
                assert bench.outcome(kind, {"findings": seen}, "") == whole
                ends.add(whole)
    assert ends == {"right", "late", "wrong"}
