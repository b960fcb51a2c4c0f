import subprocess

import pytest

from tools.release_diagram import DiagramError, Edge, edges, main, mermaid, reached, render, with_picture

LABELS = {"app": "m", "muelle.io/slot": "a"}
DEPLOYMENT = {
    "kind": "Deployment",
    "metadata": {"name": "m-a"},
    "spec": {
        "replicas": 1,
        "template": {
            "metadata": {"labels": LABELS},
            "spec": {
                "serviceAccountName": "m",
                "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}],
            },
        },
    },
}
PORTS = [{"port": 80, "targetPort": "http"}]
FRONT = {"kind": "Service", "metadata": {"name": "m", "labels": {"app": "m"}}}
FRONT["spec"] = {"selector": {"app": "m"}, "ports": PORTS}
ELSEWHERE = {"kind": "Service", "metadata": {"name": "m-b", "labels": {"app": "m", "muelle.io/slot": "b"}}}
ELSEWHERE["spec"] = {"selector": {"app": "m", "muelle.io/slot": "b"}, "ports": PORTS}
MONITOR = {"kind": "ServiceMonitor", "metadata": {"name": "m"}}
MONITOR["spec"] = {"selector": {"matchExpressions": [{"key": "muelle.io/slot", "operator": "Exists"}]}}


def ends(links):
    return [("/".join(edge.source), "/".join(edge.target), edge.label) for edge in links]


def test_a_service_leads_to_the_pods_that_it_selects_and_a_monitor_to_the_services_that_it_does():
    assert ends(edges([FRONT, ELSEWHERE, DEPLOYMENT, MONITOR])) == [
        ("Callers/in the cluster", "Service/m", ""),
        ("Service/m", "Deployment/m-a", "80 → 8080"),
        ("Deployment/m-a", "ServiceAccount/m", "runs as"),
        ("ServiceMonitor/m", "Service/m-b", "scrapes"),
    ]


def test_a_route_leads_by_header_and_weight_and_not_where_the_weight_is_zero():
    def to(name, weight):
        return {"kind": "Service", "name": name, "weight": weight}

    testers = {"matches": [{"headers": [{"name": "X", "value": "c"}]}], "backendRefs": [to("m-b", 1)]}
    copies = {"requestMirror": {"backendRef": to("m-b", 1), "percent": 5}}
    rest = {"matches": [{}], "backendRefs": [to("m-a", 100), to("m-b", 0)], "filters": [copies]}
    parents = [{"kind": "Gateway", "name": "g"}]
    route = {"kind": "HTTPRoute", "metadata": {"name": "m"}, "spec": {"parentRefs": parents, "rules": [testers, rest]}}
    assert ends(edges([route]))[2:] == [
        ("HTTPRoute/m", "Service/m-b", "X: c"),
        ("HTTPRoute/m", "Service/m-a", "100 %"),
        ("HTTPRoute/m", "Service/m-b", "copies of 5 %"),
    ]


def test_the_way_of_a_request_leaves_out_what_no_caller_reaches():
    links = edges([FRONT, ELSEWHERE, DEPLOYMENT, MONITOR])
    unreached = Edge(("Service", "m-b"), ("Deployment", "m-b"), carries=True)
    assert ends(reached([*links, unreached])) == ends(links)[:2]


def test_the_picture_says_kinds_names_and_how_many_pods():
    picture = mermaid([DEPLOYMENT], [Edge(("Service", "m"), ("Deployment", "m-a"), "x", dotted=True)])
    assert picture.splitlines() == [
        "```mermaid",
        "flowchart LR",
        '  n0["Service<br/>m"]',
        '  n1["Deployment<br/>m-a<br/>1 pod"]',
        '  n0 -.->|"x"| n1',
        "```",
    ]


def test_the_picture_goes_between_its_marks_and_the_rest_stays():
    begin, end = "<!-- service: written by `make sync` -->", "<!-- end of service -->"
    assert with_picture(f"a\n{begin}\nold\n{end}\nb\n", "service", "NEW", "d") == f"a\n{begin}\n\nNEW\n\n{end}\nb\n"
    for document in ("", begin, f"{end}{begin}", f"{begin}{begin}{end}"):
        with pytest.raises(DiagramError, match="d: expected the line"):
            with_picture(document, "service", "NEW", "d")


def test_without_helm_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DiagramError, match="helm"):
        render(tmp_path, {})


def test_what_helm_says_is_handed_on(monkeypatch, tmp_path):
    helm = tmp_path / "helm"
    helm.write_text("#!/bin/sh\necho no chart here >&2\nexit 1\n")
    helm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert subprocess.run(["helm"], check=False, capture_output=True).returncode == 1
    with pytest.raises(DiagramError, match="no chart here"):
        render(tmp_path, {})


def test_a_document_that_is_not_there_ends_with_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match="No such file"):
        main([str(tmp_path), str(tmp_path / "none.md")])
