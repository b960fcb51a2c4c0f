"""A namespace of a real cluster: the only module that knows the Kubernetes client.

It needs these rights, all in the release's namespace: get and patch of the two Deployments, of the front Service and of
the HTTPRoute; list of Services, Pods and EndpointSlices; get, create and update of the record's ConfigMap; get of
pods/proxy, for what the pods themselves say.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import urllib3.exceptions
import yaml
from kubernetes import client, config

from muelle.errors import ClusterError, ConflictError
from muelle.rollout.cluster import Kind, ListKind, Object
from muelle.rollout.owned import MANAGER

_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_ROUTES: Final = ("gateway.networking.k8s.io", "v1")
_API_VERSIONS: Final[Mapping[Kind, str]] = {
    "Service": "v1",
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "HTTPRoute": "/".join(_ROUTES),
}
_TIMEOUT_SECONDS: Final = (5.0, 30.0)
#: A pod that doesn't answer soon is asked again with the next look.
_POD_TIMEOUT_SECONDS: Final = (3.0, 5.0)
#: An API server that is restarted or busy is back within these pauses.
_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0)
_TRANSIENT: Final = frozenset({429, 500, 502, 503, 504})
_KUBE_CONFIG: Final = Path("~/.kube/config")
#: What the client raises for a file that is something else: it looks for nothing before it uses it.
_NO_KUBE_CONFIG: Final = (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
_OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubeCluster:
    """One namespace, reached through the official client.

    Parameters
    ----------
    api : kubernetes.client.ApiClient
    namespace : str
    pauses_seconds : sequence of float
        Before each further attempt, when the API server doesn't answer.
    """

    def __init__(self, api: Any, namespace: str, pauses_seconds: Sequence[float] = _PAUSES_SECONDS) -> None:
        self._namespace = namespace
        self._host = api.configuration.host
        self._pauses_seconds = pauses_seconds
        self._core, self._apps = client.CoreV1Api(api), client.AppsV1Api(api)
        slices, routes = client.DiscoveryV1Api(api), client.CustomObjectsApi(api)
        core, apps = self._core, self._apps
        group, version = _ROUTES

        def route(call: Any) -> Callable[..., Any]:
            def do(name: str, namespace: str, *body: Object, **options: Any) -> Any:
                return call(group, version, namespace, "httproutes", name, *body, **options)

            return do

        self._read: Mapping[Kind, Any] = {
            "Service": core.read_namespaced_service,
            "ConfigMap": core.read_namespaced_config_map,
            "Deployment": apps.read_namespaced_deployment,
            "HTTPRoute": route(routes.get_namespaced_custom_object),
        }
        self._patch: Mapping[Kind, Any] = {
            "Service": core.patch_namespaced_service,
            "Deployment": apps.patch_namespaced_deployment,
            "HTTPRoute": route(routes.patch_namespaced_custom_object),
        }
        self._list: Mapping[ListKind, Any] = {
            "Service": core.list_namespaced_service,
            "Pod": core.list_namespaced_pod,
            "EndpointSlice": slices.list_namespaced_endpoint_slice,
        }

    @classmethod
    def connect(
        cls, context: str | None, namespace: str | None, pauses_seconds: Sequence[float] = _PAUSES_SECONDS
    ) -> KubeCluster:
        """Use a context of the kube config, or the pod's own service account.

        Parameters
        ----------
        context : str, optional
            By default the current one.
        namespace : str, optional
            By default the context's.
        pauses_seconds : sequence of float
            As in the constructor.

        Raises
        ------
        ClusterError
            When there is no usable configuration.
        """
        settings = client.Configuration()
        # urllib3 would wait as long as a 503's Retry-After says, three times, and a pod that isn't ready answers so.
        # What is worth another attempt, `_call` knows.
        settings.retries = False
        # The client would take what the variable was when it was imported.
        file = os.environ.get("KUBECONFIG") or str(_KUBE_CONFIG)
        try:
            if context is None and _only_in_cluster():
                config.load_incluster_config(client_configuration=settings)
                namespace = namespace or _OWN_NAMESPACE.read_text(encoding="utf-8").strip()
                return cls(client.ApiClient(settings), namespace, pauses_seconds)
            contexts, current = config.list_kube_config_contexts(config_file=file)
            named = {item["name"]: item for item in contexts}
            if context is not None and context not in named:
                known = ", ".join(sorted(named)) or "none"
                raise ClusterError(f"no context {context!r} in the kube config; there is {known}")
            chosen = current if context is None else named[context]
            api = config.new_client_from_config(config_file=file, context=chosen["name"], client_configuration=settings)
            namespace = namespace or chosen["context"].get("namespace") or "default"
            if not isinstance(namespace, str):
                raise TypeError(f"expected a namespace, got {namespace!r}")
        except (config.ConfigException, OSError) as error:
            raise ClusterError(
                f"no cluster to talk to: {str(error).rstrip('.')}. Set KUBECONFIG to a kube config, "
                "or name one of its contexts with --context"
            ) from error
        except _NO_KUBE_CONFIG as error:
            raise ClusterError(f"{file}: can't be read as a kube config: {' '.join(str(error).split())}") from error
        return cls(api, namespace, pauses_seconds)

    @property
    def namespace(self) -> str:
        """The namespace."""
        return self._namespace

    def read(self, kind: Kind, name: str) -> Object | None:
        """Return an object, or None when there is none of that name."""
        return self._call("get", f"{kind} {name}", partial(self._read[kind], name, self._namespace), missing=True)

    def list(self, kind: ListKind, labels: Mapping[str, str]) -> Sequence[Object]:
        """Return the objects that have all these labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found = self._do("list", f"{kind}s", partial(self._list[kind], self._namespace, label_selector=selector))
        return list(found.get("items") or [])

    def apply(self, kind: Kind, name: str, fields: Object, resource_version: str) -> Object:
        """Apply fields as the manager ``muelle``, by force; `ConflictError` when the object is another by now."""
        body = {
            "apiVersion": _API_VERSIONS[kind],
            "kind": kind,
            **fields,
            "metadata": self._meta(name, resource_version),
        }
        return self._do(
            "patch",
            f"{kind} {name}",
            partial(
                self._patch[kind],
                name,
                self._namespace,
                body,
                field_manager=MANAGER,
                force=True,
                _content_type=_APPLY,
            ),
        )

    def disown(self, kind: Kind, name: str, managed_fields: Sequence[Object], resource_version: str) -> Object:
        """Write who manages which field, and nothing else; `ConflictError` when the object is another by now."""
        # An empty list would mean to leave them as they are; one empty entry means nobody manages anything.
        meta = {"resourceVersion": resource_version, "managedFields": [*managed_fields] or [{}]}
        call = partial(
            self._patch[kind],
            name,
            self._namespace,
            {"metadata": meta},
            field_manager=MANAGER,
            _content_type=_MERGE,
        )
        return self._do("patch", f"{kind} {name}", call)

    def create(self, kind: Kind, document: Object) -> Object:
        """Create the record; `ConflictError` when there is one of that name."""
        call = partial(self._core.create_namespaced_config_map, self._namespace, document, field_manager=MANAGER)
        return self._do("create", f"{kind} {document['metadata']['name']}", call)

    def replace(self, kind: Kind, document: Object) -> Object:
        """Replace the record; `ConflictError` when its resourceVersion is no longer the document's."""
        name = document["metadata"]["name"]
        call = partial(self._core.replace_namespaced_config_map, name, self._namespace, document, field_manager=MANAGER)
        return self._do("update", f"{kind} {name}", call)

    def ask_pod(self, pod: str, port: int, path: str) -> str | None:
        """Return what a pod answers to a GET, whatever the status; None when it does not answer at all."""
        try:
            answer = self._core.connect_get_namespaced_pod_proxy_with_path(
                f"{pod}:{port}",
                self._namespace,
                path.lstrip("/"),
                _preload_content=False,
                _request_timeout=_POD_TIMEOUT_SECONDS,
            )
            return bytes(answer.data).decode("utf-8", "replace")
        except client.ApiException as error:
            text = str(error.body or "")
            # The API server's own words mean that it did not get through to the pod.
            return None if _status_of(text) else text
        except urllib3.exceptions.HTTPError:
            return None

    def _meta(self, name: str, resource_version: str) -> Object:
        return {"name": name, "namespace": self._namespace, "resourceVersion": resource_version}

    def _do(self, verb: str, what: str, call: Callable[..., Any]) -> Object:
        found = self._call(verb, what, call, missing=False)
        if found is None:
            raise ClusterError(f"{verb} {what} in namespace {self._namespace}: the API server answered nothing")
        return found

    def _call(self, verb: str, what: str, call: Callable[..., Any], *, missing: bool) -> Object | None:
        """Make a request; again after a pause when the API server is away or busy."""
        where = f"{verb} {what} in namespace {self._namespace}"
        for pause in (*self._pauses_seconds, None):
            try:
                response = call(_preload_content=False, _request_timeout=_TIMEOUT_SECONDS)
                document: Object = json.loads(response.data)
            except client.ApiException as error:
                if error.status == 404 and missing:
                    return None
                if pause is None or error.status not in _TRANSIENT:
                    raise _refusal(error, where) from error
            except urllib3.exceptions.HTTPError as error:
                if pause is None:
                    reason = getattr(error, "reason", None) or error
                    raise ClusterError(f"{where}: the API server at {self._host} can't be reached: {reason}") from error
            else:
                return document
            time.sleep(pause)
        return None


def _refusal(error: Any, where: str) -> ClusterError:
    """Return our error for an answer of the API server that is none of the good ones."""
    said = _status_of(str(error.body or "")).get("message") or error.reason
    if error.status == 409:
        return ConflictError(f"{where}: {said}")
    if error.status == 401:
        return ClusterError(f"{where}: the API server does not accept these credentials ({said})")
    if error.status == 403:
        return ClusterError(
            f"not allowed to {where}: {said}. The chart's Role for operators has all that the commands need: "
            "operator.create=true"
        )
    return ClusterError(f"{where}: the API server says {error.status}: {said}")


def _status_of(text: str) -> Object:
    """Return the API server's Status object; empty for a text that is none."""
    with contextlib.suppress(ValueError):
        document = json.loads(text)
        if isinstance(document, dict) and document.get("kind") == "Status":
            return document
    return {}


def _only_in_cluster() -> bool:
    """Whether this is a pod with a service account and without a kube config."""
    return (
        not os.environ.get("KUBECONFIG")
        and "KUBERNETES_SERVICE_HOST" in os.environ
        and _OWN_NAMESPACE.is_file()
        and not _KUBE_CONFIG.expanduser().is_file()
    )
