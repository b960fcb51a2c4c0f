{{- define "monitoring.alertmanagerConfig" -}}
{{- $receiver := .Values.standalone.alertmanager.receiver -}}
route:
  receiver: {{ ternary "team" "nobody" (not (empty $receiver)) }}
  # One message for what is wrong with one model, the versions and features together.
  group_by: [namespace, model, alertname]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 12h
inhibit_rules:
  # Who was woken up need not be sent the ticket for the same.
  - source_matchers: ['severity="page"']
    target_matchers: ['severity="ticket"']
    equal: [namespace, model, slo]
receivers:
  {{- if $receiver }}
  - {{ merge (dict "name" "team") $receiver | toYaml | nindent 4 | trim }}
  {{- else }}
  # Alerts are seen in Alertmanager's pages, and go nowhere.
  - name: nobody
  {{- end }}
{{- end }}
