{{- define "hotkey.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "hotkey.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "hotkey.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "hotkey.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "hotkey.selector" -}}
app.kubernetes.io/name: {{ include "hotkey.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hotkey.labels" -}}
{{ include "hotkey.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "hotkey.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "hotkey.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* What the operator may do with policies and tables; for a ClusterRole or for a Role in each namespace. */}}
{{- define "hotkey.rules" -}}
- apiGroups: [hotkeys.dev]
  resources: [hotkeypolicies]
  verbs: [list, watch, patch]
- apiGroups: [hotkeys.dev]
  resources: [hotkeypolicies/status, routingtables/status]
  verbs: [patch]
- apiGroups: [hotkeys.dev]
  resources: [routingtables]
  verbs: [get, list, create, update, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}

{{- define "hotkey.subjects" -}}
- kind: ServiceAccount
  name: {{ include "hotkey.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
