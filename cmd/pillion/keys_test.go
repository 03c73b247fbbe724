package main

import (
	"reflect"
	"sort"
)

// allKeys are the paths of all keys of the configuration.
func allKeys() []string {
	var keys []string
	var walk func(t reflect.Type, prefix string)
	walk = func(t reflect.Type, prefix string) {
		for i := range t.NumField() {
			field := t.Field(i)
			tag := field.Tag.Get("yaml")
			if tag == "" {
				continue
			}
			inner := field.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				walk(inner, prefix+tag+".")
				continue
			}
			keys = append(keys, prefix+tag)
		}
	}
	walk(reflect.TypeFor[config](), "")
	sort.Strings(keys)
	return keys
}
