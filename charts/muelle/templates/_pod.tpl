{{/* The pod of a slot. Dict: root, slot, one (the slot's part of the state). */}}
{{- define "muelle.podSpec" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ include "muelle.serviceAccountName" .root | quote }}
automountServiceAccountToken: false
# Links to a Service called muelle would look like settings (MUELLE_PORT=tcp://…).
enableServiceLinks: false
{{- with $values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
terminationGracePeriodSeconds: {{ include "muelle.graceSeconds" .root }}
{{- with $values.podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if eq $values.models.from "fetch" }}
initContainers:
  - {{ include "muelle.fetchContainer" . | indent 4 | trim }}
{{- end }}
containers:
  - {{ include "muelle.predictorContainer" . | indent 4 | trim }}
volumes:
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: {{ $values.tmpSizeLimit }}}
{{- if eq $values.models.from "volume" }}
  - name: models
    persistentVolumeClaim: {claimName: {{ $values.models.volume.existingClaim | quote }}}
{{- else if eq $values.models.from "fetch" }}
  - name: models
    emptyDir: {sizeLimit: {{ $values.models.fetch.sizeLimit }}}
{{- end }}
{{- with include "muelle.spoolBytes" .root }}
  - name: prediction-log
    # On the node's disk, since /tmp is memory. It outlives the container, not the pod.
    emptyDir: {sizeLimit: {{ . | quote }}}
{{- end }}
{{- with $values.auth.existingSecret }}
  - name: api-keys
    # This one key of it, whatever else is there. It holds hashes only, so any uid may read it.
    secret:
      secretName: {{ . | quote }}
      items: [{key: {{ $values.auth.key | quote }}, path: {{ $values.auth.key | quote }}}]
      defaultMode: 0444
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpread.topologyKeys }}
topologySpreadConstraints:
{{- range . }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels: {{- include "muelle.selectorLabels" $.root | nindent 8 }}
        muelle.io/slot: {{ $.slot }}
    # Each generation of pods by itself: the old ones, about to go, don't count.
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end }}

{{/* Puts the bundles, digests checked, where the predictor finds them. It ends before the predictor starts. */}}
{{- define "muelle.fetchContainer" -}}
{{- $fetch := .root.Values.models.fetch -}}
name: fetch
image: {{ .one.image }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [fetch, --to, /models{{ if $fetch.insecureHttp }}, --insecure{{ end }}]
env:
  - name: MUELLE_FETCH
    value: {{ .one.fetch | quote }}
{{- with $fetch.env }}
{{ toYaml . | nindent 2 }}
{{- end }}
{{- with $fetch.existingSecret }}
envFrom:
  - secretRef: {name: {{ . | quote }}}
{{- end }}
{{- with $fetch.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.securityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
# What went wrong is the log's last line.
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: models, mountPath: /models}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "muelle.predictorContainer" -}}
{{- $values := .root.Values -}}
name: predictor
image: {{ .one.image }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: [serve]
ports:
  - {name: http, containerPort: 8080, protocol: TCP}
{{- with int $values.metrics.port }}
  - {name: metrics, containerPort: {{ . }}, protocol: TCP}
{{- end }}
env: {{- include "muelle.environment" . | nindent 2 }}
{{- with $values.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.securityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
terminationMessagePolicy: FallbackToLogsOnError
# Answers as soon as the process listens. Models load after that: one that can't be loaded leaves the pod unready with its
# reason to be read, where a startup probe on readiness would restart it for ever.
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: {{ int $values.timeouts.startupSeconds }}
# Loaded, verified, golden outputs reproduced, warm.
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 3
# Slow to judge: the server replaces stuck workers by itself, and a pod that is merely busy must not be shot.
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
{{- with int $values.timeouts.preStopSeconds }}
lifecycle:
  # While proxies still learn that this pod is going, it goes on as if nothing were.
  preStop: {sleep: {seconds: {{ . }}}}
{{- end }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- if eq $values.models.from "volume" }}
  - name: models
    mountPath: /models
    readOnly: true
{{- with $values.models.volume.subPath }}
    subPath: {{ . | quote }}
{{- end }}
{{- else if eq $values.models.from "fetch" }}
  - {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- if include "muelle.spoolBytes" .root }}
  - {name: prediction-log, mountPath: /prediction-log}
{{- end }}
{{- if $values.auth.existingSecret }}
  # The folder and no subPath, which would never see a changed Secret.
  - {name: api-keys, mountPath: /etc/muelle/api-keys, readOnly: true}
{{- end }}
{{- with $values.extraVolumeMounts }}
{{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "muelle.environment" -}}
{{- $values := .root.Values -}}
# The `muelle` commands own this value, so it is always there; empty means all models.
- {name: MUELLE_SERVE, value: {{ .one.serve | quote }}}
- {name: MUELLE_PORT, value: "8080"}
{{- with int $values.metrics.port }}
- {name: MUELLE_METRICS_PORT, value: {{ . | quote }}}
{{- end }}
{{- if include "muelle.feedback" .root }}
# The pods' own port: there is no Service's address in between.
- {name: MUELLE_FEEDBACK_PEERS, value: "{{ include "muelle.podsName" .root }}:8080"}
{{- end }}
{{- if ne $values.models.from "image" }}
- {name: MUELLE_MODELS, value: /models}
{{- end }}
{{- with $values.models.default }}
- {name: MUELLE_DEFAULT_MODEL, value: {{ . | quote }}}
{{- end }}
- {name: MUELLE_REQUEST_TIMEOUT_SECONDS, value: {{ int $values.timeouts.requestSeconds | quote }}}
- {name: MUELLE_GRACEFUL_TIMEOUT_SECONDS, value: {{ include "muelle.gracefulSeconds" .root | quote }}}
{{- if $values.auth.existingSecret }}
- {name: MUELLE_API_KEYS_FILE, value: {{ printf "/etc/muelle/api-keys/%s" $values.auth.key | quote }}}
{{- end }}
{{- if include "muelle.spoolBytes" .root }}
- {name: MUELLE_PREDICTION_LOG_SPOOL, value: /prediction-log/spool}
{{- end }}
{{- range $key, $value := $values.settings }}
{{- /* toJson: a large number must not become 1e+07. */}}
- {name: MUELLE_{{ $key | snakecase | upper }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
