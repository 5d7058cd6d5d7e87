package wsconn_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/wsconn"
)

func TestAPeerPastItsLimitGetsWholeFramesAndIsClosed(t *testing.T) {
	for _, size := range []int{10, 1000, 50_000, 200_000} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			onLinks(t, func(t *testing.T, ours, peers net.Conn) {
				o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Backlog = 256 << 10 })
				o.Uncork()
				filler := strings.Repeat("x", size)
				sent := 0
				for ; !o.Closing(); sent++ {
					o.Send(textFrame(fmt.Sprint(sent, " ", filler)))
				}
				o.Send(textFrame("late"))
				if got := totals.Slow.Load(); got != 1 {
					t.Errorf("slow = %d, want 1", got)
				}
				if got := totals.Backlog.Load(); got > 256<<10 {
					t.Errorf("backlog = %d after its limit", got)
				}
				go end(o)
				frames := readAll(t, peers)
				if got := frames[len(frames)-1]; got != "close 4003 too slow" {
					t.Errorf("last frame = %.40q", got)
				}
				for i, f := range frames[:len(frames)-1] {
					if !strings.HasPrefix(f, fmt.Sprint(i, " ")) {
						t.Fatalf("frame %d is %.40q", i, f)
					}
				}
				if len(frames) > sent {
					t.Errorf("%d frames came of %d: the backlog was not dropped", len(frames)-1, sent)
				}
			})
		})
	}
}

func TestWhatACorkHoldsCountsTowardsTheLimit(t *testing.T) {
	onLinks(t, func(t *testing.T, ours, peers net.Conn) {
		o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Backlog = 1000 })
		for !o.Closing() {
			o.Send(textFrame("held"))
		}
		if got := totals.Slow.Load(); got != 1 {
			t.Errorf("slow = %d, want 1", got)
		}
		go func() {
			o.Uncork()
			end(o)
		}()
		want(t, peers, "close 4003 too slow")
	})
}

func TestWhatACallerKeepsCountsTowardsTheLimit(t *testing.T) {
	onLinks(t, func(t *testing.T, ours, peers net.Conn) {
		o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Backlog = 1000 })
		o.Uncork()
		if !o.Reserve(600) || totals.Backlog.Load() != 600 {
			t.Errorf("600 bytes of 1000 are not reserved, the backlog is %d", totals.Backlog.Load())
		}
		o.Release(600)
		if !o.Reserve(900) || o.Closing() {
			t.Error("what was released still counts")
		}
		if o.Reserve(200) || !o.Closing() || totals.Slow.Load() != 1 {
			t.Errorf("past the limit: closing %v, slow %d", o.Closing(), totals.Slow.Load())
		}
		if o.Reserve(1) {
			t.Error("bytes are reserved for a peer that is given up")
		}
		o.Release(900)
		go end(o)
		want(t, peers, "close 4003 too slow")
		if got := totals.Backlog.Load(); got != 0 {
			t.Errorf("backlog = %d in the end", got)
		}
	})
}

func TestAPageMayBeLongerThanTheBacklog(t *testing.T) {
	onLinks(t, func(t *testing.T, ours, peers net.Conn) {
		o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Backlog = 10_000 })
		page := strings.Repeat("x", 2<<20)
		go func() {
			if err := o.SendPaced(textFrame(page)); err != nil {
				t.Error(err)
			}
			o.Close(4000, "")
			end(o)
		}()
		want(t, peers, page, "close 4000 ")
		if got := totals.Slow.Load(); got != 0 {
			t.Errorf("slow = %d, want 0", got)
		}
	})
}

// What waits of a page counts towards the limit like what is live.
func TestAPageThatIsPacedLeavesTheRestOfTheLimitToWhatIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, peers := pipe(t)
		o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Backlog = 10_000 })
		page := textFrame(strings.Repeat("x", 2496)) // 2500 bytes, which are being written
		paced := make(chan error)
		if err := o.SendPaced(page); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		go func() { paced <- o.SendPaced(page) }()
		synctest.Wait()
		if got := totals.Backlog.Load(); got != 5000 {
			t.Errorf("backlog = %d with two pages of 2500 bytes", got)
		}
		live := textFrame(strings.Repeat("y", 996)) // 1000 bytes, and 64 for the entry
		for range 4 {
			o.Send(live)
		}
		if o.Closing() {
			t.Fatal("given up at the limit")
		}
		o.Send(live)
		if !o.Closing() {
			t.Fatal("not given up past the limit")
		}
		if err := <-paced; !errors.Is(err, wsconn.ErrClosed) {
			t.Errorf("SendPaced = %v, want ErrClosed", err)
		}
		go end(o)
		want(t, peers, strings.Repeat("x", 2496), "close 4003 too slow")
	})
}

