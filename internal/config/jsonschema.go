package config

import (
	"encoding/json"
	"maps"
	"slices"
)

// schema is a JSON Schema (draft 2020-12), or a part of one.
type schema map[string]any

// What stands for a value: a variable, whose value is not known before the
// file is read, and nothing, which leaves the default.
const (
	variableValue = "#/$defs/variable"
	openValue     = "#/$defs/open"
)

func refer(to string) schema { return schema{"$ref": to} }

// orVariable allows ${VAR} as well.
func (s schema) orVariable() schema { return schema{"anyOf": []any{s, refer(variableValue)}} }

// orOpen allows ${VAR} and no value as well.
func (s schema) orOpen() schema { return schema{"anyOf": []any{s, refer(openValue)}} }

// orList allows a list as well.
func (s schema) orList() schema {
	return schema{"anyOf": []any{s, schema{"type": "array", "items": s}}}
}

// schema describes a mapping with these keys.
func (f fields) schema() schema {
	properties, required := schema{}, []string{}
	for key, field := range f {
		s := maps.Clone(field.schema)
		s["description"] = field.says
		if field.show != nil {
			if value := field.show(); value != nil {
				s["default"] = value
			}
		}
		properties[key] = s
		if field.needed {
			required = append(required, key)
		}
	}
	s := schema{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		slices.Sort(required)
		s["type"], s["required"] = "object", required
	}
	return s
}

// unfit names the keys of f that mean nothing for repositories of a type.
func (f fields) unfit(kind string) schema {
	none := schema{}
	for key, field := range f {
		if !field.fits(kind) {
			none[key] = false
		}
	}
	return none
}

// Schema returns the JSON Schema of configuration files, as JSON. It is made
// from the table that Parse reads by: what Parse takes is valid. What is valid
// may still have mistakes that take more than one key to see.
func Schema() ([]byte, error) {
	d := newDecoder("", func(string) string { return "" })
	s := d.table(Default()).schema()
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Configuration of Chantal"
	s["$defs"] = schema{
		"variable": schema{
			"description": "A variable of the environment", "type": "string", "pattern": `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`,
		},
		"open": schema{
			"description": "A variable of the environment, or nothing, which leaves the default",
			"anyOf":       []any{refer(variableValue), schema{"type": "null"}, schema{"const": ""}},
		},
	}
	return json.MarshalIndent(s, "", "  ")
}
