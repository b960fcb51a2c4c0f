{{- define "monitoring.datasources" -}}
{{- $name := include "monitoring.fullname" . -}}
apiVersion: 1
# One that these values no longer have goes away.
prune: true
datasources:
  - name: Prometheus
    type: prometheus
    uid: prometheus
    access: proxy
    url: http://{{ $name }}-prometheus:9090
    isDefault: true
    editable: false
    jsonData:
      httpMethod: POST
      prometheusType: Prometheus
      # What `$__rate_interval` is made from.
      timeInterval: {{ int .Values.scrape.intervalSeconds }}s
      {{- if .Values.standalone.alertmanager.enabled }}
      alertmanagerUid: alertmanager
  - name: Alertmanager
    type: alertmanager
    uid: alertmanager
    access: proxy
    url: http://{{ $name }}-alertmanager:9093
    isDefault: false
    editable: false
    jsonData:
      implementation: prometheus
      {{- end }}
{{- end }}

{{- define "monitoring.providers" -}}
apiVersion: 1
providers:
  - name: muelle
    type: file
    folder: {{ .Values.dashboards.folder | toJson }}
    disableDeletion: false
    # The ConfigMaps are where they are changed.
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: /etc/muelle/dashboards
{{- end }}
