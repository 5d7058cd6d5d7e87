package chat_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat"
)

const (
	// lifeBeat is long enough that a third heartbeat cannot hide in the margins.
	lifeBeat = time.Second
	// kernelTime is what Linux takes on top of TCP_USER_TIMEOUT: that is counted
	// from the first retransmission by timeout, which comes behind a tail loss
	// probe, each of them after TCP_RTO_MIN, 200 ms, where the way is short.
	kernelTime = 400 * time.Millisecond
	// schedulingTime is what a busy machine takes to run who finds it out.
	schedulingTime = 500 * time.Millisecond
)

// unplug has the peer's kernel drop every packet that comes for it from now on,
// before TCP sees it: nothing is received, acknowledged or reset, as when the
// machine or the network is gone.
func (p *rawPeer) unplug() error {
	raw, err := p.tcp().SyscallConn()
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

// live reads until so many heartbeats have come, and answers those that ask for it.
func (p *rawPeer) live(beats int) error {
	for beats > 0 {
		f, err := p.next()
		if err != nil {
			return fmt.Errorf("%d heartbeats to go: %w", beats, err)
		}
		switch f.opcode {
		case opPing:
			p.send(frame(fin|opPong, f.payload))
			beats--
		case opPong:
			beats--
		}
	}
	return nil
}

// answered sends a command and reads until its answer comes.
func (p *rawPeer) answered() error {
	p.send(frame(fin|opText, good("alive")))
	for {
		f, err := p.next()
		if err != nil {
			return err
		}
		if said, err := f.say(); err != nil || said == `ack "alive"` {
			return err
		}
	}
}

// A machine that is gone sends no FIN. Two peers that say nothing are told apart,
// with each kind of heartbeat, while messages flow and while none do.
func TestDeadPeersAreFoundWithinTwiceTheHeartbeatAndLivingOnesLeftAlone(t *testing.T) {
	kinds := map[string]struct {
		opts   []chat.Option
		margin time.Duration
	}{
		"pongs": {nil, kernelTime + schedulingTime},
		"pings": {[]chat.Option{chat.WithPings()}, schedulingTime},
	}
	servers := map[string]func(testing.TB, ...chat.Option) *server{"TCP": serve, "TLS": serveTLS}
	var running sync.WaitGroup // at once: each takes its time, and no more than that
	for kind, k := range kinds {
		for over, serve := range servers {
			for traffic, every := range map[string]time.Duration{"idle": 0, "busy": 20 * time.Millisecond} {
				s := serve(t, append(k.opts, chat.WithHeartbeat(lifeBeat), chat.WithPresence(chat.PresenceToNobody))...)
				dead, living := s.dialRaw(t, "dead"), s.dialRaw(t, "living")
				if every > 0 {
					t.Cleanup(s.broadcastEvery(every))
				}
				running.Go(func() {
					if err := errors.Join(living.live(4), living.answered()); err != nil {
						t.Errorf("%s over %s, %s: the living peer: %v", kind, over, traffic, err)
					}
				})
				running.Go(func() {
					took, err := s.die(dead)
					if err != nil || took > 2*lifeBeat+k.margin {
						t.Errorf("%s over %s, %s: found after %v (%v), want it within %v and %v", kind, over, traffic, took, err, 2*lifeBeat, k.margin)
					}
					t.Logf("%s over %s, %s: found after %v", kind, over, traffic, took)
				})
			}
		}
	}
	running.Wait()
}

// die unplugs a peer when it takes longest to find out, right behind a heartbeat,
// and returns how long that took.
func (s *server) die(p *rawPeer) (took time.Duration, err error) {
	if err := errors.Join(p.live(2), p.unplug()); err != nil {
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
		case took > patience:
			return took, errors.New("waited in vain")
		}
	}
	return took, nil
}

// broadcastEvery broadcasts until the function that it returns is called.
func (s *server) broadcastEvery(d time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var publisher sync.WaitGroup
	publisher.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if _, err := s.Broadcast(context.Background(), chat.Message{Content: "busy"}); err != nil {
					s.t.Errorf("Broadcast: %v", err)
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
