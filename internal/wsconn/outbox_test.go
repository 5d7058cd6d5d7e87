package wsconn_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/wsconn"
	"github.com/reto10/chat/internal/wsframe"
)

func textFrame(s string) []byte { return wsframe.Text([]byte(s)) }

// want reads what comes until the end and compares it.
func want(t testing.TB, peer net.Conn, frames ...string) {
	t.Helper()
	if diff := cmp.Diff(frames, readAll(t, peer)); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

func TestACorkHoldsWhatIsSentAndNothingElse(t *testing.T) {
	tests := []struct {
		name string
		do   func(o *wsconn.Outbox)
		want []string
	}{
		{"uncorked", func(o *wsconn.Outbox) {
			o.Send(textFrame("1"))
			o.SendFirst(textFrame("0"))
			o.Send(textFrame("2"))
			o.Uncork()
			o.Send(textFrame("3"))
			o.Close(4000, "")
		}, []string{"0", "1", "2", "3", "close 4000 "}},
		{"corked again", func(o *wsconn.Outbox) {
			o.Uncork()
			o.Send(textFrame("1"))
			o.Cork()
			o.Send(textFrame("4"))
			_ = o.SendPaced(textFrame("2"))
			o.SendFirst(textFrame("3"))
			o.Uncork()
			o.Uncork()
			o.Close(4000, "")
		}, []string{"1", "2", "3", "4", "close 4000 "}},
		{"closed while corked", func(o *wsconn.Outbox) {
			o.Send(textFrame("1"))
			_ = o.SendPaced(textFrame("0"))
			o.Send(textFrame("2"))
			o.Close(4000, "x")
		}, []string{"0", "close 4000 x"}},
		{"a close frame ahead", func(o *wsconn.Outbox) {
			o.Send(textFrame("held"))
			o.SendFirst(wsframe.Close(1000, ""))
			o.Uncork()
		}, []string{"close 1000 "}},
		{"never uncorked", func(o *wsconn.Outbox) {
			o.Send(textFrame("held"))
			o.SendFirst(textFrame("ahead"))
		}, []string{"ahead"}},
		{"nothing after a close frame", func(o *wsconn.Outbox) {
			o.Uncork()
			o.Close(4001, "first")
			o.Close(4002, "second")
			o.Send(textFrame("late"))
			o.SendFirst(wsframe.Ping)
			o.SendFirst(wsframe.Close(1000, ""))
			o.Cork()
			o.Send(textFrame("late"))
			o.Uncork()
			if err := o.SendPaced(textFrame("late")); !errors.Is(err, wsconn.ErrClosed) {
				panic(fmt.Sprint("SendPaced after Close: ", err))
			}
		}, []string{"close 4001 first"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onLinks(t, func(t *testing.T, ours, peers net.Conn) {
				o, _ := outbox(t, ours)
				go func() {
					tt.do(o)
					end(o)
				}()
				want(t, peers, tt.want...)
			})
		})
	}
}

// TestFramesOfManySendersComeInOrder has several goroutines send batches, others
// pings, to a peer that reads little by little and long after.
func TestFramesOfManySendersComeInOrder(t *testing.T) {
	onLinks(t, func(t *testing.T, ours, peers net.Conn) {
		o, totals := outbox(t, ours)
		o.Uncork()
		const senders, batches, parts = 4, 300, 3
		filler := strings.Repeat("x", 200)
		var work sync.WaitGroup
		for s := range senders {
			work.Go(func() {
				for n := range batches {
					var batch []byte
					for p := range parts {
						batch = append(batch, textFrame(fmt.Sprintf("%d %d %d %s", s, n, p, filler))...)
					}
					o.Send(batch)
					if n%10 == 0 {
						o.SendFirst(wsframe.Ping)
					}
				}
			})
		}
		go func() {
			work.Wait()
			o.Close(4000, "end")
			o.Send(textFrame("late"))
			end(o)
		}()
		for totals.Backlog.Load() < 50<<10 {
			<-time.After(time.Millisecond)
		}

		var at [senders]int // batches that came, of each sender
		var open, part int  // the batch that has begun
		pings := 0
		frames := readAll(t, peers)
		last := frames[len(frames)-1]
		for i, f := range frames[:len(frames)-1] {
			if f == "9:" {
				pings++
				if part != 0 {
					t.Fatalf("frame %d: a ping inside a batch", i)
				}
				continue
			}
			var s, n, p int
			if _, err := fmt.Sscan(f, &s, &n, &p); err != nil {
				t.Fatal(err)
			}
			if p != part || part > 0 && s != open || n != at[s] {
				t.Fatalf("frame %d is %d of batch %d of sender %d; want %d of batch %d", i, p, n, s, part, at[s])
			}
			open, part = s, (part+1)%parts
			if part == 0 {
				at[s]++
			}
		}
		if at != [senders]int{batches, batches, batches, batches} || pings != senders*batches/10 || last != "close 4000 end" {
			t.Errorf("got batches %v, %d pings, at last %q", at, pings, last)
		}
	})
}

// TestAPeerPastItsLimitGetsWholeFramesAndIsClosed sends to a peer that reads only
// when it was given up.
func TestPaceReturnsAsThePeerReads(t *testing.T) {
	onLinks(t, func(t *testing.T, ours, peers net.Conn) {
		o, _ := outbox(t, ours, func(l *wsconn.Limits) { l.Backlog = 64 << 10 })
		const pages = 20
		page := func(n int) []byte { return textFrame(fmt.Sprint(n, " ", strings.Repeat("x", 100_000))) }
		paced := make(chan int, pages)
		go func() {
			defer close(paced)
			o.Send(textFrame("live"))
			for n := range pages {
				if err := o.SendPaced(page(n)); err != nil {
					t.Errorf("page %d: %v", n, err)
					return
				}
				paced <- n
			}
			o.Uncork()
			o.Close(4000, "")
			end(o)
		}()
		r := bufio.NewReader(peers)
		for n := range pages {
			if got := len(paced); got > n+20 {
				t.Errorf("%d pages were paced when %d were read", got, n)
			}
			if f, err := next(r); err != nil || !strings.HasPrefix(f, fmt.Sprint(n, " ")) {
				t.Fatalf("page %d: %.20q, %v", n, f, err)
			}
		}
		for _, last := range []string{"live", "close 4000 "} {
			if f, err := next(r); err != nil || f != last {
				t.Errorf("then %.40q, %v, want %q", f, err, last)
			}
		}
	})
}

// TestAPageMayBeLongerThanTheBacklog is how a peer resumes that missed more than
// a backlog's worth: it must not be taken for one that is slow.
func TestPaceEndsWithTheOutbox(t *testing.T) {
	ends := map[string]func(o *wsconn.Outbox, peer net.Conn){
		"killed":       func(o *wsconn.Outbox, _ net.Conn) { o.Kill() },
		"peer is gone": func(_ *wsconn.Outbox, peer net.Conn) { _ = peer.Close() },
		"closed": func(o *wsconn.Outbox, peer net.Conn) {
			o.Close(4000, "")
			go func() { _, _ = io.Copy(io.Discard, peer) }()
		},
	}
	for name, ending := range ends {
		t.Run(name, func(t *testing.T) {
			onLinks(t, func(t *testing.T, ours, peers net.Conn) {
				o, totals := outbox(t, ours)
				paced := make(chan error)
				go func() { paced <- o.SendPaced(textFrame(strings.Repeat("x", 8<<20))) }()
				for totals.Backlog.Load() == 0 {
					<-time.After(time.Millisecond)
				}
				ending(o, peers)
				if err := <-paced; !errors.Is(err, wsconn.ErrClosed) {
					t.Errorf("SendPaced = %v, want ErrClosed", err)
				}
			})
		})
	}
}

// TestTheBacklogIsNothingAfterTheEnd ends outboxes in all states; what is counted
// of them has to be nothing then, see outbox.
func TestTheBacklogIsNothingAfterTheEnd(t *testing.T) {
	batch := textFrame(strings.Repeat("x", 100_000))
	states := map[string]func(o *wsconn.Outbox, ours, peers net.Conn){
		"new":              func(*wsconn.Outbox, net.Conn, net.Conn) {},
		"corked":           func(o *wsconn.Outbox, _, _ net.Conn) { o.Send(batch); o.Send(batch) },
		"with a backlog":   func(o *wsconn.Outbox, _, _ net.Conn) { o.Uncork(); fill(o, batch) },
		"corked behind it": func(o *wsconn.Outbox, _, _ net.Conn) { o.Uncork(); fill(o, batch); o.Cork(); fill(o, batch) },
		"closing":          func(o *wsconn.Outbox, _, _ net.Conn) { fill(o, batch); o.Close(4000, "") },
		"close frame ahead": func(o *wsconn.Outbox, _, _ net.Conn) {
			fill(o, batch)
			o.SendFirst(wsframe.Close(4000, ""))
		},
		"given up": func(o *wsconn.Outbox, _, _ net.Conn) {
			o.Uncork()
			for !o.Closing() {
				o.Send(batch)
			}
		},
		"given up corked": func(o *wsconn.Outbox, _, _ net.Conn) {
			o.Uncork()
			fill(o, batch)
			o.Cork()
			for !o.Closing() {
				o.Send(batch)
			}
		},
		"uncorked when dead": func(o *wsconn.Outbox, ours, _ net.Conn) {
			fill(o, batch)
			_ = ours.Close()
			o.Uncork()
			<-o.Idle()
		},
		"uncorked when the peer is gone": func(o *wsconn.Outbox, _, peers net.Conn) {
			fill(o, batch)
			_ = peers.Close()
			o.Uncork()
			<-o.Idle()
		},
		"closed when dead": func(o *wsconn.Outbox, ours, _ net.Conn) {
			fill(o, batch)
			_ = ours.Close()
			o.Close(4000, "")
			<-o.Idle()
		},
	}
	for name, state := range states {
		t.Run(name, func(t *testing.T) {
			onLinks(t, func(t *testing.T, ours, peers net.Conn) {
				o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Backlog = 5 << 20 })
				state(o, ours, peers)
				o.Kill()
				o.Send(batch)
				o.SendFirst(batch)
				o.Uncork()
				if got := totals.Backlog.Load(); got != 0 {
					t.Errorf("backlog = %d, want 0", got)
				}
				if !o.Closing() || o.Moving() {
					t.Errorf("closing %v, moving %v", o.Closing(), o.Moving())
				}
				<-o.Idle()
			})
		})
	}
}

