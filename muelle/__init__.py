"""Muelle serves scikit-learn-class models on plain Kubernetes."""

__version__ = "0.1.0"
