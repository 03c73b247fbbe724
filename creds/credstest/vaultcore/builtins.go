package main

import (
	"slices"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// builtins is the catalog of plugins that are compiled in. Without one, mounting
// anything is a nil pointer.
type builtins struct{ credential, secret map[string]logical.Factory }

func (b builtins) of(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeCredential:
		return b.credential
	case consts.PluginTypeSecrets:
		return b.secret
	default:
		return nil
	}
}

func (b builtins) Contains(name string, kind consts.PluginType) bool {
	_, known := b.of(kind)[name]
	return known
}

func (b builtins) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, known := b.of(kind)[name]
	return func() (any, error) { return factory, nil }, known
}

func (b builtins) Keys(kind consts.PluginType) []string {
	var names []string
	for name := range b.of(kind) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (b builtins) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, b.Contains(name, kind)
}

func (b builtins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
