{{- define "predawn.name" -}}
{{- if contains "predawn" .Release.Name }}{{ .Release.Name | trunc 45 | trimSuffix "-" }}{{ else }}{{ printf "%s-predawn" (.Release.Name | trunc 37 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "predawn.selector" -}}
app.kubernetes.io/name: predawn
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "predawn.labels" -}}
{{ include "predawn.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "predawn.account" -}}
{{ .Values.serviceAccount.name | default (ternary (include "predawn.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "predawn.image" -}}
{{- with .Values.image }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}{{ end }}
{{- end }}

{{/* How long a server may take to stop; the defaults are those of docs/settings.md. */}}
{{- define "predawn.drain" -}}
{{- $server := .Values.config.server }}
{{- addf (dig "drain_grace_s" 5 $server) (dig "drain_timeout_s" 300 $server) | ceil | int }}
{{- end }}

{{- define "predawn.grace" -}}
{{- $drain := include "predawn.drain" . | int }}
{{- $asked := .Values.terminationGracePeriodSeconds }}
{{- if kindIs "invalid" $asked }}{{ add $drain 10 }}
{{- else if le (int $asked) $drain }}{{ fail (printf "terminationGracePeriodSeconds: %d s would cut streams, which may go on for drain_grace_s + drain_timeout_s = %d s" (int $asked) $drain) }}
{{- else }}{{ int $asked }}
{{- end }}
{{- end }}

{{/* What cannot work, said before anything is installed. */}}
{{- define "predawn.check" -}}
{{- if dig "tls" nil .Values.config.server }}{{ fail "config.server.tls: the chart mounts no certificate, and probes ask by plain HTTP; let the ingress or a mesh terminate TLS" }}{{ end }}
{{- if eq .Values.state.kind "postgres" }}
{{- if not .Values.existingSecret }}{{ fail "state.kind: postgres needs existingSecret, a Secret with PREDAWN_STATE (postgresql+asyncpg://…) and PREDAWN_SECRET" }}{{ end }}
{{- else if or (gt (int .Values.replicas) 1) (gt (int .Values.worker.replicas) 0) .Values.autoscaling.enabled }}
{{- fail "several servers, or workers, cannot share a SQLite file: set state.kind to postgres" }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}{{ fail "autoscaling: minReplicas is larger than maxReplicas" }}{{ end }}
{{- end }}
{{- end }}

{{/* The part of a pod that servers and workers have in common. */}}
{{- define "predawn.pod" -}}
serviceAccountName: {{ include "predawn.account" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "predawn.container" -}}
image: {{ include "predawn.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.existingSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- with .Values.env }}
env:
  {{- range $name, $value := . }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: config
    mountPath: /etc/predawn
    readOnly: true
  - name: state
    mountPath: /var/lib/predawn
  - name: tmp
    mountPath: /tmp
{{- end }}

{{- define "predawn.volumes" -}}
- name: config
  configMap:
    name: {{ include "predawn.name" . }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- end }}
