"""A real pod's metrics port: where it can be reached, and whether CPU and memory are what the pod's cgroup says."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cluster import until
from lifecycle import samples, total
from release import Release

Install = Callable[..., Release]
Report = Callable[[object], None]

#: Enough for CPU time of which the ticks that /proc counts in are a small part.
REQUESTS = 1500
SHARE = 0.1
#: At each line that comes in, the container's own cgroup, in either version, as lines of a key and a number. The shell
#: does it all by itself: whatever it started, and each `kubectl exec` anew, would be CPU time of the same cgroup.
LOOK = """
cd /sys/fs/cgroup
show() { while read -r line; do echo "$2$line"; done < "$1"; }
while read -r _; do
  if [ -e cpu.stat ]; then show cpu.stat; show memory.stat
  else show cpuacct/cpuacct.usage "cpuacct "; show memory/memory.stat; fi
  echo end
done
"""


class Figures(NamedTuple):
    """CPU seconds and bytes."""

    cpu: float
    memory: float


def test_the_metrics_port_says_what_the_pods_cgroup_says(install: Install, report: Report) -> None:
    release = install("metrics", {"settings": {"workers": 2}})
    (pod,) = release.names()[:1]
    with cgroup(release, pod) as kernel:
        before = scraped(release, pod), kernel()
        # To the pod that is looked at: the Service would choose either.
        with release.forwarded(f"pod/{pod}", 8080) as url:
            for _ in range(REQUESTS):
                release.predict(url)

        def agree() -> bool:
            after = scraped(release, pod), kernel()
            ours, theirs = (Figures(end.cpu - start.cpu, end.memory) for start, end in zip(before, after, strict=True))
            said = (
                f"CPU {ours.cpu:.2f} s, cgroup {theirs.cpu:.2f} s; "
                f"memory {ours.memory / 2**20:.1f} MiB, cgroup {theirs.memory / 2**20:.1f} MiB"
            )
            assert all(abs(one - other) < SHARE * other for one, other in zip(ours, theirs, strict=True)), said
            report(said)
            return True

        until(agree, "figures as the kernel's", 60)


@contextlib.contextmanager
def cgroup(release: Release, pod: str) -> Iterator[Callable[[], Figures]]:
    """Give a function that returns what a container's cgroup says now."""
    command = ["kubectl", "exec", "-i", "-n", release.namespace, pod, "--", "sh", "-c", LOOK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answers = process.stdin, process.stdout

        def look() -> Figures:
            print(file=ask, flush=True)
            found = {}
            while (line := answers.readline()) != "end\n":
                assert line, "kubectl exec has ended"
                key, value = line.split()
                found[key] = int(value)
            seconds = found["cpuacct"] / 1e9 if "cpuacct" in found else found["usage_usec"] / 1e6
            return Figures(seconds, found["rss" if "rss" in found else "anon"] + found["shmem"])

        try:
            yield look
        finally:
            process.terminate()


def scraped(release: Release, pod: str) -> Figures:
    """Return what a pod says of its processes at its metrics port."""
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}:9090/proxy/metrics"
    found = samples(release.kube.run("get", "--raw", path))
    return Figures(total(found, "muelle_worker_cpu_seconds_total"), total(found, "muelle_worker_memory_bytes"))