func fill(o *wsconn.Outbox, batch []byte) {
	for range 20 {
		o.Send(batch)
	}
}

// TestKillingWaitsForNobody has a dispatcher's view: while a peer over TLS does
// not read, neither its end nor what is still sent to it takes any time.
func TestKillingWaitsForNobody(t *testing.T) {
	tests := map[string]func(o *wsconn.Outbox){
		"idle":           func(o *wsconn.Outbox) { o.Uncork() },
		"with a backlog": func(o *wsconn.Outbox) { o.Uncork(); o.Send(textFrame("x")) },
		"stalled": func(o *wsconn.Outbox) {
			o.Uncork()
			o.Send(textFrame("x"))
			<-o.Idle()
		},
	}
	for name, state := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, _ := encrypted(t, pipe)
				o, _ := outbox(t, ours, func(l *wsconn.Limits) { l.Stall = time.Second })
				state(o)
				synctest.Wait()
				began := time.Now()
				o.Kill()
				o.Send(textFrame("y"))
				if got := time.Since(began); got != 0 {
					t.Errorf("took %v", got)
				}
			})
		})
	}
}

func TestSendingAllocatesNothing(t *testing.T) {
	ours, peers := tcp(t, 0)
	o, totals := outbox(t, ours)
	o.Uncork()
	go func() { _, _ = io.Copy(onlyWriter{}, peers) }()
	frame := textFrame(strings.Repeat("x", 128))
	got := testing.AllocsPerRun(1000, func() {
		o.Send(frame)
		for totals.Backlog.Load() > 0 {
			<-o.Idle()
		}
	})
	if got != 0 {
		t.Errorf("%v allocations to send a batch, want 0", got)
	}
}

