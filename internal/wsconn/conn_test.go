package wsconn_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/wsframe"
	"github.com/reto10/chat/test/wstest"
)

// on runs a test over each kind of connection.
func on(t *testing.T, test func(t *testing.T, s *server)) {
	for _, over := range []kind{overTCP, overTLS, overPipes} {
		t.Run(string(over), func(t *testing.T) { test(t, serve(t, over)) })
	}
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

func TestMessagesAreHandledWholeAndInOrder(t *testing.T) {
	longest := strings.Repeat("x", readLimit)
	tests := []struct {
		name string
		send []byte
		want []string
	}{
		{"one", frame(opText, "hi"), []string{"hi"}},
		{"an empty one", frame(opText, ""), []string{""}},
		{"as long as may be", frame(opText, longest), []string{longest}},
		{"several at once", join(frame(opText, "1"), frame(opText, "2"), frame(opText, "3")), []string{"1", "2", "3"}},
		{"in fragments", join(wstest.Masked(opText, "a"), wstest.Masked(opContinuation, ""), frame(opContinuation, "b")), []string{"ab"}},
		{"a character in two fragments", join(wstest.Masked(opText, "\xc3"), frame(opContinuation, "\xa9")), []string{"é"}},
		{"a pong that nobody asked for", join(frame(opPong, "x"), frame(opText, "hi")), []string{"hi"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			on(t, func(t *testing.T, s *server) {
				p, _ := s.connect(nil)
				go p.write(join(tt.send, frame(opClose, closePayload(1000, "bye"))))
				p.want("close 1000 bye", "EOF")
				<-s.served
				if diff := cmp.Diff(tt.want, s.handled()); diff != "" {
					t.Errorf("handled (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAPingIsAnsweredAlsoInsideAMessage(t *testing.T) {
	on(t, func(t *testing.T, s *server) {
		p, _ := s.connect(nil)
		longest := strings.Repeat("p", 125)
		go p.write(join(frame(opPing, ""), wstest.Masked(opText, "a"), frame(opPing, longest), frame(opContinuation, "b"),
			frame(opClose, "")))
		p.want("0x8a ", "0x8a "+longest, "0x88 ", "EOF")
		<-s.served
		if diff := cmp.Diff([]string{"ab"}, s.handled()); diff != "" {
			t.Errorf("handled (-want +got):\n%s", diff)
		}
	})
}

// TestWhatBreaksTheRulesEndsTheSocket has the peer send something good, then
// something bad, then something good that must not be handled any more.
func TestWhatBreaksTheRulesEndsTheSocket(t *testing.T) {
	tooLong := strings.Repeat("x", readLimit+1)
	tests := []struct {
		name string
		send []byte
		code int
	}{
		{"binary", frame(opBinary, "hi"), 1003},
		{"not UTF-8", frame(opText, "a\xff"), 1007},
		{"half a character", frame(opText, "\xc3"), 1007},
		{"a surrogate", frame(opText, "\xed\xa0\x80"), 1007},
		{"too long", frame(opText, tooLong), 1009},
		{"far too long", join(frame(opText, strings.Repeat("x", 60_000))), 1009},
		{"too long in fragments", join(wstest.Masked(opText, tooLong[1:]), frame(opContinuation, "x")), 1009},
		{"not masked", wstest.Unmasked(final|opText, "hi"), 1002},
		{"not masked inside", join(wstest.Masked(opText, "a"), wstest.Unmasked(final|opContinuation, "b")), 1002},
		{"a reserved bit", wstest.Masked(final|0x40|opText, "hi"), 1002},
		{"an unknown opcode", frame(3, "hi"), 1002},
		{"an unknown control frame", frame(11, "hi"), 1002},
		{"a continuation of nothing", frame(opContinuation, "hi"), 1002},
		{"a message inside a message", join(wstest.Masked(opText, "a"), frame(opText, "b")), 1002},
		{"a control frame in fragments", wstest.Masked(opPing, "a"), 1002},
		{"a long control frame", frame(opPing, strings.Repeat("x", 126)), 1002},
		{"half a close code", frame(opClose, "\x03"), 1002},
		{"a close code that is none", frame(opClose, closePayload(1005, "")), 1002},
		{"a length without end", append([]byte{final | opText, masked | 127}, bytes.Repeat([]byte{0xff}, 12)...), 1002},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			on(t, func(t *testing.T, s *server) {
				p, _ := s.connect(nil)
				go p.write(join(frame(opText, "good"), tt.send, frame(opText, "late")))
				got := p.next()
				if !strings.HasPrefix(got, fmt.Sprintf("close %d ", tt.code)) {
					t.Errorf("frame = %q, want close code %d", got, tt.code)
				}
				p.write(frame(opClose, closePayload(uint16(tt.code), "")))
				p.Close()
				if err := <-s.served; err == nil {
					t.Error("Serve = nil")
				}
				if diff := cmp.Diff([]string{"good"}, s.handled()); diff != "" {
					t.Errorf("handled (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestAPeerLearnsWhyThoughItSendsOn floods the server behind its offence: a
// connection that is closed on unread bytes is reset, and the reason lost.
func TestAPeerLearnsWhyThoughItSendsOn(t *testing.T) {
	s := serve(t, overTCP)
	for range 20 {
		p, _ := s.connect(nil)
		p.write(append(frame(opBinary, "hi"), bytes.Repeat(frame(opText, strings.Repeat("x", 1000)), 100)...))
		p.want("close 1003 text messages only", "EOF")
		p.Close()
		<-s.served
	}
}

func TestAPeersCloseFrameIsAnswered(t *testing.T) {
	tests := []struct{ name, payload, want string }{
		{"with a reason", closePayload(1001, "bye"), "close 1001 bye"},
		{"with a code", closePayload(4999, ""), "close 4999 "},
		{"with nothing", "", "0x88 "},
		{"as long as may be", closePayload(3000, strings.Repeat("x", 123)), "close 3000 " + strings.Repeat("x", 123)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			on(t, func(t *testing.T, s *server) {
				p, c := s.connect(nil)
				go p.write(frame(opClose, tt.payload))
				p.want(tt.want, "EOF")
				if err := <-s.served; err == nil {
					t.Error("Serve = nil")
				}
				if !c.Out().Closing() {
					t.Error("not closing")
				}
			})
		})
	}
}

func TestAPeersCloseFrameIsAnsweredBehindWhatWasSent(t *testing.T) {
	on(t, func(t *testing.T, s *server) {
		p, c := s.connect(nil)
		var want []string
		for i := range 20 {
			text := fmt.Sprint(i, strings.Repeat("x", 20_000))
			want = append(want, text)
			c.Out().Send(wsframe.Text([]byte(text)))
		}
		p.write(frame(opClose, closePayload(1000, "")))
		p.want(append(want, "close 1000 ", "EOF")...)
		<-s.served
	})
}

func TestAfterACloseFrameNothingIsHandled(t *testing.T) {
	on(t, func(t *testing.T, s *server) {
		p, c := s.connect(nil)
		c.Out().Send(wsframe.Text([]byte("last")))
		go c.Out().Close(4002, "disconnected")
		p.want("last", "close 4002 disconnected")
		p.write(join(frame(opText, "late"), frame(opPing, "late"), frame(opClose, closePayload(4002, ""))))
		p.want("EOF")
		<-s.served
		if got := s.handled(); got != nil {
			t.Errorf("handled %q", got)
		}
	})
}

func TestAPeerThatVanishesEndsTheSocket(t *testing.T) {
	ends := map[string]func(p *peer){
		"closes": func(p *peer) { p.Close() },
		"closes inside a frame": func(p *peer) {
			p.write(frame(opText, "hello")[:5])
			p.Close()
		},
		"closes inside a message": func(p *peer) {
			p.write(wstest.Masked(opText, "hello"))
			p.Close()
		},
		"closes with much to read": func(p *peer) {
			_, _ = io.ReadFull(p.Reader, make([]byte, 1000))
			p.Close()
		},
		"resets": func(p *peer) {
			if c, ok := p.Conn.(*net.TCPConn); ok {
				_ = c.SetLinger(0)
			}
			p.Close()
		},
	}
	for name, vanish := range ends {
		t.Run(name, func(t *testing.T) {
			on(t, func(t *testing.T, s *server) {
				p, c := s.connect(nil)
				c.Out().Send(wsframe.Text(make([]byte, 500_000)))
				vanish(p)
				if err := <-s.served; err == nil {
					t.Error("Serve = nil")
				}
				if got := s.handled(); got != nil {
					t.Errorf("handled %q", got)
				}
			})
		})
	}
}

// TestHalfAMessageIsNotHandled ends the connection properly, but not the message.
func TestHalfAMessageIsNotHandled(t *testing.T) {
	halves := map[string][]byte{
		"a fragment":                   wstest.Masked(opText, "half"),
		"a fragment and half a header": append(wstest.Masked(opText, "half"), final),
		"half a frame":                 frame(opText, "half")[:8],
		"a header":                     frame(opText, "half")[:6],
		"half a header":                frame(opText, "half")[:1],
	}
	for name, half := range halves {
		t.Run(name, func(t *testing.T) {
			on(t, func(t *testing.T, s *server) {
				p, _ := s.connect(nil)
				p.write(half)
				p.Close()
				if err := <-s.served; err == nil {
					t.Error("Serve = nil")
				}
				if got := s.handled(); got != nil {
					t.Errorf("handled %q", got)
				}
			})
		})
	}
}

// clocked runs a test over pipes with the bubble's clock. The peer reads all that
// comes unless asked not to.
func clocked(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, serve(t, overPipes)) })
}

// wantEnd checks that the socket ends that long after it began.
func (s *server) wantEnd(began time.Time, after time.Duration) {
	s.t.Helper()
	err := <-s.served
	if got := time.Since(began); got != after {
		s.t.Errorf("ended after %v (%v), want %v", got, err, after)
	}
}

func TestAPeerThatAnswersNoCloseFrameIsCutOff(t *testing.T) {
	peers := map[string]func(p *peer){
		"is silent": func(*peer) {},
		"talks on": func(p *peer) {
			for {
				if _, err := p.Write(frame(opText, "still here")); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		},
		"pings on": func(p *peer) {
			for {
				if _, err := p.Write(frame(opPing, "")); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		},
	}
	for name, goOn := range peers {
		t.Run(name, func(t *testing.T) {
			clocked(t, func(t *testing.T, s *server) {
				p, c := s.connect(nil)
				began := time.Now()
				go c.Out().Close(4001, "expired")
				p.want("close 4001 expired")
				go goOn(p)
				s.wantEnd(began, closingTime)
				p.want("EOF")
				<-time.After(time.Minute) // for goOn to notice
			})
		})
	}
}

func TestAMessageThatTricklesInIsCutOff(t *testing.T) {
	trickles := map[string][][]byte{
		"byte by byte":  bytes.SplitAfter(frame(opText, strings.Repeat("x", 900)), nil),
		"in fragments":  append([][]byte{wstest.Masked(opText, "a")}, slicesOf(wstest.Masked(opContinuation, "a"), 900)...),
		"between pings": append([][]byte{wstest.Masked(opText, "a")}, slicesOf(frame(opPong, ""), 900)...),
	}
	for name, pieces := range trickles {
		t.Run(name, func(t *testing.T) {
			clocked(t, func(t *testing.T, s *server) {
				p, _ := s.connect(nil)
				<-time.After(time.Hour) // silence between messages is allowed
				p.write(frame(opText, "whole"))
				synctest.Wait()
				if diff := cmp.Diff([]string{"whole"}, s.handled()); diff != "" {
					t.Fatalf("handled (-want +got):\n%s", diff)
				}
				<-time.After(time.Hour)
				header := 0
				if name == "byte by byte" {
					header = 8
				}
				p.write(bytes.Join(pieces[:header+1], nil))
				began := time.Now()
				go func() {
					for _, piece := range pieces[header+1:] {
						<-time.After(time.Second)
						if _, err := p.Write(piece); err != nil {
							return
						}
					}
				}()
				s.wantEnd(began, 30*time.Second)
				if got := s.handled(); got != nil {
					t.Errorf("handled %q", got)
				}
				<-time.After(time.Minute)
			})
		})
	}
}

func slicesOf(b []byte, n int) (all [][]byte) {
	for range n {
		all = append(all, b)
	}
	return all
}

func TestAPeerThatGivesNoSignOfLifeIsKilled(t *testing.T) {
	clocked(t, func(t *testing.T, s *server) {
		p, c := s.connect(nil)
		synctest.Wait()
		c.Beat(time.Minute) // it was just heard
		p.want("0x89 ")
		p.write(frame(opPong, ""))
		synctest.Wait()
		c.Beat(time.Minute)
		p.want("0x89 ")
		p.write(frame(opText, "anything will do"))
		synctest.Wait()
		c.Beat(time.Minute)
		p.want("0x89 ")
		synctest.Wait()
		c.Beat(time.Minute) // nothing came
		p.want("EOF")
		<-s.served
		c.Beat(time.Minute)
	})
}

func TestAPeerThatReadsItsBacklogIsAlive(t *testing.T) {
	clocked(t, func(t *testing.T, s *server) {
		p, c := s.connect(nil)
		text := strings.Repeat("x", 500_000)
		c.Out().Send(wsframe.Text([]byte(text)))
		for range 5 { // the pong could come only when all this is read
			c.Beat(time.Minute)
			if _, err := io.ReadFull(p.Reader, make([]byte, 64<<10)); err != nil {
				t.Fatal(err)
			}
			<-time.After(stallTime / 2)
		}
		go func() { _, _ = io.Copy(io.Discard, p.Reader) }()
		synctest.Wait()
		c.Beat(time.Minute)
		synctest.Wait()
		if c.Out().Closing() {
			t.Error("killed while it read")
		}
		c.Beat(time.Minute) // this one asks
		c.Out().Kill()
		<-s.served
	})
}

func TestAPeerWhoseMessageTakesLongIsNotKilled(t *testing.T) {
	clocked(t, func(t *testing.T, s *server) {
		s.texts = make(chan string) // Handle waits for the test
		p, c := s.connect(nil)
		p.write(frame(opText, "join"))
		go func() { _, _ = io.Copy(io.Discard, p.Reader) }()
		for range 5 { // nobody reads what the peer could answer
			synctest.Wait()
			c.Beat(time.Minute)
		}
		if c.Out().Closing() {
			t.Error("killed while its message was handled")
		}
		<-s.texts
		synctest.Wait()
		c.Beat(time.Minute) // asks
		synctest.Wait()
		c.Beat(time.Minute) // nothing came
		<-s.served
	})
}

func TestAPeerThatReadsNotEvenAPingIsKilled(t *testing.T) {
	clocked(t, func(t *testing.T, s *server) {
		_, c := s.connect(nil)
		synctest.Wait()
		began := time.Now()
		c.Beat(time.Minute) // hangs in the pipe: there is a backlog from now on
		synctest.Wait()
		c.Beat(time.Minute)
		s.wantEnd(began, 0)
	})
}

func TestAPeerThatReadsNothingIsKilled(t *testing.T) {
	clocked(t, func(t *testing.T, s *server) {
		_, c := s.connect(nil)
		began := time.Now()
		c.Out().Send(wsframe.Text([]byte("hi")))
		s.wantEnd(began, stallTime)
		if got := s.ws.Totals.Slow.Load(); got != 1 {
			t.Errorf("slow = %d, want 1", got)
		}
	})
}

func TestAPeerThatPingsButReadsNothingIsClosed(t *testing.T) {
	clocked(t, func(t *testing.T, s *server) {
		p, c := s.connect(nil)
		pings := bytes.Repeat(frame(opPing, strings.Repeat("x", 125)), 900)
		for began := time.Now(); !c.Out().Closing(); <-time.After(time.Second) {
			if time.Since(began) > time.Minute {
				t.Fatal("not closed in a minute")
			}
			p.write(pings)
			synctest.Wait()
		}
		p.Close()
		<-s.served
		if got := s.ws.Totals.Slow.Load(); got != 1 {
			t.Errorf("slow = %d, want 1", got)
		}
	})
}

func TestAPeerThatSendsTooManyFramesIsClosed(t *testing.T) {
	for name, frames := range map[string][]byte{
		"pings":     bytes.Repeat(frame(opPing, ""), 10_000),
		"pongs":     bytes.Repeat(frame(opPong, ""), 10_000),
		"fragments": append(wstest.Masked(opText, ""), bytes.Repeat(wstest.Masked(opContinuation, ""), 10_000)...),
	} {
		t.Run(name, func(t *testing.T) {
			on(t, func(t *testing.T, s *server) {
				p, _ := s.connect(nil)
				go p.Write(frames) // it does not get all of it out
				for {
					got := p.next()
					if got == "close 4005 frames too fast" {
						break
					}
					if got != "0x8a " {
						t.Fatalf("frame = %q, want a pong or the close frame", got)
					}
				}
				p.Close()
				if err := <-s.served; err == nil {
					t.Error("it ends without a cause")
				}
			})
		})
	}
}

func TestAsManyFramesAsMessagesNeedAreFine(t *testing.T) {
	clocked(t, func(t *testing.T, s *server) {
		p, _ := s.connect(nil)
		for range 100 {
			message := wstest.Masked(opText, "")
			for range 900 {
				message = append(message, wstest.Masked(opContinuation, "x")...)
			}
			p.write(join(message, frame(opContinuation, "")))
			if got := <-s.texts; len(got) != 900 {
				t.Fatalf("a message of %d bytes, want 900", len(got))
			}
			<-time.After(time.Second)
		}
		whole := bytes.Repeat(frame(opText, "x"), 10_000)
		go p.write(whole)
		for range 10_000 {
			<-s.texts
		}
	})
}

// Each message has a time of its own, also when the peer sends them without a
// pause and they are handled slowly: reads seldom end where messages do.
func TestMessagesInARowEachHaveTheirTime(t *testing.T) {
	clocked(t, func(t *testing.T, s *server) {
		const messages = 150
		p, c := s.connect(nil)
		go p.write(bytes.Repeat(frame(opText, strings.Repeat("m", 700)), messages))
		synctest.Wait() // as many are handled as texts holds
		<-time.After(time.Minute)
		for range messages {
			if text := <-s.texts; len(text) != 700 {
				t.Fatalf("handled %.20q…", text)
			}
		}
		synctest.Wait()
		if c.Out().Closing() {
			t.Error("killed although every message was whole")
		}
		c.Out().Kill()
		<-s.served
	})
}

// A peer that reads slowly and talks meanwhile gets all that waits for it, and
// has its time to answer the close frame from when that is written.
func TestTheCloseFrameBehindABacklogArrives(t *testing.T) {
	s := serve(t, overTCP)
	s.ws.Limits.Closing = time.Second // for each 64 KiB, and the answer
	s.ws.Limits.Backlog = 64 << 20
	p, c := s.connect(nil)
	for _, text := range []string{"talks", "talks again"} {
		p.write(frame(opText, text))
		<-s.texts
	}
	const blocks, block = 30, 1 << 20
	for range blocks {
		c.Out().Send(wsframe.Text(bytes.Repeat([]byte("b"), block)))
	}
	c.Out().Close(4001, "the end")
	pace := time.NewTicker(90 * time.Millisecond)
	defer pace.Stop()
	for range blocks {
		<-pace.C
		p.write(frame(opPing, "alive"))
		if got := p.next(); len(got) != block {
			t.Fatalf("got %.40q, want a block", got)
		}
	}
	p.want("close 4001 the end")
	p.write(frame(opClose, closePayload(4001, "")))
	p.want("EOF")
	<-s.served
}
