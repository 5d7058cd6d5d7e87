package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

const (
	// lifeBeat is long enough that a third heartbeat cannot hide in the margins.
	lifeBeat = time.Second
	// schedulingTime is what a busy machine takes to run who finds it out.
	schedulingTime = 500 * time.Millisecond
)

// unplug has the peer's kernel drop every packet that comes for it from now on,
// before TCP sees it: nothing is received, acknowledged or reset, as when the
// machine or the network is gone.
func unplug(p *chatserver.RawPeer) error {
	raw, err := p.TCP().SyscallConn()
	if err != nil {
		return err
	}
	drop := []syscall.SockFilter{{Code: syscall.BPF_RET | syscall.BPF_K, K: 0}} // 0 bytes of each are kept
	bad := raw.Control(func(fd uintptr) {
		//lint:ignore SA1019 what is to be used instead is another dependency
		err = syscall.AttachLsf(int(fd), drop)
	})
	return errors.Join(bad, err)
}

// readBeats reads until so many heartbeats have come, and answers those that ask for it.
func readBeats(p *chatserver.RawPeer, beats int) error {
	for beats > 0 {
		f, err := p.Next()
		if err != nil {
			return fmt.Errorf("%d heartbeats to go: %w", beats, err)
		}
		switch f.Opcode {
		case wstest.OpPing:
			p.Send(wstest.Masked(wstest.Fin|wstest.OpPong, f.Payload))
			beats--
		case wstest.OpPong:
			beats--
		}
	}
	return nil
}

// askAlive sends a command and reads until its answer comes.
func askAlive(p *chatserver.RawPeer) error {
	p.Send(wstest.Text(`{"type":"join","channel":"c","ref":"alive"}`))
	for {
		e, err := p.NextEvent()
		if err != nil || e.Type == "ack" && string(e.Ref) == `"alive"` {
			return err
		}
	}
}

// A machine that is gone sends no FIN. Two peers that say nothing are told apart,
// with each kind of heartbeat, while messages flow and while none do.
func TestDeadPeersAreFoundWithinTwiceTheHeartbeatAndLivingOnesLeftAlone(t *testing.T) {
	kinds := map[string][]chat.Option{"pongs": nil, "pings": {chat.WithPings()}}
	servers := map[string]func(testing.TB, ...chat.Option) *chatserver.Server{"TCP": chatserver.Serve, "TLS": chatserver.ServeTLS}
	var running sync.WaitGroup // at once: each takes its time, and no more than that
	for kind, opts := range kinds {
		for over, serve := range servers {
			for traffic, every := range map[string]time.Duration{"idle": 0, "busy": 20 * time.Millisecond} {
				s := serve(t, append(opts, chat.WithHeartbeat(lifeBeat), chat.WithPresence(chat.PresenceToNobody))...)
				dead, living := s.DialRaw(t, "dead"), s.DialRaw(t, "living")
				if every > 0 {
					t.Cleanup(broadcastEvery(s, every))
				}
				running.Go(func() {
					if err := errors.Join(readBeats(living, 4), askAlive(living)); err != nil {
						t.Errorf("%s over %s, %s: the living peer: %v", kind, over, traffic, err)
					}
				})
				running.Go(func() {
					took, err := cutOff(s, dead)
					if err != nil || took > 2*lifeBeat+schedulingTime {
						t.Errorf("%s over %s, %s: found after %v (%v), want it within %v and %v", kind, over, traffic, took, err, 2*lifeBeat, schedulingTime)
					}
					t.Logf("%s over %s, %s: found after %v", kind, over, traffic, took)
				})
			}
		}
	}
	running.Wait()
}

// cutOff unplugs a peer when it takes longest to find out, right behind a heartbeat,
// and returns how long that took.
func cutOff(s *chatserver.Server, p *chatserver.RawPeer) (took time.Duration, err error) {
	if err := errors.Join(readBeats(p, 2), unplug(p)); err != nil {
		return 0, err
	}
	died := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		took = time.Since(died)
		list, err := s.Connected(context.Background(), "")
		switch {
		case err != nil || len(list) == 1 && list[0].User.Name == "living":
			return took, err
		case took > chatserver.Patience:
			return took, errors.New("waited in vain")
		}
	}
	return took, nil
}

