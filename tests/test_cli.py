"""Verbs, help and exit statuses."""

import json
import sys

import pytest
from ray._private.worker import print_worker_logs

from celebvision import cli, config
from celebvision.job import JobFailed, Outcome


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A verb `try` of `IngestSettings` whose outcome, or error, a test puts into the returned dict."""
    told: dict[str, object] = {}

    def function(settings: config.IngestSettings) -> Outcome:
        outcome = told["outcome"]
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, Outcome)
        return outcome

    monkeypatch.setitem(cli.VERBS, "try", cli.Verb(config.IngestSettings, "nowhere:nothing", on_ray=False))
    monkeypatch.setattr(cli.Verb, "load", lambda _: function)
    return told


WORDS = ["try", "--source", "a", "--output", "b"]


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_has_help_with_a_line_for_each_setting(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for key, field in cli.VERBS[name].settings.model_fields.items():
        assert f"--{field.alias or key}" in shown
        assert field.description


def test_the_overview_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in cli.VERBS)


@pytest.mark.parametrize("words", [[], ["paint"], ["ingest"], ["ingest", "--sauce", "x"]])
def test_wrong_words_end_with_2(words: list[str]) -> None:
    assert cli.main(words) == 2


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_has_the_function_it_names(name: str) -> None:
    assert callable(cli.VERBS[name].load())


def test_done_ends_with_0_and_a_failed_job_with_1(verb: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    verb["outcome"] = Outcome({"rows": 3})
    assert cli.main(WORDS) == 0
    verb["outcome"] = JobFailed("no such place: look again")
    assert cli.main(WORDS) == 1
    assert "celebvision try: no such place: look again" in capsys.readouterr().err


def test_more_failures_than_allowed_end_with_3(verb: dict[str, object]) -> None:
    verb["outcome"] = Outcome(failures=2)
    assert cli.main(WORDS) == 0
    assert cli.main([*WORDS, "--max_failures", "2"]) == 0
    assert cli.main([*WORDS, "--max_failures", "1"]) == 3


def test_an_interrupted_job_ends_with_130(verb: dict[str, object]) -> None:
    verb["outcome"] = KeyboardInterrupt()
    assert cli.main(WORDS) == 130


def test_json_is_one_line_on_stdout_and_all_else_goes_to_stderr(
    verb: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    verb["outcome"] = Outcome({"rows": 3, "where": "s3://b"})
    assert cli.main([*WORDS, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"rows": 3, "where": "s3://b"}
    assert captured.out.count("\n") == 1


def test_what_ray_prints_while_a_job_runs_is_no_part_of_its_json(
    verb: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(settings: config.IngestSettings) -> Outcome:
        print_worker_logs({"lines": ["A worker died"], "pid": "raylet", "is_err": False}, sys.stdout, False)
        return Outcome({"rows": 3})

    monkeypatch.setitem(cli.VERBS, "try", cli.Verb(config.IngestSettings, "nowhere:nothing"))
    monkeypatch.setattr(cli.Verb, "load", lambda _: job)
    monkeypatch.setattr("celebvision.ray_session.start", lambda: None)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    assert cli.main([*WORDS, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"rows": 3}
    assert "A worker died" in captured.err