// Pages of up to a quarter of the limit, however many, keep within half of it.
func TestPagesAlonePassNoLimit(t *testing.T) {
	for _, limit := range []int{100, 10_000, 1 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, peers := pipe(t)
				o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Backlog = limit })
				page := make([]byte, min(limit/4, 32<<10))
				const pages = 20
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for range pages {
						if err := o.SendPaced(page); err != nil {
							t.Errorf("SendPaced: %v", err)
						}
					}
				}()
				for range pages {
					synctest.Wait()
					if got := totals.Backlog.Load(); got > int64(limit/2) {
						t.Errorf("backlog = %d of %d", got, limit)
					}
					if _, err := io.ReadFull(peers, make([]byte, len(page))); err != nil {
						t.Fatal(err)
					}
				}
				<-sent
				if got := totals.Slow.Load(); got != 0 {
					t.Errorf("slow = %d, want 0", got)
				}
			})
		})
	}
}

func TestAPeerThatStallsIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, peers := pipe(t)
		o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Stall = 10 * time.Second })
		o.Uncork()
		began := time.Now()
		o.Send(textFrame("nobody reads this"))
		o.Send(textFrame("nor this"))
		<-o.Idle()
		if got := time.Since(began); got != 10*time.Second {
			t.Errorf("killed after %v, want the 10 s of a stall", got)
		}
		if !o.Closing() || totals.Slow.Load() != 1 || totals.Backlog.Load() != 0 {
			t.Errorf("closing %v, slow %d, backlog %d", o.Closing(), totals.Slow.Load(), totals.Backlog.Load())
		}
		want(t, peers)
	})
}

func TestAPeerThatReadsSlowlyButSteadilyIsNotKilled(t *testing.T) {
	for _, kind := range []string{"one long frame", "many short ones", "a paced page"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, peers := pipe(t)
				o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Stall = 10 * time.Second })
				o.Uncork()
				const total = 1 << 20
				switch kind {
				case "one long frame":
					o.Send(make([]byte, total))
				case "many short ones":
					for range total / 256 {
						o.Send(make([]byte, 256))
					}
				case "a paced page":
					go func() { _ = o.SendPaced(make([]byte, total)) }()
				}
				// 64 KiB in a little less than a stall's time.
				for read := 0; read < total; read += 32 << 10 {
					<-time.After(4900 * time.Millisecond)
					if _, err := io.ReadFull(peers, make([]byte, 32<<10)); err != nil {
						t.Fatalf("after %d bytes: %v", read, err)
					}
				}
				<-o.Idle()
				if o.Closing() || totals.Slow.Load() != 0 {
					t.Error("killed")
				}
			})
		})
	}
}

func TestAPeerHasTheClosingTimeToAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, peers := pipe(t)
		o, _ := outbox(t, ours, func(l *wsconn.Limits) { l.Closing = 5 * time.Second })
		o.Uncork()
		began := time.Now()
		go o.Close(4000, "")
		if _, err := next(bufio.NewReader(peers)); err != nil {
			t.Fatal(err)
		}
		_, err := ours.Read(make([]byte, 1))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("reading an answer ended with %v, want a timeout", err)
		}
		if got := time.Since(began); got != 5*time.Second {
			t.Errorf("waited %v, want 5 s", got)
		}
	})
}

func TestACloseFrameThatNobodyReadsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, _ := pipe(t)
		o, totals := outbox(t, ours, func(l *wsconn.Limits) { l.Closing = 5 * time.Second })
		o.Uncork()
		began := time.Now()
		o.Close(4000, "")
		<-o.Idle()
		if got := time.Since(began); got != 5*time.Second {
			t.Errorf("waited %v, want 5 s", got)
		}
		if got := totals.Slow.Load(); got != 0 {
			t.Errorf("slow = %d, want 0: it was closed already", got)
		}
	})
}

func TestAPeerThatTakesItsBacklogIsMoving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, peers := pipe(t)
		o, _ := outbox(t, ours)
		o.Uncork()
		o.Send(make([]byte, 200<<10))
		synctest.Wait()
		var got []bool
		for _, n := range []int{0, 64 << 10, 0, 10, 64 << 10, 72<<10 - 10} {
			if _, err := io.ReadFull(peers, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			got = append(got, o.Moving())
		}
		// Not while nothing is read, nor when all is.
		if diff := cmp.Diff([]bool{false, true, false, false, true, false}, got); diff != "" {
			t.Errorf("moving (-want +got):\n%s", diff)
		}
	})
}

// What comes first is sent first, also to a peer that is given up before it.
func TestWhatComesFirstIsNotDroppedWithABacklog(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the drainer comes late
	ours, peers := pipe(t)
	o, _ := outbox(t, ours, func(l *wsconn.Limits) { l.Backlog = 1000 })
	o.SetPreamble([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"))
	o.SendFirst(textFrame("welcome"))
	o.Uncork()
	o.Send(textFrame(strings.Repeat("x", 2000)))
	go end(o)
	got, err := io.ReadAll(peers)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 101") {
		t.Errorf("the peer got %.60q (%v), want the answer to its handshake first", got, err)
	}
}