// broadcastEvery broadcasts until the function that it returns is called.
func broadcastEvery(s *chatserver.Server, d time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var publisher sync.WaitGroup
	publisher.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if _, err := s.Broadcast(context.Background(), chat.Message{Content: "busy"}); err != nil {
					s.T.Errorf("Broadcast: %v", err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		publisher.Wait()
	}
}

// A peer that does not read has a closed window, whose probes its kernel goes on
// acknowledging: it is slow, for which there are other limits, and not dead.
func TestAPeerThatDoesNotReadIsNotTakenForDead(t *testing.T) {
	s := chatserver.Serve(t, chat.WithHeartbeat(lifeBeat/5), chat.WithPresence(chat.PresenceToNobody), chat.WithBacklog(64<<20))
	slow, living := s.DialRaw(t, "slow"), s.DialRaw(t, "living")
	content := strings.Repeat("x", 16<<10)
	published := 0
	for s.Stats().BacklogBytes == 0 {
		if _, err := s.Broadcast(t.Context(), chat.Message{Content: content}); err != nil {
			t.Fatal(err)
		}
		published++
		if f, err := nextMessage(living); err != nil {
			t.Fatalf("the living peer, %v: %v", f, err)
		}
	}
	if err := readBeats(living, 10); err != nil {
		t.Fatal(err)
	}
	for i := range published {
		if _, err := nextMessage(slow); err != nil {
			t.Fatalf("message %d of %d: %v", i+1, published, err)
		}
	}
}

// nextMessage reads until a message comes.
func nextMessage(p *chatserver.RawPeer) (string, error) {
	for {
		f, err := p.Next()
		if err != nil || f.Opcode == wstest.OpText && strings.Contains(f.Payload, `"type":"message"`) {
			return f.Payload, err
		}
	}
}

// A peer acknowledges a message a moment after it came. One that is sent just
// before a heartbeat is not yet, and nothing else was since the one before.
func TestAPeerThatOwesAnAcknowledgementForAMomentIsNotTakenForDead(t *testing.T) {
	const peers, beat = 32, time.Second / 2 // spread over the heartbeat
	s := chatserver.Serve(t, chat.WithHeartbeat(beat), chat.WithPresence(chat.PresenceToNobody))
	delayed := func(p *chatserver.RawPeer) { // TCP_QUICKACK off, which the kernel resets by itself
		if raw, err := p.TCP().SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 0)
			})
		}
	}
	var running sync.WaitGroup
	for i := range peers {
		p := s.DialRaw(t, fmt.Sprint("peer", i))
		running.Go(func() {
			for messages := 0; messages < 8; {
				delayed(p)
				f, err := p.Next()
				if err != nil {
					t.Errorf("peer %d after %d messages: %v", i, messages, err)
					return
				}
				if f.Opcode == wstest.OpText && strings.Contains(f.Payload, `"type":"message"`) {
					messages++
				}
			}
		})
	}
	stop := broadcastEvery(s, beat*95/100)
	running.Wait()
	stop()
}

// startHandshake sends a handshake and leaves the answer to the caller.
func startHandshake(s *chatserver.Server, t *testing.T, name string, query ...string) net.Conn {
	t.Helper()
	conn, err := s.HTTP.Transport.(*http.Transport).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("GET", s.URL+"/ws/chat?"+chatserver.Values(query).Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(chatserver.UpgradeHeaders); i += 2 {
		req.Header.Set(chatserver.UpgradeHeaders[i], chatserver.UpgradeHeaders[i+1])
	}
	req.Header.Set("Authorization", "Bearer "+s.Token(name))
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

// The service calls no port for a client that has gone.
func TestAClientThatLeavesWhileBeingOpenedCostsNothingMore(t *testing.T) {
	h := newHolding()
	var joined, read atomic.Int32
	h.join = func(string) { joined.Add(1) }
	s := chatserver.Serve(t, h.options()...)
	id := s.Publish("", "1")[0]
	h.after = func(context.Context) error {
		read.Add(1)
		return nil
	}
	conn := startHandshake(s, t, "ana", "channel", "news", "since", id)
	wstest.Eventually(t, "the socket to be connecting", func() bool { return h.entered.Load() == 1 })
	_ = conn.Close()
	h.let <- struct{}{}
	wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 0 })
	if joined, read := joined.Load(), read.Load(); joined > 0 || read > 0 {
		t.Errorf("%d channels were joined and %d read for who has gone", joined, read)
	}
	list, err := s.Connected(t.Context(), "")
	if err != nil || len(list) > 0 {
		t.Errorf("connected: %v, %v", list, err)
	}
}

func TestAClientThatLeavesDuringItsReplayCostsNothingMore(t *testing.T) {
	h := newReadingHistory()
	s := chatserver.Serve(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
	var query []string
	for i := range 100 {
		channel := fmt.Sprint("c", i)
		query = append(query, "channel", channel, "since", s.Publish(channel, "1", "2")[0])
	}
	var reads atomic.Int32
	let := make(chan struct{})
	h.read = func(string) {
		reads.Add(1)
		<-let
	}
	conn := startHandshake(s, t, "ana", query...)
	wstest.Eventually(t, "channels to be read", func() bool { return reads.Load() == 8 })
	_ = conn.Close()
	close(let)
	wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 0 })
	if n := reads.Load(); n > 16 {
		t.Errorf("%d channels were read for who has gone, want those that had begun", n)
	}
}
