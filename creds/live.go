package creds

import (
	"context"
	"errors"
	"time"
)

var errTodo = errors.New("not built yet")

type Live struct {
	Store         Store
	Names         []string
	WithoutGrants bool
	OnChange      func(old, new *Table)
	Now           func() time.Time
}

func (l *Live) Reload(ctx context.Context) error { return errTodo }
func (l *Live) Table() *Table                    { return NewTable(nil) }
func (l *Live) Bad() []BadRecord                 { return nil }
func (l *Live) Err() error                       { return nil }
func (l *Live) Loaded() bool                     { return false }
func (l *Live) LastSuccess() time.Time           { return time.Time{} }
