{{- /* The text of config.yaml: as it is written, if it is a text; otherwise made of the values. */ -}}
{{- define "mrcond.config" -}}
{{- if kindIs "string" .Values.config -}}
{{- $read := fromYaml .Values.config -}}
{{- if $read.Error -}}
{{- fail (printf "config is no YAML: %s" $read.Error) -}}
{{- end -}}
{{- if not $read.collections -}}
{{- fail "config has no collections: it is the text of config.yaml" -}}
{{- end -}}
{{- if kindIs "map" $read.server -}}
{{- if hasKey $read.server "listen" -}}
{{- fail "config has server.listen: the chart's probes and its Service need it as it is by default, so leave it out" -}}
{{- end -}}
{{- end -}}
{{- .Values.config -}}
{{- else -}}
{{- include "mrcond.refuseKeys" (list "config" .Values.config) -}}
{{- $config := deepCopy .Values.config -}}
{{- range $config.collections -}}
{{- if kindIs "map" .watched -}}
{{- /* Helm reads `off` as false, which is no value of this key: so it was `off`. */ -}}
{{- if and (kindIs "bool" .watched.full_document_before_change) (not .watched.full_document_before_change) -}}
{{- $_ := set .watched "full_document_before_change" "off" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
{{- end -}}

{{- /* Fails where Helm has read a key such as `on` or `y` as true: nobody can tell what it was. */ -}}
{{- define "mrcond.refuseKeys" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- range $key, $below := $value -}}
{{- if has $key (list "true" "false") -}}
{{- fail (printf "%s has a key that Helm reads as %s, such as on, off, yes, no, y or n: quote it, or give config as a text (config: |)" $path $key) -}}
{{- end -}}
{{- include "mrcond.refuseKeys" (list (printf "%s.%s" $path $key) $below) -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- range $index, $below := $value -}}
{{- include "mrcond.refuseKeys" (list (printf "%s[%d]" $path $index) $below) -}}
{{- end -}}
{{- end -}}
{{- end -}}
