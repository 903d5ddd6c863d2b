"""Words and YAML become settings, or are refused with what would be right."""

from pathlib import Path

import pytest

from celebvision.config import ClassifySettings, TrainSettings, WordsError, parse

NEEDED = ["--data", "s3://b/shards", "--registry", "s3://b/models"]


def train(*words: str) -> TrainSettings:
    return parse(TrainSettings, [*NEEDED, *words], "celebvision train")


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("batch_size: 32\nseed: 7\naugment: {flip: 0.25, erase: 0.5}\n")
    settings = train("--config", str(file), "--seed", "9", "--augment.flip", "0")
    assert (settings.batch_size, settings.seed) == (32, 9)
    assert (settings.augment.flip, settings.augment.erase) == (0, 0.5)
    assert settings.workers == TrainSettings.model_fields["workers"].default


def test_the_styles_of_a_flag_take_the_place_of_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("architecture: style_net\nstyles: {wave: s3://b/wave.jpg}\narguments: {size: 256, width: 32}\n")
    words = ["--config", str(file), "--data", "d", "--registry", "r"]
    words += ["--styles", '{"candy": "s3://b/candy.jpg"}', "--arguments", '{"size": 128}']
    settings = parse(TrainSettings, words, "celebvision train")
    assert settings.styles == {"candy": "s3://b/candy.jpg"}
    assert settings.arguments == {"size": 128, "width": 32}


def test_lists_are_given_with_commas_and_nested_ones_as_json() -> None:
    settings = train(
        "--targets", "Male,Young", "--phases", '[{"epochs": 2, "learning_rate": 0.1, "trainable": ["fc"]}]'
    )
    assert settings.targets == ["Male", "Young"]
    assert settings.phases[0].trainable == ["fc"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--epoch", "3"], "--epoch: there is no such setting"),
        (["--batch_sizes", "3"], "did you mean --batch_size?"),
        (["--batch", "3"], "--batch: there is no such setting"),
        (["--batch_size", "many"], "batch_size: 'many' is refused: should be a valid integer"),
        (["--batch_size", "1"], "batch_size: '1' is refused: should be greater than or equal to 2"),
        (["--augment.flip", "2"], "augment.flip: '2' is refused: should be less than or equal to 1"),
        (["--architecture", "vit"], "architecture: 'vit' is refused: should be one of adain, cnn, cyclegan,"),
        (["--data", "gs://bucket"], "data: 'gs://bucket' is refused: should be s3://bucket/prefix or a local path"),
        (["--data", "s3://"], "should name a bucket"),
        (["--name", "My Model"], "name: 'My Model' is refused"),
        (["--phases", '[{"epochs": 0, "learning_rate": 1}]'], "phases.0.epochs: 0 is refused"),
        (["--phases", "[{epochs: 2}]"], "--phases: should be VALUE,VALUE"),
        (["--phases", '[{"epochs": 2'], "--phases: should be VALUE,VALUE"),
        (["--arguments", "{width: 8}"], "--arguments: should be VALUE,VALUE for a list and NAME=VALUE"),
        (["--cyclegan.identity_weight", "[3"], "cyclegan.identity_weight: '[3' is refused"),
        (["--styles", "houses"], "or JSON with double quotes"),
    ],
)
def test_wrong_words_are_refused_with_what_would_be_right(words: list[str], told: str) -> None:
    with pytest.raises(WordsError) as refused:
        train(*words)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("gateway:9091", "should be http://HOST:PORT"),
        ("s3://gateway", "should be http://HOST:PORT"),
        ("http://", "should be http://HOST:PORT"),
        ("http://me:secret@gateway:9091", "should hold no user or password"),
    ],
)
def test_an_address_that_is_none_or_would_tell_a_secret_is_refused(address: str, told: str) -> None:
    words = ["--input", "in", "--output", "out", "--model", "cnn", "--registry", "models"]
    with pytest.raises(WordsError) as refused:
        parse(ClassifySettings, [*words, "--pushgateway", address], "classify")
    assert told in str(refused.value)
    assert parse(ClassifySettings, [*words, "--pushgateway", "http://a:1/"], "classify").pushgateway == "http://a:1"


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        ("batch_sizes: 3", "batch_sizes: there is no such setting; did you mean batch_size?"),
        ("augment: {flp: 1}", "augment.flp: there is no such setting; did you mean flip?"),
        ("- 1", "should hold keys and values"),
        ("a: [", "not YAML"),
        ("seed: -1", "seed: -1 is refused: should be greater than or equal to 0"),
    ],
)
def test_a_wrong_file_is_refused_with_what_would_be_right(yaml: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(yaml)
    with pytest.raises(WordsError) as refused:
        train("--config", str(file))
    assert told in str(refused.value)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(WordsError, match=r"nowhere\.yaml: No such file"):
        train("--config", "nowhere.yaml")


def test_what_is_needed_is_named() -> None:
    with pytest.raises(WordsError) as refused:
        parse(ClassifySettings, ["--input", "photos"], "celebvision classify")
    assert {line.split(":")[0] for line in str(refused.value).splitlines()} == {"output", "model", "registry"}


def test_the_environment_changes_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "5")
    monkeypatch.setenv("BATCH_SIZE", "5")
    assert (train().seed, train().batch_size) == (0, 64)


@pytest.mark.parametrize("file", sorted((Path(__file__).parent.parent / "configs" / "train").glob("*.yaml")), ids=str)
def test_every_shipped_configuration_is_accepted(file: Path) -> None:
    after_shards = file.name.startswith(("cyclegan", "adain"))
    train("--config", str(file), *(["--style_data", "styles"] if after_shards else []))
