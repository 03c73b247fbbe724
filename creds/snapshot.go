package creds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// snapshotRecord is what a Live knows, for a start while the store is away. It
// holds every secret: who keeps it seals it.
type snapshotRecord struct {
	Schema      string               `json:"schema"`
	At          time.Time            `json:"at"` // when the store last said so
	Credentials []snapshotCredential `json:"credentials"`
}

type snapshotCredential struct {
	Part     int               `json:"part"` // of Store and More
	Version  int               `json:"version"`
	Revision string            `json:"revision"`
	Record   *credentialRecord `json:"record"`
	Values   map[string]string `json:"values"` // secret's name -> value
}

// Snapshot returns everything that is in use, with the time of the last success;
// the zero Secret before the first.
func (l *Live) Snapshot(ctx context.Context) (Secret, error) {
	if err := l.gate.enter(ctx); err != nil {
		return Secret{}, err
	}
	defer l.gate.leave()
	state := l.now()
	if !state.loaded {
		return Secret{}, nil
	}
	snapshot := snapshotRecord{Schema: currentSchema, At: state.success.UTC()}
	for i, p := range l.parts {
		for _, name := range sortedKeys(p) {
			if c := p[name].credential; c != nil {
				snapshot.Credentials = append(snapshot.Credentials, snapshotOf(i, c, p[name].revision))
			}
		}
	}
	return encode(snapshot), nil
}

func snapshotOf(part int, c *Credential, revision string) snapshotCredential {
	s := snapshotCredential{part, c.Version, revision, publicRecord(c), map[string]string{}}
	for _, field := range c.secretFields() {
		if !field.value.IsZero() {
			s.Values[field.name] = field.value.Reveal()
		}
	}
	return s
}

// Restore uses a Snapshot as if it had just been read at its time, because of
// why, which Err returns until the store answers. It refuses after the first
// successful Reload, when the store refuses rather than being away, and when the
// snapshot is older than MaxStale.
func (l *Live) Restore(ctx context.Context, snapshot Secret, why error) error {
	if err := l.gate.enter(ctx); err != nil {
		return err
	}
	defer l.gate.leave()
	if l.now().loaded {
		return errors.New("restoring a snapshot: the store has been read since")
	}
	if errors.Is(why, ErrStoreDenied) {
		return errors.New("restoring a snapshot: the store is well and refuses, which a snapshot must not get round")
	}
	var record snapshotRecord
	if err := decodeRecord(snapshot, &record); err != nil {
		return fmt.Errorf("restoring a snapshot: it %w", err)
	}
	age := l.clock().Sub(record.At)
	switch {
	case age < -time.Minute:
		return errors.New("restoring a snapshot: it is from the future: set the clock")
	case l.MaxStale > 0 && age > l.MaxStale:
		return fmt.Errorf("restoring a snapshot: it is from %s, longer ago than the %v that are allowed", stamp(record.At), l.MaxStale)
	}
	if why == nil {
		why = ErrStoreUnavailable
	}
	l.take(l.partsOf(record), liveState{loaded: true, success: record.At, err: why})
	return nil
}

// partsOf leaves out what this Live would not read.
func (l *Live) partsOf(record snapshotRecord) []part {
	parts := make([]part, 1+len(l.More))
	for i := range parts {
		parts[i] = part{}
	}
	asked := sortedSet(l.Names)
	for _, s := range record.Credentials {
		if s.Record == nil || s.Part < 0 || s.Part >= len(parts) || len(asked) > 0 && !slices.Contains(asked, s.Record.Name) {
			continue
		}
		c := s.Record.credential(s.Version)
		var unread []string
		for _, field := range c.secretFields() {
			value, ok := s.Values[field.name]
			grant := c.placeOf(field.name).key == KeyGrants
			if grant && l.WithoutGrants {
				unread = append(unread, field.name)
			} else if ok {
				*field.value = NewSecret(value)
			}
		}
		if c.ValidateKeeping(unread...) == nil {
			parts[s.Part][c.Name] = cached{credential: c, revision: s.Revision}
		}
	}
	return parts
}
