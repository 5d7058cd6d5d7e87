package chat_test

import (
	"context"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/reto10/chat"
)

// forgetful panics when a socket is added, where others count, or removed. What it embeds
// has done its work then.
type forgetful struct {
	*chat.MemoryRegistry
	counting, disconnecting bool
	last                    atomic.Pointer[weak.Pointer[byte]] // to the last socket
	disconnected            atomic.Int32
}

func (r *forgetful) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	p := weak.Make((*byte)(reflect.ValueOf(s).UnsafePointer()))
	r.last.Store(&p)
	n, err := r.MemoryRegistry.Add(ctx, s, limit)
	if r.counting {
		panic("a bug of the embedder's")
	}
	return n, err
}

func (r *forgetful) Remove(ctx context.Context, s chat.Socket) error {
	err := r.MemoryRegistry.Remove(ctx, s)
	r.disconnected.Add(1)
	if r.disconnecting {
		panic("a bug of the embedder's")
	}
	return err
}

// Whatever panics while a socket comes or goes, nothing keeps it.
func TestNothingKeepsASocketWhoseRegistryPanicked(t *testing.T) {
	for name, registry := range map[string]*forgetful{
		"disconnecting": {MemoryRegistry: chat.NewMemoryRegistry(), disconnecting: true},
		"counting":      {MemoryRegistry: chat.NewMemoryRegistry(), counting: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, chat.WithRegistry(registry))
			d := <-s.dialling("ana")
			if d.err == nil {
				_ = d.conn.CloseNow()
			}
			eventually(t, "the socket to be disconnected", func() bool { return registry.disconnected.Load() == 1 && s.Stats().Sockets == 0 })
			eventually(t, "the socket to be forgotten", func() bool {
				runtime.GC()
				return registry.last.Load().Value() == nil
			})
		})
	}
}
