{{/* What a schema can't tell: values that contradict each other. Each fault is a sentence that says what to change. */}}
{{- define "monitoring.validate" -}}
{{- $faults := concat (include "monitoring.ruleFaults" . | fromJsonArray) (include "monitoring.wayFaults" . | fromJsonArray) (include "monitoring.clusterFaults" . | fromJsonArray) }}
{{- with $faults }}{{ fail (printf "\n\n%s\n" (join "\n" .)) }}{{ end }}
{{- end }}

{{- define "monitoring.ruleFaults" -}}
{{- $faults := list }}
{{- $alerts := list }}
{{- range $path, $_ := .Files.Glob "files/rules/*.yml" }}
{{- range $group := ($.Files.Get $path | fromYaml).groups }}
{{- range $rule := $group.rules }}{{ with $rule.alert }}{{ $alerts = append $alerts . }}{{ end }}{{ end }}
{{- end }}
{{- end }}
{{- range .Values.alerts.disabled }}
{{- if not (has . $alerts) }}
{{- $faults = append $faults (printf "alerts.disabled has %s, but there is no such alert: there are %s" . (sortAlpha $alerts | join ", ")) }}
{{- end }}
{{- end }}
{{- /* 14.4 times the budget is what pages; a share of failures can't be more than 1. */}}
{{- range $name := list "availabilityBudget" "latencyBudget" }}
{{- $budget := index $.Values.slo $name }}
{{- if gt (mulf 14.4 $budget) 1.0 }}
{{- $faults = append $faults (printf "slo.%s is %v: above 0.069, a page at 14.4 times of it could never come" $name $budget) }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- define "monitoring.wayFaults" -}}
{{- $faults := list }}
{{- $own := .Values.standalone }}
{{- if and .Values.scrape.wholeCluster .Values.scrape.namespaces }}
{{- $faults = append $faults "scrape.wholeCluster and scrape.namespaces contradict each other: set one of them" }}
{{- end }}
{{- if and $own.enabled .Values.operator.podMonitor.enabled }}
{{- $faults = append $faults "standalone.enabled with operator.podMonitor.enabled: the Prometheus here finds the pods by itself, and that of an Operator would need no other; switch one of them off" }}
{{- end }}
{{- if and $own.enabled $own.grafana.enabled (not .Values.dashboards.enabled) }}
{{- $faults = append $faults "standalone.grafana.enabled without dashboards.enabled: there would be nothing in it; switch the one on, or the other off" }}
{{- end }}
{{- $told := or $own.alertmanager.receiver $own.alertmanager.existingSecret }}
{{- if and $told (not $own.enabled) }}
{{- $faults = append $faults "standalone.alertmanager has a receiver, but standalone.enabled is false: name receivers in the Alertmanager that you have" }}
{{- else if and $told (not $own.alertmanager.enabled) }}
{{- $faults = append $faults "standalone.alertmanager has a receiver, but standalone.alertmanager.enabled is false: nobody would be told" }}
{{- end }}
{{- if and $own.alertmanager.receiver $own.alertmanager.existingSecret }}
{{- $faults = append $faults "standalone.alertmanager.receiver and standalone.alertmanager.existingSecret are both set: the Secret's file names its own receivers; set one of them" }}
{{- end }}
{{- range $component := list "prometheus" "alertmanager" "grafana" }}
{{- $keep := (index $own $component).persistence }}
{{- if and $keep.existingClaim (not $keep.enabled) }}
{{- $faults = append $faults (printf "standalone.%s.persistence.existingClaim is set, but persistence.enabled is false" $component) }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{/* What the cluster has. `helm template` knows of none, so it is asked only when it is there: every API server says of
itself that it has apiregistration.k8s.io. */}}
{{- define "monitoring.clusterFaults" -}}
{{- $faults := list }}
{{- $known := .Capabilities.APIVersions }}
{{- if and (not .Values.standalone.enabled) ($known.Has "apiregistration.k8s.io/v1") (not ($known.Has "monitoring.coreos.com/v1")) }}
{{- $faults = append $faults "this cluster knows no PrometheusRule: install the Prometheus Operator (kube-prometheus-stack has it), or set standalone.enabled=true" }}
{{- end }}
{{- if and .Values.operator.podMonitor.enabled ($known.Has "monitoring.coreos.com/v1") }}
{{- $namespaces := include "monitoring.namespaces" . | fromJsonArray }}
{{- if .Values.scrape.wholeCluster }}{{ $namespaces = list "" }}{{ end }}
{{- range $namespace := $namespaces }}
{{- range $kind := list "ServiceMonitor" "PodMonitor" }}
{{- range $monitor := (lookup "monitoring.coreos.com/v1" $kind $namespace "").items }}
{{- if eq (dig "metadata" "labels" "app.kubernetes.io/name" "" $monitor) "muelle" }}
{{- $faults = append $faults (printf "operator.podMonitor.enabled: release %s in namespace %s has a %s of its own, so each of its pods would be counted twice; set %s.enabled=false there" (index $monitor.metadata.labels "app.kubernetes.io/instance") $monitor.metadata.namespace $kind (untitle $kind)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}
