"""Training: data, pipelines, evaluation and publication of the examples, and the place to add one's own.

`training.pipelines` lists the models by name and shows how to add one; `training.publish` trains and writes the bundle.
scikit-learn is imported only when something is trained.
"""
