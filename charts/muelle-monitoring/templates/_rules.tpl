{{/* The groups of a file of rules, with what values say filled in; a map with the key `groups`, in JSON. Dict: root, path.
The file is read and never rendered: the {{ }} in it are Prometheus'. */}}
{{- define "monitoring.groups" -}}
{{- $values := .root.Values }}
{{- $groups := list }}
{{- range $group := (.root.Files.Get .path | fromYaml).groups }}
{{- $rules := list }}
{{- range $rule := $group.rules }}
{{- if $rule.alert }}
{{- if not (has $rule.alert $values.alerts.disabled) }}
{{- $annotations := set $rule.annotations "runbook_url" (printf "%s%s" $values.alerts.runbookUrlPrefix $rule.annotations.runbook_url) }}
{{- $labels := merge $rule.labels ($values.alerts.labels | default dict) }}
{{- $rules = append $rules (merge (dict "labels" $labels "annotations" $annotations) $rule) }}
{{- end }}
{{- else if eq $rule.record "muelle:slo_budget:ratio" }}
{{- $budget := index $values.slo (printf "%sBudget" $rule.labels.slo) }}
{{- $rules = append $rules (merge (dict "expr" (printf "vector(%v)" $budget)) $rule) }}
{{- else if eq $rule.record "muelle:cpu_core_hour:price" }}
{{- $rules = append $rules (merge (dict "expr" (printf "vector(%v)" $values.cost.cpuCoreHourPrice)) $rule) }}
{{- else }}
{{- $rules = append $rules $rule }}
{{- end }}
{{- end }}
{{- with $rules }}{{ $groups = append $groups (merge (dict "rules" .) $group) }}{{ end }}
{{- end }}
{{- dict "groups" $groups | toJson }}
{{- end }}
