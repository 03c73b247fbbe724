{{- define "pillion.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "pillion.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Arguments: root, part. */}}
{{- define "pillion.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "pillion.labels" -}}
{{ include "pillion.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The configuration of one role: its own keys over everybody's. Arguments: root, role, base, config. */}}
{{- define "pillion.config" -}}
{{- $vault := .root.Values.vault }}
{{- $store := dict "address" (required "vault.address is needed, such as https://vault.example:8200" $vault.address) "mount" $vault.mount }}
{{- $_ := set $store "auth" (dict "method" "kubernetes" "role" .role "path" $vault.authPath "token_file" "/var/run/secrets/vault/token") }}
{{- if $vault.namespace }}{{ $_ := set $store "namespace" $vault.namespace }}{{ end }}
{{- if $vault.prefixes }}{{ $_ := set $store "prefixes" $vault.prefixes }}{{ end }}
{{- if $vault.ca }}{{ $_ := set $store "ca_file" "vault-ca.pem" }}{{ end }}
{{- mergeOverwrite (dict "store" (dict "vault" $store)) .base (deepCopy .root.Values.config) (deepCopy .config) | toYaml }}
{{- end }}

{{/* The data of a ConfigMap. The same arguments. */}}
{{- define "pillion.configData" -}}
pillion.yaml: |
  {{- include "pillion.config" . | nindent 2 }}
{{- with .root.Values.vault.ca }}
vault-ca.pem: |
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "pillion.sidecarConfig" -}}
{{ include "pillion.configData" (dict "root" . "role" .Values.sidecar.role "base" dict "config" .Values.sidecar.config) }}
{{- end }}

{{- define "pillion.refresherConfig" -}}
{{- $base := dict "proxy" (dict "listen" "off") "sftp" (dict "listen" "off") "refresher" (dict "enabled" true) }}
{{- include "pillion.configData" (dict "root" . "role" .Values.refresher.role "base" $base "config" .Values.refresher.config) }}
{{- end }}

{{- define "pillion.consoleConfig" -}}
{{- $console := dict "listen" ":8180" "url" (required "console.url is needed, such as https://pillion.example" .Values.console.url) "session_key_file" "/etc/pillion-session/session.key" }}
{{- if .Values.console.tlsSecret }}
{{- $_ := set $console "tls" (dict "cert" "/etc/pillion-tls/tls.crt" "key" "/etc/pillion-tls/tls.key") }}
{{- else }}
{{- $_ := set $console "behind_tls" true }}
{{- end }}
{{- with .Values.console.prometheus }}{{ $_ := set $console "prometheus" . }}{{ end }}
{{- $base := dict "proxy" (dict "listen" "off") "sftp" (dict "listen" "off") "console" $console }}
{{- include "pillion.configData" (dict "root" . "role" .Values.console.role "base" $base "config" .Values.console.config) }}
{{- end }}

{{- define "pillion.podSecurity" -}}
runAsNonRoot: true
{{- if .Values.sidecar.uid }}
runAsUser: {{ .Values.sidecar.uid }}
runAsGroup: {{ .Values.sidecar.uid }}
fsGroup: {{ .Values.sidecar.uid }}
# Without it kubelet opens every file of the volume to the group, at each start.
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "pillion.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods go. Arguments: root, part, values. */}}
{{- define "pillion.placement" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "pillion.selector" . | nindent 6 }}
{{- end }}

{{/* Probes name no host: Pod Security forbids that from 1.34 on. */}}
{{- define "pillion.probes" -}}
startupProbe:
  httpGet: {path: /readyz, port: pillion-metrics}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 90
readinessProbe:
  httpGet: {path: /readyz, port: pillion-metrics}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: pillion-metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* Refreshers and the page: what is in the container beside its ports. */}}
{{- define "pillion.environment" -}}
- {name: PILLION_CONFIG, value: /etc/pillion/pillion.yaml}
- {name: PILLION_STATE, value: /var/lib/pillion/state}
- {name: PILLION_METRICS_LISTEN, value: ":9180"}
{{- end }}

{{- define "pillion.mounts" -}}
- {name: config, mountPath: /etc/pillion, readOnly: true}
- {name: vault-token, mountPath: /var/run/secrets/vault, readOnly: true}
- {name: state, mountPath: /var/lib/pillion}
{{- end }}

{{/* Arguments: root, part. */}}
{{- define "pillion.volumes" -}}
- name: config
  configMap: {name: {{ include "pillion.name" .root }}-{{ .part }}}
- name: vault-token
  projected:
    sources:
    - serviceAccountToken: {path: token, audience: {{ .root.Values.vault.audience }}, expirationSeconds: 3600}
{{- end }}

{{/* Whom pods may ask, as egress rules. */}}
{{- define "pillion.egress" -}}
- ports:
  - {port: 53, protocol: UDP}
  - {port: 53, protocol: TCP}
- ports:
  - {port: {{ .Values.networkPolicy.vault.port }}, protocol: TCP}
  {{- with .Values.networkPolicy.vault.to }}
  to: {{- toYaml . | nindent 2 }}
  {{- end }}
- ports:
  {{- range .Values.networkPolicy.tools.ports }}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
  {{- with .Values.networkPolicy.tools.to }}
  to: {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "pillion.ingressOfMetrics" -}}
- ports:
  - {port: pillion-metrics, protocol: TCP}
  {{- with .Values.networkPolicy.monitoring.from }}
  from: {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
