{{/* F: the release's name if it says monitoring already, else RELEASE-monitoring. At most 39 characters: with -alertmanager and
the hash of a revision, a StatefulSet's pod has it in a label, which takes 63. */}}
{{- define "monitoring.fullname" -}}
{{- $name := .Release.Name }}
{{- if not (contains "monitoring" $name) }}{{ $name = printf "%s-monitoring" (trunc 28 $name | trimSuffix "-") }}{{ end }}
{{- trunc 39 $name | trimSuffix "-" }}
{{- end }}

{{/* Not app.kubernetes.io/name=muelle, by which the predictors' pods are found. */}}
{{- define "monitoring.selectorLabels" -}}
app.kubernetes.io/name: muelle-monitoring
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of every object. Pods get selectorLabels and their component only: a new chart version must not roll them. */}}
{{- define "monitoring.labels" -}}
{{ include "monitoring.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* metadata of an object of the standalone way. Dict: root, component. */}}
{{- define "monitoring.metadata" -}}
name: {{ include "monitoring.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace | quote }}
labels: {{- include "monitoring.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "monitoring.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end }}

{{/* Namespaces in which Muelle is looked for, as a list in JSON. */}}
{{- define "monitoring.namespaces" -}}
{{- .Values.scrape.namespaces | default (list .Release.Namespace) | uniq | toJson }}
{{- end }}

{{/* A Role in another namespace than the release's says whose it is: two releases may watch the same one. */}}
{{- define "monitoring.roleName" -}}
{{- $name := printf "%s-prometheus" (include "monitoring.fullname" .root) }}
{{- if eq .namespace .root.Release.Namespace }}{{ $name }}{{ else }}{{ printf "%s-%s" .root.Release.Namespace $name }}{{ end }}
{{- end }}
