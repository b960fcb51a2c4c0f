"""The real client against a server that answers as the API server does; tests/e2e has the real one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest

from muelle.errors import ClusterError, ConflictError
from muelle.rollout.kube import KubeCluster


def status(code, message, reason="X"):
    return code, {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}


class Server:
    """Notes requests and answers from a list."""

    def __init__(self):
        self.requests, self.answers = [], []
        noted = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                kind = self.headers.get("Content-Type", "")
                document = json.loads(body) if body else None
                noted.requests.append((self.command, parts.path, dict(parse_qsl(parts.query)), kind, document))
                code, answer = noted.answers.pop(0) if noted.answers else (200, {})
                text = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(code)
                if code == 503:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = answer

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def write_config(folder, url, namespace=None):
    context = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
    document = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [
            {"name": "here", "context": context},
            {"name": "there", "context": {**context, "namespace": "far"}},
        ],
        "current-context": "here",
    }
    path = folder / "config"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def cluster(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(write_config(tmp_path, server.url, "ns")))
    return KubeCluster.connect(None, None, (0, 0))


def test_the_namespace_is_the_contexts_unless_another_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(write_config(tmp_path, server.url)))
    assert KubeCluster.connect(None, None).namespace == "default"
    assert KubeCluster.connect("there", None).namespace == "far"
    assert KubeCluster.connect("there", "mine").namespace == "mine"


def test_no_such_context_and_no_kube_config_are_said(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(write_config(tmp_path, server.url)))
    with pytest.raises(ClusterError, match="no context 'x' in the kube config; there is here, there"):
        KubeCluster.connect("x", None)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"no cluster to talk to: .* Set KUBECONFIG"):
        KubeCluster.connect(None, None)


def changed(**fields):
    context = {"name": "here", "context": {"cluster": "c", "user": "u"}}
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [context],
        "current-context": "here",
    }
    return json.dumps(document | fields).encode()


@pytest.mark.parametrize("context", [None, "here"])
@pytest.mark.parametrize(
    "config",
    [
        b"a: [1",
        b"\tx: 1",
        b"[1, 2]",
        b"hello",
        b"\xff\xfe",
        b"[" * 20_000,
        changed(contexts=5),
        changed(contexts=[5]),
        changed(contexts=[{"name": "here", "context": 5}]),
        changed(contexts=[{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": 5}}]),
        changed(clusters=5),
        changed(clusters=[{"name": "c", "cluster": {"server": 5}}]),
        changed(clusters=[{"name": "c", "cluster": {"server": "https://x", "certificate-authority-data": "x"}}]),
        changed(users=5),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_kube_config_is_said_in_one_line(tmp_path, monkeypatch, config, context):
    (tmp_path / "config").write_bytes(config)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(ClusterError) as caught:
        KubeCluster.connect(context, None)
    assert str(caught.value).startswith(f"{tmp_path}/config: can't be read as a kube config: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Service", "/api/v1/namespaces/ns/services/x"),
        ("ConfigMap", "/api/v1/namespaces/ns/configmaps/x"),
        ("Deployment", "/apis/apps/v1/namespaces/ns/deployments/x"),
        ("HTTPRoute", "/apis/gateway.networking.k8s.io/v1/namespaces/ns/httproutes/x"),
    ],
)
def test_an_object_is_read_as_it_is_or_is_not_there(cluster, server, kind, path):
    server.answers = [(200, {"spec": {"future": 1}}), status(404, "not found")]
    assert cluster.read(kind, "x") == {"spec": {"future": 1}}
    assert cluster.read(kind, "x") is None
    assert server.requests[0][:2] == ("GET", path)


def test_lists_are_by_label(cluster, server):
    server.answers = [(200, {"items": [{"metadata": {}}]}), (200, {"items": None})]
    assert cluster.list("Pod", {"a": "1", "b/c": "2"}) == [{"metadata": {}}]
    assert cluster.list("EndpointSlice", {}) == []
    assert server.requests[0][:3] == ("GET", "/api/v1/namespaces/ns/pods", {"labelSelector": "a=1,b/c=2"})
    assert server.requests[1][1] == "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices"


@pytest.mark.parametrize(
    ("kind", "version"),
    [("Service", "v1"), ("Deployment", "apps/v1"), ("HTTPRoute", "gateway.networking.k8s.io/v1")],
)
def test_fields_are_applied_by_the_server_under_our_name(cluster, server, kind, version):
    cluster.apply(kind, "x", {"spec": {"replicas": 2}}, "77")
    method, _, query, content, body = server.requests[0]
    assert (method, query, content) == (
        "PATCH",
        {"fieldManager": "muelle", "force": "true"},
        "application/apply-patch+yaml",
    )
    meta = {"name": "x", "namespace": "ns", "resourceVersion": "77"}
    assert body == {"apiVersion": version, "kind": kind, "metadata": meta, "spec": {"replicas": 2}}


@pytest.mark.parametrize(("managed", "sent"), [([{"manager": "helm"}], [{"manager": "helm"}]), ([], [{}])])
def test_giving_up_fields_touches_nothing_else(cluster, server, managed, sent):
    cluster.disown("Deployment", "x", managed, "77")
    method, _, query, content, body = server.requests[0]
    assert (method, query, content) == ("PATCH", {"fieldManager": "muelle"}, "application/merge-patch+json")
    assert body == {"metadata": {"resourceVersion": "77", "managedFields": sent}}


def test_the_record_is_made_and_replaced(cluster, server):
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "r", "resourceVersion": "7"},
        "data": {"a": "b"},
    }
    cluster.create("ConfigMap", document)
    cluster.replace("ConfigMap", document)
    assert [request[:2] for request in server.requests] == [
        ("POST", "/api/v1/namespaces/ns/configmaps"),
        ("PUT", "/api/v1/namespaces/ns/configmaps/r"),
    ]
    assert server.requests[1][4] == document


def test_a_change_in_between_is_a_conflict(cluster, server):
    server.answers = [status(409, "the object has been modified")]
    with pytest.raises(ConflictError, match="patch Service x in namespace ns: the object has been modified"):
        cluster.apply("Service", "x", {}, "1")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            status(403, 'services "x" is forbidden'),
            'not allowed to patch Service x in namespace ns: services "x" is forbidden',
        ),
        (
            status(401, "Unauthorized"),
            "patch Service x in namespace ns: the API server does not accept these credentials",
        ),
        (
            status(422, "spec: Invalid value"),
            "patch Service x in namespace ns: the API server says 422: spec: Invalid value",
        ),
        (status(404, "gone"), "patch Service x in namespace ns: the API server says 404: gone"),
        ((400, "<html>"), "patch Service x in namespace ns: the API server says 400: Bad Request"),
    ],
)
def test_a_refusal_names_verb_and_object(cluster, server, answer, message):
    server.answers = [answer]
    with pytest.raises(ClusterError) as caught:
        cluster.apply("Service", "x", {}, "1")
    assert str(caught.value).startswith(message)
    assert len(server.requests) == 1


def test_a_server_that_is_busy_is_asked_again(cluster, server):
    server.answers = [status(503, "busy"), status(429, "slowly"), (200, {"a": 1})]
    assert cluster.read("Service", "x") == {"a": 1}
    server.answers = [status(500, "oh")] * 3
    with pytest.raises(ClusterError, match="get Service x in namespace ns: the API server says 500: oh"):
        cluster.read("Service", "x")


def test_a_server_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(write_config(tmp_path, "http://127.0.0.1:1")))
    cluster = KubeCluster.connect(None, None, ())
    with pytest.raises(ClusterError) as caught:
        cluster.list("Service", {})
    assert "list Services in namespace default: the API server at http://127.0.0.1:1 can't be reached" in str(
        caught.value
    )
    assert cluster.ask_pod("p", 8080, "/metrics") is None


def test_a_pod_is_asked_through_the_api_server(cluster, server):
    reasons = '{"status": "not ready", "reasons": ["x"]}'
    server.answers = [
        (200, "# page"),
        (503, reasons),
        status(503, "error trying to reach service"),
        status(404, "no pod"),
    ]
    assert cluster.ask_pod("p", 8080, "/metrics") == "# page"
    assert server.requests[0][:2] == ("GET", "/api/v1/namespaces/ns/pods/p%3A8080/proxy/metrics")
    assert cluster.ask_pod("p", 8080, "/readyz") == reasons
    assert cluster.ask_pod("p", 8080, "/readyz") is None
    assert cluster.ask_pod("p", 8080, "/readyz") is None
    assert len(server.requests) == 4  # one each, whatever Retry-After says
