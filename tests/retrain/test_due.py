"""When there is something to do: data that the champion has not seen and that nobody has tried."""

from dataclasses import asdict, replace
from typing import Any

from landing import data_set

from celebvision.celeba.shards import Shard
from celebvision.registry import ModelVersion
from celebvision.retrain.due import due, going_on
from celebvision.retrain.landed import Drop, Landing
from celebvision.retrain.record import Record, State, seen_by

BASE = data_set("base")


def landing(*names: str) -> Landing:
    return Landing(BASE, tuple(Drop(name, f"{name}-1", name, 10, False) for name in names), {})


def record(of: Landing, state: State, **more: Any) -> Record:
    shards = {
        drop.id: [asdict(replace(shard, path=f"{drop.folder}/{shard.path}")) for shard in BASE.shards]
        for drop in of.drops
    }
    made = Record(
        id=of.digest,
        landed=of.digest,
        config={},
        code_version="",
        champion=None,
        base=of.base.to_json(),
        drops=[asdict(drop) | {"shards": shards[drop.id]} for drop in of.drops],
        new=[],
        left={},
        state=state,
        challenger="cnn@2",
        **more,
    )
    made.data_digest = made.data.digest
    return made


def champion(data_digest: str) -> ModelVersion:
    texts = dict.fromkeys(("architecture", "weights_sha256", "code_version", "created"), "")
    others: dict[str, Any] = {key: {} for key in ("arguments", "preprocessing", "classes", "metrics", "files")}
    return ModelVersion(name="cnn", version="1", targets=["Male"], data_digest=data_digest, seed=0, **texts, **others)


def test_without_a_champion_all_is_new() -> None:
    assert due(None, landing("a"), []) == (["a-1"], "")


def test_a_champion_of_the_base_has_seen_the_base_alone() -> None:
    assert due(champion(BASE.digest), landing(), []) == ([], "nothing has landed that cnn@1 has not seen")
    assert due(champion(BASE.digest), landing("a", "b"), []) == (["a-1", "b-1"], "")


def test_a_champion_of_an_earlier_retraining_has_seen_what_that_had() -> None:
    earlier = record(landing("a"), "promoted")
    assert due(champion(earlier.data_digest), landing("a"), [earlier])[1]
    assert due(champion(earlier.data_digest), landing("a", "b"), [earlier]) == (["b-1"], "")
    assert due(champion(earlier.data_digest), landing(), [earlier])[1], "a drop that went away is nothing new"


def test_a_champion_of_unknown_data_has_seen_nothing() -> None:
    assert due(champion("of somewhere else"), landing("a"), []) == (["a-1"], "")
    assert due(champion("of somewhere else"), landing(), []) == ([], "")
    old_base = replace(landing("a"), base=data_set("the base before"))
    earlier = record(old_base, "promoted")
    assert due(champion(earlier.data_digest), landing("a"), [earlier]) == ([], ""), "the base is new"


def test_what_was_tried_is_not_tried_again_until_more_lands() -> None:
    kept = record(landing("a"), "kept", why="it was no better")
    new, nothing = due(champion(BASE.digest), landing("a"), [kept])
    assert (new, nothing) == (
        ["a-1"],
        "nothing new has landed since cnn@2 learnt all there is, and was kept: it was no better",
    )
    assert due(champion(BASE.digest), landing("a", "b"), [kept]) == (["a-1", "b-1"], "")


def test_after_a_rollback_the_same_data_promotes_nothing_again() -> None:
    promoted = record(landing("a"), "promoted")
    assert "was promoted" in due(champion(BASE.digest), landing("a"), [promoted])[1]


def test_what_was_begun_goes_on_with_what_it_found() -> None:
    for state in ("ingested", "trained", "evaluated"):
        begun = record(landing("a"), state)  # type: ignore[arg-type]
        assert going_on([begun], landing("a", "b")) is begun
    for state in ("promoted", "kept", "given up"):
        assert going_on([record(landing("a"), state)], landing("a")) is None  # type: ignore[arg-type]


def test_what_has_no_shards_yet_or_failed_gives_way_to_what_landed_since() -> None:
    for begun in (record(landing("a"), "found"), record(landing("a"), "ingested", error="no number any more")):
        assert going_on([begun], landing("a")) is begun
        assert going_on([begun], landing("a", "b")) is None


def test_a_record_is_a_data_set_of_base_and_drops() -> None:
    made = record(landing("a", "b"), "ingested")
    paths = [shard.path for shard in made.data.of("train")]
    assert paths == [f"{folder}split=train/part-00000.parquet" for folder in ("", "a/", "b/")]
    assert made.frozen.shards == BASE.shards
    assert [shard.path for shard in made.newest(["b-1"]).of("test")] == ["b/split=test/part-00000.parquet"]
    assert all(isinstance(shard, Shard) for shard in made.data.shards)
    assert record(landing(), "ingested").data.digest == BASE.digest, "without a drop it is the base"
    assert seen_by(made.data_digest, BASE.digest, [made]) == {BASE.digest, "a-1", "b-1"}
