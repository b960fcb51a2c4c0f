{{/* What a schema can't tell: values that contradict each other. Each fault is a sentence that says what to change. */}}
{{- define "muelle.validate" -}}
{{- $faults := concat (include "muelle.modelFaults" . | fromJsonArray) (include "muelle.trafficFaults" . | fromJsonArray) (include "muelle.gatewayFaults" . | fromJsonArray) (include "muelle.podFaults" . | fromJsonArray) }}
{{- if $faults }}{{ fail (printf "\n\n%s\n" (join "\n" $faults)) }}{{ end }}
{{- end }}

{{- define "muelle.modelFaults" -}}
{{- $faults := list }}
{{- $state := include "muelle.state" . | fromJson }}
{{- $models := .Values.models }}
{{- if and (eq $models.from "volume") (not $models.volume.existingClaim) }}
{{- $faults = append $faults "models.from is volume: models.volume.existingClaim must name a PersistentVolumeClaim" }}
{{- end }}
{{- if and (ne $models.from "volume") $models.volume.existingClaim }}
{{- $faults = append $faults (printf "models.volume.existingClaim is set, but models.from is %s: set models.from=volume" $models.from) }}
{{- end }}
{{- if and (ne $models.from "fetch") $models.fetch.bundles }}
{{- $faults = append $faults (printf "models.fetch.bundles is set, but models.from is %s: set models.from=fetch" $models.from) }}
{{- end }}
{{- range $slot := list "a" "b" }}
{{- $one := index $state.slots $slot }}
{{- $own := index $.Values.slots $slot }}
{{- if and (eq $models.from "fetch") (ne $one.role "idle") (not $one.fetch) }}
{{- $faults = append $faults (printf "models.from is fetch, but slot %s has nothing to fetch: set models.fetch.bundles or slots.%s.fetch" $slot $slot) }}
{{- end }}
{{- if and (ne $models.from "fetch") $own.fetch }}
{{- $faults = append $faults (printf "slots.%s.fetch is set, but models.from is %s: set models.from=fetch" $slot $models.from) }}
{{- end }}
{{- if and (ne $models.from "fetch") (ne $one.role "idle") $one.recordedFetch }}
{{- $faults = append $faults (printf "slot %s runs what `muelle deploy` let it fetch, but models.from is %s: leave models.from=fetch, or deploy something else first" $slot $models.from) }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- define "muelle.trafficFaults" -}}
{{- $faults := list }}
{{- $traffic := .Values.traffic }}
{{- $state := include "muelle.state" . | fromJson }}
{{- if eq $traffic.stable $traffic.candidate }}
{{- $faults = append $faults (printf "traffic.candidate is %s, the stable slot itself: it must be the other one, or empty" $traffic.candidate) }}
{{- end }}
{{- if and (not $traffic.candidate) (or $traffic.weight $traffic.mirror) }}
{{- $faults = append $faults "traffic.weight or traffic.mirror is set without a traffic.candidate" }}
{{- end }}
{{- if and (eq $traffic.backend "service") (not (has (int $traffic.weight) (list 0 100))) }}
{{- $faults = append $faults (printf "traffic.weight is %d, but traffic.backend service sends everything to one slot: 0 or 100; or take backend replicas or gateway" (int $traffic.weight)) }}
{{- end }}
{{- if and (ne $traffic.backend "gateway") $traffic.mirror }}
{{- $faults = append $faults (printf "traffic.mirror needs traffic.backend gateway, not %s" $traffic.backend) }}
{{- end }}
{{- if and (eq $traffic.backend "replicas") (or .Values.autoscaling.enabled .Values.keda.enabled) }}
{{- $faults = append $faults "traffic.backend replicas gives shares by the count of pods, which an autoscaler would change: switch autoscaling and keda off, or take backend gateway" }}
{{- end }}
{{- if and (eq $traffic.backend "replicas") (not $state.recorded) $traffic.candidate }}
{{- $faults = concat $faults (include "muelle.shareFaults" . | fromJsonArray) }}
{{- end }}
{{- if and (not $state.recorded) (not .Values.rollout.ignoreRecord) }}
{{- $faults = concat $faults (include "muelle.switchFaults" (dict "root" . "state" $state) | fromJsonArray) }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{/* Shares that whole pods can't give to half a percent; what 0 and 100 need is not a share. */}}
{{- define "muelle.shareFaults" -}}
{{- $all := int .Values.replicas }}
{{- $wanted := int .Values.traffic.weight }}
{{- $pods := round (divf (mulf $all $wanted) 100) 0 | int }}
{{- $off := subf (divf (mulf 100 $pods) $all) $wanted }}
{{- if or (has $wanted (list 0 100)) (and (gt $pods 0) (lt $pods $all) (le $off 0.5) (ge $off -0.5)) }}[]
{{- else }}
{{- $given := list }}
{{- range $some := untilStep 1 $all 1 }}{{ $given = append $given (round (divf (mulf 100 $some) $all) 0 | int) }}{{ end }}
{{- if gt (len $given) 12 }}{{ $given = concat (slice $given 0 6) (list "…") (slice $given (int (sub (len $given) 2))) }}{{ end }}
{{- $can := $given | join ", " | printf "they give %s" }}
{{- if not $given }}{{ $can = "it is all or nothing" }}{{ end }}
{{- toJson (list (printf "traffic.weight is %d, but traffic.backend replicas splits by whole pods and replicas is %d: %s; change one of them, or take backend gateway" $wanted $all $can)) }}
{{- end }}
{{- end }}

