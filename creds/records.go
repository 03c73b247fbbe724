package creds

import "context"

// BadRecord is a stored credential that cannot be used.
type BadRecord struct{ Name, Problem string }

func (b *BadRecord) Error() string { return "credential " + b.Name + ": " + b.Problem }

func Save(ctx context.Context, s Store, c *Credential) error                  { return errTodo }
func Update(ctx context.Context, s Store, c *Credential, keep []string) error { return errTodo }
func LoadCredential(ctx context.Context, s Store, name string) (*Credential, error) {
	return nil, errTodo
}

// LoadPublic reads a credential without its secrets, and the names of the stored ones.
func LoadPublic(ctx context.Context, s Store, name string) (c *Credential, stored []string, err error) {
	return nil, nil, errTodo
}
func Remove(ctx context.Context, s Store, name string) error { return errTodo }