// onlyWriter has io.Copy use its own buffer, once.
type onlyWriter struct{}

func (onlyWriter) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkSendTCP(b *testing.B) {
	for _, frames := range []int{1, 16, 64} {
		b.Run(fmt.Sprint("batch=", frames), func(b *testing.B) {
			ours, peers := tcp(b, 0)
			o, totals := outbox(b, ours)
			o.Uncork()
			go func() { _, _ = io.Copy(onlyWriter{}, peers) }()
			batch := []byte(strings.Repeat(string(textFrame(strings.Repeat("x", 128))), frames))
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				o.Send(batch)
				if totals.Backlog.Load() > 0 {
					<-o.Idle()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*frames), "ns/delivery")
		})
	}
}

func TestWhatComesFirstIsReplacedUntilItIsSent(t *testing.T) {
	tests := []struct {
		name string
		do   func(o *wsconn.Outbox) bool // ReplacePreamble's answer
		sent bool
		want []string
	}{
		{"nothing was sent", func(o *wsconn.Outbox) bool {
			o.Send(textFrame("held"))
			sent := o.ReplacePreamble(textFrame("instead"))
			o.Uncork()
			o.Send(textFrame("late"))
			o.Close(4000, "late")
			return sent
		}, true, []string{"instead"}},
		{"something was sent", func(o *wsconn.Outbox) bool {
			o.SendFirst(textFrame("ahead"))
			return o.ReplacePreamble(textFrame("late"))
		}, false, []string{"first", "ahead"}},
		{"closed", func(o *wsconn.Outbox) bool {
			o.Close(4000, "")
			return o.ReplacePreamble(textFrame("late"))
		}, false, []string{"first", "close 4000 "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onLinks(t, func(t *testing.T, ours, peers net.Conn) {
				o, _ := outbox(t, ours)
				o.SetPreamble(textFrame("first"))
				if !o.Unanswered() {
					t.Error("it is not fresh before anything was sent")
				}
				sent := make(chan bool, 1)
				go func() {
					sent <- tt.do(o)
					end(o)
				}()
				want(t, peers, tt.want...)
				if got := <-sent; got != tt.sent {
					t.Errorf("ReplacePreamble = %v, want %v", got, tt.sent)
				}
				if o.Unanswered() {
					t.Error("it is fresh when something was sent")
				}
			})
		})
	}
}
