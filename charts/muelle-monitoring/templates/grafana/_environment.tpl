{{/* Grafana's settings, as it reads them from the environment: GF_SECTION_KEY. */}}
{{- define "monitoring.grafanaEnvironment" -}}
{{- $one := .Values.standalone.grafana -}}
- {name: GF_SERVER_ROOT_URL, value: {{ $one.externalUrl | quote }}}
- {name: GF_SECURITY_ADMIN_USER, value: {{ $one.admin.user | quote }}}
- name: GF_SECURITY_ADMIN_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $one.admin.existingSecret | default (printf "%s-grafana" (include "monitoring.fullname" .)) | quote }}
      key: {{ $one.admin.key | quote }}
- {name: GF_AUTH_ANONYMOUS_ENABLED, value: {{ $one.anonymous.enabled | quote }}}
- {name: GF_AUTH_ANONYMOUS_ORG_ROLE, value: Viewer}
- {name: GF_USERS_ALLOW_SIGN_UP, value: "false"}
{{- range $path, $_ := .Files.Glob "files/dashboards/*service.json" }}
- {name: GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH, value: /etc/muelle/dashboards/{{ base $path }}}
{{- end }}
# Nothing is fetched from, or told to, anybody outside.
- {name: GF_ANALYTICS_REPORTING_ENABLED, value: "false"}
- {name: GF_ANALYTICS_CHECK_FOR_UPDATES, value: "false"}
- {name: GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES, value: "false"}
- {name: GF_NEWS_NEWS_FEED_ENABLED, value: "false"}
- {name: GF_PLUGINS_PREINSTALL_DISABLED, value: "true"}
# The root file system is read-only.
- {name: GF_LOG_MODE, value: console}
- {name: GF_PATHS_DATA, value: /var/lib/grafana}
- {name: GF_PATHS_LOGS, value: /var/lib/grafana/log}
- {name: GF_PATHS_PLUGINS, value: /var/lib/grafana/plugins}
{{- end }}
