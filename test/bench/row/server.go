package row

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/reto10/chat/test/bench/peer"
)

const (
	startTime = 10 * time.Second
	stopTime  = 5 * time.Second
)

// config is what a row sets of a server.
type config struct {
	kind       string
	tls        bool
	backlog    int
	heartbeat  time.Duration
	sendBuffer int
	direct     bool // messages go to single users
	history    bool // keep messages
	procs      int  // GOMAXPROCS; 0: 1
}

// server is the process of a server.
type server struct {
	peer.Ready
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{} // closed when the process has
}

func (l *Lab) start(ctx context.Context, c config) (*server, error) {
	program, built := l.Programs[c.kind]
	if !built {
		return nil, fmt.Errorf("starting server %s: its program is not built", c.kind)
	}
	args := []string{"-kind", c.kind, "-core", strconv.Itoa(l.ServerCore),
		"-tls=" + strconv.FormatBool(c.tls), "-backlog", strconv.Itoa(c.backlog),
		"-heartbeat", c.heartbeat.String(), "-sndbuf", strconv.Itoa(c.sendBuffer),
		"-direct=" + strconv.FormatBool(c.direct), "-history=" + strconv.FormatBool(c.history)}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), peer.SecretVariable+"="+hex.EncodeToString(l.Secret), "GOMAXPROCS="+strconv.Itoa(max(c.procs, 1)))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting server %s: %w", c.kind, err)
	}
	s := &server{cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		ready <- json.NewDecoder(stdout).Decode(&s.Ready)
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait() // it is ended by us
		close(s.ended)
	}()
	select {
	case err = <-ready:
	case <-time.After(startTime):
		err = errors.New("it does not listen")
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("starting server %s: %w", c.kind, err)
	}
	return s, nil
}

// stop ends the process.
func (s *server) stop() {
	_ = s.stdin.Close()
	select {
	case <-s.ended:
	case <-time.After(stopTime):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
}

// order is a publish request; see peer's control.
type order struct {
	n, size, channels, users, publishers int
	every                                time.Duration
}

func (s *server) publish(ctx context.Context, o order) error {
	q := url.Values{"n": {strconv.Itoa(o.n)}, "size": {strconv.Itoa(o.size)},
		"channels": {strconv.Itoa(o.channels)}, "users": {strconv.Itoa(o.users)},
		"publishers": {strconv.Itoa(o.publishers)}, "every": {o.every.String()}}
	return s.call(ctx, http.MethodPost, "/publish?"+q.Encode(), nil)
}

// usage reads what the server has used so far. With collected, it runs a garbage collection
// before it reads the memory.
func (s *server) usage(ctx context.Context, collected bool) (u peer.Usage, err error) {
	path := "/usage"
	if collected {
		path += "?collect=1"
	}
	return u, s.call(ctx, http.MethodGet, path, &u)
}

func (s *server) call(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Control+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode >= 300:
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, body)
	case into == nil:
		return nil
	}
	return json.Unmarshal(body, into)
}
