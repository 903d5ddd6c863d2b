"""`plan` says what a run would do, and leaves no trace."""

import json
from pathlib import Path

import pytest
from labelling import House, command, everything, fill

from celebvision.batch import plan as planning
from celebvision.batch.plan import _sampled, plan
from celebvision.config import PlanSettings
from celebvision.job import JobFailed
from celebvision.storage import Stat, open_store


@pytest.fixture
def settings(house: House, bucket: str, faces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> PlanSettings:
    monkeypatch.setattr(planning, "MEASURE_S", 0.5)
    fill(f"{bucket}/photos", {f"{number:02}.jpg": face for number, face in enumerate(faces)} | {"bad.jpg": b"bad"})
    return PlanSettings(
        input=f"{bucket}/photos", output=f"{bucket}/labels", model="cnn", registry=house.registry, sample=5
    )


@pytest.mark.usefixtures("on_ray")
@pytest.mark.parametrize("split_stages", [False, True])
def test_a_plan_tells_keys_bytes_time_and_cost_and_writes_nothing(
    settings: PlanSettings, bucket: str, split_stages: bool
) -> None:
    before = everything(open_store(bucket))
    words = {"node_type": "g5.xlarge", "nodes": 3, "split_stages": split_stages}
    told = plan(settings.model_copy(update=words)).summary
    assert everything(open_store(bucket)) == before
    assert (told["keys"], told["bytes"]) == (len(before), sum(stat.size for stat in open_store(bucket).list()))
    assert told["seconds"] >= told["start_s"] + told["listing_s"] + told["keys"] / told["images_per_s"] - 0.2
    assert all(told[f"{stage}_s"] >= 0 for stage in ("fetch", "decode", "infer"))
    assert told["usd"] == pytest.approx(told["seconds"] / 3600 * 3 * 1.006, rel=0.1, abs=1e-4)


@pytest.mark.usefixtures("on_ray")
def test_a_plan_counts_what_is_left_to_do(settings: PlanSettings, faces: list[bytes]) -> None:
    words = ["--input", settings.input, "--output", settings.output, "--registry", settings.registry, "--model", "cnn"]
    assert command(["classify", *words])[0] == 0
    with pytest.raises(JobFailed, match="nothing to do"):
        plan(settings)
    fill(settings.input, {"new.jpg": faces[0]})
    status, stdout, _ = command(["plan", *words, "--json"])
    assert (status, json.loads(stdout)["keys"]) == (0, 1)


def test_your_own_prices_win(settings: PlanSettings, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("g5.xlarge: 0.5\nours: 2\n")
    mine = settings.model_copy(update={"prices": tmp_path / "prices.yaml", "nodes": 2})
    for node_type, usd in (("g5.xlarge", 1.0), ("ours", 4.0), ("g4dn.xlarge", 1.052)):
        assert planning._price(mine.model_copy(update={"node_type": node_type})) == pytest.approx(usd)
    with pytest.raises(JobFailed, match=r"g9.huge has no price; known are: .*ours"):
        planning._price(mine.model_copy(update={"node_type": "g9.huge"}))


@pytest.mark.parametrize("content", [None, "- g5.xlarge", "g5.xlarge: dear", "a: ["])
def test_prices_that_are_none_are_refused(settings: PlanSettings, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "prices.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(JobFailed, match=r"prices: .*prices.yaml"):
        planning._price(settings.model_copy(update={"prices": path, "node_type": "g5.xlarge"}))


def test_every_key_is_as_likely_to_be_in_the_sample() -> None:
    from datetime import UTC, datetime

    stats = [Stat(str(number), number, "", datetime.now(UTC)) for number in range(10_000)]
    sample, keys, size = _sampled(stats, 1000)
    assert (len({key.key for key in sample}), keys, size) == (1000, 10_000, sum(range(10_000)))
    assert sum(int(key.key) for key in sample) / 1000 == pytest.approx(5000, rel=0.1)
    assert len(_sampled(stats[:7], 1000)[0]) == 7
