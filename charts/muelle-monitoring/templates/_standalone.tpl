{{/* What the three programs of the standalone way have in common. Dict: root, component. */}}

{{/* One pod at a time, also while an old one is going: two must not write to the same files. */}}
{{- define "monitoring.statefulSetHead" -}}
serviceName: {{ include "monitoring.fullname" .root }}-{{ .component }}
replicas: 1
# Or a pod that never got ready would be waited for by the one that mends it.
podManagementPolicy: Parallel
selector:
  matchLabels: {{- include "monitoring.podLabels" . | nindent 4 }}
{{- end }}

{{- define "monitoring.podLabels" -}}
{{ include "monitoring.selectorLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "monitoring.podHead" -}}
{{- $own := .root.Values.standalone -}}
enableServiceLinks: false
{{- with $own.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index $own .component).podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "monitoring.containerHead" -}}
{{- $own := .root.Values.standalone }}
{{- $one := index $own .component -}}
name: {{ .component }}
image: {{ include "monitoring.image" $one.image }}
imagePullPolicy: {{ $own.imagePullPolicy }}
{{- with $one.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.securityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{- define "monitoring.dataVolume" -}}
{{- $keep := (index .root.Values.standalone .component).persistence -}}
name: data
{{- if $keep.enabled }}
persistentVolumeClaim: {claimName: {{ $keep.existingClaim | default (printf "%s-%s" (include "monitoring.fullname" .root) .component) | quote }}}
{{- else }}
emptyDir: {}
{{- end }}
{{- end }}

{{- define "monitoring.claim" -}}
{{- $own := .root.Values.standalone }}
{{- $keep := (index $own .component).persistence }}
{{- if and $own.enabled $keep.enabled (not $keep.existingClaim) -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{- include "monitoring.metadata" . | nindent 2 }}
  annotations:
    # What was measured is not lost by an uninstall.
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  {{- with $keep.storageClass }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources: {requests: {storage: {{ $keep.size }}}}
{{- end }}
{{- end }}

{{/* Dict: root, component, port. */}}
{{- define "monitoring.service" -}}
apiVersion: v1
kind: Service
metadata: {{- include "monitoring.metadata" . | nindent 2 }}
spec:
  type: ClusterIP
  selector: {{- include "monitoring.podLabels" . | nindent 4 }}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http, protocol: TCP, appProtocol: http}
{{- end }}
