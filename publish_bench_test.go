package chat_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reto10/chat"
)

// discarding is a Socket that drops what it gets.
type discarding struct {
	id   string
	user chat.User
}

func (d discarding) ID() string                   { return d.id }
func (d discarding) User() chat.User              { return d.user }
func (d discarding) Since() time.Time             { return time.Time{} }
func (d discarding) Deliver(chat.Event)           {}
func (d discarding) Close(chat.CloseCode, string) {}

// numbered returns n different names.
func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint(prefix, i)
	}
	return names
}

// shuffled returns the number after i in a sequence that looks random; its upper bits do.
func shuffled(i uint32) uint32 { return i*1_664_525 + 1_013_904_223 }

// Each message goes to one of 2,000 users.
func BenchmarkBroadcastToOneUser(b *testing.B) {
	registry := chat.NewMemoryRegistry()
	service, err := chat.New(sessions{}, chat.WithRegistry(registry), chat.WithPresence(chat.PresenceToNobody))
	if err != nil {
		b.Fatal(err)
	}
	defer service.Shutdown(b.Context())
	names := numbered("user", 2000)
	channels := make([]string, len(names))
	for i, name := range names {
		s := discarding{id: name, user: chat.User{Name: name, Role: chat.RoleUser}}
		if _, err := registry.Add(b.Context(), s, 0); err != nil {
			b.Fatal(err)
		}
		channels[i] = chat.UserChannel(name)
		for _, channel := range []string{"", channels[i]} {
			if _, err := registry.Join(b.Context(), s, channel); err != nil {
				b.Fatal(err)
			}
		}
	}
	content := strings.Repeat("x", 128)
	var publishers atomic.Uint32
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := publishers.Add(1); pb.Next(); i = shuffled(i) {
			if _, err := service.Broadcast(ctx, chat.Message{
				Channel: channels[i>>8%uint32(len(channels))], Sender: "admin", Content: content,
			}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	if err := registry.Flush(ctx); err != nil {
		b.Fatal(err)
	}
}

// benchmarkAppend appends to 2,000 channels from all cores.
func benchmarkAppend(b *testing.B, limits chat.MemoryLimits) {
	h := chat.NewMemoryHistory(limits)
	channels := numbered("@user", 2000)
	m := chat.Message{Sender: "admin", Content: strings.Repeat("x", 128), Time: time.Now().UTC()}
	appendTo := func(i uint32) {
		m := m
		m.Channel = channels[i>>8%uint32(len(channels))]
		if _, err := h.Append(context.Background(), m); err != nil {
			b.Error(err)
		}
	}
	at := uint32(0)
	for range 200_000 { // the state of a history that has run for long
		at = shuffled(at)
		appendTo(at)
	}
	var writers atomic.Uint32
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := writers.Add(1); pb.Next(); i = shuffled(i) {
			appendTo(i)
		}
	})
}

func BenchmarkMemoryHistoryAppend(b *testing.B) {
	b.Run("count reached", func(b *testing.B) { benchmarkAppend(b, chat.MemoryLimits{Count: 50}) })
	b.Run("bytes reached", func(b *testing.B) { benchmarkAppend(b, chat.MemoryLimits{}) })
}

func BenchmarkMemoryHistoryAfter(b *testing.B) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{})
	var from chat.Position
	for i := range 500 {
		p := append1(b, h, "news", strings.Repeat("x", 128))
		if i == 399 {
			from = p
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if msgs, err := h.After(context.Background(), "news", from, chat.Limit{Count: 100}); err != nil || len(msgs) != 100 {
				b.Errorf("%d messages, %v", len(msgs), err)
				return
			}
		}
	})
}
