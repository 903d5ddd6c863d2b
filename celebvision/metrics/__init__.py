"""What jobs tell those who watch them: one list of names, the figures of a job, and where it leaves them."""

from celebvision.metrics import names
from celebvision.metrics.figures import Figures, Histogram, Sample
from celebvision.metrics.job import Telling, telling
from celebvision.metrics.names import METRICS, Metric
from celebvision.metrics.pushgateway import push

__all__ = ["METRICS", "Figures", "Histogram", "Metric", "Sample", "Telling", "names", "push", "telling"]
