package wsconn_test

import (
	"bufio"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/reto10/chat/internal/wsconn"
	"github.com/reto10/chat/internal/wsframe"
)

// link makes the two ends of a connection: the outbox's and the peer's.
type link struct {
	name string
	make func(t testing.TB) (ours, peers net.Conn)
}

// links are the connections that an outbox may get. The TCP one has buffers as
// small as loopback bears without stuttering, so that a backlog is soon there.
var links = []link{
	{"TCP", func(t testing.TB) (net.Conn, net.Conn) { return tcp(t, 32<<10) }},
	{"pipe", pipe},
	{"TLS over TCP", func(t testing.TB) (net.Conn, net.Conn) {
		return encrypted(t, func(t testing.TB) (net.Conn, net.Conn) { return tcp(t, 32<<10) })
	}},
}

// onLinks runs a test on each kind of connection.
func onLinks(t *testing.T, test func(t *testing.T, ours, peers net.Conn)) {
	for _, l := range links {
		t.Run(l.name, func(t *testing.T) {
			ours, peers := l.make(t)
			test(t, ours, peers)
		})
	}
}

func closeBoth(t testing.TB, a, b net.Conn) {
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
}

func pipe(t testing.TB) (ours, peers net.Conn) {
	ours, peers = net.Pipe()
	closeBoth(t, ours, peers)
	return ours, peers
}

// tcp is a pair of TCP sockets; buffer 0 leaves the kernel's defaults.
func tcp(t testing.TB, buffer int) (ours, peers net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peers, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ours, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if buffer > 0 {
		if err := ours.(*net.TCPConn).SetWriteBuffer(buffer); err != nil {
			t.Fatal(err)
		}
		if err := peers.(*net.TCPConn).SetReadBuffer(buffer); err != nil {
			t.Fatal(err)
		}
	}
	closeBoth(t, ours, peers)
	return ours, peers
}

// encrypted is TLS over another pair, handshake done.
func encrypted(t testing.TB, under func(testing.TB) (net.Conn, net.Conn)) (ours, peers net.Conn) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	a, b := under(t)
	server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: private}}})
	client := tls.Client(b, &tls.Config{InsecureSkipVerify: true}) // the test's own certificate
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	// A server's session tickets come behind its handshake: a pipe's have to be read.
	go func() { _, _ = server.Write([]byte("!")) }()
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return server, client
}

// readFrame reads one whole unmasked frame; err is io.EOF between two frames only.
func readFrame(r *bufio.Reader) (opcode byte, payload []byte, err error) {
	first, err := r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	var head [8]byte
	read := func(n int) uint64 {
		if err == nil {
			head = [8]byte{}
			_, err = io.ReadFull(r, head[8-n:])
		}
		return binary.BigEndian.Uint64(head[:])
	}
	n := read(1)
	switch n {
	case 126:
		n = read(2)
	case 127:
		n = read(8)
	}
	if err == nil && (first&0xf0 != 0x80 || n > 1<<24) {
		err = fmt.Errorf("a frame begins with %#x and has %d bytes", first, n)
	}
	if err == nil {
		payload = make([]byte, n)
		_, err = io.ReadFull(r, payload)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("broken frame: %w", noEOF(err))
	}
	return first & 0x0f, payload, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readAll reads frames until the end, and fails on anything that is no frame. A
// text is given as it is, any other as its opcode and payload.
func readAll(t testing.TB, conn net.Conn) (frames []string) {
	t.Helper()
	r := bufio.NewReaderSize(conn, 512)
	for {
		frame, err := next(r)
		if err == io.EOF {
			return frames
		}
		if err != nil {
			t.Fatalf("after %d frames: %v", len(frames), err)
		}
		frames = append(frames, frame)
	}
}

func next(r *bufio.Reader) (string, error) {
	opcode, payload, err := readFrame(r)
	switch {
	case err != nil:
		return "", err
	case opcode == 1:
		return string(payload), nil
	case opcode == 8 && len(payload) >= 2:
		return fmt.Sprintf("close %d %s", binary.BigEndian.Uint16(payload), payload[2:]), nil
	}
	return fmt.Sprintf("%d:%s", opcode, payload), nil
}

// outbox makes one with limits that no test but those about them reaches.
func outbox(t testing.TB, conn net.Conn, change ...func(*wsconn.Limits)) (*wsconn.Outbox, *wsconn.Totals) {
	server := &wsconn.Server{Limits: wsconn.Limits{
		Backlog: 1 << 30, Stall: time.Minute, Closing: 30 * time.Second,
		Slow: wsframe.Close(4003, "too slow"),
	}}
	for _, c := range change {
		c(&server.Limits)
	}
	totals := &server.Totals
	o := wsconn.NewOutbox(conn, server)
	t.Cleanup(func() {
		o.Kill()
		o.Kill()
		if got := totals.Backlog.Load(); got != 0 {
			t.Errorf("backlog of all outboxes is %d after the only one's end", got)
		}
	})
	return o, totals
}

// end closes the connection as its owner does: when all is written.
func end(o *wsconn.Outbox) {
	<-o.Idle()
	o.Kill()
}
