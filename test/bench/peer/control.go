package peer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// Usage is what a server has used so far and what it holds.
type Usage struct {
	CPU        time.Duration `json:"cpu"` // user and system
	Resident   int64         `json:"resident"`
	Peak       int64         `json:"peak"` // highest Resident so far
	Goroutines int           `json:"goroutines"`
	Sockets    int           `json:"sockets"`
	SlowClosed uint64        `json:"slow_closed"` // where the server counts those
}

// control answers the requests that control and measure a server:
//
//	POST /publish?n=16&size=128            a burst, back to back
//	POST /publish?n=100&size=128&every=50ms   one at a time, on schedule
//	POST /publish?n=1000&channels=100      to the channels c0, c1, … in turn
//	POST /publish?n=2000&users=2000        to the users user0, user1, … in turn
//	POST /publish?n=2000&publishers=16     by so many goroutines at once
//	GET  /usage                            CPU, memory and sockets
//	GET  /usage?collect=1                  the same after a garbage collection
//
// A publish is answered when the last message is queued for all sockets.
type control struct {
	peer Peer

	mu    sync.Mutex // held while publishing
	seq   map[string]uint64
	burst uint64 // messages of all bursts that several goroutines published
}

func newControl(p Peer) http.Handler {
	c := &control{peer: p, seq: make(map[string]uint64)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /publish", c.publish)
	mux.HandleFunc("GET /usage", c.usage)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	return mux
}

func (c *control) usage(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("collect") != "" {
		runtime.GC() // twice: the first only ages what pools hold
		debug.FreeOSMemory()
	}
	u := Usage{Goroutines: runtime.NumGoroutine(), Sockets: c.peer.Sockets()}
	if s, ok := c.peer.(interface{ SlowClosed() uint64 }); ok {
		u.SlowClosed = s.SlowClosed()
	}
	var spent syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &spent)
	if err == nil {
		u.CPU = time.Duration(spent.Utime.Nano() + spent.Stime.Nano())
		u.Peak = spent.Maxrss * 1024
		u.Resident, err = resident()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(u)
}

// resident reads the pages in memory from /proc (see proc_pid_statm(5)).
func resident() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		return 0, fmt.Errorf("reading statm: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}
