"""What counts as landed: whole drops with the right labels; everything else is named and left alone."""

import pytest
from landing import data_set, land

from celebvision.job import JobFailed
from celebvision.retrain.landed import look
from celebvision.storage import Store, join, open_store


@pytest.fixture
def data(bucket: str) -> Store:
    """A base, and a folder of its own splits."""
    land(f"{bucket}/data", data_set("base"))
    store = open_store(f"{bucket}/data")
    store.put("split=train/part-00000.parquet", b"")
    return store


def test_a_drop_is_shards_or_pictures_with_labels(data: Store) -> None:
    land(join(data.uri, "day 1"), data_set("day 1"))
    data.put("day2/labels.csv", b"key,Male\na.jpg,1\nb/b.jpg,0\nnot_yet.jpg,1\n")
    for key in ("day2/a.jpg", "day2/b/b.jpg", "day2/unlabelled.jpg"):
        data.put(key, b"")
    landing = look(data.uri, ["Male"])
    assert landing.base.source == "base"
    shards, pictures = landing.drops
    assert (shards.name, shards.folder, shards.rows, shards.labelled) == ("day 1", "day 1", 10, False)
    assert (pictures.name, pictures.rows, pictures.labelled) == ("day2", 2, True)
    assert pictures.folder == f"_ingested/{pictures.id}"
    assert pictures.id.startswith("day2-")
    assert landing.left == {}


def test_what_is_not_whole_or_lacks_labels_is_left_alone_and_named(data: Store) -> None:
    data.put("half/1.jpg", b"")
    data.put("labels_first/labels.csv", b"key,Male\n1.jpg,1\n")
    data.put("smiles/labels.csv", b"key,Smiling\n1.jpg,1\n")
    data.put("smiles/1.jpg", b"")
    land(join(data.uri, "old"), data_set("old", ("Smiling",)))
    data.put("_ingested/x/dataset.json", b"not looked at")
    landing = look(data.uri, ["Male"])
    assert landing.drops == ()
    assert landing.left == {
        "half": "holds neither dataset.json nor a file of labels: it has not landed yet",
        "labels_first": "none of its 1 labelled pictures has landed",
        "smiles": "has no labels of Male",
        "old": "has no labels of Male",
    }


@pytest.mark.parametrize("change", ["day/2.jpg", "day/labels.csv"])
def test_a_drop_that_changes_is_another_drop(change: str, data: Store) -> None:
    data.put("day/labels.csv", b"key,Male\n1.jpg,1\n2.jpg,1\n")
    data.put("day/1.jpg", b"")
    before = look(data.uri, ["Male"])
    assert look(data.uri, ["Male"]) == before
    data.put(change, b"key,Male\n1.jpg,0\n2.jpg,1\n")
    after = look(data.uri, ["Male"])
    assert after.drops[0].id != before.drops[0].id
    assert after.digest != before.digest


def test_wrong_labels_and_a_missing_base_are_told(data: Store, bucket: str) -> None:
    data.put("day/labels.csv", b"key,Male\n1.jpg,maybe\n")
    with pytest.raises(JobFailed, match=r"data/day/labels.csv: row 1 \(1.jpg\): Male is 'maybe'"):
        look(data.uri, ["Male"])
    with pytest.raises(JobFailed, match=r"elsewhere: holds no dataset.json"):
        look(f"{bucket}/elsewhere", ["Male"])
