"""Moving traffic between the two slots of a release, by a record of what is wanted.

A command reads the record and plans the records that lead to where it shall be (`plan`, pure). For each of them it
writes the record, then brings the cluster's objects to it (`reconcile`), in an order in which no slot gets requests
before its pods are ready. Only `kube` knows the Kubernetes client.
"""
