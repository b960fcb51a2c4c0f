"""Every error that Muelle raises on purpose.

::

    MuelleError
    ├── SettingsError              a setting is unknown or has a bad value
    ├── BundleError                a bundle can't be written, read or trusted
    │   ├── BundleExistsError      that name and version is already in the repository
    │   ├── ManifestError          manifest.json (or another of our JSON files) is not what the format says
    │   ├── IntegrityError         a file is missing, altered, extra, or not a plain file
    │   ├── UnsafePickleError      a pickle asks for something that is not on the allow-list
    │   ├── LibrarySkewError       the running libraries are too far from those that made the model
    │   ├── EngineError            a verified file could not be turned into a model, or a model failed to run
    │   └── GoldenMismatchError    the loaded model does not reproduce its golden outputs
    ├── EstimatorError             an estimator or sample that can't become a bundle
    ├── StoreError                 a place that holds bundles can't be used, or refuses
    │   └── StoreUnreachableError  it gives no answer or a broken one: trying again may help
    ├── NotFoundError              no such model or version
    ├── NotReadyError              the model is known, but can't answer (yet)
    ├── RolloutError               an operator's command can't go on
    │   ├── RefusedError           the command does not fit the release or its state; nothing was changed
    │   ├── RecordError            a release's record or its facts are not what the format says
    │   ├── StuckError             pods, or the gateway, did not get ready
    │   └── ClusterError           the Kubernetes API can't be reached, or says no
    │       └── ConflictError      somebody else has changed the object in between
    └── InputError                 the caller's data; `code` names the kind, `where` the place

There is no HTTP here: `service.errors` holds the table from these classes to statuses.
"""

from __future__ import annotations


class MuelleError(Exception):
    """The root of the tree."""


class SettingsError(MuelleError):
    """A setting is unknown or has a bad value; the message names it."""


class BundleError(MuelleError):
    """A bundle can't be written, read or trusted."""


class BundleExistsError(BundleError):
    """The repository already holds that name and version."""


class ManifestError(BundleError):
    """One of the bundle's own JSON files is not what the format says; the message names the field."""


class IntegrityError(BundleError):
    """A file of the bundle is missing, altered, extra, or not a plain file; the message names it."""


class UnsafePickleError(BundleError):
    """A pickle asks for a global that is not on the allow-list; nothing of it was called."""


class LibrarySkewError(BundleError):
    """The running scikit-learn or numpy differs from the manifest's in major or minor version."""


class EngineError(BundleError):
    """A verified file could not be turned into a model, or the model failed to run."""


class GoldenMismatchError(BundleError):
    """The loaded model does not reproduce its golden outputs."""


class EstimatorError(MuelleError):
    """An estimator or sample that can't become a bundle; the message says what is missing."""


class StoreError(MuelleError):
    """An object store, web server or registry can't be used, or refuses; the message names the URL."""


class StoreUnreachableError(StoreError):
    """A store gives no answer, a broken one, or says that it can't just now: trying again may help."""


class NotFoundError(MuelleError):
    """No such model or version."""


class NotReadyError(MuelleError):
    """The model is known, but can't answer (yet); the message says why."""


class RolloutError(MuelleError):
    """An operator's command can't go on; the message says why."""


class RefusedError(RolloutError):
    """The command does not fit the release or its state; nothing was changed."""


class RecordError(RolloutError):
    """A release's record, or the facts on its Service, are not what the format says; the message names the field."""


class StuckError(RolloutError):
    """Pods, or the gateway, did not get ready; the message says what they wait for."""


class ClusterError(RolloutError):
    """The Kubernetes API can't be reached, or says no; the message names verb and object."""


class ConflictError(ClusterError):
    """Somebody else has changed the object since it was read."""


class InputError(MuelleError):
    """The caller's data is at fault.

    Parameters
    ----------
    message : str
        What was expected and what came, for a person.
    code : str
        The kind of fault, stable, for a program (``invalid_value``, ``missing_feature``, …).
    where : str
        The place in the body, such as ``features[0][3]``; empty when it is the body as a whole.
    """

    def __init__(self, message: str, *, code: str, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.code = code
        self.where = where
