package main

import (
	"fmt"
	"slices"
	"sync"
)

// findings are what a soak has found to be wrong. Any of them fails it; a soak goes on for all that, since the next one may tell more.
type findings struct {
	mu    sync.Mutex
	count map[string]int
	order []string
	total int
	first func(text string) // hears of each different one, if not nil
}

// mostFindings is how many different ones are kept, and tooMany how many in all end a soak before its time.
const (
	mostFindings = 50
	tooMany      = 2000
)

func (f *findings) add(format string, args ...any) {
	text := oneLine(fmt.Sprintf(format, args...))
	if len(text) > 400 {
		text = text[:400]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil {
		f.count = map[string]int{}
	}
	f.total++
	if f.count[text] == 0 {
		if len(f.order) == mostFindings {
			return
		}
		f.order = append(f.order, text)
		if f.first != nil {
			f.first(text)
		}
	}
	f.count[text]++
}

func (f *findings) number() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// list says each once, with how often it was seen, the most frequent first.
func (f *findings) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	texts := slices.Clone(f.order)
	slices.SortStableFunc(texts, func(a, b string) int { return f.count[b] - f.count[a] })
	for i, text := range texts {
		if n := f.count[text]; n > 1 {
			texts[i] = fmt.Sprintf("%s (%d times)", text, n)
		}
	}
	return texts
}

// err is nil where there is nothing.
func (f *findings) err() error {
	if n := f.number(); n > 0 {
		return fmt.Errorf("%d findings, the most frequent: %s", n, f.list()[0])
	}
	return nil
}
