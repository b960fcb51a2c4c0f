{{- define "monitoring.prometheusConfig" -}}
{{- $own := .Values.standalone -}}
global:
  scrape_interval: {{ int .Values.scrape.intervalSeconds }}s
  evaluation_interval: {{ int $own.prometheus.evaluationIntervalSeconds }}s
rule_files:
  - /etc/prometheus/rules/*.yml
{{- if $own.alertmanager.enabled }}
alerting:
  alertmanagers:
    - static_configs:
        - targets: [{{ printf "%s-alertmanager:9093" (include "monitoring.fullname" .) | quote }}]
{{- end }}
scrape_configs:
  - job_name: muelle
    kubernetes_sd_configs:
      - role: pod
        {{- if not .Values.scrape.wholeCluster }}
        namespaces: {names: {{ include "monitoring.namespaces" . }}}
        {{- end }}
        selectors:
          - {role: pod, label: "app.kubernetes.io/name=muelle,app.kubernetes.io/component=predictor"}
    relabel_configs:
      # Each pod once: a pod is a target for each of its ports.
      - {action: keep, source_labels: [__meta_kubernetes_pod_container_port_name], regex: metrics}
      - {action: drop, source_labels: [__meta_kubernetes_pod_phase], regex: Failed|Succeeded}
      - {action: replace, source_labels: [__meta_kubernetes_namespace], target_label: namespace}
      - {action: replace, source_labels: [__meta_kubernetes_pod_name], target_label: pod}
      - {action: replace, source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance], target_label: release}
      # Not `slot`: that is a worker's place in its pod.
      - {action: replace, source_labels: [__meta_kubernetes_pod_label_muelle_io_slot], target_label: release_slot}
{{- with $own.prometheus.extraScrapeConfigs }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end }}
