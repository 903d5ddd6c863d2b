"""Every job's settings as typed classes, and how words and YAML become one of them.

Flags win over the file, the file over the defaults. Nothing else is read: no environment variable changes a job.
"""

from celebvision.config.app import AppSettings
from celebvision.config.batch import BatchSettings, ClassifySettings, PlanSettings, RunsSettings, StylizeSettings
from celebvision.config.cluster import ClusterSettings
from celebvision.config.data import DemoSettings, IngestSettings
from celebvision.config.evaluate import EvaluateSettings
from celebvision.config.parse import parse
from celebvision.config.report import ReportSettings
from celebvision.config.retrain import RetrainSettings
from celebvision.config.settings import MIB, PICTURES, SPEECH, URI, Crop, Part, Settings, WordsError
from celebvision.config.style import STYLE_WORDS, VGG, Arch, GatysSettings, PerceptualSettings, StyleWords
from celebvision.config.submit import JOBS, SubmitSettings
from celebvision.config.top import TopSettings
from celebvision.config.train import Augment, CycleGANSettings, Phase, PromoteSettings, TrainSettings
from celebvision.config.watched import WATCHED, WatchedSettings

__all__ = [
    "JOBS",
    "MIB",
    "PICTURES",
    "SPEECH",
    "STYLE_WORDS",
    "URI",
    "VGG",
    "WATCHED",
    "AppSettings",
    "Arch",
    "Augment",
    "BatchSettings",
    "ClassifySettings",
    "ClusterSettings",
    "Crop",
    "CycleGANSettings",
    "DemoSettings",
    "EvaluateSettings",
    "GatysSettings",
    "IngestSettings",
    "Part",
    "PerceptualSettings",
    "Phase",
    "PlanSettings",
    "PromoteSettings",
    "ReportSettings",
    "RetrainSettings",
    "RunsSettings",
    "Settings",
    "StyleWords",
    "StylizeSettings",
    "SubmitSettings",
    "TopSettings",
    "TrainSettings",
    "WatchedSettings",
    "WordsError",
    "parse",
]
