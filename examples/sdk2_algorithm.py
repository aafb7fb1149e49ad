"""Train and tune with a registered Algorithm (boto3_algorithm.py) and the SageMaker Python SDK 2.

    pip install 'sagemaker<3'
    python examples/sdk2_algorithm.py ALGORITHM ROLE s3://BUCKET/PREFIX

The Algorithm contains the metric definitions. The SDK checks hyperparameters, channels, and instance types against it
before it creates a job. The example tunes the learning rate and the optimizer in 4 jobs, and then trains for longer
with the best values. PREFIX contains train, train_annotation, validation, and validation_annotation.
"""

import sys

from sagemaker.algorithm import AlgorithmEstimator
from sagemaker.inputs import TrainingInput
from sagemaker.tuner import CategoricalParameter, ContinuousParameter, HyperparameterTuner

algorithm, role, prefix = sys.argv[1:]
channels = {
    name: TrainingInput(f"{prefix}/{name}/", content_type="image/png" if "annotation" in name else "image/jpeg")
    for name in ("train", "train_annotation", "validation", "validation_annotation")
}
job = {"instance_count": 1, "instance_type": "ml.g5.xlarge", "volume_size": 50, "output_path": f"{prefix}/output"}
hyperparameters = {"num_classes": 21, "num_training_samples": 1464, "epochs": 10}

estimator = AlgorithmEstimator(algorithm, role, hyperparameters=hyperparameters, **job)
tuner = HyperparameterTuner(
    estimator,
    "validation:mIOU",
    {
        "learning_rate": ContinuousParameter(0.0001, 0.1, scaling_type="Logarithmic"),
        "optimizer": CategoricalParameter(["sgd", "adam", "rmsprop"]),
    },
    max_jobs=4,
    max_parallel_jobs=2,
    base_tuning_job_name="segmentation",  # the default would be the name of the image, which the SDK does not know
)
tuner.fit(channels, include_cls_metadata=False)
best = tuner.describe()["BestTrainingJob"]["TunedHyperParameters"]

hyperparameters |= {"epochs": 30, "learning_rate": best["learning_rate"], "optimizer": best["optimizer"]}
estimator = AlgorithmEstimator(algorithm, role, hyperparameters=hyperparameters, **job)
estimator.fit(channels)
print(estimator.model_data)
