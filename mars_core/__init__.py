"""MARS: margin- and semantic-aware data augmentation for reward modelling (arXiv 2602.17658).

The science, importable alone: nothing in this package knows Prefect or MLflow. Each module has one subject:
`pairs` reads preference pairs, `reward_model` scores them, `selection` decides where the synthetic
budget goes, `rewriting` and `augmentation` spend it, and `train` fits the model to the result.
"""
