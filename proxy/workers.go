package proxy

import "sync"

// workers are goroutines that serve streams, one after the other: a new goroutine for
// each would have to grow its stack each time.
type workers struct {
	mu    sync.Mutex
	idle  []chan *h2Stream // used last at the end
	ended bool
}

// maxIdleWorkers bounds those that wait for more.
const maxIdleWorkers = 64

// serve has st served by a worker.
func (w *workers) serve(st *h2Stream) {
	w.mu.Lock()
	n := len(w.idle)
	if n == 0 {
		w.mu.Unlock()
		go w.work(st)
		return
	}
	next := w.idle[n-1]
	w.idle = w.idle[:n-1]
	w.mu.Unlock()
	next <- st
}

func (w *workers) work(st *h2Stream) {
	more := make(chan *h2Stream, 1)
	for st != nil {
		st.serve()
		w.mu.Lock()
		stays := !w.ended && len(w.idle) < maxIdleWorkers
		if stays {
			w.idle = append(w.idle, more)
		}
		w.mu.Unlock()
		if !stays {
			return
		}
		st = <-more
	}
}

// rest ends the workers that wait, and at the end the others when they are through.
func (w *workers) rest(end bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = w.ended || end
	for _, more := range w.idle {
		more <- nil
	}
	clear(w.idle)
	w.idle = w.idle[:0]
}
