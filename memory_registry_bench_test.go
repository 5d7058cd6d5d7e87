package chat_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reto10/chat"
)

// discarder is a Socket that discards what is delivered to it.
type discarder struct{ id, user string }

func (d discarder) ID() string                 { return d.id }
func (d discarder) User() chat.User            { return chat.User{Name: d.user, Role: chat.RoleUser} }
func (discarder) Since() time.Time             { return time.Time{} }
func (discarder) Deliver(chat.Event)           {}
func (discarder) Close(chat.CloseCode, string) {}
func userNumber(n int) string                  { return fmt.Sprint("user-", n) }
func channelOf(user int) string                { return chat.UserChannel(userNumber(user)) }

// Publishers send messages to many users, each to one. Receivers discard them.
func BenchmarkPublishToManyUsers(b *testing.B) {
	const users, content = 2000, 128
	for _, bench := range []struct {
		name    string
		history bool
	}{{"registry", false}, {"history and registry", true}} {
		b.Run(bench.name, func(b *testing.B) {
			history := chat.NewMemoryHistory(chat.MemoryLimits{})
			registry := chat.NewMemoryRegistry()
			if _, err := registry.Start(history, nil); err != nil {
				b.Fatal(err)
			}
			channels := make([]string, users)
			last := make([]chat.Position, users) // each belongs to one publisher
			for i := range users {
				s := discarder{fmt.Sprint(i), userNumber(i)}
				channels[i] = channelOf(i)
				if _, err := registry.Add(b.Context(), s, 0); err != nil {
					b.Fatal(err)
				}
				var err error
				if last[i], err = registry.Join(b.Context(), s, channels[i]); err != nil {
					b.Fatal(err)
				}
			}
			text := strings.Repeat("x", content)
			var publishers atomic.Int64
			const most = 16 // publishers
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				first := int(publishers.Add(1)-1) % most
				for i := first; pb.Next(); i += most {
					if i >= users {
						i = first
					}
					m := chat.Message{Channel: channels[i], Sender: "shop", Content: text, Time: time.Now()}
					if bench.history {
						stored, err := history.Append(b.Context(), m)
						if err != nil {
							b.Error(err)
							return
						}
						m = stored[0]
					} else {
						last[i].Seq++
						m.Position = last[i]
					}
					if err := registry.Publish(b.Context(), m); err != nil {
						b.Error(err)
						return
					}
				}
			})
			if err := registry.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// Each message goes to all sockets. Receivers discard them.
func BenchmarkPublishToEveryone(b *testing.B) {
	registry := chat.NewMemoryRegistry()
	var last chat.Position
	for i := range 2000 {
		s := discarder{fmt.Sprint(i), userNumber(i)}
		if _, err := registry.Add(b.Context(), s, 0); err != nil {
			b.Fatal(err)
		}
		var err error
		if last, err = registry.Join(b.Context(), s, ""); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		last.Seq++
		if err := registry.Publish(b.Context(), chat.Message{Position: last, Content: "hello"}); err != nil {
			b.Fatal(err)
		}
	}
	if err := registry.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}
