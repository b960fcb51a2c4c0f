"""Grafana's dashboards as code; `make sync` writes them to json/, in Grafana's classic model (schemaVersion 42).

File provisioning refuses the newer one. The SDK recommends it by a warning as soon as the classic one is imported.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    # Here, before all modules of this package, so that they can import it without a word.
    import grafana_foundation_sdk.builders.dashboard
    import grafana_foundation_sdk.builders.prometheus  # noqa: F401
