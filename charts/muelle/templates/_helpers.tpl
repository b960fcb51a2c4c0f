{{/* F: the release's name if it says muelle already, else RELEASE-muelle. At most 60 characters, as a release's name has at most 53. */}}
{{- define "muelle.fullname" -}}
{{- if contains "muelle" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-muelle{{ end }}
{{- end }}

{{/* The Service whose addresses are all replicas; a long release name is cut, to stay below 64 characters. */}}
{{- define "muelle.podsName" -}}
{{ include "muelle.fullname" . | trunc 58 | trimSuffix "-" }}-pods
{{- end }}

{{/* Whether labels are taken at POST /feedback. */}}
{{- define "muelle.feedback" -}}
{{- if ne (int (dig "feedbackRows" 1 (.Values.settings | default dict))) 0 }}true{{ end }}
{{- end }}

{{/* Bytes of the volume for the prediction log's spool: twice its bound, as a pod that goes beyond is evicted. Empty where
there is no such log, or the settings name a folder themselves. */}}
{{- define "muelle.spoolBytes" -}}
{{- $settings := .Values.settings | default dict -}}
{{- if and $settings.predictionLog (not $settings.predictionLogSpool) -}}
{{ mul 2 (int64 (dig "predictionLogSpoolBytes" 268435456 $settings)) }}
{{- end -}}
{{- end }}

{{/* What a selector needs beside the slot. */}}
{{- define "muelle.selectorLabels" -}}
app.kubernetes.io/name: muelle
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of every object. Pods get selectorLabels only: a new chart version must not roll them. */}}
{{- define "muelle.labels" -}}
{{ include "muelle.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "muelle.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "muelle.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* An image's reference. Dict: image, and `own` of a slot, whose tag or digest puts the common digest out of force. */}}
{{- define "muelle.imageReference" -}}
{{- $own := .own | default dict }}
{{- $repository := $own.repository | default .image.repository }}
{{- $tag := $own.tag | default .image.tag | default .appVersion }}
{{- $digest := $own.digest }}
{{- if not (or $own.tag $own.digest) }}{{ $digest = .image.digest }}{{ end }}
{{- if $digest }}{{ $repository }}@{{ $digest }}{{ else }}{{ $repository }}:{{ $tag }}{{ end }}
{{- end }}

{{/* Bundles as `muelle fetch` reads them: lines of URL and digest. */}}
{{- define "muelle.fetchLines" -}}
{{- range $i, $bundle := . }}{{ if $i }}{{ "\n" }}{{ end }}{{ $bundle.url }} {{ $bundle.digest }}{{ end }}
{{- end }}

{{/* Whether a slot has more than one pod when it is full. */}}
{{- define "muelle.severalPods" -}}
{{- if .Values.keda.enabled }}{{ if gt (int .Values.keda.maxReplicas) 1 }}true{{ end }}
{{- else if .Values.autoscaling.enabled }}{{ if gt (int .Values.autoscaling.minReplicas) 1 }}true{{ end }}
{{- else if gt (int .Values.replicas) 1 }}true{{ end }}
{{- end }}

{{/* Seconds for finishing what was accepted: as long as a request may take, else a stop would cut one off. */}}
{{- define "muelle.gracefulSeconds" -}}{{ int .Values.timeouts.requestSeconds }}{{- end }}

{{/* Seconds until the kubelet kills: going on, finishing, and some to end the process itself. */}}
{{- define "muelle.graceSeconds" -}}
{{ add (int .Values.timeouts.preStopSeconds) (int (include "muelle.gracefulSeconds" .)) 5 }}
{{- end }}

{{/* Seconds that a Gateway waits: a little longer than the service, so that the service's own answer arrives. */}}
{{- define "muelle.routeSeconds" -}}{{ add (int .Values.timeouts.requestSeconds) 5 }}{{- end }}
