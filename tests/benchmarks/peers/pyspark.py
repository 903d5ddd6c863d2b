"""PySpark's way: the `binaryFile` source and a pandas UDF over iterators, which loads the network once a partition.

From S3 the pictures are fetched inside the UDF, over a frame of names: Spark's own S3 source is not in its package.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import torch
from PIL import Image
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import pandas_udf
from torchvision import transforms

from tests.benchmarks.peers.task import Task, parser, task_of

BATCH = 64
PARTITIONS_A_CORE = 4


def session() -> SparkSession:
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else the UDF runs in whatever is called python3
    builder = SparkSession.builder.master(f"local[{os.cpu_count()}]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH)
    return (
        builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1").getOrCreate()
    )


def predictor(task: Task, bytes_of: Callable[[Any], bytes]) -> Callable[[Iterator[pd.Series]], object]:
    def predict(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        torch.set_num_threads(1)  # Spark already runs one such process a core
        network = task.network()
        size = task.preprocessing()
        transform = transforms.Compose(
            [
                transforms.Resize((size.height, size.width)),
                transforms.ToTensor(),
                transforms.Normalize(size.mean, size.std),
            ]
        )
        for batch in batches:
            pictures = [Image.open(io.BytesIO(bytes_of(content))).convert("RGB") for content in batch]
            with torch.inference_mode():
                inputs = torch.stack([transform(picture) for picture in pictures])
                answers = torch.sigmoid(network(inputs))[:, 0].numpy()
            task.answered(len(answers))
            yield pd.Series(answers)

    # Spark reads the types of the annotations, which are text here.
    predict.__annotations__ = {"batches": Iterator[pd.Series], "return": Iterator[pd.Series]}
    return predict


def pictures_of(spark: SparkSession, task: Task) -> DataFrame:
    if task.images.startswith("s3://"):
        names = spark.createDataFrame([(name,) for name in task.names()], "path string")
        return names.repartition(PARTITIONS_A_CORE * (os.cpu_count() or 1))
    return spark.read.format("binaryFile").option("pathGlobFilter", "*.jpg").load(task.images)


def main() -> None:
    task = task_of(parser().parse_args())
    spark = session()
    on_s3 = task.images.startswith("s3://")
    predict = pandas_udf(predictor(task, task.read if on_s3 else bytes), "float")
    frame = pictures_of(spark, task)
    answered = frame.select(frame.path.alias("name"), predict("path" if on_s3 else "content").alias("probability"))
    answered.write.parquet(task.rows())
    task.done(sum(pq.read_metadata(file).num_rows for file in Path(task.rows()).glob("*.parquet")))
    spark.stop()


if __name__ == "__main__":
    main()
