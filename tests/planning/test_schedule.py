"""The schedule of a plan: small ones by hand, and the demo's."""

import copy

import pytest

from pipeline.core import graph, params
from pipeline.planning import costs, schedule
from pipeline.planning.schedule import Task, plan
from tests.conftest import ROOT


def test_equal_jobs_share_the_gpus():
    some = [Task(f"t{number}", 2.0, 1, 8) for number in range(6)]
    assert [plan(some, gpus, 1000).hours for gpus in (1, 2, 4, 64)] == [12, 6, 4, 2]
    assert plan(some, 4, 1000).busy == pytest.approx(0.75)


def test_a_job_waits_for_what_it_reads_and_the_longest_way_goes_first():
    some = [
        Task("short", 1.0, 1, 8),
        Task("first", 1.0, 1, 8),
        Task("second", 3.0, 1, 8, ("first",)),
        Task("third", 2.0, 1, 8, ("second",)),
        Task("last", 0.0, 0, 0, ("third", "short")),
    ]
    assert plan(some, 1, 8).hours == 7
    found = plan([Task("another", 1.0, 1, 8), *some], 2, 16)
    assert found.hours == 6  # both short ones beside the chain, not before it
    assert [task.name for task in found.chain] == ["first", "second", "third"]


def test_cores_can_be_what_is_lacking():
    some = [Task("train", 4.0, 1, 8), Task("search", 4.0, 0, 8)]
    assert plan(some, 8, 8).hours == 8
    assert plan(some, 8, 16).hours == 4


def test_a_later_job_goes_where_an_earlier_one_does_not_fit():
    some = [Task("gpu", 5.0, 1, 8), Task("another", 4.0, 1, 8), Task("small", 1.0, 0, 1)]
    assert plan(some, 1, 9).hours == 9


def test_what_needs_more_than_there_is_has_it():
    assert plan([Task("train", 4.0, 4, 8), Task("other", 1.0, 1, 8)], 1, 8).hours == 5


def test_what_is_not_known_takes_no_time():
    assert plan([], 8, 8) == schedule.Plan(0.0, (), 0.0)
    assert plan([Task("needs", 0.0, 0, 0)], 8, 8) == schedule.Plan(0.0, (), 0.0)


def test_a_job_holds_what_the_snakefile_asks_for():
    text = (ROOT / "Snakefile").read_text(encoding="utf-8")
    said: dict = {}
    exec(text[text.index("SMALL = ") : text.index("# Run where")], said)
    stages = {job.stage for job in graph.jobs(params.load())}
    for stage in stages:
        asked = said["NEEDS"].get(stage, said["SMALL"])
        assert (stage in schedule.ON_GPU, schedule.CORES.get(stage, 1)) == (bool(asked["gpu"]), asked["threads"])


@pytest.fixture
def values(monkeypatch) -> dict:
    monkeypatch.chdir(ROOT)
    params.load.cache_clear()
    return copy.deepcopy(params.load())


def test_the_graph_with_its_costs(values):
    values["datasets"] = ["market1501"]
    values["variants"] |= {"spig": ["spig", "spig-seed1"], "spgnet": ["spgnet"]}
    laid = schedule.tasks(graph.jobs(values), costs.costs(values))
    by_name = {task.name: task for task in laid}
    flow, spig = by_name["pretrain_spig_flow@market1501"], by_name["train_spig@market1501-spig"]
    assert spig.hours == pytest.approx(200_000 * 11.8e-3 / 3600)
    assert flow.name in spig.after
    assert by_name["score_spig@market1501-spig"].hours == pytest.approx(10 * 12_000 * 0.210 / 3600 / 8)
    assert by_name["tables"].hours == 0
    one, many = plan(laid, 1, 16), plan(laid, 64, 1024)
    held = sum(task.hours for task in laid if task.gpus)
    assert held <= one.hours < held + 0.2  # the data's hours beside it
    assert many.hours == pytest.approx(sum(task.hours for task in many.chain))
    assert many.hours < one.hours / 2
    assert [task.name.partition("@")[0] for task in many.chain[-3:]] == [
        "pretrain_spig_flow",
        "train_spig",
        "score_spig",
    ]


def test_a_training_on_several_gpus_holds_them_and_takes_its_share(values):
    values["datasets"], values["variants"]["patn"] = ["market1501"], ["patn"]
    hours = {}
    for gpus in (1, 4):
        values["train"]["market1501"]["patn"]["gpus"] = gpus
        laid = schedule.tasks(graph.jobs(values), costs.costs(values))
        (one,) = (task for task in laid if task.name == "train_patn@market1501-patn")
        assert one.gpus == gpus
        hours[gpus] = one.hours
    assert hours[1] == pytest.approx(4 * hours[4])


def test_tasks_stand_behind_what_they_wait_for(values):
    seen: set[str] = set()
    for task in schedule.tasks(graph.jobs(values), ()):
        assert seen.issuperset(task.after)
        seen.add(task.name)
