{{/*
What the release is to look like now: pointer, shares, and for each slot what it serves, from which image, on how many pods.
It comes from the record that the `muelle` commands keep (ConfigMap F-rollout) and, where that is silent, from the values. So a
`helm upgrade` in the midst of a canary changes nothing of it.

Computed once and kept in the root context: templates that looked up one by one could see two states of a moving release.
*/}}
{{- define "muelle.state" -}}
{{- if not (hasKey . "muelleState") }}{{ $_ := set . "muelleState" (include "muelle.computeState" .) }}{{ end }}
{{- .muelleState }}
{{- end }}

{{- define "muelle.computeState" -}}
{{- $record := include "muelle.record" . | fromJson }}
{{- $known := not (empty $record) }}
{{- $traffic := .Values.traffic }}
{{- $stable := ternary $record.stable $traffic.stable $known }}
{{- $candidate := ternary $record.candidate $traffic.candidate $known | default "" }}
{{- $weight := ternary $record.weight $traffic.weight $known | default 0 | int }}
{{- $mirror := ternary $record.mirror $traffic.mirror $known | default 0 | int }}
{{- $header := ternary $record.header true $known | default false }}
{{- if not $candidate }}{{ $weight = 0 }}{{ $mirror = 0 }}{{ end }}
{{- $state := dict "recorded" $known "stable" $stable "candidate" $candidate "weight" $weight "mirror" $mirror "header" $header }}
{{- /* Whom the front Service selects; empty: both slots, whose pods then are the shares. With a Gateway it stays with the stable slot. */}}
{{- $front := $stable }}
{{- if and (ne $traffic.backend "gateway") (eq $weight 100) }}{{ $front = $candidate }}{{ end }}
{{- if and (ne $traffic.backend "gateway") (gt $weight 0) (lt $weight 100) }}{{ $front = "" }}{{ end }}
{{- $_ := set $state "front" $front }}
{{- $slots := dict }}
{{- range $slot := list "a" "b" }}
{{- $values := index $.Values.slots $slot }}
{{- $said := dig "slots" $slot dict $record }}
{{- $role := "idle" }}
{{- if eq $slot $stable }}{{ $role = "stable" }}{{ else if eq $slot $candidate }}{{ $role = "candidate" }}{{ end }}
{{- $image := include "muelle.imageReference" (dict "image" $.Values.image "own" $values.image "appVersion" $.Chart.AppVersion) }}
{{- $one := dict "role" $role }}
{{- $_ := set $one "serve" ($said.serve | default (join "," ($values.serve | default $.Values.models.serve))) }}
{{- $_ := set $one "fetch" ($said.fetch | default (include "muelle.fetchLines" ($values.fetch | default $.Values.models.fetch.bundles))) }}
{{- $_ := set $one "image" ($said.image | default $image) }}
{{- $_ := set $one "recordedFetch" ($said.fetch | default "") }}
{{- $_ := set $one "replicas" (include "muelle.slotReplicas" (dict "root" $ "record" $record "state" $state "slot" $slot "role" $role)) }}
{{- $_ := set $slots $slot $one }}
{{- end }}
{{- $_ := set $state "slots" $slots }}
{{- toJson $state }}
{{- end }}

{{/* The record, as JSON; {} where there is none, or where it is of an earlier release of this name that is being swept away. */}}
{{- define "muelle.record" -}}
{{- $fullname := include "muelle.fullname" . }}
{{- $record := dict }}
{{- if not .Values.rollout.ignoreRecord }}
{{- $map := lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-rollout" $fullname) }}
{{- if and $map (include "muelle.ownsRecord" (dict "root" . "map" $map)) }}
{{- $record = dig "data" "record.json" "" $map | fromJson }}
{{- if hasKey $record "Error" }}
{{- fail (printf "ConfigMap %s-rollout: record.json is no JSON; `muelle status` says more, and rollout.ignoreRecord=true goes without it" $fullname) }}
{{- end }}
{{- if ne (toString $record.format_version) "1" }}
{{- fail (printf "ConfigMap %s-rollout: expected format_version 1, got %v: it was written by another version of Muelle; use that version's chart" $fullname $record.format_version) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $record }}
{{- end }}

{{/* Whether the record is this release's: the Service that it says it belongs to is still the one that is there. */}}
{{- define "muelle.ownsRecord" -}}
{{- $service := lookup "v1" "Service" .root.Release.Namespace (include "muelle.fullname" .root) }}
{{- $uid := dig "metadata" "uid" "" $service }}
{{- $owned := true }}
{{- range $owner := dig "metadata" "ownerReferences" list .map }}
{{- if and (eq $owner.kind "Service") (ne $owner.uid $uid) }}{{ $owned = false }}{{ end }}
{{- end }}
{{- if $owned }}true{{ end }}
{{- end }}

{{/*
How many pods a slot's Deployment asks for; empty: left out, since an autoscaler decides.
Dict: root, record, state, slot, role.
*/}}
{{- define "muelle.slotReplicas" -}}
{{- $values := .root.Values }}
{{- $scaled := or $values.autoscaling.enabled $values.keda.enabled }}
{{- $recorded := dig "replicas" .slot "none" .record | toString }}
{{- if ne $recorded "none" }}{{ int $recorded }}
{{- else if and (eq .role "idle") (or (not $scaled) (not .record)) }}0
{{- else if $scaled }}{{ include "muelle.scaledReplicas" . }}
{{- else if and (eq $values.traffic.backend "replicas") (eq .role "candidate") (not .record) (eq (int .state.weight) 0) }}1
{{- else if and (not .state.front) (not .record) }}{{ include "muelle.share" . }}
{{- else }}{{ int $values.replicas }}
{{- end }}
{{- end }}

{{/*
The count that an autoscaler has chosen, said again: a field that is left out after having been said falls back to 1. Without
a cluster to look at (helm template, GitOps) it is left out from the beginning. An autoscaler leaves 0 alone, so a slot that
comes into use begins with what the other one needs.
*/}}
{{- define "muelle.scaledReplicas" -}}
{{- $name := include "muelle.fullname" .root }}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace (printf "%s-%s" $name .slot) }}
{{- if $live }}
{{- $replicas := dig "spec" "replicas" 1 $live | int }}
{{- if and (eq $replicas 0) (ne .role "idle") .root.Values.autoscaling.enabled }}
{{- $other := lookup "apps/v1" "Deployment" .root.Release.Namespace (printf "%s-%s" $name (ternary "b" "a" (eq .slot "a"))) }}
{{- $replicas = max (int .root.Values.autoscaling.minReplicas) (dig "spec" "replicas" 0 $other | int) }}
{{- end }}
{{- $replicas }}
{{- end }}
{{- end }}

{{/* A slot's part of `replicas` pods, where the count of pods is what splits traffic. */}}
{{- define "muelle.share" -}}
{{- $all := int .root.Values.replicas }}
{{- $tried := round (divf (mulf $all .state.weight) 100) 0 | int }}
{{- if eq .role "stable" }}{{ sub $all $tried }}{{ else }}{{ $tried }}{{ end }}
{{- end }}
