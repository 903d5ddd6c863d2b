"""`plan` says what a run would do, and leaves no trace."""

import json

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


def test_every_key_is_as_likely_to_be_in_the_sample() -> None:
    from datetime import UTC, datetime

    stats = [Stat(str(number), number, "", datetime.now(UTC)) for number in range(10_000)]
    sample, keys, size = _sampled(stats, 1000)
    assert (len({key.key for key in sample}), keys, size) == (1000, 10_000, sum(range(10_000)))
    assert sum(int(key.key) for key in sample) / 1000 == pytest.approx(5000, rel=0.1)
    assert len(_sampled(stats[:7], 1000)[0]) == 7