{{/* A pointer that would move to a slot without a ready pod. */}}
{{- define "muelle.switchFaults" -}}
{{- $faults := list }}
{{- $root := .root }}
{{- $name := include "muelle.fullname" $root }}
{{- $service := lookup "v1" "Service" $root.Release.Namespace $name }}
{{- $now := dig "spec" "selector" "muelle.io/slot" "" $service }}
{{- if and $now (ne $now .state.stable) (not $root.Values.keda.enabled) }}
{{- $live := lookup "apps/v1" "Deployment" $root.Release.Namespace (printf "%s-%s" $name .state.stable) }}
{{- if eq (dig "status" "readyReplicas" 0 $live | int) 0 }}
{{- $faults = append $faults (printf "traffic.stable is %s, which has no ready pod, while slot %s answers: first upgrade with traffic.candidate=%s and wait until it is ready" .state.stable $now .state.stable) }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- define "muelle.gatewayFaults" -}}
{{- $faults := list }}
{{- $traffic := .Values.traffic }}
{{- $envoy := $traffic.gateway.envoy }}
{{- if and (eq $traffic.backend "gateway") (not $traffic.gateway.parentRefs) }}
{{- $faults = append $faults "traffic.backend is gateway: traffic.gateway.parentRefs must name a Gateway" }}
{{- end }}
{{- if and $envoy.enabled (ne $traffic.backend "gateway") }}
{{- $faults = append $faults (printf "traffic.gateway.envoy.enabled needs traffic.backend gateway, not %s" $traffic.backend) }}
{{- end }}
{{- if and $envoy.enabled (gt (int $envoy.perTryTimeoutSeconds) (int .Values.timeouts.requestSeconds)) }}
{{- $faults = append $faults (printf "traffic.gateway.envoy.perTryTimeoutSeconds is %d, longer than timeouts.requestSeconds, %d" (int $envoy.perTryTimeoutSeconds) (int .Values.timeouts.requestSeconds)) }}
{{- end }}
{{- if and .Values.ingress.enabled (eq $traffic.backend "gateway") }}
{{- $faults = append $faults "ingress.enabled with traffic.backend gateway: an Ingress would go around the route's weights; switch one of them off" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- $faults = append $faults "ingress.enabled: ingress.hosts must name at least one host" }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- define "muelle.podFaults" -}}
{{- $faults := list }}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
{{- $faults = append $faults "autoscaling.enabled and keda.enabled would both scale the same Deployments: switch one of them off" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- $faults = append $faults (printf "autoscaling.minReplicas is %d, above autoscaling.maxReplicas, %d" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.targetCPUUtilizationPercent) (not .Values.autoscaling.customMetrics) }}
{{- $faults = append $faults "autoscaling.enabled: set autoscaling.targetCPUUtilizationPercent or autoscaling.customMetrics" }}
{{- end }}
{{- if and .Values.autoscaling.enabled .Values.autoscaling.targetCPUUtilizationPercent (not (dig "requests" "cpu" "" (.Values.resources | default dict))) }}
{{- $faults = append $faults "autoscaling.targetCPUUtilizationPercent is a percentage of resources.requests.cpu, which isn't set" }}
{{- end }}
{{- if and .Values.keda.enabled (not .Values.keda.triggers) }}
{{- $faults = append $faults "keda.enabled: keda.triggers must say what to scale by" }}
{{- end }}
{{- if has (int .Values.metrics.port) (list 80 8080) }}
{{- $faults = append $faults (printf "metrics.port is %d, where predictions are answered: take another, or 0 for none" (int .Values.metrics.port)) }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- $faults = append $faults "serviceMonitor.enabled and podMonitor.enabled would scrape each pod twice: switch one of them off" }}
{{- end }}
{{- range $variable := .Values.extraEnv }}
{{- if hasPrefix "MUELLE_" $variable.name }}
{{- $faults = append $faults (printf "extraEnv has %s: MUELLE_* variables belong into settings, or have a value of their own (models, timeouts, auth)" $variable.name) }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}
