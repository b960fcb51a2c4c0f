"""A real pod's metrics port: where it can be reached, and whether CPU and memory are what the pod's cgroup says."""

from __future__ import annotations

from collections.abc import Callable

from cluster import until
from lifecycle import Series, samples, total
from release import Release

Install = Callable[..., Release]
Report = Callable[[object], None]

#: Enough for CPU time of which a tick, and this test's own look into the pod, are a small part.
REQUESTS = 800
SHARE = 0.1
#: The container's own cgroup, in either version, as lines of a key and a number.
LOOK = """
cd /sys/fs/cgroup
if [ -e cpu.stat ]; then cat cpu.stat memory.stat; exit; fi
echo cpuacct $(cat cpuacct/cpuacct.usage); cat memory/memory.stat
"""


def test_the_metrics_port_says_what_the_pods_cgroup_says(install: Install, report: Report) -> None:
    release = install("metrics", {"settings": {"workers": 2}})
    (pod,) = release.names()[:1]
    with release.forwarded() as url:
        for _ in range(REQUESTS):
            release.predict(url)

    def agree() -> bool:
        found = scrape(release, pod)
        lines = release.kube.exec(release.namespace, pod, "sh", "-c", LOOK).splitlines()
        kernel = {key: int(value) for key, value in map(str.split, lines)}
        seconds = kernel["cpuacct"] / 1e9 if "cpuacct" in kernel else kernel["usage_usec"] / 1e6
        kept = kernel["rss" if "rss" in kernel else "anon"] + kernel["shmem"]
        cpu, memory = total(found, "muelle_worker_cpu_seconds_total"), total(found, "muelle_worker_memory_bytes")
        said = (
            f"CPU {cpu:.2f} s, cgroup {seconds:.2f} s; memory {memory / 2**20:.1f} MiB, cgroup {kept / 2**20:.1f} MiB"
        )
        report(said)
        return abs(cpu - seconds) < SHARE * seconds and abs(memory - kept) < SHARE * kept

    until(agree, "figures as the kernel's", 60)


def scrape(release: Release, pod: str) -> dict[Series, float]:
    """Return what a pod says at its metrics port."""
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}:9090/proxy/metrics"
    return samples(release.kube.run("get", "--raw", path))
